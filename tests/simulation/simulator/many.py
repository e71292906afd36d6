"""Many simulations, on several cores, and what came of them together."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.simulator.endings import difference
from tests.simulation.simulator.meetings import step_at
from tests.simulation.simulator.simulation import Simulation, Told
from tests.simulation.simulator.standing import SELDOM_AT_A_LIMIT

AT_ONCE = 20
"""How many seeds a process takes at once."""
EVERY_SKEW = 2
"""Of so many seeds one is simulated without skew, too."""

MOST_RIGHT = 3
"""How often at the most a clock is put right in a seed, each time in a simulation of its own."""
SOON_AFTER = 100
"""Within so many steps of all threads after it has gone on it does something else, or it is not by its clock."""


@dataclass
class Summary:
    """What came of some seeds.

    Attributes:
        simulations: how many there were; of some seeds several.
        steady: how many seeds were simulated in another order, too, and ended in the same documents.
        failed: (seed, order, what was violated) of those that failed.
    """

    seeds: int = 0
    simulations: int = 0
    steps: int = 0
    struck: int = 0
    steady: int = 0
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, other: Summary) -> None:
        """Take in what came of other seeds."""
        for name in ("seeds", "simulations", "steps", "struck", "steady"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.met.update(other.met)
        self.drawn.update(other.drawn)
        self.failed += other.failed

    def add_told(self, told: Told, order: int = 0) -> bool:
        """Take in what came of one simulation; return whether nothing was violated."""
        self.simulations += 1
        self.steps += told.steps
        self.struck += len(told.struck)
        self.met.update(told.met)
        self.drawn.update(told.drawn)
        if told.violation:
            self.failed.append((told.seed, order, told.violation))
        return told.violation is None


def of_seed(seed: int) -> Summary:
    """Simulate a seed; where it says the same of both, in another order as well; now and then without skew."""
    found = Summary(seeds=1)
    told = Simulation(seed).run()
    if not found.add_told(told):
        return found
    if told.is_steady:
        other = Simulation(seed, order=1).run()
        if found.add_told(other, 1):
            found.steady = 1
            if where := difference(told.endings, other.endings):
                found.failed.append((seed, 1, f"another order of events ends otherwise: {where}"))
    for straight in _without_skew(told):
        if not found.add_told(straight.run()):
            break
        if step := parting(told, straight.told):
            found.met["skew", step] += 1
    return found


def _without_skew(told: Told) -> Iterator[Simulation]:
    """Yield the same simulation without skew, for half of the seeds; for those in which processes stood still until
    just about a limit, at steps that are seldom near one: with the clock of such a process put right then."""
    stood = [each for each in told.stood_to_a_limit if each[0] in SELDOM_AT_A_LIMIT]
    for _, process, since_s, place in sorted(stood, key=lambda each: SELDOM_AT_A_LIMIT.index(each[0]))[:MOST_RIGHT]:
        goes_on = next((n for n in range(place, len(told.trail)) if told.trail[n][0] == process), place)
        along = told.trail[: goes_on + SOON_AFTER]
        yield Simulation(told.seed, right_from_s={process: since_s}, along=along)
    if not stood and told.has_skew and told.seed % EVERY_SKEW == 0:
        yield Simulation(told.seed, skews=0.0, along=told.trail)


def parting(one: Told, other: Told) -> str | None:
    """The step at which the thread had looked at the clock last that does something else in one of two simulations of a
    seed than in the other; None where none does, before they go apart otherwise: by the times that stand in documents,
    which tell when Ticks come.
    """
    for (process, was_at, came_to, looked_at), theirs in zip(one.trail, other.trail, strict=False):
        if (process, was_at, came_to, looked_at) != theirs:
            is_same_thread = process and (process, was_at) == theirs[:2]
            return step_at(looked_at) if is_same_thread and looked_at is not None else None
    return None


def of_seeds(seeds: range) -> Summary:
    """Simulate several seeds, one after another."""
    logging.disable(logging.CRITICAL)
    found = Summary()
    for seed in seeds:
        found.add(of_seed(seed))
        if found.failed:
            break
        if seed % 2:
            gc.collect()  # what has just been used is collected faster than what is left for long
    return found


def simulated(first: int, number: int | None, jobs: int | None = None) -> Iterator[Summary]:
    """Simulate so many seeds from the first on (None: without end), on several cores; yield what came of some of them.

    Ends with the first of these that have failed.
    """
    jobs = jobs or os.cpu_count() or 1
    end = first + number if number is not None else None
    firsts = _firsts(first, end)
    with multiprocessing.get_context("fork").Pool(jobs, initializer=_collect_seldom) as pool:
        yield from _up_to_a_failure(pool.imap_unordered(of_seeds, firsts))


def _collect_seldom() -> None:
    """Greenlets and frames make many cycles; collected are those of the seeds alone, now and then."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _up_to_a_failure(all_found: Iterable[Summary]) -> Iterator[Summary]:
    for found in all_found:
        yield found
        if found.failed:
            return


def _firsts(first: int, end: int | None) -> Iterator[range]:
    while end is None or first < end:
        last = first + AT_ONCE if end is None else min(end, first + AT_ONCE)
        yield range(first, last)
        first = last
