"""What stands where in JSON that others wrote: every field may be missing, and none is trusted. Pure."""

from collections.abc import Mapping
from typing import TypeGuard

from orchestrator.model.commands import Json


def at(data: Json, *path: str | int) -> Json:
    """What stands at `path` (keys, and places in arrays), or None where the way there ends."""
    for step in path:
        # None and dict first: to ask whether something is a Mapping takes its time.
        if data is None:
            return None
        if isinstance(step, str) and isinstance(data, (dict, Mapping)):
            data = data.get(step)
        elif isinstance(step, int) and isinstance(data, list) and -len(data) <= step < len(data):
            data = data[step]
        else:
            return None
    return data


def objects_at(data: Json, *path: str | int) -> list[Mapping[str, Json]]:
    """The objects in the array at `path`; [] if there is none."""
    found = at(data, *path)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def name_at(data: Json, *path: str | int) -> str | None:
    """The name or id that stands at `path`; None if there is none that could be one."""
    value = at(data, *path)
    return value if is_name(value) else None


def is_name(value: Json) -> TypeGuard[str]:
    """Whether it is printable text of 1 to 512 characters."""
    return isinstance(value, str) and 0 < len(value) <= 512 and value.isprintable()


def is_of_log(entry: Mapping[str, Json], log_id: str) -> bool:
    """Whether a log entry stands in the log of this id: what a workload writes itself is in another."""
    log = entry.get("logName")
    return isinstance(log, str) and log.endswith(f"/logs/{log_id}")
