"""In which order it is told what happened to the nodes of a run in one instant: as one followed from another. Pure.

A way is told step by step, each with its start and then its end; a Parallel, a Map and an item begin before what is in
them, and end after it.
"""

from collections.abc import Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush

from orchestrator.cli.board import dependants_of, members_of
from orchestrator.model.enums import NodeTypes
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState

Places = Mapping[str, tuple[int, int]]
"""Name of a node -> the places of its start and of its end."""


def places(state: RunState) -> Places:
    """Return the places of all that can happen to the nodes of a run."""
    inside = _inside(state)
    contained = {name for groups in inside.values() for group in groups for name in group}
    found: dict[str, tuple[int, int]] = {}
    count = 0

    def place(names: Sequence[str]) -> None:
        nonlocal count
        for name in _as_they_follow(state.nodes, names):
            if name in found:
                continue
            start = count = count + 1
            found[name] = (start, start)
            for group in inside.get(name, ()):
                place(group)
            count += 1
            found[name] = (start, count)

    place([name for name in state.nodes if name not in contained])
    place(list(state.nodes))  # what a spoilt document leaves over
    return found


def _inside(state: RunState) -> Mapping[str, list[list[str]]]:
    """Return the names of what is in each node, by branches or items."""
    dependants = dependants_of(state)
    found: dict[str, list[list[str]]] = {}
    in_branches: set[str] = set()
    for name, node in state.nodes.items():
        if node.branches:
            found[name] = members_of(state, node, dependants)
            in_branches.update(member for group in found[name] for member in group)
    item = None
    for name, node in state.nodes.items():
        if name[-1:] != "]":
            continue
        if node.node_type in (NodeTypes.ITEM, NodeTypes.PART):
            item = name if node.node_type is NodeTypes.ITEM else None
            found.setdefault(name.rpartition("[")[0], []).append([name])
        elif item is not None and name not in in_branches and _index(name) == _index(item):
            found.setdefault(item, [[]])[0].append(name)  # its entries stand behind its own
    return found


def _index(name: str) -> str:
    """`[7][0]` of `Fetch[7][0]`."""
    return name[name.find("[") :]


def _as_they_follow(nodes: Mapping[str, NodeState], names: Sequence[str]) -> Iterator[str]:
    """Yield names so that each comes after those that lead to it, or that it depends on; else as they are given."""
    rank = {name: number for number, name in enumerate(names)}
    following: dict[str, list[str]] = {name: [] for name in names}
    waits_for = dict.fromkeys(names, 0)
    for name in names:
        node = nodes[name]
        for other in (*([node.next] if node.next is not None else ()), *node.leads_to):
            if other in rank:
                following[name].append(other)
                waits_for[other] += 1
        for other in node.depends_on:
            if other in rank:
                following[other].append(name)
                waits_for[name] += 1
    ready = [rank[name] for name in names if not waits_for[name]]
    heapify(ready)
    left = dict.fromkeys(names)
    while ready:
        name = names[heappop(ready)]
        del left[name]
        yield name
        for other in following[name]:
            waits_for[other] -= 1
            if not waits_for[other]:
                heappush(ready, rank[other])
    yield from left  # a cycle, which only a spoilt document has
