"""RunBoxes: what an instance has at hand of the runs that it has to do with, and how much of it."""

from collections import OrderedDict
from threading import Lock

from orchestrator.engine.pace import Pace
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.policy import CROWD
from orchestrator.ports import ObjectStore

MAX_IDLE_RUNS = 2000
"""How many runs an instance remembers between events."""
MAX_IDLE_BYTES = 32 * 2**20
"""How large the documents of those may be together that it has at hand, and need not read again: in memory they take
some three times as much."""


class RunBoxes:
    """One box a run, the longest unused first.

    Attributes:
        kept_bytes: size of all documents that are at hand.
    """

    def __init__(self, store: ObjectStore, save_interval_s: float, crowd: int = CROWD) -> None:
        self._store, self._save_interval_s, self._crowd = store, save_interval_s, crowd
        self._held: OrderedDict[str, RunBox] = OrderedDict()
        self._lock = Lock()
        self.kept_bytes = 0

    def box(self, run_id: str) -> RunBox:
        """Return what this instance has at hand of a run; made if there is nothing yet."""
        found = self._held.get(run_id)
        if found is not None:
            # Hundreds may come at once, of one run. Who is not first need not wait to say that the run was used now.
            if self._lock.acquire(blocking=False):
                try:
                    if run_id in self._held:
                        self._held.move_to_end(run_id)
                finally:
                    self._lock.release()
            return found
        with self._lock:
            box = self._held.get(run_id)
            if box is None:
                box = self._held[run_id] = RunBox(
                    run_id, OrchestrationStatus(self._store, run_id), Pace(self._save_interval_s, self._crowd)
                )
                if len(self._held) > MAX_IDLE_RUNS:
                    for old in list(self._held)[: MAX_IDLE_RUNS // 10]:
                        if self._held[old].is_idle:
                            self.kept_bytes -= self._held.pop(old).counted_bytes
            else:
                self._held.move_to_end(run_id)
            return box

    def forget(self, run_id: str) -> None:
        """Let go of a run, unless it is in use."""
        with self._lock:
            box = self._held.get(run_id)
            if box is not None and box.is_idle:
                self.kept_bytes -= self._held.pop(run_id).counted_bytes

    def count(self, box: RunBox) -> None:
        """Note how large a run is; if all that are at hand are too large together, let go of the oldest idle ones."""
        with self._lock:
            if self._held.get(box.run_id) is not box:  # it was let go before somebody led it who had it already
                return
            self.kept_bytes += box.status.size_bytes - box.counted_bytes
            box.counted_bytes = box.status.size_bytes
            for old in self._held.values() if self.kept_bytes > MAX_IDLE_BYTES else ():
                if old.counted_bytes and old.let_go():
                    self.kept_bytes -= old.counted_bytes
                    old.counted_bytes = 0
                    if self.kept_bytes <= MAX_IDLE_BYTES:
                        break
