"""A Tick over many runs: none is held up by another's call or question, and none is left out for good."""

from threading import Barrier, Event, Thread

import pytest

from orchestrator.engine import leading
from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import CorruptState, LaunchUncertain
from tests.support.world import NotedTarget, World, dag, task

RUNS = 6


class SlowTarget(NotedTarget):
    """A target whose launch call takes as long as the execution: at first it fails, then it waits for `meets`."""

    identity = Identity.NONE
    synchronous = True
    launch_limit_s = 5.0

    def __init__(self) -> None:
        super().__init__()
        self.meets = None

    def launch(self, launch):
        self.calls.append(launch)
        if self.meets is None:
            raise LaunchUncertain("its instance died")
        self.meets()
        return Execution(launch.key, None, Outcome.completed())

    def find(self, launch):
        return None


def world_of_expired_claims(**policy) -> tuple[World, list[str]]:
    world = World(dag(A=task()), target=SlowTarget(), **policy)
    runs = [world.start(f"m{n}") for n in range(RUNS)]
    world.clock.forward(1000)
    return world, runs


def statuses(world: World, runs: list[str]) -> list[str]:
    return [world.state(run_id).run.status.value for run_id in runs]


@pytest.mark.parametrize("questions_at_once", [1, 4])
def test_calls_that_take_long_are_made_side_by_side_though_they_are_of_several_runs(questions_at_once):
    world, runs = world_of_expired_claims(questions_at_once=questions_at_once)
    world.target.meets = Barrier(RUNS, timeout=60).wait  # broken, unless all are being made at once
    assert len(world.executor.tick().recovered) == RUNS
    assert statuses(world, runs) == ["Completed"] * RUNS


def test_the_next_tick_does_not_wait_for_the_calls_of_the_one_before():
    world, runs = world_of_expired_claims()
    called, gate = Event(), Event()

    def hang():
        called.set()
        assert gate.wait(10)

    world.target.meets = hang
    ticking = Thread(target=world.executor.tick)
    ticking.start()
    assert called.wait(10)
    while world.executor._ticker._at_it.locked():  # the first one is still taking runs up
        called.wait(0.001)
    assert world.executor.tick().runs == RUNS
    assert ticking.is_alive()
    gate.set()
    ticking.join(10)
    assert statuses(world, runs) == ["Completed"] * RUNS


def test_with_very_many_such_calls_the_tick_itself_makes_some(monkeypatch):
    monkeypatch.setattr(leading, "MAX_APART", 2)
    world, runs = world_of_expired_claims()
    world.target.meets = lambda: None
    world.executor.tick()
    assert statuses(world, runs) == ["Completed"] * RUNS


def test_runs_are_asked_about_side_by_side():
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task()), target=target, questions_at_once=4)
    runs = [world.start(f"m{n}") for n in range(4)]
    together = Barrier(4, timeout=60)

    def outcome(execution):
        together.wait()
        return Outcome.completed()

    target.outcome = outcome
    world.executor.tick()
    assert statuses(world, runs) == ["Completed"] * 4


@pytest.mark.parametrize("questions_at_once", [1, 4])
def test_a_run_that_fails_fails_alone(questions_at_once):
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task()), target=target, questions_at_once=questions_at_once)
    runs = [world.start(f"m{n}") for n in range(RUNS)]
    target.outcomes = {f"x-{launch.key}": Outcome.completed() for launch in target.calls}
    spoilt = world.store.get(f"runs/{runs[2]}.json")[1]
    world.store.put(f"runs/{runs[2]}.json", b"{", expect=spoilt)
    swept = world.executor.tick()
    assert len(swept.problems) == 1
    assert swept.problems[0].startswith(f"{runs[2]}: runs/{runs[2]}.json: is not a run document")
    with pytest.raises(CorruptState):
        world.state(runs[2])
    assert statuses(world, runs[:2] + runs[3:]) == ["Completed"] * (RUNS - 1)


class TimeTarget(NotedTarget):
    """A question to it takes ten seconds."""

    def __init__(self) -> None:
        super().__init__(has_outcome=True)
        self.asked = []

    def outcome(self, execution):
        self.world.clock.forward(10)
        self.asked.append(execution.execution_id)


def world_of_slow_questions(instances=1) -> tuple[World, TimeTarget]:
    target = TimeTarget()
    world = World(dag(A=task()), target=target, instances=instances, tick_budget_s=25.0)
    target.world = world
    for n in range(7):
        world.start(f"m{n}")
    world.clock.forward(30)
    return world, target


def test_a_tick_that_did_not_get_done_is_gone_on_with_by_the_next_one():
    world, target = world_of_slow_questions()
    swept = [world.executor.tick() for _ in range(3)]
    assert [(each.runs, each.left) for each in swept] == [(3, 4)] * 3
    assert len(set(target.asked[:7])) == 7
    assert target.asked[7:] == target.asked[:2]  # and round again


def test_instances_that_are_new_at_each_tick_come_to_all_runs_all_the_same():
    world, target = world_of_slow_questions(instances=12)
    for instance in world.instances:
        instance.tick()
    assert len(set(target.asked)) == 7


def test_a_tick_that_gets_done_leaves_nothing():
    world = World(dag(A=task()))
    world.start("m1")
    swept = world.executor.tick()
    assert (swept.runs, swept.left) == (1, 0)


def test_a_problem_that_lasts_is_logged_at_once_and_then_every_ten_minutes(caplog):
    world = World(dag(A=task()))
    run_id = world.start("m1")
    content, version = world.store.get(f"runs/{run_id}.json")
    version = world.store.put(f"runs/{run_id}.json", b"{", expect=version)

    def minutes(count: int) -> int:
        """Tick for so many minutes, and return how often the problem was logged in them."""
        caplog.clear()
        for _ in range(count):
            assert len(world.executor.tick().problems) == 1
            world.clock.forward(60)
        return len([record for record in caplog.records if "is not a run document" in record.getMessage()])

    assert [minutes(10), minutes(1), minutes(9), minutes(1)] == [1, 1, 0, 1]
    version = world.store.put(f"runs/{run_id}.json", content, expect=version)
    assert world.executor.tick().problems == ()
    version = world.store.get(f"runs/{run_id}.json")[1]
    world.store.put(f"runs/{run_id}.json", b"{", expect=version)
    assert minutes(1) == 1  # it is another one
