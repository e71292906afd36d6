"""Which results a decision may ask for: told from its facts and the ways of the DAG, before it is made again. Pure."""

from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache

from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, TaskStatus
from orchestrator.model.facts import Fact, RedriveRequested
from orchestrator.model.ids import beside, instance_of
from orchestrator.model.nodes import Map, Node, Parallel, Task, Wait
from orchestrator.model.run_state import RunState
from orchestrator.model.templates import asks_for, names_in


def wanted(dag: DAG, state: RunState, facts: Sequence[Fact]) -> tuple[str, ...]:
    """Return the entries whose results, or items, those may ask for that these facts may let start, each once.

    A guess, to fetch them at once: a way may not be taken, and an error found in deciding may take another.
    """
    asked = _asked(dag)
    found: dict[str, None] = {}
    for name, node in _entered(dag, state, facts):
        found.update(dict.fromkeys(_seen_from(name, step, state) for step in asked[node.node_name]))
        items = known.items if isinstance(node, Map) and (known := state.nodes.get(name)) is not None else None
        if items is not None and items.ended + len(facts) * (items.count if items.parts else 1) >= items.count:
            # Its result may be made, of those of its items.
            begun = [state.nodes[f"{name}[{index}]"] for index in items.begun]
            found.update(dict.fromkeys(each.node_name if items.parts else each.last or "" for each in begun))
    return tuple(found)


def _seen_from(name: str, step: str, state: RunState) -> str:
    """The entry that an expression of the entry `name` means by a step, or by `item`: it is in the same items."""
    instance = instance_of(name)
    while instance:
        found = state.nodes.get(step + instance)
        if found is not None and found.node_type not in (NodeTypes.ITEM, NodeTypes.PART):
            break
        instance = instance[: instance.rindex("[")]
    return step + instance


@lru_cache(maxsize=32)
def _asked(dag: DAG) -> Mapping[str, tuple[str, ...]]:
    """Step -> the steps that its expressions name; the Map that it is in, where they ask for its item."""
    found: dict[str, tuple[str, ...]] = {}
    for node in dag.all_nodes:
        graph = node.parent_dag
        steps = graph.definition["steps"] if isinstance(graph, DAG) else None
        step = steps[node.node_name] if isinstance(steps, dict) else None
        inner = ("branches", "iterator")
        own = {key: value for key, value in step.items() if key not in inner} if isinstance(step, dict) else None
        named = names_in(own, "steps")
        if graph is dag and node.is_end:  # the run's own result may be made when it has ended
            named |= names_in(dag.definition.get("result"), "steps")
        found[node.node_name] = tuple(sorted(named))
        while graph.parent_node is not None and not isinstance(graph.parent_node, Map):
            graph = graph.parent_node.parent_dag
        if graph.parent_node is not None and asks_for(own, "item"):
            found[node.node_name] += (graph.parent_node.node_name,)
    return found


def _entered(dag: DAG, state: RunState, facts: Sequence[Fact]) -> Iterator[tuple[str, Node]]:
    """Yield the nodes that may start, each with the name of its entry: those that the facts are about, again, and what
    follows up to the next Task."""
    about = [name for fact in facts if isinstance(name := getattr(fact, "node_name", None), str)]
    waiting = [(held.node, False) for held in reversed(state.run.held)]
    waiting += [(name, True) for name in reversed(dict.fromkeys(about)) if name in state.nodes]
    for fact in facts:
        if isinstance(fact, RedriveRequested):
            from orchestrator.engine.redriving import entered

            yield from ((name, dag.place(name)) for name in entered(dag, state, fact))
    if len(about) < len(facts) and dag.last_steps is not None:  # about the run: it may be at its end
        waiting.extend((first.node_name, False) for first in dag.last_steps.start_nodes)
    seen, ending = set[str](), set(about)
    while waiting:
        name, is_over = waiting.pop()
        if name in seen:
            continue
        known = state.nodes.get(name)
        if not is_over and known is not None and known.status is not TaskStatus.NEW:
            continue
        seen.add(name)
        ending.add(name)
        node = dag.place(name)
        yield name, node
        if is_over or not (isinstance(node, Task) or (isinstance(node, Wait) and node.for_s is not None)):
            waiting.extend(_following(dag, state, name, node, is_over, ending))


def _following(
    dag: DAG, state: RunState, name: str, node: Node, is_over: bool, ending: Set[str]
) -> Iterator[tuple[str, bool]]:
    """Yield what may start when a node starts that launches nothing, or is over; and whether that is over by then.

    Args:
        ending: the nodes that may be over by then.
    """

    def may_be_over(step: str) -> bool:
        other = beside(name, step)
        known = state.nodes.get(other)
        return other in ending or (known is not None and known.status.is_final)

    if isinstance(node, Parallel) and not is_over:
        starts = (first for branch in node.branches for first in branch.start_nodes)
        yield from ((beside(name, first.node_name), False) for first in starts)
    if isinstance(node, Map) and not is_over:
        yield from ((f"{first.node_name}{instance_of(name)}[0]", False) for first in node.iterator.start_nodes)
    graph = node.parent_dag
    if graph.dependencies is not None:
        followers, awaited = graph.dependencies.followers[node.node_name], graph.dependencies.awaited
        yield from ((beside(name, each), False) for each in followers if all(map(may_be_over, awaited[each])))
        if not all(may_be_over(each.node_name) for each in graph.nodes):
            return
    else:
        yield from ((beside(name, edge.next), False) for edge in node.edges)
    parent = graph.parent_node
    if isinstance(parent, Map):
        around = beside(name, parent.node_name)
        around = around[: around.rindex("[")]
        yield around, True
        items = state.nodes[around].items if around in state.nodes else None
        if items is not None and items.started < items.count:
            instance = f"{instance_of(around)}[{items.started}]"
            yield from ((first.node_name + instance, False) for first in graph.start_nodes)
    elif parent is not None:
        yield beside(name, parent.node_name), True
    elif dag.last_steps is not None and graph is not dag.last_steps:
        yield from ((first.node_name, False) for first in dag.last_steps.start_nodes)
