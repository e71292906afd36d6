"""Where a redriven run goes on, as a table: a definition, how the run ended, and what is New, entered or kept then."""

from dataclasses import dataclass

import pytest

from orchestrator.engine.redriving import refusal
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import InputError
from orchestrator.model.run_state import run_result
from orchestrator.testing import fails, in_turn, never_ends, returns, takes
from orchestrator.testing.simulation import Simulation
from tests.support.world import chain, dag, parallel, task

FAILED_END = {"type": "End", "status": "Failed", "error": {"type": "Own.Error", "message": "no"}}
ROUTED = dag(X=task("Report", on_error=[{"next": "Clean"}]), Clean=task("Report"), Report=task("Last"), Last=task())
GIVES_UP = dag(X=task("Report", on_error=[{"next": "Clean"}]), Clean=task("GiveUp"), GiveUp=FAILED_END, Report=task())
FORK = dag(A=task("P"), P=parallel(chain("L", "L2"), chain("R", "R2"), next="Z"), Z=task())
JOB = {"type": "Task", "target_type": "Dataflow", "target_name": "job"}
STOPS = dag(
    P={**parallel(chain("L"), dag(W={**JOB, "next": "W2"}, W2=task()), next="Z"), "on_failure": "stop"}, Z=task()
)
NESTED = dag(P=parallel(dag(Q=parallel(chain("L"), chain("M"))), chain("R"), next="Z"), Z=task())
HANDLED = dag(P={**parallel(chain("L"), chain("R"), next="Z"), "on_error": [{"next": "H"}]}, H=task("Z"), Z=task())
CHOOSES = dag(
    C={"type": "Condition", "choices": [{"when": "${run.input.left}", "next": "L"}], "default": "R"},
    L=task("J"),
    R=task("J"),
    J=task(),
)
FINAL = {**dag(A=task("B"), B=task()), "finally": chain("F", "G")}


def fails_once(*names):
    return {name: fails(times=1) for name in names}


@dataclass
class Case:
    """A run that ended: its definition, and what its steps do; from where it is redriven; what was launched then."""

    definition: dict
    targets: dict
    launched: list[str]
    kept: str = ""
    start_from: str | None = None
    cancel_after: str | None = None


CASES = {
    "the step that failed, and what follows it": Case(chain("A", "B", "C"), fails_once("B"), ["B/2", "C/1"]),
    "the first step": Case(chain("A", "B"), fails_once("A"), ["A/2", "B/1"]),
    "only the branch that failed": Case(FORK, fails_once("L"), ["L/2", "L2/1", "Z/1"], "A R R2"),
    "both branches where they failed": Case(FORK, fails_once("L2", "R"), ["L2/2", "R/2", "R2/1", "Z/1"], "A L"),
    "what was stopped with its Parallel": Case(
        STOPS, {**fails_once("L"), "W": in_turn(takes("1h"), returns())}, ["L/2", "W/2", "W2/1", "Z/1"]
    ),
    "in a Parallel in a Parallel": Case(NESTED, fails_once("M"), ["M/2", "Z/1"], "L R"),
    "behind a route, which is kept": Case(
        ROUTED, {"X": fails(), **fails_once("Report")}, ["Report/2", "Last/1"], "X Clean"
    ),
    "in the steps of a route": Case(
        ROUTED, {"X": fails(), **fails_once("Clean")}, ["Clean/2", "Report/1", "Last/1"], "X"
    ),
    "the step whose error led to an End that says Failed": Case(GIVES_UP, fails_once("X"), ["X/2", "Report/1"]),
    "the same, which fails again and is cleaned up after again": Case(GIVES_UP, {"X": fails()}, ["X/2", "Clean/2"]),
    "behind a Parallel whose failure a route has handled": Case(
        HANDLED, {"L": fails(), **fails_once("Z")}, ["Z/2"], "P L R H"
    ),
    "what follows a step that completed while the run was being cancelled": Case(
        chain("A", "B"), {"A": takes("1h")}, ["B/1"], "A", cancel_after="1m"
    ),
    "a step that was cancelled": Case(
        dag(A={**JOB, "next": "B"}, B=task()), {"A": takes("1h")}, ["A/2", "B/1"], cancel_after="1m"
    ),
    "the finally again, after what failed": Case(FINAL, fails_once("B"), ["B/2", "F/2", "G/2"], "A"),
    "in the finally, where only that failed": Case(FINAL, fails_once("F"), ["F/2", "G/1"], "A B"),
    "from a step of a run that completed": Case(chain("A", "B", "C"), {}, ["B/2", "C/2"], "A", "B"),
    "from a step before the one that failed": Case(chain("A", "B", "C"), fails_once("C"), ["B/2", "C/2"], "A", "B"),
    "from a step in a branch: the others keep what they have": Case(FORK, {}, ["L2/2", "Z/2"], "A L R R2", "L2"),
    "from a step in a branch, while another had failed": Case(
        FORK, fails_once("R2"), ["L2/2", "R2/2", "Z/1"], "A L R", "L2"
    ),
    "from a Parallel: all of it": Case(FORK, {}, ["L/2", "R/2", "L2/2", "R2/2", "Z/2"], "A", "P"),
    "from a step in a Parallel whose failure was handled": Case(HANDLED, fails_once("L"), ["L/2", "Z/2"], "R", "L"),
    "from a Condition, which chooses again": Case(CHOOSES, {}, ["R/2", "J/2"], "", "C"),
    "from a step of the finally": Case(FINAL, {}, ["G/2"], "A B F", "G"),
    "from a step before the finally": Case(FINAL, {}, ["B/2", "F/2", "G/2"], "A", "B"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_redriven_run_goes_on(case):
    world = Simulation(case.definition, targets=case.targets)
    run_id = world.start({"left": False})
    if case.cancel_after:
        world.cancel(run_id, after=case.cancel_after)
    before = world.finish(run_id)
    world.redrive(run_id, case.start_from)
    after = world.finish(run_id)
    launched = [f"{x.node_name}/{x.attempt}" for x in after.all_launches[len(before.all_launches) :]]
    assert sorted(launched) == sorted(case.launched)
    for name in case.kept.split():
        assert after.node(name) == before.node(name)
    assert after.state.run.redrives == 1
    assert [name for name, node in after.state.nodes.items() if not node.status.is_final] == []


def test_what_a_route_had_caught_is_known_after_a_redrive_too():
    steps = dag(X=task(on_error=[{"next": "H"}]), H=task(parameters={"why": "${error.message}"}))
    world = Simulation(steps, targets={"X": fails(message="boom"), "H": fails(times=1)})
    run_id = world.start()
    world.finish(run_id)
    world.redrive(run_id)
    assert world.finish(run_id).launches("H")[-1].parameters == {"why": "boom"}


def test_what_a_route_had_caught_is_known_where_the_step_it_leads_to_was_held_and_cancelled():
    steps = dag(X=task(on_error=[{"next": "H"}]), H=task(parameters={"why": "${error.message}"}))
    world = Simulation(steps, targets={"X": fails(message="boom").after("1m")})
    run_id = world.start()
    world.pause(run_id)
    world.forward("2m")
    world.cancel(run_id)
    assert world.finish(run_id).node("H").status == "Cancelled"
    world.redrive(run_id)
    assert world.finish(run_id).launches("H")[-1].parameters == {"why": "boom"}


def test_a_retry_is_granted_anew_and_an_attempt_is_never_used_again():
    world = Simulation(dag(A=task(retry={"max_attempts": 2, "delay": "1s"})), targets={"A": fails(times=3)})
    run_id = world.start()
    assert world.finish(run_id).node("A").attempt == 2
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, run.node("A").attempt, run.node("A").failures) == ("Completed", 4, 1)


@pytest.mark.parametrize(
    ("targets", "start_from", "words"),
    [
        pytest.param(
            {}, None, "has completed, so there is nothing to redrive; --from STEP runs it again", id="completed"
        ),
        pytest.param({}, "Bb", 'has no step "Bb"; did you mean "B"?', id="an unknown step"),
        pytest.param({}, "Elsewhere", 'has no step "Elsewhere"; there are "A", "B"', id="nothing like it"),
        pytest.param({"A": fails()}, "B", "did not come by B", id="a step that was Skipped"),
        pytest.param({"A": never_ends()}, None, "is Running; it can be redriven once it has ended", id="it runs"),
    ],
)
def test_what_cannot_be_redriven_is_refused_with_what_is_so(targets, start_from, words):
    world = Simulation(chain("A", "B"), targets=targets)
    run_id = world.start()
    world.forward("10m")
    with pytest.raises(InputError) as refused:
        world.redrive(run_id, start_from)
    assert words in str(refused.value)
    assert world.run(run_id).state.run.redrives == 0


def test_the_table_is_derived_from_the_document_alone():
    world = Simulation(FORK, targets=fails_once("L"))
    run = world.finish(world.start())
    assert refusal(DAG(FORK), run.state, None) is None
    assert refusal(DAG(FORK), run.state, "Z") is not None


def test_a_redriven_run_waits_for_its_turn_as_one_that_starts():
    steps = {"start": "A", "max_active_runs": 1, "steps": {"A": task("B"), "B": task()}}
    world = Simulation(steps, targets={"B": fails(times=1)})
    first = world.start()
    world.finish(first)
    started_at = world.run(first).state.run.started_at
    world.forward("1m")
    second = world.start()
    world.redrive(first)
    assert world.run(first).status is RunStatus.QUEUED
    world.pause(first)
    world.forward("1ms")
    world.resume(first)
    world.finish(second)
    run = world.finish(first)
    assert (run.status, run.state.run.started_at, run.node("A").attempt) == ("Completed", started_at, 1)
    assert run.launches("B")[-1].attempt == 2


def test_a_redriven_run_that_is_cancelled_in_the_queue_ends():
    steps = {"start": "P", "max_active_runs": 1, "steps": {"P": parallel(chain("A"), chain("B"))}}
    world = Simulation(steps, targets={"B": fails(times=1).then(takes("1h"))})
    first = world.start()
    world.finish(first)
    second = world.start()
    world.redrive(first)
    world.cancel(first)
    run = world.finish(first)
    assert (run.status, run.node("P").status, run.node("A").status) == ("Cancelled", "Cancelled", "Completed")
    world.finish(second)
    world.redrive(first)
    assert world.finish(first).status == "Completed"


@pytest.mark.parametrize("result", [None, {"all": "${steps.A.result}"}], ids=["that of its last step", "its own"])
@pytest.mark.parametrize("size", [3, 70_000])
def test_a_run_of_which_only_the_finally_had_failed_has_its_result(result, size):
    definition = {**chain("A"), "finally": chain("F"), **({"result": result} if result else {})}
    world = Simulation(definition, targets={"A": returns("x" * size), "F": fails(times=1)})
    run_id = world.start()
    world.finish(run_id)
    world.redrive(run_id)
    state = world.finish(run_id).state
    assert state.run.status is RunStatus.COMPLETED
    told, stored = run_result(state)
    assert told is not None or stored is not None


# -- Maps ------------------------------------------------------------------------------------------------


def mapping(**keys):
    """A Map of two steps an item, and a step after it."""
    body = chain("F", "G")
    each = {"type": "Map", "items": "${run.input.items}", "iterator": body, "next": "E", "max_concurrency": 2}
    return dag(M={**each, **keys}, E=task(parameters={"all": "${steps.M.result}"}))


def mapped(world, items="abcdef"):
    run_id = world.start({"items": list(items)})
    return run_id, world.finish(run_id)


def launched_since(before, after):
    return sorted(f"{x.node_name}/{x.attempt}" for x in after.all_launches[len(before.all_launches) :])


def test_only_the_items_that_failed_or_never_ran_run_again_each_from_where_it_failed():
    world = Simulation(
        mapping(tolerated_failures=1),
        targets={"G[1]": fails(times=1).then(returns("one")), "F[2]": fails(times=1)},
        default=returns("ok"),
    )
    run_id, before = mapped(world)
    assert before.status == "Failed"
    began = before.node("M").items.started
    assert began < 6
    world.redrive(run_id)
    run = world.finish(run_id)
    never = [f"{step}[{index}]/1" for index in range(began, 6) for step in "FG"]
    assert launched_since(before, run) == sorted(["E/1", "F[2]/2", "G[1]/2", "G[2]/1", *never])
    assert run.launches("E")[-1].parameters == {"all": ["ok", "one", "ok", "ok", "ok", "ok"]}
    assert (run.node("M").items.failed, run.node("M").items.again) == ((), ())


def test_no_more_items_run_at_once_than_may():
    world = Simulation(mapping(tolerated_failures=5), targets={"F": fails(times=1).then(takes("1h"))})
    run_id, before = mapped(world)
    assert before.node("M").items.failed == (0, 1, 2, 3, 4, 5)
    world.redrive(run_id)
    at_once = set()
    while world.run(run_id).status == "Running":
        nodes = world.run(run_id).state.nodes.values()
        at_once.add(sum(node.node_name.startswith("F") and node.status == "Running" for node in nodes))
        world.forward("10m")
    assert max(at_once) == 2


def test_items_that_fail_again_make_it_fail_again_and_those_not_come_to_stay_as_they_were():
    world = Simulation(mapping(max_concurrency=1, tolerated_failures=1), targets={"F": fails()})
    run_id, before = mapped(world)
    assert before.node("M").items.failed == (0, 1)
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, run.node("M").items.failed, run.node("M").items.again) == ("Failed", (0, 1), ())
    world = Simulation(mapping(max_concurrency=1), targets={"F": fails()})
    run_id, _ = mapped(world)
    world.redrive(run_id)
    assert world.finish(run_id).node("F[0]").attempt == 2


def test_items_whose_failure_was_tolerated_are_kept_where_the_run_failed_behind_the_map():
    world = Simulation(mapping(tolerated_failures=1), targets={"F[1]": fails(), "E": fails(times=1)})
    run_id, before = mapped(world)
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, launched_since(before, run)) == ("Completed", ["E/2"])
    assert run.node("M") == before.node("M")


def test_from_a_step_of_an_item_an_item_and_the_map():
    world = Simulation(mapping(), default=returns("ok"))
    run_id, before = mapped(world, "abc")
    for chosen, expected in (
        ("G[1]", ["E/2", "G[1]/2"]),
        ("M[1]", ["E/3", "F[1]/2", "G[1]/3"]),
        ("M", ["E/4", "F[0]/2", "F[1]/3", "F[2]/2", "G[0]/2", "G[1]/4", "G[2]/2"]),
    ):
        world.redrive(run_id, chosen)
        run = world.finish(run_id)
        assert (run.status, launched_since(before, run)) == ("Completed", expected)
        before = run


def test_a_map_that_was_cancelled_goes_on_with_what_ran_and_with_what_never_did():
    world = Simulation(mapping(), targets={"G[1]": takes("1h")}, default=returns("ok"))
    run_id = world.start({"items": list("abcdef")})
    world.cancel(run_id, after="30s")
    before = world.finish(run_id)
    assert before.status == "Cancelled"
    world.redrive(run_id)
    run = world.finish(run_id)
    assert run.status == "Completed"
    assert all(launch.attempt == 1 for launch in run.all_launches)


def test_a_map_in_an_item_of_a_map_goes_on_in_its_own_items():
    inner = {"type": "Map", "items": [1, 2], "iterator": chain("X")}
    world = Simulation(
        dag(M={"type": "Map", "items": ["a", "b"], "iterator": dag(In=inner)}), targets={"X[1][0]": fails(times=1)}
    )
    run_id = world.start()
    before = world.finish(run_id)
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, launched_since(before, run)) == ("Completed", ["X[1][0]/2"])
