"""A redrive of a Map of very many items: of all its parts only the items that did not complete run again."""

import re
from collections import Counter

import pytest

from orchestrator.model.errors import InputError
from orchestrator.testing import Simulation, fails, returns, takes
from tests.support.children import children_of
from tests.support.world import dag, task


def long(**keys):
    """A definition whose Map becomes three parts of 500, 500 and 200 items."""
    each = {"type": "Map", "items": "${run.input.items}", "iterator": dag(F=task()), "next": "E"}
    return dag(M={"max_concurrency": 150, **each, **keys}, E=task(parameters={"size": "${size(steps.M.result)}"}))


def world_of(definition, **targets):
    world = Simulation(definition, targets=targets, default=returns("ok"))
    run_id = world.start({"items": list(range(1200))})
    return world, run_id, world.finish(run_id)


def launched(world, run_id):
    """How often each item was launched, in all parts together."""
    return Counter(launch.node_name for part in children_of(world, run_id) for launch in part.all_launches)


@pytest.mark.parametrize("tolerated", [0, 3], ids=["of parts that failed", "of parts that completed, too"])
def test_only_the_items_that_did_not_complete_run_again(tolerated):
    failing = {f"F[{index}]": fails(times=1).then(returns("ok")) for index in (3, 4, 501, 777, 1199)}
    world, run_id, before = world_of(long(tolerated_failures=tolerated), **failing)
    assert before.status == "Failed"
    for _ in failing:  # those that are come to for the first time now, fail now
        if world.run(run_id).status == "Failed":
            world.redrive(run_id)
            world.finish(run_id)
    run = world.run(run_id)
    assert (run.status, run.launches("E")[-1].parameters) == ("Completed", {"size": 1200})
    calls = launched(world, run_id)
    assert len(calls) == 1200
    assert {name for name, times in calls.items() if times > 1} <= failing.keys()
    assert run.result("M").count("ok") >= 1200 - tolerated
    assert len(children_of(world, run_id)) == 3


def test_parts_that_never_began_begin_and_no_more_run_at_once_than_may():
    world, run_id, before = world_of(long(max_concurrency=50), **{"F[3]": fails(times=1)})
    assert before.node("M").items.begun_parts == 1
    world.redrive(run_id)
    at_once = set()
    while not world.run(run_id).status.is_final:
        nodes = world.run(run_id).state.nodes.values()
        at_once.add(sum(node.node_type == "Part" and node.status == "Running" for node in nodes))
        world.forward("2s")
    assert (world.run(run_id).status, max(at_once)) == ("Completed", 1)
    assert launched(world, run_id)["F[0]"] == 1


def test_parts_that_fail_again_make_it_fail_again_and_a_later_redrive_goes_on_with_all():
    failing = {f"F[{index}]": fails(times=2) for index in (3, 501, 1199)}
    world, run_id, _ = world_of(long(), **failing)
    for _ in range(4):
        if world.run(run_id).status == "Completed":
            break
        world.redrive(run_id)
        run = world.finish(run_id)
        assert [name for name, node in run.state.nodes.items() if not node.status.is_final] == []
    assert world.run(run_id).status == "Completed"
    calls = launched(world, run_id)
    assert {name for name, times in calls.items() if times > 1} == failing.keys()


def test_a_map_of_parts_that_was_cancelled_goes_on():
    world = Simulation(long(), targets={"F[1]": takes("1h"), "F[600]": takes("1h")}, default=returns("ok"))
    run_id = world.start({"items": list(range(1200))})
    world.cancel(run_id, after="10s")
    world.finish(run_id)
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    again = {name for name, times in launched(world, run_id).items() if times > 1}
    assert len(again) < 160


def test_a_chosen_part_runs_again_as_a_new_run():
    world, run_id, _ = world_of(long())
    world.redrive(run_id, "M[1]")
    run = world.finish(run_id)
    assert (run.status, len(children_of(world, run_id))) == ("Completed", 4)
    assert launched(world, run_id)["F[0]"] == 1
    assert launched(world, run_id)["F[500]"] == 2


@pytest.fixture(scope="module")
def two_parts():
    """A run with a Map in two parts that has ended, of 500 items and of 2; in each item a Parallel and a Map."""
    inner = {"type": "Map", "items": "${[index]}", "iterator": dag(I=task())}
    beside = {"type": "Parallel", "branches": [dag(G=task()), dag(N=inner)]}
    world = Simulation(long(iterator=dag(P=beside)), default=returns("ok"))
    run_id = world.start({"items": list(range(502))})
    return world, world.finish(run_id)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("M[499]", "M runs as 2 parts, and M[499] is in {0}, the run of M[0]; ", id="an item"),
        pytest.param("G[501]", "M runs as 2 parts, and G[501] is in {1}, the run of M[1]; ", id="in a Parallel"),
        pytest.param("I[500][0]", "M runs as 2 parts, and I[500][0] is in {1}, the run of M[1]; ", id="in a Map"),
        pytest.param("G[502]", "M has 502 items, of which G[502] is none; the last one is 501", id="no such item"),
        pytest.param("X[7]", 'has no step "X[7]"; ', id="no such step"),
        pytest.param("E[7]", 'has no step "E[7]"; there are "M", "E", "M[0]", ', id="a step outside of the Map"),
        pytest.param("M[x]", 'has no step "M[x]"; ', id="no number"),
    ],
)
def test_what_is_of_an_item_in_a_part_is_said_to_be_in_the_part_s_run(two_parts, name, words):
    world, run = two_parts
    children = [run.node(f"M[{number}]").execution_id for number in range(2)]
    with pytest.raises(InputError, match=re.escape(words.format(*children))):
        world.redrive(run.run_id, name)


def test_an_item_in_a_part_that_never_began_was_not_come_by():
    world, run_id, _ = world_of(long(max_concurrency=50), **{"F[3]": fails(times=1)})
    with pytest.raises(InputError, match=r"did not come by F\[600\]; it can go on from a step that it came by"):
        world.redrive(run_id, "F[600]")


def test_a_step_of_an_item_is_chosen_in_the_part_s_own_run_and_the_run_then_takes_that_as_it_is():
    world, run_id, before = world_of(long(), **{"F[7]": fails(times=1).then(returns("ok"))})
    (failed,) = (part for part in children_of(world, run_id) if part.status == "Failed")
    assert before.node("M[0]").execution_id == failed.run_id
    said = f"M runs as 3 parts, and F[7] is in {failed.run_id}, the run of M[0]; "
    how = f"redrive {failed.run_id} with --from F[7], and after that this run; --from M[0] runs all of the part again"
    with pytest.raises(InputError, match=re.escape(f"run {run_id}: {said}{how}")):
        world.redrive(run_id, "F[7]")
    world.redrive(failed.run_id, "F[9]")
    assert world.finish(failed.run_id).status == "Completed"
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, run.result("M")) == ("Completed", ["ok"] * 1200)
    assert {name for name, times in launched(world, run_id).items() if times > 1} == {"F[7]", "F[9]"}
