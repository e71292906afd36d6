"""EventFactory: which messages are ours, what they say, and that nothing else ever comes out of it."""

import json
from copy import deepcopy
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import messages
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import DueKind, TargetTypes, TaskStatus
from orchestrator.model.errors import EventError
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.events import (
    BeginEvent,
    CallbackEvent,
    CancelEvent,
    CloudFunctionEvent,
    DataflowEvent,
    Event,
    FunctionEvent,
    HeartbeatEvent,
    JobEvent,
    MessageEvent,
    ObjectEvent,
    PauseEvent,
    RedriveEvent,
    ReminderEvent,
    ResumeEvent,
    StartEvent,
    TickEvent,
)
from orchestrator.model.ids import key_of, launch_id_of, trace_of

PAYLOADS = Path(__file__).parents[1] / "payloads"
RUN = "run_1639322384_5c1e9f0b2a47"
LAUNCH = f"{RUN}/Step1/1"
NONCE = "9f86d081884c7d659a2feaa0c55ad015"
TRACE = trace_of(LAUNCH, NONCE)
JOB = "2022-09-08_08_58_37-4369315246414288431"
AT = datetime(2021, 12, 12, 15, 53, 4, 102000, UTC)


def payload(name):
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def read(data):
    return EventFactory.create_from_event(data, message_id="3607049217402716", publish_time=AT)


def but(name, path, value):
    """A payload with another value at `path` ("a/b/c"); `...` takes it away."""
    data = payload(name)
    *way, last = path.split("/")
    at = data
    for key in way:
        at = at[key]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return data


def gen1(**fields):
    ids = {"execution_id": "grcug3cacqj4", "trace_id": "c4d487678a5270c113bbde284fc35bed"}
    where = {"task_name": "orch-test-1", "target_type": TargetTypes.CLOUD_FUNCTION}
    return CloudFunctionEvent, {**ids, **where, **fields}


def gen2(**fields):
    ids = {"run_id": RUN, "launch_id": LAUNCH, "nonce": NONCE, "trace_id": TRACE}
    where = {"task_name": "orch_test_1", "target_type": TargetTypes.CLOUD_FUNCTION}
    return CloudFunctionEvent, {**ids, **where, **fields}


def dataflow():
    name = key_of(LAUNCH)
    ids = {"execution_id": JOB, "job_name": name, "task_name": name}
    return DataflowEvent, {**ids, "target_type": TargetTypes.DATAFLOW}


def job(target_type, execution_id=None, **fields):
    return JobEvent, {"target_type": target_type, "execution_id": execution_id or key_of(LAUNCH), **fields}


def cloud_run_job():
    ids = {"execution_id": "nightly-abc12", "launch_id": LAUNCH, "run_id": RUN, "task_name": "nightly"}
    return job(TargetTypes.CLOUD_RUN_JOB, **ids)


def workflow():
    execution_id = "7d5c2f7e-8d0b-4b1c-9a0e-0c7a3c5f1b22"
    return job(TargetTypes.WORKFLOWS, execution_id, task_name="send-mails")


def function(**fields):
    ids = {"run_id": RUN, "launch_id": LAUNCH, "nonce": NONCE}
    return FunctionEvent, {**ids, "target_type": TargetTypes.FUNCTION, **fields}


DONE = {"status": TaskStatus.COMPLETED, "verdict": Outcome.completed()}


def failed(message, error_type="Task.Failed"):
    return {"status": TaskStatus.FAILED, "verdict": Outcome.failed(error_type, message)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("cloud_function_gen1", gen1(**DONE), id="the 1st gen line of an HTTP function"),
        pytest.param("cloud_function_gen1_ok", gen1(**DONE), id="an event function's word for 200 is ok"),
        pytest.param("cloud_function_gen1_bare_trace", gen1(**DONE), id="a bare trace counts, in capitals too"),
        pytest.param("cloud_function_gen1_500", gen1(**failed("finished with status 500")), id="an exception is a 500"),
        pytest.param(
            "cloud_function_gen1_crash",
            gen1(**failed("finished with status crash")),
            id="what the platform kills has a word, not a code",
        ),
        pytest.param(
            "cloud_function_gen1_timeout",
            gen1(**failed("finished with status timeout", "Task.Timeout")),
            id="a timeout has its own class, so that on_error can tell it",
        ),
        pytest.param("cloud_run_request_gen2", gen2(**DONE), id="2nd gen: the ids ride in the URL"),
        pytest.param(
            "cloud_run_service",
            gen2(**DONE, task_name="reports"),
            id="a plain service: no goog- label, text for a status, unescaped slashes in the URL",
        ),
        pytest.param("cloud_run_500", gen2(**failed("finished with status 500")), id="a raised exception is a 500"),
        pytest.param(
            "cloud_run_403", gen2(**failed("finished with status 403")), id="a refused call is logged as well"
        ),
        pytest.param(
            "cloud_run_504",
            gen2(**failed("finished with status 504", "Task.Timeout")),
            id="Cloud Run's timeout is a 504",
        ),
        pytest.param("dataflow_worker_pool_stopped", dataflow(), id="the pool stops after failures too"),
        pytest.param("dataflow_workflow_failed", dataflow(), id="a failure's line is only a reason to ask"),
        pytest.param("dataflow_launcher_error", dataflow(), id="a launcher's failure starts no worker pool"),
        pytest.param("dataflow_cancel_requested", dataflow(), id="somebody cancelled it by hand"),
        pytest.param("dataflow_ids_in_entry_labels", dataflow(), id="the entry's labels have the ids as well"),
        pytest.param("dataflow_status_changed_done", dataflow(), id="Eventarc: done"),
        pytest.param("dataflow_status_changed_failed", dataflow(), id="Eventarc: failed, to be asked as well"),
        pytest.param("dataflow_status_changed_cancelled", dataflow(), id="Eventarc: cancelled"),
        pytest.param("cloud_run_job_completed", cloud_run_job(), id="a Cloud Run job shows the variables it ran with"),
        pytest.param("cloud_run_job_failed", cloud_run_job(), id="a failed one too, and is asked as well"),
        pytest.param("bigquery_job_done", job(TargetTypes.BIGQUERY), id="a query that is done, well or not"),
        pytest.param("workflow_succeeded", workflow(), id="a workflow's execution has only the service's id"),
        pytest.param("workflow_failed", workflow(), id="a workflow that failed"),
        pytest.param("vertex_pipeline_succeeded", job(TargetTypes.VERTEX_PIPELINE), id="a pipeline by our id"),
        pytest.param("vertex_pipeline_failed", job(TargetTypes.VERTEX_PIPELINE), id="a pipeline that failed"),
        pytest.param("start_bare", (StartEvent, {}), id="a bare start: dag, input and run_id are optional"),
        pytest.param(
            "start_full",
            (
                StartEvent,
                {"dag": "sample", "input": {"day": "2021-12-12", "limit": 10}, "run_id": "nightly-2021-12-12"},
            ),
            id="a start with all its keys, and one that it does not know",
        ),
        pytest.param(
            "start_by_schedule",
            (StartEvent, {"dag": "sample", "scheduled_for": datetime(2021, 12, 12, 15, 30, tzinfo=UTC)}),
            id="a schedule's start is for the schedule's last tick before the message",
        ),
        pytest.param(
            "object",
            (
                ObjectEvent,
                {
                    "bucket": "landing",
                    "name": "in/2026-01-31.csv",
                    "generation": "1769841000123456",
                    "fields": {
                        "bucket": "landing",
                        "name": "in/2026-01-31.csv",
                        "uri": "gs://landing/in/2026-01-31.csv",
                        "generation": "1769841000123456",
                        "size": 1482,
                        "content_type": "text/csv",
                        "time_created": "2026-01-31T06:30:00.123Z",
                        "metadata": {"shop": "7"},
                    },
                },
            ),
            id="an object is there",
        ),
        pytest.param(
            "message",
            (
                MessageEvent,
                {
                    "topic": "projects/my-project/topics/orders",
                    "fields": {
                        "topic": "projects/my-project/topics/orders",
                        "data": {"id": 7, "lines": [{"price": 12.5}]},
                        "attributes": {"kind": "order"},
                        "message_id": "3607049217402716",
                        "publish_time": "2021-12-12T15:53:04.102000Z",
                    },
                },
            ),
            id="a message of another topic",
        ),
        pytest.param(
            "start_scheduled_for",
            (StartEvent, {"dag": "sample", "scheduled_for": datetime(2021, 12, 11, 15, 30, tzinfo=UTC)}),
            id="a start by hand may say for when it is",
        ),
        pytest.param(
            "function_completed",
            function(
                task_name="add",
                execution_id=f"host-1.{key_of(LAUNCH)}",
                status=TaskStatus.COMPLETED,
                verdict=Outcome.completed({"rows": 3}),
            ),
            id="a Function's result comes with its event",
        ),
        pytest.param(
            "function_failed", function(**failed("ValueError: no rows")), id="a Function that raised says what"
        ),
        pytest.param(
            "reminder_timeout",
            (
                ReminderEvent,
                {
                    "run_id": RUN,
                    "node_name": "Step1",
                    "attempt": 1,
                    "kind": "timeout",
                    "at": datetime(2021, 12, 12, 16, 3, 4, 250000, UTC),
                },
            ),
            id="a reminder names what is due, and when",
        ),
        pytest.param(
            "reminder_question",
            (ReminderEvent, {"run_id": RUN, "node_name": "Each[7]", "attempt": 2}),
            id="without a kind it is an early question; an item of a Map is a node too",
        ),
        pytest.param(
            "heartbeat",
            (
                HeartbeatEvent,
                {"run_id": RUN, "node_name": "Step1", "attempt": 2, "nonce": "0123456789abcdef0123456789abcdef"},
            ),
            id="a heartbeat says whose it is, and proves it",
        ),
        pytest.param("tick", (TickEvent, {}), id="a tick"),
        pytest.param("pause", (PauseEvent, {"run_id": RUN}), id="a pause"),
        pytest.param("begin", (BeginEvent, {"run_id": RUN}), id="a child run that was made"),
        pytest.param(
            "callback_approved",
            (
                CallbackEvent,
                {
                    "target_type": TargetTypes.CALLBACK,
                    "run_id": RUN,
                    "status": TaskStatus.COMPLETED,
                    "launch_id": f"{RUN}/Each[7]/2",
                    "nonce": NONCE,
                    "verdict": Outcome.completed({"by": "anna"}),
                },
            ),
            id="an answer, of an item of a Map",
        ),
        pytest.param(
            "callback_rejected",
            (
                CallbackEvent,
                {
                    "target_type": TargetTypes.CALLBACK,
                    "run_id": RUN,
                    "status": TaskStatus.FAILED,
                    "launch_id": LAUNCH,
                    "nonce": NONCE,
                    "verdict": Outcome.failed("Callback.Rejected", "rejected"),
                },
            ),
            id="a rejection that says nothing more",
        ),
        pytest.param("resume", (ResumeEvent, {"run_id": RUN}), id="a resume"),
        pytest.param(
            "redrive", (RedriveEvent, {"run_id": RUN, "start_from": "Step1", "number": 1}), id="a redrive from a step"
        ),
        pytest.param("cancel", (CancelEvent, {"run_id": RUN, "reason": "wrong day"}), id="a cancel"),
    ],
)
def test_a_message_of_ours_becomes_its_event(name, expected):
    kind, fields = expected
    data = payload(name)
    assert read(data) == kind(event_data=data, message_id="3607049217402716", publish_time=AT, **fields)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cloud_function_gen1_started", id="a start has the same ids as its end"),
        pytest.param("cloud_function_gen1_printed", id="what a function prints stands in the same log"),
        pytest.param("cloud_function_gen1_without_ids", id="an end without ids leads to nobody"),
        pytest.param("cloud_run_without_our_id", id="a request could carry our id: without it is not ours"),
        pytest.param("cloud_run_launch_not_ours", id="another tool's parameter of the same name"),
        pytest.param("cloud_run_stdout_with_http_request", id="a service may log its request before its end"),
        pytest.param("orchestrator_own_request", id="our own requests must not wake us for ever"),
        pytest.param("dataflow_cleaning_up", id="a line on the way to the end"),
        pytest.param("dataflow_worker_log", id="a worker may print our words into its own log"),
        pytest.param("dataflow_status_changed_running", id="Eventarc tells every change"),
        pytest.param("dataflow_status_changed_resource_cleaning_up", id="cleaning up is not final yet"),
        pytest.param("audit_cloud_run_job", id="a Cloud Run job that somebody else launched has no variable of ours"),
        pytest.param("cloud_run_job_called", id="the call that launches a Cloud Run job is no end"),
        pytest.param("audit_bigquery_job", id="a query of somebody else has an id of theirs"),
        pytest.param("bigquery_job_inserted", id="a query that begins"),
        pytest.param("dataproc_batch_ended", id="what is said of a Spark batch may be of its beginning or its end"),
        pytest.param("workflow_active", id="a workflow's execution that begins"),
        pytest.param("vertex_pipeline_running", id="a pipeline that runs"),
        pytest.param("vertex_pipeline_of_somebody_else", id="a pipeline of somebody else has an id of theirs"),
    ],
)
def test_a_message_of_somebody_else_is_none(name):
    assert read(payload(name)) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="nothing in it"),
        pytest.param({"resource": None}, id="no resource"),
        pytest.param({"resource": "start"}, id="a resource that is no object has no type"),
        pytest.param({"resource": [{"type": "start"}]}, id="a list is no resource"),
        pytest.param({"resource": {}}, id="a resource without a type"),
        pytest.param({"resource": {"type": None}}, id="a type that is no text"),
        pytest.param({"resource": {"type": ["start"]}}, id="a type that no table can be asked for"),
        pytest.param({"resource": {"type": "k8s_container"}}, id="somebody else's type"),
        pytest.param({"payload": {"currentState": ["JOB_STATE_DONE"]}}, id="a state that is no text"),
        pytest.param({"payload": {"currentState": "JOB_STATE_DONE"}}, id="a job that nobody can ask for"),
        pytest.param(but("cloud_function_gen1", "textPayload", 200), id="a text that is a number"),
        pytest.param(
            but("cloud_function_gen1", "textPayload", f"Function execution took 1 ms{' ' * 10**6}'x"),
            id="a long line does not keep the regular expression busy",
        ),
        pytest.param(
            but("cloud_function_gen1", "textPayload", "Function execution took 1 ms, finished with status: 'a\nb'"),
            id="a status is one line",
        ),
        pytest.param(but("cloud_run_request_gen2", "httpRequest", "GET /"), id="an httpRequest that is text"),
        pytest.param(but("cloud_run_request_gen2", "httpRequest/requestUrl", 5), id="a URL that is a number"),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/requestUrl", f"https://[/?orchestrator_launch={LAUNCH}"),
            id="a URL that urllib refuses",
        ),
        pytest.param(
            but(
                "cloud_run_request_gen2",
                "httpRequest/requestUrl",
                f"https://a.run.app/?orchestrator_launch={LAUNCH}&orchestrator_launch={LAUNCH}",
            ),
            id="two launches in one URL: nobody can say which",
        ),
        pytest.param(
            but(
                "cloud_run_request_gen2",
                "httpRequest/requestUrl",
                f"https://a.run.app/?orchestrator_launch={LAUNCH}" + "&a=1" * 1000,
            ),
            id="more fields than a URL of ours has",
        ),
        pytest.param(
            but(
                "cloud_run_request_gen2",
                "httpRequest/requestUrl",
                f"https://a.run.app/?orchestrator_launch={RUN}/a%0Ab/1",
            ),
            id="a node with a line break in it",
        ),
        pytest.param(but("cloud_run_request_gen2", "logName", 7), id="a log name that is a number"),
        pytest.param(but("cloud_run_request_gen2", "logName", ...), id="without its log's name it may be a print"),
        pytest.param(but("dataflow_worker_pool_stopped", "textPayload", None), id="a Dataflow line without text"),
        pytest.param(but("dataflow_worker_pool_stopped", "logName", {}), id="a log name that is an object"),
        pytest.param(
            but("cloud_run_job_completed", "logName", "projects/p/logs/run.googleapis.com%2Fstdout"),
            id="a job may print what looks like its own end",
        ),
        pytest.param(
            but("cloud_run_job_completed", "protoPayload/response/spec/template/spec/containers", {"env": []}),
            id="containers that are no list",
        ),
        pytest.param(
            but(
                "cloud_run_job_completed",
                "protoPayload/response/spec/template/spec/containers",
                [7, {"env": [None, {"name": "ORCHESTRATOR_LAUNCH", "value": "x/y"}]}],
            ),
            id="a variable of our name that holds no launch",
        ),
        pytest.param(
            but("bigquery_job_done", "protoPayload/metadata/jobChange/after", ["DONE"]), id="a state that is a list"
        ),
        pytest.param(but("bigquery_job_done", "protoPayload/metadata/jobChange/job", None), id="a job without a name"),
        pytest.param(but("workflow_succeeded", "jsonPayload/state", {}), id="a workflow's state that is no text"),
        pytest.param(but("workflow_succeeded", "labels", ...), id="a workflow's end without an execution"),
        pytest.param(but("workflow_succeeded", "logName", "projects/p/logs/x"), id="a workflow may log what it likes"),
        pytest.param(but("vertex_pipeline_failed", "resource/labels", ...), id="a pipeline whose id is not ours"),
        pytest.param(
            {"resource": {"type": "dataflow_step", "labels": []}, "textPayload": "Worker pool stopped."},
            id="a Dataflow line that names no job",
        ),
    ],
)
def test_odd_json_is_none(data):
    assert read(data) is None


@pytest.mark.parametrize(
    ("data", "field", "expected"),
    [
        pytest.param(
            but("cloud_function_gen1", "labels", ["execution_id"]), "execution_id", None, id="no labels to look at"
        ),
        pytest.param(
            but("cloud_function_gen1", "labels/execution_id", "a\nb"),
            "execution_id",
            None,
            id="an execution id with a line break is none",
        ),
        pytest.param(but("cloud_function_gen1", "trace", "0af7"), "trace_id", None, id="half a trace is none"),
        pytest.param(but("cloud_function_gen1", "trace", 12), "trace_id", None, id="a number is no trace"),
        pytest.param(
            but("cloud_function_gen1", "resource/labels", ...), "task_name", None, id="the name may be missing"
        ),
        pytest.param(
            but("cloud_function_gen1", "textPayload", "Function execution took 9 ms finished with status:  ok \n"),
            "status",
            TaskStatus.COMPLETED,
            id="spacing, comma and quotes vary over the years",
        ),
        pytest.param(
            but("cloud_function_gen1", "textPayload", "Function execution took 9 ms, finished with status code: 2000"),
            "status",
            TaskStatus.FAILED,
            id="2000 is no 2xx",
        ),
        pytest.param(
            but("cloud_function_gen1", "textPayload", "Function execution took 9 ms, finished with status code: ٢٠٠"),
            "status",
            TaskStatus.FAILED,
            id="digits of another script are no 200",
        ),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/status", ...),
            "verdict",
            None,
            id="a request log without a status does not tell",
        ),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/status", 0), "status", TaskStatus.NEW, id="nor does status 0"
        ),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/status", 302),
            "status",
            TaskStatus.FAILED,
            id="sent elsewhere is not done",
        ),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/requestUrl", f"https://a/?orchestrator_launch={LAUNCH}"),
            "nonce",
            None,
            id="without a nonce it is an event, and nobody will believe it",
        ),
        pytest.param(
            but(
                "cloud_run_request_gen2",
                "httpRequest/requestUrl",
                f"https://a/?orchestrator_launch={LAUNCH}&orchestrator_nonce=%C3%A9",
            ),
            "nonce",
            None,
            id="what cannot be compared in constant time is no nonce",
        ),
        pytest.param(
            but(
                "cloud_run_request_gen2", "httpRequest/requestUrl", f"/?orchestrator_launch={quote(RUN)}/Each%5B7%5D/2"
            ),
            "launch_id",
            f"{RUN}/Each[7]/2",
            id="an item of a Map in a URL",
        ),
        pytest.param(
            but("dataflow_worker_pool_stopped", "logName", ...), "execution_id", JOB, id="any field may be missing"
        ),
        pytest.param(
            but("function_failed", "error", ...),
            "verdict",
            Outcome.failed("Task.Failed", "the function did not say why"),
            id="a Function need not say why",
        ),
        pytest.param(but("start_full", "input", None), "input", {}, id="null is no input"),
        pytest.param(but("start_full", "run_id", None), "run_id", None, id="null chooses no run_id"),
        pytest.param(
            but("reminder_timeout", "at", "2021-12-12T18:03:04.250000999+02:00"),
            "at",
            datetime(2021, 12, 12, 16, 3, 4, 250001, UTC),
            id="times are UTC, and Google's have nanoseconds",
        ),
        pytest.param(but("cancel", "reason", ...), "reason", "", id="a cancel need not say why"),
        pytest.param(MappingProxyType(payload("tick")), "task_name", None, id="any Mapping will do"),
    ],
)
def test_what_is_missing_or_odd_in_an_event(data, field, expected):
    event = read(data)
    assert event is not None
    assert getattr(event, field) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param([], "event: is an array; it has to be a JSON object", id="a list is no event"),
        pytest.param(None, "event: is missing; it has to be a JSON object", id="nor is null"),
        pytest.param("{}", "event: is '{}'; it has to be a JSON object", id="nor is text"),
        pytest.param(b"{}", "event: is a Python bytes; it has to be a JSON object", id="nor are bytes"),
        pytest.param(
            but("start_full", "run_id", "../x"),
            "start.run_id: is '../x'; allowed are 1 to 128 letters, digits, _ and -, the first a letter or digit",
            id="a run_id is part of an object's name",
        ),
        pytest.param(but("start_full", "run_id", "a" * 129), "start.run_id: is 'aaa", id="a run_id has a length"),
        pytest.param(but("start_full", "run_id", "abc\n"), "start.run_id: is 'abc\\n'", id="the whole run_id counts"),
        pytest.param(but("start_full", "run_id", 7), "start.run_id: is 7;", id="a number is no run_id"),
        pytest.param(but("start_full", "dag", ""), "start.dag: is ''; it has to be printable", id="a dag has a name"),
        pytest.param(but("start_full", "dag", ["a"]), "start.dag: is an array;", id="one start, one dag"),
        pytest.param(but("start_full", "input", [1]), "start.input: is an array; it has", id="input has names"),
        pytest.param(
            but("start_full", "input", "x" * 10**6), "x'… (1000000 characters)", id="a message stays readable"
        ),
        pytest.param(
            but("start_by_schedule", "schedule", "30 25 * * *"),
            'start.schedule: "25" is not an hour; allowed: 0 to 23',
            id="a schedule is a cron expression",
        ),
        pytest.param(but("start_by_schedule", "schedule", 5), "start.schedule: is 5; it has to be", id="text, that is"),
        pytest.param(
            but("start_by_schedule", "schedule", "*" * 501), "start.schedule: is '***", id="a schedule has a length"
        ),
        pytest.param(
            but("start_by_schedule", "time_zone", "Europe/Atlantis"),
            'start.schedule: "Europe/Atlantis" is not a time zone',
            id="a zone is one that there is",
        ),
        pytest.param(but("start_by_schedule", "time_zone", 1), "start.time_zone: is 1; it has", id="a zone has a name"),
        pytest.param(
            but("start_by_schedule", "schedule", ...),
            "start.time_zone: stands without a schedule",
            id="a zone of what?",
        ),
        pytest.param(
            but("start_by_schedule", "scheduled_for", "2021-12-11T16:30:00Z"),
            "start.scheduled_for: stands beside a schedule; keep one of the two",
            id="one answer to for when",
        ),
        pytest.param(
            but("start_scheduled_for", "scheduled_for", "2021-12-11T16:30:00"),
            "start.scheduled_for: is '2021-12-11T16:30:00'; it has to be an RFC 3339 time with its zone",
            id="a time without its zone is none",
        ),
        pytest.param(
            but("start_scheduled_for", "scheduled_for", "9999-12-31T23:59:59Z"),
            "start.scheduled_for: is '9999-12-31T23:59:59Z'; allowed are the years 1901 to 8999",
            id="start-for-the-end-of-time",
        ),
        pytest.param(
            but("start_scheduled_for", "scheduled_for", "2021-12-11T16:30:00.5Z"),
            "start.scheduled_for: is '2021-12-11T16:30:00.5Z'; it has to be of whole seconds",
            id="no schedule is due between two seconds",
        ),
        pytest.param(but("start_full", "input", 10**5000), "is a very large number", id="no digits are printed"),
        pytest.param(but("function_failed", "launch_id", None), "function.launch_id: is missing", id="no launch"),
        pytest.param(
            but("function_failed", "launch_id", f"{RUN}/Step1/0"),
            f"function.launch_id: is '{RUN}/Step1/0'; it has to be run_id/node/attempt",
            id="attempts count from 1",
        ),
        pytest.param(
            but("function_failed", "launch_id", f"{RUN}/\ud800/1"), "function.launch_id", id="half a character"
        ),
        pytest.param(but("function_failed", "nonce", "é"), "function.nonce: is 'é'", id="a nonce is ASCII"),
        pytest.param(but("function_failed", "nonce", ...), "function.nonce: is missing", id="a nonce is required"),
        pytest.param(
            but("function_failed", "execution_id", ""), "function.execution_id: is ''", id="an empty id is none"
        ),
        pytest.param(
            but("function_failed", "status", "Running"),
            "function.status: is 'Running'; allowed are Completed and Failed",
            id="only an end is told",
        ),
        pytest.param(but("function_failed", "status", ["Failed"]), "function.status: is an array", id="one status"),
        pytest.param(
            but("function_failed", "status", "Completed"),
            "function.error: is given with status Completed; only a Failed one has it",
            id="a failure is not lost in a contradiction",
        ),
        pytest.param(
            but("function_completed", "status", "Failed"),
            "function.result: is given with status Failed; only a Completed one has it",
            id="nor is a result",
        ),
        pytest.param(but("function_failed", "error", "no"), "function.error: is 'no'; it has", id="an error has parts"),
        pytest.param(
            but("function_failed", "error/error_type", None), "function.error.error_type: is missing", id="a class"
        ),
        pytest.param(but("function_failed", "error/message", 5), "function.error.message: is 5;", id="a sentence"),
        pytest.param(but("reminder_timeout", "run_id", None), "reminder.run_id: is missing", id="whose reminder?"),
        pytest.param(but("reminder_timeout", "node_name", "a b"), "reminder.node_name: is 'a b'", id="which node?"),
        pytest.param(
            but("reminder_timeout", "attempt", 0), "reminder.attempt: is 0; allowed are 1 to", id="which attempt?"
        ),
        pytest.param(but("reminder_timeout", "attempt", True), "reminder.attempt: is true;", id="true is not 1"),
        pytest.param(
            but("reminder_timeout", "kind", "tiemout"),
            f"reminder.kind: is 'tiemout'; allowed are {', '.join(sorted(DueKind))}",
            id="what is due?",
        ),
        pytest.param(
            but("reminder_timeout", "at", ...),
            "reminder.at: is missing; a reminder with a kind names its time",
            id="a reminder is proof of what is due, so it says when that was",
        ),
        pytest.param(
            but("reminder_timeout", "at", "2021-12-12T16:03:04"), "reminder.at: is '2021-12-12T16:03:04'", id="no zone"
        ),
        pytest.param(
            but("reminder_timeout", "at", "0001-01-01T00:00:00+10:00"), "reminder.at", id="before all time in UTC"
        ),
        pytest.param(but("reminder_timeout", "at", {"a": []}), "reminder.at: is an object", id="a time is text"),
        pytest.param(but("begin", "run_id", ...), "begin.run_id: is missing", id="begin what?"),
        pytest.param(but("callback_approved", "token", 7), "callback.token: is 7", id="a token is text"),
        pytest.param(
            but("heartbeat", "launch_id", "x"), "heartbeat.launch_id: is 'x'; it has to be run_id", id="whose?"
        ),
        pytest.param(but("heartbeat", "nonce", ...), "heartbeat.nonce: is missing", id="a heartbeat without proof"),
        pytest.param(but("pause", "run_id", ...), "pause.run_id: is missing", id="pause what?"),
        pytest.param(but("resume", "run_id", 7), "resume.run_id: is", id="resume what?"),
        pytest.param(but("redrive", "run_id", None), "redrive.run_id: is", id="redrive what?"),
        pytest.param(but("redrive", "from", "a/b"), "redrive.from: is", id="redrive from where?"),
        pytest.param(but("redrive", "number", 0), "redrive.number: is", id="redrive which?"),
        pytest.param(but("redrive", "number", True), "redrive.number: is", id="a redrive that is true"),
        pytest.param(but("cancel", "run_id", ...), "cancel.run_id: is missing", id="cancel what?"),
        pytest.param(but("cancel", "reason", {}), "cancel.reason: is an object; it has to be text", id="why?"),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/status", "done"),
            "httpRequest.status: is 'done'; allowed are 100 to 599",
            id="a request of ours whose status nobody understands",
        ),
        pytest.param(
            but("cloud_run_request_gen2", "httpRequest/status", True), "httpRequest.status: is true", id="true is not 1"
        ),
    ],
)
def test_a_malformed_message_of_ours_says_where_and_what_is_allowed(data, message):
    with pytest.raises(EventError) as caught:
        read(data)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


def nested(levels):
    value = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("levels", "is_taken"),
    [
        pytest.param(messages.MAX_DEPTH, True, id="as deep as allowed"),
        pytest.param(messages.MAX_DEPTH + 1, False, id="one level more"),
        pytest.param(100_000, False, id="deeper than Python can follow"),
    ],
)
def test_an_input_that_could_not_be_saved_is_refused(levels, is_taken):
    data = {"resource": {"type": "start"}, "input": nested(levels)}
    if is_taken:
        assert read(data).input == data["input"]
    else:
        with pytest.raises(EventError, match=r"start\.input: is nested too deeply; allowed are 100 levels"):
            read(data)


@pytest.mark.parametrize("publish_time", [None, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)])
def test_a_schedule_needs_a_time_at_which_its_message_was_published(publish_time):
    with pytest.raises(EventError, match=r"start\.schedule: "):
        EventFactory.create_from_event(payload("start_by_schedule"), message_id="1", publish_time=publish_time)


def test_a_message_that_seems_to_come_before_its_tick_is_not_for_the_tick_before():
    """The scheduler and the topic have clocks of their own."""
    early = datetime(2021, 12, 12, 15, 29, 58, tzinfo=UTC)
    event = EventFactory.create_from_event(payload("start_by_schedule"), message_id="1", publish_time=early)
    assert event.scheduled_for == datetime(2021, 12, 12, 15, 30, tzinfo=UTC)


def test_an_event_need_not_come_from_a_topic():
    event = EventFactory.create_from_event({"resource": {"type": "tick"}})
    assert event == TickEvent(event_data={"resource": {"type": "tick"}})
    assert event.status is TaskStatus.NEW


# ---- properties ---------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *("resource", "type", "labels", "payload", "id", "name", "currentState", "textPayload", "logName"),
        *("httpRequest", "requestUrl", "status", "trace", "launch_id", "nonce", "execution_id", "result"),
        *("error", "error_type", "message", "run_id", "node_name", "attempt", "kind", "at", "reason", "dag"),
        *("bucket", "generation", "topic", "attributes", "data", "metadata"),
        *("input", "function_name", "job_id", "job_name", "protoPayload", "jsonPayload", "state"),
    ]
)
TYPES = st.sampled_from(
    [
        *(messages.START, messages.FUNCTION, messages.REMINDER, messages.TICK, messages.CANCEL),
        *(messages.OBJECT, messages.MESSAGE),
        *("cloud_function", "cloud_run_revision", "dataflow_step", "cloud_run_job", "bigquery_project"),
        *("workflows.googleapis.com/Workflow", "aiplatform.googleapis.com/PipelineJob"),
    ]
)
WORDS = st.sampled_from(
    [
        *(LAUNCH, RUN, NONCE, "Completed", "Failed", "JOB_STATE_DONE", "Worker pool stopped.", "timeout"),
        "projects/p/logs/run.googleapis.com%2Frequests",
        f"https://a/?{messages.launch_query(LAUNCH, NONCE)}",
        "Function execution took 1 ms, finished with status: 'ok'",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=12,
)
MESSAGES = st.fixed_dictionaries(
    {"resource": st.fixed_dictionaries({"type": TYPES}, optional={"labels": JSON})}
).flatmap(lambda head: st.dictionaries(KEYS, JSON, max_size=6).map(lambda rest: {**rest, **head}))
REAL = [json.loads(path.read_text()) for path in sorted(PAYLOADS.glob("*.json"))]


def answers(data):
    """Call the factory: an Event, None or an EventError, else this raises."""
    try:
        event = read(data)
    except EventError:
        return
    assert event is None or isinstance(event, Event)
    if event is not None:
        assert event.event_data is data


@settings(max_examples=300, deadline=None)
@given(JSON | MESSAGES)
def test_any_json_is_an_event_or_none_or_an_event_error(data):
    answers(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(REAL), st.data())
def test_a_real_message_with_anything_changed_is_one_too(real, data):
    changed = deepcopy(real)
    at = changed
    while True:
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else range(len(at))))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.integers(0, 2)) == 0:
            break
        at = inner
    if isinstance(at, dict) and data.draw(st.booleans()):
        del at[key]
    else:
        at[key] = data.draw(JSON | WORDS.map(lambda word: word + "\ud800"))
    answers(changed)


RUN_IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", fullmatch=True)
NODES = st.from_regex(r"[A-Za-z0-9_-]{1,64}(\[[0-9]{1,3}\])?", fullmatch=True)
ATTEMPTS = st.integers(1, 999_999_999)
NAMES = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=64)
NONCES = st.from_regex(r"[0-9a-f]{32}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
TIMES = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=ZONES)


def delivered(message):
    """A message as it comes out of a topic."""
    return msgspec.json.decode(msgspec.json.encode(message))


def round_trip(message, event_type, /, **fields):
    data = delivered(message)
    assert read(data) == event_type(event_data=data, message_id="3607049217402716", publish_time=AT, **fields)


@settings(max_examples=50, deadline=None)
@given(st.none() | NAMES, st.none() | st.dictionaries(st.text(), VALUES, max_size=3), st.none() | RUN_IDS)
def test_a_start_is_read_as_it_was_written(dag, run_input, run_id):
    message = messages.start_message(dag, run_input, run_id)
    round_trip(message, StartEvent, dag=dag, input=run_input or {}, run_id=run_id)


@settings(max_examples=50, deadline=None)
@given(RUN_IDS, NODES, ATTEMPTS, NONCES, st.none() | NAMES, st.none() | NAMES, VALUES)
def test_a_functions_end_is_read_as_it_was_written(run_id, node, attempt, nonce, execution_id, name, value):
    launch_id = launch_id_of(run_id, node, attempt)
    for outcome, status in (
        (Outcome.completed(value), TaskStatus.COMPLETED),
        (Outcome.failed("Task.Failed", str(value)), TaskStatus.FAILED),
    ):
        round_trip(
            messages.function_message(launch_id, nonce, outcome, execution_id=execution_id, task_name=name),
            FunctionEvent,
            task_name=name,
            target_type=TargetTypes.FUNCTION,
            execution_id=execution_id,
            run_id=run_id,
            status=status,
            launch_id=launch_id,
            nonce=nonce,
            verdict=outcome,
        )


@settings(max_examples=50, deadline=None)
@given(RUN_IDS, NODES, ATTEMPTS, st.sampled_from(DueKind), TIMES)
def test_a_reminder_is_read_as_it_was_written(run_id, node_name, attempt, kind, at):
    ids = {"run_id": run_id, "node_name": node_name, "attempt": attempt}
    round_trip(messages.reminder_message(**ids, kind=kind, at=at), ReminderEvent, **ids, kind=kind, at=at)
    round_trip(messages.reminder_message(**ids), ReminderEvent, **ids)


@settings(max_examples=50, deadline=None)
@given(RUN_IDS, st.text())
def test_a_cancel_is_read_as_it_was_written(run_id, reason):
    round_trip(messages.cancel_message(run_id, reason), CancelEvent, run_id=run_id, reason=reason)


def test_a_tick_is_read_as_it_was_written():
    round_trip(messages.tick_message(), TickEvent)


@settings(max_examples=50, deadline=None)
@given(RUN_IDS, NODES, ATTEMPTS, NONCES)
def test_what_a_url_carries_is_found_in_the_request_log(run_id, node_name, attempt, nonce):
    launch_id = launch_id_of(run_id, node_name, attempt)
    url = f"https://reports-3k5vq7zs2a-ew.a.run.app/daily?{messages.launch_query(launch_id, nonce)}"
    event = read(but("cloud_run_request_gen2", "httpRequest/requestUrl", url))
    assert (event.run_id, event.launch_id, event.nonce) == (run_id, launch_id, nonce)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Outcome.cancelled(), id="a Function cannot be stopped"),
        pytest.param(Outcome.lost("host gone"), id="nobody is left to say that it is lost"),
    ],
)
def test_a_functions_message_says_completed_or_failed_only(outcome):
    with pytest.raises(ValueError, match="it says Completed or Failed"):
        messages.function_message(LAUNCH, NONCE, outcome)


def test_a_reminder_without_a_time_zone_is_not_written():
    with pytest.raises(ValueError, match="no time zone"):
        messages.reminder_message(RUN, "Step1", 1, "timeout", datetime(2021, 12, 12))
