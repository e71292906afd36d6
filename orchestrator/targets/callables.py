"""Find a callable by its name, call it, and have whatever comes of that as an Outcome.

FunctionTarget does this in its own process and in its worker processes.
"""

import math
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from operator import attrgetter

import msgspec

from orchestrator.model.commands import Json, Outcome
from orchestrator.model.messages import MAX_DEPTH, is_too_deep
from orchestrator.targets.twins import plain

NESTED_TOO_DEEPLY = Outcome.failed(
    "Task.BadResult", f"result: is nested too deeply, or contains itself; allowed are {MAX_DEPTH} levels"
)

_NOTHING = Outcome.completed()


class NotLoaded(Exception):
    """A reference leads to no callable; says why not."""


def load(reference: object) -> Callable[..., object]:
    """Return the callable at `package.module:attribute.path`; raises NotLoaded, which says why not."""
    module_name, _, path = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not module_name or not path or module_name.startswith("."):
        raise NotLoaded(f"function is {reference!r}; it must be of the form package.module:callable")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as exc:
        raise NotLoaded(
            f"{reference}: module {module_name} cannot be imported, {words_of(exc)}; "
            "it must be importable from where the orchestrator was started"
        ) from exc
    try:
        found: object = attrgetter(path)(module)
    except AttributeError as exc:
        raise NotLoaded(f"{reference}: {module_name} has no {path}; a callable of that name was expected") from exc
    if not callable(found):
        raise NotLoaded(f"{reference}: is of type {type(found).__name__}; a callable was expected")
    return found


def attempt(function: Callable[..., object], parameters: Mapping[str, Json]) -> tuple[Outcome, str]:
    """Call the function; return how it ended, and the traceback if it raised. Whatever it raises ends here."""
    try:
        result = function(**{name: _own(value) for name, value in parameters.items()})
    except BaseException as exc:  # SystemExit and KeyboardInterrupt too: they end the attempt, not a worker
        return Outcome.failed("Task.Failed", words_of(exc)), traceback.format_exc()
    return (_NOTHING if result is None else _as_json(result)), ""


def _own(value: Json) -> Json:
    """A copy that the function may change: the definition and other attempts share the original."""
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner) for inner in value]
    return value


def _as_json(result: object) -> Outcome:
    """The result as the JSON value it stands for, or Task.BadResult saying what in it stands for none."""
    try:
        data = msgspec.json.encode(result)
        # msgspec writes nan and inf as null, so only where there is a null can there have been one.
        misfit = _misfit(result, "result") if b"null" in data else None
        if misfit is None:
            return completed(msgspec.json.decode(data), data)
    except RecursionError:
        return NESTED_TOO_DEEPLY
    except Exception as exc:
        misfit = f"result: {words_of(exc)}"
        with suppress(Exception):  # it only looks for better words
            misfit = _misfit(result, "result") or misfit
    return Outcome.failed(
        "Task.BadResult",
        plain(f"{misfit}; a function may return dict, list, str, int, float, bool, None and dataclasses of these"),
    )


def completed(result: Json, data: bytes) -> Outcome:
    """The outcome of what has returned `result`, read from the JSON text `data`; a run document has to hold it."""
    is_deep = data.count(b"[") + data.count(b"{") > MAX_DEPTH and is_too_deep(result)
    return NESTED_TOO_DEEPLY if is_deep else Outcome.completed(result)


def _misfit(value: object, path: str) -> str | None:
    """Return where in the value there is something that is no JSON, and what; None if all is well."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: is {value}, which JSON does not have"
    parts: list[tuple[str, object]] | None = None
    if isinstance(value, Mapping):
        parts = [(f"{path}.{name}", inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [(f"{path}[{number}]", inner) for number, inner in enumerate(value)]
    elif names := getattr(value, "__dataclass_fields__", None) or getattr(value, "__struct_fields__", None):
        parts = [(f"{path}.{name}", getattr(value, name)) for name in names]
    if parts is not None:
        found = (_misfit(inner, inner_path) for inner_path, inner in parts)
        misfit = next((words for words in found if words is not None), None)
        if misfit is not None or parts:
            return misfit
    try:
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
