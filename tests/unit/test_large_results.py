from datetime import UTC, datetime

import msgspec
import pytest
from msgspec.structs import replace

from orchestrator.engine.large_results import MAX_INLINE_BYTES, LargeResults
from orchestrator.engine.wanted import wanted
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.enums import NodeTypes, OutcomeKind, RunStatus, TaskStatus
from orchestrator.model.errors import CorruptState
from orchestrator.model.facts import AttemptEnded, RedriveRequested
from orchestrator.model.ids import key_of
from orchestrator.model.node_state import NodeState, StoredResult
from orchestrator.model.run_document import decode, encode
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.model.task_result import TaskResult, result_object
from orchestrator.stores.memory import MemoryStore
from tests.support.world import World, task

NOW = datetime(2026, 11, 26, tzinfo=UTC)
AT_THE_LIMIT = "x" * (MAX_INLINE_BYTES - 2)  # its quotes count
BEYOND = AT_THE_LIMIT + "x"
OBJECT = result_object(key_of("r/A/1"))


def run(result, *, attempt: int = 1) -> RunState:
    node = NodeState(
        node_name="A",
        node_type=NodeTypes.TASK,
        status=TaskStatus.COMPLETED,
        attempt=attempt,
        ended_at=NOW,
        result=result,
    )
    info = RunInfo(format=1, run_id="r", dag="d", definition="", status=RunStatus.RUNNING, input={}, started_at=NOW)
    return RunState(info, {"A": node})


@pytest.mark.parametrize("result", [None, True, 7, AT_THE_LIMIT, [AT_THE_LIMIT[2:]], {}])
def test_a_result_up_to_the_limit_stays_in_the_document(result):
    store = MemoryStore()
    state = run(result)
    assert LargeResults(store).set_aside(None, state) is state
    assert list(store.list("")) == []


def test_one_beyond_it_is_written_once_under_the_launchs_key_and_comes_back_the_same():
    store = MemoryStore()
    large = LargeResults(store)
    saved = large.set_aside(None, run(BEYOND))
    assert saved.nodes["A"].result is None
    assert saved.nodes["A"].stored_result == StoredResult(OBJECT, MAX_INLINE_BYTES + 1)
    assert decode(encode(saved), "here") == saved
    assert large.load(saved.nodes["A"]) == BEYOND
    version = store.get(OBJECT)[1]
    assert large.set_aside(None, run(BEYOND)) == saved  # a save that lost a race
    assert store.get(OBJECT)[1] == version


def test_what_was_brought_back_for_a_decision_is_taken_out_again_and_written_no_second_time():
    store = MemoryStore()
    large = LargeResults(store)
    saved = large.set_aside(None, run(BEYOND))
    back = large.brought_back(saved, "A")
    assert back.nodes["A"].result == BEYOND
    again = large.set_aside(saved, RunState(replace(back.run, cancel_reason="no"), back.nodes))
    assert again.nodes["A"] is saved.nodes["A"]
    assert len(list(store.list("results/"))) == 1


def test_what_a_function_has_left_there_is_not_copied():
    store = MemoryStore()
    left = msgspec.json.encode(TaskResult(kind=OutcomeKind.COMPLETED, result=BEYOND, at=NOW))
    version = store.put(OBJECT, left, expect=None)
    saved = LargeResults(store).set_aside(None, run(BEYOND))
    assert saved.nodes["A"].stored_result.object == OBJECT
    assert store.get(OBJECT) == (left, version)


def test_results_of_no_launch_never_share_an_object_unless_they_are_the_same():
    store = MemoryStore()
    large = LargeResults(store)
    one, other = (large.set_aside(None, run(result, attempt=0)) for result in (BEYOND, BEYOND + "y"))
    assert large.load(one.nodes["A"]) == BEYOND
    assert large.load(other.nodes["A"]) == BEYOND + "y"
    assert large.set_aside(None, run(BEYOND, attempt=0)) == one


@pytest.mark.parametrize(("content", "message"), [(None, "is missing"), (b"{", "is not a task's result")])
def test_a_missing_or_spoilt_object_is_named(content, message):
    store = MemoryStore()
    if content is not None:
        store.put(OBJECT, content, expect=None)
    node = replace(run(None).nodes["A"], stored_result=StoredResult(OBJECT, 1))
    with pytest.raises(CorruptState) as caught:
        LargeResults(store).load(node)
    assert str(caught.value).startswith(f"{OBJECT}: {message}")


def test_an_object_that_tells_of_no_result_is_corrupt():
    store = MemoryStore()
    failed = TaskResult(kind=OutcomeKind.FAILED, error=Failure("Task.Failed", "no"), at=NOW)
    for number, left in enumerate((failed, TaskResult(kind=OutcomeKind.COMPLETED, at=NOW))):
        name = result_object(str(number))
        store.put(name, msgspec.json.encode(left), expect=None)
        node = replace(run(None).nodes["A"], stored_result=StoredResult(name, 1))
        with pytest.raises(CorruptState, match=f"^{name}: is {left.kind} with no result"):
            LargeResults(store).load(node)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param(TaskResult(kind=OutcomeKind.FAILED, error=Failure("Task.Failed", "no"), at=NOW), id="a failure"),
        pytest.param(TaskResult(kind=OutcomeKind.COMPLETED, at=NOW), id="null"),
        pytest.param(TaskResult(kind=OutcomeKind.COMPLETED, result=BEYOND + "y", at=NOW), id="another result"),
        pytest.param({"kind": "nonsense"}, id="no result document"),
    ],
)
def test_where_a_function_has_left_something_else_the_result_lies_beside_that(left):
    store = MemoryStore()
    version = store.put(OBJECT, msgspec.json.encode(left), expect=None)
    large = LargeResults(store)
    saved = large.set_aside(None, run(BEYOND))
    assert large.load(saved.nodes["A"]) == BEYOND
    assert saved.nodes["A"].stored_result.object.startswith(OBJECT.removesuffix(".json") + "-")  # pruned with it
    assert large.set_aside(None, run(BEYOND)) == saved
    assert store.get(OBJECT)[1] == version


def test_what_a_step_names_is_fetched_ahead_only_when_all_that_it_waits_for_may_be_over():
    def passing(result, *depends_on):
        return {"type": "Pass", "result": result, "depends_on": list(depends_on)}

    steps = {
        "A": task(),
        "B": task(),
        "OfA": passing("${steps.A.result}", "A"),
        "OfBoth": passing("${steps.A.result} ${steps.B.result}", "A", "B"),
        "Last": passing("${steps.B.result}", "OfA", "OfBoth"),
    }
    last = {"steps": {"Tell": {"type": "Pass", "result": "${steps.OfA.result}"}, "Then": passing(1, "Tell")}}
    world = World({"steps": steps, "finally": last})
    state, dag = world.state(world.start()), world.catalog.find(None)[2]
    ended = {name: AttemptEnded(name, 1, Outcome.completed()) for name in "AB"}
    assert wanted(dag, state, [ended["A"]]) == ("A",)
    assert set(wanted(dag, state, [ended["A"], ended["B"]])) == {"A", "B", "OfA"}


def test_what_a_redrive_lets_start_is_fetched_ahead_too():
    steps = {"A": task(), "B": task(parameters={"x": "${steps.A.result}"}, depends_on=["A"])}
    world = World({"steps": steps})
    run_id = world.start()
    world.end("A")
    world.end("B", Outcome.failed("Task.Failed", "boom"))
    dag = world.catalog.find(None)[2]
    assert wanted(dag, world.state(run_id), [RedriveRequested(world.clock.now(), 1)]) == ("A",)
