"""Steps 4 to 7 of the loop: a batch of events of one run is folded into one save, run again where it loses a race."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice

from orchestrator.engine.address import Completion
from orchestrator.engine.batch import Batch
from orchestrator.engine.deciding import Decider, TooMuchAtOnce
from orchestrator.engine.draft import Decision, Token
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.observing import Observed
from orchestrator.engine.pace import ASKING_S, GATHERING_S, LINGERING_S, MOST_LINGERING_S
from orchestrator.engine.run_box import Entry, RunBox
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import Marker, OpenRuns, OrchestrationStatus, marker_of
from orchestrator.model.commands import AskSlot, Command, Launch, Notify
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import OrchestratorError, StoreUnavailable, VersionConflict
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.ports import Clock, Version

log = logging.getLogger("orchestrator")

MAX_SAVES = 60
"""How often a lost race is run again before the events are given back."""
MAX_FAULTS = 5
"""How often a store that cannot be written is tried again before the events are given back."""
MAX_TURNS = 20
"""How often a save lets others go first before it is tried all the same."""
RACES_AT_ONCE = 4
"""How often a lost race is run again before the next save waits for its turn."""

Committed = tuple[tuple[Command, ...], dict[Entry, str | BaseException]]
"""What a save entitles to, and what came of each event."""


class Committer:
    """Loads, asks, decides and saves.

    Args:
        instance: name of this instance, the first part of every claim's owner.
        random_bytes: n -> that many random bytes.
        sleep: sleeps so many seconds.
        on_saved: told of every save of this instance.
    """

    def __init__(
        self,
        decider: Decider,
        large_results: LargeResults,
        open_runs: OpenRuns,
        observed: Observed,
        clock: Clock,
        *,
        instance: str,
        random_bytes: Callable[[int], bytes],
        sleep: Callable[[float], None],
        on_saved: Callable[[Saved], None] | None,
    ) -> None:
        self._decider, self._large_results, self._open_runs, self._observed = (
            decider,
            large_results,
            open_runs,
            observed,
        )
        self._clock, self._instance, self._random_bytes, self._sleep = clock, instance, random_bytes, sleep
        self.on_saved = on_saved

    def commit(self, box: RunBox, entries: list[Entry]) -> Committed:
        """Fold a batch of events into one save. Returns what to act on, and a verdict or an error an entry.

        Entries that have to wait for the others' save go back into the box, and out of `entries`.
        """
        batch = Batch(box, entries, 0.0 if box.pace.is_free else self._seconds() + MOST_LINGERING_S)
        while True:
            committed = self._try(batch)
            if committed is not None:
                return committed

    def _try(self, batch: Batch) -> Committed | None:
        """Load the run, ask, decide and save, once; None: it is to be tried again."""
        box = batch.box
        loaded, was_cached = self._load(batch)
        state, version = loaded or (None, None)
        batch.claimed += _applied_after_all(batch.tried, state)
        self._tell_after_all(batch.unsure, state, batch.entries)
        if state is None:
            batch.keep_starts()
        token = Token(f"{self._instance}.{self._random_bytes(8).hex()}", self._random_bytes(32))
        try:
            decision, questions, results = self._decider.decide_on(box, batch.entries, state, token)
        except TooMuchAtOnce:
            batch.halve()
            return None
        if not decision.changed or decision.state is None:
            if was_cached:
                box.saved = None  # "nothing to do" counts only if it was the run as it is now
                return None
            if loaded is not None and not loaded[0].run.status.is_final:
                box.saved = loaded
                if loaded[0].run.redrives and batch.lets_go_on:  # who let it go on may have been killed over it
                    self._mark_again(loaded[0].run)
            return batch.claimed + questions, results
        if self._gives_way(batch, loaded, decision):
            return None
        after = self._write(batch, state, version, token, decision, decision.state)
        if after is None:
            return None
        self._written(batch, state, after, decision)
        return batch.claimed + decision.commands + questions, results

    def _load(self, batch: Batch) -> tuple[tuple[RunState, Version] | None, bool]:
        """Return the run, None where there is none, and whether it is as it was here, and may have changed since."""
        box, pace = batch.box, batch.box.pace
        if not pace.is_free and pace.is_shared(self._seconds()):
            box.saved = None  # a read costs less than a save that is refused
        if box.saved is not None:
            return box.saved, True
        loaded = box.status.load()
        if not pace.is_free:
            if loaded is not None:
                now = self._clock.now()
                pace.seen(box.others_saves(*loaded, now), now.timestamp())
            if batch.is_whole:
                batch.take_more()  # what came while it was loaded
        return loaded, False

    def _gives_way(self, batch: Batch, loaded: tuple[RunState, Version] | None, decision: Decision) -> bool:
        """Wait, where saves are paced, for more to go along or for others to go first; return whether some did."""
        box = batch.box
        if box.pace.is_free:
            return False
        if batch.is_whole and not batch.is_gathered and len(batch.entries) > 1 and batch.take_more():
            batch.is_gathered = True  # once: what came while it was asked goes along, into one save fewer
            box.saved = loaded
            return True
        if batch.claimed:  # what was claimed before is not to wait
            return False
        state = loaded[0] if loaded is not None else None
        if batch.turns < MAX_TURNS and (wait_s := self._turn_in_s(box, state)) > 0.0:
            batch.turns += 1
            self._wait_for_turn(box, batch.entries if batch.is_whole else None, state, wait_s)
            box.saved = None  # another instance may have had its turn meanwhile
            return True
        is_early = batch.is_whole and self._seconds() < batch.lingers_until_s
        if is_early and _starts_nothing(state, decision, batch.entries):
            self._sleep(LINGERING_S)
            if batch.take_more():
                box.saved = loaded
                return True
        return False

    def _write(
        self,
        batch: Batch,
        before: RunState | None,
        version: Version | None,
        token: Token,
        decision: Decision,
        after: RunState,
    ) -> RunState | None:
        """Save what was decided on, and return it as it was saved; None: it was not, and is to be decided on anew."""
        box = batch.box
        try:
            after = self._large_results.set_aside(before, after, decision.touched)
            box.saved = (after, self._save(box.status, before, after, version, decision.touched))
        except VersionConflict:
            box.saved = None
            batch.was_refused(token, decision, before, after)
            self._observed.lost(box.run_id)
            batch.races += 1
            if batch.races >= MAX_SAVES:
                raise
            box.pace.raced(self._seconds())
            self.linger(box, batch.races)
            batch.take_more()  # what arrived since goes along: fewer saves, fewer races to lose
            return None
        except StoreUnavailable:
            box.saved = None
            batch.was_refused(token, decision, before, after)
            batch.faults += 1
            if batch.faults >= MAX_FAULTS:
                raise
            self._back_off(batch.faults)
            return None
        except Exception:
            box.saved = None
            if len(batch.entries) == 1:
                raise
            # One of them cannot be written, and is to fail alone: halve until it does.
            batch.tried.append((token, decision))
            batch.halve()
            return None
        if not box.pace.is_free:
            box.pace.saved(self._seconds())
            box.seen = (box.saved[1], self._clock.now())
        return after

    def _written(self, batch: Batch, before: RunState | None, after: RunState, decision: Decision) -> None:
        """See to what follows from a save: what is at hand of the run, its marker, who is told."""
        box = batch.box
        if after.run.status.is_final:
            box.saved = None
            box.executions.clear()
            box.status.forget()
        elif before is not None and before.run.redrives == after.run.redrives > 0 and batch.lets_go_on:
            self._mark_again(after.run)
        self._tell(Saved(before, after, tuple(entry.item for entry in batch.entries), decision.touched))

    def linger(self, box: RunBox, lost: int = 0) -> None:
        """Wait until the run may be saved again; after `lost` races, a little.

        A save that is refused writes nothing, so that trying again makes no more writes than there are instances. With
        many attempts side by side, `commit` waits, which knows by then who else has saved the run.
        """
        is_free = box.pace.is_free or 0 < lost <= RACES_AT_ONCE or box.pace.is_crowded(self._seconds())
        wait_s = 0.0 if is_free else box.pace.wait_s(self._seconds(), self.spread())
        if not wait_s and not lost and _has_company(box):
            wait_s = GATHERING_S
        if wait_s:
            self._sleep(wait_s)
        elif lost:
            self._back_off(min(lost, 6))

    def _turn_in_s(self, box: RunBox, state: RunState | None) -> float:
        """How long a save has still to wait of a run with many attempts, now that it is known who has saved it when."""
        now_s = self._seconds()
        if state is not None and _run_side_by_side(state, box.pace.crowd + 1):
            box.pace.crowded(now_s)
        wait_s = box.pace.wait_s(now_s, self.spread()) if box.pace.is_crowded(now_s) else 0.0
        if wait_s > 0.0:
            box.pace.crowded(now_s)  # until it has been quiet for long
        return wait_s

    def _wait_for_turn(self, box: RunBox, batch: list[Entry] | None, state: RunState | None, wait_s: float) -> None:
        """Sleep. What comes meanwhile is put into the batch, if there is one, and asked: then only to save it is left.

        What comes at the very end waits for the next turn.
        """
        until_s = self._seconds() + wait_s
        while wait_s > 0.0:
            self._sleep(min(wait_s, ASKING_S))
            if batch is not None and state is not None and wait_s > ASKING_S and (more := box.take()):
                self._decider.ask_ahead(box, more, state)
                batch += more
            wait_s = min(wait_s - ASKING_S, until_s - self._seconds())

    def _back_off(self, tries: int) -> None:
        """Wait with full jitter: 2 ms doubling, 1 s at the most."""
        self._sleep(self.spread() * min(1.0, 0.002 * 2**tries))

    def spread(self) -> float:
        """Return a number from 0 up to 1, left to chance."""
        return int.from_bytes(self._random_bytes(4)) / 2**32

    def _seconds(self) -> float:
        return self._clock.now().timestamp()

    def _tell(self, saved: Saved) -> None:
        try:
            if self.on_saved is not None:
                self.on_saved(saved)
        except Exception:
            log.exception("on_saved failed; the run goes on", extra={"run_id": saved.after.run.run_id})

    def _tell_after_all(self, unsure: list[Saved], found: RunState | None, batch: Sequence[Entry]) -> None:
        """Tell of a save that was answered by an error, and had been written all the same.

        Args:
            unsure: the saves of which that is not known; emptied, once the run was `found`.
        """
        if not unsure or found is None:
            return
        for saved in unsure:
            if saved.after == found:
                self._tell(dataclasses.replace(saved, items=tuple(entry.item for entry in batch)))
        unsure.clear()

    def _save(
        self,
        status: OrchestrationStatus,
        before: RunState | None,
        after: RunState,
        version: Version | None,
        touched: Sequence[str] | None,
    ) -> Version:
        if before is not None and before.run.redrives == after.run.redrives:
            return status.save(after, expect=version, before=before, touched=touched)
        if before is None:
            marker = Marker(self._clock.now(), _made_for(after.run))
            created = status.create(after, marker_of(status.run_id, after.run.redrives), marker.encode())
            if created is not None:
                return created
        self._open_runs.mark(status.run_id, self._clock.now(), after.run.redrives, _made_for(after.run))
        if before is None:
            return status.save(after, expect=version, touched=touched)
        try:
            saved = status.save(after, expect=version, before=before, touched=touched)
        except OrchestratorError:  # it may have been carried out all the same
            self._mark_again(after.run)
            raise
        self._mark_again(after.run)
        return saved

    def _mark_again(self, run: RunInfo) -> None:
        """Write the marker of a run that goes on once more: a Tick gives one up that was written a day ago, for nothing
        as far as it can see."""
        for faults in range(1, MAX_FAULTS):
            with suppress(OrchestratorError):
                self._open_runs.mark(run.run_id, self._clock.now(), run.redrives, _made_for(run))
                return
            self._back_off(faults)


def _made_for(run: RunInfo) -> str | None:
    """Of a child run, the launch that it was made for first."""
    return run.message_id if run.parent is not None else None


def _has_company(box: RunBox) -> bool:
    """Whether several attempts run side by side in a run whose saves are paced, so that they may end together."""
    return not box.pace.is_free and box.saved is not None and _run_side_by_side(box.saved[0], 2)


def _run_side_by_side(state: RunState, number: int) -> bool:
    """Whether so many attempts are under way."""
    running = (node for node in state.nodes.values() if node.status is TaskStatus.RUNNING and node.attempt)
    return len(tuple(islice(running, number))) == number


def _starts_nothing(before: RunState | None, decision: Decision, batch: Sequence[Entry]) -> bool:
    """Whether all that a save says is that attempts have ended, while others of the run are under way.

    Nobody is held up by it then, unless it is the last one that somebody else's save waits for.
    """
    after = decision.state
    if before is None or after is None or decision.commands or after.run.status is not before.run.status:
        return False
    return all(isinstance(entry.item, Completion) for entry in batch) and _run_side_by_side(after, 1)


def _applied_after_all(tried: list[tuple[Token, Decision]], state: RunState | None) -> tuple[Command, ...]:
    """Launches and notifications of a save that was answered by an error and had been written all the same.

    Claims, and the notifications that are owed, bear the token of their save, what waits for a slot a ticket made of
    that: so the reload is the check.
    Reminders and cancels bear none; the Tick sees to them.
    """
    if state is None:
        return ()
    found: list[Command] = []
    owed = {(each.notification_id, each.owner) for each in state.run.owed_notifications}
    for token, decision in tried:
        for command in decision.commands:
            if isinstance(command, Launch):
                node = state.nodes.get(command.node_name)
                is_wanted = node is not None and node.owed_cancel is None and node.stop is None
                if is_wanted and node is not None and node.claim is not None and node.claim.owner == token.owner:
                    found.append(command)
            elif isinstance(command, Notify):
                if (command.notification_id, token.owner) in owed:
                    found.append(command)
            elif isinstance(command, AskSlot) and _waits_for(state, command):
                found.append(command)
    if found:
        tried.clear()
    return tuple(found)


def _waits_for(state: RunState, ask: AskSlot) -> bool:
    """Whether a run waits for a slot by this ticket, which is of that save alone."""
    node = state.nodes.get(ask.node_name) if ask.node_name is not None else None
    slot = state.run.slot if ask.node_name is None else node.slot if node is not None else None
    return slot is not None and not slot.is_held and slot.ticket == ask.ticket
