"""When a simulation ticks: each full minute at which a Tick could find something to do."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from orchestrator.model.policy import Policy
from orchestrator.ports import Clock, Version
from orchestrator.stores.memory import MemoryStore

TICK = timedelta(minutes=1)
"""As often as Cloud Scheduler sends a Tick. One that could not change anything is left out."""
IDLE_TICK = timedelta(days=1)
"""After a Tick that changed nothing, the next comes when something is due, and after this time at the latest."""

_TIME = re.compile(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d))"')
_END_OF_TIME = datetime(9000, 1, 1, tzinfo=UTC)
_WITHOUT_TIMES = ("definitions/", "executions/", "results/")


class WatchedStore(MemoryStore):
    """A store that counts its changes, and knows which times stand in it."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0
        self._known: dict[str, tuple[Version, tuple[datetime, ...]]] = {}

    def put(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """As the port says."""
        version = super().put(key, data, expect=expect)
        self.changes += 1
        return version

    def delete(self, key: str) -> None:
        """As the port says."""
        super().delete(key)
        self.changes += 1

    def times(self) -> Iterator[datetime]:
        """Yield what looks like a time in any document, whatever it is for."""
        for key in self.list(""):
            found = None if key.startswith(_WITHOUT_TIMES) else self.get(key)
            if found is None:
                continue
            document, version = found
            known = self._known.get(key)
            if known is None or known[0] != version:
                known = self._known[key] = (version, tuple(_times_in(document)))
            yield from known[1]


def _times_in(document: bytes) -> Iterator[datetime]:
    for text in set(_TIME.findall(document)):
        try:
            yield datetime.fromisoformat(text.decode()).astimezone(UTC)
        except (ValueError, OverflowError):  # it only looked like one
            continue


class Ticks:
    """Says when the next Tick is to come.

    A Tick that changed nothing will change nothing until something else happens, or until a time comes that stands
    in some document. So a wait of three days takes a handful of Ticks, and not 4,320.

    Args:
        clock: the virtual time.
        store: where the documents are.
        changes: a number that changes with anything that a Tick could see.
    """

    def __init__(self, clock: Clock, store: WatchedStore, changes: Callable[[], int]) -> None:
        self._clock, self._store, self._changes = clock, store, changes
        self._last = clock.now()
        self._seen: int | None = None
        self._idle_since: datetime | None = None
        self._known: tuple[object, tuple[datetime, ...]] = (None, ())

    @property
    def next_at(self) -> datetime:
        """When the next one is to come."""
        at = max(self._last + TICK, self._clock.now())
        if self._is_idle:
            at = max(at, min([self._last + IDLE_TICK, *self._coming()]))
        return self._last - (self._last - at) // TICK * TICK  # rounded up

    def begin(self) -> None:
        """A Tick begins now."""
        self._before = self._changes()

    def end(self) -> None:
        """It has ended."""
        self._last, self._seen = self._clock.now(), self._changes()
        if self._seen != self._before:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = self._last

    def are_over(self, limit: datetime) -> bool:
        """Whether two Ticks, a day apart, have found nothing to do, and no time up to `limit` is to come."""
        if not self._is_idle or self._idle_since is None or self._last - self._idle_since < IDLE_TICK:
            return False
        return not any(at <= limit for at in self._coming())

    @property
    def _is_idle(self) -> bool:
        if self._seen != self._changes():
            self._idle_since = None
        return self._idle_since is not None

    def _coming(self) -> tuple[datetime, ...]:
        """Times after the last Tick, each also with what two clocks may be apart, as leases are judged by."""
        known = (self._store.changes, self._last)
        if self._known[0] != known:
            allowance = timedelta(seconds=Policy().clock_allowance_s)
            later = [at for at in self._store.times() if self._last - allowance < at < _END_OF_TIME]
            both = (time for at in later for time in (at, at + allowance))
            self._known = (known, tuple(at for at in both if at > self._last))
        return self._known[1]
