"""Dataflow: the bodies of its requests, what it makes of the service's answers, and of each state of a job."""

import threading

import pytest

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.services.google_api import GoogleApis
from orchestrator.targets.dataflow import Dataflow
from tests.support.dataflow_server import DataflowServer

FLEX, CLASSIC = "gs://bucket/flex.json", "gs://bucket/classic"
NONCE = "9f86d081884c7d659a2feaa0c55ad015"
HOME = {"project": "my-project", "region": "europe-west1"}


@pytest.fixture(scope="module")
def shared():
    def run(job):
        job.stop.wait(60)

    with DataflowServer({FLEX: run, CLASSIC: run}) as server:
        yield server


@pytest.fixture
def server(shared):
    """The server, as if it were new."""
    yield shared
    for job in shared.jobs.values():
        shared.end(job.id, "JOB_STATE_CANCELLED")
    shared.jobs.clear()
    shared.launches.clear()
    shared.calls.clear()
    shared._faults.clear()
    shared.duplicates = "existing"


@pytest.fixture(scope="module")
def apis(shared):
    return GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": shared.url})


@pytest.fixture
def target(apis, server):
    return Dataflow(apis, **HOME)


def launch_of(step=None, parameters=None, *, node="Count words", attempt=1, run_id="run_1639322384_5c1e9f0b2a47"):
    step = {"container_gcs_path": FLEX} if step is None else step
    return Launch(
        node.replace(" ", "-"), "Dataflow", "wordcount", parameters or {}, step, "Sample.dag", run_id, attempt, NONCE
    )


LABELS = {
    "orchestrator_dag": "sample-dag",
    "orchestrator_run": "run_1639322384_5c1e9f0b2a47",
    "orchestrator_node": "count-words",
    "orchestrator_attempt": "1",
}
PARAMETERS = {"input": "gs://b/in", "top": 20, "share": 0.5, "all": True, "none": None, "words": ["a", {"b": 1}]}
AS_TEXT = {
    "input": "gs://b/in",
    "top": "20",
    "share": "0.5",
    "all": "true",
    "none": "null",
    "words": '["a",{"b":1}]',
}


def test_a_flex_template_is_launched_with_this_body(target, server):
    launch = launch_of(parameters=PARAMETERS)
    target.launch(launch)
    assert server.launches == [
        {
            "kind": "flex",
            **HOME,
            "gcs_path": FLEX,
            "body": {
                "launchParameter": {
                    "jobName": launch.key,
                    "containerSpecGcsPath": FLEX,
                    "parameters": AS_TEXT,
                    "environment": {"additionalUserLabels": LABELS},
                }
            },
        }
    ]


def test_a_classic_template_is_launched_with_this_body(target, server):
    launch = launch_of({"template_path": CLASSIC}, PARAMETERS)
    target.launch(launch)
    assert server.launches == [
        {
            "kind": "classic",
            **HOME,
            "gcs_path": CLASSIC,
            "body": {
                "jobName": launch.key,
                "parameters": AS_TEXT,
                "environment": {"additionalUserLabels": LABELS},
            },
        }
    ]


@pytest.mark.parametrize(
    ("step", "staging"),
    [
        pytest.param({"container_gcs_path": FLEX}, {"stagingLocation": "gs://b/st"}, id="flex"),
        pytest.param({"template_path": CLASSIC}, {}, id="classic templates know no staging location"),
    ],
)
def test_the_environment_is_what_the_settings_say(apis, server, step, staging):
    target = Dataflow(
        apis,
        **HOME,
        service_account="df@my-project.iam.gserviceaccount.com",
        temp_location="gs://b/tmp",
        staging_location="gs://b/st",
        environment={"maxWorkers": 3, "subnetwork": "regions/r/subnetworks/s"},
    )
    target.launch(launch_of(step))
    body = server.launches[0]["body"]
    assert body.get("launchParameter", body)["environment"] == {
        "serviceAccountEmail": "df@my-project.iam.gserviceaccount.com",
        "tempLocation": "gs://b/tmp",
        **staging,
        "maxWorkers": 3,
        "subnetwork": "regions/r/subnetworks/s",
        "additionalUserLabels": LABELS,
    }


def test_labels_keep_to_their_alphabet_and_length(target, server):
    target.launch(launch_of(node="A" * 64, run_id="R" * 128))
    labels = server.launches[0]["body"]["launchParameter"]["environment"]["additionalUserLabels"]
    assert (labels["orchestrator_node"], labels["orchestrator_run"]) == ("a" * 63, "r" * 63)


def test_a_step_without_a_template_is_refused_and_told_both_keys(target, server):
    with pytest.raises(LaunchRefused) as refused:
        target.launch(launch_of({}))
    assert refused.value.error_type == "Dataflow.NoTemplate"
    assert "container_gcs_path" in str(refused.value)
    assert "template_path" in str(refused.value)
    assert server.calls == []


def test_an_execution_is_the_plain_job_id_at_home_and_the_whole_name_elsewhere(target, server):
    at_home = target.launch(launch_of())
    step = {"container_gcs_path": FLEX, "region": "us-east1", "project_id": "other"}
    away = target.launch(launch_of(step))
    here, there = server.jobs.values()
    assert at_home.execution_id == here.id
    assert away.execution_id == f"projects/other/locations/us-east1/jobs/{there.id}"
    assert away.response["job"]["id"] == there.id
    server.end(there.id, "JOB_STATE_DONE")
    # the run document keeps the id alone
    assert target.outcome(Execution(away.execution_id)) == Outcome.completed(
        {"job_id": there.id, "job_name": there.name}
    )
    assert target.outcome(Execution(at_home.execution_id)) is None
    target.cancel(Execution(away.execution_id))


@pytest.mark.parametrize("duplicates", ["existing", "409"])
@pytest.mark.parametrize("step", [{"container_gcs_path": FLEX}, {"template_path": CLASSIC}], ids=["flex", "classic"])
def test_launched_twice_is_one_job(target, server, step, duplicates):
    server.duplicates = duplicates
    first = target.launch(launch_of(step))
    assert target.launch(launch_of(step)) == first
    assert len(server.jobs) == 1


@pytest.mark.parametrize("duplicates", ["existing", "409"])
def test_an_uncertain_launch_that_got_through_starts_nothing_new_when_launched_again(target, server, duplicates):
    server.duplicates = duplicates
    server.fail_next("launch", 503, after_applying=True)
    with pytest.raises(LaunchUncertain):
        target.launch(launch_of())
    execution = target.launch(launch_of())
    assert [execution.execution_id] == list(server.jobs)
    assert target.find(launch_of()) == execution


def test_an_uncertain_launch_that_did_not_get_through_is_launched_then(target, server):
    server.fail_next("launch", 503)
    with pytest.raises(LaunchUncertain):
        target.launch(launch_of())
    assert target.find(launch_of()) is None
    assert [target.launch(launch_of()).execution_id] == list(server.jobs)


@pytest.mark.parametrize(
    ("status", "error", "error_type"),
    [
        pytest.param(400, LaunchRefused, "Dataflow.BadParameters", id="400: what was asked for is wrong"),
        pytest.param(403, LaunchRefused, "Dataflow.NotAllowed", id="403: no permission"),
        pytest.param(404, LaunchRefused, "Dataflow.NotFound", id="404: no such template"),
        pytest.param(412, LaunchRefused, "Launch.Refused", id="another 4xx"),
        pytest.param(409, LaunchUncertain, None, id="409: the name is taken, and by nobody that we see"),
        pytest.param(429, LaunchUncertain, None, id="429: not now"),
        pytest.param(500, LaunchUncertain, None, id="500: who knows"),
        pytest.param(503, LaunchUncertain, None, id="503: who knows"),
    ],
)
def test_what_a_launch_makes_of_an_answer(target, server, status, error, error_type):
    server.fail_next("launch", status)
    with pytest.raises(error) as raised:
        target.launch(launch_of())
    assert getattr(raised.value, "error_type", None) == error_type
    assert "as the test asked for" in str(raised.value)  # the service's own words


def test_no_answer_at_all_is_uncertain():
    apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": "http://127.0.0.1:1"}, timeout_s=1)
    target = Dataflow(apis, **HOME)
    for ask in (
        lambda: target.launch(launch_of()),
        lambda: target.find(launch_of()),
        lambda: target.outcome(Execution("j")),
        lambda: target.cancel(Execution("j")),
    ):
        with pytest.raises(LaunchUncertain):
            ask()


def test_find_sees_running_and_ended_jobs_the_newest_first(target, server):
    first = target.launch(launch_of())
    assert target.find(launch_of()) == first
    server.end(first.execution_id, "JOB_STATE_DONE")
    assert target.find(launch_of()) == first
    later = [target.launch(launch_of()) for _ in range(4) if not server.end(target.find(launch_of()).execution_id, "X")]
    assert target.find(launch_of()) == later[-1]  # on a later page than the first
    assert target.find(launch_of(attempt=2)) is None


def test_find_looks_where_the_step_runs(target, server):
    step = {"container_gcs_path": FLEX, "region": "us-east1"}
    execution = target.launch(launch_of(step))
    assert target.find(launch_of(step)) == execution
    assert target.find(launch_of({})) is None


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        pytest.param("JOB_STATE_DONE", OutcomeKind.COMPLETED, id="done"),
        pytest.param("JOB_STATE_FAILED", OutcomeKind.FAILED, id="failed"),
        pytest.param("JOB_STATE_CANCELLED", OutcomeKind.CANCELLED, id="cancelled"),
        pytest.param("JOB_STATE_DRAINED", OutcomeKind.CANCELLED, id="drained: a person's choice"),
        pytest.param("JOB_STATE_UPDATED", None, id="updated, and its replacement is not told yet"),
        *(
            pytest.param(f"JOB_STATE_{word}", None, id=f"{word.lower()}: not final")
            for word in (
                *("RUNNING", "PENDING", "QUEUED", "STOPPED", "DRAINING", "CANCELLING", "PAUSING", "PAUSED", "UNKNOWN"),
                "RESOURCE_CLEANING_UP",
            )
        ),
        pytest.param("JOB_STATE_NEW_IN_2030", None, id="one that is not known yet"),
        pytest.param(None, None, id="none: get follows launch closely"),
    ],
)
def test_what_each_state_of_a_job_says(target, server, state, kind):
    execution = target.launch(launch_of())
    job = server.jobs[execution.execution_id]
    job.state = state
    outcome = target.outcome(execution)
    assert (outcome and outcome.kind) == kind
    if kind is OutcomeKind.COMPLETED:
        assert outcome.result == {"job_id": job.id, "job_name": job.name}
    if state == "JOB_STATE_FAILED":
        assert outcome.error.error_type == "Dataflow.JobFailed"
        assert job.id in outcome.error.message


def test_an_updated_job_is_its_replacement(target, server):
    execution = target.launch(launch_of())
    second = server.update(execution.execution_id)
    third = server.update(second.id)
    assert target.outcome(execution) is None
    assert target.find(launch_of()).execution_id == third.id
    server.end(third.id, "JOB_STATE_DONE")
    assert target.outcome(execution) == Outcome.completed({"job_id": third.id, "job_name": launch_of().key})


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param(
            [
                ("JOB_MESSAGE_ERROR", "Workflow failed. Causes: S01 failed."),
                ("JOB_MESSAGE_ERROR", "Traceback of a worker"),
                ("JOB_MESSAGE_BASIC", "Worker pool stopped."),
            ],
            "Workflow failed. Causes: S01 failed.",
            id="the one that sums it up",
        ),
        pytest.param(
            [("JOB_MESSAGE_ERROR", "Error occurred in the launcher container: Template launch failed.")],
            "Error occurred in the launcher container: Template launch failed.",
            id="a launcher's",
        ),
    ],
)
def test_a_failed_job_is_told_in_the_services_words(target, server, messages, expected):
    execution = target.launch(launch_of())
    job = server.jobs[execution.execution_id]
    job.messages = messages
    job.state = "JOB_STATE_FAILED"
    assert target.outcome(execution) == Outcome.failed("Dataflow.JobFailed", expected)


def test_a_failed_job_has_failed_even_where_its_messages_cannot_be_read(target, server):
    execution = target.launch(launch_of())
    server.end(execution.execution_id, "JOB_STATE_FAILED", "boom")
    server.fail_next("messages", 403)
    assert target.outcome(execution).error.message.startswith(
        f"job {execution.execution_id}: ended as JOB_STATE_FAILED, and its error messages cannot be read: "
        f"dataflow: messages of {execution.execution_id}: 403"
    )
    assert target.outcome(execution).error.message == "Workflow failed. Causes: boom"


@pytest.mark.parametrize("status", [403, 404, 429, 500, 503])
def test_a_job_that_cannot_be_seen_is_no_outcome(target, server, status):
    execution = target.launch(launch_of())
    for what, ask in (("get", lambda: target.outcome(execution)), ("list", lambda: target.find(launch_of()))):
        server.fail_next(what, status)
        with pytest.raises(LaunchUncertain, match=str(status)):
            ask()


def test_a_cancel_stops_the_job(target, server):
    execution = target.launch(launch_of())
    target.cancel(execution)
    assert server.jobs[execution.execution_id].stop.is_set()
    assert target.outcome(execution) == Outcome.cancelled()
    target.cancel(execution)
    assert target.launch(launch_of()).execution_id != execution.execution_id  # the name is free again


def test_a_cancel_of_what_has_ended_or_is_unknown_changes_nothing(target, server):
    execution = target.launch(launch_of())
    server.end(execution.execution_id, "JOB_STATE_DONE")
    target.cancel(execution)
    target.cancel(Execution("2026-11-20_00_00_00-1"))
    assert target.outcome(execution).kind is OutcomeKind.COMPLETED


def test_a_cancel_of_an_updated_job_stops_its_replacement(target, server):
    execution = target.launch(launch_of())
    replacement = server.update(execution.execution_id)
    target.cancel(execution)
    assert server.jobs[replacement.id].state == "JOB_STATE_CANCELLED"


@pytest.mark.parametrize("status", [400, 403, 409, 429, 503])
@pytest.mark.parametrize("after_applying", [False, True], ids=["before", "after"])
def test_a_cancel_that_is_not_accepted_is_tried_again(target, server, status, after_applying):
    execution = target.launch(launch_of())
    server.fail_next("update", status, after_applying=after_applying)
    if after_applying and status in (400, 409):
        target.cancel(execution)  # refused, and the job has ended: that is enough
    else:
        with pytest.raises(LaunchUncertain, match=str(status)):
            target.cancel(execution)
        target.cancel(execution)
    assert target.outcome(execution) == Outcome.cancelled()


def test_twenty_threads_that_launch_one_key_start_one_job(target, server):
    barrier, got = threading.Barrier(20), []

    def race():
        barrier.wait()
        got.append(target.launch(launch_of()))

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [got[0]] * 20
    assert len(server.jobs) == 1
