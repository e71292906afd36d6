"""What a long-lived instance keeps in memory is bounded by bytes: counted in the documents themselves."""

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine import run_boxes
from orchestrator.engine.catalog import Catalog
from orchestrator.model.commands import Outcome
from orchestrator.model.run_document import encode
from orchestrator.stores.memory import MemoryStore
from tests.support.world import START, KeptBroker, NotedTarget, World, completion, dag, parallel, task

LARGE = "x" * 100_000


def kept_bytes(executor) -> int:
    """Bytes of the documents that an executor has at hand, and of the lines that it would save them by."""
    boxes = executor._boxes._held.values()
    lines = sum(len(line) for box in boxes for _, line in box.status._encoder._lines.values())
    return lines + sum(len(encode(box.saved[0])) for box in boxes if box.saved is not None)


@pytest.fixture
def at_most(monkeypatch):
    monkeypatch.setattr(run_boxes, "MAX_IDLE_BYTES", 500_000)
    return 500_000


def world_of_open_runs(count: int) -> tuple[World, list[str]]:
    """Runs with a large input whose A has ended, while B runs on."""
    world = World(dag(P=parallel(dag(A=task()), dag(B=task()))))
    runs = [world.start(f"m{n}", input={"x": LARGE}) for n in range(count)]
    for run_id in runs:
        (launch,) = (each for each in world.target.of("A") if each.run_id == run_id)
        world.executor.execute(completion(launch), message_id=f"end-A-{run_id}")
    return world, runs


def test_what_is_at_hand_of_open_runs_is_bounded_by_its_bytes(at_most):
    world, runs = world_of_open_runs(20)
    assert 300_000 < kept_bytes(world.executor) <= 1.1 * at_most  # its nodes' lines are there twice
    assert len(world.executor._boxes._held) == 20
    at_hand = [run_id for run_id in runs if world.executor._boxes._held[run_id].saved is not None]
    assert at_hand == runs[-len(at_hand) :]  # the oldest went first


def test_runs_that_were_let_go_go_on_all_the_same(at_most):
    world, runs = world_of_open_runs(20)
    for launch in world.target.of("B"):
        world.executor.execute(completion(launch), message_id=f"end-B-{launch.run_id}")
    assert {world.state(run_id).run.status for run_id in runs} == {"Completed"}
    assert {world.state(run_id).run.input["x"] for run_id in runs} == {LARGE}
    assert (kept_bytes(world.executor), world.executor._boxes.kept_bytes) == (0, 0)


def test_of_what_was_launched_for_a_run_only_what_still_runs_is_remembered(at_most):
    world, runs = world_of_open_runs(20)
    (known,) = world.executor._boxes._held[runs[0]].executions
    assert known == f"{runs[0]}/B/1"


def test_what_is_forgotten_of_a_run_is_not_counted_any_more():
    world, runs = world_of_open_runs(3)
    assert world.executor._boxes.kept_bytes > 300_000
    for run_id in runs:
        world.executor._boxes.forget(run_id)
    assert world.executor._boxes.kept_bytes == 0


def executor_in_the_cloud() -> DAGExecutor:
    target = NotedTarget(has_outcome=True)
    executor = DAGExecutor(
        Catalog.of(dag(A=task())), store=MemoryStore(), targets={"Function": target}, broker=KeptBroker()
    )
    executor.target = target
    return executor


def test_an_instance_in_the_cloud_keeps_nothing_of_runs_that_have_ended():
    executor = executor_in_the_cloud()
    for number in range(5):
        run_id = executor.execute({**START, "input": {"x": LARGE}}, message_id=f"m{number}").run_id
        executor.target.outcomes[f"x-{executor.target.calls[-1].key}"] = Outcome.completed()
        executor.look_after(run_id)
        assert executor.wait(run_id, 5).run.status == "Completed"
    assert executor._runs._ended == {}
    assert kept_bytes(executor) == 0


def test_a_process_with_a_bus_of_its_own_has_the_end_for_who_waits_later():
    step = {"type": "Task", "target_type": "Function", "target_name": "n", "function": "builtins:dict"}
    with DAGExecutor(dag(A=step), store=MemoryStore()) as executor:
        run_id = executor.start()
        executor.wait(run_id, 10)
        assert run_id in executor._runs._ended
