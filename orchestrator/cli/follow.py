"""Following a run to its end: what this process saves of it, what others save, and signals meanwhile."""

import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from queue import Empty, SimpleQueue
from types import FrameType, TracebackType

from orchestrator.cli.progress import View
from orchestrator.model.errors import StoreUnavailable
from orchestrator.model.run_state import RunState

_QUIET_S = 0.5
"""How long nothing was saved here before the store is asked what others have saved."""

_SAME_SIGNAL_S = 0.5
"""How long after a signal another one is taken for the same."""


class Interrupted(Exception):
    """A signal asks this process to end."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signal.Signals(signum).name)


class News:
    """The newest state of a run, told from any thread; all but its end is only noted, which costs nothing.

    As a context it also turns ctrl-C and SIGTERM into news; a second one kills the process at once. One
    that comes right after the first is the same: a terminal signals the whole group, and a wrapper
    (timeout, a container's init) passes it on.
    """

    def __init__(self) -> None:
        self.latest: RunState | None = None
        self._wakes = SimpleQueue[int]()  # whose put may be called in a signal handler
        self._before: dict[int, Callable[[int, FrameType | None], object] | int] = {}
        self._interrupted_s: float | None = None

    def saved(self, state: RunState) -> None:
        """Note a state that was saved."""
        self.latest = state
        if state.run.status.is_final:
            self._wakes.put(0)

    def wait(self, timeout_s: float) -> None:
        """Return after `timeout_s` seconds, or as soon as the run has ended. Raises Interrupted."""
        try:
            signum = self._wakes.get(timeout=timeout_s)
        except Empty:
            return
        if signum:
            raise Interrupted(signum)

    def __enter__(self) -> "News":
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                before = signal.getsignal(signum)
                if before is not None and before is not signal.SIG_IGN:
                    self._before[signum] = before
                    signal.signal(signum, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(exc, Interrupted):
            return  # the process is about to end: what comes twice is still not to kill it before it has told
        for signum, before in self._before.items():
            signal.signal(signum, before)

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._interrupted_s is None:
            self._interrupted_s = now_s
            self._wakes.put(signum)
        elif now_s - self._interrupted_s >= _SAME_SIGNAL_S:
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)


def follow(
    news: News,
    view: View,
    load: Callable[[], RunState],
    now: Callable[[], datetime],
    check: Callable[[], None],
    told: Callable[[BaseException], None],
    quiet_s: float = _QUIET_S,
) -> RunState:
    """Show the run until it has ended, and return it.

    Args:
        load: reads the run from the store.
        now: the time, aware.
        check: raises what makes it useless to wait any longer.
        told: takes an error of the store that may pass.
        quiet_s: after how long without news the run is read from the store.
    Raises:
        Interrupted: by a signal.
    """
    state = seen = news.latest
    asked_s = time.monotonic() if seen else 0.0
    while True:
        if news.latest is not seen:
            state = seen = news.latest
            asked_s = time.monotonic()
        elif time.monotonic() - asked_s >= quiet_s:
            try:
                state = load()
            except StoreUnavailable as exc:
                told(exc)
            asked_s = time.monotonic()
        if state is not None:
            view.show(state, now())
            if state.run.status.is_final:
                return state
        check()
        try:
            news.wait(view.pause_s)
        except Interrupted:
            state = news.latest
            if state is not None:
                view.show(state, now())
                if state.run.status.is_final:
                    return state
            raise
