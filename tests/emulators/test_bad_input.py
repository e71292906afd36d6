"""What goes wrong outside, and what comes of it: messages, forgeries, permissions, quotas, failing calls and jobs."""

import base64
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit
from uuid import uuid4

import pytest

from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.ids import key_of
from tests.support.cloud import BUCKET, Cloud, Instance
from tests.support.dataflow_server import Job, entry_of
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture
from tests.support.storage_server import of

FUNCTIONS = {
    "quick": "def main(request):\n    return {'done': True}\n",
    "held": """
import time
from pathlib import Path

def main(request):
    while not Path(request.get_json()["gate"]).exists():
        time.sleep(0.02)
    return {"done": True}
""",
}
PIPELINES = {
    "works": "",
    "breaks": "raise SystemExit('the words of the pipeline')\n",
    "stands": "import time\n\ntime.sleep(120)\n",
}


def alone(target_type: str, target_name: str, parameters: dict | None = None, **more: object) -> dict:
    step = {"type": "Task", "target_type": target_type, "target_name": target_name, "parameters": parameters or {}}
    return {"start": "Only", "steps": {"Only": {**step, **more, "end": True}}}


GATE = {"gate": "${run.input.gate}"}
DAGS = {
    "quick": alone("CloudFunction", "quick"),
    "quick-sync": alone("CloudFunction", "quick", invocation="sync"),
    "held": alone("CloudFunction", "held", GATE),
    "held-and-lost": alone("CloudFunction", "held", GATE, timeout="1h"),
    **{name: alone("Dataflow", name) for name in PIPELINES},
}

# A launch is begun before its lease's end less one call; so short a lease needs a call limit below it.
SETTINGS = {"EVENT_GRACE": "1s", "LAUNCH_LEASE": "4s", "LAUNCH_CALL_LIMIT": "2s", "CLOCK_ALLOWANCE": "200ms"}


@pytest.fixture(scope="module")
def cloud(pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad-input")
    dags = folder / "dags"
    for name, definition in DAGS.items():
        (dags / name).mkdir(parents=True)
        (dags / name / "dag.json").write_text(json.dumps(definition))
    for name, source in FUNCTIONS.items():
        (dags / "quick" / "functions" / name).mkdir(parents=True)
        (dags / "quick" / "functions" / name / "main.py").write_text(source)
    (dags / "works" / "pipelines").mkdir()
    for name, source in PIPELINES.items():
        (dags / "works" / "pipelines" / f"{name}.py").write_text(source)
    with Cloud(pubsub_emulator, folder, dags=dags, settings=SETTINGS) as cloud:
        yield cloud


@pytest.fixture
def gate(tmp_path):
    """What a held function waits for; it is opened at the test's end."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


def start(cloud: Cloud, dag: str, run_id: str, gate: Path | None = None) -> None:
    given = {"gate": str(gate)} if gate else {}
    cloud.publish({"resource": {"type": "start"}, "dag": dag, "input": given, "run_id": run_id})


def ended(cloud: Cloud, run_id: str) -> dict:
    """The run as it ended, with ticks: on a machine at its limits a short lease may be missed."""
    return cloud.wait(run_id, tick_every_s=1.0)


def until(condition, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
    return found


def pushed(cloud: Cloud, data: object, *, age: timedelta = timedelta(0)) -> tuple[int, str]:
    """Push a message with this `data` at the instance; return the status and the message id."""
    message_id = uuid4().hex
    at = (datetime.now(UTC) - age).isoformat()
    message = {"data": data, "messageId": message_id, "message_id": message_id, "publishTime": at, "publish_time": at}
    body = {"message": message, "subscription": cloud.subscription}
    return cloud.instances[0].post(f"/{cloud.topic}", json.dumps(body).encode()), message_id


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def letter_of(cloud: Cloud, message_id: str) -> dict | None:
    """The dead letter of a message, if there is one."""
    stored = (cloud.storage.stored(BUCKET, name) for name in cloud.names("dead_letters/"))
    letters = (json.loads(found.data) for found in stored if found)
    return next((letter for letter in letters if letter["message_id"] == message_id), None)


def said(cloud: Cloud) -> str:
    """What the instance has logged so far."""
    return (cloud.folder / "instance0.log").read_text()


def is_running(cloud: Cloud, run_id: str) -> bool:
    document = cloud.document(run_id)
    return document is not None and document["Only"]["status"] == "Running"


def request_line(launch_id: str, nonce: str | None, status: int = 200) -> dict:
    """The request log entry of a 2nd gen function, as anyone who may write logs could write it."""
    url = f"https://europe-west1-my-project.cloudfunctions.net/held?orchestrator_launch={quote(launch_id, safe='')}"
    return {
        "logName": "projects/my-project/logs/run.googleapis.com%2Frequests",
        "resource": {"type": "cloud_run_revision", "labels": {"service_name": "held"}},
        "httpRequest": {"requestUrl": url + (f"&orchestrator_nonce={nonce}" if nonce else ""), "status": status},
    }


def nonce_of(cloud: Cloud, launch_id: str) -> str | None:
    """The nonce that a launch's call carries, as soon as the queue has the call."""
    for call in list(cloud.tasks.calls):
        url = urlsplit(call.body["task"]["httpRequest"]["url"]) if call.method == "POST" and call.body else None
        query = parse_qs(url.query) if url else {}
        if query.get("orchestrator_launch") == [launch_id]:
            return query["orchestrator_nonce"][0]
    return None


def restart(instance: Instance) -> None:
    """Kill the process, and the one in which its reloader serves; start a new one."""
    pid = instance.process.pid
    served_by = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout.split()
    instance.kill()
    for child in served_by:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
    instance.start()
    instance.wait_until_it_listens()


def job_of(cloud: Cloud, dag: str, run_id: str) -> Job:
    """The job of a new run."""
    start(cloud, dag, run_id)
    label = ("orchestrator_run", run_id)
    jobs = cloud.dataflow.jobs
    return until(
        lambda: next((j for j in list(jobs.values()) if label in j.environment["additionalUserLabels"].items()), None)
    )


def handled(cloud: Cloud, event: dict) -> int:
    """Push an event at the instance, and return the status when it is done with it."""
    return pushed(cloud, base64_of(json.dumps(event).encode()))[0]


# ---- messages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        pytest.param(base64_of(b"gs://no/json"), "message.data: is not JSON in UTF-8", id="no JSON"),
        pytest.param(base64_of(b"\xff\xfe"), "message.data: is not JSON in UTF-8", id="no UTF-8"),
        pytest.param(base64_of(b'["start"]'), "message.data: is a JSON array; allowed is a JSON object", id="a list"),
        pytest.param("{not base64}", "message.data: is not base64", id="no base64"),
        pytest.param(7, "message.data: is a int; allowed is base64 text", id="no text"),
        pytest.param("", "message: has neither data nor attributes", id="nothing"),
        pytest.param(base64_of(b"x" * 9_000_000), "message.data: is not JSON in UTF-8", id="9 MB"),
        pytest.param(base64_of(b'"' + b"x" * 10_000_000 + b'"'), "allowed are 10000000 bytes", id="over the limit"),
        pytest.param(
            base64_of(b'{"resource": {"type": "start"}, "input": ' + b'{"a":' * 500 + b"1" + b"}" * 501),
            "message.data: is nested too deeply; allowed are 100 levels",
            id="deeply nested",
        ),
        pytest.param(
            base64_of(b"[" * 1_000_000 + b"]" * 1_000_000),
            "message.data: is nested too deeply; allowed are 100 levels",
            id="deeper than a parser stands",
        ),
        pytest.param(
            base64_of(b'{"resource": {"type": "start"}, "dag": "quikc"}'), "quikc", id="a DAG that there is not"
        ),
    ],
)
def test_a_message_that_nobody_can_handle_is_acknowledged_and_kept(cloud, data, sentence):
    status, message_id = pushed(cloud, data)
    assert status in (200, 204)
    letter = letter_of(cloud, message_id)
    assert letter is not None
    assert sentence in letter["error"]


def test_a_start_of_nine_megabytes_is_a_run_like_any_other(cloud):
    event = {"resource": {"type": "start"}, "dag": "quick", "input": {"x": "x" * 9_000_000}, "run_id": "big"}
    assert handled(cloud, event) in (200, 204)
    document = ended(cloud, "big")
    assert document["$run"]["status"] == "Completed"


def test_a_body_that_is_no_push_at_all_is_refused_and_harms_nothing(cloud):
    for body in (b"", b"no JSON", b"[]", b'{"message": null}', b"[" * 100_000):
        assert cloud.instances[0].post(f"/{cloud.topic}", body) in range(200, 501)
    start(cloud, "quick", "after-bad-bodies")
    assert ended(cloud, "after-bad-bodies")["$run"]["status"] == "Completed"


def test_an_event_of_an_unknown_run_is_put_off_while_it_is_young_and_then_kept(cloud):
    event = base64_of(json.dumps(request_line("nobody/Only/1", "0" * 32)).encode())
    status, message_id = pushed(cloud, event)
    assert status >= 500
    assert letter_of(cloud, message_id) is None
    status, message_id = pushed(cloud, event, age=timedelta(seconds=2))
    assert status in (200, 204)
    assert "runs/nobody.json: does not exist" in letter_of(cloud, message_id)["error"]


def test_an_event_of_an_unknown_run_ends_as_a_dead_letter_by_itself(cloud):
    message_id = cloud.publish(request_line("nobody-too/Only/1", "0" * 32))
    letter = until(lambda: letter_of(cloud, message_id))
    assert "runs/nobody-too.json: does not exist" in letter["error"]
    assert "put off" in said(cloud)


# ---- forgeries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonce", [None, "0" * 32, "Ω"], ids=["no nonce", "a wrong one", "no nonce at all"])
@pytest.mark.parametrize("status", [200, 500])
def test_a_forged_completion_changes_nothing(cloud, gate, nonce, status):
    run_id = f"forged-{uuid4().hex[:8]}"
    start(cloud, "held", run_id, gate)
    until(lambda: is_running(cloud, run_id))
    before = cloud.document(run_id)
    assert handled(cloud, request_line(f"{run_id}/Only/1", nonce, status)) in (200, 204)
    assert cloud.document(run_id) == before
    gate.touch()
    assert ended(cloud, run_id)["$run"]["status"] == "Completed"


def test_the_nonce_of_one_attempt_proves_no_other(cloud, gate):
    start(cloud, "held", "has-ended", gate)
    start(cloud, "held", "runs-on", gate.with_name("another"))
    nonces = {
        run_id: until(lambda run_id=run_id: nonce_of(cloud, f"{run_id}/Only/1")) for run_id in ("has-ended", "runs-on")
    }
    gate.touch()
    assert ended(cloud, "has-ended")["$run"]["status"] == "Completed"
    until(lambda: is_running(cloud, "runs-on"))
    before = cloud.document("runs-on")
    assert handled(cloud, request_line("runs-on/Only/1", nonces["has-ended"])) in (200, 204)
    for attempt in (2, 3, 999_999_999):  # there is no such attempt, or none any more
        assert handled(cloud, request_line(f"runs-on/Only/{attempt}", nonces["runs-on"])) in (200, 204)
    assert handled(cloud, request_line("runs-on/Elsewhere/1", nonces["runs-on"])) in (200, 204)
    assert cloud.document("runs-on") == before
    assert handled(cloud, request_line("has-ended/Only/1", nonces["has-ended"], 500)) in (200, 204)  # too late
    assert cloud.document("has-ended")["$run"]["status"] == "Completed"
    gate.with_name("another").touch()
    assert ended(cloud, "runs-on")["$run"]["status"] == "Completed"


def test_a_line_of_a_first_generation_function_that_nobody_launched_is_put_off_and_then_somebody_elses(cloud):
    line = {
        "logName": "projects/my-project/logs/cloudfunctions.googleapis.com%2Fcloud-functions",
        "resource": {"type": "cloud_function", "labels": {"function_name": "held"}},
        "labels": {"execution_id": "abcdefghijkl"},
        "textPayload": "Function execution took 12 ms, finished with status code: 200",
        "trace": f"projects/my-project/traces/{'0' * 32}",
    }
    event = base64_of(json.dumps(line).encode())
    assert pushed(cloud, event)[0] >= 500
    status, message_id = pushed(cloud, event, age=timedelta(seconds=2))
    assert status in (200, 204)
    assert letter_of(cloud, message_id) is None


def job_line(name: str, job: Job) -> dict:
    """The line of a job's end, under another name."""
    return entry_of(replace(job, name=name), "INFO", "Worker pool stopped.")


def job_state(name: str, job: Job) -> dict:
    """The event of a job's end, under another name."""
    return {"payload": {"id": job.id, "name": name, "currentState": "JOB_STATE_DONE"}}


@pytest.mark.parametrize("forge", [job_line, job_state])
def test_our_job_name_with_the_id_of_another_job_that_is_done_changes_nothing(cloud, forge):
    run_id = f"ours-{forge.__name__.replace('_', '-')}"
    others = job_of(cloud, "works", f"others-{run_id}")
    assert ended(cloud, f"others-{run_id}")["$run"]["status"] == "Completed"
    job = job_of(cloud, "stands", run_id)
    until(lambda: cloud.names(f"executions/{job.id}"))
    before = cloud.document(run_id)
    assert handled(cloud, forge(job.name, others)) in (200, 204)
    assert cloud.document(run_id) == before
    cloud.dataflow.end(job.id, "JOB_STATE_DONE")
    document = ended(cloud, run_id)
    assert document["$run"]["status"] == "Completed"
    assert document["Only"]["result"]["job_id"] == job.id


# ---- what the run needs is gone, or not allowed -----------------------------------------------------------


def test_a_definition_that_is_gone_is_named_and_its_run_goes_on_when_it_is_put_back(cloud, gate):
    start(cloud, "held-and-lost", "orphaned", gate)
    nonce = until(lambda: nonce_of(cloud, "orphaned/Only/1"))
    key = key_of("orphaned/Only/1")
    until(lambda: any(call.status == 200 and key in str(call.body) for call in cloud.tasks.calls))  # it is launched
    digest = DefinitionStatus.name(DAGS["held-and-lost"]).removeprefix("sha256:")
    name, deployed = f"definitions/{digest}.json", cloud.dags / "held-and-lost" / "dag.json"
    stored = cloud.storage._buckets[BUCKET].pop(name)
    deployed.write_text(json.dumps(alone("CloudFunction", "held", GATE, timeout="2h")))  # another version
    try:
        restart(cloud.instances[0])  # it knew the definition
        before = cloud.document("orphaned")
        line = request_line("orphaned/Only/1", nonce)
        status, message_id = pushed(cloud, base64_of(json.dumps(line).encode()))
        assert status in (200, 204)
        assert letter_of(cloud, message_id)["error"].startswith(f"{name}: is missing")
        gate.touch()  # the event of its end finds no definition either
        start(cloud, "quick", "beside-the-orphan")
        assert ended(cloud, "beside-the-orphan")["$run"]["status"] == "Completed"
        until(lambda: cloud.tick() or time.sleep(0.5) or f"tick: {name}: is missing" in said(cloud))
        labels = [entry["logging.googleapis.com/labels"] for entry in cloud.log_of("orphaned")]
        assert {"run_id": "orphaned"} in labels
        assert cloud.document("orphaned") == before
        assert before["$run"]["status"] == "Running"
        cloud.storage.write(BUCKET, name, stored.data)
        document = ended(cloud, "orphaned")
    finally:
        deployed.write_text(json.dumps(DAGS["held-and-lost"]))
    assert document["$run"]["status"] == "Completed"
    assert len(cloud.functions.calls_of("orphaned/Only/1")) == 1


def test_a_queue_that_may_not_be_used_fails_the_run_in_the_services_words(cloud):
    cloud.tasks.fail("POST", 403, applied=False)
    start(cloud, "quick", "forbidden")
    document = ended(cloud, "forbidden")
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["error"]["error_type"] == "Launch.Refused"
    assert "403: a fault of the test's" in document["Only"]["error"]["message"]


def test_a_template_that_may_not_be_launched_fails_the_run_in_the_services_words(cloud):
    cloud.dataflow.fail_next("launch", 403)
    start(cloud, "works", "forbidden-job")
    document = ended(cloud, "forbidden-job")
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["error"]["error_type"] == "Dataflow.NotAllowed"
    assert "403: as the test asked for" in document["Only"]["error"]["message"]


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_bucket_that_may_not_be_used_puts_the_message_off_and_says_which_role_is_missing(cloud, kind):
    run_id = f"locked-{kind}"
    fault = cloud.storage.add_fault(of(kind, f"runs/{run_id}.json"), status=403, times=1000)
    event = {"resource": {"type": "start"}, "dag": "quick", "run_id": run_id}
    assert handled(cloud, event) >= 500
    assert cloud.document(run_id) is None
    [line, *_] = [line for line in said(cloud).splitlines() if "put off" in line and run_id in line]
    assert "roles/storage.objectUser" in line
    fault.times = 0
    assert handled(cloud, event) in (200, 204)
    assert ended(cloud, run_id)["$run"]["status"] == "Completed"


@pytest.mark.parametrize("dag", ["quick", "works"])
def test_a_quota_that_is_used_up_costs_a_tick_and_never_the_run(cloud, dag):
    if dag == "quick":
        cloud.tasks.fail("POST", 429, applied=False)
    else:
        cloud.dataflow.fail_next("launch", 429)
    start(cloud, dag, f"quota-{dag}")
    document = ended(cloud, f"quota-{dag}")
    assert document["$run"]["status"] == "Completed"
    assert document["Only"]["attempt"] == 1  # the same attempt, launched after all
    if dag == "quick":
        assert len(cloud.functions.calls_of("quota-quick/Only/1")) == 1


# ---- what was called fails ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dag", "words"),
    [
        pytest.param("quick", "finished with status 500", id="by the queue: only its log line tells"),
        pytest.param("quick-sync", "HTTP 500: as the test asked for", id="directly"),
    ],
)
def test_a_function_that_answers_500_fails_the_run(cloud, dag, words):
    cloud.functions.fail_next.append(500)
    start(cloud, dag, f"five-hundred-{dag}")
    document = ended(cloud, f"five-hundred-{dag}")
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["error"] == {"error_type": "Task.Failed", "message": words}
    assert words in document["$run"]["error"]["message"]


def test_a_job_that_fails_fails_the_run_in_its_own_words(cloud):
    start(cloud, "breaks", "broken-job")
    document = ended(cloud, "broken-job")
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["error"]["error_type"] == "Dataflow.JobFailed"
    assert document["Only"]["error"]["message"] == "Workflow failed. Causes: the words of the pipeline"


@pytest.mark.parametrize(
    ("state", "words"),
    [("JOB_STATE_CANCELLED", "cancelled at its target"), ("JOB_STATE_DRAINED", "drained at its target")],
)
def test_a_job_that_somebody_stops_fails_the_run_and_says_how(cloud, state, words):
    run_id = state.lower().replace("_", "-")
    cloud.dataflow.end(job_of(cloud, "stands", run_id).id, state)
    document = ended(cloud, run_id)
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["status"] == "Cancelled"
    assert words in document["Only"]["error"]["message"]
    assert words in document["$run"]["error"]["message"]
