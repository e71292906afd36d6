"""A step with a `heartbeat`: an attempt that is silent for too long is given up, one that is heard of is not."""

import json
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from orchestrator.model.commands import Outcome
from orchestrator.model.definition import problems
from orchestrator.model.errors import LaunchUncertain
from orchestrator.model.messages import heartbeat_message, reminder_message
from orchestrator.model.task_result import TaskProgress, progress_object
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.testing import Simulation, fails, in_turn, never_ends, returns, simulate, takes
from tests.support.world import NotedTarget, World, dag, parallel

ROOT = Path(__file__).resolve().parents[2]


def step(**keys):
    return {"type": "Task", "target_type": "CloudFunction", "target_name": "f", "heartbeat": "6m", **keys}


def due(world, run_id):
    node = world.state(run_id).nodes["A"]
    return (node.due["heartbeat"] - node.started_at).total_seconds() / 60


def minute(world, number):
    world.clock.forward_to(world.state("r").run.started_at + timedelta(minutes=number))


def a_world(**target):
    world = World(dag(A=step(timeout="10h")), target=NotedTarget(**target))
    assert world.start(run_id="r") == "r"
    return world


def beat(world, launch, at=None):
    world.executor.execute(heartbeat_message(launch.launch_id, launch.nonce), publish_time=at or world.clock.now())


# -- on a virtual clock ----------------------------------------------------------------------------------


def test_an_attempt_that_falls_silent_is_cancelled_and_the_next_one_is_started():
    definition = dag(A=step(retry={"errors": ["Task.Heartbeat"], "max_attempts": 2, "delay": "1s"}))
    world = Simulation(definition, targets={"A": in_turn(never_ends(), returns(7))}, cannot_be_cancelled=())
    run = world.finish(world.start())
    assert (run.status, run.node("A").attempt, len(run.cancelled("A"))) == ("Completed", 2, 1)
    assert timedelta(minutes=8) <= run.took <= timedelta(minutes=10)


def test_it_fails_with_an_error_of_its_own_that_can_be_routed():
    definition = dag(
        A=step(on_error=[{"errors": ["Task.Heartbeat"], "next": "B"}]), B={"type": "Pass", "result": "${error.message}"}
    )
    assert simulate(definition, targets={"A": never_ends()}).result("B") == "A: was not heard of for 360 s"


@pytest.mark.parametrize("without_outcome", [set(), {"CloudFunction"}])
def test_an_attempt_that_is_heard_of_may_take_as_long_as_its_timeout(without_outcome):
    world = Simulation(dag(A=step(timeout="10d")), targets={"A": takes("3d")}, without_outcome=without_outcome)
    assert world.finish(world.start()).status == "Completed"


def test_it_is_given_up_a_third_later_than_it_says_at_the_latest_and_never_before():
    for silent_after in range(0, 30, 3):
        run = simulate(dag(A=step()), targets={"A": takes("3d").silent_after(f"{silent_after}m")})
        assert run.error.error_type == "Task.Heartbeat"
        silence = run.took - timedelta(minutes=silent_after)
        assert timedelta(minutes=6) <= silence <= timedelta(minutes=6 + 2 + 1)  # and until the next Tick


def test_an_attempt_that_ended_while_nobody_listened_has_ended():
    world = Simulation(dag(A=step()), targets={"A": takes("1m").without_event().silent_after("0s")})
    assert world.finish(world.start()).status == "Completed"


def test_what_cannot_be_cancelled_is_given_up_all_the_same():
    run = simulate(dag(A=step()), targets={"A": never_ends()})
    assert (run.status, run.error.error_type) == ("Failed", "Task.Heartbeat")


def test_a_failure_of_the_attempt_itself_is_not_hidden():
    run = simulate(dag(A=step()), targets={"A": fails("Own.Error").after("5m")})
    assert run.error.error_type == "Own.Error"


class Deaf(NotedTarget):
    """A target that cannot tell when it was heard of what it runs, while `is_deaf`."""

    is_deaf = True

    def heard_at(self, launch):
        if self.is_deaf:
            raise LaunchUncertain("503")


def test_an_attempt_of_which_that_cannot_be_told_now_holds_up_nothing_else_and_is_not_given_up_yet():
    definition = dag(P=parallel(dag(A=step()), dag(B={"type": "Wait", "for": "5m"})))
    world = World(definition, target=Deaf(has_outcome=True))
    world.start(run_id="r")
    minute(world, 60)
    assert world.executor.tick().problems == ()
    assert {name: node.status for name, node in world.state("r").nodes.items() if name != "P"} == {
        "A": "Running",
        "B": "Completed",
    }
    world.target.is_deaf = False
    world.executor.tick()
    assert world.state("r").nodes["A"].error.error_type == "Task.Heartbeat"


# -- by message ------------------------------------------------------------------------------------------


def test_a_message_moves_the_end_on_and_many_of_them_cost_a_save_a_third_of_the_time():
    world = a_world()
    (launch,) = world.target.calls
    assert due(world, "r") == 8
    saves = len(world.saved)
    for _ in range(36):
        world.clock.forward(10)
        beat(world, launch)
    assert len(world.saved) - saves == 3
    assert due(world, "r") == 6 + 8


@pytest.mark.parametrize("minutes", [0.5, 1.9])
def test_a_message_that_was_not_worth_a_save_still_counts(minutes):
    world = a_world()
    minute(world, minutes)
    beat(world, world.target.calls[0])
    minute(world, minutes + 5.9)
    world.executor.tick()
    assert world.state("r").nodes["A"].status == "Running"


def test_a_message_without_the_nonce_or_of_another_attempt_changes_nothing():
    world = a_world()
    (launch,) = world.target.calls
    saves = len(world.saved)
    minute(world, 5)
    world.executor.execute(heartbeat_message(launch.launch_id, "0" * 32))
    world.executor.execute(heartbeat_message("r/A/2", launch.nonce))
    world.end("A", Outcome.completed())
    beat(world, launch)
    assert [due for state in world.saved[saves:] for due in state.nodes["A"].due] == []
    assert world.state("r").run.status == "Completed"


def test_a_message_from_the_future_counts_for_now_and_an_old_one_takes_nothing_back():
    world = a_world()
    (launch,) = world.target.calls
    minute(world, 4)
    beat(world, launch, at=world.clock.now() + timedelta(days=1))
    assert due(world, "r") == 4 + 8
    beat(world, launch, at=world.clock.now() - timedelta(minutes=4))
    assert due(world, "r") == 4 + 8


# -- by the bucket, as `orchestrator.tasks` leaves it ------------------------------------------------------


def said(world, launch, at):
    data = msgspec.json.encode(TaskProgress(fraction=0.5, message="", at=at))
    found = world.store.get(progress_object(launch.key))
    world.store.put(progress_object(launch.key), data, expect=found[1] if found else None)


def test_what_stands_in_the_bucket_is_read_when_the_time_has_come_and_not_before():
    world = a_world(has_outcome=True)
    (launch,) = world.target.calls
    minute(world, 7)
    said(world, launch, world.clock.now())
    world.executor.tick()
    assert due(world, "r") == 8
    minute(world, 8)
    world.executor.tick()
    assert (due(world, "r"), world.state("r").nodes["A"].status) == (7 + 8, "Running")
    minute(world, 15)
    world.executor.tick()
    assert world.state("r").run.error.error_type == "Task.Heartbeat"


def test_a_reminder_that_somebody_makes_up_gives_nothing_up():
    world = a_world()
    node = world.state("r").nodes["A"]
    minute(world, 9)
    said(world, world.target.calls[0], world.clock.now())
    world.executor.execute(reminder_message("r", "A", 1, "heartbeat", node.due["heartbeat"]))
    assert world.state("r").nodes["A"].status == "Running"


def test_what_is_spoilt_there_is_as_if_nothing_were():
    world = a_world()
    world.store.put(progress_object(world.target.calls[0].key), b"{", expect=None)
    minute(world, 8)
    world.executor.tick()
    assert world.state("r").run.error.error_type == "Task.Heartbeat"


# -- for real, on this machine -----------------------------------------------------------------------------

FUNCTION = """
import time
from orchestrator.tasks import Context, heartbeat, task

@task
def main(beats: int, context: Context) -> int:
    for number in range(beats):
        heartbeat()
        time.sleep(0.2)
    if beats < 10:
        time.sleep(60)
    return beats
"""


@pytest.mark.parametrize("with_bucket", [False, True])
def test_a_function_on_this_machine_is_heard_of_with_or_without_a_bucket_of_its_own(tmp_path, monkeypatch, with_bucket):
    if with_bucket:
        monkeypatch.setenv("STATUS_BUCKET", f"file://{tmp_path}/bucket")
    source = tmp_path / "functions/f/main.py"
    source.parent.mkdir(parents=True)
    source.write_text(FUNCTION)
    loud = step(heartbeat="1500ms", parameters={"beats": 15}, next="Silent")
    silent = step(heartbeat="1500ms", parameters={"beats": 2})
    definition = dag(Loud=loud, Silent=silent)
    with DAGExecutor({"d": definition}, f"file://{tmp_path}/bucket", folders={"d": tmp_path}) as executor:
        run = executor.wait(executor.start(), timeout_s=60)
    assert (run.nodes["Loud"].status, run.nodes["Loud"].result) == ("Completed", 15)
    assert run.nodes["Silent"].error.error_type == "Task.Heartbeat"


def test_the_limits_are_said_as_the_page_quotes_them():
    page = (ROOT / "docs/tasks.md").read_text()
    quoted = set(re.findall(r"`(steps\.A\.heartbeat: .*?)`(?: \||$)", page, re.MULTILINE))
    corpus = (ROOT / "tests/definitions/invalid").glob("heartbeat_*.json")
    said = {problem for path in corpus for problem in problems(json.loads(path.read_text()))}
    assert quoted == said - {'steps.A.heartbeat: must be a duration as in "90s", not a number'}


def test_a_pause_does_not_count_for_what_could_not_be_launched_in_it():
    world = World(dag(A=step(timeout="10h")), target=NotedTarget())
    tries = []

    def lost(launch):
        tries.append(launch)
        if len(tries) == 1:
            raise LaunchUncertain("killed before it got through")

    world.target.before_launch = lost
    world.start(run_id="r")
    world.executor.execute({"resource": {"type": "pause"}, "run_id": "r"}, publish_time=world.clock.now())
    minute(world, 30)
    world.executor.tick()
    assert (world.state("r").nodes["A"].status, len(tries)) == ("Running", 1)
    world.executor.execute({"resource": {"type": "resume"}, "run_id": "r"}, publish_time=world.clock.now())
    assert due(world, "r") == 30 + 8
    world.executor.tick()
    assert (world.state("r").nodes["A"].status, len(tries)) == ("Running", 2)
