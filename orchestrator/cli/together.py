"""What Terraform refuses of definitions that it is given together: the preconditions of its module, asked here first.

A row of `REFUSALS` is a precondition of terraform/modules/definitions/outputs.tf, by the name of what has to be empty.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.cli.definitions import Written
from orchestrator.cli.deployment import Deployment
from orchestrator.cli.for_gcp import DEPLOYED_NAME
from orchestrator.cli.lines import listed
from orchestrator.cli.requirements import Requirements
from orchestrator.cli.steps import Step, steps_of
from orchestrator.model.commands import Json
from orchestrator.model.enums import TargetTypes
from orchestrator.model.words import at
from orchestrator.runtime.catalog import DagFolders

MAX_DEPTH = 8
"""How many Parallels in one another Terraform sees into: a line of modules/definitions/definitions.tf each."""

FunctionKey = tuple[str, str, str]
"""Project, region and name of a function."""

Found = tuple[Written, str]
"""A definition, and a problem with its path."""


@dataclass(frozen=True, slots=True)
class Place:
    """A step, and the definition that it is in."""

    written: Written
    step: Step

    def also(self, other: "Place", key: str = "") -> str:
        """The path of another place's key, as this place's problem names it."""
        path = at(other.step.path, key) if key else other.step.path
        return path if other.written is self.written else f"{other.written.file}: {path}"

    def problem(self, key: str, what: str) -> Found:
        """A problem of a key of the step."""
        return self.written, f"{at(self.step.path, key)}: {what}"


class Together:
    """Definitions that are deployed together."""

    def __init__(self, definitions: Sequence[Written], deployment: Deployment) -> None:
        self.definitions, self.deployment = definitions, deployment
        self.places = [Place(each, step) for each in definitions for step in steps_of(each.definition)]

    @cached_property
    def functions(self) -> Mapping[FunctionKey, list[Place]]:
        """A function -> the steps that call it."""
        found: dict[FunctionKey, list[Place]] = {}
        for place in self.places:
            step = place.step
            if step.target_type == TargetTypes.CLOUD_FUNCTION and step.target_name:
                project = step.text("project_id") or self.deployment.project or ""
                region = step.text("region") or self.deployment.region or ""
                found.setdefault((project, region, step.target_name), []).append(place)
        return found

    def sources(self, key: FunctionKey) -> list[Place]:
        """Of the steps that call a function, the first one of each DAG in whose folder its source lies."""
        project, _, name = key
        if project != (self.deployment.project or ""):
            return []  # what lies in another project is never deployed from here
        found: dict[str, Place] = {}
        for place in self.functions[key]:
            folder = place.written.folder / "functions" / name
            if folder.is_dir() and place.written.name not in self.deployment.skipped:
                found.setdefault(place.written.name, place)
        return list(found.values())

    def taken_for_granted(self, written: Written) -> list[FunctionKey]:
        """Return the functions that a definition calls and that nothing here deploys: they are to exist already."""
        return [
            key
            for key, places in self.functions.items()
            if any(place.written is written for place in places) and not self.sources(key)
        ]

    def problems(self) -> Iterator[Found]:
        """Yield them all."""
        for refusal in REFUSALS.values():
            yield from refusal(self)


def _too_deep(all_: Together) -> Iterator[Found]:
    told: set[str] = set()
    for place in all_.places:
        if place.step.depth > MAX_DEPTH and place.written.name not in told:
            told.add(place.written.name)
            yield (
                place.written,
                f"{place.step.path}: is in {place.step.depth} Parallels; "
                f"Terraform, which has no recursion, sees {MAX_DEPTH} levels",
            )


def _sources_twice(all_: Together) -> Iterator[Found]:
    for key in all_.functions:
        sources = all_.sources(key)
        for other in sources[1:]:
            yield other.problem(
                "target_name",
                f"{key[2]} has its source in {other.written.folder} and, for {other.also(sources[0])}, in "
                f"{sources[0].written.folder}; only one can be deployed: rename one, or put a DAG into "
                "skip_functions_of",
            )


def _entry_points_twice(all_: Together) -> Iterator[Found]:
    for key, places in all_.functions.items():
        if not all_.sources(key):
            continue
        wanted: dict[str, Place] = {}
        for place in places:
            wanted.setdefault(place.step.text("function") or "main", place)
        (name, first), *others = wanted.items()
        for other, place in others:
            yield place.problem(
                "function",
                f'is "{other}", but "{name}" at {place.also(first)}; {key[2]} is deployed once, with one entry point',
            )


def _named_like_us(all_: Together) -> Iterator[Found]:
    for (project, _, name), places in all_.functions.items():
        if name.lower().replace("_", "-") == all_.deployment.name and project == (all_.deployment.project or ""):
            yield places[0].problem(
                "target_name",
                f'"{name}" is what the orchestrator\'s own function is called; name one of them otherwise',
            )


def _bad_names(all_: Together) -> Iterator[Found]:
    for key in all_.functions:
        if all_.sources(key) and not DEPLOYED_NAME.fullmatch(key[2]):
            yield all_.sources(key)[0].problem(
                "target_name",
                f'"{key[2]}" is no name of a function that can be deployed; allowed are 1 to 63 small letters, digits '
                "and -, a letter first and no - last",
            )


def _pipelines_twice(all_: Together) -> Iterator[Found]:
    names = dict.fromkeys(
        place.step.target_name for place in all_.places if place.step.target_type == TargetTypes.DATAFLOW
    )
    for name in names:
        having = [each for each in all_.definitions if name and (each.folder / "pipelines" / f"{name}.py").is_file()]
        for other in having[1:]:
            yield (
                other,
                f"{other.folder / 'pipelines' / name}.py: there is another pipeline of this name in "
                f"{having[0].folder / 'pipelines'}; only one can be the template: rename one",
            )


def _pipelines_without_beam(all_: Together) -> Iterator[Found]:
    told: set[Path] = set()
    for place in all_.places:
        folder = place.written.folder / "pipelines"
        file = folder / "requirements.txt"
        is_built = (
            place.step.target_type == TargetTypes.DATAFLOW and (folder / f"{place.step.target_name}.py").is_file()
        )
        if not is_built or file in told:
            continue
        told.add(file)
        if "apache-beam" not in Requirements.named(file):
            what = "does not name apache-beam" if file.is_file() else "there is no such file"
            yield (
                place.written,
                f"{file}: {what}; the flex template of {place.step.target_name} has only what it names, as in "
                "apache-beam[gcp]==2.77.0",
            )


def _jobs_twice(all_: Together) -> Iterator[Found]:
    jobs: dict[str, Written] = {}
    for each in all_.definitions:
        if "schedule" not in each.definition:
            continue
        job = re.sub(r"[^A-Za-z0-9_-]+", "-", each.name)
        first = jobs.setdefault(job, each)
        if first is not each:
            yield each, f"schedule: its scheduler job would be called {job}, like that of {first.name}; rename one"


def _triggers(all_: Together) -> Iterator[tuple[Written, str, Mapping[str, Json]]]:
    """Each trigger, with its definition and path."""
    for written in all_.definitions:
        triggers = written.definition.get("triggers")
        for index, trigger in enumerate(triggers if isinstance(triggers, list) else ()):
            if isinstance(trigger, dict):
                yield written, at("triggers", index), trigger


def _own_bucket(all_: Together) -> Iterator[Found]:
    own = f"{all_.deployment.project}-{all_.deployment.name}-state"
    for written, path, trigger in _triggers(all_):
        source = trigger.get("object")
        if isinstance(source, dict) and source.get("bucket") == own:
            yield (
                written,
                f'{at(path, "object")}.bucket: "{own}" is where each run that it starts writes; name another bucket',
            )


def _own_topics(all_: Together) -> Iterator[Found]:
    name = all_.deployment.name
    own = [f"projects/{all_.deployment.project}/topics/{name}-{what}" for what in ("events", "dead-letters")]
    for written, path, trigger in _triggers(all_):
        if trigger.get("topic") in own:
            yield (
                written,
                f"{at(path, 'topic')}: {trigger['topic']} is a topic of the orchestrator itself; name one of your own",
            )


def _default_dag(all_: Together) -> Iterator[Found]:
    yield from _named(all_, "default_dag", [all_.deployment.default_dag] if all_.deployment.default_dag else [])


def _skip_functions_of(all_: Together) -> Iterator[Found]:
    yield from _named(all_, "skip_functions_of", sorted(all_.deployment.skipped))


def _named(all_: Together, variable: str, names: Sequence[str]) -> Iterator[Found]:
    if all_.deployment.root is None:
        return
    there = list(DagFolders(all_.deployment.root / "dag_definitions"))
    for name in names:
        if there and name not in there:
            yield all_.definitions[0], f"{variable} of terraform/: there is no DAG {name}; there are {listed(there)}"


REFUSALS: Mapping[str, Callable[[Together], Iterator[Found]]] = {
    "too_deep": _too_deep,
    "default_dag": _default_dag,
    "skip_functions_of": _skip_functions_of,
    "sources_twice": _sources_twice,
    "entry_points_twice": _entry_points_twice,
    "named_like_us": _named_like_us,
    "bad_names": _bad_names,
    "pipelines_twice": _pipelines_twice,
    "pipelines_without_beam": _pipelines_without_beam,
    "jobs_twice": _jobs_twice,
    "own_bucket": _own_bucket,
    "own_topics": _own_topics,
}
"""Precondition -> what breaks it."""

JUDGED_ELSEWHERE: Mapping[str, str] = {
    "definitions": "a path without a DAG is a problem of `validate` itself",
    "unknown_types": "the grammar knows the target types, and a test that Terraform knows the same",
    "too_long": "a filter is Terraform's own; it takes some hundred jobs of one type, and `terraform plan` says it",
    "pools_without_limit": "the limits are a setting of the deployment, POOLS, which `validate` does not have",
}
"""Precondition -> why it has no row."""
