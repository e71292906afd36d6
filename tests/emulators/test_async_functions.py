"""Functions that the queue calls (`"invocation": "async"`, the default): both generations, with and without @task."""

import base64
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from orchestrator.tasks.bucket import status_bucket
from tests.support.cloud import BUCKET, Cloud
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

FUNCTIONS = {
    "plain": "def main(request):\n    return {'seen': request.get_json()}\n",
    "make": """
from orchestrator.tasks import task

@task
def main(size):
    return {"words": ["first", "second"], "text": "x" * size}
""",
    "use": """
from orchestrator.tasks import task

@task
def main(word, whole=None):
    return {"word": word, "length": len(whole or "")}
""",
    "slow": """
import time
from pathlib import Path

from orchestrator.tasks import task

@task
def main(gate, context):
    with open(gate + ".runs", "a") as runs:
        runs.write(context.launch_id + chr(10))
    while not Path(gate).exists():
        time.sleep(0.02)
    return "through"
""",
    "heard": """
import time
from pathlib import Path

from orchestrator.tasks import heartbeat, task

@task
def main(gate):
    while not Path(gate).exists():
        heartbeat()
        time.sleep(0.1)
    return "through"
""",
    "broken": """
from orchestrator.tasks import task

@task
def main():
    raise ValueError("no such day")
""",
}


def step(target_name: str, parameters: dict, **more: object) -> dict:
    return {
        "type": "Task",
        "target_type": "CloudFunction",
        "target_name": target_name,
        "parameters": parameters,
        **more,
    }


def alone(target_name: str, parameters: dict) -> dict:
    return {"start": "Only", "steps": {"Only": step(target_name, parameters, end=True)}}


DAGS = {
    "plain": alone("plain", {"n": 1}),
    "passed-on": {
        "start": "Make",
        "steps": {
            "Make": step("make", {"size": "${run.input.size}"}, next="Use"),
            "Use": step("use", {"word": "${steps.Make.result.words[1]}"}, end=True),
        },
    },
    "whole": {
        "start": "Make",
        "steps": {
            "Make": step("make", {"size": "${run.input.size}"}, next="Use"),
            "Use": step("use", {"word": "w", "whole": "${steps.Make.result.text}"}, end=True),
        },
    },
    "slow": alone("slow", {"gate": "${run.input.gate}"}),
    "heard": {"start": "Only", "steps": {"Only": step("heard", {"gate": "${run.input.gate}"}, heartbeat="2s")}},
    "silent": {"start": "Only", "steps": {"Only": step("slow", {"gate": "${run.input.gate}"}, heartbeat="2s")}},
    "broken": alone("broken", {}),
}


@pytest.fixture(scope="module", params=[1, 2], ids=["1st generation", "2nd generation"])
def cloud(request, pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("async")
    dags = folder / "dags"
    for name, definition in DAGS.items():
        (dags / name).mkdir(parents=True)
        (dags / name / "dag.json").write_text(json.dumps(definition))
    for name, source in FUNCTIONS.items():
        (dags / "plain" / "functions" / name).mkdir(parents=True)
        (dags / "plain" / "functions" / name / "main.py").write_text(source)
    with (
        Cloud(pubsub_emulator, folder, dags=dags, generation=request.param) as cloud,
        pytest.MonkeyPatch.context() as here,
    ):
        here.setenv("STATUS_BUCKET", f"gs://{BUCKET}")
        here.setenv("STORAGE_EMULATOR_HOST", cloud.storage.url)
        here.setattr(status_bucket, "_opened", {})
        yield cloud


def start(cloud: Cloud, dag: str, run_id: str, given: dict | None = None) -> None:
    cloud.publish({"resource": {"type": "start"}, "dag": dag, "input": given or {}, "run_id": run_id})


def until(condition, timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def deliver_again(cloud: Cloud, launch_id: str) -> tuple[int, dict]:
    """Make the request of a launch's task once more, as the queue may; return what was answered."""
    created = [call.body["task"]["httpRequest"] for call in cloud.tasks.calls if call.body and call.status == 200]
    asked = next(task for task in created if launch_id.replace("/", "%2F") in task["url"])
    request = urllib.request.Request(asked["url"], base64.b64decode(asked["body"]), asked["headers"], method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as exc:
        return exc.code, json.loads(exc.read())


def test_a_function_without_the_helper_is_done_when_its_log_line_says_so(cloud):
    start(cloud, "plain", "plain-1")
    document = cloud.wait("plain-1")
    assert document["$run"]["status"] == "Completed"
    assert document["Only"]["status"] == "Completed"
    assert document["Only"].get("result") is None  # only the function knows it, and a log line does not hold it
    assert [call.status for call in cloud.functions.calls_of("plain-1/Only/1")] == [200]


def test_what_a_function_with_the_helper_returns_is_the_steps_result_and_the_next_ones_to_use(cloud):
    start(cloud, "passed-on", "passed-on-1", {"size": 3})
    document = cloud.wait("passed-on-1")
    assert document["$run"]["status"] == "Completed"
    assert document["Make"]["result"] == {"words": ["first", "second"], "text": "xxx"}
    assert document["Use"]["result"] == {"word": "second", "length": 0}


def test_a_result_of_a_megabyte_arrives_whole(cloud):
    start(cloud, "passed-on", "large-1", {"size": 1_000_000})
    document = cloud.wait("large-1")
    assert document["$run"]["status"] == "Completed"
    lies = document["Make"]["stored_result"]["object"]
    stored = cloud.storage.stored(BUCKET, lies)
    assert len(json.loads(stored.data)["result"]["text"]) == 1_000_000
    assert document["Use"]["result"]["word"] == "second"
    [call] = cloud.functions.calls_of("large-1/Make/1")
    assert len(call.content) < 200  # the answer only names the object where it lies


def test_parameters_larger_than_the_queue_takes_are_the_runs_error(cloud):
    start(cloud, "whole", "too-large-1", {"size": 1_000_000})
    document = cloud.wait("too-large-1")
    assert document["$run"]["status"] == "Failed"
    assert document["Use"]["error"]["error_type"] == "Launch.Refused"
    assert "Task size too large" in document["Use"]["error"]["message"]


def test_what_a_function_with_the_helper_raised_is_the_steps_error(cloud):
    start(cloud, "broken", "broken-1")
    document = cloud.wait("broken-1")
    assert document["$run"]["status"] == "Failed"
    assert document["Only"]["error"] == {"error_type": "Task.Failed", "message": "ValueError: no such day"}


def test_a_task_delivered_twice_runs_the_function_once_and_its_409_fails_nothing(cloud, tmp_path):
    gate, launch_id = tmp_path / "gate", "twice-1/Only/1"
    runs = Path(f"{gate}.runs")
    start(cloud, "slow", "twice-1", {"gate": str(gate)})
    until(runs.exists)
    handed_on = cloud.front.delivered
    status, told = deliver_again(cloud, launch_id)
    assert (status, told["error_type"]) == (409, "Task.AlreadyBegun")
    until(lambda: cloud.front.delivered > handed_on)  # the line with the 409, and our nonce
    time.sleep(0.5)
    assert cloud.document("twice-1")["$run"]["status"] == "Running"
    gate.touch()
    document = cloud.wait("twice-1")
    assert document["$run"]["status"] == "Completed"
    assert document["Only"]["result"] == "through"
    assert runs.read_text().splitlines() == [launch_id]
    assert sorted(call.status for call in cloud.functions.calls_of(launch_id)) == [200, 409]


def test_of_a_call_that_ended_before_its_duplicate_the_result_counts_whichever_line_comes_first(cloud, tmp_path):
    gate, launch_id = tmp_path / "gate", "again-1/Only/1"
    gate.touch()
    cloud.functions.loses_entries = True
    try:
        start(cloud, "slow", "again-1", {"gate": str(gate)})
        until(lambda: cloud.functions.calls_of(launch_id))
    finally:
        cloud.functions.loses_entries = False
    assert deliver_again(cloud, launch_id)[0] == 409  # its line is the only one that is delivered
    document = cloud.wait("again-1")
    assert document["$run"]["status"] == "Completed"
    assert document["Only"]["result"] == "through"


@pytest.mark.parametrize("dag", ["plain", "passed-on"])
def test_a_lost_line_is_made_up_for_by_the_tick(cloud, dag):
    run_id = f"lost-{dag}"
    searches = cloud.logging.searches
    cloud.functions.loses_entries = True
    try:
        start(cloud, dag, run_id, {"size": 3})
        until(lambda: any(call.launch_id.startswith(run_id) for call in cloud.functions.calls))
        time.sleep(0.3)
        assert cloud.document(run_id)["$run"]["status"] == "Running"
        document = cloud.wait(run_id, tick_every_s=0.5)
    finally:
        cloud.functions.loses_entries = False
    assert document["$run"]["status"] == "Completed"
    if dag == "plain":  # what told was Cloud Logging; with the helper it is the bucket
        assert cloud.logging.searches > searches
    else:
        assert document["Use"]["result"]["word"] == "second"
        assert cloud.logging.searches == searches


def test_a_function_that_is_heard_of_goes_on_and_one_that_is_not_is_given_up(cloud, tmp_path):
    gate, never = tmp_path / "gate", tmp_path / "never"
    start(cloud, "heard", "heard-1", {"gate": str(gate)})
    start(cloud, "silent", "silent-1", {"gate": str(never)})
    try:
        document = cloud.wait("silent-1", tick_every_s=0.5)
        assert document["$run"]["error"]["error_type"] == "Task.Heartbeat"
        assert cloud.document("heard-1")["$run"]["status"] == "Running"
        gate.touch()
        assert cloud.wait("heard-1")["Only"]["result"] == "through"
    finally:
        never.touch()


def test_a_first_generation_function_that_is_not_named_is_done_once_a_tick_has_asked_the_logs(
    pubsub_emulator, tmp_path
):
    dag = tmp_path / "dags" / "plain"
    dag.mkdir(parents=True)
    (dag / "dag.json").write_text(json.dumps(DAGS["plain"]))
    for name, source in FUNCTIONS.items():
        (dag / "functions" / name).mkdir(parents=True)
        (dag / "functions" / name / "main.py").write_text(source)
    not_named = {"FIRST_GENERATION_FUNCTIONS": ""}
    with Cloud(pubsub_emulator, tmp_path, dags=tmp_path / "dags", generation=1, settings=not_named) as cloud:
        start(cloud, "plain", "unnamed")
        document = cloud.wait("unnamed", tick_every_s=0.5)
        assert document["Only"]["status"] == "Completed"
        assert cloud.names("executions/") == []
