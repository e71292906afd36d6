"""The items of a Map: how they begin, end, and what they come to. Pure.

An item is an instance of the Map's iterator. It has an entry of its own, `Load[7]` of the Map `Load`, and one for each
step of the iterator, `Fetch[7]`; both are made when the item begins, so that a document grows with what has started.
"""

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, new_state
from orchestrator.engine.scope import ResultNeeded, Spoilt
from orchestrator.model.commands import Failure, Json
from orchestrator.model.enums import NodeTypes, TaskStatus
from orchestrator.model.ids import instance_of
from orchestrator.model.node_state import Items, NodeState
from orchestrator.model.nodes import Map


def item_of(name: str, index: int) -> str:
    """The entry of an item of the Map whose entry is called `name`."""
    return f"{name}[{index}]"


def map_of(name: str) -> str:
    """The entry of the Map that an item's entry is of."""
    return name[: name.rindex("[")]


def begin(draft: Draft, name: str) -> None:
    """Begin as many items of a Map as may run at once now."""
    entry = draft.nodes[name]
    place, items = place_of(draft, name), entry.items
    if items is None or _has_failed(place, items) or entry.stop or draft.stopped(name):
        return
    if items.parts:
        from orchestrator.engine import parts  # only where a Map has so many items

        parts.begin(draft, place, entry, items, place.tolerates(items.count))
        return
    running = items.started - items.ended - len(items.again)
    room = (items.at_once or place.max_concurrency) - running
    again = items.again[: max(0, room)]
    until = min(items.count, items.started + room - len(again))
    if until <= items.started and not again:
        return
    draft.put(replace(entry, items=replace(items, started=max(until, items.started), again=items.again[len(again) :])))
    draft.going_on.extend(item_of(name, index) for index in again)
    starts: list[str] = []
    for index in range(items.first + items.started, items.first + until):
        item = item_of(name, index)
        instance = instance_of(item)
        draft.put(
            NodeState(
                node_name=item,
                node_type=NodeTypes.ITEM,
                status=TaskStatus.RUNNING,
                caught=entry.caught,
                started_at=draft.now,
            )
        )
        for node in place.iterator.first_nodes:
            fresh, known = new_state(node, instance), draft.nodes.get(node.node_name + instance)
            # Where the Map runs again as a whole, the numbers of attempts go on.
            draft.put(fresh if known is None else replace(fresh, attempt=known.attempt))
        starts += [first.node_name + instance for first in place.iterator.start_nodes]
    # Ahead of what waits already, as the branches of a Parallel.
    draft.entering.extendleft((start, entry.caught) for start in reversed(starts))


def item_ended(
    draft: Draft, item_name: str, stopped_at: NodeState | None, last: NodeState | None, error: Failure | None
) -> NodeState | None:
    """Write that an item has ended, and begin others; return the entry of its Map if that is over by this, else None.

    Args:
        stopped_at: the node at which it has not come to its end; None where it has.
        last: the node whose result is the item's, if there is one.
        error: its failure, if it has not completed.
    """
    name = map_of(item_name)
    status = TaskStatus.COMPLETED
    if stopped_at is not None:
        status = TaskStatus.FAILED if stopped_at.status is TaskStatus.FAILED else TaskStatus.CANCELLED
        last = stopped_at
    last_name = last.node_name if last is not None else None
    entry, item = draft.nodes[name], draft.nodes[item_name]
    draft.put(replace(item, status=status, last=last_name, ended_at=draft.now, error=error))
    items = entry.items or Items(0)
    items = replace(items, ended=items.ended + 1)
    stop, place = entry.stop, place_of(draft, name)
    if stopped_at is not None:
        index = int(item_name[item_name.rindex("[") + 1 : -1])
        items = replace(items, failed=tuple(sorted((*items.failed, index))))
        runs = items.started > items.ended
        if place.stops_on_failure and stop is None and runs and _has_failed(place, items):
            stop = Failure("Map.Stopped", f"{name}: {_failures(items)}")
            draft.stopping.append((name, stop))
    draft.put(replace(entry, items=items, stop=stop))
    begin(draft, name)
    return over(draft, name)


def over(draft: Draft, name: str) -> NodeState | None:
    """Return the entry of a Map if none of its items runs and none begins any more, else None."""
    entry = draft.nodes[name]
    items = entry.items
    if items is None or items.started > items.ended + len(items.again):
        return None
    if items.again:  # it has failed, or is stopped, before they were come to: they are as they were
        failed = tuple(sorted((*items.failed, *items.again)))
        entry = replace(entry, items=replace(items, ended=items.started, again=(), failed=failed))
        draft.put(entry)
    return entry


def part_ended(draft: Draft, part: NodeState) -> NodeState | None:
    """Write that a part of a Map has ended, and begin others; return the Map's entry if that is over by this."""
    from orchestrator.engine import parts

    name = map_of(part.node_name)
    entry, place = draft.nodes[name], place_of(draft, name)
    items, stop = parts.ended(entry.items or Items(0), part), entry.stop
    is_first = stop is None and _has_failed(place, items)
    entry = replace(entry, items=items)
    if is_first and place.stops_on_failure and not parts.is_over(draft, entry):
        stop = Failure("Map.Stopped", f"{name}: {_failures(items)}")
        draft.stopping.append((name, stop))
    draft.put(replace(entry, stop=stop))
    begin(draft, name)
    entry = draft.nodes[name]
    if _has_failed(place, items) or entry.stop or draft.stopped(name):
        parts.give_up_waiting(draft, name, items)
    return entry if parts.is_over(draft, entry) else None


def sum_up(draft: Draft, entry: NodeState) -> tuple[TaskStatus, Failure | None, Json]:
    """Status, error and result of a Map whose items have ended, as far as they were begun.

    Raises:
        ResultNeeded: the result of an item lies beside the document.
    """
    items, name = entry.items or Items(0), entry.node_name
    if items.parts:
        from orchestrator.engine import parts

        return parts.sum_up(draft, entry, items, has_failed=_has_failed(place_of(draft, name), items))
    failed = [draft.nodes[item_of(name, index)] for index in items.failed]
    stop = draft.stopped(name)
    is_cut = items.ended < items.count or any(item.status is TaskStatus.CANCELLED for item in failed)
    if _has_failed(place_of(draft, name), items) or (stop is not None and is_cut):
        for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            for item in failed:
                if item.status is status:
                    return status, item.error, None
        return TaskStatus.CANCELLED, stop, None
    results: list[Json] = []
    for index in items.begun:
        item = draft.nodes[item_of(name, index)]
        result: Json = None
        if item.status is TaskStatus.COMPLETED and item.last is not None:
            last = draft.nodes[item.last]
            result = last.result
            if last.stored_result is not None and result is None:
                raise ResultNeeded(last.node_name)
            if isinstance(result, Spoilt):
                return TaskStatus.FAILED, Failure("Map.BadResult", result.message), None
        results.append(result)
    return TaskStatus.COMPLETED, None, results


def place_of(draft: Draft, name: str) -> Map:
    """The Map that an entry is of."""
    place = draft.dag.place(name)
    if not isinstance(place, Map):
        raise LookupError(f"{name}: has items but is no Map")
    return place


def _has_failed(place: Map, items: Items) -> bool:
    """Whether more items have failed than may."""
    tolerated = place.tolerates(items.count) if items.tolerated is None else items.tolerated
    return bool(items.broken_parts) or len(items.failed) + items.more_failed > tolerated


def _failures(items: Items) -> str:
    if items.broken_parts:
        return f"part {items.broken_parts[0]} has not completed"
    number = len(items.failed) + items.more_failed
    return f"{number:,} of {items.count:,} items {'has' if number == 1 else 'have'} not completed"
