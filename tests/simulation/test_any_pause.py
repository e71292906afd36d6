"""Whatever a definition says and its targets do, a run that is paused and resumed ends, and leaves nothing held."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.enums import RunStatus
from orchestrator.testing import Faults, Simulation
from tests.simulation.test_any_definition import behaviours, delays, fuzzed
from tests.strategies import POOLS, any_definitions, inputs

between = st.sampled_from(["1s", "45s", "7m", "3h", "2d"])


@fuzzed
@given(any_definitions(most=3), st.data())
def test_a_run_that_is_paused_and_resumed_ends_and_nothing_is_held(definition, data):
    targets = {
        task.node_name: data.draw(behaviours(can_hang=task.timeout_s is not None), label=task.node_name)
        for task in DAGBuilder(definition).build_dag().all_tasks
    }
    world = Simulation(
        definition,
        targets=targets,
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        # A resume that is lost leaves the run paused, as it should: only doubled and late ones here.
        faults=Faults(0.0, data.draw(st.sampled_from([0.0, 0.5])), data.draw(st.sampled_from([0.0, 0.5])), "7m"),
        instances=data.draw(st.integers(1, 2), label="instances"),
        variables={"project": "p"},
        pools=POOLS,
    )
    run_id = world.start(data.draw(inputs, label="input"))
    for word in data.draw(st.lists(st.sampled_from(["pause", "resume", "cancel"]), max_size=4), label="requests"):
        world.forward(data.draw(between, label="between"))
        getattr(world, word)(run_id)
        if word == "pause":
            world.forward("20m")  # it has come by then, and what was under way before
            before = len(world.run(run_id).all_launches)
            world.forward(data.draw(delays, label="while paused"))
            is_paused = world.run(run_id).status is RunStatus.PAUSED
            assert not is_paused or len(world.run(run_id).all_launches) == before
    world.forward("1s")
    world.resume(run_id)

    run = world.finish(run_id, within="5000d")

    assert [name for name, node in run.state.nodes.items() if not node.status.is_final] == []
    assert (run.state.run.held, run.state.run.is_resuming) == ((), False)
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) in ([], [f"open/{run_id}"])
