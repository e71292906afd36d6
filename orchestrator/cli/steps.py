"""The Tasks of a definition as their author wrote them, of one that breaks rules too."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.model.commands import Json, target_key
from orchestrator.model.definition_values import MAX_DEPTH
from orchestrator.model.durations import DurationError, parse_duration
from orchestrator.model.enums import NodeTypes
from orchestrator.model.words import at


@dataclass(frozen=True, slots=True)
class Step:
    """A Task and where it stands.

    Attributes:
        path: of the step, as in `steps.P.branches[0].steps.A`.
        depth: how many Parallels and Maps it is in.
        keys: what its author wrote.
    """

    path: str
    name: str
    depth: int
    keys: Mapping[str, Json]

    def text(self, key: str) -> str:
        """What stands under a key, if it is text; else nothing."""
        value = self.keys.get(key)
        return value if isinstance(value, str) else ""

    @property
    def target_type(self) -> str:
        """What its author wrote; it may be none that there is."""
        return self.text("target_type")

    @property
    def target_name(self) -> str:
        """What its author wrote."""
        return self.text("target_name")

    @property
    def target_key(self) -> str:
        """Which Target would launch it."""
        return target_key(self.target_type, self.keys.get("invocation"))

    @property
    def timeout_s(self) -> float | None:
        """How long an attempt may take, in seconds, if that can be told."""
        try:
            return parse_duration(self.text("timeout"))
        except DurationError:
            return None


def steps_of(definition: Mapping[str, Json]) -> list[Step]:
    """Return the Tasks of a definition in definition order, those of branches and of its `finally` too."""
    found = list(_steps(definition, "", 0))
    last = definition.get("finally")
    return found + list(_steps(last, "finally", 0)) if isinstance(last, dict) else found


def _steps(body: Mapping[str, Json], path: str, depth: int) -> Iterator[Step]:
    steps = body.get("steps")
    for name, step in steps.items() if isinstance(steps, dict) else ():
        if not isinstance(name, str) or not isinstance(step, dict):
            continue
        here = at(at(path, "steps"), name)
        if step.get("type") == NodeTypes.TASK:
            yield Step(here, name, depth, step)
        iterator = step.get("iterator")
        if isinstance(iterator, dict) and depth < MAX_DEPTH:
            yield from _steps(iterator, at(here, "iterator"), depth + 1)
        branches = step.get("branches")
        for number, branch in enumerate(branches if isinstance(branches, list) else ()):
            if isinstance(branch, dict) and depth < MAX_DEPTH:  # deeper is told already, and may have no end
                yield from _steps(branch, at(at(here, "branches"), number), depth + 1)
