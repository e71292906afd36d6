"""Leading a run: one thread at a time commits what waits for the run, hands the run on, and acts on what it saved."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import BoundedSemaphore, Condition, Lock, Thread

from orchestrator.engine.acting import Actor
from orchestrator.engine.address import Item, Known
from orchestrator.engine.batch import known
from orchestrator.engine.committing import Committer
from orchestrator.engine.deciding import label
from orchestrator.engine.handled import Handled
from orchestrator.engine.run_box import Baton, Entry, OnDone, RunBox
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.model.commands import Command, Launch, ReleaseSlot
from orchestrator.model.errors import NotYet
from orchestrator.model.facts import Fact

log = logging.getLogger("orchestrator")

GIVING_BACK_S = 5.0
"""How long closing waits for slots to be given back that others wait for."""
MAX_APART = 64
"""For how many runs a thread of its own acts on what a Tick found; with more, the Tick waits for each."""


class Leader:
    """What the threads of an instance lead its runs by; any number of them may call it."""

    def __init__(self, committer: Committer, actor: Actor, boxes: RunBoxes) -> None:
        self._committer, self._actor, self._boxes = committer, actor, boxes
        self._apart = BoundedSemaphore(MAX_APART)
        self._giving_back, self._given_back = 0, Condition(Lock())
        """Of how many saves the slots are on their way back; notified when those of one are."""

    def handle(self, item: Item) -> Handled:
        """Return what came of an event of a run, whichever thread has seen to it; raise what it failed with."""
        entry = Entry(item)
        self.lead_or_wait(self._boxes.box(item.run_id), entry)
        return _result(entry)

    def leave(self, item: Item, on_done: OnDone) -> None:
        """Leave an event to who leads its run; lead the run, if nobody does."""
        entry = Entry(item, on_done=on_done)
        box = self._boxes.box(item.run_id)
        if box.offer(entry):
            self.lead(box, entry)

    def apply(self, box: RunBox, facts: tuple[Fact, ...]) -> Thread | None:
        """Feed what this instance found out into the loop; return when it is saved, and acted on if that is quick.

        Returns:
            The thread that acts on it, if that may take long.
        """
        entry = Entry(Known(box.run_id, facts), acts_apart=True)
        self.lead_or_wait(box, entry)
        _result(entry)
        return entry.acting

    def close(self) -> None:
        """Wait a little for slots that are being given back."""
        with self._given_back:
            self._given_back.wait_for(lambda: not self._giving_back, GIVING_BACK_S)

    def lead_or_wait(self, box: RunBox, entry: Entry) -> None:
        """Return when `entry` is done, whoever did it."""
        try:
            if box.offer(entry):
                self.lead(box, entry)
            while not entry.is_done:
                if entry.signal is not None:
                    entry.signal.wait()
                if entry.leads and not entry.is_done:
                    entry.leads = False
                    if entry.signal is not None:
                        entry.signal.clear()
                    self.lead(box, entry)
        except BaseException:
            if box.withdraw(entry):
                _abandon(box, [])
            raise

    def lead(self, box: RunBox, own: Entry | None = None) -> None:
        """Commit what waits, hand the run on, act; until nothing is left that nobody else takes care of."""
        while True:
            batch, baton = list[Entry](), Baton.KEPT
            try:
                self._committer.linger(box)
                batch = box.take()
                try:
                    commands, results = self._committer.commit(box, batch)
                except Exception as exc:
                    label(exc, batch)
                    commands, results = (), dict.fromkeys(batch, exc)
                if _gives_back(commands):
                    with self._given_back:
                        self._giving_back += 1
                self._boxes.count(box)
                baton = box.pass_on()
                if baton is Baton.KEPT and self._actor.blocks(commands):
                    # What waits has no thread to lead, and is not to wait for a call of minutes.
                    with suppress(RuntimeError):  # the machine has no thread left: then it does
                        Thread(target=self.lead, args=(box,), name="orchestrator-lead", daemon=True).start()
                        baton = Baton.HANDED_ON
                owner = own if own in results else next(iter(results), None)
                launches = tuple(command.launch_id for command in commands if isinstance(command, Launch))
                for entry, result in results.items():
                    if entry is not owner:
                        _finish(entry, result, box, 0, ())
                facts = [] if self._acts_apart(own, results, box, commands) else self._act(box, commands)
                if owner is not None:
                    _finish(owner, results[owner], box, len(results), launches)
                if facts and box.offer(known(box, tuple(facts))):
                    baton = Baton.KEPT
            except BaseException:  # ctrl-C, or the end of its host: the thread is gone, the run is not
                _abandon(box, batch, is_led=baton is Baton.KEPT)
                raise
            if baton is not Baton.KEPT:
                return

    def _acts_apart(
        self, own: Entry | None, results: Mapping[Entry, object], box: RunBox, commands: Sequence[Command]
    ) -> bool:
        """Have a thread of its own act, where who leads is to be held up by no call of minutes."""
        if own is None or not own.acts_apart or own not in results or not self._actor.waits(commands):
            return False
        if not self._apart.acquire(blocking=False):
            return False

        def act() -> None:
            try:
                facts = self._act(box, commands)
                if facts and box.offer(known(box, tuple(facts))):
                    self.lead(box)
            finally:
                self._apart.release()

        thread = Thread(target=act, name="orchestrator-act", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread left
            self._apart.release()
            return False
        own.acting = thread
        return True

    def _feed(self, box: RunBox, facts: Sequence[Fact]) -> None:
        """Feed back what came of some of several calls while the others last."""
        if box.offer(known(box, tuple(facts))):
            self.lead(box)

    def _act(self, box: RunBox, commands: Sequence[Command]) -> list[Fact]:
        try:
            return self._actor.act(box, commands, lambda facts: self._feed(box, facts))
        except Exception:
            log.exception("acting failed; the Tick recovers", extra={"run_id": box.run_id})
            return []
        finally:
            if _gives_back(commands):
                with self._given_back:
                    self._giving_back -= 1
                    self._given_back.notify_all()


def _gives_back(commands: Sequence[Command]) -> bool:
    return any(isinstance(command, ReleaseSlot) for command in commands)


def _abandon(box: RunBox, left: list[Entry], *, is_led: bool = True) -> None:
    """Leave a run to a thread that waits; give back what was begun, and what no thread waits for."""
    while is_led and box.pass_on() is Baton.KEPT:
        left += box.take()
    for entry in left:
        error = NotYet(f"run {box.run_id}: who handled this was interrupted; deliver it again")
        label(error, [entry])
        entry.finish(None, error)


def _finish(entry: Entry, result: str | BaseException, box: RunBox, absorbed: int, launches: tuple[str, ...]) -> None:
    if isinstance(result, BaseException):
        entry.finish(None, result)
    else:
        entry.finish(Handled(result, box.run_id, absorbed, launches), None)


def _result(entry: Entry) -> Handled:
    if entry.error is not None:
        raise entry.error
    if entry.handled is None:
        raise LookupError("an event was finished without a result")
    return entry.handled
