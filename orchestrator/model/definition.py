"""Judge a definition: report every rule that it breaks, each with its path and what to write instead. Pure.

What each key may hold the grammar's table says; here is what concerns several steps at once: names,
the order in which steps run, and which steps an expression may ask about. Any value at all can be
judged, also what YAML makes and JSON cannot (dates, keys that are no strings, a list inside of itself).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import and_, or_

from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import TargetTypes, Triggers
from orchestrator.model.errors import DefinitionError, ExpressionError
from orchestrator.model.expressions import EVERYWHERE, ROOTS, Computed, Expression, compile_condition, parse, steps_in
from orchestrator.model.grammar import BRANCH, DEFINITION, STEP_NAME_RULE, homes, shape_of
from orchestrator.model.grammar_of_runs import NOTIFY
from orchestrator.model.grammar_rules import Kind, Shape, key_problem, text_problem
from orchestrator.model.ids import MAX_MAPS
from orchestrator.model.times import HOW_TIME, parse_time
from orchestrator.model.words import at, closest, did_you_mean, kind_of, listed, quoted

MAX_DEPTH = 100
"""Levels of Parallels and Maps in one another, and of lists and objects in one another in `parameters`."""

MAX_VALUES = 1_000_000
"""Values in all `parameters` together: YAML aliases can make more of a few lines than fits in memory."""


_RUN_RESULT = "$result"
"""In place of a step's name: the `result` of the definition itself, which asks once all steps have ended."""

_MARKED = re.compile(r"\$\{[^{}]*\}")

_MOST = 1.7976931348623157e308
"""The largest number that a double holds."""


def check(definition: object) -> None:
    """Raise DefinitionError with all problems of `definition`, if it has any."""
    found = problems(definition)
    if found:
        raise DefinitionError(found)


def problems(definition: object) -> list[str]:
    """Return every problem of `definition` as `path: what is wrong; what is allowed`; never raises."""
    if not isinstance(definition, dict):
        return [f"definition: must be an object with start and steps, not {kind_of(definition)}"]
    return list(_Judge(definition).problems())


def notify_problems(path: str, value: object) -> Iterator[str]:
    """Yield what is wrong with a value of `notify` that stands at `path`."""
    problem = NOTIFY.problem(value)
    if problem:
        yield f"{path}: {problem}"
    else:
        yield from NOTIFY.inner_problems(path, value)


@dataclass(eq=False)
class _Body:
    """A `start` with its `steps`: the definition itself, a branch, or the iterator of a Map."""

    path: str
    value: Mapping[object, object]
    shape: Shape
    holder: _Place | None = None
    """The Parallel that this is a branch of, or the Map whose iterator."""
    depth: int = 0
    maps: int = 0
    """How many Maps it is in."""
    flaw: str = ""
    """Why what is in it is not judged."""
    is_finally: bool = False
    """Its steps run when those of the definition have ended."""
    is_iterator: bool = False
    """Its steps run once an item."""

    @property
    def start(self) -> object:
        return self.value.get("start")

    @cached_property
    def steps(self) -> Mapping[object, object]:
        """Its steps, as far as there are any to judge."""
        steps = self.value.get("steps")
        return steps if isinstance(steps, dict) and not self.flaw else {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in self.steps if isinstance(name, str))

    @cached_property
    def ways(self) -> Mapping[str, Ways]:
        """Name -> the ways that lead on from each step."""
        return {name: Ways.of(self.steps[name]) for name in self.names}

    @cached_property
    def waits(self) -> Mapping[str, tuple[str, ...]]:
        """Name -> what a step names in its `depends_on`; only those that have one."""
        steps = ((name, self.steps[name]) for name in self.names)
        found = ((name, step["depends_on"]) for name, step in steps if isinstance(step, dict) and "depends_on" in step)
        return {
            name: tuple(each for each in told if isinstance(each, str)) if isinstance(told, list) else ()
            for name, told in found
        }

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """The steps that it starts with, as far as that can be told."""
        start = self.start
        if start is not None or not self.waits:
            return (start,) if isinstance(start, str) and start in self.ways else ()
        led_to = {name for ways in self.ways.values() for name in ways.names}
        return tuple(name for name in self.names if name not in self.waits and name not in led_to)

    @cached_property
    def awaited(self) -> Mapping[str, Collection[str]]:
        """Name -> the steps that must have ended for a step to be decided on, where some depend on others."""
        found: dict[str, dict[str, None]] = {name: {} for name in self.names}
        for name, ways in self.ways.items():
            for other in ways.names:
                if other in found and other not in self.waits:
                    found[other][name] = None
        for name, others in self.waits.items():
            found[name] = dict.fromkeys(other for other in others if other in found and other != name)
        return found

    @cached_property
    def onwards(self) -> Mapping[str, Collection[str]]:
        """Name -> the steps that its ways lead to, and those that depend on it."""
        found = {name: {other: None for other in ways.names if other in self.ways} for name, ways in self.ways.items()}
        for name, others in self.waits.items():
            for other in others:
                if other in found and other != name:
                    found[other][name] = None
        return found

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Name -> which step it is in definition order."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def ended(self) -> Mapping[str, int]:
        """Name -> all steps that are certain to have ended when a step starts, as bits by their places in `names`.

        Of a body in which steps depend on others; without those that are in a cycle, or behind one. By `one_failed` a
        step starts while others that it depends on run: of these, only what all of them wait for is certain.
        """
        left = {name: len(others) for name, others in self.awaited.items()}
        followers: dict[str, list[str]] = {name: [] for name in self.names}
        for name, others in self.awaited.items():
            for other in others:
                followers[other].append(name)
        found: dict[str, int] = {}
        waiting = [name for name in self.names if not left[name]]
        while waiting:  # Kahn 1962
            name = waiting.pop()
            each_way = [found[other] | (1 << self.places[other]) for other in self.awaited[name]]
            step = self.steps[name]
            is_early = name in self.waits and isinstance(step, dict) and step.get("trigger") == Triggers.ONE_FAILED
            found[name] = reduce(and_ if is_early else or_, each_way) if each_way else 0
            for other in followers[name]:
                left[other] -= 1
                if not left[other]:
                    waiting.append(other)
        return found

    def ends_before(self, name: str, other: str) -> bool:
        """Whether a step has certainly ended when another one starts."""
        if not self.waits:
            return self.leads_to(name, other)
        return bool(self.ended.get(other, 0) >> self.places[name] & 1)

    @cached_property
    def order(self) -> Mapping[str, int]:
        """Name -> position of each step that a way from the start comes by, depth first."""
        return {name: first for name, (first, _) in self.spans.items()}

    @cached_property
    def spans(self) -> Mapping[str, tuple[int, int]]:
        """Name -> position of a step on a walk of the ways from the start, and that of the last step found from it.

        A step that depends on others starts a way of its own.
        """
        firsts: dict[str, int] = {}
        lasts: dict[str, int] = {}
        for root in (*self.entries, *self.waits):
            walk: list[tuple[str, Iterator[str]]] = []
            name = root if root not in firsts else None
            while name is not None or walk:
                if name is not None:
                    firsts[name] = len(firsts)
                    walk.append((name, iter(self.ways[name].names)))
                last, onwards = walk[-1]
                name = next((other for other in onwards if other in self.ways and other not in firsts), None)
                if name is None:
                    lasts[last] = len(firsts) - 1
                    walk.pop()
        return {name: (first, lasts[name]) for name, first in firsts.items()}

    @cached_property
    def beyond(self) -> Mapping[str, int]:
        """Name -> the positions of all steps that ways from it lead to, as bits; of a body without cycles."""
        found: dict[str, int] = {}
        for name in sorted(self.spans, key=lambda each: self.spans[each][1] - self.spans[each][0]):
            self._add_beyond(name, found)
        return found

    def _add_beyond(self, first: str, found: dict[str, int]) -> None:
        waiting = [first]
        open_: set[str] = set()
        while waiting:
            name = waiting[-1]
            inner = [other for other in self.ways[name].names if other in self.spans]
            left = [] if name in open_ else [other for other in inner if other not in found and other not in open_]
            open_.add(name)
            if left:
                waiting.extend(left)
                continue
            bits = 0
            for other in inner:
                bits |= found.get(other, 0) | (1 << self.spans[other][0])
            found[name] = bits
            waiting.pop()

    def leads_to(self, name: str, other: str) -> bool:
        """Whether a way from the start leads from a step to another one."""
        if name not in self.spans or other not in self.spans:
            return False
        (first, last), (position, _) = self.spans[name], self.spans[other]
        return first < position <= last or bool(self.beyond[name] >> position & 1)


@dataclass(frozen=True)
class _Place:
    """Where a step is."""

    name: str
    body: _Body

    @property
    def path(self) -> str:
        return _step_path(self.body, self.name)

    def lineage(self) -> Iterator[_Place]:
        """Itself, the Parallel that holds it, the Parallel that holds that one, …"""
        place: _Place | None = self
        while place is not None:
            yield place
            place = place.body.holder


@dataclass(frozen=True)
class _Event:
    """Where the expressions of a trigger are: before there is a run."""

    roots: tuple[str, ...] = ("event", "var")


_EVENT = _Event()


@dataclass(frozen=True)
class Ways:
    """The ways that lead on from a step: (path of the key that says so, name of the step), in the author's order.

    `are_clear`: nothing is there that may be meant for a way, and names no step.
    """

    named: tuple[tuple[str, str], ...] = ()
    are_clear: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The steps that they lead to."""
        return tuple(name for _, name in self.named)

    @classmethod
    def of(cls, step: object) -> Ways:
        """Read them from whatever stands where a step has to be."""
        if not isinstance(step, dict):
            return cls()
        shape = shape_of(step)
        found: list[tuple[str, object]] = []
        for key, row in shape.keys.items():
            if key in step and row.kind is Kind.STEP:
                found.append((key, step[key]))
            elif key in step and row.shape is not None:
                for path, each in row.objects(key, step[key]):
                    inner = each if isinstance(each, dict) else {}
                    names = (name for name, held in row.shape.keys.items() if held.kind is Kind.STEP)
                    found.extend((f"{path}.{name}", inner.get(name)) for name in names)
        misspelt = (key for key in step if isinstance(key, str) and key not in shape.keys)
        are_clear = all(isinstance(name, str) for _, name in found) and not any(
            closest(key, ("next", "default", "depends_on")) for key in misspelt
        )
        return cls(tuple((path, name) for path, name in found if isinstance(name, str)), are_clear)


def _step_path(body: _Body, name: str) -> str:
    return at(at(body.path, "steps"), name)


def _dependency_path(body: _Body, name: str, other: str, *, is_last: bool = False) -> str:
    """The path of where a step says that it depends on another one: of the first or last place that does."""
    step = body.steps[name]
    told = step.get("depends_on") if isinstance(step, dict) else None
    places = [index for index, each in enumerate(told if isinstance(told, list) else ()) if each == other]
    return at(at(_step_path(body, name), "depends_on"), places[-1 if is_last else 0])


@dataclass
class _Judge:
    definition: Mapping[object, object]
    bodies: list[_Body] = field(default_factory=list)
    """All of them, each before those inside of it, in definition order."""
    places: dict[str, _Place] = field(default_factory=dict)
    """Name -> where it stands first."""
    shared: set[str] = field(default_factory=set)
    """Names that stand more than once."""
    values_left: int = MAX_VALUES
    hints_left: int = 100

    def problems(self) -> Iterator[str]:
        self.find_bodies()
        for body in self.bodies:
            if body.flaw:
                yield f"{body.path}: {body.flaw}"
                continue
            yield from body.shape.problems(body.path, body.value)
            if body.shape is DEFINITION:
                yield from self.input_schema(body.value.get("input_schema"))
                yield from self.triggers(body.value.get("triggers"))
                if "result" in body.value:
                    yield from self.values(_Place(_RUN_RESULT, body), "result", body.value["result"])
            start = body.start
            if isinstance(start, str) and body.names and start not in body.steps:
                yield f"{at(body.path, 'start')}: {self.no_step(start, body)}"
            elif isinstance(start, str) and start in body.waits:
                yield (
                    f"{at(body.path, 'start')}: {quoted(start)} depends on others; name a step that does not, or leave "
                    '"start" out'
                )
            for name, step in body.steps.items():
                if not isinstance(name, str):
                    yield key_problem(at(body.path, "steps"), name)
                else:
                    yield from self.step(_Place(name, body), step)
            yield from self.ways(body)

    def find_bodies(self) -> None:
        """Fill `bodies` and `places`; whatever is not as it should be is passed over here."""
        waiting = [_Body("", self.definition, DEFINITION)]
        if isinstance(last := self.definition.get("finally"), dict):
            waiting.insert(0, _Body("finally", last, BRANCH, is_finally=True))
        seen: set[int] = set()
        while waiting:
            body = waiting.pop()
            self.bodies.append(body)
            if body.depth > MAX_DEPTH:
                body.flaw = f"is nested too deeply; allowed: {MAX_DEPTH} levels of Parallels"
            elif body.maps > MAX_MAPS:
                body.flaw = f"is nested too deeply; allowed: {MAX_MAPS} levels of Maps"
            elif id(steps := body.value.get("steps")) in seen:
                body.flaw = "has the very steps of another place (a YAML alias); step names are unique"
            elif isinstance(steps, dict) and steps:
                seen.add(id(steps))
            inner = []
            for name in body.names:
                place = _Place(name, body)
                if self.places.setdefault(name, place) is not place:
                    self.shared.add(name)
                step = body.steps[name]
                if isinstance(step, dict) and shape_of(step).keys.get("branches"):
                    branches = step.get("branches")
                    for index, branch in enumerate(branches if isinstance(branches, list) else ()):
                        if isinstance(branch, dict):
                            path = at(at(place.path, "branches"), index)
                            inner.append(_Body(path, branch, BRANCH, place, body.depth + 1, body.maps))
                if isinstance(step, dict) and shape_of(step).keys.get("iterator"):
                    iterator, path = step.get("iterator"), at(place.path, "iterator")
                    if isinstance(iterator, dict):
                        depth, maps = body.depth + 1, body.maps + 1
                        inner.append(_Body(path, iterator, BRANCH, place, depth, maps, is_iterator=True))
            waiting.extend(reversed(inner))

    def input_schema(self, schema: object) -> Iterator[str]:
        """Yield the problems of the schema of the run's input."""
        if not isinstance(schema, dict):
            return
        found = list(self.values(None, "input_schema", schema))
        if not found:
            from orchestrator.model.input_schema import schema_problems  # loads a library: only where there is one

            found = list(schema_problems("input_schema", schema))
        yield from found

    def triggers(self, triggers: object) -> Iterator[str]:
        """Yield the problems of what the triggers' expressions say."""
        for index, trigger in enumerate(triggers if isinstance(triggers, list) else ()):
            if not isinstance(trigger, dict):
                continue
            path, when, run_input = at("triggers", index), trigger.get("when"), trigger.get("input")
            if isinstance(when, str):
                yield from (f"{at(path, 'when')}: {problem}" for problem in self.condition(_EVENT, when))
            if isinstance(run_input, dict):
                yield from self.values(_EVENT, at(path, "input"), run_input)

    def step(self, place: _Place, step: object) -> Iterator[str]:
        """Yield the problems of one step and of its name."""
        name, path = place.name, place.path
        problem = STEP_NAME_RULE.problem(name)
        if problem:
            yield f"{path}: {problem}"
        first = self.places[name]
        if first.body is not place.body:
            yield f"{path}: the name {quoted(name)} is taken by {first.path}; names are unique over all branches"
        if not isinstance(step, dict):
            yield f"{path}: must be an object with the keys of a step, not {kind_of(step)}"
            return
        shape = shape_of(step)
        yield from shape.problems(path, step, homes)
        for key_path, following in place.body.ways[name].named:
            if following not in place.body.steps:
                yield f"{path}.{key_path}: {self.no_step(following, place.body)}"
            elif following in place.body.waits:
                yield (
                    f'{path}.{key_path}: leads to {quoted(following)}, which has "depends_on"; a step either depends '
                    "on others or is led to by them"
                )
        yield from self.dependencies(place)
        yield from _heartbeat_problems(path, shape, step)
        yield from self.contents(place, path, shape, step)

    def dependencies(self, place: _Place) -> Iterator[str]:
        """Yield what is wrong with the names in a step's `depends_on`."""
        seen: set[str] = set()
        for name in place.body.waits.get(place.name, ()):
            problem = None
            if name in seen:
                problem = f"{quoted(name)} stands there twice; write it once"
            elif name == place.name:
                problem = f"{quoted(name)} is the step itself; name steps that it is to wait for"
            elif name not in place.body.steps:
                problem = self.no_step(name, place.body)
            if problem:
                yield f"{_dependency_path(place.body, place.name, name, is_last=name in seen)}: {problem}"
            seen.add(name)

    def contents(self, place: _Place, path: str, shape: Shape, step: Mapping[object, object]) -> Iterator[str]:
        """Yield the problems of what the keys of a step, or of an object in it, hold: values and expressions."""
        for key, row in shape.keys.items():
            held = step.get(key)
            if row.shape is not None:
                for where, each in row.objects(at(path, key), held):
                    if isinstance(each, dict):
                        yield from self.contents(place, where, row.shape, each)
            elif row.kind is Kind.CONDITION and isinstance(held, str):
                yield from (f"{at(path, key)}: {problem}" for problem in self.condition(place, held))
            elif key in step and row.kind is Kind.ITEMS and isinstance(held, str | list):
                problem = items_problem(held) if isinstance(held, str) else None
                yield from [f"{at(path, key)}: {problem}"] if problem else self.values(place, at(path, key), held)
            elif key in step and row.kind in (Kind.ANY, Kind.TEXT) and (row.kind is Kind.ANY or isinstance(held, str)):
                yield from self.values(place, at(path, key), held)
                if key == "until" and isinstance(held, str) and "${" not in held and parse_time(held) is None:
                    yield f"{at(path, key)}: {quoted(held)} is no time; {HOW_TIME}"
            elif row.kind is Kind.VALUES and isinstance(held, dict):
                for held_name in held if row.rule else ():
                    problem = row.rule.problem(held_name) if row.rule and isinstance(held_name, str) else None
                    if problem:
                        yield f"{at(at(path, key), held_name)}: {problem}"
                # Those of a Sub-DAG become the input of a run, and stand in its document; a Callback shows its own.
                may_hide = step.get("target_type") not in (TargetTypes.DAG, TargetTypes.CALLBACK)
                yield from self.values(place, at(path, key), held, may_hide=may_hide)
            elif row.kind is Kind.REQUEST and isinstance(held, dict):
                yield from row.taken_problems(at(path, key), held)
                yield from self.values(place, at(path, key), held, is_literal=True)
            elif row.kind is Kind.BRANCHES and isinstance(held, list):
                for index, branch in enumerate(held):
                    if not isinstance(branch, dict):
                        wrong = f"must be an object with start and steps, not {kind_of(branch)}"
                        yield f"{at(at(path, key), index)}: {wrong}"

    def no_step(self, name: str, body: _Body) -> str:
        """Return what to say of a `start` or `next` that names no step of its body."""
        elsewhere = self.places.get(name)
        if elsewhere is not None:
            return f"{quoted(name)} is not one of the same steps, it is {elsewhere.path}; allowed: {listed(body.names)}"
        return f"no step named {quoted(name)};{self.near(name, body.names)}"

    def near(self, name: str, known: Collection[str]) -> str:
        """Return the one of `known` that may be meant, else some of them."""
        self.hints_left -= 1  # each costs a look at every name
        return (did_you_mean(name, known) if self.hints_left >= 0 else "") or f" there are {listed(known)}"

    def ways(self, body: _Body) -> Iterator[str]:
        """Yield the cycles of a body, and the steps that no way from its start leads to."""
        for found in _cycles(body):
            cycle = self.from_the_start(body, found)
            shown = cycle if len(cycle) <= 12 else [*cycle[:10], "…", cycle[-1]]
            key = next((key for key, name in body.ways[cycle[-1]].named if name == cycle[0]), None)
            where = f"{_step_path(body, cycle[-1])}.{key}" if key else _dependency_path(body, cycle[0], cycle[-1])
            yield f"{where}: makes a cycle: {' -> '.join([*shown, cycle[0]])}; a run enters a step once"
        reached = [body.ways[name] for name in body.order]
        is_told = isinstance(body.start, str) and body.start not in body.waits  # else what is left out is in a cycle
        if is_told and reached and all(ways.are_clear and body.ways.keys() >= set(ways.names) for ways in reached):
            hint = ', give it a "depends_on", or leave "start" out' if body.waits else ""
            for name in body.names:
                if name not in body.order and (not body.waits or body.ways[name].are_clear):
                    yield (
                        f"{_step_path(body, name)}: no way leads to it from the start {quoted(str(body.start))}; "
                        f'name it in the "next" of a step before it{hint}'
                    )

    @staticmethod
    def from_the_start(body: _Body, cycle: list[str]) -> list[str]:
        """Return the cycle, turned so that it begins with the step that the way comes by first."""
        first = min(range(len(cycle)), key=lambda index: body.order.get(cycle[index], len(body.order)))
        return cycle[first:] + cycle[:first]

    def values(
        self,
        place: _Place | _Event | None,
        path: str,
        parameters: object,
        *,
        is_literal: bool = False,
        may_hide: bool = False,
    ) -> Iterator[str]:
        """Yield the problems of `parameters`: what is not JSON, and the expressions in it.

        Args:
            place: of the step or trigger that they are of; None for what holds no expressions and may hold any text.
            is_literal: no expression can stand in it; other text that looks like one (a shell's ${NAME}) may.
            may_hide: a secret can stand in it.
        """
        waiting: list[tuple[str, object, int]] = [(path, parameters, 1)]
        is_too_deep = False
        while waiting:
            where, value, depth = waiting.pop()
            self.values_left -= 1
            if self.values_left <= 0:
                if self.values_left == 0:
                    yield f"{where}: is one value too many; allowed: {MAX_VALUES:,} in a definition"
                return
            if isinstance(value, str):
                problem = text_problem(value)
                if problem:
                    yield f"{where}: {problem}"
                elif place is None:
                    continue
                elif "${" in value and is_literal:
                    yield from (f"{where}: {problem}" for problem in _expressions_in(value))
                elif "${" in value:
                    yield from (f"{where}: {problem}" for problem in self.text(place, value, may_hide=may_hide))
            elif isinstance(value, dict | list):
                if depth > MAX_DEPTH:
                    if not is_too_deep:
                        yield f"{where}: is nested too deeply; allowed: {MAX_DEPTH} levels"
                    is_too_deep = True
                elif isinstance(value, list):
                    waiting.extend(
                        (at(where, index), value[index], depth + 1) for index in range(len(value) - 1, -1, -1)
                    )
                else:
                    for key in value:
                        if not isinstance(key, str):
                            yield key_problem(where, key)
                        elif problem := text_problem(key):
                            yield f"{where}: the key {problem}"
                    waiting.extend(
                        (at(where, key), value[key], depth + 1) for key in reversed(value) if isinstance(key, str)
                    )
            elif not _is_json(value):
                yield f"{where}: is {kind_of(value)} that JSON cannot hold; write it as a string, in quotes"

    def condition(self, place: _Place | _Event, text: str) -> Iterator[str]:
        """Yield the problems of an expression that has to be true or false."""
        try:
            condition = compile_condition(text)
        except ExpressionError as exc:
            yield str(exc)
        else:
            yield from self.expression(place, condition.expression)

    def text(self, place: _Place | _Event, text: str, *, may_hide: bool) -> Iterator[str]:
        """Yield the problems of the expressions in a string."""
        try:
            parts = parse(text)
        except ExpressionError as exc:
            yield str(exc)
            return
        for part in parts:
            if not isinstance(part, str):
                yield from self.expression(place, part, may_hide=may_hide)

    def expression(
        self, place: _Place | _Event, part: Expression | Computed, *, may_hide: bool = False
    ) -> Iterator[str]:
        """Yield what the step, or the trigger, at `place` cannot ask about."""
        roots = {path[0] for path in part.paths}
        if isinstance(place, _Event):
            for root in ROOTS:
                if root in roots and root not in place.roots:
                    yield f"{part.text}: there is no {quoted(root)} here; there is {listed(place.roots)}"
            return
        if place.name == _RUN_RESULT and "error" in roots:
            yield f'{part.text}: there is no "error" here; a run that has failed has no result'
        elif "error" in roots and not self.catches(place):
            yield f'{part.text}: no "on_error" leads to {quoted(place.name)}; only where one does is there an error'
        if "secret" in roots and not may_hide:
            yield f"{part.text}: is kept nowhere, so it can stand in the parameters of what is launched only"
        for root in ROOTS:
            is_there = root in EVERYWHERE | {"error", "secret"} or (
                root in ("item", "index") and any(holder.body.is_iterator for holder in place.lineage())
            )
            if root in roots and not is_there:
                yield f"{part.text}: there is no {quoted(root)} here; there is {listed(sorted(EVERYWHERE))}"
        for name in steps_in(part):
            problem = self.reference(place, name)
            if problem:
                yield f"{part.text}: {problem}"

    @staticmethod
    def catches(place: _Place) -> bool:
        """Whether a step may be entered, at any depth, by way of an `on_error`."""
        for holder in place.lineage():
            body = holder.body
            caught = [name for ways in body.ways.values() for key, name in ways.named if key.startswith("on_error")]
            steps = ((name, body.steps[name]) for name in body.waits)
            caught += [name for name, step in steps if isinstance(step, dict) and step.get("trigger") == "one_failed"]
            if body.is_finally or any(
                name == holder.name or (name in body.ways and body.leads_to(name, holder.name)) for name in caught
            ):
                return True
        return False

    def reference(self, place: _Place, name: str) -> str | None:
        """Return why an expression of the step at `place` cannot ask about the step `name`, if so."""
        other = self.places.get(name)
        if other is None:
            return f"no step named {quoted(name)};{self.near(name, self.places)}"
        if name in self.shared or place.name in self.shared:
            return None
        why = _why_not_ended(place, other)
        if why and place.name == _RUN_RESULT:
            return f"{why}; the run's result is made before that"
        return f"{why}; only steps that have ended before {quoted(place.name)} starts have a result" if why else None


def _heartbeat_problems(path: str, shape: Shape, step: Mapping[object, object]) -> Iterator[str]:
    """Yield why a heartbeat could never be missed, if so."""
    heartbeat, timeout = step.get("heartbeat"), step.get("timeout")
    row = shape.keys.get("heartbeat")
    if row is None or not isinstance(heartbeat, str) or row.problem(heartbeat):
        return
    if step.get("invocation") == "sync":
        yield f'{path}.heartbeat: says nothing with "invocation": "sync", whose call is waited for; write a "timeout"'
    if not isinstance(timeout, str) or shape.keys["timeout"].problem(timeout):
        return
    if parse_duration(heartbeat) >= parse_duration(timeout):
        yield f'{path}.heartbeat: is {heartbeat}; allowed: less than the "timeout", which is {timeout}'


def _why_not_ended(place: _Place, other: _Place) -> str:
    """Return why `other` is not certain to have ended before `place` starts; "" if it is certain."""
    if place.name == _RUN_RESULT:
        *_, root = other.lineage()
        return f'{quoted(other.name)} is in "finally"' if root.body.is_finally else ""
    if other == place:
        return f"{quoted(other.name)} is the step itself"
    for holder in other.lineage():
        if holder.body.is_iterator and all(ours.body is not holder.body for ours in place.lineage()):
            name = holder.body.holder.name if holder.body.holder else ""
            return f"{quoted(other.name)} runs once an item; outside of {quoted(name)} ask for the result of that"
    *_, our_root = place.lineage()
    *_, their_root = other.lineage()
    if our_root.body is not their_root.body:
        return "" if our_root.body.is_finally else f'{quoted(other.name)} is in "finally"'
    # Compare where the two ways part: in the innermost body that both are in.
    ours = {id(holder.body): holder for holder in place.lineage()}
    theirs = next(holder for holder in other.lineage() if id(holder.body) in ours)
    mine, body = ours[id(theirs.body)], theirs.body
    if theirs.name == mine.name:
        if other == theirs:
            return f"{quoted(other.name)} holds this step and ends after it"
        return f"{quoted(other.name)} is in another branch of {quoted(mine.name)}, at the same time"
    if body.ends_before(theirs.name, mine.name) or not {theirs.name, mine.name} <= body.order.keys():
        return ""
    if body.waits and not {theirs.name, mine.name} <= body.ended.keys():
        return ""  # in a cycle
    if body.ends_before(mine.name, theirs.name):
        return f"{quoted(other.name)} comes later than {quoted(place.name)}"
    if body.waits:
        return f"{quoted(place.name)} does not wait for {quoted(other.name)}"
    return f"no way leads from {quoted(other.name)} to {quoted(place.name)}"


def items_problem(text: str) -> str | None:
    """Return why a string can never be a list, if so."""
    try:
        parts = parse(text)
    except ExpressionError as exc:
        return str(exc)
    if len(parts) != 1 or isinstance(parts[0], str):
        return f"{quoted(text)} is no list; write one, or an expression alone, as in ${{steps.A.result.files}}"
    return None


def _cycles(body: _Body) -> Iterator[list[str]]:
    """Yield the steps of each cycle of a body, in the order of its ways; one for each way that closes one."""
    done: set[str] = set()
    for first in body.names:
        walk: dict[str, Iterator[str]] = {}
        name: str | None = first
        while name is not None:
            if name not in done and name not in walk:
                walk[name] = iter(body.onwards[name])
            elif name in walk:
                steps = list(walk)
                yield steps[steps.index(name) :]
            name = None
            while walk and name is None:
                last = next(reversed(walk))
                name = next(walk[last], None)
                if name is None:
                    done.add(last)
                    del walk[last]


def _expressions_in(text: str) -> Iterator[str]:
    """Yield the problem of each expression of ours in a string that is taken as it stands."""
    for found in _MARKED.findall(text):
        try:
            parts = parse(found)
        except ExpressionError:
            continue  # a shell's ${NAME}, or whatever it is to the service
        if not any(len(path) > 1 for part in parts if not isinstance(part, str) for path in part.paths):
            continue
        yield f'{found} is an expression; an expression can stand in "parameters" only'


def _is_json(value: object) -> bool:
    """Whether a value that is no string, list or object is one of JSON's, and a double can hold it."""
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, int | float) and -_MOST <= value <= _MOST
