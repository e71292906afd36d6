"""Deadlines: a run that has not ended by then is told of, once, and runs on."""

import logging
from datetime import timedelta

import pytest

from orchestrator.model.enums import RunStatus
from orchestrator.model.messages import start_message
from orchestrator.runtime.story import log_saved
from orchestrator.testing import fails, takes
from orchestrator.testing.simulation import Simulation
from tests.support.world import T0, World, chain

TOPIC = "projects/my-project/topics/alerts"
LATE = {**chain("A", "B"), "deadline": "2h", "notify": [{"on": ["late", "completed"], "topic": TOPIC}]}


def told(world):
    return [each.payload["event"] for each in world.notifications]


def test_a_run_that_has_not_ended_by_its_deadline_is_told_of_once_and_runs_on():
    world = Simulation(LATE, targets={"A": takes("5h")})
    run_id = world.start()
    world.forward("119m")
    assert told(world) == []
    world.forward("5m")
    assert told(world) == ["late"]
    run = world.run(run_id).state.run
    assert (run.status, run.is_late, run.deadline_at) == (RunStatus.RUNNING, True, T0 + timedelta(hours=2))
    (late,) = world.notifications
    assert late.payload["run"]["status"] == "Running"
    assert late.payload["run"]["ended_at"] is None
    assert late.payload["run"]["deadline_at"] == "2026-01-01T14:00:00Z"
    assert world.finish(run_id).status == "Completed"
    assert told(world) == ["late", "completed"]


def test_a_run_that_ends_in_time_is_not_told_of():
    world = Simulation(LATE, targets={"A": takes("1h")})
    world.finish(world.start())
    world.forward("2d")
    assert told(world) == ["completed"]


def test_a_run_that_ends_late_before_anybody_looked_is_told_of_all_the_same():
    world = World(LATE)
    run_id = world.start()
    world.end("A")
    world.clock.forward(7201)
    world.end("B")
    run = world.state(run_id).run
    assert (run.status, run.is_late) == (RunStatus.COMPLETED, True)
    assert [lost.event for lost in run.lost_notifications] == ["completed", "late"], "this world has no notifier"


@pytest.mark.parametrize(
    ("ago", "expected"),
    [
        pytest.param(timedelta(minutes=30), timedelta(minutes=90), id="it counts from the time that the run is for"),
        pytest.param(timedelta(days=300), timedelta(hours=2), id="where that had passed already, from its start"),
    ],
)
def test_a_scheduled_run_s_deadline(ago, expected):
    world = World(LATE)
    at = (T0 - ago).isoformat().replace("+00:00", "Z")
    handled = world.executor.execute({**start_message(), "scheduled_for": at}, message_id="m1", publish_time=T0)
    assert world.state(handled.run_id).run.deadline_at == T0 + expected


def test_a_paused_run_is_late_too():
    world = Simulation(LATE)
    run_id = world.start()
    world.pause(run_id)
    world.forward("3h")
    assert (world.run(run_id).status, told(world)) == ("Paused", ["late"])


def test_a_redriven_run_has_its_time_again():
    world = Simulation(LATE, targets={"B": fails(times=1).then(takes("5h"))})
    run_id = world.start()
    world.finish(run_id)
    world.forward("3d")
    assert told(world) == []
    world.redrive(run_id)
    world.forward("1h")
    assert told(world) == []
    world.finish(run_id)
    assert told(world) == ["late", "completed"]


def test_the_log_says_so_for_the_alert(caplog):
    caplog.set_level(logging.INFO)
    world = World(LATE)
    world.instances = [world.instance(on_saved=log_saved)]
    run_id = world.start()
    world.clock.forward(7300)
    world.executor.tick()
    world.clock.forward(60)
    world.executor.tick()
    said = [(x.levelname, x.getMessage()) for x in caplog.records if "run late" in x.getMessage()]
    assert said == [("WARNING", f"run late: {run_id} of dag: had not ended by 2026-01-01 14:00:00 UTC")]


def test_the_runs_and_the_status_of_a_late_run_say_so(capsys):
    from orchestrator.cli.about import about_lines
    from orchestrator.cli.bucket import Bucket
    from orchestrator.cli.console import Console
    from orchestrator.cli.lines import plain
    from orchestrator.cli.runs import runs

    world = World(LATE)
    run_id = world.start()
    world.clock.forward(7300)
    world.executor.tick()
    bucket = Bucket("memory://", world.store)
    runs(Console(), bucket, limit=5, is_json=False, now=world.clock.now())
    assert "Running, late" in capsys.readouterr().out
    lines = [plain(line) for line in about_lines(world.state(run_id), bucket)]
    assert "late: had not ended by 2026-01-01 14:00:00 UTC" in lines
