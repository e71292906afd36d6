"""The state of a node: its entry in `runs/<run_id>.json`, as values that do not change. Pure.

These values, commands and facts refer to nothing that refers back to them, and there are tens of thousands of them in a
large run: with `gc=False` the garbage collector does not go through them, which was a third of such a run's work.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from orchestrator.model.commands import EMPTY, Failure, Json, target_key
from orchestrator.model.enums import DueKind, NodeTypes, TaskStatus, Triggers
from orchestrator.model.ids import trace_of

At = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time in a document. One without its offset cannot be compared with any other, so that its document is corrupt."""


class Claim(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """This attempt is to be launched, by this owner, until this time."""

    owner: str
    """`<instance>.<16 hex>`: the instance whose save made or renewed the claim, and which save."""
    lease_end: At
    nonce: str
    """128 bits in hex: who knows it has seen the launch. It stays when the claim is taken over."""
    takeovers: int = 0
    """How often the Tick took it over, because its owner did not get to launching, or to telling."""
    trace: str = ""
    """The trace that the launch carries, made under the deployment's key; empty where it follows from the nonce.
    Kept here so that a key can be changed while runs are in flight."""

    def trace_of(self, launch_id: str) -> str:
        """The W3C trace id (32 hex) of the attempt's launch."""
        return self.trace or trace_of(launch_id, self.nonce)


class OwedCancel(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The attempt is to be cancelled at its target; until that is settled its node stays Running."""

    ends_as: TaskStatus
    """What the node becomes then: Failed (its timeout) or Cancelled (its run was)."""
    error: Failure | None = None


class Slot(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A slot that a run, or an attempt at a Task, waits for or holds, of so many as a limit allows."""

    queue: str
    """`dag/<name>` of a DAG with `max_active_runs`, `pool/<name>` of a pool; it lies in `slots/<queue>.json`."""
    ticket: str
    """128 bits in hex that stand there beside who asked. A new one for each asking, so that what was given up is never
    mistaken for what is held; empty while the run is paused, for then it is not asked for."""
    since: At
    """When it was asked for first."""
    is_held: bool = msgspec.field(name="held", default=False)
    """Whether it was granted: what it was asked for has started."""


class StoredResult(msgspec.Struct, frozen=True, gc=False):
    """Where a result lies that is too large for the run document."""

    object: str
    """Its name in the bucket, `results/<key>.json`."""
    size_bytes: int
    """Of the result's JSON."""


class BranchState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One branch of a Parallel: where it starts and, if it did not come to its end, the node that it stopped at."""

    start: str = ""
    stopped_at: str | None = None
    starts: tuple[str, ...] = ()
    """In place of `start`: the steps that it starts with, where they are several."""

    @classmethod
    def of(cls, starts: Sequence[str]) -> "BranchState":
        """Return the state of a branch that starts with these steps, and has not ended."""
        return cls(starts[0]) if len(starts) == 1 else cls(starts=tuple(starts))

    @property
    def entries(self) -> tuple[str, ...]:
        """The steps that it starts with."""
        return self.starts or (self.start,)


class GoesOn(msgspec.Struct, frozen=True, gc=False):
    """The child run that one attempt of a Dag Task lets go on, in place of a new one."""

    run_id: str
    attempt: int


class Items(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The items of a Map that has started, in the order of its list, and how far it has come with them."""

    count: int
    values: Json = None
    """The list, where it is small enough to stand here."""
    stored: StoredResult | None = None
    """In place of a large list: where it lies."""
    started: int = 0
    """So many have been started: those of the indices below this."""
    ended: int = 0
    again: tuple[int, ...] = ()
    """The indices of those that had not completed and are to go on by a redrive, and have not been come to."""
    failed: tuple[int, ...] = ()
    """The indices of those that have not completed, in their order."""
    parts: int = 0
    """How many parts it runs as; 0: none, its items stand in this document."""
    begun_parts: int = 0
    broken_parts: tuple[int, ...] = ()
    """The numbers of those that have not completed."""
    more_failed: int = 0
    """How many items have not completed beside those in `failed`."""
    first: int = 0
    """In the run of a part: the index of its first item in the whole list."""
    at_once: int | None = None
    """In the run of a part: how many of its items run at once."""
    tolerated: int | None = None
    """In the run of a part: how many of its items may fail."""

    @property
    def failures(self) -> int:
        """How many items have not completed."""
        return len(self.failed) + self.more_failed

    @property
    def begun(self) -> range:
        """The numbers of the items that have begun; where they run as parts, of those."""
        return range(self.begun_parts) if self.parts else range(self.first, self.first + self.started)


class Slice(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of a Part: the items that it runs, how many of them at once, and how many of them may fail."""

    first: int
    count: int
    at_once: int
    tolerated: int


class NodeState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """One node's entry. Fields that are at their default do not stand in the document."""

    node_name: str
    node_type: NodeTypes
    next: str | None = None
    target_type: str | None = None
    target_name: str | None = None
    invocation: str | None = None
    """Of a CloudFunction that is called directly: `sync`."""
    leads_to: tuple[str, ...] = ()
    """Further steps that may follow, by choices or errors."""
    chosen: str | None = None
    """Of a Condition that completed: the step that it chose to follow."""
    depends_on: tuple[str, ...] = ()
    """The steps of the same graph that it waits for."""
    trigger: Triggers | None = None
    """When it starts by these, where that is not once all have completed."""
    branches: tuple[BranchState, ...] = ()
    items: Items | None = None
    """Of a Map that has started."""
    slice: Slice | None = None
    """Of a Part: which items."""
    last: str | None = None
    """Of an Item that has ended: the node that it ended at, whose result is its own."""
    status: TaskStatus
    attempt: int = 0
    """The current attempt, from 1; 0 before the first. Of a Wait 1 once it waits, of other nodes that are no Task 0."""
    losses: int = 0
    """How many attempts were lost with their hosts and started anew, which no retry rule counts."""
    failures: int = 0
    """How many attempts have failed since the step was entered and were followed by another one."""
    caught: str | None = None
    """The node whose error an `on_error` has led here from, directly or before: what `${error}` asks about."""
    execution_id: str | None = None
    """The service's id: known from an attempt's end, or from when its claim was taken over."""
    claim: Claim | None = None
    due: Mapping[str, At] = EMPTY  # type: ignore[assignment]  # a dict of times; EMPTY is shared
    """DueKind -> when: what is to happen at this node if nothing else happens before."""
    owed_cancel: OwedCancel | None = None
    goes_on: GoesOn | None = None
    """Of a Dag Task that a redrive has entered again: which child run is to go on, and in which attempt."""
    stop: Failure | None = None
    """Of a Running node: why no attempt at it is started any more; of a Parallel or Map: why nothing in it is."""
    open_branches: int = 0
    """Of a Running Parallel: how many of its branches have not ended."""
    slot: Slot | None = None
    """Of a Task with a pool: what its current attempt waits for or holds."""
    started_at: At | None = None
    ended_at: At | None = None
    result: Json = None
    stored_result: StoredResult | None = None
    """In place of a large `result`: where it lies."""
    error: Failure | None = None
    """Why it failed; of a Running node, why the attempt before did."""

    @property
    def retry_at(self) -> datetime | None:
        """When its current attempt is to be launched, where the one before failed and that is waited for."""
        return self.due.get(DueKind.RETRY.value)

    @property
    def waits_for_slot(self) -> bool:
        """Whether its current attempt waits for a slot of its pool, so that nothing of it can run."""
        return self.slot is not None and not self.slot.is_held

    @property
    def pool(self) -> str:
        """The pool whose slot its current attempt waits for or holds; empty where there is none."""
        return self.slot.queue.partition("/")[2] if self.slot is not None else ""

    @property
    def target_key(self) -> str:
        """Which Target launches it; empty for a node that is no Task."""
        return target_key(self.target_type or "", self.invocation)
