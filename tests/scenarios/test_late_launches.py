"""A call that launches something and returns after its claim was taken over."""

from datetime import timedelta

from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import Identity, TaskStatus
from tests.support.world import NotedTarget, World, chain, completion


class FindingTarget(NotedTarget):
    """One whose service takes no key: each call that does not find an execution begins one more."""

    identity = Identity.FOUND

    def __init__(self) -> None:
        super().__init__(has_outcome=True, can_cancel=True)
        self.begun: list[str] = []

    def launch(self, launch):
        number = len(self.calls)
        self.calls.append(launch)
        self.before_launch(launch)
        self.begun.append(f"x{number}")
        return Execution(f"x{number}")

    def find(self, launch):
        return Execution(self.begun[0]) if self.begun else None


def world_in_which_the_first_call_stands_still():
    """A world, and its run: the call's claim is taken over while it stands still, and launched again."""
    world = World(chain("A", "B"), target=FindingTarget(), instances=2)

    def stand_still(launch):
        world.target.before_launch = lambda launch: None
        world.clock.forward(300)
        world.instances[1].tick()

    world.target.before_launch = stand_still
    return world, world.start()


def test_what_is_launched_by_a_call_that_stood_still_until_another_one_was_bound_is_cancelled():
    world, run_id = world_in_which_the_first_call_stands_still()
    node = world.state(run_id).nodes["A"]
    assert (node.status, node.execution_id) == (TaskStatus.RUNNING, "x1")
    assert world.target.begun == ["x1", "x0"]
    assert world.target.cancelled == ["x0"]


def test_how_that_ended_is_no_end_of_an_attempt_that_is_bound_to_another_one():
    world, run_id = world_in_which_the_first_call_stands_still()
    assert world.target.outcomes == {"x0": Outcome.cancelled()}
    line = completion(world.target.calls[0], Outcome.completed())
    world.instances[0].execute(line)  # this instance knows the run as it was before the other one was bound
    node = world.state(run_id).nodes["A"]
    assert (node.status, node.execution_id) == (TaskStatus.RUNNING, "x1")
    world.target.outcomes["x1"] = Outcome.completed("of x1")
    world.instances[0].execute(line)
    node = world.state(run_id).nodes["A"]
    assert (node.status, node.execution_id, node.result) == (TaskStatus.COMPLETED, "x1", "of x1")


def test_nor_is_it_where_the_other_one_is_bound_while_a_tick_asks_of_it():
    world = World(chain("A", "B"), target=FindingTarget(), instances=2)
    target = world.target
    target.before_launch = lambda launch: world.clock.forward(300)  # its lease is over by then, and nobody was there
    run_id = world.start()
    target.find = lambda launch: None  # it is not listed yet
    target.outcomes["x0"] = Outcome.failed("Task.Failed", "x0 failed")
    outcome = target.outcome

    def asked_late(execution):
        target.outcome, target.before_launch = outcome, lambda launch: None
        world.instances[1].tick()
        return outcome(execution)

    target.outcome = asked_late
    world.instances[0].tick()
    node = world.state(run_id).nodes["A"]
    assert (node.status, node.execution_id) == (TaskStatus.RUNNING, "x1")


def test_what_a_call_that_comes_late_finds_bound_is_left_alone():
    world = World(chain("A", "B"), target=NotedTarget(has_outcome=True, can_cancel=True), instances=2)

    def stand_still(launch):
        world.target.before_launch = lambda launch: None
        world.clock.forward(300)
        world.instances[1].tick()

    world.target.before_launch = stand_still
    run_id = world.start()
    assert len(world.target.calls) == 2
    assert world.state(run_id).nodes["A"].execution_id is not None
    assert world.target.cancelled == []
    assert world.clock.now() - world.state(run_id).run.started_at == timedelta(seconds=300)
