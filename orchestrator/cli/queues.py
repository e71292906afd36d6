"""`orchestrator pools`: who holds the slots of pools and of DAGs with max_active_runs, and how many wait for one. And
what a run waits for, in words."""

from collections.abc import Iterator, Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import Line, columns, counted, line, listed, pad
from orchestrator.model.commands import Json
from orchestrator.model.run_state import RunState, Slot
from orchestrator.model.slots import NO_LIMIT, Place, Slots, decode, pool_queue, queue_of, slots_key
from orchestrator.runtime.catalog import as_json

_HEADING = ("Queue", "Limit", "Held", "Waiting")
_MOST = 20
"""So many steps that wait are told of one by one."""


def pools(console: Console, bucket: Bucket, limits: Mapping[str, int], *, is_json: bool) -> int:
    """Write all queues: of the pools in POOLS, of those that were used, of the DAGs whose runs were limited."""
    found = {pool_queue(pool): Slots(limit) for pool, limit in limits.items()}
    for key in bucket.store.list("slots/"):
        slots = _load(bucket, queue_of(key))
        if slots is not None:
            found[queue_of(key)] = slots
    if is_json:
        console.document(as_json([_as_json(queue, found[queue]) for queue in sorted(found)]))
    elif found:
        console.styled(_table({name_of(queue): found[queue] for queue in sorted(found)}))
    else:
        console.err(f"nothing shares a limit in {bucket.url}: no pool in POOLS, no DAG with max_active_runs")
    return 0


def waiting_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return what a run, or steps of it, wait for, and behind whom."""
    run = state.run
    lines: list[Line] = []
    if run.slot is not None and run.waits_for_slot:
        lines.append(line(f"waits for its turn: {_place(run.slot, bucket, 'max_active_runs')}"))
    waiting = [node for node in state.nodes.values() if node.waits_for_slot]
    for node in waiting[:_MOST]:
        if node.slot is not None:
            lines.append(line(f"{node.node_name} waits for a slot of {_place(node.slot, bucket, 'it has')}"))
    if len(waiting) > _MOST:
        lines.append(line(f"and {counted(len(waiting) - _MOST, 'more step')} for slots of pools", "dim"))
    return lines


def name_of(queue: str) -> str:
    """Return what people call a queue: `pool bigquery`, `runs of wordcount`."""
    kind, _, name = queue.partition("/")
    return f"pool {name}" if kind == "pool" else f"runs of {name}"


def _place(slot: Slot, bucket: Bucket, what: str) -> str:
    """`pool bigquery: 2nd of 7; it has 1, held by run_…/Load/1`."""
    name = f"{name_of(slot.queue)}: " if slot.queue.startswith("pool/") else ""
    if not slot.ticket:
        return f"{name}not before it is resumed"
    slots = _load(bucket, slot.queue) or Slots()
    number = slots.place_of(slot.ticket)
    if number is None:
        return f"{name}it is about to {'start' if slots.holds(slot.ticket) else 'ask'}"
    limit = "" if slots.limit >= NO_LIMIT else f"; {what} {slots.limit}"
    holders = f", held by {listed([place.holder for place in slots.held])}" if slots.held else ""
    return f"{name}{_ordinal(number)} of {len(slots.waiting):,}{limit}{holders}"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 % 10 != 1 else "th"
    return f"{number:,}{ending}"


def _load(bucket: Bucket, queue: str) -> Slots | None:
    key = slots_key(queue)
    found = bucket.store.get(key)
    return decode(found[0], key) if found is not None else None


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
