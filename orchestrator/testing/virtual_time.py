"""Time that a simulation moves, and the agenda of what happens when it comes to it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from itertools import count
from threading import Lock

from orchestrator.ports import Clock

T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
"""When virtual time begins, unless something else is asked for."""


class VirtualClock:
    """A Clock that stands still until it is moved. Times are aware, UTC."""

    def __init__(self, time: datetime = T0) -> None:
        self.time = time

    def now(self) -> datetime:
        """Aware, UTC."""
        return self.time

    def forward(self, seconds: float) -> None:
        """Move on by so many seconds."""
        self.time += timedelta(seconds=seconds)

    def forward_to(self, at: datetime) -> None:
        """Move on to `at`; time does not go back."""
        self.time = max(self.time, at)


class Agenda:
    """What is to happen, by its time; things of one time in the order in which they were added.

    Anything may add to it from any thread; one thread runs it.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._entries: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order, self._lock = count(), Lock()

    def after(self, delay_s: float, do: Callable[[], None]) -> None:
        """Have `do` called in `delay_s` seconds, at once where that is not above zero."""
        at = self.clock.now() + timedelta(seconds=max(0.0, delay_s))
        with self._lock:
            heappush(self._entries, (at, next(self._order), do))

    @property
    def next_at(self) -> datetime | None:
        """When the next thing is to happen; None where nothing is."""
        with self._lock:
            return self._entries[0][0] if self._entries else None

    def run_next(self) -> bool:
        """Do the first thing whose time has come; False where there is none."""
        with self._lock:
            if not self._entries or self._entries[0][0] > self.clock.now():
                return False
            do = heappop(self._entries)[2]
        do()
        return True
