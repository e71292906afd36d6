"""What people read of what goes wrong in the engine, to the letter: lines of the log, errors, and whom they are about.

What the transcripts hold is not here.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from threading import Event, Thread

import pytest
from msgspec.structs import replace

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.draft import Draft, Token
from orchestrator.engine.items import place_of
from orchestrator.engine.large_results import MAX_INLINE_BYTES, LargeResults
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.queueing import has_ticket
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.results import Results
from orchestrator.engine.run_box import Entry
from orchestrator.engine.schedules import Schedules
from orchestrator.engine.slot_keeper import SlotKeeper
from orchestrator.engine.starting import _START
from orchestrator.engine.status import ExecutionStatus, OrchestrationStatus, tombstone_of
from orchestrator.engine.triggering import Triggers
from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.errors import (
    BrokerUnavailable,
    CorruptState,
    EventError,
    LaunchRefused,
    LaunchUncertain,
    NotYet,
    OrchestratorError,
    RunExists,
    RunNotFound,
    SettingsError,
    StoreUnavailable,
    UnknownDag,
)
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.facts import NotificationExpired
from orchestrator.model.messages import (
    cancel_message,
    heartbeat_message,
    redrive_message,
    reminder_message,
    start_message,
)
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import ParentRun
from orchestrator.model.task_result import begun_object, result_object
from orchestrator.ports import HeldSecrets
from orchestrator.stores.memory import MemoryStore
from tests.scenarios.test_transcripts_of_seldom_things import Confirming
from tests.scenarios.test_triggers import TOPIC, a_message, an_object
from tests.support.story import Notifier, Target, call, job
from tests.support.world import T0, NotedTarget, World, chain, completion, dag, parallel, task
from tests.unit.test_slot_keeper import ask, keeper_of

ALERTS = {"on": ["started"], "topic": "projects/my-project/topics/alerts"}
LABELS = ("run_id", "node", "attempt", "trace", "event_id")


def said(caplog, least=logging.INFO):
    """The lines so far: how bad, what, and whom they are about; then none."""
    found = []
    for line in caplog.records:
        if line.name == "orchestrator" and line.levelno >= least:
            labels = {name: value for name in LABELS if (value := getattr(line, name, None)) is not None}
            error = f" ({type(line.exc_info[1]).__name__})" if line.exc_info and line.exc_info[1] else ""
            found.append((line.levelname, line.getMessage() + error, labels))
    caplog.clear()
    return found


def about(launch):
    return {"run_id": launch.run_id, "node": launch.node_name, "attempt": launch.attempt, "trace": launch.trace_id}


def failing(error):
    def fails(*_, **__):
        raise error

    return fails


# -- notifications ----------------------------------------------------------------------------------------


def noticing(notifier, **parts):
    world = World({**chain("A"), "notify": [ALERTS]})
    world.instances = [world.instance(notifier=notifier, **parts)]
    return world


def test_a_notification_that_is_too_late_is_left_to_the_tick(caplog):
    notifier = Notifier()
    world = noticing(notifier)
    world.instances = [world.instance(notifier=notifier, on_saved=lambda _: world.clock.forward(31))]
    run_id = world.start()
    words = "too late to notify under this lease; left to the Tick"
    assert said(caplog) == [("WARNING", words, {"run_id": run_id})]
    assert notifier.sent == []


def test_a_notifier_that_raises_or_is_missing(caplog):
    notifier = Notifier()
    notifier.failing = [ValueError("odd")]
    run_id = noticing(notifier).start()
    words = "notifying failed; the Tick tries again (ValueError)"
    assert said(caplog) == [("ERROR", words, {"run_id": run_id})]
    world = noticing(None)
    run_id = world.start()
    words = "a notification was not accepted: nothing here can send notifications"
    assert said(caplog) == [("WARNING", words, {"run_id": run_id})]
    (lost,) = world.state(run_id).run.lost_notifications
    assert lost.error == "nothing here can send notifications"


@pytest.mark.parametrize("error", [None, "503"])
def test_a_notification_that_is_given_up_says_why(error):
    world = World({**chain("A"), "notify": [ALERTS]}, max_notification_tries=1)
    notifier = Notifier()
    notifier.failing = [ValueError("its instance died")]
    world.instances = [world.instance(notifier=notifier)]
    run_id = world.start()
    state = world.state(run_id)
    (owed,) = state.run.owed_notifications
    from orchestrator.engine.notifying import expired

    state = replace(state, run=replace(state.run, owed_notifications=(replace(owed, error=error),)))
    draft = Draft(world.catalog.find(None)[2], state, T0, Token("me.1", b"0" * 32), world.policy)
    expired(draft, NotificationExpired(owed.notification_id, owed.owner))
    (lost,) = draft.info.lost_notifications
    assert lost.error == (error or "no instance lived to say that it was sent")
    assert (lost.notification_id, lost.event, lost.at, lost.topic, lost.url) == (
        owed.notification_id, "started", T0, ALERTS["topic"], None)  # fmt: skip
    assert draft.info.owed_notifications == ()


def test_a_tick_that_has_no_time_for_late_notifications_leaves_them(caplog):
    notifier = Notifier()
    notifier.failing = [ValueError("its instance died")] * 3
    world = noticing(notifier)
    for number in range(3):
        world.start(f"m{number}")
    world.clock.forward(100)
    said(caplog)
    notify = notifier.notify

    def slow(notification):
        world.clock.forward(31)
        notify(notification)

    notifier.notify = slow
    world.instances = [world.instance(notifier=notifier)]
    monkeypatched = pytest.MonkeyPatch()
    monkeypatched.setattr("orchestrator.engine.ticker.NOTIFYING_AT_ONCE", 1)
    world.executor.tick()
    monkeypatched.undo()
    words = "tick: had no time for the late notifications of 2 runs; the next one sends them"
    assert ("WARNING", words, {}) in said(caplog)
    assert len(notifier.sent) == 1
    notifier.notify = notify
    world.executor.tick()
    assert len(notifier.sent) == 3


# -- launches -----------------------------------------------------------------------------------------------


def test_a_late_launch_that_cannot_be_cancelled(caplog):
    target = Target(has_outcome=True, can_cancel=True)
    world = World(dag(A=task()), target=target, instances=2)

    def cancelled_meanwhile(launch):
        world.clock.forward(100)
        world.instances[1].execute(cancel_message(launch.run_id), message_id="c", publish_time=world.clock.now())
        target.failing = [LaunchUncertain("503")]

    target.after_launch = cancelled_meanwhile
    world.start()
    (line,) = [each for each in said(caplog) if each[1].startswith("cannot cancel a late")]
    assert line == ("WARNING", "cannot cancel a late launch: 503", about(target.calls[0]))


def test_a_launch_whose_secrets_are_not_read_in_time(caplog):
    world = World(dag(A=task(parameters={"t": "${secret.TOKEN}"})))

    class Slow(HeldSecrets):
        def get(self, name):
            world.clock.forward(56)
            return super().get(name)

    world.instances = [world.instance(secrets=Slow({"TOKEN": "hidden"}))]
    run_id = world.start()
    ((level, words, labels),) = said(caplog)
    assert (level, words) == ("WARNING", "launch uncertain, left to the Tick: its secrets were not read in time")
    assert (labels["run_id"], labels["node"], labels["attempt"]) == (run_id, "A", 1)
    assert world.target.calls == []


def test_acting_that_fails(caplog):
    class Odd(NotedTarget):
        @property
        def id_is_ours(self):
            raise ValueError("odd")

    world = World(dag(A=task()), target=Odd())
    run_id = world.start()
    assert said(caplog) == [("ERROR", "acting failed; the Tick recovers (ValueError)", {"run_id": run_id})]
    assert world.state(run_id).nodes["A"].status == "Running"


def test_what_is_told_of_saves_may_fail(caplog):
    world = World(dag(A=task()))
    world.instances = [world.instance(on_saved=failing(ValueError("odd")))]
    run_id = world.start()
    assert said(caplog) == [("ERROR", "on_saved failed; the run goes on (ValueError)", {"run_id": run_id})]


# -- events that cannot be handled --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "node"),
    [
        (cancel_message("run_1_none"), None),
        (redrive_message("run_1_none"), None),
        ({"resource": {"type": "resume"}, "run_id": "run_1_none"}, None),
        (heartbeat_message("run_1_none/A/1", "0" * 32), "A"),
        (completion(Launch("A", "Function", "f", run_id="run_1_none", attempt=1, nonce="0" * 32)), "A"),
    ],
    ids=["cancel", "redrive", "resume", "heartbeat", "completion"],
)
@pytest.mark.parametrize("age_s", [59, 60])
def test_an_event_of_a_run_that_is_not_there_is_put_off_and_then_an_error(event, node, age_s):
    world = World(dag(A=task()))
    expected = NotYet if age_s < 60 else RunNotFound
    with pytest.raises(expected) as told:
        world.executor.execute(event, message_id="e", publish_time=world.clock.now() - timedelta(seconds=age_s))
    words = "does not exist (yet)" if age_s < 60 else "does not exist, but an event names that run"
    assert str(told.value) == f"runs/run_1_none.json: {words}"
    assert (told.value.labels["run_id"], told.value.labels.get("node")) == ("run_1_none", node)


@pytest.mark.parametrize("age_s", [59, 60])
def test_an_event_of_a_run_that_was_pruned(age_s):
    world = World(dag(A=task()))
    world.store.put(tombstone_of("run_1_none"), b'{"until":"2027-01-01T00:00:00Z"}', expect=None)
    at = world.clock.now() - timedelta(seconds=age_s)
    with pytest.raises(OrchestratorError) as told:
        world.executor.execute(redrive_message("run_1_none"), message_id="e", publish_time=at)
    assert str(told.value) == (
        "runs/run_1_none.json: does not exist (yet)"
        if age_s < 60
        else "run run_1_none: was deleted by prune, so it cannot be redriven"
    )
    beat = heartbeat_message("run_1_none/A/1", "0" * 32)
    if age_s == 60:
        assert world.executor.execute(beat, message_id="e", publish_time=at).verdict == "unchanged"


def test_an_event_that_no_decision_can_be_made_on(caplog, monkeypatch):
    from orchestrator.engine import decide as module

    world = World(dag(A=task()))
    run_id = world.start()
    monkeypatch.setitem(module._APPLY, module.AttemptEnded, failing(EventError("odd")))
    with pytest.raises(EventError, match=r"^odd$") as told:
        world.end("A")
    labels = {"run_id": run_id, "node": "A", "attempt": 1}
    line = ("ERROR", "an event cannot be decided on (EventError)", labels)
    assert said(caplog) == [line, line], "once with the run as it was known here, once as it is"
    assert {name: told.value.labels[name] for name in labels} == labels


def test_an_event_that_was_finished_without_a_result():
    from orchestrator.engine.leading import _result

    with pytest.raises(LookupError, match=r"^an event was finished without a result$"):
        _result(Entry(None))


def test_of_several_runs_that_an_event_is_to_start_those_that_cannot_be_are_said(caplog):
    trigger = {"triggers": [{"topic": TOPIC}]}
    needs = {"input_schema": {"type": "object", "required": ["day"]}}
    wrong = {**chain("A"), **trigger, **needs}
    world = World(dag(A=task()))
    world.catalog = Catalog({"one": {**chain("A"), **trigger}, "two": wrong, "three": wrong})
    executor = world.instance()
    with pytest.raises(OrchestratorError, match="day"):
        executor.execute(a_message({"x": 1}), message_id="m", publish_time=T0)
    (line,) = said(caplog, logging.ERROR)
    assert line[1].startswith("of several runs that an event was to start, one cannot be: ")
    assert "day" in line[1]
    assert len(list(world.store.list("runs/"))) == 1


def test_two_messages_that_start_one_run_at_once():
    world = World(dag(A=task()))
    from orchestrator.engine.address import Start
    from orchestrator.engine.run_boxes import RunBoxes

    graph = world.catalog.find(None)[2]
    decider = world.executor._committer._decider
    box = RunBoxes(world.store, 0.0).box("run_1_x")
    entries = [Entry(Start("run_1_x", "dag", dag(A=task()), graph, {}, f"m{n}", None, {})) for n in (1, 2, 1)]
    decision, _, results = decider.decide_on(box, entries, None, Token("me.1", b"0" * 32))
    assert [results[entries[0]], results[entries[2]]] == ["applied", "applied"]
    refused = results[entries[1]]
    assert (type(refused), str(refused)) == (
        RunExists, "run run_1_x: is being started by another message; choose another run_id")  # fmt: skip
    assert refused.labels == {"run_id": "run_1_x"}
    assert decision.state.run.message_id == "m1"


def test_a_result_that_is_needed_again_after_it_was_brought_back():
    world = World(
        dag(A=task("B"), B=task(parameters={"n": "${steps.A.result}"}, retry={"max_attempts": 2, "delay": "1s"}))
    )
    run_id = world.start()
    world.end("A", Outcome.completed("x" * (MAX_INLINE_BYTES + 1)))
    world.executor._large_results.brought_back = lambda state, name, ahead: state
    world.end("B", Outcome.failed("Own.Error", "no"))
    world.clock.forward(10)
    due = world.state(run_id).nodes["B"].due["retry"]
    with pytest.raises(CorruptState) as told:  # the next attempt needs the result again
        world.executor.execute(reminder_message(run_id, "B", 2, "retry", due), message_id="r")
    assert str(told.value) == "the result of A: was brought back for a decision, and is needed again"
    assert told.value.labels["run_id"] == run_id


# -- interrupted -----------------------------------------------------------------------------------------------


def test_who_is_interrupted_gives_back_what_nobody_waits_for():
    world = World(dag(P=parallel(chain("A"), chain("B"))))
    run_id = world.start()
    first, second = (completion(launch) for launch in world.target.calls)
    told = []
    put = world.store.put

    def interrupted(key, data, *, expect):
        world.store.put = put
        world.executor.deliver(second, lambda handled, error: told.append((handled, error)))
        raise KeyboardInterrupt

    world.store.put, world.store.change = interrupted, lambda key, members, expect: interrupted(key, b"", expect=expect)
    with pytest.raises(KeyboardInterrupt):
        world.executor.execute(first)
    ((handled, error),) = told
    assert (handled, type(error)) == (None, NotYet)
    assert str(error) == f"run {run_id}: who handled this was interrupted; deliver it again"
    assert {name: error.labels[name] for name in ("run_id", "node", "attempt")} == {
        "run_id": run_id, "node": "B", "attempt": 1}  # fmt: skip


# -- children ---------------------------------------------------------------------------------------------------


LAUNCH = Launch("K", "Dag", "kid", dag="dag", run_id="run_1_p", attempt=2)


def kin():
    world = World(dag(A=task()))
    world.catalog = Catalog({"kid": chain("X"), "dag": chain("Y")})
    world.instances = [world.instance()]
    return world


def test_a_child_run_that_was_pruned_is_not_made_again():
    world = kin()
    world.store.put(tombstone_of("run_1_kid"), b'{"until":"2027-01-01T00:00:00Z"}', expect=None)
    with pytest.raises(LaunchRefused, match=r"^run run_1_kid: was pruned$") as told:
        world.executor.make_child(LAUNCH, "run_1_kid")
    assert told.value.error_type == "Dag.Pruned"


@pytest.mark.parametrize(
    ("change", "made"),
    [
        ({}, "run_1_old"),
        ({"pruned_at": T0}, None),
        ({"parent": None}, "run_1_new"),
        ({"parent": ParentRun("run_1_other", "K", 1, 1)}, "run_1_new"),
        ({"parent": ParentRun("run_1_p", "Other", 1, 1)}, "run_1_new"),
        ({"parent": ParentRun("run_1_p", "K", 2, 1)}, "run_1_old"),
        ("is gone", "run_1_new"),
    ],
    ids=["of the attempt before", "being pruned", "of nobody", "of another run", "of another step", "of this attempt",
         "gone"],
)  # fmt: skip
def test_which_child_run_goes_on_for_a_later_attempt(change, made):
    world = kin()
    world.executor.make_child(replace(LAUNCH, attempt=1), "run_1_old")
    key = "runs/run_1_old.json"
    state = world.state("run_1_old")
    version = world.store.get(key)[1]
    if change == "is gone":
        world.store.delete(key)
    elif change:
        OrchestrationStatus(world.store, "run_1_old").save(
            replace(state, run=replace(state.run, **change)), expect=version
        )
    world.instances = [world.instance()]
    launch = replace(LAUNCH, goes_on="run_1_old")
    if made is None:
        with pytest.raises(LaunchUncertain, match=r"^run run_1_old: is being deleted by prune$"):
            world.executor.make_child(launch, "run_1_new")
        return
    assert world.executor.make_child(launch, "run_1_new") == made
    assert (world.store.get("runs/run_1_new.json") is not None) is (made == "run_1_new")
    if made == "run_1_old":
        assert world.state("run_1_old").run.parent.attempt == 2


# -- what is in the bucket ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [b"{", b'{"kind":"Failed","at":"2026-01-01T12:00:00Z"}'])
def test_a_large_result_whose_place_is_taken(left):
    world = World({**dag(P={"type": "Pass", "result": "x" * 70_000}), "result": "${steps.P.result}!"})
    put = world.store.put

    def taken(key, data, *, expect):
        if key.startswith("results/") and world.store.get(key) is None:
            put(key, left, expect=None)
        return put(key, data, expect=expect)

    world.store.put = taken
    with pytest.raises(CorruptState) as told:
        world.start()
    name = next(iter(world.store.list("results/")))
    assert str(told.value) == f"{name}: is not the result of P, after which it is named; delete it"


def test_a_large_result_of_a_run_whose_place_is_taken():
    world = World({**dag(A=task()), "result": "${steps.A.result}" + "x" * 70_000})
    run_id = world.start()
    put = world.store.put

    def taken(key, data, *, expect):
        if key.startswith("results/") and world.store.get(key) is None:
            put(key, b"{", expect=None)
        return put(key, data, expect=expect)

    world.store.put = taken
    with pytest.raises(CorruptState) as told:
        world.end("A", Outcome.completed("y"))
    name = next(iter(world.store.list("results/")))
    assert str(told.value) == f"{name}: is not the result of run {run_id}, after which it is named; delete it"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "is missing; it is the result of P"),
        ({"kind": "Failed", "error": {"error_type": "a", "message": "b"}, "at": "2026-01-01T12:00:00Z"},
         "is Failed with no result; it is to be the result of P, which has completed"),
        ({"kind": "Completed", "at": "2026-01-01T12:00:00Z"},
         "is Completed with no result; it is to be the result of P, which has completed"),
    ],
)  # fmt: skip
def test_a_large_result_that_is_not_what_it_should_be(content, words):
    import msgspec

    world = World(dag(P={"type": "Pass", "result": "x" * 70_000}))
    node = world.state(world.start()).nodes["P"]
    name = node.stored_result.object
    world.store.delete(name)
    if content is not None:
        world.store.put(name, msgspec.json.encode(content), expect=None)
    with pytest.raises(CorruptState) as told:
        LargeResults(world.store).load(node)
    assert str(told.value) == f"{name}: {words}"


def test_a_function_that_has_begun_and_left_nothing():
    store = MemoryStore()
    begun = b'{"at":"2026-01-01T12:00:00Z","instance":"","execution":"","token":""}'
    store.put(begun_object("k"), begun, expect=None)
    with pytest.raises(NotYet) as told:
        Results(store).ask("k")
    assert str(told.value) == f"{begun_object('k')}: is there and {result_object('k')} is not: still at work"
    assert told.value.args == (str(told.value),)


def test_the_least_age_of_what_is_pruned():
    with pytest.raises(ValueError, match=r"^3599 s: runs are kept for 3600 s at the least$"):
        Pruner(MemoryStore(), T0, 3599.0, lambda run: True, is_all=True)


# -- addressing --------------------------------------------------------------------------------------------------


def test_a_start_that_names_no_dag_where_there_are_several():
    with pytest.raises(UnknownDag) as told:
        Catalog({"two": chain("A"), "one": chain("A")}).find(None)
    assert str(told.value) == "start: names no dag and DEFAULT_DAG is not set; there are one, two"
    with pytest.raises(UnknownDag, match=r"there are none$"):
        Catalog({}).find(None)


@pytest.mark.parametrize("variables", [{}, {"B": 1, "A": 2}])
def test_a_dag_that_asks_for_variables_that_have_no_value(variables):
    catalog = Catalog.of(dag(A=task(parameters={"x": "${var.X}", "w": "${var.W}"})))
    resolver = Resolver(catalog, ExecutionStatus(MemoryStore()), lambda: "new", 60.0, variables)
    with pytest.raises(SettingsError) as told:
        resolver.resolve(start_message(), "m1", T0, T0)
    (name,) = catalog.definitions
    there = "are A, B" if variables else "is none"
    assert str(told.value) == (
        f"dag {name}: asks for ${{var.W}}, ${{var.X}}, of which there is no value; give one in VARIABLES; there {there}"
    )


def test_an_event_that_cannot_be_addressed_yet_is_found_by_its_trace():
    resolver = Resolver(Catalog.of(chain("A")), ExecutionStatus(MemoryStore()), lambda: "new", 60.0)
    event = {
        "resource": {"type": "cloud_function", "labels": {"function_name": "f"}}, "labels": {"execution_id": "x"},
        "logName": "projects/p/logs/cloudfunctions.googleapis.com%2Fcloud-functions",
        "textPayload": "Function execution took 12 ms, finished with status code: 200",
        "trace": f"projects/p/traces/{'a' * 32}",
    }  # fmt: skip
    with pytest.raises(NotYet) as told:
        resolver.resolve(event, "m1", T0, T0)
    assert told.value.labels == {"trace": "a" * 32}
    words = "execution x: no launch of ours is recorded for it (yet); put off until the event is 60 s old"
    assert str(told.value) == words
    assert resolver.resolve(event, "m1", T0, T0 + timedelta(seconds=60)) is None


# -- ticks --------------------------------------------------------------------------------------------------------


def test_a_tick_that_has_no_time_for_all_runs_says_so(caplog):
    world = World(dag(A=task()), tick_budget_s=10.0, target=Target(has_outcome=True))
    for number in range(5):
        world.start(f"m{number}")
    world.target.outcome = lambda execution: world.clock.forward(6)
    world.clock.forward(100)
    swept = world.executor.tick()
    assert (swept.runs, swept.left) == (2, 3)
    words = "tick: had no time for 3 of 5 open runs; the next one begins with them"
    assert said(caplog) == [("WARNING", words, {})]


def test_a_target_that_raises_when_it_is_asked_holds_up_nothing(caplog):
    world = World(dag(P=parallel(chain("A"), dag(W={"type": "Wait", "for": "1m"}))), target=Target(has_outcome=True))
    run_id = world.start()
    world.target.outcome = failing(ValueError("odd"))
    world.clock.forward(61)
    said(caplog)
    world.executor.tick()
    assert said(caplog) == [("ERROR", "cannot ask a target (ValueError)", about(world.target.calls[0]))]
    assert world.state(run_id).nodes["W"].status == "Completed"


def test_a_heartbeat_that_cannot_be_asked_for_leaves_the_attempt_alone(caplog):
    class Silent(Target):
        def heard_at(self, launch):
            raise LaunchUncertain("503")

    step = {"type": "Task", "target_type": "CloudFunction", "target_name": "f", "heartbeat": "1m"}
    world = World(dag(A=step), target=Silent())
    run_id = world.start()
    world.clock.forward(81)
    said(caplog)
    world.executor.tick()
    words = "cannot ask when it was heard of: 503"
    assert said(caplog) == [("WARNING", words, about(world.target.calls[0]))]
    assert world.state(run_id).nodes["A"].status == "Running"


def test_a_problem_with_one_run_is_said_with_what_it_is_about(caplog):
    world = World(dag(A=task()))
    run_id, other = world.start("m1"), world.start("m2")
    key = f"runs/{run_id}.json"
    world.store.put(key, b"{", expect=world.store.get(key)[1])
    swept = world.executor.tick()
    (line,) = said(caplog, logging.ERROR)
    assert line[0] == "ERROR"
    assert line[1].startswith(f"tick: {key}: ")
    assert line[2] == {"run_id": run_id}
    assert swept.problems == (f"{run_id}: {line[1].removeprefix('tick: ')}",)
    get = world.store.get
    world.store.get = lambda key: failing(ValueError("odd"))() if other in key else get(key)
    swept = world.executor.tick()
    assert said(caplog, logging.ERROR) == [("ERROR", "tick failed (ValueError)", {"run_id": other})]
    assert f"{other}: ValueError: odd" in swept.problems


# -- slots -----------------------------------------------------------------------------------------------------------


def test_a_holder_that_cannot_be_read_keeps_its_slot_and_is_named(caplog):
    store = MemoryStore()
    keeper = keeper_of(store)
    keeper.change("pool/api", [ask(1, limit=1)], ())
    store.put("runs/run1.json", b"{", expect=None)
    assert keeper.look_after("pool/api", [ask(2, limit=1)]) == []
    ((level, words, labels),) = said(caplog)
    assert (level, labels) == ("ERROR", {"run_id": "run1"})
    assert words.startswith("who holds a slot cannot be read, and keeps it: runs/run1.json: ")


def test_slots_that_were_not_given_back_are_counted(caplog):
    caplog.set_level(logging.INFO, "orchestrator")
    keeper = keeper_of(MemoryStore())
    keeper.change("pool/api", [ask(1, limit=2), ask(2, limit=2)], ())
    (granted,) = keeper.look_after("pool/api", [ask(3, limit=2)])
    assert granted.ticket == "ticket3"
    assert said(caplog) == [("INFO", "slots/pool/api: 2 slots were not given back, and are now", {})]


def test_a_broker_that_cannot_tell_of_a_slot(caplog):
    class Broken:
        publish = staticmethod(failing(BrokerUnavailable("503")))

    keeper = keeper_of(MemoryStore(), Broken())
    keeper.change("pool/api", [ask(1, limit=1), ask(2, limit=1)], ())
    keeper.change("pool/api", (), ["ticket1"])
    assert said(caplog) == [("WARNING", "cannot tell of a slot; the Tick does: 503", {"run_id": "run2"})]


def test_only_those_are_told_of_a_slot_whose_run_is_driven_from_here():
    from orchestrator.testing.virtual_time import VirtualClock
    from tests.support.world import KeptBroker

    for drives, told in ((lambda run_id: run_id == "run2", ["ticket2"]), (lambda run_id: run_id == "run1", [])):
        broker = KeptBroker()
        keeper = SlotKeeper(
            MemoryStore(), Catalog({}), broker, VirtualClock(), Policy(), lambda _: None, lambda: 0.5, drives
        )
        keeper.change("pool/api", [ask(1, limit=1), ask(2, limit=1)], ())
        keeper.change("pool/api", (), ["ticket1"])
        assert [event["ticket"] for event, _ in broker.published] == told


def test_who_waits_for_a_write_that_is_interrupted_is_told_and_the_next_may_write():
    store = MemoryStore()
    keeper = keeper_of(store)
    put, begun, go_on = store.put, Event(), Event()

    def interrupted(key, data, *, expect):
        begun.set()
        assert go_on.wait(60)
        store.put = put
        raise KeyboardInterrupt

    store.put = interrupted
    errors = []

    def change(number):
        try:
            keeper.change("pool/api", [ask(number)], ())
        except BaseException as exc:
            errors.append(exc)

    line = keeper._line("pool/api")
    from orchestrator.engine.slot_keeper import _Request

    shared = _Request([ask(2)], ())
    first = Thread(target=change, args=(1,))
    line_take = line.take
    line.take = lambda: [*line_take(), shared]
    first.start()
    assert begun.wait(60)
    line.take = line_take
    go_on.set()
    first.join()
    assert [type(error) for error in errors] == [KeyboardInterrupt]
    assert shared.is_done
    assert (type(shared.error), str(shared.error)) == (
        StoreUnavailable, "slots/pool/api.json: who changed it was interrupted")  # fmt: skip
    assert keeper.change("pool/api", [ask(3)], ()) == {"ticket3"}


def test_slots_that_cannot_be_asked_for_now(caplog):
    store = MemoryStore()
    store.put = failing(StoreUnavailable("503"))
    assert keeper_of(store).act([ask(1)]) == []
    assert said(caplog) == [("WARNING", "slots/pool/api: 503; left to the Tick", {"run_id": "run1"})]


# -- schedules and definitions -----------------------------------------------------------------------------------------


def test_a_definition_that_cannot_be_read_holds_up_no_schedule(caplog):
    class Odd(dict):
        def __getitem__(self, name):
            if name == "odd":
                raise SettingsError("odd.json: cannot be read")
            return super().__getitem__(name)

    found = Odd(odd={}, one={**chain("A"), "schedule": "0 6 * * *"})
    schedules = Schedules(MemoryStore(), Catalog(found), World(chain("A")).clock, lambda message: None)
    assert list(schedules.scheduled) == ["one"]
    assert said(caplog) == [("ERROR", "schedules: odd: cannot be read: odd.json: cannot be read", {})]
    assert Triggers(Catalog(found), lambda *_: {})._all == ()
    assert said(caplog) == [("ERROR", "triggers: odd: cannot be read: odd.json: cannot be read", {})]


@pytest.mark.parametrize(
    ("trigger", "event", "is_meant"),
    [
        ({"topic": TOPIC}, a_message({}), True),
        ({"topic": TOPIC}, a_message({}, topic=f"{TOPIC}2"), False),
        ({"topic": TOPIC}, an_object(), False),
        ({"object": {"bucket": "landing"}}, an_object(), True),
        ({"object": {"bucket": "landing", "prefix": "in/", "suffix": ".csv"}}, an_object(), True),
        ({"object": {"bucket": "landing", "prefix": "out/"}}, an_object(), False),
        ({"object": {"bucket": "landing", "suffix": ".json"}}, an_object(), False),
        ({"object": {"bucket": "another"}}, an_object(), False),
        ({"object": {"bucket": "landing"}}, a_message({}), False),
        ({"object": 3, "topic": 4}, a_message({}), False),
        ({"topic": TOPIC, "when": "${event.no.such(", "input": 3}, a_message({}), True),
    ],
)
def test_a_definition_that_breaks_rules_is_a_problem_of_the_events_that_it_was_meant_for(trigger, event, is_meant):
    broken = {"start": "Nowhere", "steps": {"A": task()}, "triggers": [{"topic": f"{TOPIC}-other"}, "odd", trigger]}
    found, problems = Triggers(Catalog({"broken": broken}), lambda *_: {}).runs_of(
        EventFactory.create_from_event(event, message_id="m", publish_time=T0)
    )
    assert (found, len(problems)) == ([], int(is_meant))
    if is_meant:
        assert str(problems[0]).startswith("broken: ")


def test_of_the_triggers_of_a_definition_the_first_one_counts_that_an_event_matches(caplog):
    def listening(*triggers):
        return {**chain("A"), "triggers": [{"topic": TOPIC, **each} for each in triggers]}

    catalog = Catalog({
        "first": listening({"when": "${event.data.n > 5}", "input": {"n": 1}}, {"input": {"n": 2}}, {"input": {}}),
        "none": listening({"when": "${event.data.n > 50}"}), "all": listening({}),
    })  # fmt: skip
    triggers = Triggers(catalog, lambda name, graph: {"of": name})
    event = EventFactory.create_from_event(a_message({"n": 3}), message_id="m", publish_time=T0)
    found, problems = triggers.runs_of(event)
    assert [(run.dag_name, run.variables, problems) for run in found] == [
        ("first", {"of": "first"}, []), ("all", {"of": "all"}, [])]  # fmt: skip
    assert (found[0].input, found[1].input) == ({"n": 2}, event.fields)
    event = EventFactory.create_from_event(a_message({"n": 9}), message_id="m", publish_time=T0)
    assert triggers.runs_of(event)[0][0].input == {"n": 1}
    assert said(caplog) == []
    event = EventFactory.create_from_event(a_message({"m": 9}), message_id="m", publish_time=T0)
    for _ in range(2):
        assert [run.dag_name for run in triggers.runs_of(event)[0]] == ["first", "all"]
    lines = said(caplog)
    assert [(level, labels) for level, _, labels in lines] == [("WARNING", {}), ("WARNING", {})], "once each"
    assert [words.partition(".when: ")[0] for _, words, _ in lines] == [
        "dag first: triggers[0]", "dag none: triggers[0]"]  # fmt: skip
    assert all(words.endswith("; such an event starts no run") for _, words, _ in lines)


# -- what cannot be ------------------------------------------------------------------------------------------


def test_a_node_that_is_started_as_what_it_is_not_is_an_error_that_names_it():
    steps = {
        "Map": {"type": "Map", "items": [1], "iterator": chain("I")}, "Condition": {"type": "Condition", "choices": [
            {"when": "${true}", "next": "Z"}], "default": "Z"}, "Wait": {"type": "Wait", "for": "1m"},
        "Pass": {"type": "Pass"}, "End": {"type": "End"},
    }  # fmt: skip
    for kind in steps:
        world = World(dag(A=task()))
        state = world.state(world.start())
        graph = world.catalog.find(None)[2]
        draft = Draft(graph, state, T0, Token("me.1", b"0" * 32), Policy())
        (start,) = [call for of, call in _START.items() if of.__name__ == kind]
        with pytest.raises(TypeError, match=rf"^A: is no {kind}$"):
            start(draft, graph.place("A"), state.nodes["A"])


def test_a_draft_says_what_it_has_not():
    graph = DAG(dag(P={"type": "Pass"}))
    draft = Draft(graph, None, T0, Token("me.1", b"0" * 32), Policy())
    with pytest.raises(LookupError, match=r"^there is no run to decide on$"):
        draft.info  # noqa: B018
    world = World(dag(P=parallel(chain("A"))))
    state = world.state(world.start())
    draft = Draft(world.catalog.find(None)[2], state, T0, Token("me.1", b"0" * 32), Policy())
    with pytest.raises(LookupError, match=r"^P: has a claim but is no Task$"):
        draft.task(state.nodes["P"])
    with pytest.raises(LookupError, match=r"^P: has items but is no Map$"):
        place_of(draft, "P")
    assert has_ticket(state, "run_1_none", "t") is False


def test_what_a_target_that_knows_better_cannot_tell_is_said(caplog):
    target = Confirming()
    world = World(chain("A"), target=target)
    world.start()
    target.answers = [LaunchUncertain("503")]
    world.executor.execute(completion(target.calls[0]), message_id="e", publish_time=T0)
    assert said(caplog) == [("WARNING", "cannot ask: 503", about(target.calls[0]))]


@pytest.mark.parametrize(
    ("rules", "expected"),
    [(TargetRules(), False), (TargetRules(launch_limit_s=1.0), False), (TargetRules(synchronous=True), True)],
)
def test_only_a_call_that_lasts_is_waited_for(rules, expected):
    world = World(
        dag(P=parallel(dag(A=job()), dag(B=call()))), targets={"Dataflow": Target(), "CloudFunction.sync": Target()}
    )
    actor = world.executor._actor
    actor._policy = Policy({"Dataflow": rules})
    launch = Launch("A", "Dataflow", "j", run_id="run_1_x", attempt=1)
    assert actor.waits([launch]) is expected
    assert actor.blocks([launch]) is (rules.launch_limit_s > 0.0)
    assert not actor.waits([])
    assert not actor.blocks([])
