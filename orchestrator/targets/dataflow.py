"""Dataflow: launches flex and classic templates, and asks the jobs how they are.

A job is launched under the launch's key as its name. "Only one active job with a given name may exist": a
second launch under a name gets the job there is, or, as the service does in fact, a 409 that names it
(apache/beam pull request 29441). Once the job has ended the name is free again, so before an attempt that was
taken over is launched anew, `find` looks through the ended jobs too.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.model.commands import EMPTY, Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.services.google_api import ApiError, GoogleApis
from orchestrator.targets.request_parts import labels_of, text_of
from orchestrator.targets.twins import plain

_CANCELLED = "JOB_STATE_CANCELLED"
_UPDATED = "JOB_STATE_UPDATED"
_ENDED = frozenset(f"JOB_STATE_{word}" for word in ("DONE", "FAILED", "CANCELLED", "DRAINED", "UPDATED"))

_REFUSALS = {400: "Dataflow.BadParameters", 403: "Dataflow.NotAllowed", 404: "Dataflow.NotFound"}

_CAUSES = "Workflow failed. Causes:"
"""What the message begins with that sums up a job's failure."""

_MAX_PAGES = 20
_MAX_UPDATES = 20

_RESOURCE = re.compile(r"projects/([^/]+)/locations/([^/]+)/jobs/([^/]+)")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a job runs: it can be asked for only there."""

    project: str
    region: str

    @property
    def path(self) -> dict[str, str]:
        return {"projectId": self.project, "location": self.region}


class Dataflow:
    """Runs Dataflow templates.

    An execution id is the job's id, as its events carry it, where the job runs in the project and region given
    here; else it is `projects/<project>/locations/<region>/jobs/<job id>`, of which the events carry the end.

    Args:
        apis: Google's REST APIs.
        project: where jobs of steps without a `project_id` run.
        region: where jobs of steps without a `region` run.
        service_account: which the workers run as; the project's default one, where None.
        temp_location: `gs://` path for temporary files; the template's own, where None.
        staging_location: `gs://` path for files that a flex template stages; the template's own, where None.
        templates: `gs://` folder with the flex templates of steps that name none, `<target_name>.json` each.
        launch_limit_s: how long the launch call may take.
        environment: further fields of both kinds' RuntimeEnvironment (`subnetwork`, `maxWorkers`, …), for every job.
    """

    identity: Identity = Identity.WINDOW
    has_outcome: bool = True
    can_cancel: bool = True
    synchronous: bool = False
    id_is_ours: bool = False

    def __init__(
        self,
        apis: GoogleApis,
        *,
        project: str,
        region: str,
        service_account: str | None = None,
        temp_location: str | None = None,
        staging_location: str | None = None,
        environment: Mapping[str, Json] = EMPTY,
        templates: str | None = None,
        launch_limit_s: float = 30.0,
    ) -> None:
        self.launch_limit_s = launch_limit_s
        self._apis = apis
        self._templates = templates.rstrip("/") if templates else None
        self._home = _Place(project, region)
        told = {"serviceAccountEmail": service_account, "tempLocation": temp_location}
        self._environment: dict[str, Json] = {
            **environment,
            **{name: value for name, value in told.items() if value is not None},
        }
        self._staging: dict[str, Json] = {} if staging_location is None else {"stagingLocation": staging_location}

    def launch(self, launch: Launch) -> Execution:
        """Launch the step's template as a job that is called as the launch's key.

        Raises:
            LaunchRefused: the step names no template (`Dataflow.NoTemplate`), or the service refuses it for good.
            LaunchUncertain: the service may have launched it.
        """
        place = self._place(launch)
        request = self._request(launch, place)
        try:
            # The job is called by the launch's key, which two active jobs cannot be.
            answer = self._apis.call(request, f"dataflow: launch {launch.key}", is_repeatable=True)
        except ApiError as exc:
            if exc.status == 409:  # a job of this name is active: nobody but an earlier try of ours gave it that
                found = self.find(launch)
                if found is not None:
                    return found
            if exc.is_passing or exc.status == 409:
                raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
            error_type = _REFUSALS.get(exc.status or 0, "Launch.Refused")
            raise LaunchRefused(f"{launch.node_name}: {exc}", error_type=error_type) from exc
        job = answer.get("job")
        job_id = job.get("id") if isinstance(job, dict) else None
        if not isinstance(job_id, str) or not job_id:
            raise LaunchUncertain(f"{launch.launch_id}: dataflow: launch {launch.key}: the answer names no job")
        return self._execution(launch, place, job_id)

    def find(self, launch: Launch) -> Execution | None:
        """Return the newest job that bears the launch's key as its name, whether it runs or has ended.

        It looks in the region of the launch's step or, where the launch came without its step's keys, in the
        region given to this target.

        Raises:
            LaunchUncertain: cannot tell now.
        """
        place = self._place(launch)
        try:
            named = [job for job in self._jobs(place, launch.key) if job.get("name") == launch.key and job.get("id")]
        except ApiError as exc:
            raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
        if not named:
            return None
        newest = max(named, key=lambda job: str(job.get("createTime") or job["id"]))
        return self._execution(launch, place, str(newest["id"]))

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how the job ended, or None while it has not; a job that was updated is its replacement.

        A job that cannot be seen may still be there: the service also answers 404 when a lookup of its own
        fails (hashicorp/terraform-provider-google issue 26893). So that is no outcome; the step's timeout
        limits it.

        Raises:
            LaunchUncertain: cannot tell now.
        """
        place, job_id = self._whereabouts(execution)
        try:
            job = self._latest(place, job_id)
        except ApiError as exc:
            raise LaunchUncertain(str(exc)) from exc
        job_id = str(job.get("id") or job_id)
        match job.get("currentState"):
            case "JOB_STATE_DONE":
                return Outcome.completed({"job_id": job_id, "job_name": job.get("name")})
            case "JOB_STATE_FAILED":
                return Outcome.failed("Dataflow.JobFailed", self._reason(place, job_id))
            case "JOB_STATE_CANCELLED":
                return Outcome.cancelled()
            case "JOB_STATE_DRAINED":
                return Outcome.cancelled("drained at its target: it stopped before its input ended, as somebody asked")
        return None

    def cancel(self, execution: Execution) -> None:
        """Ask for the job's cancellation; one that has ended, or that the service does not know, needs none.

        Raises:
            LaunchUncertain: the service has not accepted that.
        """
        place, job_id = self._whereabouts(execution)
        try:
            for _ in range(_MAX_UPDATES):
                replacement = self._cancel(place, job_id)
                if replacement is None:
                    return
                job_id = replacement
        except ApiError as exc:
            if exc.status != 404:
                raise LaunchUncertain(str(exc)) from exc

    def _cancel(self, place: _Place, job_id: str) -> str | None:
        """Cancel this very job; return the job that has replaced it, if one has."""
        body = {"requestedState": _CANCELLED}
        request = self._service().jobs().update(**place.path, jobId=job_id, body=body)
        try:
            job = self._apis.call(request, f"dataflow: cancel {job_id}")
        except ApiError as exc:
            if exc.status not in (400, 409):
                raise
            job = self._job(place, job_id)  # refused: because it has ended?
            if job.get("currentState") not in _ENDED:
                raise
        replacement = job.get("replacedByJobId") if job.get("currentState") == _UPDATED else None
        return str(replacement) if replacement else None

    def _request(self, launch: Launch, place: _Place) -> Any:
        """The request that launches the step's template. Bodies: dataflow v1b3's discovery document."""
        flex, classic = launch.step.get("container_gcs_path"), launch.step.get("template_path")
        if not flex and not classic and self._templates is not None:
            flex = f"{self._templates}/{launch.target_name}.json"
        parameters = {name: text_of(value) for name, value in launch.parameters.items()}
        environment: dict[str, Json] = {**self._environment, "additionalUserLabels": labels_of(launch)}
        if flex:
            body: dict[str, Json] = {
                "launchParameter": {
                    "jobName": launch.key,
                    "containerSpecGcsPath": flex,
                    "parameters": parameters,
                    "environment": {**self._staging, **environment},
                }
            }
            return self._service().flexTemplates().launch(**place.path, body=body)
        if classic:
            body = {"jobName": launch.key, "parameters": parameters, "environment": environment}
            return self._service().templates().launch(**place.path, gcsPath=classic, body=body)
        raise LaunchRefused(
            f"{launch.node_name}: names no template; a Dataflow step in the cloud needs "
            '"container_gcs_path" (a flex template) or "template_path" (a classic one), or the setting '
            "DATAFLOW_TEMPLATES",
            error_type="Dataflow.NoTemplate",
        )

    def _service(self) -> Any:
        try:
            return self._apis.service("dataflow", "v1b3").projects().locations()
        except Exception as exc:  # no credentials, as a rule
            raise LaunchUncertain(f"dataflow: cannot be called: {type(exc).__name__}: {exc}") from exc

    def _job(self, place: _Place, job_id: str) -> Mapping[str, Json]:
        request = self._service().jobs().get(**place.path, jobId=job_id, view="JOB_VIEW_SUMMARY")
        return self._apis.call(request, f"dataflow: get {job_id}")

    def _latest(self, place: _Place, job_id: str) -> Mapping[str, Json]:
        """The job or, where it was updated, the job that has replaced it in the end."""
        job = self._job(place, job_id)
        for _ in range(_MAX_UPDATES):
            replacement = job.get("replacedByJobId")
            if job.get("currentState") != _UPDATED or not replacement:
                break
            job = self._job(place, str(replacement))
        return job

    def _jobs(self, place: _Place, name: str) -> Iterator[Mapping[str, Json]]:
        """Jobs of this name, running and ended; the name is a filter of the service's, not to be relied on."""
        token: Json = None
        for _ in range(_MAX_PAGES):
            more = {"pageToken": token} if token else {}
            request = self._service().jobs().list(**place.path, name=name, filter="ALL", **more)
            answer = self._apis.call(request, f"dataflow: list {name}")
            jobs, token = answer.get("jobs"), answer.get("nextPageToken")
            yield from (job for job in jobs if isinstance(job, dict)) if isinstance(jobs, list) else ()
            if not token:
                return

    def _reason(self, place: _Place, job_id: str) -> str:
        """Why a job failed, in the service's words; they may come up to a minute later than the state."""
        texts: list[str] = []
        token: Json = None
        nothing = "it left no error message"
        try:
            for _ in range(_MAX_PAGES):
                more = {"pageToken": token} if token else {}
                messages = self._service().jobs().messages()
                request = messages.list(**place.path, jobId=job_id, minimumImportance="JOB_MESSAGE_ERROR", **more)
                answer = self._apis.call(request, f"dataflow: messages of {job_id}")
                found, token = answer.get("jobMessages"), answer.get("nextPageToken")
                texts += [str(each.get("messageText") or "") for each in found] if isinstance(found, list) else []
                if not token:
                    break
        except (ApiError, LaunchUncertain) as exc:
            nothing = f"its error messages cannot be read: {exc}"
        told = [text.strip() for text in texts if text.strip()]
        summed_up = [text for text in told if text.startswith(_CAUSES)]
        return plain((summed_up or told or [f"job {job_id}: ended as JOB_STATE_FAILED, and {nothing}"])[-1])

    def _place(self, launch: Launch) -> _Place:
        project, region = launch.step.get("project_id"), launch.step.get("region")
        return _Place(str(project or self._home.project), str(region or self._home.region))

    def _execution(self, launch: Launch, place: _Place, job_id: str) -> Execution:
        is_home = place == self._home
        name = job_id if is_home else f"projects/{place.project}/locations/{place.region}/jobs/{job_id}"
        job = {"id": job_id, "name": launch.key, "projectId": place.project, "location": place.region}
        return Execution(name, {"job": job})

    def _whereabouts(self, execution: Execution) -> tuple[_Place, str]:
        named = _RESOURCE.fullmatch(execution.execution_id)
        if named is None:
            return self._home, execution.execution_id
        return _Place(named[1], named[2]), named[3]
