"""Workers: daemon threads that run what they are handed, made only when none is idle.

concurrent.futures would do the same for some 20 µs more a call, and its threads hold up the end of the
process: an executor's exit waits for a function that never returns.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

log = logging.getLogger(__name__)

_PATIENCE_S = 0.005
"""How long work may be kept by the thread that handed it over, before another one does it."""
_IDLE_LOOKS = 400


class Workers:
    """At most `limit` threads over one queue; work may hand over more work and never blocks on that.

    Args:
        name: what the threads are called.
        limit: how many there may be; what comes beyond waits its turn.
        keeps: a thread of these that hands over work does it itself once it is done with what it is at, where no other
            work waits: to wake another one would cost more than a short function does. What it does not come to within
            some ms is another's.
    """

    def __init__(self, name: str, limit: int, *, keeps: bool = False) -> None:
        self._name = name
        self._limit = limit
        self._keeps = keeps
        self._mine = threading.local()
        self._kept = list[deque[Callable[[], object]]]()  # a thread's each
        self._watcher: Thread | None = None
        self._queue = SimpleQueue[Callable[[], object] | None]()
        self._lock = Lock()
        self._threads = 0
        self._free = 0  # threads less work handed over and not done; below zero: that much waits
        self._closed = False

    def submit(self, work: Callable[[], object]) -> bool:
        """Have `work` run soon. It should not raise: that is only logged.

        Returns:
            False where it will never be run: the workers are closed, or the machine has not a thread for the first.
        """
        kept: deque[Callable[[], object]] | None = getattr(self._mine, "kept", None)
        if kept is None or self._free < 0 or self._closed:
            return self._hand_over(work)
        kept.append(work)
        if self._watcher is None:
            self._watch()
        # The last is kept: this thread is the nearest to its end then.
        return len(kept) < 2 or (before := _taken(kept)) is None or self._hand_over(before)

    def _hand_over(self, work: Callable[[], object]) -> bool:
        with self._lock:
            if self._closed:
                return False
            if self._free < 1 and self._threads < self._limit and self._begin_with(work):
                return True
            if not self._threads:
                return False
            self._free -= 1
        self._queue.put(work)
        return True

    def _begin_with(self, work: Callable[[], object]) -> bool:
        """Start one thread more, on `work`; False, and nothing is changed, where the machine has none left."""
        name = f"{self._name}-{self._threads + 1}"
        try:
            Thread(target=self._work, args=(work,), name=name, daemon=True).start()
        except (RuntimeError, MemoryError) as exc:
            log.warning("%s: cannot be started: %s", name, exc)
            return False
        self._threads += 1
        return True

    def close(self) -> None:
        """Let idle threads end; busy ones end with what they are at, and what still waits is not begun."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._queue.put(None)

    def _work(self, first: Callable[[], object]) -> None:
        get, kept = self._queue.get, deque[Callable[[], object]]()
        if self._keeps:
            self._mine.kept = kept
            self._kept.append(kept)
        work: Callable[[], object] | None = first
        del first  # what is done is not kept alive
        while True:
            while work is not None and not self._closed:
                try:
                    work()
                except BaseException:
                    log.exception("%s: work raised; a worker goes on", self._name)
                work = _taken(kept)  # an idle thread keeps nothing alive
            if self._closed:
                return
            with self._lock:
                self._free += 1
            work = get()

    def _watch(self) -> None:
        with self._lock:
            if self._watcher is None:
                watcher = Thread(target=self._look, name=f"{self._name}-watch", daemon=True)
                try:
                    watcher.start()
                except RuntimeError:  # the machine has no thread left: who keeps work does it, however late
                    return
                self._watcher = watcher

    def _look(self) -> None:
        """Hand over what threads keep and do not come to."""
        seen: dict[int, Callable[[], object]] = {}
        idle = 0
        while not self._closed:
            time.sleep(_PATIENCE_S)
            found = {n: work for n, kept in enumerate(self._kept) for work in tuple(kept)[:1]}
            for number, work in found.items():
                if seen.get(number) is work and (late := _taken(self._kept[number])) is not None:
                    self._hand_over(late)
            seen, idle = found, 0 if found else idle + 1
            if idle > _IDLE_LOOKS:
                self._watcher = None
                if not any(self._kept):  # after that: who keeps some from now on starts another watcher
                    return
                self._watcher, idle = threading.current_thread(), 0


def _taken(kept: deque[Callable[[], object]]) -> Callable[[], object] | None:
    """Take out the work that was kept first, if there is any: its own thread does, or the one that watches."""
    try:
        return kept.popleft()
    except IndexError:
        return None
