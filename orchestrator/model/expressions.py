"""Path expressions: `${run.input.day}`, `${steps.Count.result.items[0]["a b"]}`. Pure.

A string that is one whole expression takes the value with its type; inside of a longer string the value
becomes text (a string as it is, anything else as compact JSON). `$${` is a literal `${`. The names of
objects are never expressions. An expression is looked up, never evaluated.

The words for paths, kinds and near misses on top are those of every message about a definition.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import ExpressionError

Scope = Mapping[str, object]
"""Root -> what is under it; each level may be a Mapping that makes its values when asked."""

ROOTS: Mapping[str, tuple[str, ...]] = {
    "run": ("run_id", "dag", "input", "started_at", "scheduled_for"),
    "steps": ("result", "status"),
    "error": ("type", "message", "node"),
}
"""What an expression begins with, and the keys there: of the run, and of every step."""

# ---- Words of messages -------------------------------------------------------------------------------

_plain_key = re.compile(r"[\w-]{1,80}")


def quoted(text: str) -> str:
    """Return `text` in double quotes, shortened and fit to be printed, whatever is in it."""
    short = text if len(text) <= 80 else text[:79] + "…"
    return json.dumps(short, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def at(path: str, key: str | int) -> str:
    """Return the path of `key` in what is at `path`: `steps.A`, `branches[0]`, `input["a b"]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _plain_key.fullmatch(key):
        return f"{path}[{quoted(key)}]"
    return f"{path}.{key}" if path else key


def kind_of(value: object) -> str:
    """Return what to call `value` in "must be a string, not …"."""
    match value:
        case None | True | False:
            return json.dumps(value)
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case Mapping():
            return "an object"
        case date():
            return "a date"
        case _:
            return f"a value of type {type(value).__name__}"


def closest(text: str, known: Iterable[str]) -> str | None:
    """Return the one of `known` that somebody who wrote `text` may have meant, if any is like it."""
    names = {name.casefold(): name for name in known}
    if len(names) > 500:  # so that a hundred mistakes in a huge definition are still told in a second
        names = {folded: name for folded, name in names.items() if name[:1] == text[:1]}
    found = get_close_matches(text[:80].casefold(), list(names)[:500], n=1)
    return names[found[0]] if found else None


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """Return ` did you mean "…"?`, or nothing if none of `known` is like `text`."""
    meant = closest(text, known)
    return f" did you mean {quoted(meant)}?" if meant else ""


def listed(names: Iterable[str]) -> str:
    """Return the first dozen of `names` in quotes."""
    some = [quoted(name) for name in islice(names, 13)]
    return ", ".join(some[:12]) + (", …" if len(some) > 12 else "")


# ---- Expressions -------------------------------------------------------------------------------------


class Expression(msgspec.Struct, frozen=True):
    """One `${…}`: its text as written, and the path that it says, from its root."""

    text: str
    path: tuple[str | int, ...]

    @property
    def step(self) -> str | None:
        """The step whose end it asks about, if it is about a step."""
        return str(self.path[1]) if self.path[0] == "steps" else None

    def resolve(self, scope: Scope) -> Json:
        """Return the value that the path leads to.

        Raises:
            ExpressionError: it leads nowhere; the message tells where it stops and what is there.
        """
        value: object = scope
        for depth, key in enumerate(self.path):
            try:
                if type(key) is int:
                    if not isinstance(value, list | tuple):
                        raise self._dead_end(depth, value)
                    value = value[key]
                else:
                    if type(value) is not dict and not isinstance(value, Mapping):
                        raise self._dead_end(depth, value)
                    value = value[key]
            except LookupError:
                raise self._dead_end(depth, value) from None
        return value

    def _dead_end(self, depth: int, value: object) -> ExpressionError:
        where, key = _written(self.path[:depth]) or "an expression", self.path[depth]
        if isinstance(value, Mapping):
            return ExpressionError(_no_key(self, where, key, (name for name in value if isinstance(name, str))))
        wanted = quoted(key) if isinstance(key, str) else f"[{key}]"
        size = f" of {len(value)}, from [0]" if isinstance(value, list | tuple) else ""
        return ExpressionError(f"{_short(self.text)}: {where} has no {wanted}; it is {kind_of(value)}{size}")


Part = str | Expression
"""Of a string: literal text, or what is to be put there."""

_opening = re.compile(r"\$?\$\{")
_root = re.compile(r"[ \t\r\n]*([\w-]+)")
_link = re.compile(
    r"""\.(?P<name>[\w-]+)
      | \[(?P<index>[0-9]{1,9})\]
      | \[(?P<quote>["'])(?P<key>(?:\\["'\\]|(?!(?P=quote))[^\\])*)(?P=quote)\]""",
    re.VERBOSE,
)
_closing = re.compile(r"[ \t\r\n]*\}")
_escaped = re.compile(r"\\(.)")


@lru_cache(maxsize=4096)
def parse(text: str) -> tuple[Part, ...]:
    """Return the parts of a string, in order; no part is an empty string.

    Raises:
        ExpressionError: an expression in it is malformed or begins with what there is not.
    """
    parts: list[Part] = []
    literal, position = "", 0
    while (opening := _opening.search(text, position)) is not None:
        literal += text[position : opening.start()]
        if opening.group() == "$${":
            literal, position = literal + "${", opening.end()
            continue
        if literal:
            parts.append(literal)
        expression, position = _parse_one(text, opening.start(), opening.end())
        parts.append(expression)
        literal = ""
    literal += text[position:]
    if literal:
        parts.append(literal)
    return tuple(parts)


def _parse_one(text: str, opened: int, position: int) -> tuple[Expression, int]:
    """Read the expression whose `${` is at `opened`; return it and the position after its `}`."""
    root = _root.match(text, position)
    if root is None:
        raise _syntax_error(text, position, f"expected {' or '.join(ROOTS)}")
    path: list[str | int] = [root[1]]
    position = root.end()
    while (link := _link.match(text, position)) is not None:
        if link["name"] is not None:
            path.append(link["name"])
        elif link["index"] is not None:
            path.append(int(link["index"]))
        else:
            path.append(_escaped.sub(r"\1", link["key"]))
        position = link.end()
    closing = _closing.match(text, position)
    if closing is None:
        match text[position : position + 1]:
            case ".":
                raise _syntax_error(text, position + 1, 'expected a name after "."')
            case "[":
                raise _syntax_error(text, position + 1, 'expected a number or a quoted key, and then "]"')
            case _:
                raise _syntax_error(text, position, 'expected ".", "[" or "}"')
    expression = Expression(text[opened : closing.end()], tuple(path))
    _check_roots(expression)
    return expression, closing.end()


def _check_roots(expression: Expression) -> None:
    """Raise if the path does not begin as one must: `run.<key>` or `steps.<name>.<key>`."""
    root, *names = expression.path
    if root not in ROOTS:
        where, allowed, key = "an expression", tuple(ROOTS), root
    elif root == "steps" and names and isinstance(names[0], int):
        raise ExpressionError(f"{_short(expression.text)}: steps has no numbers; name a step, as in steps.A")
    else:
        where, allowed = _written(expression.path[: 2 if root == "steps" else 1]), ROOTS[str(root)]
        rest = names[1:] if root == "steps" else names
        if not rest:  # a part of it is a value; the whole of `steps` would depend on who ended first
            further = listed(allowed) if names or root != "steps" else "the name of a step"
            raise ExpressionError(f"{_short(expression.text)}: stops too early; go on to {further}")
        key = rest[0]
    if key not in allowed:
        raise ExpressionError(_no_key(expression, where, key, allowed))


def _no_key(expression: Expression, where: str, key: str | int, allowed: Iterable[str]) -> str:
    names = list(allowed)
    near = did_you_mean(key, names) if isinstance(key, str) else ""
    wanted = quoted(key) if isinstance(key, str) else f"[{key}]"
    return f"{_short(expression.text)}: {where} has no {wanted};{near} it has {listed(names) or 'nothing'}"


def _syntax_error(text: str, position: int, expected: str) -> ExpressionError:
    how = 'write as in ${run.input.day} or ${steps.A.result["a b"][0]}; for the characters ${ write $${'
    return ExpressionError(f"column {position + 1} of {quoted(text)}: {expected}; {how}")


def _written(path: tuple[str | int, ...]) -> str:
    found = ""
    for key in path:
        found = at(found, key)
    return found


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"


# ---- Values that hold expressions --------------------------------------------------------------------


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
            waiting.extend((at(path, index), found[index]) for index in reversed(range(len(found))))


class Template(msgspec.Struct, frozen=True):
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
    resolver = _compile(value)
    return Template(resolver is None, resolver or (lambda _: value))


def compile_condition(text: str) -> Callable[[Scope], bool]:
    """Return what tells whether a whole-string expression holds.

    Raises:
        ExpressionError: it is malformed, or no expression. What is returned raises it where the value is not true or
            false, or the expression leads nowhere.
    """
    parts = parse(text)
    if len(parts) != 1 or not isinstance(parts[0], Expression):
        raise ExpressionError(f"{quoted(text)} is no expression; write one, as in ${{steps.A.result.is_new}}")
    expression = parts[0]

    def holds(scope: Scope) -> bool:
        value = expression.resolve(scope)
        if not isinstance(value, bool):
            raise ExpressionError(f"{_short(text)}: is {kind_of(value)}; a condition is true or false")
        return value

    return holds


def resolve(value: Json, scope: Scope) -> Json:
    """Return `value` with every expression in it replaced; the same object if there is none.

    Raises:
        ExpressionError: an expression is malformed or leads nowhere.
    """
    resolver = _compile(value)
    return value if resolver is None else resolver(scope)


def _compile(value: Json) -> Callable[[Scope], Json] | None:
    """Return what makes the value for a scope, or None if it is the value itself for every scope."""
    if isinstance(value, str):
        return _compile_text(value) if "${" in value else None
    if isinstance(value, dict):
        changing = {key: made for key, item in value.items() if (made := _compile(item)) is not None}
        if changing:
            return lambda scope: {**value, **{key: made(scope) for key, made in changing.items()}}
    elif isinstance(value, list):
        makers = [_compile(item) for item in value]
        if any(makers):
            pairs = list(zip(value, makers, strict=True))
            return lambda scope: [item if made is None else made(scope) for item, made in pairs]
    return None


def _compile_text(text: str) -> Callable[[Scope], Json]:
    parts = parse(text)
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts[0].resolve
    return lambda scope: "".join(part if isinstance(part, str) else _as_text(part, scope) for part in parts)


def _as_text(expression: Expression, scope: Scope) -> str:
    value = expression.resolve(scope)
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ExpressionError(f"{_short(expression.text)}: cannot be written as text: {exc}") from exc


def _plain(value: object) -> Json:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"it is {kind_of(value)}, not JSON")
