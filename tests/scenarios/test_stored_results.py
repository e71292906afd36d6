"""Decisions that need results which lie beside the run document."""

import json
from threading import Barrier, BrokenBarrierError

import pytest

from orchestrator.engine import deciding
from orchestrator.model.commands import Outcome
from orchestrator.model.errors import CorruptState
from orchestrator.stores.memory import MemoryStore
from tests.support.world import World, dag, parallel, task

LARGE = Outcome.completed({"s": "x" * 70_000})
SECOND_S = 1.0


def world_of(count: int, use: dict, **settings) -> tuple[World, str]:
    """A world whose run has `count` large results and waits ten seconds before the step `Use`."""
    made = parallel(*(dag(**{f"A{i}": task()}) for i in range(count)), next="W")
    world = World(dag(P=made, W={"type": "Wait", "for": "10s", "next": "Use"}, Use=use), **settings)
    run_id = world.start()
    for i in range(count):
        world.end(f"A{i}", LARGE)
    world.clock.forward(20)
    return world, run_id


def all_of(count: int) -> dict:
    return {f"x{i}": f"${{size(steps.A{i}.result.s)}}" for i in range(count)}


@pytest.mark.parametrize(
    "spoilt", [{"kind": "Completed"}, {"kind": "Failed", "error": {"error_type": "E", "message": ""}}]
)
def test_a_stored_result_that_became_none_fails_the_step_that_needs_it(spoilt):
    world, run_id = world_of(1, task(parameters=all_of(1)))
    name = world.state(run_id).nodes["A0"].stored_result.object
    content, version = world.store.get(name)
    at = json.loads(content)["at"]
    world.store.put(name, json.dumps({"at": at, **spoilt}).encode(), expect=version)
    world.executor.tick()
    run = world.state(run_id)
    assert run.nodes["Use"].error.error_type == "Task.BadParameters"
    assert f"{name}: is {spoilt['kind']} with no result" in run.nodes["Use"].error.message
    assert run.run.status == "Failed"


def test_a_result_that_is_needed_again_after_it_was_brought_back_is_an_error_and_no_endless_loop():
    world, run_id = world_of(1, task(parameters=all_of(1)))
    large = world.executor._large_results
    calls = []
    large.brought_back = lambda state, *names: calls.append(names) or state
    with pytest.raises(CorruptState, match=r"^the result of A0: "):
        world.executor._ticker.look_after(run_id)
    assert len(calls) < 10  # once for each try: the Tick asks for each event alone, too


def test_leases_begin_when_all_that_the_decision_needs_is_there():
    class SlowStore(MemoryStore):
        def get(self, key):
            if key.startswith("results/"):
                world.clock.forward(SECOND_S)
            return super().get(key)

    world, _ = world_of(70, task(parameters=all_of(70)), store=SlowStore())  # longer than the lease of a minute
    before = world.clock.now()
    world.executor.tick()
    assert (world.clock.now() - before).total_seconds() >= 70 * SECOND_S
    assert len(world.target.of("Use")) == 1
    assert world.target.of("Use")[0].parameters == {f"x{i}": 70_000 for i in range(70)}


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(task(parameters=all_of(30)), id="one step that needs them all"),
        pytest.param(
            parallel(*(dag(**{f"B{i}": task(parameters={"n": f"${{steps.A{i}.result.s}}"})}) for i in range(30))),
            id="many steps that need one each",
        ),
        pytest.param(
            {"type": "Pass", "next": "B"} | {"result": "${steps.A0.result.s}"},
            id="a step that starts at once behind another",
        ),
    ],
)
def test_all_that_may_be_needed_is_fetched_at_once_and_decided_on_once_more(use, monkeypatch):
    decisions = []
    decide = deciding.decide
    monkeypatch.setattr(deciding, "decide", lambda *args: decisions.append(1) or decide(*args))
    made = parallel(*(dag(**{f"A{i}": task()}) for i in range(30)), next="W")
    steps = {"P": made, "W": {"type": "Wait", "for": "10s", "next": "Use"}, "Use": use}
    if use.get("next"):
        steps["B"] = task(parameters=all_of(30))
    world = World(dag(**steps))
    run_id = world.start()
    for i in range(30):
        world.end(f"A{i}", LARGE)
    world.clock.forward(20)
    decisions.clear()
    world.executor.tick()
    assert world.state(run_id).nodes["Use"].status in ("Running", "Completed")
    # The decision, the same with all results, and what came of the launches.
    assert len(decisions) <= 3


def test_results_are_fetched_side_by_side():
    class MeetingStore(MemoryStore):
        """Lets a result be read only while another one is."""

        def __init__(self):
            super().__init__()
            self.barrier, self.alone = Barrier(2), 0

        def get(self, key):
            if key.startswith("results/"):
                try:
                    self.barrier.wait(30)
                except BrokenBarrierError:
                    self.alone += 1
            return super().get(key)

    world, _ = world_of(4, task(parameters=all_of(4)), store=MeetingStore(), questions_at_once=2)
    world.executor.tick()
    world.executor.close()
    assert world.store.alone == 0
    assert len(world.target.of("Use")) == 1


def test_what_no_step_asks_for_is_not_fetched():
    world, _ = world_of(3, task(parameters={"x": "${steps.A1.result.s}"}))
    read = []
    get = world.store.get
    world.store.get = lambda key: read.append(key) or get(key)
    world.executor.tick()
    assert len([key for key in read if key.startswith("results/")]) == 1
