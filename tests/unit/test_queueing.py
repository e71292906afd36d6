"""What a decision asks of queues and gives back: of runs that wait for their turn, of attempts that wait for a slot."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.engine.queueing import asks_of, has_ticket
from orchestrator.model.commands import AskSlot, Launch, Outcome, ReleaseSlot
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus
from orchestrator.model.facts import AttemptEnded, PauseRequested, ResumeRequested, RunAdmitted, RunStarted, SlotGranted
from orchestrator.model.policy import Policy, TargetRules
from tests.support.world import T0, dag, parallel, task

START = RunStarted("run_1_x", "dag", "sha256:0", {}, "m1", priority=7)
TOKEN, OTHER = Token("me.1", b"0" * 32), Token("you.1", b"1" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True)}, pools={"few": 2, "many": 9})
LATER = T0 + timedelta(seconds=90)

ONE_AT_A_TIME = DAG({**dag(A=task()), "max_active_runs": 3, "timeout": "10m"})
POOLED = DAG(dag(A=task(pool="few")))


def test_a_run_asks_for_its_turn_and_has_its_time_from_then_on():
    asked = decide(ONE_AT_A_TIME, None, [START], T0, TOKEN, POLICY)
    run = asked.state.run
    assert (run.status, run.queued_at, run.timeout_at) == ("Queued", T0, None)
    ticket = run.slot.ticket
    ask = AskSlot("dag/dag", ticket, T0, 7, 3, "dag", "run_1_x", None, 0)
    assert asked.commands == (ask,)
    assert asks_of(ONE_AT_A_TIME, asked.state, [], {}) == [ask]

    turn = decide(ONE_AT_A_TIME, asked.state, [RunAdmitted("dag/dag", ticket)], LATER, OTHER, POLICY)
    run = turn.state.run
    assert (run.status, run.started_at, run.timeout_at) == ("Running", LATER, LATER + timedelta(minutes=10))
    assert (run.slot.ticket, run.slot.is_held, run.held) == (ticket, True, ())
    assert [type(command) for command in turn.commands] == [Launch]
    assert asks_of(ONE_AT_A_TIME, turn.state, [], {}) == []

    again = decide(ONE_AT_A_TIME, turn.state, [RunAdmitted("dag/dag", ticket)], LATER, OTHER, POLICY)
    assert not again.changed
    end = AttemptEnded("A", 1, Outcome.completed())
    ended = decide(ONE_AT_A_TIME, turn.state, [end], LATER, OTHER, POLICY)
    assert ended.commands == (ReleaseSlot("dag/dag", "run_1_x", ticket),)


@pytest.mark.parametrize("ticket", ["", "of another"])
def test_a_turn_that_was_asked_for_with_another_ticket_is_none(ticket):
    asked = decide(ONE_AT_A_TIME, None, [START], T0, TOKEN, POLICY)
    assert not decide(ONE_AT_A_TIME, asked.state, [RunAdmitted("dag/dag", ticket)], LATER, OTHER, POLICY).changed


@pytest.mark.parametrize("graph", [ONE_AT_A_TIME, POOLED])
def test_a_turn_is_none_of_a_run_that_is_not_there_or_waits_for_none(graph):
    assert not decide(graph, None, [RunAdmitted("dag/dag", "t")], T0, TOKEN, POLICY).changed
    state = decide(graph, None, [START], T0, TOKEN, POLICY).state
    state = type(state)(replace(state.run, slot=None, status=RunStatus.QUEUED), state.nodes)
    assert not decide(graph, state, [RunAdmitted("dag/dag", "t")], T0, TOKEN, POLICY).changed


def test_an_attempt_asks_for_a_slot_of_its_pool_and_gives_it_back_at_its_end():
    asked = decide(POOLED, None, [START], T0, TOKEN, POLICY)
    node = asked.state.nodes["A"]
    ask = AskSlot("pool/few", node.slot.ticket, T0, 7, 2, "dag", "run_1_x", "A", 1)
    assert asked.commands == (ask,)
    assert (node.status, node.attempt, node.claim, node.due) == ("Running", 1, None, {})
    assert asks_of(POOLED, asked.state, [node], {"few": 2}) == [ask]
    assert asks_of(POOLED, asked.state, [replace(node, slot=None)], {"few": 2}) == []

    grant = SlotGranted("A", 1, "pool/few", node.slot.ticket)
    granted = decide(POOLED, asked.state, [grant], LATER, OTHER, POLICY)
    (launch,) = granted.commands
    assert (launch.node_name, launch.attempt) == ("A", 1)
    ended = decide(POOLED, granted.state, [AttemptEnded("A", 1, Outcome.completed())], LATER, OTHER, POLICY)
    assert ended.commands == (ReleaseSlot("pool/few", "run_1_x/A/1", node.slot.ticket),)


def test_an_attempt_that_ends_before_it_has_its_slot_gives_its_place_up():
    graph = DAG(dag(A=task(pool="few", retry={"max_attempts": 2, "delay": "1s"})))
    asked = decide(graph, None, [START], T0, TOKEN, POLICY)
    ticket = asked.state.nodes["A"].slot.ticket
    granted = decide(graph, asked.state, [SlotGranted("A", 1, "pool/few", ticket)], T0, TOKEN, POLICY)
    failed = AttemptEnded("A", 1, Outcome.failed("Task.Failed", "no"))
    commands = decide(graph, granted.state, [failed], LATER, OTHER, POLICY).commands
    assert ReleaseSlot("pool/few", "run_1_x/A/1", ticket) in commands


@pytest.mark.parametrize(
    ("pools", "words"),
    [
        ({}, "none has one"),
        ({"many": 9, "few": 1}, "those that have one are few, many"),
    ],
)
def test_a_pool_that_has_no_limit_here_fails_its_step_and_says_what_to_set(pools, words):
    graph = DAG(dag(A=task(pool="other")))
    error = decide(graph, None, [START], T0, TOKEN, replace(POLICY, pools=pools)).state.nodes["A"].error
    assert error.error_type == "Launch.NoPool"
    assert error.message == f'A: the pool "other" has no limit here; {words}; set it in POOLS, as in other=5'


@pytest.mark.parametrize(("graph", "holder"), [(ONE_AT_A_TIME, "run_1_x"), (POOLED, "run_1_x/A/1")])
def test_a_paused_run_gives_its_places_up_and_comes_back_to_them_with_new_tickets(graph, holder):
    asked = decide(graph, None, [START], T0, TOKEN, POLICY)
    (first,) = asked.commands
    assert has_ticket(asked.state, holder, first.ticket)
    paused = decide(graph, asked.state, [PauseRequested(LATER)], LATER, OTHER, POLICY)
    assert paused.commands == (ReleaseSlot(first.queue, holder, first.ticket),)
    assert not has_ticket(paused.state, holder, first.ticket)
    waiting = [node for node in paused.state.nodes.values() if node.slot is not None]
    assert asks_of(graph, paused.state, waiting, POLICY.pools) == []
    assert decide(graph, paused.state, [PauseRequested(LATER)], LATER, OTHER, POLICY).commands == ()

    third = Token("they.1", b"2" * 32)
    resumed = decide(graph, paused.state, [ResumeRequested(LATER + timedelta(seconds=1))], LATER, third, POLICY)
    (second,) = resumed.commands
    assert second.ticket not in ("", first.ticket)
    assert second == replace(first, ticket=second.ticket)
    assert has_ticket(resumed.state, holder, second.ticket)


@pytest.mark.parametrize(
    ("holder", "ticket"), [("run_1_x", "x"), ("run_1_x/A/1", "x"), ("run_1_x/B/1", "x"), ("run_1_x/A/1", "")]
)
def test_a_ticket_that_is_none_of_a_run_s(holder, ticket):
    state = decide(POOLED, None, [START], T0, TOKEN, POLICY).state
    assert not has_ticket(state, holder, ticket)


def test_the_tickets_of_a_save_differ_and_so_do_those_of_two_saves():
    graph = DAG(dag(P={"type": "Parallel", "branches": [dag(A=task(pool="few")), dag(B=task(pool="few"))]}))
    tickets = [
        ask.ticket for token in (TOKEN, OTHER) for ask in decide(graph, None, [START], T0, token, POLICY).commands
    ]
    assert len(set(tickets)) == 4


class Unread(dict):
    """Nodes of which a few may be asked for, and never all."""

    def __iter__(self):
        raise AssertionError("all nodes are gone through")

    keys = values = items = __iter__


def test_a_decision_about_one_of_very_many_attempts_looks_at_no_other():
    wide = DAG(dag(P=parallel(*(dag(**{f"A{n}": task(pool="few")}) for n in range(1500)))))
    state = decide(wide, None, [START], T0, TOKEN, POLICY).state
    ticket = state.nodes["A7"].slot.ticket
    unread = type(state)(state.run, Unread(state.nodes))
    turn = decide(wide, unread, [SlotGranted("A7", 1, "pool/few", ticket)], LATER, OTHER, POLICY)
    assert [type(command) for command in turn.commands] == [Launch]
    turned = type(state)(turn.state.run, Unread({**state.nodes, "A7": turn.state.nodes["A7"]}))
    ended = decide(wide, turned, [AttemptEnded("A7", 1, Outcome.completed())], LATER, OTHER, POLICY)
    assert ended.commands == (ReleaseSlot("pool/few", "run_1_x/A7/1", ticket),)
