"""What comes too late, twice, or of what is not there changes nothing; and what is due to the moment is due."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.engine.pace import WRITING_S, Pace
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    CancelSettled,
    ClaimExpired,
    DeadlinePassed,
    HeardFrom,
    LaunchBound,
    LaunchFailed,
    NotificationExpired,
    NotificationFailed,
    NotificationSent,
    PauseEnded,
    PauseRequested,
    PlacesLeft,
    RedriveRequested,
    ResumeRequested,
    RunAdmitted,
    RunAdopted,
    RunOutOfTime,
    RunStarted,
    SlotGranted,
    TimeCame,
)
from orchestrator.model.node_state import Claim, NodeState, OwedCancel, Slot
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import ParentRun, RunState
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, chain, dag, parallel, task

TOKEN, OTHER = Token("me.1", b"0" * 32), Token("you.1", b"1" * 32)
LATER = T0 + timedelta(seconds=500)
POLICY = Policy(
    {"Function": TargetRules(has_outcome=True), "Dataflow": TargetRules(has_outcome=True, can_cancel=True)},
    pools={"api": 1},
)
FAILURE = Failure("Own.Error", "no")
HEARD = {"type": "Task", "target_type": "CloudFunction", "target_name": "f", "heartbeat": "1m", "timeout": "1h"}


def started(definition, **policy):
    graph = DAG(definition)
    rules = replace(POLICY, **policy)
    state = decide(graph, None, [RunStarted("run_1_x", "dag", "s", {}, "m1")], T0, TOKEN, rules).state
    return graph, state


def with_node(state, name="A", **changes):
    return RunState(state.run, {**state.nodes, name: replace(state.nodes[name], **changes)})


def about(name="A", attempt=1, owner="me.1"):
    """Every fact about an attempt."""
    return [
        AttemptEnded(name, attempt, Outcome.completed(1)),
        LaunchFailed(name, attempt, owner, FAILURE),
        LaunchBound(name, attempt, owner, "x"),
        ClaimExpired(name, attempt, owner),
        TimeCame(name, attempt, "timeout", T0, True),
        TimeCame(name, attempt, "retry", T0, True),
        HeardFrom(name, attempt, LATER),
        CancelSettled(name, attempt),
        SlotGranted(name, attempt, "pool/api", "t"),
    ]


def changes(graph, state, fact, at=LATER, policy=POLICY):
    return decide(graph, state, [fact], at, OTHER, policy).changed


@pytest.mark.parametrize("fact", about("Q") + about("B"), ids=lambda fact: f"{type(fact).__name__} {fact.node_name}")
def test_of_a_node_that_is_not_there_or_does_not_run(fact):
    graph, state = started(chain("A", "B"))
    assert not changes(graph, state, fact)


@pytest.mark.parametrize("fact", about(attempt=2) + about(attempt=0), ids=lambda fact: f"{type(fact).__name__}")
def test_of_another_attempt(fact):
    graph, state = started(chain("A"))
    assert not changes(graph, state, fact)


@pytest.mark.parametrize("fact", about(), ids=lambda fact: f"{type(fact).__name__}")
@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.SKIPPED])
def test_of_a_node_that_has_ended(fact, status):
    graph, state = started(chain("A", "B"))
    assert not changes(graph, with_node(state, status=status), fact)


@pytest.mark.parametrize("kind", [LaunchFailed, LaunchBound, ClaimExpired])
def test_of_a_claim_that_is_another_s_by_now_or_gone(kind):
    graph, state = started(chain("A"))
    (fact,) = [each for each in about() if isinstance(each, kind)]
    (stale,) = [each for each in about(owner="you.1") if isinstance(each, kind)]
    assert changes(graph, state, fact)
    assert not changes(graph, state, stale)
    assert not changes(graph, with_node(state, claim=None), fact)


@pytest.mark.parametrize("fact", [LaunchBound("A", 1, "me.1", "y"), ClaimExpired("A", 1, "me.1")])
def test_of_what_is_bound(fact):
    graph, state = started(chain("A"))
    assert not changes(graph, with_node(state, execution_id="x"), fact)


def test_a_claim_that_is_owed_a_cancel_is_not_taken_over():
    graph, state = started(chain("A"))
    owed = with_node(state, owed_cancel=OwedCancel(TaskStatus.CANCELLED))
    assert not changes(graph, owed, ClaimExpired("A", 1, "me.1"))
    assert changes(graph, owed, CancelSettled("A", 1))
    assert not changes(graph, state, CancelSettled("A", 1))


def test_a_time_that_is_another_by_now():
    graph, state = started(dag(A=HEARD))
    due = state.nodes["A"].due
    for kind in (DueKind.TIMEOUT, DueKind.HEARTBEAT):
        assert changes(graph, state, TimeCame("A", 1, kind.value, due[kind], True))
        assert not changes(graph, state, TimeCame("A", 1, kind.value, due[kind] + timedelta(seconds=1), True))


@pytest.mark.parametrize(
    "fact",
    [
        CancelRequested("why"), RunOutOfTime(), DeadlinePassed(), PauseRequested(LATER), PauseEnded(), PlacesLeft(),
        RunAdmitted("dag/dag", "t"), RedriveRequested(LATER, 2), NotificationSent("n"),
        NotificationFailed("n", "me.1", "x"),
        NotificationExpired("n", "me.1"), RunAdopted(ParentRun("run_1_p", "K", 2, 1), LATER),
    ],
    ids=lambda fact: type(fact).__name__,
)  # fmt: skip
def test_of_a_run_that_has_ended(fact):
    graph, state = started(chain("A"))
    run = replace(state.run, status=RunStatus.FAILED, ended_at=T0)
    state = RunState(run, with_node(state, status=TaskStatus.FAILED).nodes)
    assert not changes(graph, state, fact)
    assert changes(graph, state, ResumeRequested(LATER)), "a redrive may be on its way"


@pytest.mark.parametrize(
    "fact",
    [PauseEnded(), PlacesLeft(), RunAdmitted("dag/dag", "t"), DeadlinePassed(), NotificationSent("n"),
     RedriveRequested(LATER, 1), RedriveRequested(LATER), RunAdopted(ParentRun("run_1_p", "K", 2, 1), LATER)],
    ids=lambda fact: type(fact).__name__,
)  # fmt: skip
def test_of_a_run_that_runs(fact):
    graph, state = started(chain("A"))
    assert not changes(graph, state, fact)


def test_the_same_request_twice():
    graph, state = started(chain("A"))
    for fact in (CancelRequested("why", LATER), PauseRequested(LATER)):
        once = decide(graph, state, [fact], LATER, OTHER, POLICY).state
        assert once is not state
        assert not changes(graph, once, fact)
    paused = decide(graph, state, [PauseRequested(LATER)], LATER, OTHER, POLICY).state
    assert not changes(graph, paused, PauseRequested(T0)), "an older one"
    assert not changes(graph, paused, ResumeRequested(T0)), "one before the pause"
    assert changes(graph, paused, ResumeRequested(LATER + timedelta(seconds=1)))


@pytest.mark.parametrize(("attempt", "is_news"), [(1, False), (2, True), (3, True)])
@pytest.mark.parametrize(("run_id", "node"), [("run_1_p", "K"), ("run_1_q", "K"), ("run_1_p", "L")])
def test_a_child_run_goes_on_for_a_later_attempt_of_its_own_parent_s_step_only(attempt, is_news, run_id, node):
    graph, state = started(chain("A"))
    state = RunState(replace(state.run, parent=ParentRun("run_1_p", "K", 1, 1)), state.nodes)
    fact = RunAdopted(ParentRun(run_id, node, attempt, 1), LATER)
    assert changes(graph, state, fact) is (is_news and (run_id, node) == ("run_1_p", "K"))
    pruned = RunState(replace(state.run, pruned_at=T0), state.nodes)
    assert not changes(graph, pruned, fact)


@pytest.mark.parametrize(
    ("ticket", "has", "is_held", "is_granted"),
    [("t", "t", False, True), ("t", "u", False, False), ("t", "t", True, False)],
)
def test_a_slot_is_granted_by_its_ticket_once(ticket, has, is_held, is_granted):
    graph, state = started(dag(A=task(pool="api")))
    state = with_node(state, slot=Slot("pool/api", has, T0, is_held=is_held))
    assert changes(graph, state, SlotGranted("A", 1, "pool/api", ticket)) is is_granted


# -- to the moment ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [-1, 0, 1])
def test_a_retry_that_is_due_when_its_run_goes_on_is_made_then(late_s):
    graph, state = started(chain("A"))
    state = with_node(state, claim=None, attempt=2, due={"retry": LATER - timedelta(seconds=late_s)})
    state = RunState(replace(state.run, is_resuming=True), state.nodes)
    after = decide(graph, state, [PauseEnded()], LATER, OTHER, POLICY).state.nodes["A"]
    assert (after.claim is not None) is (late_s >= 0)
    assert after.attempt == 2


@pytest.mark.parametrize("kind", [DueKind.TIMEOUT, DueKind.HEARTBEAT])
@pytest.mark.parametrize("late_s", [-1, 0, 1])
def test_a_claim_that_could_not_be_taken_over_has_its_time_anew_when_its_run_goes_on(kind, late_s):
    graph, state = started(dag(A=HEARD))
    due = LATER - timedelta(seconds=late_s)
    state = with_node(state, due={kind.value: due})
    state = RunState(replace(state.run, is_resuming=True), state.nodes)
    decision = decide(graph, state, [PauseEnded()], LATER, OTHER, POLICY)
    anew = LATER + timedelta(seconds=3600 if kind is DueKind.TIMEOUT else 80)
    assert decision.state.nodes["A"].due == {kind.value: anew if late_s >= 0 else due}
    assert [command.kind for command in decision.commands] == (
        [kind.value] if late_s >= 0 and kind is DueKind.TIMEOUT else []
    )
    for held in ({"execution_id": "x"}, {"owed_cancel": OwedCancel(TaskStatus.FAILED)}):
        other = decide(graph, with_node(state, **held), [PauseEnded()], LATER, OTHER, POLICY).state
        assert other.nodes["A"].due == {kind.value: due}


@pytest.mark.parametrize(
    ("heard_s", "now_s", "expected_s"),
    [(19, 19, None), (20, 20, 100), (40, 40, 120), (40, 30, 110), (10, 79, None), (10, 85, 90), (10, 90, None)],
)
def test_what_is_heard_is_written_only_where_it_moves_the_end_by_a_third(heard_s, now_s, expected_s):
    graph, state = started(dag(A=HEARD))
    at = lambda seconds: T0 + timedelta(seconds=seconds)  # noqa: E731
    assert state.nodes["A"].due["heartbeat"] == at(80)
    decision = decide(graph, state, [HeardFrom("A", 1, at(heard_s))], at(now_s), OTHER, POLICY)
    assert decision.state.nodes["A"].due["heartbeat"] == at(80 if expected_s is None else expected_s)
    assert (decision.changed, decision.commands) == (expected_s is not None, ())
    owed = with_node(state, owed_cancel=OwedCancel(TaskStatus.FAILED))
    assert not changes(graph, owed, HeardFrom("A", 1, at(heard_s)), at(now_s))


@pytest.mark.parametrize(
    ("asked_s", "now_s", "next_s"),
    [(15, 15, 30), (30, 30, 60), (60, 61, 120), (60, 200, 215), (300, 300, 600), (301, 301, None), (10, 10, 25)],
)
def test_each_question_comes_twice_as_late_as_the_one_before_up_to_a_longest_wait(asked_s, now_s, next_s):
    policy = replace(POLICY, targets={"Function": TargetRules(has_outcome=True, first_question_s=15.0)})
    graph = DAG(chain("A"))
    state = decide(graph, None, [RunStarted("run_1_x", "dag", "s", {}, "m1")], T0, TOKEN, policy).state
    at = lambda seconds: T0 + timedelta(seconds=seconds)  # noqa: E731
    assert state.nodes["A"].due == {"question": at(15)}
    state = with_node(state, due={"question": at(asked_s), "heartbeat": at(999)})
    decision = decide(graph, state, [TimeCame("A", 1, "question", at(asked_s), True)], at(now_s), OTHER, policy)
    due = dict(decision.state.nodes["A"].due)
    assert due.pop("heartbeat") == at(999)
    assert due == ({} if next_s is None else {"question": at(next_s)})
    assert [command.at for command in decision.commands] == ([] if next_s is None else [at(next_s)])
    bare = with_node(state, claim=None)
    found = decide(graph, bare, [TimeCame("A", 1, "question", at(asked_s), True)], at(asked_s), OTHER, policy).state
    assert found.nodes["A"].due["question"] == at(asked_s + 15)


@pytest.mark.parametrize(
    ("takeovers", "at_s", "now_s", "ends"),
    [
        (0, 60, 60, False),
        (0, 59, 59, False),
        (0, 120, 120, True),
        (1, 60, 60, False),
        (1, 65, 65, True),
        (1, 60, 66, True),
    ],
)
def test_a_timeout_of_what_may_still_be_launched_is_put_off(takeovers, at_s, now_s, ends):
    graph, state = started(dag(A=task(timeout="1m")))
    at = lambda seconds: T0 + timedelta(seconds=seconds)  # noqa: E731
    claim = Claim("me.1", at(60), "0" * 32, takeovers)
    state = with_node(state, claim=claim, due={"timeout": at(at_s)})
    decision = decide(graph, state, [TimeCame("A", 1, "timeout", at(at_s), False)], at(now_s), OTHER, POLICY)
    node = decision.state.nodes["A"]
    if ends:
        assert (node.status, node.error) == ("Failed", Failure("Task.Timeout", "A: no end within 60 s"))
    else:
        assert (node.status, node.due["timeout"]) == ("Running", at(60 + (60 if takeovers == 0 else 5)))
    bound = decide(graph, state, [TimeCame("A", 1, "timeout", at(at_s), True)], at(now_s), OTHER, POLICY).state
    assert bound.nodes["A"].status == "Failed"
    paused = RunState(replace(state.run, status=RunStatus.PAUSED), state.nodes)
    assert not changes(graph, paused, TimeCame("A", 1, "timeout", at(at_s), False), at(now_s))


def test_what_was_not_heard_of_is_given_up_with_how_long():
    graph, state = started(dag(A=HEARD))
    due = state.nodes["A"].due["heartbeat"]
    node = decide(graph, state, [TimeCame("A", 1, "heartbeat", due, True)], due, OTHER, POLICY).state.nodes["A"]
    assert (node.status, node.error) == ("Failed", Failure("Task.Heartbeat", "A: was not heard of for 60 s"))
    put_off = decide(graph, state, [TimeCame("A", 1, "heartbeat", due, False)], due, OTHER, POLICY)
    claim = state.nodes["A"].claim
    assert put_off.state.nodes["A"].due["heartbeat"] == claim.lease_end + timedelta(seconds=80)
    assert put_off.commands == (), "it is the Tick's"


@pytest.mark.parametrize(("takeovers", "is_given_up"), [(19, False), (20, True)])
def test_a_launch_that_nobody_answers_is_given_up_after_so_many_tries(takeovers, is_given_up):
    graph, state = started(chain("A"))
    state = with_node(state, claim=replace(state.nodes["A"].claim, takeovers=takeovers))
    node = decide(graph, state, [ClaimExpired("A", 1, "me.1")], LATER, OTHER, POLICY).state.nodes["A"]
    if is_given_up:
        words = "A: no launch of attempt 1 was ever answered, in 21 tries"
        assert (node.status, node.error) == ("Failed", Failure("Launch.Uncertain", words))
    else:
        assert (node.claim.takeovers, node.claim.owner, node.status) == (20, "you.1", "Running")


@pytest.mark.parametrize(("losses", "status"), [(99, "Running"), (100, "Failed")])
def test_an_attempt_that_is_lost_with_its_host_is_made_again_so_often(losses, status):
    graph, state = started(dag(A=task("B"), B=task()))
    state = with_node(state, losses=losses)
    lost = AttemptEnded("A", 1, Outcome.lost("its host is gone"), "x")
    node = decide(graph, state, [lost], LATER, OTHER, POLICY).state.nodes["A"]
    assert (node.status, node.attempt) == (status, 2 if status == "Running" else 1)
    assert node.losses == (losses + 1 if status == "Running" else losses)
    stopped = with_node(state, stop=FAILURE)
    node = decide(graph, stopped, [lost], LATER, OTHER, POLICY).state.nodes["A"]
    assert (node.status, node.error.message) == ("Cancelled", "its host is gone")


def test_a_slot_goes_back_while_a_retry_waits():
    graph, state = started(dag(A=task(pool="api", retry={"max_attempts": 3, "delay": "10s"})))
    slot = state.nodes["A"].slot
    state = decide(graph, state, [SlotGranted("A", 1, slot.queue, slot.ticket)], T0, TOKEN, POLICY).state
    decision = decide(graph, state, [AttemptEnded("A", 1, Outcome.failed("Own.Error", "no"))], LATER, OTHER, POLICY)
    node = decision.state.nodes["A"]
    assert (node.slot, node.claim, node.attempt, node.failures, node.execution_id) == (None, None, 2, 1, None)
    assert node.error.message == "no"
    assert [type(command).__name__ for command in decision.commands] == ["Remind", "ReleaseSlot"]


# -- what others have saved ----------------------------------------------------------------------------------


def times_of(*ended_s, seen_s=None, now_s=100.0, started_s=0.0):
    """When others have saved a run whose steps ended then, as an instance tells that saw it last at `seen_s`."""
    at = lambda seconds: T0 + timedelta(seconds=seconds)  # noqa: E731
    _, state = started(dag(P=parallel(*(chain(f"B{n}") for n in range(max(1, len(ended_s)))))))
    nodes: dict[str, NodeState] = {
        name: replace(node, started_at=at(started_s) if node.started_at else None) for name, node in state.nodes.items()
    }
    for number, ended in enumerate(ended_s):
        nodes[f"B{number}"] = replace(nodes[f"B{number}"], ended_at=at(ended))
    box = RunBox("run_1_x", OrchestrationStatus(MemoryStore(), "run_1_x"), Pace(1.0))
    if seen_s is not None:
        box.seen = ("1", at(seen_s))
    found = box.others_saves(RunState(state.run, nodes), "2", at(now_s))
    assert box.seen == ("2", at(now_s))
    assert box.others_saves(RunState(state.run, nodes), "2", at(now_s + 1)) == []
    return [round(each - T0.timestamp(), 3) for each in found]


@pytest.mark.parametrize(
    ("ended_s", "seen_s", "now_s", "expected"),
    [
        ((5.0, 3.0), None, 100.0, [0.0, 3.0, 5.0 + WRITING_S]),
        ((5.0, 3.0), 4.0, 100.0, [5.0 + WRITING_S]),
        ((5.0, 3.0), 3.0, 100.0, [5.0 + WRITING_S]),
        ((5.0, 5.0), 1.0, 100.0, [5.0 + WRITING_S]),
        ((5.0,), 1.0, 5.1, [5.1]),
        ((5.0,), 1.0, 4.0, [5.0]),
        ((5.0,), 9.0, 100.0, [100.0]),
        ((), 9.0, 100.0, [100.0]),
    ],
)
def test_when_others_have_saved_a_run_is_told_by_what_started_and_ended(ended_s, seen_s, now_s, expected):
    assert times_of(*ended_s, seen_s=seen_s, now_s=now_s) == expected


@pytest.mark.parametrize(("timeout", "limit_s"), [({}, 82800), ({"timeout": "2m"}, 120)])
def test_a_call_whose_caller_is_gone_has_its_timeout_from_when_it_was_found_and_says_so(timeout, limit_s):
    policy = replace(POLICY, targets={"CloudFunction.sync": TargetRules(synchronous=True, launch_limit_s=60.0)})
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": "f", "invocation": "sync", **timeout}
    graph, state = started(dag(A=step), targets=policy.targets)
    assert state.nodes["A"].due == {}, "the call's own deadline is its timeout"
    state = decide(graph, state, [ClaimExpired("A", 1, "me.1")], LATER, OTHER, policy).state
    state = decide(graph, state, [LaunchBound("A", 1, "you.1", "x")], LATER, OTHER, policy).state
    due = LATER + timedelta(seconds=limit_s)
    assert state.nodes["A"].due == {"timeout": due}
    node = decide(graph, state, [TimeCame("A", 1, "timeout", due, True)], due, OTHER, policy).state.nodes["A"]
    assert (node.status, node.error) == ("Failed", Failure("Task.Timeout", f"A: no end within {limit_s:g} s"))
