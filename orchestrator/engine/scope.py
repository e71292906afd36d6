"""What the expressions of a definition can see of a run. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.model.commands import Json
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.run_state import NodeState, RunInfo


class ResultNeeded(Exception):
    """A decision needs the result of this node, which lies beside the run document."""

    def __init__(self, node_name: str) -> None:
        self.node_name = node_name
        super().__init__(node_name)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """In place of a result that cannot be brought back; why."""

    message: str


class _Stored(Mapping[str, Json]):
    """A step whose result lies beside the run document."""

    def __init__(self, node: NodeState, status: Mapping[str, Json]) -> None:
        self._node, self._status = node, status

    def __getitem__(self, key: str) -> Json:
        if key != "result":
            return self._status[key]
        if isinstance(self._node.result, Spoilt):
            raise ExpressionError(self._node.result.message)
        raise ResultNeeded(self._node.node_name)

    def __iter__(self) -> Iterator[str]:
        return iter(("result", *self._status))

    def __len__(self) -> int:
        return 1 + len(self._status)


class Steps(Mapping[str, Mapping[str, Json]]):
    """`steps` of a scope: name -> result and status, made only for the names that are asked for."""

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        node = self._nodes[name]
        # Only what comes before may be asked about: a step that is New by then was not come by.
        told = TaskStatus.SKIPPED if node.status is TaskStatus.NEW else node.status
        status: dict[str, Json] = {"status": told.value}
        if node.status is not TaskStatus.COMPLETED:
            return status
        if node.stored_result is not None and (node.result is None or isinstance(node.result, Spoilt)):
            return _Stored(node, status)
        return {"result": node.result, **status}

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def scope_of(run: RunInfo, nodes: Mapping[str, NodeState], node: NodeState | None) -> Mapping[str, object]:
    """Return what the expressions of a node can see; with None, those of the run's own `result`.

    `run`: `run_id dag input started_at scheduled_for status`; `scheduled_for` is null in a run that no schedule
    started, `status` is Running and, for a `finally`, how the run will end. `steps`: of each step its `status`, and its
    `result` if it completed; one that lies beside the document raises ResultNeeded. `var`: the variables of the run.
    `error`: what an `on_error` has caught that led here; for a `finally`, the run's.
    """
    catching = node.caught if node is not None else None
    caught = nodes[catching].error if catching is not None else None
    if caught is None and run.ending is not None:
        caught = run.ending.error
    error: dict[str, Json] = {}
    if caught is not None:
        error = {"type": caught.error_type, "message": caught.message, "node": caught.node or catching or ""}
    elif run.ending is not None:
        error = {"type": "", "message": "", "node": ""}  # a finally is written for runs of all kinds
    return {
        "run": {
            "run_id": run.run_id,
            "dag": run.dag,
            "input": run.input,
            "status": (run.ending or run).status.value,
            "started_at": run.started_at.isoformat().replace("+00:00", "Z"),
            "scheduled_for": run.scheduled_for and run.scheduled_for.isoformat().replace("+00:00", "Z"),
        },
        "steps": Steps(nodes),
        "var": run.variables,
        "error": error,
    }
