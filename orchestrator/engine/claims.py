"""Claims: an attempt at a Task is written into its run, and the save that does so entitles to launch it. Pure."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, child_going_on
from orchestrator.engine.ending import end
from orchestrator.model.commands import EMPTY, Failure, Json, Launch
from orchestrator.model.enums import DueKind, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.facts import SlotGranted
from orchestrator.model.ids import launch_id_of, nonce_of, trace_of
from orchestrator.model.node_state import Claim, NodeState, Slot
from orchestrator.model.nodes import Task


def claim(draft: Draft, node: NodeState, attempt: int, slot: Slot | None = None) -> None:
    """Claim an attempt at a Task and have it launched, or fail it where it has no parameters.

    In a paused run it is held: it stands there as a retry that is due. Where the Task has a pool, the attempt waits for
    a slot of that first, unless it has one: `slot`.
    """
    draft.withdraw(node)
    stop = draft.stopped(node.node_name)
    if stop is not None:
        end(draft, node, TaskStatus.CANCELLED, error=stop)
        return
    if draft.is_paused:
        held = {DueKind.RETRY.value: draft.now}
        node = replace(node, status=TaskStatus.RUNNING, attempt=attempt, execution_id=None, claim=None, due=held)
        draft.put(replace(node, slot=None))
        return
    task = draft.task(node)
    if task.pool is not None and slot is None:
        from orchestrator.engine.queueing import wait_for_slot  # loaded only where there is a pool

        wait_for_slot(draft, node, attempt, task.pool)
        return
    launch_id = launch_id_of(draft.info.run_id, node.node_name, attempt)
    nonce, key = nonce_of(draft.token.seed, launch_id), draft.policy.trace_key.value
    made = Claim(
        draft.token.owner,
        draft.now + draft.policy.lease(task.target_key),
        nonce,
        trace=trace_of(launch_id, nonce, key) if key else "",
    )
    try:
        launch = launch_of(draft, task, node, attempt, made)
    except ExpressionError as exc:
        error = Failure("Task.BadParameters", str(exc))
        end(draft, replace(node, attempt=attempt), TaskStatus.FAILED, error=error)
        return
    node = replace(
        node,
        status=TaskStatus.RUNNING,
        attempt=attempt,
        execution_id=None,
        claim=made,
        due=_due(draft, task),
        slot=slot,
    )
    draft.put(node)
    draft.commands.append(launch)
    for kind, at in node.due.items():
        if kind == DueKind.QUESTION or (kind == DueKind.TIMEOUT and task.timeout_s is not None):
            draft.remind(node, kind, at)  # a default timeout, and a heartbeat, are left to the Tick


def slot_granted(draft: Draft, fact: SlotGranted) -> None:
    """The slot that an attempt waits for is its own now: claim it."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is None or node.slot is None or not node.waits_for_slot or draft.is_paused:
        return
    if node.slot.ticket == fact.ticket:
        claim(draft, node, node.attempt, replace(node.slot, is_held=True))


def _due(draft: Draft, task: Task) -> dict[str, datetime]:
    """What is due at a Task that is claimed now."""
    due: dict[str, datetime] = {}
    timeout_s = draft.policy.timeout_s(task.target_key, task.timeout_s)
    question_s = draft.policy.rules(task.target_key).first_question_s
    if timeout_s is not None:
        due[DueKind.TIMEOUT.value] = draft.now + timedelta(seconds=timeout_s)
    if task.heartbeat_s is not None:
        due[DueKind.HEARTBEAT.value] = draft.now + silence(task.heartbeat_s)
    if question_s:
        due[DueKind.QUESTION.value] = draft.now + timedelta(seconds=question_s)
    return due


def silence(heartbeat_s: float) -> timedelta:
    """After which silence an attempt is given up: a third longer than the author says.

    What is heard is written only when it moves the end of that by a third of the time, so that executions that are
    heard of all the time cost a few saves; the last that was written may be that much older than the last that came.
    """
    return timedelta(seconds=heartbeat_s * 4 / 3)


def launch_of(draft: Draft, task: Task, node: NodeState, attempt: int, made: Claim, *, recover: bool = False) -> Launch:
    """Return the launch that a claim entitles to.

    Args:
        recover: the claim is taken over, so that an earlier launch of it may have got through.
    Raises:
        ExpressionError: its parameters cannot be resolved.
    """
    (bare,) = task.execute()
    parameters: Json = task.parameters
    if not task.template.is_constant:
        parameters = task.template.resolve(draft.scope(node))
    return Launch(
        node.node_name,
        bare.target_type,
        bare.target_name,
        parameters if isinstance(parameters, dict) else EMPTY,
        bare.step,
        draft.info.dag,
        draft.info.run_id,
        attempt,
        made.nonce,
        made.owner,
        made.lease_end,
        recover,
        trace=made.trace,
        started_at=node.started_at,
        secrets=task.secrets,
        goes_on=child_going_on(node, attempt),
        depth=draft.info.parent.depth if draft.info.parent is not None else 0,
        scheduled_for=draft.info.scheduled_for,
        priority=draft.info.priority,
    )
