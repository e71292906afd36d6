"""The query language of Cloud Logging, as far as this project writes it.

OR binds more tightly than AND, which may be left out: `a OR b AND c` is `(a OR b) AND c`. A value in parentheses is
several: `x=("1" OR "2")`. Source: https://docs.cloud.google.com/logging/docs/view/logging-query-language
"""

import re
from collections.abc import Callable
from datetime import datetime

Entry = dict
Test = Callable[[Entry], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>>=|<=|!=|[()=:<>])|(?P<word>(?:[A-Za-z0-9_@%-]|\.(?=[A-Za-z0-9_"@])|"(?:[^"\\]|\\.)*")+))"""
)


def matches(query: str, entry: Entry) -> bool:
    """Whether a query finds an entry. Raises ValueError for what this cannot read."""
    return compiled(query)(entry)


def compiled(query: str) -> Test:
    """Read a query."""
    tokens, at = [], 0
    query = query.strip()
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise ValueError(f"no query: {query[at : at + 40]!r}")
        tokens.append(found[1] or found[2])
        at = found.end()
    parser = _Parser(tokens)
    test = parser.all_of()
    if parser.tokens:
        raise ValueError(f"no query: {parser.tokens[:5]} are left over")
    return test


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens

    def next_is(self, *words: str) -> bool:
        return bool(self.tokens) and self.tokens[0] in words

    def all_of(self) -> Test:
        parts = [self.any_of()]
        while self.tokens and not self.next_is(")"):
            if self.next_is("AND"):
                self.tokens.pop(0)
            parts.append(self.any_of())
        return lambda entry: all(part(entry) for part in parts)

    def any_of(self) -> Test:
        parts = [self.one()]
        while self.next_is("OR"):
            self.tokens.pop(0)
            parts.append(self.one())
        return lambda entry: any(part(entry) for part in parts)

    def one(self) -> Test:
        if self.next_is("NOT"):
            self.tokens.pop(0)
            inner = self.one()
            return lambda entry: not inner(entry)
        if self.next_is("("):
            self.tokens.pop(0)
            inner = self.all_of()
            self.take(")")
            return inner
        path = [part.strip('"') for part in re.findall(r'"[^"]*"|[^."]+', self.tokens.pop(0))]
        sign = self.tokens.pop(0)
        values = self.values()
        return lambda entry: any(_holds(_at(entry, path), sign, value) for value in values)

    def values(self) -> list[str]:
        if not self.next_is("("):
            return [_plain(self.tokens.pop(0))]
        self.tokens.pop(0)
        values = [_plain(self.tokens.pop(0))]
        while self.next_is("OR"):
            self.tokens.pop(0)
            values.append(_plain(self.tokens.pop(0)))
        self.take(")")
        return values

    def take(self, word: str) -> None:
        if not self.next_is(word):
            raise ValueError(f"no query: {word!r} is missing before {self.tokens[:5]}")
        self.tokens.pop(0)


def _plain(word: str) -> str:
    return re.sub(r"\\(.)", r"\1", word[1:-1]) if word.startswith('"') else word


def _at(entry: object, path: list[str]) -> object:
    for part in path:
        if not isinstance(entry, dict) or part not in entry:
            return None
        entry = entry[part]
    return entry


def _holds(found: object, sign: str, value: str) -> bool:
    if found is None:
        return False
    if sign in ("=", "!="):
        return (str(found) == value) == (sign == "=")
    if sign == ":":
        return value.lower() in str(found).lower()
    mine, other = (datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)) for text in (str(found), value))
    return {">=": mine >= other, "<=": mine <= other, ">": mine > other, "<": mine < other}[sign]
