"""Fakes of the REST APIs of the job services: on 127.0.0.1, in memory, one class a service.

Requests are held against the discovery documents: an unknown method is a 404, an unknown field or parameter a 400, as
the services have it. A job runs until the test ends it, or, given `work`, as long as that takes.

    with JobServer(publish=events.append) as server:
        apis = GoogleApis(server.environment)
        server["Batch"].end(job_id, "FAILED", "no disk left")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Condition, Event, RLock, Thread
from uuid import UUID, uuid4

from orchestrator.services.google_api import OVERRIDE
from tests.support.discovery import Document, Method, document
from tests.support.rest_server import RestServer, rest_handler

PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"
PROJECT_NUMBER = "471167364752"
_FIRST = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)


@dataclass
class Job:
    """One job. `state` is Running, Succeeded, Failed or Cancelled; `stop` is set when it has ended."""

    id: str
    parent: str
    body: dict
    query: dict
    number: int
    created_at: datetime
    state: str = "Running"
    error: str = ""
    result: object = None
    stop: Event = field(default_factory=Event)

    @property
    def created(self) -> str:
        return self.created_at.isoformat().replace("+00:00", "Z")


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, reason: str = "said") -> None:
        self.status, self.message, self.reason = status, message, reason
        super().__init__(message)


class JobService:
    """What the fakes have in common; a subclass says what is its service's own.

    Attributes:
        jobs: by id, in the order of their creation.
        bodies: of the launches, as they came in.
        calls: (method id, path parameters, query) of every request.
        known: names of what can be launched, for a service where that has to be there before.
    """

    name: str
    document: Document
    launching: str
    """Id of the method that launches."""
    payload: str | None = None
    """The entry of its log that tells of an end."""
    page_size = 2

    def __init__(self, server: JobServer) -> None:
        self.server = server
        self.jobs: dict[str, Job] = {}
        self.bodies: list[dict] = []
        self.calls: list[tuple[str, dict, dict]] = []
        self.known: set[str] | None = None
        self._faults: list[tuple[str, int, str, bool]] = []
        self._lock = RLock()
        self.changed = Condition(self._lock)

    # -- what a test does ---------------------------------------------------------------------------

    def fail_next(self, what: str, status: int = 503, *, reason: str = "said", after_applying: bool = False) -> None:
        """Have the next call of `what` (launch, get, list, cancel) answered with an error."""
        self._faults.append((what, status, reason, after_applying))

    def end(self, job_id: str, state: str = "Succeeded", error: str = "", result: object = None) -> None:
        """End a job, as the service would, and publish what its log says. Does nothing if it has ended."""
        with self._lock:
            job = self.jobs[job_id]
            if job.state != "Running":
                return
            job.state, job.error, job.result = state, error, result
            job.stop.set()
            self.changed.notify_all()
        if self.payload is not None:
            entry = json.loads((PAYLOADS / f"{self.payload}.json").read_text())
            self.tell(job, entry)
            self.server.publish(entry)

    def forget(self) -> None:
        """Be as new."""
        with self._lock:
            for job in self.jobs.values():
                job.stop.set()
            for kept in (self.jobs, self.bodies, self.calls, self._faults):
                kept.clear()

    # -- what a service says of itself -----------------------------------------------------------------

    def new_id(self, parent: str, query: dict, body: dict) -> str:
        """The id of a new job; one that is taken is a 409."""
        raise NotImplementedError

    def launched(self, job: Job) -> dict:
        """The answer to the launch."""
        return self.resource(job)

    def resource(self, job: Job) -> dict:
        """The job as the API tells it."""
        raise NotImplementedError

    def parameters(self, job: Job) -> dict:
        """The step's parameters, where the service hands them to what it runs; texts where it knows only these."""
        raise NotImplementedError

    def tell(self, job: Job, entry: dict) -> None:
        """Make the entry that tells of an end one of this job's."""

    def labels(self, job: Job) -> dict:
        """The labels that the job bears."""
        return job.body.get("labels", {})

    def check(self, body: dict, query: dict) -> None:
        """Raise Refused where the service would."""

    # -- what all services do --------------------------------------------------------------------------

    def answer(self, method: Method, path: dict, query: dict, body: dict) -> dict:
        """Answer a request that the discovery document has."""
        self.calls.append((method.id, path, query))
        unknown = set(query) - method.query - {"alt", "prettyPrint"}
        if unknown:
            raise Refused(400, f"Invalid JSON payload received. Unknown name {sorted(unknown)}")
        if method.request:
            problems = self.document.problems(body, method.request)
            if problems:
                raise Refused(400, "; ".join(problems))
        action = "launch" if method.id == self.launching else method.id.rpartition(".")[2]
        fault = next((each for each in self._faults if each[0] == action), None)
        if fault is None:
            return self.act(action, path, query, body)
        self._faults.remove(fault)
        _, status, reason, is_after_applying = fault
        if is_after_applying:
            self.act(action, path, query, body)
        raise Refused(status, "as the test asked for", reason)

    def act(self, action: str, path: dict, query: dict, body: dict) -> dict:
        """Do what is asked for."""
        match action:
            case "launch":
                return self.launch(path.get("parent") or path.get("name") or "", query, body)
            case "get":
                return self.resource(self.job(path, query))
            case "list":
                return self.list(path["parent"], query)
            case "cancel":
                return self.cancel(self.job(path, query))
        raise Refused(501, f"this fake does not {action}")

    def launch(self, parent: str, query: dict, body: dict) -> dict:
        with self._lock:
            self.bodies.append(body)
            if self.known is not None and parent.rpartition("/")[2] not in self.known:
                raise Refused(404, f"Resource '{parent}' was not found")
            self.check(body, query)
            for labels in _labels_in(body):
                _check_labels(labels)
            request = query.get("requestId")
            if request is not None:
                earlier = [job for job in self.jobs.values() if job.query.get("requestId") == request]
                if earlier:
                    return self.launched(earlier[0])
            job_id = self.new_id(parent, query, body)
            if job_id in self.jobs:
                raise Refused(409, f"Already Exists: {self.name} {job_id}", "duplicate")
            number = next(self.server.numbers)
            at = self.server.now() if self.server.now else _FIRST + timedelta(seconds=number)
            job = self.jobs[job_id] = Job(job_id, parent, deepcopy(body), query, number, at)
            self.changed.notify_all()
        if self.server.work is not None:
            Thread(target=self._run, args=(job, self.server.work), daemon=True).start()
        return self.launched(job)

    def _run(self, job: Job, work: Callable[[JobService, Job], object]) -> None:
        try:
            result = work(self, job)
        except Exception as exc:
            self.end(job.id, "Failed", f"{type(exc).__name__}: {exc}")
        else:
            self.end(job.id, "Succeeded", result=result)

    def job(self, path: dict, query: dict) -> Job:
        name = path["name"]
        job = self.jobs.get(name.rpartition("/")[2])
        if job is None or _place(job.parent) != _place(name):
            raise Refused(404, f"Resource '{name}' was not found")
        return job

    def list(self, parent: str, query: dict) -> dict:
        found = [job for job in reversed(self.jobs.values()) if job.parent == parent]
        start = int(query.get("pageToken") or 0)
        page = found[start : start + self.page_size]
        more = {"nextPageToken": str(start + self.page_size)} if found[start + self.page_size :] else {}
        return {"executions": [self.listed(job, query) for job in page], **more} if page else more

    def listed(self, job: Job, query: dict) -> dict:
        return self.resource(job)

    def cancel(self, job: Job) -> dict:
        if job.state != "Running":
            raise Refused(400, f"{job.id} is in a terminal state")
        self.end(job.id, "Cancelled")
        return {}


class CloudRun(JobService):
    name = "CloudRunJob"
    document = document("run.v2", "projects.locations.jobs", "projects.locations.jobs.executions")
    launching = "run.projects.locations.jobs.run"
    payload = "cloud_run_job_completed"

    def __init__(self, server):
        super().__init__(server)
        self.known = {"nightly"}

    def new_id(self, parent, query, body):
        return f"{parent.rpartition('/')[2]}-{uuid4().hex[:5]}"

    def launched(self, job):
        execution = {"@type": "type.googleapis.com/google.cloud.run.v2.Execution", **self.resource(job)}
        return {"name": f"{_place(job.parent)}/operations/{uuid4()}", "metadata": execution}

    def resource(self, job):
        override = job.body.get("overrides", {}).get("containerOverrides", [{}])[0]
        env = [{"name": "OF_THE_JOB", "value": "1"}, *override.get("env", [])]
        resource = {
            "name": f"{job.parent}/executions/{job.id}",
            "uid": f"uid-{job.number}",
            "createTime": job.created,
            "taskCount": 1,
            "template": {"containers": [{"image": "image", "env": env, "args": override.get("args", [])}]},
            "logUri": f"https://console.cloud.google.com/logs/viewer?execution={job.id}",
            "conditions": [{"type": "ResourcesAvailable", "state": "CONDITION_SUCCEEDED"}],
        }
        completed = {"type": "Completed", "state": "CONDITION_RECONCILING"}
        if job.state == "Succeeded":
            completed["state"] = "CONDITION_SUCCEEDED"
            resource["succeededCount"] = 1
        elif job.state == "Failed":
            completed |= {"state": "CONDITION_FAILED", "executionReason": "NON_ZERO_EXIT_CODE", "message": job.error}
        elif job.state == "Cancelled":
            completed |= {"state": "CONDITION_FAILED", "executionReason": "CANCELLED"}
        if job.state != "Running":
            resource["completionTime"] = job.created
        resource["conditions"].append(completed)
        return resource

    def parameters(self, job):
        env = self.resource(job)["template"]["containers"][0]["env"]
        return {each["name"]: each["value"] for each in env}

    def labels(self, job):
        return {}

    def tell(self, job, entry):
        entry["protoPayload"]["response"]["metadata"]["name"] = job.id
        containers = self.resource(job)["template"]["containers"]
        entry["protoPayload"]["response"]["spec"] = {"template": {"spec": {"containers": containers}}}


class BigQuery(JobService):
    name = "BigQuery"
    document = document("bigquery.v2", "jobs")
    launching = "bigquery.jobs.insert"
    payload = "bigquery_job_done"

    def check(self, body, query):
        configuration = body["configuration"]["query"]
        if configuration.get("useLegacySql", True) and configuration.get("queryParameters"):
            raise Refused(400, "Query parameters cannot be used with legacy SQL", "invalid")
        if "${" in configuration["query"]:
            raise Refused(400, 'Syntax error: Unexpected "$"', "invalidQuery")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,1024}", body["jobReference"]["jobId"]):
            raise Refused(400, "Invalid job ID", "invalid")

    def new_id(self, parent, query, body):
        return body["jobReference"]["jobId"]

    def act(self, action, path, query, body):
        if action == "launch":
            reference = body.get("jobReference", {})
            if reference.get("projectId") != path["projectId"]:
                raise Refused(400, "Project of the job and of the URL differ", "invalid")
            return self.launch(f"projects/{path['projectId']}/locations/{reference['location']}", query, body)
        return super().act(action, path, query, body)

    def job(self, path, query):
        job = self.jobs.get(path["jobId"])
        if job is None or job.parent != f"projects/{path['projectId']}/locations/{query.get('location')}":
            raise Refused(404, f"Not found: Job {path['projectId']}:{path['jobId']}", "notFound")
        return job

    def resource(self, job):
        status = {"state": "RUNNING" if job.state == "Running" else "DONE"}
        if job.state == "Failed":
            status["errorResult"] = {"reason": "invalidQuery", "message": job.error}
        elif job.state == "Cancelled":
            status["errorResult"] = {"reason": "stopped", "message": "Job execution was cancelled"}
        configuration = deepcopy(job.body["configuration"])
        table = {"projectId": "my-project", "datasetId": "_anonymous", "tableId": "anon1"}
        configuration["query"].setdefault("destinationTable", table)
        statistics = {"totalBytesProcessed": "1048576", "totalBytesBilled": "10485760", "statementType": "SELECT"}
        if isinstance(job.result, int):
            statistics["queryPlan"] = [{"recordsWritten": "999"}, {"recordsWritten": str(job.result)}]
        return {
            "kind": "bigquery#job",
            "id": f"{job.parent}:{job.id}",
            "jobReference": job.body["jobReference"],
            "configuration": configuration,
            "status": status,
            "statistics": {"query": statistics, "creationTime": str(int(job.created_at.timestamp() * 1000))},
        }

    def parameters(self, job):
        found = job.body["configuration"]["query"].get("queryParameters", [])
        return {each["name"]: each["parameterValue"]["value"] for each in found}

    def labels(self, job):
        return job.body["configuration"]["labels"]

    def cancel(self, job):
        self.end(job.id, "Cancelled")  # of one that has ended it is accepted, and does nothing
        return {"kind": "bigquery#jobCancelResponse", "job": self.resource(job)}

    def tell(self, job, entry):
        name = f"projects/{job.body['jobReference']['projectId']}/jobs/{job.id}"
        entry["protoPayload"]["resourceName"] = name
        entry["protoPayload"]["metadata"]["jobChange"]["job"]["jobName"] = name


class Dataproc(JobService):
    name = "Dataproc"
    document = document("dataproc.v1", "projects.locations.batches", "projects.regions.operations")
    launching = "dataproc.projects.locations.batches.create"
    kinds = ("pysparkBatch", "sparkBatch", "sparkRBatch", "sparkSqlBatch", "pysparkNotebookBatch")

    def check(self, body, query):
        if sum(kind in body for kind in self.kinds) != 1:
            raise Refused(400, "exactly one kind of batch is needed")
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,61}[a-z0-9]", query["batchId"]) or len(query["requestId"]) > 40:
            raise Refused(400, "Batch ID or request ID is invalid")

    def new_id(self, parent, query, body):
        return query["batchId"]

    def launched(self, job):
        metadata = {"batch": f"{job.parent}/batches/{job.id}"}
        metadata["@type"] = "type.googleapis.com/google.cloud.dataproc.v1.BatchOperationMetadata"
        return {"name": self._operation(job), "metadata": metadata}

    def _operation(self, job):
        return f"{job.parent.replace('/locations/', '/regions/')}/operations/of-{job.id}"

    def resource(self, job):
        resource = {
            **job.body,
            "name": f"{job.parent}/batches/{job.id}",
            "uuid": str(UUID(int=job.number)),
            "createTime": job.created,
            "operation": self._operation(job),
            "state": job.state.upper(),
            "stateMessage": job.error,
            "runtimeInfo": {"outputUri": f"gs://staging/{job.id}/driveroutput"},
        }
        if job.state == "Succeeded":
            resource["runtimeInfo"]["approximateUsage"] = {"milliDcuSeconds": "36000"}
        return resource

    def job(self, path, query):
        if "/operations/of-" in path["name"]:
            path = {"name": path["name"].replace("/regions/", "/locations/").replace("/operations/of-", "/batches/")}
        return super().job(path, query)

    def parameters(self, job):
        kind = next(each for each in self.kinds if each in job.body)
        batch = job.body[kind]
        told = [each.removeprefix("--").split("=", 1) for each in batch.get("args", []) if "=" in each]
        return dict(told) | batch.get("queryVariables", {})


class Batch(JobService):
    name = "Batch"
    document = document("batch.v1", "projects.locations.jobs")
    launching = "batch.projects.locations.jobs.create"

    def check(self, body, query):
        if len(body.get("taskGroups", [])) != 1 or not body["taskGroups"][0]["taskSpec"].get("runnables"):
            raise Refused(400, "job.task_groups[0].task_spec.runnables must be set")
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", query["jobId"]):
            raise Refused(400, "job id is invalid")
        UUID(query["requestId"])

    def new_id(self, parent, query, body):
        return query["jobId"]

    def resource(self, job):
        events = [{"type": "STATUS_CHANGED", "description": "Job state is set from QUEUED to RUNNING"}]
        if job.error:
            events.append({"type": "STATUS_CHANGED", "description": job.error})
        return {
            **job.body,
            "name": f"{_numbered(job.parent)}/jobs/{job.id}",
            "uid": f"{job.id[:20]}-0",
            "createTime": job.created,
            "status": {"state": job.state.upper(), "statusEvents": events, "runDuration": "12.5s"},
        }

    def parameters(self, job):
        return job.body["taskGroups"][0]["taskSpec"]["environment"]["variables"]


class Workflows(JobService):
    name = "Workflows"
    document = document("workflowexecutions.v1", "projects.locations.workflows.executions")
    launching = "workflowexecutions.projects.locations.workflows.executions.create"
    payload = "workflow_succeeded"

    def __init__(self, server):
        super().__init__(server)
        self.known = {"nightly"}

    def check(self, body, query):
        if len(body.get("argument", "")) > 32 * 1024:
            raise Refused(400, "argument is too large")
        json.loads(body.get("argument", "null"))

    def new_id(self, parent, query, body):
        return str(uuid4())

    def resource(self, job):
        states = {"Running": "ACTIVE", "Succeeded": "SUCCEEDED", "Failed": "FAILED", "Cancelled": "CANCELLED"}
        resource = {
            **job.body,
            "name": f"{_numbered(job.parent)}/executions/{job.id}",
            "createTime": job.created,
            "startTime": job.created,
            "state": states[job.state],
        }
        if job.state == "Succeeded":
            resource["result"] = json.dumps(job.result)
        if job.state == "Failed":
            resource["error"] = {"payload": job.error, "context": 'in step "send"'}
        return resource

    def listed(self, job, query):
        resource = self.resource(job)
        basic = ("name", "startTime", "endTime", "state", "workflowRevisionId")
        return resource if query.get("view") == "FULL" else {name: resource.get(name) for name in basic}

    def parameters(self, job):
        return json.loads(job.body["argument"])

    def tell(self, job, entry):
        entry["labels"]["workflows.googleapis.com/execution_id"] = job.id


class Vertex(JobService):
    name = "VertexPipeline"
    document = document("aiplatform.v1", "projects.locations.pipelineJobs")
    launching = "aiplatform.projects.locations.pipelineJobs.create"
    payload = "vertex_pipeline_succeeded"

    def check(self, body, query):
        if not ("templateUri" in body or "pipelineSpec" in body):
            raise Refused(400, "pipeline_spec or template_uri is required")
        if not body.get("runtimeConfig", {}).get("gcsOutputDirectory"):
            raise Refused(400, "runtime_config.gcs_output_directory is required")
        if not re.fullmatch(r"[a-z][-a-z0-9]{0,127}", query["pipelineJobId"]):
            raise Refused(400, "pipeline_job_id is invalid")

    def new_id(self, parent, query, body):
        return query["pipelineJobId"]

    def resource(self, job):
        resource = {
            **job.body,
            "name": f"{_numbered(job.parent)}/pipelineJobs/{job.id}",
            "createTime": job.created,
            "state": f"PIPELINE_STATE_{job.state.upper()}",
        }
        return resource | ({"error": {"code": 9, "message": job.error}} if job.error else {})

    def parameters(self, job):
        return job.body["runtimeConfig"].get("parameterValues", {})

    def tell(self, job, entry):
        entry["resource"]["labels"]["pipeline_job_id"] = job.id


KINDS = {kind.name: kind for kind in (CloudRun, BigQuery, Dataproc, Batch, Workflows, Vertex)}


class JobServer:
    """All of them on one port; a context manager.

    Args:
        publish: takes the entries that the services' logs have of their jobs' ends.
        work: what a job does: it succeeds with what that returns, or fails with what it raises.
        now: what creation times come from; by default a second passes with each job.
    """

    def __init__(
        self,
        publish: Callable[[dict], object] = lambda entry: None,
        work: Callable[[JobService, Job], object] | None = None,
        now: Callable[[], datetime] | None = None,
    ) -> None:
        self.publish, self.work, self.now = publish, work, now
        self.numbers = count(1)
        self.services = {name: kind(self) for name, kind in KINDS.items()}
        self._server = RestServer(("127.0.0.1", 0), rest_handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.environment = {
            f"{OVERRIDE}{_api(service).upper()}": f"{self.url}/{_api(service)}/{service.document.base}"
            for service in self.services.values()
        }

    def __getitem__(self, target_type: str) -> JobService:
        return self.services[target_type]

    def __enter__(self) -> JobServer:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for service in self.services.values():
            service.forget()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, verb: str, path: str, query: dict, body: dict) -> tuple[int, dict]:
        """Answer a request: (HTTP status, JSON)."""
        api, _, rest = path.lstrip("/").partition("/")
        for service in self.services.values():
            if _api(service) == api:
                found = service.document.find(verb, f"/{rest}")
                if found is None:
                    break
                try:
                    return 200, service.answer(*found, query, body)
                except Refused as exc:
                    return exc.status, _error(exc.status, exc.message, exc.reason)
        return 404, _error(404, f"{verb} {path}: no such method", "notFound")


def _api(service: JobService) -> str:
    return service.launching.partition(".")[0]


def _place(name: str) -> str:
    return "/".join(name.split("/")[:4])


def _numbered(name: str) -> str:
    """A name as some services give it back: with the project's number."""
    return re.sub(r"^projects/[^/]+", f"projects/{PROJECT_NUMBER}", name)


def _labels_in(body: dict):
    for key, value in body.items():
        if key == "labels":
            yield value
        elif isinstance(value, dict):
            yield from _labels_in(value)


def _check_labels(labels: dict) -> None:
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refused(400, f"label {key}={value} is invalid")


def _error(status: int, message: str, reason: str) -> dict:
    return {"error": {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}}
