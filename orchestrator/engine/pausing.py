"""Pause and resume: a paused run starts nothing, and follows what runs. Pure.

What would start meanwhile is held in the document, in one of two ways: a node that would be entered, in `$run.held`;
the next attempt at a node that has started, as a retry that is due (Running, no claim). So a resume finds it all again
from the document alone. A claim that nobody launched is not taken over while the run is paused, nor is it timed out.

Requests carry the time when they were made, and the latest counts: one that is delivered late, or again after the
opposite was asked for, changes nothing.
"""

from datetime import datetime

from msgspec.structs import replace

from orchestrator.engine.attempts import begin_anew
from orchestrator.engine.claims import claim
from orchestrator.engine.draft import Draft
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.facts import PauseEnded, PauseRequested, PlacesLeft, ResumeRequested
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo


def paused(run: RunInfo, at: datetime) -> RunInfo:
    """Return the run's entry as it is once a pause was asked for at `at`; the same object if that changes nothing."""
    if not _counts(run, RunStatus.PAUSED, at):
        return run
    return replace(run, status=RunStatus.PAUSED, steered_at=at, is_resuming=False)


def resumed(run: RunInfo, at: datetime) -> RunInfo:
    """Return the run's entry as it is once a resume was asked for at `at`, and what is held not yet started.

    One that has ended keeps only that it was: a redrive may be on its way, and behind that the pause before the resume.
    """
    is_news = run.steered_at is None or at > run.steered_at
    if run.status.is_final and run.pruned_at is None and is_news and not run.was_redriven_since(at):
        return replace(run, steered_at=at)
    if not _counts(run, RunStatus.RUNNING, at):
        return run
    is_resuming = run.is_resuming or run.status is RunStatus.PAUSED
    status = RunStatus.QUEUED if run.waits_for_slot else RunStatus.RUNNING
    return replace(run, status=status, steered_at=at, is_resuming=is_resuming)


def _counts(run: RunInfo, status: RunStatus, at: datetime) -> bool:
    """Whether a request of `at` to be in this status is news; of two of the same time the one that came last is."""
    if run.status.is_final or run.stop is not None:
        return False
    if run.was_redriven_since(at):
        return False
    is_other = (run.status is RunStatus.PAUSED) != (status is RunStatus.PAUSED)
    return run.steered_at is None or at > run.steered_at or (at == run.steered_at and is_other)


def pause_requested(draft: Draft, fact: PauseRequested) -> None:
    """Start nothing more."""
    if draft.run is not None and (run := paused(draft.run, fact.at)) is not draft.run:
        draft.change_run(run)
    if draft.is_paused and draft.takes_slots:
        from orchestrator.engine.queueing import give_up_places

        give_up_places(draft)


def resume_requested(draft: Draft, fact: ResumeRequested) -> None:
    """Go on."""
    if draft.run is not None and (run := resumed(draft.run, fact.at)) is not draft.run:
        draft.change_run(run)
        pause_ended(draft, PauseEnded())


def pause_ended(draft: Draft, _: PauseEnded) -> None:
    """Start what is held, unless the run is paused (again), or has ended."""
    run = draft.run
    if run is None or not run.is_resuming or run.status is RunStatus.PAUSED or run.status.is_final:
        return
    held = () if run.waits_for_slot else run.held  # what waits for its turn goes on waiting
    draft.change_run(replace(run, held=run.held if run.waits_for_slot else (), is_resuming=False))
    draft.entering.extend((each.node, each.caught) for each in held)
    for node in tuple(draft.nodes.values()):
        if node.status is TaskStatus.RUNNING and node.owed_cancel is None:
            _go_on(draft, node)
    if draft.takes_slots:
        from orchestrator.engine.queueing import ask_again

        ask_again(draft)


def places_left(draft: Draft, _: PlacesLeft) -> None:
    """Wait in no queue until a Tick looks after the run again; then it comes back to where it was."""
    if draft.run is None or draft.run.status.is_final or draft.is_paused or not draft.takes_slots:
        return
    from orchestrator.engine.queueing import give_up_places

    if give_up_places(draft):
        draft.change_run(replace(draft.info, is_resuming=True))


def reconsider(draft: Draft) -> None:
    """Where things are to be stopped, let what is held be entered again: it ends there, or it is held again.

    A run that is stopped as a whole is not paused any more, for its `finally` is to run.
    """
    if not draft.stopping or draft.run is None:
        return
    held, run = draft.run.held, draft.run
    if run.status is RunStatus.PAUSED and any(parallel is None for parallel, _ in draft.stopping):
        run = replace(run, status=RunStatus.RUNNING, is_resuming=False)
    if held or run is not draft.run:
        draft.change_run(replace(run, held=()))
        draft.entering.extend((each.node, each.caught) for each in held)


def _go_on(draft: Draft, node: NodeState) -> None:
    """Claim the attempt that was held; give a claim that could not be taken over its time."""
    retry_at = node.due.get(DueKind.RETRY.value)
    over = [kind for kind in (DueKind.TIMEOUT, DueKind.HEARTBEAT) if kind in node.due and node.due[kind] <= draft.now]
    if node.claim is None and retry_at is not None and retry_at <= draft.now:
        claim(draft, node, node.attempt)
    elif node.claim is not None and not node.execution_id:
        for kind in over:
            begin_anew(draft, draft.nodes[node.node_name], kind)
