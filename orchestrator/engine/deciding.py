"""Steps 5 and 6 of the loop for a batch of events: from what they say to a decision, each event failing alone."""

import dataclasses
import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from orchestrator.engine.address import (
    BeginRun,
    CancelRun,
    Completion,
    Heartbeat,
    Known,
    PauseRun,
    RedriveRun,
    Reminder,
    ResumeRun,
    SlotTold,
    Start,
    labels_of,
)
from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Decision, Token
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.run_box import Entry, RunBox
from orchestrator.engine.scope import ResultNeeded
from orchestrator.engine.status import DefinitionStatus, tombstone_of
from orchestrator.engine.wanted import wanted
from orchestrator.engine.witness import Witness
from orchestrator.model.allowance import allowed
from orchestrator.model.commands import Command
from orchestrator.model.dag import DAG
from orchestrator.model.errors import (
    CorruptState,
    LaunchRefused,
    LaunchUncertain,
    NotYet,
    OrchestratorError,
    RunExists,
    RunNotFound,
)
from orchestrator.model.facts import AttemptEnded, Fact, LaunchFailed
from orchestrator.model.nodes import Task
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState
from orchestrator.model.secrets import masked
from orchestrator.ports import Clock, ObjectStore, Secrets

log = logging.getLogger("orchestrator")

PRUNED_FROM_S = 1800.0
"""A run is pruned an hour after its end at the earliest (half of it for clocks): its start is older than that."""

_QUIET = Reminder | Heartbeat | BeginRun
"""What may come long after its run has ended, and tells nobody anything then: of a timeout, of a child run's end."""


class TooMuchAtOnce(Exception):
    """What waited is to be decided on in parts."""


def is_divisible(batch: Sequence[Entry]) -> bool:
    """Whether a batch can be decided on in parts."""
    return len(batch) > 1 or any(isinstance(entry.item, Known) and len(entry.item.facts) > 1 for entry in batch)


class Decider:
    """Decides on batches of events; what it needs to know for that it asks, and brings back."""

    def __init__(
        self,
        store: ObjectStore,
        clock: Clock,
        policy: Policy,
        definitions: DefinitionStatus,
        witness: Witness,
        resolver: Resolver,
        large_results: LargeResults,
        secrets: Secrets,
    ) -> None:
        self._store, self._clock, self._policy = store, clock, policy
        self._definitions, self._witness, self._resolver = definitions, witness, resolver
        self._large_results, self._secrets = large_results, secrets

    def ask_ahead(self, box: RunBox, batch: Sequence[Entry], state: RunState) -> None:
        """Ask what a batch needs to know, so that to decide on it takes no call any more."""
        self._witness.ask_ahead(batch, state, box)

    def decide_on(
        self, box: RunBox, batch: list[Entry], state: RunState | None, token: Token
    ) -> tuple[Decision, tuple[Command, ...], dict[Entry, str | BaseException]]:
        """Decide on a batch; an event that makes the decision fail, fails alone."""
        results: dict[Entry, str | BaseException] = {}
        known: list[tuple[Entry, list[Fact]]] = []
        questions: list[Command] = []
        dag: DAG | None = None
        first: Start | None = None
        if state is not None:
            self._witness.ask_ahead(batch, state, box)
        for entry in batch:
            try:
                if state is None:
                    first, facts = self._first(box, entry, first)
                else:
                    facts, ask = self._witness.facts(entry, state, box)
                    questions += ask
                known.append((entry, facts))
                results[entry] = "applied" if facts else "unchanged"
            except Exception as exc:
                label(exc, [entry])
                results[entry] = exc
        if not known:
            return Decision(state, (), False), tuple(questions), results
        if state is not None:
            dag = self._definitions.load(state.run.definition, state.run.dag)
            if not _fits(dag, state):
                raise CorruptState(f"{box.status.key}: has other nodes than its definition, {state.run.definition}")
        elif first is not None:
            dag = first.dag
        if dag is None:
            return Decision(state, (), False), tuple(questions), results
        try:
            known = [(entry, [self._masked(dag, fact) for fact in facts]) for entry, facts in known]
            facts = [fact for _, of_entry in known for fact in of_entry]
            decision = self._decided(dag, state, facts, token, is_divisible=is_divisible(batch))
        except TooMuchAtOnce:
            raise
        except Exception:
            decision = Decision(state, (), False)
            for entry, facts in known:
                try:
                    after = self._decided(dag, decision.state, facts, token)
                except Exception as exc:
                    label(exc, [entry])
                    log.exception("an event cannot be decided on", extra=labels_of(entry.item))
                    results[entry] = exc
                    continue
                decision = decision.followed_by(after)
        if not decision.changed:
            results = {k: v if isinstance(v, BaseException) else "unchanged" for k, v in results.items()}
        return decision, tuple(questions), results

    def _masked(self, dag: DAG, fact: Fact) -> Fact:
        """Return a fact whose error shows no secret of its own step, as far as these can be read now."""
        if not isinstance(fact, AttemptEnded | LaunchFailed):
            return fact
        error = fact.outcome.error if isinstance(fact, AttemptEnded) else fact.error
        place = dag.find_place(fact.node_name)
        if error is None or not isinstance(place, Task) or not place.secrets:
            return fact
        values: list[str] = []
        for name in place.secrets:
            with suppress(LaunchRefused, LaunchUncertain):
                values.append(self._secrets.get(name))
        error = replace(error, message=masked(error.message, values))
        if isinstance(fact, AttemptEnded):
            return replace(fact, outcome=replace(fact.outcome, error=error))
        return replace(fact, error=error)

    def _decided(
        self,
        dag: DAG,
        state: RunState | None,
        facts: Sequence[Fact],
        token: Token,
        *,
        is_divisible: bool = False,
    ) -> Decision:
        """Decide; bring back the large results that this turns out to need, and decide again.

        The time of the decision is that at which it is made: its leases begin when all that it needs is here.

        Raises:
            TooMuchAtOnce: its expressions are more work than those of one decision may be; only where it can be
                divided, for no step is to fail by what it happened to be folded with.
            CorruptState: a result cannot be brought back.
        """
        needed, loaded = set[str](), state
        while True:
            try:
                with allowed(self._policy.max_decision_work) as allowance:
                    decision = decide(dag, state, facts, self._clock.now(), token, self._policy)
                if allowance.is_exceeded and is_divisible:
                    raise TooMuchAtOnce
                return decision if state is loaded else decision.of(loaded)
            except ResultNeeded as exc:
                name = exc.node_name
            if state is None or name in needed:
                raise CorruptState(f"the result of {name}: was brought back for a decision, and is needed again")
            needed.add(name)
            state = self._large_results.brought_back(state, name, wanted(dag, state, facts))

    def _first(self, box: RunBox, entry: Entry, first: Start | None) -> tuple[Start | None, list[Fact]]:
        """Facts of an event for whose run there is no document: only a start makes one, the `first`."""
        item = entry.item
        if isinstance(item, Start):
            if first is not None and first.message_id != item.message_id:
                raise RunExists(f"run {box.run_id}: is being started by another message; choose another run_id")
            if self._was_pruned(item):
                return first, []
            item = _with_its_input_judged(item)
            definition = self._definitions.save(item.definition)
            return first or item, self._witness.first_facts(item, definition)
        if isinstance(item, SlotTold):
            return first, []  # the run was pruned; who waits for the slot finds that out
        now = self._clock.now()
        published_at: datetime | None = None
        if isinstance(item, Completion):
            published_at = item.event.publish_time or now
        elif isinstance(item, Reminder | Heartbeat | BeginRun | CancelRun | PauseRun | ResumeRun | RedriveRun):
            published_at = item.published_at
        if published_at is not None and self._resolver.is_young(published_at, now):
            raise NotYet(f"runs/{box.run_id}.json: does not exist (yet)")
        was_pruned = isinstance(item, RedriveRun | _QUIET) and self._store.get(tombstone_of(box.run_id)) is not None
        if was_pruned and isinstance(item, _QUIET):
            return first, []
        if was_pruned:
            raise RunNotFound(f"run {box.run_id}: was deleted by prune, so it cannot be redriven")
        raise RunNotFound(f"runs/{box.run_id}.json: does not exist, but an event names that run")

    def _was_pruned(self, item: Start) -> bool:
        """Whether a start comes again whose run has ended and was deleted. Only an old one can be such a start."""
        published_at = item.published_at
        if item.parent is not None:  # a claim that is taken over may be of any age
            return self._store.get(tombstone_of(item.run_id)) is not None
        if published_at is None or (self._clock.now() - published_at).total_seconds() < PRUNED_FROM_S:
            return False
        return self._store.get(tombstone_of(item.run_id)) is not None


def _fits(dag: DAG, state: RunState) -> bool:
    """Whether a run has the entries that its definition says, as far as it has to."""
    if state.run.part_of is not None:
        return state.run.part_of.map in state.nodes
    number = len(state.nodes)
    if len(dag.first_nodes) < len(dag.all_nodes):
        number = sum(name[-1:] != "]" for name in state.nodes)
    return number == len(dag.first_nodes)


def _with_its_input_judged(item: Start) -> Start:
    """Return a start with the defaults of its input filled in. Raises InputRejected."""
    schema = item.definition.get("input_schema")
    if not isinstance(schema, dict) or item.part_of is not None:
        return item
    from orchestrator.model.input_schema import filled_in  # loads a library: only where there is one

    return dataclasses.replace(item, input=filled_in(schema, item.input))


def label(error: BaseException, entries: Sequence[Entry]) -> None:
    """Note on an error whom the events are about that it befell: one attempt, or their run."""
    if not isinstance(error, OrchestratorError) or not entries:
        return
    first, *others = (labels_of(entry.item) for entry in entries)
    error.about(**first if all(other == first for other in others) else {"run_id": first["run_id"]})
