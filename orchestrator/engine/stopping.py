"""Stopping: in a run, or in a Parallel or Map of it, nothing is started any more, and what runs is given up. Pure."""

from collections.abc import Iterator

from msgspec.structs import replace

from orchestrator.engine import attempts
from orchestrator.engine.draft import Draft, bare_launch
from orchestrator.engine.ending import end
from orchestrator.model.commands import Failure, Withdraw
from orchestrator.model.enums import NOTHING_RUNS, TaskStatus
from orchestrator.model.ids import beside, instance_of
from orchestrator.model.node_state import NodeState, OwedCancel
from orchestrator.model.nodes import Map, Parallel


def stop_waiting(draft: Draft) -> None:
    """Stop what is to be stopped: nothing is started there any more, what runs is cancelled where it can be."""
    while draft.stopping:
        name, error = draft.stopping.popleft()
        for each in entries_in(draft, name):
            _stop(draft, draft.nodes[each], error)


def entries_in(draft: Draft, name: str | None) -> list[str]:
    """The entries inside of a Parallel or Map (None: of the run), in definition order, items by index."""
    found: list[str] = []
    waiting: list[Iterator[str]]
    if name is None and draft.info.part_of is not None:
        waiting = [iter((draft.info.part_of.map,))]
    elif name is None:
        waiting = [(each.node_name for each in draft.dag.first_nodes)]
    else:
        place = draft.dag.place(name)
        inside = place.branches if isinstance(place, Parallel) else ()
        waiting = [(beside(name, each.node_name) for graph in inside for each in graph.first_nodes)]
        if isinstance(place, Map):
            waiting.append(_of_items(draft, name, place))
    while waiting:
        entry = next(waiting[-1], None)
        if entry is None:
            waiting.pop()
            continue
        found.append(entry)
        if draft.nodes[entry].items is not None and isinstance(place := draft.dag.place(entry), Map):
            waiting.append(_of_items(draft, entry, place))
    return found


def _of_items(draft: Draft, name: str, place: Map) -> Iterator[str]:
    """Yield the entries of the items of a Map that have begun; not those of items inside of them."""
    items = draft.nodes[name].items
    for index in items.begun if items is not None else ():
        if items is not None and items.parts:
            yield f"{name}[{index}]"
            continue
        for node in place.iterator.first_nodes:
            yield f"{node.node_name}{instance_of(name)}[{index}]"


def _stop(draft: Draft, node: NodeState, error: Failure) -> None:
    if node.status is not TaskStatus.RUNNING or not node.attempt or node.stop:
        return
    if node.owed_cancel is not None:  # of its own accord, as for a timeout: nothing follows it any more
        draft.put(replace(node, stop=error))
    elif draft.claims(node) or node.waits_for_slot or not node.due.keys().isdisjoint(NOTHING_RUNS):
        end(draft, node, TaskStatus.CANCELLED, error=error)
    elif draft.policy.rules(node.target_key).can_cancel:
        attempts.owe_cancel(draft, node, OwedCancel(TaskStatus.CANCELLED, error))
    else:
        draft.put(replace(node, stop=error))
        draft.commands.append(Withdraw(bare_launch(draft.dag, draft.info, node)))
