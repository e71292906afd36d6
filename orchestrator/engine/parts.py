"""A Map of very many items as parts: child runs of a slice of its items each. Pure.

A part is an entry of the Map, `Load[3]`, that is claimed, launched, taken over and cancelled as a Dag Task's attempt
is. Its child run has a document of its own, in which the Map runs the slice as it would run a short list. So neither
does one document grow with the list, nor is one object written by the ends of all items.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from orchestrator.engine.draft import Draft
from orchestrator.engine.scope import ResultNeeded, Spoilt
from orchestrator.model.commands import EMPTY, Failure, Json
from orchestrator.model.enums import NodeTypes, TargetTypes, TaskStatus
from orchestrator.model.node_state import Items, NodeState, Slice
from orchestrator.model.nodes import Map

Summed = tuple[TaskStatus, Failure | None, Json]

AT_ONCE_IN_A_PART = 50
"""Items that run at once in one part, where there may be more: so many ends a save can take up."""

MAX_TOLD = 1000
"""So many failed items a Map names by their indices."""


def part_of(name: str, number: int) -> str:
    """The entry of a part of the Map whose entry is called `name`."""
    return f"{name}[{number}]"


def begin(draft: Draft, place: Map, entry: NodeState, items: Items, tolerated: int) -> None:
    """Begin as many parts as may run at once now; the items of all together are no more than may run at once."""
    size, number = draft.policy.part_items, items.parts
    at_once = min(number, -(-place.max_concurrency // AT_ONCE_IN_A_PART))
    runs = sum(draft.nodes[part_of(entry.node_name, n)].status is TaskStatus.RUNNING for n in range(items.begun_parts))
    room = max(0, at_once - runs)
    waiting = [part_of(entry.node_name, n) for n in range(items.begun_parts) if waits(draft, entry.node_name, n)]
    starts = waiting[:room]  # by a redrive
    until = min(number, items.begun_parts + room - len(starts))
    started = items.started
    for part in range(items.begun_parts, until):
        first = part * size
        name, count = part_of(entry.node_name, part), min(size, items.count - first)
        started += count
        slice_ = Slice(first, count, place.max_concurrency // at_once, tolerated - failures_in(items))
        known = draft.nodes.get(name)
        draft.put(
            NodeState(
                node_name=name,
                node_type=NodeTypes.PART,
                # Where the Map runs again, the numbers of attempts go on.
                attempt=known.attempt if known is not None else 0,
                target_type=TargetTypes.DAG.value,
                target_name=draft.info.dag,
                slice=slice_,
                status=TaskStatus.NEW,
            )
        )
        starts.append(name)
    if starts:
        draft.put(replace(entry, items=replace(items, started=started, begun_parts=max(until, items.begun_parts))))
        draft.entering.extendleft((name, None) for name in reversed(starts))


def waits(draft: Draft, name: str, number: int) -> bool:
    """Whether a part that had begun waits to go on."""
    return draft.nodes[part_of(name, number)].status is TaskStatus.NEW


def give_up_waiting(draft: Draft, name: str, items: Items) -> None:
    """Leave the parts as they are that were to go on, where none of them is begun any more."""
    for number in range(items.begun_parts):
        if waits(draft, name, number):
            draft.put(replace(draft.nodes[part_of(name, number)], status=TaskStatus.SKIPPED))


def failures_in(items: Items) -> int:
    """How many items have failed, as far as that is known."""
    return len(items.failed) + items.more_failed


def ended(items: Items, part: NodeState) -> Items:
    """Return what a Map knows of its items once a part of it has ended."""
    told = part.result if isinstance(part.result, dict) else EMPTY
    failed = told.get("failed")
    indices = [index for index in failed if isinstance(index, int)] if isinstance(failed, list) else []
    known = sorted((*items.failed, *indices))
    broken = items.broken_parts
    if part.status is not TaskStatus.COMPLETED:
        number = part.node_name[part.node_name.rindex("[") + 1 : -1]
        broken = tuple(sorted((*broken, int(number))))
    return replace(
        items,
        ended=items.ended + (part.slice.count if part.slice is not None else 0),
        failed=tuple(known[:MAX_TOLD]),
        more_failed=items.more_failed + len(known[MAX_TOLD:]),
        broken_parts=broken,
    )


def is_over(draft: Draft, entry: NodeState) -> bool:
    """Whether none of a Map's parts is under way, so that it is over."""
    begun = entry.items.begun_parts if entry.items is not None else 0
    return all(draft.nodes[part_of(entry.node_name, number)].status.is_final for number in range(begun))


def sum_up(draft: Draft, entry: NodeState, items: Items, *, has_failed: bool) -> Summed:
    """Status, error and result of a Map whose parts have ended.

    Raises:
        ResultNeeded: the result of a part lies beside the document.
    """
    name, stop = entry.node_name, draft.stopped(entry.node_name)
    broken = [draft.nodes[part_of(name, number)] for number in items.broken_parts]
    for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        for part in broken:
            if part.status is status:
                error = part.error
                return status, replace(error, node=error.node or part.node_name) if error is not None else None, None
    if has_failed:
        words = f"{failures_in(items):,} of {items.count:,} items have not completed; the first is {items.failed[0]}"
        return TaskStatus.FAILED, Failure("Map.TooManyFailures", f"{name}: {words}"), None
    if items.ended < items.count:
        return TaskStatus.CANCELLED, stop, None
    results: list[Json] = []
    for number in range(items.parts):
        part = draft.nodes[part_of(name, number)]
        if part.stored_result is not None and part.result is None:
            raise ResultNeeded(part.node_name)
        if isinstance(part.result, Spoilt):
            return TaskStatus.FAILED, Failure("Map.BadResult", part.result.message), None
        results += results_of(part.result)
    return TaskStatus.COMPLETED, None, results


def result_of_part(results: Json, items: Items) -> Mapping[str, Json]:
    """What a part's own run comes to, for its Map."""
    return {"results": results, "failed": list(items.failed)}


def results_of(result: Json) -> list[Json]:
    """The items' results, of what a part has come to."""
    found = result.get("results") if isinstance(result, dict) else None
    return found if isinstance(found, list) else []
