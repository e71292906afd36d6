"""DAG: the structure of a definition or of one branch, as an immutable view. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING

from orchestrator.model.commands import Json, Launch
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import InputError
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.fixed import Fixed
from orchestrator.model.ids import step_of
from orchestrator.model.node_factory import NodeFactory
from orchestrator.model.nodes import Map, Node, Parallel, Task
from orchestrator.model.templates import Template, compile_value, names_in

if TYPE_CHECKING:
    from orchestrator.model.dependencies import Dependencies


class DAG(Fixed):
    """A start node and what follows it. The definition must have passed `definition.check`.

    Attributes:
        definition: the dict that it was built from.
        parent_node: the Parallel that this is a branch of, or the Map whose iterator; None for a whole definition.
        start_nodes: where it starts: its `start`; where it has none, all steps that neither depend on others nor have
            a way to them.
        start_node: the first of these.
        nodes: its own nodes, in definition order; not those inside of branches.
        tasks: those of them that are Tasks.
        result: the template of a run's result; None where that is its last step's.
        timeout_s: how long a run of it may take, in seconds, or None.
        deadline_s: so long after the time that a run is for, or after its start, it should have ended; or None.
        last_steps: the DAG of its `finally`, which runs however its own steps end; or None.
        all_nodes: its nodes and those of all branches and iterators, a Parallel or Map before what is inside of it;
            those of `last_steps`.
        first_nodes: those of them that have an entry as soon as a run, branch or item of it has begun: all but those of
            iterators.
        all_tasks: those of them that are Tasks.
        by_name: node name -> Node, over `all_nodes`.
    """

    def __init__(
        self,
        definition: Mapping[str, Json],
        parent_node: Parallel | Map | None = None,
        *,
        statuses: Mapping[str, TaskStatus] | None = None,
        executions: Mapping[str, ExecutionRecord] | None = None,
    ) -> None:
        steps = definition["steps"]
        if not isinstance(steps, dict):
            raise TypeError("steps: is no object")
        self.definition = definition
        self.parent_node = parent_node
        self._statuses = statuses or {}
        self._executions = executions or {}
        nodes: list[Node] = []
        for name, step in steps.items():  # a loop, not a comprehension: a frame less for each level of nesting
            nodes.append(NodeFactory.create_node({"node_name": name, **step}, self))
        self.nodes: tuple[Node, ...] = tuple(nodes)
        own = {node.node_name: node for node in self.nodes}
        start = definition.get("start")
        self.start_nodes: tuple[Node, ...] = (own[str(start)],) if start is not None else self._entries()
        self.start_node = self.start_nodes[0]
        self.tasks = tuple(node for node in self.nodes if isinstance(node, Task))
        self.result: Template | None = compile_value(definition["result"]) if "result" in definition else None
        timeout, last = definition.get("timeout"), definition.get("finally")
        self.timeout_s = None if timeout is None else parse_duration(str(timeout))
        deadline = definition.get("deadline")
        self.deadline_s = None if deadline is None else parse_duration(str(deadline))
        self.last_steps: DAG | None = (
            DAG(last, statuses=statuses, executions=executions) if isinstance(last, dict) else None
        )

    def _entries(self) -> tuple[Node, ...]:
        """The nodes that wait for nothing."""
        led_to = {edge.next for node in self.nodes for edge in node.edges}
        return tuple(node for node in self.nodes if not node.depends_on and node.node_name not in led_to)

    @cached_property
    def dependencies(self) -> Dependencies | None:
        """What waits for what among its own nodes; None where none of them depends on others."""
        if not any(node.depends_on for node in self.nodes):
            return None
        from orchestrator.model.dependencies import Dependencies  # only where there are some

        return Dependencies({n.node_name: ([edge.next for edge in n.edges], n.depends_on) for n in self.nodes})

    @property
    def owner(self) -> str | None:
        """Who answers for it, if its definition says so."""
        owner = self.definition.get("owner")
        return owner if isinstance(owner, str) else None

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find its runs by."""
        tags = self.definition.get("tags")
        return tuple(str(tag) for tag in tags) if isinstance(tags, list) else ()

    @property
    def max_active_runs(self) -> int | None:
        """How many of its runs may be under way at once; None where nothing limits that."""
        most = self.definition.get("max_active_runs")
        return most if isinstance(most, int) else None

    @property
    def priority(self) -> int:
        """Which of the runs that wait comes first: the highest."""
        priority = self.definition.get("priority")
        return priority if isinstance(priority, int) else 0

    @cached_property
    def pools(self) -> frozenset[str]:
        """Names of the pools that its Tasks name."""
        return frozenset(task.pool for task in self.all_tasks if task.pool is not None)

    @cached_property
    def all_nodes(self) -> tuple[Node, ...]:
        """In definition order."""
        found: list[Node] = []
        for node in self.nodes:
            found.append(node)
            for graph in node.graphs:
                found.extend(graph.all_nodes)
        if self.last_steps is not None:
            found.extend(self.last_steps.all_nodes)
        return tuple(found)

    @cached_property
    def first_nodes(self) -> tuple[Node, ...]:
        """In definition order."""
        found: list[Node] = []
        for node in self.nodes:
            found.append(node)
            if isinstance(node, Parallel):
                for branch in node.branches:
                    found.extend(branch.first_nodes)
        if self.last_steps is not None:
            found.extend(self.last_steps.first_nodes)
        return tuple(found)

    @cached_property
    def all_tasks(self) -> tuple[Task, ...]:
        """In definition order."""
        return tuple(node for node in self.all_nodes if isinstance(node, Task))

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Node name -> Node, branches included."""
        return {node.node_name: node for node in self.all_nodes}

    def place(self, name: str) -> Node:
        """The node of an entry of the run document, by its name there: `Step`, of items `Step[7]`, `Step[7][3]`.

        Raises:
            KeyError: there is none.
        """
        found = self.by_name.get(name)
        return found if found is not None else self.by_name[step_of(name)]

    def find_place(self, name: str) -> Node | None:
        """As `place`, but None where there is none."""
        return self.by_name.get(name) or self.by_name.get(step_of(name))

    @cached_property
    def variables(self) -> frozenset[str]:
        """Names of the variables of its environment that its expressions ask for."""
        asking = [self.definition.get(key) for key in ("steps", "finally", "result", "triggers")]
        return names_in(asking, "var")

    def init(self) -> tuple[Launch, ...]:
        """Return the commands that start this DAG: those of the nodes that it starts with."""
        launches: list[Launch] = []
        for node in self.start_nodes:  # a loop, not a comprehension: a frame less for each level of nesting
            launches.extend(node.execute())
        return tuple(launches)

    def ordered(self) -> tuple[Node, ...]:
        """Its own nodes, each before those that it leads to or that depend on it, else in the order of the ways."""
        own = {node.node_name: node for node in self.nodes}
        onwards = {node.node_name: [edge.next for edge in node.edges] for node in self.nodes}
        for node in self.nodes:
            for name in node.depends_on:
                onwards[name].append(node.node_name)
        left = dict.fromkeys(own, 0)
        for names in onwards.values():
            for name in names:
                left[name] += 1
        found: list[Node] = []
        waiting = list(reversed(self.start_nodes))
        while waiting:  # Kahn 1962, depth first, so that a branch of the ways stays together
            node = waiting.pop()
            found.append(node)
            for name in reversed(onwards[node.node_name]):
                left[name] -= 1
                if not left[name]:
                    waiting.append(own[name])
        return tuple(found)

    def branch(self, definition: Mapping[str, Json], parent_node: Parallel | Map) -> DAG:
        """Return a branch of this DAG, or an iterator, which shares its view of the run."""
        return DAG(definition, parent_node, statuses=self._statuses, executions=self._executions)

    def get_node_with_task(self, name: str) -> Node:
        """Return the node called `name`, else the one Task whose target_name it is.

        Raises:
            InputError: there is none, or several Tasks have that target_name.
        """
        if name in self.by_name:
            return self.by_name[name]
        having = [task for task in self.all_tasks if task.target_name == name]
        if len(having) == 1:
            return having[0]
        if having:
            names = ", ".join(task.node_name for task in having)
            raise InputError(f'"{name}" is ambiguous: the target of {names}; name one of these steps')
        near = get_close_matches(name, [*self.by_name, *(task.target_name for task in self.all_tasks)], 1)
        hint = f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(self.by_name)}"
        raise InputError(f'no step and no target is called "{name}"{hint}')

    def status_of(self, node_name: str) -> TaskStatus:
        """Status of a node in the run that this was built for; New without one."""
        return self._statuses.get(node_name, TaskStatus.NEW)

    def execution_of(self, node_name: str) -> ExecutionRecord | None:
        """Execution record of a node, if this was built with them."""
        return self._executions.get(node_name)
