"""Steps that depend on others, by the public surface: what runs, what is left out, and how the run ends."""

import json
import random
import sys
from collections import Counter
from threading import Lock
from types import ModuleType

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.commands import Outcome
from orchestrator.model.definition import problems
from orchestrator.testing import Simulation, fails, is_cancelled, returns, simulate, takes
from tests.support.world import World, dag, parallel, task

FAILED = Outcome.failed("Task.Failed", "boom")


def graph(**steps):
    return {"steps": steps}


def passing(result=1, **keys):
    return {"type": "Pass", "result": result, **keys}


def statuses(run):
    return {name: node.status.value for name, node in run.state.nodes.items()}


def statuses_in(world, run_id):
    return {name: node.status.value for name, node in world.state(run_id).nodes.items()}


def chain_of(name):
    return dag(**{name: task()})


DIAMOND = graph(A=task(), B=task(), C=task(depends_on=["A", "B"]), D=task(depends_on=["B"]), E=task(depends_on=["C"]))


def test_what_waits_for_nothing_starts_at_once_and_the_others_after_all_that_they_name():
    world = World(DIAMOND)
    run_id = world.start()
    assert world.target.nodes == ["A", "B"]
    world.end("B")
    assert world.target.nodes == ["A", "B", "D"]
    world.end("A")
    assert world.target.nodes == ["A", "B", "D", "C"]
    world.end("C", times=3)
    world.end("E")
    assert world.state(run_id).run.status == "Running", "D runs"
    world.end("D")
    assert world.state(run_id).run.status == "Completed"
    assert set(statuses_in(world, run_id).values()) == {"Completed"}


def test_the_run_document_says_what_waits_for_what():
    inner = graph(X=task(), Y=task(), Z=task(depends_on=["X", "Y"]))
    definition = graph(A=task(), B=task(depends_on=["A"], trigger="all_done"), P=parallel(inner, chain_of("L")))
    world = World(definition)
    document = json.loads(world.store.get(f"runs/{world.start()}.json")[0])
    assert (document["B"]["depends_on"], document["B"]["trigger"]) == (["A"], "all_done")
    assert document["P"]["branches"] == [{"starts": ["X", "Y"]}, {"start": "L"}]
    assert "depends_on" not in document["A"]


# -- triggers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "a", "b", "expected"),
    [
        pytest.param("all_completed", returns(1), returns(1), "Completed", id="all completed"),
        pytest.param("all_completed", returns(1), fails(), "Skipped", id="not all completed"),
        pytest.param("all_completed", returns(1), is_cancelled(), "Skipped", id="one was cancelled at its target"),
        pytest.param("all_done", returns(1), fails(), "Completed", id="done, one failed"),
        pytest.param("all_done", fails(), is_cancelled(), "Completed", id="done, none completed"),
        pytest.param("one_failed", returns(1), fails(), "Completed", id="one failed"),
        pytest.param("one_failed", returns(1), is_cancelled(), "Completed", id="one was cancelled, which is a failure"),
        pytest.param("one_failed", returns(1), returns(1), "Skipped", id="none failed"),
    ],
)
def test_triggers(trigger, a, b, expected):
    definition = graph(A=task(), B=task(), C=task(depends_on=["A", "B"], trigger=trigger))
    run = simulate(definition, targets={"A": a.after("2h"), "B": b})
    assert run.node("C").status == expected
    completed = statuses(run)["A"] == statuses(run)["B"] == "Completed"
    assert run.status == ("Completed" if completed else "Failed")


def test_one_failed_starts_at_the_first_failure_and_knows_it():
    definition = graph(
        A=task(), B=task(), C=passing("${error.node}: ${error.message}", depends_on=["A", "B"], trigger="one_failed")
    )
    world = Simulation(definition, targets={"A": takes("2h"), "B": fails("Own.Error", "no table")})
    run_id = world.start()
    world.forward("10s")
    assert world.run(run_id).result("C") == "B: no table"
    assert world.run(run_id).status == "Running"
    assert world.finish(run_id).status == "Failed"


def test_a_skipped_step_is_no_failure_but_it_is_done():
    definition = graph(
        A=task(),
        B=task(depends_on=["A"]),
        C=task(depends_on=["B"]),
        OnFailure=task(depends_on=["B"], trigger="one_failed"),
        Anyway=task(depends_on=["B"], trigger="all_done"),
    )
    run = simulate(definition, targets={"A": fails()})
    assert statuses(run) == {
        "A": "Failed",
        "B": "Skipped",
        "C": "Skipped",
        "OnFailure": "Skipped",
        "Anyway": "Completed",
    }


def test_a_step_is_skipped_only_when_all_that_it_depends_on_have_ended():
    world = World(
        graph(A=task(), B=task(), C=task(depends_on=["A", "B"]), D=task(depends_on=["C"], trigger="all_done"))
    )
    run_id = world.start()
    world.end("A", FAILED)
    assert statuses_in(world, run_id)["C"] == "New"
    world.end("B")
    assert statuses_in(world, run_id) == {"A": "Failed", "B": "Completed", "C": "Skipped", "D": "Running"}


# -- how it ends -----------------------------------------------------------------------------------------


def test_a_failure_stops_what_depends_on_it_and_nothing_else_and_the_run_fails_with_the_first_in_definition_order():
    definition = graph(A=task(), B=task(), C=task(depends_on=["A"]), D=task(depends_on=["B"]), E=task(depends_on=["D"]))
    targets = {"A": fails("Own.A").after("5h"), "D": fails("Own.D")}
    run = simulate(definition, targets=targets)
    assert statuses(run) == {"A": "Failed", "B": "Completed", "C": "Skipped", "D": "Failed", "E": "Skipped"}
    assert (run.status, run.error.error_type, run.error.node) == ("Failed", "Own.A", "A")


def test_a_clean_up_does_not_hide_the_failure():
    definition = graph(A=task(), Clean=task(depends_on=["A"], trigger="one_failed"), Last=task(depends_on=["Clean"]))
    run = simulate(definition, targets={"A": fails()})
    assert (run.status, run.error.node, run.path) == ("Failed", "A", ["A", "Clean", "Last"])


def test_an_error_that_is_routed_is_none_of_the_runs():
    definition = graph(
        A=task(on_error=[{"next": "Mend"}]), Mend=passing(), B=task(depends_on=["A"]), C=task(depends_on=["Mend"])
    )
    run = simulate(definition, targets={"A": fails()})
    assert statuses(run) == {"A": "Failed", "Mend": "Completed", "B": "Skipped", "C": "Completed"}
    assert run.status == "Completed"


def test_an_end_that_fails_ends_its_own_way_only():
    definition = graph(
        A=task(next="Stop"), Stop={"type": "End", "status": "Failed"}, B=task(), C=task(depends_on=["B"])
    )
    run = simulate(definition, targets={"B": takes("1h")})
    assert statuses(run) == {"A": "Completed", "Stop": "Failed", "B": "Completed", "C": "Completed"}
    assert (run.status, run.error.error_type) == ("Failed", "Run.Failed")


# -- ways among them -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flag", "taken", "other"), [(True, "Few", "Many"), (False, "Many", "Few")])
def test_ways_that_part_join_again_and_the_one_not_taken_is_skipped_at_once(flag, taken, other):
    definition = graph(
        Choose={"type": "Condition", "choices": [{"when": "${run.input.flag}", "next": "Few"}], "default": "Many"},
        Few=task(next="Join"),
        Many=task(next="Join"),
        Join=passing("${steps.Few.status} ${steps.Many.status}"),
        OfFew=task(depends_on=["Few"]),
        OfMany=task(depends_on=["Many"]),
    )
    world = World(definition)
    run_id = world.start(input={"flag": flag})
    state = statuses_in(world, run_id)
    assert (state[taken], state[other], state[f"Of{other}"], state[f"Of{taken}"]) == (
        "Running",
        "Skipped",
        "Skipped",
        "New",
    )
    world.end(taken)
    assert statuses_in(world, run_id)[f"Of{taken}"] == "Running"
    assert world.state(run_id).nodes["Join"].result == f"{'Completed Skipped' if flag else 'Skipped Completed'}"
    assert json.loads(world.store.get(f"runs/{run_id}.json")[0])["Choose"]["chosen"] == taken


def test_where_several_ways_lead_to_a_step_it_starts_once_all_of_these_have_ended():
    definition = graph(A=task(next="Join"), B=task(next="Join"), Join=task(), After=task(depends_on=["Join"]))
    world = World(definition)
    world.start()
    world.end("B")
    assert world.target.nodes == ["A", "B"]
    world.end("A")
    assert world.target.nodes == ["A", "B", "Join"]


def test_of_several_errors_that_lead_to_one_handler_it_is_told_the_first_in_definition_order():
    handled = [{"next": "Mend"}]
    definition = graph(
        A=task(on_error=handled), B=task(on_error=handled), Mend=passing("${error.node}"), C=task(depends_on=["A"])
    )
    run = simulate(definition, targets={"A": fails().after("1h"), "B": fails()})
    assert (run.result("Mend"), run.status) == ("A", "Completed")


# -- in branches and in the finally ----------------------------------------------------------------------


def test_a_branch_ends_when_all_its_steps_have_and_fails_with_the_first_failure_in_definition_order():
    inner = graph(L=task(), M=task(), N=task(depends_on=["L", "M"]), Always=task(depends_on=["N"], trigger="all_done"))
    definition = dag(
        P={**parallel(inner, dag(Z={"type": "Wait", "for": "3h"})), "on_failure": "stop", "next": "Last"}, Last=task()
    )
    run = simulate(definition, targets={"M": fails("Own.M"), "L": takes("1h")})
    assert statuses(run) == {
        "P": "Failed",
        "L": "Completed",
        "M": "Failed",
        "N": "Skipped",
        "Always": "Completed",
        "Z": "Cancelled",
        "Last": "Skipped",
    }
    assert (run.error.error_type, run.error.node) == ("Own.M", "M")
    assert run.document["P"]["branches"][0] == {"starts": ["L", "M"], "stopped_at": "M"}


def test_a_parallel_that_is_left_out_is_so_with_all_that_is_in_it():
    definition = graph(A=task(), P={**parallel(chain_of("X"), chain_of("Y")), "depends_on": ["A"]}, B=task())
    world = World(definition)
    run_id = world.start()
    world.end("A", FAILED)
    assert statuses_in(world, run_id) == {"A": "Failed", "P": "Skipped", "X": "Skipped", "Y": "Skipped", "B": "Running"}


def test_the_steps_of_a_finally_may_depend_on_one_another():
    definition = {
        **dag(A=task()),
        "finally": graph(X=task(), Y=task(), Z=passing("${steps.A.status}", depends_on=["X", "Y"], trigger="all_done")),
    }
    run = simulate(definition, targets={"A": fails(), "X": fails("Own.X")})
    assert (run.result("Z"), run.status, run.error.node) == ("Failed", "Failed", "A")
    run = simulate(definition, targets={"X": fails("Own.X")})
    assert (run.result("Z"), run.status, run.error.node) == ("Completed", "Failed", "X")


# -- stopped, paused, resumed ----------------------------------------------------------------------------


def test_a_cancelled_run_starts_nothing_more_whatever_the_triggers_say():
    definition = graph(
        A={"type": "Task", "target_type": "Dataflow", "target_name": "a"},
        B=task(depends_on=["A"], trigger="one_failed"),
        C=task(depends_on=["A"], trigger="all_done"),
    )
    world = Simulation(definition, targets={"A": takes("2h")})
    run_id = world.start()
    world.cancel(run_id, after="1h")
    run = world.finish(run_id)
    assert statuses(run) == {"A": "Cancelled", "B": "Skipped", "C": "Skipped"}
    assert run.status == "Cancelled"


def test_a_cancel_that_comes_when_nothing_is_left_to_start_leaves_the_run_completed():
    world = Simulation(
        graph(A=task(), B=task(depends_on=["A"]), C=task(depends_on=["A"], trigger="one_failed")),
        targets={"B": takes("2h")},
    )
    run_id = world.start()
    world.cancel(run_id, after="1h")
    run = world.finish(run_id)
    assert (run.status, statuses(run)) == ("Completed", {"A": "Completed", "B": "Completed", "C": "Skipped"})


def test_what_would_start_in_a_pause_is_held_once_and_starts_after_it():
    world = World(
        graph(A=task(), B=task(), C=task(depends_on=["A", "B"], trigger="one_failed"), D=task(depends_on=["C"]))
    )
    run_id = world.start()
    world.executor.execute({"resource": {"type": "pause"}, "run_id": run_id}, publish_time=world.clock.now())
    world.end("A", FAILED)
    world.end("B", FAILED)
    assert [held.node for held in world.state(run_id).run.held] == ["C"]
    world.clock.forward(1)
    world.executor.execute({"resource": {"type": "resume"}, "run_id": run_id}, publish_time=world.clock.now())
    assert world.target.nodes == ["A", "B", "C"]
    world.end("C")
    world.end("D")
    assert world.state(run_id).run.status == "Failed"


# -- a thousand of them ----------------------------------------------------------------------------------


def a_warehouse(seed: int) -> dict:
    """1,000 steps as a warehouse has them: many sources, marts that wait for hundreds, reports, one end."""
    draw = random.Random(seed)
    step = {"type": "Task", "target_type": "Function", "function": "warehouse:work"}
    steps, sources = {}, [f"Source{n}" for n in range(400)]
    for name in sources:
        steps[name] = {**step, "parameters": {"name": name}}
    layers = [sources]
    for layer, (width, fan_in) in enumerate([(300, 3), (200, 40), (80, 250), (18, 300)]):
        before = [name for names in layers for name in names]
        layers.append([f"L{layer}_{n}" for n in range(width)])
        for name in layers[-1]:
            awaited = draw.sample(before, draw.randint(1, fan_in))
            trigger = {"trigger": "all_done"} if draw.random() < 0.1 else {}
            steps[name] = {**step, "parameters": {"name": name}, "depends_on": awaited, **trigger}
    steps["Publish"] = {**step, "parameters": {"name": "Publish"}, "depends_on": list(steps), "next": "Tell"}
    steps["Tell"] = {**step, "parameters": {"name": "Tell"}}
    order = list(steps)
    draw.shuffle(order)
    return {"steps": {name: steps[name] for name in order}}


def test_a_thousand_steps_with_fan_ins_of_hundreds_run_each_once_and_after_all_that_they_depend_on(
    monkeypatch, tmp_path
):
    definition = a_warehouse(20261127)
    assert problems(definition) == []
    steps = definition["steps"]
    assert len(steps) == 1000
    assert sorted(len(step.get("depends_on", ())) for step in steps.values())[-50] > 100
    begun, ended, early, lock = Counter(), set(), [], Lock()

    def work(name):
        with lock:
            begun[name] += 1
            early.extend((name, other) for other in steps[name].get("depends_on", ()) if other not in ended)
            ended.add(name)

    module = ModuleType("warehouse")
    module.work = work
    monkeypatch.setitem(sys.modules, "warehouse", module)
    with DAGExecutor(definition, f"file://{tmp_path}") as executor:
        run = executor.wait(executor.start(), timeout_s=120)
    assert run.run.status == "Completed"
    assert {node.status.value for node in run.nodes.values()} == {"Completed"}
    assert set(begun.values()) == {1}
    assert set(begun) == set(steps)
    assert early == []
