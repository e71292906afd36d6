"""Results that are too large for the run document: beside it, fetched only when an expression asks for one.

A run is written as a whole at every save, and a step's result never changes. So beyond MAX_INLINE_BYTES it lies in an
object of its own, and the document says where. That is `results/<key>.json`, as `orchestrator.tasks` writes it: what a
function has left there already is not copied. Of a node that launches nothing, and where a function has left something
else: `results/<key>-<hash>.json`.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from orchestrator.engine.scope import Spoilt
from orchestrator.model.commands import Json
from orchestrator.model.enums import NodeTypes, OutcomeKind, TaskStatus
from orchestrator.model.errors import CorruptState, VersionConflict
from orchestrator.model.ids import key_of, launch_id_of
from orchestrator.model.node_state import NodeState, StoredResult
from orchestrator.model.run_state import RunInfo, RunState, run_result
from orchestrator.model.task_result import TaskResult, decode, result_object
from orchestrator.ports import ObjectStore

MAX_INLINE_BYTES = 65_536
"""The largest JSON of a result that stands in the run document."""
MAX_PART_BYTES = 1024
"""Likewise of a part of a Map, of which there may be many."""
MAX_AHEAD_BYTES = 32 * 2**20
"""How large the results may be together that are fetched at once because a decision may ask for them."""

RUN_ENTRY = "$run"
"""In place of a node's name: what is the run's own."""

T = TypeVar("T")
R = TypeVar("R")


class SideBySide(Protocol):
    """Calls a function for each of several things, maybe on threads; what it returns is in their order."""

    def __call__(self, ask: Callable[[T], R], things: Sequence[T], /) -> list[R]: ...


def one_by_one(ask: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """SideBySide without threads."""
    return [ask(thing) for thing in things]


class LargeResults:
    """Takes large results out of runs that are to be saved, and brings them back for a decision.

    Args:
        side_by_side: calls the store for several of them.
    """

    def __init__(self, store: ObjectStore, side_by_side: SideBySide = one_by_one) -> None:
        self._store, self._side_by_side = store, side_by_side
        self._kept: tuple[str, Json] | None = None

    def set_aside(self, before: RunState | None, after: RunState, touched: Iterable[str] | None = None) -> RunState:
        """Return the run as it is to be saved; its large results are durable when this returns.

        Args:
            before: as it was loaded: what did not change since is not looked at.
            touched: names of the nodes that may have changed; None: all.
        Raises:
            StoreUnavailable: one cannot be written now.
        """
        old = before.nodes if before is not None else {}
        changed: dict[str, NodeState] = {}
        large: list[tuple[NodeState, bytes]] = []
        for name in after.nodes if touched is None else touched:
            known, node = old.get(name), after.nodes[name]
            if node is known:
                continue
            if node.items is not None and node.items.values is not None:
                node = changed[name] = self._without_items(after, node, known)
            if node.result is None:
                continue
            if node.stored_result is not None:  # brought back for this decision
                bare = replace(node, result=None)
                changed[name] = known if known is not None and known == bare else bare
            elif isinstance(node.result, str | list | dict):
                data = msgspec.json.encode(node.result)
                if len(data) > (MAX_INLINE_BYTES if node.node_type is not NodeTypes.PART else MAX_PART_BYTES):
                    large.append((node, data))
        stored = self._side_by_side(lambda each: self._store_one(after, each[0], each[0].result, each[1]), large)
        for (node, _), where in zip(large, stored, strict=True):
            changed[node.node_name] = replace(node, result=None, stored_result=where)
        run = self._run_set_aside(before, after.run)
        return RunState(run, {**after.nodes, **changed}) if changed or run is not after.run else after

    def _run_set_aside(self, before: RunState | None, run: RunInfo) -> RunInfo:
        """Return the run's own entry without its result, if that is large."""
        if not isinstance(run.result, str | list | dict) or (before is not None and before.run.result is run.result):
            return run
        data = msgspec.json.encode(run.result)
        if len(data) <= MAX_INLINE_BYTES:
            return run
        name = result_object(f"{key_of(launch_id_of(run.run_id, RUN_ENTRY, 0))}-{sha256(data).hexdigest()[:24]}")
        result = TaskResult(kind=OutcomeKind.COMPLETED, result=msgspec.Raw(data), at=run.ended_at or run.started_at)
        if not self._holds(name, msgspec.json.encode(result), run.result):
            raise CorruptState(f"{name}: is not the result of run {run.run_id}, after which it is named; delete it")
        return replace(run, result=None, stored_result=StoredResult(name, len(data)))

    def _without_items(self, state: RunState, node: NodeState, known: NodeState | None) -> NodeState:
        """Return the entry of a Map without a list of items that is too large for the document."""
        items = node.items
        if items is None or (known is not None and known.items is not None and known.items.values is items.values):
            return node
        stored = items.stored
        if stored is None:
            data = msgspec.json.encode(items.values)
            if len(data) <= MAX_INLINE_BYTES:
                return node
            stored = self._store_one(state, node, items.values, data)
        return replace(node, items=replace(items, values=None, stored=stored))

    def brought_back(self, state: RunState, needed: str, ahead: Iterable[str] = ()) -> RunState:
        """Return the run with the result of a node in it, for a decision; one that is spoilt says so when asked for.

        Args:
            needed: the node's name.
            ahead: nodes whose results are brought back with it if they lie beside the document, up to MAX_AHEAD_BYTES.
        Raises:
            StoreUnavailable: one cannot be read now.
        """
        nodes, left = [state.nodes[needed]], MAX_AHEAD_BYTES
        for name in ahead:
            node = state.nodes.get(name)
            where = _missing(node) if node is not None else None
            if name == needed or node is None or where is None:
                continue
            left -= where.size_bytes
            if left < 0:
                break
            nodes.append(node)
        return RunState(state.run, {**state.nodes, **dict(self._side_by_side(self._brought_back, nodes))})

    def _brought_back(self, node: NodeState) -> tuple[str, NodeState]:
        items = node.items if _may_need_items(node) else None
        if items is not None:
            node = replace(node, items=replace(items, values=self._or_spoilt(self.items_of, node)))
        if node.status is TaskStatus.RUNNING and items is not None:
            return node.node_name, node
        return node.node_name, replace(node, result=self._or_spoilt(self.load, node))

    def _or_spoilt(self, read: Callable[[NodeState], Json], node: NodeState) -> object:
        try:
            return read(node)
        except CorruptState as exc:
            return Spoilt(str(exc))

    def load(self, node: NodeState) -> Json:
        """Return a node's result, wherever it is.

        Raises:
            CorruptState: its object is missing, or is not what it should be.
            StoreUnavailable: it cannot be read now.
        """
        return node.result if node.stored_result is None else self._read(node.stored_result, node.node_name)

    def items_of(self, entry: NodeState) -> Json:
        """Return the list of a Map, wherever it is; raises as `load` does. One list is kept: it never changes."""
        items = entry.items
        if items is None or items.stored is None:
            return items.values if items is not None else None
        name, kept = items.stored.object, self._kept
        if kept is None or kept[0] != name:
            kept = (name, self._read(items.stored, entry.node_name, "the items"))
            self._kept = kept if items.stored.size_bytes <= MAX_AHEAD_BYTES else None
        return kept[1]

    def load_run(self, state: RunState) -> Json:
        """Return a run's own result, wherever it is; raises as `load` does."""
        result, stored = run_result(state)
        return result if stored is None else self._read(stored, f"run {state.run.run_id}")

    def _read(self, stored: StoredResult, whose: str, what: str = "the result") -> Json:
        name = stored.object
        found = self._store.get(name)
        if found is None:
            raise CorruptState(f"{name}: is missing; it is {what} of {whose}")
        result = decode(found[0], name)
        if result.kind is not OutcomeKind.COMPLETED or result.result is None:
            held = "no result" if result.result is None else "a result"
            raise CorruptState(
                f"{name}: is {result.kind} with {held}; it is to be {what} of {whose}, which has completed"
            )
        return result.result

    def _store_one(self, state: RunState, node: NodeState, value: Json, data: bytes) -> StoredResult:
        key = key_of(launch_id_of(state.run.run_id, node.node_name, node.attempt))
        own = f"{key}-{sha256(data).hexdigest()[:24]}"
        result = TaskResult(
            kind=OutcomeKind.COMPLETED, result=msgspec.Raw(data), at=node.ended_at or state.run.started_at
        )
        document = msgspec.json.encode(result)
        # Of no launch: only what it is tells it from another of the same node.
        for name in (result_object(key), result_object(own)) if node.attempt else (result_object(own),):
            if self._holds(name, document, value):
                return StoredResult(name, len(data))
        raise CorruptState(f"{name}: is not the result of {node.node_name}, after which it is named; delete it")

    def _holds(self, name: str, document: bytes, value: Json) -> bool:
        """Write a result that is not there yet; return whether it is what is there."""
        try:
            self._store.put(name, document, expect=None)
        except VersionConflict:  # the function has left it there, or an earlier try at this save
            found = self._store.get(name)
            if found is None:
                raise
            if found[0] == document:
                return True
            try:
                left = decode(found[0], name)
            except CorruptState:
                return False
            return left.kind is OutcomeKind.COMPLETED and left.result == value
        return True


def _may_need_items(node: NodeState) -> bool:
    """Whether the list of a Map may be asked for: of one that runs, and of one that a redrive lets go on."""
    items = node.items
    return items is not None and (node.status is TaskStatus.RUNNING or items.stored is not None)


def _missing(node: NodeState) -> StoredResult | None:
    """Where what a decision may need of a node lies, if it is not in it."""
    if node.items is not None and node.status is TaskStatus.RUNNING:
        return node.items.stored if node.items.values is None else None
    return node.stored_result if node.result is None else None
