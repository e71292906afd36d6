"""SimulatedRun: what became of a run in a simulation, for a test to look at. A value."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches

import msgspec

from orchestrator.model.commands import Failure, Json, Launch, Notify
from orchestrator.model.enums import RunStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunState
from orchestrator.testing.errors import SimulationError


@dataclass(frozen=True, slots=True, repr=False)
class SimulatedRun:
    """A run as it stands.

    Attributes:
        state: the run and its nodes, as the engine has them.
        path: names of the nodes that were started, in the order in which they were; each once.
        all_launches: what was launched for it, in order, each launch once.
        all_cancelled: those of them that were cancelled at their target.
        all_results: node name -> result, also of those that are too large for the run document.
        notifications: what was sent to a `topic` or `url`: `payload` and which of the two, each once.
        parts: the runs of the parts of its Maps with long lists, in which a node is looked for by its name, too.
    """

    state: RunState
    path: list[str]
    all_launches: tuple[Launch, ...]
    all_cancelled: tuple[Launch, ...]
    all_results: Mapping[str, Json]
    notifications: tuple[Notify, ...]
    parts: tuple["SimulatedRun", ...] = ()

    @property
    def run_id(self) -> str:
        """Its id."""
        return self.state.run.run_id

    @property
    def status(self) -> RunStatus:
        """Its status, equal to its name: "Completed", "Failed", "Cancelled"."""
        return self.state.run.status

    @property
    def error(self) -> Failure | None:
        """Why it failed: `error_type`, `message`, `node`."""
        return self.state.run.error

    @property
    def took(self) -> timedelta:
        """Virtual time from its start to its end. Raises SimulationError: it has not ended."""
        ended_at = self.state.run.ended_at
        if ended_at is None:
            raise SimulationError(f"run {self.run_id}: has not ended")
        return ended_at - self.state.run.started_at

    @property
    def document(self) -> dict[str, Json]:
        """What stands in `runs/<run_id>.json`."""
        document: dict[str, Json] = msgspec.json.decode(encode(self.state))
        return document

    def node(self, name: str) -> NodeState:
        """Return a node: `status`, `attempt`, `result`, `error`, `started_at`, …; or raise SimulationError."""
        return self._with(name).state.nodes[name]

    def result(self, name: str) -> Json:
        """Return the result of a node, also one that is too large for the run document."""
        return self._with(name).all_results[name]

    def launches(self, name: str) -> list[Launch]:
        """Return what was launched for a node, by attempt: `parameters`, `attempt`, `target_name`, `step`, …"""
        return [launch for launch in self._with(name).all_launches if launch.node_name == name]

    def cancelled(self, name: str) -> list[Launch]:
        """Return the launches of a node whose executions were cancelled."""
        return [launch for launch in self._with(name).all_cancelled if launch.node_name == name]

    def _with(self, name: str) -> "SimulatedRun":
        """Return the run, or that of a part, that has a node. Raises SimulationError."""
        found = self._find(name)
        if found is None:
            known = self.state.nodes
            near = get_close_matches(name, known, 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(known)}"
            raise SimulationError(f'run {self.run_id}: has no node "{name}"{hint}')
        return found

    def _find(self, name: str) -> "SimulatedRun | None":
        if name in self.state.nodes:
            return self
        return next((found for part in self.parts if (found := part._find(name)) is not None), None)

    def __repr__(self) -> str:
        """A line for the run and one for each node: what a failed assertion shows."""
        run = self.state.run
        lines = [f"run {run.run_id} of {run.dag}: {run.status}{_words(run.error)}, by {' > '.join(self.path)}"]
        for name, node in self.state.nodes.items():
            attempt = f" (attempt {node.attempt})" if node.attempt else ""
            result = f" {_short(node.result)}" if node.result is not None else ""
            lines.append(f"  {name}: {node.status}{attempt}{result}{_words(node.error)}")
        return "\n".join(lines)


def _words(error: Failure | None) -> str:
    return f", {error.error_type}: {error.message}" if error else ""


def _short(value: Json) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else f"{text[:77]}..."
