"""A run that is cancelled, before it is there, while it runs and after a kill: what runs is stopped, nothing starts."""

import pytest

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import LaunchUncertain, NotYet, RunNotFound, SettingsError
from orchestrator.model.messages import cancel_message, reminder_message
from orchestrator.testing import Simulation, fails, takes
from tests.support.world import T0, NotedTarget, World, chain, completion, dag, parallel, task

FORK = dag(Init=task("Fork"), Fork=parallel(chain("Left"), chain("Right", "Rest"), next="Join"), Join=task())

EARLY = {
    "a cancel": cancel_message("mine", "wrong day"),
    "a reminder": reminder_message("mine", "A", 1, kind="timeout", at=T0),
}


@pytest.mark.parametrize("event", [pytest.param(event, id=name) for name, event in EARLY.items()])
def test_what_overtakes_its_start_is_put_off_while_it_is_young_and_then_a_dead_letter(event):
    world = World(chain("A"))
    published = world.clock.now()
    world.clock.forward(59)
    with pytest.raises(NotYet, match=r"runs/mine\.json"):
        world.executor.execute(event, publish_time=published)
    world.clock.forward(2)
    with pytest.raises(RunNotFound, match=r"runs/mine\.json"):
        world.executor.execute(event, publish_time=published)


class Queue(NotedTarget):
    """A target that cannot stop anything; what is in `waiting` has not begun and may be taken back."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[str] = set()
        self.is_away = False

    def withdraw(self, launch: Launch) -> bool:
        if self.is_away:
            raise LaunchUncertain("503")
        is_waiting = launch.node_name in self.waiting
        self.waiting.discard(launch.node_name)
        return is_waiting

    def cancel(self, execution: Execution) -> None:
        if self.outcome(execution) is None:
            raise LaunchUncertain("it runs on")


def statuses(world: World, run_id: str) -> dict[str, str]:
    return {name: node.status.value for name, node in world.state(run_id).nodes.items()}


def test_what_has_not_begun_is_taken_back_and_what_has_is_waited_for():
    world = World(FORK, target=Queue())
    run_id = world.start()
    world.end("Init")
    world.target.waiting = {"Right"}
    world.executor.execute(cancel_message(run_id, "wrong day"))
    assert statuses(world, run_id)["Right"] == "Cancelled"
    assert statuses(world, run_id)["Left"] == "Running"
    world.end("Left")
    state = world.state(run_id)
    assert (state.run.status, state.run.cancel_reason) == (RunStatus.CANCELLED, "wrong day")
    assert statuses(world, run_id) == {
        "Init": "Completed",
        "Fork": "Cancelled",
        "Left": "Completed",
        "Right": "Cancelled",
        "Rest": "Skipped",
        "Join": "Skipped",
    }
    assert world.target.nodes == ["Init", "Left", "Right"]


def test_the_tick_takes_back_what_could_not_be_taken_back_at_once():
    world = World(chain("A", "B"), target=Queue())
    run_id = world.start()
    world.target.waiting, world.target.is_away = {"A"}, True
    world.executor.execute(cancel_message(run_id))
    world.executor.tick()
    assert statuses(world, run_id)["A"] == "Running"
    world.target.is_away = False
    world.executor.tick()
    assert world.state(run_id).run.status is RunStatus.CANCELLED


class Unset(dict):
    """Targets that cannot be made for now, as those of the cloud where a setting is missing."""

    is_unset = False

    def get(self, key, default=None):
        if self.is_unset:
            raise SettingsError("TASKS_QUEUE: is not set")
        return super().get(key, default)


def test_a_target_that_cannot_be_made_now_holds_up_nothing_else():
    queue = Queue()
    world = World(chain("A", "B"), target=queue, targets=Unset(Function=queue))
    run_id = world.start()
    queue.waiting, world.targets.is_unset = {"A"}, True
    world.executor.execute(cancel_message(run_id))
    assert world.state(run_id).run.cancel_reason is not None
    world.targets.is_unset = False
    assert world.executor.tick().problems == ()
    assert world.state(run_id).run.status is RunStatus.CANCELLED


def test_an_event_of_what_was_taken_back_changes_nothing_any_more():
    world = World(chain("A", "B"), target=Queue())
    run_id = world.start()
    world.target.waiting = {"A"}
    world.executor.execute(cancel_message(run_id))
    before = world.state(run_id)
    world.executor.execute(completion(world.target.calls[0]))
    assert world.state(run_id) == before


@pytest.mark.parametrize("is_launched", [False, True], ids=["before its launch", "after its launch"])
def test_a_cancelled_run_whose_instance_was_killed_launches_nothing_and_ends(is_launched):
    target = Queue()
    target.has_outcome = is_launched

    def killed(launch: Launch) -> None:
        raise LaunchUncertain("killed")

    if is_launched:
        target.after_launch = killed
    else:
        target.before_launch = killed
    world = World(chain("A", "B"), target=target)
    run_id = world.start()
    target.before_launch = target.after_launch = lambda launch: None
    other = world.instance()
    other.execute(cancel_message(run_id))
    world.clock.forward(66)
    for _ in range(3):
        other.tick()
    assert target.nodes == ["A"], "of the launch call that was killed"
    if is_launched:
        assert world.state(run_id).nodes["A"].status is TaskStatus.RUNNING, "it is waited for"
        world.end("A")
        assert world.state(run_id).run.status is RunStatus.RUNNING, "the event is no proof, the target is"
        target.outcomes[f"x-{target.calls[0].key}"] = Outcome.completed()
        world.end("A")
    assert world.state(run_id).run.status is RunStatus.CANCELLED
    assert statuses(world, run_id)["B"] == "Skipped"


def test_a_cancel_twice_keeps_the_first_reason_and_one_after_the_end_changes_nothing():
    world = World(chain("A"), target=NotedTarget(has_outcome=True, can_cancel=True))
    run_id = world.start()
    for reason in ("first", "second"):
        world.executor.execute(cancel_message(run_id, reason))
    state = world.state(run_id)
    assert (state.run.status, state.run.cancel_reason) == (RunStatus.CANCELLED, "first")
    world.executor.execute(cancel_message(run_id, "third"))
    assert world.state(run_id) == state
    assert world.target.cancelled == [f"x-{world.target.calls[0].key}"]


@pytest.mark.parametrize("fails_after", ["1s", "10m"], ids=["before it is asked", "after it"])
def test_a_run_that_was_asked_to_be_cancelled_is_cancelled_though_a_step_of_it_fails(fails_after):
    targets = {"Left": fails().after(fails_after), "Right": takes("20m")}  # functions, which nothing can stop
    world = Simulation({**FORK, "finally": dag(Last=task())}, targets=targets)
    run_id = world.start()
    world.cancel(run_id, "wrong day", after="1m")
    run = world.finish(run_id)
    assert {
        name: node.status for name, node in run.state.nodes.items() if name in ("Left", "Right", "Fork", "Last")
    } == {
        "Left": "Failed",
        "Right": "Completed",
        "Fork": "Failed",
        "Last": "Completed",
    }
    assert (run.status, run.error.error_type, run.error.message) == ("Cancelled", "Run.Cancelled", "wrong day")


def test_a_run_that_comes_to_its_end_all_the_same_has_completed():
    world = Simulation(chain("A"), targets={"A": takes("10m")})
    run_id = world.start()
    world.cancel(run_id, after="1m")
    assert world.finish(run_id).status == "Completed"
