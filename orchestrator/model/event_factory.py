"""EventFactory: from a decoded message to the typed event that it is, or None where it is not ours.

Three answers, and no other exception whatever the JSON:

- an Event: a fact that may concern a run of ours; whether it does, the executor finds out;
- None: not ours. A log entry that could carry an id of ours and does not is somebody else's;
- EventError: clearly ours and malformed, so that delivering it again cannot help.

A new source is one row in the table, one reader, and a file in `tests/payloads/`. Pure.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from orchestrator.model import job_events, log_events, messages, own_events
from orchestrator.model.commands import Json
from orchestrator.model.event_values import shown, wrong
from orchestrator.model.events import Common, Event

_NO_RESOURCE: Final = ""


def _recognisers() -> Mapping[str, "_Reader"]:
    """The table: `resource.type` -> what reads such messages, and says None to those of others."""
    return {
        messages.FUNCTION: own_events.function,
        messages.START: own_events.start,
        messages.CALLBACK: own_events.callback,
        messages.REMINDER: own_events.reminder,
        messages.HEARTBEAT: own_events.heartbeat,
        messages.TICK: own_events.tick,
        messages.CANCEL: own_events.cancel,
        messages.PAUSE: own_events.pause,
        messages.RESUME: own_events.resume,
        messages.SLOT: own_events.slot,
        messages.REDRIVE: own_events.redrive,
        messages.BEGIN: own_events.begin,
        messages.LATER: own_events.later,
        messages.OBJECT: _object,
        messages.MESSAGE: _message,
        "cloud_function": log_events.cloud_function,  # 1st gen: its log's "Function execution took …"
        "cloud_run_revision": log_events.cloud_run,  # 2nd gen and services: the request log
        "dataflow_step": log_events.dataflow_line,  # the job's message log
        "cloud_run_job": job_events.cloud_run_job,  # audit log: a system event at the end of each execution
        "bigquery_project": job_events.bigquery,  # audit log: data access, with the job's changes of state
        "workflows.googleapis.com/Workflow": job_events.workflow,  # the executions' system log
        "aiplatform.googleapis.com/PipelineJob": job_events.pipeline,  # the pipelines' own log
        _NO_RESOURCE: log_events.dataflow_state,  # Eventarc: google.cloud.dataflow.job.v1beta3.statusChanged
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
            raise wrong("event", f"is {shown(event_data)}", "it has to be a JSON object")
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


def _object(data: Mapping[str, Json], common: Common) -> Event | None:
    from orchestrator.model.trigger_events import object_event  # only where one comes

    return object_event(data, common)


def _message(data: Mapping[str, Json], common: Common) -> Event:
    from orchestrator.model.trigger_events import message_event  # only where one comes

    return message_event(data, common)


_ABSENT: Final[dict[str, Json]] = {"type": _NO_RESOURCE}
_READERS: Final = _recognisers()
