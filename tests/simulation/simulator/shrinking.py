"""Make a failing simulation small: fewer faults, fewer steps, as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.simulation.simulator.simulation import Simulation, Told


def shrunk(told: Told, order: int = 0, say: Callable[[str], None] = lambda line: None) -> tuple[Told, str]:
    """Return the smallest simulation that was found to fail as `told` does, and the words that run it again.

    Args:
        order: of its events, as `Simulation` has it.
    """
    most: int | None = None
    best = told
    for size in range(1, 12):  # a smaller definition makes another simulation, of the same seed
        smaller = Simulation(told.seed, size=size, order=order).run()
        if smaller.violation and _kind(smaller) == _kind(told) and smaller.faults <= best.faults:
            best, most = smaller, size
            break
    without: set[int] = set()
    chunk = max(1, best.faults // 2)
    while chunk:  # ddmin (Zeller 2002), over the faults that struck
        number = 0
        while number < best.faults:
            fewer = without | set(range(number, number + chunk))
            if fewer != without:
                tried = Simulation(told.seed, size=most, order=order, without=fewer).run()
                if tried.violation and _kind(tried) == _kind(told):
                    without, best = fewer, tried
                    say(f"fails with {len(best.struck)} faults, too")
            number += chunk
        chunk //= 2
    words = f"SEED={told.seed}" + (f" ORDER={order}" if order else "") + (f" SIZE={most}" if most is not None else "")
    if without:
        words += " WITHOUT=" + ",".join(map(str, sorted(each for each in without if each < best.faults)))
    return best, words


def _kind(told: Told) -> str:
    """The words of a violation without its names and numbers."""
    return re.sub(r"run_\w+|S\d+|\d+|'[^']*'|\{.*\}|\[.*\]", "", told.violation or "")
