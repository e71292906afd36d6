"""What the end of a step leads to, as tables: what is written, whose result is the run's, what is caught."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token, new_state
from orchestrator.engine.redrive_plan import Plan
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    ClaimExpired,
    LaunchBound,
    PauseEnded,
    RunAdopted,
    RunStarted,
)
from orchestrator.model.node_state import Items
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import ParentRun, PartOf
from tests.support.world import T0, chain, dag, parallel, task

START = RunStarted("run_1_x", "dag", "sha256:0", {}, "m1", scheduled_for=T0)
TOKEN = Token("me.1", b"0" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True)})
LATER = T0 + timedelta(seconds=5)


def done(name):
    return AttemptEnded(name, 1, Outcome.completed(f"of {name}"))


def failed(name):
    return AttemptEnded(name, 1, Outcome.failed("Own.Error", f"{name} failed"))


def ran(definition, *facts, start=START):
    graph = DAG(definition)
    decision = decide(graph, None, [start], T0, TOKEN, POLICY)
    for fact in facts:
        decision = decide(graph, decision.state, [fact], LATER, TOKEN, POLICY)
    return decision


def test_what_has_ended_has_no_open_branches_claim_or_slot():
    state = ran(dag(P=parallel(chain("L"), chain("R"))), done("L"), done("R")).state
    for node in state.nodes.values():
        left = (node.open_branches, node.claim, node.due, node.owed_cancel, node.slot, node.stop)
        assert left == (0, None, {}, None, None, None)
        assert (node.status, node.ended_at) == ("Completed", LATER)


@pytest.mark.parametrize(
    ("steps", "facts", "result_of"),
    [
        pytest.param({"A": task(), "B": task(depends_on=["A"])}, [done("A"), done("B")], "B", id="the only last"),
        pytest.param(
            {"A": task(), "B": task(depends_on=["A"]), "C": task(depends_on=["A"])},
            [done("A"), done("B"), done("C")],
            None,
            id="of two it is neither's",
        ),
        pytest.param(
            {"A": task(), "B": task(depends_on=["A"], on_error=[{"next": "C"}]), "C": task()},
            [done("A"), done("B")],
            "B",
            id="a route leads on from none that completed",
        ),
        pytest.param(
            {"A": task(), "B": task(depends_on=["A"], on_error=[{"next": "C"}]), "C": task()},
            [done("A"), failed("B"), done("C")],
            "C",
            id="the route's, where one was taken",
        ),
        pytest.param(
            {"A": task(), "B": task("C", depends_on=["A"]), "C": task()},
            [done("A"), done("B"), done("C")],
            "C",
            id="what a next follows is none",
        ),
    ],
)
def test_whose_result_a_run_has_in_which_steps_depend_on_others(steps, facts, result_of):
    run = ran(dag(**steps), *facts).state.run
    assert (run.status, run.result_of) == ("Completed", result_of)


@pytest.mark.parametrize(
    ("first", "second", "caught"),
    [
        pytest.param(done("A"), failed("B"), "B", id="what the only failure brings"),
        pytest.param(failed("A"), failed("B"), "A", id="of two the first in definition order"),
        pytest.param(failed("A"), done("B"), "A", id="and not what a later one lacks"),
    ],
)
def test_a_step_that_several_ways_lead_to_has_caught_what_the_first_of_them_brings(first, second, caught):
    steps = {
        "Root": task(),
        "A": task(depends_on=["Root"], on_error=[{"next": "C"}]),
        "B": task(depends_on=["Root"], on_error=[{"next": "C"}]),
        "C": task(),
    }
    for facts in ((first, second), (second, first)):
        node = ran(dag(**steps), done("Root"), *facts).state.nodes["C"]
        assert (node.status, node.caught) == ("Running", caught)


def test_what_no_way_has_led_to_is_skipped_with_all_that_it_holds():
    steps = {
        "A": task(on_error=[{"next": "C"}]),
        "C": {"type": "Parallel", "branches": [chain("X", "Y"), chain("Z")]},
        "D": task(depends_on=["A"]),
    }
    state = ran(dag(**steps), done("A")).state
    assert [state.nodes[name].status.value for name in "CXYZD"] == ["Skipped"] * 4 + ["Running"]


def test_a_run_s_times_are_told_in_utc_with_a_z():
    parameters = {"for": "${run.scheduled_for}", "at": "${run.started_at}"}
    (launch,) = ran(dag(A=task(parameters=parameters))).commands
    told = T0.strftime("%Y-%m-%dT%H:%M:%S")
    assert all(text.startswith(told) and text.endswith("Z") and "+" not in text for text in launch.parameters.values())


def test_a_child_run_that_is_to_go_on_at_its_end_and_completes_goes_on_no_more():
    start = RunStarted("run_2_x", "dag", "sha256:0", {}, "m1", parent=ParentRun("run_1_x", "Call", 1))
    graph = DAG(chain("A"))
    state = decide(graph, None, [start], T0, TOKEN, POLICY).state
    state = decide(graph, state, [PauseEnded()], T0, TOKEN, POLICY).state
    assert state.nodes["A"].status == "Running"
    adopted = RunAdopted(ParentRun("run_1_x", "Call", 2), LATER)
    state = decide(graph, state, [CancelRequested("why")], LATER, TOKEN, POLICY).state
    state = decide(graph, state, [adopted], LATER, TOKEN, POLICY).state
    assert state.run.goes_on_at_end == LATER
    state = decide(graph, state, [done("A")], LATER, TOKEN, POLICY).state
    assert (state.run.status, state.run.goes_on_at_end) == ("Completed", None)


def test_a_redrive_from_before_a_map_runs_its_items_and_their_steps_again():
    inner = {"type": "Map", "items": [1, 2], "iterator": chain("X")}
    definition = dag(
        A=task("P"),
        P=parallel(dag(M={"type": "Map", "items": [1], "iterator": dag(In=inner)}), chain("L"), next="Other"),
        Other={"type": "Map", "items": [1], "iterator": chain("Y")},
    )
    state = ran(definition, done("A"), done("X[0][0]"), done("X[0][1]"), done("L"), done("Y[0]")).state
    assert state.run.status == "Completed"
    plan = Plan.of_run(DAG(definition), state, "A")
    assert plan.entering == [("A", None)]
    assert set(plan.again) == set(state.nodes)
    plan = Plan.of_run(DAG(definition), state, "M")
    assert set(plan.again) == {
        "M",
        "M[0]",
        "In[0]",
        "In[0][0]",
        "In[0][1]",
        "X[0][0]",
        "X[0][1]",
        "Other",
        "Other[0]",
        "Y[0]",
    }
    assert (plan.opened, plan.entering) == ([("P", (0,))], [("M", None)])


def test_a_parallel_ends_with_the_error_of_a_branch_in_which_steps_depend_on_others():
    branch = dag(A=task(), B=task(depends_on=["A"]))
    state = ran(dag(P=parallel(branch, chain("L"))), done("L"), done("A"), failed("B")).state
    assert state.nodes["P"].error == Failure("Own.Error", "B failed", node="B")
    assert state.run.error == state.nodes["P"].error


@pytest.mark.parametrize(
    ("steps", "facts", "entering", "again"),
    [
        pytest.param(
            {"A": task("B", on_error=[{"next": "C"}]), "B": task(), "C": task("D"), "D": task()},
            [failed("A"), failed("C")],
            [("C", "A")],
            "C D",
            id="on a route, which is kept, and not the way that was not taken",
        ),
        pytest.param(
            {"A": task(), "B": task(depends_on=["A"]), "X": task(depends_on=["A"]), "Y": task(depends_on=["B", "X"])},
            [done("A"), failed("B"), done("X")],
            [("B", None)],
            "B Y",
            id="what depends on it waits for it again",
        ),
        pytest.param(
            {
                "R": task(),
                "A": task(depends_on=["R"], on_error=[{"next": "H"}]),
                "B": task(depends_on=["R"]),
                "H": task(),
                "X": task(depends_on=["A", "B"], trigger="one_failed"),
            },
            [done("R"), failed("A"), done("H"), done("X"), failed("B")],
            [("B", None)],
            "B",
            id="what a first failure let start, which is kept, is kept",
        ),
    ],
)
def test_where_a_redriven_run_goes_on(steps, facts, entering, again):
    state = ran(dag(**steps), *facts).state
    assert state.run.status == "Failed"
    plan = Plan.of_run(DAG(dag(**steps)), state)
    assert (plan.entering, plan.again) == (entering, again.split())


def test_a_part_s_run_goes_on_in_its_map_and_from_the_map_runs_it_again():
    definition = dag(M={"type": "Map", "items": [1, 2], "iterator": chain("X")})
    graph, place = DAG(definition), DAG(definition).place("M")
    start = RunStarted(
        "run_2_x", "dag", "sha256:0", {}, "m1",
        parent=ParentRun("run_1_x", "M[0]", 1),
        part_of=PartOf("M", "run_1_x", T0),
        nodes=(replace(new_state(place), items=Items(2, [1, 2])),),
    )  # fmt: skip
    state = decide(graph, None, [start], T0, TOKEN, POLICY).state
    state = decide(graph, state, [CancelRequested("why")], LATER, TOKEN, POLICY).state
    assert state.run.status == "Cancelled"
    plan = Plan.of_run(graph, state)
    assert (plan.entering, plan.again, plan.maps, plan.is_empty) == ([], [], [("M", ())], False)
    plan = Plan.of_run(graph, state, "M")
    assert (plan.entering, plan.again, plan.maps, plan.is_empty) == ([("M", None)], ["M"], [], False)


def test_what_is_cancelled_is_named_by_its_execution():
    policy = Policy({"Function": TargetRules(has_outcome=True, can_cancel=True)})
    graph = DAG(chain("A"))
    facts = [START, LaunchBound("A", 1, "me.1", "x-1")]
    state = decide(graph, None, facts, T0, TOKEN, policy).state
    (command,) = decide(graph, state, [CancelRequested("why")], LATER, TOKEN, policy).commands
    assert (command.execution_id, command.launch.node_name) == ("x-1", "A")


def test_a_taken_over_attempt_has_its_whole_time_of_silence_again():
    graph = DAG(dag(A=task(heartbeat="2m")))
    state = decide(graph, None, [START], T0, TOKEN, POLICY).state
    before = state.nodes["A"].due["heartbeat"] - T0
    state = decide(graph, state, [ClaimExpired("A", 1, "me.1")], LATER, TOKEN, POLICY).state
    assert state.nodes["A"].due["heartbeat"] - LATER == before > timedelta(0)


def test_an_attempt_that_is_lost_while_its_run_is_stopped_has_no_next_one():
    decision = ran(chain("A", "B"), CancelRequested("why"), AttemptEnded("A", 1, Outcome.lost("gone")))
    node = decision.state.nodes["A"]
    assert (node.status, node.attempt, node.error.error_type) == ("Cancelled", 1, "Task.Lost")
    assert (decision.commands, decision.state.run.status) == ((), "Cancelled")
