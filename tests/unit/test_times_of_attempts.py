"""When a decision gives up an attempt or a run: timeouts, heartbeats, retries, and the leases that come before them."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.model.commands import Launch, Outcome, Remind
from orchestrator.model.dag import DAG
from orchestrator.model.facts import (
    AttemptEnded,
    ClaimExpired,
    HeardFrom,
    PauseRequested,
    RunOutOfTime,
    RunStarted,
    TimeCame,
)
from orchestrator.model.policy import Policy, TargetRules
from tests.support.world import T0, dag, task

START = RunStarted("run_1_x", "dag", "sha256:0", {}, "m1")
TOKEN, OTHER = Token("me.1", b"0" * 32), Token("you.1", b"1" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True), "CloudFunction": TargetRules()})


def s(seconds: float):
    return T0 + timedelta(seconds=seconds)


def started(**keys):
    graph = DAG(dag(A=task(**keys)))
    return graph, decide(graph, None, [START], T0, TOKEN, POLICY).state


def came(graph, state, kind, at_s, *, now_s=None, is_bound=False):
    now = s(at_s if now_s is None else now_s)
    return decide(graph, state, [TimeCame("A", state.nodes["A"].attempt, kind, s(at_s), is_bound)], now, OTHER, POLICY)


def test_a_timeout_of_what_is_known_to_run_is_over_when_it_is():
    graph, state = started(timeout="2m")
    assert state.nodes["A"].due == {"timeout": s(120)}
    over = came(graph, state, "timeout", 120, is_bound=True)
    assert over.state.nodes["A"].error.error_type == "Task.Timeout"
    assert over.state.nodes["A"].error.message == "A: no end within 120 s"
    assert over.state.run.status == "Failed"


def test_a_timeout_of_what_is_not_known_to_run_begins_at_the_end_of_its_lease_and_only_once():
    graph, state = started(timeout="2m")
    put_off = came(graph, state, "timeout", 120)
    assert put_off.state.nodes["A"].due == {"timeout": s(180)}
    (remind,) = put_off.commands
    assert isinstance(remind, Remind)
    assert (remind.kind, remind.at, remind.node_name, remind.attempt) == ("timeout", s(180), "A", 1)
    late = came(graph, put_off.state, "timeout", 180, now_s=500)
    assert late.state.nodes["A"].error.message == "A: no end within 120 s"
    assert came(graph, state, "timeout", 120, now_s=500).state.nodes["A"].due == {"timeout": s(180)}


def test_a_timeout_after_a_takeover_waits_only_for_the_end_of_the_new_lease():
    graph, state = started(timeout="10s")
    taken = decide(graph, state, [ClaimExpired("A", 1, "me.1")], s(100), OTHER, POLICY).state
    assert taken.nodes["A"].claim.takeovers == 1
    assert taken.nodes["A"].due == {"timeout": s(110)}
    put_off = came(graph, taken, "timeout", 110)
    assert put_off.state.nodes["A"].due == {"timeout": s(165)}
    assert came(graph, put_off.state, "timeout", 165).state.run.status == "Failed"
    assert came(graph, taken, "timeout", 110, now_s=164).state.nodes["A"].due == {"timeout": s(165)}
    assert came(graph, taken, "timeout", 110, now_s=165).state.run.status == "Failed"


def test_a_silent_attempt_is_given_up_and_nobody_is_reminded_of_that():
    graph, state = started(target="f", target_type="CloudFunction", target_name="f", heartbeat="60s", timeout="1h")
    at_s = (state.nodes["A"].due["heartbeat"] - T0).total_seconds()
    over = came(graph, state, "heartbeat", at_s, is_bound=True)
    assert over.state.nodes["A"].error.error_type == "Task.Heartbeat"
    assert over.state.nodes["A"].error.message == "A: was not heard of for 60 s"
    put_off = came(graph, state, "heartbeat", at_s)
    assert put_off.state.nodes["A"].due["heartbeat"] == s(60 + at_s)
    assert put_off.commands == ()


def test_who_is_heard_of_is_given_up_later_and_not_for_each_time():
    graph, state = started(target="f", target_type="CloudFunction", target_name="f", heartbeat="60s", timeout="1h")
    at_s = (state.nodes["A"].due["heartbeat"] - T0).total_seconds()

    def heard(of_s, now_s, attempt=1):
        return decide(graph, state, [HeardFrom("A", attempt, s(of_s))], s(now_s), OTHER, POLICY)

    assert not heard(19.9, 19.9).changed
    assert heard(20, 20).state.nodes["A"].due["heartbeat"] == s(at_s + 20)
    assert heard(500, 30).state.nodes["A"].due["heartbeat"] == s(at_s + 30), "a clock that is ahead"
    assert heard(10, at_s).state.nodes["A"].due["heartbeat"] == s(at_s + 10), "it would be given up now"
    assert not heard(30, 30, attempt=2).changed


def test_nothing_is_given_up_in_a_paused_run_that_may_not_have_been_launched():
    graph, state = started(timeout="2m")
    paused = decide(graph, state, [PauseRequested(s(1))], s(1), OTHER, POLICY).state
    assert not came(graph, paused, "timeout", 120).changed
    assert came(graph, paused, "timeout", 120, is_bound=True).changed


def test_a_retry_is_claimed_when_its_time_has_come_unless_the_run_is_paused():
    graph, state = started(retry={"max_attempts": 2, "delay": "30s"})
    failed = AttemptEnded("A", 1, Outcome.failed("Task.Failed", "no"))
    waiting = decide(graph, state, [failed], s(10), TOKEN, POLICY).state
    assert waiting.nodes["A"].retry_at is not None
    at_s = (waiting.nodes["A"].due["retry"] - T0).total_seconds()
    (launch,) = came(graph, waiting, "retry", at_s).commands
    assert isinstance(launch, Launch)
    assert (launch.attempt, launch.recover, launch.owner) == (2, False, "you.1")
    paused = decide(graph, waiting, [PauseRequested(s(11))], s(11), OTHER, POLICY).state
    assert came(graph, paused, "retry", at_s).commands == ()


# -- runs ----------------------------------------------------------------------------------------------

IN_TIME = DAG({**dag(A=task()), "timeout": "10m"})


@pytest.mark.parametrize(("now_s", "status"), [(599, "Running"), (600, "Failed"), (700, "Failed")])
def test_a_run_is_out_of_time_from_then_on(now_s, status):
    policy = Policy({"Function": TargetRules(has_outcome=True, can_cancel=True)})
    state = decide(IN_TIME, None, [START], T0, TOKEN, policy).state
    decision = decide(IN_TIME, state, [RunOutOfTime()], s(now_s), OTHER, policy)
    assert decision.changed == (status == "Failed")
    run = decision.state.run
    assert run.is_out_of_time == (status == "Failed")
    if status == "Failed":
        assert run.stop is not None
        assert not decide(IN_TIME, decision.state, [RunOutOfTime()], s(now_s), TOKEN, policy).changed


def test_a_run_is_never_out_of_time_that_is_not_there_has_ended_has_no_limit_or_is_at_its_finally():
    assert not decide(IN_TIME, None, [RunOutOfTime()], s(999), TOKEN, POLICY).changed
    state = decide(IN_TIME, None, [START], T0, TOKEN, POLICY).state
    ended = decide(IN_TIME, state, [AttemptEnded("A", 1, Outcome.completed())], s(1), TOKEN, POLICY).state
    assert ended.run.status == "Completed"
    assert not decide(IN_TIME, ended, [RunOutOfTime()], s(999), TOKEN, POLICY).changed
    graph, without = started()
    assert not decide(graph, without, [RunOutOfTime()], s(999), TOKEN, POLICY).changed
    last = DAG({**dag(A=task()), "timeout": "10m", "finally": dag(Z=task())})
    state = decide(last, None, [START], T0, TOKEN, POLICY).state
    state = decide(last, state, [AttemptEnded("A", 1, Outcome.completed())], s(1), TOKEN, POLICY).state
    assert state.nodes["Z"].status == "Running"
    kept = type(state)(replace(state.run, timeout_at=s(600)), state.nodes)
    assert not decide(last, kept, [RunOutOfTime()], s(999), OTHER, POLICY).changed
