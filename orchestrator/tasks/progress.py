"""Progress: how far one launch's call is, written at most once a second."""

import logging
import math
import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock

import msgspec

from orchestrator.model.errors import VersionConflict
from orchestrator.model.task_result import TaskProgress, progress_object
from orchestrator.ports import ObjectStore, Version
from orchestrator.tasks.json_value import plain

log = logging.getLogger(__name__)

_EVERY_S = 1.0  # Cloud Storage takes one write a second of an object
_TRIES = 5


class Progress:
    """Overwrites `results/<key>.progress`. For many threads of one call.

    Args:
        store: the bucket.
        key: the launch's.
        launch_id: for the log.
        now: the time, aware.
        monotonic: seconds that only go up.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        launch_id: str,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._name, self._launch_id = store, progress_object(key), launch_id
        self._now, self._monotonic = now, monotonic
        self._lock = Lock()
        self._version: Version | None = None
        self._next_s = -math.inf
        self._has_warned = False
        self._said = (0.0, "")

    def beat(self) -> None:
        """Say that it is at work: write again how far it is, with the time by now. Never raises."""
        self.report(*self._said)

    def report(self, fraction: float, message: str) -> None:
        """Write it, unless something was written within the second, or is being written. Never raises."""
        self._said = (fraction, message)
        if not self._lock.acquire(blocking=False):
            return
        try:
            now_s = self._monotonic()
            if now_s >= self._next_s:
                self._next_s = now_s + _EVERY_S
                self._write(fraction, message)
        except Exception as exc:
            if not self._has_warned:
                self._has_warned = True
                log.warning("%s: progress cannot be written (told once): %r", self._launch_id, exc)
        finally:
            self._lock.release()

    def _write(self, fraction: float, message: str) -> None:
        if not math.isfinite(fraction):
            raise ValueError(f"fraction is {fraction}; allowed is 0 to 1")
        fraction = min(max(float(fraction), 0.0), 1.0)
        said = TaskProgress(fraction=fraction, message=plain(str(message)), at=self._now())
        data = msgspec.json.encode(said)
        for _ in range(_TRIES):
            try:
                self._version = self._store.put(self._name, data, expect=self._version)
            except VersionConflict:  # our own lost answer, or an object from before
                found = self._store.get(self._name)
                self._version = found[1] if found else None
            else:
                return
        raise VersionConflict(f"{self._name}: others write it too")
