"""Pace: when one run's document may be saved next, where its store takes only so many writes of a name.

Pure. Cloud Storage takes about one write a second of an object name, and a few in a row. Who saves more often is
refused (429), and instances that save the same run as fast as they can mostly lose each other's races. So after a few
saves in a row the next one waits, and what arrives meanwhile goes into it: few writes, each of many events. Where many
attempts run side by side there is always more to save, so that nothing is gained by a few in a row: there no two
saves are closer than the interval.
"""

from collections.abc import Iterable

from orchestrator.model.policy import CROWD

BURST = 3
"""How many saves may follow each other at once."""

GATHERING_S = 0.025
"""How long a save waits for the events of what runs side by side: to race other instances for each costs more."""

LINGERING_S = 0.05
"""How long a save that starts nothing waits for more, and again as long as some came."""

MOST_LINGERING_S = 0.2
"""How long it goes on so at the most."""

ASKING_S = 0.2
"""How often a save that waits for its turn sees to what has come meanwhile."""

WRITING_S = 0.15
"""How long after its decision another instance's save is taken to have been written at the latest."""

YIELDS = 4
"""Of so many saves in a row of one instance, the last one lets others go first that it may not know of."""

_SHARED_FOR = 10.0
"""For how many intervals after a lost race a run counts as shared with another instance; likewise as crowded."""


class Pace:
    """The pace of one run's saves in one instance. Its leader's alone: not safe for threads.

    Args:
        interval_s: the least time between two saves in the long run, in seconds; 0 = none.
        crowd: with more attempts than this running side by side, no save follows another one within the interval.
    Times are seconds since whenever, of one clock. Where that is set back, what is remembered is set back with it.
    """

    __slots__ = (
        "_crowded_s",
        "_due_s",
        "_interval_s",
        "_lost_s",
        "_mine",
        "_now_s",
        "_others_s",
        "_raced_s",
        "crowd",
        "is_free",
    )

    def __init__(self, interval_s: float, crowd: int = CROWD) -> None:
        self._interval_s, self.crowd = interval_s, crowd
        self.is_free = not interval_s
        """Whether nothing limits it."""
        self._due_s = self._lost_s = self._raced_s = float("-inf")
        self._crowded_s = self._others_s = float("-inf")
        self._mine = 0  # so many saves were made here since one of others was seen
        self._now_s = float("nan")  # the last time that was told here; none yet compares as none

    def wait_s(self, now_s: float, spread: float) -> float:
        """Return how long the next save has to wait.

        Args:
            spread: from 0 to 1, at random: instances that share a run are not to wake up together.
        """
        self._pass(now_s)
        # Generic cell rate algorithm (ITU-T I.371): `due` is when the next save would be, were all evenly spread.
        is_crowded = self.is_crowded(now_s)
        in_a_row = BURST - 1 if self._is_raced(now_s) else BURST  # one is perhaps not seen yet
        if is_crowded:
            in_a_row = 1
        wait_s = self._due_s - (in_a_row - 1) * self._interval_s - now_s
        if wait_s <= 0.0:
            return 0.0
        if is_crowded:
            wait_s += self._giving_way(now_s, spread) * self._interval_s
        elif self.is_shared(now_s):
            wait_s += spread * self._interval_s
        return min(wait_s, (BURST + 1) * self._interval_s)  # however many saves of others were seen

    def saved(self, now_s: float) -> None:
        """A save was made."""
        self._pass(now_s)
        self._count(now_s)
        self._mine += 1

    def lost(self, now_s: float) -> None:
        """A save lost its race: it was a write, and another instance's just before it was one, too."""
        self.saved(now_s)
        self.saved(now_s)
        self._lost_s = now_s

    def raced(self, now_s: float) -> None:
        """A save lost its race: it was refused, and wrote nothing; the other instance's is counted once it is seen."""
        self._pass(now_s)
        self._lost_s = self._raced_s = now_s

    def seen(self, times_s: Iterable[float], now_s: float) -> None:
        """Other instances have saved the run at these times, of their clocks, since this one last knew it."""
        self._pass(now_s)
        for at_s in sorted(times_s):
            self._others_s = min(at_s, now_s)
            self._count(self._others_s)
            self._mine = 0

    def crowded(self, now_s: float) -> None:
        """More than `crowd` attempts of the run run side by side, or a save has had to wait as if they did."""
        self._pass(now_s)
        self._crowded_s = now_s

    def is_crowded(self, now_s: float) -> bool:
        """Whether they do, or did of late: then what is left of them is on its way."""
        return now_s - self._crowded_s <= _SHARED_FOR * self._interval_s

    def is_shared(self, now_s: float) -> bool:
        """Whether another instance saves this run too, so that what this one remembers of it is most likely stale."""
        return now_s - self._lost_s <= _SHARED_FOR * self._interval_s

    def _giving_way(self, now_s: float, spread: float) -> float:
        """For which part of the interval to let others go first; else who has saved is the first one again, always."""
        if now_s - self._others_s <= _SHARED_FOR * self._interval_s:
            return 0.4 * spread + (0.6 if self._mine else 0.0)
        return 0.0 if self._mine % YIELDS else 0.6  # there may be others of which nothing is known here

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
            self._crowded_s -= back_s
            self._others_s -= back_s
        self._now_s = now_s
