"""Runs that a schedule starts: one a tick, however often the tick is sent, and each knows for when it is."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.model.run_document import encode
from tests.support.world import T0, World, dag, task

NOON = {"schedule": "0 12 * * *", "time_zone": "Etc/UTC"}
DAILY = dag(A=task(parameters={"day": "${run.scheduled_for}", "text": "for ${run.scheduled_for}"}))


def document(world: World, run_id: str) -> dict:
    return json.loads(encode(world.state(run_id)))


def test_a_tick_that_is_sent_twice_is_one_run():
    world = World(DAILY)
    first = world.start("m1", **NOON)
    world.clock.forward(20)
    assert world.start("m2", **NOON) == first
    assert len(world.target.calls) == 1


def test_two_instances_that_get_the_same_tick_make_one_run():
    world = World(DAILY, instances=2)
    message = {"resource": {"type": "start"}, **NOON}
    runs = {
        instance.execute(message, message_id=f"m{number}", publish_time=T0 + timedelta(seconds=number)).run_id
        for number, instance in enumerate(world.instances)
    }
    assert len(runs) == len(world.target.calls) == 1


def test_the_next_tick_is_the_next_run():
    world = World(DAILY)
    first = world.start("m1", **NOON)
    world.clock.forward(24 * 3600)
    assert world.start("m2", **NOON) != first
    assert len(world.target.calls) == 2


def test_the_run_knows_for_when_it_is():
    world = World(DAILY)
    world.clock.forward(17)
    run_id = world.start("m1", **NOON)
    run = document(world, run_id)["$run"]
    assert run["scheduled_for"] == "2026-01-01T12:00:00Z"
    assert run["started_at"] == "2026-01-01T12:00:17Z"
    (launch,) = world.target.calls
    assert launch.parameters == {"day": "2026-01-01T12:00:00Z", "text": "for 2026-01-01T12:00:00Z"}


def test_its_run_id_says_for_when_it_is():
    assert World(DAILY).start("m1", **NOON).startswith(f"run_{int(T0.timestamp())}_")


def test_a_run_by_hand_is_for_no_time():
    world = World(DAILY)
    run_id = world.start("m1")
    assert "scheduled_for" not in document(world, run_id)["$run"]
    assert world.target.calls[0].parameters == {"day": None, "text": "for null"}


def test_a_start_by_hand_makes_up_for_a_tick_that_never_came_and_only_once():
    world = World(DAILY)
    yesterday = {"scheduled_for": "2025-12-31T12:00:00Z"}
    run_id = world.start("m1", **yesterday)
    assert world.start("m2", **yesterday) == run_id
    assert world.state(run_id).run.scheduled_for == datetime(2025, 12, 31, 12, tzinfo=UTC)
    assert len(world.target.calls) == 1


def test_a_start_by_hand_for_the_time_of_a_tick_is_that_ticks_run():
    world = World(DAILY)
    by_hand = world.start("m1", scheduled_for="2026-01-01T13:00:00+01:00")
    assert world.start("m2", **NOON) == by_hand


def test_two_dags_of_one_schedule_are_two_runs():
    world = World({"one": DAILY, "two": DAILY})
    assert world.start("m1", dag="one", **NOON) != world.start("m2", dag="two", **NOON)
    assert len(world.target.calls) == 2


@pytest.mark.parametrize(
    ("published", "runs"),
    [
        pytest.param(["2026-03-29T00:30Z", "2026-03-29T01:00Z", "2026-03-29T01:30Z"], 3, id="a skipped hour has none"),
        pytest.param(["2026-10-25T00:30Z", "2026-10-25T01:30Z", "2026-10-25T02:30Z"], 3, id="a repeated hour has two"),
    ],
)
def test_over_a_change_of_the_clock_each_tick_is_a_run(published, runs):
    world = World(DAILY)
    message = {"resource": {"type": "start"}, "schedule": "*/30 * * * *", "time_zone": "Europe/Berlin"}
    for number, text in enumerate(published):
        world.executor.execute(message, message_id=f"m{number}", publish_time=datetime.fromisoformat(text))
    assert len(world.target.calls) == runs
