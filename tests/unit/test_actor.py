"""What the actor does with what a save entitles to, and what comes of it, call by call."""

from datetime import timedelta
from threading import Barrier, Event, current_thread

import pytest
from msgspec.structs import replace

from orchestrator.engine.acting import Actor
from orchestrator.engine.observing import Observed
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.status import ExecutionStatus
from orchestrator.model.commands import (
    AskSlot,
    Cancel,
    Execution,
    Failure,
    Launch,
    Notify,
    Outcome,
    ReleaseSlot,
    Remind,
    Withdraw,
)
from orchestrator.model.errors import BrokerUnavailable, LaunchRefused, LaunchUncertain, NotSent, StoreUnavailable
from orchestrator.model.facts import (
    AttemptEnded,
    CancelSettled,
    LaunchBound,
    LaunchFailed,
    NotificationFailed,
    NotificationSent,
    SlotGranted,
)
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.secrets import SecretName, SecretText
from orchestrator.ports import HeldSecrets
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.story import Notifier, Target, Withdrawing
from tests.support.world import T0, KeptBroker

END = T0 + timedelta(seconds=60)
NOTE = Notify("run_1_x", "n", "me.1", END, "topic", None, {"event": "started"})
ASK = AskSlot("pool/api", "t", T0, 0, 1, "dag", "run_1_x", "A", 1)


def launch(name="A", target_type="Function", **changes):
    made = Launch(name, target_type, "f", {"p": 1}, {}, "dag", "run_1_x", 1, "0" * 32, "me.1", END, started_at=T0)
    return replace(made, **changes)


class Bench:
    """An actor over targets that do as they are told, and notes of whatever it does."""

    def __init__(self, **parts) -> None:
        self.plain, self.able, self.slow = Withdrawing(), Target(has_outcome=True, can_cancel=True), Target()
        self.store, self.clock, self.broker, self.notifier = MemoryStore(), VirtualClock(), KeptBroker(), Notifier()
        self.seen, self.slots, self.unwanted, self.told = [], [], [], []
        targets = {"Function": self.plain, "Dataflow": self.able, "CloudFunction": self.slow}
        rules = {
            "Function": TargetRules(),
            "Dataflow": TargetRules(has_outcome=True, can_cancel=True),
            "CloudFunction": TargetRules(launch_limit_s=20.0),
        }
        observer = type("Seen", (), {"launched": lambda _, *what: self.seen.append(what)})()
        self.box = RunBoxes(self.store, 0.0).box("run_1_x")
        self.actor = Actor(
            targets, self.broker, self.clock, Policy(rules), ExecutionStatus(self.store),
            lambda launch, execution: bool(self.unwanted and self.unwanted.pop()), Observed(observer),
            HeldSecrets({"TOKEN": "hidden-text"}), parts.get("notifier", self.notifier), self.take)  # fmt: skip

    def take(self, commands):
        self.slots.append(list(commands))
        return [SlotGranted("A", 1, "pool/api", "t")] if ASK in commands else []

    def act(self, *commands):
        return self.actor.act(self.box, commands, self.told.append)


# -- launches ---------------------------------------------------------------------------------------------


NO_TARGET = "A: there is no target Nowhere here; there is CloudFunction, Dataflow, Function"


@pytest.mark.parametrize(
    ("made", "told", "result"),
    [
        (launch(), [], "launched"),
        (launch(recover=True), [LaunchBound("A", 1, "me.1", "x")], "launched"),
        (launch(target_type="Nowhere"), [LaunchFailed("A", 1, "me.1", Failure("Launch.NoTarget", NO_TARGET))], None),
    ],
)  # fmt: skip
def test_what_comes_of_a_launch(made, told, result):
    bench = Bench()
    key = f"x-{made.key}"
    found = bench.act(made)
    assert found == [replace(each, execution_id=key) if isinstance(each, LaunchBound) else each for each in told]
    assert [each[1] for each in bench.seen] == ([result] if result else [])
    assert bench.box.executions == ({made.launch_id: Execution(key)} if result else {})
    assert len(list(bench.store.list("executions/"))) == (1 if result else 0)


def test_a_launch_that_is_repeated_looks_first_for_what_it_has_started():
    bench = Bench()
    bench.act(launch())
    bench.plain.calls.clear()
    assert bench.act(launch(recover=True)) == [LaunchBound("A", 1, "me.1", f"x-{launch().key}")]
    assert (bench.plain.calls, [each[1] for each in bench.seen]) == ([], ["launched", "found"])


@pytest.mark.parametrize(
    ("error", "result", "facts"),
    [
        (LaunchRefused("no", error_type="Own.No"), "refused", [LaunchFailed("A", 1, "me.1", Failure("Own.No", "no"))]),
        (LaunchUncertain("503"), "uncertain", []),
        (ValueError("odd"), "uncertain", []),
    ],
)
def test_what_comes_of_a_launch_that_fails(error, result, facts):
    bench = Bench()
    bench.plain.failing = [error]
    assert bench.act(launch()) == facts
    assert [each[1] for each in bench.seen] == [result]
    assert bench.box.executions == {}
    assert list(bench.store.list("")) == []


def test_a_call_that_answers_with_its_end_tells_of_it():
    bench = Bench()
    bench.plain.launch = lambda launch: Execution("x", None, Outcome.completed(5))
    assert bench.act(launch()) == [AttemptEnded("A", 1, Outcome.completed(5), "x")]
    assert bench.act(launch(recover=True)) == [AttemptEnded("A", 1, Outcome.completed(5), "x")]


@pytest.mark.parametrize(("late_s", "is_made"), [(55, True), (55.001, False)])
def test_nothing_is_launched_so_late_that_another_may_launch_it_too(late_s, is_made):
    bench = Bench()
    bench.clock.forward(late_s)
    bench.act(launch())
    assert (len(bench.plain.calls) == 1) is is_made
    bench.act(launch("B", lease_end=None))
    assert bench.plain.nodes[-1] == "B"


@pytest.mark.parametrize(("late_s", "is_made"), [(35, True), (35.001, False)])
def test_a_call_that_may_last_is_made_only_where_it_can_be_over_in_time(late_s, is_made):
    bench = Bench()
    bench.clock.forward(late_s)
    bench.act(launch(target_type="CloudFunction"))
    assert (len(bench.slow.calls) == 1) is is_made


def test_how_long_a_launch_took_and_since_when_it_was_claimed_is_told():
    bench = Bench()
    bench.plain.before_launch = lambda launch: bench.clock.forward(2)
    bench.clock.forward(3)
    bench.act(launch())
    bench.act(launch("B", lease_end=None))
    assert [(each[0].node_name, *each[1:]) for each in bench.seen] == [
        ("A", "launched", 2.0, 5.0), ("B", "launched", 2.0, None)]  # fmt: skip


@pytest.mark.parametrize(
    ("late_s", "is_unwanted", "is_cancelled"), [(61, True, True), (61, False, False), (60, True, False)]
)
@pytest.mark.parametrize("target_type", ["Dataflow", "Function"])
def test_what_was_launched_too_late_is_cancelled_where_nobody_wants_it_any_more(
    late_s, is_unwanted, is_cancelled, target_type
):
    bench = Bench()
    bench.unwanted = [is_unwanted]
    for target in (bench.able, bench.plain):
        target.after_launch = lambda launch: bench.clock.forward(late_s)
    bench.act(launch(target_type=target_type))
    cancelled = [f"x-{launch().key}"] if is_cancelled and target_type == "Dataflow" else []
    assert (bench.able.cancelled, bench.plain.cancelled) == (cancelled, [])


def test_secrets_are_filled_in_for_the_target_alone_and_shown_to_nobody():
    bench = Bench()
    bench.plain.launch = lambda launch: (
        bench.plain.calls.append(launch),
        Execution("x", {"said": "hidden-text", "n": ["ahidden-text"]}, None),
    )[1]
    bench.act(launch(parameters={"t": SecretText(("Bearer ", SecretName("TOKEN"))), "n": 1}, secrets=("TOKEN",)))
    assert bench.plain.calls[0].parameters == {"t": "Bearer hidden-text", "n": 1}
    (execution,) = bench.box.executions.values()
    assert "hidden-text" not in repr(execution)
    bench.plain.launch = lambda launch: (_ for _ in ()).throw(
        LaunchRefused("no hidden-text for you", error_type="Own.No")
    )
    (fact,) = bench.act(launch(parameters={"t": SecretText((SecretName("TOKEN"),))}, secrets=("TOKEN",)))
    assert (fact.error.error_type, "hidden-text" in fact.error.message) == ("Own.No", False)
    (fact,) = bench.act(launch(parameters={"t": SecretText((SecretName("NONE"),))}, secrets=("NONE",)))
    assert "NONE" in fact.error.message


def test_the_record_of_an_execution_says_whose_it_is_and_is_no_more_than_missed():
    import msgspec

    bench = Bench()
    bench.clock.forward(1)
    bench.act(launch())
    (key,) = bench.store.list("executions/")
    assert msgspec.json.decode(bench.store.get(key)[0]) == {
        "execution_id": f"x-{launch().key}", "task_name": "f", "node_name": "A", "succeeded": True, "response": None,
        "run_id": "run_1_x", "attempt": 1, "launch_id": "run_1_x/A/1", "target_type": "Function",
        "launched_at": "2026-01-01T12:00:01Z"}  # fmt: skip
    bench.store.put = lambda *_, **__: (_ for _ in ()).throw(StoreUnavailable("503"))
    assert bench.act(launch("B", recover=True)) == [LaunchBound("B", 1, "me.1", f"x-{launch('B').key}")]
    for name in ("id_is_ours", "is_named"):
        bench = Bench()
        setattr(bench.plain, name, True if name == "id_is_ours" else lambda launch: True)
        bench.act(launch())
        assert list(bench.store.list("")) == []


# -- side by side -----------------------------------------------------------------------------------------


def test_calls_that_may_last_are_made_side_by_side_and_each_is_told_of_when_it_is_back():
    bench = Bench()
    together, threads = Barrier(2, timeout=60), []

    def call(made):
        threads.append(current_thread().name)
        together.wait()
        return Execution(f"x-{made.node_name}", None, Outcome.completed(made.node_name))

    bench.slow.launch = call
    slow = [launch(name, "CloudFunction") for name in "AB"]
    assert bench.act(*slow, launch("C", recover=True)) == [LaunchBound("C", 1, "me.1", f"x-{launch('C').key}")]
    assert sorted(fact.node_name for (fact,) in bench.told) == ["A", "B"]
    assert current_thread().name not in threads
    bench.told.clear()
    bench.slow.launch = lambda made: Execution("x", None, Outcome.completed(1))
    facts = bench.act(launch("D", "CloudFunction"), launch("E", recover=True))
    assert [fact.node_name for fact in facts] == ["E", "D"], "the one that may last comes last"
    assert bench.told == []


def test_what_a_slot_was_granted_for_is_told_while_a_call_lasts_and_else_with_the_rest():
    bench = Bench()
    granted = SlotGranted("A", 1, "pool/api", "t")
    assert bench.act(ASK, launch("B", recover=True)) == [granted, LaunchBound("B", 1, "me.1", f"x-{launch('B').key}")]
    assert (bench.act(ASK), bench.told) == ([granted], [])
    told = Event()
    bench.actor.act(bench.box, [ASK], bench.told.append)
    bench.slow.launch = lambda made: told.wait(60) and Execution("x", None, Outcome.completed(1))
    facts = bench.actor.act(
        bench.box, [launch("B", "CloudFunction"), ASK], lambda facts: (bench.told.append(facts), told.set())
    )
    assert (facts, bench.told) == ([AttemptEnded("B", 1, Outcome.completed(1), "x")], [[granted]])
    release = ReleaseSlot("pool/api", "run_1_x/A/1", "t")
    assert bench.act(release, launch("C")) == []
    assert bench.slots[-1] == [release]


@pytest.mark.parametrize("target_type", ["Function", "CloudFunction"])
def test_who_is_notified_holds_up_nothing_and_is_held_up_by_nothing(target_type):
    bench = Bench()
    made, told = launch(target_type=target_type, recover=True), Event()
    bench.notifier.notify = lambda notification: told.wait(60) or pytest.fail("it was held up")
    facts = bench.actor.act(bench.box, [NOTE, made], lambda facts: (bench.told.append(facts), told.set()))
    assert facts == [NotificationSent("n")]
    assert bench.told == [[LaunchBound("A", 1, "me.1", f"x-{made.key}")]]
    bench = Bench()
    assert bench.act(NOTE, launch()) == [NotificationSent("n")]
    assert (bench.act(NOTE), bench.told) == ([NotificationSent("n")], [])
    assert bench.notifier.sent == [NOTE, NOTE]


@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (NotSent("503", retry=True), [NotificationFailed("n", "me.1", "503", is_final=False)]),
        (NotSent("404"), [NotificationFailed("n", "me.1", "404", is_final=True)]),
        (ValueError("odd"), []),
    ],
)
def test_what_comes_of_a_notification_that_is_not_accepted(error, facts):
    bench = Bench()
    bench.notifier.failing = [error]
    assert bench.act(NOTE) == facts


# -- cancels, withdrawals, reminders --------------------------------------------------------------------------


@pytest.mark.parametrize("is_over", [True, False])
@pytest.mark.parametrize("known", ["bound", "here", "found", "nothing", "no target"])
def test_what_is_cancelled_of_an_attempt(known, is_over):
    bench = Bench()
    made = launch(target_type="Nowhere" if known == "no target" else "Dataflow")
    if known == "here":
        bench.box.executions[made.launch_id] = Execution("here")
    if known in ("found", "here", "bound"):
        bench.able.launched[made.key] = made
    found = bench.actor.cancel(bench.box, made, "bound" if known == "bound" else None, is_over=is_over)
    assert found == (None if known == "nothing" and not is_over else CancelSettled("A", 1))
    expected = {"bound": ["bound"], "here": ["here"], "found": [f"x-{made.key}"]}
    assert bench.able.cancelled == expected.get(known, [])


@pytest.mark.parametrize("error", [LaunchUncertain("503"), ValueError("odd")])
def test_a_cancel_or_withdrawal_that_fails_is_left_to_the_tick(error):
    bench = Bench()
    bench.able.failing, bench.plain.failing = [error], [error]
    made = launch(target_type="Dataflow")
    assert bench.act(Cancel(made, "bound"), Withdraw(launch("LateB"))) == []
    assert bench.act(Cancel(made, "bound"), Withdraw(launch("LateB")), Withdraw(launch("C")), Withdraw(made)) == [
        CancelSettled("A", 1),
        AttemptEnded("LateB", 1, Outcome.cancelled("taken back before it began")),
    ]


@pytest.mark.parametrize(("kind", "at_s", "delay_s"), [("timeout", 30, 30.0), ("retry", -5, 0.0), (None, 15, 15.0)])
def test_a_reminder_is_published_for_when_it_is_due(kind, at_s, delay_s):
    bench = Bench()
    remind = Remind("run_1_x", "A", 2, kind, T0 + timedelta(seconds=at_s))
    assert bench.act(remind) == []
    ((event, delay),) = bench.broker.published
    expected = {"resource": {"type": "reminder"}, "run_id": "run_1_x", "node_name": "A", "attempt": 2}
    if kind is not None:
        at = T0 + timedelta(seconds=at_s)
        expected |= {"kind": kind, "at": f"{at:%Y-%m-%dT%H:%M:%S}Z"}
    assert ({name: event[name] for name in expected}, delay) == (expected, delay_s)
    bench.broker.publish = lambda *_, **__: (_ for _ in ()).throw(BrokerUnavailable("503"))
    assert bench.act(remind) == []


def test_what_may_take_long_and_what_lasts_as_long_as_what_it_starts():
    actor = Bench().actor
    slow, quick = launch(target_type="CloudFunction"), launch()
    assert [actor.blocks([each]) for each in (NOTE, ASK, ReleaseSlot("q", "h", "t"), slow, quick)] == [
        True, True, True, True, False]  # fmt: skip
    assert [actor.waits([each]) for each in (NOTE, ASK, slow, quick)] == [True, False, False, False]
