"""Steps 2 and 3 of the loop: from what a topic delivered to whose event it is."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.engine.address import (
    BeginRun,
    CancelRun,
    Completion,
    Heartbeat,
    Item,
    Later,
    PauseRun,
    RedriveRun,
    Reminder,
    ResumeRun,
    SlotTold,
    Start,
    StartAll,
    TickAll,
)
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.status import ExecutionStatus
from orchestrator.model.commands import EMPTY, Json, Launch
from orchestrator.model.dag import DAG
from orchestrator.model.errors import EventError, NotYet, OrchestratorError, SettingsError
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.events import (
    BeginEvent,
    CancelEvent,
    CompletionEvent,
    DataflowEvent,
    Event,
    HeartbeatEvent,
    LaterEvent,
    MessageEvent,
    ObjectEvent,
    PauseEvent,
    RedriveEvent,
    ReminderEvent,
    ResumeEvent,
    SlotEvent,
    StartEvent,
    TickEvent,
)
from orchestrator.model.ids import KEY_PREFIX, parse_launch_id, run_id_of, scheduled_start_of, triggered_start_of
from orchestrator.model.run_state import ParentRun

if TYPE_CHECKING:
    from orchestrator.engine.triggering import Triggers


class Resolver:
    """Finds the run, node and attempt of an event.

    Args:
        new_message_id: makes one for a start that came without, which is then a run of its own.
        variables: of the environment, by name.
        grace_s: how long an event is put off whose execution is not recorded (yet).
    """

    def __init__(
        self,
        catalog: Catalog,
        executions: ExecutionStatus,
        new_message_id: Callable[[], str],
        grace_s: float,
        variables: Mapping[str, Json] = EMPTY,
    ) -> None:
        self._variables = variables
        self._catalog, self._executions = catalog, executions
        self._new_message_id, self._grace_s = new_message_id, grace_s

    def resolve(
        self, data: Mapping[str, Json], message_id: str | None, publish_time: datetime | None, now: datetime
    ) -> Item | TickAll | Later | StartAll | None:
        """Return whose event this is, or None for somebody else's.

        Raises:
            EventError, UnknownDag, DefinitionError, SettingsError: it is ours, and wrong for good.
            NotYet: too early to tell.
        """
        at = publish_time or now
        run_id, trace_id = data.get("run_id"), None
        try:
            event = EventFactory.create_from_event(data, message_id=message_id, publish_time=at)
            if event is None:
                return None
            run_id = event.run_id or run_id
            trace_id = event.trace_id if isinstance(event, CompletionEvent) else None
            return self._addressed(event, at, now)
        except OrchestratorError as exc:
            exc.about(run_id=run_id if isinstance(run_id, str) else None, trace=trace_id)
            raise

    def _addressed(self, event: Event, at: datetime, now: datetime) -> Item | TickAll | Later | StartAll | None:
        match event:
            case StartEvent():
                return self._start(event, at)
            case BeginEvent(run_id=str(run_id)):
                return BeginRun(run_id, at)
            case TickEvent():
                return TickAll()
            case LaterEvent():
                return Later(event.event, event.at)
            case ReminderEvent(run_id=str(run_id)):
                return Reminder(run_id, event.node_name, event.attempt, event.kind, event.at, at)
            case HeartbeatEvent(run_id=str(run_id)):
                return Heartbeat(run_id, event.node_name, event.attempt, event.nonce, at)
            case CancelEvent(run_id=str(run_id)):
                return CancelRun(run_id, event.reason, at)
            case PauseEvent(run_id=str(run_id)):
                return PauseRun(run_id, at)
            case ResumeEvent(run_id=str(run_id)):
                return ResumeRun(run_id, at)
            case SlotEvent(run_id=str(run_id)):
                return SlotTold(run_id, event.queue, event.ticket, event.node_name, event.attempt)
            case RedriveEvent(run_id=str(run_id)):
                return RedriveRun(run_id, event.start_from, event.number, at)
            case ObjectEvent() | MessageEvent():
                return self._triggered(event, at)
            case CompletionEvent():
                return self._completion(event, at, now)
        raise EventError(f"event {event.message_id}: a {type(event).__name__} that names no run")

    def is_young(self, published: datetime, now: datetime) -> bool:
        """Whether what an event of this age belongs to may still be on its way."""
        return now - published < timedelta(seconds=self._grace_s)

    def _start(self, event: StartEvent, at: datetime) -> Start:
        name, definition, dag = self._catalog.find(event.dag)
        message_id, due = event.message_id or self._new_message_id(), event.scheduled_for
        if due is not None:  # whoever sends it, and however often: it is the one start for that time
            message_id, at = scheduled_start_of(name, due), due
        run_id = event.run_id or run_id_of(message_id, at)
        variables = self._variables_of(name, dag)
        return Start(
            run_id, name, definition, dag, event.input, message_id, due, variables, at, priority=event.priority
        )

    def _triggered(self, event: ObjectEvent | MessageEvent, at: datetime) -> StartAll | None:
        """Return what an event of others starts; None where nothing looks for it."""
        from orchestrator.model.trigger_events import second_of

        found, problems = self._triggers.runs_of(event)
        if not found and not problems:
            return None
        message_id = event.message_id or self._new_message_id()
        cause = (
            f"{event.topic} {message_id}" if isinstance(event, MessageEvent) else f"{event.fields['uri']}#{message_id}"
        )
        if isinstance(event, ObjectEvent) and event.generation is not None:  # it may be told of twice, by two messages
            cause, at = f"{event.fields['uri']}#{event.generation}", second_of(event)
        starts = []
        for run in found:
            known_as = triggered_start_of(run.dag_name, cause)
            run_id = run_id_of(known_as, at)
            starts.append(
                Start(run_id, run.dag_name, run.definition, run.dag, run.input, known_as, None, run.variables, at)
            )
        return StartAll(tuple(starts), tuple(problems))

    @cached_property
    def _triggers(self) -> "Triggers":
        from orchestrator.engine.triggering import Triggers

        return Triggers(self._catalog, self._variables_of)

    def child(self, launch: Launch, run_id: str) -> Start:
        """Return the start of the child run that a Dag Task launches.

        Raises:
            UnknownDag, DefinitionError, SettingsError: it cannot be started here.
        """
        name, definition, dag = self._catalog.find(launch.target_name)
        parent = ParentRun(launch.run_id, launch.node_name, launch.attempt, launch.depth + 1)
        variables = self._variables_of(name, dag)
        given, due = launch.parameters, launch.scheduled_for
        message_id, priority = launch.launch_id, launch.priority
        return Start(run_id, name, definition, dag, given, message_id, due, variables, parent=parent, priority=priority)

    def _variables_of(self, name: str, dag: DAG) -> Mapping[str, Json]:
        """Return the variables that a DAG asks for. Raises SettingsError where one has no value."""
        missing = sorted(dag.variables - self._variables.keys())
        if missing:
            asked = ", ".join(f"${{var.{each}}}" for each in missing)
            raise SettingsError(
                f"dag {name}: asks for {asked}, of which there is no value; "
                f"give one in VARIABLES; there {_are(sorted(self._variables))}"
            )
        return {each: self._variables[each] for each in sorted(dag.variables)}

    def _completion(self, event: CompletionEvent, at: datetime, now: datetime) -> Completion | None:
        if isinstance(event, DataflowEvent) and event.job_name and not event.job_name.startswith(KEY_PREFIX):
            return None  # its name could be ours, and is not
        launch_id = event.launch_id
        for known_as in (event.trace_id, event.execution_id):  # a trace is ours; an id may be the platform's own
            if launch_id is None and known_as is not None:
                record = self._executions.get_execution(known_as)
                launch_id = record.launch_id if record else None
        parts = parse_launch_id(launch_id) if launch_id else None
        if parts is not None:
            return Completion(*parts, event)
        if self.is_young(at, now):
            raise NotYet(
                f"execution {event.execution_id}: no launch of ours is recorded for it (yet); "
                f"put off until the event is {self._grace_s:g} s old"
            )
        return None


def _are(names: list[str]) -> str:
    return f"are {', '.join(names)}" if names else "is none"
