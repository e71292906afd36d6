"""What only `make mutate` has shown that no test said: one test for each."""

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Draft, Token, new_state
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.redriving import _fresh
from orchestrator.engine.results import Results
from orchestrator.model.commands import Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.errors import NotYet
from orchestrator.model.facts import AttemptEnded, ClaimExpired, RunStarted
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
