"""A redriven run lets its child runs go on: nothing that completed in any of them, at any depth, runs again."""

import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.testing import Faults, Simulation, fails, in_turn, is_cancelled, refuses, returns
from tests.simulation.test_any_definition import delays, fuzzed
from tests.strategies import definitions

ends = st.sampled_from([fails(), fails(), refuses(), is_cancelled(), returns(1).uncertainly(1), returns(1)])


@st.composite
def families(draw):
    """A DAG whose steps start runs of a second one, whose steps start runs of a third."""
    found = {}
    for letter, below in (("A", "b"), ("B", "c"), ("C", None)):
        text = json.dumps(draw(definitions(max_depth=1, max_branches=2, max_steps=3)))
        definition = json.loads(text.replace('"S', f'"{letter}'))
        for step in tasks_of(definition):
            if below is not None and draw(st.booleans()):
                step.update({"target_type": "Dag", "target_name": below})
                step.pop("function")
        found[letter.lower()] = definition
    return found


def tasks_of(body):
    for step in body["steps"].values():
        if step["type"] == "Task":
            yield step
        for branch in step.get("branches", ()):
            yield from tasks_of(branch)


def names_of(body):
    for name, step in body["steps"].items():
        if step.get("target_type") == "Function":
            yield name
        for branch in step.get("branches", ()):
            yield from names_of(branch)


@fuzzed
@given(families(), st.data())
def test_redriven_until_it_completes_a_family_of_runs_does_everything_once(family, data):
    names = [name for definition in family.values() for name in names_of(definition)]
    share = st.sampled_from([0.0, 0.0, 0.3])
    world = Simulation(
        family,
        targets={name: in_turn(*data.draw(st.lists(ends, max_size=2), label=name), returns(1)) for name in names},
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        faults=Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays)),
        instances=data.draw(st.integers(1, 3), label="instances"),
        cannot_be_cancelled=data.draw(st.sampled_from([(), ("Function",)]), label="cannot be cancelled"),
    )
    run_id = world.start(dag="a")
    for number in range(200):
        if number < 5 and data.draw(st.integers(0, 2), label="cancel it") == 0:
            world.cancel(run_id, after=data.draw(st.sampled_from(["0s", "1s", "2s", "3s", "1m", "2h"])))
        run = world.finish(run_id, within="5000d")
        if data.draw(st.booleans(), label="let it all end"):
            world.forward("3d")
        if run.status is RunStatus.COMPLETED:
            break
        done = completed(world)
        world.redrive(run_id)
        world.finish(run_id, within="5000d")
        after = completed(world)
        assert {key: after.get(key) for key in done} == done
    world.forward("3d")
    assert world.run(run_id).status is RunStatus.COMPLETED
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []
    for run in world.runs:
        assert run.status is RunStatus.COMPLETED
        assert len({launch.launch_id for launch in run.all_launches}) == len(run.all_launches)
    assert len(world.runs) == 1 + sum(
        each.target_type == "Dag" for run in world.runs for each in run.state.nodes.values()
    )


def completed(world):
    """Every step of every run that has completed, and its last attempt."""
    nodes = ((run.run_id, node) for run in world.runs for node in run.state.nodes.values())
    return {
        (run_id, node.node_name): node.attempt
        for run_id, node in nodes
        if node.status is TaskStatus.COMPLETED and node.node_type == "Task"
    }
