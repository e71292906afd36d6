"""The record of one launch's call: begun once, ended once."""

import random
import time
from collections.abc import Callable

import msgspec

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.task_result import TaskBegun, TaskResult, begun_object, result_object
from orchestrator.ports import ObjectStore

_TRIES = 6


def pause(tries: int) -> None:
    """Back off with jitter: 0.1 s doubling; all the tries together take 3 to 6 s."""
    time.sleep(random.uniform(0.1, 0.2) * 2**tries)  # noqa: S311 - no secret


class Record:
    """Two objects of the bucket, each created and never changed.

    Args:
        store: the bucket.
        key: the launch's.
        pause: waits before try number n + 1.
    """

    def __init__(self, store: ObjectStore, key: str, pause: Callable[[int], None]) -> None:
        self._store, self._pause = store, pause
        self.begun_name, self.result_name = begun_object(key), result_object(key)

    def begin(self, begun: TaskBegun) -> bytes | None:
        """Say that the launch is run here. Return None, or what another call of it said before.

        Raises StoreUnavailable: nothing may be run; the object may be there all the same.
        """
        return self._create(self.begun_name, msgspec.json.encode(begun))

    def end(self, result: TaskResult) -> None:
        """Write how it ended; it is durable when this returns.

        Raises:
            StoreUnavailable: it is not.
            VersionConflict: another result is there, which stays.
        """
        if self._create(self.result_name, msgspec.json.encode(result)) is not None:
            raise VersionConflict(f"{self.result_name}: there is another result already; it is never changed")

    def _create(self, name: str, data: bytes) -> bytes | None:
        """Create an object; return None if it holds `data` now, else what it held before.

        A conflict may be with our own first try, of which the client lost the answer: the content tells, for
        it has a random token or is the very result.
        """
        for tries in range(_TRIES):
            try:
                return self._create_now(name, data)
            except StoreUnavailable:
                if tries + 1 == _TRIES:
                    raise
            self._pause(tries)
        raise StoreUnavailable(f"{name}: was never tried")

    def _create_now(self, name: str, data: bytes) -> bytes | None:
        try:
            self._store.put(name, data, expect=None)
        except VersionConflict as exc:
            found = self._store.get(name)
            if found is None:
                raise StoreUnavailable(f"{name}: was there, and is gone; nobody may delete it") from exc
            return None if found[0] == data else found[0]
        return None
