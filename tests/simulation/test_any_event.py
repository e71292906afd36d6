"""Whatever a topic delivers, the function raises only what a later delivery can heal; the rest is a dead letter.

By hand, for longer: `FUZZ_EXAMPLES=5000 pytest tests/simulation/test_any_event.py`.
"""

import base64
import json
import os
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.errors import OrchestratorError
from orchestrator.runtime import gcp
from tests.strategies import mutations_of, odd_values
from tests.support.command_line import until

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
PAYLOADS = [json.loads(path.read_text()) for path in sorted((Path(__file__).parents[1] / "payloads").glob("*.json"))]

PASS = {"type": "Pass", "result": "${item}"}
DAGS = {
    "many": {
        "start": "M",
        "steps": {"M": {"type": "Map", "items": "${run.input.x}", "iterator": {"start": "I", "steps": {"I": PASS}}}},
    },
    "asks": {
        "max_active_runs": 2,
        "priority": 3,
        "triggers": [{"object": {"bucket": "landing"}, "input": {"x": "${event.name}"}}],
        "start": "Ask",
        "steps": {"Ask": {"type": "Task", "target_type": "Callback", "next": "Do"}, "Do": {"type": "End"}},
    },
    "pooled": {
        "input_schema": {"properties": {"x": {"type": "array"}}},
        "start": "A",
        "steps": {"A": {"type": "Task", "target_type": "Function", "function": "builtins:dict", "pool": "api"}},
    },
    "parent": {"start": "K", "steps": {"K": {"type": "Task", "target_type": "Dag", "target_name": "asks"}}},
}
OPEN = ("asked", "waiting", "kept")


def delivered(event: object) -> dict:
    data = base64.b64encode(json.dumps(event).encode("utf-8", "surrogatepass")).decode()
    return {"message": {"data": data, "messageId": f"m{crc32(data.encode())}", "publishTime": "2026-01-01T00:00:00Z"}}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An instance with three runs that wait for an answer, or their turn; returns messages that steer them."""
    folder = tmp_path_factory.mktemp("any_event")
    for name, definition in DAGS.items():
        (folder / "dags" / name).mkdir(parents=True)
        (folder / "dags" / name / "dag.json").write_text(json.dumps(definition))
    set_ = {
        "STATUS_BUCKET": f"file://{folder}/bucket",
        "DAG_DEFINITIONS": f"{folder}/dags",
        "POOLS": "api=1",
        "EVENT_GRACE": "100ms",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("EVENTS_TOPIC", raising=False)
        for name, value in set_.items():
            patch.setenv(name, value)
        patch.setattr(gcp, "_instance", gcp.Instance())
        for run_id in OPEN:
            gcp.handle(delivered({"resource": {"type": "start"}, "dag": "asks", "run_id": run_id}))
        path = folder / "bucket" / "runs" / "asked.json"
        until(lambda: "claim" in json.loads(path.read_text())["Ask"])
        token = json.loads(path.read_text())["Ask"]["claim"]["nonce"]
        yield list(messages(token))
        gcp.executor().close()


def messages(token: str):
    for dag in DAGS:
        yield {"resource": {"type": "start"}, "dag": dag, "input": {"x": [1, 2]}, "priority": 1}
    yield {"resource": {"type": "object"}, "bucket": "landing", "name": "a.csv", "generation": "1767225600000000"}
    for run_id in OPEN:
        about = {"run_id": run_id, "node_name": "Ask", "attempt": 1, "token": token}
        yield {"resource": {"type": "cancel"}, "run_id": run_id, "reason": "odd"}
        yield {"resource": {"type": "pause"}, "run_id": run_id}
        yield {"resource": {"type": "resume"}, "run_id": run_id}
        yield {"resource": {"type": "redrive"}, "run_id": run_id, "from": "Ask", "number": 1}
        yield {"resource": {"type": "callback"}, **about, "status": "Completed", "result": {"by": "anna"}}
        yield {"resource": {"type": "heartbeat"}, **about}


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(data=st.data())
def test_what_is_raised_can_be_healed_by_another_delivery(world, data):
    event = data.draw(mutations_of(PAYLOADS) | mutations_of(world) | odd_values)
    source = data.draw(st.sampled_from([None, "//pubsub.googleapis.com/projects/my-project/topics/orders", "x"]))
    try:
        gcp.handle(delivered(event), event_id="e", event_time="2026-01-01T00:00:00Z", source=source)
    except OrchestratorError as exc:
        if not exc.retry:
            raise


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(envelope=mutations_of([delivered({"resource": {"type": "tick"}})]) | odd_values)
def test_so_it_is_with_whatever_is_around_a_message(world, envelope):
    try:
        gcp.handle(envelope, event_id=None, event_time=None)
    except OrchestratorError as exc:
        if not exc.retry:
            raise
