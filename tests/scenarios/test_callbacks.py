"""Callback Tasks: a step waits for an answer with its token; nothing else ends it but its timeout and a cancel."""

import json
import sys
from datetime import timedelta

import pytest

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Failure
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import EventError, NotSent
from orchestrator.model.messages import callback_message, cancel_message, pause_message, resume_message
from orchestrator.testing import Simulation, never_ends, returns
from orchestrator.testing.noted_notifier import NotedNotifier
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.command_line import Place, clean_environment, until

TOPIC = "projects/p/topics/asked"


def callback(**keys):
    return {"type": "Task", "target_type": "Callback", **keys}


def asking(after=None, **keys):
    steps = {"Ask": callback(next="Then", **keys), "Then": after or {"type": "Pass", "result": "${steps.Ask.result}"}}
    return {"start": "Ask", "steps": steps}


class Counting(NotedNotifier):
    """Counts the tries, too."""

    calls = 0

    def notify(self, notification):
        self.calls += 1
        super().notify(notification)


class Desk:
    """An executor, its clock and what it told; nothing ticks by itself."""

    def __init__(self, definition, refusals=0):
        self.clock = VirtualClock()
        self.notifier = Counting(self.clock, refusals)
        self.executor = DAGExecutor(definition, "memory://", clock=self.clock, notifier=self.notifier)
        self.run_id = self.executor.start(input={"total": 12})

    @property
    def state(self):
        return OrchestrationStatus(self.executor.store, self.run_id).load()[0]

    def answer(self, result=None, rejected=None, token=None, attempt=1):
        token = self.state.nodes["Ask"].claim.nonce if token is None else token
        return self.executor.execute(callback_message(self.run_id, "Ask", attempt, token, result, rejected))


@pytest.fixture
def desk():
    desks = []

    def make(*args, **options):
        desks.append(Desk(*args, **options))
        return desks[-1]

    yield make
    for each in desks:
        each.executor.close()


def test_an_answer_with_the_token_completes_the_step_and_only_the_first_counts(desk):
    asked = desk(asking())
    assert asked.state.nodes["Ask"].status is TaskStatus.RUNNING
    token = asked.state.nodes["Ask"].claim.nonce
    assert asked.answer({"by": "anna"}).verdict == "applied"
    assert asked.state.nodes["Then"].result == {"by": "anna"}
    assert asked.state.run.status is RunStatus.COMPLETED
    assert asked.answer({"by": "bob"}, token=token).verdict == "unchanged"
    assert asked.state.nodes["Ask"].result == {"by": "anna"}


def test_a_rejection_fails_it_and_may_be_routed(desk):
    definition = asking(on_error=[{"errors": ["Callback.Rejected"], "next": "No"}])
    definition["steps"]["No"] = {"type": "Pass", "result": "${error.message}"}
    asked = desk(definition)
    asked.answer(rejected=Failure("Callback.Rejected", "too much"))
    assert (asked.state.nodes["Ask"].status, asked.state.nodes["No"].result) == (TaskStatus.FAILED, "too much")


@pytest.mark.parametrize("token", ["0" * 32, "x", "guess"])
def test_a_forged_token_changes_nothing(desk, token):
    asked = desk(asking())
    before = asked.state
    assert asked.answer(True, token=token).verdict == "unchanged"
    assert asked.state == before


def test_an_answer_to_another_attempt_changes_nothing(desk):
    asked = desk(asking(retry={"max_attempts": 2, "delay": "1ms"}))
    first = asked.state.nodes["Ask"].claim.nonce
    asked.answer(rejected=Failure("Callback.Rejected", "no"))
    asked.clock.forward(1)
    asked.executor.tick()
    assert asked.state.nodes["Ask"].attempt == 2
    assert asked.answer(True, token=first).verdict == "unchanged"
    assert asked.answer(True, token=first, attempt=2).verdict == "unchanged"
    assert asked.answer(True, attempt=2).verdict == "applied"
    assert asked.state.run.status is RunStatus.COMPLETED


def test_after_a_redrive_only_the_item_that_was_rejected_is_asked_anew_and_its_old_token_is_worth_nothing(desk):
    each = {"type": "Map", "items": ["a", "b"], "iterator": {"start": "Ask", "steps": {"Ask": callback()}}}
    asked = desk({"start": "Each", "steps": {"Each": each}})
    tokens = {name: node.claim.nonce for name, node in asked.state.nodes.items() if name.startswith("Ask")}

    def answer(name, attempt, token, rejected=None):
        message = callback_message(asked.run_id, name, attempt, token, name, rejected)
        return asked.executor.execute(message).verdict

    assert answer("Ask[1]", 1, tokens["Ask[0]"]) == "unchanged"  # another item's
    assert answer("Ask[1]", 1, tokens["Ask[1]"]) == "applied"
    assert answer("Ask[0]", 1, tokens["Ask[0]"], Failure("Callback.Rejected", "no")) == "applied"
    assert asked.state.run.status is RunStatus.FAILED
    assert answer("Ask[0]", 1, tokens["Ask[0]"]) == "unchanged"  # the run has ended
    asked.executor.redrive(asked.run_id)
    again = asked.state.nodes["Ask[0]"]
    assert (again.attempt, asked.state.nodes["Ask[1]"].attempt) == (2, 1)
    assert answer("Ask[0]", 1, tokens["Ask[0]"]) == "unchanged"
    assert answer("Ask[0]", 2, tokens["Ask[0]"]) == "unchanged"
    assert answer("Ask[0]", 2, again.claim.nonce) == "applied"
    assert (asked.state.run.status, asked.state.nodes["Each"].result) == (RunStatus.COMPLETED, ["Ask[0]", "Ask[1]"])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token": ""}, "callback.token"),
        ({"token": None}, "callback.token: is missing"),
        ({"status": "Done"}, "callback.status"),
        ({"run_id": "a/b"}, "callback.run_id"),
        ({"node_name": 7}, "callback.node_name"),
        ({"attempt": 0}, "callback.attempt"),
        ({"status": "Failed"}, "callback.result: is given with status Failed"),
        ({"error": {}}, "callback.error: is given with status Completed"),
        ({"status": "Failed", "result": None, "error": {"error_type": 1}}, "callback.error.error_type"),
    ],
)
def test_a_malformed_answer_says_what_is_wrong(desk, changes, problem):
    asked = desk(asking())
    message = callback_message(asked.run_id, "Ask", 1, "t", result=1) | changes
    with pytest.raises(EventError, match=problem):
        asked.executor.execute(message)


def test_a_result_that_is_nested_too_deeply_is_refused(desk):
    asked = desk(asking())
    deep = 1
    for _ in range(200):
        deep = [deep]
    with pytest.raises(EventError, match="nested too deeply"):
        asked.answer(deep)


def test_who_is_to_answer_is_told_the_token_and_the_message_that_answers(desk):
    asked = desk(asking(target_name="finance", topic=TOPIC, parameters={"total": "${run.input.total}"}))
    (told,) = asked.notifier.sent
    assert told.topic == TOPIC
    assert told.payload["parameters"] == {"total": 12}
    assert (told.payload["event"], told.payload["for"], told.payload["node"]) == ("callback", "finance", "Ask")
    assert asked.executor.execute(told.payload["answer"]).verdict == "applied"
    assert asked.state.run.status is RunStatus.COMPLETED


def test_a_receiver_that_does_not_accept_it_is_told_again_with_the_same_id(desk):
    asked = desk(asking(url="https://hooks.example.com/asked"), refusals=2)
    assert asked.notifier.sent == ()
    for _ in range(4):
        asked.clock.forward(120)
        asked.executor.tick()
    assert (asked.notifier.calls, len(asked.notifier.sent)) == (3, 1)
    asked.answer(1)
    assert asked.state.run.status is RunStatus.COMPLETED


def test_it_is_told_once_though_another_instance_looks_after_the_run(desk):
    asked = desk(asking(topic=TOPIC))
    other = DAGExecutor(asking(), store=asked.executor.store, clock=asked.clock, notifier=asked.notifier)
    for _ in range(3):
        asked.clock.forward(120)
        other.tick()
    assert asked.state.nodes["Ask"].execution_id is not None
    assert asked.notifier.calls == 1
    other.close()


def test_a_receiver_that_refuses_for_good_fails_the_step(desk):
    class Refusing(NotedNotifier):
        def notify(self, notification):
            raise NotSent("HTTP 403")

    clock = VirtualClock()
    with DAGExecutor(asking(topic=TOPIC), "memory://", clock=clock, notifier=Refusing(clock)) as executor:
        run = executor.wait(executor.start(), 10)
    assert run.run.error.error_type == "Callback.NotSent"
    assert "HTTP 403" in run.run.error.message


@pytest.mark.parametrize(("timeout", "limit"), [({"timeout": "2h"}, timedelta(hours=2)), ({}, timedelta(days=30))])
def test_nobody_answers_for_ever(timeout, limit):
    world = Simulation(asking(**timeout), targets={"Ask": never_ends()}, without_outcome=["Callback"])
    run = world.finish(world.start())
    if timeout:
        assert (run.error.error_type, run.took) == ("Task.Timeout", limit)
    asked = Desk(asking(**timeout))
    asked.clock.forward(limit.total_seconds() - 60)
    asked.executor.tick()
    assert asked.state.run.status is RunStatus.RUNNING
    for _ in range(3):
        asked.clock.forward(120)
        asked.executor.tick()
    assert asked.state.run.error.error_type == "Task.Timeout"
    asked.executor.close()


def test_an_answer_while_the_run_is_paused_counts_and_what_follows_waits(desk):
    asked = desk(asking())
    asked.executor.execute(pause_message(asked.run_id))
    asked.answer("yes")
    assert (asked.state.nodes["Ask"].status, asked.state.nodes["Then"].status) == (TaskStatus.COMPLETED, TaskStatus.NEW)
    asked.clock.forward(1)
    asked.executor.execute(resume_message(asked.run_id))
    assert asked.state.nodes["Then"].result == "yes"


def test_a_cancelled_run_waits_for_no_answer(desk):
    asked = desk(asking())
    token = asked.state.nodes["Ask"].claim.nonce
    asked.executor.execute(cancel_message(asked.run_id, "never mind"))
    assert asked.state.run.status is RunStatus.CANCELLED
    assert asked.answer(True, token=token).verdict == "unchanged"


def test_a_simulation_answers_as_it_is_told():
    run = Simulation(asking(), targets={"Ask": returns({"ok": True})})
    assert run.finish(run.start()).result("Then") == {"ok": True}


# -- the command line ----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.delenv("EVENTS_TOPIC", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = Place(tmp_path)
    found.dag(
        "ask",
        {
            "Before": {"type": "Pass", "result": 12, "next": "Ask"},
            "Ask": callback(target_name="finance", parameters={"total": "${steps.Before.result}"}, next="After"),
            "After": found.task("echo", value="${steps.Ask.result}"),
        },
    )
    return found


def waits(place):
    return "mine" in place.run_ids() and place.document("mine")["Ask"]["status"] == "Running"


def test_approve_lets_the_process_go_on_that_runs_the_run(place, capsys):
    process = place.start("run", "ask", "--run-id", "mine")
    until(lambda: waits(place))
    until(lambda: list((place.root / ".orchestrator" / "executions").glob("*ask*")))
    assert main(["status", "mine"]) == 0
    out = capsys.readouterr().out
    assert "Ask waits for an answer of finance:" in out
    assert '{"total":12}' in out
    assert "orchestrator approve mine Ask [--reject]" in out
    assert main(["approve", "mine", "Ask", "--result", '{"by": "anna"}', "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": "mine", "node": "Ask", "answer": "approved"}
    assert process.wait(60) == 0
    assert place.document("mine")["After"]["result"] == {"by": "anna"}
    assert main(["approve", "mine", "Ask"]) == 2
    assert "run mine: has ended as Completed; there is nothing to answer" in capsys.readouterr().err


def test_an_answer_to_a_run_that_nobody_runs_is_found_when_it_is_resumed(place, capsys):
    process = place.start("run", "ask", "--run-id", "mine")
    until(lambda: waits(place))
    process.kill()
    process.wait()
    assert main(["approve", "mine", "Ask", "--reject", "--reason", "too much"]) == 0
    assert "finish it with" in capsys.readouterr().out
    assert main(["approve", "mine", "Ask"]) == 2
    assert "was answered already" in capsys.readouterr().err
    assert main(["run", "ask", "--resume", "mine"]) == 1
    assert place.document("mine")["$run"]["error"] == {
        "error_type": "Callback.Rejected", "message": "too much", "node": "Ask",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["other", "Ask"], "there is no such run"),
        (["mine", "Aks"], 'there is no node "Aks"; did you mean "Ask"?'),
        (["mine", "Before"], "Before is a Pass, no Callback; waiting for an answer: Ask"),
        (["mine", "After"], "After is a Function Task, no Callback; waiting for an answer: Ask"),
        (["mine", "Ask", "--result", "{"], "--result: is no JSON"),
        (["mine", "Ask", "--reject", "--result", "1"], "do not go together"),
        (["mine", "Ask", "--reason", "x"], "--reason goes with --reject"),
        (["mine", "Ask", "--reject", "--reason", "x" * 501], "allowed are 500"),
    ],
)
def test_what_cannot_be_answered_is_said_to_be_so(place, capsys, argv, problem):
    process = place.start("run", "ask", "--run-id", "mine")
    until(lambda: waits(place))
    process.kill()
    process.wait()
    assert main(["approve", *argv]) == 2
    assert problem in capsys.readouterr().err


def test_status_of_a_parent_says_what_its_child_waits_for_and_items_are_answered_one_by_one(place, capsys):
    each = {"start": "Each", "steps": {"Each": callback(parameters={"of": "${item}"})}}
    place.dag("all", {"All": {"type": "Map", "items": ["a", "b"], "iterator": each}})
    place.dag("parent", {"Child": {"type": "Task", "target_type": "Dag", "target_name": "all"}})
    process = place.start("run", "parent", "--run-id", "mine")

    def kid():
        return next((each for each in place.run_ids() if each != "mine"), None)

    until(lambda: kid() and len(place.document(kid())) == 6)
    until(lambda: len(list((place.root / ".orchestrator" / "executions").glob("*each*"))) == 2)
    assert main(["status", "mine"]) == 0
    out = capsys.readouterr().out
    assert f"orchestrator approve {kid()} 'Each[0]' [--reject]" in out
    assert '{"of":"b"}' in out
    for name, answer in (("Each[1]", "2"), ("Each[0]", "1")):
        assert main(["approve", kid(), name, "--result", answer]) == 0
    assert process.wait(60) == 0
    assert place.document(kid())["All"]["result"] == [1, 2]
