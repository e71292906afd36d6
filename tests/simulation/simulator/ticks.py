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
RARE_TICK_S = 1800.0
"""How often the Tick comes once all is calm, where only a timeout of a day is waited for; and after how long it comes at
the latest."""
_ALLOWANCE = timedelta(seconds=Policy().clock_allowance_s)


class Ticks:
    """Tells when the next Tick is to come, each minute.

    After one since which nothing has happened only every second is sent, then every fourth and so on, up to half an hour:
    each process may know something else, so not all are left out. None is where a time has come that stands in a document.

    Args:
        happened: a value that is another one whenever something has happened that a Tick could see.
    """

    def __init__(self, crew: Crew, store: WatchedStore, happened: Callable[[], object]) -> None:
        self._crew, self._store, self._happened = crew, store, happened
        self._every_s = TICK_S
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have the next one come in a minute, whatever was."""
        self._last, self._seen, self._left_out = self._crew.now, self._happened(), 0
        self._coming: list[float] | None = None

    def came(self, *, is_calm: bool) -> None:
        """Note that one comes now; whether all is calm."""
        seen = self._happened()
        self._left_out = 2 * self._left_out + 1 if seen == self._seen else 0
        self._last, self._seen, self._coming = self._crew.now, seen, None
        self._every_s = RARE_TICK_S if is_calm else TICK_S

    def next_at(self) -> float:
        """When the next one is to come, in seconds, as far as can be told now."""
        next_at = self._last + self._every_s
        if not self._left_out or next_at - self._last >= RARE_TICK_S or self._happened() != self._seen:
            return self._on_time(max(next_at, self._crew.now))
        latest = self._last + min(self._every_s * (1 + self._left_out), RARE_TICK_S)
        return self._on_time(max(next_at, self._crew.now, min(latest, *self._times_to_come(), latest)))

    def _on_time(self, at: float) -> float:
        """The first full minute since the last one that is not before."""
        return self._last + math.ceil((at - self._last) / self._every_s) * self._every_s

    def _times_to_come(self) -> list[float]:
        """The times that stand in documents, each also with what two clocks may be apart, as leases are judged by."""
        if self._coming is None:
            last = T0 + timedelta(seconds=self._last)
            times = [at for at in self._store.times() if last - _ALLOWANCE < at]
            seconds = [(at - T0).total_seconds() for time in times for at in (time, time + _ALLOWANCE)]
            self._coming = [at for at in seconds if at > self._last]
        return self._coming
