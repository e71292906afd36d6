"""What is left to chance in a simulation, told by one seed, and which of its faults are left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")


class Tape:
    """The choices of one simulation.

    What happens is drawn from one row of numbers, and whether a fault is left out from none: a simulation that leaves
    out some of its faults is the same up to the first of them.

    Args:
        seed: names the simulation.
        order: of several that go another way with the same definitions, which.
        without: numbers of faults (in the order in which they strike) that do not.
        only_first: faults beyond this many do not strike.
    """

    def __init__(self, seed: int, without: Collection[int] = (), only_first: int | None = None, order: int = 0) -> None:
        self._random = Random(f"{seed} {order}")
        self._without, self._only_first = frozenset(without), only_first
        self.struck: list[tuple[str, str]] = []
        """(fault, step of the loop) of those that did strike."""
        self.numbered = 0
        self.could_not_look: Callable[[], None] = lambda: None
        """Told where a process cannot read a run: what it has just written, it may not get to act on."""
        self.is_calm = False
        """Whether no fault strikes any more."""
        self.force = self.one_of([0.0, 1.0, 1.0, 3.0])
        """How much more often than usual faults strike."""
        self.met = Counter[tuple[str, str]]()
        """(fault, step of the loop, or kind of message) -> how often one met the other and changed what happened."""

    def chance(self, share: float) -> bool:
        """Whether something happens that does so with this share."""
        return self._random.random() < share

    def between(self, least: float, most: float) -> float:
        """A number between two."""
        return self._random.uniform(least, most)

    def whole(self, least: int, most: int) -> int:
        """A whole number between two, both included."""
        return self._random.randint(least, most)

    def one_of(self, things: Sequence[T]) -> T:
        """One of several."""
        return things[int(self._random.random() * len(things))]

    def bytes(self, number: int) -> bytes:
        """So many bytes."""
        return self._random.randbytes(number)

    def strikes(self, fault: str, step: str, share: float) -> bool:
        """Whether a fault strikes here."""
        if self.is_calm or self._random.random() >= share * self.force:
            return False
        number = self.numbered
        self.numbered += 1
        if number in self._without or (self._only_first is not None and number >= self._only_first):
            return False
        self.struck.append((fault, step))
        if (fault, step) == ("503", "get runs"):
            self.could_not_look()
        return True

    def meets(self, fault: str, step: str) -> None:
        """Count that a fault has met a step of the loop, or a kind of message, and changed what happened."""
        self.met[fault, step] += 1
