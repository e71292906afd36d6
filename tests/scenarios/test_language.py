"""What the language can say, run by the engine: retries, routes of errors, choices, waits, values, ends."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchUncertain
from orchestrator.model.messages import reminder_message
from orchestrator.model.run_state import RunState
from tests.support.world import T0, NotedTarget, World, dag, parallel, task

FAILED = Outcome.failed("Task.Failed", "boom")


def statuses(world: World, run_id: str) -> dict[str, str]:
    return {name: node.status.value for name, node in world.state(run_id).nodes.items()}


def tick_after(world: World, seconds: float) -> None:
    world.clock.forward(seconds)
    world.instance().tick()


def passing(result: object, next: str | None = None, **keys: object) -> dict[str, object]:
    return {"type": "Pass", "result": result, **({"next": next} if next else {}), **keys}


# ---- retry -------------------------------------------------------------------------------------------


def test_a_failed_attempt_is_followed_by_the_next_one_when_its_time_has_come():
    world = World(dag(A=task("B", retry={"max_attempts": 3, "delay": "10s"}), B=task()))
    run_id = world.start()
    world.end("A", FAILED)
    node = world.state(run_id).nodes["A"]
    assert (node.status.value, node.attempt, node.claim, dict(node.due)) == (
        "Running",
        2,
        None,
        {"retry": T0 + timedelta(seconds=10)},
    )
    assert node.error is not None
    assert node.error.message == "boom"
    tick_after(world, 9)
    assert len(world.target.of("A")) == 1, "not before its time"
    tick_after(world, 1)
    assert [launch.attempt for launch in world.target.of("A")] == [1, 2]
    world.end("A", Outcome.completed(7))
    assert statuses(world, run_id) == {"A": "Completed", "B": "Running"}
    assert world.state(run_id).nodes["A"].error is None


def test_the_reminder_starts_the_next_attempt_without_a_tick_and_once():
    world = World(dag(A=task(retry={"delay": "10s"})))
    run_id = world.start()
    world.end("A", FAILED)
    at = T0 + timedelta(seconds=10)
    assert reminder_message(run_id, "A", 2, "retry", at) in [event for event, _ in world.broker.published]
    world.clock.forward(10)
    for number in range(3):
        world.instance().execute(reminder_message(run_id, "A", 2, "retry", at), message_id=f"r{number}")
    assert len(world.target.of("A")) == 2


def test_when_no_retry_is_left_the_step_has_failed_with_its_last_error():
    world = World(dag(A=task("B", retry={"max_attempts": 2, "delay": "1s"}), B=task()))
    run_id = world.start()
    world.end("A", FAILED)
    tick_after(world, 1)
    world.end("A", Outcome.failed("Task.Failed", "boom again"))
    state = world.state(run_id)
    assert statuses(world, run_id) == {"A": "Failed", "B": "Skipped"}
    assert (state.run.status.value, state.run.error.message, state.run.error.node) == ("Failed", "boom again", "A")


def test_a_late_event_of_the_attempt_before_changes_nothing():
    world = World(dag(A=task(retry={"delay": "1s"})))
    run_id = world.start()
    first = world.target.calls[0]
    world.end("A", FAILED)
    from tests.support.world import completion

    world.executor.execute(completion(first, Outcome.completed("too late")), message_id="late")
    tick_after(world, 1)
    world.executor.execute(completion(first, Outcome.completed("too late")), message_id="later")
    assert statuses(world, run_id) == {"A": "Running"}


def test_a_timeout_is_retried_once_the_attempt_is_known_to_be_cancelled():
    world = World(
        dag(A=task(timeout="1m", retry={"delay": "1s"})), target=NotedTarget(has_outcome=True, can_cancel=True)
    )
    run_id = world.start()
    tick_after(world, 61)
    tick_after(world, 61)
    assert world.target.cancelled
    tick_after(world, 2)
    assert [launch.attempt for launch in world.target.of("A")] == [1, 2]
    assert statuses(world, run_id) == {"A": "Running"}


def test_a_run_that_is_cancelled_while_a_retry_is_waited_for_ends_at_once():
    world = World(dag(A=task("B", retry={"delay": "1h"}), B=task()))
    run_id = world.start()
    world.end("A", FAILED)
    world.executor.execute({"resource": {"type": "cancel"}, "run_id": run_id}, message_id="c")
    assert statuses(world, run_id) == {"A": "Cancelled", "B": "Skipped"}
    assert world.state(run_id).run.status.value == "Cancelled"


# ---- routes ------------------------------------------------------------------------------------------


def test_an_error_leads_where_its_route_says_and_can_be_asked_about():
    world = World(
        dag(
            A=task("B", on_error=[{"errors": ["Task.Timeout"], "next": "Never"}, {"next": "Clean"}]),
            B=task(),
            Clean=task(
                "Report", parameters={"why": "${error.message}", "what": "${error.type}", "who": "${error.node}"}
            ),
            Report=passing("after ${error.message}"),
            Never=passing(1),
        )
    )
    run_id = world.start()
    world.end("A", FAILED)
    assert world.target.calls[-1].parameters == {"why": "boom", "what": "Task.Failed", "who": "A"}
    world.end("Clean")
    state = world.state(run_id)
    assert statuses(world, run_id) == {
        "A": "Failed",
        "B": "Skipped",
        "Clean": "Completed",
        "Report": "Completed",
        "Never": "Skipped",
    }
    assert (state.run.status.value, state.run.error, state.nodes["Report"].result) == ("Completed", None, "after boom")


def test_the_error_of_a_branch_can_be_caught_by_the_parallel_around_it():
    branches = parallel(dag(L=task()), dag(R=task()), next="Join")
    world = World(dag(P={**branches, "on_error": [{"next": "Clean"}]}, Join=task(), Clean=passing("${error.node}")))
    run_id = world.start()
    world.end("L", FAILED)
    assert statuses(world, run_id)["Clean"] == "New", "its sibling runs on to its end"
    world.end("R")
    state = world.state(run_id)
    assert (state.run.status.value, state.nodes["Clean"].result, state.nodes["Join"].status.value) == (
        "Completed",
        "L",
        "Skipped",
    )


def test_an_error_that_no_route_names_fails_the_run():
    world = World(dag(A=task(on_error=[{"errors": ["Task.Timeout"], "next": "Clean"}]), Clean=passing(1)))
    run_id = world.start()
    world.end("A", FAILED)
    assert world.state(run_id).run.status.value == "Failed"
    assert statuses(world, run_id) == {"A": "Failed", "Clean": "Skipped"}


# ---- Condition, Pass, End ----------------------------------------------------------------------------


CHOICE = {
    "type": "Condition",
    "choices": [{"when": "${run.input.big}", "next": "Big"}, {"when": "${run.input.small}", "next": "Small"}],
    "default": "Else",
}


@pytest.mark.parametrize(
    ("given", "way"),
    [
        pytest.param({"big": True, "small": True}, "Big", id="the first that holds"),
        pytest.param({"big": False, "small": True}, "Small", id="the second"),
        pytest.param({"big": False, "small": False}, "Else", id="none"),
    ],
)
def test_a_condition_chooses_what_follows_and_the_ways_join_again(given, way):
    world = World(
        dag(
            C=CHOICE,
            Big=passing("big", "Join"),
            Small=passing("small", "Join"),
            Else=passing("else", "Join"),
            Join=task(),
        )
    )
    run_id = world.start(input=given)
    found = statuses(world, run_id)
    assert {name for name in ("Big", "Small", "Else") if found[name] == "Completed"} == {way}
    assert found["Join"] == "Running"
    world.end("Join")
    assert set(statuses(world, run_id).values()) == {"Completed", "Skipped"}
    assert world.state(run_id).run.status.value == "Completed"


@pytest.mark.parametrize(
    ("step", "given", "error", "words"),
    [
        pytest.param(
            {"choices": CHOICE["choices"]},
            {"big": False, "small": False},
            "Condition.NoChoice",
            "C: none of its choices holds, and it has no default",
            id="nothing holds",
        ),
        pytest.param(
            {"choices": CHOICE["choices"]},
            {"big": "yes"},
            "Condition.BadExpression",
            "${run.input.big}: is a string; a condition is true or false",
            id="no truth",
        ),
        pytest.param(
            {"choices": CHOICE["choices"]},
            {},
            "Condition.BadExpression",
            '${run.input.big}: run.input has no "big"; it has nothing',
            id="nothing there",
        ),
    ],
)
def test_a_condition_that_cannot_choose_fails_in_words(step, given, error, words):
    world = World(dag(C={"type": "Condition", **step}, Big=passing(1), Small=passing(2)))
    state = world.state(world.start(input=given))
    assert (state.run.status.value, state.run.error.error_type, state.run.error.message) == ("Failed", error, words)


def test_a_step_that_was_not_reached_has_no_result_and_asking_says_so():
    world = World(
        dag(
            C={"type": "Condition", "choices": [{"when": "${run.input.x}", "next": "A"}], "default": "B"},
            A=passing(1, "J"),
            B=passing(2, "J"),
            J=passing("${steps.A.result}"),
        )
    )
    state = world.state(world.start(input={"x": False}))
    assert state.run.error.message == '${steps.A.result}: steps.A has no "result"; it has "status"'


def test_thousands_of_steps_that_take_no_time_follow_each_other_in_one_save():
    steps = {f"S{n}": passing(n, f"S{n + 1}") for n in range(3000)}
    world = World(dag(**steps, S3000=passing("done")))
    run_id = world.start()
    assert world.state(run_id).run.status.value == "Completed"
    assert len(world.saved) == 1


@pytest.mark.parametrize(
    ("step", "status", "error"),
    [
        ({}, "Completed", None),
        ({"status": "Completed"}, "Completed", None),
        ({"status": "Failed"}, "Failed", ("Run.Failed", "E: ends the way as Failed")),
        (
            {"status": "Failed", "error": {"type": "Orders.Missing", "message": "none on ${run.input.day}"}},
            "Failed",
            ("Orders.Missing", "none on 2026-01-01"),
        ),
    ],
)
def test_an_end_ends_the_run_as_it_says(step, status, error):
    world = World(dag(A=passing(1, "E"), E={"type": "End", **step}))
    run = world.state(world.start(input={"day": "2026-01-01"})).run
    assert (run.status.value, run.error and (run.error.error_type, run.error.message)) == (status, error)


# ---- Wait --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "given", "seconds"),
    [
        pytest.param({"for": "3d"}, {}, 3 * 86400, id="for three days"),
        pytest.param({"until": "2026-01-01T13:00:00Z"}, {}, 3600, id="until a time"),
        pytest.param({"until": "${run.input.at}"}, {"at": "2026-01-01T14:00:00+01:00"}, 3600, id="until a given time"),
    ],
)
def test_a_wait_ends_when_its_time_has_come(step, given, seconds):
    world = World(dag(W={"type": "Wait", **step, "next": "A"}, A=task()))
    run_id = world.start(input=given)
    at = T0 + timedelta(seconds=seconds)
    assert dict(world.state(run_id).nodes["W"].due) == {"wait": at}
    assert (reminder_message(run_id, "W", 1, "wait", at), float(seconds)) in world.broker.published
    tick_after(world, seconds - 1)
    assert statuses(world, run_id) == {"W": "Running", "A": "New"}
    world.clock.forward(1)
    world.executor.execute(reminder_message(run_id, "W", 1, "wait", at), message_id="r")
    assert statuses(world, run_id) == {"W": "Completed", "A": "Running"}


def test_a_lost_reminder_of_a_wait_costs_a_tick():
    world = World(dag(W={"type": "Wait", "for": "10m", "next": "A"}, A=task()))
    run_id = world.start()
    tick_after(world, 601)
    assert statuses(world, run_id) == {"W": "Completed", "A": "Running"}


@pytest.mark.parametrize(
    "at",
    [
        *("yesterday", "2026-01-01", "2026-01-01T13:00:00", 5),
        *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),  # years that there are not, in UTC
        *("9999-12-31T23:59:59Z", "2027-01-01T12:00:01Z"),  # over 365 days off
    ],
)
def test_what_is_no_time_fails_the_wait(at):
    world = World(dag(W={"type": "Wait", "until": "${run.input.at}"}))
    run = world.state(world.start(input={"at": at})).run
    assert run.error is not None
    assert run.error.error_type == "Wait.BadTime"


def test_a_time_that_has_passed_is_not_waited_for():
    world = World(dag(W={"type": "Wait", "until": "2020-01-01T00:00:00Z"}))
    assert world.state(world.start()).run.status.value == "Completed"


def test_a_run_that_is_cancelled_while_it_waits_ends_at_once():
    world = World(dag(W={"type": "Wait", "for": "30d", "next": "A"}, A=task()))
    run_id = world.start()
    world.executor.execute({"resource": {"type": "cancel"}, "run_id": run_id}, message_id="c")
    assert statuses(world, run_id) == {"W": "Cancelled", "A": "Skipped"}
    assert world.state(run_id).run.status.value == "Cancelled"


# ---- on_failure --------------------------------------------------------------------------------------


def stopping(*branches: dict, **keys: object) -> dict[str, object]:
    return {**parallel(*branches), "on_failure": "stop", **keys}


def test_a_failing_branch_stops_the_others_where_the_parallel_says_so():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    retried = task("Later", retry={"delay": "1h"})
    world = World(
        dag(
            P=stopping(dag(A=task()), dag(B=task("B2"), B2=task()), dag(C=retried, Later=task()), next="J"),
            J=task(),
        ),
        target=target,
    )
    run_id = world.start()
    target.outcomes[f"x-{target.of('C')[0].key}"] = FAILED
    world.end("C", FAILED)
    target.outcomes[f"x-{target.of('A')[0].key}"] = FAILED
    world.end("A", FAILED)
    assert target.cancelled == [f"x-{target.of('B')[0].key}"]
    state = world.state(run_id)
    assert statuses(world, run_id) == {
        "P": "Failed",
        "A": "Failed",
        "B": "Cancelled",
        "B2": "Skipped",
        "C": "Cancelled",
        "Later": "Skipped",
        "J": "Skipped",
    }
    assert (state.run.status.value, state.run.error.node) == ("Failed", "A")
    assert state.nodes["B"].error.error_type == "Parallel.Stopped"


def test_what_cannot_be_cancelled_is_waited_for_and_nothing_follows_it():
    world = World(dag(P=stopping(dag(A=task()), dag(B=task("B2"), B2=task()))))
    run_id = world.start()
    world.end("A", FAILED)
    assert statuses(world, run_id)["B"] == "Running"
    world.end("B")
    assert statuses(world, run_id) == {"P": "Failed", "A": "Failed", "B": "Completed", "B2": "Skipped"}
    assert world.state(run_id).run.status.value == "Failed"


def test_a_branch_that_fails_at_once_keeps_the_others_from_starting():
    end = {"type": "End", "status": "Failed"}
    world = World(dag(P=stopping(dag(A=end), dag(B=task()), dag(C=task()))))
    state = world.state(world.start())
    assert world.target.calls == []
    assert {name: node.status.value for name, node in state.nodes.items()} == {
        "P": "Failed",
        "A": "Failed",
        "B": "Cancelled",
        "C": "Cancelled",
    }


def test_what_is_stopped_in_a_parallel_does_not_touch_what_is_outside_of_it():
    inner = stopping(dag(A=task()), dag(B=task()), on_error=[{"next": "Clean"}])
    world = World(dag(P=parallel(dag(Q=inner, Clean=passing("cleaned", "More"), More=task()), dag(R=task()))))
    run_id = world.start()
    world.end("A", FAILED)
    world.end("B")
    assert statuses(world, run_id) == {
        "P": "Running",
        "Q": "Failed",
        "A": "Failed",
        "B": "Completed",
        "Clean": "Completed",
        "More": "Running",
        "R": "Running",
    }


# ---- the run's own timeout, and finally --------------------------------------------------------------


def test_a_run_that_takes_too_long_is_stopped_and_has_failed():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    world = World({**dag(A=task("B"), B=task()), "timeout": "1h"}, target=target)
    run_id = world.start()
    tick_after(world, 3599)
    assert statuses(world, run_id) == {"A": "Running", "B": "New"}
    tick_after(world, 2)
    state = world.state(run_id)
    assert statuses(world, run_id) == {"A": "Cancelled", "B": "Skipped"}
    assert (state.run.status.value, state.run.error.error_type) == ("Failed", "Run.Timeout")
    assert state.run.error.message == "the run had not ended by 2026-01-01 13:00:00 UTC"


LAST = {"start": "F", "steps": {"F": task("G", parameters={"how": "${run.status}"}), "G": passing(1)}}


@pytest.mark.parametrize(
    ("outcome", "status"), [(Outcome.completed(), "Completed"), (FAILED, "Failed")], ids=["completed", "failed"]
)
def test_the_finally_runs_however_the_steps_end_and_the_run_ends_as_they_did(outcome, status):
    world = World({**dag(A=task("B"), B=passing(1)), "finally": LAST})
    run_id = world.start()
    world.end("A", outcome)
    assert world.state(run_id).run.status.value == "Running"
    assert world.target.calls[-1].parameters == {"how": status}
    world.end("F")
    state = world.state(run_id)
    assert (state.run.status.value, state.nodes["G"].status.value, state.run.ending) == (status, "Completed", None)


def test_the_finally_runs_when_the_run_was_cancelled_and_no_cancel_stops_it():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    world = World({**dag(A=task()), "finally": LAST}, target=target)
    run_id = world.start()
    for number in range(2):
        event = {"resource": {"type": "cancel"}, "run_id": run_id, "reason": "wrong day"}
        world.executor.execute(event, message_id=f"c{number}")
    assert statuses(world, run_id) == {"A": "Cancelled", "F": "Running", "G": "New"}
    assert target.calls[-1].parameters == {"how": "Cancelled"}
    target.outcomes[f"x-{target.calls[-1].key}"] = Outcome.completed()
    world.end("F")
    assert world.state(run_id).run.status.value == "Cancelled"


def test_a_finally_that_fails_fails_a_run_that_had_completed():
    world = World({**dag(A=passing(1)), "finally": LAST})
    run_id = world.start()
    world.end("F", FAILED)
    run = world.state(run_id).run
    assert (run.status.value, run.error.node) == ("Failed", "F")


def test_the_finally_can_ask_about_the_runs_error():
    asks = {"start": "F", "steps": {"F": passing("${error.node}: ${error.message}")}}
    world = World({**dag(A=task()), "finally": asks})
    run_id = world.start()
    world.end("A", FAILED)
    assert world.state(run_id).nodes["F"].result == "A: boom"


# ---- what a review found -----------------------------------------------------------------------------


def cancel(world: World, run_id: str) -> None:
    world.executor.execute({"resource": {"type": "cancel"}, "run_id": run_id, "reason": "why"}, message_id="cancel")


class Stubborn(NotedTarget):
    """Accepts no cancel until it is told to."""

    def __init__(self) -> None:
        super().__init__(has_outcome=True, can_cancel=True)
        self.accepts = False

    def cancel(self, execution):
        if not self.accepts:
            raise LaunchUncertain("not now")
        super().cancel(execution)


def test_a_run_that_is_cancelled_while_a_timed_out_attempt_is_owed_a_cancel_retries_nothing():
    target = Stubborn()
    world = World(dag(A=task("B", timeout="1m", retry={"delay": "1s"}), B=task()), target=target)
    run_id = world.start()
    tick_after(world, 61)
    tick_after(world, 61)
    assert world.state(run_id).nodes["A"].owed_cancel is not None
    cancel(world, run_id)
    target.accepts = True
    tick_after(world, 61)
    tick_after(world, 61)
    assert statuses(world, run_id) == {"A": "Cancelled", "B": "Skipped"}
    assert world.state(run_id).run.status.value == "Cancelled"
    assert len(target.of("A")) == 1


@pytest.mark.parametrize(
    ("outcome", "said"), [(Outcome.completed(), ": "), (FAILED, "A: boom")], ids=["completed", "failed"]
)
def test_a_finally_may_ask_about_an_error_that_there_is_not(outcome, said):
    asks = {"start": "F", "steps": {"F": passing("${error.node}: ${error.message}")}}
    world = World({**dag(A=task()), "finally": asks})
    run_id = world.start()
    world.end("A", outcome)
    state = world.state(run_id)
    assert state.nodes["F"].result == said
    assert state.run.status.value == ("Failed" if outcome is FAILED else "Completed")


def test_the_status_of_a_step_that_was_not_come_by_is_skipped():
    asks = {"start": "F", "steps": {"F": passing("${steps.Big.status}")}}
    chosen = {"type": "Condition", "choices": [{"when": "${run.input.big}", "next": "Big"}], "default": "J"}
    world = World({**dag(C=chosen, Big=passing(1, "J"), J=passing("${steps.Big.status}")), "finally": asks})
    nodes = world.state(world.start(input={"big": False})).nodes
    assert (nodes["J"].result, nodes["F"].result) == ("Skipped", "Skipped")


def test_what_is_claimed_and_stopped_in_one_save_is_not_launched():
    world = World(dag(P=stopping(dag(T=task()), dag(Bad=passing("${run.input.nope}")))))
    state = world.state(world.start())
    assert world.target.calls == []
    assert {name: node.status.value for name, node in state.nodes.items()} == {
        "P": "Failed",
        "T": "Cancelled",
        "Bad": "Failed",
    }


def test_an_expression_that_fails_at_a_takeover_leaves_nothing_running():
    target = NotedTarget(has_outcome=True, can_cancel=True)
    world = World(dag(A=passing({"x": 1}, "B"), B=task(parameters={"x": "${steps.A.result.x}"})), target=target)
    run_id = world.start()
    state, version = OrchestrationStatus(world.store, run_id).load()
    spoilt = replace(state.nodes["A"], result={})
    OrchestrationStatus(world.store, run_id).save(RunState(state.run, {**state.nodes, "A": spoilt}), expect=version)
    world.clock.forward(100)
    world.instance().tick()
    assert statuses(world, run_id)["B"] == "Failed"
    assert target.cancelled == [f"x-{target.calls[0].key}"]


def test_a_run_out_of_time_has_failed_for_that_also_if_a_step_then_fails():
    world = World({**dag(A=task()), "timeout": "1h"})
    run_id = world.start()
    tick_after(world, 3601)
    world.end("A", FAILED)
    assert world.state(run_id).run.error.error_type == "Run.Timeout"


def test_a_failure_without_words_is_a_failure_to_its_routes():
    route = [{"errors": ["Task.Failed"], "next": "Clean"}]
    world = World(dag(A=task(on_error=route), Clean=passing(1)), target=NotedTarget(has_outcome=True))
    run_id = world.start()
    world.target.outcomes[f"x-{world.target.calls[0].key}"] = Outcome(OutcomeKind.FAILED)
    world.executor.tick()
    assert statuses(world, run_id) == {"A": "Failed", "Clean": "Completed"}
