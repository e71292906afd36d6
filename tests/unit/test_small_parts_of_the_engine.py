"""Small parts of the engine's shell, each by itself: children, records, run boxes, observers, what waits for a slot."""

from datetime import timedelta
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from orchestrator.engine.address import Start
from orchestrator.engine.child_rules import MAX_RUNS_ABOVE, check_child, refusal_of
from orchestrator.engine.committing import _waits_for
from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Token
from orchestrator.engine.heartbeats import last_heard
from orchestrator.engine.observing import Observed
from orchestrator.engine.part_runs import PartRuns
from orchestrator.engine.queueing import has_ticket
from orchestrator.engine.run_box import Baton, Entry
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.status import ExecutionStatus, OpenRuns, OrchestrationStatus, number_of, run_of
from orchestrator.model.commands import AskSlot, Launch, Notify
from orchestrator.model.dag import DAG
from orchestrator.model.errors import (
    DefinitionError,
    InputRejected,
    LaunchRefused,
    LaunchUncertain,
    OrchestratorError,
    RunExists,
    SettingsError,
    StoreUnavailable,
    UnknownDag,
)
from orchestrator.model.facts import NotificationExpired, RunStarted
from orchestrator.model.node_state import Slot
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, World, chain, dag, task

LAUNCH = Launch("A", "Dag", "kid", dag="d", run_id="run_1_x", attempt=1)


# -- child runs -------------------------------------------------------------------------------------------


def nested(levels):
    value: object = 1
    for _ in range(levels):
        value = [value]
    return {"v": value}


def test_a_child_run_may_stand_below_so_many_runs_and_no_more():
    check_child(replace(LAUNCH, depth=MAX_RUNS_ABOVE - 1))
    with pytest.raises(
        LaunchRefused, match=f"A: {MAX_RUNS_ABOVE} runs stand above this one already; allowed are"
    ) as told:
        check_child(replace(LAUNCH, depth=MAX_RUNS_ABOVE))
    assert told.value.error_type == "Dag.TooDeep"
    assert str(told.value).endswith("child runs in one another; does a DAG start itself?")


def test_parameters_that_are_nested_too_deeply_make_no_child_run():
    with pytest.raises(
        LaunchRefused, match=r"^A: its parameters are nested too deeply; allowed are [0-9]+ levels$"
    ) as told:
        check_child(replace(LAUNCH, parameters=nested(500)))
    assert told.value.error_type == "Dag.BadInput"


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (UnknownDag("x"), "Dag.NotFound"),
        (DefinitionError(["x"]), "Dag.BadDefinition"),
        (InputRejected("x"), "Dag.BadInput"),
        (SettingsError("x"), "Dag.NoVariable"),
        (RunExists("x"), "Dag.RunExists"),
        (OrchestratorError("x"), "Launch.Refused"),
    ],
)
def test_why_a_child_run_cannot_be_made_is_the_class_of_its_step_s_error(error, error_type):
    refused = refusal_of(error, LAUNCH)
    assert (type(refused), refused.error_type, str(refused)) == (LaunchRefused, error_type, "A: x")


def test_a_child_run_that_cannot_be_made_now_is_uncertain():
    told = refusal_of(StoreUnavailable("503"), LAUNCH)
    assert (type(told), str(told)) == (LaunchUncertain, "run_1_x/A/1: its child run cannot be made now: 503")
    for error in (LaunchRefused("x"), LaunchUncertain("y")):
        assert refusal_of(error, LAUNCH) is error


@pytest.mark.parametrize("gone", ["the run", "the part", "the Map"])
def test_a_part_of_which_the_map_is_gone_is_refused(gone):
    definition = dag(M={"type": "Map", "items": [1, 2, 3], "iterator": chain("I")})
    world = World(definition, inline_items=1, part_items=2)
    run_id = world.start()
    launch = replace(LAUNCH, run_id=run_id, node_name="M[9]" if gone == "the part" else "M[0]")
    if gone == "the run":
        world.store.delete(f"runs/{run_id}.json")
    if gone == "the Map":
        launch = replace(launch, node_name="N[0]")
    with pytest.raises(LaunchRefused, match=": there is no such part of a Map") as told:
        PartRuns(world.store, world.executor._definitions, world.executor._large_results).start(launch, "run_1_y")
    assert told.value.error_type == "Map.NoPart"


def test_a_part_of_which_the_list_is_gone_is_refused():
    definition = dag(M={"type": "Map", "items": "${run.input.list}", "iterator": chain("I")})
    world = World(definition, inline_items=1, part_items=2)
    run_id = world.start(input={"list": ["x" * 40_000] * 3})
    stored = world.state(run_id).nodes["M"].items.stored
    world.store.delete(stored.object)
    launch = replace(LAUNCH, run_id=run_id, node_name="M[0]")
    with pytest.raises(LaunchRefused, match=f"^M: {stored.object}: is missing; it is the items of M$") as told:
        PartRuns(world.store, world.executor._definitions, world.executor._large_results).start(launch, "run_1_y")
    assert told.value.error_type == "Map.BadItems"


# -- boxes ------------------------------------------------------------------------------------------------


def a_start(run_id="run_1_x"):
    return Start(run_id, "dag", chain("A"), DAG(chain("A")), {}, "m1", None, {})


def boxed():
    boxes = RunBoxes(MemoryStore(), 0.0)
    return boxes, boxes.box("run_1_x")


def test_who_offers_first_leads_and_the_lead_goes_to_a_thread_that_waits():
    _, box = boxed()
    first, told, waiting = Entry(a_start()), Entry(a_start(), on_done=lambda *_: None), Entry(a_start())
    assert (box.offer(first), box.offer(told), box.offer(waiting)) == (True, False, False)
    assert not box.is_idle
    assert not box.let_go()
    assert box.take() == [first, told, waiting]
    assert box.take() == []
    box.put_back([told, waiting])
    assert box.pass_on() is Baton.HANDED_ON
    assert (told.leads, waiting.leads) == (False, True)
    assert waiting.signal.is_set()
    assert box.withdraw(waiting) is True
    assert box.withdraw(told) is False
    assert box.pass_on() is Baton.LAID_DOWN
    assert box.is_idle
    assert box.offer(Entry(a_start()))


def test_where_no_thread_waits_the_lead_is_kept():
    _, box = boxed()
    box.offer(Entry(a_start()))
    box.take()
    box.offer(Entry(a_start(), on_done=lambda *_: None))
    assert box.pass_on() is Baton.KEPT
    assert not box.is_idle


def test_an_entry_is_finished_once_and_whoever_is_told_may_fail(caplog):
    told = []

    def on_done(handled, error):
        told.append((handled, error))
        raise ValueError("odd")

    entry, error = Entry(a_start(), on_done=on_done), StoreUnavailable("503")
    entry.finish(None, error)
    entry.finish(None, None)
    assert told == [(None, error)]
    assert (entry.is_done, entry.error, entry.handled) == (True, error, None)
    (line,) = caplog.records
    assert (line.getMessage(), line.run_id) == ("who was to be told of an event failed", "run_1_x")


def test_a_box_is_the_same_until_it_is_forgotten_and_one_in_use_is_not_forgotten():
    boxes, box = boxed()
    assert boxes.box("run_1_x") is box
    box.offer(Entry(a_start()))
    boxes.forget("run_1_x")
    assert boxes.box("run_1_x") is box
    box.take()
    box.pass_on()
    box.counted_bytes = boxes.kept_bytes = 7
    boxes.forget("run_1_x")
    boxes.forget("run_1_x")
    assert boxes.kept_bytes == 0
    assert boxes.box("run_1_x") is not box


def test_beyond_so_many_the_boxes_longest_unused_are_let_go(monkeypatch):
    monkeypatch.setattr("orchestrator.engine.run_boxes.MAX_IDLE_RUNS", 20)
    boxes = RunBoxes(MemoryStore(), 0.0)
    held = [boxes.box(f"run_1_{number}") for number in range(20)]
    held[0].offer(Entry(a_start()))
    assert boxes.box("run_1_1") is held[1]
    boxes.box("run_1_20")
    assert list(boxes._held) == [f"run_1_{number}" for number in (0, *range(3, 20), 1, 20)]


def test_documents_beyond_so_many_bytes_are_let_go_the_oldest_first(monkeypatch):
    monkeypatch.setattr("orchestrator.engine.run_boxes.MAX_IDLE_BYTES", 100)
    boxes = RunBoxes(MemoryStore(), 0.0)
    held = [boxes.box(f"run_1_{number}") for number in range(3)]
    for box in held:
        box.status.size_bytes, box.saved = 50, None
        boxes.count(box)
    assert boxes.kept_bytes == 100
    assert [box.counted_bytes for box in held] == [0, 50, 50]
    held[1].offer(Entry(a_start()))
    held[2].status.size_bytes = 90
    boxes.count(held[2])
    assert [box.counted_bytes for box in held] == [0, 50, 0]
    assert boxes.kept_bytes == 50


# -- the rest ---------------------------------------------------------------------------------------------


def test_an_observer_is_told_and_what_it_raises_is_only_said(caplog):
    told = []
    observer = SimpleNamespace(lost=told.append, launched=lambda *what: told.append(what))
    Observed(observer).lost("run_1_x")
    Observed(observer).launched(LAUNCH, "found", 1.5, 2.5)
    assert told == ["run_1_x", (LAUNCH, "found", 1.5, 2.5)]
    Observed(None).lost("run_1_x")
    Observed(SimpleNamespace()).lost("run_1_x")
    (line,) = caplog.records
    assert (line.getMessage(), line.run_id) == ("an observer failed; the run goes on", "run_1_x")


POLICY = Policy({"Function": TargetRules(has_outcome=True)}, pools={"api": 1}, max_notification_tries=3)


def started(definition):
    return decide(
        DAG(definition), None, [RunStarted("run_1_x", "dag", "s", {}, "m1")], T0, Token("me.1", b"0" * 32), POLICY
    )


def test_who_waits_for_a_slot_is_told_by_its_ticket():
    decision = started(dag(A=task(pool="api")))
    (ask,) = [command for command in decision.commands if isinstance(command, AskSlot)]
    assert _waits_for(decision.state, ask)
    assert not _waits_for(decision.state, replace(ask, ticket="another"))
    assert not _waits_for(decision.state, replace(ask, node_name="X"))
    assert not _waits_for(decision.state, replace(ask, node_name=None))
    assert has_ticket(decision.state, "run_1_x/A/1", ask.ticket)
    assert not has_ticket(decision.state, "run_1_x/A/1", "another")
    assert not has_ticket(decision.state, "run_1_x/X/1", ask.ticket)
    assert not has_ticket(decision.state, "run_1_x", ask.ticket)
    run = replace(decision.state.run, slot=Slot("dag/dag", "t", T0))
    of_run = RunState(run, {})
    assert has_ticket(of_run, "run_1_x", "t")
    assert _waits_for(of_run, replace(ask, node_name=None, ticket="t"))


def test_a_notification_is_given_up_after_so_many_tries():
    graph = DAG({**chain("A"), "notify": [{"on": ["started"], "topic": "projects/my-project/topics/alerts"}]})
    token = Token("me.1", b"0" * 32)
    decision = decide(graph, None, [RunStarted("run_1_x", "dag", "s", {}, "m1")], T0, token, POLICY)
    seen, at = [], T0
    while decision.state.run.owed_notifications:
        (owed,) = decision.state.run.owed_notifications
        (notify,) = [command for command in decision.commands if isinstance(command, Notify)]
        seen.append((owed.tries, (notify.lease_end - at).total_seconds()))
        at += timedelta(hours=1)
        decision = decide(
            graph, decision.state, [NotificationExpired(owed.notification_id, owed.owner)], at, token, POLICY
        )
    assert [tries for tries, _ in seen] == [0, 1, 2]
    assert [lost.notification_id for lost in decision.state.run.lost_notifications] == [owed.notification_id]


def test_markers_say_which_run_they_are_of_and_after_how_many_redrives():
    assert (run_of("open/run_1_x"), number_of("open/run_1_x")) == ("run_1_x", 0)
    assert (run_of("open/run_1_x.12"), number_of("open/run_1_x.12")) == ("run_1_x", 12)
    assert number_of("open/run_1_x.odd") == 0
    store = MemoryStore()
    runs = OpenRuns(store)
    for redrives in range(4):
        runs.mark("run_1_x", T0, redrives, "made/for/1" if redrives else None)
        runs.mark("run_1_x", T0 + timedelta(seconds=1), redrives)
    assert list(runs) == [("open/run_1_x" + (f".{n}" if n else ""), "run_1_x") for n in range(4)]
    assert (runs.read("open/run_1_x").at, runs.read("open/run_1_x.1").made_for) == (T0, "made/for/1")
    assert runs.read("open/run_1_y") is None
    runs.clear_all("run_1_x", 2)
    assert list(store.list("open/")) == ["open/run_1_x.3"]
    store.put("open/run_1_y", b"{", expect=None)
    assert runs.read("open/run_1_y") is None


@pytest.mark.parametrize(
    ("execution_id", "key"),
    [
        ("abc", "executions/abc.json"),
        ("projects/p/jobs/abc", "executions/abc.json"),
        ("-odd", None),
        ("a" * 200, f"executions/{'a' * 200}.json"),
        ("a" * 201, None),
    ],
)
def test_an_execution_s_record_is_named_after_it_or_a_hash_of_that(execution_id, key):
    found = ExecutionStatus.key(execution_id)
    assert found == key if key else found.startswith("executions/sha256-")


def test_a_run_whose_document_is_of_another_run_is_not_read():
    world = World(chain("A"))
    run_id = world.start()
    content = world.store.get(f"runs/{run_id}.json")[0]
    world.store.put("runs/run_1_other.json", content, expect=None)
    with pytest.raises(OrchestratorError, match=f"^runs/run_1_other.json: says that it is run {run_id}$"):
        OrchestrationStatus(world.store, "run_1_other").load()
    assert OrchestrationStatus(world.store, "run_1_none").nodes() == {}
    assert list(OrchestrationStatus(world.store, run_id).nodes()) == ["A"]


def test_an_attempt_was_last_heard_of_when_its_target_or_its_function_says():
    assert last_heard(MemoryStore(), None, LAUNCH) is None
