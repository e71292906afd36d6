"""The log tells the story of a run: a line for each thing that happened to it, with the labels that find it."""

import logging

import pytest

from orchestrator.model.commands import Outcome
from orchestrator.runtime.logs import LABELS
from orchestrator.runtime.story import log_saved
from tests.support.world import START, NotedTarget, World, completion, dag, parallel, task


@pytest.fixture
def told(monkeypatch):
    """(level, text, labels) of what is logged, times left out."""
    lines = []

    class Kept(logging.Handler):
        def emit(self, record):
            labels = {name: value for name in LABELS if (value := getattr(record, name, None)) is not None}
            lines.append((record.levelname, record.getMessage(), labels))

    log = logging.getLogger("orchestrator")
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(log, "handlers", [Kept()])
    log.manager._clear_cache()
    yield lines
    log.manager._clear_cache()


def world_of(definition, **parts) -> World:
    world = World(definition, **parts)
    world.instances = [world.instance(on_saved=log_saved)]
    return world


def test_of_a_run_that_completes(told):
    world = world_of(dag(A=task("P"), P=parallel(dag(B=task()), dag(C=task()))))
    run_id = world.start("m1")
    world.clock.forward(2)
    for name in "ABC":
        world.end(name)
    run = {"run_id": run_id}
    a, b, c = ({**run, "node": name, "attempt": 1} for name in "ABC")
    assert told == [
        ("INFO", f"run started: {run_id} of dag", {**run, "event_id": "m1"}),
        ("INFO", "A: Running, attempt 1", {**a, "event_id": "m1"}),
        ("INFO", "A: Completed after 2.0 s", {**a, "event_id": "end-A"}),
        ("INFO", "P: Running", {**run, "node": "P", "event_id": "end-A"}),
        ("INFO", "B: Running, attempt 1", {**b, "event_id": "end-A"}),
        ("INFO", "C: Running, attempt 1", {**c, "event_id": "end-A"}),
        ("INFO", "B: Completed after 0.0 s", {**b, "event_id": "end-B"}),
        ("INFO", "P: Completed after 0.0 s", {**run, "node": "P", "event_id": "end-C"}),
        ("INFO", "C: Completed after 0.0 s", {**c, "event_id": "end-C"}),
        ("INFO", f"run ended: Completed: {run_id} of dag", {**run, "event_id": "end-C"}),
    ]


def test_of_one_that_fails(told):
    world = world_of(dag(A=task("B"), B=task()))
    run_id = world.start("m1")
    world.end("A", Outcome.failed("Task.Failed", "no such table"))
    assert [line[:2] for line in told[2:]] == [
        ("WARNING", "A: Failed after 0.0 s: Task.Failed: no such table"),
        ("ERROR", f"run ended: Failed: {run_id} of dag: Task.Failed: no such table"),
    ]


def test_of_a_takeover_and_a_cancel(told):
    world = world_of(dag(A=task()), target=NotedTarget(can_cancel=True))
    run_id = world.start("m1")
    world.clock.forward(100)
    world.target.launched.clear()
    world.executor._boxes.clear()
    world.executor.tick()
    cancel = {"resource": {"type": "cancel"}, "run_id": run_id, "reason": "not needed"}
    world.executor.execute(cancel, message_id="m2")
    assert [line[1] for line in told if line[2].get("node") == "A"][1:] == [
        "A: attempt 1 taken over",
        "A: attempt 1 is to be cancelled: Run.Cancelled: not needed",
        "A: Cancelled after 100.0 s: Run.Cancelled: not needed",
    ]


def test_of_the_other_event_that_shares_a_save_nothing_is_said_of_the_wrong_node(told):
    world = world_of(dag(P=parallel(dag(B=task()), dag(C=task()), next="D"), D=task()))
    world.executor.execute(START, message_id="m1")
    del told[:]
    from orchestrator.engine.address import Completion
    from orchestrator.engine.run_box import Entry
    from orchestrator.model.event_factory import EventFactory

    (run_id,) = {launch.run_id for launch in world.target.calls}
    box = world.executor._box(run_id)
    entries = []
    for launch in world.target.calls:
        event = EventFactory.create_from_event(completion(launch), message_id=f"end-{launch.node_name}")
        entries.append(Entry(Completion(run_id, launch.node_name, 1, event), on_done=lambda handled, error: None))
        box.offer(entries[-1])
    world.executor._lead(box, entries[0])
    assert {line[2]["node"]: line[2].get("event_id") for line in told} == {
        "P": None,
        "B": "end-B",
        "C": "end-C",
        "D": None,
    }
