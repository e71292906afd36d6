"""What a redrive enters again, as it follows from the document alone. Pure.

In a body (the steps of a definition, a branch, a `finally`):

    a step that did not complete, and from which no route led on      is entered again
    a Parallel that did not complete                                  goes on in those of its branches that did not
    an End that says Failed, where an error led to it                 the step whose error that was is entered again
    a step that was to start, and was not come to                     is entered
    a chosen step                                                     is entered again; what holds it goes on inside

And all that the ways from there lead on to, or that depends on it, is New again: it may run, may be Skipped, and is
entered when its turn comes. So a route's steps that ran to their end are kept where the run has failed behind them, and
run again only if the step runs again that led there. A `finally` runs again after what went before it has; where only
it has failed, it goes on by the same rules.

A step that is New again keeps the number of its last attempt, and with it its place in the run: the next is another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from orchestrator.engine.ending import led_to
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, TaskStatus, Triggers
from orchestrator.model.ids import beside, instance_of, step_of
from orchestrator.model.node_state import Items, NodeState
from orchestrator.model.nodes import End, Graph, Map, Node, Parallel
from orchestrator.model.run_state import RunState

NOT_COME_TO = (TaskStatus.NEW, TaskStatus.SKIPPED)


class Plan:
    """What a redrive does, in definition order. Nodes are named as their entries in the run document.

    Attributes:
        entering: nodes that are entered, and each one's `caught`.
        again: nodes that are New again.
        opened: Parallels that go on, and the numbers of the branches in which they do.
        maps: Maps that go on, and which of their items do at once; others that did not complete do when there is room.
        items: items of Maps that go on at once.
        parts: Maps of very many items that go on, and which of their parts do, when there is room.
        is_finally: nothing but the `finally` goes on.
    """

    def __init__(self, dag: DAG, nodes: Mapping[str, NodeState], start_from: str | None = None) -> None:
        self._dag, self._nodes, self.chosen = dag, nodes, start_from
        self._holders = set(_holders(dag, nodes, start_from))
        self.entering: list[tuple[str, str | None]] = []
        self.again: list[str] = []
        self.opened: list[tuple[str, tuple[int, ...]]] = []
        self.maps: list[tuple[str, tuple[int, ...]]] = []
        self.items: list[str] = []
        self.parts: list[tuple[str, tuple[int, ...]]] = []
        self.is_finally = False

    @classmethod
    def of_run(cls, dag: DAG, state: RunState, start_from: str | None = None) -> Plan:
        """Return that of a run, from where it failed and from a chosen step."""
        plan = cls(dag, state.nodes, start_from)
        if state.run.part_of is not None:
            plan._part_goes_on(state.run.part_of.map)
            return plan
        goes_on = plan._goes_on(dag, "")
        if dag.last_steps is not None and goes_on:
            plan.again += [entry for node in dag.last_steps.nodes for entry in plan._with_inner(node, "")]
        elif dag.last_steps is not None:
            plan.is_finally = plan._goes_on(dag.last_steps, "")
        return plan

    @classmethod
    def of_item(cls, dag: DAG, nodes: Mapping[str, NodeState], name: str) -> Plan:
        """Return that of one item of a Map that had not completed."""
        plan = cls(dag, nodes)
        plan._item_goes_on(name)
        return plan

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes on."""
        return not (self.entering or self.maps or self.parts)

    def _part_goes_on(self, name: str) -> None:
        """Find where the run of a part goes on, which holds nothing but its Map."""
        place, state = self._dag.place(name), self._nodes[name]
        if not self._opens(place, name) and state.status is not TaskStatus.COMPLETED:
            self.again += self._with_inner(place, instance_of(name))
            self.entering.append((name, state.caught))

    def _item_goes_on(self, name: str) -> None:
        """Find where an item goes on; where that is nowhere, it runs again as a whole."""
        place, instance = self._dag.place(name), instance_of(name)
        self.items.append(name)
        if not isinstance(place, Map) or (name != self.chosen and self._goes_on(place.iterator, instance)):
            return
        caught = self._nodes[name].caught
        self.again += [entry for node in place.iterator.nodes for entry in self._with_inner(node, instance)]
        self.entering += [(first.node_name + instance, caught) for first in place.iterator.start_nodes]

    def _goes_on(self, graph: Graph, instance: str) -> bool:
        """Find where an instance of a graph goes on; return whether it does."""
        found, going = self._found(graph, instance)
        for node in graph.nodes:
            entry = node.node_name + instance
            if node.node_name in found:
                if self._opens(node, entry):
                    continue
                self.entering.append((entry, found[node.node_name]))
            if node.node_name in going:
                self.again += self._with_inner(node, instance)
        return bool(found)

    def _found(self, graph: Graph, instance: str) -> tuple[dict[str, str | None], set[str]]:
        """Return the steps of a graph with which it goes on, each with its `caught`; and those with all behind them."""
        awaited, causes = _awaited(graph), self._causes(graph, instance)
        found: dict[str, str | None] = {}
        going = set[str]()
        for node in graph.ordered():  # what a step waits for comes before it
            name, state = node.node_name, self._nodes[node.node_name + instance]
            if self._waits(node, awaited.get(name, ()), going, instance):
                going.add(name)
                continue
            if state.node_name == self.chosen or state.node_name in self._holders or name in causes:
                found[name] = state.caught
            elif state.status in NOT_COME_TO:
                starts, caught = self._starts(node, awaited.get(name, ()), instance)
                if starts:
                    found[name] = caught
            elif state.status is not TaskStatus.COMPLETED and not self._is_handled(node, state):
                found[name] = state.caught
            if name in found:
                going.add(name)
        return found, going

    def _causes(self, graph: Graph, instance: str) -> set[str]:
        """Return the steps whose errors have led to an End that says Failed: it is they that did not complete."""
        own = {node.node_name + instance: node.node_name for node in graph.nodes}
        ends = (self._nodes[node.node_name + instance] for node in graph.nodes if isinstance(node, End))
        return {own[end.caught] for end in ends if end.status is TaskStatus.FAILED and end.caught in own}

    def _waits(self, node: Node, awaited: Iterable[str], going: set[str], instance: str) -> bool:
        """Whether a step waits for one that goes on; what a first failure has let start does not, if that is kept."""
        if going.isdisjoint(awaited):
            return False
        if node.trigger is not Triggers.ONE_FAILED:
            return True
        return not any(name not in going and self._has_failed(name + instance) for name in node.depends_on)

    def _starts(self, node: Node, awaited: Collection[str], instance: str) -> tuple[bool, str | None]:
        """Whether a step was to start that was not come to, and what it has caught; what it waits for is kept."""
        around = node.parent_dag.parent_node
        caught = None if around is None else self._nodes[around.node_name + instance].caught
        if node.depends_on:
            failed = [name + instance for name in node.depends_on if self._has_failed(name + instance)]
            if node.trigger is Triggers.ONE_FAILED:
                return bool(failed), failed[0] if failed else None
            statuses = {self._nodes[name + instance].status for name in node.depends_on}
            return node.trigger is Triggers.ALL_DONE or statuses == {TaskStatus.COMPLETED}, caught
        if not awaited:
            return True, caught
        for name in awaited:
            following, brought = led_to(self._dag.place(name), self._nodes[name + instance])
            if following == node.node_name:
                return True, brought
        return False, None

    def _has_failed(self, entry: str) -> bool:
        return self._nodes[entry].status in (TaskStatus.FAILED, TaskStatus.CANCELLED)

    def _is_handled(self, node: Node, state: NodeState) -> bool:
        """Whether a route of a step that did not complete has led on."""
        following, _ = led_to(node, state)
        return following is not None and self._nodes[beside(state.node_name, following)].status not in NOT_COME_TO

    def _opens(self, node: Node, entry: str) -> bool:
        """Whether a Parallel or Map goes on inside; if not, it is to be entered as if for the first time."""
        state = self._nodes[entry]
        if entry == self.chosen or state.status in NOT_COME_TO:
            return False
        if isinstance(node, Parallel):
            instance = instance_of(entry)
            numbers = [number for number, branch in enumerate(node.branches) if self._goes_on(branch, instance)]
            if numbers:
                self.opened.append((entry, tuple(numbers)))
            return bool(numbers)
        items = state.items
        if not isinstance(node, Map) or items is None:
            return False
        inside = (self.chosen, *self._holders)
        at_once = tuple([index for index in items.begun if f"{entry}[{index}]" in inside])
        if items.parts:
            again = {*self._parts_to_go_on(entry, items), *at_once}
            if again or items.begun_parts < items.parts:
                self.parts.append((entry, tuple(sorted(again))))
            return bool(again) or items.begun_parts < items.parts
        if not at_once and not items.failed and items.started == items.count:
            return False
        self.maps.append((entry, at_once))
        for index in at_once:
            self._item_goes_on(f"{entry}[{index}]")
        return True

    def _parts_to_go_on(self, entry: str, items: Items) -> Iterator[int]:
        """Yield the parts that did not complete, and those with items that did not; all, where that is not known."""
        failed = iter(items.failed)
        index = next(failed, None)
        for number in range(items.begun_parts):
            part = self._nodes[f"{entry}[{number}]"]
            end = part.slice.first + part.slice.count if part.slice is not None else 0
            is_meant = part.status is not TaskStatus.COMPLETED or items.more_failed > 0
            while index is not None and index < end:
                is_meant, index = True, next(failed, None)
            if is_meant:
                yield number

    def _with_inner(self, node: Node, instance: str) -> Iterator[str]:
        """Yield the entries of a node, and of all that it holds; of a Map, of the items that had begun."""
        yield node.node_name + instance
        if isinstance(node, Parallel):
            for branch in node.branches:
                for inner in branch.nodes:
                    yield from self._with_inner(inner, instance)
        elif isinstance(node, Map):
            steps = {inner.node_name for inner in node.iterator.all_nodes} | {node.node_name}
            inside = f"{instance}["
            yield from (
                name
                for name in self._nodes
                if name[-1:] == "]" and instance_of(name).startswith(inside) and step_of(name) in steps
            )


def _holders(dag: DAG, nodes: Mapping[str, NodeState], entry: str | None) -> Iterator[str]:
    """Yield the Parallels, items and Maps around a node."""
    if entry is not None and nodes[entry].node_type in (NodeTypes.ITEM, NodeTypes.PART):
        entry = entry[: entry.rindex("[")]
        yield entry
    while entry is not None:
        around = dag.place(entry).parent_dag.parent_node
        entry = None if around is None else beside(entry, around.node_name)
        if entry is not None:
            yield entry
        if entry is not None and isinstance(around, Map):
            entry = entry[: entry.rindex("[")]
            yield entry


def _awaited(graph: Graph) -> Mapping[str, Collection[str]]:
    """Step of a graph -> the steps that it waits for, in definition order: by ways, or because it depends on them."""
    if graph.dependencies is not None:
        rank = graph.dependencies.rank
        return {name: sorted(names, key=rank.__getitem__) for name, names in graph.dependencies.awaited.items()}
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for edge in node.edges:
            found.setdefault(edge.next, []).append(node.node_name)
    return found
