"""Judge a definition: report every rule that it breaks, each with its path and what to write instead. Pure.

What each key may hold the grammar's table says, and which steps an expression may ask about
`definition_values`; here is what else concerns several steps at once: their names, and the order in
which they run. Any value at all can be judged, also what YAML makes and JSON cannot (dates, keys that
are no strings, a list inside of itself).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.model.bodies import (
    RUN_RESULT,
    Body,
    Place,
    cycles,
    dependency_path,
    step_path,
)
from orchestrator.model.definition_values import MAX_DEPTH, TRIGGER, Names, Values, items_problem
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import DefinitionError
from orchestrator.model.grammar import BRANCH, DEFINITION, STEP_NAME_RULE, homes, shape_of
from orchestrator.model.grammar_keys import Kind, Shape
from orchestrator.model.grammar_of_runs import NOTIFY
from orchestrator.model.grammar_rules import key_problem
from orchestrator.model.ids import MAX_MAPS
from orchestrator.model.times import HOW_TIME, parse_time
from orchestrator.model.words import at, kind_of, listed, quoted


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


@dataclass
class _Judge:
    definition: Mapping[object, object]
    bodies: list[Body] = field(default_factory=list)
    """All of them, each before those inside of it, in definition order."""
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        self.values = Values(self.names)

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
                    yield from self.values.problems(Place(RUN_RESULT, body), "result", body.value["result"])
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
                    yield from self.step(Place(name, body), step)
            yield from self.ways(body)

    def find_bodies(self) -> None:
        """Fill `bodies` and `names`; whatever is not as it should be is passed over here."""
        waiting = [Body("", self.definition, DEFINITION)]
        if isinstance(last := self.definition.get("finally"), dict):
            waiting.insert(0, Body("finally", last, BRANCH, is_finally=True))
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
                place = Place(name, body)
                if self.names.places.setdefault(name, place) is not place:
                    self.names.shared.add(name)
                step = body.steps[name]
                if isinstance(step, dict) and shape_of(step).keys.get("branches"):
                    branches = step.get("branches")
                    for index, branch in enumerate(branches if isinstance(branches, list) else ()):
                        if isinstance(branch, dict):
                            path = at(at(place.path, "branches"), index)
                            inner.append(Body(path, branch, BRANCH, place, body.depth + 1, body.maps))
                if isinstance(step, dict) and shape_of(step).keys.get("iterator"):
                    iterator, path = step.get("iterator"), at(place.path, "iterator")
                    if isinstance(iterator, dict):
                        depth, maps = body.depth + 1, body.maps + 1
                        inner.append(Body(path, iterator, BRANCH, place, depth, maps, is_iterator=True))
            waiting.extend(reversed(inner))

    def input_schema(self, schema: object) -> Iterator[str]:
        """Yield the problems of the schema of the run's input."""
        if not isinstance(schema, dict):
            return
        found = list(self.values.problems(None, "input_schema", schema))
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
                yield from (f"{at(path, 'when')}: {problem}" for problem in self.values.condition(TRIGGER, when))
            if isinstance(run_input, dict):
                yield from self.values.problems(TRIGGER, at(path, "input"), run_input)

    def step(self, place: Place, step: object) -> Iterator[str]:
        """Yield the problems of one step and of its name."""
        name, path = place.name, place.path
        problem = STEP_NAME_RULE.problem(name)
        if problem:
            yield f"{path}: {problem}"
        first = self.names.places[name]
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

    def dependencies(self, place: Place) -> Iterator[str]:
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
                yield f"{dependency_path(place.body, place.name, name, is_last=name in seen)}: {problem}"
            seen.add(name)

    def contents(self, place: Place, path: str, shape: Shape, step: Mapping[object, object]) -> Iterator[str]:
        """Yield the problems of what the keys of a step, or of an object in it, hold: values and expressions."""
        for key, row in shape.keys.items():
            held = step.get(key)
            if row.shape is not None:
                for where, each in row.objects(at(path, key), held):
                    if isinstance(each, dict):
                        yield from self.contents(place, where, row.shape, each)
            elif row.kind is Kind.CONDITION and isinstance(held, str):
                yield from (f"{at(path, key)}: {problem}" for problem in self.values.condition(place, held))
            elif key in step and row.kind is Kind.ITEMS and isinstance(held, str | list):
                problem = items_problem(held) if isinstance(held, str) else None
                yield from (
                    [f"{at(path, key)}: {problem}"] if problem else self.values.problems(place, at(path, key), held)
                )
            elif key in step and row.kind in (Kind.ANY, Kind.TEXT) and (row.kind is Kind.ANY or isinstance(held, str)):
                yield from self.values.problems(place, at(path, key), held)
                if key == "until" and isinstance(held, str) and "${" not in held and parse_time(held) is None:
                    yield f"{at(path, key)}: {quoted(held)} is no time; {HOW_TIME}"
            elif row.kind is Kind.VALUES and isinstance(held, dict):
                for held_name in held if row.rule else ():
                    problem = row.rule.problem(held_name) if row.rule and isinstance(held_name, str) else None
                    if problem:
                        yield f"{at(at(path, key), held_name)}: {problem}"
                # Those of a Sub-DAG become the input of a run, and stand in its document; a Callback shows its own.
                may_hide = step.get("target_type") not in (TargetTypes.DAG, TargetTypes.CALLBACK)
                yield from self.values.problems(place, at(path, key), held, may_hide=may_hide)
            elif row.kind is Kind.REQUEST and isinstance(held, dict):
                yield from row.taken_problems(at(path, key), held)
                yield from self.values.problems(place, at(path, key), held, is_literal=True)
            elif row.kind is Kind.BRANCHES and isinstance(held, list):
                for index, branch in enumerate(held):
                    if not isinstance(branch, dict):
                        wrong = f"must be an object with start and steps, not {kind_of(branch)}"
                        yield f"{at(at(path, key), index)}: {wrong}"

    def no_step(self, name: str, body: Body) -> str:
        """Return what to say of a `start` or `next` that names no step of its body."""
        elsewhere = self.names.places.get(name)
        if elsewhere is not None:
            return f"{quoted(name)} is not one of the same steps, it is {elsewhere.path}; allowed: {listed(body.names)}"
        return f"no step named {quoted(name)};{self.names.near(name, body.names)}"

    def ways(self, body: Body) -> Iterator[str]:
        """Yield the cycles of a body, and the steps that no way from its start leads to."""
        for found in cycles(body):
            cycle = self.from_the_start(body, found)
            shown = cycle if len(cycle) <= 12 else [*cycle[:10], "…", cycle[-1]]
            key = next((key for key, name in body.ways[cycle[-1]].named if name == cycle[0]), None)
            where = f"{step_path(body, cycle[-1])}.{key}" if key else dependency_path(body, cycle[0], cycle[-1])
            yield f"{where}: makes a cycle: {' -> '.join([*shown, cycle[0]])}; a run enters a step once"
        reached = [body.ways[name] for name in body.order]
        is_told = isinstance(body.start, str) and body.start not in body.waits  # else what is left out is in a cycle
        if is_told and reached and all(ways.are_clear and body.ways.keys() >= set(ways.names) for ways in reached):
            hint = ', give it a "depends_on", or leave "start" out' if body.waits else ""
            for name in body.names:
                if name not in body.order and (not body.waits or body.ways[name].are_clear):
                    yield (
                        f"{step_path(body, name)}: no way leads to it from the start {quoted(str(body.start))}; "
                        f'name it in the "next" of a step before it{hint}'
                    )

    @staticmethod
    def from_the_start(body: Body, cycle: list[str]) -> list[str]:
        """Return the cycle, turned so that it begins with the step that the way comes by first."""
        first = min(range(len(cycle)), key=lambda index: body.order.get(cycle[index], len(body.order)))
        return cycle[first:] + cycle[:first]


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
