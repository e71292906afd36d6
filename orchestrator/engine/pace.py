"""Pace: when one run's document may be saved next, where its store takes only so many writes of a name.

Pure. Cloud Storage takes about one write a second of an object name, and a few in a row. Who saves more often is
refused (429), and instances that save the same run as fast as they can mostly lose each other's races. So after a few
saves in a row the next one waits, and what arrives meanwhile goes into it: few writes, each of many events.
"""

from collections.abc import Iterable

BURST = 3
"""How many saves may follow each other at once."""

GATHERING_S = 0.025
"""How long a save waits for the events of what runs side by side: to race other instances for each costs more."""

_SHARED_FOR = 10.0
"""For how many intervals after a lost race a run counts as shared with another instance."""


class Pace:
    """The pace of one run's saves in one instance. Its leader's alone: not safe for threads.

    Args:
        interval_s: the least time between two saves in the long run, in seconds; 0 = none.
    Times are seconds since whenever, of one clock. Where that is set back, what is remembered is set back with it.
    """

    __slots__ = ("_due_s", "_interval_s", "_lost_s", "_now_s", "_raced_s", "is_free")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self.is_free = not interval_s
        """Whether nothing limits it."""
        self._due_s = self._lost_s = self._raced_s = float("-inf")
        self._now_s = float("nan")  # the last time that was told here; none yet compares as none

    def wait_s(self, now_s: float, spread: float) -> float:
        """Return how long the next save has to wait.

        Args:
            spread: from 0 to 1, at random: instances that share a run are not to wake up together.
        """
        self._pass(now_s)
        # Generic cell rate algorithm (ITU-T I.371): `due` is when the next save would be, were all evenly spread.
        in_a_row = BURST - 1 if self._is_raced(now_s) else BURST  # one is perhaps not seen yet
        wait_s = self._due_s - (in_a_row - 1) * self._interval_s - now_s
        if wait_s <= 0.0:
            return 0.0
        if self.is_shared(now_s):
            wait_s += spread * self._interval_s
        return min(wait_s, (BURST + 1) * self._interval_s)  # however many saves of others were seen

    def saved(self, now_s: float) -> None:
        """A save was made."""
        self._pass(now_s)
        self._count(now_s)

    def lost(self, now_s: float) -> None:
        """A save lost its race: it was a write, and another instance's just before it was one, too."""
        self.saved(now_s)
        self.saved(now_s)
        self._lost_s = now_s

    def raced(self, now_s: float) -> None:
        """A save lost its race: it was refused, and wrote nothing; the other instance's is counted once it is seen."""
        self._pass(now_s)
        self._lost_s = self._raced_s = now_s

    def seen(self, times_s: Iterable[float]) -> None:
        """Other instances have saved the run at these times, of their clocks, since this one last knew it."""
        for at_s in sorted(times_s):
            self._count(self._now_s if at_s > self._now_s else at_s)

    def is_shared(self, now_s: float) -> bool:
        """Whether another instance saves this run too, so that what this one remembers of it is most likely stale."""
        return now_s - self._lost_s <= _SHARED_FOR * self._interval_s

    def _is_raced(self, now_s: float) -> bool:
        """Whether others' saves are counted here, once they are seen."""
        return now_s - self._raced_s <= _SHARED_FOR * self._interval_s

    def _count(self, at_s: float) -> None:
        self._due_s = max(self._due_s, at_s) + self._interval_s

    def _pass(self, now_s: float) -> None:
        """Note what time it is."""
        if now_s < self._now_s:  # no time passes backwards: what was a second ago still was
            back_s = self._now_s - now_s
            self._due_s -= back_s
            self._lost_s -= back_s
            self._raced_s -= back_s
        self._now_s = now_s
