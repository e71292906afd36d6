"""The cloud around the engine: a bucket, a topic, services that run things, clocks that are not quite right."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchUncertain, StoreUnavailable, VersionConflict
from orchestrator.model.messages import function_message
from orchestrator.stores.journal import Members, encode, merge
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator.crew import Crew, Host
from tests.simulation.simulator.tape import Tape


class SkewedClock:
    """A process's clock: the time, and what it is off by."""

    def __init__(self, crew: Crew, skew_s: float) -> None:
        self._crew, self._skew_s = crew, skew_s

    def now(self) -> datetime:
        return at(self._crew.now + self._skew_s)


def at(seconds: float) -> datetime:
    """The time so many seconds after the simulation's beginning."""
    return T0 + timedelta(seconds=seconds)


class Bucket:
    """What all processes write to; told are those who watch."""

    def __init__(self) -> None:
        self.held = MemoryStore()
        self.watch: Callable[[str, bytes | None, bytes, Host], None] = lambda key, before, after, host: None

    def write(self, key: str, data: bytes | Members, expect: str | None, host: Host) -> str:
        before = self.held.get(key)
        if not isinstance(data, bytes):
            if before is None or before[1] != expect:
                raise VersionConflict(f"{key}: has another version than {expect}")
            data = merge(key, before[0], [encode(data)])
        version = self.held.put(key, data, expect=expect)
        self.watch(key, before[0] if before else None, data, host)
        return version


class StoreOf:
    """The bucket as one process sees it: calls that take time, fail, and may have been carried out all the same."""

    def __init__(self, bucket: Bucket, crew: Crew, tape: Tape, host: Host) -> None:
        self._bucket, self._crew, self._tape, self._host = bucket, crew, tape, host

    def get(self, key: str) -> tuple[bytes, str] | None:
        self._crew.pause(f"get {_kind(key)}")
        if self._tape.strikes("503", f"get {_kind(key)}", 0.01):
            raise StoreUnavailable(f"{key}: cannot be read: 503")
        return self._bucket.held.get(key)

    def put(self, key: str, data: bytes | Members, *, expect: str | None) -> str:
        step = f"put {_kind(key)}"
        self._crew.pause(step)
        if self._tape.strikes("503", step, 0.01):
            raise StoreUnavailable(f"{key}: cannot be written: 503")
        if self._tape.strikes("429", step, 0.01):
            raise StoreUnavailable(f"{key}: is written too often: 429")
        version = self._bucket.write(key, data, expect, self._host)
        if self._tape.strikes("503 after the write", step, 0.015):
            raise StoreUnavailable(f"{key}: cannot be written: 503")
        if self._tape.strikes("412 after the write", step, 0.015):
            raise VersionConflict(f"{key}: has another version than {expect}")
        self._crew.pause(f"{step}, done")
        return version

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        self._crew.pause(f"list {prefix}")
        return self._bucket.held.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        self._crew.pause(f"delete {_kind(key)}")
        if self._tape.strikes("503", f"delete {_kind(key)}", 0.01):
            raise StoreUnavailable(f"{key}: cannot be deleted: 503")
        self._bucket.held.delete(key)


class ChangingStoreOf(StoreOf):
    """One that changes a part of an object, by the same steps, so that a seed is the same to the letter with either."""

    def change(self, key: str, members: Members, *, expect: str) -> str:
        return self.put(key, members, expect=expect)


def _kind(key: str) -> str:
    return key.partition("/")[0]


@dataclass
class Message:
    """One message of the topic."""

    message_id: str
    data: Mapping[str, Json]
    published_at: float
    due_at: float
    is_lossy: bool = False
    """Whether it may be lost: a log line, a reminder; what a person or a scheduler sends is not."""
    tries: int = 0
    is_out: bool = False
    """Whether a process has it now: `host`."""
    host: Host | None = None


class Topic:
    """Delivers at least once, in any order, not before its time."""

    def __init__(self, crew: Crew, tape: Tape) -> None:
        self._crew, self._tape = crew, tape
        self.messages: list[Message] = []
        self._count = 0
        self._lag_s = tape.one_of([0.0, 2.0, 2.0])

    def publish(self, data: Mapping[str, Json], *, delay_s: float = 0.0, is_lossy: bool = False) -> str:
        self._count += 1
        lag = self._tape.between(0.05, 0.05 + self._lag_s)
        if self._tape.chance(0.05):
            lag += self._tape.between(5.0, 600.0)  # late
        now = self._crew.now
        self.messages.append(Message(f"m{self._count}", data, now + delay_s, now + delay_s + lag, is_lossy))
        return f"m{self._count}"


class BrokerOf:
    """The topic as one process publishes to it."""

    def __init__(self, topic: Topic, crew: Crew, tape: Tape) -> None:
        self._topic, self._crew, self._tape = topic, crew, tape

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        self._crew.pause("publish")
        if self._tape.strikes("503", "publish", 0.02):
            raise StoreUnavailable("the topic cannot be published to: 503")
        message_id = self._topic.publish(event, delay_s=delay_s, is_lossy=event["resource"] == {"type": "reminder"})
        if self._tape.strikes("503 after the publish", "publish", 0.02):
            raise StoreUnavailable("the topic cannot be published to: 503")
        return message_id


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


SERVICES = (
    Service("BigQuery", Identity.FOREVER, True, True, id_is_ours=True),
    Service("Dataflow", Identity.WINDOW, True, True),
    Service("CloudRunJob", Identity.FOUND, True, True, launch_limit_s=20.0),
    Service("CloudFunction", Identity.WINDOW, False, False, id_is_ours=True, finds=False, forgets_after_s=86400.0),
    Service("CloudFunction.sync", Identity.NONE, False, False, synchronous=True, launch_limit_s=60.0, finds=False),
)


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


@dataclass
class Services:
    """All that runs anywhere, and ran.

    Attributes:
        told_of: called with a launch that a service is about to begin an execution for, and the process that asks.
        outcome_of: how an attempt ends, and how long it takes.
    """

    crew: Crew
    tape: Tape
    topic: Topic
    outcome_of: Callable[[Launch], tuple[Outcome, float]]
    told_of: Callable[[Launch, Service, Host], None] = lambda launch, service, host: None
    called: Callable[[Launch], None] = lambda launch: None
    called_by: Callable[[str], None] = lambda owner: None
    executions: dict[str, Running] = field(default_factory=dict)
    by_launch: dict[str, list[Running]] = field(default_factory=dict)
    loses_lines: float = 0.1

    def begin(self, launch: Launch, service: Service, host: Host) -> Running:
        """Begin an execution, or find the one that the key stands for."""
        for known in self.by_launch.get(launch.launch_id, ()):
            counts = service.identity is Identity.FOREVER
            if service.identity is Identity.WINDOW:
                counts = known.ended_at is None or self.crew.now < known.ended_at + service.forgets_after_s
            if counts:
                return known
        self.told_of(launch, service, host)
        outcome, took_s = self.outcome_of(launch)
        number = len(self.executions)
        execution = Running(
            f"x{number}-{service.name.partition('.')[0].lower()}",
            launch,
            service,
            self.crew.now,
            self.crew.now + took_s,
            outcome,
            host=host,
            order=number,
        )
        self.executions[execution.execution_id] = execution
        self.by_launch.setdefault(launch.launch_id, []).append(execution)
        return execution

    def ending(self) -> list[Running]:
        """The executions whose end has come."""
        return [x for x in self.executions.values() if x.ended_at is None and x.ends_at <= self.crew.now]

    def next_end(self) -> float | None:
        """When the next execution ends."""
        return min((x.ends_at for x in self.executions.values() if x.ended_at is None), default=None)

    def end(self, execution: Running, outcome: Outcome | None = None) -> None:
        """An execution ends, and a line says so, perhaps."""
        execution.ended_at = self.crew.now
        execution.ended_as = outcome or execution.outcome
        if self.tape.strikes("lost", "completion", self.loses_lines):
            return
        for _ in range(2 if self.tape.strikes("twice", "completion", 0.1) else 1):
            self.topic.publish(self.line_of(execution), is_lossy=True)

    @staticmethod
    def line_of(execution: Running, *, nonce: str | None = None, verdict: Outcome | None = None) -> dict[str, Json]:
        """The event that an execution leaves at its end."""
        outcome = verdict or execution.ended_as or execution.outcome
        if outcome.kind is OutcomeKind.CANCELLED:
            outcome = Outcome.failed("Task.Cancelled", "cancelled")
        return function_message(
            execution.launch.launch_id,
            execution.launch.nonce if nonce is None else nonce,
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
        crew, tape = self._services.crew, self._services.tape
        self._services.called_by(launch.owner)
        self._services.called(launch)
        crew.pause("launch")
        if tape.strikes("503", "launch", 0.02):
            raise LaunchUncertain("503")
        execution = self._services.begin(launch, self._service, self._host)
        if self.synchronous:
            begun = crew.now
            crew.wait_for(lambda: execution.ended_at is not None or crew.now >= begun + self.launch_limit_s)
            crew.pause("launch, done")
            if execution.ended_as is None:
                return Execution(
                    execution.execution_id, outcome=Outcome.failed("Task.Timeout", "the call's deadline is over")
                )
            return Execution(execution.execution_id, outcome=execution.ended_as)
        if tape.strikes("503 after the launch", "launch", 0.03):
            raise LaunchUncertain("503")
        crew.pause("launch, done")
        return Execution(execution.execution_id)

    def find(self, launch: Launch) -> Execution | None:
        if launch.recover:
            self._services.called_by(launch.owner)
        self._services.crew.pause("find")
        if not self._service.finds:
            return None
        if self._services.tape.strikes("503", "find", 0.02):
            raise LaunchUncertain("503")
        known = self._services.by_launch.get(launch.launch_id)
        return Execution(known[-1].execution_id) if known else None

    def outcome(self, execution: Execution) -> Outcome | None:
        self._services.crew.pause("outcome")
        if not self.has_outcome:
            return None
        if self._services.tape.strikes("503", "outcome", 0.02):
            raise LaunchUncertain("503")
        known = self._services.executions.get(execution.execution_id)
        return known.ended_as if known is not None else None

    def cancel(self, execution: Execution) -> None:
        self._services.crew.pause("cancel")
        if self._services.tape.strikes("503", "cancel", 0.03):
            raise LaunchUncertain("503")
        known = self._services.executions.get(execution.execution_id)
        if known is not None and known.ended_at is None and self.can_cancel:
            known.cancels += 1
            self._services.end(known, Outcome.cancelled())
        if self._services.tape.strikes("503 after the cancel", "cancel", 0.03):
            raise LaunchUncertain("503")


def share_of(*parts: object) -> float:
    """A number from 0 to 1 that is always the same for the same words."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
