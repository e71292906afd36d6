"""The runtime of the Cloud Function."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

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
