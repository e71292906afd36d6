"""CEL, the Common Expression Language, by Google's own library: compiled, its references found, evaluated. Pure.

Loaded only where a definition holds an expression that is more than a path. The library parses, checks types and
evaluates; what it has no limit for (the size of values) is bounded here, before an evaluation begins, because
one that runs cannot be stopped. Source: https://github.com/google/cel-spec, doc/langdef.md.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache

from cel_expr_python import cel

from orchestrator.model.allowance import Allowance, current
from orchestrator.model.cel_tree import (
    MAX_ITERATIONS,
    MAX_WORK,
    SCALAR,
    Path,
    Shape,
    TooMuchWork,
    Tree,
    Work,
    paths_in,
    read_checked,
    text_shape,
)
from orchestrator.model.commands import Json
from orchestrator.model.words import did_you_mean, kind_of, quoted

MAX_VALUES = 1_000_000
"""Values, at any depth, that one expression takes in or gives out."""

MAX_LENGTH = 10_000
"""Characters of one expression."""

FUNCTIONS = "size has all exists exists_one filter map matches contains startsWith endsWith int uint double string bool"
"""Of those of the standard the ones that a misspelling is compared to."""


WORK_OF_VALUE = 50
"""How much work it is to take a value in, next to touching it in an evaluation: it passes through Python."""


class CelProblem(Exception):
    """A text is no CEL: `offset` characters into it, what is wrong; `is_syntax` where it cannot even be read."""

    def __init__(self, offset: int, message: str, *, is_syntax: bool = False) -> None:
        self.offset, self.is_syntax = offset, is_syntax
        super().__init__(message)


class CelFailure(Exception):
    """An evaluation has no value; `is_missing` says that a key or a place was asked for that there is not."""

    def __init__(self, message: str, *, is_missing: bool = False) -> None:
        self.is_missing = is_missing
        super().__init__(message)


class Program:
    """One compiled expression.

    Attributes:
        paths: what it refers to, from the roots, in the order of the text, each once.
        may_be_bool: whether its value can be true or false, as far as its types tell.
    """

    def __init__(self, expression: cel.Expression, tree: Tree, roots: tuple[str, ...]) -> None:
        self._expression, self._tree = expression, tree
        names = {_spelt(root): root for root in roots}
        found = tuple(dict.fromkeys(path for path in paths_in(tree) if path[0] in names))
        self.paths = tuple((names[str(path[0])], *path[1:]) for path in found)
        self._wanted = _shortest(found)
        self.may_be_bool = expression.return_type().name() in ("BOOL", "DYN")

    def evaluate(self, scope: Mapping[str, object]) -> Json:
        """Return the value in a scope, of which only what `paths` lead to is looked at. Raises CelFailure."""
        allowance = current()
        if allowance is not None and not allowance.grants(1):
            raise _too_much_together(allowance)
        scope = {_spelt(str(path[0])): scope[str(path[0])] for path in self.paths if path[0] in scope}
        values: dict[Path, object] = {}
        left = _Left(MAX_VALUES)
        shapes: dict[Path, Shape] = {}
        try:
            for path in self._wanted:
                depth, value = _walk(path, scope)
                if depth == len(path):
                    shapes[path] = left.shape(value)
                    values[path] = value
                elif depth:
                    values[path[:depth]] = {} if isinstance(value, Mapping) else value
        finally:
            if allowance is not None:
                allowance.spend(WORK_OF_VALUE * left.taken)
        work = Work(shapes)
        try:
            shape = work.of(self._tree, {})
        except TooMuchWork:
            raise CelFailure(
                f"might take too long with values of this size; allowed: {MAX_WORK:,} values touched, "
                f"{MAX_ITERATIONS:,} rounds of its macros"
            ) from None
        if shape.size > MAX_VALUES:
            raise CelFailure(f"might give too large a value; allowed: {MAX_VALUES:,} values in one another")
        if allowance is not None and not allowance.grants(work.total):
            raise _too_much_together(allowance)
        try:
            answer = self._expression.eval(data=_nested(values))
            if answer.type().name() == "ERROR":
                raise _failure(str(answer.value()))
            if answer.type().name() == "TYPE":
                raise CelFailure("is a type, not a value; JSON holds none")
            return _to_json(answer.plain_value())
        except RuntimeError as exc:  # RecursionError, too
            raise _failure(str(exc)) from exc


def _too_much_together(allowance: Allowance) -> CelFailure:
    return CelFailure(
        "might take too long together with the expressions of all that starts with it; "
        f"allowed: {allowance.work:,} values touched at once"
    )


def compile_cel(source: str, roots: tuple[str, ...]) -> Program:
    """Return the program of a text. Raises CelProblem.

    Args:
        roots: the names that it may begin paths with.
    """
    if len(source) > MAX_LENGTH:
        raise CelProblem(0, f"an expression of {len(source):,} characters; allowed: {MAX_LENGTH:,}")
    try:
        expression = _environment(roots).compile(_word.sub(lambda word: word[1] or _spelt(word[0]), source))
        return Program(expression, read_checked(expression.serialize()), roots)
    except RuntimeError as exc:
        raise _problem(str(exc), source, roots) from exc


@cache
def _environment(roots: tuple[str, ...]) -> cel.Env:
    return cel.NewEnv(variables={_spelt(root): cel.Type.DYN for root in roots})


_word = re.compile(
    r"""(\"{3}.*?\"{3}|'{3}.*?'{3}
      | [bB]?[rR][bB]?(?:"[^"]*"|'[^']*')
      | "(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'
      | \.[ \t\r\n]*\w+)
      | \w+""",
    re.DOTALL | re.VERBOSE,
)
"""A string or a key behind a point, which is taken as it is; or else a name."""


def _spelt(name: str) -> str:
    """Return how a root is spelt to the library: `var` is a word that CEL keeps for itself, though for nothing.

    As long as the root, so that columns stay what they are.
    """
    return "vaR" if name == "var" else name


# ---- Its messages in our words -----------------------------------------------------------------------

_told = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_undeclared = re.compile(r"undeclared reference to '([^'.]*)")
_overload = re.compile(r"[Nn]o matching overloads?(?: found : (.*)| for '(.*?)' applied to '\((.*)\)')", re.DOTALL)
_OPERATOR = re.compile(r"_?([^\w\s]+?)_?")


def _problem(said: str, source: str, roots: tuple[str, ...]) -> CelProblem:
    """Return what the library's first complaint about a text means."""
    if "recursion" in said:
        return CelProblem(0, "is nested too deeply; allowed: 32 levels of operators and brackets")
    told = _told.search(said)
    if told is None:
        return CelProblem(0, said.partition("\n")[0].partition(" [")[0])
    line, column, message = int(told[1]), int(told[2]), told[3].removesuffix(" [INVALID_ARGUMENT]")
    lines = source.split("\n")
    offset = sum(len(before) + 1 for before in lines[: line - 1]) + column - 1
    if undeclared := _undeclared.search(message):
        name = undeclared[1]
        start = source.rfind(name, 0, offset + len(name)) if name else -1
        if name == "secret":
            how = "a secret is not computed with; write it as ${secret.NAME}, alone or inside of other text"
            return CelProblem(max(start, 0), how)
        near = did_you_mean(name, (*roots, *FUNCTIONS.split()))
        return CelProblem(start if start >= 0 else offset, f"there is no {quoted(name)};{near or _there_are(roots)}")
    is_syntax = message.startswith("Syntax error: ")
    message = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    message = re.sub(r"^(mismatched|extraneous) input ", "unexpected ", message).replace("'<EOF>'", "end")
    if overload := _overload.search(message):
        message = _takes_not(overload)
    return CelProblem(min(offset, len(source)), message, is_syntax=is_syntax)


def _there_are(roots: Iterable[str]) -> str:
    return f" there are {', '.join(quoted(root) for root in roots)}"


def _failure(said: str) -> CelFailure:
    """Return what the library's complaint at run time means."""
    message = re.sub(r"^[A-Z_]+: ", "", said.partition("\n")[0])
    message = re.sub(r" \[[A-Z_]+\]$", "", message)
    if "Key not found" in message or "Applying SELECT" in message or "No value with name" in message:
        return CelFailure(message[0].lower() + message[1:], is_missing=True)
    if "Index error" in message:
        return CelFailure(message.removeprefix("Index error: "), is_missing=True)
    if "Iteration budget" in message:
        return CelFailure(f"takes too many rounds of its macros; allowed: {MAX_ITERATIONS:,}")
    if "recursion" in message:
        return CelFailure("is nested too deeply")
    overload = _overload.search(message)
    return CelFailure(_takes_not(overload) if overload else message)


def _takes_not(overload: re.Match[str]) -> str:
    """Return `+ does not take int and string` for `_+_(int64, string)`, and the like."""
    function, kinds = overload[2] or "", overload[3]
    if kinds is None:
        function, _, kinds = (overload[1] or "").rstrip(")").partition("(")
        if not function:  # (int64).startsWith(string
            kinds, _, function = kinds.partition(").")
            function, _, more = function.partition("(")
            kinds = ", ".join(kind for kind in (kinds, more) if kind)
    if function == "_?_:_":
        return "the two values of ? : are of different types; write dyn(…) around one of them"
    if function in ("<jump_condition>", "_&&_", "_||_", "!_"):
        return "is not true or false where that is asked for"
    if function == "<iter_range>":
        return "a macro goes through a list or an object only"
    operator = _OPERATOR.fullmatch(function)
    kinds = " and ".join(kind.replace("int64", "int") for kind in kinds.split(", "))
    return f"{operator[1] if operator else function} does not take {kinds or 'that'}"


# ---- Values in ---------------------------------------------------------------------------------------


def _shortest(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Return the paths without what others lead to already, and without places in lists, which are taken whole."""
    found: set[Path] = set()
    for path in sorted({_keys_of(path) for path in paths}, key=len):
        if not any(path[:length] in found for length in range(1, len(path) + 1)):
            found.add(path)
    return tuple(sorted(found))


def _keys_of(path: Path) -> Path:
    numbers = [depth for depth, key in enumerate(path) if isinstance(key, int)]
    return path[: numbers[0]] if numbers else path


def _walk(path: Path, scope: Mapping[str, object]) -> tuple[int, object]:
    """Return how far a path goes, and what is there."""
    value: object = scope
    for depth, key in enumerate(path):
        if not isinstance(value, Mapping) or key not in value:
            return depth, value
        value = value[key]
    return len(path), value


def _nested(values: Mapping[Path, object]) -> dict[str, object]:
    """Return the scope with nothing in it but the values at these paths."""
    top: dict[str, object] = {}
    for path in sorted(values, key=len):
        place: object = top
        for key in path[:-1]:
            if isinstance(place, dict):
                place = place.setdefault(key, {})
        if isinstance(place, dict):
            place.setdefault(path[-1], values[path])
    return top


class _Left:
    """Measures values, as long as they are not too many altogether."""

    def __init__(self, values: int) -> None:
        self._values = self._left = values

    @property
    def taken(self) -> int:
        """How many values were measured."""
        return self._values - self._left

    def shape(self, value: object) -> Shape:
        """Return a value's shape. Raises CelFailure where it is too large, or no value of CEL's."""
        self._left -= 1
        if self._left < 0:
            raise CelFailure(f"takes too much in; allowed: {MAX_VALUES:,} values in one another")
        match value:
            case bool() | None | float():
                return SCALAR
            case int():
                if not -(1 << 63) <= value < 1 << 63:
                    raise CelFailure(f"the number {value} is too large; allowed: 64 bits")
                return SCALAR
            case str():
                return text_shape(value)
            case list() | tuple():
                members: Iterable[object] = value
            case Mapping():
                if any("\0" in key for key in value):  # the library ends a key there
                    raise CelFailure("takes in an object with a key that has a NUL character")
                members = (*value, *value.values())
            case _:
                raise CelFailure(f"takes in {kind_of(value)}, which is not JSON")
        size, member = 1, None
        for each in members:
            shape = self.shape(each)
            size += shape.size
            if shape is not SCALAR or member is None:
                member = shape.merged(member)
        return Shape(len(value), size, member)


# ---- Values out --------------------------------------------------------------------------------------


def _to_json(value: object) -> Json:
    """Return a value of CEL's as JSON: times as RFC 3339, durations in seconds as CEL writes them."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if not math.isfinite(value):
                raise CelFailure(f"is {value}, which JSON cannot hold")
            return value
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return f"{value.total_seconds():g}s" if value.microseconds else f"{value // timedelta(seconds=1)}s"
        case list() | tuple():
            return [_to_json(item) for item in value]
        case Mapping():
            for key in value:
                if not isinstance(key, str):
                    raise CelFailure(f"has the key {key!r}; the keys of JSON are strings")
            return {key: _to_json(value[key]) for key in sorted(value)}  # the library's order is not defined
        case bytes() | bytearray():
            raise CelFailure("is bytes, which JSON cannot hold; make a string of it")
        case _:
            raise CelFailure(f"is {kind_of(value)}, which JSON cannot hold")
