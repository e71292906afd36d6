"""Judge the values in a definition: what is not JSON, and expressions that ask about what is not there (yet). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from orchestrator.model.bodies import RUN_RESULT, Place, catches, why_not_ended
from orchestrator.model.errors import ExpressionError
from orchestrator.model.expressions import EVERYWHERE, ROOTS, Computed, Expression, compile_condition, parse, steps_in
from orchestrator.model.grammar_rules import key_problem, text_problem
from orchestrator.model.words import at, did_you_mean, kind_of, listed, quoted

MAX_DEPTH = 100
"""Levels of Parallels and Maps in one another, and of lists and objects in one another in `parameters`."""

MAX_VALUES = 1_000_000
"""Values in all `parameters` together: YAML aliases can make more of a few lines than fits in memory."""

_MARKED = re.compile(r"\$\{[^{}]*\}")

_MOST = 1.7976931348623157e308
"""The largest number that a double holds."""


@dataclass(frozen=True)
class TriggerPlace:
    """Where the expressions of a trigger are: before there is a run."""

    roots: tuple[str, ...] = ("event", "var")


TRIGGER = TriggerPlace()


class Names:
    """The names of a definition's steps.

    Attributes:
        places: name -> where it stands first.
        shared: those that stand more than once.
    """

    def __init__(self) -> None:
        self.places: dict[str, Place] = {}
        self.shared: set[str] = set()
        self._hints_left = 100

    def near(self, name: str, known: Collection[str]) -> str:
        """Return the one of `known` that may be meant, else some of them."""
        self._hints_left -= 1  # each costs a look at every name
        return (did_you_mean(name, known) if self._hints_left >= 0 else "") or f" there are {listed(known)}"


class Values:
    """Judges all values of one definition, of which there may be only so many."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._left = MAX_VALUES

    def problems(
        self,
        place: Place | TriggerPlace | None,
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
            self._left -= 1
            if self._left < 0:
                if self._left == -1:
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
                    yield from (f"{where}: {problem}" for problem in self._text(place, value, may_hide=may_hide))
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

    def condition(self, place: Place | TriggerPlace, text: str) -> Iterator[str]:
        """Yield the problems of an expression that has to be true or false."""
        try:
            condition = compile_condition(text)
        except ExpressionError as exc:
            yield str(exc)
        else:
            yield from self._expression(place, condition.expression)

    def _text(self, place: Place | TriggerPlace, text: str, *, may_hide: bool) -> Iterator[str]:
        """Yield the problems of the expressions in a string."""
        try:
            parts = parse(text)
        except ExpressionError as exc:
            yield str(exc)
            return
        for part in parts:
            if not isinstance(part, str):
                yield from self._expression(place, part, may_hide=may_hide)

    def _expression(
        self, place: Place | TriggerPlace, part: Expression | Computed, *, may_hide: bool = False
    ) -> Iterator[str]:
        """Yield what the step, or the trigger, at `place` cannot ask about."""
        roots = {path[0] for path in part.paths}
        if isinstance(place, TriggerPlace):
            for root in ROOTS:
                if root in roots and root not in place.roots:
                    yield f"{part.text}: there is no {quoted(root)} here; there is {listed(place.roots)}"
            return
        if place.name == RUN_RESULT and "error" in roots:
            yield f'{part.text}: there is no "error" here; a run that has failed has no result'
        elif "error" in roots and not catches(place):
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
            problem = self._reference(place, name)
            if problem:
                yield f"{part.text}: {problem}"

    def _reference(self, place: Place, name: str) -> str | None:
        """Return why an expression of the step at `place` cannot ask about the step `name`, if so."""
        other = self._names.places.get(name)
        if other is None:
            return f"no step named {quoted(name)};{self._names.near(name, self._names.places)}"
        if name in self._names.shared or place.name in self._names.shared:
            return None
        why = why_not_ended(place, other)
        if why and place.name == RUN_RESULT:
            return f"{why}; the run's result is made before that"
        return f"{why}; only steps that have ended before {quoted(place.name)} starts have a result" if why else None


def items_problem(text: str) -> str | None:
    """Return why a string can never be a list, if so."""
    try:
        parts = parse(text)
    except ExpressionError as exc:
        return str(exc)
    if len(parts) != 1 or isinstance(parts[0], str):
        return f"{quoted(text)} is no list; write one, or an expression alone, as in ${{steps.A.result.files}}"
    return None


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
