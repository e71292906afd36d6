"""DagTarget: a step that is a run of another DAG, its child run.

The child's document is written before its launch returns, under a name that follows from the launch, by
compare-and-swap: so there is one however often it is launched, and none that is missing was ever launched. It begins by
a message of its own, which any instance handles; where that is lost, the Tick lets it begin. When it ends, its instance
has the parent ask, which a Tick of the parent does too.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity, RunStatus
from orchestrator.model.errors import CorruptState, LaunchUncertain, OrchestratorError
from orchestrator.model.ids import child_run_id
from orchestrator.model.messages import begin_message, cancel_message
from orchestrator.model.run_document import decode, decode_run
from orchestrator.model.run_state import RunInfo, RunState, run_result
from orchestrator.model.task_result import decode as decode_result
from orchestrator.ports import ObjectStore

log = logging.getLogger("orchestrator")

Make = Callable[[Launch, str], str]
"""Makes the child run of a launch under this run id, once, or lets the one go on that it names; returns its id. Raises
LaunchRefused or LaunchUncertain."""

_CALL_LIMIT_S = 30.0


class DagTarget:
    """Runs of other DAGs.

    Args:
        store: where runs lie.
        publish: to the topic that events come from.
        make: makes child runs.
        begin: publishes what lets a child run begin, where that is not to be delivered as all else is.
        launch_limit_s: how long a launch may take.
    """

    identity: Identity = Identity.FOREVER
    has_outcome: bool = True
    can_cancel: bool = True
    synchronous: bool = False
    id_is_ours: bool = True

    def __init__(
        self,
        store: ObjectStore,
        publish: Callable[[Mapping[str, Json]], object],
        make: Make,
        *,
        begin: Callable[[Mapping[str, Json]], object] | None = None,
        launch_limit_s: float = _CALL_LIMIT_S,
    ) -> None:
        self._store, self._publish, self._make = store, publish, make
        self._begin = begin or publish
        self.launch_limit_s = launch_limit_s

    def launch(self, launch: Launch) -> Execution:
        """Make the child run and let it begin. Raises LaunchRefused, LaunchUncertain."""
        run_id = self._make(launch, _child(launch))
        try:
            self._begin(begin_message(run_id))
        except OrchestratorError as exc:
            log.warning("cannot tell a child run to begin; the Tick does: %s", exc, extra={"run_id": run_id})
        return Execution(run_id)

    def find(self, launch: Launch) -> Execution | None:
        """Return the child run of this launch, if it was made, or was let go on for it."""
        found = self._read(launch.goes_on) if launch.goes_on is not None else None
        if found is not None and found[1].parent is not None and found[1].parent.attempt == launch.attempt:
            return Execution(found[1].run_id)
        run_id = _child(launch)
        return Execution(run_id) if self._read(run_id) is not None else None

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how the child run ended, with its result; None while it goes on."""
        found = self._read(execution.execution_id)
        if found is None:  # it was there when it was launched
            return Outcome.failed("Dag.Pruned", f"run {execution.execution_id}: is there no more; it was pruned")
        data, run = found
        if not run.status.is_final:
            return None
        if run.status is RunStatus.COMPLETED:
            return self._completed(decode(data, _document(run.run_id)))
        message = f"run {run.run_id}: "
        if run.error is not None:
            message += f"{run.error.node}: {run.error.message}" if run.error.node else run.error.message
        else:
            message += f"has ended as {run.status}"
        if run.status is RunStatus.CANCELLED:
            return Outcome.cancelled(message)
        return Outcome.failed(run.error.error_type if run.error is not None else "Task.Failed", message)

    def cancel(self, execution: Execution) -> None:
        """Have the child run cancelled; return when it has taken that in, or has ended. Raises LaunchUncertain."""
        run_id = execution.execution_id
        if self._is_cancelled(run_id):
            return
        try:
            self._publish(cancel_message(run_id, "its parent run wants it no more"))
        except OrchestratorError as exc:
            raise LaunchUncertain(f"run {run_id}: cannot be asked to be cancelled: {exc}") from exc
        if not self._is_cancelled(run_id):
            raise LaunchUncertain(f"run {run_id}: was asked to be cancelled, and has not taken that in yet")

    def _is_cancelled(self, run_id: str) -> bool:
        found = self._read(run_id)
        if found is None or found[1].status.is_final or found[1].stop is not None:
            return True
        if found[1].ending is not None:
            raise LaunchUncertain(f'run {run_id}: is at its "finally", which nothing cancels')
        return False

    def _completed(self, state: RunState) -> Outcome:
        result, stored = run_result(state)
        if stored is None:
            return Outcome.completed(result)
        try:
            found = self._store.get(stored.object)
        except OrchestratorError as exc:
            raise LaunchUncertain(f"{stored.object}: cannot be read now: {exc}") from exc
        if found is None:
            return Outcome.failed(
                "Dag.BadResult", f"{stored.object}: is missing; it is the result of {state.run.run_id}"
            )
        try:
            return Outcome.completed(decode_result(found[0], stored.object).result)
        except CorruptState as exc:
            return Outcome.failed("Dag.BadResult", str(exc))

    def _read(self, run_id: str) -> tuple[bytes, RunInfo] | None:
        """The document of a child run, and the run's own entry. Raises LaunchUncertain."""
        try:
            found = self._store.get(_document(run_id))
            return (found[0], decode_run(found[0], _document(run_id))) if found is not None else None
        except OrchestratorError as exc:
            raise LaunchUncertain(f"{_document(run_id)}: cannot be read now: {exc}") from exc


def _document(run_id: str) -> str:
    return f"runs/{run_id}.json"


def _child(launch: Launch) -> str:
    return child_run_id(launch.launch_id, launch.started_at or datetime.fromtimestamp(0, UTC))
