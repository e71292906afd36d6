"""A fake of the Dataflow REST API, v1b3: on 127.0.0.1, in memory, with jobs that are run for real.

A template's path leads to the Beam pipeline (a Python file, run by the DirectRunner in a process of its own) or to
the callable that its jobs run. When a job ends, the lines of its message log go to `publish`, as a sink delivers them.

    with DataflowServer({"gs://bucket/wordcount.json": Path("wordcount.py")}, publish) as server:
        apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": server.url})
"""

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from threading import Condition, Event, Thread

from tests.support.rest_server import RestServer, rest_handler

ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_DRAINED", "JOB_STATE_UPDATED")


@dataclass
class Job:
    """One job. `stop` is set when it is to end early."""

    id: str
    name: str
    project: str
    region: str
    number: int
    template: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    state: str | None = "JOB_STATE_QUEUED"
    replaced_by: str | None = None
    messages: list[tuple[str, str]] = field(default_factory=list)  # (importance, text)
    stop: Event = field(default_factory=Event)

    def resource(self) -> dict:
        """The Job as the API tells it; a field without a value is left out."""
        fields = {
            "id": self.id,
            "projectId": self.project,
            "name": self.name,
            "location": self.region,
            "type": "JOB_TYPE_BATCH",
            "currentState": self.state,
            "createTime": f"2026-11-20T08:58:37.{self.number:06}Z",
            "replacedByJobId": self.replaced_by,
            "labels": self.environment.get("additionalUserLabels"),
        }
        return {name: value for name, value in fields.items() if value is not None}


Work = Path | Callable[[Job], object]


class DataflowServer:
    """The server; a context manager.

    Args:
        templates: template path -> pipeline file, or callable that a job runs: it fails if that raises.
        publish: takes the log entries of jobs.

    Attributes:
        launches: the launches that came in: {"kind", "project", "region", "gcs_path", "body"}.
        calls: every request: (method, path, query).
        jobs: all jobs by id; `end`, `update` and the plain attributes change them from outside.
        duplicates: what a launch under an active job's name gets: "existing", or "409" as the service really answers.
    """

    def __init__(self, templates: Mapping[str, Work], publish: Callable[[dict], object] = lambda entry: None) -> None:
        self._templates, self._publish = templates, publish
        self._numbers = count(1)
        self._changed = Condition()
        self._faults: list[tuple[str, int, bool]] = []
        self.launches: list[dict] = []
        self.calls: list[tuple[str, str, dict]] = []
        self.jobs: dict[str, Job] = {}
        self.duplicates = "existing"
        self._server = RestServer(("127.0.0.1", 0), rest_handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "DataflowServer":
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for job in self.jobs.values():
            job.stop.set()

    # -- what a test does ---------------------------------------------------------------------------

    def fail_next(self, what: str, status: int = 503, *, after_applying: bool = False) -> None:
        """Have the next call of `what` (launch, get, list, update, messages) answered with an error."""
        self._faults.append((what, status, after_applying))

    def end(self, job_id: str, state: str, error: str | None = None) -> None:
        """End a job, as the service would. Does nothing if it has ended."""
        self._end(self.jobs[job_id], state, error)

    def update(self, job_id: str) -> Job:
        """Replace a job by another one of the same name, as an update of a streaming job does."""
        old = self.jobs[job_id]
        new = self._new_job(old.name, old.project, old.region, old.template, old.parameters, old.environment)
        new.state = "JOB_STATE_RUNNING"
        old.replaced_by = new.id
        self.end(job_id, "JOB_STATE_UPDATED")
        return new

    def wait_for_end(self, job_id: str, within_s: float = 60.0) -> Job:
        """Wait until a job has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.jobs[job_id].state in ENDED, within_s), f"{job_id} runs on"
        return self.jobs[job_id]

    # -- what the service does ------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict, body: dict) -> tuple[int, dict]:
        """Answer a request: (HTTP status, JSON)."""
        self.calls.append((method, path, query))
        routes = ((re.fullmatch(pattern, path), *rest) for pattern, *rest in _ROUTES)
        route = next(((found, what, act) for found, what, allowed, act in routes if found and allowed == method), None)
        if route is None:
            return _error(404, f"{method} {path}: no such method")
        found, what, act = route
        fault = next((fault for fault in self._faults if fault[0] == what), None)
        if fault is None:
            return act(self, *found.groups(), query, body)
        self._faults.remove(fault)
        _, status, is_after_applying = fault
        if is_after_applying:
            act(self, *found.groups(), query, body)
        return _error(status, "as the test asked for")

    def _end(self, job: Job, state: str, error: str | None) -> None:
        with self._changed:
            if job.state in ENDED:
                return
            if error is not None:
                job.messages.append(("JOB_MESSAGE_ERROR", f"Workflow failed. Causes: {error}"))
            job.messages += [("JOB_MESSAGE_DETAILED", "Cleaning up."), ("JOB_MESSAGE_BASIC", "Worker pool stopped.")]
            job.state = state
            job.stop.set()
            self._changed.notify_all()
        for importance, text in job.messages:
            if text.startswith(("Workflow failed.", "Worker pool", "Error occurred in the launcher")):
                self._publish(entry_of(job, "ERROR" if importance.endswith("ERROR") else "INFO", text))

    def _launch_flex(self, project: str, region: str, query: dict, body: dict) -> tuple[int, dict]:
        launch = body.get("launchParameter", {})
        return self._launch("flex", project, region, launch.get("containerSpecGcsPath"), launch, body)

    def _launch_classic(self, project: str, region: str, query: dict, body: dict) -> tuple[int, dict]:
        return self._launch("classic", project, region, query.get("gcsPath"), body, body)

    def _launch(
        self, kind: str, project: str, region: str, gcs_path: str | None, launch: dict, body: dict
    ) -> tuple[int, dict]:
        with self._changed:
            told = {"kind": kind, "project": project, "region": region, "gcs_path": gcs_path, "body": body}
            self.launches.append(told)
            name, parameters = launch.get("jobName", ""), launch.get("parameters", {})
            if not re.fullmatch(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?", name):
                return _error(400, f"JobName {name} is invalid")
            if not all(isinstance(value, str) for value in parameters.values()):
                return _error(400, "Invalid value at 'parameters': TYPE_STRING")
            if gcs_path not in self._templates:
                return _error(404, f"Unable to open template file: {gcs_path}")
            for job in self.jobs.values():
                if (job.name, job.project, job.region) == (name, project, region) and job.state not in ENDED:
                    if self.duplicates == "409":
                        return _error(409, f"There is already an active job named {name}.")
                    return 200, {"job": job.resource()}
            job = self._new_job(name, project, region, gcs_path, parameters, launch.get("environment", {}))
        Thread(target=self._run, args=(job, self._templates[gcs_path]), daemon=True).start()
        return 200, {"job": job.resource()}

    def _new_job(self, name: str, project: str, region: str, template: str, parameters: dict, environment: dict) -> Job:
        number = next(self._numbers)
        job_id = f"2026-11-20_08_58_37-{4369315246414288000 + number}"
        job = Job(job_id, name, project, region, number, template, parameters, environment)
        self.jobs[job.id] = job
        return job

    def _run(self, job: Job, work: Work) -> None:
        with self._changed:
            if job.state in ENDED:
                return
            job.state = "JOB_STATE_RUNNING"
        try:
            error = _run_file(job, work) if isinstance(work, Path) else _call(job, work)
        except Exception as exc:
            error = f"{type(exc).__name__}: {exc}"
        if not self._server_is_gone():
            self._end(job, "JOB_STATE_DONE" if error is None else "JOB_STATE_FAILED", error)

    def _server_is_gone(self) -> bool:
        return self._server.socket.fileno() < 0

    def _job(self, project: str, region: str, job_id: str) -> Job | None:
        job = self.jobs.get(job_id)
        return job if job and (job.project, job.region) == (project, region) else None

    def _get(self, project: str, region: str, job_id: str, query: dict, body: dict) -> tuple[int, dict]:
        job = self._job(project, region, job_id)
        return (200, job.resource()) if job else _error(404, f"job {job_id} could not be found")

    def _update(self, project: str, region: str, job_id: str, query: dict, body: dict) -> tuple[int, dict]:
        job = self._job(project, region, job_id)
        if job is None:
            return _error(404, f"job {job_id} could not be found")
        if job.state in ENDED:
            return _error(400, f"job {job_id} is in terminal state {job.state}")
        wanted = {"JOB_STATE_CANCELLED": "JOB_STATE_CANCELLED", "JOB_STATE_DRAINED": "JOB_STATE_DRAINED"}
        state = wanted.get(body.get("requestedState", ""))
        if state is None:
            return _error(400, f"requestedState {body.get('requestedState')} is not allowed")
        self.end(job_id, state)
        return 200, job.resource()

    def _list(self, project: str, region: str, query: dict, body: dict) -> tuple[int, dict]:
        name, kind = query.get("name"), query.get("filter", "UNKNOWN")
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda job: job.number)
            if (job.project, job.region) == (project, region)
            and (name is None or job.name == name)
            and (kind != "ACTIVE" or job.state not in ENDED)
            and (kind != "TERMINATED" or job.state in ENDED)
        ]
        start = int(query.get("pageToken", 0))
        page = found[start : start + 2]
        more = {"nextPageToken": str(start + 2)} if found[start + 2 :] else {}
        return 200, {"jobs": [job.resource() for job in page], **more} if page else more

    def _list_messages(self, project: str, region: str, job_id: str, query: dict, body: dict) -> tuple[int, dict]:
        job = self._job(project, region, job_id)
        if job is None:
            return _error(404, f"job {job_id} could not be found")
        least = _IMPORTANCES.index(query.get("minimumImportance", _IMPORTANCES[0]))
        return 200, {
            "jobMessages": [
                {"id": f"JOB_MESSAGE_{number}", "messageImportance": importance, "messageText": text}
                for number, (importance, text) in enumerate(job.messages)
                if _IMPORTANCES.index(importance) >= least
            ]
        }


_IMPORTANCES = ("JOB_MESSAGE_DEBUG", "JOB_MESSAGE_DETAILED", "JOB_MESSAGE_BASIC", "JOB_MESSAGE_WARNING")
_IMPORTANCES += ("JOB_MESSAGE_ERROR",)

_PLACE = r"/v1b3/projects/([^/]+)/locations/([^/]+)"
_ROUTES = (
    (rf"{_PLACE}/flexTemplates:launch", "launch", "POST", DataflowServer._launch_flex),
    (rf"{_PLACE}/templates:launch", "launch", "POST", DataflowServer._launch_classic),
    (rf"{_PLACE}/jobs/([^/]+)/messages", "messages", "GET", DataflowServer._list_messages),
    (rf"{_PLACE}/jobs/([^/]+)", "get", "GET", DataflowServer._get),
    (rf"{_PLACE}/jobs/([^/]+)", "update", "PUT", DataflowServer._update),
    (rf"{_PLACE}/jobs", "list", "GET", DataflowServer._list),
)


def entry_of(job: Job, severity: str, text: str) -> dict:
    """A line of a job's message log. The project is a number there."""
    time = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    ids = {"job_id": job.id, "job_name": job.name, "region": job.region}
    return {
        "insertId": f"1am96gdc{job.number}{len(text)}",
        "logName": f"projects/{job.project}/logs/dataflow.googleapis.com%2Fjob-message",
        "labels": {
            **{f"dataflow.googleapis.com/{name}": value for name, value in ids.items()},
            "dataflow.googleapis.com/log_type": "system",
        },
        "resource": {"type": "dataflow_step", "labels": {**ids, "project_id": "471167364752", "step_id": ""}},
        "severity": severity,
        "textPayload": text,
        "timestamp": time,
        "receiveTimestamp": time,
    }


def _call(job: Job, work: Callable[[Job], object]) -> None:
    work(job)


def _run_file(job: Job, source: Path) -> str | None:
    """Run a pipeline file to its end, or the job's; return what it said last if it failed."""
    flags = (f"--{name}={value}" for name, value in job.parameters.items())
    command = [sys.executable, str(source), "--runner=DirectRunner", f"--job_name={job.name}", *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    Thread(target=_kill_when_stopped, args=(job, process), daemon=True).start()
    _, words = process.communicate()
    lines = words.decode("utf-8", "replace").strip().splitlines()
    return None if process.returncode == 0 else (lines or [f"exited with {process.returncode}"])[-1]


def _kill_when_stopped(job: Job, process: subprocess.Popen) -> None:
    while process.poll() is None:
        if job.stop.wait(0.1):
            with suppress(OSError):
                process.kill()
            return


def _error(status: int, message: str) -> tuple[int, dict]:
    return status, {"error": {"code": status, "message": message, "status": "SAID"}}
