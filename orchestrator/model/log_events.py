"""Readers of what Cloud Functions, Cloud Run and Dataflow write of an end, for the table of `event_factory`.

Others write it: every field may be missing, and none is trusted. Pure.
"""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs, urlsplit

from orchestrator.model import messages
from orchestrator.model.commands import Json, Outcome
from orchestrator.model.enums import TargetTypes, TaskStatus
from orchestrator.model.event_values import is_nonce, shown, wrong
from orchestrator.model.events import CloudFunctionEvent, Common, DataflowEvent
from orchestrator.model.ids import parse_launch_id
from orchestrator.model.json_paths import at, is_name, is_of_log, name_at
from orchestrator.model.task_result import CONFLICT

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


def cloud_function(data: Mapping[str, Json], common: Common) -> CloudFunctionEvent | None:
    """Cloud Function, 1st gen. Its end is told in words, and two ids lead to the launch."""
    text = data.get("textPayload")
    # The bound keeps the regular expression, which may look at a space twice, from long forged lines.
    ended = _TOOK.fullmatch(text) if isinstance(text, str) and len(text) <= 300 else None
    trace_id, execution_id = _trace(data), name_at(data, "labels", "execution_id")
    if ended is None or (trace_id is None and execution_id is None):
        return None
    told = ended[1]
    is_ok = told == "ok" or _STATUS_2XX.fullmatch(told) is not None
    return CloudFunctionEvent(
        **common,
        task_name=name_at(data, "resource", "labels", "function_name"),
        target_type=TargetTypes.CLOUD_FUNCTION,
        execution_id=execution_id,
        status=TaskStatus.COMPLETED if is_ok else TaskStatus.FAILED,
        trace_id=trace_id,
        verdict=Outcome.completed() if is_ok else _failed(told),
    )


def cloud_run(data: Mapping[str, Json], common: Common) -> CloudFunctionEvent | None:
    """Cloud Run function (2nd gen) or service: the request log has the URL that was called.

    Only that log will do: what a service writes may hold an httpRequest as well, and before its end.
    """
    url = at(data, "httpRequest", "requestUrl")
    if not is_of_log(data, "run.googleapis.com%2Frequests"):
        return None
    carried = _carried(url) if isinstance(url, str) else None
    if carried is None:
        return None
    launch_id, run_id, nonce = carried
    code = _http_status(at(data, "httpRequest", "status"))
    status, verdict = TaskStatus.NEW, None
    if code is not None:
        is_ok = 200 <= code <= 299
        status = TaskStatus.COMPLETED if is_ok else TaskStatus.FAILED
        verdict = Outcome.completed() if is_ok else _failed(str(code))
    return CloudFunctionEvent(
        **common,
        task_name=name_at(data, "labels", "goog-drz-cloudfunctions-id")
        or name_at(data, "resource", "labels", "service_name"),
        target_type=TargetTypes.CLOUD_FUNCTION,
        run_id=run_id,
        status=status,
        launch_id=launch_id,
        nonce=nonce,
        trace_id=_trace(data),
        verdict=verdict,
    )


def dataflow_line(data: Mapping[str, Json], common: Common) -> DataflowEvent | None:
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
        name_at(data, "resource", "labels", "job_id") or name_at(data, "labels", "dataflow.googleapis.com/job_id"),
        name_at(data, "resource", "labels", "job_name") or name_at(data, "labels", "dataflow.googleapis.com/job_name"),
    )


def dataflow_state(data: Mapping[str, Json], common: Common) -> DataflowEvent | None:
    """A Dataflow job's statusChanged event: it comes with every change, and only the last ones count."""
    state = at(data, "payload", "currentState")
    if not (isinstance(state, str) and state in _FINAL_STATES):
        return None
    return _dataflow(common, name_at(data, "payload", "id"), name_at(data, "payload", "name"))


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


def _carried(url: str) -> tuple[str, str, str | None] | None:
    """(launch id, run id, nonce) that a requested URL carries; None if it carries no launch of ours."""
    if messages.LAUNCH_PARAMETER not in url or len(url) > 8192:
        return None
    try:
        query = parse_qs(urlsplit(url).query, max_num_fields=100)
    except ValueError:  # no URL at all, or too many fields
        return None
    launches, nonces = query.get(messages.LAUNCH_PARAMETER, []), query.get(messages.NONCE_PARAMETER, [])
    ids = parse_launch_id(launches[0]) if len(launches) == 1 and is_name(launches[0]) else None
    if ids is None:
        return None
    nonce = nonces[0] if len(nonces) == 1 and is_nonce(nonces[0]) else None
    return launches[0], ids[0], nonce


def _http_status(value: Json) -> int | None:
    """The status of a request that we made; 0 and no status mean that the log does not tell."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return None
    if isinstance(value, str) and _STATUS.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
        return value
    raise wrong("httpRequest.status", f"is {shown(value)}", "allowed are 100 to 599")


_ERROR_TYPES = {"timeout": "Task.Timeout", "504": "Task.Timeout", "409": CONFLICT}


def _failed(told: str) -> Outcome:
    return Outcome.failed(_ERROR_TYPES.get(told, "Task.Failed"), f"finished with status {told}")


def _trace(data: Mapping[str, Json]) -> str | None:
    trace = data.get("trace")
    found = _TRACE.fullmatch(trace) if isinstance(trace, str) else None
    return found[1].lower() if found else None
