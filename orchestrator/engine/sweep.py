"""What the Tick has to look after in one run, in the order in which it does.

Pure: the executor asks the questions; `decide` judges the answers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from orchestrator.model.enums import DueKind, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import OwedNotification, RunState


class Leased(Protocol):
    """A Claim, or a notification that is owed."""

    @property
    def owner(self) -> str:
        """`<instance>.<16 hex>`; empty where nobody has it."""

    @property
    def lease_end(self) -> datetime:
        """Until when it is the owner's."""


@dataclass(frozen=True, slots=True)
class Chores:
    """Nodes of one run to be looked after, in definition order.

    Attributes:
        cancels: owe a cancel.
        withdrawals: of a cancelled run, and cannot be stopped; whether they have begun may be asked.
        takeovers: claimed, nothing bound, and the claim is over.
        questions: their execution is known; whether it has ended may be asked.
        due: (node, kind, at): its time has come.
        waiting: wait for slots of their pools; there is nothing to be found out about them in the run alone.
    """

    cancels: tuple[NodeState, ...] = ()
    withdrawals: tuple[NodeState, ...] = ()
    takeovers: tuple[NodeState, ...] = ()
    questions: tuple[NodeState, ...] = ()
    due: tuple[tuple[NodeState, str, datetime], ...] = ()
    waiting: tuple[NodeState, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.cancels or self.withdrawals or self.takeovers or self.questions or self.due)


def is_over(claim: Leased, now: datetime, me: str, alive: Callable[[str], bool | None], policy: Policy) -> bool:
    """Whether somebody other than the owner of a claim, or of a notification, may act on it.

    Args:
        me: the instance that asks.
        alive: instance -> whether it is alive, None where only the lease can tell.
    """
    instance = claim.owner.partition(".")[0]
    if instance and instance != me:
        known = alive(instance)
        if known is not None:
            return not known
    return now >= claim.lease_end + timedelta(seconds=policy.clock_allowance_s)


def chores(
    state: RunState,
    now: datetime,
    me: str,
    alive: Callable[[str], bool | None],
    policy: Policy,
    is_known_here: Callable[[str], bool],
) -> Chores:
    """Return what is to be looked after in `state`.

    Args:
        is_known_here: launch id -> whether this instance knows its execution.
    """
    cancels, withdrawals, takeovers, questions, waiting = [], [], [], [], []
    due: list[tuple[NodeState, str, datetime]] = []
    for node in state.nodes.values():
        if node.status is not TaskStatus.RUNNING or not node.attempt:
            continue
        if node.slot is not None and node.waits_for_slot:
            waiting.append(node)
            continue
        if node.owed_cancel is not None:
            cancels.append(node)
            due.extend((node, kind, at) for kind, at in node.due.items() if at <= now and kind == DueKind.TIMEOUT)
            continue
        if node.stop is not None:
            withdrawals.append(node)
        is_bound = node.execution_id is not None or is_known_here(state.launch_id(node.node_name))
        if not is_bound and node.claim is not None and is_over(node.claim, now, me, alive, policy):
            takeovers.append(node)
        elif is_bound:
            questions.append(node)
        # Questions are left to their reminders: what is known to run is asked here anyway.
        due.extend((node, kind, at) for kind, at in node.due.items() if at <= now and kind != DueKind.QUESTION)
    return Chores(tuple(cancels), tuple(withdrawals), tuple(takeovers), tuple(questions), tuple(due), tuple(waiting))


def late_notifications(
    state: RunState, now: datetime, me: str, alive: Callable[[str], bool | None], policy: Policy
) -> tuple[OwedNotification, ...]:
    """Return the notifications that their owners did not send, and those that are due to be tried again."""
    return tuple(owed for owed in state.run.owed_notifications if is_over(owed, now, me, alive, policy))
