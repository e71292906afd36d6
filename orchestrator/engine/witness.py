"""From an addressed event to facts: the witness is the target, never the event alone.

Anyone who can write logs can forge a line. Where a target has an outcome, it is asked, of the
execution that is bound to the attempt (or that `find` knows), never of an id that only the event
names. Where it has none, the event is believed only with the nonce or the trace of the claim.
"""

import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from threading import Lock
from typing import TypeVar, cast

from orchestrator.engine.address import (
    BeginRun,
    CancelRun,
    Completion,
    Heartbeat,
    Item,
    Known,
    PauseRun,
    RedriveRun,
    Reminder,
    ResumeRun,
    SlotTold,
    Start,
)
from orchestrator.engine.draft import bare_launch
from orchestrator.engine.run_box import Answer, Entry, RunBox
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.commands import Cancel, Command, Execution, Launch, ReleaseSlot, Remind
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NOTHING_RUNS, DueKind, TargetTypes, TaskStatus
from orchestrator.model.errors import InputError, LaunchUncertain, NotYet, RunExists
from orchestrator.model.events import CompletionEvent
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    Fact,
    HeardFrom,
    PauseEnded,
    PauseRequested,
    RedriveRequested,
    ResumeRequested,
    RunAdmitted,
    RunStarted,
    SlotGranted,
    TimeCame,
)
from orchestrator.model.ids import launch_id_of
from orchestrator.model.node_state import Claim, NodeState
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState
from orchestrator.ports import Clock, Confirming, ObjectStore, Target

log = logging.getLogger("orchestrator")

T = TypeVar("T")
R = TypeVar("R")


@lru_cache(maxsize=64)
def _is_confirming(kind: type) -> bool:
    """Whether targets of this class are Confirming; a protocol is slow to check, and this is asked of every event."""
    return issubclass(kind, Confirming)


class Witness:
    """Turns what an event says into what is true of the run."""

    def __init__(
        self, targets: Mapping[str, Target], clock: Clock, policy: Policy, definitions: DefinitionStatus
    ) -> None:
        self._targets, self._clock, self._policy, self._definitions = targets, clock, policy, definitions
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None

    def facts(self, entry: Entry, state: RunState, box: RunBox) -> tuple[list[Fact], list[Command]]:
        """Return the facts of an event about an existing run, and what is to be asked again later.

        Raises:
            RunExists: a start, but the run is another message's.
            InputError: a redrive of a run that has completed, or from a step that it did not come by.
            NotYet: the answer that counts is still under way.
        """
        item: Item = entry.item
        match item:
            case Known():
                return [fact for fact in item.facts if self._counts(fact, state)], _unwanted(item.facts, state)
            case SlotTold():
                told: Fact = RunAdmitted(item.queue, item.ticket)
                if item.node_name is not None:
                    told = SlotGranted(item.node_name, item.attempt, item.queue, item.ticket)
                return [told], _unwanted([told], state)
            case Completion():
                return self._completion(entry, item, state, box)
            case Reminder():
                return self._reminder(entry, item, state, box)
            case Heartbeat():
                return self._heartbeat(item, state), []
            case BeginRun():
                return [PauseEnded()], []
            case CancelRun():
                return [CancelRequested(item.reason, item.published_at)], []
            case PauseRun():
                return [PauseRequested(item.published_at)], []
            case ResumeRun():
                return [ResumeRequested(item.published_at)], []
            case RedriveRun():
                return self._redrive(item, state), []
            case Start():
                if state.run.message_id != item.message_id:
                    raise RunExists(
                        f"run {state.run.run_id}: was started by another message, at "
                        f"{state.run.started_at.isoformat()}; choose another run_id"
                    )
                return [], []

    def _redrive(self, item: RedriveRun, state: RunState) -> list[Fact]:
        """Facts of a request to go on; raises InputError where it is about this end, and cannot be met."""
        from orchestrator.engine.redriving import is_about, refusal  # hardly any event asks for it

        fact = RedriveRequested(item.published_at, item.number, item.start_from)
        if not is_about(state.run, fact):
            return []
        why_not = refusal(self._definitions.load(state.run.definition, state.run.dag), state, item.start_from)
        if why_not is not None:
            raise InputError(f"run {item.run_id}: {why_not}")
        return [fact]

    def ask_ahead(self, entries: Sequence[Entry], state: RunState, box: RunBox) -> None:
        """Ask what several events need to know, side by side; `facts` then has the answers already."""

        def ask(entry: Entry) -> None:
            with suppress(Exception):  # `facts` asks again, and fails for that one event
                self._answer(entry, state, box)

        if self._policy.questions_at_once > 1:
            self.side_by_side(ask, entries)

    def side_by_side(self, ask: Callable[[T], R], things: Sequence[T]) -> list[R]:
        """Return what is answered of each thing, in their order; on threads where the policy allows several."""
        at_once = self._policy.questions_at_once
        if at_once < 2 or len(things) < 2:
            return [ask(thing) for thing in things]
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(at_once, "orchestrator-question")
        return list(self._pool.map(ask, things))

    def close(self) -> None:
        """Let go of the threads."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
            self._pool = None

    @staticmethod
    def first_facts(item: Start, definition: str) -> list[Fact]:
        """Facts of a start for which there is no run yet."""
        return [
            RunStarted(
                item.run_id,
                item.dag_name,
                definition,
                item.input,
                item.message_id,
                item.scheduled_for,
                item.variables,
                item.parent,
                item.priority,
                item.part_of,
                item.nodes,
            )
        ]

    def ask(self, node: NodeState, state: RunState, box: RunBox) -> Answer:
        """Return the execution of a Running attempt, if one is known, and how it ended, if it did.

        A target that cannot tell now counts as one that does not know of an end.
        """
        target = self._targets.get(node.target_key)
        if target is None:
            return Answer()
        execution: Execution | None = None
        try:
            execution = self.execution_of(node, state, box)
            if execution is None:
                return Answer()
            return Answer(execution, execution.outcome or target.outcome(execution), target.has_outcome)
        except NotYet:
            return Answer(execution, None, True)
        except LaunchUncertain as exc:
            log.warning("cannot ask: %s", exc, extra=labels_of_attempt(node, state))
            return Answer(execution)

    def execution_of(self, node: NodeState, state: RunState, box: RunBox) -> Execution | None:
        """The execution that is bound to a node's attempt: in the node, in this instance, or by find."""
        if node.execution_id is not None:
            return Execution(node.execution_id)
        launch_id = state.launch_id(node.node_name)
        known = box.executions.get(launch_id)
        if known is not None:
            return known
        target = self._targets.get(node.target_key)
        found = target.find(self.bare(state, node)) if target else None
        if found is not None:
            box.executions[launch_id] = found
        return found

    def heard(self, store: ObjectStore, node: NodeState, state: RunState) -> list[HeardFrom]:
        """Return when an attempt was last heard of, if ever. Raises StoreUnavailable, LaunchUncertain."""
        from orchestrator.engine.heartbeats import last_heard  # only where a step has a heartbeat

        at = last_heard(store, self._targets.get(node.target_key), self.bare(state, node))
        return [] if at is None else [HeardFrom(node.node_name, node.attempt, at)]

    def bare(self, state: RunState, node: NodeState) -> Launch:
        """The launch of a node's current attempt, as far as `find` and `cancel` need it."""
        return bare_launch(self.dag_of(state), state.run, node)

    def dag_of(self, state: RunState) -> DAG:
        """The DAG of a run's own definition."""
        return self._definitions.load(state.run.definition, state.run.dag)

    def _completion(
        self, entry: Entry, item: Completion, state: RunState, box: RunBox
    ) -> tuple[list[Fact], list[Command]]:
        node = _running(state, item.node_name, item.attempt)
        if node is None:
            return [], []
        target = self._targets.get(node.target_key)
        if target is None:
            return [], []
        answer = self._answer(entry, state, box)
        if answer is None:
            return self._believe(item.event, target, node, state, box), []
        if answer.outcome is not None:
            return [AttemptEnded(node.node_name, node.attempt, answer.outcome, _id_of(answer))], []
        if answer.runs_on or target.has_outcome:
            at = self._clock.now() + timedelta(seconds=self._policy.question_delay_s)
            return [], [Remind(state.run.run_id, node.node_name, node.attempt, None, at)]
        return self._believe(item.event, target, node, state, box), []

    def _answer(self, entry: Entry, state: RunState, box: RunBox) -> Answer | None:
        """What the target says of the attempt that an event is about; None where it is not asked."""
        item = entry.item
        if not isinstance(item, Completion | Reminder):
            return None
        node = _running(state, item.node_name, item.attempt)
        target = self._targets.get(node.target_key) if node is not None else None
        if node is None or target is None or node.waits_for_slot or not NOTHING_RUNS.isdisjoint(node.due):
            return None
        if isinstance(item, Completion) and _is_confirming(type(target)):
            if not _proves_itself(item.event, node, state):
                return None
            return self._confirmed(cast(Confirming, target), entry, item.event, node, state, box)
        return self._asked(entry, node, state, box)

    def _asked(self, entry: Entry, node: NodeState, state: RunState, box: RunBox) -> Answer:
        """Ask once for each attempt, however often the save has to be tried; again where it has been bound since to
        another execution than the one that was asked of."""
        answer = entry.asked.get(node.attempt)
        if answer is None or (answer.execution is not None and _is_another(answer.execution.execution_id, node)):
            answer = entry.asked[node.attempt] = self.ask(node, state, box)
        return answer

    def _counts(self, fact: Fact, state: RunState) -> bool:
        """Whether what was found out counts: how an execution ended does not for an attempt that is bound to another
        one by now, which can be asked how it ends."""
        if not isinstance(fact, AttemptEnded):
            return True
        node = _running(state, fact.node_name, fact.attempt)
        if node is None or not _is_another(fact.execution_id, node):
            return True
        target = self._targets.get(node.target_key)
        return target is None or not target.has_outcome

    def _confirmed(
        self, target: Confirming, entry: Entry, event: CompletionEvent, node: NodeState, state: RunState, box: RunBox
    ) -> Answer:
        """Ask once what counts of an event that has proved itself."""
        if node.attempt not in entry.asked and event.verdict is not None:
            try:
                confirmed = target.confirm(self.bare(state, node), event.verdict)
                box.executions.setdefault(state.launch_id(node.node_name), confirmed)
                answer = Answer(self.execution_of(node, state, box), confirmed.outcome)
            except NotYet:
                answer = Answer(runs_on=True)
            except LaunchUncertain as exc:
                log.warning("cannot ask: %s", exc, extra=labels_of_attempt(node, state))
                answer = Answer()
            entry.asked[node.attempt] = answer
        return entry.asked[node.attempt]

    def _believe(
        self, event: CompletionEvent, target: Target, node: NodeState, state: RunState, box: RunBox
    ) -> list[Fact]:
        """Facts of an event that is the only witness there is: believed with the claim's nonce."""
        claim = node.claim
        if event.verdict is None or claim is None:
            return []
        if not _is_proof(event, claim, state.launch_id(node.node_name)):
            log.warning(
                "a completion without the nonce of its claim is not believed",
                extra={**labels_of_attempt(node, state), "event_id": event.message_id},
            )
            return []
        if target.synchronous and self._clock.now() < claim.lease_end:
            raise NotYet(f"{box.run_id}/{node.node_name}: its call has not returned yet, and that answer counts")
        execution_id = event.execution_id or _bound(node, state, box)
        return [AttemptEnded(node.node_name, node.attempt, event.verdict, execution_id)]

    def _heartbeat(self, item: Heartbeat, state: RunState) -> list[Fact]:
        node = _running(state, item.node_name, item.attempt)
        if node is None or node.claim is None or DueKind.HEARTBEAT not in node.due:
            return []
        if not hmac.compare_digest(item.nonce.encode(), node.claim.nonce.encode()):
            log.warning(
                "a heartbeat without the nonce of its claim is not believed", extra=labels_of_attempt(node, state)
            )
            return []
        return [HeardFrom(node.node_name, node.attempt, item.published_at)]

    def _reminder(self, entry: Entry, item: Reminder, state: RunState, box: RunBox) -> tuple[list[Fact], list[Command]]:
        node = _running(state, item.node_name, item.attempt)
        if node is None or (item.kind is not None and node.due.get(item.kind) != item.at):
            return [], []
        if node.waits_for_slot or item.kind == DueKind.HEARTBEAT:  # a heartbeat's is the Tick's
            return [], []
        if node.owed_cancel is not None:
            # Somebody knows more: a child run says so when it has taken a cancel in.
            is_news = item.kind is None and node.target_type == TargetTypes.DAG
            return [], [Cancel(self.bare(state, node), node.execution_id)] if is_news else []
        if item.kind in NOTHING_RUNS and item.kind is not None and item.at is not None:
            return [TimeCame(node.node_name, node.attempt, item.kind, item.at, False)], []
        answer = self._asked(entry, node, state, box)
        if answer.outcome is not None:
            return [AttemptEnded(node.node_name, node.attempt, answer.outcome, _id_of(answer))], []
        if item.kind is None or item.at is None:
            return [], []
        is_bound = answer.execution is not None or _bound(node, state, box) is not None
        return [TimeCame(node.node_name, node.attempt, item.kind, item.at, is_bound)], []


def _unwanted(facts: Sequence[Fact], state: RunState) -> list[Command]:
    """Return what gives slots back that were granted too late: what asked for them has ended, or has given them up.

    A ticket that a run has no more, it will never have again.
    """
    found: list[Command] = []
    for fact in facts:
        if isinstance(fact, RunAdmitted):
            if state.run.slot is None or state.run.slot.ticket != fact.ticket:
                found.append(ReleaseSlot(fact.queue, state.run.run_id, fact.ticket))
        elif isinstance(fact, SlotGranted):
            node = state.nodes.get(fact.node_name)
            if node is None or node.slot is None or node.slot.ticket != fact.ticket:
                holder = launch_id_of(state.run.run_id, fact.node_name, fact.attempt)
                found.append(ReleaseSlot(fact.queue, holder, fact.ticket))
    return found


def _running(state: RunState, node_name: str, attempt: int) -> NodeState | None:
    node = state.nodes.get(node_name)
    if node is None or node.status is not TaskStatus.RUNNING or node.attempt != attempt:
        return None
    return node


def labels_of_attempt(node: NodeState, state: RunState) -> dict[str, object]:
    """What a line about a node's attempt is found by."""
    launch_id = state.launch_id(node.node_name)
    trace = node.claim.trace_of(launch_id) if node.claim is not None else None
    return {"run_id": state.run.run_id, "node": node.node_name, "attempt": node.attempt, "trace": trace}


def _proves_itself(event: CompletionEvent, node: NodeState, state: RunState) -> bool:
    """Whether an event tells of an end, and knows the claim of it."""
    if event.verdict is None or node.claim is None:
        return False
    return _is_proof(event, node.claim, state.launch_id(node.node_name))


def _is_another(execution_id: str | None, node: NodeState) -> bool:
    """Whether an execution is not the one that a node's attempt is bound to."""
    return None not in (execution_id, node.execution_id) and execution_id != node.execution_id


def _id_of(answer: Answer) -> str | None:
    """Which execution an answer is about."""
    return answer.execution.execution_id if answer.execution is not None else None


def _bound(node: NodeState, state: RunState, box: RunBox) -> str | None:
    if node.execution_id is not None:
        return node.execution_id
    known = box.executions.get(state.launch_id(node.node_name))
    return known.execution_id if known else None


def _is_proof(event: CompletionEvent, claim: Claim, launch_id: str) -> bool:
    """Whether the event knows the claim: its nonce, or the trace that was made from it."""
    if event.nonce is not None:
        return hmac.compare_digest(event.nonce.encode(), claim.nonce.encode())
    if event.trace_id is not None:
        return hmac.compare_digest(event.trace_id.encode(), claim.trace_of(launch_id).encode())
    return False
