"""Decide what follows from what happened: (run, facts) -> (run, commands).

Pure: no clock, network, randomness or logging. The executor calls this between loading and saving a
run, and again when the save loses a race, so equal inputs give equal answers. It is idempotent: a fact
that was applied before, or that no longer applies, changes nothing and yields no command.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine import attempts, notifying, pausing
from orchestrator.engine.claims import slot_granted
from orchestrator.engine.draft import Decision, Draft, Token, new_state
from orchestrator.engine.ending import end, end_run
from orchestrator.engine.starting import start_waiting
from orchestrator.model.dag import DAG
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    CancelSettled,
    ClaimExpired,
    DeadlinePassed,
    Fact,
    HeardFrom,
    LaunchBound,
    LaunchFailed,
    NotificationExpired,
    NotificationFailed,
    NotificationSent,
    PauseEnded,
    PauseRequested,
    PlacesLeft,
    RedriveRequested,
    ResumeRequested,
    RunAdmitted,
    RunAdopted,
    RunOutOfTime,
    RunStarted,
    SlotGranted,
    TimeCame,
)
from orchestrator.model.policy import Policy
from orchestrator.model.run_document import FORMAT
from orchestrator.model.run_state import Ending, RunInfo, RunState


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
        _join(draft)
    if draft.run is not None and draft.run.goes_on_at_end is not None and draft.run.status.is_final:
        from orchestrator.engine.redriving import ended  # hardly any run does

        ended(draft)
        _go_on(draft)
        _join(draft)
    notifying.owe(draft, state)
    if draft.takes_slots:
        from orchestrator.engine.queueing import settle

        settle(draft, state)
    return draft.decision()


def _join(draft: Draft) -> None:
    """Look at what waits for what has ended, once for all facts."""
    from orchestrator.engine.joining import look  # only where steps depend on others

    while draft.joining:
        look(draft)
        _go_on(draft)


def _go_on(draft: Draft) -> None:
    """Stop what is to be stopped, and start what is to start."""
    while draft.stopping or draft.entering or draft.going_on:
        if draft.going_on:
            from orchestrator.engine.redriving import items_go_on

            items_go_on(draft)
        pausing.reconsider(draft)
        if draft.stopping:
            from orchestrator.engine.stopping import stop_waiting  # hardly any run is stopped

            stop_waiting(draft)
        start_waiting(draft)


def _run_started(draft: Draft, fact: RunStarted) -> None:
    if draft.run is not None:
        return
    timeout_s = draft.dag.timeout_s if fact.part_of is None else None
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
        part_of=fact.part_of,
        scheduled_for=fact.scheduled_for,
        priority=draft.dag.priority if fact.priority is None else fact.priority,
        started_at=draft.now,
        timeout_at=None if timeout_s is None else draft.now + timedelta(seconds=timeout_s),
    )
    if draft.dag.deadline_s is not None and fact.part_of is None:
        after = timedelta(seconds=draft.dag.deadline_s)
        is_in_time = fact.scheduled_for is not None and fact.scheduled_for + after > draft.now  # a backfill is not
        run = replace(run, deadline_at=(fact.scheduled_for if is_in_time and fact.scheduled_for else draft.now) + after)
    if fact.part_of is not None:
        draft.begin(run, fact.nodes)
        draft.hold(fact.part_of.map, draft.nodes[fact.part_of.map].caught)
        draft.change_run(replace(draft.info, is_resuming=True))
        return
    draft.begin(run, map(new_state, draft.dag.first_nodes))
    entering = [(node.node_name, None) for node in draft.dag.start_nodes]
    if fact.parent is not None:
        # Who launches it only makes it: it begins as a paused run goes on, by a message or the Tick.
        for name, caught in entering:
            draft.hold(name, caught)
        draft.change_run(replace(draft.info, is_resuming=True))
    elif draft.dag.max_active_runs is not None:
        from orchestrator.engine.queueing import enqueue

        enqueue(draft)
    else:
        draft.entering.extend(entering)


def _run_admitted(draft: Draft, fact: RunAdmitted) -> None:
    from orchestrator.engine.queueing import admitted

    admitted(draft, fact)


def _cancel_requested(draft: Draft, fact: CancelRequested) -> None:
    """Nothing is started any more but the `finally`, which nothing stops once it is under way."""
    if draft.run is None or draft.run.was_redriven_since(fact.at):
        return
    if not draft.run.status.is_final and not draft.run.stop and not draft.run.ending:
        draft.change_run(replace(draft.run, cancel_reason=fact.reason))
        if not draft.run.waits_for_slot:
            _stop_run(draft)
        elif draft.run.redrives:
            draft.change_run(replace(draft.run, status=RunStatus.RUNNING, slot=None))
            _stop_run(draft)
        else:  # nothing of it has started, so nothing is to be tidied up by a `finally`
            end_run(draft, Ending(RunStatus.CANCELLED, draft.run.stop))


def _run_out_of_time(draft: Draft, _: RunOutOfTime) -> None:
    run = draft.run
    if run is None or run.status.is_final or run.stop or run.ending or not run.timeout_at or draft.now < run.timeout_at:
        return
    draft.change_run(replace(run, is_out_of_time=True))
    _stop_run(draft)


def _deadline_passed(draft: Draft, _: DeadlinePassed) -> None:
    """`notifying` notes that the run is late, as it does whenever something else comes after the deadline."""


def _stop_run(draft: Draft) -> None:
    stop = draft.info.stop
    if stop is not None:
        draft.stopping.append((None, stop))
        draft.tell_parent()  # it is owed this


def _redrive_requested(draft: Draft, fact: RedriveRequested) -> None:
    from orchestrator.engine.redriving import redrive_requested  # hardly any event asks for it

    redrive_requested(draft, fact)


def _run_adopted(draft: Draft, fact: RunAdopted) -> None:
    from orchestrator.engine.redriving import adopted

    adopted(draft, fact)


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
    HeardFrom: attempts.heard,
    CancelRequested: _cancel_requested,
    RunOutOfTime: _run_out_of_time,
    CancelSettled: attempts.cancel_settled,
    PauseRequested: pausing.pause_requested,
    ResumeRequested: pausing.resume_requested,
    PauseEnded: pausing.pause_ended,
    RedriveRequested: _redrive_requested,
    RunAdopted: _run_adopted,
    DeadlinePassed: _deadline_passed,
    NotificationSent: notifying.sent,
    NotificationFailed: notifying.failed,
    NotificationExpired: notifying.expired,
    RunAdmitted: _run_admitted,
    PlacesLeft: pausing.places_left,
    SlotGranted: slot_granted,
}
