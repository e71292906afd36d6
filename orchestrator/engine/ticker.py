"""The Tick: recovers what was left, lost or is due, run by run, each failing alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

from orchestrator.engine.acting import Actor
from orchestrator.engine.handled import Swept
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import OpenRuns, OrchestrationStatus
from orchestrator.engine.sweep import Chores, chores, is_over, late_notifications
from orchestrator.engine.witness import Witness
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import NOTHING_RUNS
from orchestrator.model.errors import OrchestratorError, RunNotFound
from orchestrator.model.facts import (
    AttemptEnded,
    CancelSettled,
    ClaimExpired,
    Fact,
    LaunchBound,
    NotificationExpired,
    PauseEnded,
    RunOutOfTime,
    TimeCame,
)
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import NodeState, RunState
from orchestrator.ports import Clock, Hosts, ObjectStore

log = logging.getLogger("orchestrator")

_NodeFact = AttemptEnded | CancelSettled | ClaimExpired | LaunchBound | TimeCame


class Ticker:
    """Looks after open runs.

    Args:
        instance: who asks; its own claims it leaves alone until their lease is over.
        box_of: run id -> what this instance knows of the run.
        apply: saves facts about a run and acts on what follows; returns when that is done.
        forget: drops what this instance knows of a run that has ended.
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
        apply: Callable[[RunBox, tuple[Fact, ...]], None],
        forget: Callable[[str], None],
    ) -> None:
        self._store, self._witness, self._actor = store, witness, actor
        self._clock, self._hosts, self._policy, self._instance = clock, hosts, policy, instance
        self._box_of, self._apply, self._forget = box_of, apply, forget
        self._open_runs = OpenRuns(store)
        self._at_it = Lock()

    def tick(self) -> Swept:
        """Look after all open runs; nothing to do where a tick of this instance is at it already."""
        if not self._at_it.acquire(blocking=False):
            return Swept()
        try:
            return self._tick()
        finally:
            self._at_it.release()

    def _tick(self) -> Swept:
        runs = 0
        recovered: list[str] = []
        closed: list[str] = []
        problems: list[str] = []
        for marker, run_id in self._open_runs:
            runs += 1
            try:
                found = self.look_after(run_id, marker)
            except OrchestratorError as exc:
                log.error("tick: %s", exc, extra={"run_id": run_id})
                problems.append(f"{run_id}: {exc}")
                continue
            except Exception as exc:
                log.exception("tick failed", extra={"run_id": run_id})
                problems.append(f"{run_id}: {type(exc).__name__}: {exc}")
                continue
            if found is None:
                closed.append(run_id)
            else:
                recovered += found
        return Swept(runs, tuple(recovered), tuple(closed), tuple(problems))

    def look_after(self, run_id: str, marker: str | None = None) -> tuple[str, ...] | None:
        """Do a Tick's work for one run.

        Returns:
            The launch ids that something was found out about, or None where the run has ended (then
            its marker, if named, is deleted).
        """
        loaded = OrchestrationStatus(self._store, run_id).load()
        if loaded is None:
            return self._orphan(run_id, marker)
        state = loaded[0]
        if state.run.owed_notifications and self._see_to_notifications(state):
            state = (OrchestrationStatus(self._store, run_id).load() or loaded)[0]
        if state.run.status.is_final and state.run.owed_notifications:
            return ()  # so that the marker stays
        if state.run.status.is_final:
            if marker is not None:
                self._open_runs.clear(marker)
            self._forget(run_id)
            return None
        box = self._box_of(run_id)
        work = chores(
            state, self._clock.now(), self._instance, self._hosts.is_alive, self._policy, box.executions.__contains__
        )
        facts = self._find_out(work, state, box) if work else []
        is_over = state.run.timeout_at is not None and state.run.timeout_at <= self._clock.now()
        late: tuple[Fact, ...] = (RunOutOfTime(),) if is_over and state.run.stop is None else ()
        ended: tuple[Fact, ...] = (PauseEnded(),) if state.run.is_resuming else ()
        if facts or late or ended:
            self._apply(box, (*ended, *facts, *late))
        names = dict.fromkeys(fact.node_name for fact in facts)
        return tuple(state.launch_id(name) for name in names)

    def _see_to_notifications(self, state: RunState) -> bool:
        """Take over those that are late; whether there were any."""
        late = late_notifications(state, self._clock.now(), self._instance, self._hosts.is_alive, self._policy)
        facts = tuple(NotificationExpired(owed.notification_id, owed.owner) for owed in late)
        if facts:
            self._apply(self._box_of(state.run.run_id), facts)
        return bool(facts)

    def _find_out(self, work: Chores, state: RunState, box: RunBox) -> list[_NodeFact]:
        """Ask what there is to ask, in the order of Chores; a question that fails is left out."""
        facts: list[_NodeFact] = []
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
            if outcome is None:
                facts.append(TimeCame(node.node_name, node.attempt, kind, at, execution_id is not None))
            else:
                facts.append(AttemptEnded(node.node_name, node.attempt, outcome, execution_id))
        return facts

    def _ask(self, node: NodeState, state: RunState, box: RunBox) -> list[_NodeFact]:
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
            log.exception("cannot ask a target", extra={"run_id": box.run_id, "node": node.node_name})
            return None, None
        return (answer.execution.execution_id if answer.execution else None), answer.outcome

    def _orphan(self, run_id: str, marker: str | None) -> tuple[str, ...]:
        """A marker without a run: the start died before it wrote the run, and will be delivered again."""
        at: datetime | None = self._open_runs.marked_at(marker) if marker else None
        if at is None or self._clock.now() - at < timedelta(seconds=self._policy.marker_age_s):
            return ()
        raise RunNotFound(f"{marker}: marks a run since {at.isoformat()}, but runs/{run_id}.json does not exist")
