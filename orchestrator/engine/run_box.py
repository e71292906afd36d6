"""One run's inbox: events that arrive while a save is under way wait, and go into the next one together.

At any time at most one thread of this instance leads a run. Who offers an event to a run that nobody
leads, leads it; everybody else waits, or (a local bus) is called back. A leader that has saved hands
the run on before it acts on what it saved, so that launching holds up nobody.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from threading import Event, Lock, Thread

from orchestrator.engine.address import Item
from orchestrator.engine.handled import Handled
from orchestrator.engine.pace import WRITING_S, Pace
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import TaskStatus
from orchestrator.model.run_state import RunState
from orchestrator.ports import Version

log = logging.getLogger("orchestrator")

OnDone = Callable[[Handled | None, BaseException | None], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a target said of an attempt.

    Attributes:
        execution: what runs, or ran, for it; None where nothing is known of any.
        outcome: how it ended; None where that is not known.
        runs_on: it is known not to have ended.
    """

    execution: Execution | None = None
    outcome: Outcome | None = None
    runs_on: bool = False


class Entry:
    """One addressed event on its way through a run's inbox."""

    __slots__ = ("acting", "acts_apart", "asked", "error", "handled", "is_done", "item", "leads", "on_done", "signal")

    def __init__(self, item: Item, *, on_done: OnDone | None = None, acts_apart: bool = False) -> None:
        self.item = item
        self.on_done = on_done
        self.signal = Event() if on_done is None else None
        """Set when it is done, or when its waiting thread is to lead; None where nobody waits."""
        self.acts_apart = acts_apart
        """Whether it is done once it is saved, though what follows from it takes long to act on."""
        self.acting: Thread | None = None
        """What acts on it then."""
        self.leads = False
        self.is_done = False
        self.handled: Handled | None = None
        self.error: BaseException | None = None
        self.asked: dict[int, Answer] = {}
        """attempt -> what its target answered, so that a save that loses a race does not ask again."""

    def finish(self, handled: Handled | None, error: BaseException | None) -> None:
        """Say how it went, once."""
        if self.is_done:
            return
        self.handled, self.error, self.is_done = handled, error, True
        signal = self.signal
        if signal is not None:
            signal.set()
        if self.on_done is not None:
            try:
                self.on_done(handled, error)
            except Exception:
                log.exception("who was to be told of an event failed", extra={"run_id": self.item.run_id})


class Baton(Enum):
    """What became of the lead of a run."""

    LAID_DOWN = auto()
    HANDED_ON = auto()
    KEPT = auto()


class RunBox:
    """The inbox of one run in this instance, and what this instance knows of the run.

    Attributes:
        status: the run's document in the store.
        pace: when that may be saved next.
        seen: the last version that this instance loaded or saved, and when, also while `saved` is None.
        saved: the run as this instance saved or loaded it last, with its version; perhaps stale.
        executions: launch id -> execution that this instance launched or found.
        counted_bytes: what the executor counts for it of what it may keep; the executor's own.
    """

    def __init__(self, run_id: str, status: OrchestrationStatus, pace: Pace) -> None:
        self.run_id = run_id
        self.status, self.pace = status, pace
        self.saved: tuple[RunState, Version] | None = None
        self.seen: tuple[Version, datetime] | None = None
        self.executions: dict[str, Execution] = {}
        self.counted_bytes = 0
        self._lock = Lock()
        self._pending: list[Entry] = []
        self._is_led = False

    def others_saves(self, state: RunState, version: Version, now: datetime) -> list[float]:
        """Return when others have saved the run since it was last seen here, as far as can be told; it is seen now.

        A save decides at one time, which what starts or ends by it bears; the last one is written a little later.
        """
        before, self.seen = self.seen, (version, now)
        if before is not None and before[0] == version:
            return []
        times = {at for node in state.nodes.values() for at in (node.started_at, node.ended_at)}
        found = sorted(at.timestamp() for at in times if at is not None and (before is None or at > before[1]))
        if not found:
            return [now.timestamp()]
        return [*found[:-1], max(found[-1], min(found[-1] + WRITING_S, now.timestamp()))]

    def offer(self, entry: Entry) -> bool:
        """Put an event in; True means that the caller leads the run now."""
        with self._lock:
            self._pending.append(entry)
            if self._is_led:
                return False
            self._is_led = True
            return True

    def take(self) -> list[Entry]:
        """Take everything that waits; only a leader may."""
        with self._lock:
            batch, self._pending = self._pending, []
            return batch

    def put_back(self, entries: list[Entry]) -> None:
        """Put events back in front of those that have arrived since."""
        with self._lock:
            self._pending[:0] = entries

    def pass_on(self) -> Baton:
        """Hand the lead to a thread that waits here, or lay it down; KEPT where events wait but no thread."""
        with self._lock:
            if not self._pending:
                self._is_led = False
                return Baton.LAID_DOWN
            for entry in self._pending:
                if entry.signal is not None:
                    entry.leads = True
                    entry.signal.set()
                    return Baton.HANDED_ON
            return Baton.KEPT

    def withdraw(self, entry: Entry) -> bool:
        """Take an event out whose thread waits no more; True means that it had been handed the lead."""
        with self._lock:
            entry.signal = None  # should who leads put it back
            if entry in self._pending:
                self._pending.remove(entry)
            return entry.leads

    def let_go(self) -> bool:
        """Drop what can be read again, if nobody is at this run; say whether nobody was."""
        with self._lock:
            if self._is_led or self._pending:
                return False
            if self.saved is not None:
                state = self.saved[0]
                of_now = {
                    state.launch_id(name) for name, node in state.nodes.items() if node.status is TaskStatus.RUNNING
                }
                for launch_id in tuple(self.executions):  # others may be launching meanwhile
                    if launch_id not in of_now:
                        self.executions.pop(launch_id, None)
            self.saved = None
            self.status.forget()
            return True

    @property
    def is_idle(self) -> bool:
        """Whether nobody leads and nothing waits."""
        with self._lock:
            return not self._is_led and not self._pending
