"""`decide` as a table: a definition, what happened, and what follows."""

from dataclasses import replace as changed
from datetime import timedelta

import pytest

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.model.commands import Cancel, Failure, Launch, Outcome, Remind, Withdraw
from orchestrator.model.dag import DAG
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    CancelSettled,
    ClaimExpired,
    LaunchBound,
    LaunchFailed,
    RunStarted,
    TimeCame,
)
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_document import decode, encode
from orchestrator.model.run_state import RunState
from tests.support.world import T0, chain, dag, parallel, task

FORK = dag(A=task("P"), P=parallel(chain("L"), chain("R1", "R2"), next="Z"), Z=task())
START = RunStarted("run_1_x", "dag", "sha256:0", {"day": "monday"}, "m1")
TOKEN = Token("me.1", b"0" * 32)
OTHER = Token("you.1", b"1" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True)})
CANCELLING = Policy({"Function": TargetRules(has_outcome=True, can_cancel=True)})


def done(name: str, attempt: int = 1) -> AttemptEnded:
    return AttemptEnded(name, attempt, Outcome.completed(name))


def failed(name: str, attempt: int = 1) -> AttemptEnded:
    return AttemptEnded(name, attempt, Outcome.failed("Task.Failed", f"{name} failed"))


def told(command) -> str:
    match command:
        case Launch():
            return f"launch {command.node_name}/{command.attempt}" + (" again" if command.recover else "")
        case Cancel():
            return f"cancel {command.launch.node_name}"
        case Withdraw():
            return f"withdraw {command.launch.node_name}"
        case Remind():
            return f"remind {command.node_name}"
    raise TypeError(command)


def shown(state: RunState) -> str:
    """`A:C P:R …`: the first letter of each node's status."""
    return " ".join(f"{name}:{node.status[0]}" for name, node in state.nodes.items())


@pytest.mark.parametrize(
    ("facts", "nodes", "run", "commands"),
    [
        pytest.param([], "A:R P:N L:N R1:N R2:N Z:N", "Running", [], id="a start launches the start node"),
        pytest.param([done("A")], "A:C P:R L:R R1:R R2:N Z:N", "Running", ["launch L/1", "launch R1/1"], id="fork"),
        pytest.param([done("A"), done("A")], "A:C P:R L:R R1:R R2:N Z:N", "Running", [], id="a duplicate"),
        pytest.param([done("A", 2)], "A:R P:N L:N R1:N R2:N Z:N", "Running", [], id="an attempt that is not"),
        pytest.param([done("Z")], "A:R P:N L:N R1:N R2:N Z:N", "Running", [], id="a node that has not begun"),
        pytest.param([done("X")], "A:R P:N L:N R1:N R2:N Z:N", "Running", [], id="a node that is not there"),
        pytest.param([done("P", 0)], "A:R P:N L:N R1:N R2:N Z:N", "Running", [], id="a Parallel is no task"),
        pytest.param([done("A"), done("L")], "A:C P:R L:C R1:R R2:N Z:N", "Running", [], id="one branch of two"),
        pytest.param(
            [done("A"), done("R1"), done("L"), done("R2")],
            "A:C P:C L:C R1:C R2:C Z:R",
            "Running",
            ["launch Z/1"],
            id="the last branch opens the join",
        ),
        pytest.param(
            [done("A"), done("R1"), done("L"), done("R2"), done("Z")],
            "A:C P:C L:C R1:C R2:C Z:C",
            "Completed",
            [],
            id="the end",
        ),
        pytest.param([failed("A")], "A:F P:S L:S R1:S R2:S Z:S", "Failed", [], id="a failure skips what follows"),
        pytest.param(
            [done("A"), failed("L")], "A:C P:R L:F R1:R R2:N Z:N", "Running", [], id="a sibling runs on to its end"
        ),
        pytest.param(
            [done("A"), failed("L"), done("R1")],
            "A:C P:R L:F R1:C R2:R Z:N",
            "Running",
            ["launch R2/1"],
            id="and goes on to its next step",
        ),
        pytest.param(
            [done("A"), failed("R1"), done("L")],
            "A:C P:F L:C R1:F R2:S Z:S",
            "Failed",
            [],
            id="the join fails",
        ),
        pytest.param(
            [AttemptEnded("A", 1, Outcome.lost("gone"))],
            "A:R P:N L:N R1:N R2:N Z:N",
            "Running",
            ["launch A/2"],
            id="a lost execution is a new attempt",
        ),
        pytest.param(
            [LaunchFailed("A", 1, "me.1", Failure("Launch.Forbidden", "403"))],
            "A:F P:S L:S R1:S R2:S Z:S",
            "Failed",
            [],
            id="a refused launch",
        ),
        pytest.param(
            [LaunchFailed("A", 1, "you.1", Failure("Launch.Forbidden", "403"))],
            "A:R P:N L:N R1:N R2:N Z:N",
            "Running",
            [],
            id="a refusal of what another owner launched",
        ),
        pytest.param(
            [ClaimExpired("A", 1, "me.1")],
            "A:R P:N L:N R1:N R2:N Z:N",
            "Running",
            ["launch A/1 again"],
            id="a claim taken over",
        ),
        pytest.param(
            [ClaimExpired("A", 1, "you.1")],
            "A:R P:N L:N R1:N R2:N Z:N",
            "Running",
            [],
            id="a claim that was taken over already",
        ),
        pytest.param(
            [LaunchBound("A", 1, "me.1", "x-1"), ClaimExpired("A", 1, "me.1")],
            "A:R P:N L:N R1:N R2:N Z:N",
            "Running",
            [],
            id="a bound attempt is never taken over",
        ),
        pytest.param(
            [done("A"), CancelRequested("why"), done("L"), done("R1")],
            "A:C P:C L:C R1:C R2:S Z:S",
            "Cancelled",
            [],
            id="a cancelled run waits for what cannot be cancelled, and starts nothing",
        ),
        pytest.param(
            [done("A"), CancelRequested("why")],
            "A:C P:R L:R R1:R R2:N Z:N",
            "Running",
            ["withdraw L", "withdraw R1"],
            id="what cannot be cancelled is taken back if it has not begun",
        ),
        pytest.param(
            [done("A"), CancelRequested("why"), ClaimExpired("L", 1, "me.1")],
            "A:C P:R L:R R1:R R2:N Z:N",
            "Running",
            ["cancel L"],
            id="a cancelled run launches nothing, not even what was claimed and perhaps never launched",
        ),
    ],
)
def test_decide(facts, nodes, run, commands):
    """Each row's facts are applied one by one; the commands are those of the last one."""
    graph = DAG(FORK)
    decision = decide(graph, None, [START], T0, TOKEN, POLICY)
    assert [told(command) for command in decision.commands] == ["launch A/1"]
    last: tuple = ()
    for fact in facts:
        decision = decide(graph, decision.state, [fact], T0, TOKEN, POLICY)
        last = decision.commands
    assert shown(decision.state) == nodes
    assert decision.state.run.status == run
    assert [told(command) for command in last] == commands


def test_facts_folded_into_one_decision_do_what_they_do_one_by_one():
    facts = [START, done("A"), done("R1"), done("R1"), done("L"), done("R2")]
    graph = DAG(FORK)
    folded = decide(graph, None, facts, T0, TOKEN, POLICY)
    state, commands = None, []
    for fact in facts:
        decision = decide(graph, state, [fact], T0, TOKEN, POLICY)
        state = decision.state
        commands += decision.commands
    assert folded.state == state
    still_running = [command for command in commands if state.nodes[command.node_name].status == "Running"]
    assert list(folded.commands) == still_running, "what ended in the same save is not launched any more"


def test_equal_inputs_give_equal_answers_and_what_is_given_is_not_changed():
    graph = DAG(FORK)
    before = decide(graph, None, [START], T0, TOKEN, POLICY).state
    copy = encode(before)
    first, second = (decide(graph, before, [done("A")], T0, TOKEN, POLICY) for _ in range(2))
    assert first == second
    assert encode(before) == copy
    assert decide(graph, before, [done("A")], T0, OTHER, POLICY) != first, "claims bear their save's token"


def test_a_document_read_back_is_the_same_state():
    graph = DAG(FORK)
    for facts in ([START], [START, done("A")], [START, failed("A")], [START, CancelRequested("x")]):
        state = decide(graph, None, facts, T0, TOKEN, CANCELLING).state
        assert decode(encode(state), "w") == state


def test_owed_cancels_hold_the_run_open_until_they_are_settled():
    graph = DAG(FORK)
    state = decide(graph, None, [START, done("A")], T0, TOKEN, CANCELLING).state
    decision = decide(graph, state, [CancelRequested("why")], T0, TOKEN, CANCELLING)
    assert [told(command) for command in decision.commands] == ["cancel L", "cancel R1"]
    assert decision.state.run.status == "Running"
    once = decide(graph, decision.state, [CancelSettled("L", 1), CancelSettled("L", 1)], T0, TOKEN, CANCELLING)
    assert shown(once.state) == "A:C P:R L:C R1:R R2:N Z:N"
    ended = decide(graph, once.state, [done("R1")], T0, TOKEN, CANCELLING)
    assert (ended.state.run.status, ended.state.nodes["R1"].status) == ("Cancelled", "Cancelled")


def test_a_parameter_that_has_no_value_fails_its_step_and_names_what_is_missing():
    definition = dag(A=task("B", parameters={"d": "${run.input.dya}"}), B=task())
    state = decide(DAG(definition), None, [START], T0, TOKEN, POLICY).state
    assert state.run.error.error_type == "Task.BadParameters"
    assert state.run.error.node == "A"
    assert 'run.input has no "dya"' in state.run.error.message


def test_parameters_are_resolved_from_input_and_results():
    definition = dag(A=task("B"), B=task(parameters={"d": "${run.input.day}", "n": "${steps.A.result.n}", "c": 1}))
    state = decide(DAG(definition), None, [START], T0, TOKEN, POLICY).state
    ended = AttemptEnded("A", 1, Outcome.completed({"n": [1, 2]}))
    (launch,) = decide(DAG(definition), state, [ended], T0, TOKEN, POLICY).commands
    assert launch.parameters == {"d": "monday", "n": [1, 2], "c": 1}
    assert (launch.launch_id, launch.owner) == ("run_1_x/B/1", "me.1")
    assert launch.key.startswith("orch-b-1-")


def test_nonces_differ_between_launches_and_between_saves():
    graph = DAG(dag(P=parallel(chain("A"), chain("B"))))
    first = decide(graph, None, [START], T0, TOKEN, POLICY).commands
    again = decide(graph, None, [START], T0, changed(TOKEN, seed=b"2" * 32), POLICY).commands
    nonces = {command.nonce for command in (*first, *again)}
    assert len(nonces) == 4
    assert all(len(nonce) == 32 for nonce in nonces)


QUESTIONS = Policy({"Function": TargetRules(has_outcome=True, first_question_s=15.0)})


def question(state, at=None) -> TimeCame:
    """What a reminder of the question that is due at A becomes, where its target knows of no end."""
    return TimeCame("A", 1, "question", at or state.nodes["A"].due["question"], True)


def test_each_question_comes_twice_as_late_after_the_claim_until_the_tick_alone_asks():
    graph = DAG(dag(A=task(timeout="1d")))
    decision = decide(graph, None, [START], T0, TOKEN, QUESTIONS)
    asked_s = []
    while (due := decision.state.nodes["A"].due.get("question")) is not None:
        (remind,) = [x for x in decision.commands if isinstance(x, Remind) and x.kind == "question"]
        assert remind.at == due
        asked_s.append((due - T0).total_seconds())
        decision = decide(graph, decision.state, [question(decision.state)], due, OTHER, QUESTIONS)
    assert asked_s == [15, 30, 60, 120, 240, 480]
    assert decision.commands == ()
    assert list(decision.state.nodes["A"].due) == ["timeout"]


def test_a_question_delivered_twice_breeds_one_more_and_not_two():
    graph = DAG(dag(A=task()))
    state = decide(graph, None, [START], T0, TOKEN, QUESTIONS).state
    first = question(state)
    once = decide(graph, state, [first], first.at, OTHER, QUESTIONS)
    assert [told(command) for command in once.commands] == ["remind A"]
    again = decide(graph, once.state, [first], first.at, OTHER, QUESTIONS)
    assert (again.changed, again.commands) == (False, ())
    both = decide(graph, state, [first, first], first.at, OTHER, QUESTIONS)
    assert both == once


def test_a_question_that_comes_late_is_not_caught_up_by_a_burst():
    graph = DAG(dag(A=task()))
    state = decide(graph, None, [START], T0, TOKEN, QUESTIONS).state
    late = T0 + timedelta(seconds=200)
    (remind,) = decide(graph, state, [question(state)], late, OTHER, QUESTIONS).commands
    assert remind.at == late + timedelta(seconds=15)


def test_a_question_after_a_takeover_still_comes_later_than_the_one_before():
    graph = DAG(dag(A=task()))
    state = decide(graph, None, [START], T0, TOKEN, QUESTIONS).state
    later = T0 + timedelta(seconds=90)
    taken = decide(graph, state, [ClaimExpired("A", 1, "me.1")], later, OTHER, QUESTIONS)
    assert [told(command) for command in taken.commands] == ["launch A/1 again"]
    (remind,) = decide(graph, taken.state, [question(taken.state)], later, OTHER, QUESTIONS).commands
    assert remind.at == later + timedelta(seconds=15)


def test_no_question_is_due_where_an_event_tells():
    decision = decide(DAG(dag(A=task())), None, [START], T0, TOKEN, POLICY)
    assert [told(command) for command in decision.commands] == ["launch A/1"]
    assert decision.state.nodes["A"].due == {}
