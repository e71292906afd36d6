"""What stands in messages of ours, checked: each reader says where it is wrong and what is allowed. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, TypeGuard

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import EventError
from orchestrator.model.ids import NODE_NAME, RUN_ID

MAX_ATTEMPT: Final = 999_999_999
NAME: Final = "it has to be printable text of 1 to 512 characters"


def node_of(kind: str, data: Mapping[str, Json]) -> tuple[str, int]:
    """The node and the attempt that a message of ours names."""
    node_name, attempt = data.get("node_name"), data.get("attempt")
    if not (isinstance(node_name, str) and NODE_NAME.fullmatch(node_name)):
        raise wrong(f"{kind}.node_name", f"is {shown(node_name)}", "it has to be the name of a step")
    if isinstance(attempt, bool) or not isinstance(attempt, int) or not 1 <= attempt <= MAX_ATTEMPT:
        raise wrong(f"{kind}.attempt", f"is {shown(attempt)}", f"allowed are 1 to {MAX_ATTEMPT}")
    return node_name, attempt


def run_id_of(where: str, value: Json) -> str:
    if isinstance(value, str) and RUN_ID.fullmatch(value):
        return value
    allowed = "allowed are 1 to 128 letters, digits, _ and -, the first a letter or digit"
    raise wrong(where, f"is {shown(value)}", allowed)


def time_of(where: str, value: Json) -> datetime:
    try:
        return msgspec.convert(value, _Aware).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise wrong(where, f"is {shown(value)}", "it has to be an RFC 3339 time with its zone") from exc


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


def is_nonce(value: Json) -> TypeGuard[str]:
    """Whether it could be a nonce: ASCII, as comparing in constant time requires."""
    return isinstance(value, str) and 0 < len(value) <= 128 and value.isascii() and value.isprintable()


def wrong(where: str, what: str, allowed: str) -> EventError:
    return EventError(f"{where}: {what}; {allowed}")


def shown(value: Json) -> str:
    """A value for an error message: short, on one line, and made without following it inwards."""
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:60]!r}… ({len(value)} characters)"
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value.bit_length() > 64:
        return "a very large number"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, list | tuple) else f"a Python {type(value).__name__}"
