"""Schedules: sees to it that each time of a schedule gets its run, or is left out as its definition says.

schedules/<dag>.json holds up to when that has been seen to. It is changed by compare-and-swap and only forwards, after
the runs were started: who is killed in between starts them again, which changes nothing, for the id of a run is made of
its DAG and of the time that it is for.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from itertools import islice
from re import compile as pattern

import msgspec

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.one_at_a_time import OneAtATime
from orchestrator.model.commands import Json
from orchestrator.model.enums import Missed
from orchestrator.model.errors import CorruptState, OrchestratorError, VersionConflict
from orchestrator.model.messages import start_message
from orchestrator.model.missed import MOST_MISSED, Passed, Scheduled, passed
from orchestrator.model.schedule import ScheduleError, last_tick, ticks
from orchestrator.ports import Clock, ObjectStore, Version

log = logging.getLogger("orchestrator")

LATE = timedelta(minutes=2)
"""A time whose run nobody has started for so long is missed. Until then the start may be on its way, and the clocks of
who started it and of who looks may be apart."""

MOST_AT_ONCE = 100
"""How many runs of one schedule are started at one look; the next one goes on from there."""

HANGS_S = 600.0
"""Who has looked at one schedule for so long hangs, in a start that does not return: longer than a request may take."""

_MAX_RACES = 10
_SAFE = pattern(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")

Start = Callable[[Mapping[str, Json]], object]
"""Takes a start message; what it returns from is durable: a run that is saved, or a message that comes for certain."""


class Mark(msgspec.Struct, frozen=True):
    """Up to when the times of a schedule have been seen to, those of the schedule as it was then."""

    format: int
    dag: str
    schedule: str
    time_zone: str
    through: datetime


@dataclass(frozen=True, slots=True)
class SeenTo:
    """What one look at the schedules did.

    Attributes:
        started: (DAG, time) of each start that was sent or made; its run may have been there before.
        left_out: DAG -> how many missed times of it get no run.
        problems: what failed, DAG by DAG.
    """

    started: tuple[tuple[str, datetime], ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Marks:
    """The marks, over an ObjectStore."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    @staticmethod
    def key(dag: str) -> str:
        """Object name of a DAG's mark; an odd name is hashed."""
        return f"schedules/{dag if _SAFE.fullmatch(dag) else f'sha256-{sha256(dag.encode()).hexdigest()}'}.json"

    def load(self, dag: str) -> tuple[Mark, Version] | None:
        """Return a DAG's mark and its version, or None if there is none. Raises CorruptState."""
        found = self._store.get(self.key(dag))
        if found is None:
            return None
        try:
            mark = msgspec.json.decode(found[0], type=Mark)
        except msgspec.DecodeError as exc:
            raise CorruptState(f"{self.key(dag)}: is no mark of a schedule: {exc}; delete it to begin anew") from exc
        if mark.through.tzinfo is None or mark.format > 1:
            raise CorruptState(f"{self.key(dag)}: is of a format that this version does not know; it reads up to 1")
        return mark, found[1]

    def save(self, mark: Mark, expect: Version | None) -> Version:
        """Write a mark iff the stored version is `expect` (None = create). Raises VersionConflict."""
        return self._store.put(self.key(mark.dag), msgspec.json.encode(mark) + b"\n", expect=expect)


class Schedules:
    """Starts what is due by the schedules of a catalog.

    Args:
        start: starts a run.
    """

    def __init__(self, store: ObjectStore, catalog: Catalog, clock: Clock, start: Start) -> None:
        self._marks, self._catalog, self._clock, self._start = Marks(store), catalog, clock, start
        self._through: dict[str, datetime] = {}
        """Up to when this instance knows each schedule to be seen to: until more is due there is nothing to read."""
        self._told: dict[str, str] = {}
        self._at_it = OneAtATime(HANGS_S)
        self._scheduled: Mapping[str, Scheduled] | None = None

    @property
    def scheduled(self) -> Mapping[str, Scheduled]:
        """DAG -> its schedule, of those that have one."""
        if self._scheduled is None:
            self._scheduled = dict(self._find())
        return self._scheduled

    def _find(self) -> Iterator[tuple[str, Scheduled]]:
        for name in self._catalog.definitions:
            try:
                found = Scheduled.of(self._catalog.definitions[name])
            except OrchestratorError as exc:  # a file that cannot be read is not to hold the others up
                log.error("schedules: %s: cannot be read: %s", name, exc)
                continue
            if found is not None:
                yield name, found

    def make_up(self) -> SeenTo:
        """Start the runs of missed times, where somebody else (Cloud Scheduler) starts those that are on time."""
        now = self._clock.now()
        wanted = {name: found for name, found in self.scheduled.items() if found.missed is not Missed.SKIP}
        return self._see_to(wanted, now - LATE, None, first_through=now)

    def start_due(self, late: timedelta = LATE) -> SeenTo:
        """Start the runs of all times that have come, where nobody else does: those on time, and missed ones.

        Args:
            late: a time that is further back was missed.
        """
        now = self._clock.now()
        return self._see_to(self.scheduled, now, now - late, first_through=now)

    def next_times(self, most: int) -> list[tuple[datetime, str]]:
        """Return (time, DAG) of the next so many times of each schedule, the nearest first."""
        now = self._clock.now()
        return sorted(
            (time, name)
            for name, found in self.scheduled.items()
            for time in islice(ticks(found.cron, found.time_zone, now), most)
        )

    def _see_to(
        self, wanted: Mapping[str, Scheduled], until: datetime, on_time_from: datetime | None, first_through: datetime
    ) -> SeenTo:
        """See to each schedule up to `until`; each fails alone. One that another thread is at here is left to that.

        Args:
            first_through: times up to this one are none of ours, where a schedule is seen to for the first time.
        """
        started: list[tuple[str, datetime]] = []
        left_out: dict[str, int] = {}
        problems: list[str] = []
        for name, scheduled in wanted.items():
            with self._at_it.alone_at(name, self._clock.now()) as may:
                if not may:
                    continue
                try:
                    look = _Look(name, scheduled, until, on_time_from, first_through)
                    started += [(name, time) for time in self._one(look, left_out)]
                    self._told.pop(name, None)
                except OrchestratorError as exc:
                    problems.append(f"schedule of {name}: {exc}")
                    if self._told.get(name) != str(exc):
                        self._told[name] = str(exc)
                        log.error("schedule of %s: %s", name, exc)
        return SeenTo(tuple(started), left_out, tuple(problems))

    def _one(self, look: "_Look", left_out: dict[str, int]) -> list[datetime]:
        """See to one schedule; return the times whose runs were started."""
        name, scheduled = look.dag, look.scheduled
        known = self._through.get(name)
        if known is not None and last_tick(scheduled.cron, scheduled.time_zone, look.until) <= known:
            return []
        started: list[datetime] = []
        for _ in range(_MAX_RACES):
            loaded = self._loaded(look)
            if loaded is None:
                continue
            mark, version = loaded
            of_then = replace(scheduled, cron=mark.schedule, time_zone=mark.time_zone)
            is_same = of_then == scheduled
            due = self._due(of_then, mark, look)
            now_wanted = due.wanted[:MOST_AT_ONCE]
            for time in now_wanted:
                self._start_one(name, time)
            started += [time for time in now_wanted if time not in started]
            if len(now_wanted) < len(due.wanted):
                after = msgspec.structs.replace(mark, through=now_wanted[-1])
            elif is_same:
                if not (due.wanted or due.left_out):
                    self._through[name] = max(look.until, mark.through)
                    return started
                after = msgspec.structs.replace(mark, through=max(look.until, mark.through))
            else:  # the times of the old schedule are seen to, those of the new one begin
                after = _mark(name, scheduled, max(look.first_through, mark.through))
            try:
                self._marks.save(after, version)
            except VersionConflict:
                continue  # another instance: what it has seen to is where this one goes on from
            if due.left_out:
                left_out[name] = left_out.get(name, 0) + due.left_out
                _tell_left_out(name, of_then.missed, due)
            if len(now_wanted) == len(due.wanted):
                self._through[name] = after.through if is_same else look.until
            return started
        return started

    def _due(self, scheduled: Scheduled, mark: Mark, look: "_Look") -> Passed:
        if mark.through >= look.until:
            return Passed()
        try:
            return passed(scheduled, mark.through, look.until, look.on_time_from)
        except ScheduleError as exc:
            if mark.schedule == look.scheduled.cron:
                raise
            raise CorruptState(f"{self._marks.key(look.dag)}: {exc}; delete it to begin anew") from exc

    def _loaded(self, look: "_Look") -> tuple[Mark, Version] | None:
        """Return the mark; make the first one, so that no time before its first look counts as missed."""
        found = self._marks.load(look.dag)
        if found is not None:
            return found
        mark = _mark(look.dag, look.scheduled, look.first_through)
        try:
            return mark, self._marks.save(mark, None)
        except VersionConflict:
            return None

    def _start_one(self, name: str, time: datetime) -> None:
        """Start a run. One that can never be started is said and passed over. Raises what may pass."""
        try:
            self._start(start_message(name, scheduled_for=time))
        except OrchestratorError as exc:
            if exc.retry:
                raise
            log.error("schedule of %s: its run for %s cannot be started: %s", name, f"{time:%Y-%m-%d %H:%M} UTC", exc)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at one schedule."""

    dag: str
    scheduled: Scheduled
    until: datetime
    on_time_from: datetime | None
    first_through: datetime


def _mark(dag: str, scheduled: Scheduled, through: datetime) -> Mark:
    return Mark(1, dag, scheduled.cron, scheduled.time_zone, through)


def _tell_left_out(name: str, policy: Missed, due: Passed) -> None:
    if policy is Missed.ALL and due.first_left_out is not None:
        log.error(
            "schedule of %s: %d missed times, from %s on, get no run, for there are more than %d; "
            "orchestrator backfill starts them",
            name,
            due.left_out,
            f"{due.first_left_out:%Y-%m-%dT%H:%MZ}",
            MOST_MISSED,
        )
    else:
        log.info("schedule of %s: %d missed times are left out", name, due.left_out)
