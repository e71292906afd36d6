"""CallbackTarget: a step that waits for somebody's answer, with the token that proves it.

Nothing runs. What a launch does is to tell who is to answer, where the step says whom, and to leave what they have to
know in the execution's record, which is written before the launch is acknowledged.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

from orchestrator.model.commands import Execution, Json, Launch, Notify, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotSent, OrchestratorError
from orchestrator.model.messages import callback_message
from orchestrator.model.task_result import decode, result_object
from orchestrator.ports import Notifier, ObjectStore

_CALL_LIMIT_S = 30.0
"""How long a receiver may take to accept the token, as ports.Notifier has it."""

DEFAULT_TIMEOUT_S = 30 * 86400.0
"""How long an answer is waited for where the step does not say: the longest timeout that it may have."""


class CallbackTarget:
    """Answers that are waited for.

    Args:
        store: where execution records lie.
        notifier: tells who is to answer.
    """

    identity: Identity = Identity.FOREVER
    has_outcome: bool = False
    can_cancel: bool = True
    synchronous: bool = False
    id_is_ours: bool = False  # the record is what says that who is to answer was told
    launch_limit_s: float = _CALL_LIMIT_S
    default_timeout_s: float = DEFAULT_TIMEOUT_S

    def __init__(self, store: ObjectStore, notifier: Notifier) -> None:
        self._store, self._notifier = store, notifier

    def launch(self, launch: Launch) -> Execution:
        """Tell who is to answer, if the step says whom; at least once, with the same id each time."""
        topic, url = launch.step.get("topic"), launch.step.get("url")
        parameters: dict[str, Json] = dict(launch.parameters)
        if topic is not None or url is not None:
            payload = payload_of(launch)
            told = Notify(
                launch.run_id,
                str(payload["id"]),
                launch.owner,
                launch.lease_end or datetime.max.replace(tzinfo=UTC),
                None if topic is None else str(topic),
                None if url is None else str(url),
                payload,
            )
            try:
                self._notifier.notify(told)
            except NotSent as exc:
                if exc.retry:
                    raise LaunchUncertain(f"{launch.node_name}: who is to answer was not told: {exc}") from exc
                raise LaunchRefused(
                    f"{launch.node_name}: who is to answer cannot be told: {exc}", error_type="Callback.NotSent"
                ) from exc
        return Execution(launch.key, parameters)

    def find(self, launch: Launch) -> Execution | None:
        """Return what waits for this launch, if who is to answer was told."""
        try:
            found = self._store.get(f"executions/{launch.key}.json")
        except OrchestratorError as exc:
            raise LaunchUncertain(f"executions/{launch.key}.json: cannot be read now: {exc}") from exc
        return Execution(launch.key) if found is not None else None

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return an answer that was left in the bucket; None where none was, or an event brings it."""
        name = result_object(execution.execution_id)
        try:
            found = self._store.get(name)
            return decode(found[0], name).outcome if found is not None else None
        except OrchestratorError as exc:
            raise LaunchUncertain(f"{name}: cannot be read now: {exc}") from exc

    def cancel(self, execution: Execution) -> None:
        """Nothing: the token of an attempt that has ended is worth nothing."""


def payload_of(launch: Launch) -> Mapping[str, Json]:
    """Return what who is to answer is sent: what they have to know, and `answer`, the message that approves.

    It is the same for every try; `id` tells them apart from others'.
    """
    at = launch.started_at
    return {
        "id": sha256(f"callback {launch.launch_id}".encode()).hexdigest()[:32],
        "event": "callback",
        "at": None if at is None else at.isoformat().replace("+00:00", "Z"),
        "run": {"run_id": launch.run_id, "dag": launch.dag},
        "node": launch.node_name,
        "attempt": launch.attempt,
        "for": launch.target_name,
        "parameters": dict(launch.parameters),
        "answer": callback_message(launch.run_id, launch.node_name, launch.attempt, launch.nonce),
    }
