"""Cooperative threads: everything that the engine would do at the same time, one step after another, as a seed says.

The engine makes threads, thread pools, events and queues of Python's own. While a simulation runs, the names by which
its modules know them stand for the ones here, whose threads are greenlets. Each gives the word away at every call of a
port (`pause`), and whenever it waits; the simulation decides who goes on. So any interleaving can be had, and again.
"""

from __future__ import annotations

import pkgutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from greenlet import getcurrent, greenlet

import orchestrator.engine
from orchestrator.engine import deciding


class Killed(BaseException):
    """The process that this thread is of is gone."""


class Host:
    """A process: its threads are killed, and stand still, together."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.stands_still_until = 0.0


class Strand:
    """One thread of a process.

    Attributes:
        at: which call of a port it is about to make, or has just made.
        about: the run that it is at, as far as that is known.
        waits_for: it goes on once this is true; None: it may go on.
        wakes_at: when its sleep ends, in seconds.
    """

    def __init__(self, crew: Crew, host: Host, work: Callable[[], Any]) -> None:
        self.crew, self.host = crew, host
        self.at = "wait"
        self.looked_at_clock: str | None = None
        """Where it was when it looked at its process's clock last."""
        self.about: str | None = None
        self.message: object = None
        """What it handles, which comes again if it does not get to the end."""
        self.waits_for: Callable[[], bool] | None = None
        self.wakes_at = 0.0
        self.is_done = False
        self.is_watched = False
        """Whether somebody takes its result, or its error."""
        self.result: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._greenlet = greenlet(self._run, crew.hub)

    def _run(self) -> None:
        try:
            if self.host.is_dead:
                raise Killed
            self.result = self._work()
        except Killed as exc:
            self.error = exc.with_traceback(None)  # else its frames would hold each other, and all that they know
        except BaseException as exc:
            self.error = exc
        finally:
            self.is_done = True
            del self._work

    def go_on(self) -> None:
        """Let it run until it gives the word away; only the hub may."""
        self._greenlet.parent = self.crew.hub
        self._greenlet.switch()


Footprint = tuple[str, str, str, str | None]


class Crew:
    """All threads of all processes.

    Attributes:
        now: the time, in seconds.
        strands: those that have not ended, in the order in which they were begun.
        on_error: told of what a thread ended with that nobody waited for.
        trail: (process, where its thread was, where it has come to, where it looked at the clock last) of each step, in
            their order, and what else tells one simulation from another.
    """

    def __init__(self) -> None:
        self.hub = getcurrent()
        self.now = 0.0
        self.strands: list[Strand] = []
        self.on_error: Callable[[Strand], None] = lambda strand: None
        self.trail: list[Footprint] = []
        self._current: Strand | None = None

    @property
    def current(self) -> Strand | None:
        """Who has the word; None for the simulation itself."""
        return self._current

    def spawn(self, work: Callable[[], Any], host: Host | None = None) -> Strand:
        """Begin a thread, of the process of who asks unless another is named."""
        if host is None:
            assert self._current is not None, "a thread is begun outside of any process"
            host = self._current.host
        strand = Strand(self, host, work)
        if self._current is not None:
            strand.about, strand.looked_at_clock = self._current.about, self._current.looked_at_clock
            strand.message = self._current.message
        self.strands.append(strand)
        return strand

    def ready(self) -> list[Strand]:
        """The threads that can go on now."""
        now = self.now
        return [
            strand
            for strand in self.strands
            if strand.host.is_dead
            or (
                strand.host.stands_still_until <= now
                and strand.wakes_at <= now
                and (strand.waits_for is None or strand.waits_for())
            )
        ]

    def next_time(self) -> float | None:
        """When the next thread can go on that cannot now; None where none is to wake."""
        times = [max(x.wakes_at, x.host.stands_still_until) for x in self.strands]
        later = [at for at in times if at > self.now]
        return min(later) if later else None

    def step(self, strand: Strand) -> None:
        """Let a thread go on."""
        self._current, was_at, looked_at = strand, strand.at, strand.looked_at_clock
        try:
            strand.go_on()
        finally:
            self._current = None
        came_to = "its end" if strand.is_done else strand.at
        if was_at != "decide" or came_to == "sleeps":  # what is decided then goes by the look before
            looked_at = strand.looked_at_clock
        self.trail.append((strand.host.name, was_at, came_to, looked_at))
        if strand.is_done:
            self.strands.remove(strand)
            if strand.error is not None and not strand.is_watched and not isinstance(strand.error, Killed):
                self.on_error(strand)

    # -- called by threads ----------------------------------------------------------------------------

    def is_about(self, run_id: str) -> None:
        """Note which run the thread is at."""
        if self._current is not None:
            self._current.about = run_id

    def notes(self, what: str) -> None:
        """Note what is done now, where its step does not tell."""
        strand = self._current
        if strand is not None:
            self.trail.append((strand.host.name, strand.at, what, strand.looked_at_clock))

    def looks_at_clock(self) -> None:
        """Note where the thread is that looks at its process's clock."""
        if self._current is not None:
            self._current.looked_at_clock = self._current.at

    def pause(self, at: str) -> None:
        """Give the word away. Raises Killed where its process has been killed meanwhile."""
        self._give_away(at)

    def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        if self._current is not None:
            self.notes(f"sleeps {seconds:.3f}")
            self._current.wakes_at = self.now + seconds
            self._give_away("sleeps")

    def wait_for(self, what: Callable[[], bool]) -> None:
        """Wait until something is true."""
        strand = self._current
        assert strand is not None or what(), "the simulation itself would wait for ever"
        if strand is not None:
            while not what():
                strand.waits_for = what
                self._give_away("waits")
                strand.waits_for = None

    def _give_away(self, at: str) -> None:
        strand = self._current
        if strand is None:
            return
        if strand.host.is_dead:
            raise Killed
        strand.at = at
        self.hub.switch()
        if strand.host.is_dead:
            raise Killed


_crew: Crew | None = None


def _of_now() -> Crew:
    assert _crew is not None, "no simulation runs"
    return _crew


class _Thread:
    def __init__(
        self,
        target: Callable[..., Any],
        args: Sequence[Any] = (),
        name: str | None = None,
        daemon: bool | None = None,
    ) -> None:
        self._work = lambda: target(*args)
        self._strand: Strand | None = None

    def start(self) -> None:
        self._strand = _of_now().spawn(self._work)

    def join(self, timeout: float | None = None) -> None:
        strand = self._strand
        assert strand is not None
        _of_now().wait_for(lambda: strand.is_done)


class _Event:
    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is None, "no simulation of a wait with a limit"
        _of_now().wait_for(lambda: self._is_set)
        return True


class _Queue:
    def __init__(self) -> None:
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)

    def get(self) -> Any:
        _of_now().wait_for(lambda: bool(self._items))
        return self._items.popleft()

    def __class_getitem__(cls, _: Any) -> type:
        return cls

    def empty(self) -> bool:
        return False  # whoever would rest until there is more does not: that is a matter of speed alone


class _Future:
    def __init__(self, strand: Strand) -> None:
        self._strand = strand
        strand.is_watched = True

    def result(self) -> Any:
        _of_now().wait_for(lambda: self._strand.is_done)
        if self._strand.error is not None:
            raise self._strand.error
        return self._strand.result


class _Executor:
    """A pool: each piece of work is a thread of its own, of which only so many are begun at once."""

    def __init__(self, max_workers: int, thread_name_prefix: str = "") -> None:
        self._left = max_workers
        self._futures: list[_Future] = []

    def submit(self, work: Callable[..., Any], *args: Any) -> _Future:
        def run() -> Any:
            _of_now().wait_for(lambda: self._left > 0)
            self._left -= 1
            try:
                return work(*args)
            finally:
                self._left += 1

        future = _Future(_of_now().spawn(run))
        self._futures.append(future)
        return future

    def map(self, work: Callable[..., Any], items: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, item) for item in items]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True) -> None:
        if wait:
            for future in self._futures:
                _of_now().wait_for(lambda future=future: future._strand.is_done)

    def __enter__(self) -> _Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()


_OURS = {"Thread": _Thread, "ThreadPoolExecutor": _Executor, "Event": _Event, "SimpleQueue": _Queue}
_MODULES = [
    import_module(f"orchestrator.engine.{found.name}") for found in pkgutil.iter_modules(orchestrator.engine.__path__)
]
_THEIRS = [(module, name, vars(module)[name]) for module in _MODULES for name in _OURS if name in vars(module)]
"""(module, name, what it is) of what stands for ours while a simulation runs."""


def _with_a_pause_before(crew: Crew, decide: Callable[..., Any]) -> Callable[..., Any]:
    """`decide` calls nothing; so that a process may be killed between what it asked and what it saves."""

    def paused(*args: Any) -> Any:
        crew.pause("decide")
        return decide(*args)

    return paused


@contextmanager
def aboard(crew: Crew) -> Iterator[None]:
    """Have the engine's threads be this crew's."""
    global _crew
    assert _crew is None, "a simulation runs already"
    for module, name, _ in _THEIRS:
        setattr(module, name, _OURS[name])
    decide = deciding.decide
    deciding.decide = _with_a_pause_before(crew, decide)
    _crew = crew
    try:
        yield
    finally:
        _crew = None
        deciding.decide = decide
        for module, name, theirs in _THEIRS:
            setattr(module, name, theirs)
