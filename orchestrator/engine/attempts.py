"""Attempts at Tasks, once they are claimed: bound, taken over, ended, out of time, given up, cancelled. Pure."""

from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.claims import claim, launch_of, silence
from orchestrator.engine.draft import NO_TIMES, Draft, bare_launch
from orchestrator.engine.ending import end
from orchestrator.engine.retry import wait_s
from orchestrator.model.commands import Cancel, Failure
from orchestrator.model.enums import DueKind, OutcomeKind, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.facts import (
    AttemptEnded,
    CancelSettled,
    ClaimExpired,
    HeardFrom,
    LaunchBound,
    LaunchFailed,
    TimeCame,
)
from orchestrator.model.ids import launch_id_of, spread_of
from orchestrator.model.node_state import Claim, NodeState, OwedCancel
from orchestrator.model.nodes import Task

# -- what becomes of them ------------------------------------------------------------------------------


def attempt_ended(draft: Draft, fact: AttemptEnded) -> None:
    """Its target says how it ended."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is None:
        return
    if fact.execution_id is not None:
        node = replace(node, execution_id=fact.execution_id)
    outcome = fact.outcome
    if node.owed_cancel is not None:
        _settle(draft, node)
    elif outcome.kind is OutcomeKind.COMPLETED:
        end(draft, node, TaskStatus.COMPLETED, result=outcome.result)
    elif outcome.kind is OutcomeKind.LOST and node.stop is None and node.losses < draft.policy.max_losses:
        # The attempt is gone with its host: the next one.
        claim(draft, replace(node, losses=node.losses + 1), node.attempt + 1)
    elif outcome.kind is OutcomeKind.FAILED or (outcome.kind is OutcomeKind.LOST and node.stop is None):
        _failed(draft, node, outcome.error)
    else:
        end(draft, node, TaskStatus.CANCELLED, error=outcome.error)


def launch_failed(draft: Draft, fact: LaunchFailed) -> None:
    """Its target refused the launch."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is None or node.claim is None or node.claim.owner != fact.owner:
        return
    if node.owed_cancel is not None:
        _settle(draft, node)
    else:
        _failed(draft, node, fact.error)


def _failed(draft: Draft, node: NodeState, error: Failure | None) -> None:
    """An attempt has failed: the next one is waited for, or the node has failed."""
    error_type = error.error_type if error is not None else "Task.Failed"
    failures = node.failures + 1
    left_s = None
    if node.stop is None:
        spread = spread_of(draft.token.seed, launch_id_of(draft.info.run_id, node.node_name, node.attempt))
        left_s = wait_s(draft.task(node).retry, error_type, failures, spread)
    if left_s is None:
        end(draft, node, TaskStatus.FAILED, error=error)
        return
    draft.withdraw(node)
    node = replace(node, failures=failures, error=error, claim=None, owed_cancel=None, execution_id=None, due=NO_TIMES)
    node = replace(node, slot=None) if node.slot is not None else node  # given back while the retry waits
    if left_s > 0.0:
        waiting = replace(node, attempt=node.attempt + 1)
        draft.wait_until(waiting, DueKind.RETRY.value, draft.now + timedelta(seconds=left_s))
    else:
        claim(draft, node, node.attempt + 1)


def launch_bound(draft: Draft, fact: LaunchBound) -> None:
    """It was taken over, and has an execution now."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is None or node.claim is None or node.claim.owner != fact.owner or node.execution_id:
        return
    due, task = node.due, draft.task(node)
    if draft.policy.rules(task.target_key).synchronous and not due:
        # The call that would have answered is gone, and with it the deadline that was its timeout.
        due = {DueKind.TIMEOUT.value: draft.now + timedelta(seconds=_limit_s(draft, task))}
    draft.put(replace(node, execution_id=fact.execution_id, due=due))


def claim_expired(draft: Draft, fact: ClaimExpired) -> None:
    """Its owner did not get to launching it, or to telling: take it over."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is None or node.claim is None or node.claim.owner != fact.owner:
        return
    if node.execution_id or node.owed_cancel:
        return
    if draft.is_paused:  # the Tick comes again
        return
    if node.stop is not None:  # nothing is launched any more; what may have been launched is looked for
        owe_cancel(draft, node, OwedCancel(TaskStatus.CANCELLED, node.stop))
        return
    if node.claim.takeovers >= draft.policy.max_takeovers:
        words = f"no launch of attempt {node.attempt} was ever answered, in {node.claim.takeovers + 1} tries"
        _give_up(draft, node, Failure("Launch.Uncertain", f"{node.node_name}: {words}"))
        return
    task = draft.task(node)
    timeout_s = draft.policy.timeout_s(task.target_key, task.timeout_s)
    timeout_at = node.due.get(DueKind.TIMEOUT.value)
    if node.claim.takeovers and timeout_at is not None and timeout_at <= draft.now:
        _time_is_up(draft, node, task)
        return
    made = Claim(
        draft.token.owner,
        draft.now + draft.policy.lease(task.target_key),
        node.claim.nonce,
        node.claim.takeovers + 1,
        node.claim.trace,
    )
    due = node.due
    if timeout_s is not None and node.claim.takeovers == 0:
        # What the timeout is to limit starts only now. Once: else a launch that nobody ever
        # answers would be put off for ever.
        due = {**due, DueKind.TIMEOUT.value: draft.now + timedelta(seconds=timeout_s)}
    if task.heartbeat_s is not None and node.claim.takeovers == 0:
        due = {**due, DueKind.HEARTBEAT.value: draft.now + silence(task.heartbeat_s)}
    try:
        launch = launch_of(draft, task, node, node.attempt, made, recover=True)
    except ExpressionError as exc:  # what it could be resolved with is gone, and it may run since
        _give_up(draft, node, Failure("Task.BadParameters", str(exc)))
        return
    draft.put(replace(node, claim=made, due=due))
    draft.commands.append(launch)


# -- their time ----------------------------------------------------------------------------------------


def time_came(draft: Draft, node: NodeState, fact: TimeCame) -> None:
    """Something was due at a Task's current attempt."""
    if fact.kind == DueKind.RETRY:
        if not draft.is_paused:
            claim(draft, node, node.attempt)
        return
    if fact.kind == DueKind.QUESTION:
        _ask_again(draft, node, fact.at)
        return
    task = draft.task(node)
    is_heartbeat = fact.kind == DueKind.HEARTBEAT
    limit = silence(task.heartbeat_s or 0.0) if is_heartbeat else timedelta(seconds=_limit_s(draft, task))
    if not fact.is_bound and node.claim is not None:
        if draft.is_paused:  # it may not have been launched, and is not to be now
            return
        # The launch may come as late as the lease's end, and is due its time from then on. After a
        # takeover it has had that, and is only not to come after the end of its node.
        is_first = node.claim.takeovers == 0
        later = node.claim.lease_end + (limit if is_first else timedelta(seconds=draft.policy.clock_allowance_s))
        if later > (fact.at if is_first else max(fact.at, draft.now)):
            draft.wait_until(node, fact.kind, later, is_reminded=not is_heartbeat)
            return
    if is_heartbeat:
        words = f"{node.node_name}: was not heard of for {task.heartbeat_s or 0.0:g} s"
        _give_up(draft, node, Failure("Task.Heartbeat", words))
    else:
        _time_is_up(draft, node, task)


def begin_anew(draft: Draft, node: NodeState, kind: DueKind) -> None:
    """Give an attempt that could not be launched all of the time again that a timeout or heartbeat gives it."""
    task = draft.task(node)
    if kind is DueKind.HEARTBEAT:
        at = draft.now + silence(task.heartbeat_s or 0.0)
    else:
        at = draft.now + timedelta(seconds=_limit_s(draft, task))
    draft.wait_until(node, kind.value, at, is_reminded=kind is DueKind.TIMEOUT)


def heard(draft: Draft, fact: HeardFrom) -> None:
    """An attempt is at work: it is given up later, if at all."""
    node = draft.current(fact.node_name, fact.attempt)
    due_at = node.due.get(DueKind.HEARTBEAT) if node is not None else None
    if node is None or due_at is None or node.owed_cancel is not None:
        return
    heartbeat_s = draft.task(node).heartbeat_s or 0.0
    later = min(fact.at, draft.now) + silence(heartbeat_s)
    if later - due_at >= timedelta(seconds=heartbeat_s / 3) or due_at <= draft.now < later:
        draft.wait_until(node, DueKind.HEARTBEAT.value, later, is_reminded=False)


def _ask_again(draft: Draft, node: NodeState, at: datetime) -> None:
    """The question that was due at `at` found no end: the next comes twice as late after the claim.

    It stands in the node, so that a question delivered twice breeds one more and not two. Where the wait would
    be too long there is no next one; the Tick goes on asking.
    """
    first = timedelta(seconds=draft.policy.rules(node.target_key).first_question_s)
    claimed_at = node.claim.lease_end - draft.policy.lease(node.target_key) if node.claim else at
    wait = max(first, at - claimed_at)
    node = replace(node, due={kind: time for kind, time in node.due.items() if kind != DueKind.QUESTION})
    if wait <= timedelta(seconds=draft.policy.last_question_wait_s):
        draft.wait_until(node, DueKind.QUESTION.value, max(at + wait, draft.now + first))
    else:
        draft.put(node)


def _limit_s(draft: Draft, task: Task) -> float:
    """How long an attempt may take whose timeout is due. A call has one of its own only once its caller is gone."""
    limit_s = draft.policy.timeout_s(task.target_key, task.timeout_s)
    if limit_s is None:
        limit_s = draft.policy.default_timeout_s if task.timeout_s is None else task.timeout_s
    return limit_s


def _time_is_up(draft: Draft, node: NodeState, task: Task) -> None:
    """Give up an attempt that took too long."""
    _give_up(draft, node, Failure("Task.Timeout", f"{node.node_name}: no end within {_limit_s(draft, task):g} s"))


# -- how they are given up -----------------------------------------------------------------------------


def cancel_settled(draft: Draft, fact: CancelSettled) -> None:
    """Its target has accepted the cancel, or there is nothing to cancel."""
    node = draft.current(fact.node_name, fact.attempt)
    if node is not None and node.owed_cancel is not None:
        _settle(draft, node)


def _give_up(draft: Draft, node: NodeState, error: Failure) -> None:
    """Fail an attempt that may still be running: first it has to be cancelled, where it can be."""
    if draft.policy.rules(node.target_key).can_cancel:
        owe_cancel(draft, node, OwedCancel(TaskStatus.FAILED, error))
    else:
        _failed(draft, node, error)


def owe_cancel(draft: Draft, node: NodeState, owed: OwedCancel) -> None:
    """Write that an attempt is to be cancelled, how its node ends then, and have it be cancelled."""
    # What cannot be cancelled is waited for, up to its timeout.
    due = NO_TIMES if draft.policy.rules(node.target_key).can_cancel else node.due
    node = replace(node, owed_cancel=owed, due=due)
    draft.put(node)
    draft.commands.append(Cancel(bare_launch(draft.dag, draft.info, node), node.execution_id))


def waited_long_enough(draft: Draft, node: NodeState) -> None:
    """The timeout of a node has come that is owed a cancel which its target cannot carry out."""
    _settle(draft, node)


def _settle(draft: Draft, node: NodeState) -> None:
    """The cancel is settled: the node ends as was owed."""
    owed = node.owed_cancel
    if owed is not None and node.stop is not None:
        end(draft, node, TaskStatus.CANCELLED, error=node.stop)
    elif owed is not None and owed.ends_as is TaskStatus.FAILED:
        _failed(draft, node, owed.error)
    elif owed is not None:
        end(draft, node, owed.ends_as, error=owed.error)
