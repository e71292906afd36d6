"""The log tells the story of a run: a line for each thing that happened to it, with the labels that find it."""

import logging
from datetime import timedelta

import pytest

from orchestrator.model.commands import Outcome
from orchestrator.model.errors import LaunchUncertain, OrchestratorError, StoreUnavailable
from orchestrator.runtime.logs import LABELS
from orchestrator.runtime.story import log_saved
from tests.support.world import START, T0, NotedTarget, World, completion, dag, parallel, task


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
        ("INFO", "C: Completed after 0.0 s", {**c, "event_id": "end-C"}),
        ("INFO", "P: Completed after 0.0 s", {**run, "node": "P", "event_id": "end-C"}),
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
    world.executor._boxes._held.clear()
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
    box = world.executor._boxes.box(run_id)
    entries = []
    for launch in world.target.calls:
        event = EventFactory.create_from_event(completion(launch), message_id=f"end-{launch.node_name}")
        entries.append(Entry(Completion(run_id, launch.node_name, 1, event), on_done=lambda handled, error: None))
        box.offer(entries[-1])
    world.executor._leader.lead(box, entries[0])
    assert {line[2]["node"]: line[2].get("event_id") for line in told} == {
        "P": None,
        "B": "end-B",
        "C": "end-C",
        "D": None,
    }


# ---- what goes wrong is found by the same filter -------------------------------------------------------


@pytest.fixture
def lines(monkeypatch):
    """Labels and trace of what is logged as a warning or worse, by text."""
    found = {}

    class Kept(logging.Handler):
        def emit(self, record):
            found[record.getMessage()] = {name: getattr(record, name, None) for name in (*LABELS, "trace")}

    log = logging.getLogger("orchestrator")
    monkeypatch.setattr(log, "level", logging.WARNING)
    monkeypatch.setattr(log, "handlers", [Kept()])
    log.manager._clear_cache()
    yield found
    log.manager._clear_cache()


def labels_of(launch, event_id=None) -> dict:
    return {
        "run_id": launch.run_id,
        "node": launch.node_name,
        "attempt": 1,
        "event_id": event_id,
        "trace": launch.trace_id,
    }


def labels_raised(world, event, **message) -> dict:
    with pytest.raises(OrchestratorError) as raised:
        world.executor.execute(event, **message)
    return dict(raised.value.labels)


def with_trace(launch) -> dict:
    """The line of a 2nd gen function, as it came by a sink."""
    return {
        "logName": "projects/p/logs/run.googleapis.com%2Frequests",
        "resource": {"type": "cloud_run_revision", "labels": {}},
        "httpRequest": {"requestUrl": f"https://x.run.app/?orchestrator_launch={launch.launch_id}", "status": 200},
        "trace": f"projects/p/traces/{launch.trace_id}",
    }


def test_an_event_that_is_put_off_names_its_run_its_attempt_and_its_trace():
    world = World(dag(A=task()))
    world.start("m1")
    launch = world.target.calls[0]
    other = World(dag(A=task()))  # which has no such run
    where = {"run_id": launch.run_id, "node": "A", "attempt": 1, "trace": launch.trace_id}
    assert labels_raised(other, with_trace(launch), message_id="m2") == where
    assert labels_raised(other, with_trace(launch), publish_time=T0 - timedelta(days=1)) == where


def test_a_store_that_fails_is_told_of_the_run_of_every_event_that_it_held_up(monkeypatch):
    world = World(dag(P=parallel(dag(A=task()), dag(B=task()))))
    run_id = world.start("m1")
    world.executor._boxes._held.clear()

    def down(key):
        raise StoreUnavailable(f"{key}: cannot be read: 503")

    monkeypatch.setattr(world.store, "get", down)
    assert labels_raised(world, completion(world.target.calls[0])) == {"run_id": run_id, "node": "A", "attempt": 1}
    from orchestrator.engine.address import Completion
    from orchestrator.engine.run_box import Entry
    from orchestrator.model.event_factory import EventFactory

    entries = []
    for launch in world.target.calls:
        event = EventFactory.create_from_event(completion(launch))
        entries.append(Entry(Completion(run_id, launch.node_name, 1, event), on_done=lambda handled, error: None))
        world.executor._boxes.box(run_id).offer(entries[-1])
    world.executor._leader.lead(world.executor._boxes.box(run_id))
    assert [dict(entry.error.labels) for entry in entries] == [{"run_id": run_id}] * 2


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"resource": {"type": "start"}, "dag": "no-such-dag", "run_id": "r1"}, id="of no DAG"),
        pytest.param({"resource": {"type": "start"}, "dag": 7, "run_id": "r1"}, id="malformed"),
        pytest.param({"resource": {"type": "cancel"}, "run_id": "r1"}, id="of no run"),
    ],
)
def test_an_event_that_is_wrong_names_the_run_that_it_names(event):
    assert labels_raised(World(dag(A=task())), event, publish_time=T0 - timedelta(days=1)) == {"run_id": "r1"}


def test_a_launch_that_is_uncertain_is_told_with_its_trace(lines):
    target = NotedTarget()

    def fails(launch):
        raise LaunchUncertain("no answer")

    target.before_launch = fails
    world = World(dag(A=task()), target=target)
    world.start("m1")
    assert lines == {"launch uncertain, left to the Tick: no answer": labels_of(target.calls[0])}


def test_a_question_that_cannot_be_answered_is_told_with_its_trace(lines, monkeypatch):
    world = World(dag(A=task()), target=NotedTarget(has_outcome=True))
    world.start("m1")

    def fails(execution):
        raise LaunchUncertain("503")

    monkeypatch.setattr(world.target, "outcome", fails)
    world.executor.tick()
    assert lines == {"cannot ask: 503": labels_of(world.target.calls[0])}


def test_a_forged_completion_is_told_with_the_event_that_it_was(lines):
    world = World(dag(A=task()))
    world.start("m1")
    launch = world.target.calls[0]
    world.executor.execute(completion(launch, nonce="f" * 32), message_id="m2")
    assert lines == {"a completion without the nonce of its claim is not believed": labels_of(launch, "m2")}
