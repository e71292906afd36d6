"""Maps under any order of events, and as parts of a few items each, whatever a definition says and its targets do."""

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.enums import TaskStatus
from orchestrator.model.policy import Policy
from orchestrator.testing import Faults, Simulation
from tests.simulation.test_any_definition import behaviours, delays, fuzzed
from tests.strategies import SECRETS, VARIABLES, any_definitions, inputs
from tests.support.world import World, completion, dag, outcome_of, parallel, plain, task


@pytest.fixture
def in_parts(monkeypatch):
    """Maps of two items and more run as parts, of one or two items each."""
    small = partial(Policy, inline_items=1, part_items=2)
    monkeypatch.setattr("orchestrator.testing.simulation.Policy", small)


@fuzzed
@given(any_definitions(most=3).filter(lambda definition: '"Map"' in str(definition).replace("'", '"')), st.data())
def test_every_run_with_maps_as_parts_ends_and_nothing_in_it_is_left(in_parts, definition, data):
    tasks = DAGBuilder(definition).build_dag().all_tasks
    targets = {
        task.node_name: data.draw(behaviours(can_hang=task.timeout_s is not None), label=task.node_name)
        for task in tasks
    }
    share = st.sampled_from([0.0, 0.0, 0.3])
    world = Simulation(
        definition,
        targets=targets,
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        faults=Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays)),
        instances=data.draw(st.integers(1, 2), label="instances"),
        variables=VARIABLES,
        secrets=SECRETS,
    )
    run_id = world.start(data.draw(inputs, label="input"))
    if data.draw(st.integers(0, 3), label="cancel it") == 3:
        world.cancel(run_id, after=data.draw(delays, label="when"))

    run = world.finish(run_id, within="5000d")
    world.forward("500d")  # what was cancelled in parts ends in its own time

    for each in world.runs:
        assert each.status.is_final
        assert {name for name, node in each.state.nodes.items() if not node.status.is_final} == set()
    assert world.run(run_id).state.nodes == run.state.nodes
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []


def each(names, items, **keys):
    """A Map of a chain of Tasks."""
    following = [*names[1:], None]
    steps = {name: task(after, parameters={"item": "${item}"}) for name, after in zip(names, following, strict=True)}
    return {"type": "Map", "items": items, "iterator": dag(**steps), **keys}


@st.composite
def maps(draw):
    """Draw a definition with Maps beside one another, in one another, before and behind Tasks."""
    inner = each(["I1", "I2"], [1, 2], max_concurrency=draw(st.integers(1, 3)), tolerated_failures=8)
    outer = {
        "type": "Map",
        "items": draw(st.lists(st.integers(0, 9), min_size=1, max_size=4)),
        "iterator": dag(O1=task("N"), N=inner),
        "max_concurrency": draw(st.integers(1, 3)),
        "tolerated_failures": 8,
    }
    beside = each(
        ["B1"],
        draw(st.lists(st.text(max_size=2).filter(lambda text: "${" not in text), max_size=4)),
        tolerated_failures=8,
    )
    return dag(A=task("P"), P=parallel(dag(M=outer), dag(L=beside), next="Z"), Z=task())


@fuzzed
@given(maps(), st.data())
def test_any_order_of_events_ends_in_the_same_document_and_launches_each_item_once(definition, data):
    failing = frozenset(data.draw(st.sets(st.sampled_from(["O1[0]", "I1[0][1]", "I2[1][0]", "B1[1]"]), max_size=2)))
    in_order = World(definition)
    expected = plain(in_order.run_all(in_order.start(), failing))

    world = World(definition, instances=2)
    run_id = world.start()
    delivered: set[str] = set()
    while not world.state(run_id).run.status.is_final:
        fresh = [launch for launch in world.target.calls if launch.launch_id not in delivered]
        launch = data.draw(st.sampled_from(fresh), label="deliver")
        instance = data.draw(st.sampled_from(world.instances), label="instance")
        for _ in range(data.draw(st.sampled_from([1, 1, 2]), label="times")):
            instance.execute(completion(launch, outcome_of(launch, failing)), message_id=launch.key)
        delivered.add(launch.launch_id)
        if data.draw(st.integers(0, 4), label="tick") == 0:
            instance.tick()
        check(world.state(run_id), definition)
    assert len(world.target.nodes) == len(set(world.target.nodes))
    assert plain(world.state(run_id)) == expected


def check(state, definition) -> None:
    """No more items run at once than are to, and nothing has an entry that has not begun."""
    for name, node in state.nodes.items():
        if node.items is None or node.status is not TaskStatus.RUNNING:
            continue
        entries = [state.nodes[f"{name}[{number}]"] for number in node.items.begun]
        running = [entry for entry in entries if entry.status is TaskStatus.RUNNING]
        assert len(running) == node.items.started - node.items.ended
        most = {"L": 10}.get(name) or definition["steps"]["P"]["branches"][0]["steps"]["M"]["max_concurrency"]
        assert len(running) <= most or name.startswith("N")
        assert f"{name}[{node.items.started}]" not in state.nodes
