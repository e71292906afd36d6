"""The runtime of the Cloud Function."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier

import pytest

from orchestrator.model.errors import NotYet, StoreUnavailable
from orchestrator.runtime import gcp
from orchestrator.runtime.executor import DAGExecutor


@pytest.fixture
def cold(monkeypatch, tmp_path):
    """An instance that has handled nothing yet."""
    monkeypatch.setenv("STATUS_BUCKET", f"file://{tmp_path}")
    monkeypatch.delenv("EVENTS_TOPIC", raising=False)
    monkeypatch.setattr(gcp, "_instance", gcp.Instance())


def test_a_cold_instance_that_is_sent_many_events_at_once_makes_one_executor_for_all(cold):
    barrier = Barrier(16)

    def first_event(_: int) -> DAGExecutor:
        barrier.wait()
        return gcp.executor()

    with ThreadPoolExecutor(16) as pool:
        assert len({id(found) for found in pool.map(first_event, range(16))}) == 1


def test_settings_that_are_wrong_are_read_again_for_the_next_event(cold, monkeypatch):
    monkeypatch.setenv("LAUNCH_LEASE", "soon")
    for _ in range(2):
        with pytest.raises(Exception, match="LAUNCH_LEASE"):
            gcp.executor()
    monkeypatch.delenv("LAUNCH_LEASE")
    assert gcp.executor() is gcp.executor()


UNKNOWN = {"resource": {"type": "start"}, "dag": "no-such-dag"}


def message(event: object) -> dict:
    data = base64.b64encode(json.dumps(event).encode()).decode()
    return {"message": {"data": data, "messageId": "m7", "publishTime": "2026-01-01T00:00:00Z"}}


def test_what_can_never_be_handled_is_acknowledged_and_kept(cold):
    assert gcp.handle(message(UNKNOWN)) is None
    (key,) = gcp.executor().store.list("dead_letters/")
    assert json.loads(gcp.executor().store.get(key)[0])["event"] == UNKNOWN


def test_what_can_never_be_handled_and_not_be_kept_now_is_delivered_again(cold, monkeypatch):
    store, put = gcp.executor().store, gcp.executor().store.put
    faults = [StoreUnavailable("gs://b/dead_letters: cannot be written: 503")]

    def failing(key: str, data: bytes, *, expect: str | None) -> str:
        if key.startswith("dead_letters/") and faults:
            raise faults.pop()
        return put(key, data, expect=expect)

    monkeypatch.setattr(store, "put", failing)
    with pytest.raises(StoreUnavailable):
        gcp.handle(message(UNKNOWN))
    assert gcp.handle(message(UNKNOWN)) is None
    assert len(list(store.list("dead_letters/"))) == 1


def test_what_can_never_be_kept_is_logged_as_far_as_it_goes_into_a_line(cold, caplog):
    gcp.executor()
    caplog.set_level("ERROR", "orchestrator")
    half = {"message": {"data": 7, "messageId": "m8", "attributes": {"x": "\ud800" + "y" * 9000}}}
    assert gcp.handle(half) is None
    assert list(gcp.executor().store.list("dead_letters/")) == []
    (line,) = [record.getMessage() for record in caplog.records if "cannot be kept" in record.getMessage()]
    assert "'messageId': 'm8'" in line
    assert len(line) < 1500


@pytest.mark.parametrize(
    ("published", "text"),
    [("2026-01-01T00:00:00Z", "acknowledged, but not handled: "), ("9999-01-01T00:00:00Z", "put off: ")],
)
def test_what_is_put_off_or_given_up_is_found_by_its_run(cold, caplog, published, text):
    event = message({"resource": {"type": "cancel"}, "run_id": "r1"})
    event["message"]["publishTime"] = published
    with suppress(NotYet):
        gcp.handle(event)
    (record,) = [record for record in caplog.records if record.getMessage().startswith(text)]
    assert (record.run_id, record.event_id) == ("r1", "m7")
