"""The words that all messages about definitions and expressions share: paths, kinds of values, near misses. Pure."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from difflib import get_close_matches
from itertools import islice

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
