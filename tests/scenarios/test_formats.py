"""Documents that earlier code wrote: today's engine reads them, and carries open runs on to their ends."""

import json
from pathlib import Path

import pytest

from orchestrator.engine.schedules import Schedules
from orchestrator.engine.status import DefinitionStatus, ExecutionStatus, OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import TaskStatus
from orchestrator.model.messages import function_message, resume_message
from orchestrator.model.run_document import FORMAT
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.dag import DagTarget
from orchestrator.testing.noted_notifier import NotedNotifier
from tests.support.world import NotedTarget, World, chain

FORMATS = Path(__file__).parents[1] / "formats"
BUCKETS = {str(path.relative_to(FORMATS)): path for path in sorted(FORMATS.glob("v*/*/*")) if path.is_dir()}
WITH_RUNS = {name: path for name, path in BUCKETS.items() if (path / "runs").is_dir()}


def stored(name: str) -> MemoryStore:
    """The bucket, in memory."""
    store = MemoryStore()
    for path in sorted(BUCKETS[name].rglob("*")):
        if path.is_file():
            store.put(str(path.relative_to(BUCKETS[name])), path.read_bytes(), expect=None)
    return store


def world_of(name: str, **parts: object) -> World:
    """A world of today over a bucket of then; no definition is deployed any more."""
    world = World({"other": chain("X")}, store=stored(name), **parts)
    for key in world.store.list("executions/"):  # what was launched then, the service still knows
        execution_id = json.loads(world.store.get(key)[0])["execution_id"]
        world.target.launched[execution_id.removeprefix("x-")] = None
    world.clock.forward(120)  # leases of then are over
    return world


def end(world: World, run_id: str, node_name: str, outcome: Outcome | None = None) -> None:
    """Deliver the end of what the code of then, or of today, launched: the launch's nonce is in the document."""
    state = world.state(run_id)
    claim = state.nodes[node_name].claim
    assert claim is not None
    event = function_message(
        state.launch_id(node_name),
        claim.nonce,
        outcome or Outcome.completed({"from": node_name}),
        execution_id=f"x-{node_name}",
    )
    world.executor.execute(event, message_id=f"end-{node_name}", publish_time=world.clock.now())


def statuses(world: World, run_id: str) -> dict[str, str]:
    state = world.state(run_id)
    return {"": state.run.status.value, **{name: node.status.value for name, node in state.nodes.items()}}


def test_there_are_buckets_of_every_format():
    assert {name.partition("/")[0] for name in BUCKETS} == {f"v{number}" for number in range(1, FORMAT + 1)}


@pytest.mark.parametrize("name", WITH_RUNS)
def test_every_document_is_read(name):
    store = stored(name)
    for key in store.list("runs/"):
        state, _ = OrchestrationStatus(store, key[5:-5]).load()
        dag = DefinitionStatus(store).load(state.run.definition)
        items = {name for name in state.nodes if "[" in name}
        assert state.nodes.keys() - items <= dag.by_name.keys()
        assert items or state.nodes.keys() == dag.by_name.keys()
        assert all(dag.place(name) is not None for name in state.nodes)
    for key in store.list("executions/"):
        record = ExecutionStatus(store).get_execution(json.loads(store.get(key)[0])["execution_id"])
        assert record.run_id in {each[5:-5] for each in store.list("runs/")}


def test_a_run_of_the_first_code_is_carried_on_and_what_was_claimed_and_not_launched_is():
    world = world_of("v1/first/open")
    world.executor.tick()
    assert world.target.nodes.count("R1") == 1
    assert world.state("open").nodes["R1"].claim.takeovers == 1
    end(world, "open", "L1")
    assert world.target.calls[-1].parameters == {"origin": "L1"}
    for node_name in ("R1", "L2", "Join"):
        end(world, "open", node_name)
    assert set(statuses(world, "open").values()) == {"Completed"}
    assert [world.target.nodes.count(node_name) for node_name in ("A", "L2", "Join")] == [0, 1, 1]
    world.executor.tick()
    assert list(world.store.list("open/")) == []


def test_the_timeouts_of_the_first_code_hold():
    world = world_of("v1/first/open", target=NotedTarget(can_cancel=True))
    world.executor.tick()
    world.clock.forward(24 * 3600)
    for _ in range(4):
        world.executor.tick()
        world.clock.forward(24 * 3600)
    found = world.state("open")
    assert (found.run.status.value, found.nodes["L1"].error.error_type) == ("Failed", "Task.Timeout")


def test_a_cancel_of_the_first_code_waits_for_what_runs_and_starts_nothing():
    world = world_of("v1/first/cancelling")
    world.executor.tick()
    end(world, "cancelling", "L1")
    end(world, "cancelling", "R1")
    found = statuses(world, "cancelling")
    assert found.pop("") == "Cancelled"
    assert found == {
        "A": "Completed",
        "P": "Cancelled",
        "L1": "Completed",
        "R1": "Completed",
        "L2": "Skipped",
        "Join": "Skipped",
    }
    assert world.target.calls == []


def test_a_run_that_ended_then_is_let_go_of():
    world = world_of("v1/first/ended")
    assert world.executor.tick().closed == ("ended",)
    assert statuses(world, "ended")[""] == "Failed"


def test_waits_retries_caught_errors_and_large_results_of_then_are_gone_on_with():
    world = world_of("v1/language/waiting")
    end(world, "waiting", "Clean")
    world.clock.forward(600)
    world.executor.tick()
    assert world.target.nodes == ["Again"]
    end(world, "waiting", "Again", Outcome.completed({"ok": True}))
    world.clock.forward(3600)
    world.executor.tick()
    assert world.target.of("Then")[0].parameters == {"first": "x" * 200}
    end(world, "waiting", "Then")
    end(world, "waiting", "Last")
    found = world.state("waiting")
    assert found.run.status.value == "Completed"
    assert found.nodes["Good"].result == "2026-01-01T12:00:00Z"
    assert {name for name, node in found.nodes.items() if node.status is TaskStatus.SKIPPED} == {"Never", "Worse"}
    assert found.nodes["Bad"].status is TaskStatus.FAILED


def test_a_finally_of_then_ends_the_run_as_it_had_to():
    world = world_of("v1/language/finishing")
    end(world, "finishing", "Last")
    found = world.state("finishing")
    assert (found.run.status.value, found.run.error.error_type) == ("Failed", "Own.Error")


def test_a_pause_of_then_ends_and_a_notification_that_was_owed_is_sent():
    world = world_of("v1/steered/paused")
    notifier = NotedNotifier(world.clock, 0)
    world.instances = [world.instance(notifier=notifier)]
    world.executor.tick()
    assert [each.payload["event"] for each in notifier.sent] == ["started"]
    end(world, "paused", "R1")
    assert world.target.calls == []
    world.executor.execute(resume_message("paused"), message_id="r", publish_time=world.clock.now())
    assert sorted(world.target.nodes) == ["L2", "R2"]
    end(world, "paused", "L2")
    end(world, "paused", "R2")
    assert statuses(world, "paused")[""] == "Completed"


def test_a_stopped_node_of_then_ends_as_it_does():
    world = world_of("v1/steered/cancelling")
    end(world, "cancelling", "A")
    assert statuses(world, "cancelling") == {"": "Cancelled", "A": "Completed", "B": "Skipped"}


def test_a_job_of_then_is_asked():
    target = NotedTarget(has_outcome=True)
    target.first_question_s = 60.0
    world = world_of("v1/steered/asked", target=target, targets={"BigQuery": target})
    (key,) = target.launched
    target.outcomes[f"x-{key}"] = Outcome.completed({"rows": 7})
    world.executor.tick()
    world.executor.tick()
    assert world.state("asked").nodes["Then"].result == {"rows": 7}
    assert target.calls == []


def carried_on(name: str, **parts: object) -> tuple[World, dict[str, dict[str, str]]]:
    """Carry all runs of a bucket on to their ends: what runs ends well. Returns the statuses, by run id."""
    world = world_of(name, **parts)
    run_ids = [key[5:-5] for key in world.store.list("runs/")]
    for _ in range(30):
        world.executor.tick()
        while world.broker.published:
            message, _ = world.broker.published.pop()
            world.executor.execute(message, message_id=str(message), publish_time=world.clock.now())
        for run_id in run_ids:
            for node in world.state(run_id).nodes.values():
                is_run_here = node.target_type == "Function" and node.status is TaskStatus.RUNNING
                if is_run_here and node.claim is not None:
                    end(world, run_id, node.node_name)
        world.clock.forward(120)
    return world, {run_id: statuses(world, run_id) for run_id in run_ids}


def test_a_map_of_then_goes_on_with_the_items_that_are_left():
    world, found = carried_on("v1/complete/mapping")
    assert set(found["mapping"].values()) == {"Completed"}
    assert world.target.nodes == ["First[2]", "Second[2]"]
    assert [launch.parameters for launch in world.target.calls] == [{"of": "c"}, {"number": 2}]
    assert len(world.state("mapping").nodes["Report"].result) == 3


def test_steps_of_then_that_depend_on_others_start_when_these_have_ended():
    world, found = carried_on("v1/complete/depending")
    assert found["depending"] == {"": "Completed", "A": "Completed", "B": "Completed", "C": "Completed", "D": "Skipped"}
    assert world.target.nodes == ["C"]


def test_a_run_of_then_that_waits_for_its_turn_gets_it():
    world, found = carried_on("v1/complete/queued")
    assert {status for run in found.values() for status in run.values()} == {"Completed"}
    assert [launch.run_id for launch in world.target.calls] == ["queued"]


def test_a_redriven_run_of_then_repeats_nothing_that_succeeded():
    world, found = carried_on("v1/complete/redriven")
    assert set(found["redriven"].values()) == {"Completed"}
    assert world.target.nodes == ["C"]
    assert list(world.store.list("open/")) == []


def test_a_child_run_of_then_ends_and_its_parent_goes_on_with_its_result():
    world = World({"other": chain("X")})
    targets = {"Function": world.target}
    parts = {"target": world.target, "targets": targets}
    world = world_of("v1/complete/parent", **parts)
    targets["Dag"] = DagTarget(world.store, world.broker.publish, world.executor.make_child)
    run_ids = [key[5:-5] for key in world.store.list("runs/")]
    (child,) = set(run_ids) - {"parent"}
    end(world, child, "Work", Outcome.completed({"rows": 7}))
    for _ in range(3):
        world.executor.tick()
        world.clock.forward(120)
    assert world.target.of("After")[0].parameters == {"got": {"rows": 7}}
    end(world, "parent", "After")
    assert {statuses(world, run_id)[""] for run_id in run_ids} == {"Completed"}


def test_a_mark_of_a_schedule_is_gone_on_from():
    world = World({**chain("A"), "schedule": "0 * * * *", "missed": "all"}, store=stored("v1/schedule/marked"))
    world.clock.forward(2 * 3600 + 600)
    looks = Schedules(world.store, world.catalog, world.clock, world.broker.publish)
    assert [f"{at:%H:%M}" for _, at in looks.make_up().started] == ["13:00", "14:00"]
