"""The bodies of a definition, each a `start` with its `steps`, and which of its steps end before which. Pure.

What is judged may be wrong in any way: whatever is no step, or names none, is left out here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_, or_

from orchestrator.model.enums import Triggers
from orchestrator.model.grammar import shape_of
from orchestrator.model.grammar_keys import Kind, Shape
from orchestrator.model.words import at, closest, quoted

RUN_RESULT = "$result"
"""In place of a step's name: the `result` of the definition itself, which asks once all steps have ended."""


@dataclass(eq=False)
class Body:
    """A `start` with its `steps`: the definition itself, a branch, or the iterator of a Map."""

    path: str
    value: Mapping[object, object]
    shape: Shape
    holder: Place | None = None
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
class Place:
    """Where a step is."""

    name: str
    body: Body

    @property
    def path(self) -> str:
        return step_path(self.body, self.name)

    def lineage(self) -> Iterator[Place]:
        """Itself, the Parallel that holds it, the Parallel that holds that one, …"""
        place: Place | None = self
        while place is not None:
            yield place
            place = place.body.holder


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


def step_path(body: Body, name: str) -> str:
    """The path of a step, `steps.NAME` within its body."""
    return at(at(body.path, "steps"), name)


def dependency_path(body: Body, name: str, other: str, *, is_last: bool = False) -> str:
    """The path of where a step says that it depends on another one: of the first or last place that does."""
    step = body.steps[name]
    told = step.get("depends_on") if isinstance(step, dict) else None
    places = [index for index, each in enumerate(told if isinstance(told, list) else ()) if each == other]
    return at(at(step_path(body, name), "depends_on"), places[-1 if is_last else 0])


def catches(place: Place) -> bool:
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


def why_not_ended(place: Place, other: Place) -> str:
    """Return why `other` is not certain to have ended before `place` starts; "" if it is certain."""
    if place.name == RUN_RESULT:
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


def cycles(body: Body) -> Iterator[list[str]]:
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
