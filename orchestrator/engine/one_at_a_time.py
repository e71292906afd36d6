"""OneAtATime: what a thread of a Tick is at is left alone by other threads of its instance, but not for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from threading import Lock


class OneAtATime:
    """Has each thing done by one thread at a time, as long as that one does not hang. Safe for threads.

    A call may never return, and then its thread is at the thing for ever. So who has been at it for `longest_s` keeps
    nobody out: two may be at it at once then, and what they do has to bear that.

    Args:
        longest_s: how long one that does not hang may be at one thing, in seconds.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest = timedelta(seconds=longest_s)
        self._since: dict[str, list[datetime]] = {}
        """What threads are at -> since when the one that has begun last is, in a list of that one's own."""
        self._lock = Lock()

    @contextmanager
    def alone_at(self, what: str, now: datetime) -> Iterator[bool]:
        """Be at a thing, from `now` on; False: it is somebody else's, and to be left alone."""
        mine = [now]
        with self._lock:
            since = self._since.get(what)
            may = since is None or abs(now - since[0]) >= self._longest  # also by a clock that was set back
            if may:
                self._since[what] = mine
        try:
            yield may
        finally:
            with self._lock:
                if self._since.get(what) is mine:
                    del self._since[what]
