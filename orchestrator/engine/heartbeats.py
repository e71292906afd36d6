"""When an attempt's execution last said that it is at work."""

from datetime import datetime

import msgspec

from orchestrator.model.commands import Launch
from orchestrator.model.task_result import TaskProgress, begun_at, begun_object, progress_object
from orchestrator.ports import Heard, ObjectStore, Target


def last_heard(store: ObjectStore, target: Target | None, launch: Launch) -> datetime | None:
    """Return when the execution of a launch was last heard of, aware; None where it never was.

    Its target may know; else what `orchestrator.tasks` leaves in the bucket tells: that it has begun, and when it last
    said how far it is. That is the time by its own clock, which may be ahead.

    Raises:
        StoreUnavailable, LaunchUncertain: it cannot be told now.
    """
    known = target.heard_at(launch) if isinstance(target, Heard) else None
    said = store.get(progress_object(launch.key))
    begun = store.get(begun_object(launch.key)) if said is None else None
    times = [known, _at(said[0]) if said else None, begun_at(begun[0]) if begun else None]
    return max((at for at in times if at is not None), default=None)


def _at(data: bytes) -> datetime | None:
    """Read it from a progress object; None where that is none."""
    try:
        at = msgspec.json.decode(data, type=TaskProgress).at
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return at if at.tzinfo is not None else None
