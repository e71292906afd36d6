"""`orchestrator pools`: who holds the slots of pools and of DAGs with max_active_runs, and how many wait for one."""

from collections.abc import Iterator, Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import Line, columns, line, pad
from orchestrator.cli.queues import load_slots, name_of
from orchestrator.model.commands import Json
from orchestrator.model.slots import NO_LIMIT, Place, Slots, pool_queue, queue_of
from orchestrator.runtime.catalog import as_json

_HEADING = ("Queue", "Limit", "Held", "Waiting")


def pools(console: Console, bucket: Bucket, limits: Mapping[str, int], *, is_json: bool) -> int:
    """Write all queues: of the pools in POOLS, of those that were used, of the DAGs whose runs were limited."""
    found = {pool_queue(pool): Slots(limit) for pool, limit in limits.items()}
    for key in bucket.store.list("slots/"):
        slots = load_slots(bucket, queue_of(key))
        if slots is not None:
            found[queue_of(key)] = slots
    if is_json:
        console.document(as_json([_as_json(queue, found[queue]) for queue in sorted(found)]))
    elif found:
        console.styled(_table({name_of(queue): found[queue] for queue in sorted(found)}))
    else:
        console.err(f"nothing shares a limit in {bucket.url}: no pool in POOLS, no DAG with max_active_runs")
    return 0


def _table(found: Mapping[str, Slots]) -> Iterator[Line]:
    rows = [
        (name, "" if slots.limit >= NO_LIMIT else str(slots.limit), str(len(slots.held)), str(len(slots.waiting)))
        for name, slots in found.items()
    ]
    widths = columns([_HEADING, *rows])
    for number, (name, *numbers) in enumerate([_HEADING, *rows]):
        cells = [pad(name, widths[0])]
        cells += [pad(each, width, is_number=True) for each, width in zip(numbers, widths[1:], strict=True)]
        yield line("  ".join(cells), "" if number else "dim")


def _as_json(queue: str, slots: Slots) -> Json:
    return {
        "queue": queue,
        "limit": None if slots.limit >= NO_LIMIT else slots.limit,
        "held": [_place_as_json(place) for place in slots.held],
        "waiting": [_place_as_json(place) for place in slots.waiting],
    }


def _place_as_json(place: Place) -> Json:
    """Its ticket is nobody's business: who knows it, could say that it holds a slot."""
    return {"holder": place.holder, "run_id": place.run_id, "since": place.since, "priority": place.priority}
