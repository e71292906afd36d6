"""Whole runs in the emulated cloud whose bucket is a real Redis server."""

import json
import time

import pytest

from orchestrator.stores.redis import RedisStore
from tests.support.cloud import Cloud
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture
from tests.support.redis_server import RedisServer

HELD = """
import time
from pathlib import Path

def main(request):
    gate = Path(request.get_json()["gate"])
    gate.with_name("begun").touch()
    while not gate.exists():
        time.sleep(0.02)
    return {}
"""
STEP = {
    "type": "Task",
    "target_type": "CloudFunction",
    "target_name": "held",
    "parameters": {"gate": "${run.input.gate}"},
}
WAITS = {"start": "First", "steps": {"First": {**STEP, "next": "Second"}, "Second": STEP}}


@pytest.fixture
def redis_server():
    if not RedisServer.is_installed():
        pytest.skip("there is no redis-server on the PATH; apt-get install redis-server")
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction") as server:
        yield server


@pytest.fixture
def cloud(pubsub_emulator, redis_server, tmp_path):
    with Cloud(pubsub_emulator, tmp_path, instances=2, settings={"STATUS_BUCKET": redis_server.url}) as cloud:
        yield cloud


def until(condition, timeout_s: float = 60.0):
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.05)
    return found


def document(store: RedisStore, run_id: str) -> dict | None:
    found = store.get(f"runs/{run_id}.json")
    return json.loads(found[0]) if found else None


def test_a_run_goes_through_and_its_marker_is_cleared(cloud, redis_server):
    store = RedisStore(redis_server.url)
    cloud.publish({"resource": {"type": "start"}, "dag": "sample", "run_id": "in-redis"})
    until(lambda: (document(store, "in-redis") or {"$run": {"status": ""}})["$run"]["status"] == "Completed")
    ended = document(store, "in-redis")
    assert {entry["status"] for name, entry in ended.items() if name != "$run"} == {"Completed"}
    assert set(cloud.launches().values()) == {1}
    assert cloud.names("") == []  # nothing lies in the other bucket
    assert list(store.list("open/")) == ["open/in-redis"]
    cloud.tick()
    until(lambda: not list(store.list("open/")))


def test_a_run_that_the_server_kept_through_its_restart_goes_on(pubsub_emulator, redis_server, tmp_path):
    gate, source = tmp_path / "gate", tmp_path / "dags" / "held" / "functions" / "held"
    source.mkdir(parents=True)
    (source / "main.py").write_text(HELD)
    (tmp_path / "dags" / "held" / "dag.json").write_text(json.dumps(WAITS))
    store = RedisStore(redis_server.url)
    settings = {"STATUS_BUCKET": redis_server.url}
    with Cloud(pubsub_emulator, tmp_path, dags=tmp_path / "dags", instances=2, settings=settings) as cloud:
        cloud.publish({"resource": {"type": "start"}, "run_id": "restarted", "input": {"gate": str(gate)}})
        until(gate.with_name("begun").exists)  # First was launched, and waits for the gate
        redis_server.stop()
        redis_server.start()
        kept = document(store, "restarted")
        assert (kept["First"]["status"], kept["Second"]["status"]) == ("Running", "New")
        gate.touch()
        until(lambda: document(store, "restarted")["$run"]["status"] == "Completed")
        assert set(cloud.launches().values()) == {1}
