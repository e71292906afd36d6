"""What Google Cloud says of a definition's steps: functions that are not there, and rights that are missing."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from orchestrator.cli.definitions import Loaded
from orchestrator.cli.deployment import Deployment
from orchestrator.cli.for_gcp import Step, steps_of, taken_for_granted
from orchestrator.cli.lines import listed
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.words import at
from orchestrator.runtime.rights import PERMISSIONS


class Asked(Protocol):
    """Google Cloud, as `runtime.rights.Rights` asks it. All methods raise OrchestratorError."""

    def missing(self, project: str, wanted: Sequence[str]) -> list[str]:
        """Return those of the permissions that the credentials at hand do not have in a project."""

    def has_function(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Function of this name."""


def online_problems(loaded: Loaded, deployment: Deployment, rights: Asked) -> Iterator[str]:
    """Yield what is not there or not allowed; of each service that cannot be asked, why."""
    steps = steps_of(loaded)
    yield from _functions(steps, loaded, deployment, rights)
    yield from _permissions(steps, deployment, rights)


def _functions(steps: Sequence[Step], loaded: Loaded, deployment: Deployment, rights: Asked) -> Iterator[str]:
    expected = set(taken_for_granted(loaded))
    seen: set[tuple[str, str, str]] = set()
    for step in steps:
        project, region = _place(step, deployment)
        name = step.task.target_name
        is_new = (project, region, name) not in seen
        if step.task.target_type is not TargetTypes.CLOUD_FUNCTION or name not in expected or not is_new:
            continue
        if not project or not region:
            continue  # told already
        seen.add((project, region, name))
        path = at(step.path, "target_name")
        try:
            if not rights.has_function(project, region, name):
                yield f"{path}: there is no function {name} in {region} of {project}, and none in functions/ to deploy"
        except OrchestratorError as exc:
            yield f"{path}: cannot be asked for: {exc}"


def _permissions(steps: Sequence[Step], deployment: Deployment, rights: Asked) -> Iterator[str]:
    users: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        project, _ = _place(step, deployment)
        if step.task.target_type in PERMISSIONS and project:
            users.setdefault((project, step.task.target_type.value), []).append(step)
    for (project, target_type), asking in users.items():
        path = at(asking[0].path, "target_type")
        try:
            missing = rights.missing(project, PERMISSIONS[target_type])
        except OrchestratorError as exc:
            yield f"{path}: rights cannot be asked for: {exc}"
            continue
        if missing:
            yield f"{path}: these credentials lack {listed(missing)} in {project}, which {target_type} steps need"


def _place(step: Step, deployment: Deployment) -> tuple[str, str]:
    project, region = step.keys.get("project_id"), step.keys.get("region")
    return str(project or deployment.project or ""), str(region or deployment.region or "")
