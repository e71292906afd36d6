"""What Google Cloud says of a definition's steps: what is not there to be run, and rights that are missing."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from orchestrator.cli.definitions import Written
from orchestrator.cli.deployment import Deployment
from orchestrator.cli.lines import listed
from orchestrator.cli.steps import Step, steps_of
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.words import at
from orchestrator.runtime.rights import PERMISSIONS, QUEUE_PERMISSIONS


class Asked(Protocol):
    """Google Cloud, as `runtime.rights.Rights` asks it. All methods raise OrchestratorError."""

    def missing(self, project: str, wanted: Sequence[str]) -> list[str]:
        """Return those of the permissions that the credentials at hand do not have in a project."""

    def has_function(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Function of this name."""

    def has_run_job(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Run job of this name."""

    def has_workflow(self, project: str, region: str, name: str) -> bool:
        """Whether there is a workflow of this name."""


_There = Callable[[str, str, str], bool]
"""(project, region, name) -> whether it is there."""


def online_problems(
    written: Written, deployment: Deployment, rights: Asked, expected: Collection[tuple[str, str, str]]
) -> Iterator[str]:
    """Yield what is not there or not allowed; of each service that cannot be asked, why.

    Args:
        expected: project, region and name of the functions that have to be there, for nothing here deploys them.
    """
    steps = steps_of(written.definition)
    yield from _named(steps, deployment, rights, expected)
    yield from _permissions(steps, deployment, rights)


def _named(
    steps: Sequence[Step], deployment: Deployment, rights: Asked, expected: Collection[tuple[str, str, str]]
) -> Iterator[str]:
    """What steps name and nobody has made."""
    there: Mapping[str, tuple[str, _There]] = {
        TargetTypes.CLOUD_FUNCTION: ("function", rights.has_function),
        TargetTypes.CLOUD_RUN_JOB: ("Cloud Run job", rights.has_run_job),
        TargetTypes.WORKFLOWS: ("workflow", rights.has_workflow),
    }
    seen: set[tuple[str, str, str, str]] = set()
    for step in steps:
        project, region = _place(step, deployment)
        name, which = step.target_name, (step.target_type, project, region, step.target_name)
        is_deployed = step.target_type == TargetTypes.CLOUD_FUNCTION and which[1:] not in expected
        if step.target_type not in there or is_deployed or which in seen:
            continue
        if not project or not region or not name:
            continue  # told already
        seen.add(which)
        noun, has = there[step.target_type]
        path = at(step.path, "target_name")
        try:
            if not has(project, region, name):
                more = ", and none in functions/ to deploy" if step.target_type == TargetTypes.CLOUD_FUNCTION else ""
                yield f"{path}: there is no {noun} {name} in {region} of {project}{more}"
        except OrchestratorError as exc:
            yield f"{path}: cannot be asked for: {exc}"


def _permissions(steps: Sequence[Step], deployment: Deployment, rights: Asked) -> Iterator[str]:
    first: dict[tuple[str, str, Sequence[str]], Step] = {}
    for step in steps:
        project, _ = _place(step, deployment)
        if step.target_key in PERMISSIONS and project:
            first.setdefault((project, step.target_key, PERMISSIONS[step.target_key]), step)
        if step.target_key == TargetTypes.CLOUD_FUNCTION and deployment.project:
            first.setdefault((deployment.project, step.target_key, QUEUE_PERMISSIONS), step)
    for (project, target_key, wanted), step in first.items():
        path = at(step.path, "target_type")
        try:
            missing = rights.missing(project, wanted)
        except OrchestratorError as exc:
            yield f"{path}: rights cannot be asked for: {exc}"
            continue
        if missing:
            yield f"{path}: these credentials lack {listed(missing)} in {project}, which {target_key} steps need"


def _place(step: Step, deployment: Deployment) -> tuple[str, str]:
    return step.text("project_id") or deployment.project or "", step.text("region") or deployment.region or ""
