"""Folder: folds what has been changed by parts into the files that people open, a second later."""

import time
from collections.abc import Callable
from threading import Condition, Lock, Thread

AFTER_S = 1.0
"""How long the last change may stand in a journal alone."""
LARGE_BYTES = 256 * 1024
"""A file is folded while it is changed all the time, too: of so many bytes after a second, of more the more rarely."""
_LATEST = 10.0
"""How many times as late at the most."""
_IDLE_S = 10.0
"""How long its thread waits for the next change before it ends."""


class Folder:
    """Calls `fold(key)` for each key soon after its first change that is not folded, by a thread of its own.

    Args:
        fold: must not raise; returns whether that is to be tried again.
    """

    def __init__(self, fold: Callable[[str], bool]) -> None:
        self._fold = fold
        self._latest: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._wake = Condition(Lock())
        self._thread: Thread | None = None
        self._folding = Lock()
        self._may_end = False

    def note(self, key: str, size: int) -> None:
        """A change of this key, whose file has so many bytes, is on disk."""
        now = self._last[key] = time.monotonic()
        if key in self._latest and self._thread is not None:  # no lock: who takes it out reads the journal after that
            return
        with self._wake:
            self._latest.setdefault(key, now + AFTER_S * min(max(1.0, size / LARGE_BYTES), _LATEST))
            self._may_end = False
            if self._thread is None:
                self._thread = Thread(target=self._run, name="orchestrator-fold", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the machine has no thread left, or the interpreter ends: the journal is enough
                    self._thread = None
            elif len(self._latest) == 1:
                self._wake.notify()

    def forget(self, key: str) -> None:
        """Nothing of this key is to be folded."""
        with self._wake:
            self._latest.pop(key, None)
            self._last.pop(key, None)

    def fold_all(self) -> None:
        """Fold what is not folded, now; nothing is being folded when this returns, unless it was changed meanwhile."""
        while True:
            with self._wake:
                keys = tuple(self._latest)
                self._latest.clear()
            with self._folding:
                if not keys:
                    break
                for key in keys:
                    self._fold(key)
        with self._wake:  # nobody may change anything any more, and the thread holds what its store has open
            self._may_end = True
            self._wake.notify()

    def _due_s(self, key: str) -> float:
        return min(self._latest[key], self._last.get(key, 0.0) + AFTER_S)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._latest:
                    self._wake.wait_for(lambda: bool(self._latest) or self._may_end, _IDLE_S)
                if not self._latest:
                    self._thread = None
                    return
                key = min(self._latest, key=self._due_s)
                left_s = self._due_s(key) - time.monotonic()
                if left_s > 0:
                    self._wake.wait(left_s)
                    continue
            with self._folding:
                with self._wake:
                    is_due = self._latest.pop(key, None) is not None
                if is_due and self._fold(key):
                    with self._wake:
                        self._latest.setdefault(key, time.monotonic() + AFTER_S)
