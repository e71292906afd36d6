"""The items of a Map in `decide`, as tables: a definition, what happened, and what has come of it."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.facts import AttemptEnded, CancelRequested, PauseEnded, RedriveRequested, RunStarted
from orchestrator.model.node_state import NodeState, Slice
from orchestrator.model.policy import Policy, TargetRules
from tests.support.world import T0, dag, parallel, task

START = RunStarted("run_1_x", "dag", "sha256:0", {}, "m1")
TOKEN = Token("me.1", b"0" * 32)
LATER = T0 + timedelta(seconds=5)
POLICY = Policy({"Function": TargetRules(has_outcome=True), "Dag": TargetRules(has_outcome=True)})
PARTS = replace(POLICY, inline_items=2, part_items=2)


def each(count, *, steps=None, **keys):
    return {
        "type": "Map",
        "items": list(range(count)),
        "iterator": dag(**(steps or {"Do": task()})),
        **keys,
    }


def done(name, result=None):
    return AttemptEnded(name, 1, Outcome.completed(name if result is None else result))


def failed(name):
    return AttemptEnded(name, 1, Outcome.failed("Own.Error", f"{name} failed"))


def ran(definition, *facts, policy=POLICY):
    """The state after these facts, one by one, and for each of them what it had done: `Launch Do[1]`."""
    graph = DAG(definition)
    decision = decide(graph, None, [START], T0, TOKEN, policy)
    said = [_said(decision)]
    for fact in facts:
        decision = decide(graph, decision.state, [fact], LATER, TOKEN, policy)
        said.append(_said(decision))
    return decision.state, said


def _said(decision):
    found = []
    for command in decision.commands:
        name = getattr(command, "node_name", None) or command.launch.node_name
        found.append(f"{type(command).__name__} {name}")
    return found


def statuses(state, *names):
    return [state.nodes[name].status.value if name in state.nodes else "-" for name in names]


def test_an_item_has_an_entry_from_when_it_begins_and_its_end_says_what_it_ended_with():
    definition = dag(M=each(3, max_concurrency=2))
    state, said = ran(definition)
    assert said == [["Launch Do[0]", "Launch Do[1]"]]
    begun = NodeState(node_name="M[1]", node_type="Item", status="Running", started_at=T0)
    assert (state.nodes["M[1]"], state.nodes["M"].items.started) == (begun, 2)
    assert set(state.nodes) == {"M", "M[0]", "M[1]", "Do[0]", "Do[1]"}
    state, said = ran(definition, done("Do[1]"))
    assert said[1] == ["Launch Do[2]"]
    assert state.nodes["M[1]"] == replace(begun, status="Completed", last="Do[1]", ended_at=LATER)
    items = state.nodes["M"].items
    assert (items.count, items.started, items.ended, items.failed) == (3, 3, 1, ())


@pytest.mark.parametrize(
    ("keys", "facts", "said", "entries", "error"),
    [
        pytest.param({}, [], [], "Running Running Running Running", None, id="all begin"),
        pytest.param({}, [failed("Do[1]")], [], "Running Running Failed Running", None, id="what runs runs on"),
        pytest.param(
            {}, [failed("Do[1]"), done("Do[0]"), failed("Do[2]")], [], "Failed Completed Failed Failed",
            "Do[1] failed", id="the first failure by index is the Map's",
        ),
        pytest.param(
            {}, [failed("Do[2]"), done("Do[0]"), failed("Do[1]")], [], "Failed Completed Failed Failed",
            "Do[1] failed", id="whichever came first",
        ),
        pytest.param(
            {"max_concurrency": 1}, [failed("Do[0]")], [], "Failed Failed - -", "Do[0] failed",
            id="none begins any more",
        ),
        pytest.param(
            {"max_concurrency": 1, "tolerated_failures": 1}, [failed("Do[0]")], ["Launch Do[1]"],
            "Running Failed Running -", None, id="one may fail",
        ),
        pytest.param(
            {"max_concurrency": 1, "tolerated_failures": 1}, [failed("Do[0]"), failed("Do[1]")], [],
            "Failed Failed Failed -", "Do[0] failed", id="two may not",
        ),
        pytest.param(
            {"on_failure": "stop"}, [failed("Do[1]")], ["Withdraw Do[0]", "Withdraw Do[2]"],
            "Running Running Failed Running", None, id="those that run are stopped",
        ),
        pytest.param(
            {"on_failure": "stop", "tolerated_failures": 1}, [failed("Do[1]")], [],
            "Running Running Failed Running", None, id="but not by what is tolerated",
        ),
        pytest.param(
            {"on_failure": "stop"}, [failed("Do[1]"), failed("Do[0]")], [],
            "Running Failed Failed Running", None, id="they are stopped once",
        ),
        pytest.param(
            {"on_failure": "stop", "max_concurrency": 1}, [failed("Do[0]")], [],
            "Failed Failed - -", "Do[0] failed", id="nothing runs that could be stopped",
        ),
    ],
)  # fmt: skip
def test_failures_of_items(keys, facts, said, entries, error):
    state, told = ran(dag(M=each(3, **keys)), *facts)
    assert told[-1] == said or not facts
    assert statuses(state, "M", "M[0]", "M[1]", "M[2]") == entries.split()
    assert (state.nodes["M"].error and state.nodes["M"].error.message) == error


def test_the_failure_of_an_item_names_its_step_and_the_map_is_stopped_with_a_count():
    state, _ = ran(dag(M=each(1_200, on_failure="stop", max_concurrency=3)), failed("Do[1]"), policy=WIDE)
    entry = state.nodes["M[1]"]
    assert (entry.last, entry.ended_at) == ("Do[1]", LATER)
    assert entry.error == Failure("Own.Error", "Do[1] failed", node="Do[1]")
    assert state.nodes["M"].stop == Failure("Map.Stopped", "M: 1 of 1,200 items has not completed")
    assert state.nodes["M"].items.failed == (1,)
    keys = {"on_failure": "stop", "max_concurrency": 3, "tolerated_failures": 1}
    state, _ = ran(dag(M=each(4, **keys)), failed("Do[2]"), failed("Do[0]"))
    assert state.nodes["M"].stop == Failure("Map.Stopped", "M: 2 of 4 items have not completed")
    assert state.nodes["M"].items.failed == (0, 2)


WIDE = replace(POLICY, inline_items=2_000)


def test_results_stand_in_the_order_of_the_items_and_what_failed_has_none():
    facts = [done("Do[2]"), failed("Do[1]"), done("Do[0]", [0])]
    state, _ = ran(dag(M=each(3, tolerated_failures="34%")), *facts)
    assert (state.nodes["M"].status, state.nodes["M"].result) == ("Completed", [[0], None, "Do[2]"])
    assert (state.run.status, state.nodes["M"].ended_at) == ("Completed", LATER)


def test_an_item_that_ends_in_several_steps_has_no_result():
    steps = {"A": task(), "B": task(depends_on=["A"]), "C": task(depends_on=["A"])}
    state, said = ran(dag(M=each(1, steps=steps)), done("A[0]"), done("B[0]"), done("C[0]"))
    assert said[1] == ["Launch B[0]", "Launch C[0]"]
    assert (state.nodes["M"].status, state.nodes["M"].result, state.nodes["M[0]"].last) == ("Completed", [None], None)


def test_items_begin_ahead_of_what_waits_in_definition_order_and_bring_what_was_caught():
    fork = dag(
        A=task(on_error=[{"next": "P"}]),
        P=parallel(dag(M=each(2)), dag(Side=task())),
    )
    state, said = ran(fork, failed("A"))
    assert said[1] == ["Launch Do[0]", "Launch Do[1]", "Launch Side"]
    assert {state.nodes[name].caught for name in ("M", "M[0]", "M[1]", "Do[0]", "Do[1]", "Side")} == {"A"}


def test_a_map_in_an_item_runs_in_that_items_name_and_ends_with_its_list():
    inner = {"In": {"type": "Map", "items": "${[item, item + 10]}", "iterator": dag(X=task())}}
    facts = [done(f"X[{a}][{b}]") for a in (0, 1) for b in (1, 0)]
    state, said = ran(dag(M=each(2, steps=inner)), *facts)
    assert said[0] == ["Launch X[0][0]", "Launch X[0][1]", "Launch X[1][0]", "Launch X[1][1]"]
    assert state.nodes["M"].result == [["X[0][0]", "X[0][1]"], ["X[1][0]", "X[1][1]"]]
    assert (state.nodes["In[1][0]"].last, state.nodes["M[1]"].last) == ("X[1][0]", "In[1]")


@pytest.mark.parametrize(("tolerated", "wanted"), [(0, "Cancelled"), (3, "Cancelled")])
def test_a_cancelled_map_begins_no_item_and_is_cancelled_by_what_was_not_come_to(tolerated, wanted):
    facts = [CancelRequested("why"), done("Do[0]")]
    state, said = ran(dag(M=each(3, max_concurrency=1, tolerated_failures=tolerated)), *facts)
    assert said == [["Launch Do[0]"], ["Withdraw Do[0]"], []]
    assert statuses(state, "M", "M[0]", "M[1]") == [wanted, "Completed", "-"]
    assert (state.nodes["M"].error.error_type, state.run.status) == ("Run.Cancelled", "Cancelled")


def part_done(number, *indices):
    return AttemptEnded(f"M[{number}]", 1, Outcome.completed({"results": [number, number], "failed": list(indices)}))


def part_failed(number):
    return AttemptEnded(f"M[{number}]", 1, Outcome.failed("Own.Error", "no"))


@pytest.mark.parametrize(
    ("keys", "facts", "said", "entries", "error"),
    [
        pytest.param({}, [], ["Launch M[0]"], "Running Running - -", None, id="ten items at once are one part"),
        pytest.param({}, [part_done(0)], ["Launch M[1]"], "Running Completed Running -", None, id="then the next"),
        pytest.param(
            {"max_concurrency": 100}, [part_done(1)], ["Launch M[2]"], "Running Running Completed Running", None,
            id="two parts at once",
        ),
        pytest.param({}, [part_done(0, 1)], [], "Failed Completed - -", "Map.TooManyFailures", id="one item failed"),
        pytest.param(
            {"tolerated_failures": 1}, [part_done(0, 1)], ["Launch M[1]"], "Running Completed Running -", None,
            id="one may",
        ),
        pytest.param({}, [part_failed(0)], [], "Failed Failed - -", "Own.Error", id="a part failed"),
        pytest.param(
            {"max_concurrency": 100, "on_failure": "stop"}, [part_failed(1)], ["Withdraw M[0]"],
            "Running Running Failed -", None, id="the others are stopped",
        ),
        pytest.param(
            {"max_concurrency": 100, "on_failure": "stop"}, [part_done(0, 1), part_failed(1)], [],
            "Failed Completed Failed -", "Own.Error", id="stopped once",
        ),
        pytest.param(
            {"max_concurrency": 100}, [part_done(0, 1)], [], "Running Completed Running -", None,
            id="the others run on",
        ),
        pytest.param(
            {}, [part_done(0), part_done(1), part_done(2)], [], "Completed Completed Completed Completed", None,
            id="all",
        ),
    ],
)  # fmt: skip
def test_a_map_of_more_items_runs_as_parts(keys, facts, said, entries, error):
    state, told = ran(dag(M=each(6, **keys)), *facts, policy=PARTS)
    assert told[-1] == said
    assert statuses(state, "M", "M[0]", "M[1]", "M[2]") == entries.split()
    assert (state.nodes["M"].error and state.nodes["M"].error.error_type) == error


def test_why_parts_are_stopped_and_what_a_map_of_parts_comes_to():
    keys = {"on_failure": "stop", "max_concurrency": 100}
    state, _ = ran(dag(M=each(6, **keys)), part_failed(1), policy=PARTS)
    assert state.nodes["M"].stop == Failure("Map.Stopped", "M: part 1 has not completed")
    assert state.nodes["M"].items.broken_parts == (1,)
    state, _ = ran(dag(M=each(6, **keys)), part_done(1, 3), policy=PARTS)
    assert state.nodes["M"].stop == Failure("Map.Stopped", "M: 1 of 6 items has not completed")
    assert (state.nodes["M"].items.failed, state.nodes["M"].items.ended) == ((3,), 2)
    assert state.nodes["M[0]"].slice == Slice(0, 2, 50, 0)
    state, _ = ran(dag(M=each(6, tolerated_failures=3)), part_done(0, 1), part_done(1), part_done(2), policy=PARTS)
    assert state.nodes["M"].result == [0, 0, 1, 1, 2, 2]
    assert state.nodes["M[1]"].slice == Slice(2, 2, 10, 2)


def test_items_that_were_to_go_on_and_were_not_come_to_are_as_they_were():
    definition = dag(M=each(3, max_concurrency=1, tolerated_failures=1))
    graph = DAG(definition)
    state, _ = ran(definition, failed("Do[0]"), failed("Do[1]"))
    redriven = decide(graph, state, [RedriveRequested(LATER, 1), PauseEnded()], LATER, TOKEN, POLICY)
    assert _said(redriven) == ["Launch Do[0]"]
    items = redriven.state.nodes["M"].items
    assert (items.again, items.failed, items.ended) == ((1,), (), 0)
    again = AttemptEnded("Do[0]", 2, Outcome.completed("late"))
    state = decide(graph, redriven.state, [CancelRequested("why"), again], LATER, TOKEN, POLICY).state
    items = state.nodes["M"].items
    assert (items.again, items.failed, items.ended, items.started) == ((), (1,), 2, 2)
    assert statuses(state, "M", "M[0]", "M[1]", "M[2]") == ["Failed", "Completed", "Failed", "-"]
    assert state.run.status == "Cancelled"
