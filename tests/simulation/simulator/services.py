"""Services that run what is launched, somebody who answers, and who is notified: all that is not the engine's own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Notify, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchUncertain, NotSent
from orchestrator.model.messages import callback_message, function_message, heartbeat_message
from orchestrator.model.task_result import TaskProgress, progress_object
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.callback import CallbackTarget
from tests.simulation.simulator.cloud import StoreOf, Topic, at
from tests.simulation.simulator.crew import Crew, Host
from tests.simulation.simulator.meetings import step_at
from tests.simulation.simulator.tape import Tape


@dataclass
class Service:
    """What of a kind of service the engine has to know, and how it is.

    Attributes:
        forgets_after_s: of identity `window`: how long after an execution's end its key counts.
    """

    name: str
    identity: Identity
    has_outcome: bool
    can_cancel: bool
    synchronous: bool = False
    launch_limit_s: float = 0.0
    id_is_ours: bool = False
    finds: bool = True
    forgets_after_s: float = 0.0
    is_person: bool = False
    names_its_execution_only: bool = False


SERVICES = (
    Service("BigQuery", Identity.FOREVER, True, True, id_is_ours=True),
    Service("Dataflow", Identity.WINDOW, True, True, names_its_execution_only=True),
    Service("CloudRunJob", Identity.FOUND, True, True, launch_limit_s=20.0),
    Service("CloudFunction", Identity.WINDOW, False, False, id_is_ours=True, finds=False, forgets_after_s=86400.0),
    Service("CloudFunction.sync", Identity.NONE, False, False, synchronous=True, launch_limit_s=60.0, finds=False),
)
SOMEBODY = Service("Callback", Identity.FOREVER, False, False, launch_limit_s=30.0, is_person=True)
"""Who answers Callbacks: they cannot be stopped from doing so, but a step that waits for it can."""


@dataclass
class Running:
    """An execution."""

    execution_id: str
    launch: Launch
    service: Service
    begun_at: float
    ends_at: float
    outcome: Outcome
    ended_at: float | None = None
    ended_as: Outcome | None = None
    cancels: int = 0
    host: Host | None = None
    order: int = 0
    beat_s: float = 0.0
    """How often it says that it is at work; 0: never."""
    next_beat_at: float = float("inf")
    silent_at: float = float("inf")
    """From when on it does so no more."""
    heard_at: float | None = None
    """When that was written where a Tick finds it."""


@dataclass
class Services:
    """All that runs anywhere, and ran.

    Attributes:
        told_of: called with a launch that a service is about to begin an execution for, and the process that asks.
        outcome_of: how an attempt ends, and how long it takes.
        loses_verdicts: whether a line may be lost that is the only witness of its end.
        ends: run id -> how many executions of its have ended.
    """

    crew: Crew
    tape: Tape
    topic: Topic
    outcome_of: Callable[[Launch], tuple[Outcome, float]]
    told_of: Callable[[Launch, Service, Host], None] = lambda launch, service, host: None
    called: Callable[[Launch], None] = lambda launch: None
    called_by: Callable[[str], None] = lambda owner: None
    executions: dict[str, Running] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    """Those that have not ended."""
    by_launch: dict[str, list[Running]] = field(default_factory=dict)
    loses_lines: float = 0.1
    loses_verdicts: bool = True
    beats_of: Callable[[Launch], tuple[float, float]] = lambda launch: (0.0, 0.0)
    ends: Counter[str] = field(default_factory=Counter)
    by_key: dict[str, list[Running]] = field(default_factory=dict)

    def begin(self, launch: Launch, service: Service, host: Host) -> Running:
        """Begin an execution, or find the one that the key stands for."""
        for known in self.by_key.get(launch.key, ()):
            counts = service.identity is Identity.FOREVER
            if service.identity is Identity.WINDOW:
                counts = known.ended_at is None or self.crew.now < known.ended_at + service.forgets_after_s
            if counts:
                return known
        self.told_of(launch, service, host)
        outcome, took_s = self.outcome_of(launch)
        number = len(self.executions)
        execution = Running(
            launch.key if service.is_person else f"x{number}-{service.name.partition('.')[0].lower()}",
            launch,
            service,
            self.crew.now,
            self.crew.now + took_s,
            outcome,
            host=host,
            order=number,
        )
        self.executions[execution.execution_id] = self.running[execution.execution_id] = execution
        self.by_launch.setdefault(launch.launch_id, []).append(execution)
        self.by_key.setdefault(launch.key, []).append(execution)
        execution.beat_s, silent_after_s = self.beats_of(launch)
        if execution.beat_s:
            execution.next_beat_at = self.crew.now + execution.beat_s
            execution.silent_at = self.crew.now + silent_after_s
        return execution

    def next_end(self) -> float | None:
        """When the next execution ends, or says that it is at work."""
        return min((min(x.ends_at, x.next_beat_at) for x in self.running.values()), default=None)

    def beat(self, execution: Running, store: MemoryStore) -> None:
        """An execution says that it is at work: by a message, or where a Tick finds it."""
        now = self.crew.now
        execution.next_beat_at = now + execution.beat_s
        if now >= execution.silent_at:
            execution.next_beat_at = float("inf")
        elif self.tape.chance(0.5):
            data = heartbeat_message(execution.launch.launch_id, execution.launch.nonce)
            self.topic.publish(data, is_lossy=True, run_id=execution.launch.run_id)
        else:
            execution.heard_at = now
            said = msgspec.json.encode(TaskProgress(fraction=0.5, message="at work", at=at(now)))
            key = progress_object(execution.launch.key)
            found = store.get(key)
            store.put(key, said, expect=found[1] if found else None)

    def end(self, execution: Running, outcome: Outcome | None = None) -> None:
        """An execution ends, and a line says so, perhaps."""
        execution.ended_at = self.crew.now
        del self.running[execution.execution_id]
        execution.ended_as = outcome or execution.outcome
        run_id = execution.launch.run_id
        self.ends[run_id] += 1
        service = execution.service
        can_lose = not service.is_person and (service.has_outcome or self.loses_verdicts)
        if can_lose and self.tape.strikes("lost", "completion", self.loses_lines):
            self.lost(execution)
            return
        line = self.line_of(execution)
        for number in range(2 if self.tape.strikes("twice", "completion", 0.1) else 1):
            self.topic.publish(line, is_lossy=can_lose, run_id=run_id, is_copy=number > 0)

    lost: Callable[[Running], None] = lambda execution: None

    @staticmethod
    def line_of(execution: Running, *, nonce: str | None = None, verdict: Outcome | None = None) -> dict[str, Json]:
        """The event that an execution leaves at its end."""
        outcome = verdict or execution.ended_as or execution.outcome
        if outcome.kind is OutcomeKind.CANCELLED:
            outcome = Outcome.failed("Task.Cancelled", "cancelled")
        launch = execution.launch
        if execution.service.is_person:
            where = (launch.run_id, launch.node_name, launch.attempt)
            return callback_message(*where, nonce or launch.nonce, outcome.result, outcome.error)
        if execution.service.names_its_execution_only and verdict is None:
            return {"payload": {"currentState": "JOB_STATE_DONE", "id": execution.execution_id}}
        return function_message(
            launch.launch_id,
            launch.nonce if nonce is None else nonce,
            outcome,
            execution_id=execution.execution_id,
        )


class TargetOf:
    """A service as one process calls it."""

    def __init__(self, service: Service, services: Services, host: Host) -> None:
        self._service, self._services, self._host = service, services, host
        self.identity, self.has_outcome, self.can_cancel = service.identity, service.has_outcome, service.can_cancel
        self.launch_limit_s, self.synchronous, self.id_is_ours = (
            service.launch_limit_s,
            service.synchronous,
            service.id_is_ours,
        )

    def launch(self, launch: Launch) -> Execution:
        crew = self._services.crew
        self._called(launch)
        self._pause("launch", launch)
        self._may_fail("503", "launch", 0.02)
        execution = self._services.begin(launch, self._service, self._host)
        if self.synchronous:
            until = crew.now + self.launch_limit_s
            crew.wait_for(lambda: execution.ended_at is not None or crew.now >= until < execution.ends_at)
            self._pause("launch and wait, done", launch)
            if execution.ended_as is None:
                late = Outcome.failed("Task.Timeout", "the call's deadline is over")
                return Execution(execution.execution_id, outcome=late)
            return Execution(execution.execution_id, outcome=execution.ended_as)
        self._may_fail("503 after the write", "launch", 0.03)
        self._pause("launch, done", launch)
        return Execution(execution.execution_id)

    def find(self, launch: Launch) -> Execution | None:
        if launch.recover:
            self._services.called_by(launch.owner)
        self._pause("find", launch)
        if not self._service.finds:
            return None
        self._may_fail("503", "find", 0.02)
        known = self._services.by_key.get(launch.key)
        return Execution(known[-1].execution_id) if known else None

    def outcome(self, execution: Execution) -> Outcome | None:
        known = self._services.executions.get(execution.execution_id)
        self._pause("outcome", known.launch if known is not None else None)
        if not self.has_outcome:
            return None
        self._may_fail("503", "outcome", 0.02)
        return known.ended_as if known is not None else None

    def cancel(self, execution: Execution) -> None:
        known = self._services.executions.get(execution.execution_id)
        self._pause("cancel", known.launch if known is not None else None)
        self._may_fail("503", "cancel", 0.03)
        if known is not None and known.ended_at is None and self.can_cancel:
            known.cancels += 1
            self._services.end(known, Outcome.cancelled())
        self._may_fail("503 after the write", "cancel", 0.03)

    def _called(self, launch: Launch) -> None:
        self._services.called_by(launch.owner)
        self._services.called(launch)

    def _pause(self, step: str, launch: Launch | None) -> None:
        if launch is not None:
            self._services.crew.is_about(launch.run_id)
        self._services.crew.pause(step)

    def _may_fail(self, fault: str, step: str, share: float) -> None:
        if self._services.tape.strikes(fault, step, share):
            self._services.tape.meets(fault, step_at(step))
            raise LaunchUncertain("503")


class CallbackOf(CallbackTarget):
    """The real target of Callbacks, as one process calls it."""

    def __init__(self, store: StoreOf, notifier: NotifierOf, services: Services, host: Host) -> None:
        super().__init__(store, notifier)
        self._services, self._host = services, host

    def launch(self, launch: Launch) -> Execution:
        """Tell who is to answer, who does so in their time."""
        self._services.called_by(launch.owner)
        self._services.called(launch)
        self._services.crew.is_about(launch.run_id)
        self._services.crew.pause("launch")
        execution = super().launch(launch)
        self._services.begin(launch, SOMEBODY, self._host)
        self._services.crew.pause("launch, done")
        return execution

    def find(self, launch: Launch) -> Execution | None:
        """As it is, and that it was asked."""
        if launch.recover:
            self._services.called_by(launch.owner)
        self._services.crew.pause("find")
        return super().find(launch)


@dataclass
class Receivers:
    """Who is notified.

    Attributes:
        got: id of a notification -> what came of it, each time.
        sending: told before one is accepted, with the process that sends it.
    """

    got: dict[str, list[Notify]] = field(default_factory=dict)
    sending: Callable[[Notify, Host], None] = lambda notification, host: None


class NotifierOf:
    """The receivers as one process sends to them."""

    def __init__(self, receivers: Receivers, crew: Crew, tape: Tape, host: Host) -> None:
        self._receivers, self._crew, self._tape, self._host = receivers, crew, tape, host

    def notify(self, notification: Notify) -> None:
        """Send it. Raises NotSent."""
        self._crew.is_about(notification.run_id)
        self._crew.pause("notify")
        self._may_fail("503")
        self._receivers.sending(notification, self._host)
        self._receivers.got.setdefault(notification.notification_id, []).append(notification)
        self._may_fail("503 after the write")
        self._crew.pause("notify, done")

    def _may_fail(self, fault: str) -> None:
        if self._tape.strikes(fault, "notify", 0.05):
            self._tape.meets(fault, "notify")
            raise NotSent("503", retry=True)


def share_of(*parts: object) -> float:
    """A number from 0 to 1 that is always the same for the same words."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
