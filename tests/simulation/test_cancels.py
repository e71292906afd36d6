"""Whole runs that are cancelled at any moment, in any order with duplicates, a kill and ticks: nothing starts then."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import LaunchUncertain
from orchestrator.model.messages import cancel_message
from tests.strategies import definitions
from tests.support.world import NotedTarget, World, completion


class Mixed(NotedTarget):
    """A target of one of three kinds: it can cancel; it can only take back what has not begun; it can do neither."""

    def __init__(self, *, has_outcome: bool, can_cancel: bool, waiting: bool) -> None:
        super().__init__(has_outcome=has_outcome, can_cancel=can_cancel)
        self._is_waiting = waiting
        self.kills = 0

    def launch(self, launch: Launch) -> Execution:
        if self.kills:
            self.kills -= 1
            raise LaunchUncertain("killed before it got through")
        return super().launch(launch)

    def withdraw(self, launch: Launch) -> bool:
        if self.can_cancel or not self._is_waiting or launch.key not in self.launched:
            return False
        self.outcomes.setdefault(f"x-{launch.key}", Outcome.cancelled())
        return True

    def cancel(self, execution: Execution) -> None:
        if not self.can_cancel and self.outcome(execution) is None:
            raise LaunchUncertain("it runs on")
        super().cancel(execution)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_a_run_that_is_cancelled_launches_nothing_more_and_ends(data):
    target = Mixed(
        has_outcome=data.draw(st.booleans()), can_cancel=data.draw(st.booleans()), waiting=data.draw(st.booleans())
    )
    world = World(data.draw(definitions()), instances=data.draw(st.integers(1, 3)), target=target)
    target.kills = data.draw(st.integers(0, 1), label="the first launch is killed")
    run_id = world.start()

    def end(launch: Launch) -> None:
        target.outcomes.setdefault(f"x-{launch.key}", Outcome.completed())
        outcome = target.outcomes[f"x-{launch.key}"]
        if outcome.kind == "Completed":
            data.draw(st.sampled_from(world.instances)).execute(completion(launch, outcome), message_id=launch.key)

    for _ in range(data.draw(st.integers(0, 6), label="events before the cancel")):
        if world.target.calls and target.launched:
            end(data.draw(st.sampled_from(world.target.calls)))
    is_over = world.state(run_id).run.status.is_final
    for _ in range(data.draw(st.integers(1, 3), label="cancels")):
        data.draw(st.sampled_from(world.instances)).execute(cancel_message(run_id, "why"))
    launched = list(target.calls)
    for _ in range(3 * len(launched) + 8):
        if world.state(run_id).run.status.is_final:
            break
        running = [x for x in launched if world.state(run_id).nodes[x.node_name].status is TaskStatus.RUNNING]
        if running and data.draw(st.booleans(), label="an event"):
            end(data.draw(st.sampled_from(running)))
        else:
            world.clock.forward(66)
            data.draw(st.sampled_from(world.instances)).tick()
    for launch in launched:  # whatever runs, ends
        end(launch)
    for _ in range(4):
        world.clock.forward(66)
        world.instances[0].tick()
    state = world.state(run_id)
    assert state.run.status.is_final
    assert [node.node_name for node in state.nodes.values() if not node.status.is_final] == []
    assert target.calls == launched, "nothing is launched after a cancel, not even again"
    if not is_over:
        assert state.run.cancel_reason == "why"
        everything = {node.status for node in state.nodes.values()} == {TaskStatus.COMPLETED}
        assert state.run.status is (RunStatus.COMPLETED if everything else RunStatus.CANCELLED)
