"""`orchestrator run PATH`: run a DAG on this machine, or finish a run that was left, and show it.

The run belongs to its bucket, not to this process: whatever ends the process early, the run is taken up
with --resume where it was left.
"""

import os
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import CRITICAL, getLogger
from pathlib import Path

from orchestrator.cli.about import untold_lines
from orchestrator.cli.board import board, without_items
from orchestrator.cli.bucket import Bucket, open_to_read
from orchestrator.cli.children import Beside, starts_others, tasks_by_folder
from orchestrator.cli.console import Console
from orchestrator.cli.definitions import find, load
from orchestrator.cli.follow import Interrupted, News, follow
from orchestrator.cli.inputs import read_inputs
from orchestrator.cli.lines import counted, line, listed, plain
from orchestrator.cli.progress import View, view_for
from orchestrator.cli.queues import waiting_lines
from orchestrator.cli.sources import missing_modules, missing_sources
from orchestrator.cli.status import exit_code
from orchestrator.cli.summary import one_line, summary
from orchestrator.cli.trouble import Trouble
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.redrive_plan import Plan
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import DefinitionStatus, marker_of
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import InputError, RunExists
from orchestrator.model.ids import RUN_ID
from orchestrator.model.nodes import Task
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunState
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.jobs import missing_settings
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.settings import Settings

_CHILDREN_S = 0.1
"""How often it is looked whether child runs have ended that outlive their parent."""

_RUN_ID_HOW = "write 1 to 128 of A-Z a-z 0-9 _ -, beginning with a letter or digit"


@dataclass(frozen=True, slots=True)
class Redrive:
    """A run that has ended and is to go on: from where it failed or, again, from a step."""

    run_id: str
    start_from: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be run, and how it is to be shown."""

    path: Path
    inputs: tuple[str, ...] = ()
    bucket: str | None = None
    resume: str | None = None
    run_id: str | None = None
    is_json: bool = False
    is_verbose: bool = False
    variables: tuple[str, ...] = ()
    priority: int | None = None
    redrive: Redrive | None = None

    def command(self, *more: str) -> str:
        """Return a command of this kind as a person types it."""
        bucket = ("--bucket", self.bucket) if self.bucket else ()
        return shlex.join(("orchestrator", "run", str(self.path), *more, *bucket))

    @property
    def again(self) -> str:
        """The command that starts such a run anew."""
        given = (("--input", self.inputs), ("--var", self.variables))
        return self.command(*(word for option, values in given if values for word in (option, *values)))


def run(console: Console, wanted: Wanted, settings: Settings) -> int:
    """Run it, show it, and return the exit code."""
    _check(wanted)
    # As python -m has it: Function steps are importable from where the command is started.
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.insert(0, os.getcwd())
    session = _Session(console, wanted, settings)
    try:
        with console.output_kept_clean() if wanted.is_json else nullcontext():
            if wanted.redrive:
                state = session.redrive(wanted.redrive)
            else:
                state = session.resume(wanted.resume) if wanted.resume else session.start()
    except Interrupted as exc:
        console.err(f"interrupted; {session.how_to_finish}")
        return 128 + exc.signum
    if wanted.is_json:
        console.document(encode(state))
        if exit_code(state):
            console.err(f"orchestrator: {one_line(state)}")
    return exit_code(state)


def _check(wanted: Wanted) -> None:
    for option, value, what in (
        ("--input", wanted.inputs, "input"),
        ("--var", wanted.variables, "variables"),
        ("--run-id", wanted.run_id, "id"),
        ("--priority", wanted.priority is not None, "priority"),
    ):
        if wanted.resume and value:
            raise InputError(f"run: {option} and --resume do not go together; a run that was started has its {what}")
    if wanted.run_id is not None and not RUN_ID.fullmatch(wanted.run_id):
        raise InputError(f'run: --run-id "{wanted.run_id}" is no run id; {_RUN_ID_HOW}')


class _Session:
    """One run, from its start or where it was left up to its end."""

    def __init__(self, console: Console, wanted: Wanted, settings: Settings) -> None:
        self._console, self._wanted, self._settings = console, wanted, settings
        self._url = wanted.bucket or settings.status_bucket
        self._news, self._trouble = News(), Trouble()
        self._run_id = ""
        self._folder = wanted.path

    @property
    def how_to_finish(self) -> str:
        """What a person can do about a run that this process leaves."""
        if self._url.startswith("memory://"):
            return f"the run was kept in {self._url} and is gone"
        return f"finish it with: {self._wanted.command('--resume', self._run_id)}"

    def start(self) -> RunState:
        """Start a run and return it as it ended."""
        loaded = load(self._wanted.path)
        self._folder = loaded.folder
        run_input = read_inputs(self._wanted.inputs)
        beside = Beside(loaded.name, loaded.file, loaded.definition)
        for folder, tasks in tasks_by_folder(loaded.name, self._folder, loaded.dag, beside).values():
            check_sources(tasks, folder, self._settings)
        view = view_for(self._console, is_json=self._wanted.is_json, is_verbose=self._wanted.is_verbose)
        folders = beside.folders if starts_others(loaded.dag.all_tasks) else {loaded.name: self._folder}
        with self._executor(Catalog(beside, loaded.name), folders) as executor:
            try:
                priority = self._wanted.priority
                self._run_id = executor.start(loaded.name, run_input, run_id=self._wanted.run_id, priority=priority)
            except RunExists as exc:
                resume = self._wanted.command("--resume", str(self._wanted.run_id))
                raise InputError(f"{exc}, or finish that one with: {resume}") from exc
            self._say_that_it_starts(executor, view, loaded.name, "started")
            state = self._to_its_end(executor, view)
        self._show_summary(state)
        return state

    def resume(self, run_id: str) -> RunState:
        """Take up a run and return it as it ended."""
        name, file = find(self._wanted.path)
        self._folder = file.parent
        bucket = open_to_read(self._wanted.bucket, self._settings)
        state, self._run_id = bucket.load(run_id), run_id
        if state.run.dag != name:
            raise InputError(f'run {run_id}: is one of "{state.run.dag}"; {self._wanted.path} is "{name}"')
        if state.run.status.is_final:
            self._console.err(f"run {run_id} has ended already")
            marker = marker_of(run_id, state.run.redrives)  # there still where its process was killed as it had ended
            if state.run.owed_notifications or bucket.store.get(marker) is not None:
                with self._executor(Catalog({}), {name: self._folder}) as executor:
                    executor.resume(run_id)
            if not self._wanted.is_json:
                self._console.styled(board(state, _now(), *self._console.size, self._console.signs))
            self._show_summary(state)
            return state
        dag, beside = DefinitionStatus(bucket.store).load(state.run.definition), Beside(name, file)
        over = {name for name, node in state.nodes.items() if node.status.is_final}
        for child, (folder, tasks) in tasks_by_folder(name, self._folder, dag, beside).items():
            left = (task for task in tasks if child != name or task.node_name not in over)
            check_sources(left, folder, self._settings)
        folders = beside.folders if starts_others(dag.all_tasks) else {name: self._folder}
        view = view_for(self._console, is_json=self._wanted.is_json, is_verbose=self._wanted.is_verbose, before=state)
        with self._executor(Catalog(beside), folders) as executor:
            steps = without_items(state).nodes
            ended = sum(node.status.is_final for node in steps.values())
            view.say(f"run {run_id} of {name} taken up; {ended:,} of {counted(len(steps), 'step')} had ended", _now())
            executor.resume(run_id)
            self._say_what_waits(executor)
            state = self._to_its_end(executor, view)
        self._show_summary(state)
        return state

    def redrive(self, wanted: Redrive) -> RunState:
        """Let a run that has ended go on, and return it as it ended then."""
        name, file = find(self._wanted.path)
        self._folder = file.parent
        bucket = open_to_read(self._wanted.bucket, self._settings)
        state, self._run_id = bucket.load(wanted.run_id), wanted.run_id
        if state.run.dag != name:
            raise InputError(f'run {wanted.run_id}: is one of "{state.run.dag}"; {self._wanted.path} is "{name}"')
        dag, beside = DefinitionStatus(bucket.store).load(state.run.definition), Beside(name, file)
        again = {*Plan.of_run(dag, state, wanted.start_from).again}
        for child, (folder, tasks) in tasks_by_folder(name, self._folder, dag, beside).items():
            check_sources(
                (x for x in tasks if child != name or x.node_name in again or x.node_name not in state.nodes),
                folder,
                self._settings,
            )
        folders = beside.folders if starts_others(dag.all_tasks) else {name: self._folder}
        view = view_for(self._console, is_json=self._wanted.is_json, is_verbose=self._wanted.is_verbose, before=state)
        with self._executor(Catalog(beside), folders) as executor:
            nodes = without_items(state).nodes
            kept = sum(node.status is TaskStatus.COMPLETED for name, node in nodes.items() if name not in again)
            executor.redrive(wanted.run_id, wanted.start_from)
            steps = f"{kept:,} of {counted(len(nodes), 'step')} had completed"
            self._say_that_it_starts(executor, view, name, f"goes on; {steps}")
            state = self._to_its_end(executor, view)
        self._show_summary(state)
        return state

    @contextmanager
    def _executor(self, catalog: Catalog, folders: Mapping[str, Path]) -> Iterator[DAGExecutor]:
        """Hold an executor that tells its news here; it is closed while a second ctrl-C would kill."""
        logger = getLogger("orchestrator")
        logger.addHandler(self._trouble)
        try:
            with (
                self._news,
                DAGExecutor(
                    catalog,
                    self._wanted.bucket,
                    folders=folders,
                    settings=self._settings,
                    variables={**self._settings.variables, **read_inputs(self._wanted.variables, "--var")},
                    on_saved=self._saved,
                ) as executor,
            ):
                try:
                    yield executor
                except Interrupted:
                    logger.setLevel(CRITICAL)  # what breaks off now breaks off because we asked for it
                    raise
                except Exception as exc:
                    if self._run_id:
                        exc.add_note(self.how_to_finish)
                    raise
        finally:
            logger.removeHandler(self._trouble)

    def _saved(self, saved: Saved) -> None:
        self._trouble.saved()
        run = saved.after.run
        if run.run_id == self._run_id or (not self._run_id and run.parent is None):  # its child runs are not shown
            self._news.saved(saved.after)

    def _say_that_it_starts(self, executor: DAGExecutor, view: View, dag: str, words: str) -> None:
        """Say that it has started, or goes on; or else that it will, and what it waits for."""
        latest = self._news.latest
        if latest is None or not latest.run.waits_for_slot:
            at = _now() if latest is None or latest.run.redrives else latest.run.started_at
            view.say(f"run {self._run_id} of {dag} {words}", at)
            return
        view.say(f"run {self._run_id} of {dag} is queued", _now())
        view.show(latest, _now())
        self._say_what_waits(executor)

    def _say_what_waits(self, executor: DAGExecutor) -> None:
        """Say what a run waits for that does not begin, and what to do about who is before it."""
        latest = self._news.latest
        if latest is None or not latest.run.waits_for_slot:
            return
        bucket = Bucket(self._url, executor.store)
        for each in waiting_lines(latest, bucket):
            self._console.err(f"run {self._run_id} {plain(each)}")

    def _to_its_end(self, executor: DAGExecutor, view: View) -> RunState:
        bucket = Bucket(self._url, executor.store)
        try:
            follow(
                self._news,
                view,
                lambda: bucket.load(self._run_id),
                _now,
                self._trouble.check,
                self._trouble.told,
            )
        finally:
            view.close()
        state = executor.wait(self._run_id)
        self._await_children(executor)
        return state

    def _await_children(self, executor: DAGExecutor) -> None:
        """Let child runs end that outlive their parent: those that were cancelled, and what they still have to do."""
        left = executor.open_run_ids
        if left:
            words = f"{counted(len(left), 'child run')} still to end: {listed(left)}"
            self._console.err(f"run {self._run_id} has ended; {words}")
        while executor.open_run_ids:
            self._trouble.check()
            self._news.wait(_CHILDREN_S)

    def _show_summary(self, state: RunState) -> None:
        if self._wanted.is_json:
            return
        bucket = Bucket(self._url, open_store(self._url))
        again = self._wanted.again
        example = self._folder / "input.json"
        if (self._wanted.resume or self._wanted.redrive) and state.run.input:
            again = self._wanted.command("--input", "FILE")
        elif not self._wanted.inputs and example.is_file():
            again = self._wanted.command("--input", str(example))
        self._console.out("")
        where = ("--bucket", self._wanted.bucket) if self._wanted.bucket else ()
        redrive = shlex.join(("orchestrator", "redrive", self._run_id, str(self._wanted.path), *where))
        is_kept = not self._url.startswith("memory://")
        self._console.styled(summary(state, bucket, _now(), self._console.size[0], again, redrive if is_kept else None))
        if state.run.owed_notifications and is_kept:
            self._say_what_is_not_told(bucket)

    def _say_what_is_not_told(self, bucket: Bucket) -> None:
        """Say who has not been told of an event of the run, now that nobody tries any more, and what to do."""
        state = bucket.find(self._run_id)
        if state is None:
            return
        self._console.styled(untold_lines(state))
        if state.run.owed_notifications:
            self._console.styled([line("try that again, after a minute or more, with:", "dim")])
            self._console.out(f"  {self._wanted.command('--resume', self._run_id)}")


def check_sources(tasks: Iterable[Task], folder: Path, settings: Settings) -> None:
    """Raise InputError with all that Tasks of a DAG lack to run here."""
    tasks = tuple(tasks)
    found = [
        *missing_sources(tasks, folder),
        *missing_modules(tasks),
        *missing_settings(tasks, settings, os.environ),
        *_missing_pools(tasks, settings),
    ]
    if found:
        raise InputError("\n".join(found))


def _missing_pools(tasks: Iterable[Task], settings: Settings) -> Iterator[str]:
    """Yield a problem for each pool that POOLS says nothing of: its steps would fail."""
    for pool in sorted({task.pool for task in tasks if task.pool is not None} - settings.pools.keys()):
        there = f"; there are {', '.join(sorted(settings.pools))}" if settings.pools else ""
        yield f'POOLS: gives the pool "{pool}" no limit; set it, as in POOLS={pool}=5{there}'


def _now() -> datetime:
    return datetime.now(UTC)
