"""The state of a run: what `runs/<run_id>.json` holds, as values that do not change. Pure.

In the document the run's own entry stands under `$run` and one entry a node under the node's name
(no step name can hold a `$`); in memory they are `RunState(run, nodes)`.

These values, commands and facts refer to nothing that refers back to them, and there are tens of thousands of them in a
large run: with `gc=False` the garbage collector does not go through them, which was a third of such a run's work.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated

import msgspec

from orchestrator.model.commands import EMPTY, Failure, Json, target_key
from orchestrator.model.enums import DueKind, NodeTypes, RunEvents, RunStatus, TargetTypes, TaskStatus, Triggers
from orchestrator.model.errors import CorruptState
from orchestrator.model.ids import child_run_id, launch_id_of, trace_of

FORMAT = 1
"""The document format that this code writes; it reads every format up to it."""

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


_encoder = msgspec.json.Encoder()
_run_decoder = msgspec.json.Decoder(RunInfo)
_node_decoder = msgspec.json.Decoder(NodeState)
_document_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


class DocumentEncoder:
    """Encodes the states of one run one after another; only nodes that changed since are encoded anew."""

    def __init__(self) -> None:
        self._lines: dict[str, tuple[NodeState, bytes]] = {}

    def encode(self, state: RunState) -> bytes:
        """Return the run document: JSON, one line a node, so that a person and `grep` can read it."""
        known = self._lines
        lines = [b'{"$run": ' + _encoder.encode(state.run)]
        for name, node in state.nodes.items():
            line = known.get(name)
            if line is None or line[0] is not node:
                line = known[name] = (node, b'"%s": %s' % (name.encode(), _encoder.encode(node)))
            lines.append(line[1])
        return b",\n".join(lines) + b"}\n"

    def encode_changes(self, before: RunState, state: RunState, touched: Iterable[str]) -> tuple[dict[str, bytes], int]:
        """Return the entries that differ from the run `before`, name -> JSON, and by how many bytes the document grows.

        Args:
            touched: names of the nodes of which some do.
        """
        changes: dict[str, bytes] = {}
        grown = 0
        if state.run is not before.run:
            changes["$run"] = _encoder.encode(state.run)
            grown = len(changes["$run"]) - len(_encoder.encode(before.run))
        for name in touched:
            node, was = state.nodes[name], before.nodes.get(name)
            if node is was:
                continue
            changes[name] = _encoder.encode(node)
            line = b'"%s": %s' % (name.encode(), changes[name])
            known = self._lines.get(name)
            if known is not None:
                grown -= len(known[1])
            else:
                grown += 2 if was is None else -len(_encoder.encode(was)) - len(name.encode()) - 4
            grown += len(line)
            self._lines[name] = (node, line)
        return changes, grown


def encode(state: RunState) -> bytes:
    """Return the document of one state."""
    return DocumentEncoder().encode(state)


def decode_run(data: bytes, where: str) -> RunInfo:
    """Read only the run's own entry of a run document. Raises CorruptState, as `decode` does."""
    try:
        head = _document_decoder.decode(data).get("$run")
        if head is None:
            raise CorruptState(f'{where}: has no "$run" entry; it is not a run document')
        run = _run_decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptState(f"{where}: is not a run document: {exc}") from exc
    if run.format > FORMAT:
        raise CorruptState(f"{where}: has format {run.format}; this version reads up to {FORMAT}")
    return run


def decode(data: bytes, where: str) -> RunState:
    """Read a run document.

    Args:
        data: its content.
        where: the object's name, for the error.
    Raises:
        CorruptState: it is not a run document, or of a format that this code does not know.
    """
    try:
        entries = _document_decoder.decode(data)
        head = entries.pop("$run", None)
        if head is None:
            raise CorruptState(f'{where}: has no "$run" entry; it is not a run document')
        run = _run_decoder.decode(head)
        nodes = {name: _node_decoder.decode(raw) for name, raw in entries.items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptState(f"{where}: is not a run document: {exc}") from exc
    if run.format > FORMAT:
        raise CorruptState(f"{where}: has format {run.format}; this version reads up to {FORMAT}")
    for name, node in nodes.items():
        if node.node_name != name:
            raise CorruptState(f"{where}: the entry {name!r} says that it is {node.node_name!r}")
    return RunState(run, nodes)
