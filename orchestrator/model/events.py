"""Events: typed facts that happened, as `EventFactory` reads them from what a topic delivers. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import TypedDict

import msgspec

from orchestrator.model.commands import Json, Outcome
from orchestrator.model.enums import TargetTypes, TaskStatus


class Event(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What all events share.

    Attributes:
        event_data: the decoded message, as it came.
        message_id: id of the message; None where the caller gave none.
        publish_time: when it was published, aware; None where the caller gave none.
        task_name: the function or job that the event names (its target_name), if it does.
        target_type: where the task ran, if the event tells.
        execution_id: the service's id of the execution, if the event tells.
        run_id: the run, where the event holds an id of ours.
        status: New unless the event itself tells.
    """

    event_data: Mapping[str, Json]
    message_id: str | None = None
    publish_time: datetime | None = None
    task_name: str | None = None
    target_type: TargetTypes | None = None
    execution_id: str | None = None
    run_id: str | None = None
    status: TaskStatus = TaskStatus.NEW


class Common(TypedDict):
    """What every event takes over as it came."""

    event_data: Mapping[str, Json]
    message_id: str | None
    publish_time: datetime | None


class StartEvent(Event, frozen=True, kw_only=True):
    """Start a run of `dag` (None: of DEFAULT_DAG, or of the only definition) with `input`.

    Attributes:
        scheduled_for: the time of its schedule that the run is for, aware; None for a start by hand.
        priority: of the run; None: that of its definition.
    """

    dag: str | None = None
    input: Mapping[str, Json] = msgspec.field(default_factory=dict)
    scheduled_for: datetime | None = None
    priority: int | None = None


class ObjectEvent(Event, frozen=True, kw_only=True):
    """An object of Cloud Storage is there: a new one, or a new generation of one.

    Attributes:
        generation: its number; where it is not told, every message is an event of its own.
        fields: what `${event}` is in a trigger.
    """

    bucket: str
    name: str
    generation: str | None
    fields: Mapping[str, Json]


class MessageEvent(Event, frozen=True, kw_only=True):
    """A message of a topic that is not the orchestrator's own. Nothing in it is believed.

    Attributes:
        fields: what `${event}` is in a trigger.
    """

    topic: str
    fields: Mapping[str, Json]


class CompletionEvent(Event, frozen=True, kw_only=True):
    """An execution ended, or may have ended.

    Attributes:
        launch_id: our `run_id/node/attempt`, where the event carries it.
        nonce: what the event offers as proof that it knows the claim, where it carries one.
        trace_id: 32 hex digits, where the event has a trace.
        verdict: how the execution ended, if the event tells; believed only from a target that has
            no outcome to ask for, and then only with the claim's nonce or trace.
    """

    launch_id: str | None = None
    nonce: str | None = None
    trace_id: str | None = None
    verdict: Outcome | None = None


class CloudFunctionEvent(CompletionEvent, frozen=True, kw_only=True):
    """The log line of a Cloud Function: 1st gen ("Function execution took …"), or the request log
    of a Cloud Run function (2nd gen) or Cloud Run service."""


class DataflowEvent(CompletionEvent, frozen=True, kw_only=True):
    """A line of a Dataflow job's log, or its statusChanged event. Only ever a reason to ask the job."""

    job_name: str | None = None


class JobEvent(CompletionEvent, frozen=True, kw_only=True):
    """What the log tells of a job's end (`target_type` says of which service). Only ever a reason to ask the job."""


class FunctionEvent(CompletionEvent, frozen=True, kw_only=True):
    """A Function target's own message."""


class CallbackEvent(CompletionEvent, frozen=True, kw_only=True):
    """Somebody has answered a Callback Task; its token is the `nonce`."""


class ReminderEvent(Event, frozen=True, kw_only=True):
    """A due entry's time has come (`kind`, `attempt`, `at`), or (`kind` None) an early question."""

    node_name: str
    attempt: int
    kind: str | None = None
    at: datetime | None = None


class HeartbeatEvent(Event, frozen=True, kw_only=True):
    """The execution of an attempt is at work; `nonce`: the proof that it is the attempt's."""

    node_name: str
    attempt: int
    nonce: str


class TickEvent(Event, frozen=True, kw_only=True):
    """Look after all open runs."""


class SlotEvent(Event, frozen=True, kw_only=True):
    """The run, or an attempt in it, holds the slot of `queue` that it asked for with `ticket`, which is the proof."""

    queue: str
    ticket: str
    node_name: str | None = None
    attempt: int = 0


class LaterEvent(Event, frozen=True, kw_only=True):
    """Carries an event that is to be published at `at`, further off than a broker can delay at once."""

    event: Mapping[str, Json]
    at: datetime


class PauseEvent(Event, frozen=True, kw_only=True):
    """Pause the run `run_id`."""


class ResumeEvent(Event, frozen=True, kw_only=True):
    """Let the run `run_id` go on."""


class RedriveEvent(Event, frozen=True, kw_only=True):
    """Let the run `run_id`, which has ended, go on: from where it failed or, again, from a step.

    Attributes:
        start_from: the step's name.
        number: which redrive of the run it is to be, from 1; None: the next one after the end before it was published.
    """

    start_from: str | None = None
    number: int | None = None


class BeginEvent(Event, frozen=True, kw_only=True):
    """The child run `run_id` was made, and is to begin."""


class CancelEvent(Event, frozen=True, kw_only=True):
    """Cancel the run `run_id`."""

    reason: str = ""
