"""What the end of a step leads to, as tables: what is written, whose result is the run's, what is caught."""

from datetime import timedelta

import pytest

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.engine.redrive_plan import Plan
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.facts import AttemptEnded, CancelRequested, PauseEnded, RunAdopted, RunStarted
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import ParentRun
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
