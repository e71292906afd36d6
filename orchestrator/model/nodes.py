"""Nodes: the places of a DAG's graph, as immutable views of the steps that an author wrote. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, Protocol

from orchestrator.model.commands import EMPTY, Json, Launch, target_key
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import DataflowTemplateType, NodeTypes, TargetTypes, TaskStatus, Triggers
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.expressions import Scope, compile_condition
from orchestrator.model.fixed import Fixed
from orchestrator.model.rules import retry_rules, routes
from orchestrator.model.templates import compile_value, names_in

if TYPE_CHECKING:
    from orchestrator.model.dependencies import Dependencies


class Graph(Protocol):
    """What a node knows of the DAG or branch around it (`dag.DAG` is one)."""

    @property
    def parent_node(self) -> Parallel | Map | None:
        """The Parallel that this is a branch of, or the Map whose iterator it is."""

    @property
    def start_node(self) -> Node:
        """Where it starts: the first of `start_nodes`."""

    @property
    def start_nodes(self) -> tuple[Node, ...]:
        """All nodes that it starts with, in definition order."""

    @property
    def dependencies(self) -> Dependencies | None:
        """What waits for what in it; None where no step depends on others, and so one way alone goes through it."""

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its own nodes, in definition order."""

    @property
    def all_nodes(self) -> tuple[Node, ...]:
        """Its nodes and those of all branches and iterators, in definition order."""

    @property
    def first_nodes(self) -> tuple[Node, ...]:
        """Those of them that have an entry as soon as it has begun: not those of iterators."""

    def init(self) -> tuple[Launch, ...]:
        """The commands that start it."""

    def ordered(self) -> tuple[Node, ...]:
        """Its own nodes, each before those that its ways lead to."""

    def branch(self, definition: Mapping[str, Json], parent_node: Parallel | Map) -> Graph:
        """A branch of it, or an iterator."""

    def status_of(self, node_name: str) -> TaskStatus:
        """Status of a node in the run that it was built for."""

    def execution_of(self, node_name: str) -> ExecutionRecord | None:
        """Execution record of a node, if it was built with them."""


class Edge(NamedTuple):
    """A way from a step to another one of the same `steps`.

    Attributes:
        next: the name of the step that it leads to.
        label: when it is taken, in words for people; empty: whenever the step completes.
        is_error: it is taken by an error.
    """

    next: str
    label: str = ""
    is_error: bool = False


class Node(Fixed):
    """What all node types share. A new type overrides `execute`, and `edges` if it has ways of its own.

    Attributes:
        node_name: unique over the whole definition, branches included.
        next: name of the step after this one, in the same `steps`; None where no one step is.
        routes: where its errors lead.
        depends_on: names of the steps, of the same `steps`, that it waits for.
        trigger: when it starts by these.
        parent_dag: the DAG, branch or iterator that this node is a step of.
    """

    node_type: NodeTypes

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        self.node_name = str(step["node_name"])
        following = step.get("next")
        self.next = None if following is None else str(following)
        self.routes = routes(step.get("on_error"))
        names = step.get("depends_on")
        self.depends_on = tuple(map(str, names)) if isinstance(names, list) else ()
        self.trigger = Triggers(str(step.get("trigger") or Triggers.ALL_COMPLETED.value))
        self.parent_dag = parent_dag

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """The graphs inside of it."""
        return ()

    @property
    def is_end(self) -> bool:
        """Whether nothing follows in this DAG or branch."""
        dependencies = self.parent_dag.dependencies
        return not self.edges and (dependencies is None or not dependencies.followers[self.node_name])

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All ways that lead on from here, in the author's order."""
        own = () if self.next is None else (Edge(self.next),)
        return own + tuple(Edge(route.next, ", ".join(route.errors), True) for route in self.routes)

    @property
    def status(self) -> TaskStatus:
        """Status in the run that the DAG was built for; New without one."""
        return self.parent_dag.status_of(self.node_name)

    def execute(self) -> tuple[Launch, ...]:
        """Return the commands that start this node; nothing is done by asking. None, where nothing is launched."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.node_name!r})"


class Task(Node):
    """A step that launches something at a target.

    Attributes:
        target_type: where (`CloudFunction`, `Dataflow`, `Function`, …).
        target_name: what: the function's or the template's name; of a Function, its callable; of a Callback that names
            nobody, the step itself.
        parameters: as the author wrote them, expressions unresolved.
        function: `package.module:callable` of a Function, entry point of a CloudFunction, or None.
        target_key: which Target launches it: its type, or `CloudFunction.sync`.
        secrets: names of the secrets that its parameters hold.
        timeout_s: the author's timeout in seconds, or None.
        pool: the pool that each attempt takes a slot of, or None.
        heartbeat_s: how long an attempt may be silent, in seconds; None: for ever.
        retry: after which errors it is tried again.
        execution: the record of the current attempt's execution, if the DAG was built with one.
    """

    node_type = NodeTypes.TASK

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        function, timeout, heartbeat = step.get("function"), step.get("timeout"), step.get("heartbeat")
        parameters = step.get("parameters")
        self.target_type = TargetTypes(str(step["target_type"]))
        self.target_name = str(step.get("target_name") or function or self.node_name)
        self.parameters: Mapping[str, Json] = parameters if isinstance(parameters, dict) else EMPTY
        self.function = None if function is None else str(function)
        self.target_key = target_key(self.target_type.value, step.get("invocation"))
        self.timeout_s = None if timeout is None else parse_duration(str(timeout))
        pool = step.get("pool")
        self.pool = None if pool is None else str(pool)
        self.heartbeat_s = None if heartbeat is None else parse_duration(str(heartbeat))
        self.retry = retry_rules(step.get("retry"))
        self.template = compile_value(self.parameters)
        named = frozenset() if self.template.is_constant else names_in(self.parameters, "secret")
        self.secrets = tuple(sorted(named))
        own = {key: value for key, value in step.items() if key not in _SHARED_KEYS}
        self._launch = Launch(self.node_name, self.target_type.value, self.target_name, self.parameters, own or EMPTY)

    @property
    def template_type(self) -> DataflowTemplateType | None:
        """Of a Dataflow step: which kind of template it names, if it names one."""
        if self.target_type is not TargetTypes.DATAFLOW:
            return None
        if "container_gcs_path" in self._launch.step:
            return DataflowTemplateType.FLEX
        if "template_path" in self._launch.step:
            return DataflowTemplateType.CLASSIC
        return None

    @property
    def execution(self) -> ExecutionRecord | None:
        """The execution record of the run that the DAG was built for, if it was built with them."""
        return self.parent_dag.execution_of(self.node_name)

    def execute(self) -> tuple[Launch, ...]:
        """One Launch, still without the run's part."""
        return (self._launch,)


class Parallel(Node):
    """A step of several branches that start at once and end together.

    Attributes:
        branches: one DAG each, in definition order.
        numbers: name of the node that a branch starts at -> which branch that is, from 0.
        stops_on_failure: whether a branch that fails stops the others.
    """

    node_type = NodeTypes.PARALLEL

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        self.stops_on_failure = step.get("on_failure") == "stop"
        branches = step["branches"]
        if not isinstance(branches, list):
            raise TypeError(f"{self.node_name}.branches: is no list")
        graphs: list[Graph] = []
        for branch in branches:  # loops, not comprehensions: a frame less for each level of nesting
            graphs.append(parent_dag.branch(branch, self))
        self.branches: tuple[Graph, ...] = tuple(graphs)
        self.numbers = {graph.start_node.node_name: number for number, graph in enumerate(graphs)}

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Its branches."""
        return self.branches

    def execute(self) -> tuple[Launch, ...]:
        """What starts the first node of each branch, at any depth."""
        launches: list[Launch] = []
        for branch in self.branches:
            launches.extend(branch.init())
        return tuple(launches)


class Map(Node):
    """A step that runs its iterator once for each item of a list, and ends when all items have.

    Attributes:
        items: the template of the list.
        words: what its author wrote for that, as far as it is short.
        iterator: the DAG that each item runs.
        max_concurrency: how many items run at once.
        stops_on_failure: whether one failure too many stops the other items.
    """

    node_type = NodeTypes.MAP

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        items, iterator, most = step["items"], step["iterator"], step.get("max_concurrency")
        if not isinstance(iterator, dict):
            raise TypeError(f"{self.node_name}.iterator: is no object")
        self.items = compile_value(items)
        self.words = items if isinstance(items, str) else "its list"
        self.max_concurrency = most if isinstance(most, int) else MAX_CONCURRENCY
        self.stops_on_failure = step.get("on_failure") == "stop"
        self._tolerated = step.get("tolerated_failures")
        self.iterator: Graph = parent_dag.branch(iterator, self)

    @property
    def graphs(self) -> tuple[Graph, ...]:
        """Its iterator."""
        return (self.iterator,)

    @cached_property
    def part(self) -> Task:
        """What stands for its parts, which are child runs."""
        step = {"node_name": self.node_name, "type": "Task", "target_type": "Dag", "target_name": "part", "part": True}
        return Task(step, self.parent_dag)

    def tolerates(self, count: int) -> int:
        """How many items of so many may fail without it failing; a share is rounded down."""
        if isinstance(self._tolerated, str):
            return int(count * Fraction(self._tolerated.removesuffix("%")) / 100)
        return self._tolerated if isinstance(self._tolerated, int) else 0

    def execute(self) -> tuple[Launch, ...]:
        """None: how many items there are is known only when it starts."""
        return ()


MAX_CONCURRENCY = 10
"""How many items of a Map run at once whose author says nothing of that."""


class Choice(NamedTuple):
    """One choice of a Condition: where it goes on if `when` is true."""

    when: str
    holds: Callable[[Scope], bool]
    next: str


class Condition(Node):
    """A step that chooses what follows: the first choice that holds, else `default`.

    Attributes:
        choices: in the author's order.
        default: what follows where none holds; without one that is an error.
    """

    node_type = NodeTypes.CONDITION

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        found, default = step["choices"], step.get("default")
        choices = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
        self.choices = tuple(
            Choice(str(each["when"]), compile_condition(str(each["when"])), str(each["next"])) for each in choices
        )
        self.default = None if default is None else str(default)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Its choices, its default, and where its errors lead."""
        own = tuple(Edge(choice.next, choice.when) for choice in self.choices)
        return own + ((Edge(self.default, "else"),) if self.default is not None else ()) + super().edges


class Wait(Node):
    """A step that completes at a time, or so long after it was entered.

    Attributes:
        for_s: how long it waits, in seconds; None where it waits until a time.
        until: the template of the time, RFC 3339.
        words: how long or until when, as the author wrote it.
    """

    node_type = NodeTypes.WAIT

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        for_ = step.get("for")
        self.for_s = None if for_ is None else parse_duration(str(for_))
        self.until = compile_value(step.get("until"))
        self.words = str(for_) if for_ is not None else f"until {step.get('until')}"


class Pass(Node):
    """A step that completes at once, with a result that it makes of others'.

    Attributes:
        result: the template of its result.
    """

    node_type = NodeTypes.PASS

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        self.result = compile_value(step.get("result"))


class End(Node):
    """A step at which a DAG or branch ends, as it says.

    Attributes:
        ends_as: Completed or Failed.
        error: the template of the error that it fails with: its `type` and `message`.
    """

    node_type = NodeTypes.END

    def __init__(self, step: Mapping[str, Json], parent_dag: Graph) -> None:
        super().__init__(step, parent_dag)
        self.ends_as = TaskStatus(str(step.get("status") or TaskStatus.COMPLETED.value))
        self.error = compile_value(step.get("error"))


_SHARED_KEYS = frozenset(
    (
        *("node_name", "type", "next", "end", "depends_on", "trigger", "retry", "on_error"),
        *("target_type", "target_name", "parameters", "pool"),
    )
)
"""Keys that a Launch carries in fields of its own, or that are none of the target's business."""
