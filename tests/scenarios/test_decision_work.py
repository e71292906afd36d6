"""How much the expressions of one decision may be, all together."""

import pytest

from orchestrator.engine.run_box import Entry
from tests.support.world import World, completion, dag, parallel, task

LIST = list(range(1_000))
ONE = "${run.input.list.exists(x, x < 0)}"
OF_ONE = 100_000
"""More than the work of one such expression, less than that of two."""


def together(count: int, **policy) -> World:
    """A world in which one event starts `count` steps, each with an expression."""
    branches = [dag(**{f"A{i}": task(parameters={"n": ONE})}) for i in range(count)]
    return World(dag(P=parallel(*branches)), **policy)


def test_one_decisions_expressions_may_be_so_much_and_no_more():
    world = together(3, max_decision_work=OF_ONE)
    run = world.state(world.start(input={"list": LIST}))
    assert [run.nodes[f"A{i}"].status for i in range(3)] == ["Running", "Failed", "Failed"]
    assert run.nodes["A1"].error.error_type == "Task.BadParameters"
    assert run.nodes["A1"].error.message == (
        f"{ONE}: might take too long together with the expressions of all that starts with it; "
        "allowed: 100,000 values touched at once"
    )
    assert world.target.nodes == ["A0"]


def test_what_is_no_more_than_that_is_as_it_ever_was():
    world = together(30)
    run_id = world.start(input={"list": LIST})
    assert len(world.target.nodes) == 30
    assert world.run_all(run_id).run.status == "Completed"


def test_the_expressions_of_the_next_decision_have_an_allowance_of_their_own():
    steps = {f"A{i}": task(f"A{i + 1}", parameters={"n": ONE}) for i in range(5)}
    world = World(dag(**steps, A5=task()), max_decision_work=OF_ONE)
    assert world.run_all(world.start(input={"list": LIST})).run.status == "Completed"


@pytest.mark.parametrize("count", [2, 3, 8])
def test_no_step_fails_by_what_its_event_was_folded_with(count):
    branches = [
        dag(**{f"W{i}": {"type": "Wait", "for": "10s", "next": f"A{i}"}, f"A{i}": task(parameters={"n": ONE})})
        for i in range(count)
    ]
    world = World(dag(P=parallel(*branches)), max_decision_work=OF_ONE)
    run_id = world.start(input={"list": LIST})
    world.clock.forward(20)
    world.executor.tick()  # all are due: the Tick tells of them together
    run = world.state(run_id)
    assert [run.nodes[f"A{i}"].error for i in range(count)] == [None] * count
    assert sorted(world.target.nodes) == sorted(f"A{i}" for i in range(count))


@pytest.mark.parametrize("count", [2, 5])
def test_events_that_waited_together_are_decided_on_in_parts_where_they_are_too_much_together(count):
    branches = [dag(**{f"T{i}": task(f"A{i}"), f"A{i}": task(parameters={"n": ONE})}) for i in range(count)]
    world = World(dag(P=parallel(*branches)), max_decision_work=OF_ONE)
    executor, now = world.executor, world.clock.now()
    run_id = world.start(input={"list": LIST})
    told = []
    items = [executor._resolver.resolve(completion(launch), "m", now, now) for launch in world.target.calls]
    entries = [Entry(item, on_done=lambda *what: told.append(what)) for item in items]
    box = executor._boxes.box(run_id)
    assert [box.offer(entry) for entry in entries] == [True, *[False] * (count - 1)]
    executor._leader.lead(box, entries[0])
    run = world.state(run_id)
    assert [run.nodes[f"A{i}"].status for i in range(count)] == ["Running"] * count
    assert [error for _, error in told] == [None] * count
