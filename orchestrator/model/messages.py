"""The messages that we send to our own topic, and the words that EventFactory knows them by.

    start      {"resource": {"type": "start"}, "dag"?, "input"?, "run_id"?, "scheduled_for"?, "priority"?}
               a scheduler, which cannot say for when, sends "schedule" and "time_zone"? in its place
    function   {"resource": {"type": "function", "labels"?: {"function_name"}}, "launch_id", "nonce",
                "execution_id"?, "status": "Completed" | "Failed", "result"?,
                "error"?: {"error_type", "message"}}
    callback   {"resource": {"type": "callback"}, "run_id", "node_name", "attempt", "token",
                "status": "Completed" | "Failed", "result"?, "error"?: {"error_type", "message"}}
    reminder   {"resource": {"type": "reminder"}, "run_id", "node_name", "attempt", "kind"?, "at"?}
    heartbeat  {"resource": {"type": "heartbeat"}, "launch_id", "nonce"}
    tick       {"resource": {"type": "tick"}}
    cancel     {"resource": {"type": "cancel"}, "run_id", "reason"?}
    pause      {"resource": {"type": "pause"}, "run_id"}
    resume     {"resource": {"type": "resume"}, "run_id"}
    slot       {"resource": {"type": "slot"}, "run_id", "queue", "ticket", "node_name"?, "attempt"?}
    redrive    {"resource": {"type": "redrive"}, "run_id", "from"?, "number"?}
    begin      {"resource": {"type": "begin"}, "run_id"}
    later      {"resource": {"type": "later"}, "at", "event": {…}}
    object, message: what others have done, see `trigger_events`

Writers only: what is read back is checked by `event_factory`. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlencode

from orchestrator.model.commands import Failure, Json, Outcome
from orchestrator.model.enums import OutcomeKind

START: Final = "start"
FUNCTION: Final = "function"
REMINDER: Final = "reminder"
HEARTBEAT: Final = "heartbeat"
TICK: Final = "tick"
CANCEL: Final = "cancel"
PAUSE: Final = "pause"
RESUME: Final = "resume"
SLOT: Final = "slot"
REDRIVE: Final = "redrive"
CALLBACK: Final = "callback"
BEGIN: Final = "begin"
LATER: Final = "later"
OBJECT: Final = "object"
MESSAGE: Final = "message"

LAUNCH_PARAMETER: Final = "orchestrator_launch"
"""Query parameter that carries a launch id; a request log shows it again."""
NONCE_PARAMETER: Final = "orchestrator_nonce"
"""Query parameter that carries the launch's nonce."""
LAUNCH_VARIABLE: Final = "ORCHESTRATOR_LAUNCH"
"""Environment variable that carries a launch id into a container, and from there into the event of its end."""

HEARTBEATS_VARIABLE: Final = "ORCHESTRATOR_HEARTBEATS"
"""Environment variable by which the twin of Cloud Functions says where it looks for heartbeats."""

MAX_DEPTH: Final = 100
"""How deeply a message may be nested: far below what encoding a run document around it stands."""


def start_message(
    dag: str | None = None,
    input: Mapping[str, Json] | None = None,  # noqa: A002  # the message's own word
    run_id: str | None = None,
    scheduled_for: datetime | None = None,
    priority: int | None = None,
) -> dict[str, Json]:
    """Start a run of `dag` (None: of the default one) with `input`, under `run_id` if one is chosen.

    Args:
        scheduled_for: the time that the run is for, aware, of whole seconds; it is the one start for that time.
        priority: of the run, instead of that of its definition.
    """
    message: dict[str, Json] = {"resource": {"type": START}}
    if dag is not None:
        message["dag"] = dag
    if input is not None:
        message["input"] = dict(input)
    if run_id is not None:
        message["run_id"] = run_id
    if scheduled_for is not None:
        message["scheduled_for"] = rfc3339(scheduled_for)
    if priority is not None:
        message["priority"] = priority
    return message


def function_message(
    launch_id: str,
    nonce: str,
    outcome: Outcome,
    *,
    execution_id: str | None = None,
    task_name: str | None = None,
) -> dict[str, Json]:
    """Say how the Function of a launch ended. Raises ValueError unless it completed or failed.

    Args:
        launch_id: `run_id/node/attempt`.
        nonce: the launch's, as proof.
        outcome: how it ended.
        execution_id: the target's id of the execution.
        task_name: the function's name (target_name).
    """
    resource: dict[str, Json] = {"type": FUNCTION}
    if task_name is not None:
        resource["labels"] = {"function_name": task_name}
    message: dict[str, Json] = {"resource": resource, "launch_id": launch_id, "nonce": nonce}
    if execution_id is not None:
        message["execution_id"] = execution_id
    message["status"] = outcome.kind.value
    if outcome.kind is OutcomeKind.COMPLETED:
        if outcome.result is not None:
            message["result"] = outcome.result
    elif outcome.kind is not OutcomeKind.FAILED:
        raise ValueError(f"a Function's message cannot say {outcome.kind}; it says Completed or Failed")
    elif outcome.error is not None:
        message["error"] = {"error_type": outcome.error.error_type, "message": outcome.error.message}
    return message


def callback_message(
    run_id: str, node_name: str, attempt: int, token: str, result: Json = None, rejected: Failure | None = None
) -> dict[str, Json]:
    """Answer a Callback Task: it completes with `result` or, `rejected`, fails with that.

    Args:
        token: what the Task has given out, as proof.
    """
    message: dict[str, Json] = {
        "resource": {"type": CALLBACK},
        "run_id": run_id,
        "node_name": node_name,
        "attempt": attempt,
        "token": token,
        "status": "Completed" if rejected is None else "Failed",
    }
    if rejected is not None:
        message["error"] = {"error_type": rejected.error_type, "message": rejected.message}
    elif result is not None:
        message["result"] = result
    return message


def reminder_message(
    run_id: str, node_name: str, attempt: int, kind: str | None = None, at: datetime | None = None
) -> dict[str, Json]:
    """Say that what is due at `at` (aware) is due now or, with `kind` None, ask how the attempt is."""
    message: dict[str, Json] = {
        "resource": {"type": REMINDER},
        "run_id": run_id,
        "node_name": node_name,
        "attempt": attempt,
    }
    if kind is not None:
        message["kind"] = kind
    if at is not None:
        message["at"] = rfc3339(at)
    return message


def heartbeat_message(launch_id: str, nonce: str) -> dict[str, Json]:
    """Say that the execution of a launch is at work; `nonce` is the launch's, as proof."""
    return {"resource": {"type": HEARTBEAT}, "launch_id": launch_id, "nonce": nonce}


def tick_message() -> dict[str, Json]:
    """Have all open runs looked after."""
    return {"resource": {"type": TICK}}


def cancel_message(run_id: str, reason: str = "") -> dict[str, Json]:
    """Cancel a run."""
    message: dict[str, Json] = {"resource": {"type": CANCEL}, "run_id": run_id}
    if reason:
        message["reason"] = reason
    return message


def pause_message(run_id: str) -> dict[str, Json]:
    """Pause a run."""
    return {"resource": {"type": PAUSE}, "run_id": run_id}


def resume_message(run_id: str) -> dict[str, Json]:
    """Let a paused run go on."""
    return {"resource": {"type": RESUME}, "run_id": run_id}


def slot_message(
    queue: str, ticket: str, run_id: str, node_name: str | None = None, attempt: int = 0
) -> dict[str, Json]:
    """Say that a run, or an attempt in it, holds the slot of `queue` that it asked for with `ticket`."""
    message: dict[str, Json] = {"resource": {"type": SLOT}, "run_id": run_id, "queue": queue, "ticket": ticket}
    if node_name is not None:
        message |= {"node_name": node_name, "attempt": attempt}
    return message


def redrive_message(run_id: str, start_from: str | None = None, number: int | None = None) -> dict[str, Json]:
    """Let a run that has ended go on: from where it failed or, again, from a step; as its redrive of this number."""
    message: dict[str, Json] = {"resource": {"type": REDRIVE}, "run_id": run_id}
    if start_from is not None:
        message["from"] = start_from
    if number is not None:
        message["number"] = number
    return message


def begin_message(run_id: str) -> dict[str, Json]:
    """Let a child run begin that was made."""
    return {"resource": {"type": BEGIN}, "run_id": run_id}


def later_message(event: Mapping[str, Json], at: datetime) -> dict[str, Json]:
    """Carry an event that is to be published at `at` (aware), further off than the broker can delay at once.

    Whoever receives it publishes `event` again, with what is left until `at` as its delay.
    """
    return {"resource": {"type": LATER}, "at": rfc3339(at), "event": dict(event)}


def launch_query(launch_id: str, nonce: str) -> str:
    """Return the URL query by which a called service's request log leads back to the launch."""
    return urlencode({LAUNCH_PARAMETER: launch_id, NONCE_PARAMETER: nonce})


def is_too_deep(value: Json) -> bool:
    """Whether a JSON value has more than MAX_DEPTH levels of objects and arrays."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
    return bool(level)


def rfc3339(at: datetime) -> str:
    """Return a time as messages have it, in UTC. Raises ValueError for one without a zone."""
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone; times are aware")
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
