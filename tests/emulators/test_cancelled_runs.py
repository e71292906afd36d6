"""orchestrator cancel against the emulated cloud: of a job, of calls in the queue and under way, before the start."""

import json
import os
import subprocess
import sys

import pytest

from orchestrator.targets.job_services import SERVICES
from tests.support.cloud import BUCKET, ROOT, Cloud
from tests.support.command_line import until
from tests.support.job_steps import definition_of_all
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

STATE = f"gs://{BUCKET}"

PIPELINE = """
import time

while True:
    time.sleep(0.05)
"""

SLOW = """
import time
from pathlib import Path

def main(request):
    gate = Path(request.get_json()["gate"])
    gate.with_suffix(".called").touch()
    while not gate.exists():
        time.sleep(0.02)
    return "through"
"""


def step(target_type, target_name, **more):
    return {"type": "Task", "target_type": target_type, "target_name": target_name, **more}


GATE = {"parameters": {"gate": "${run.input.gate}"}}
DAGS = {
    "job": {"Load": step("Dataflow", "forever", next="After"), "After": step("CloudFunction", "slow")},
    "call": {"Call": step("CloudFunction", "slow", next="After", **GATE), "After": step("CloudFunction", "slow")},
}


@pytest.fixture(scope="module")
def cloud(pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cancel")
    dags = folder / "dags"
    for name, steps in DAGS.items():
        (dags / name).mkdir(parents=True)
        (dags / name / "dag.json").write_text(json.dumps({"start": next(iter(steps)), "steps": steps}))
    (dags / "job" / "pipelines").mkdir()
    (dags / "job" / "pipelines" / "forever.py").write_text(PIPELINE)
    (dags / "call" / "functions" / "slow").mkdir(parents=True)
    (dags / "call" / "functions" / "slow" / "main.py").write_text(SLOW)
    with Cloud(pubsub_emulator, folder, dags=dags, instances=2) as cloud:
        yield cloud


def call(cloud, *arguments, **environment):
    """`orchestrator …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT,
        env={**os.environ, **cloud.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(cloud, dag, run_id, **given):
    cloud.publish({"resource": {"type": "start"}, "dag": dag, "input": given, "run_id": run_id})


def test_a_dataflow_job_is_cancelled_at_the_service(cloud):
    start(cloud, "job", "job-1")
    until(lambda: any(job.state == "JOB_STATE_RUNNING" for job in cloud.dataflow.jobs.values()))
    told = call(cloud, "cancel", "job-1", "--reason", "wrong day", "--wait", "--interval", "0.1")
    assert (told.returncode, told.stderr) == (0, "")
    assert "Cancelled in " in told.stdout
    assert [job.state for job in cloud.dataflow.jobs.values()] == ["JOB_STATE_CANCELLED"]
    document = cloud.document("job-1")
    assert (document["$run"]["status"], document["$run"]["cancel_reason"]) == ("Cancelled", "wrong day")
    assert (document["Load"]["status"], document["After"]["status"]) == ("Cancelled", "Skipped")
    assert document["Load"]["error"] == {"error_type": "Run.Cancelled", "message": "wrong day"}


def test_a_call_that_waits_in_the_queue_is_taken_out_of_it_and_never_made(cloud, tmp_path):
    cloud.tasks.paused = True
    try:
        start(cloud, "call", "queued-1", gate=str(tmp_path / "gate"))
        until(lambda: any("queued-1" in str(task) for task in cloud.tasks.tasks.values()))
        told = call(cloud, "cancel", "queued-1")
        assert told.returncode == 0
        assert told.stdout.startswith("run queued-1: asked to be cancelled, by message ")
        document = cloud.wait("queued-1")
    finally:
        cloud.tasks.paused = False
    assert document["$run"]["status"] == "Cancelled"
    assert document["Call"]["error"] == {"error_type": "Task.Cancelled", "message": "taken back before it began"}
    assert not any("queued-1" in str(task) for task in cloud.tasks.tasks.values())
    assert cloud.launches()["queued-1/Call/1"] == 0


def test_a_function_that_was_called_runs_to_its_end_and_nothing_comes_after_it(cloud, tmp_path):
    gate = tmp_path / "gate"
    start(cloud, "call", "called-1", gate=str(gate))
    until(gate.with_suffix(".called").exists)
    assert call(cloud, "cancel", "called-1", "--json").returncode == 0
    until(lambda: "cancel_reason" in cloud.document("called-1")["$run"])
    cloud.tick()
    assert cloud.document("called-1")["$run"]["status"] == "Running"
    gate.touch()
    document = cloud.wait("called-1")
    assert document["$run"]["status"] == "Cancelled"
    assert (document["Call"]["status"], document["After"]["status"]) == ("Completed", "Skipped")
    assert cloud.launches()["called-1/After/1"] == 0


def test_a_cancel_that_comes_before_its_start_is_put_off_until_there_is_a_run(cloud, tmp_path):
    letters = cloud.names("dead_letters/")
    handed_on = cloud.front.delivered
    cloud.publish({"resource": {"type": "cancel"}, "run_id": "early-1", "reason": "changed my mind"})
    until(lambda: cloud.front.delivered > handed_on + 1)  # put off at least once
    start(cloud, "job", "early-1")
    document = cloud.wait("early-1")
    assert document["$run"]["status"] == "Cancelled"
    assert cloud.names("dead_letters/") == letters


def test_an_unknown_run_or_no_topic_to_ask_by_is_2(cloud):
    told = call(cloud, "cancel", "nobody")
    assert (told.returncode, told.stdout) == (2, "")
    assert f"run nobody: there is no such run in {STATE}" in told.stderr

    start(cloud, "job", "asked-1")
    until(lambda: cloud.document("asked-1"))
    told = call(cloud, "cancel", "asked-1", EVENTS_TOPIC="")
    assert (told.returncode, told.stdout) == (2, "")
    assert f"EVENTS_TOPIC is not set, and runs in {STATE} are cancelled by a message" in told.stderr
    assert call(cloud, "cancel", "asked-1", "--topic", cloud.topic, EVENTS_TOPIC="").returncode == 0
    assert cloud.wait("asked-1")["$run"]["status"] == "Cancelled"


def test_a_job_of_every_service_is_cancelled_there(pubsub_emulator, tmp_path):
    folder = tmp_path / "dags" / "services"
    folder.mkdir(parents=True)
    (folder / "dag.json").write_text(json.dumps(definition_of_all()))
    with Cloud(pubsub_emulator, tmp_path, dags=folder.parent, work=lambda service, job: job.stop.wait(60)) as cloud:
        start(cloud, "services", "six")
        until(lambda: all(cloud.jobs[name].jobs for name in SERVICES), 30)
        told = call(cloud, "cancel", "six", "--wait", "--interval", "0.2")
        assert (told.returncode, told.stderr) == (0, "")
        document = cloud.document("six")
        assert {name: document[name]["status"] for name in SERVICES} == dict.fromkeys(SERVICES, "Cancelled")
        assert {job.state for name in SERVICES for job in cloud.jobs[name].jobs.values()} == {"Cancelled"}
        assert document["End"]["status"] == "Skipped"
