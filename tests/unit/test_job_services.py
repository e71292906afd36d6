"""The table of job services: the very body of each launch, and what is made of each state of a job."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from google.auth.credentials import AnonymousCredentials

from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import OutcomeKind, TargetTypes
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.runtime.policy import RulesOf
from orchestrator.services.google_api import GoogleApis
from orchestrator.targets import jobs
from orchestrator.targets.job_service import Where
from orchestrator.targets.job_services import SERVICES
from orchestrator.targets.jobs import JobTarget
from tests.support.cutting_server import CuttingServer
from tests.support.discovery import document
from tests.support.job_server import KINDS, JobServer
from tests.support.job_steps import PLACE, STEPS, launch_of

KEY = launch_of("Batch").key
LAUNCH = launch_of("Batch").launch_id
LABELS = {
    "orchestrator_dag": "sample",
    "orchestrator_run": "run_1639322384_5c1e9f0b2a47",
    "orchestrator_node": "step1",
    "orchestrator_attempt": "1",
}
OURS = {"name": "ORCHESTRATOR_LAUNCH", "value": LAUNCH}
PARAMETERS = {"day": "2021-12-12", "least": 12.5, "top": 20, "all": True, "none": None, "words": ["a", "b"]}
TEXTS = {"day": "2021-12-12", "least": "12.5", "top": "20", "all": "true", "none": "null", "words": '["a","b"]'}
REFERENCE = {"projectId": "my-project", "jobId": KEY, "location": "europe-west1"}
TEMPLATE = STEPS["VertexPipeline"]["template_path"]


@pytest.fixture(scope="module")
def server():
    with JobServer() as server:
        yield server


@pytest.fixture
def service(server):
    """Of a target type: its fake, as if it were new."""
    yield lambda target_type: server[target_type]
    for each in server.services.values():
        each.forget()
    server.now = None


def target_of(server, target_type, **more):
    return JobTarget(SERVICES[target_type], GoogleApis(server.environment), **PLACE, **more)


@pytest.mark.parametrize(
    ("target_type", "step", "parameters", "body"),
    [
        pytest.param(
            "CloudRunJob",
            {},
            PARAMETERS,
            {
                "overrides": {
                    "containerOverrides": [
                        {"env": [*({"name": name, "value": text} for name, text in TEXTS.items()), OURS]}
                    ]
                }
            },
            id="Cloud Run job: variables, and the launch among them",
        ),
        pytest.param(
            "CloudRunJob",
            {
                "request": {
                    "overrides": {
                        "taskCount": 4,
                        "containerOverrides": [
                            {"name": "main", "args": ["--fast"], "env": [{"name": "MODE", "value": "full"}]},
                            {"name": "side"},
                        ],
                    }
                }
            },
            {"DAY": "monday"},
            {
                "overrides": {
                    "taskCount": 4,
                    "containerOverrides": [
                        {
                            "name": "main",
                            "args": ["--fast"],
                            "env": [{"name": "MODE", "value": "full"}, {"name": "DAY", "value": "monday"}, OURS],
                        },
                        {"name": "side"},
                    ],
                }
            },
            id="Cloud Run job: laid over the request, in the first container",
        ),
        pytest.param(
            "BigQuery",
            {"query": "SELECT 1"},
            {},
            {
                "jobReference": REFERENCE,
                "configuration": {"query": {"query": "SELECT 1", "useLegacySql": False}, "labels": LABELS},
            },
            id="BigQuery: GoogleSQL, under our id",
        ),
        pytest.param(
            "BigQuery",
            {
                "query": "SELECT @day, @least",
                "region": "EU",
                "request": {
                    "configuration": {
                        "labels": {"team": "shop"},
                        "query": {
                            "maximumBytesBilled": "1000",
                            "queryParameters": [{"name": "day", "parameterType": {"type": "DATE"}}],
                        },
                    }
                },
            },
            {"day": "2021-12-12", "least": 12.5},
            {
                "jobReference": {**REFERENCE, "location": "EU"},
                "configuration": {
                    "labels": {"team": "shop", **LABELS},
                    "query": {
                        "query": "SELECT @day, @least",
                        "useLegacySql": False,
                        "maximumBytesBilled": "1000",
                        "parameterMode": "NAMED",
                        "queryParameters": [
                            {
                                "name": "day",
                                "parameterType": {"type": "DATE"},
                                "parameterValue": {"value": "2021-12-12"},
                            },
                            {
                                "name": "least",
                                "parameterType": {"type": "FLOAT64"},
                                "parameterValue": {"value": "12.5"},
                            },
                        ],
                    },
                },
            },
            id="BigQuery: values beside the query, of declared types",
        ),
        pytest.param(
            "Dataproc",
            {"main_python_file": "gs://b/main.py", "request": {"pysparkBatch": {"args": ["--verbose"]}}},
            {"day": "monday", "words": ["a b", "c"]},
            {
                "pysparkBatch": {
                    "mainPythonFileUri": "gs://b/main.py",
                    "args": ["--verbose", "--day=monday", '--words=["a b","c"]'],
                },
                "labels": LABELS,
            },
            id="Dataproc: arguments behind the author's",
        ),
        pytest.param(
            "Dataproc",
            {"request": {"sparkBatch": {"mainClass": "a.Main"}, "runtimeConfig": {"version": "2.2"}}},
            {},
            {"sparkBatch": {"mainClass": "a.Main"}, "runtimeConfig": {"version": "2.2"}, "labels": LABELS},
            id="Dataproc: another kind of batch",
        ),
        pytest.param(
            "Dataproc",
            {"request": {"sparkSqlBatch": {"queryFileUri": "gs://b/q.sql", "queryVariables": {"a": "1"}}}},
            {"day": "monday"},
            {
                "sparkSqlBatch": {"queryFileUri": "gs://b/q.sql", "queryVariables": {"a": "1", "day": "monday"}},
                "labels": LABELS,
            },
            id="Dataproc: Spark SQL has variables",
        ),
        pytest.param(
            "Batch",
            {"image": "image:1", "request": {"taskGroups": [{"taskCount": "10"}]}},
            {"DAY": "monday"},
            {
                "taskGroups": [
                    {
                        "taskCount": "10",
                        "taskSpec": {
                            "environment": {"variables": {"DAY": "monday", "ORCHESTRATOR_LAUNCH": LAUNCH}},
                            "runnables": [{"container": {"imageUri": "image:1"}}],
                        },
                    }
                ],
                "labels": LABELS,
                "allocationPolicy": {"labels": LABELS},
                "logsPolicy": {"destination": "CLOUD_LOGGING"},
            },
            id="Batch: variables, labels on the machines too, and logs",
        ),
        pytest.param(
            "Batch",
            {
                "request": {
                    "taskGroups": [{"taskSpec": {"runnables": [{"script": {"text": "echo ${DAY}"}}]}}],
                    "logsPolicy": {"destination": "PATH", "logsPath": "/mnt/logs"},
                }
            },
            {},
            {
                "taskGroups": [
                    {
                        "taskSpec": {
                            "runnables": [{"script": {"text": "echo ${DAY}"}}],
                            "environment": {"variables": {"ORCHESTRATOR_LAUNCH": LAUNCH}},
                        }
                    }
                ],
                "labels": LABELS,
                "allocationPolicy": {"labels": LABELS},
                "logsPolicy": {"destination": "PATH", "logsPath": "/mnt/logs"},
            },
            id="Batch: a script as it stands",
        ),
        pytest.param(
            "Workflows",
            {"request": {"callLogLevel": "LOG_ERRORS_ONLY"}},
            {"day": "monday", "to": ["a"]},
            {
                "argument": '{"day":"monday","to":["a"]}',
                "labels": {**LABELS, "orchestrator_key": KEY},
                "callLogLevel": "LOG_ERRORS_ONLY",
            },
            id="Workflows: the argument is JSON in a string, and the key is a label",
        ),
        pytest.param(
            "VertexPipeline",
            {"template_path": TEMPLATE, "pipeline_root": "gs://b/root"},
            {"rate": 0.1, "layers": [1, 2]},
            {
                "displayName": "nightly",
                "templateUri": TEMPLATE,
                "labels": LABELS,
                "runtimeConfig": {
                    "gcsOutputDirectory": "gs://b/root",
                    "parameterValues": {"rate": 0.1, "layers": [1, 2]},
                },
            },
            id="Vertex: parameters keep their types",
        ),
        pytest.param(
            "VertexPipeline",
            {
                "request": {
                    "pipelineSpec": {"schemaVersion": "2.1.0"},
                    "runtimeConfig": {"gcsOutputDirectory": "gs://b/root", "parameterValues": {"a": 1}},
                }
            },
            {"rate": 0.1},
            {
                "displayName": "nightly",
                "labels": LABELS,
                "pipelineSpec": {"schemaVersion": "2.1.0"},
                "runtimeConfig": {"gcsOutputDirectory": "gs://b/root", "parameterValues": {"a": 1, "rate": 0.1}},
            },
            id="Vertex: a specification in the request",
        ),
    ],
)
def test_a_step_is_launched_with_this_body(server, service, target_type, step, parameters, body):
    target_of(server, target_type).launch(launch_of(target_type, step=step, parameters=parameters))
    assert service(target_type).bodies == [body]


def test_keys_and_requests_are_ours_where_a_service_takes_them(server, service):
    asked = {}
    for name in SERVICES:
        target_of(server, name).launch(launch_of(name))
        asked[name.value] = {k: v for k, v in service(name).calls[-1][2].items() if k != "alt"}
    uuid = asked["Batch"]["requestId"]
    assert UUID(uuid).version == 4  # as Batch wants it, and in the 40 characters of Dataproc
    assert asked == {
        "CloudRunJob": {},
        "BigQuery": {},
        "Dataproc": {"batchId": KEY, "requestId": uuid},
        "Batch": {"jobId": KEY, "requestId": uuid},
        "Workflows": {},
        "VertexPipeline": {"pipelineJobId": KEY},
    }


@pytest.mark.parametrize(
    ("target_type", "step", "parameters", "told"),
    [
        pytest.param(
            "CloudRunJob",
            {"request": {"overrides": {"containerOverrides": [{"env": [{"name": "DAY", "value": "sunday"}]}]}}},
            {"DAY": "monday"},
            ["request.overrides.containerOverrides[0].env[0].value"],
            id="a variable that is in both",
        ),
        pytest.param(
            "BigQuery",
            {
                "query": "SELECT 1",
                "request": {"configuration": {"labels": {"orchestrator_dag": "x", "orchestrator_run": "y"}}},
            },
            {},
            ["request.configuration.labels.orchestrator_dag", "request.configuration.labels.orchestrator_run"],
            id="two labels of ours: both are told",
        ),
        pytest.param(
            "Batch",
            {"image": "image:1", "request": {"taskGroups": {}}},
            {},
            ["request.taskGroups"],
            id="an object where a list has to be",
        ),
    ],
)
def test_a_request_that_says_otherwise_is_refused_before_anything_is_called(
    server, service, target_type, step, parameters, told
):
    with pytest.raises(LaunchRefused) as refused:
        target_of(server, target_type).launch(launch_of(target_type, step=step, parameters=parameters))
    assert refused.value.error_type == f"{target_type}.BadParameters"
    assert str(refused.value) == (
        f"Step1: {', '.join(told)}: the step's request says otherwise than its other keys; keep one"
    )
    assert service(target_type).calls == []


def test_the_same_value_in_both_is_no_clash(server, service):
    step = {"image": "image:1", "request": {"labels": {"orchestrator_dag": "sample"}}}
    target_of(server, "Batch").launch(launch_of("Batch", step=step))
    assert service("Batch").bodies[0]["labels"] == LABELS


def test_a_field_that_the_service_does_not_know_is_refused_by_it(server):
    step = {"image": "image:1", "request": {"taskGruops": []}}
    with pytest.raises(LaunchRefused, match="taskGruops") as refused:
        target_of(server, "Batch").launch(launch_of("Batch", step=step))
    assert refused.value.error_type == "Batch.BadParameters"


def typed(parameters):
    launch = launch_of("BigQuery", parameters=parameters)
    body = SERVICES["BigQuery"].body(launch, Where("p", "EU"))
    return body["configuration"]["query"]["queryParameters"]


def scalar(kind, value):
    return {"parameterType": {"type": kind}, "parameterValue": {"value": value}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param("it's", scalar("STRING", "it's"), id="text"),
        pytest.param("", scalar("STRING", ""), id="no text"),
        pytest.param(7, scalar("INT64", "7"), id="a whole number"),
        pytest.param(7.5, scalar("FLOAT64", "7.5"), id="a number"),
        pytest.param(False, scalar("BOOL", "false"), id="a truth is no number"),
        pytest.param(None, scalar("STRING", None), id="null"),
        pytest.param(
            [1, 2.5],
            {
                "parameterType": {"type": "ARRAY", "arrayType": {"type": "FLOAT64"}},
                "parameterValue": {"arrayValues": [{"value": "1"}, {"value": "2.5"}]},
            },
            id="whole numbers among others",
        ),
        pytest.param(
            {"a": 1, "b": ["x"]},
            {
                "parameterType": {
                    "type": "STRUCT",
                    "structTypes": [
                        {"name": "a", "type": {"type": "INT64"}},
                        {"name": "b", "type": {"type": "ARRAY", "arrayType": {"type": "STRING"}}},
                    ],
                },
                "parameterValue": {"structValues": {"a": {"value": "1"}, "b": {"arrayValues": [{"value": "x"}]}}},
            },
            id="an object",
        ),
    ],
)
def test_a_value_has_the_type_of_its_json_in_a_query(value, expected):
    (parameter,) = typed({"x": value})
    assert parameter == {"name": "x", **expected}
    assert document("bigquery.v2", "jobs").problems(parameter, "QueryParameter") == []


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        pytest.param([], "parameters.x: is a list with no value, so that its type cannot be known", id="an empty list"),
        pytest.param([1, "a"], "parameters.x: is a list with values of several types", id="several types"),
        pytest.param([[1]], "parameters.x: is a list with a list or a null in it", id="a list in a list"),
        pytest.param([1, None], "parameters.x: is a list with a list or a null in it", id="a null in a list"),
        pytest.param({"a": [{"b": []}]}, "parameters.x.a[0].b: is a list with no value", id="deep inside"),
    ],
)
def test_a_value_without_a_type_is_refused_and_told_what_to_do(server, value, problem):
    with pytest.raises(LaunchRefused) as refused:
        target_of(server, "BigQuery").launch(launch_of("BigQuery", parameters={"x": value}))
    assert refused.value.error_type == "BigQuery.BadParameters"
    assert str(refused.value).startswith(f"Step1: {problem}")


def test_a_declared_type_makes_an_empty_list_one(server, service):
    declared = {"name": "x", "parameterType": {"type": "ARRAY", "arrayType": {"type": "DATE"}}}
    request = {"configuration": {"query": {"queryParameters": [declared]}}}
    step = {"query": "SELECT 1", "request": request}
    target_of(server, "BigQuery").launch(launch_of("BigQuery", step=step, parameters={"x": []}))
    body = service("BigQuery").bodies[0]
    assert body["configuration"]["query"]["queryParameters"] == [{**declared, "parameterValue": {"arrayValues": []}}]


def condition(state, **more):
    return {"completionTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Completed", "state": state, **more}]}


def done(**status):
    return {"status": {"state": "DONE", **status}}


COMPLETED, FAILED, CANCELLED = OutcomeKind.COMPLETED, OutcomeKind.FAILED, OutcomeKind.CANCELLED


@pytest.mark.parametrize(
    ("target_type", "resource", "kind", "words"),
    [
        ("CloudRunJob", {}, None, ""),
        ("CloudRunJob", {"conditions": [{"type": "Completed", "state": "CONDITION_FAILED"}]}, None, ""),
        ("CloudRunJob", condition("CONDITION_RECONCILING"), None, ""),
        ("CloudRunJob", condition("CONDITION_SUCCEEDED"), COMPLETED, ""),
        ("CloudRunJob", condition("CONDITION_FAILED", message="exit 1"), FAILED, "exit 1"),
        ("CloudRunJob", condition("CONDITION_FAILED", executionReason="CANCELLED"), CANCELLED, ""),
        ("BigQuery", {"status": {"state": "PENDING"}}, None, ""),
        ("BigQuery", {"status": {"state": "RUNNING", "errors": [{"reason": "backendError"}]}}, None, ""),
        ("BigQuery", done(errors=[{"reason": "backendError"}]), COMPLETED, ""),
        ("BigQuery", done(errorResult={"reason": "invalidQuery", "message": "no @x"}), FAILED, "invalidQuery: no @x"),
        ("BigQuery", done(errorResult={"reason": "stopped", "message": "Job was cancelled"}), CANCELLED, ""),
        ("Dataproc", {"state": "PENDING"}, None, ""),
        ("Dataproc", {"state": "CANCELLING"}, None, ""),
        ("Dataproc", {"state": "SUCCEEDED"}, COMPLETED, ""),
        ("Dataproc", {"state": "FAILED", "stateMessage": "no driver"}, FAILED, "no driver"),
        ("Dataproc", {"state": "CANCELLED"}, CANCELLED, ""),
        ("Batch", {"status": {"state": "QUEUED"}}, None, ""),
        ("Batch", {"status": {"state": "DELETION_IN_PROGRESS"}}, None, ""),
        ("Batch", {"status": {"state": "CANCELLATION_IN_PROGRESS"}}, None, ""),
        ("Batch", {"status": {"state": "SUCCEEDED"}}, COMPLETED, ""),
        (
            "Batch",
            {"status": {"state": "FAILED", "statusEvents": [{"description": "a"}, {"description": "exit 1"}, {}]}},
            FAILED,
            "exit 1",
        ),
        ("Batch", {"status": {"state": "FAILED"}}, FAILED, "x: ended as FAILED, and left no error message"),
        ("Batch", {"status": {"state": "CANCELLED"}}, CANCELLED, ""),
        ("Workflows", {"state": "ACTIVE"}, None, ""),
        ("Workflows", {"state": "QUEUED"}, None, ""),
        ("Workflows", {"state": "UNAVAILABLE"}, None, ""),
        ("Workflows", {"state": "SUCCEEDED", "result": "1"}, COMPLETED, ""),
        ("Workflows", {"state": "FAILED", "error": {"payload": "404", "context": "in s"}}, FAILED, "404\nin s"),
        ("Workflows", {"state": "CANCELLED"}, CANCELLED, ""),
        ("VertexPipeline", {"state": "PIPELINE_STATE_PAUSED"}, None, ""),
        ("VertexPipeline", {"state": "PIPELINE_STATE_CANCELLING"}, None, ""),
        ("VertexPipeline", {"state": "PIPELINE_STATE_SUCCEEDED"}, COMPLETED, ""),
        ("VertexPipeline", {"state": "PIPELINE_STATE_FAILED", "error": {"message": "no gpu"}}, FAILED, "no gpu"),
        ("VertexPipeline", {"state": "PIPELINE_STATE_CANCELLED"}, CANCELLED, ""),
    ],
)
def test_what_is_made_of_a_state(monkeypatch, target_type, resource, kind, words):
    service = SERVICES[TargetTypes(target_type)]
    target = JobTarget(service, GoogleApis({}), **PLACE)
    monkeypatch.setattr(target, "_resource", lambda where: resource)
    name = Where("p", "r", "t", id="x").fill(service.name)
    outcome = target.outcome(Execution(name))
    assert (outcome.kind if outcome else None) is kind
    if kind is FAILED:
        assert outcome == Outcome.failed(f"{target_type}.JobFailed", words)


@pytest.mark.parametrize(
    ("target_type", "result", "expected"),
    [
        ("CloudRunJob", None, {"execution": "ID", "job": "nightly", "succeeded_tasks": 1, "log_uri": "URI"}),
        (
            "BigQuery",
            3,
            {
                "job_id": KEY,
                "location": "europe-west1",
                "statement_type": "SELECT",
                "rows": 3,
                "bytes_processed": 1048576,
                "bytes_billed": 10485760,
                "destination": "my-project._anonymous.anon1",
            },
        ),
        (
            "Dataproc",
            None,
            {"batch_id": KEY, "output_uri": f"gs://staging/{KEY}/driveroutput", "milli_dcu_seconds": 36000},
        ),
        ("Batch", None, {"job_id": KEY, "uid": f"{KEY[:20]}-0", "run_duration": "12.5s"}),
        ("Workflows", {"sent": [1]}, {"execution": "ID", "workflow": "nightly", "output": {"sent": [1]}}),
        ("Workflows", None, {"execution": "ID", "workflow": "nightly", "output": None}),
        ("VertexPipeline", None, {"job_id": KEY, "pipeline_root": "gs://bucket/pipelines"}),
    ],
)
def test_a_completed_step_s_result_is_small_and_useful(server, service, target_type, result, expected):
    target = target_of(server, target_type)
    execution = target.launch(launch_of(target_type))
    job_id = execution.execution_id.rpartition("/")[2]
    service(target_type).end(job_id, result=result)
    found = target.outcome(execution).result
    if "log_uri" in found:
        found = {**found, "log_uri": "URI"}
    assert json.loads(json.dumps(found).replace(job_id, expected.get("job_id", job_id))) == {
        key: job_id if value == "ID" else value for key, value in expected.items()
    }


def test_rows_that_a_query_changed_count_before_those_that_it_wrote():
    statistics = {"query": {"numDmlAffectedRows": "0", "queryPlan": [{"recordsWritten": "7"}]}}
    assert SERVICES["BigQuery"].result({"statistics": statistics}, Where("p", "EU", id="j"))["rows"] == 0


# ---- looking for a launch where the service takes no key -----------------------------------------------------


def lists(service):
    return [call for call in service.calls if call[0].endswith(".list")]


@pytest.mark.parametrize("target_type", ["CloudRunJob", "Workflows"])
def test_of_several_executions_of_a_launch_the_first_is_found(server, service, target_type):
    target = target_of(server, target_type)
    first = target.launch(launch_of(target_type))
    for _ in range(3):
        target.launch(launch_of(target_type))
    assert target.find(launch_of(target_type)) == first


@pytest.mark.parametrize("target_type", ["CloudRunJob", "Workflows"])
def test_executions_from_before_the_step_are_not_looked_through(server, service, target_type):
    target, now = target_of(server, target_type), datetime(2026, 11, 20, 12, tzinfo=UTC)
    times = iter(now - timedelta(hours=1) + timedelta(minutes=number) for number in range(100))
    server.now = lambda: next(times)
    for number in range(20):
        target.launch(launch_of(target_type, f"Old{number}"))
    server.now = lambda: now
    ours = launch_of(target_type, started_at=now - timedelta(seconds=5))
    assert target.find(ours) is None
    assert len(lists(service(target_type))) == 1
    assert target.find(launch_of(target_type)) is None  # when it started is not known: all are looked at
    assert len(lists(service(target_type))) == 1 + 10


def test_a_list_that_is_not_newest_first_is_looked_through_to_its_end(server, service, monkeypatch):
    target, now = target_of(server, "CloudRunJob"), datetime(2026, 11, 20, 12, tzinfo=UTC)
    times = iter(now - timedelta(hours=2) + timedelta(minutes=10 * number) for number in range(100))
    server.now = lambda: next(times)
    for number in range(6):
        target.launch(launch_of("CloudRunJob", f"Old{number}"))
    server.now = lambda: now
    ours = launch_of("CloudRunJob", started_at=now - timedelta(seconds=5))
    execution = target.launch(ours)
    jobs_of = service("CloudRunJob").jobs
    turned = dict(reversed(jobs_of.items()))
    monkeypatch.setattr(service("CloudRunJob"), "jobs", turned)  # so the fake lists the oldest first
    assert target.find(ours) == execution


def test_where_there_is_no_end_to_look_through_nobody_can_tell(server, service, monkeypatch):
    monkeypatch.setattr(jobs, "_MAX_PAGES", 2)
    target = target_of(server, "Workflows")
    for number in range(6):
        target.launch(launch_of("Workflows", f"Old{number}"))
    with pytest.raises(LaunchUncertain, match="not among the last 2 pages"):
        target.find(launch_of("Workflows"))


def test_a_workflow_that_is_not_there_was_not_launched(server, service):
    service("Workflows").known = set()
    try:
        assert target_of(server, "Workflows").find(launch_of("Workflows")) is None
        with pytest.raises(LaunchRefused) as refused:
            target_of(server, "Workflows").launch(launch_of("Workflows"))
    finally:
        service("Workflows").known = {"nightly"}
    assert refused.value.error_type == "Workflows.NotFound"


def test_a_launch_whose_answer_names_no_execution_is_uncertain_and_found(server, service, monkeypatch):
    target = target_of(server, "CloudRunJob")
    monkeypatch.setattr(KINDS["CloudRunJob"], "launched", lambda self, job: {"name": "operations/1"})
    with pytest.raises(LaunchUncertain, match="names no execution"):
        target.launch(launch_of("CloudRunJob"))
    assert target.find(launch_of("CloudRunJob")) is not None


@pytest.mark.parametrize("target_type", STEPS)
def test_a_launch_whose_answer_was_cut_off_is_made_again_only_under_a_key_of_ours(target_type):
    with CuttingServer(cuts=9) as cutting:
        name = "CLOUDSDK_API_ENDPOINT_OVERRIDES_" + SERVICES[target_type].api[0].upper()
        target = JobTarget(SERVICES[target_type], GoogleApis({name: cutting.url}), **PLACE)
        with pytest.raises(LaunchUncertain, match="no answer"):
            target.launch(launch_of(target_type))
        assert len(cutting.calls) == (1 if target_type in ("CloudRunJob", "Workflows") else 2)


def test_a_batch_whose_operation_is_not_there_yet_is_cancelled_later(server, service, monkeypatch):
    target = target_of(server, "Dataproc")
    execution = target.launch(launch_of("Dataproc"))
    with monkeypatch.context() as early:
        early.setattr(KINDS["Dataproc"], "_operation", lambda self, job: "")
        with pytest.raises(LaunchUncertain, match="names no operation yet"):
            target.cancel(execution)
    target.cancel(execution)
    assert target.outcome(execution) == Outcome.cancelled()


@pytest.mark.parametrize("place", ["regions", "locations"])
def test_a_batch_is_cancelled_by_its_operation_wherever_that_is_said_to_be(place):
    cancel = SERVICES["Dataproc"].cancel
    where = Where("p", "r", operation=f"projects/p/{place}/r/operations/o")
    assert where.fill(cancel.collection) == f"projects.{place}.operations"
    assert [where.fill(text) for text in cancel.parameters.values()] == [where.operation]


# ---- being asked -----------------------------------------------------------------------------------------


def test_a_quick_tick_does_not_ask_more_often_than_it_may(server, service):
    now_s = [100.0]
    target = target_of(server, "Batch", ask_every_s=5.0, monotonic=lambda: now_s[0])
    execution = target.launch(launch_of("Batch"))
    other = target.launch(launch_of("Batch", "Other"))
    assert target.outcome(execution) is None
    service("Batch").end(KEY)
    asked = len(service("Batch").calls)
    now_s[0] += 4.9
    assert target.outcome(execution) is None
    assert len(service("Batch").calls) == asked
    assert target.outcome(other) is None  # each execution for itself
    now_s[0] += 0.1
    assert target.outcome(execution).kind is COMPLETED


def test_where_nobody_reminds_no_question_is_due(server):
    assert target_of(server, "Batch").first_question_s == 15.0
    assert target_of(server, "Batch", is_reminded=False).first_question_s == 0.0


def test_the_runtime_reads_from_a_target_when_it_is_to_be_asked(server):
    rules = RulesOf({name: target_of(server, name) for name in SERVICES})
    assert {name.value for name in SERVICES if rules[name].first_question_s} == {"Dataproc", "Batch"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "https://us-east1-aiplatform.googleapis.com/"),
        ({"CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": "http://127.0.0.1:1"}, "http://127.0.0.1:1/"),
    ],
)
def test_an_endpoint_of_a_region_is_called_unless_it_is_overridden(environment, expected):
    apis = GoogleApis(environment, credentials=AnonymousCredentials)
    endpoint = SERVICES["VertexPipeline"].endpoint.format(region="us-east1")
    methods = apis.service("aiplatform", "v1", endpoint).projects().locations().pipelineJobs()
    assert methods.get(name="projects/p/locations/us-east1/pipelineJobs/j").uri.startswith(expected)


def test_without_an_override_a_pipeline_is_called_in_its_region():
    called = []

    class Apis:
        def service(self, *of):
            called.append(of)
            raise RuntimeError("enough")

    target = JobTarget(SERVICES["VertexPipeline"], Apis(), **PLACE)
    with pytest.raises(LaunchUncertain):
        target.launch(launch_of("VertexPipeline", step={**STEPS["VertexPipeline"], "region": "us-east1"}))
    assert called == [("aiplatform", "v1", "https://us-east1-aiplatform.googleapis.com/")]


def test_every_call_of_the_table_is_one_of_its_discovery_document():
    for service in SERVICES.values():
        listing = [service.listing.call] if service.listing else []
        for call in (service.launch, service.get, service.cancel, *listing):
            where = Where("p", "r", "t", "k", "u", "i", "projects/p/regions/r/operations/o")
            collection = where.fill(call.collection)
            found = document(".".join(service.api), collection)
            (method,) = [each for each in found.methods if each.id.rpartition(".")[2] == call.method]
            path = set(method.pattern.groupindex)
            assert path <= set(call.parameters), f"{method.id}: {path} are needed"
            assert set(call.parameters) <= path | method.query
            assert call.has_body == (method.request is not None)
