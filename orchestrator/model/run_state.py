"""The state of a run: its own entry in `runs/<run_id>.json`, and those of its nodes. Pure.

In the document the run's own entry stands under `$run` and one entry a node under the node's name
(no step name can hold a `$`); in memory they are `RunState(run, nodes)`.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from orchestrator.model.commands import EMPTY, Failure, Json
from orchestrator.model.enums import RunEvents, RunStatus, TargetTypes
from orchestrator.model.ids import child_run_id, launch_id_of
from orchestrator.model.node_state import At, NodeState, Slot, StoredResult


class Ending(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How a run ends that has come to its end but for its `finally`."""

    status: RunStatus
    error: Failure | None = None


class Held(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A node that would have started while the run was paused."""

    node: str
    caught: str | None = None
    """As it will be in the node."""


class OwedNotification(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Somebody is to be told of a run event; until that is done, or given up, the run's marker stays."""

    notification_id: str
    """32 hex digits, the same for every try."""
    event: RunEvents
    at: At
    topic: str | None = None
    url: str | None = None
    owner: str
    """Whose save has to send it, as of a claim; empty while it waits to be tried again."""
    lease_end: At
    tries: int = 0
    """How often it was tried before, or taken over."""
    error: str | None = None
    """Why the last try failed."""
    run_error: Failure | None = None
    """The run's error then, where the run has been redriven since."""


class LostNotification(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A notification that was given up, and why."""

    notification_id: str
    event: RunEvents
    at: At
    topic: str | None
    url: str | None
    error: str


class ParentRun(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The attempt of a Dag Task that a child run was made for."""

    run_id: str
    node: str
    attempt: int
    depth: int = 1
    """How many runs stand above the child, this one included."""


class PartOf(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of the child run of a part of a Map: that Map, and what its steps see as `run`."""

    map: str
    """The Map's entry."""
    run_id: str
    started_at: At
    ending: Ending | None = None


class RunInfo(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """The run's own entry, `$run`."""

    format: int
    run_id: str
    dag: str
    definition: str
    """`sha256:<hex>` of the stored definition, `definitions/<hex>.json`."""
    status: RunStatus
    input: Mapping[str, Json]
    variables: Mapping[str, Json] = EMPTY
    """Those of its environment that its definition asks for, as they were when it started."""
    part_of: PartOf | None = None
    message_id: str | None = None
    """Of the start message: the same one again is a duplicate, another one an error. Of a child run: the launch id."""
    parent: ParentRun | None = None
    """Of a child run: whose it is."""
    owner: str | None = None
    tags: tuple[str, ...] = ()
    """Of its definition, so that runs are found by them without it."""
    scheduled_for: At | None = None
    """The time, of its schedule, that the run is for; that of its start is later."""
    priority: int = 0
    """Of the runs that wait for the same, the one with the highest comes first."""
    queued_at: At | None = None
    """When it was asked for, where its DAG has `max_active_runs`."""
    slot: Slot | None = None
    """What such a run waits for, or holds until its end."""
    started_at: At
    """When it began; of one that is Queued, when it was asked for."""
    ended_at: At | None = None
    cancel_reason: str | None = None
    """Set once the run is to be cancelled: nothing is started any more."""
    timeout_at: At | None = None
    """When the run is given up, where its definition has a timeout."""
    deadline_at: At | None = None
    """By when it should have ended, where its definition has a deadline."""
    is_late: bool = False
    """Set once it had not: that is told, and it runs on."""
    is_out_of_time: bool = False
    """Set once it is: nothing is started any more."""
    ending: Ending | None = None
    """How it ends once its `finally` has, where that is under way."""
    result: Json = None
    """Of a run that completed: what its definition says in `result`."""
    stored_result: StoredResult | None = None
    """In place of a large `result`: where it lies."""
    result_of: str | None = None
    """The step whose result is the run's, where its definition has no `result`: the last one."""
    error: Failure | None = None
    redrives: int = 0
    """How often it went on after it had ended."""
    redriven_at: At | None = None
    """When that was asked for last: what was asked for before, was asked of the run that had ended."""
    goes_on_at_end: At | None = None
    """Of a child run that is being stopped: when its parent asked for it to go on, which it does once it has ended."""
    steered_at: At | None = None
    """When the pause or resume was asked for that was applied last; older ones come too late."""
    held: tuple[Held, ...] = ()
    """What waits for the end of a pause."""
    is_resuming: bool = False
    """What is held is still to be started: a pause has ended, or a child run has been made and has not begun."""
    owed_notifications: tuple[OwedNotification, ...] = ()
    lost_notifications: tuple[LostNotification, ...] = ()
    pruned_at: At | None = None
    """Set when `orchestrator prune` has begun to delete the run: nothing of it changes any more."""

    def was_redriven_since(self, at: datetime | None) -> bool:
        """Whether what was asked of it at `at` was asked of the run that had ended then."""
        return at is not None and self.redriven_at is not None and at < self.redriven_at

    @property
    def waits_for_slot(self) -> bool:
        """Whether it waits for its turn, so that nothing of it has started; it is Queued then, or Paused."""
        return self.slot is not None and not self.slot.is_held

    @property
    def stop(self) -> Failure | None:
        """Why nothing is started any more but the `finally`."""
        if self.is_out_of_time:
            return Failure(
                "Run.Timeout", f"the run had not ended by {self.timeout_at or self.started_at:%Y-%m-%d %H:%M:%S} UTC"
            )
        return None if self.cancel_reason is None else Failure("Run.Cancelled", self.cancel_reason)


class RunState(msgspec.Struct, frozen=True, gc=False):
    """A run and its nodes, in definition order."""

    run: RunInfo
    nodes: Mapping[str, NodeState]

    def launch_id(self, node_name: str) -> str:
        """The launch id of a node's current attempt."""
        return launch_id_of(self.run.run_id, node_name, self.nodes[node_name].attempt)


def child_of(run_id: str, node: NodeState) -> str | None:
    """Return the id of the child run of a Dag Task's current attempt; None for what has none."""
    if node.target_type != TargetTypes.DAG or not node.attempt or node.started_at is None:
        return None
    if node.execution_id is None and node.goes_on is not None and node.goes_on.attempt == node.attempt:
        return node.goes_on.run_id
    return node.execution_id or child_run_id(launch_id_of(run_id, node.node_name, node.attempt), node.started_at)


def run_result(state: RunState) -> tuple[Json, StoredResult | None]:
    """Return the result of a run, or where it lies if it is large; (None, None) where it has none."""
    run = state.run
    if run.result_of is None:
        return run.result, run.stored_result
    node = state.nodes[run.result_of]
    return node.result, node.stored_result
