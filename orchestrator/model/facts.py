"""Facts: events after the shell has found out whose they are, in the words that `decide` takes.

An Event is what a topic delivered; a fact names the node and the attempt, and what is true of them.
Facts are past tense, and `decide` ignores those that no longer apply (another attempt, another
owner, a node that has ended), so that each may come twice, late and in any order. Pure.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from orchestrator.model.commands import EMPTY, Failure, Json, Outcome
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import ParentRun, PartOf


class RunStarted(msgspec.Struct, frozen=True, gc=False):
    """A start message arrived; the run begins if there is none yet. With a `parent` it is made, and begins later."""

    run_id: str
    dag: str
    definition: str
    input: Mapping[str, Json]
    message_id: str
    scheduled_for: datetime | None = None
    variables: Mapping[str, Json] = EMPTY
    parent: ParentRun | None = None
    priority: int | None = None
    part_of: PartOf | None = None
    """Of the run of a part of a Map."""
    nodes: tuple[NodeState, ...] = ()
    """Of such a run: what it begins with."""


class AttemptEnded(msgspec.Struct, frozen=True, gc=False):
    """An execution ended. The shell has asked its target, or has checked the event's nonce."""

    node_name: str
    attempt: int
    outcome: Outcome
    execution_id: str | None = None


class LaunchFailed(msgspec.Struct, frozen=True, gc=False):
    """The target refused, for good, the launch that `owner` had claimed."""

    node_name: str
    attempt: int
    owner: str
    error: Failure


class LaunchBound(msgspec.Struct, frozen=True, gc=False):
    """A claim that was taken over by `owner` has this execution now."""

    node_name: str
    attempt: int
    owner: str
    execution_id: str


class ClaimExpired(msgspec.Struct, frozen=True, gc=False):
    """The lease that `owner` held is over, or its instance is dead, and nothing is bound."""

    node_name: str
    attempt: int
    owner: str


class TimeCame(msgspec.Struct, frozen=True, gc=False):
    """A due entry's time has come, and the target, asked first, knew of no end.

    `is_bound`: an execution is known for the attempt (in the node, here, or by `find`).
    """

    node_name: str
    attempt: int
    kind: str
    at: datetime
    is_bound: bool


class HeardFrom(msgspec.Struct, frozen=True, gc=False):
    """The execution of an attempt said, at `at`, that it is at work."""

    node_name: str
    attempt: int
    at: datetime


class CancelRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody asked, at `at`, for the run to be cancelled."""

    reason: str
    at: datetime | None = None


class RunOutOfTime(msgspec.Struct, frozen=True, gc=False):
    """The time that the run's definition gives it is over."""


class DeadlinePassed(msgspec.Struct, frozen=True, gc=False):
    """The time has passed by which the run should have ended."""


class CancelSettled(msgspec.Struct, frozen=True, gc=False):
    """The service accepted the cancel, or there is nothing of this attempt that could run."""

    node_name: str
    attempt: int


class PauseRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody asked, at `at`, for the run to be paused."""

    at: datetime


class ResumeRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody asked, at `at`, for the run to go on."""

    at: datetime


class PauseEnded(msgspec.Struct, frozen=True, gc=False):
    """The run is not paused any more, and what was held has not been started."""


class RunAdmitted(msgspec.Struct, frozen=True, gc=False):
    """The run holds the slot that it asked for with this ticket: it is its turn."""

    queue: str
    ticket: str


class PlacesLeft(msgspec.Struct, frozen=True, gc=False):
    """Who runs the run ends, and may be long in coming back: it is not to keep others waiting in queues."""


class SlotGranted(msgspec.Struct, frozen=True, gc=False):
    """An attempt holds the slot of its pool that it asked for with this ticket."""

    node_name: str
    attempt: int
    queue: str
    ticket: str


class RedriveRequested(msgspec.Struct, frozen=True, gc=False):
    """Somebody asked, at `at`, for a run that has ended to go on.

    `number`: which redrive of the run it is to be, from 1, so that it is about one end; None: about the last one before
    `at`. `start_from`: the step to run again from; None: from where it failed.
    """

    at: datetime
    number: int | None = None
    start_from: str | None = None


class RunAdopted(msgspec.Struct, frozen=True, gc=False):
    """A later attempt of its parent's step asked, at `at`, for a child run to go on as its own.

    `tolerated`: of a part of a Map: how many of its items may fail now.
    """

    parent: ParentRun
    at: datetime
    tolerated: int | None = None


class NotificationSent(msgspec.Struct, frozen=True, gc=False):
    """Its receiver has accepted it."""

    notification_id: str


class NotificationFailed(msgspec.Struct, frozen=True, gc=False):
    """The try of `owner` was not accepted; `is_final`: no other will be."""

    notification_id: str
    owner: str
    error: str
    is_final: bool = False


class NotificationExpired(msgspec.Struct, frozen=True, gc=False):
    """The lease that `owner` held is over, or its instance is dead."""

    notification_id: str
    owner: str


Fact = (
    RunStarted
    | AttemptEnded
    | LaunchFailed
    | LaunchBound
    | ClaimExpired
    | TimeCame
    | HeardFrom
    | CancelRequested
    | CancelSettled
    | RunOutOfTime
    | NotificationSent
    | NotificationFailed
    | NotificationExpired
    | PauseRequested
    | ResumeRequested
    | PauseEnded
    | RunAdmitted
    | SlotGranted
    | PlacesLeft
    | RedriveRequested
    | RunAdopted
    | DeadlinePassed
)
