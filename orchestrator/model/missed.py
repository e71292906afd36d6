"""Missed times of a schedule: which of them get their runs all the same. Pure.

A time is *missed* when it passed and nobody started its run: the scheduler was down, or the deployment, or the machine
that `orchestrator schedule` ran on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.model.commands import Json
from orchestrator.model.enums import Missed
from orchestrator.model.schedule import DEFAULT_ZONE, ticks

MOST_MISSED = 1000
"""How many missed times of one schedule get their runs at most: of more the last ones. The rest is for a backfill."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """The schedule of a definition: by which cron expression, in which zone, and what becomes of missed times."""

    cron: str
    time_zone: str
    missed: Missed = Missed.SKIP

    @classmethod
    def of(cls, definition: Mapping[str, Json]) -> "Scheduled | None":
        """Read the schedule of a definition that may break rules; None where it has none to go by."""
        cron, time_zone = definition.get("schedule"), definition.get("time_zone", DEFAULT_ZONE)
        missed = definition.get("missed", Missed.SKIP.value)
        if not isinstance(cron, str) or not isinstance(time_zone, str) or missed not in tuple(Missed):
            return None
        return cls(cron, time_zone, Missed(str(missed)))


@dataclass(frozen=True, slots=True)
class Passed:
    """What becomes of the times that passed."""

    wanted: tuple[datetime, ...] = ()
    """Those that get their runs, in order."""
    left_out: int = 0
    """How many others there were."""
    first_left_out: datetime | None = None


def passed(scheduled: Scheduled, after: datetime, until: datetime, on_time_from: datetime | None = None) -> Passed:
    """Return what becomes of the times after `after`, up to `until`.

    Args:
        on_time_from: times from this one on are not missed; all of them get their runs.
    Raises:
        ScheduleError: the schedule is wrong.
    """
    return _judged(scheduled.missed, ticks(scheduled.cron, scheduled.time_zone, after, until), on_time_from)


def _judged(policy: Missed, times: Iterable[datetime], on_time_from: datetime | None) -> Passed:
    most = {Missed.SKIP: 0, Missed.LAST: 1, Missed.ALL: MOST_MISSED}[policy]
    missed: list[datetime] = []
    on_time: list[datetime] = []
    left_out, first = 0, None
    for time in times:
        if on_time_from is not None and time >= on_time_from:
            on_time.append(time)
            continue
        missed.append(time)
        if len(missed) > most:
            first = first or missed[0]
            left_out += 1
            del missed[0]
    return Passed((*missed, *on_time), left_out, first)
