"""main.py under a real functions-framework server: Pub/Sub CloudEvents and raw push bodies on the local store."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DAG = {
    "start": "Double",
    "steps": {
        "Double": {
            "type": "Task",
            "target_type": "CloudFunction",
            "target_name": "double",
            "parameters": {"n": "${run.input.n}"},
            "next": "Show",
        },
        "Show": {
            "type": "Task",
            "target_type": "Function",
            "function": "platform:python_implementation",
        },
    },
}
DOUBLE = "def main(request):\n    return {'n': 2 * request.get_json()['n']}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A functions-framework server of main.py; yields (port, bucket directory)."""
    folder = tmp_path_factory.mktemp("server")
    source = folder / "dags" / "doubling" / "functions" / "double"
    source.mkdir(parents=True)
    (source / "main.py").write_text(DOUBLE)
    (folder / "dags" / "doubling" / "dag.json").write_text(json.dumps(DAG))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["-m", "functions_framework", "--target", "on_event", "--signature-type", "cloudevent"]
    settings = {"STATUS_BUCKET": f"file://{folder}/bucket", "DAG_DEFINITIONS": f"{folder}/dags", "EVENT_GRACE": "1s"}
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--port", str(port), "--host", "127.0.0.1"],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
        )
    until = time.monotonic() + 30
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    yield port, folder / "bucket"
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


def push(message: object, message_id: str, **extra: object) -> dict:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    encoded = base64.b64encode(data).decode()
    body = {"data": encoded, "messageId": message_id, "publishTime": "2026-01-01T00:00:00.5Z"}
    return {"message": body, "subscription": "projects/p/subscriptions/s", **extra}


def post(port: int, body: object, headers: dict[str, str] | None = None, path: str = "/") -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        return exc.code


CLOUD_EVENT = {
    "ce-id": "1",
    "ce-specversion": "1.0",
    "ce-time": "2026-01-01T00:00:00Z",
    "ce-type": "google.cloud.pubsub.topic.v1.messagePublished",
    "ce-source": "//pubsub.googleapis.com/projects/p/topics/t",
}


def ended(bucket: Path, run_id: str) -> dict:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        path = bucket / "runs" / f"{run_id}.json"
        if path.exists() and (document := json.loads(path.read_text()))["$run"]["status"] != "Running":
            return document
        time.sleep(0.05)
    raise AssertionError(f"{run_id} did not end")


@pytest.mark.parametrize(
    ("headers", "path", "run_id"),
    [
        pytest.param(CLOUD_EVENT, "/", "by_cloud_event", id="CloudEvent"),
        pytest.param({}, "/projects/p/topics/t", "by_raw_push", id="raw push body"),
    ],
)
def test_a_start_message_runs_a_dag(server, headers, path, run_id):
    port, bucket = server
    start = {"resource": {"type": "start"}, "dag": "doubling", "input": {"n": 21}, "run_id": run_id}
    for _ in range(2):  # delivered twice
        assert post(port, push(start, run_id), headers, path) == 200
    document = ended(bucket, run_id)
    assert document["$run"]["status"] == "Completed"
    assert document["Double"]["result"] == {"n": 42}
    assert document["Show"]["result"] == "CPython"


def dead_letters(bucket: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted((bucket / "dead_letters").glob("*.json"))]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        pytest.param(b"not json", "JSON", id="no JSON"),
        pytest.param({"resource": {"type": "start"}, "dag": "dubling"}, 'did you mean "doubling"', id="no such DAG"),
        pytest.param({"resource": {"type": "start"}, "dag": "x" * 300}, f'"{"x" * 300}"', id="a name of no file"),
        pytest.param({"resource": {"type": "start"}, "input": 7}, "input", id="an input that is no object"),
    ],
)
def test_what_nothing_can_be_done_with_is_acknowledged_and_kept(server, message, says):
    port, bucket = server
    before = len(dead_letters(bucket))
    assert post(port, push(message, f"bad {says}"), CLOUD_EVENT) == 200
    letters = dead_letters(bucket)
    assert len(letters) == before + 1
    assert any(says in letter["error"] for letter in letters)


def test_what_is_not_ours_is_acknowledged_and_forgotten(server):
    port, bucket = server
    before = len(dead_letters(bucket))
    foreign = {"resource": {"type": "gce_instance"}, "textPayload": "hello"}
    assert post(port, push(foreign, "foreign"), CLOUD_EVENT) == 200
    assert len(dead_letters(bucket)) == before


def test_what_may_be_handled_later_is_not_acknowledged(server):
    port, _ = server
    young = push(
        {
            "resource": {"type": "dataflow_step", "labels": {"job_id": "j-1", "job_name": "orch-x-1-aa"}},
            "logName": "projects/p/logs/dataflow.googleapis.com%2Fjob-message",
            "textPayload": "Worker pool stopped.",
        },
        "young",
    )
    young["message"]["publishTime"] = "2126-01-01T00:00:00Z"
    assert post(port, young, CLOUD_EVENT) == 500
