"""Claims, pauses and places in queues, in states that hardly ever come about: each decided on by itself."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.engine.redrive_plan import Plan
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    ClaimExpired,
    LaunchBound,
    PauseEnded,
    PauseRequested,
    PlacesLeft,
    RunStarted,
    SlotGranted,
    TimeCame,
)
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from tests.support.world import T0, chain, dag, task

START = RunStarted("run_1_x", "dag", "sha256:0", {}, "m1")
TOKEN, OTHER = Token("me.1", b"0" * 32), Token("you.1", b"1" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True)}, pools={"api": 1})
LATER = T0 + timedelta(seconds=500)
LOST = AttemptEnded("A", 1, Outcome.lost("its host is gone"))


def ran(definition, *facts, at=T0):
    graph = DAG(definition)
    state = decide(graph, None, [START], T0, TOKEN, POLICY).state
    for fact in facts:
        state = decide(graph, state, [fact], at, OTHER, POLICY).state
    return graph, state


def with_node(state, name, **changes):
    return RunState(state.run, {**state.nodes, name: replace(state.nodes[name], **changes)})


def test_a_retry_that_is_due_in_a_run_that_is_stopped_is_cancelled_with_the_reason():
    graph, state = ran(chain("A", "B"))
    state = with_node(state, "A", claim=None, due={DueKind.RETRY.value: T0}, attempt=2)
    state = RunState(replace(state.run, cancel_reason="enough"), state.nodes)
    after = decide(graph, state, [TimeCame("A", 2, "retry", T0, False)], LATER, TOKEN, POLICY).state
    assert (after.nodes["A"].status, after.nodes["A"].error.message) == ("Cancelled", "enough")
    assert (after.run.status, after.run.ended_at) == ("Cancelled", LATER)


def test_what_is_lost_in_a_paused_run_is_held_without_its_slot():
    graph, state = ran(dag(A=task(pool="api")))
    slot = state.nodes["A"].slot
    state = decide(graph, state, [SlotGranted("A", 1, slot.queue, slot.ticket)], T0, TOKEN, POLICY).state
    assert state.nodes["A"].slot.is_held
    state = decide(graph, state, [PauseRequested(T0)], T0, TOKEN, POLICY).state
    after = decide(graph, state, [LOST], LATER, TOKEN, POLICY)
    node = after.state.nodes["A"]
    assert (node.status, node.attempt, node.slot, node.claim, node.due) == ("Running", 2, None, None, {"retry": LATER})
    assert [type(command).__name__ for command in after.commands] == ["ReleaseSlot"]


@pytest.mark.parametrize("kind", list(DueKind))
def test_what_cannot_be_cancelled_is_waited_for_up_to_its_timeout_and_to_nothing_else(kind):
    graph, state = ran(dag(A=task(timeout="1m")), CancelRequested("why"), ClaimExpired("A", 1, "me.1"))
    assert state.nodes["A"].owed_cancel is not None
    state = with_node(state, "A", due={kind.value: T0})
    after = decide(graph, state, [TimeCame("A", 1, kind.value, T0, False)], LATER, TOKEN, POLICY).state
    assert after.nodes["A"].status == ("Cancelled" if kind is DueKind.TIMEOUT else "Running")


@pytest.mark.parametrize("status", [RunStatus.PAUSED, RunStatus.COMPLETED, RunStatus.CANCELLED])
def test_the_end_of_a_pause_starts_nothing_in_a_run_that_is_paused_or_over(status):
    graph, state = ran(chain("A", "B"), PauseRequested(T0), AttemptEnded("A", 1, Outcome.completed(1)))
    assert [held.node for held in state.run.held] == ["B"]
    state = RunState(replace(state.run, status=status, is_resuming=True), state.nodes)
    assert not decide(graph, state, [PauseEnded()], LATER, TOKEN, POLICY).changed


def test_a_run_that_waits_nowhere_does_not_come_back_for_leaving_queues():
    graph, state = ran(dag(A=task("B", pool="api"), B=task()))
    slot = state.nodes["A"].slot
    waiting = decide(graph, state, [PlacesLeft()], LATER, TOKEN, POLICY)
    assert (waiting.state.run.is_resuming, waiting.state.nodes["A"].slot.ticket) == (True, "")
    state = decide(graph, state, [SlotGranted("A", 1, slot.queue, slot.ticket)], T0, TOKEN, POLICY).state
    assert not decide(graph, state, [PlacesLeft()], LATER, TOKEN, POLICY).changed


def test_a_slot_is_taken_by_its_own_ticket_only_and_not_in_a_paused_run():
    graph, state = ran(dag(A=task(pool="api")))
    slot = state.nodes["A"].slot
    granted = SlotGranted("A", 1, slot.queue, slot.ticket)
    for change in ({"ticket": "other"}, {"attempt": 2}, {"node_name": "X"}):
        fact = replace(granted, **change)
        assert not decide(graph, state, [fact], LATER, TOKEN, POLICY).changed
    is_paused = decide(graph, state, [PauseRequested(T0)], T0, TOKEN, POLICY).state
    assert not decide(graph, is_paused, [granted], LATER, TOKEN, POLICY).changed
    after = decide(graph, state, [granted], LATER, TOKEN, POLICY).state.nodes["A"]
    assert (after.claim.owner, after.slot.is_held) == ("me.1", True)
    assert after.claim.lease_end == LATER + timedelta(seconds=60)


def test_a_launch_that_was_bound_by_another_owner_or_is_bound_already_is_not_bound_again():
    graph, state = ran(chain("A"), ClaimExpired("A", 1, "me.1"))
    assert not decide(graph, state, [LaunchBound("A", 1, "me.1", "x-1")], LATER, TOKEN, POLICY).changed
    state = decide(graph, state, [LaunchBound("A", 1, "you.1", "x-1")], LATER, TOKEN, POLICY).state
    assert state.nodes["A"].execution_id == "x-1"
    assert not decide(graph, state, [LaunchBound("A", 1, "you.1", "x-2")], LATER, TOKEN, POLICY).changed


WIDE = {"steps": {
    **{f"R{n}": task() for n in range(5)},
    **{f"F{n}": task(depends_on=[f"R{m}" for m in range(5)]) for n in range(5)},
    "Last": task(depends_on=[f"F{n}" for n in range(5)], trigger="all_done"),
}}  # fmt: skip


@pytest.mark.parametrize("failing", [None, "R0", "R4"])
def test_steps_that_wait_for_many_are_skipped_or_started_together(failing):
    graph, state = ran(WIDE)
    for number in range(5):
        name = f"R{number}"
        outcome = Outcome.failed("Own.Error", "no") if name == failing else Outcome.completed(number)
        decision = decide(graph, state, [AttemptEnded(name, 1, outcome)], LATER, TOKEN, POLICY)
        state = decision.state
    launched = [command.node_name for command in decision.commands]
    assert launched == (["Last"] if failing else [f"F{n}" for n in range(5)])
    is_skipped = [state.nodes[f"F{n}"].status is TaskStatus.SKIPPED for n in range(5)]
    assert is_skipped == [failing is not None] * 5


def test_a_step_that_starts_by_one_failure_goes_on_with_the_first_that_failed():
    mended = {"on_error": [{"next": "Mend"}]}
    definition = {"steps": {"A": task(**mended), "B": task(**mended), "Mend": task(),
                            "Alarm": task(depends_on=["A", "B"], trigger="one_failed")}}  # fmt: skip
    graph, state = ran(definition)
    nodes = dict(state.nodes)
    for name in ("A", "B"):
        nodes[name] = replace(nodes[name], status=TaskStatus.FAILED, claim=None)
    nodes["Mend"] = replace(nodes["Mend"], status=TaskStatus.COMPLETED)
    nodes["Alarm"] = replace(nodes["Alarm"], status=TaskStatus.SKIPPED)
    run = replace(state.run, status=RunStatus.CANCELLED)
    assert Plan.of_run(graph, RunState(run, nodes)).entering == [("Alarm", "A")]
    untouched = {name: replace(node, status=TaskStatus.SKIPPED) for name, node in state.nodes.items()}
    assert [name for name, _ in Plan.of_run(graph, RunState(run, untouched)).entering] == ["A", "B"]
