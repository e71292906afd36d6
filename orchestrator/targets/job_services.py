"""The table of job services. A new service is a row: see `Service` for its columns, docs/targets.md for the way.

Requests, states and fields are those of the static discovery documents that google-api-python-client ships. Pure.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from orchestrator.model.commands import EMPTY, Json, Launch
from orchestrator.model.enums import Identity, OutcomeKind, TargetTypes
from orchestrator.model.json_paths import at, objects_at
from orchestrator.model.messages import LAUNCH_VARIABLE
from orchestrator.targets.bigquery_parameters import query_parameters
from orchestrator.targets.job_service import (
    Call,
    Listing,
    Resource,
    Service,
    Where,
    last_part,
    number_at,
    text_at,
    told,
)
from orchestrator.targets.request_parts import labels_of, text_of

_COMPLETED, _FAILED, _CANCELLED = OutcomeKind.COMPLETED, OutcomeKind.FAILED, OutcomeKind.CANCELLED
_ENDS = {"SUCCEEDED": _COMPLETED, "FAILED": _FAILED, "CANCELLED": _CANCELLED}

KEY_LABEL = "orchestrator_key"
"""Label that holds the launch's key, where it is what a launch is found by."""


def _request(launch: Launch) -> Mapping[str, Json]:
    found = launch.step.get("request")
    return found if isinstance(found, Mapping) else EMPTY


def _texts(launch: Launch) -> dict[str, Json]:
    return {name: text_of(value) for name, value in launch.parameters.items()}


# ---- Cloud Run jobs: run.v2 --------------------------------------------------------------------------


def _run_body(launch: Launch, _: Where) -> dict[str, Json]:
    # An override has neither labels nor an id of ours, so the launch id goes in as a variable; `env` is merged by the
    # service with the job's own. The first override is the job's only container, unless the request names another.
    variables = {**_texts(launch), LAUNCH_VARIABLE: launch.launch_id}
    env: list[Json] = [{"name": name, "value": value} for name, value in variables.items()]
    return {"overrides": {"containerOverrides": [{"env": env}]}}


def _run_is_of(execution: Resource, launch: Launch) -> bool:
    variables = [each for one in objects_at(execution, "template", "containers") for each in objects_at(one, "env")]
    return any(each.get("name") == LAUNCH_VARIABLE and each.get("value") == launch.launch_id for each in variables)


def _run_condition(execution: Resource) -> Json:
    conditions = (each for each in objects_at(execution, "conditions") if each.get("type") == "Completed")
    return next(conditions, None)


def _run_state(execution: Resource) -> str:
    if not text_at(execution, "completionTime"):
        return ""
    condition = _run_condition(execution)
    is_cancelled = text_at(condition, "executionReason") == "CANCELLED"
    return "CANCELLED" if is_cancelled else text_at(condition, "state").removeprefix("CONDITION_")


_EXECUTIONS = "projects.locations.jobs.executions"
_RUN_JOB = "projects/{project}/locations/{region}/jobs/{target}"
_RUN_NAME = f"{_RUN_JOB}/executions/{{id}}"

CLOUD_RUN_JOB = Service(
    target_type=TargetTypes.CLOUD_RUN_JOB,
    api=("run", "v2"),
    identity=Identity.FOUND,
    name=_RUN_NAME,
    body=_run_body,
    launch=Call("projects.locations.jobs", "run", {"name": _RUN_JOB}, has_body=True),
    new_id=lambda operation: last_part(text_at(operation, "metadata", "name")),
    get=Call(_EXECUTIONS, "get", {"name": _RUN_NAME}),
    listing=Listing(
        Call(_EXECUTIONS, "list", {"parent": _RUN_JOB, "pageSize": 100}), items="executions", is_of=_run_is_of
    ),
    cancel=Call(_EXECUTIONS, "cancel", {"name": _RUN_NAME}, has_body=True),
    state=_run_state,
    ends=_ENDS,
    reason=lambda execution: text_at(_run_condition(execution), "message"),
    result=lambda execution, where: told(
        execution=where.id,
        job=where.target,
        succeeded_tasks=number_at(execution, "succeededCount"),
        log_uri=text_at(execution, "logUri"),
    ),
    id_is_ours=True,
)


# ---- BigQuery: bigquery.v2 ---------------------------------------------------------------------------


def _bigquery_body(launch: Launch, where: Where) -> dict[str, Json]:
    declared = objects_at(_request(launch), "configuration", "query", "queryParameters")
    parameters = query_parameters(launch.parameters, declared)
    query: dict[str, Json] = {"query": launch.step.get("query"), "useLegacySql": False}
    if parameters:
        query |= {"parameterMode": "NAMED", "queryParameters": parameters}
    reference: Json = {"projectId": where.project, "jobId": where.key, "location": where.region}
    return {"jobReference": reference, "configuration": {"query": query, "labels": labels_of(launch)}}


def _bigquery_state(job: Resource) -> str:
    if text_at(job, "status", "state") != "DONE":
        return ""
    error = at(job, "status", "errorResult")
    if error is None:
        return "SUCCEEDED"
    return "CANCELLED" if text_at(error, "reason") == "stopped" else "FAILED"


def _bigquery_result(job: Resource, where: Where) -> dict[str, Json]:
    query = at(job, "statistics", "query")
    table = at(job, "configuration", "query", "destinationTable")
    parts = [text_at(table, part) for part in ("projectId", "datasetId", "tableId")]
    changed, written = number_at(query, "numDmlAffectedRows"), number_at(query, "queryPlan", -1, "recordsWritten")
    return told(
        job_id=where.id,
        location=where.region,
        statement_type=text_at(query, "statementType"),
        rows=written if changed is None else changed,
        bytes_processed=number_at(query, "totalBytesProcessed"),
        bytes_billed=number_at(query, "totalBytesBilled"),
        destination=".".join(parts) if all(parts) else "",
    )


_BIGQUERY_JOB = {"projectId": "{project}", "jobId": "{id}", "location": "{region}"}

BIGQUERY = Service(
    target_type=TargetTypes.BIGQUERY,
    api=("bigquery", "v2"),
    identity=Identity.FOREVER,
    name="projects/{project}/locations/{region}/jobs/{id}",
    body=_bigquery_body,
    launch=Call("jobs", "insert", {"projectId": "{project}"}, has_body=True),
    get=Call("jobs", "get", _BIGQUERY_JOB),
    cancel=Call("jobs", "cancel", _BIGQUERY_JOB),
    state=_bigquery_state,
    ends=_ENDS,
    reason=lambda job: ": ".join(
        part for name in ("reason", "message") if (part := text_at(job, "status", "errorResult", name))
    ),
    result=_bigquery_result,
)


# ---- Dataproc serverless: dataproc.v1, batches -------------------------------------------------------

_WITH_ARGUMENTS = ("pysparkBatch", "sparkBatch", "sparkRBatch")
_WITH_VARIABLES = MappingProxyType({"sparkSqlBatch": "queryVariables", "pysparkNotebookBatch": "params"})


def _dataproc_body(launch: Launch, _: Where) -> dict[str, Json]:
    request, main = _request(launch), launch.step.get("main_python_file")
    kinds = (*_WITH_ARGUMENTS, *_WITH_VARIABLES)
    kind = "pysparkBatch" if main else next((each for each in kinds if each in request), "pysparkBatch")
    batch: dict[str, Json] = {"mainPythonFileUri": main} if main else {}
    texts = _texts(launch)
    if kind in _WITH_VARIABLES:
        batch[_WITH_VARIABLES[kind]] = texts
    elif texts:
        theirs = at(request, kind, "args")
        first: list[Json] = theirs if isinstance(theirs, list) else []
        batch["args"] = [*first, *(f"--{name}={text}" for name, text in texts.items())]
    return {kind: batch, "labels": labels_of(launch)}


_BATCHES = "projects.locations.batches"
_PLACE = "projects/{project}/locations/{region}"
_DATAPROC_NAME = f"{_PLACE}/batches/{{id}}"

DATAPROC = Service(
    target_type=TargetTypes.DATAPROC,
    api=("dataproc", "v1"),
    identity=Identity.WINDOW,
    name=_DATAPROC_NAME,
    body=_dataproc_body,
    launch=Call(_BATCHES, "create", {"parent": _PLACE, "batchId": "{key}", "requestId": "{request}"}, has_body=True),
    get=Call(_BATCHES, "get", {"name": _DATAPROC_NAME}),
    # A batch has no cancel of its own: its operation has, as `gcloud dataproc batches cancel` does it.
    cancel=Call("projects.{operations}.operations", "cancel", {"name": "{operation}"}),
    state=lambda batch: text_at(batch, "state"),
    ends=_ENDS,
    reason=lambda batch: text_at(batch, "stateMessage"),
    result=lambda batch, where: told(
        batch_id=where.id,
        output_uri=text_at(batch, "runtimeInfo", "outputUri"),
        milli_dcu_seconds=number_at(batch, "runtimeInfo", "approximateUsage", "milliDcuSeconds"),
    ),
    first_question_s=15.0,
)


# ---- Batch: batch.v1 ---------------------------------------------------------------------------------


def _batch_body(launch: Launch, _: Where) -> dict[str, Json]:
    labels = labels_of(launch)
    task: dict[str, Json] = {"environment": {"variables": {**_texts(launch), LAUNCH_VARIABLE: launch.launch_id}}}
    image = launch.step.get("image")
    if image:
        task["runnables"] = [{"container": {"imageUri": image}}]
    body: dict[str, Json] = {"taskGroups": [{"taskSpec": task}], "labels": labels}
    body["allocationPolicy"] = {"labels": labels}  # these are on the machines, which are what costs
    if "logsPolicy" not in _request(launch):
        body["logsPolicy"] = {"destination": "CLOUD_LOGGING"}
    return body


def _batch_reason(job: Resource) -> str:
    words = [text_at(event, "description") for event in objects_at(job, "status", "statusEvents")]
    return next((word for word in reversed(words) if word), "")


_JOBS = "projects.locations.jobs"
_BATCH_NAME = f"{_PLACE}/jobs/{{id}}"

BATCH = Service(
    target_type=TargetTypes.BATCH,
    api=("batch", "v1"),
    identity=Identity.WINDOW,
    name=_BATCH_NAME,
    body=_batch_body,
    launch=Call(_JOBS, "create", {"parent": _PLACE, "jobId": "{key}", "requestId": "{request}"}, has_body=True),
    get=Call(_JOBS, "get", {"name": _BATCH_NAME}),
    cancel=Call(_JOBS, "cancel", {"name": _BATCH_NAME}, has_body=True),
    state=lambda job: text_at(job, "status", "state"),
    ends=_ENDS,
    reason=_batch_reason,
    result=lambda job, where: told(
        job_id=where.id, uid=text_at(job, "uid"), run_duration=text_at(job, "status", "runDuration")
    ),
    # It could publish its state to a topic, but does so as the job's own service account, which then might publish
    # anything to the orchestrator's topic.
    first_question_s=15.0,
)


# ---- Workflows: workflowexecutions.v1 ----------------------------------------------------------------


def _workflows_body(launch: Launch, _: Where) -> dict[str, Json]:
    argument = msgspec.json.encode(launch.parameters).decode()
    return {"argument": argument, "labels": {**labels_of(launch), KEY_LABEL: launch.key}}


def _workflows_reason(execution: Resource) -> str:
    words = (text_at(execution, "error", "payload"), text_at(execution, "error", "context"))
    return "\n".join(word for word in words if word)


def _workflows_output(execution: Resource) -> Json:
    text = text_at(execution, "result")
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return text


_FLOW_EXECUTIONS = "projects.locations.workflows.executions"
_WORKFLOW = "projects/{project}/locations/{region}/workflows/{target}"
_FLOW_NAME = f"{_WORKFLOW}/executions/{{id}}"

WORKFLOWS = Service(
    target_type=TargetTypes.WORKFLOWS,
    api=("workflowexecutions", "v1"),
    identity=Identity.FOUND,
    name=_FLOW_NAME,
    body=_workflows_body,
    launch=Call(_FLOW_EXECUTIONS, "create", {"parent": _WORKFLOW}, has_body=True),
    new_id=lambda execution: last_part(text_at(execution, "name")),
    get=Call(_FLOW_EXECUTIONS, "get", {"name": _FLOW_NAME}),
    # FULL, for a list of BASIC ones has no labels. Newest first, says the API.
    listing=Listing(
        Call(_FLOW_EXECUTIONS, "list", {"parent": _WORKFLOW, "view": "FULL", "pageSize": 100}),
        items="executions",
        is_of=lambda execution, launch: at(execution, "labels", KEY_LABEL) == launch.key,
    ),
    cancel=Call(_FLOW_EXECUTIONS, "cancel", {"name": _FLOW_NAME}, has_body=True),
    state=lambda execution: text_at(execution, "state"),
    ends=_ENDS,
    reason=_workflows_reason,
    result=lambda execution, where: {
        **told(execution=where.id, workflow=where.target),
        "output": _workflows_output(execution),
    },
)


# ---- Vertex AI pipelines: aiplatform.v1 --------------------------------------------------------------


def _vertex_body(launch: Launch, _: Where) -> dict[str, Json]:
    template, root = launch.step.get("template_path"), launch.step.get("pipeline_root")
    runtime: dict[str, Json] = {"parameterValues": dict(launch.parameters)} if launch.parameters else {}
    if root:
        runtime["gcsOutputDirectory"] = root
    body: dict[str, Json] = {"displayName": launch.target_name, "labels": labels_of(launch)}
    if runtime:
        body["runtimeConfig"] = runtime
    if template:
        body["templateUri"] = template
    return body


_PIPELINE_JOBS = "projects.locations.pipelineJobs"
_VERTEX_NAME = f"{_PLACE}/pipelineJobs/{{id}}"

VERTEX_PIPELINE = Service(
    target_type=TargetTypes.VERTEX_PIPELINE,
    api=("aiplatform", "v1"),
    identity=Identity.WINDOW,
    name=_VERTEX_NAME,
    body=_vertex_body,
    launch=Call(_PIPELINE_JOBS, "create", {"parent": _PLACE, "pipelineJobId": "{key}"}, has_body=True),
    get=Call(_PIPELINE_JOBS, "get", {"name": _VERTEX_NAME}),
    cancel=Call(_PIPELINE_JOBS, "cancel", {"name": _VERTEX_NAME}, has_body=True),
    state=lambda job: text_at(job, "state").removeprefix("PIPELINE_STATE_"),
    ends=_ENDS,
    reason=lambda job: text_at(job, "error", "message"),
    result=lambda job, where: told(job_id=where.id, pipeline_root=text_at(job, "runtimeConfig", "gcsOutputDirectory")),
    endpoint="https://{region}-aiplatform.googleapis.com/",
)


SERVICES: Mapping[TargetTypes, Service] = MappingProxyType(
    {service.target_type: service for service in (CLOUD_RUN_JOB, BIGQUERY, DATAPROC, BATCH, WORKFLOWS, VERTEX_PIPELINE)}
)
"""The table, by target type."""
