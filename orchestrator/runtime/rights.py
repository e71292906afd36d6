"""Rights: what the credentials at hand may do in a project, and whether a function is there. Asked, never tried.

Only rights that are granted on a project are asked for. Those on one bucket, queue, topic or service account, which is
where Terraform grants them, do not show there.
"""

from collections.abc import Mapping, Sequence

from orchestrator.services.google_api import ApiError, GoogleApis

_JOBS = ("create", "get", "list")

PERMISSIONS: Mapping[str, tuple[str, ...]] = {
    "Dataflow": (*(f"dataflow.jobs.{verb}" for verb in _JOBS), "dataflow.jobs.cancel"),
    "BigQuery": ("bigquery.jobs.create",),
    "Dataproc": tuple(f"dataproc.batches.{verb}" for verb in _JOBS),
    "Batch": tuple(f"batch.jobs.{verb}" for verb in _JOBS),
    "VertexPipeline": tuple(f"aiplatform.pipelineJobs.{verb}" for verb in _JOBS),
}
"""Target type -> what the orchestrator has to be allowed in the project, to launch its steps and follow them."""


class Rights:
    """Asks Google Cloud. All methods raise ApiError."""

    def __init__(self, apis: GoogleApis) -> None:
        self._apis = apis

    def missing(self, project: str, wanted: Sequence[str]) -> list[str]:
        """Return those of the permissions that the credentials at hand do not have in a project."""
        projects = self._apis.service("cloudresourcemanager", "v3").projects()
        request = projects.testIamPermissions(resource=f"projects/{project}", body={"permissions": list(wanted)})
        what = f"cloudresourcemanager.projects.testIamPermissions {project}"
        granted = self._apis.call(request, what, is_repeatable=True)
        held = granted.get("permissions")
        return [each for each in wanted if each not in (held if isinstance(held, list) else ())]

    def has_function(self, project: str, region: str, name: str) -> bool:
        """Whether there is a Cloud Function of this name, of either generation."""
        full = f"projects/{project}/locations/{region}/functions/{name}"
        functions = self._apis.service("cloudfunctions", "v2").projects().locations().functions()
        try:
            self._apis.call(functions.get(name=full), f"cloudfunctions.functions.get {full}")
        except ApiError as exc:
            if exc.status == 404:
                return False
            raise
        return True
