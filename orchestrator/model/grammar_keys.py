"""What a key of a definition may hold: the words that the grammar's table is written in.

Both judges of a definition read them: `definition.problems` (through `Shape.problems`) and the JSON Schema (through
`Key.schema`). Pure.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.grammar_rules import (
    Choice,
    Cron,
    Duration,
    Pattern,
    Range,
    Zone,
    key_problem,
    text_problem,
)
from orchestrator.model.words import at, closest, did_you_mean, kind_of, quoted

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""Of the JSON Schema of a definition, and of the `input_schema` in one."""


class Kind(Enum):
    """What a key holds: its Python type, its type in JSON Schema, and what a message calls it."""

    STRING = (str, "string", "a string")
    STEP = (str, "string", "the name of a step")
    DURATION = (str, "string", 'a duration as in "90s"')
    FLAG = (bool, "boolean", "true or false")
    NUMBER = (int | float, "number", "a number")
    CONDITION = (str, "string", "an expression that is true or false")
    TEXT = (str, "string", "a text")
    """A string that may hold expressions."""
    TEXTS = (list, "array", "a list of strings")
    STEP_NAMES = (list, "array", "a list of the names of steps")
    ANY = (object, None, "any value")
    """Whatever JSON can hold, its strings with expressions."""
    OBJECT = (dict, "object", "an object of its own keys")
    OBJECTS = (list, "array", "a list of objects")
    OBJECT_OR_OBJECTS = (dict | list, None, "an object or a list of objects")
    VALUES = (dict, "object", "an object")
    REQUEST = (dict, "object", "an object, a request as the service's API has it")
    STEPS = (dict, "object", "an object that holds steps by their names")
    BRANCHES = (list, "array", "a list of branches")
    BRANCH = (dict, "object", "an object with start and steps")
    SCHEMA = (dict, "object", "an object, a JSON Schema")
    ITEMS = (list | str, None, "a list, or an expression that is one")
    COUNT_OR_SHARE = (int | str, None, 'a number, or a share as in "10%"')


class Key(msgspec.Struct, frozen=True):
    """One row: a key, what it holds, and what it is for."""

    name: str
    kind: Kind
    description: str
    is_required: bool = False
    rule: Choice | Pattern | Duration | Cron | Zone | None = None
    """Of the string or of each string of a list, or of the names in an object of values."""
    range: Range | None = None
    """Of the number."""
    shape: "Shape | None" = None
    """Of the object or of each object of a list."""
    most: int | None = None
    """How many strings a list may have; where that is said, none stands there twice."""
    default: str | None = None
    not_with: str | None = None
    """A key that cannot stand beside this one; a flag that is false stands nowhere."""
    unless_requested: tuple[str, ...] = ()
    """It is required unless the step's `request` has one of these."""
    not_requested: tuple[str, ...] = ()
    """Paths of what cannot stand in the step's `request` beside this key."""
    taken: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Of a request: path of what is not to stand in it -> why it is not."""
    needs: str | None = None
    """A key without which this one says nothing."""
    unless: str | None = None
    """It is required unless this key is there."""
    unless_in: tuple[str, str] | None = None
    """It is required unless an object in the one under the first of these keys has the second."""

    def problem(self, value: object) -> str | None:
        """Return what is wrong with the value itself, if anything; what is in it is judged elsewhere."""
        python_type, _, noun = self.kind.value
        is_number = self.kind in (Kind.NUMBER, Kind.COUNT_OR_SHARE)
        if not isinstance(value, python_type) or (is_number and isinstance(value, bool)):
            return f"must be {noun}, not {kind_of(value)}"
        if self.kind is Kind.ANY:
            return None
        if isinstance(value, int | float) and self.range is not None:
            return self.range.problem(value)
        if isinstance(value, str):
            return text_problem(value) or (self.rule.problem(value) if self.rule else None)
        if self.kind in (Kind.STEPS, Kind.BRANCHES) and not value:
            return f"is empty; write at least one {'step' if self.kind is Kind.STEPS else 'branch'}"
        if isinstance(value, list) and not value and self.kind is not Kind.ITEMS:
            return "is empty; write at least one"
        return None

    def inner_problems(self, path: str, value: object) -> Iterator[str]:
        """Yield what is wrong inside of a list of strings, or of objects that have a shape."""
        if self.kind is Kind.TEXTS and isinstance(value, list):
            for index, text in enumerate(value):
                problem = self.rule.problem(text) if self.rule and isinstance(text, str) else None
                if not isinstance(text, str):
                    problem = f"must be a string, not {kind_of(text)}"
                if self.most is not None and not problem and text in value[:index]:
                    problem = f"{quoted(str(text))} stands there twice; write it once"
                if problem:
                    yield f"{at(path, index)}: {problem}"
                if index == self.most:
                    yield f"{path}: has {len(value):,}; allowed are {self.most}"
                    break
        if self.kind is Kind.STEP_NAMES and isinstance(value, list):
            for index, name in enumerate(value):
                if not isinstance(name, str):
                    yield f"{at(path, index)}: must be the name of a step, not {kind_of(name)}"
        if self.shape is not None:
            for where, each in self.objects(path, value):
                if isinstance(each, dict):
                    yield from self.shape.problems(where, each)
                else:
                    yield f"{where}: must be an object, not {kind_of(each)}"

    def objects(self, path: str, value: object) -> Iterator[tuple[str, object]]:
        """Yield (path, what stands there) for an object, or for each of a list."""
        if isinstance(value, list):
            yield from ((at(path, index), each) for index, each in enumerate(value))
        elif isinstance(value, dict):
            yield path, value

    def schema(self) -> dict[str, Json]:
        """Return the row as JSON Schema; it refers to `$defs` for steps and branches."""
        found: dict[str, Json] = {"description": self.description}
        if self.kind.value[1] is not None:
            found["type"] = self.kind.value[1]
        if self.default is not None:
            found["default"] = self.default
        if self.kind is Kind.STEPS:
            return found | {"$ref": "#/$defs/steps"}
        if self.kind is Kind.BRANCHES:
            return found | {"minItems": 1, "items": {"$ref": "#/$defs/branch"}}
        if self.kind is Kind.BRANCH:
            return found | {"$ref": "#/$defs/branch"}
        rule = self.rule.schema() if self.rule else {}
        if self.kind is Kind.TEXTS:
            limits: dict[str, Json] = {} if self.most is None else {"maxItems": self.most, "uniqueItems": True}
            return found | {"minItems": 1, **limits, "items": {"type": "string", **rule}}
        if self.kind is Kind.STEP_NAMES:
            return found | {"minItems": 1, "uniqueItems": True, "items": {"type": "string"}}
        if self.kind is Kind.SCHEMA:
            return found | {"$ref": DIALECT}
        if self.kind is Kind.ITEMS:
            one: Json = {"type": "string", "pattern": r"^\$\{[\s\S]*\}$"}
            return found | {"anyOf": [{"type": "array"}, one]}
        if self.kind is Kind.COUNT_OR_SHARE:
            number = self.range.schema() if self.range is not None else {"type": "integer"}
            return found | {"anyOf": [number, {"type": "string", **rule}]}
        if self.range is not None:
            return found | self.range.schema()
        if self.kind is Kind.VALUES:
            return found | ({"propertyNames": rule} if rule else {})
        if self.kind is Kind.REQUEST:
            return found | _without(self.taken)
        return found | rule

    def taken_problems(self, path: str, request: Mapping[object, object]) -> Iterator[str]:
        """Yield what stands in the request at `path` that is not the author's to set."""
        yield from (f"{path}.{taken}: {why}; leave it out" for taken, why in self.taken.items() if _has(request, taken))


def _has(request: object, path: str) -> bool:
    """Whether something stands at `path` of a request."""
    for part in path.split("."):
        if not isinstance(request, dict) or part not in request:
            return False
        request = request[part]
    return True


def _holds(value: object, key: str) -> bool:
    """Whether one of the objects in an object has a key."""
    return isinstance(value, dict) and any(isinstance(each, dict) and key in each for each in value.values())


def with_schema(path: str) -> dict[str, Json]:
    """Return the schema of an object in which something stands at `path`."""
    first, _, rest = path.partition(".")
    found: dict[str, Json] = {"type": "object", "required": [first]}
    return found | {"properties": {first: with_schema(rest)}} if rest else found


def _without(taken: Iterable[str]) -> dict[str, Json]:
    """Return the schema of an object in which nothing stands at these paths."""
    inner: dict[str, list[str]] = {}
    for path in taken:
        first, _, rest = path.partition(".")
        inner.setdefault(first, []).append(rest)
    properties: dict[str, Json] = {first: False if "" in rests else _without(rests) for first, rests in inner.items()}
    return {"properties": properties} if properties else {}


class Shape(msgspec.Struct, frozen=True):
    """What one kind of object may hold; `noun` is what a message calls such an object."""

    noun: str
    keys: Mapping[str, Key]

    @classmethod
    def of(cls, noun: str, *rows: Key) -> "Shape":
        """Return the shape of these rows."""
        return cls(noun, {row.name: row for row in rows})

    def problems(
        self, path: str, found: Mapping[object, object], homes: Callable[[str], Sequence[str]] = lambda _: ()
    ) -> Iterator[str]:
        """Yield what is wrong with the keys of the object `found` at `path`, and with their values.

        Args:
            homes: name -> the nouns of what has a key of this name, for one that stands in the wrong place.
        """
        meant = set()
        for name, value in found.items():
            if not isinstance(name, str):
                yield key_problem(path, name)
                continue
            row = self.keys.get(name)
            if row is None and not homes(name):
                meant.add(closest(name, self.keys))
            problem = self._unknown(name, homes(name)) if row is None else row.problem(value)
            if problem:
                yield f"{at(path, name)}: {problem}"
            elif row is not None:
                yield from row.inner_problems(at(path, name), value)
        for name, row in self.keys.items():
            if name in found:
                yield from self._beside(path, row, found)
            elif name not in meant:
                yield from self._missing(path, row, found, meant)

    def _missing(
        self, path: str, row: Key, found: Mapping[object, object], meant: Collection[str | None]
    ) -> Iterator[str]:
        """Yield why a key has to be there that is not; `meant` are those that were meant by unknown ones."""
        where = at(path, row.name)
        if row.is_required:
            allowed = f"allowed: {', '.join(row.rule.allowed)}" if isinstance(row.rule, Choice) else ""
            yield f"{where}: is missing; {allowed or f'{self.noun} needs it'}"
        if row.unless is not None and row.unless not in found and row.unless not in meant:
            yield f'{where}: is missing; {self.noun} needs it, or "{row.unless}"'
        if row.unless_in is not None:
            holder, key = row.unless_in
            if not _holds(found.get(holder), key):
                yield f'{where}: is missing; {self.noun} needs it, or "{key}" at one of its {holder}'
        if row.unless_requested:
            request = found.get("request")
            if not any(part in request for part in row.unless_requested if isinstance(request, dict)):
                others = " or ".join(row.unless_requested)
                yield f'{where}: is missing; {self.noun} needs it, or {others} in its "request"'

    def _beside(self, path: str, row: Key, found: Mapping[object, object]) -> Iterator[str]:
        """Yield what cannot stand beside a key that is there, and what it says nothing without."""
        for beside in row.not_requested:
            if _has(found.get("request"), beside):
                yield f'{at(path, "request")}.{beside}: cannot stand beside "{row.name}"; keep one of the two'
        stands = found[row.name] is True or row.kind is not Kind.FLAG
        if stands and row.not_with is not None and row.not_with in found:
            yield f'{at(path, row.name)}: cannot stand beside "{row.not_with}"; keep one of the two'
        if row.needs is not None and row.needs not in found:
            yield f'{at(path, row.name)}: says nothing without "{row.needs}"; write that too, or neither'

    def _unknown(self, name: str, homes: Sequence[str]) -> str:
        if homes:
            return f"is not a key of {self.noun}, only of {' and '.join(homes)}"
        return f"is not a key of {self.noun};{did_you_mean(name, self.keys)} allowed: {', '.join(self.keys)}"
