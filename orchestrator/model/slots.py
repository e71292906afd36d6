"""Slots: who holds one of a limited number, and who waits for one: what `slots/<queue>.json` holds. Pure.

A queue is that of a DAG with `max_active_runs` (its runs wait), or that of a pool (attempts at Tasks wait). Who asks
brings a ticket, a new one for each asking. So to give back what a ticket stands for is right whenever that is done:
nobody will ever ask with that ticket again.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from re import compile as pattern

import msgspec

from orchestrator.model.errors import CorruptState

NO_LIMIT = 1_000_000_000
"""The limit of a queue that nothing limits any more."""

MAX_WAITING = 5000
"""How many wait in a queue's object; those behind them wait in their runs, from where the Tick asks for them again."""

_PLAIN = pattern(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


class Place(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A slot that is held, or a place among those who wait."""

    holder: str
    """A run id, or a launch id."""
    ticket: str
    since: datetime
    """When it was asked for."""
    priority: int = 0

    @property
    def run_id(self) -> str:
        """The run that it is of."""
        return self.holder.partition("/")[0]


class Slots(msgspec.Struct, frozen=True, gc=False):
    """One queue.

    Attributes:
        limit: how many slots there are, as the last who asked knew.
        held: never more than the limit, but for one that was lowered since.
        waiting: in the order in which they are let in.
    """

    limit: int = 0
    held: tuple[Place, ...] = ()
    waiting: tuple[Place, ...] = ()

    def holds(self, ticket: str) -> bool:
        """Whether a slot is held by this ticket."""
        return any(place.ticket == ticket for place in self.held)

    def place_of(self, ticket: str) -> int | None:
        """Which of those that wait is this, from 1; None where it does not wait here."""
        return next((number for number, place in enumerate(self.waiting, 1) if place.ticket == ticket), None)


def changed(slots: Slots, asks: Sequence[Place], releases: Iterable[str], limit: int | None = None) -> Slots:
    """Return a queue after some have asked and some have given back; an equal one if that changes nothing.

    Those who asked before by the same ticket keep what they have. Slots that are free go to the highest priority, then
    to who has waited the longest.

    Args:
        releases: tickets.
        limit: how many slots there are now, where that is known.
    """
    limit = slots.limit if limit is None else limit
    gone = set(releases)
    held = tuple(place for place in slots.held if place.ticket not in gone) if gone else slots.held
    waiting = [place for place in slots.waiting if place.ticket not in gone] if gone else list(slots.waiting)
    known = {place.ticket for place in held} | {place.ticket for place in waiting} | gone
    fresh = [place for place in asks if place.ticket not in known]
    if fresh:
        waiting = sorted([*waiting, *fresh], key=lambda place: (-place.priority, place.since))
    free = max(0, limit - len(held))
    return Slots(limit, held + tuple(waiting[:free]), tuple(waiting[free : free + MAX_WAITING]))


def dag_queue(dag: str) -> str:
    """The queue of the runs of a DAG."""
    return f"dag/{_segment(dag)}"


def pool_queue(pool: str) -> str:
    """The queue of a pool."""
    return f"pool/{_segment(pool)}"


def slots_key(queue: str) -> str:
    """Object name of a queue."""
    return f"slots/{queue}.json"


def queue_of(key: str) -> str:
    """The queue that lies in an object."""
    return key.removeprefix("slots/").removesuffix(".json")


def _segment(name: str) -> str:
    """What can stand in an object's name: the name itself, wherever that can."""
    return name if _PLAIN.fullmatch(name) else f"sha256-{sha256(name.encode()).hexdigest()[:32]}"


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Slots)


def encode(slots: Slots) -> bytes:
    """Return the object's content: JSON, one line a place."""
    lists: Mapping[str, tuple[Place, ...]] = {"held": slots.held, "waiting": slots.waiting}
    parts = [b'{"limit": %d' % slots.limit]
    for name, places in lists.items():
        parts.append(b'"%s": [%s]' % (name.encode(), b",".join([b"\n" + _encode(place) for place in places])))
    return b",\n".join(parts) + b"}\n"


def decode(data: bytes, where: str) -> Slots:
    """Read a queue. Raises CorruptState."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise CorruptState(f"{where}: is no queue: {exc}") from exc
