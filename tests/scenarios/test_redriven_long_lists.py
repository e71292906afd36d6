"""A Map whose list of items lies beside the document is redriven as any other."""

import pytest

from orchestrator.model.enums import RunStatus
from orchestrator.testing import Simulation, fails, in_turn, returns
from tests.support.world import dag, task

ROWS = ["x" * 70_000, "y"]


def with_a_map_of_large_items(**keys):
    items = {
        "type": "Map",
        "items": "${steps.C.result}",
        "iterator": dag(A=task(parameters={"item": "${item}"})),
        **keys,
    }
    return dag(C=task("M"), M=items | {"next": "F"}, F=task())


def test_a_map_of_large_items_that_failed_goes_on_when_its_run_is_redriven():
    world = Simulation(with_a_map_of_large_items(), targets={"C": returns(ROWS), "A[1]": in_turn(fails(), returns(1))})
    run_id = world.start()
    assert world.finish(run_id).status is RunStatus.FAILED
    world.redrive(run_id)
    run = world.finish(run_id)
    assert run.status is RunStatus.COMPLETED
    assert len(run.launches("A[0]")) == 1
    assert len(run.launches("A[1]")) == 2


@pytest.mark.parametrize("size", [1, 70_000])
@pytest.mark.parametrize("step", ["M", "A[1]"])
def test_a_map_of_large_items_that_completed_runs_again_from_what_is_chosen(step, size):
    world = Simulation(
        with_a_map_of_large_items(tolerated_failures=1),
        targets={"C": returns(ROWS), "A[0]": returns("z" * size), "A[1]": in_turn(fails(), returns(1))},
    )
    run_id = world.start()
    assert world.finish(run_id).status is RunStatus.COMPLETED
    world.redrive(run_id, step)
    run = world.finish(run_id)
    assert run.status is RunStatus.COMPLETED
    assert run.result("M")[1] == 1
