"""Rights: what the credentials at hand may do in a project, and what is there. Asked, never tried.

Only rights that are granted on a project are asked for. Those on one bucket, queue, topic, job or service account,
where Terraform grants most to the orchestrator, do not show there: whoever asks with a person's credentials asks
whether that person may.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.services.google_api import ApiError, GoogleApis

_JOBS = ("create", "get", "list", "cancel")

PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "CloudFunction": ("logging.logEntries.list",),
    "CloudFunction.sync": ("run.routes.invoke", "logging.logEntries.list"),
    "Dataflow": tuple(f"dataflow.jobs.{verb}" for verb in _JOBS),
    "CloudRunJob": (
        *("run.jobs.run", "run.jobs.runWithOverrides"),
        *(f"run.executions.{verb}" for verb in ("get", "list", "cancel")),
    ),
    "BigQuery": ("bigquery.jobs.create",),  # it cancels its own jobs, which takes no other right
    "Dataproc": (*(f"dataproc.batches.{verb}" for verb in ("create", "get", "list")), "dataproc.operations.cancel"),
    "Batch": tuple(f"batch.jobs.{verb}" for verb in _JOBS),
    "Workflows": tuple(f"workflows.executions.{verb}" for verb in _JOBS),
    "VertexPipeline": tuple(f"aiplatform.pipelineJobs.{verb}" for verb in _JOBS),
}
"""Target key -> what the orchestrator has to be allowed in the steps' project, to launch, follow and cancel them."""

QUEUE_PERMISSIONS = ("cloudtasks.tasks.create", "cloudtasks.tasks.delete")
"""What it has to be allowed in its own project, where the queue is, for steps that are called by way of it."""


class Rights:
    """Asks Google Cloud. All methods raise ApiError."""

    def __init__(self, apis: GoogleApis) -> None:
        self._apis = apis

    def missing(self, project: str, wanted: Sequence[str]) -> list[str]:
        """Return those of the permissions that the credentials at hand do not have in a project."""
        try:
            held = self._held(project, wanted)
        except ApiError as exc:
            if exc.status != 400 or len(wanted) == 1:
                raise
            # One permission that is not asked of projects fails the question for all: it is left out.
            held = [each for each in wanted if self._is_held_or_unknown(project, each)]
        return [each for each in wanted if each not in held]

    def _held(self, project: str, wanted: Sequence[str]) -> list[Any]:
        projects = self._apis.service("cloudresourcemanager", "v3").projects()
        request = projects.testIamPermissions(resource=f"projects/{project}", body={"permissions": list(wanted)})
        what = f"cloudresourcemanager.projects.testIamPermissions {project}"
        granted = self._apis.call(request, what, is_repeatable=True)
        held = granted.get("permissions")
        return held if isinstance(held, list) else []

    def _is_held_or_unknown(self, project: str, permission: str) -> bool:
        try:
            return permission in self._held(project, [permission])
        except ApiError as exc:
            if exc.status == 400:
                return True
            raise

    def has_function(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Function of this name, of either generation."""
        full = f"projects/{project}/locations/{region}/functions/{name}"
        functions = self._apis.service("cloudfunctions", "v2").projects().locations().functions()
        return self._is_there(functions.get(name=full), f"cloudfunctions.functions.get {full}")

    def has_run_job(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Run job of this name."""
        full = f"projects/{project}/locations/{region}/jobs/{name}"
        jobs = self._apis.service("run", "v2").projects().locations().jobs()
        return self._is_there(jobs.get(name=full), f"run.jobs.get {full}")

    def has_workflow(self, project: str, region: str, name: str) -> bool:
        """Whether there is a workflow of this name."""
        full = f"projects/{project}/locations/{region}/workflows/{name}"
        workflows = self._apis.service("workflows", "v1").projects().locations().workflows()
        return self._is_there(workflows.get(name=full), f"workflows.workflows.get {full}")

    def _is_there(self, request: Any, what: str) -> bool:
        try:
            self._apis.call(request, what)
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        return True
