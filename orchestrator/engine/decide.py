"""Decide what follows from what happened: (run, facts) -> (run, commands).

Pure: no clock, network, randomness or logging. The executor calls this between loading and saving a
run, and again when the save loses a race, so equal inputs give equal answers. It is idempotent: a fact
that was applied before, or that no longer applies, changes nothing and yields no command.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine import attempts, notifying, pausing
from orchestrator.engine.draft import Decision, Draft, Token
from orchestrator.engine.ending import end
from orchestrator.engine.starting import new_state, start_waiting
from orchestrator.model.dag import DAG
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    CancelSettled,
    ClaimExpired,
    Fact,
    LaunchBound,
    LaunchFailed,
    NotificationExpired,
    NotificationFailed,
    NotificationSent,
    PauseEnded,
    PauseRequested,
    ResumeRequested,
    RunOutOfTime,
    RunStarted,
    TimeCame,
)
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import FORMAT, RunInfo, RunState


def decide(
    dag: DAG, state: RunState | None, facts: Sequence[Fact], now: datetime, token: Token, policy: Policy
) -> Decision:
    """Return what the run becomes by `facts`, and the commands that the save of it entitles to.

    Args:
        dag: of the run's own definition.
        state: as loaded; None if there is no such run, which only RunStarted changes.
        facts: in any order but for a RunStarted, which comes first.
        now: aware UTC; times in the document and leases come from it.
        token: owner and nonces of the claims that are made.
        policy: times and limits.
    """
    draft = Draft(dag, state, now, token, policy)
    for fact in facts:
        _APPLY[type(fact)](draft, fact)
        _go_on(draft)
    if draft.joining:
        from orchestrator.engine.joining import look  # only where steps depend on others

        while draft.joining:  # once for all facts: each look is at all that waits for what has ended
            look(draft)
            _go_on(draft)
    notifying.owe(draft, state)
    return draft.decision()


def _go_on(draft: Draft) -> None:
    """Stop what is to be stopped, and start what is to start."""
    while draft.stopping or draft.entering:
        pausing.reconsider(draft)
        attempts.stop_waiting(draft)
        start_waiting(draft)


def _run_started(draft: Draft, fact: RunStarted) -> None:
    if draft.run is not None:
        return
    run = RunInfo(
        format=FORMAT,
        run_id=fact.run_id,
        dag=fact.dag,
        definition=fact.definition,
        status=RunStatus.RUNNING,
        input=fact.input,
        variables=fact.variables,
        message_id=fact.message_id,
        owner=draft.dag.owner,
        tags=draft.dag.tags,
        parent=fact.parent,
        scheduled_for=fact.scheduled_for,
        started_at=draft.now,
        timeout_at=None if draft.dag.timeout_s is None else draft.now + timedelta(seconds=draft.dag.timeout_s),
    )
    draft.begin(run, map(new_state, draft.dag.all_nodes))
    if fact.parent is None:
        draft.entering.extend((node.node_name, None) for node in draft.dag.start_nodes)
    else:  # who launches it only makes it: it begins as a paused run goes on, by a message or the Tick
        for node in draft.dag.start_nodes:
            draft.hold(node.node_name, None)
        draft.change_run(replace(draft.info, is_resuming=True))


def _cancel_requested(draft: Draft, fact: CancelRequested) -> None:
    """Nothing is started any more but the `finally`, which nothing stops once it is under way."""
    if draft.run is not None and not draft.run.status.is_final and not draft.run.stop and not draft.run.ending:
        draft.change_run(replace(draft.run, cancel_reason=fact.reason))
        _stop_run(draft)


def _run_out_of_time(draft: Draft, _: RunOutOfTime) -> None:
    run = draft.run
    if run is None or run.status.is_final or run.stop or run.ending or not run.timeout_at or draft.now < run.timeout_at:
        return
    draft.change_run(replace(run, is_out_of_time=True))
    _stop_run(draft)


def _stop_run(draft: Draft) -> None:
    stop = draft.info.stop
    if stop is not None:
        draft.stopping.append((None, stop))
        draft.tell_parent()  # it is owed this


def _time_came(draft: Draft, fact: TimeCame) -> None:
    node = draft.current(fact.node_name, fact.attempt)
    if node is None or node.due.get(fact.kind) != fact.at:
        return
    if node.owed_cancel is not None:
        if fact.kind == DueKind.TIMEOUT:
            attempts.waited_long_enough(draft, node)
        return
    if fact.kind == DueKind.WAIT:
        end(draft, node, TaskStatus.COMPLETED)
    else:
        attempts.time_came(draft, node, fact)


_APPLY: Mapping[type, Callable[..., None]] = {
    RunStarted: _run_started,
    AttemptEnded: attempts.attempt_ended,
    LaunchFailed: attempts.launch_failed,
    LaunchBound: attempts.launch_bound,
    ClaimExpired: attempts.claim_expired,
    TimeCame: _time_came,
    CancelRequested: _cancel_requested,
    RunOutOfTime: _run_out_of_time,
    CancelSettled: attempts.cancel_settled,
    PauseRequested: pausing.pause_requested,
    ResumeRequested: pausing.resume_requested,
    PauseEnded: pausing.pause_ended,
    NotificationSent: notifying.sent,
    NotificationFailed: notifying.failed,
    NotificationExpired: notifying.expired,
}
