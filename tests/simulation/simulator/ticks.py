"""When the Tick comes: one that could change nothing is left out, as those of `orchestrator.testing` are (ADR 19)."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta

from orchestrator.model.policy import Policy
from orchestrator.testing.ticks import WatchedStore
from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator.crew import Crew

TICK_S = 60.0
LAST_TICK_S = 600.0
RARE_TICK_S = 1800.0
"""How often the Tick comes once all is calm, where only a timeout of a day is waited for."""
_MOST_LEFT_OUT = 30
"""After at most so many one comes, whatever was."""
_ALLOWANCE = timedelta(seconds=Policy().clock_allowance_s)


class Ticks:
    """Tells when the next Tick is to come, each minute.

    After one since which nothing has happened only the second next is sent, then the fourth and so on: each process may
    know something else, so not all are left out. None is where a time has come that stands in a document.

    Args:
        happened: a value that is another one whenever something has happened that a Tick could see.
    """

    def __init__(self, crew: Crew, store: WatchedStore, happened: Callable[[], object]) -> None:
        self._crew, self._store, self._happened = crew, store, happened
        self._is_last = False
        self._begin()

    def _begin(self) -> None:
        self._every_s, self._left_out, self._came = TICK_S, 0, 0
        self._last, self._seen = self._crew.now, self._happened()
        self._coming: list[float] | None = None

    def begin_last(self) -> None:
        """Have some come a minute apart, then more every ten minutes, and leave out none of them."""
        self._is_last = True
        self._begin()

    def came(self, *, is_calm: bool) -> None:
        """Note that one comes now; whether all is calm."""
        seen = self._happened()
        self._left_out = min(2 * self._left_out + 1, _MOST_LEFT_OUT) if seen == self._seen else 1
        self._last, self._seen, self._coming = self._crew.now, seen, None
        self._every_s = RARE_TICK_S if is_calm else TICK_S
        if self._is_last:
            self._came += 1
            self._every_s = TICK_S if self._came < 5 else LAST_TICK_S

    def next_at(self) -> float:
        """When the next one is to come, in seconds, as far as can be told now."""
        next_at = self._last + self._every_s
        if not self._is_last and self._left_out and self._happened() == self._seen:
            next_at = max(next_at, min(next_at + self._left_out * self._every_s, *self._times_to_come()))
        waits = math.ceil((max(next_at, self._crew.now) - self._last) / self._every_s)
        return self._last + waits * self._every_s

    def _times_to_come(self) -> list[float]:
        """The times that stand in documents, each also with what two clocks may be apart, as leases are judged by."""
        if self._coming is None:
            last = T0 + timedelta(seconds=self._last)
            times = [at for at in self._store.times() if last - _ALLOWANCE < at]
            seconds = [(at - T0).total_seconds() for time in times for at in (time, time + _ALLOWANCE)]
            self._coming = [math.inf, *(at for at in seconds if at > self._last)]
        return self._coming
