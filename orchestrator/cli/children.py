"""Dag and Callback Tasks for the command line: DAGs beside one another, child runs, answers that are waited for."""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.cli.board import STYLES, target_of, without_items
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, printable
from orchestrator.cli.steps import Step, steps_of
from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.enums import TargetTypes, TaskStatus
from orchestrator.model.errors import DefinitionError, OrchestratorError
from orchestrator.model.node_state import NodeState
from orchestrator.model.nodes import Task
from orchestrator.model.run_state import RunState, child_of
from orchestrator.model.words import at, did_you_mean, listed
from orchestrator.runtime.catalog import DagFolders, definition_file

_MAX_SHOWN = 10


class Beside(Mapping[str, Mapping[str, Json]]):
    """DAG name -> definition: of one DAG, and of those whose folders lie beside its own.

    Attributes:
        folders: DAG name -> its folder, of those that are asked for.
    """

    def __init__(self, name: str, file: Path, definition: Mapping[str, Json] | None = None) -> None:
        self._name, self._file, self._definition = name, file, definition
        is_folder = definition_file(file.parent) == file and file.resolve().parent.name == name
        is_needed = definition is None or bool(_dag_steps(definition))  # else it may lie among any number of folders
        self._others = DagFolders(file.resolve().parent.parent) if is_folder and is_needed else None

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        if name == self._name and self._definition is not None:
            return self._definition
        if self._others is None:
            raise KeyError(name)
        return self._others[name]

    def __iter__(self) -> Iterator[str]:
        own = () if self._definition is None else (self._name,)
        yield from dict.fromkeys((*own, *(self._others or ())))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Whether there is one of this name, which may break rules."""
        return any(name == each for each in self)

    @property
    def are_known(self) -> bool:
        """Whether it is known which DAGs there are: one in a file of its own may be meant to be put anywhere."""
        return self._others is not None

    @property
    def folders(self) -> Mapping[str, Path]:
        """DAG name -> its folder."""
        return {**(self._others.folders if self._others is not None else {}), self._name: self._file.parent}


def starts_others(tasks: tuple[Task, ...]) -> bool:
    """Whether a DAG of these tasks has child runs."""
    return any(task.target_type is TargetTypes.DAG for task in tasks)


def tasks_by_folder(name: str, folder: Path, dag: DAG, beside: Beside) -> dict[str, tuple[Path, tuple[Task, ...]]]:
    """Return DAG name -> its folder and tasks, of a DAG and all that it starts, directly or not.

    Raises:
        DefinitionError: it starts one that there is not, or that breaks rules.
    """
    found = {name: (folder, dag.all_tasks)}
    waiting = [name]
    folders = beside.folders if starts_others(dag.all_tasks) else {}
    while waiting:
        for task in found[waiting.pop()][1]:
            child = task.target_name
            if task.target_type is not TargetTypes.DAG or child in found:
                continue
            if child not in folders:
                raise DefinitionError([f"step {task.node_name}: {_no_dag(child, beside)}"])
            from orchestrator.cli.definitions import load

            loaded = load(folders[child])
            found[child] = (loaded.folder, loaded.dag.all_tasks)
            waiting.append(child)
    return found


def child_problems(name: str, definition: Mapping[str, Json], beside: Beside) -> Iterator[str]:
    """Yield what is wrong with the DAGs that a definition starts: those that there are not, and itself."""
    if not beside.are_known:
        return
    for step in _dag_steps(definition):
        path = at(step.path, "target_name")
        if step.target_name not in beside:
            yield f"{path}: {_no_dag(step.target_name, beside)}"
        elif way := _way_back(step.target_name, name, beside):
            shown = " -> ".join((name, *way))
            yield f"{path}: makes a cycle of DAGs: {shown}; a run of it would start runs of itself"


def _no_dag(name: str, beside: Beside) -> str:
    near = did_you_mean(name, list(beside)) or f" there are {listed(sorted(beside))}"
    return f'there is no DAG "{printable(name)}";{near}'


def _dag_steps(definition: Mapping[str, Json]) -> list[Step]:
    return [step for step in steps_of(definition) if step.target_type == TargetTypes.DAG and step.target_name]


def _way_back(first: str, to: str, beside: Beside) -> tuple[str, ...]:
    """Return the DAGs by which `first` leads to a run of `to`, both included; none if it does not."""
    ways: dict[str, tuple[str, ...]] = {first: (first,)}
    waiting = [first]
    while waiting:
        name = waiting.pop(0)
        if name == to:
            return ways[name]
        try:
            others = [step.target_name for step in _dag_steps(beside[name])]
        except (KeyError, DefinitionError):
            continue  # it has a line of its own
        for other in others:
            if other not in ways:
                ways[other] = (*ways[name], other)
                waiting.append(other)
    return ()


# -- of a run ------------------------------------------------------------------------------------------


def children(state: RunState, *, are_running: bool = False) -> Iterator[tuple[NodeState, str]]:
    """Yield (its step, run id) of the child runs of a run's current attempts, in definition order."""
    for node in state.nodes.values():
        child = child_of(state.run.run_id, node)
        if child is not None and (not are_running or node.status is TaskStatus.RUNNING):
            yield node, child


def child_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return whose child run it is, and its own child runs with their status, a line each."""
    lines: list[Line] = []
    parent = state.run.parent
    if parent is not None:
        lines.append((("child of: ", "dim"), (f"{parent.run_id}, step {parent.node}, attempt {parent.attempt}", "")))
    found = list(children(state))
    waiting: list[Line] = []
    for node, run_id in found[:_MAX_SHOWN]:
        progress, child = _progress(run_id, bucket)
        lines.append((("child run: ", "dim"), (f"{node.node_name}  {run_id}  ", ""), progress))
        waiting += answer_lines(child, bucket) if child is not None else []
    if len(found) > _MAX_SHOWN:
        lines.append(((f"… and {len(found) - _MAX_SHOWN:,} more child runs", "dim"),))
    return lines + waiting


def _progress(run_id: str, bucket: Bucket) -> tuple[tuple[str, str], RunState | None]:
    """Return how far a child run is, in words with their style, and the run, if it can be read."""
    try:
        state = bucket.find(run_id)
    except OrchestratorError as exc:
        return (printable(str(exc)), "red"), None
    if state is None:
        return ("is not there", "dim"), None
    part = state.run.part_of
    if part is not None and part.map in state.nodes:
        words = target_of(state.nodes[part.map])
    else:
        nodes = without_items(state).nodes
        ended = sum(node.status.is_final for node in nodes.values())
        words = f"{ended:,} of {len(nodes):,} steps ended"
    words = f"{state.run.status}, {words}"
    return (words, STYLES[state.run.status]), state


# -- answers that are waited for -----------------------------------------------------------------------


def waits_for_answer(node: NodeState) -> bool:
    """Whether a step is a Callback that can be answered now."""
    is_callback = node.target_type == TargetTypes.CALLBACK and node.status is TaskStatus.RUNNING
    return is_callback and node.claim is not None and node.owed_cancel is None


def answer_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return who is waited for, what they have to know, and the command that answers; of each Callback that waits."""
    lines: list[Line] = []
    for node in state.nodes.values():
        if not waits_for_answer(node):
            continue
        whom = "" if node.target_name in (None, node.node_name) else f" of {printable(node.target_name or '')}"
        lines.append(((f"{node.node_name} waits for an answer{whom}:", "cyan"),))
        shown = shown_to_approver(state, node, bucket)
        if shown:
            lines.append(((f"  {shown}", ""),))
        bucket_option = f" --bucket {shlex.quote(bucket.url)}"
        command = f"orchestrator approve {state.run.run_id} {shlex.quote(node.node_name)} [--reject]{bucket_option}"
        lines.append(((f"  {command}", ""),))
    return lines


def shown_to_approver(state: RunState, node: NodeState, bucket: Bucket) -> str:
    """Return the parameters of a Callback that waits, as JSON on one line; "" where it has none."""
    import msgspec

    from orchestrator.engine.status import ExecutionStatus
    from orchestrator.model.ids import key_of

    try:
        record = ExecutionStatus(bucket.store).get_execution(key_of(state.launch_id(node.node_name)))
    except OrchestratorError:
        return ""
    if record is None or not record.response:
        return ""
    return printable(msgspec.json.encode(record.response).decode())[:1000]
