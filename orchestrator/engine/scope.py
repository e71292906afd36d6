"""What the expressions of a definition can see of a run. Pure."""

from collections.abc import Iterator, Mapping

from orchestrator.model.commands import Json
from orchestrator.model.run_state import NodeState, RunInfo


class Steps(Mapping[str, Mapping[str, Json]]):
    """`steps` of a scope: name -> result and status, made only for the names that are asked for."""

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        node = self._nodes[name]
        return {"result": node.result, "status": node.status.value}

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


def scope_of(run: RunInfo, nodes: Mapping[str, NodeState]) -> Mapping[str, object]:
    """Return the scope of a run: `run.run_id`, `dag`, `input`, `started_at`, `scheduled_for`, and `steps`.

    `scheduled_for` is null in a run that no schedule started.
    """
    return {
        "run": {
            "run_id": run.run_id,
            "dag": run.dag,
            "input": run.input,
            "started_at": run.started_at.isoformat().replace("+00:00", "Z"),
            "scheduled_for": run.scheduled_for and run.scheduled_for.isoformat().replace("+00:00", "Z"),
        },
        "steps": Steps(nodes),
    }
