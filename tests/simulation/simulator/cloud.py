"""The cloud around the engine: a bucket, a topic, services that run things, clocks that are not quite right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import inf

from orchestrator.engine.status import MARKERS
from orchestrator.model.commands import Json
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores.journal import Members, encode, merge
from orchestrator.testing.ticks import WatchedStore
from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator.crew import Crew, Host
from tests.simulation.simulator.meetings import step_at
from tests.simulation.simulator.tape import Tape


class SkewedClock:
    """A process's clock: the time, and what it is off by, until it is put right."""

    def __init__(self, crew: Crew, skew_s: float, right_from_s: float = inf) -> None:
        self._crew, self._skew_s, self._right_from_s = crew, skew_s, right_from_s
        self._read_at, self._told = -1.0, T0

    def now(self) -> datetime:
        self._crew.looks_at_clock()
        if self._read_at != self._crew.now:
            skew_s = self._skew_s if self._crew.now <= self._right_from_s else 0.0
            self._read_at, self._told = self._crew.now, at(self._crew.now + skew_s)
        return self._told


def at(seconds: float) -> datetime:
    """The time so many seconds after the simulation's beginning."""
    return T0 + timedelta(seconds=seconds)


class Bucket:
    """What all processes write to; told are those who watch."""

    def __init__(self) -> None:
        self.held = WatchedStore()
        self.watch: Callable[[str, bytes | None, bytes, Host], None] = lambda key, before, after, host: None
        self.writes = Counter[tuple[str, str]]()
        """(run id, process) -> how often that process has written that run's document."""
        self.looked_at: dict[str, float] = {}
        """Process -> when it has last begun to look which runs are open, in seconds."""

    def write(self, key: str, data: bytes | Members, expect: str | None, host: Host) -> str:
        before = self.held.get(key)
        if not isinstance(data, bytes):
            if before is None or before[1] != expect:
                raise VersionConflict(f"{key}: has another version than {expect}")
            data = merge(key, before[0], [encode(data)])
        version = self.held.put(key, data, expect=expect)
        if run_id := run_in(key):
            self.writes[run_id, host.name] += 1
        self.watch(key, before[0] if before else None, data, host)
        return version

    def writes_to(self, run_id: str | None, without: Host | None) -> int:
        """How often a run's document has been written, by other processes than one; any run's, where there is none."""
        is_there = run_id is not None and self.held.get(f"runs/{run_id}.json") is not None
        name = without.name if without is not None else None
        return sum(n for (run, by), n in self.writes.items() if by != name and (not is_there or run == run_id))


class StoreOf:
    """The bucket as one process sees it: calls that take time, fail, and may have been carried out all the same."""

    def __init__(self, bucket: Bucket, crew: Crew, tape: Tape, host: Host) -> None:
        self._bucket, self._crew, self._tape, self._host = bucket, crew, tape, host

    def get(self, key: str) -> tuple[bytes, str] | None:
        step = f"get {_kind(key)}"
        self._begin(step, key)
        self._may_fail("503", step, 0.01, StoreUnavailable(f"{key}: cannot be read: 503"))
        return self._bucket.held.get(key)

    def put(self, key: str, data: bytes | Members, *, expect: str | None) -> str:
        step = f"put {_kind(key)}"
        was_there = self._bucket.held.get(key) is not None
        self._begin(step, key)
        self._may_fail("503", step, 0.01, StoreUnavailable(f"{key}: cannot be written: 503"))
        self._may_fail("429", step, 0.01, StoreUnavailable(f"{key}: is written too often: 429"))
        try:
            version = self._bucket.write(key, data, expect, self._host)
        except VersionConflict:
            if expect is not None or not was_there or key.startswith("runs/"):
                self._tape.meets("412", step_at(step))  # that it had been there before is no race
            raise
        self._may_fail("503 after the write", step, 0.015, StoreUnavailable(f"{key}: cannot be written: 503"))
        late = VersionConflict(f"{key}: has another version than {expect}")
        self._may_fail("412 after the write", step, 0.015, late)
        self._crew.pause(f"{step}, done")
        return version

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        step = f"list {prefix}"
        if prefix == MARKERS:
            self._bucket.looked_at[self._host.name] = self._crew.now
        self._crew.pause(step)
        self._may_fail("503", step, 0.01, StoreUnavailable(f"{prefix}: cannot be listed: 503"))
        return self._bucket.held.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        step = f"delete {_kind(key)}"
        self._begin(step, key)
        self._may_fail("503", step, 0.01, StoreUnavailable(f"{key}: cannot be deleted: 503"))
        self._bucket.held.delete(key)
        self._may_fail("503 after the write", step, 0.01, StoreUnavailable(f"{key}: cannot be deleted: 503"))

    def _begin(self, step: str, key: str) -> None:
        if run_id := run_in(key):
            self._crew.is_about(run_id)
        self._crew.pause(step)

    def _may_fail(self, fault: str, step: str, share: float, error: Exception) -> None:
        if self._tape.strikes(fault, step, share):
            self._tape.meets(fault, step_at(step))
            raise error


def run_in(key: str) -> str | None:
    """The run whose document or marker an object is."""
    kind, _, name = key.partition("/")
    return name.partition(".")[0] if kind in ("runs", "open") else None


class ChangingStoreOf(StoreOf):
    """One that changes a part of an object, by the same steps, so that a seed is the same to the letter with either."""

    def change(self, key: str, members: Members, *, expect: str) -> str:
        return self.put(key, members, expect=expect)


def _kind(key: str) -> str:
    kind = key.partition("/")[0]
    return f"{kind} heard" if key.endswith((".progress", ".begun")) else kind


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
    run_id: str | None = None
    """The run that it is about, as far as its writer knows."""
    number: int = 0
    is_copy: bool = False
    """Whether another one says the same, or this one has been handled before."""
    late_s: float = 0.0
    """How much later than others it comes."""
    is_forged: bool = False
    kind: str = field(init=False)
    """As `meetings.MESSAGES` has it."""

    def __post_init__(self) -> None:
        self.kind = kind_of(self.data)


def kind_of(data: Mapping[str, Json]) -> str:
    """What kind of message one is, as `meetings.MESSAGES` has it."""
    kind = data["resource"]["type"] if "resource" in data else "function"
    return {"function": "completion", "object": "trigger"}.get(kind, kind)


class Topic:
    """Delivers at least once, in any order, not before its time."""

    def __init__(self, crew: Crew, tape: Tape) -> None:
        self._crew, self._tape = crew, tape
        self.messages: list[Message] = []
        self.count = 0
        self._lag_s = tape.one_of([0.0, 2.0, 2.0])

    def publish(
        self,
        data: Mapping[str, Json],
        *,
        delay_s: float = 0.0,
        is_lossy: bool = False,
        run_id: str | None = None,
        is_copy: bool = False,
        is_forged: bool = False,
    ) -> str:
        """Have a message delivered, not before `delay_s` are over."""
        self.count += 1
        lag = self._tape.between(0.05, 0.05 + self._lag_s)
        is_rare = kind_of(data) in ("redrive", "trigger", "begin")
        late_s = self._tape.between(5.0, 600.0) if self._tape.chance(0.15 if is_rare else 0.05) else 0.0
        at = self._crew.now + delay_s
        message = Message(f"m{self.count}", data, at, at + lag + late_s, is_lossy, number=self.count)
        message.run_id, message.late_s = run_id or data.get("run_id"), late_s
        message.is_copy, message.is_forged = is_copy, is_forged
        self.messages.append(message)
        return message.message_id


class BrokerOf:
    """The topic as one process publishes to it."""

    def __init__(self, topic: Topic, crew: Crew, tape: Tape) -> None:
        self._topic, self._crew, self._tape = topic, crew, tape

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        kind = event["resource"]["type"]
        step = f"publish {kind}"
        self._crew.pause(step)
        self._crew.notes(f"{delay_s:.3f}")
        self._may_fail("503", step)
        message_id = self._topic.publish(event, delay_s=delay_s, is_lossy=kind in _LOST_AT_TIMES)
        self._may_fail("503 after the write", step)
        return message_id

    def _may_fail(self, fault: str, step: str) -> None:
        if self._tape.strikes(fault, step, 0.02):
            self._tape.meets(fault, step_at(step))
            raise StoreUnavailable("the topic cannot be published to: 503")


_LOST_AT_TIMES = frozenset(("reminder", "begin", "slot"))
"""Messages of the engine's own that a Tick makes up for; a start is the only sign of its run."""
