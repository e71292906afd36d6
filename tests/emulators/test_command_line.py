"""The command line against the emulated cloud: a start through the topic, and what it shows of gs://."""

import json
import os
import re
import subprocess
import sys

import pytest

from tests.support.cloud import BUCKET, ROOT, Cloud, free_port
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

STATE = f"gs://{BUCKET}"


@pytest.fixture
def cloud(pubsub_emulator, tmp_path):
    with Cloud(pubsub_emulator, tmp_path) as cloud:
        yield cloud


def call(environment, *arguments):
    """`orchestrator …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_what_is_started_through_the_topic_is_watched_and_listed_in_its_bucket(cloud):
    started = call(cloud.environment, "start", "sample", "--input", "day=2026-01-31")
    assert (started.returncode, started.stderr) == (0, "")
    run_id, _, command = started.stdout.splitlines()
    assert re.fullmatch(r"run_\d+_[0-9a-f]{12}", run_id)
    assert command.strip() == f"orchestrator status {run_id} --bucket {STATE} --watch"

    watched = call(cloud.environment, *command.split()[1:], "--interval", "0.1")
    assert watched.returncode == 0, watched.stderr
    assert "Completed" in watched.stdout
    assert f"{STATE}/runs/{run_id}.json" in watched.stdout
    page = "https://console.cloud.google.com/functions/details/europe-west1/orch-test-1?project=my-project"
    assert f"  Init     {page}\n" in watched.stdout

    shown = call(cloud.environment, "status", run_id, "--bucket", STATE, "--json")
    assert json.loads(shown.stdout) == cloud.document(run_id)
    assert json.loads(shown.stdout)["$run"]["input"] == {"day": "2026-01-31"}

    logged = call(cloud.environment, "logs", run_id, "--bucket", STATE, "--json")
    steps = {"Init", "Step1", "Step2", "Branch1", "Branch2", "Int", "End"}
    assert {said["node"] for said in json.loads(logged.stdout)} == steps
    one = call(cloud.environment, "logs", run_id, "Int", "--bucket", STATE)
    assert re.search(r" INFO     Int POST orch-test-1: 200 in \d+\.\d{3} s\n$", one.stdout)

    listed = call(cloud.environment, "runs", "--bucket", STATE, "--json")
    assert [(run["run_id"], run["dag"], run["status"]) for run in json.loads(listed.stdout)] == [
        (run_id, "sample", "Completed")
    ]
    assert run_id in call(cloud.environment, "runs", "--bucket", STATE).stdout


def test_a_chosen_run_id_is_one_run_however_often_it_is_published(cloud):
    told = [json.loads(call(cloud.environment, "start", "sample", "--run-id", "mine", "--json").stdout)]
    cloud.wait("mine")
    told.append(json.loads(call(cloud.environment, "start", "sample", "--run-id", "mine", "--json").stdout))
    assert [each["run_id"] for each in told] == ["mine", "mine"]
    assert told[0]["message_id"] != told[1]["message_id"]
    assert cloud.names("runs/") == ["runs/mine.json"]


def test_an_unknown_run_in_a_bucket_of_the_cloud_is_said_to_be_none(cloud):
    shown = call(cloud.environment, "status", "nobody", "--bucket", STATE)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert f"run nobody: there is no such run in {STATE}; there are none yet" in shown.stderr


@pytest.mark.parametrize(
    ("environment", "arguments", "message"),
    [
        pytest.param({"EVENTS_TOPIC": ""}, [], "EVENTS_TOPIC is not set", id="no topic"),
        pytest.param({"EVENTS_TOPIC": "events"}, [], "allowed is projects/P/topics/T", id="no name of a topic"),
        pytest.param({}, ["--run-id", "a/b"], "is no run id", id="no run id"),
        pytest.param({}, ["--input", "nothing.json"], "there is no such file", id="no input"),
    ],
)
def test_what_is_wrong_with_a_start_is_said_before_anything_is_sent(environment, arguments, message):
    topic = {"EVENTS_TOPIC": "projects/my-project/topics/events", "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}
    told = call({**topic, **environment}, "start", "sample", *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert message in told.stderr


def test_a_topic_that_does_not_answer_is_said_to_be_unreachable_with_how_to_go_on():
    nobody = f"127.0.0.1:{free_port()}"
    topic = {"EVENTS_TOPIC": "projects/my-project/topics/events", "PUBSUB_EMULATOR_HOST": nobody}
    told = call(topic, "start", "sample", "--run-id", "mine")
    assert (told.returncode, told.stdout) == (2, "")
    assert "projects/my-project/topics/events" in told.stderr
    assert "the same run is started again by: orchestrator start sample --run-id mine" in told.stderr


def test_a_topic_that_is_not_there_is_said_to_be_missing(pubsub_emulator):
    topic = {"EVENTS_TOPIC": "projects/my-project/topics/nowhere", "PUBSUB_EMULATOR_HOST": pubsub_emulator}
    told = call(topic, "start", "sample")
    assert (told.returncode, told.stdout) == (2, "")
    assert "NotFound" in told.stderr
