"""What a user function returns, as the JSON that it stands for."""

import math
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from orchestrator.model.messages import MAX_DEPTH, is_too_deep
from orchestrator.tasks.errors import NotJson

_ALLOWED = "a function may return dict, list, str, int, float, bool, None and dataclasses of these"
_TOO_DEEP = f"result: is nested too deeply, or contains itself; allowed are {MAX_DEPTH} levels"
_LONGEST_MESSAGE = 2000


def encode(result: object) -> bytes:
    """Return the result as JSON. Raises NotJson, which names the place in it that has no such form."""
    try:
        data = msgspec.json.encode(result)
        # msgspec writes nan and inf as null, so only where there is a null can there have been one.
        found = misfit(result, "result") if b"null" in data else None
        # Deep ones have many brackets; a run document has to hold the result, and bears MAX_DEPTH levels.
        is_deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH and is_too_deep(msgspec.json.decode(data))
    except RecursionError as exc:
        raise NotJson(_TOO_DEEP) from exc
    except Exception as exc:
        found = f"result: {words_of(exc)}"
        with suppress(Exception):  # it only looks for better words
            found = misfit(result, "result") or found
        raise NotJson(plain(f"{found}; {_ALLOWED}")) from exc
    if found is not None:
        raise NotJson(plain(f"{found}; {_ALLOWED}"))
    if is_deep:
        raise NotJson(_TOO_DEEP)
    return data


def misfit(value: object, path: str) -> str | None:
    """Return where in the value there is something that is no JSON, and what; None if all is well."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: is {value}, which JSON does not have"
    parts = _parts(value, path)
    for inner_path, inner in parts:
        found = misfit(inner, inner_path)
        if found is not None:
            return found
    try:
        if isinstance(value, Mapping):
            msgspec.json.encode(dict.fromkeys(value))
        elif not parts:
            msgspec.json.encode(value)
    except Exception as exc:
        return f"{path}: is of type {type(value).__name__} ({words_of(exc)})"
    return None


def words_of(exc: BaseException) -> str:
    """`<type>: <message>` of an exception, whatever its `__str__` does."""
    try:
        message = str(exc)
    except Exception:
        message = "(its message cannot be shown)"
    return plain(f"{type(exc).__name__}: {message}" if message else type(exc).__name__)


def plain(text: str) -> str:
    """The text as a message of a document can hold it: valid Unicode, not endless."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


def _parts(value: object, path: str) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [(f"{path}.{name}", inner) for name, inner in value.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"{path}[{number}]", inner) for number, inner in enumerate(value)]
    names = getattr(value, "__dataclass_fields__", None) or getattr(value, "__struct_fields__", None) or ()
    return [(f"{path}.{name}", getattr(value, name)) for name in names]
