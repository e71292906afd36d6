"""A schedule's message through the whole cloud, emulated: sent twice, as Cloud Scheduler may, it is one run."""

from datetime import UTC, datetime

import pytest

from orchestrator.model.ids import run_id_of, scheduled_start_of
from orchestrator.model.schedule import last_tick
from tests.support.cloud import Cloud
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture


def daily() -> dict:
    """A schedule whose ticks are hours away from now, so that none comes in the middle of the test."""
    hour = (datetime.now(UTC).hour + 12) % 24
    return {"schedule": f"30 {hour} * * *", "time_zone": "Etc/UTC"}


@pytest.fixture
def cloud(pubsub_emulator, tmp_path):
    with Cloud(pubsub_emulator, tmp_path, instances=2) as cloud:
        yield cloud


def test_a_schedules_start_that_is_published_twice_is_one_run_for_the_schedules_time(cloud):
    schedule = daily()
    due = last_tick(schedule["schedule"], schedule["time_zone"], datetime.now(UTC))
    run_id = run_id_of(scheduled_start_of("sample", due), due)
    for _ in range(2):
        cloud.publish({"resource": {"type": "start"}, "dag": "sample", **schedule})
    run = cloud.wait(run_id)["$run"]
    assert (run["status"], run["scheduled_for"]) == ("Completed", due.isoformat().replace("+00:00", "Z"))
    assert cloud.names("runs/") == [f"runs/{run_id}.json"]
    assert set(cloud.launches().values()) == {1}
    assert cloud.names("dead_letters/") == []
