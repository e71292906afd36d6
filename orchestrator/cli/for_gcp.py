"""What will fail in Google Cloud though the definition breaks no rule, found here before anything is deployed."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.definitions import Loaded
from orchestrator.cli.deployment import Deployment
from orchestrator.cli.function_source import parse, source_problems
from orchestrator.cli.lines import listed
from orchestrator.cli.requirements import Requirements
from orchestrator.model.commands import Json
from orchestrator.model.enums import TargetTypes
from orchestrator.model.nodes import Task
from orchestrator.model.words import at, did_you_mean

LIMITS_S: Mapping[str, tuple[float, str]] = {
    "CloudFunction": (1800.0, "Cloud Tasks waits for a call at most 30m"),
    "CloudFunction.sync": (300.0, "the orchestrator waits for an answer at most 5m"),
    "Function": (60.0, "it runs inside of the orchestrator's own request, where it has at most 1m"),
}
"""Target key -> how long an attempt may take in the cloud, and why."""

DEPLOYED_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""What a function of the 2nd generation may be called."""
CALLED_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
"""What one of the 1st generation may be called, too."""

_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_IN_A_REGION = (TargetTypes.CLOUD_FUNCTION, TargetTypes.DATAFLOW)
_NOT_PACKED = ("functions", "pipelines", "data")
"""Folders of a DAG that are not in the orchestrator's zip."""


@dataclass(frozen=True, slots=True)
class Step:
    """A Task and where it stands in the definition."""

    path: str
    task: Task

    @property
    def keys(self) -> Mapping[str, Json]:
        """What its author wrote beside the keys that all Tasks have."""
        return self.task.execute()[0].step


def problems(loaded: Loaded, deployment: Deployment) -> Iterator[str]:
    """Yield all of them, each beginning with the path of what is wrong: in the definition, or a file's."""
    steps = steps_of(loaded)
    if deployment.root is not None and not _is_in(loaded.folder.resolve(), deployment.root / "dag_definitions"):
        yield f"{loaded.folder}: is not in {deployment.root / 'dag_definitions'}, so that it is not deployed"
    yield from _missing(steps, "project_id", deployment.project, "GOOGLE_CLOUD_PROJECT", "project_id")
    yield from _missing(steps, "region", deployment.region, "FUNCTION_REGION", "region")
    for step in steps:
        yield from _of_step(step, loaded, deployment)
    yield from _sources(steps, loaded)


def taken_for_granted(loaded: Loaded) -> list[str]:
    """Return the functions that steps name and whose source is not here: they are to exist already."""
    called = (task for task in loaded.dag.all_tasks if task.target_type is TargetTypes.CLOUD_FUNCTION)
    return sorted({task.target_name for task in called if not _source(loaded, task.target_name).is_dir()})


def steps_of(loaded: Loaded) -> list[Step]:
    """Return the Tasks of a definition with their paths, in definition order."""
    paths = dict(_paths(loaded.definition, ""))
    return [Step(paths[task.node_name], task) for task in loaded.dag.all_tasks]


def _paths(body: Mapping[str, Json], path: str) -> Iterator[tuple[str, str]]:
    steps = body.get("steps")
    for name, step in steps.items() if isinstance(steps, dict) else ():
        here = at(at(path, "steps"), name)
        yield name, here
        branches = step.get("branches") if isinstance(step, dict) else None
        for number, branch in enumerate(branches if isinstance(branches, list) else ()):
            yield from _paths(branch, at(at(here, "branches"), number))


def _missing(steps: list[Step], key: str, default: str | None, setting: str, variable: str) -> Iterator[str]:
    """One problem for all steps that lack the same."""
    lacking = [step for step in steps if step.task.target_type is not TargetTypes.FUNCTION and not step.keys.get(key)]
    if default or not lacking:
        return
    more = f" (and those of {listed(step.task.node_name for step in lacking[1:])})" if lacking[1:] else ""
    yield (
        f"{at(lacking[0].path, key)}{more}: is missing; name it there, or for all steps by {setting} or as "
        f"{variable} in terraform/terraform.tfvars"
    )


def _of_step(step: Step, loaded: Loaded, deployment: Deployment) -> Iterator[str]:
    task = step.task
    yield from _timeout(step)
    if task.target_type in _IN_A_REGION:
        yield from _region(step, deployment)
    match task.target_type:
        case TargetTypes.CLOUD_FUNCTION:
            yield from _function_name(step, loaded, deployment)
        case TargetTypes.DATAFLOW:
            yield from _template(step, loaded, deployment)
        case TargetTypes.FUNCTION:
            yield from _callable(step, deployment)


def _timeout(step: Step) -> Iterator[str]:
    limit_s, why = LIMITS_S.get(step.task.target_key, (float("inf"), ""))
    if step.task.timeout_s is not None and step.task.timeout_s > limit_s:
        wanted = step.keys.get("timeout")
        yield f"{at(step.path, 'timeout')}: {wanted} is more than it can have; {why}"


def _region(step: Step, deployment: Deployment) -> Iterator[str]:
    region = step.keys.get("region")
    if region is not None and not _REGION.fullmatch(str(region)):
        yield f'{at(step.path, "region")}: "{region}" is no region; write it as in "europe-west1", not a zone'
    elif region is None and deployment.region is not None and not _REGION.fullmatch(deployment.region):
        yield f'{at(step.path, "region")}: the setting "{deployment.region}" is no region; as in "europe-west1"'


def _function_name(step: Step, loaded: Loaded, deployment: Deployment) -> Iterator[str]:
    name, path = step.task.target_name, at(step.path, "target_name")
    if _source(loaded, name).is_dir():
        if not DEPLOYED_NAME.fullmatch(name):
            yield (
                f'{path}: "{name}" is no name of a function that can be deployed; allowed are 1 to 63 small letters, '
                "digits and -, a letter first and no - last"
            )
        elif name == deployment.name:
            yield f'{path}: "{name}" is what the orchestrator\'s own function is called; name one of them otherwise'
    elif not CALLED_NAME.fullmatch(name):
        yield (
            f'{path}: "{name}" is no name of a function; allowed are 1 to 63 letters, digits, - and _, a letter first '
            "and a letter or digit last"
        )


def _template(step: Step, loaded: Loaded, deployment: Deployment) -> Iterator[str]:
    if step.task.template_type is not None or deployment.templates is not None:
        return
    source = loaded.folder / "pipelines" / f"{step.task.target_name}.py"
    if not source.is_file():
        there = sorted(path.stem for path in (loaded.folder / "pipelines").glob("*.py"))
        hint = did_you_mean(step.task.target_name, there)
        yield (
            f"{step.path}: has no template; name it by container_gcs_path or template_path, set DATAFLOW_TEMPLATES, or "
            f"write {source}, which a template can be built from{f';{hint}' if hint else ''}"
        )


def _callable(step: Step, deployment: Deployment) -> Iterator[str]:
    """Whether a Function can be imported where the orchestrator runs."""
    module, _, name = (step.task.function or "").partition(":")
    first, path = module.partition(".")[0], at(step.path, "function")
    if first in sys.stdlib_module_names or first == "builtins" or deployment.root is None:
        return
    if first in ("dag_definitions", "orchestrator", "main"):
        yield from _packed(path, module, name, deployment.root)
    elif Requirements.read(deployment.root / "requirements.txt").provide(first) is False:
        yield (
            f"{path}: {module} cannot be imported there; what is deployed is dag_definitions/, orchestrator/, main.py "
            "and the packages of requirements.txt"
        )


def _packed(path: str, module: str, name: str, root: Path) -> Iterator[str]:
    """What is wrong with a callable of the zip's own files."""
    parts = module.split(".")
    file = root.joinpath(*parts).with_suffix(".py")
    package = root.joinpath(*parts, "__init__.py")
    file = package if package.is_file() else file
    if parts[0] == "dag_definitions" and len(parts) > 2 and parts[2] in _NOT_PACKED:
        yield f"{path}: {'/'.join(parts[:3])}/ is not deployed with the orchestrator; move {parts[-1]}.py out of it"
        return
    if not file.is_file():
        yield f"{path}: there is no module {module}; it would be {file}"
        return
    try:
        found = parse(file)
    except ValueError as exc:
        yield f"{path}: {file}: {exc}"
        return
    if found.names is not None and name not in found.names:
        hint = did_you_mean(name, found.names)
        yield f'{path}: {file} defines no "{name}"{f";{hint}" if hint else ""}'


def _sources(steps: Iterable[Step], loaded: Loaded) -> Iterator[str]:
    """What is wrong with the functions whose source is here, each told once."""
    entry_points: dict[str, dict[str, str]] = {}
    for step in steps:
        if step.task.target_type is TargetTypes.CLOUD_FUNCTION and _source(loaded, step.task.target_name).is_dir():
            entry_points.setdefault(step.task.target_name, {}).setdefault(step.task.function or "main", step.path)
    for name, wanted in entry_points.items():
        first, *others = wanted
        yield from source_problems(_source(loaded, name), first)
        for other in others:
            yield (
                f'{at(wanted[other], "function")}: is "{other}", but "{first}" at {wanted[first]}; '
                f"{name} is deployed once, with one entry point"
            )


def _source(loaded: Loaded, name: str) -> Path:
    return loaded.folder / "functions" / name


def _is_in(folder: Path, parent: Path) -> bool:
    return folder != parent and folder.is_relative_to(parent)
