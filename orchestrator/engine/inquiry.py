"""Inquiry: what a Tick finds out about one run, so that `decide` can judge it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from orchestrator.engine.acting import Actor
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.sweep import Chores, is_over
from orchestrator.engine.witness import Witness, labels_of_attempt
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import NOTHING_RUNS, DueKind
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.facts import (
    AttemptEnded,
    CancelSettled,
    ClaimExpired,
    HeardFrom,
    LaunchBound,
    TimeCame,
)
from orchestrator.model.node_state import NodeState
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState
from orchestrator.ports import Clock, Hosts, ObjectStore

log = logging.getLogger("orchestrator")

NodeFact = AttemptEnded | HeardFrom | CancelSettled | ClaimExpired | LaunchBound | TimeCame


class Inquiry:
    """Asks targets, and whoever else can tell, what a run's chores are about.

    Args:
        instance: who asks.
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
    ) -> None:
        self._store, self._witness, self._actor = store, witness, actor
        self._clock, self._hosts, self._policy, self._instance = clock, hosts, policy, instance

    def facts(self, work: Chores, state: RunState, box: RunBox) -> Sequence[NodeFact]:
        """Ask what there is to ask, in the order of Chores; a question that fails is left out."""
        facts: list[NodeFact] = []
        for node in work.cancels:
            over = node.claim is None or is_over(
                node.claim, self._clock.now(), self._instance, self._hosts.is_alive, self._policy
            )
            settled = self._actor.cancel(box, self._witness.bare(state, node), node.execution_id, is_over=over)
            facts += [settled] if settled else self._ask(node, state, box)  # it may have ended all the same
        facts += self._actor.withdraw([self._witness.bare(state, node) for node in work.withdrawals])
        for node in work.takeovers:
            facts.append(ClaimExpired(node.node_name, node.attempt, node.claim.owner if node.claim else ""))
        for answered in self._witness.side_by_side(lambda node: self._ask(node, state, box), work.questions):
            facts += answered
        for node, kind, at in work.due:
            if kind in NOTHING_RUNS:
                facts.append(TimeCame(node.node_name, node.attempt, kind, at, False))
                continue
            execution_id, outcome = self._outcome(node, state, box)
            if outcome is None and kind == DueKind.HEARTBEAT:
                try:
                    facts += self._witness.heard(self._store, node, state)  # before it is found to be silent
                except OrchestratorError as exc:
                    log.warning("cannot ask when it was heard of: %s", exc, extra=labels_of_attempt(node, state))
                    continue
            if outcome is None:
                facts.append(TimeCame(node.node_name, node.attempt, kind, at, execution_id is not None))
            else:
                facts.append(AttemptEnded(node.node_name, node.attempt, outcome, execution_id))
        return facts

    def _ask(self, node: NodeState, state: RunState, box: RunBox) -> list[NodeFact]:
        execution_id, outcome = self._outcome(node, state, box)
        if execution_id is None:
            return []
        if outcome is not None:
            return [AttemptEnded(node.node_name, node.attempt, outcome, execution_id)]
        is_late = node.claim is not None and self._clock.now() >= node.claim.lease_end
        if node.execution_id is None and node.claim is not None and is_late:
            # Known here, but only here: bind it in the run before others take the claim over.
            return [LaunchBound(node.node_name, node.attempt, node.claim.owner, execution_id)]
        return []

    def _outcome(self, node: NodeState, state: RunState, box: RunBox) -> tuple[str | None, Outcome | None]:
        try:
            answer = self._witness.ask(node, state, box)
        except Exception:
            log.exception("cannot ask a target", extra=labels_of_attempt(node, state))
            return None, None
        return (answer.execution.execution_id if answer.execution else None), answer.outcome
