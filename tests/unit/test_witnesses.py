"""What the witness makes of events, item by item: facts, what is to be asked again, and what it says of the rest."""

import json
from dataclasses import replace as with_
from datetime import timedelta
from threading import Barrier, current_thread

import pytest
from msgspec.structs import replace

from orchestrator.engine.address import (
    BeginRun,
    CancelRun,
    Completion,
    Heartbeat,
    Known,
    PauseRun,
    RedriveRun,
    Reminder,
    ResumeRun,
    SlotTold,
    Start,
)
from orchestrator.engine.run_box import Answer, Entry
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.status import DefinitionStatus
from orchestrator.engine.witness import Witness, labels_of_attempt
from orchestrator.model.commands import Cancel, Execution, Failure, Launch, Outcome, ReleaseSlot, Remind
from orchestrator.model.enums import DueKind, TaskStatus
from orchestrator.model.errors import InputError, LaunchUncertain, NotYet, RunExists
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.facts import (
    AttemptEnded,
    CancelRequested,
    HeardFrom,
    PauseEnded,
    PauseRequested,
    RedriveRequested,
    ResumeRequested,
    RunAdmitted,
    SlotGranted,
    TimeCame,
)
from orchestrator.model.node_state import OwedCancel, Slot
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.model.task_result import begun_object, progress_object
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, NotedTarget, World, chain, completion, dag, task

AT = T0 + timedelta(seconds=7)
DONE = Outcome.completed({"n": 1})


class Asked(NotedTarget):
    """A target that answers as it is told to, and says what it was asked."""

    def __init__(self, **is_able) -> None:
        super().__init__(**is_able)
        self.answers: list = []
        self.asked: list[str] = []

    def outcome(self, execution):
        self.asked.append(execution.execution_id)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Sure(Asked):
    """One that knows better than an event."""

    def confirm(self, launch, verdict):
        self.asked.append(f"{launch.launch_id} {verdict.kind.value}")
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return Execution(f"sure-{launch.node_name}", None, answer)


class Bench:
    """A run of A and B, a witness of its own, and what it says."""

    def __init__(self, target=None, definition=None, **policy) -> None:
        self.target = target or Asked()
        self.world = World(definition or dag(A=task("B"), B=task()), target=self.target, **policy)
        self.run_id = self.world.start()
        self.state = self.world.state(self.run_id)
        rules = TargetRules(self.target.has_outcome, self.target.can_cancel, self.target.synchronous)
        self.witness = Witness(
            self.world.targets,
            self.world.clock,
            Policy({"Function": rules}, **policy),
            DefinitionStatus(self.world.store),
        )
        self.box = RunBoxes(MemoryStore(), 0.0).box(self.run_id)

    def change(self, name="A", **changes):
        self.state = RunState(self.state.run, {**self.state.nodes, name: replace(self.state.nodes[name], **changes)})

    def facts(self, item):
        self.entry = Entry(item)
        return self.witness.facts(self.entry, self.state, self.box)

    def end(self, outcome=DONE, *, name="A", attempt=1, **event):
        launch = self.target.of("A")[-1]
        made = EventFactory.create_from_event(completion(launch, outcome), message_id="e1", publish_time=AT)
        import msgspec

        return Completion(self.run_id, name, attempt, msgspec.structs.replace(made, **event) if event else made)

    def remind(self, kind=None, at=None, *, name="A", attempt=1):
        return Reminder(self.run_id, name, attempt, kind, at, AT)


def said(caplog):
    return [(line.levelname, line.getMessage(), {n: getattr(line, n, None) for n in ("run_id", "node", "attempt")})
            for line in caplog.records]  # fmt: skip


def about(bench):
    return {"run_id": bench.run_id, "node": "A", "attempt": 1}


# -- what is a fact by itself ---------------------------------------------------------------------------


def test_requests_about_a_run_are_facts():
    bench = Bench()
    for item, fact in (
        (BeginRun(bench.run_id, AT), PauseEnded()),
        (CancelRun(bench.run_id, "why", AT), CancelRequested("why", AT)),
        (PauseRun(bench.run_id, AT), PauseRequested(AT)),
        (ResumeRun(bench.run_id, AT), ResumeRequested(AT)),
    ):
        assert bench.facts(item) == ([fact], [])


def test_the_start_of_a_run_that_is_there_is_nothing_new_unless_it_is_of_another_message():
    bench = Bench()
    world = bench.world
    start = Start(bench.run_id, "dag", {}, world.catalog.find("dag")[2], {}, "m1", None, {})
    assert bench.facts(start) == ([], [])
    with pytest.raises(
        RunExists,
        match=rf"^run {bench.run_id}: was started by another message, at 2026-01-01T12:00:00\+00:00; choose another",
    ):
        bench.facts(with_(start, message_id="m2"))


def test_what_a_first_start_says():
    bench = Bench()
    start = Start("run_1_y", "d", {}, bench.world.catalog.find("dag")[2], {"i": 1}, "m1", AT, {"v": 2}, priority=3)
    (fact,) = Witness.first_facts(start, "sha256:9")
    assert (fact.run_id, fact.dag, fact.definition, fact.input, fact.message_id) == (
        "run_1_y", "d", "sha256:9", {"i": 1}, "m1")  # fmt: skip
    assert (fact.scheduled_for, fact.variables, fact.parent, fact.priority) == (AT, {"v": 2}, None, 3)


@pytest.mark.parametrize("number", [None, 1, 2])
def test_a_redrive_is_a_fact_if_it_is_about_this_end(number):
    bench = Bench()
    bench.world.end("A", Outcome.failed("Own.Error", "no"))
    bench.state = bench.world.state(bench.run_id)
    item = RedriveRun(bench.run_id, "A", number, AT)
    expected = [] if number == 2 else [RedriveRequested(AT, number, "A")]
    assert bench.facts(item) == (expected, [])
    if number != 2:
        with pytest.raises(InputError, match=rf"^run {bench.run_id}: did not come by B; it can go on from"):
            bench.facts(with_(item, start_from="B"))


# -- slots ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has", ["this ticket", "another one", "none"])
@pytest.mark.parametrize("is_known", [True, False], ids=["asked for", "told of"])
def test_a_slot_that_was_granted_too_late_is_given_back(has, is_known):
    bench = Bench()
    slot = None if has == "none" else Slot("q", "t" if has == "this ticket" else "other", T0)
    bench.change(slot=slot)
    bench.state = RunState(replace(bench.state.run, slot=slot), bench.state.nodes)
    for told, fact, holder in (
        (SlotTold(bench.run_id, "q", "t", None, 0), RunAdmitted("q", "t"), bench.run_id),
        (SlotTold(bench.run_id, "q", "t", "A", 1), SlotGranted("A", 1, "q", "t"), f"{bench.run_id}/A/1"),
        (SlotTold(bench.run_id, "q", "t", "Q", 1), SlotGranted("Q", 1, "q", "t"), f"{bench.run_id}/Q/1"),
    ):
        item = Known(bench.run_id, (fact, PauseEnded())) if is_known else told
        is_wanted = has == "this ticket" and holder != f"{bench.run_id}/Q/1"
        facts = [fact, PauseEnded()] if is_known else [fact]
        assert bench.facts(item) == (facts, [] if is_wanted else [ReleaseSlot("q", holder, "t")])


# -- ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["another attempt", "no such node", "it has ended", "no such target"])
def test_an_end_of_what_does_not_run_is_nothing(change, caplog):
    bench = Bench()
    item = bench.end(name="Q" if change == "no such node" else "A", attempt=2 if change == "another attempt" else 1)
    if change == "it has ended":
        bench.change(status=TaskStatus.FAILED)
    if change == "no such target":
        bench.change(target_type="Dataflow2")
    assert (bench.facts(item), bench.target.asked, said(caplog)) == (([], []), [], [])


def test_where_nothing_can_be_asked_an_end_is_believed_with_the_nonce(caplog):
    bench = Bench()
    key = f"x-{bench.target.calls[0].key}"
    assert bench.facts(bench.end()) == ([AttemptEnded("A", 1, DONE, key)], [])
    assert bench.facts(bench.end(execution_id=None)) == ([AttemptEnded("A", 1, DONE, key)], [])
    assert said(caplog) == []
    for event in ({"nonce": "f" * 32}, {"nonce": None, "trace_id": "f" * 32}, {"nonce": None}):
        caplog.clear()
        assert bench.facts(bench.end(**event)) == ([], [])
        ((level, words, labels),) = said(caplog)
        assert (level, words) == ("WARNING", "a completion without the nonce of its claim is not believed")
        assert (labels, caplog.records[0].event_id) == (about(bench), "e1")
    caplog.clear()
    trace = bench.state.nodes["A"].claim.trace_of(f"{bench.run_id}/A/1")
    assert caplog.records == []
    assert bench.facts(bench.end(nonce=None, trace_id=trace))[0] == [AttemptEnded("A", 1, DONE, key)]
    assert bench.facts(bench.end(verdict=None)) == ([], [])
    bench.change(claim=None)
    assert bench.facts(bench.end()) == ([], [])
    assert said(caplog) == []


def test_what_is_bound_is_named_where_the_event_names_nothing():
    bench = Bench()
    bench.target.launched.clear()  # find knows nothing
    assert bench.facts(bench.end(execution_id=None)) == ([AttemptEnded("A", 1, DONE, None)], [])
    bench.change(execution_id="bound")
    assert bench.facts(bench.end(execution_id=None)) == ([AttemptEnded("A", 1, DONE, "bound")], [])
    assert bench.facts(bench.end(execution_id="named")) == ([AttemptEnded("A", 1, DONE, "named")], [])


def test_a_target_with_an_outcome_is_asked_of_the_execution_that_is_bound_once_a_save():
    bench = Bench(Asked(has_outcome=True), question_delay_s=15.0)
    bench.change(execution_id="bound")
    bench.target.answers = [DONE]
    item = bench.end(Outcome.failed("Forged", "x"), execution_id="forged", nonce="f" * 32)
    assert bench.facts(item) == ([AttemptEnded("A", 1, DONE, "bound")], [])
    assert bench.witness.facts(bench.entry, bench.state, bench.box) == ([AttemptEnded("A", 1, DONE, "bound")], [])
    assert bench.target.asked == ["bound"]
    assert bench.entry.asked == {1: Answer(Execution("bound"), DONE, True)}
    later = Remind(bench.run_id, "A", 1, None, T0 + timedelta(seconds=15))
    assert bench.facts(item) == ([], [later]), "it is not known to have ended, so it is asked again"
    bench.target.answers = [NotYet("at work")]
    assert bench.facts(item) == ([], [later])
    bench.target.answers = [LaunchUncertain("503")]
    assert bench.facts(item) == ([], [later])


@pytest.mark.parametrize("event", ["end", "remind"])
def test_an_end_is_that_of_the_execution_that_was_asked_of_whatever_is_launched_meanwhile(event):
    bench = Bench(Asked(has_outcome=True))
    launch_id = bench.state.launch_id("A")
    bench.box.executions[launch_id] = Execution("asked of")

    def outcome(execution):
        bench.box.executions[launch_id] = Execution("launched since")
        return DONE

    bench.target.outcome = outcome
    item = bench.end() if event == "end" else bench.remind()
    assert bench.facts(item) == ([AttemptEnded("A", 1, DONE, "asked of")], [])


def test_a_target_that_has_no_outcome_may_know_that_it_runs_on():
    bench = Bench()
    bench.target.answers = [NotYet("at work")]
    assert bench.facts(bench.end()) == ([], [Remind(bench.run_id, "A", 1, None, T0 + timedelta(seconds=15))])
    bench.target.answers = [Outcome.failed("As.Known", "x")]
    key = f"x-{bench.target.calls[0].key}"
    assert bench.facts(bench.end()) == ([AttemptEnded("A", 1, Outcome.failed("As.Known", "x"), key)], [])


def test_a_call_that_lasts_is_the_one_whose_answer_counts():
    class Calls(Asked):
        synchronous = True

    bench = Bench(Calls())
    bench.target.launched.clear()
    lease_end = bench.state.nodes["A"].claim.lease_end
    with pytest.raises(NotYet, match=rf"^{bench.run_id}/A: its call has not returned yet, and that answer counts$"):
        bench.facts(bench.end())
    bench.world.clock.forward((lease_end - T0).total_seconds())
    assert bench.facts(bench.end())[0][0].outcome == DONE


@pytest.mark.parametrize("due", ["slot", *(kind.value for kind in DueKind)])
def test_what_has_not_been_launched_is_not_asked_about(due):
    bench = Bench(Asked(has_outcome=True))
    if due == "slot":
        bench.change(slot=Slot("q", "t", T0), claim=None)
    else:
        bench.change(due={due: AT})
    bench.target.answers = [DONE]
    bench.facts(bench.end())
    assert bool(bench.target.asked) is (due not in ("slot", "retry", "wait"))


# -- targets that know better ---------------------------------------------------------------------------------


def test_a_target_that_knows_better_is_asked_of_what_has_proved_itself_once_a_save(caplog):
    bench = Bench(Sure())
    bench.target.answers = [Outcome.failed("Own.Error", "x")]
    expected = ([AttemptEnded("A", 1, Outcome.failed("Own.Error", "x"), "sure-A")], [])
    assert bench.facts(bench.end()) == expected
    assert bench.witness.facts(bench.entry, bench.state, bench.box) == expected
    assert bench.target.asked == [f"{bench.run_id}/A/1 Completed"]
    assert bench.box.executions == {f"{bench.run_id}/A/1": Execution("sure-A", None, Outcome.failed("Own.Error", "x"))}
    bench.target.asked.clear()
    assert bench.facts(bench.end(nonce="f" * 32)) == ([], [])
    assert bench.facts(bench.end(verdict=None)) == ([], [])
    assert bench.target.asked == []
    later = Remind(bench.run_id, "A", 1, None, T0 + timedelta(seconds=15))
    bench.target.answers = [NotYet("at work")]
    assert (bench.facts(bench.end()), bench.entry.asked) == (([], [later]), {1: Answer(runs_on=True)})
    caplog.clear()
    bench.target.answers = [LaunchUncertain("503")]
    found = bench.facts(bench.end())
    assert (found, bench.entry.asked) == (([AttemptEnded("A", 1, DONE, f"x-{bench.target.calls[0].key}")], []),
                                          {1: Answer()})  # fmt: skip
    assert said(caplog) == [("WARNING", "cannot ask: 503", about(bench))]


def test_a_target_that_knows_better_and_cannot_tell_leaves_it_to_the_event():
    bench = Bench(Sure())
    bench.target.answers = [None]
    bench.box.executions[f"{bench.run_id}/A/1"] = Execution("known")
    assert bench.facts(bench.end(execution_id=None)) == ([AttemptEnded("A", 1, DONE, "known")], [])


# -- what is known of an execution --------------------------------------------------------------------------


def test_an_execution_is_known_by_its_node_or_here_or_is_found_and_then_remembered():
    bench = Bench()
    node, key = bench.state.nodes["A"], f"x-{bench.target.calls[0].key}"
    assert bench.witness.execution_of(node, bench.state, bench.box) == Execution(key)
    assert bench.box.executions == {f"{bench.run_id}/A/1": Execution(key)}
    bench.box.executions = {f"{bench.run_id}/A/1": Execution("here")}
    assert bench.witness.execution_of(node, bench.state, bench.box) == Execution("here")
    bench.change(execution_id="bound")
    assert bench.witness.execution_of(bench.state.nodes["A"], bench.state, bench.box) == Execution("bound")
    bench.change(execution_id=None, target_type="Dataflow2")
    bench.box.executions = {}
    node = bench.state.nodes["A"]
    assert bench.witness.execution_of(node, bench.state, bench.box) is None
    assert bench.witness.ask(node, bench.state, bench.box) == Answer()


def test_what_ask_says(caplog):
    bench = Bench(Asked(has_outcome=True))
    node, key = bench.state.nodes["A"], f"x-{bench.target.calls[0].key}"
    bench.target.answers = [DONE, None, NotYet("x"), LaunchUncertain("503")]
    told = [bench.witness.ask(node, bench.state, bench.box) for _ in range(4)]
    assert told == [
        Answer(Execution(key), DONE, True), Answer(Execution(key), None, True), Answer(Execution(key), None, True),
        Answer(Execution(key))]  # fmt: skip
    assert said(caplog) == [("WARNING", "cannot ask: 503", about(bench))]
    ended = Execution("here", None, Outcome.failed("Own.Error", "x"))
    bench.box.executions = {f"{bench.run_id}/A/1": ended}
    assert bench.witness.ask(node, bench.state, bench.box) == Answer(ended, ended.outcome, True)
    bench.box.executions, bench.target.find = {}, lambda launch: None
    assert bench.witness.ask(node, bench.state, bench.box) == Answer()
    bench.target.find = lambda launch: (_ for _ in ()).throw(LaunchUncertain("404"))
    assert bench.witness.ask(node, bench.state, bench.box) == Answer(None)


def test_what_a_line_about_an_attempt_is_found_by():
    bench = Bench()
    node, launch = bench.state.nodes["A"], bench.target.calls[0]
    assert labels_of_attempt(node, bench.state) == {**about(bench), "trace": launch.trace_id}
    assert labels_of_attempt(replace(node, claim=None), bench.state) == {**about(bench), "trace": None}


def test_the_bare_launch_of_an_attempt_is_found_by_its_key():
    bench = Bench()
    bare, launch = bench.witness.bare(bench.state, bench.state.nodes["A"]), bench.target.calls[0]
    assert isinstance(bare, Launch)
    assert (bare.key, bare.nonce, bare.owner, bare.lease_end, bare.started_at, bare.step, bare.dag) == (
        launch.key, launch.nonce, launch.owner, launch.lease_end, launch.started_at, launch.step, "dag")  # fmt: skip


# -- reminders ------------------------------------------------------------------------------------------------


def test_a_reminder_of_another_time_or_attempt_is_nothing():
    bench = Bench(Asked(has_outcome=True), definition=dag(A=task("B", timeout="1m"), B=task()))
    at = bench.state.nodes["A"].due["timeout"]
    for item in (bench.remind("timeout", AT), bench.remind("retry", at), bench.remind("timeout", at, attempt=2),
                 bench.remind("timeout", at, name="B"), bench.remind("timeout", at, name="Q")):  # fmt: skip
        assert bench.facts(item) == ([], [])
    assert bench.target.asked == []


@pytest.mark.parametrize("kind", [None, *(kind.value for kind in DueKind)])
@pytest.mark.parametrize("found", ["an end", "an execution", "nothing"])
def test_what_a_reminder_finds_out(kind, found):
    bench = Bench(Asked(has_outcome=True))
    at = None if kind is None else AT
    bench.change(due={} if kind is None else {kind: AT})
    key = f"x-{bench.target.calls[0].key}"
    bench.target.answers = [DONE] if found == "an end" else []
    if found == "nothing":
        bench.target.launched.clear()
    facts, commands = bench.facts(bench.remind(kind, at))
    assert commands == []
    if kind == "heartbeat":
        assert facts == []
    elif kind in ("retry", "wait"):
        assert facts == [TimeCame("A", 1, kind, AT, False)]
    elif found == "an end":
        assert facts == [AttemptEnded("A", 1, DONE, key)]
    elif kind is None:
        assert facts == []
    else:
        assert facts == [TimeCame("A", 1, kind, AT, found == "an execution")]
    assert bench.target.asked == ([] if kind in ("heartbeat", "retry", "wait") or found == "nothing" else [key])


def test_a_reminder_of_what_waits_for_a_slot_is_nothing():
    bench = Bench(Asked(has_outcome=True))
    bench.change(slot=Slot("q", "t", T0), due={"retry": AT}, claim=None)
    assert bench.facts(bench.remind("retry", AT)) == ([], [])


@pytest.mark.parametrize("target_type", ["Function", "Dag"])
def test_who_is_owed_a_cancel_is_cancelled_again_where_a_child_run_says_that_it_has_taken_it_in(target_type):
    bench = Bench(Asked(has_outcome=True))
    bench.change(owed_cancel=OwedCancel(TaskStatus.CANCELLED), target_type=target_type, execution_id="bound")
    facts, commands = bench.facts(bench.remind())
    assert facts == []
    if target_type == "Dag":
        (command,) = commands
        assert (type(command), command.launch.launch_id, command.execution_id) == (
            Cancel,
            f"{bench.run_id}/A/1",
            "bound",
        )
    else:
        assert commands == []
    bench.change(due={"timeout": AT})
    assert bench.facts(bench.remind("timeout", AT)) == ([], [])


# -- heartbeats -----------------------------------------------------------------------------------------------


def test_a_heartbeat_is_believed_with_the_nonce_where_one_is_awaited(caplog):
    bench = Bench()
    nonce = bench.state.nodes["A"].claim.nonce
    beat = Heartbeat(bench.run_id, "A", 1, nonce, AT)
    assert bench.facts(beat) == ([], [])
    bench.change(due={"heartbeat": AT})
    assert bench.facts(beat) == ([HeardFrom("A", 1, AT)], [])
    assert bench.facts(with_(beat, attempt=2)) == ([], [])
    assert bench.facts(with_(beat, node_name="B")) == ([], [])
    assert said(caplog) == []
    assert bench.facts(with_(beat, nonce="f" * 32)) == ([], [])
    assert said(caplog) == [("WARNING", "a heartbeat without the nonce of its claim is not believed", about(bench))]
    bench.change(claim=None)
    assert bench.facts(beat) == ([], [])


def said_at(at):
    """What `orchestrator.tasks` leaves in the bucket, whichever of its objects it is."""
    words = dict.fromkeys(("message", "instance", "execution", "token"), "")
    return json.dumps({"at": at.isoformat(), "fraction": 0.5, **words}).encode()


def test_when_an_attempt_was_last_heard_of_is_a_fact():
    class Heard(Asked):
        at = None

        def heard_at(self, launch):
            return self.at if launch.launch_id.endswith("/A/1") else None

    bench = Bench(Heard())
    node, store = bench.state.nodes["A"], bench.world.store
    assert bench.witness.heard(store, node, bench.state) == []
    bench.target.at = AT
    assert bench.witness.heard(store, node, bench.state) == [HeardFrom("A", 1, AT)]
    assert bench.witness.heard(store, replace(node, target_type="Dataflow2"), bench.state) == []
    key = bench.target.calls[0].key
    told = [(begun_object(key), 3), (progress_object(key), 9), (progress_object(key), 1)]
    for name, after_s in told:
        at = T0 + timedelta(seconds=after_s)
        store.delete(name)
        store.put(name, said_at(at), expect=None)
        for known in (None, AT):
            bench.target.at = known
            expected = max(each for each in (known, at) if each is not None)
            assert bench.witness.heard(store, node, bench.state) == [HeardFrom("A", 1, expected)]
    bench.target.at = None
    for spoilt in (b"{", b'{"at":"2026-01-01T12:00:00","fraction":0.5,"message":""}', b"\xff", b'{"at":1}'):
        store.delete(progress_object(key))
        store.put(progress_object(key), spoilt, expect=None)
        assert bench.witness.heard(store, node, bench.state) == []


# -- side by side ---------------------------------------------------------------------------------------------


def test_things_are_asked_side_by_side_where_the_policy_allows_it_and_answered_in_their_order():
    bench = Bench(questions_at_once=3)
    together = Barrier(3, timeout=60)

    def ask(thing):
        together.wait()
        return thing, current_thread().name.rpartition("_")[0]

    assert bench.witness.side_by_side(ask, [3, 1, 2]) == [(n, "orchestrator-question") for n in (3, 1, 2)]
    here = current_thread().name
    assert bench.witness.side_by_side(lambda thing: (thing, current_thread().name), [9]) == [(9, here)]
    bench.witness.close()
    assert bench.witness.side_by_side(ask, [1, 2, 3])[0] == (1, "orchestrator-question"), "made anew after a close"
    bench.witness.close()
    bench.witness.close()
    alone = Bench(questions_at_once=1)
    assert alone.witness.side_by_side(lambda thing: (thing, current_thread().name), [1, 2]) == [(1, here), (2, here)]


@pytest.mark.parametrize("at_once", [1, 2])
def test_what_is_asked_ahead_is_not_asked_again_and_fails_for_nobody(at_once):
    bench = Bench(Asked(has_outcome=True), questions_at_once=at_once)
    bench.target.answers = [DONE, ValueError("odd")]
    entries = [Entry(bench.end()), Entry(PauseRun(bench.run_id, AT)), Entry(bench.remind(name="Q"))]
    bench.witness.ask_ahead(entries, bench.state, bench.box)
    assert len(bench.target.asked) == (1 if at_once > 1 else 0)
    assert bench.witness.facts(entries[0], bench.state, bench.box)[0][0].outcome == DONE
    assert len(bench.target.asked) == 1
    bench.witness.ask_ahead([Entry(bench.end()), Entry(bench.remind())], bench.state, bench.box)
    bench.witness.close()


def test_an_attempt_is_failed_by_what_its_target_says_of_it():
    bench = Bench(Asked(has_outcome=True))
    bench.target.answers = [Outcome.failed("Own.Error", "no")]
    bench.world.end("A")
    node = bench.world.state(bench.run_id).nodes["A"]
    assert (node.status, node.error) == ("Failed", Failure("Own.Error", "no"))
    assert bench.world.run_all(bench.run_id).run.status == "Failed"


def test_chains_are_witnessed_to_their_end():
    world = World(chain("A", "B"), target=Asked())
    assert world.run_all(world.start()).run.status == "Completed"
