"""Which results a decision may ask for: told from its facts and the ways of the DAG, before it is made again. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from orchestrator.model.dag import DAG
from orchestrator.model.enums import TaskStatus
from orchestrator.model.expressions import names_in
from orchestrator.model.facts import Fact
from orchestrator.model.ids import beside
from orchestrator.model.nodes import Node, Parallel, Task, Wait
from orchestrator.model.run_state import RunState


def wanted(dag: DAG, state: RunState, facts: Sequence[Fact]) -> tuple[str, ...]:
    """Return the steps whose results the nodes name that these facts may let start, each once.

    A guess, to fetch them at once: a way may not be taken, and an error found in deciding may take another.
    """
    names = _names(dag)
    found = (names[node.node_name] for node in _entered(dag, state, facts))
    return tuple(dict.fromkeys(name for of_node in found for name in of_node))


@lru_cache(maxsize=32)
def _names(dag: DAG) -> Mapping[str, tuple[str, ...]]:
    """Node name -> the steps that the expressions of this node name."""
    found: dict[str, tuple[str, ...]] = {}
    for node in dag.all_nodes:
        graph = node.parent_dag
        steps = graph.definition["steps"] if isinstance(graph, DAG) else None
        step = steps[node.node_name] if isinstance(steps, dict) else None
        own = {key: value for key, value in step.items() if key != "branches"} if isinstance(step, dict) else None
        found[node.node_name] = tuple(sorted(names_in(own, "steps")))
    return found


def _entered(dag: DAG, state: RunState, facts: Sequence[Fact]) -> Iterator[Node]:
    """Yield the nodes that may start: those that the facts are about, again, and what follows up to the next Task."""
    about = [name for fact in facts if isinstance(name := getattr(fact, "node_name", None), str)]
    waiting = [(held.node, False) for held in reversed(state.run.held)]
    waiting += [(name, True) for name in reversed(dict.fromkeys(about)) if name in state.nodes]
    if len(about) < len(facts) and dag.last_steps is not None:  # about the run: it may be at its end
        waiting.extend((first.node_name, False) for first in dag.last_steps.start_nodes)
    seen = set[str]()
    while waiting:
        name, is_over = waiting.pop()
        if name in seen:
            continue
        if not is_over and state.nodes[name].status is not TaskStatus.NEW:
            continue
        seen.add(name)
        node = dag.place(name)
        yield node
        if is_over or not (isinstance(node, Task) or (isinstance(node, Wait) and node.for_s is not None)):
            waiting.extend(_following(dag, name, node, is_over))


def _following(dag: DAG, name: str, node: Node, is_over: bool) -> Iterator[tuple[str, bool]]:
    """Yield what may start when a node starts that launches nothing, or is over; and whether that is over by then."""
    if isinstance(node, Parallel) and not is_over:
        starts = (first for branch in node.branches for first in branch.start_nodes)
        yield from ((beside(name, first.node_name), False) for first in starts)
    graph = node.parent_dag
    if graph.dependencies is not None:
        yield from ((beside(name, other), False) for other in graph.dependencies.followers[node.node_name])
    else:
        yield from ((beside(name, edge.next), False) for edge in node.edges)
    if graph.parent_node is not None:
        yield beside(name, graph.parent_node.node_name), True
    elif dag.last_steps is not None and graph is not dag.last_steps:
        yield from ((first.node_name, False) for first in dag.last_steps.start_nodes)
