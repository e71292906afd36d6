"""EventFactory: from a decoded message to the typed event that it is, or None where it is not ours.

Three answers, and no other exception whatever the JSON:

- an Event: a fact that may concern a run of ours; whether it does, the executor finds out;
- None: not ours. A log entry that could carry an id of ours and does not is somebody else's;
- EventError: clearly ours and malformed, so that delivering it again cannot help.

A new source is one row in the table, one reader below, and a file in `tests/payloads/`. Pure.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, TypeGuard
from urllib.parse import parse_qs, urlsplit

import msgspec

from orchestrator.model import job_events, messages
from orchestrator.model.commands import Json, Outcome
from orchestrator.model.enums import DueKind, TargetTypes, TaskStatus
from orchestrator.model.errors import EventError
from orchestrator.model.events import (
    BeginEvent,
    CallbackEvent,
    CancelEvent,
    CloudFunctionEvent,
    Common,
    DataflowEvent,
    Event,
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
from orchestrator.model.grammar import MAX_PRIORITY
from orchestrator.model.ids import NODE_NAME, RUN_ID, launch_id_of, parse_launch_id
from orchestrator.model.json_paths import at as _at
from orchestrator.model.json_paths import is_name as _is_name
from orchestrator.model.json_paths import is_of_log as _is_of_log
from orchestrator.model.json_paths import name_at as _name
from orchestrator.model.schedule import DEFAULT_ZONE, MAX_LENGTH, ScheduleError, last_tick
from orchestrator.model.task_result import CONFLICT
from orchestrator.model.times import HOW_YEARS, is_of_our_years

_NO_RESOURCE: Final = ""


def _recognisers() -> Mapping[str, "_Reader"]:
    """The table: `resource.type` -> what reads such messages, and says None to those of others."""
    return {
        messages.FUNCTION: _function,
        messages.START: _start,
        messages.CALLBACK: _callback,
        messages.REMINDER: _reminder,
        messages.HEARTBEAT: _heartbeat,
        messages.TICK: _tick,
        messages.CANCEL: _cancel,
        messages.PAUSE: _pause,
        messages.RESUME: _resume,
        messages.SLOT: _slot,
        messages.REDRIVE: _redrive,
        messages.BEGIN: _begin,
        messages.LATER: _later,
        messages.OBJECT: _object,
        messages.MESSAGE: _message,
        "cloud_function": _cloud_function,  # 1st gen: its log's "Function execution took …"
        "cloud_run_revision": _cloud_run,  # 2nd gen and services: the request log
        "dataflow_step": _dataflow_line,  # the job's message log
        "cloud_run_job": job_events.cloud_run_job,  # audit log: a system event at the end of each execution
        "bigquery_project": job_events.bigquery,  # audit log: data access, with the job's changes of state
        "workflows.googleapis.com/Workflow": job_events.workflow,  # the executions' system log
        "aiplatform.googleapis.com/PipelineJob": job_events.pipeline,  # the pipelines' own log
        _NO_RESOURCE: _dataflow_state,  # Eventarc: google.cloud.dataflow.job.v1beta3.statusChanged
    }


class EventFactory:
    """Makes typed events of decoded messages."""

    @staticmethod
    def create_from_event(
        event_data: Mapping[str, Json],
        *,
        message_id: str | None = None,
        publish_time: datetime | None = None,
    ) -> Event | None:
        """Return the event that a message is, or None if it is not ours.

        Args:
            event_data: the decoded message.
            message_id: its id, unique within its topic.
            publish_time: when it was published, aware.

        Raises:
            EventError: it is ours and malformed; the message says where.
        """
        if not isinstance(event_data, (dict, Mapping)):
            raise _wrong("event", f"is {_shown(event_data)}", "it has to be a JSON object")
        resource = event_data.get("resource", _ABSENT)
        kind = resource.get("type") if isinstance(resource, dict) else None
        read = _READERS.get(kind) if isinstance(kind, str) else None
        if read is None:
            return None
        common: Common = {
            "event_data": event_data,
            "message_id": message_id,
            "publish_time": publish_time,
        }
        return read(event_data, common)


_Reader = Callable[[Mapping[str, Json], Common], Event | None]


# ---- our own messages: what is wrong with them is said ------------------------------------------------


def _function(data: Mapping[str, Json], common: Common) -> FunctionEvent:
    launch_id, nonce = data.get("launch_id"), data.get("nonce")
    if not _is_name(launch_id) or (ids := parse_launch_id(launch_id)) is None:
        raise _wrong("function.launch_id", f"is {_shown(launch_id)}", "it has to be run_id/node/attempt")
    if not _is_nonce(nonce):
        raise _wrong("function.nonce", f"is {_shown(nonce)}", "it has to be the nonce of the launch")
    execution_id = data.get("execution_id")
    if execution_id is not None and not _is_name(execution_id):
        raise _wrong("function.execution_id", f"is {_shown(execution_id)}", _NAME)
    status, verdict = _told("function", data, Outcome.failed("Task.Failed", "the function did not say why"))
    return FunctionEvent(
        **common,
        task_name=_name(data, "resource", "labels", "function_name"),
        target_type=TargetTypes.FUNCTION,
        execution_id=execution_id,
        run_id=ids[0],
        status=status,
        launch_id=launch_id,
        nonce=nonce,
        verdict=verdict,
    )


def _callback(data: Mapping[str, Json], common: Common) -> CallbackEvent:
    run_id, token = _run_id("callback.run_id", data.get("run_id")), data.get("token")
    node_name, attempt = _node("callback", data)
    if not _is_nonce(token):
        raise _wrong("callback.token", f"is {_shown(token)}", "it has to be the token that the step has given out")
    if messages.is_too_deep(data.get("result")):
        raise _wrong("callback.result", "is nested too deeply", f"allowed are {messages.MAX_DEPTH} levels")
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
            raise _wrong(f"{kind}.error", "is given with status Completed", "only a Failed one has it")
        return TaskStatus.COMPLETED, Outcome.completed(result)
    if told != "Failed":
        raise _wrong(f"{kind}.status", f"is {_shown(told)}", "allowed are Completed and Failed")
    if result is not None:
        raise _wrong(f"{kind}.result", "is given with status Failed", "only a Completed one has it")
    if error is None:
        return TaskStatus.FAILED, failed
    if not isinstance(error, Mapping):
        raise _wrong(f"{kind}.error", f"is {_shown(error)}", "it has to be {error_type, message}")
    error_type, message = error.get("error_type"), error.get("message")
    if not _is_name(error_type):
        raise _wrong(f"{kind}.error.error_type", f"is {_shown(error_type)}", _NAME)
    if not isinstance(message, str):
        raise _wrong(f"{kind}.error.message", f"is {_shown(message)}", "it has to be text")
    return TaskStatus.FAILED, Outcome.failed(error_type, message)


def _start(data: Mapping[str, Json], common: Common) -> StartEvent:
    dag, run_id, start_input = data.get("dag"), data.get("run_id"), data.get("input")
    if dag is not None and not _is_name(dag):
        raise _wrong("start.dag", f"is {_shown(dag)}", _NAME)
    if start_input is None:
        start_input = {}
    elif not isinstance(start_input, Mapping):
        raise _wrong("start.input", f"is {_shown(start_input)}", "it has to be a JSON object")
    if messages.is_too_deep(start_input):
        raise _wrong("start.input", "is nested too deeply", f"allowed are {messages.MAX_DEPTH} levels")
    return StartEvent(
        **common,
        run_id=None if run_id is None else _run_id("start.run_id", run_id),
        dag=dag,
        input=start_input,
        scheduled_for=_scheduled_for(data, common["publish_time"]),
        priority=_priority(data.get("priority")),
    )


def _priority(value: Json) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_PRIORITY):
        return value
    raise _wrong("start.priority", f"is {_shown(value)}", f"allowed are -{MAX_PRIORITY} to {MAX_PRIORITY}")


def _scheduled_for(data: Mapping[str, Json], publish_time: datetime | None) -> datetime | None:
    """The time that a start is for: as it says, or that of its schedule's last tick before it was published."""
    told, cron, time_zone = data.get("scheduled_for"), data.get("schedule"), data.get("time_zone")
    if told is not None and (cron is not None or time_zone is not None):
        raise _wrong("start.scheduled_for", "stands beside a schedule", "keep one of the two")
    if told is not None:
        found = _time("start.scheduled_for", told)
        if not is_of_our_years(found):
            raise _wrong("start.scheduled_for", f"is {_shown(told)}", HOW_YEARS)
        if found.microsecond:  # the run's id is made of it: what a schedule is due at has none
            raise _wrong("start.scheduled_for", f"is {_shown(told)}", "it has to be of whole seconds")
        return found
    if cron is None:
        if time_zone is not None:
            raise _wrong("start.time_zone", "stands without a schedule", "write both or neither")
        return None
    if not isinstance(cron, str) or len(cron) > MAX_LENGTH:
        raise _wrong("start.schedule", f"is {_shown(cron)}", "it has to be a cron expression")
    if not (time_zone is None or _is_name(time_zone)):
        raise _wrong("start.time_zone", f"is {_shown(time_zone)}", "it has to be the name of a time zone")
    if publish_time is None:
        raise _wrong("start.schedule", "is of a message without a publish time", "write scheduled_for")
    try:
        return last_tick(cron, time_zone or DEFAULT_ZONE, publish_time + _EARLY)
    except (ScheduleError, OverflowError) as exc:
        raise EventError(f"start.schedule: {exc}") from exc


def _reminder(data: Mapping[str, Json], common: Common) -> ReminderEvent:
    kind, at = data.get("kind"), data.get("at")
    run_id = _run_id("reminder.run_id", data.get("run_id"))
    node_name, attempt = _node("reminder", data)
    if kind is not None and not (isinstance(kind, str) and kind in _DUE_KINDS):
        raise _wrong("reminder.kind", f"is {_shown(kind)}", f"allowed are {', '.join(sorted(_DUE_KINDS))}")
    if kind is not None and at is None:
        raise _wrong("reminder.at", "is missing", "a reminder with a kind names its time")
    return ReminderEvent(
        **common,
        run_id=run_id,
        node_name=node_name,
        attempt=attempt,
        kind=kind,
        at=None if at is None else _time("reminder.at", at),
    )


def _slot(data: Mapping[str, Json], common: Common) -> SlotEvent:
    queue, ticket = data.get("queue"), data.get("ticket")
    run_id = _run_id("slot.run_id", data.get("run_id"))
    if not (isinstance(queue, str) and _QUEUE.fullmatch(queue)):
        raise _wrong("slot.queue", f"is {_shown(queue)}", "it has to be dag/NAME or pool/NAME")
    if not _is_nonce(ticket):
        raise _wrong("slot.ticket", f"is {_shown(ticket)}", "it has to be a ticket of that queue")
    node_name, attempt = _node("slot", data) if "node_name" in data else (None, 0)
    return SlotEvent(**common, run_id=run_id, queue=queue, ticket=ticket, node_name=node_name, attempt=attempt)


def _heartbeat(data: Mapping[str, Json], common: Common) -> HeartbeatEvent:
    launch_id, nonce = data.get("launch_id"), data.get("nonce")
    if not _is_name(launch_id) or (ids := parse_launch_id(launch_id)) is None:
        raise _wrong("heartbeat.launch_id", f"is {_shown(launch_id)}", "it has to be run_id/node/attempt")
    if not _is_nonce(nonce):
        raise _wrong("heartbeat.nonce", f"is {_shown(nonce)}", "it has to be the nonce of the launch")
    return HeartbeatEvent(**common, run_id=ids[0], node_name=ids[1], attempt=ids[2], nonce=nonce)


def _tick(_data: Mapping[str, Json], common: Common) -> TickEvent:
    return TickEvent(**common)


def _pause(data: Mapping[str, Json], common: Common) -> PauseEvent:
    return PauseEvent(**common, run_id=_run_id("pause.run_id", data.get("run_id")))


def _resume(data: Mapping[str, Json], common: Common) -> ResumeEvent:
    return ResumeEvent(**common, run_id=_run_id("resume.run_id", data.get("run_id")))


def _redrive(data: Mapping[str, Json], common: Common) -> RedriveEvent:
    start_from, number = data.get("from"), data.get("number")
    run_id = _run_id("redrive.run_id", data.get("run_id"))
    if start_from is not None and not (isinstance(start_from, str) and NODE_NAME.fullmatch(start_from)):
        raise _wrong("redrive.from", f"is {_shown(start_from)}", "it has to be the name of a step")
    is_number = isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= _MAX_ATTEMPT
    if number is not None and not is_number:
        raise _wrong("redrive.number", f"is {_shown(number)}", f"allowed are 1 to {_MAX_ATTEMPT}")
    return RedriveEvent(
        **common, run_id=run_id, start_from=start_from, number=number if isinstance(number, int) else None
    )


def _begin(data: Mapping[str, Json], common: Common) -> BeginEvent:
    return BeginEvent(**common, run_id=_run_id("begin.run_id", data.get("run_id")))


def _cancel(data: Mapping[str, Json], common: Common) -> CancelEvent:
    reason = data.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise _wrong("cancel.reason", f"is {_shown(reason)}", "it has to be text")
    return CancelEvent(**common, run_id=_run_id("cancel.run_id", data.get("run_id")), reason=reason or "")


def _later(data: Mapping[str, Json], common: Common) -> LaterEvent:
    event = data.get("event")
    if not isinstance(event, Mapping):
        raise _wrong("later.event", f"is {_shown(event)}", "it has to be a JSON object")
    return LaterEvent(**common, event=event, at=_time("later.at", data.get("at")))


def _object(data: Mapping[str, Json], common: Common) -> Event | None:
    from orchestrator.model.trigger_events import object_event  # only where one comes

    return object_event(data, common)


def _message(data: Mapping[str, Json], common: Common) -> Event:
    from orchestrator.model.trigger_events import message_event  # only where one comes

    return message_event(data, common)


# ---- what others write: every field may be missing, and none is trusted -------------------------------


def _cloud_function(data: Mapping[str, Json], common: Common) -> CloudFunctionEvent | None:
    """Cloud Function, 1st gen. Its end is told in words, and two ids lead to the launch."""
    text = data.get("textPayload")
    # The bound keeps the regular expression, which may look at a space twice, from long forged lines.
    ended = _TOOK.fullmatch(text) if isinstance(text, str) and len(text) <= 300 else None
    trace_id, execution_id = _trace(data), _name(data, "labels", "execution_id")
    if ended is None or (trace_id is None and execution_id is None):
        return None
    told = ended[1]
    is_ok = told == "ok" or _STATUS_2XX.fullmatch(told) is not None
    return CloudFunctionEvent(
        **common,
        task_name=_name(data, "resource", "labels", "function_name"),
        target_type=TargetTypes.CLOUD_FUNCTION,
        execution_id=execution_id,
        status=TaskStatus.COMPLETED if is_ok else TaskStatus.FAILED,
        trace_id=trace_id,
        verdict=Outcome.completed() if is_ok else _failed(told),
    )


def _cloud_run(data: Mapping[str, Json], common: Common) -> CloudFunctionEvent | None:
    """Cloud Run function (2nd gen) or service: the request log has the URL that was called.

    Only that log will do: what a service writes may hold an httpRequest as well, and before its end.
    """
    url = _at(data, "httpRequest", "requestUrl")
    if not _is_of_log(data, "run.googleapis.com%2Frequests"):
        return None
    carried = _carried(url) if isinstance(url, str) else None
    if carried is None:
        return None
    launch_id, run_id, nonce = carried
    code = _http_status(_at(data, "httpRequest", "status"))
    status, verdict = TaskStatus.NEW, None
    if code is not None:
        is_ok = 200 <= code <= 299
        status = TaskStatus.COMPLETED if is_ok else TaskStatus.FAILED
        verdict = Outcome.completed() if is_ok else _failed(str(code))
    return CloudFunctionEvent(
        **common,
        task_name=_name(data, "labels", "goog-drz-cloudfunctions-id")
        or _name(data, "resource", "labels", "service_name"),
        target_type=TargetTypes.CLOUD_FUNCTION,
        run_id=run_id,
        status=status,
        launch_id=launch_id,
        nonce=nonce,
        trace_id=_trace(data),
        verdict=verdict,
    )


def _dataflow_line(data: Mapping[str, Json], common: Common) -> DataflowEvent | None:
    """A line of a Dataflow job's log. "Worker pool stopped." follows failures too, so none is a verdict.

    It is only a reason to ask, so a line that has lost its log's name still counts.
    """
    log, text = data.get("logName"), data.get("textPayload")
    if log is not None and not (isinstance(log, str) and log.endswith(_JOB_MESSAGES)):
        return None
    if not isinstance(text, str) or not (text.startswith(_LAST_LINES) or text.strip() == _POOL_STOPPED):
        return None
    return _dataflow(
        common,
        _name(data, "resource", "labels", "job_id") or _name(data, "labels", "dataflow.googleapis.com/job_id"),
        _name(data, "resource", "labels", "job_name") or _name(data, "labels", "dataflow.googleapis.com/job_name"),
    )


def _dataflow_state(data: Mapping[str, Json], common: Common) -> DataflowEvent | None:
    """A Dataflow job's statusChanged event: it comes with every change, and only the last ones count."""
    state = _at(data, "payload", "currentState")
    if not (isinstance(state, str) and state in _FINAL_STATES):
        return None
    return _dataflow(common, _name(data, "payload", "id"), _name(data, "payload", "name"))


def _dataflow(common: Common, job_id: str | None, job_name: str | None) -> DataflowEvent | None:
    if job_id is None and job_name is None:
        return None
    return DataflowEvent(
        **common,
        task_name=job_name,
        target_type=TargetTypes.DATAFLOW,
        execution_id=job_id,
        job_name=job_name,
    )


# ---- words and values ---------------------------------------------------------------------------------

_EARLY: Final = timedelta(seconds=5)
"""How far the topic's clock may be behind the scheduler's: a start that seems early is not for the tick before."""

_ABSENT: Final[dict[str, Json]] = {"type": _NO_RESOURCE}
_MAX_ATTEMPT: Final = 999_999_999
_DUE_KINDS: Final = frozenset(kind.value for kind in DueKind)
_QUEUE: Final = re.compile(r"(?:dag|pool)/[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_NAME: Final = "it has to be printable text of 1 to 512 characters"

# `finished with status code: 200` (HTTP) or `finished with status: 'timeout'` (events, and the platform)
_TOOK: Final = re.compile(
    r"Function execution took [0-9]+ ms,? finished with status(?: code)?: *['\"]?([^'\"\r\n]+?)['\"]?\s*"
)
_STATUS_2XX: Final = re.compile(r"2[0-9][0-9]")
_STATUS: Final = re.compile(r"[1-5][0-9][0-9]")
# bare, as Cloud Logging recommends now, or in the form that it writes
_TRACE: Final = re.compile(r"(?:projects/[^/]+/traces/)?([0-9A-Fa-f]{32})")

_JOB_MESSAGES: Final = "/logs/dataflow.googleapis.com%2Fjob-message"
_POOL_STOPPED: Final = "Worker pool stopped."
_LAST_LINES: Final = (
    "Error occurred in the launcher container",
    "Workflow failed. Causes:",
    "Cancel request is committed for workflow job",
)
# JOB_STATE_RESOURCE_CLEANING_UP is not final, and after the others here nothing changes any more
_FINAL_STATES: Final = frozenset(f"JOB_STATE_{word}" for word in ("DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED"))


def _carried(url: str) -> tuple[str, str, str | None] | None:
    """(launch id, run id, nonce) that a requested URL carries; None if it carries no launch of ours."""
    if messages.LAUNCH_PARAMETER not in url or len(url) > 8192:
        return None
    try:
        query = parse_qs(urlsplit(url).query, max_num_fields=100)
    except ValueError:  # no URL at all, or too many fields
        return None
    launches, nonces = query.get(messages.LAUNCH_PARAMETER, []), query.get(messages.NONCE_PARAMETER, [])
    ids = parse_launch_id(launches[0]) if len(launches) == 1 and _is_name(launches[0]) else None
    if ids is None:
        return None
    nonce = nonces[0] if len(nonces) == 1 and _is_nonce(nonces[0]) else None
    return launches[0], ids[0], nonce


def _node(kind: str, data: Mapping[str, Json]) -> tuple[str, int]:
    """The node and the attempt that a message of ours names."""
    node_name, attempt = data.get("node_name"), data.get("attempt")
    if not (isinstance(node_name, str) and NODE_NAME.fullmatch(node_name)):
        raise _wrong(f"{kind}.node_name", f"is {_shown(node_name)}", "it has to be the name of a step")
    if isinstance(attempt, bool) or not isinstance(attempt, int) or not 1 <= attempt <= _MAX_ATTEMPT:
        raise _wrong(f"{kind}.attempt", f"is {_shown(attempt)}", f"allowed are 1 to {_MAX_ATTEMPT}")
    return node_name, attempt


def _http_status(value: Json) -> int | None:
    """The status of a request that we made; 0 and no status mean that the log does not tell."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, str) and _STATUS.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    raise _wrong("httpRequest.status", f"is {_shown(value)}", "allowed are 100 to 599")


_ERROR_TYPES = {"timeout": "Task.Timeout", "504": "Task.Timeout", "409": CONFLICT}


def _failed(told: str) -> Outcome:
    return Outcome.failed(_ERROR_TYPES.get(told, "Task.Failed"), f"finished with status {told}")


def _trace(data: Mapping[str, Json]) -> str | None:
    trace = data.get("trace")
    found = _TRACE.fullmatch(trace) if isinstance(trace, str) else None
    return found[1].lower() if found else None


def _run_id(where: str, value: Json) -> str:
    if isinstance(value, str) and RUN_ID.fullmatch(value):
        return value
    allowed = "allowed are 1 to 128 letters, digits, _ and -, the first a letter or digit"
    raise _wrong(where, f"is {_shown(value)}", allowed)


def _time(where: str, value: Json) -> datetime:
    try:
        return msgspec.convert(value, _Aware).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise _wrong(where, f"is {_shown(value)}", "it has to be an RFC 3339 time with its zone") from exc


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


def _is_nonce(value: Json) -> TypeGuard[str]:
    """Whether it could be a nonce: ASCII, as comparing in constant time requires."""
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isascii() and value.isprintable()


def _wrong(where: str, what: str, allowed: str) -> EventError:
    return EventError(f"{where}: {what}; {allowed}")


def _shown(value: Json) -> str:
    """A value for an error message: short, on one line, and made without following it inwards."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}… ({len(value)} characters)"
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a very large number"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else f"a Python {type(value).__name__}"


_READERS: Final = _recognisers()
