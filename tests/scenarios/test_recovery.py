"""Timeouts, cancels, lost events, late calls and uncertain writes: what the rules of the loop promise."""

import msgspec
import pytest

from orchestrator.engine.status import Marker, OrchestrationStatus
from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import (
    CorruptState,
    LaunchUncertain,
    NotYet,
    RunExists,
    RunNotFound,
    StoreUnavailable,
    UnknownDag,
    VersionConflict,
)
from orchestrator.model.messages import cancel_message, reminder_message
from orchestrator.stores.memory import MemoryStore
from tests.support.world import START, T0, NotedTarget, World, chain, completion, dag, parallel, task

FORK = dag(Init=task("Fork"), Fork=parallel(chain("Left"), chain("Right"), next="Join"), Join=task())


def deliver_reminders(world: World) -> None:
    """Deliver the reminders that the broker holds, as if their time had come."""
    kept, world.broker.published = world.broker.published, []
    for event, _ in kept:
        world.executor.execute(event)


# -- timeouts ---------------------------------------------------------------------------------------


def test_a_timeout_is_reminded_of_and_fails_the_step():
    world = World(dag(A=task("B", timeout="10m"), B=task()))
    run_id = world.start()
    ((event, delay_s),) = world.broker.published
    assert delay_s == 600
    world.clock.forward(600)
    deliver_reminders(world)
    state = world.state(run_id)
    assert (state.run.status, state.run.error.error_type) == (RunStatus.FAILED, "Task.Timeout")
    assert (event["node_name"], event["kind"]) == ("A", "timeout")
    assert state.nodes["B"].status is TaskStatus.SKIPPED


def test_the_timeout_of_an_attempt_that_was_taken_over_counts_from_then():
    target = NotedTarget()
    target.before_launch = lambda launch: (_ for _ in ()).throw(LaunchUncertain("killed"))
    world = World(dag(A=task("B", timeout="10m"), B=task()), target=target)
    run_id = world.start()
    target.before_launch = lambda launch: None
    world.clock.forward(70)
    world.executor.tick()
    world.clock.forward(595)
    deliver_reminders(world)
    assert world.state(run_id).nodes["A"].status is TaskStatus.RUNNING
    world.clock.forward(6)
    world.executor.tick()
    assert world.state(run_id).run.error.error_type == "Task.Timeout"


def test_a_timeout_of_a_claim_that_may_still_be_launched_is_put_off_to_the_leases_end_once():
    target = NotedTarget()
    target.before_launch = lambda launch: (_ for _ in ()).throw(LaunchUncertain("stalled"))
    world = World(dag(A=task("B", timeout="30s"), B=task()), target=target)
    run_id = world.start()
    world.clock.forward(30)
    deliver_reminders(world)
    node = world.state(run_id).nodes["A"]
    assert node.status is TaskStatus.RUNNING
    assert (node.due["timeout"] - T0).total_seconds() == 90


def test_a_step_that_ended_in_time_is_not_failed_by_its_reminder():
    world = World(dag(A=task("B", timeout="10m"), B=task()))
    run_id = world.start()
    world.end("A")
    before = world.state(run_id)
    world.clock.forward(700)
    deliver_reminders(world)
    assert world.state(run_id) == before


def test_a_due_timeout_asks_the_outcome_first():
    target = NotedTarget(has_outcome=True)
    world = World(dag(A=task("B", timeout="10m"), B=task()), target=target)
    run_id = world.start()
    target.outcomes[f"x-{target.calls[0].key}"] = Outcome.completed(7)
    world.clock.forward(601)
    deliver_reminders(world)
    assert world.state(run_id).nodes["A"].result == 7


def test_a_reminder_of_another_attempt_or_time_does_nothing():
    world = World(dag(A=task(timeout="10m")))
    run_id = world.start()
    at = world.state(run_id).nodes["A"].due["timeout"]
    before = world.state(run_id)
    world.executor.execute(reminder_message(run_id, "A", 2, kind="timeout", at=at))
    world.executor.execute(reminder_message(run_id, "A", 1, kind="timeout", at=T0))
    assert world.state(run_id) == before


def test_a_step_without_an_outcome_has_a_default_timeout_and_one_with_has_none():
    bare, asked = World(chain("A")), World(chain("A"), target=NotedTarget(has_outcome=True))
    assert (bare.state(bare.start()).nodes["A"].due["timeout"] - T0).total_seconds() == 23 * 3600
    assert asked.state(asked.start()).nodes["A"].due == {}
    assert bare.broker.published == [], "a default timeout is left to the Tick"


def test_an_attempt_that_times_out_is_cancelled_before_its_step_ends():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    accepts = []

    def cancel(execution: object) -> None:
        if not accepts:
            raise LaunchUncertain("503")
        target.cancelled.append(execution.execution_id)

    target.cancel = cancel
    world = World(dag(A=task("B", timeout="10m"), B=task()), target=target)
    run_id = world.start()
    world.clock.forward(601)
    deliver_reminders(world)
    node = world.state(run_id).nodes["A"]
    assert (node.status, node.owed_cancel.ends_as) == (TaskStatus.RUNNING, TaskStatus.FAILED)
    assert not world.state(run_id).run.status.is_final, "a run owes nothing when it ends"
    accepts.append(True)
    world.executor.tick()
    assert world.state(run_id).run.error.error_type == "Task.Timeout"
    assert target.cancelled == [f"x-{target.calls[0].key}"]


def test_a_launch_that_nobody_ever_answers_is_given_up():
    target = NotedTarget(has_outcome=True)

    def never(launch: Launch) -> None:
        raise LaunchUncertain("503")

    target.before_launch = never
    world = World(chain("A"), target=target, max_takeovers=3)
    run_id = world.start()
    for _ in range(6):
        world.clock.forward(66)
        world.executor.tick()
    state = world.state(run_id)
    assert (state.run.status, state.run.error.error_type) == (RunStatus.FAILED, "Launch.Uncertain")
    assert len(target.calls) == 4


def test_a_run_whose_completions_are_all_lost_ends_by_the_ticks_questions():
    target = NotedTarget(has_outcome=True)
    world = World(FORK, target=target)
    run_id = world.start()
    for _ in range(12):
        for launch in target.calls:
            target.outcomes[f"x-{launch.key}"] = Outcome.completed()
        world.clock.forward(66)
        world.executor.tick()
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert sorted(target.nodes) == ["Init", "Join", "Left", "Right"]
    assert list(world.store.list("open/")) == [], "the Tick deletes the marker after the end"


def test_an_execution_lost_with_its_host_is_a_new_attempt():
    target = NotedTarget(has_outcome=True)
    world = World(chain("A", "B"), target=target)
    run_id = world.start()
    first = target.calls[0]
    target.outcomes[f"x-{first.key}"] = Outcome.lost("its host is gone")
    world.end("A")
    assert [(launch.node_name, launch.attempt) for launch in target.calls] == [("A", 1), ("A", 2)]
    world.executor.execute(completion(first))  # of the attempt that is dead
    assert world.state(run_id).nodes["A"].attempt == 2
    assert target.calls[1].key != first.key
    assert target.calls[1].nonce != first.nonce


# -- cancels ----------------------------------------------------------------------------------------


def test_a_cancelled_run_cancels_what_runs_and_starts_nothing_more():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    world = World(FORK, target=target)
    run_id = world.start()
    target.outcomes[f"x-{target.calls[0].key}"] = Outcome.completed()
    world.end("Init")
    world.executor.execute(cancel_message(run_id, "not needed"))
    state = world.state(run_id)
    assert (state.run.status, state.run.cancel_reason) == (RunStatus.CANCELLED, "not needed")
    assert len(target.cancelled) == 2
    assert {name: node.status.value for name, node in state.nodes.items()} == {
        "Init": "Completed",
        "Fork": "Cancelled",
        "Left": "Cancelled",
        "Right": "Cancelled",
        "Join": "Skipped",
    }


def test_a_cancel_that_is_refused_for_good_is_settled_by_the_end_of_what_runs():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    target.cancel = lambda execution: (_ for _ in ()).throw(PermissionError("403"))
    world = World(chain("A"), target=target)
    run_id = world.start()
    world.executor.execute(cancel_message(run_id))
    world.executor.tick()
    assert not world.state(run_id).run.status.is_final
    target.outcomes[f"x-{target.calls[0].key}"] = Outcome.completed()
    world.executor.tick()
    assert world.state(run_id).run.status is RunStatus.CANCELLED


def test_what_cannot_be_cancelled_is_waited_for():
    world = World(FORK)
    run_id = world.start()
    world.end("Init")
    world.executor.execute(cancel_message(run_id, "not needed"))
    world.end("Left")
    assert world.state(run_id).run.status is RunStatus.RUNNING
    world.end("Right")
    state = world.state(run_id)
    assert state.run.status is RunStatus.CANCELLED
    assert state.nodes["Join"].status is TaskStatus.SKIPPED


def test_a_cancel_of_a_claim_that_was_never_launched_waits_for_the_leases_end():
    target = NotedTarget(has_outcome=True, can_cancel=True)

    def lost(launch: Launch) -> None:
        raise LaunchUncertain("timed out")

    target.before_launch = lost
    world = World(chain("A"), target=target)
    run_id = world.start()
    world.executor.execute(cancel_message(run_id))
    world.executor.tick()
    assert not world.state(run_id).run.status.is_final, "it may still be launched under its lease"
    world.clock.forward(66)
    world.executor.tick()
    assert world.state(run_id).run.status is RunStatus.CANCELLED


# -- leases -----------------------------------------------------------------------------------------


def test_an_owner_that_is_too_late_leaves_the_launch_to_the_tick():
    world = World(chain("A", "B"))
    slow = world.instance(on_saved=lambda state: world.clock.forward(58))
    run_id = slow.execute(START, message_id="m1").run_id
    assert world.target.calls == []
    world.clock.forward(66)
    world.executor.tick()
    assert world.target.nodes == ["A"]
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


def test_a_launch_call_that_returns_after_the_attempt_died_is_cancelled():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    world = World(dag(A=task(timeout="1s")), target=target, max_takeovers=0)
    other = world.instance()
    target.find = lambda launch: None

    def stall(launch: Launch) -> None:
        target.before_launch = lambda launch: None
        world.clock.forward(70)
        other.tick()
        world.clock.forward(70)
        other.tick()

    target.before_launch = stall
    run_id = world.start()
    assert world.state(run_id).run.status is RunStatus.FAILED
    assert target.cancelled == [f"x-{target.calls[0].key}"]


# -- forged and foreign events ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "forge",
    [
        pytest.param(lambda launch: completion(launch, nonce="0" * 32), id="a wrong nonce"),
        pytest.param(
            lambda launch: {**completion(launch), "launch_id": launch.launch_id[:-1] + "2"}, id="another attempt"
        ),
        pytest.param(
            lambda launch: {**completion(launch), "launch_id": f"{launch.run_id}/Nobody/1"}, id="no such node"
        ),
    ],
)
def test_a_forged_completion_changes_nothing(forge):
    world = World(chain("A", "B"))
    run_id = world.start()
    before = world.state(run_id)
    world.executor.execute(forge(world.target.calls[0]))
    assert world.state(run_id) == before


def test_where_the_target_has_an_outcome_no_event_is_believed():
    target = NotedTarget(has_outcome=True)
    world = World(chain("A", "B"), target=target)
    run_id = world.start()
    world.end("A")
    assert world.state(run_id).nodes["A"].status is TaskStatus.RUNNING
    ((event, delay_s),) = world.broker.published
    assert (event["resource"], delay_s) == ({"type": "reminder"}, 15.0), "not final yet: ask again soon"
    target.outcomes[f"x-{target.calls[0].key}"] = Outcome.failed("Dataflow.JobFailed", "out of memory")
    world.end("A")
    assert world.state(run_id).run.error.message == "out of memory"


def test_a_late_event_of_a_run_that_does_not_exist_is_a_clear_error():
    world = World(chain("A"))
    event = completion(Launch("A", "Function", "f", run_id="run_1_x"), nonce="0" * 32)
    with pytest.raises(NotYet):
        world.executor.execute(event)
    published = world.clock.now()
    world.clock.forward(61)
    with pytest.raises(RunNotFound, match=r"runs/run_1_x\.json"):
        world.executor.execute(event, publish_time=published)


def test_a_start_with_the_run_id_of_another_message_is_a_clear_error():
    world = World(chain("A"))
    world.start("m1", run_id="mine")
    world.start("m1", run_id="mine")
    with pytest.raises(RunExists, match="mine"):
        world.start("m2", run_id="mine")
    assert world.target.nodes == ["A"]


def test_a_start_of_an_unknown_dag_is_a_clear_error():
    world = World({"one": chain("A"), "two": chain("B")})
    with pytest.raises(UnknownDag, match='there is no dag "onw"; did you mean "one"'):
        world.start(dag="onw")
    with pytest.raises(UnknownDag, match="DEFAULT_DAG is not set; there are one, two"):
        world.start()


# -- the store --------------------------------------------------------------------------------------


class FaultyStore(MemoryStore):
    """Answers the next writes of a run document with an error, before or after having written it."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[tuple[bool, Exception]] = []

    def put(self, key, data, *, expect):
        if not key.startswith("runs/") or not self.faults:
            return super().put(key, data, expect=expect)
        is_written, error = self.faults.pop(0)
        if is_written:
            super().put(key, data, expect=expect)
        raise error


@pytest.mark.parametrize("is_written", [True, False], ids=["after it was written", "before"])
@pytest.mark.parametrize(
    "error",
    [StoreUnavailable("503"), VersionConflict("412, by the client's own retry")],
    ids=["503", "412"],
)
def test_a_save_that_is_answered_by_an_error_launches_once(is_written, error):
    world = World(chain("A", "B"), store=FaultyStore())
    world.store.faults = [(is_written, error)]
    run_id = world.start()
    assert world.target.nodes == ["A"]
    world.store.faults = [(is_written, error), (False, error)]
    world.end("A")
    assert world.target.nodes == ["A", "B"]
    world.end("B")
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_a_store_that_stays_away_gives_the_event_back_and_the_tick_finds_what_was_claimed():
    world = World(chain("A", "B"), store=FaultyStore())
    run_id = world.start()
    world.store.faults = [(True, StoreUnavailable("503"))] + [(False, StoreUnavailable("503"))] * 9
    world.store.get, get = lambda key: (_ for _ in ()).throw(StoreUnavailable("503")), world.store.get
    with pytest.raises(StoreUnavailable) as given_back:
        world.end("A")
    assert given_back.value.retry
    world.store.get, world.store.faults = get, []
    world.end("A")
    world.clock.forward(66)
    world.executor.tick()
    assert world.target.nodes == ["A", "B"]
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not a run document"),
        (b'{"$run": {"format": 1', "is not a run document"),
        (b"{}", "has no"),
        (b"[]", "is not a run document"),
    ],
)
def test_a_corrupt_document_is_an_error_that_names_it_and_spoils_no_other_run(content, says):
    world = World(chain("A", "B"))
    spoilt, sound = world.start("m1"), world.start("m2")
    key = f"runs/{spoilt}.json"
    world.store.put(key, content, expect=world.store.get(key)[1])
    cold = world.instance()
    with pytest.raises(CorruptState, match=rf"{spoilt}\.json: {says}"):
        cold.execute(completion(world.target.calls[0]))
    swept = cold.tick()
    assert swept.runs == 2
    assert [spoilt in problem for problem in swept.problems] == [True]
    cold.execute(completion(world.target.calls[1]))
    assert world.state(sound).nodes["A"].status is TaskStatus.COMPLETED
    assert world.store.get(key)[0] == content, "nothing is written over what cannot be read"


def test_a_document_without_some_of_its_nodes_is_an_error_that_names_it():
    world = World(chain("A", "B"))
    run_id = world.start()
    key = f"runs/{run_id}.json"
    content, version = world.store.get(key)
    kept = [line for line in content.decode().splitlines() if not line.startswith('"B"')]
    world.store.put(key, ("\n".join(kept).rstrip(",") + "}").encode(), expect=version)
    with pytest.raises(CorruptState, match=rf"{key}: has other nodes than its definition"):
        world.instance().execute(completion(world.target.calls[0]))


def test_a_run_in_flight_keeps_its_definition():
    world = World(chain("A", "B"))
    run_id = world.start()
    newer = World(chain("A", "X"), store=world.store, target=world.target)
    newer.executor.execute(completion(world.target.calls[0]))
    assert list(newer.state(run_id).nodes) == ["A", "B"]
    assert world.target.nodes == ["A", "B"]


def test_a_definition_that_is_gone_is_named_unless_the_deployed_one_is_the_same():
    world = World(chain("A", "B"))
    world.start()
    (key,) = world.store.list("definitions/")
    world.store.delete(key)
    changed = World(chain("A", "X"), store=world.store, target=world.target)
    with pytest.raises(CorruptState, match=rf"{key}: is missing"):
        changed.executor.execute(completion(world.target.calls[0]))
    same = World(chain("A", "B"), store=world.store, target=world.target)
    same.executor.execute(completion(world.target.calls[0]))
    assert world.target.nodes == ["A", "B"]


def test_a_marker_without_a_run_is_skipped_and_reported_when_it_is_a_day_old():
    world = World(chain("A"))
    world.store.put("open/run_1_gone", b'{"at":"2026-01-01T12:00:00Z"}', expect=None)
    assert world.executor.tick().problems == ()
    world.clock.forward(86401)
    (problem,) = world.executor.tick().problems
    assert "open/run_1_gone" in problem


def test_the_marker_of_a_child_run_that_was_never_made_goes_once_nobody_can_make_it_any_more():
    world = World(chain("A"), target=NotedTarget(has_outcome=True))
    run_id = world.start()
    marker = Marker(world.clock.now(), f"{run_id}/A/1")
    world.store.put("open/run_1_child", msgspec.json.encode(marker), expect=None)
    world.clock.forward(86401)
    (problem,) = world.executor.tick().problems  # its launch may still be repeated
    assert "open/run_1_child" in problem
    world.target.outcomes[f"x-{world.target.calls[0].key}"] = Outcome.completed()
    world.end("A")
    assert world.executor.tick().problems == ()
    assert list(world.store.list("open/")) == []


def test_the_document_is_what_a_person_reads():
    world = World(chain("A", "B"))
    run_id = world.start(input={"day": "2026-01-01"})
    text = world.store.get(f"runs/{run_id}.json")[0].decode()
    assert text.startswith('{"$run": {"format":1,"run_id":"')
    assert text.splitlines()[1].startswith('"A": {"node_name":"A","node_type":"Task","next":"B",')
    state, _ = OrchestrationStatus(world.store, run_id).load()
    assert state.run.input == {"day": "2026-01-01"}
