"""The part of the Logging query language that our filters are written in: does an entry match a filter?

AND (written or not), OR, NOT, parentheses, `=`, `!=`, `=~`, `!~`, `:`, of times `>=`, `<=`, `>`, `<`, a comparison
with several values, quoted strings, field paths with quoted segments, `log_id()`. Whatever else there is is refused.

What is easily got wrong, from https://cloud.google.com/logging/docs/view/logging-query-language:
- NOT binds closest, then OR, then AND: `a OR NOT b AND NOT c OR d` is `(a OR (NOT b)) AND ((NOT c) OR d)`;
- comparisons ignore case, regular expressions (RE2, found anywhere) do not;
- a comparison with a missing label or a missing part of a payload is false, whatever its operator;
- a missing field that every LogEntry has stands at its default: "" for text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import ge, gt, le, lt
from urllib.parse import quote

MAX_LENGTH = 20_000

Matcher = Callable[[Mapping], bool]

_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*)
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<operator>=~|!~|!=|>=|<=|=|:|>|<)
      | (?P<paren>[()])
      | (?P<word>[A-Za-z_@0-9][A-Za-z_@0-9/-]*)
      | (?P<dot>\.)""",
    re.VERBOSE,
)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r"}
_OF_MAPS = ("labels", "jsonPayload", "protoPayload", "resource.labels")
"""What begins with one of these is missing where it is not there; other fields have defaults."""


class QueryError(ValueError):
    """The filter is malformed, or uses what is not known here."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def matches(query: str, entry: Mapping) -> bool:
    """Whether a LogEntry matches a filter. Raises QueryError."""
    return compile_query(query)(entry)


def compile_query(query: str) -> Matcher:
    """Return what tells whether a LogEntry matches the filter. Raises QueryError."""
    if len(query) > MAX_LENGTH:
        raise QueryError(f"a filter of {len(query)} characters; allowed are {MAX_LENGTH}")
    parser = _Parser(list(_tokens(query)))
    found = parser.expression()
    parser.end()
    return found


def _tokens(query: str) -> Iterator[_Token]:
    position = 0
    while position < len(query):
        found = _TOKEN.match(query, position)
        if found is None:
            raise QueryError(f"{position}: {query[position : position + 20]!r} is not known here")
        kind, text = str(found.lastgroup), found.group()
        if kind == "string":
            text = re.sub(r"\\(.)", lambda escape: _LETTERS.get(escape[1], escape[1]), text[1:-1], flags=re.DOTALL)
        if kind != "space":
            yield _Token(kind, text, position)
        position = found.end()


class _Parser:
    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens

    def _next_is(self, kind: str, *texts: str) -> bool:
        return bool(self._tokens) and self._tokens[0].kind == kind and (not texts or self._tokens[0].text in texts)

    def _take(self, kind: str, *texts: str) -> str:
        if not self._next_is(kind, *texts):
            found = f"{self._tokens[0].text!r} at {self._tokens[0].at}" if self._tokens else "the end"
            raise QueryError(f"expected {' or '.join(texts) or kind}, found {found}")
        return self._tokens.pop(0).text

    def end(self) -> None:
        """Raise unless all was read."""
        if self._tokens:
            raise QueryError(f"{self._tokens[0].at}: {self._tokens[0].text!r} is one too many")

    def expression(self) -> Matcher:
        """AND of ORs of NOTs."""
        return self._all_of(self._term, stops=lambda: not self._tokens or self._next_is("paren", ")"))

    def _all_of(self, term: Callable[[], Matcher], stops: Callable[[], bool]) -> Matcher:
        parts = [self._any_of(term)]
        while not stops():
            if self._next_is("word", "AND"):
                self._take("word", "AND")
            parts.append(self._any_of(term))
        return lambda entry: all(part(entry) for part in parts)

    def _any_of(self, term: Callable[[], Matcher]) -> Matcher:
        parts = [self._negated(term)]
        while self._next_is("word", "OR"):
            self._take("word", "OR")
            parts.append(self._negated(term))
        return lambda entry: any(part(entry) for part in parts)

    def _negated(self, term: Callable[[], Matcher]) -> Matcher:
        if self._next_is("word", "NOT"):
            self._take("word", "NOT")
            inner = self._negated(term)
            return lambda entry: not inner(entry)
        if self._next_is("word", "AND", "OR"):
            raise QueryError(f"{self._tokens[0].at}: {self._tokens[0].text} has nothing before it")
        return term()

    def _term(self) -> Matcher:
        if self._next_is("paren", "("):
            self._take("paren", "(")
            inner = self.expression()
            self._take("paren", ")")
            return inner
        first = self._take("word")
        if self._next_is("paren", "("):
            return self._function(first)
        path = [first]
        while self._next_is("dot"):
            self._take("dot")
            path.append(self._take("string") if self._next_is("string") else self._take("word"))
        operator = self._take("operator")
        if not self._next_is("paren", "("):
            return _comparison(tuple(path), operator, self._value())
        self._take("paren", "(")
        found = self._all_of(
            lambda: _comparison(tuple(path), operator, self._value()), stops=lambda: self._next_is("paren", ")")
        )
        self._take("paren", ")")
        return found

    def _value(self) -> str:
        return self._take("string") if self._next_is("string") else self._take("word")

    def _function(self, name: str) -> Matcher:
        if name != "log_id":
            raise QueryError(f"the function {name} is not known here")
        self._take("paren", "(")
        log_id = self._take("string")
        self._take("paren", ")")
        ending = f"/logs/{quote(log_id, safe='')}"
        return lambda entry: str(entry.get("logName", "")).endswith(ending)


def _comparison(path: tuple[str, ...], operator: str, value: str) -> Matcher:
    has_default = not ".".join(path).startswith(_OF_MAPS)
    compare = _comparer(operator, value)

    def found(entry: Mapping) -> bool:
        held = list(_values_at(entry, path))
        if not held and has_default:
            held = [""]
        return any(compare(text) for text in held)

    return found


def _comparer(operator: str, value: str) -> Callable[[str], bool]:
    folded = value.casefold()
    if operator in ("=~", "!~"):
        pattern = re.compile(value)
        is_found = operator == "=~"
        return lambda text: (pattern.search(text) is not None) == is_found
    if operator in _ORDERS:
        in_order, other = _ORDERS[operator], _time(value)
        return lambda text: text != "" and in_order(_time(text), other)
    if operator == ":":
        return lambda text: folded in text.casefold()
    return lambda text: (text.casefold() == folded) == (operator == "=")


_ORDERS = {">=": ge, "<=": le, ">": gt, "<": lt}


def _time(text: str) -> datetime:
    """An RFC 3339 time, of whose fraction six digits count."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError as exc:
        raise QueryError(f"{text!r} is no time, and nothing else is compared here") from exc


def _values_at(held: object, path: tuple[str, ...]) -> Iterator[str]:
    """The values of a field, as text: several where a part of the path is a list, none where it is missing."""
    if isinstance(held, list):
        for item in held:
            yield from _values_at(item, path)
    elif path:
        if isinstance(held, Mapping) and path[0] in held:
            yield from _values_at(held[path[0]], path[1:])
    elif isinstance(held, bool):
        yield "true" if held else "false"
    elif isinstance(held, str | int | float):
        yield str(held)
