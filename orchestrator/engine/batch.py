"""Batch: events of one run on their way into one save, and what came of the saves that were tried for them."""

import logging

from orchestrator.engine.address import Known, RedriveRun, Start
from orchestrator.engine.draft import Decision, Token
from orchestrator.engine.handled import Handled
from orchestrator.engine.run_box import Entry, RunBox
from orchestrator.engine.saved import Saved
from orchestrator.model.commands import Command
from orchestrator.model.facts import AttemptEnded, Fact, LaunchBound, LaunchFailed, RunAdopted
from orchestrator.model.run_state import RunState

log = logging.getLogger("orchestrator")


class Batch:
    """What one thread commits at once; its alone.

    Attributes:
        entries: the events; who leads the run holds this very list.
        tried: saves that were refused or answered by an error, by their tokens.
        unsure: likewise those of which nobody here has been told, and which may have been written all the same.
        claimed: what to act on of those that were.
        races, faults, turns: how often a save was refused, answered by an error, and let others go first.
        is_whole: all that waits may go along; not once it was too much.
        is_gathered: what came while it was decided on has gone along already.
        lingers_until_s: until when a save that starts nothing may wait for more.
    """

    __slots__ = (
        "box",
        "claimed",
        "entries",
        "faults",
        "is_gathered",
        "is_whole",
        "lingers_until_s",
        "races",
        "tried",
        "turns",
        "unsure",
    )

    def __init__(self, box: RunBox, entries: list[Entry], lingers_until_s: float) -> None:
        self.box, self.entries, self.lingers_until_s = box, entries, lingers_until_s
        self.tried: list[tuple[Token, Decision]] = []
        self.unsure: list[Saved] = []
        self.claimed: tuple[Command, ...] = ()
        self.races = self.faults = self.turns = 0
        self.is_whole, self.is_gathered = True, False

    @property
    def lets_go_on(self) -> bool:
        """Whether it is asked for that a run which has ended goes on; perhaps once more."""
        return any(
            isinstance(entry.item, RedriveRun)
            or (isinstance(entry.item, Known) and any(isinstance(fact, RunAdopted) for fact in entry.item.facts))
            for entry in self.entries
        )

    def take_more(self) -> bool:
        """Take along what has come meanwhile; return whether something has."""
        more = self.box.take()
        self.entries += more
        return bool(more)

    def keep_starts(self) -> None:
        """Put back what waits for the start of its run, where that is in here."""
        starts = [entry for entry in self.entries if isinstance(entry.item, Start)]
        if starts and len(starts) < len(self.entries):
            self.box.put_back([entry for entry in self.entries if entry not in starts])
            self.entries[:] = starts

    def halve(self) -> None:
        """Put half of it back, or half of the facts of the one event that is left of it."""
        self.is_whole = False
        half = len(self.entries) // 2
        if half:
            self.box.put_back(self.entries[half:])
            del self.entries[half:]
            return
        (entry,) = self.entries
        if isinstance(entry.item, Known):
            half = len(entry.item.facts) // 2
            self.box.put_back([known(self.box, entry.item.facts[half:])])
            entry.item = Known(self.box.run_id, entry.item.facts[:half])

    def was_refused(self, token: Token, decision: Decision, before: RunState | None, after: RunState) -> None:
        """Note a save that may have been written all the same."""
        self.tried.append((token, decision))
        self.unsure.append(Saved(before, after, touched=decision.touched))


def known(box: RunBox, facts: tuple[Fact, ...]) -> Entry:
    """Nobody waits for what the executor feeds back to itself; what fails there, the Tick sees."""
    told = [fact for fact in facts if isinstance(fact, AttemptEnded | LaunchBound | LaunchFailed)]
    nodes = {fact.node_name: fact.attempt for fact in told}
    labels: dict[str, object] = {"run_id": box.run_id}
    if len(nodes) == 1:
        labels["node"], labels["attempt"] = next(iter(nodes.items()))

    def ignore(_: Handled | None, error: BaseException | None) -> None:
        if error is not None:
            log.warning("could not save what came of a launch; the Tick finds out: %s", error, extra=labels)

    return Entry(Known(box.run_id, facts), on_done=ignore)
