"""What a run waits for, in words: its turn, slots of pools, and behind whom."""

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, counted, line, listed
from orchestrator.model.node_state import Slot
from orchestrator.model.run_state import RunState
from orchestrator.model.slots import NO_LIMIT, Slots, decode, slots_key

_MOST = 20
"""So many steps that wait are told of one by one."""


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
    slots = load_slots(bucket, slot.queue) or Slots()
    number = slots.place_of(slot.ticket)
    if number is None:
        return f"{name}it is about to {'start' if slots.holds(slot.ticket) else 'ask'}"
    limit = "" if slots.limit >= NO_LIMIT else f"; {what} {slots.limit}"
    holders = f", held by {listed([place.holder for place in slots.held])}" if slots.held else ""
    return f"{name}{_ordinal(number)} of {len(slots.waiting):,}{limit}{holders}"


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number // 10 % 10 != 1 else "th"
    return f"{number:,}{ending}"


def load_slots(bucket: Bucket, queue: str) -> Slots | None:
    """Return a queue, or None where nobody has asked for a slot of it yet. Raises CorruptState."""
    key = slots_key(queue)
    found = bucket.store.get(key)
    return decode(found[0], key) if found is not None else None
