"""The Tick: recovers what was left, lost or is due, run by run, each failing alone."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import timedelta
from hashlib import sha256
from threading import Lock, Thread
from typing import TYPE_CHECKING

from orchestrator.engine.acting import Actor
from orchestrator.engine.handled import Swept
from orchestrator.engine.inquiry import Inquiry
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import OpenRuns, OrchestrationStatus, number_of, run_of
from orchestrator.engine.sweep import Chores, chores, late_notifications
from orchestrator.engine.walk import Walk, Walks
from orchestrator.engine.witness import Witness
from orchestrator.model.commands import AskSlot
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import NotYet, OrchestratorError, RunNotFound
from orchestrator.model.facts import (
    DeadlinePassed,
    Fact,
    NotificationExpired,
    PauseEnded,
    PauseRequested,
    RunOutOfTime,
)
from orchestrator.model.ids import parse_launch_id
from orchestrator.model.policy import Policy
from orchestrator.model.run_document import decode_run
from orchestrator.model.run_state import OwedNotification, RunInfo, RunState
from orchestrator.ports import Clock, Hosts, ObjectStore

if TYPE_CHECKING:
    from orchestrator.engine.slot_keeper import SlotKeeper

log = logging.getLogger("orchestrator")

RUNS_AT_ONCE = 4
"""How many runs a Tick looks after side by side at most: so many claims may be taken over and not bound yet when the
instance is killed, and each of those has to wait for its lease's end once more."""

NOTIFYING_AT_ONCE = 16
"""In how many runs a Tick sends late notifications side by side."""

NOTIFYING_S = 30.0
"""How long a Tick takes up late notifications, when all else is done; the rest is for the next one. Those that are not
accepted are due later each time, so the next one comes to others."""


class Ticker:
    """Looks after open runs.

    Args:
        instance: who asks; its own claims it leaves alone until their lease is over.
        box_of: run id -> what this instance knows of the run.
        apply: saves facts about a run and acts on what follows; returns the thread that acts where that takes long.
        forget: drops what this instance knows of a run that has ended.
        slots: what asks for slots, where a run waits for one.
    """

    def __init__(
        self,
        store: ObjectStore,
        witness: Witness,
        actor: Actor,
        clock: Clock,
        hosts: Hosts,
        policy: Policy,
        instance: str,
        *,
        box_of: Callable[[str], RunBox],
        apply: Callable[[RunBox, tuple[Fact, ...]], Thread | None],
        forget: Callable[[str], None],
        slots: Callable[[], SlotKeeper],
    ) -> None:
        self._slots = slots
        self._store, self._witness = store, witness
        self._clock, self._hosts, self._policy, self._instance = clock, hosts, policy, instance
        self._box_of, self._apply, self._forget = box_of, apply, forget
        self._open_runs = OpenRuns(store)
        self._walks = Walks(clock, policy)
        self._inquiry = Inquiry(store, witness, actor, clock, hosts, policy, instance)

    def tick(self) -> Swept:
        """Look after all open runs; nothing to do where a tick of this instance is at it already, and does not hang.

        Several runs are looked after side by side, so that none is held up by another's questions or calls. Late
        notifications are sent when that is done, for a receiver may be slow. Returns when all that follows has been
        acted on; the next Tick need not wait for that.
        """
        with self._walks.one() as walk:
            if walk is None:
                return Swept()
            walk.markers = self._markers()
            at_once = min(self._policy.questions_at_once, RUNS_AT_ONCE, len(walk.markers))
            if at_once < 2:
                self._walk_on(walk)
            else:
                with ThreadPoolExecutor(at_once, "orchestrator-tick") as pool:
                    for walking in [pool.submit(self._walk_on, walk) for _ in range(at_once)]:
                        walking.result()
            self._take_turns(walk, self._walks.alone_at)
        self._notify_all(walk)
        for acting in walk.acting:
            acting.join()
        if walk.left:
            log.warning(
                "tick: had no time for %d of %d open runs; the next one begins with them",
                walk.left,
                len(walk.markers),
            )
        return Swept(walk.runs, tuple(walk.recovered), tuple(walk.closed), tuple(walk.problems), walk.left)

    def look_after(self, run_id: str, marker: str | None = None) -> tuple[str, ...] | None:
        """Do a Tick's work for one run; return when what follows has been acted on.

        Returns:
            The launch ids that something was found out about, or None where the run has ended (then
            its marker, if named, is deleted).
        """
        walk = Walk(self._clock.now())
        found = self._look_after(run_id, marker, walk)
        self._take_turns(walk)
        is_closed = any(self._notify(*owing) for owing in walk.owing)
        for each in walk.acting:
            each.join()
        return None if is_closed else found

    def let_go_of_ended(self, most: int = 100) -> tuple[str, ...]:
        """Delete the markers of runs that have ended, which were left where who ended them was killed just then.

        Runs that have not ended, or owe notifications, are left to who drives them; what cannot be read to a Tick.

        Args:
            most: how many markers are looked at; others than the last time, where there are more.
        Returns:
            The ids of the runs.
        """
        closed: list[str] = []
        markers = self._markers()[:most]
        for marker in markers:
            run_id = run_of(marker)
            key = f"runs/{run_id}.json"
            with suppress(OrchestratorError):
                found = self._store.get(key)
                run = decode_run(found[0], key) if found is not None else None
                if run is not None and run.status.is_final and self._close(run, marker):
                    closed.append(run_id)
        if markers:
            self._walks.came_to = markers[-1]
        return tuple(closed)

    def _markers(self) -> Sequence[str]:
        """The markers of open runs, from where the last Tick here left off and round to there.

        Another instance does not know where that is, and one that is new might always be; so each begins somewhere
        else, else the last runs would never be come to where there are too many.
        """
        newest: dict[str, str] = {}
        for marker, run_id in self._open_runs:  # those before a redrive are deleted with its own
            if run_id not in newest or number_of(marker) > number_of(newest[run_id]):
                newest[run_id] = marker
        return self._walks.in_turn(sorted(newest.values()), int(sha256(self._instance.encode()).hexdigest(), 16))

    def _walk_on(self, walk: Walk) -> None:
        """Look after one run after another, until there is none left or no time; each fails alone.

        A run that a thread of an earlier Tick hangs at is left to that.
        """
        while (marker := self._walks.next_of(walk)) is not None:
            run_id = run_of(marker)
            with self._walks.alone_at(run_id) as may, self._walks.failing_alone(walk, "chores", run_id):
                if not may:
                    raise NotYet(
                        f"run {run_id}: a thread of an earlier Tick is at it still, and it is left to that for now"
                    )
                found = self._look_after(run_id, marker, walk)
                if found is None:
                    walk.closed.append(run_id)
                else:
                    walk.recovered += found

    def _look_after(self, run_id: str, marker: str | None, walk: Walk) -> tuple[str, ...] | None:
        """Do as `look_after` does, but note what takes long: threads that are acting, runs with late notifications."""
        loaded = OrchestrationStatus(self._store, run_id).load()
        if loaded is None:
            return self._orphan(run_id, marker)
        state = loaded[0]
        if self._late(state):
            walk.owing.append((run_id, marker))
        if state.run.status.is_final:
            return None if self._close(state.run, marker) else ()
        box = self._box_of(run_id)
        work = chores(
            state, self._clock.now(), self._instance, self._hosts.is_alive, self._policy, box.executions.__contains__
        )
        facts = self._inquiry.facts(work, state, box) if work else ()
        is_over = state.run.timeout_at is not None and state.run.timeout_at <= self._clock.now()
        late: tuple[Fact, ...] = (RunOutOfTime(),) if is_over and state.run.stop is None else ()
        ended: tuple[Fact, ...] = (PauseEnded(),) if state.run.is_resuming else ()
        if work.waiting or state.run.waits_for_slot:
            asks = self._asks(state, work)
            if state.run.status is not RunStatus.PAUSED:
                walk.asks += asks
            elif state.run.steered_at is not None and asks:  # it was paused from outside
                ended = (PauseRequested(state.run.steered_at),)
        deadline_at = state.run.deadline_at
        if deadline_at is not None and deadline_at <= self._clock.now() and not state.run.is_late:
            late = (*late, DeadlinePassed())
        if facts or late or ended:
            self._act_on(box, (*ended, *facts, *late), walk.acting)
        names = dict.fromkeys(fact.node_name for fact in facts)
        return tuple(state.launch_id(name) for name in names)

    def _asks(self, state: RunState, work: Chores) -> list[AskSlot]:
        """What a run waits for of queues; what that needs is loaded where there is something."""
        from orchestrator.engine.queueing import asks_of

        return asks_of(self._witness.dag_of(state), state, work.waiting, self._policy.pools)

    def _take_turns(
        self, walk: Walk, alone_at: Callable[[str], AbstractContextManager[bool]] = lambda _: nullcontext(True)
    ) -> None:
        """See to what waits for slots: one look at each queue, for all runs together."""
        if not walk.asks:
            return
        by_queue: dict[str, list[AskSlot]] = {}
        for ask in walk.asks:
            by_queue.setdefault(ask.queue, []).append(ask)
        granted: dict[str, list[Fact]] = {}
        for queue, asks in by_queue.items():
            with alone_at(queue) as may, self._walks.failing_alone(walk, "slots", queue):
                run_of_ticket = {ask.ticket: ask.run_id for ask in asks}
                for fact in self._slots().look_after(queue, asks) if may else ():
                    granted.setdefault(run_of_ticket[fact.ticket], []).append(fact)
        for run_id, facts in granted.items():
            with alone_at(run_id) as may, self._walks.failing_alone(walk, "turn", run_id):
                if may:  # else it is told by a later Tick: it holds its slot
                    self._act_on(self._box_of(run_id), tuple(facts), walk.acting)

    def _act_on(self, box: RunBox, facts: tuple[Fact, ...], acting: list[Thread]) -> None:
        thread = self._apply(box, facts)
        if thread is not None:
            acting.append(thread)

    def _close(self, run: RunInfo, marker: str | None) -> bool:
        """Let go of a run that has ended, unless it owes notifications still: then its marker stays.

        So does that of a redrive which has written its marker, and is about to save; for a day.
        """
        run_id, redrives, number = run.run_id, run.redrives, number_of(marker or "")
        if run.owed_notifications or (number > redrives and not self._is_old(marker)):
            return False
        if marker is not None:
            self._open_runs.clear_all(run_id, max(redrives, number))
        if number > redrives:  # who was killed over it may have been asked again at this very moment
            loaded = OrchestrationStatus(self._store, run_id).load()
            if loaded is not None and not loaded[0].run.status.is_final:
                self._open_runs.mark(run_id, self._clock.now(), loaded[0].run.redrives)
                return False
        self._forget(run_id)
        return True

    def _is_old(self, marker: str | None) -> bool:
        found = self._open_runs.read(marker) if marker else None
        return found is not None and self._clock.now() - found.at >= timedelta(seconds=self._policy.marker_age_s)

    def _late(self, state: RunState) -> tuple[OwedNotification, ...]:
        return late_notifications(state, self._clock.now(), self._instance, self._hosts.is_alive, self._policy)

    def _notify_all(self, walk: Walk) -> None:
        """Send what is late, in several runs side by side; what there is no time for is left as it is."""
        if not walk.owing:
            return
        until = self._clock.now() + timedelta(seconds=NOTIFYING_S)
        owing, lock = deque(walk.owing), Lock()

        def send() -> None:
            while True:
                with lock:
                    if not owing or self._clock.now() >= until:
                        return
                    run_id, marker = owing.popleft()
                notifying = f"notifications of {run_id}"  # a receiver that is slow holds nothing else of the run up
                with (
                    self._walks.alone_at(notifying) as may,
                    self._walks.failing_alone(walk, "notifications", run_id),
                ):
                    if may and self._notify(run_id, marker):
                        walk.closed.append(run_id)

        with ThreadPoolExecutor(min(NOTIFYING_AT_ONCE, len(owing)), "orchestrator-notify") as pool:
            for sending in [pool.submit(send) for _ in range(min(NOTIFYING_AT_ONCE, len(owing)))]:
                sending.result()
        if owing:
            log.warning("tick: had no time for the late notifications of %d runs; the next one sends them", len(owing))

    def _notify(self, run_id: str, marker: str | None) -> bool:
        """Take a run's late notifications over and send them; whether that closed the run.

        They are taken over only now: their lease begins when there is somebody to send them.
        """
        status = OrchestrationStatus(self._store, run_id)
        loaded = status.load()
        if loaded is None:
            return False
        facts = tuple(NotificationExpired(owed.notification_id, owed.owner) for owed in self._late(loaded[0]))
        if facts:
            sending = self._apply(self._box_of(run_id), facts)
            if sending is not None:
                sending.join()
            loaded = status.load() or loaded
        state = loaded[0]
        return state.run.status.is_final and self._close(state.run, marker)

    def _orphan(self, run_id: str, marker: str | None) -> tuple[str, ...]:
        """A marker without a run: the start died before it wrote the run, and will be delivered again."""
        found = self._open_runs.read(marker) if marker else None
        if found is None or marker is None or not self._is_old(marker):
            return ()
        if number_of(marker) or (found.made_for is not None and not self._is_wanted(found.made_for)):
            # Of a redrive of a run that was pruned; of a child run whose launch died, and was given up before it was
            # repeated.
            self._open_runs.clear(marker)
            return ()
        raise RunNotFound(f"{marker}: marks a run since {found.at.isoformat()}, but runs/{run_id}.json does not exist")

    def _is_wanted(self, launch_id: str) -> bool:
        """Whether an attempt is under way, so that its launch may still be repeated."""
        ids = parse_launch_id(launch_id)
        loaded = OrchestrationStatus(self._store, ids[0]).load() if ids is not None else None
        node = loaded[0].nodes.get(ids[1]) if ids is not None and loaded is not None else None
        return node is not None and ids is not None and node.status is TaskStatus.RUNNING and node.attempt == ids[2]
