"""OwnRuns: the runs of this process. Who waits for one's end, and the timer that ticks for those that are open."""

import logging
import time
from collections import Counter
from collections.abc import Callable
from threading import Condition, Event, Lock, Thread

from orchestrator.engine.status import OrchestrationStatus, marker_of
from orchestrator.model.errors import OrchestratorError, RunNotFound
from orchestrator.model.run_state import RunState
from orchestrator.ports import ObjectStore

log = logging.getLogger("orchestrator")

MAX_ENDED_RUNS = 1000
"""How many ended runs a process with a bus of its own remembers; `wait` reads others from the store."""

NOTIFYING_S = 30.0
"""How long closing waits for notifications that are being sent."""

_READING_SHARE = 50
_LONGEST_PAUSE_S = 10.0
"""A run is read again after so many times what reading it took, where that is long; after so long at the latest."""

_WAIT_S = 0.5
"""How often who waits for a run reads it, for another process may end it; not while this one saves it."""

_LEFT_OUT = 4
"""So many times in a row a run is not ticked for that was saved here since: who saves it sees what is to be done. What
was lost, or is due, is still found by the next one."""

_LET_GO_EVERY_S = 600.0
"""How often a process looks for markers of runs that others ended, and were killed before they deleted them."""


class OwnRuns:
    """Which runs this process looks after, and how those ended that somebody may ask it about.

    Args:
        ticks: whether this process ticks for them, as it does where it has a bus of its own; in the cloud others do.
        look_after: does a Tick's work for one run: (run id, its marker) -> None where it is open no more.
        let_go_of_ended: deletes the markers of runs that have ended.
    """

    def __init__(
        self,
        store: ObjectStore,
        tick_interval_s: float,
        *,
        ticks: bool,
        look_after: Callable[[str, str | None], object],
        let_go_of_ended: Callable[[], object],
    ) -> None:
        self._store, self._tick_interval_s, self._ticks = store, tick_interval_s, ticks
        self._look_after, self._let_go_of_ended = look_after, let_go_of_ended
        self._ended: dict[str, RunState] = {}
        self._waited_for = Counter[str]()
        self._changed = Condition(Lock())
        self._mine: set[str] = set()
        self._over: set[str] = set()  # of these, and their markers may be left
        self._taken_up: set[str] = set()  # of these, since the timer came to them last
        self._saved_s: dict[str, float] = {}  # of these, when they were saved here last, by time.monotonic()
        self._stopping = Event()
        self._timer: Thread | None = None

    @property
    def open_ids(self) -> list[str]:
        """Ids of those that have not ended, child runs too."""
        with self._changed:
            return sorted(self._mine - self._over)

    def drives(self, run_id: str) -> bool:
        """Whether a run whose turn has come is to go on here: on a bus of its own, a process runs what is its own."""
        return not self._ticks or (run_id in self._mine and not self._stopping.is_set())

    def load(self, run_id: str) -> RunState:
        """Return a run, anybody's. Raises RunNotFound: there is none."""
        loaded = OrchestrationStatus(self._store, run_id).load()
        if loaded is None:
            raise RunNotFound(f"run {run_id}: there is no runs/{run_id}.json in this bucket")
        return loaded[0]

    # -- who waits for one ----------------------------------------------------------------------------

    def wait(self, run_id: str, timeout_s: float | None) -> RunState:
        """Return a run, anybody's, as it ended; see `DAGExecutor.wait`."""
        with self._changed:
            self._waited_for[run_id] += 1
        try:
            return self._wait(run_id, timeout_s)
        finally:
            with self._changed:
                self._waited_for[run_id] -= 1
                if not self._waited_for[run_id]:
                    del self._waited_for[run_id]
                    if not self._ticks:
                        self._ended.pop(run_id, None)

    def _wait(self, run_id: str, timeout_s: float | None) -> RunState:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wait_s = _WAIT_S if run_id in self._mine else 0.0
        while True:
            with self._changed:
                if run_id in self._ended:
                    return self._ended[run_id]
                left_s = wait_s if until is None else min(wait_s, until - time.monotonic())
                if left_s > 0 and self._changed.wait(left_s) and run_id in self._ended:
                    return self._ended[run_id]
            is_over = until is not None and time.monotonic() >= until
            if not is_over and self._was_saved(run_id, _WAIT_S):
                continue
            begin_s = time.thread_time()
            state = self.load(run_id)
            wait_s = max(_WAIT_S, _pause_after(begin_s))
            if state.run.status.is_final:
                self.ended(state)
            elif until is not None and time.monotonic() >= until:
                raise TimeoutError(f"run {run_id}: has not ended within {timeout_s:g} s")

    def ended(self, state: RunState, *, is_own: bool = False) -> None:
        """Keep an ended run for who waits, or will wait, here: in the cloud hardly anybody ever does.

        Args:
            is_own: it was saved here, so that its marker is to be seen to here, though it may have begun by that save.
        """
        with self._changed:
            if not self._ticks and state.run.run_id not in self._waited_for:
                return
            self._ended[state.run.run_id] = state
            if self._ticks and is_own:
                self._mine.add(state.run.run_id)
            if state.run.run_id in self._mine:
                self._over.add(state.run.run_id)
            if len(self._ended) > MAX_ENDED_RUNS:
                oldest = next(iter(self._ended))
                del self._ended[oldest]
                if not self._ticks:  # else the timer forgets it, once its marker is deleted
                    self._mine.discard(oldest)
                    self._over.discard(oldest)
            self._changed.notify_all()

    def await_notifications(self, instance: str) -> None:
        """Let those be sent, and noted, that this instance has in hand; others can be sent by `resume`."""

        def in_hand() -> bool:
            owed = [each for state in self._ended.values() for each in state.run.owed_notifications]
            return any(each.owner.startswith(f"{instance}.") for each in owed)

        with self._changed:
            self._changed.wait_for(lambda: not in_hand(), NOTIFYING_S)

    # -- the timer that ticks for them ------------------------------------------------------------------

    def goes_on(self, run_id: str, *, is_redriven: bool) -> None:
        """Note that a run was saved here, and has not ended."""
        if self._ticks:
            self._saved_s[run_id] = time.monotonic()
        if is_redriven:
            with self._changed:
                self._ended.pop(run_id, None)
        if self._ticks and (is_redriven or run_id not in self._mine or self._timer is None):
            self.look_after_from_now_on(run_id)

    def look_after_from_now_on(self, run_id: str) -> None:
        """Have the timer tick for a run."""
        with self._changed:
            self._mine.add(run_id)
            self._over.discard(run_id)
            self._ended.pop(run_id, None)  # another process may have let it go on
            if not self._ticks:
                return
            self._taken_up.add(run_id)
            if self._timer is None and not self._stopping.is_set():
                timer = Thread(target=self._tick_on, name="orchestrator-tick", daemon=True)
                try:
                    timer.start()
                except RuntimeError as exc:  # the machine has no thread left; the next save tries again
                    log.warning("nobody looks after runs now: %s", exc, extra={"run_id": run_id})
                    return
                self._timer = timer

    def close_marker_of(self, run_id: str) -> None:
        """Have closing see to the marker of a run that has ended."""
        with self._changed:
            self._mine.add(run_id)
            self._over.add(run_id)

    def _tick_on(self) -> None:
        """Tick for the runs of this process; those that another process left are for `resume`."""
        turns: dict[str, float] = {}
        left_out = Counter[str]()
        let_go_s = 0.0
        while not self._stopping.wait(self._tick_interval_s):
            if time.monotonic() >= let_go_s:
                self.let_go_of_others()
                let_go_s = time.monotonic() + _LET_GO_EVERY_S
            mine = tuple(self._mine)
            turns = {run_id: turns[run_id] for run_id in mine if run_id in turns}
            for run_id in mine:
                if time.monotonic() < turns.get(run_id, 0.0):
                    continue
                if left_out[run_id] < _LEFT_OUT and self._was_saved(run_id, self._tick_interval_s):
                    left_out[run_id] += 1
                    continue
                del left_out[run_id]
                with self._changed:
                    self._taken_up.discard(run_id)
                is_open, begin_s = True, time.thread_time()
                try:
                    is_open = self._look_after(run_id, marker_of(run_id)) is not None
                except OrchestratorError as exc:
                    log.error("tick: %s", exc, extra={**exc.labels, "run_id": run_id})
                except Exception:
                    log.exception("tick failed", extra={"run_id": run_id})
                turns[run_id] = time.monotonic() + _pause_after(begin_s)
                with self._changed:
                    if not is_open and run_id not in self._taken_up:  # else it was redriven meanwhile
                        self._mine.discard(run_id)
                        self._over.discard(run_id)
                        self._saved_s.pop(run_id, None)

    def _was_saved(self, run_id: str, within_s: float) -> bool:
        """Whether a run was saved here just now, and had not ended."""
        saved_s = self._saved_s.get(run_id)
        return saved_s is not None and run_id not in self._over and time.monotonic() - saved_s < within_s

    def begin_to_stop(self) -> None:
        """Tick no more, and take up nothing more."""
        self._stopping.set()

    def stop(self) -> None:
        """Return when the timer has stopped, or takes too long for that."""
        if self._timer is not None:
            self._timer.join(timeout=5.0)

    def clear_markers(self) -> None:
        """Delete the markers of its runs that have ended."""
        for run_id in tuple(self._over):
            try:
                self._look_after(run_id, marker_of(run_id))
            except OrchestratorError as exc:
                log.warning("the marker of an ended run is left: %s", exc, extra={"run_id": run_id})

    def let_go_of_others(self) -> None:
        """Delete markers, in a directory, that nobody else would: of runs whose process was killed when they ended."""
        if not self._ticks or getattr(self._store, "root", None) is None:
            return
        try:
            self._let_go_of_ended()
        except OrchestratorError as exc:
            log.warning("markers of ended runs are left: %s", exc)


def _pause_after(begin_s: float) -> float:
    """Seconds to leave a run alone that has been read since `time.thread_time` was `begin_s`: a large one for longer.

    So reading takes a small share of one core, however large the run is: of 10,000 steps it takes some 30 ms.
    """
    return min(_LONGEST_PAUSE_S, _READING_SHARE * (time.thread_time() - begin_s))
