"""The `input_schema` of a definition: judged with the definition, and the run's input by it at its start. Pure.

JSON Schema 2020-12, by the library of that name, which is loaded here and nowhere else. Nothing is fetched: a `$ref`
stays inside of the schema. `format` is checked for `date`, `date-time` and `uuid`; any other is a remark for people.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from orchestrator.model.commands import Json
from orchestrator.model.errors import InputRejected
from orchestrator.model.grammar_keys import DIALECT
from orchestrator.model.words import at, quoted

MAX_LEVELS = 30
"""Levels of objects and lists in one another in a schema; an input has MAX_DEPTH of `messages`."""

MAX_PROBLEMS = 100
"""How many problems of one input are told."""

_MAX_SHOWN = 300
_REFERENCES = ("$ref", "$dynamicRef")


def schema_problems(path: str, schema: Mapping[str, Json]) -> Iterator[str]:
    """Yield what is wrong with a schema: as one, with what it refers to, and with its defaults."""
    if _levels(schema) > MAX_LEVELS:
        yield f"{path}: is nested too deeply; allowed: {MAX_LEVELS} levels"
        return
    if schema.get("$schema", DIALECT) != DIALECT:
        yield f'{path}["$schema"]: is another dialect; allowed: {DIALECT}, or leave it out'
        return
    wrong = False
    for error in _errors(Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=_PATTERNS), schema):
        wrong = True
        yield f"{_path(path, error.absolute_path)}: {_words(error)}"
    if not wrong:
        found = list(_unresolved(path, schema))
        yield from found or _useless(path, schema)


def filled_in(schema: Mapping[str, Json], given: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return the input with the defaults of the `properties` that it leaves out, in objects that are there.

    Raises:
        InputRejected: it is not as the schema wants it; all problems, each with its path.
    """
    found = _with_defaults(schema, given)
    problems = list(_input_problems(schema, found))
    if problems:
        raise InputRejected(problems)
    return found if isinstance(found, dict) else given


def _input_problems(schema: Mapping[str, Json], value: Json) -> Iterator[str]:
    try:
        for number, error in enumerate(_errors(_validator(msgspec.json.encode(schema)), value)):
            if number == MAX_PROBLEMS:
                yield f"input: has more problems; the first {MAX_PROBLEMS} are told"
                return
            yield f"{_path('input', error.absolute_path)}: {_words(error)}"
    except RecursionError:
        yield "input: is nested too deeply to be judged by its input_schema"


@lru_cache(maxsize=64)
def _validator(schema: bytes) -> Draft202012Validator:
    return Draft202012Validator(msgspec.json.decode(schema), format_checker=_FORMATS, registry=Registry())


def _errors(validator: Draft202012Validator, value: Json) -> list[ValidationError]:
    """The errors in the order of their places; a choice (anyOf, oneOf) is one error."""
    return sorted(validator.iter_errors(value), key=lambda error: [str(part) for part in error.absolute_path])


def _words(error: ValidationError) -> str:
    """An error's message, which begins with the value; a long one is cut in its middle."""
    message = " ".join(error.message.split())
    if len(message) > _MAX_SHOWN:
        message = f"{message[: _MAX_SHOWN // 2]} … {message[-_MAX_SHOWN // 2 :]}"
    return message.encode("utf-8", "replace").decode()


def _path(path: str, parts: Sequence[str | int]) -> str:
    for part in parts:
        path = at(path, part)
    return path


def _with_defaults(schema: Json, value: Json) -> Json:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or not isinstance(value, Mapping):
        return value
    found = dict(value)
    for name, inner in properties.items():
        if name not in found and isinstance(inner, dict) and "default" in inner:
            found[name] = inner["default"]
        if name in found:
            found[name] = _with_defaults(inner, found[name])
    return found


def _unresolved(path: str, schema: Mapping[str, Json]) -> Iterator[str]:
    """Yield the references that lead out of the schema, or nowhere in it."""
    resolver = Registry().with_resource("", Resource.from_contents(schema, DRAFT202012)).resolver("")
    for where, holder in _objects(path, schema):
        if isinstance(holder.get("$id"), str):
            yield f'{at(where, "$id")}: cannot stand here; references are within the schema, as in "#/$defs/day"'
        for key in _REFERENCES:
            reference = holder.get(key)
            if not isinstance(reference, str):
                continue
            try:
                if not reference.startswith("#"):
                    raise LookupError(reference)
                resolver.lookup(reference)
            except (LookupError, Unresolvable, ValueError):
                how = 'write one within the schema, as in "#/$defs/day"'
                yield f"{at(where, key)}: {quoted(reference)} leads nowhere; {how}"


def _useless(path: str, schema: Mapping[str, Json]) -> Iterator[str]:
    """Yield why no input could ever pass, as far as that shows, and the defaults that do not."""
    kinds = schema.get("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        yield f'{at(path, "type")}: is {quoted(str(kinds))}; a run\'s input is an object: write "object"'
        return
    try:
        _errors(_validator(msgspec.json.encode(schema)), {})
        for where, inner in _defaulted(path, schema):
            rules = {**inner, **({"$defs": schema["$defs"]} if "$defs" in schema else {})}
            for error in _errors(_validator(msgspec.json.encode(rules)), inner["default"]):
                yield f"{_path(at(where, 'default'), error.absolute_path)}: {_words(error)}"
    except RecursionError:
        yield f"{path}: refers to itself without end"


def _defaulted(path: str, schema: Json) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Yield (path, schema) of the properties that have a default which is filled in."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for name, inner in properties.items() if isinstance(properties, dict) else ():
        where = at(at(path, "properties"), name)
        if isinstance(inner, dict) and "default" in inner:
            yield where, inner
        yield from _defaulted(where, inner)


def _objects(path: str, value: Json) -> Iterator[tuple[str, Mapping[str, Json]]]:
    """Yield (path, object) of every object of a schema that may be one itself: not those that are data."""
    waiting: list[tuple[str, Json]] = [(path, value)]
    while waiting:
        where, each = waiting.pop()
        if isinstance(each, dict):
            yield where, each
            waiting += [
                (at(where, key), each[key]) for key in each if key not in ("default", "const", "enum", "examples")
            ]
        elif isinstance(each, list):
            waiting += [(at(where, index), inner) for index, inner in enumerate(each)]


def _levels(value: Json) -> int:
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        each, level = waiting.pop()
        if isinstance(each, dict | list):
            deepest = max(deepest, level)
            waiting += [(inner, level + 1) for inner in (each.values() if isinstance(each, dict) else each)]
    return deepest


def _is_date(value: Any) -> bool:
    return not isinstance(value, str) or (len(value) == 10 and bool(date.fromisoformat(value)))


def _is_time(value: Any) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def _is_uuid(value: Any) -> bool:
    return not isinstance(value, str) or str(UUID(value)) == value.lower()


def _is_pattern(value: Any) -> bool:
    return not isinstance(value, str) or bool(re.compile(value))


_FORMATS = FormatChecker(formats=())
for _name, _check in (("date", _is_date), ("date-time", _is_time), ("uuid", _is_uuid)):
    _FORMATS.checkers = {**_FORMATS.checkers, _name: (_check, ValueError)}
_PATTERNS = FormatChecker(formats=())
_PATTERNS.checkers = {"regex": (_is_pattern, (re.error, OverflowError, RecursionError))}
