"""Workers: daemon threads that run what they are handed, made only when none is idle.

concurrent.futures would do the same for some 20 µs more a call, and its threads hold up the end of the
process: an executor's exit waits for a function that never returns.
"""

import logging
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

log = logging.getLogger(__name__)


class Workers:
    """At most `limit` threads over one queue; work may hand over more work and never blocks on that.

    Args:
        name: what the threads are called.
        limit: how many there may be; what comes beyond waits its turn.
    """

    def __init__(self, name: str, limit: int) -> None:
        self._name = name
        self._limit = limit
        self._queue = SimpleQueue[Callable[[], object] | None]()
        self._lock = Lock()
        self._threads = 0
        self._free = 0  # threads less work handed over and not done; below zero: that much waits
        self._closed = False

    def submit(self, work: Callable[[], object]) -> bool:
        """Have `work` run soon; False if the workers are closed. It should not raise: that is only logged."""
        new = 0
        with self._lock:
            if self._closed:
                return False
            self._free -= 1
            if self._free < 0 and self._threads < self._limit:
                self._free += 1
                self._threads += 1
                new = self._threads
        self._queue.put(work)
        if new:
            Thread(target=self._work, name=f"{self._name}-{new}", daemon=True).start()
        return True

    def close(self) -> None:
        """Let idle threads end; busy ones end with what they are at, and what still waits is not begun."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)

    def _work(self) -> None:
        get = self._queue.get
        while True:
            work = get()
            if work is None or self._closed:
                return
            try:
                work()
            except BaseException:
                log.exception("%s: work raised; a worker goes on", self._name)
            del work  # an idle thread keeps nothing alive
            with self._lock:
                self._free += 1
