"""What requests to Google's services have in common: labels, parameters as text, one body laid over another. Pure."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from orchestrator.model.commands import Json, Launch
from orchestrator.model.words import at

_NOT_IN_A_LABEL = re.compile(r"[^a-z0-9_-]+")


class Clash(ValueError):
    """An author's request has other values where ours stand; `paths` are all such places."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = tuple(paths)
        super().__init__(", ".join(paths))


def labels_of(launch: Launch) -> dict[str, Json]:
    """Labels by which people find the run's jobs; the alphabet is that of all of Google Cloud's labels."""
    told = {"dag": launch.dag, "run": launch.run_id, "node": launch.node_name, "attempt": str(launch.attempt)}
    return {f"orchestrator_{name}": _NOT_IN_A_LABEL.sub("-", text.lower())[:63] for name, text in told.items()}


def text_of(value: Json) -> str:
    """A parameter as a service takes it that knows only text: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def laid_over(theirs: Mapping[str, Json], ours: Mapping[str, Json], path: str) -> dict[str, Json]:
    """Return `theirs` with `ours` in it, to any depth.

    In lists, an element of ours that has a `name` meets theirs of the same name, or is added; another one meets theirs
    at the same place.

    Args:
        path: of `theirs`, for what is told of clashes.
    Raises:
        Clash: a value of theirs is another one than ours.
    """
    clashes: list[str] = []
    merged = _merged_objects(theirs, ours, path, clashes)
    if clashes:
        raise Clash(clashes)
    return merged


def _merged(theirs: Json, ours: Json, path: str, clashes: list[str]) -> Json:
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return _merged_objects(theirs, ours, path, clashes)
    if isinstance(theirs, list) and isinstance(ours, list):
        return _merged_lists(theirs, ours, path, clashes)
    if type(theirs) is not type(ours) or theirs != ours:
        clashes.append(path)
    return ours


def _merged_objects(
    theirs: Mapping[str, Json], ours: Mapping[str, Json], path: str, clashes: list[str]
) -> dict[str, Json]:
    merged = dict(theirs)
    for key, value in ours.items():
        merged[key] = _merged(theirs[key], value, at(path, key), clashes) if key in theirs else value
    return merged


def _merged_lists(theirs: list[Json], ours: list[Json], path: str, clashes: list[str]) -> list[Json]:
    merged = list(theirs)
    names = [_name_of(each) for each in theirs]
    for place, value in enumerate(ours):
        name = _name_of(value)
        if name is not None:
            place = names.index(name) if name in names else len(theirs)
        if place < len(theirs):
            merged[place] = _merged(theirs[place], value, at(path, place), clashes)
        else:
            merged.append(value)
    return merged


def _name_of(element: Json) -> str | None:
    name = element.get("name") if isinstance(element, Mapping) else None
    return name if isinstance(name, str) else None
