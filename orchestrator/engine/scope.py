"""What the expressions of a definition can see of a run. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.model.commands import Json
from orchestrator.model.enums import NodeTypes, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.ids import instance_of
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo


class ResultNeeded(Exception):
    """A decision needs the result of this node, which lies beside the run document."""

    def __init__(self, node_name: str) -> None:
        self.node_name = node_name
        super().__init__(node_name)


@dataclass(frozen=True, slots=True)
class Spoilt:
    """In place of a result that cannot be brought back; why."""

    message: str


class _Stored(Mapping[str, Json]):
    """A step whose result lies beside the run document."""

    def __init__(self, node: NodeState, status: Mapping[str, Json]) -> None:
        self._node, self._status = node, status

    def __getitem__(self, key: str) -> Json:
        if key != "result":
            return self._status[key]
        if isinstance(self._node.result, Spoilt):
            raise ExpressionError(self._node.result.message)
        raise ResultNeeded(self._node.node_name)

    def __iter__(self) -> Iterator[str]:
        return iter(("result", *self._status))

    def __len__(self) -> int:
        return 1 + len(self._status)


class Steps(Mapping[str, Mapping[str, Json]]):
    """`steps` of a scope: name -> result and status, made only for the names that are asked for."""

    def __init__(self, nodes: Mapping[str, NodeState]) -> None:
        self._nodes = nodes

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        node = self._nodes[name]
        # Only what comes before may be asked about: a step that is New by then was not come by.
        told = TaskStatus.SKIPPED if node.status is TaskStatus.NEW else node.status
        status: dict[str, Json] = {"status": told.value}
        if node.status is not TaskStatus.COMPLETED:
            return status
        if node.stored_result is not None and (node.result is None or isinstance(node.result, Spoilt)):
            return _Stored(node, status)
        return {"result": node.result, **status}

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)


class _StepsOfItem(Steps):
    """Those that a step in an item can ask about: of its own item, of items around that, of none."""

    def __init__(self, nodes: Mapping[str, NodeState], instance: str) -> None:
        super().__init__(nodes)
        self._instance = instance

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        instance = self._instance
        while True:
            node = self._nodes.get(name + instance)
            if node is not None and node.node_type not in (NodeTypes.ITEM, NodeTypes.PART):
                return super().__getitem__(name + instance)
            if not instance:
                raise KeyError(name)
            instance = instance[: instance.rindex("[")]


class _ScopeOfItem(dict[str, object]):
    """A scope whose `item` lies beside the run document."""

    def __init__(self, scope: Mapping[str, object], map_name: str, value: object) -> None:
        super().__init__(scope)
        self._map_name, self._value = map_name, value

    def __missing__(self, key: str) -> object:
        if key != "item":
            raise KeyError(key)
        if isinstance(self._value, Spoilt):
            raise ExpressionError(self._value.message)
        raise ResultNeeded(self._map_name)

    def __contains__(self, key: object) -> bool:
        return key == "item" or super().__contains__(key)


def scope_of(run: RunInfo, nodes: Mapping[str, NodeState], node: NodeState | None) -> Mapping[str, object]:
    """Return what the expressions of a node can see; with None, those of the run's own `result`.

    `run`: `run_id dag input started_at scheduled_for status`; `scheduled_for` is null in a run that no schedule
    started, `status` is Running and, for a `finally`, how the run will end. `steps`: of each step its `status`, and its
    `result` if it completed; one that lies beside the document raises ResultNeeded. `var`: the variables of the run.
    `error`: what an `on_error` has caught that led here; for a `finally`, the run's.
    """
    catching = node.caught if node is not None else None
    caught = nodes[catching].error if catching is not None else None
    ending, seen = (run.ending, run) if run.part_of is None else (run.part_of.ending, run.part_of)
    if caught is None and ending is not None:
        caught = ending.error
    error: dict[str, Json] = {}
    if caught is not None:
        error = {"type": caught.error_type, "message": caught.message, "node": caught.node or catching or ""}
    elif ending is not None:
        error = {"type": "", "message": "", "node": ""}  # a finally is written for runs of all kinds
    return {
        "run": {
            "run_id": seen.run_id,
            "dag": run.dag,
            "input": run.input,
            "status": (ending or run).status.value,
            "started_at": seen.started_at.isoformat().replace("+00:00", "Z"),
            "scheduled_for": run.scheduled_for and run.scheduled_for.isoformat().replace("+00:00", "Z"),
        },
        "steps": Steps(nodes),
        "var": run.variables,
        "error": error,
    }


def scope_of_item(
    run: RunInfo, nodes: Mapping[str, NodeState], node: NodeState, around: NodeState
) -> Mapping[str, object]:
    """Return what the expressions of a node can see that is in an item of the Map whose entry is `around`.

    As of `scope_of`, and `item` and `index`; an item that lies beside the document raises ResultNeeded.
    """
    scope = dict(scope_of(run, nodes, node))
    instance = instance_of(node.node_name)
    scope["steps"] = _StepsOfItem(nodes, instance)
    values = around.items.values if around.items is not None else None
    scope["index"] = index = int(instance[instance.rindex("[") + 1 : -1])
    first = around.items.first if around.items is not None else 0
    if not isinstance(values, list):
        return _ScopeOfItem(scope, around.node_name, values)
    scope["item"] = values[index - first]
    return scope
