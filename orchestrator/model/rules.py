"""What a step says about errors: which ones are tried again, and where others lead. Pure.

An error's class is a dotted word (`Task.Timeout`). Rules name classes: `Task.Timeout` is that one, `Task.*` every one
that begins with `Task.`, `*` every one. The first rule that names an error's class is the one that counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.durations import parse_duration

ANY_ERROR = ("*",)


class RetryRule(msgspec.Struct, frozen=True):
    """How often a step is tried again after an error, and when.

    Attributes:
        errors: classes of errors that it is about.
        max_attempts: how often it is tried at the most, the first time included.
        delay_s: how long to wait before the second attempt, in seconds.
        backoff: what each further wait is longer by, as a factor.
        max_delay_s: the longest wait; None: no limit.
        jitter: which share of a wait is left to chance, from 0 to 1.
    """

    errors: tuple[str, ...] = ANY_ERROR
    max_attempts: int = 3
    delay_s: float = 1.0
    backoff: float = 2.0
    max_delay_s: float | None = None
    jitter: float = 0.0


class Route(msgspec.Struct, frozen=True):
    """Where an error leads.

    Attributes:
        errors: classes of errors that it is about.
        next: the step that follows then.
    """

    errors: tuple[str, ...]
    next: str


R = TypeVar("R", RetryRule, Route)


def rule_for(rules: Sequence[R], error_type: str) -> R | None:
    """Return the first rule that is about a class of errors."""
    return next((rule for rule in rules if _is_named(error_type, rule.errors)), None)


def _is_named(error_type: str, classes: Iterable[str]) -> bool:
    return any(
        each in ("*", error_type) or (each.endswith(".*") and error_type.startswith(each[:-1])) for each in classes
    )


def retry_rules(value: Json) -> tuple[RetryRule, ...]:
    """Read a step's `retry`: one rule or a list of them, checked before."""
    return tuple(_retry_rule(each) for each in _objects(value))


def routes(value: Json) -> tuple[Route, ...]:
    """Read a step's `on_error`: a list, checked before."""
    return tuple(Route(_classes(each), str(each["next"])) for each in _objects(value))


def _retry_rule(value: Mapping[str, Json]) -> RetryRule:
    given: dict[str, Json] = {name: value[name] for name in ("max_attempts", "backoff", "jitter") if name in value}
    for name in ("delay", "max_delay"):
        if name in value:
            given[f"{name}_s"] = parse_duration(str(value[name]))
    return msgspec.convert({"errors": _classes(value), **given}, RetryRule, strict=True)


def _classes(value: Mapping[str, Json]) -> tuple[str, ...]:
    errors = value.get("errors")
    return tuple(map(str, errors)) if isinstance(errors, list) else ANY_ERROR


def _objects(value: Json) -> list[dict[str, Json]]:
    found = value if isinstance(value, list) else [] if value is None else [value]
    return [each for each in found if isinstance(each, dict)]
