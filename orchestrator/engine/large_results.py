"""Results that are too large for the run document: beside it, fetched only when an expression asks for one.

A run is written as a whole at every save, and a step's result never changes. So beyond MAX_INLINE_BYTES it lies in an
object of its own, and the document says where. That is `results/<key>.json`, as `orchestrator.tasks` writes it: what a
function has left there already is not copied. Of a node that launches nothing: `results/<key>-<hash>.json`.
"""

from contextlib import suppress
from hashlib import sha256

import msgspec
from msgspec.structs import replace

from orchestrator.engine.scope import Spoilt
from orchestrator.model.commands import Json
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import CorruptState, VersionConflict
from orchestrator.model.ids import key_of, launch_id_of
from orchestrator.model.run_state import NodeState, RunState, StoredResult
from orchestrator.model.task_result import TaskResult, decode, result_object
from orchestrator.ports import ObjectStore

MAX_INLINE_BYTES = 65_536
"""The largest JSON of a result that stands in the run document."""


class LargeResults:
    """Takes large results out of runs that are to be saved, and brings them back for a decision."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def set_aside(self, before: RunState | None, after: RunState) -> RunState:
        """Return the run as it is to be saved; its large results are durable when this returns.

        Args:
            before: as it was loaded: what did not change since is not looked at.
        Raises:
            StoreUnavailable: one cannot be written now.
        """
        old = before.nodes if before is not None else {}
        changed: dict[str, NodeState] = {}
        for name, node in after.nodes.items():
            known = old.get(name)
            if node is known or node.result is None:
                continue
            if node.stored_result is not None:  # brought back for this decision
                bare = replace(node, result=None)
                changed[name] = known if known is not None and known == bare else bare
            elif isinstance(node.result, str | list | dict):
                data = msgspec.json.encode(node.result)
                if len(data) > MAX_INLINE_BYTES:
                    changed[name] = replace(node, result=None, stored_result=self._store_one(after, node, data))
        return RunState(after.run, {**after.nodes, **changed}) if changed else after

    def brought_back(self, state: RunState, node_name: str) -> RunState:
        """Return the run with the result of this node in it, for a decision; one that is spoilt says so when asked for.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        node = state.nodes[node_name]
        try:
            result: object = self.load(node)
        except CorruptState as exc:
            result = Spoilt(str(exc))
        return RunState(state.run, {**state.nodes, node_name: replace(node, result=result)})

    def load(self, node: NodeState) -> Json:
        """Return a node's result, wherever it is.

        Raises:
            CorruptState: its object is missing, or is not what it should be.
            StoreUnavailable: it cannot be read now.
        """
        if node.stored_result is None:
            return node.result
        name = node.stored_result.object
        found = self._store.get(name)
        if found is None:
            raise CorruptState(f"{name}: is missing; it is the result of {node.node_name}")
        return decode(found[0], name).result

    def _store_one(self, state: RunState, node: NodeState, data: bytes) -> StoredResult:
        key = key_of(launch_id_of(state.run.run_id, node.node_name, node.attempt))
        if not node.attempt:  # of no launch: only what it is tells it from another of the same node
            key += f"-{sha256(data).hexdigest()[:24]}"
        name = result_object(key)
        ended_at = node.ended_at or state.run.started_at
        result = TaskResult(kind=OutcomeKind.COMPLETED, result=msgspec.Raw(data), at=ended_at)
        with suppress(VersionConflict):  # the function has left it there, or an earlier try at this save
            self._store.put(name, msgspec.json.encode(result), expect=None)
        return StoredResult(name, len(data))
