"""What only `make mutate` has shown that no test said: one test for each."""

from collections import OrderedDict

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Draft, Token, new_state
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.pace import Pace
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.redriving import _fresh
from orchestrator.engine.results import Results
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.slot_keeper import _Line, _Request
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.errors import NotYet
from orchestrator.model.facts import AttemptEnded, CancelRequested, ClaimExpired, RunStarted
from orchestrator.model.node_state import Items
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import PartOf, RunState
from orchestrator.model.task_result import CONFLICT, begun_object
from orchestrator.stores.memory import MemoryStore
from tests.support.story import Confirming, Notifier
from tests.support.world import T0, World, chain, completion, dag, task

TOKEN = Token("me.1", b"0" * 32)
POLICY = Policy({"Function": TargetRules(has_outcome=True)})


@pytest.mark.parametrize(("late_s", "is_sent"), [(30.0, True), (30.001, False)])
def test_a_notification_is_sent_up_to_the_middle_of_its_lease(late_s, is_sent):
    world = World({**chain("A"), "notify": [{"on": ["started"], "topic": "projects/my-project/topics/alerts"}]})
    notifier = Notifier()
    world.instances = [world.instance(notifier=notifier, on_saved=lambda _: world.clock.forward(late_s))]
    world.start()
    assert bool(notifier.sent) is is_sent


def test_a_claim_whose_parameters_are_gone_is_given_up_as_badly_parametrised():
    graph = DAG(dag(A=task("B"), B=task(parameters={"n": "${steps.A.result.n}"})))
    state = None
    for fact in (RunStarted("run_1_x", "dag", "s", {}, "m1"), AttemptEnded("A", 1, Outcome.completed({"n": 1}))):
        state = decide(graph, state, [fact], T0, TOKEN, POLICY).state
    state = RunState(state.run, {**state.nodes, "A": replace(state.nodes["A"], result={})})
    node = decide(graph, state, [ClaimExpired("B", 1, "me.1")], T0, TOKEN, POLICY).state.nodes["B"]
    assert (node.status, node.error.error_type) == ("Failed", "Task.BadParameters")


def test_what_is_no_map_has_no_items():
    world = World(chain("A"))
    assert LargeResults(world.store).items_of(world.state(world.start()).nodes["A"]) is None


def test_the_large_result_of_a_run_goes_with_it():
    world = World({**chain("A"), "result": "${steps.A.result}x"})
    run_id = world.start()
    world.end("A", Outcome.completed("y" * 70_000))
    assert world.state(run_id).run.stored_result.object in list(world.store.list("results/"))
    world.clock.forward(40 * 86400)
    Pruner(world.store, world.clock.now(), 8 * 86400.0, lambda run: True, is_all=True).prune()
    assert list(world.store.list("results/")) == []


def test_a_part_that_runs_again_as_a_whole_has_its_slice_of_the_items():
    graph = DAG(dag(M={"type": "Map", "items": [1, 2], "iterator": chain("I")}))
    state = decide(graph, None, [RunStarted("run_1_x", "dag", "s", {}, "m1")], T0, TOKEN, POLICY).state
    items = Items(2, [5, 6], started=2, ended=1, failed=(1,), first=4)
    node = replace(state.nodes["M"], items=items)
    run = replace(state.run, part_of=PartOf(map="M", run_id="run_1_p", started_at=T0, ending=None))
    draft = Draft(graph, RunState(run, {**state.nodes, "M": node}), T0, TOKEN, POLICY)
    assert _fresh(draft, node).items == Items(2, [5, 6], first=4)


def test_the_run_of_a_part_has_no_timeout_of_its_own():
    graph = DAG({**dag(M={"type": "Map", "items": [1, 2], "iterator": chain("I")}), "timeout": "1h"})
    part_of = PartOf(map="M", run_id="run_1_p", started_at=T0, ending=None)
    own = replace(new_state(graph.place("M"), ""), items=Items(2, [5, 6]))
    start = RunStarted("run_1_x", "dag", "s", {}, "m1", part_of=part_of, nodes=(own,))
    assert decide(graph, None, [start], T0, TOKEN, POLICY).state.run.timeout_at is None
    whole = RunStarted("run_1_x", "dag", "s", {}, "m1")
    assert decide(graph, None, [whole], T0, TOKEN, POLICY).state.run.timeout_at is not None


@pytest.mark.parametrize(("error_type", "waits"), [(CONFLICT, True), ("Task.Failed", False)])
def test_only_a_call_that_was_refused_as_a_second_one_waits_for_the_first(error_type, waits):
    store = MemoryStore()
    store.put(begun_object("k"), b'{"at":"2026-01-01T12:00:00Z"}', expect=None)
    verdict = Outcome.failed(error_type, "no")
    if waits:
        with pytest.raises(NotYet, match="still at work"):
            Results(store).told("k", verdict)
    else:
        assert Results(store).told("k", verdict) is verdict


def test_a_forged_event_is_not_believed_where_its_target_knows_better():
    target = Confirming()
    world = World(chain("A"), target=target)
    run_id = world.start()
    forged = completion(target.of("A")[-1], Outcome.completed(1), nonce="f" * 32)
    handled = world.executor.execute(forged, message_id="e", publish_time=T0)
    assert (handled.verdict, world.state(run_id).nodes["A"].status) == ("unchanged", "Running")


@pytest.mark.parametrize("can_cancel", [True, False])
def test_what_is_taken_over_and_stopped_by_one_save_may_be_running(can_cancel):
    graph = DAG(chain("A"))
    policy = Policy({"Function": TargetRules(can_cancel=can_cancel)})
    start = RunStarted("run_1_x", "dag", "s", {}, "m1")
    state = decide(graph, None, [start], T0, Token("you.1", b"1" * 32), policy).state
    facts = [ClaimExpired("A", 1, "you.1"), CancelRequested("why")]
    node = decide(graph, state, facts, T0, TOKEN, policy).state.nodes["A"]
    assert (node.status, node.claim.takeovers) == ("Running", 1)
    assert (node.owed_cancel is not None, node.stop is not None) == (can_cancel, not can_cancel)
    claimed = decide(graph, None, [start, CancelRequested("why")], T0, TOKEN, policy)
    assert (claimed.state.nodes["A"].status, claimed.commands) == ("Cancelled", ())


def test_a_queue_that_is_led_is_led_by_one_thread():
    line = _Line(Pace(0.0))
    first, second, third = (_Request([], ()) for _ in range(3))
    assert (line.offer(first), line.take()) == (True, [first])
    assert line.offer(second) is False
    line.pass_on()
    assert (second.leads, second.signal.is_set()) == (True, True)
    assert line.offer(third) is False, "the second leads"
    assert line.take() == [second, third]
    line.pass_on()
    assert line.offer(first) is True, "nobody leads"


def test_a_box_that_another_thread_has_made_just_now_is_the_same():
    boxes = RunBoxes(MemoryStore(), 0.0)
    box, other = boxes.box("run_1_x"), boxes.box("run_1_y")

    class JustMade(OrderedDict):
        is_seen = False

        def get(self, key, default=None):
            found = super().get(key, default) if self.is_seen else default
            self.is_seen = True
            return found

    boxes._held = JustMade(boxes._held)
    assert boxes.box("run_1_x") is box
    assert list(boxes._held.values()) == [other, box]
