"""Expressions: `${run.input.day}`, `${steps.Count.result.items[0]["a b"]}`, `${steps.Count.result.words > 1000}`. Pure.

What is a path is looked up. Anything else is CEL (`model/cel.py`), of which a path is a part; its library is loaded
with the first expression that needs it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import ExpressionError
from orchestrator.model.words import at, did_you_mean, kind_of, listed, quoted

if TYPE_CHECKING:
    from orchestrator.model.cel import Program

Scope = Mapping[str, object]
"""Root -> what is under it; each level may be a Mapping that makes its values when asked."""

Path = tuple[str | int, ...]

ROOTS: Mapping[str, tuple[str, ...] | None] = {
    "run": ("run_id", "dag", "input", "started_at", "scheduled_for", "status"),
    "steps": ("result", "status"),
    "var": None,
    "secret": None,
    "item": None,
    "index": None,
    "error": ("type", "message", "node"),
    "event": None,
}
"""What an expression begins with, and the keys there: of the run, of every step, of an error. None: a value itself."""

EVERYWHERE = frozenset(("run", "steps", "var"))
"""Roots that every step has; the others are there where something gives them a value."""

SECRET_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
"""What a secret may be called. Source: Secret Manager's reference of projects.secrets.create."""

# ---- Expressions -------------------------------------------------------------------------------------


class Expression(msgspec.Struct, frozen=True):
    """One `${…}` that is a path: its text as written, and the path that it says, from its root."""

    text: str
    path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """What it refers to."""
        return (self.path,)

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
            return ExpressionError(_no_key(self.text, where, key, (name for name in value if isinstance(name, str))))
        wanted = quoted(key) if isinstance(key, str) else f"[{key}]"
        size = f" of {len(value)}, from [0]" if isinstance(value, list | tuple) else ""
        return ExpressionError(f"{short(self.text)}: {where} has no {wanted}; it is {kind_of(value)}{size}")


class Computed(msgspec.Struct, frozen=True):
    """One `${…}` of CEL: its text as written, and its program."""

    text: str
    program: "Program"

    @property
    def paths(self) -> tuple[Path, ...]:
        """What it refers to, as far as that is written out."""
        return self.program.paths

    def resolve(self, scope: Scope) -> Json:
        """Return its value.

        Raises:
            ExpressionError: it has none: a key is missing, types do not fit, it is too large.
        """
        from orchestrator.model.cel import CelFailure

        try:
            return self.program.evaluate(scope)
        except CelFailure as exc:
            if exc.is_missing:
                self._find_missing(scope)
            raise ExpressionError(f"{short(self.text)}: {exc}") from exc

    def _find_missing(self, scope: Scope) -> None:
        """Raise the error of the first path that leads nowhere, if one does."""
        for path in self.paths:
            Expression(self.text, path).resolve(scope)


Part = str | Expression | Computed
"""Of a string: literal text, or what is to be put there."""


def steps_in(part: Expression | Computed) -> tuple[str, ...]:
    """Return the steps whose end an expression asks about."""
    return tuple(dict.fromkeys(str(path[1]) for path in part.paths if path[0] == "steps"))


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
_token = re.compile(
    r"""(?P<string>[rRbB]{0,2}(?:\"{3}.*?\"{3}|'{3}.*?'{3}))
      | (?P<raw>[bB]?[rR][bB]?(?:"[^"]*"|'[^']*'))
      | (?P<quoted>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | (?P<brace>[{}])
      | (?P<other>[\w]+|.)""",
    re.VERBOSE | re.DOTALL,
)


_COMPUTED_ROOTS = tuple(root for root in ROOTS if root != "secret")


class _Unread(ExpressionError):
    """A text is not what was looked for: from this position on."""

    def __init__(self, text: str, position: int, expected: str, *, is_syntax: bool = True) -> None:
        self.position, self.is_syntax = position, is_syntax
        how = '; write as in ${run.input.day} or ${steps.A.result["a b"][0]}; for the characters ${ write $${'
        super().__init__(f"column {position + 1} of {quoted(text)}: {expected}{how if is_syntax else ''}")


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


def _parse_one(text: str, opened: int, position: int) -> tuple[Expression | Computed, int]:
    """Read the expression whose `${` is at `opened`; return it and the position after its `}`.

    Where it is neither a path nor CEL, the one that understood more of it says what is wrong.
    """
    unread: _Unread | None = None
    try:
        expression, end = _parse_path(text, opened, position)
    except _Unread as exc:
        unread = exc
    else:
        if expression.path[0] in ROOTS:
            _check_roots(expression.text, expression.path)
            return expression, end
    closed = _closed_at(text, position)
    if closed is not None and text[position:closed].strip():
        try:
            return _compile_cel(text, opened, position, closed), closed + 1
        except _Unread as exc:
            if unread is not None and (not exc.is_syntax or exc.position > unread.position):
                raise
    if unread is not None:
        raise unread
    _check_roots(expression.text, expression.path)
    return expression, end


def _parse_path(text: str, opened: int, position: int) -> tuple[Expression, int]:
    root = _root.match(text, position)
    if root is None:
        raise _Unread(text, position, "expected an expression")
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
                raise _Unread(text, position + 1, 'expected a name after "."')
            case "[":
                raise _Unread(text, position + 1, 'expected a number or a quoted key, and then "]"')
            case _:
                raise _Unread(text, position, 'expected ".", "[" or "}"')
    return Expression(text[opened : closing.end()], tuple(path)), closing.end()


def _closed_at(text: str, position: int) -> int | None:
    """Return where the `}` of an expression is; braces in strings and in pairs are none."""
    depth = 0
    for token in _token.finditer(text, position):
        if token["brace"] == "{":
            depth += 1
        elif token["brace"] == "}":
            if not depth:
                return token.start()
            depth -= 1
    return None


def _compile_cel(text: str, opened: int, position: int, closed: int) -> Computed:
    """Return the CEL between two positions. Raises _Unread, or the error of a path in it."""
    try:
        from orchestrator.model.cel import CelProblem, compile_cel
    except ImportError as exc:
        raise ExpressionError(
            f"{short(text[opened : closed + 1])}: is more than a path, which takes the library cel-expr-python; "
            "it is not installed here"
        ) from exc
    try:
        computed = Computed(text[opened : closed + 1], compile_cel(text[position:closed], _COMPUTED_ROOTS))
    except CelProblem as exc:
        raise _Unread(text, position + exc.offset, str(exc), is_syntax=exc.is_syntax) from exc
    for path in computed.paths:
        _check_roots(computed.text, path)
    return computed


def _check_roots(text: str, path: Path) -> None:
    """Raise if a path does not begin as one must: `run.<key>`, `steps.<name>.<key>`, …"""
    root, *names = path
    if root not in ROOTS:
        raise ExpressionError(_no_key(text, "an expression", root, ROOTS))
    allowed = ROOTS[str(root)]
    if root == "var" and (not names or isinstance(names[0], int)):
        raise ExpressionError(f"{short(text)}: stops too early; go on to the name of a variable")
    if root == "secret" and (len(names) != 1 or not SECRET_NAME.fullmatch(str(names[0]))):
        raise ExpressionError(f"{short(text)}: is no secret; write ${{secret.NAME}}, of 1 to 255 of A-Z a-z 0-9 _ -")
    if allowed is None:
        return
    if root == "steps" and names and isinstance(names[0], int):
        raise ExpressionError(f"{short(text)}: steps has no numbers; name a step, as in steps.A")
    where = _written(path[: 2 if root == "steps" else 1])
    rest = names[1:] if root == "steps" else names
    if not rest:  # a part of it is a value; the whole of `steps` would depend on who ended first
        further = listed(allowed) if names or root != "steps" else "the name of a step"
        raise ExpressionError(f"{short(text)}: stops too early; go on to {further}")
    if rest[0] not in allowed:
        raise ExpressionError(_no_key(text, where, rest[0], allowed))


def _no_key(text: str, where: str, key: str | int, allowed: Iterable[str]) -> str:
    names = list(allowed)
    near = did_you_mean(key, names) if isinstance(key, str) else ""
    wanted = quoted(key) if isinstance(key, str) else f"[{key}]"
    return f"{short(text)}: {where} has no {wanted};{near} it has {listed(names) or 'nothing'}"


def _written(path: Path) -> str:
    found = ""
    for key in path:
        found = at(found, key)
    return found


def short(text: str) -> str:
    """Return an expression as an error shows it: 120 characters at the most."""
    return text if len(text) <= 120 else f"{text[:119]}…"


# ---- Conditions --------------------------------------------------------------------------------------


class Condition(msgspec.Struct, frozen=True):
    """An expression that is true or false: called with a scope, it says which."""

    expression: Expression | Computed

    @property
    def text(self) -> str:
        """As written, in `${…}`."""
        return self.expression.text

    @property
    def paths(self) -> tuple[Path, ...]:
        """What it refers to."""
        return self.expression.paths

    def __call__(self, scope: Scope) -> bool:
        """Return whether it holds.

        Raises:
            ExpressionError: it has no value, or one that is not true or false.
        """
        value = self.expression.resolve(scope)
        if isinstance(value, bool):
            return value
        raise ExpressionError(f"{short(self.text)}: is {kind_of(value)}; a condition is true or false")


def compile_condition(text: str) -> Condition:
    """Return what tells whether a whole-string expression holds.

    Raises:
        ExpressionError: it is malformed, no expression, not one alone, or can never be true or false.
    """
    part, *more = parse(text) or ("",)
    if more or isinstance(part, str):
        raise ExpressionError(f"{quoted(text)} is no expression; write one, as in ${{steps.A.result.is_new}}")
    if isinstance(part, Computed) and not part.program.may_be_bool:
        raise ExpressionError(f"{short(part.text)}: can never be true or false, as a condition is; compare it")
    return Condition(part)
