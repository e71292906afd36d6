"""Readers of our own messages, for the table of `event_factory`: what is wrong with one is said. Pure.

Their shapes stand beside what writes them, in `messages`.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from orchestrator.model import messages
from orchestrator.model.commands import Json, Outcome
from orchestrator.model.enums import DueKind, TargetTypes, TaskStatus
from orchestrator.model.errors import EventError
from orchestrator.model.event_values import MAX_ATTEMPT, NAME, is_nonce, node_of, run_id_of, shown, time_of, wrong
from orchestrator.model.events import (
    BeginEvent,
    CallbackEvent,
    CancelEvent,
    Common,
    FunctionEvent,
    HeartbeatEvent,
    LaterEvent,
    PauseEvent,
    RedriveEvent,
    ReminderEvent,
    ResumeEvent,
    SlotEvent,
    StartEvent,
    TickEvent,
)
from orchestrator.model.grammar_of_runs import MAX_PRIORITY
from orchestrator.model.ids import NODE_NAME, launch_id_of, parse_launch_id
from orchestrator.model.json_paths import is_name, name_at
from orchestrator.model.schedule import DEFAULT_ZONE, MAX_LENGTH, ScheduleError, last_tick
from orchestrator.model.times import HOW_YEARS, is_of_our_years

_EARLY: Final = timedelta(seconds=5)
"""How far the topic's clock may be behind the scheduler's: a start that seems early is not for the tick before."""

_DUE_KINDS: Final = frozenset(kind.value for kind in DueKind)
_QUEUE: Final = re.compile(r"(?:dag|pool)/[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def function(data: Mapping[str, Json], common: Common) -> FunctionEvent:
    launch_id, nonce = data.get("launch_id"), data.get("nonce")
    if not is_name(launch_id) or (ids := parse_launch_id(launch_id)) is None:
        raise wrong("function.launch_id", f"is {shown(launch_id)}", "it has to be run_id/node/attempt")
    if not is_nonce(nonce):
        raise wrong("function.nonce", f"is {shown(nonce)}", "it has to be the nonce of the launch")
    execution_id = data.get("execution_id")
    if execution_id is not None and not is_name(execution_id):
        raise wrong("function.execution_id", f"is {shown(execution_id)}", NAME)
    status, verdict = _told("function", data, Outcome.failed("Task.Failed", "the function did not say why"))
    return FunctionEvent(
        **common,
        task_name=name_at(data, "resource", "labels", "function_name"),
        target_type=TargetTypes.FUNCTION,
        execution_id=execution_id,
        run_id=ids[0],
        status=status,
        launch_id=launch_id,
        nonce=nonce,
        verdict=verdict,
    )


def callback(data: Mapping[str, Json], common: Common) -> CallbackEvent:
    run_id, token = run_id_of("callback.run_id", data.get("run_id")), data.get("token")
    node_name, attempt = node_of("callback", data)
    if not is_nonce(token):
        raise wrong("callback.token", f"is {shown(token)}", "it has to be the token that the step has given out")
    if messages.is_too_deep(data.get("result")):
        raise wrong("callback.result", "is nested too deeply", f"allowed are {messages.MAX_DEPTH} levels")
    status, verdict = _told("callback", data, Outcome.failed("Callback.Rejected", "rejected"))
    return CallbackEvent(
        **common,
        target_type=TargetTypes.CALLBACK,
        run_id=run_id,
        status=status,
        launch_id=launch_id_of(run_id, node_name, attempt),
        nonce=token,
        verdict=verdict,
    )


def _told(kind: str, data: Mapping[str, Json], failed: Outcome) -> tuple[TaskStatus, Outcome]:
    """What a message says of an end; `failed` where it does not say why."""
    told, result, error = data.get("status"), data.get("result"), data.get("error")
    if told == "Completed":
        if error is not None:
            raise wrong(f"{kind}.error", "is given with status Completed", "only a Failed one has it")
        return TaskStatus.COMPLETED, Outcome.completed(result)
    if told != "Failed":
        raise wrong(f"{kind}.status", f"is {shown(told)}", "allowed are Completed and Failed")
    if result is not None:
        raise wrong(f"{kind}.result", "is given with status Failed", "only a Completed one has it")
    if error is None:
        return TaskStatus.FAILED, failed
    if not isinstance(error, Mapping):
        raise wrong(f"{kind}.error", f"is {shown(error)}", "it has to be {error_type, message}")
    error_type, message = error.get("error_type"), error.get("message")
    if not is_name(error_type):
        raise wrong(f"{kind}.error.error_type", f"is {shown(error_type)}", NAME)
    if not isinstance(message, str):
        raise wrong(f"{kind}.error.message", f"is {shown(message)}", "it has to be text")
    return TaskStatus.FAILED, Outcome.failed(error_type, message)


def start(data: Mapping[str, Json], common: Common) -> StartEvent:
    dag, run_id, start_input = data.get("dag"), data.get("run_id"), data.get("input")
    if dag is not None and not is_name(dag):
        raise wrong("start.dag", f"is {shown(dag)}", NAME)
    if start_input is None:
        start_input = {}
    elif not isinstance(start_input, Mapping):
        raise wrong("start.input", f"is {shown(start_input)}", "it has to be a JSON object")
    if messages.is_too_deep(start_input):
        raise wrong("start.input", "is nested too deeply", f"allowed are {messages.MAX_DEPTH} levels")
    return StartEvent(
        **common,
        run_id=None if run_id is None else run_id_of("start.run_id", run_id),
        dag=dag,
        input=start_input,
        scheduled_for=_scheduled_for(data, common["publish_time"]),
        priority=_priority(data.get("priority")),
    )


def _priority(value: Json) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_PRIORITY):
        return value
    raise wrong("start.priority", f"is {shown(value)}", f"allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}")


def _scheduled_for(data: Mapping[str, Json], publish_time: datetime | None) -> datetime | None:
    """The time that a start is for: as it says, or that of its schedule's last tick before it was published."""
    told, cron, time_zone = data.get("scheduled_for"), data.get("schedule"), data.get("time_zone")
    if told is not None and (cron is not None or time_zone is not None):
        raise wrong("start.scheduled_for", "stands beside a schedule", "keep one of the two")
    if told is not None:
        found = time_of("start.scheduled_for", told)
        if not is_of_our_years(found):
            raise wrong("start.scheduled_for", f"is {shown(told)}", HOW_YEARS)
        if found.microsecond:  # the run's id is made of it: what a schedule is due at has none
            raise wrong("start.scheduled_for", f"is {shown(told)}", "it has to be of whole seconds")
        return found
    if cron is None:
        if time_zone is not None:
            raise wrong("start.time_zone", "stands without a schedule", "write both or neither")
        return None
    if not isinstance(cron, str) or len(cron) > MAX_LENGTH:
        raise wrong("start.schedule", f"is {shown(cron)}", "it has to be a cron expression")
    if not (time_zone is None or is_name(time_zone)):
        raise wrong("start.time_zone", f"is {shown(time_zone)}", "it has to be the name of a time zone")
    if publish_time is None:
        raise wrong("start.schedule", "is of a message without a publish time", "write scheduled_for")
    try:
        return last_tick(cron, time_zone or DEFAULT_ZONE, publish_time + _EARLY)
    except (ScheduleError, OverflowError) as exc:
        raise EventError(f"start.schedule: {exc}") from exc


def reminder(data: Mapping[str, Json], common: Common) -> ReminderEvent:
    kind, at = data.get("kind"), data.get("at")
    run_id = run_id_of("reminder.run_id", data.get("run_id"))
    node_name, attempt = node_of("reminder", data)
    if kind is not None and not (isinstance(kind, str) and kind in _DUE_KINDS):
        raise wrong("reminder.kind", f"is {shown(kind)}", f"allowed are {', '.join(sorted(_DUE_KINDS))}")
    if kind is not None and at is None:
        raise wrong("reminder.at", "is missing", "a reminder with a kind names its time")
    return ReminderEvent(
        **common,
        run_id=run_id,
        node_name=node_name,
        attempt=attempt,
        kind=kind,
        at=None if at is None else time_of("reminder.at", at),
    )


def slot(data: Mapping[str, Json], common: Common) -> SlotEvent:
    queue, ticket = data.get("queue"), data.get("ticket")
    run_id = run_id_of("slot.run_id", data.get("run_id"))
    if not (isinstance(queue, str) and _QUEUE.fullmatch(queue)):
        raise wrong("slot.queue", f"is {shown(queue)}", "it has to be dag/NAME or pool/NAME")
    if not is_nonce(ticket):
        raise wrong("slot.ticket", f"is {shown(ticket)}", "it has to be a ticket of that queue")
    node_name, attempt = node_of("slot", data) if "node_name" in data else (None, 0)
    return SlotEvent(**common, run_id=run_id, queue=queue, ticket=ticket, node_name=node_name, attempt=attempt)


def heartbeat(data: Mapping[str, Json], common: Common) -> HeartbeatEvent:
    launch_id, nonce = data.get("launch_id"), data.get("nonce")
    if not is_name(launch_id) or (ids := parse_launch_id(launch_id)) is None:
        raise wrong("heartbeat.launch_id", f"is {shown(launch_id)}", "it has to be run_id/node/attempt")
    if not is_nonce(nonce):
        raise wrong("heartbeat.nonce", f"is {shown(nonce)}", "it has to be the nonce of the launch")
    return HeartbeatEvent(**common, run_id=ids[0], node_name=ids[1], attempt=ids[2], nonce=nonce)


def tick(_data: Mapping[str, Json], common: Common) -> TickEvent:
    return TickEvent(**common)


def pause(data: Mapping[str, Json], common: Common) -> PauseEvent:
    return PauseEvent(**common, run_id=run_id_of("pause.run_id", data.get("run_id")))


def resume(data: Mapping[str, Json], common: Common) -> ResumeEvent:
    return ResumeEvent(**common, run_id=run_id_of("resume.run_id", data.get("run_id")))


def redrive(data: Mapping[str, Json], common: Common) -> RedriveEvent:
    start_from, number = data.get("from"), data.get("number")
    run_id = run_id_of("redrive.run_id", data.get("run_id"))
    if start_from is not None and not (isinstance(start_from, str) and NODE_NAME.fullmatch(start_from)):
        raise wrong("redrive.from", f"is {shown(start_from)}", "it has to be the name of a step")
    is_number = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MAX_ATTEMPT
    if number is not None and not is_number:
        raise wrong("redrive.number", f"is {shown(number)}", f"allowed are 1 to {MAX_ATTEMPT}")
    return RedriveEvent(
        **common, run_id=run_id, start_from=start_from, number=number if isinstance(number, int) else None
    )


def begin(data: Mapping[str, Json], common: Common) -> BeginEvent:
    return BeginEvent(**common, run_id=run_id_of("begin.run_id", data.get("run_id")))


def cancel(data: Mapping[str, Json], common: Common) -> CancelEvent:
    reason = data.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise wrong("cancel.reason", f"is {shown(reason)}", "it has to be text")
    return CancelEvent(**common, run_id=run_id_of("cancel.run_id", data.get("run_id")), reason=reason or "")


def later(data: Mapping[str, Json], common: Common) -> LaterEvent:
    event = data.get("event")
    if not isinstance(event, Mapping):
        raise wrong("later.event", f"is {shown(event)}", "it has to be a JSON object")
    return LaterEvent(**common, event=event, at=time_of("later.at", data.get("at")))
