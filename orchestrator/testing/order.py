"""In which order the steps of a definition come: how a path is sorted where one save starts several steps. Pure."""

from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter

from orchestrator.model.bodies import Ways
from orchestrator.model.commands import Json


def ranks(definition: Mapping[str, Json]) -> dict[str, int]:
    """Return step name -> its place: behind all steps that come before it, and behind the step that holds it."""
    return {name: number for number, name in enumerate(_of_body(definition))}


def _of_body(body: Mapping[str, Json]) -> Iterator[str]:
    steps = body.get("steps")
    steps = steps if isinstance(steps, dict) else {}
    before: dict[str, list[str]] = {name: [] for name in steps}
    for name, step in steps.items():
        for other in Ways.of(step).names:
            if other in steps and other != name:
                before[other].append(name)
    for name in TopologicalSorter(before).static_order():
        yield name
        for inner in _bodies(steps[name]):
            yield from _of_body(inner)
    for inner in _bodies({key: held for key, held in body.items() if key != "steps"}):
        yield from _of_body(inner)


def _bodies(value: Json) -> Iterator[Mapping[str, Json]]:
    """Yield what holds steps inside of a step: the branches of a Parallel, whatever a later type has."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict) and isinstance(inner.get("steps"), dict) and "start" in inner:
            yield inner
        elif isinstance(inner, dict | list):
            yield from _bodies(inner)
