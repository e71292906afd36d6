"""Whole runs under any order of delivery, with duplicates, delays, ticks, several instances and failing Tasks."""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.enums import TaskStatus
from tests.strategies import definitions
from tests.support.world import World, completion, outcome_of, plain


def tasks_in(graph: dict) -> list[str]:
    """Names of all Tasks of a definition or branch; written from the grammar, not from the engine."""
    found = []
    for name, step in graph["steps"].items():
        if step["type"] == "Task":
            found.append(name)
        for branch in step.get("branches", ()):
            found += tasks_in(branch)
    return found


def predecessors(graph: dict, before: frozenset[str] = frozenset()) -> dict[str, frozenset[str]]:
    """Task -> all Tasks that must be Completed before it is launched."""
    found: dict[str, frozenset[str]] = {}
    name = graph["start"]
    while name is not None:
        step = graph["steps"][name]
        if step["type"] == "Task":
            found[name] = before
            before |= {name}
        else:
            for branch in step["branches"]:
                found |= predecessors(branch, before)
            before = before.union(*(tasks_in(branch) for branch in step["branches"]))
        name = step.get("next")
    return found


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_any_order_of_delivery_ends_in_the_same_document_and_launches_each_task_once(data):
    definition = data.draw(definitions())
    names = tasks_in(definition)
    needs = predecessors(definition)
    failing = frozenset(data.draw(st.sets(st.sampled_from(names), max_size=2)))

    in_order = World(definition)
    expected = plain(in_order.run_all(in_order.start(), failing))

    world = World(definition, instances=data.draw(st.integers(1, 3)))
    run_id = world.start()
    delivered: set[str] = set()
    for _ in range(8 * len(names) + 8):
        state = world.state(run_id)
        if state.run.status.is_final and not data.draw(st.integers(0, 3), label="go on after the end"):
            break
        launches = list(world.target.calls)
        fresh = [launch for launch in launches if launch.launch_id not in delivered]
        pool = fresh if fresh and data.draw(st.integers(0, 2), label="fresh") else launches
        instance = data.draw(st.sampled_from(world.instances), label="instance")
        if data.draw(st.integers(0, 5), label="tick") == 0:
            world.clock.forward(data.draw(st.sampled_from([0, 1, 30])))
            instance.tick()
        else:
            launch = data.draw(st.sampled_from(pool), label="deliver")
            for _ in range(data.draw(st.sampled_from([1, 1, 2, 3]), label="times")):
                instance.execute(completion(launch, outcome_of(launch, failing)), message_id=launch.key)
            delivered.add(launch.launch_id)
        check(world, run_id, needs)
    while not world.state(run_id).run.status.is_final:
        launch = next(x for x in world.target.calls if x.launch_id not in delivered)
        world.instances[-1].execute(completion(launch, outcome_of(launch, failing)))
        delivered.add(launch.launch_id)
        check(world, run_id, needs)
    assert plain(world.state(run_id)) == expected


def check(world: World, run_id: str, needs: dict[str, frozenset[str]]) -> None:
    """What must hold after every step."""
    state = world.state(run_id)
    assert all(times == 1 for times in Counter(world.target.nodes).values())
    for name in world.target.nodes:
        missing = [n for n in needs[name] if state.nodes[n].status is not TaskStatus.COMPLETED]
        assert not missing, f"{name} was launched before {missing} completed"
    running = [name for name, node in state.nodes.items() if node.status is TaskStatus.RUNNING]
    assert state.run.status.is_final == (not running)
