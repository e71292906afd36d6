"""A Tick over many runs: none is held up by another's call or question, and none is left out for good."""

from threading import Barrier, Event, Thread

import pytest

from orchestrator.engine import leading
from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import CorruptState, LaunchUncertain
from orchestrator.model.slots import decode
from orchestrator.runtime.cloud import CloudParts
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.settings import Settings
from orchestrator.stores.memory import MemoryStore
from tests.support.world import START, KeptBroker, NotedTarget, World, chain, dag, task

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
    while not (swept := world.executor.tick()).runs:  # the first one is still taking runs up
        called.wait(0.001)
    assert swept.runs == RUNS
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


# -- a call that does not return ----------------------------------------------------------------------------

HANGS_S = 240.0 + 60.0 + 30.0
"""A Tick's budget, and the shortest lease with its margin."""


class Hanging:
    """Holds whoever calls it while it is closed, once."""

    def __init__(self) -> None:
        self.is_called, self.opens = Event(), Event()

    def __call__(self) -> None:
        if not self.is_called.is_set():
            self.is_called.set()
            assert self.opens.wait(60)


@pytest.fixture
def hanging():
    """One that is opened in the end."""
    found = Hanging()
    yield found
    found.opens.set()


def hung(world: World, hanging: Hanging) -> Thread:
    """A Tick that hangs."""
    ticking = Thread(target=world.executor.tick)
    ticking.start()
    assert hanging.is_called.wait(60)
    return ticking


@pytest.mark.parametrize("questions_at_once", [1, 4])
def test_a_tick_that_hangs_in_a_question_keeps_the_next_ones_out_for_a_while_only(questions_at_once, hanging):
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task("B"), B=task(None)), target=target, questions_at_once=questions_at_once)
    runs = [world.start(f"m{n}") for n in range(RUNS)]
    answer = target.outcome

    def outcome(execution):
        hanging()
        return answer(execution)

    target.outcome = outcome
    ticking = hung(world, hanging)
    for launch in target.of("A"):
        target.outcomes[f"x-{launch.key}"] = Outcome.completed()
    world.clock.forward(HANGS_S - 1)
    assert world.executor.tick().runs == 0  # the first one may be at it still
    world.clock.forward(1)
    assert world.executor.tick().runs == RUNS
    is_done = [world.state(run_id).nodes["A"].status.is_final for run_id in runs]
    assert is_done.count(False) == 1  # left to the thread that hangs at it
    world.clock.forward(60)
    assert world.executor.tick().runs == RUNS  # each minute again
    world.clock.forward(10 * HANGS_S)
    world.executor.tick()
    assert all(world.state(run_id).nodes["A"].status.is_final for run_id in runs)  # it does not answer any more
    hanging.opens.set()
    ticking.join(60)
    assert sorted(target.nodes) == ["A"] * RUNS + ["B"] * RUNS


def test_a_run_that_a_thread_hangs_at_while_it_leads_it_holds_up_no_other_one(hanging):
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task()), target=target)
    runs = [world.start(f"m{n}") for n in range(RUNS)]
    for launch in target.calls:
        target.outcomes[f"x-{launch.key}"] = Outcome.completed()
    put = world.store.put

    def slow(key, *args, **options):
        hanging()
        return put(key, *args, **options)

    world.store.put = slow
    ticking = hung(world, hanging)
    world.clock.forward(HANGS_S)
    assert world.executor.tick().runs == RUNS
    assert statuses(world, runs).count("Completed") == RUNS - 1
    runs.append(world.start("late"))
    target.outcomes[f"x-{target.calls[-1].key}"] = Outcome.completed()
    world.clock.forward(60)
    assert world.executor.tick().runs > 0  # each minute again
    assert statuses(world, runs).count("Completed") == RUNS
    hanging.opens.set()
    ticking.join(60)
    assert statuses(world, runs) == ["Completed"] * (RUNS + 1)


def test_the_next_tick_begins_behind_the_run_that_one_without_time_hangs_at(hanging):
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task()), target=target, tick_budget_s=25.0)
    for n in range(RUNS):
        world.start(f"m{n}")
    asked: list[str] = []

    def outcome(execution):
        asked.append(execution.execution_id)
        hanging()
        world.clock.forward(10)

    target.outcome = outcome
    ticking = hung(world, hanging)
    world.clock.forward(25 + 60 + 30)
    world.executor.tick()
    assert len(asked) == len(set(asked)) == 1 + 3
    hanging.opens.set()
    ticking.join(60)


def test_the_next_tick_does_not_notify_for_a_run_that_a_thread_hangs_at_notifying_for(hanging):
    told: list[str] = []

    class Topic:
        def notify(self, notification):
            told.append(notification.run_id)
            if len(told) == 2:  # the first time somebody is killed, and the Tick tries again
                hanging()
            raise RuntimeError("killed")

    noticed = {**chain("A"), "notify": [{"on": ["started"], "topic": "projects/p/topics/alerts"}]}
    world = World(noticed)
    world.instances = [world.instance(notifier=Topic())]
    run_id = world.start()
    world.clock.forward(100)
    ticking = hung(world, hanging)
    world.clock.forward(100)  # its lease is over
    assert world.executor.tick().runs == 1
    assert told == [run_id] * 2
    world.clock.forward(10 * HANGS_S)
    world.executor.tick()
    assert told == [run_id] * 3
    hanging.opens.set()
    ticking.join(60)
    assert not ticking.is_alive()


def test_a_run_that_a_thread_hangs_at_while_it_lets_it_in_holds_up_no_other_one(hanging):
    world = World({**chain("A"), "max_active_runs": 2})
    runs = [world.start(f"m{n}") for n in range(2)]
    waiting = world.start("m2")
    world.target.outcomes = {}
    put = world.store.put

    def slow(key, *args, **options):
        if key == f"runs/{waiting}.json":
            hanging()
        return put(key, *args, **options)

    world.store.put = slow
    world.store.delete(f"runs/{runs[0]}.json")  # it is gone without having given its slot back
    ticking = hung(world, hanging)
    holders = {place.run_id for place in decode(world.store.get("slots/dag/dag.json")[0], "dag/dag").held}
    assert holders == {runs[1], waiting}
    world.clock.forward(HANGS_S)
    again = Thread(target=world.executor.tick)
    again.start()
    again.join(10)
    assert not again.is_alive()
    hanging.opens.set()
    ticking.join(60)
    again.join(60)
    assert world.state(waiting).run.status == "Running"


def test_a_run_that_is_left_to_a_thread_that_hangs_at_it_is_said_to_be(hanging, caplog):
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task()), target=target)
    run_id = world.start()
    target.outcome = lambda execution: hanging()
    ticking = hung(world, hanging)
    world.clock.forward(HANGS_S)
    said = f"run {run_id}: a thread of an earlier Tick is at it still, and it is left to that for now"
    assert world.executor.tick().problems == (f"{run_id}: {said}",)
    assert [line.getMessage() for line in caplog.records] == [f"tick: {said}"]
    hanging.opens.set()
    ticking.join(60)
    assert world.executor.tick().problems == ()


# -- targets that are not used ---------------------------------------------------------------------------


def test_a_tick_makes_no_target_that_no_run_uses_so_that_none_that_cannot_be_made_keeps_it_from_the_runs():
    settings = Settings.read(
        {"EVENTS_TOPIC": "projects/p/topics/t", "GOOGLE_CLOUD_PROJECT": "p"}
    )  # no queue, no region
    world = World(chain("A"))
    store = MemoryStore()
    targets = CloudParts(settings, store, world.clock, {}).targets
    with DAGExecutor(chain("A"), store=store, targets=targets, broker=KeptBroker(), settings=settings) as executor:
        executor.execute(START, message_id="m1")
        assert executor.tick().runs == 1
    assert targets._made.keys() == {"Function"}
