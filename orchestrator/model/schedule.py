"""Schedules: cron expressions of five fields, as Cloud Scheduler takes them, and when one comes due. Pure.

Source: https://cloud.google.com/scheduler/docs/configuring/cron-job-schedules (unix-cron format).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator.model.errors import OrchestratorError

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo  # loaded where a zone is looked up: a cold start has no time for it

HOW = 'write minute, hour, day of the month, month and day of the week, as in "30 6 * * 1-5"'

MAX_LENGTH = 500
"""Characters of a cron expression: more than it takes to name every minute, hour, day and month once."""

DEFAULT_ZONE = "Etc/UTC"
"""Cloud Scheduler's own default."""

ZONE = r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,3}"
"""What the name of a time zone looks like."""

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)
_LEAP_CYCLE_DAYS = 366 * 8 + 2
"""A day of the year comes back after 8 years at the latest: 29 February, over a year like 2100."""


_FIRST_DAY = date(1900, 1, 1)
_LAST = datetime(9998, 12, 31, tzinfo=UTC)


class ScheduleError(OrchestratorError, ValueError):
    """A text is no schedule, or no time zone is called so."""


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five: what it is called, what numbers it takes, and their names from `first_name` on."""

    noun: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    first_name: int = 0

    @property
    def pattern(self) -> str:
        """What the field looks like; whether its numbers are in range is not in it."""
        one = f"([0-9]{{1,2}}|{'|'.join(self.names)})" if self.names else "[0-9]{1,2}"
        item = rf"(\*|{one}-{one})(/[0-9]{{1,2}})?|{one}"
        return f"({item})(,({item}))*"

    def values(self, text: str) -> frozenset[int]:
        """Return the numbers that the field stands for. Raises ScheduleError."""
        if not re.fullmatch(self.pattern, text):
            raise ScheduleError(
                f'"{text}" is not {self.noun}; write *, 1, 1-5, */2, 1-5/2 or a list of them with commas'
            )
        return frozenset(number for item in text.split(",") for number in self._numbers(item))

    def _numbers(self, item: str) -> range:
        span, _, step_text = item.partition("/")
        step = int(step_text or "1")
        low, _, high = span.partition("-")
        if span == "*":
            first, last = self.first, self.last
        else:
            first, last = self._number(low), self._number(high or low)
        if first > last:
            raise ScheduleError(f'"{span}" runs backwards, as {self.noun}; write the smaller one first')
        if step < 1:
            raise ScheduleError(f'"{item}" has a step of 0, as {self.noun}; allowed: 1 or more')
        return range(first, last + 1, step)

    def _number(self, text: str) -> int:
        number = self.names.index(text) + self.first_name if text in self.names else int(text)
        last = 7 if self.names is _DAYS else self.last
        if not self.first <= number <= last:
            raise ScheduleError(f'"{text}" is not {self.noun}; allowed: {self.first} to {last}')
        return number


_FIELDS = (
    _Field("a minute", 0, 59),
    _Field("an hour", 0, 23),
    _Field("a day of the month", 1, 31),
    _Field("a month", 1, 12, _MONTHS, 1),
    _Field("a day of the week", 0, 6, _DAYS),
)

PATTERN = " ".join(f"({found.pattern})" for found in _FIELDS)
"""What a cron expression looks like; ranges of numbers are not in it."""


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression: on which minutes of the wall clock something is due."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """The day of the month and the day of the week are both restricted: one of them is enough."""

    def is_on(self, day: date) -> bool:
        """Whether it is due on a day at all."""
        if day.month not in self.months:
            return False
        found = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return any(found) if self.either_day else all(found)

    def is_at(self, wall: datetime) -> bool:
        """Whether it is due on a minute of the wall clock."""
        return wall.minute in self.minutes and wall.hour in self.hours and self.is_on(wall.date())


@lru_cache(maxsize=256)
def parse_cron(text: str) -> Cron:
    """Return the cron expression that `text` is.

    Raises:
        ScheduleError: it is none, or one that is never due.
    """
    if len(text) > MAX_LENGTH:
        raise ScheduleError(f"a cron expression of {len(text):,} characters; allowed: {MAX_LENGTH}")
    parts = text.split(" ")
    if len(parts) != len(_FIELDS):
        raise ScheduleError(f'"{text}" is not a cron expression; {HOW}')
    minutes, hours, days, months, weekdays = (found.values(part) for found, part in zip(_FIELDS, parts, strict=True))
    day, weekday = parts[2], parts[4]
    if (day != "*" and weekday != "*") and (day.startswith("*/") or weekday.startswith("*/")):
        # Cron's relatives disagree on whether */2 is a restriction, and Google does not say.
        raise ScheduleError(f'"{text}" has */ beside another day; write the range, as in 1-31/2 or 0-6/2')
    cron = Cron(
        minutes, hours, days, months, frozenset(number % 7 for number in weekdays), day != "*" and weekday != "*"
    )
    a_leap_year = date(2024, 1, 1)
    if not any(cron.is_on(a_leap_year + _DAY * number) for number in range(366)):
        raise ScheduleError(f'"{text}" is never due; no such month has such a day')
    return cron


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    """The names of the tz database: ZoneInfo alone takes a machine's own files too, such as `localtime`."""
    from importlib.resources import files

    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="utf-8").split()) - {"Factory"}


@lru_cache(maxsize=256)
def zone_of(name: str) -> "ZoneInfo":
    """Return the time zone of a name such as "Europe/Berlin".

    Raises:
        ScheduleError: there is none.
    """
    wrong = f'"{name}" is not a time zone; write an IANA name, as in "Europe/Berlin" or "Etc/UTC"'
    if not re.fullmatch(ZONE, name) or name not in _zones():
        raise ScheduleError(wrong)
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError) as exc:  # ZoneInfoNotFoundError is a KeyError; a folder, an OSError
        raise ScheduleError(wrong) from exc


def last_tick(cron: str, time_zone: str, at: datetime) -> datetime:
    """Return the last time, at `at` or before it, when a schedule was due: aware UTC, whole minutes.

    It is due when the wall clock of its zone comes to one of its minutes, so an hour that comes twice in autumn
    counts twice. Minutes that are skipped in spring count as the minute to which the clock is put: whether Cloud
    Scheduler leaves them out or makes up for them its documentation does not say, and either way this is right.

    Args:
        at: aware, from 1900 on.
    Raises:
        ScheduleError: `cron` or `time_zone` is wrong.
    """
    wanted, zone = parse_cron(cron), zone_of(time_zone)
    at = at.astimezone(UTC)
    today = at.astimezone(zone).date()
    found: datetime | None = None
    # A zone that put its clock back over midnight has minutes of a day after minutes of the next one.
    for number in range(-1, _LEAP_CYCLE_DAYS):
        day = today - _DAY * number
        if found is not None and day < found.astimezone(zone).date() - _DAY:
            break
        if wanted.is_on(day):
            due = next((tick for tick in reversed(_ticks_of(wanted, zone, day)) if tick <= at), None)
            found = due if found is None or (due is not None and due > found) else found
    if found is None:
        raise ScheduleError(f'"{cron}" was not due in the eight years before {at.isoformat()}')
    return found


def ticks(cron: str, time_zone: str, after: datetime, until: datetime | None = None) -> Iterator[datetime]:
    """Yield the times after `after`, up to `until` and that itself, when a schedule is due: aware UTC, in order.

    Without `until` they go on for ever, as far as there are years. What is due when, `last_tick` says.

    Args:
        after, until: aware, from 1900 on.
    Raises:
        ScheduleError: `cron` or `time_zone` is wrong.
    """
    wanted, zone = parse_cron(cron), zone_of(time_zone)
    after = after.astimezone(UTC)
    until = _LAST if until is None else min(until.astimezone(UTC), _LAST)
    day = max(after.date(), _FIRST_DAY) - _DAY * 2
    waiting: set[datetime] = set()
    while True:
        # What is due on a day of the wall clock and on the days after it comes, in UTC, later than the day before it:
        # no zone is further from UTC than that. Until then a day that came twice may still add to what is in between.
        certain = datetime.combine(day - _DAY, time(), UTC)
        ready = sorted(tick for tick in waiting if tick < certain)
        waiting.difference_update(ready)
        for tick in ready:
            if tick > until:
                return
            yield tick
        if certain > until:
            return
        if wanted.is_on(day):
            waiting.update(tick for tick in _ticks_of(wanted, zone, day) if tick > after)
        day += _DAY


@lru_cache(maxsize=64)
def _ticks_of(cron: Cron, zone: "ZoneInfo", day: date) -> tuple[datetime, ...]:
    """The times when it is due on a day of the wall clock, first first; who looks each minute asks for the same."""
    walls = (
        datetime.combine(day, time(hour, minute)) for hour in sorted(cron.hours) for minute in sorted(cron.minutes)
    )
    return tuple(sorted({tick for wall in walls for tick in _instants(zone, wall)}))


def _instants(zone: "ZoneInfo", wall: datetime) -> tuple[datetime, ...]:
    """When the wall clock shows `wall`: once, twice, or, if it is put over it, when that happens."""
    early, late = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    shows = [tick for tick in (early, late) if tick.astimezone(zone).replace(tzinfo=None) == wall]
    if shows:
        return tuple(shows)
    before, after = late, early  # of a time that is skipped, PEP 495 has the later one at fold 0
    old = before.astimezone(zone).utcoffset()
    while after - before > _MINUTE:
        middle = before + _MINUTE * ((after - before) // _MINUTE // 2)
        before, after = (middle, after) if middle.astimezone(zone).utcoffset() == old else (before, middle)
    return (after,)
