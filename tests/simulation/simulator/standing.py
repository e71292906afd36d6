"""How often a process is killed at a step, or stands still there, and until when it does."""

from __future__ import annotations

from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator.checks import Checks
from tests.simulation.simulator.cloud import Bucket
from tests.simulation.simulator.crew import Crew, Strand
from tests.simulation.simulator.meetings import step_at
from tests.simulation.simulator.tape import Tape

OFTEN = {
    "load": 0.5,
    "tick": 0.5,
    "event in": 0.7,
    "save": 1.0,
    "bind": 2.0,
    "witness": 1.0,
    "decide": 1.0,
    "wait": 0.7,
}
"""How much more often than usual a process is killed, or stands still, at a step that many come to; at others: RARE."""
RARE = 4.0
RAREST = frozenset(("resolve", "results", "child", "cancel", "notify"))
RARER_STILL = frozenset(("resolve", "child", "cancel"))
STILL = {"cancel": 4.0, "child": 2.0, "resolve": 2.0, "marker": 2.0, "remind": 2.0}
"""How much more often than that a process stands still at a step, or a thread."""

ANSWERED = "launch and wait, done"
"""Where a call is answered that waits for the end of what it has launched. Somebody may have heard of that end since,
and gone on with another attempt."""
OFTEN_AT_ANSWERS = 20.0
STANDS_AT_ANSWERS_S = (80.0, 180.0)
STANDS_S = ((1.0, 400.0), (1.0, 400.0), (28.0, 32.0), (53.0, 57.0), (58.0, 66.0), (400.0, 5000.0))
"""How long a process stands still, or one thread of it: also just about as long as a lease, or until it is too late to
act under one."""
LONGEST_S = STANDS_S[-1][1]

TO_A_LIMIT, OFTEN_TO_A_LIMIT = 0.2, 0.8
"""In which part of the cases that is until just about a time that stands in a document, so that it is told by what the
clocks are off by whether it has come; and at those steps that are seldom near one."""
SELDOM_AT_A_LIMIT = ("cancel", "definition", "resolve", "child", "results", "marker", "notify", "remind")
FROM_A_LIMIT_S = (-5.0, 0.0, 5.0)
"""Leases are judged by this much before their end, or after it."""
MOST_SKEW_S = 2.4
"""What a clock is off by at the most."""


def killed(at: str) -> float:
    """How much more often than usual a process is killed where one of its threads is (`Strand.at`)."""
    step = step_at(at)
    return OFTEN.get(step, RARE * (2 + 3 * (step in RARER_STILL)) if step in RAREST else RARE)


def stands(at: str) -> float:
    """How much more often than usual one stands still there."""
    return OFTEN_AT_ANSWERS if at == ANSWERED else killed(at) * STILL.get(step_at(at), 1.0)


class Standing:
    """Tells until when what stands still does so."""

    def __init__(self, tape: Tape, crew: Crew, bucket: Bucket, checks: Checks) -> None:
        self._tape, self._crew, self._bucket, self._checks = tape, crew, bucket, checks

    def until(self, strand: Strand) -> tuple[float, bool]:
        """Until when a process, or a thread, is to stand still from now on, and whether that is about a limit."""
        now, at = self._crew.now, strand.at
        least, most = STANDS_AT_ANSWERS_S if at == ANSWERED else self._tape.one_of(STANDS_S)
        if self._tape.chance(OFTEN_TO_A_LIMIT if step_at(at) in SELDOM_AT_A_LIMIT else TO_A_LIMIT):
            limits = [limit for limit in self._limits(strand) if now < limit < now + LONGEST_S]
            if limits:
                limit = self._tape.one_of(limits) + self._tape.between(-MOST_SKEW_S, MOST_SKEW_S)
                return max(now + 0.1, limit), True
        return now + self._tape.between(least, most), False

    def _limits(self, strand: Strand) -> list[float]:
        """The times that stand in documents, in seconds, and when leases are judged by them; or that by which the run
        should have ended that a thread is at."""
        state = self._checks.states.get(strand.about or "")
        if step_at(strand.at) in RARER_STILL and state is not None and not state.run.is_late and state.run.deadline_at:
            return [(state.run.deadline_at - T0).total_seconds()]
        from_them_s = self._tape.one_of(FROM_A_LIMIT_S)
        return sorted({(time - T0).total_seconds() + from_them_s for time in self._bucket.held.times()})
