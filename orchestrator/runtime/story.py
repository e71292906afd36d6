"""The story of a run in the log: a line for each thing that a save changed, so that one filter shows a run.

An alert on failed runs looks for `run ended: Failed` with severity ERROR.
"""

import logging
from datetime import datetime

from orchestrator.engine.saved import Saved
from orchestrator.model.commands import Failure
from orchestrator.model.enums import DueKind, NodeTypes, RunStatus, TaskStatus
from orchestrator.model.node_state import NodeState

log = logging.getLogger("orchestrator")

_LEVELS = {TaskStatus.FAILED: logging.WARNING}


def log_saved(saved: Saved) -> None:
    """Log what a save changed: its nodes, then the run itself."""
    if not log.isEnabledFor(logging.INFO):
        return
    run = saved.after.run
    was_queued = saved.before is not None and saved.before.run.waits_for_slot
    if saved.before is None and run.waits_for_slot:
        text = f"run queued: {run.run_id} of {run.dag}"
        log.info("%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})
    elif (saved.before is None or was_queued) and not run.waits_for_slot and run.status is RunStatus.RUNNING:
        text = f"run started: {run.run_id} of {run.dag}"
        if run.parent is not None:
            text += f", by {run.parent.run_id}/{run.parent.node}/{run.parent.attempt}"
        log.info("%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})
    is_paused = run.status is RunStatus.PAUSED
    if (
        saved.before is not None
        and not run.status.is_final
        and is_paused != (saved.before.run.status is RunStatus.PAUSED)
    ):
        text = f"run {'paused' if is_paused else 'resumed'}: {run.run_id} of {run.dag}"
        log.info("%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})
    if run.is_late and not (saved.before is not None and saved.before.run.is_late):
        text = f"run late: {run.run_id} of {run.dag}: had not ended by {run.deadline_at:%Y-%m-%d %H:%M:%S} UTC"
        log.warning("%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})
    if saved.is_redriven:
        text = f"run redriven: {run.run_id} of {run.dag}, number {run.redrives}"
        log.info("%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})
    _log_lost(saved)
    for was, node in saved.changed():
        words = _words(was, node)
        if words:
            level = _LEVELS.get(node.status, logging.INFO)
            log.log(level, "%s: %s", node.node_name, words, extra=_labels(saved, was, node))
    if saved.has_ended:
        level = logging.ERROR if run.status is RunStatus.FAILED else logging.INFO
        text = f"run ended: {run.status.value}: {run.run_id} of {run.dag}{_why(run.error)}"
        log.log(level, "%s", text, extra={"run_id": run.run_id, "event_id": saved.event_id()})


def _log_lost(saved: Saved) -> None:
    before = saved.before.run.lost_notifications if saved.before is not None else ()
    for lost in saved.after.run.lost_notifications[len(before) :]:
        text = f"a notification was given up: {lost.event.value} of {saved.after.run.run_id}: {lost.error}"
        log.error("%s", text, extra={"run_id": saved.after.run.run_id})


def _words(was: NodeState | None, node: NodeState) -> str | None:
    """What happened to a node, in words; None where nothing did that anybody has to know."""
    before = was.status if was is not None else TaskStatus.NEW
    if node.status is TaskStatus.RUNNING:
        if was is not None and node.claim and was.claim and node.claim.takeovers > was.claim.takeovers:
            return f"attempt {node.attempt} taken over"
        if node.owed_cancel is not None and (was is None or was.owed_cancel is None):
            return f"attempt {node.attempt} is to be cancelled{_why(node.owed_cancel.error)}"
        if node.retry_at is not None and (was is None or was.retry_at != node.retry_at):
            return f"attempt {node.attempt - 1} failed{_why(node.error)}; the next one at {node.retry_at:%H:%M:%S} UTC"
        if node.node_type is NodeTypes.WAIT:
            until = node.due.get(DueKind.WAIT.value)
            return f"waits until {until:%Y-%m-%d %H:%M:%S} UTC" if until is not None and was is not None else None
        is_next = was is not None and (
            was.attempt != node.attempt or (node.claim and (was.retry_at is not None or was.waits_for_slot))
        )
        if node.waits_for_slot:
            is_new = before is not TaskStatus.RUNNING or is_next or (was is not None and was.retry_at is not None)
            return f"attempt {node.attempt} waits for a slot of pool {node.pool}" if is_new else None
        if before is not TaskStatus.RUNNING and node.items is not None:
            return f"Running, of {node.items.count:,} items"
        if before is not TaskStatus.RUNNING or is_next:
            return f"Running, attempt {node.attempt}" if node.attempt else "Running"
        return None
    if node.status is before or node.status in (TaskStatus.SKIPPED, TaskStatus.NEW):
        return None
    return f"{node.status.value}{_took(node.started_at, node.ended_at)}{_why(node.error)}"


def _labels(saved: Saved, was: NodeState | None, node: NodeState) -> dict[str, object]:
    claim = node.claim or (was.claim if was is not None else None)
    return {
        "run_id": saved.after.run.run_id,
        "node": node.node_name,
        "attempt": node.attempt or None,
        "event_id": saved.event_id(node.node_name),
        "trace": claim.trace_of(saved.after.launch_id(node.node_name)) if claim is not None else None,
    }


def _took(started_at: datetime | None, ended_at: datetime | None) -> str:
    if started_at is None or ended_at is None:
        return ""
    return f" after {(ended_at - started_at).total_seconds():.1f} s"


def _why(error: Failure | None) -> str:
    return "" if error is None else f": {error.error_type}: {error.message}"
