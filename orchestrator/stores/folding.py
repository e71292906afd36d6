"""Folder: folds what has been changed by parts into the files that people open, a second later at most."""

import time
from collections.abc import Callable
from threading import Condition, Lock, Thread

AFTER_S = 1.0
"""How long a change may stand in a journal alone."""
_IDLE_S = 10.0
"""How long its thread waits for the next change before it ends."""


class Folder:
    """Calls `fold(key)` for each key a second after its first change that is not folded, by a thread of its own.

    Args:
        fold: must not raise; returns whether that is to be tried again.
    """

    def __init__(self, fold: Callable[[str], bool]) -> None:
        self._fold = fold
        self._since: dict[str, float] = {}  # in the order of their times
        self._wake = Condition(Lock())
        self._thread: Thread | None = None
        self._folding = Lock()

    def note(self, key: str) -> None:
        """A change of this key is on disk."""
        if key in self._since:  # without a lock: who takes it out reads what stands in the journal after that
            return
        with self._wake:
            self._since.setdefault(key, time.monotonic())
            if self._thread is None:
                self._thread = Thread(target=self._run, name="orchestrator-fold", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the machine has no thread left, or the interpreter ends: the journal is enough
                    self._thread = None
            elif len(self._since) == 1:
                self._wake.notify()

    def forget(self, key: str) -> None:
        """Nothing of this key is to be folded."""
        with self._wake:
            self._since.pop(key, None)

    def fold_all(self) -> None:
        """Fold what is not folded, now; nothing is being folded when this returns, unless it was changed meanwhile."""
        while True:
            with self._wake:
                keys = tuple(self._since)
                self._since.clear()
            with self._folding:
                if not keys:
                    return
                for key in keys:
                    self._fold(key)

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._since and not self._wake.wait_for(lambda: bool(self._since), _IDLE_S):
                    self._thread = None
                    return
                key, since_s = next(iter(self._since.items()))
                left_s = since_s + AFTER_S - time.monotonic()
                if left_s > 0:
                    self._wake.wait(left_s)
                    continue
            with self._folding:
                with self._wake:
                    is_left = self._since.pop(key, None) is not None
                if is_left and self._fold(key):
                    with self._wake:
                        self._since.setdefault(key, time.monotonic())
