"""Walks: a Tick's way round the open runs, and what threads of an instance are at already on such ways."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timedelta
from threading import Lock, Thread

from orchestrator.engine.one_at_a_time import OneAtATime
from orchestrator.model.commands import AskSlot
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.policy import Policy
from orchestrator.ports import Clock

log = logging.getLogger("orchestrator")

PATIENCE = 10
"""What a thread of a Tick hangs at is left alone for so many times as long as it takes a Tick to count as one that
hangs: most likely the next thread would hang there, too."""

_SAY_AGAIN = timedelta(minutes=10)
"""How often a run's problem is logged that lasts; a Tick comes each minute."""


class Walk:
    """One Tick's way round the open runs, on which several threads go together, and what they found.

    Args:
        until: no further run is taken up from then on.
    """

    def __init__(self, until: datetime) -> None:
        self.markers: Sequence[str] = ()
        self.runs = 0
        self.recovered: list[str] = []
        self.closed: list[str] = []
        self.problems: list[str] = []
        self.acting: list[Thread] = []
        self.asks: list[AskSlot] = []
        self.owing: list[tuple[str, str | None]] = []  # (run id, marker) of those with late notifications
        self._until, self._lock = until, Lock()

    def next(self, now: datetime) -> str | None:
        """Take the next marker; None where there is none, or no time for it."""
        with self._lock:
            if self.runs == len(self.markers) or now >= self._until:
                return None
            self.runs += 1
            return self.markers[self.runs - 1]

    @property
    def left(self) -> int:
        """How many markers were not taken."""
        return len(self.markers) - self.runs


class Walks:
    """The walks of one instance's Ticks. Safe for threads.

    One at a time, for two would ask the same things. But a walk that takes longer than a Tick takes up runs, and than
    the shortest lease and its margin after that, hangs, for hardly a call that holds it up takes so long: it keeps no
    other one out. What its threads are at is left alone for longer. (The longest lease would say no more, for launches
    that take minutes are waited for apart; and who asks for that makes every target, also one that cannot be made.)

    Two walks at once are safe, as those of two instances are: a run changes by compare-and-swap only, and what a Tick
    finds out names the attempt, the claim or the ticket that it is about, so that it has no effect the second time.
    What both note here only says where the next walk begins, and what has been logged.

    Attributes:
        came_to: the marker that was taken last, on a walk that has left some or is under way.
    """

    def __init__(self, clock: Clock, policy: Policy) -> None:
        self._clock, self._budget = clock, timedelta(seconds=policy.tick_budget_s)
        longest_s = policy.tick_budget_s + policy.min_lease_s + policy.lease_margin_s
        self._walks, self._parts = OneAtATime(longest_s), OneAtATime(PATIENCE * longest_s)
        self.came_to: str | None = None
        self._told: dict[tuple[str, str], tuple[str, datetime]] = {}
        """(what was done, run id) -> the problem with it, and when that was logged."""

    @contextmanager
    def one(self) -> Iterator[Walk | None]:
        """Begin a walk; None where one is under way."""
        now = self._clock.now()
        with self._walks.alone_at("open runs", now) as may:
            walk = Walk(now + self._budget) if may else None
            yield walk
            if walk is not None and not walk.left:
                self.came_to = None

    def in_turn(self, markers: Sequence[str], otherwise: int) -> Sequence[str]:
        """Return sorted markers from the one on after which the last walk came to no more, and round to there.

        Args:
            otherwise: which of them is the first, where the last walk came to all.
        """
        if not markers:
            return ()
        first = otherwise % len(markers) if self.came_to is None else bisect_right(markers, self.came_to)
        return (*markers[first:], *markers[:first])

    def next_of(self, walk: Walk) -> str | None:
        """Take the next marker of a walk; None where there is none, or no time for it."""
        marker = walk.next(self._clock.now())
        if marker is not None:
            self.came_to = marker
        return marker

    def alone_at(self, what: str) -> AbstractContextManager[bool]:
        """Be at a run, or a queue; False: a thread of a walk that hangs is."""
        return self._parts.alone_at(what, self._clock.now())

    @contextmanager
    def failing_alone(self, walk: Walk, what: str, run_id: str) -> Iterator[None]:
        """Keep what goes wrong with one run from the others, and say so."""
        try:
            yield
            self._told.pop((what, run_id), None)
        except OrchestratorError as exc:
            walk.problems.append(f"{run_id}: {exc}")
            if self._is_news((what, run_id), str(exc)):
                log.error("tick: %s", exc, extra={**exc.labels, "run_id": run_id})
        except Exception as exc:
            walk.problems.append(f"{run_id}: {type(exc).__name__}: {exc}")
            if self._is_news((what, run_id), repr(exc)):
                log.exception("tick failed", extra={"run_id": run_id})

    def _is_news(self, about: tuple[str, str], problem: str) -> bool:
        """Whether a run's problem is to be logged: a new one at once, one that lasts every few minutes."""
        now = self._clock.now()
        was, at = self._told.get(about, ("", now))
        if was == problem and now - at < _SAY_AGAIN:
            return False
        self._told[about] = (problem, now)
        return True
