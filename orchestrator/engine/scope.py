"""What the expressions of a definition can see of a run. Pure."""

from collections.abc import Iterator, Mapping

from orchestrator.model.commands import Json
from orchestrator.model.enums import TaskStatus
from orchestrator.model.run_state import NodeState, RunInfo


class Steps(Mapping[str, Mapping[str, Json]]):
    """`steps` of a scope: name -> result and status, made only for the names that are asked for."""

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        node = self._nodes[name]
        status: dict[str, Json] = {"status": node.status.value}
        return {"result": node.result, **status} if node.status is TaskStatus.COMPLETED else status

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def scope_of(run: RunInfo, nodes: Mapping[str, NodeState], node: NodeState) -> Mapping[str, object]:
    """Return what the expressions of a node can see.

    `run`: `run_id dag input started_at scheduled_for status`; `scheduled_for` is null in a run that no schedule
    started, `status` is Running and, for a `finally`, how the run will end. `steps`: of each step its `status`, and its
    `result` if it completed. `error`: what an `on_error` has caught that led here; for a `finally`, the run's.
    """
    caught = nodes[node.caught].error if node.caught is not None else None
    if caught is None and run.ending is not None:
        caught = run.ending.error
    error = (
        {"type": caught.error_type, "message": caught.message, "node": caught.node or node.caught or ""}
        if caught
        else {}
    )
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
        "error": error,
    }
