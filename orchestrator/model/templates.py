"""Values that hold expressions, as a step's parameters: read once a step, resolved once a launch. Pure.

A string that is one whole expression takes the value with its type; inside of a longer string the value
becomes text (a string as it is, anything else as compact JSON). `$${` is a literal `${`. The names of
objects are never expressions.
"""

import json
from collections.abc import Callable, Iterator, Mapping

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import ExpressionError
from orchestrator.model.expressions import Computed, Expression, Part, Path, Scope, parse, short
from orchestrator.model.secrets import SecretName, SecretText
from orchestrator.model.words import at, kind_of


def strings_in(value: Json) -> Iterator[tuple[str, str]]:
    """Yield (path, string) for each string in a value of dicts and lists that holds a `${`."""
    waiting: list[tuple[str, Json]] = [("", value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, str):
            if "${" in found:
                yield path, found
        elif isinstance(found, dict):
            waiting.extend((at(path, str(key)), found[key]) for key in reversed(found))
        elif isinstance(found, list):
            # Lists can be long, as "depends_on" is; hardly any of them holds an expression.
            inner = [index for index, each in enumerate(found) if not isinstance(each, str) or "${" in each]
            waiting.extend((at(path, index), found[index]) for index in reversed(inner))


def names_in(value: Json, root: str) -> frozenset[str]:
    """Return the names under a root (`var.NAME`) that the expressions anywhere in a value refer to.

    Text that only looks like an expression counts for nothing.
    """
    return frozenset(str(path[1]) for path in paths_in(value, root))


def paths_in(value: Json, root: str) -> Iterator[Path]:
    """Yield what the expressions anywhere in a value refer to under a root: `(root, key, …)`; likewise."""
    for _, text in strings_in(value):
        try:
            parts = parse(text)
        except ExpressionError:
            continue
        for part in parts:
            if not isinstance(part, str):
                yield from (path for path in part.paths if path[0] == root)


def asks_for(value: Json, root: str) -> bool:
    """Whether an expression anywhere in a value refers to a root."""
    for _, text in strings_in(value):
        try:
            parts = parse(text)
        except ExpressionError:
            continue
        if any(path[0] == root for part in parts if not isinstance(part, str) for path in part.paths):
            return True
    return False


class Template(msgspec.Struct, frozen=True, gc=False):
    """A value with its expressions read: made once a step, resolved once a launch.

    Attributes:
        is_constant: there is no `${` in it; then `resolve` returns the value that it was made from.
    """

    is_constant: bool
    _resolve: Callable[[Scope], Json]

    def resolve(self, scope: Scope) -> Json:
        """Return the value with every expression replaced; parts without any are shared, not copied.

        Raises:
            ExpressionError: an expression leads nowhere.
        """
        return self._resolve(scope)


def compile_value(value: Json) -> Template:
    """Return the template of a value of dicts and lists, no deeper than a checked definition's.

    Raises:
        ExpressionError: an expression in it is malformed.
    """
    resolver = _maker_of(value)
    return Template(resolver is None, resolver or _Constant(value))


class _Constant(msgspec.Struct, frozen=True, gc=False):
    """Most values are: one of these is nothing that the garbage collector has to go through, a closure is three."""

    value: Json

    def __call__(self, _: Scope) -> Json:
        return self.value


def resolve(value: Json, scope: Scope) -> Json:
    """Return `value` with every expression in it replaced; the same object if there is none.

    Raises:
        ExpressionError: an expression is malformed or leads nowhere.
    """
    resolver = _maker_of(value)
    return value if resolver is None else resolver(scope)


def _maker_of(value: Json) -> Callable[[Scope], Json] | None:
    """Return what makes the value for a scope, or None if it is the value itself for every scope."""
    if isinstance(value, str):
        return _compile_text(value) if "${" in value else None
    if isinstance(value, dict):
        changing = {key: made for key, item in value.items() if (made := _maker_of(item)) is not None}
        if changing:
            return lambda scope: {**value, **{key: made(scope) for key, made in changing.items()}}
    elif isinstance(value, list):
        makers = [_maker_of(item) for item in value]
        if any(makers):
            pairs = list(zip(value, makers, strict=True))
            return lambda scope: [item if made is None else made(scope) for item, made in pairs]
    return None


def _compile_text(text: str) -> Callable[[Scope], Json]:
    parts = parse(text)
    if any(map(_is_secret, parts)):
        return lambda scope: SecretText(tuple(_secret_part(part, scope) for part in parts))
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts[0].resolve
    return lambda scope: "".join(part if isinstance(part, str) else _as_text(part, scope) for part in parts)


def _is_secret(part: Part) -> bool:
    return isinstance(part, Expression) and part.path[0] == "secret"


def _secret_part(part: Part, scope: Scope) -> str | SecretName:
    if isinstance(part, Expression) and part.path[0] == "secret":
        return SecretName(str(part.path[1]))
    return part if isinstance(part, str) else _as_text(part, scope)


def _as_text(expression: Expression | Computed, scope: Scope) -> str:
    value = expression.resolve(scope)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ExpressionError(f"{short(expression.text)}: cannot be written as text: {exc}") from exc


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it is {kind_of(value)}, not JSON")
