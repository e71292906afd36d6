"""orchestrator.testing as its users use it: what is told to happen happens, at its time, and is seen."""

import json
import logging
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.model.errors import DefinitionError, RunExists, SettingsError, UnknownDag
from orchestrator.testing import (
    Faults,
    OutOfTime,
    Simulation,
    SimulationError,
    WaitsForEver,
    calls,
    computes,
    fails,
    in_turn,
    is_cancelled,
    is_lost,
    never_ends,
    really,
    refuses,
    returns,
    simulate,
    takes,
)
from tests.support.world import chain, dag, parallel, task

ROOT = Path(__file__).resolve().parents[2]


def job(next: str | None = None, **keys) -> dict:
    """A step whose execution can be cancelled."""
    step = {"type": "Task", "target_type": "Dataflow", "target_name": "count", **keys}
    return {**step, **({"next": next} if next else {})}


def test_a_step_that_nobody_speaks_of_completes_after_a_second():
    run = simulate(chain("A", "B"))
    assert (run.status, run.path, run.result("B")) == ("Completed", ["A", "B"], None)
    assert run.took == timedelta(seconds=2)


def test_the_path_follows_the_definition_whatever_order_its_steps_stand_in():
    definition = {
        "start": "Z",
        "steps": {
            "A": task(),
            "P": parallel(chain("Y", "X"), dag(Q=parallel(chain("W"), chain("V"), next="U"), U=task()), next="A"),
            "Z": task("P"),
        },
    }
    run = simulate(definition)
    assert run.path == ["Z", "P", "Y", "Q", "W", "V", "X", "U", "A"]


def test_three_days_take_no_time_and_their_end_is_found_even_if_its_event_is_lost():
    run = simulate(chain("A", "B"), targets={"A": takes("3d").without_event()})
    assert run.status == "Completed"
    assert timedelta(days=3) < run.took <= timedelta(days=3, minutes=1, seconds=2)


def test_a_result_can_be_computed_from_the_parameters():
    steps = dag(A=task("B"), B=task("C", parameters={"n": "${steps.A.result}"}), C=task(parameters={"n": 1}))
    run = simulate(steps, targets={"A": returns(20), "B": lambda parameters: parameters["n"] + 1, "C": calls(f)})
    assert (run.result("B"), run.result("C")) == (21, {"n": 1})


def f(n: int) -> dict[str, int]:
    return {"n": n}


def test_what_a_computation_raises_fails_the_step_and_an_assertion_is_the_tests_own():
    def broken(parameters):
        raise KeyError("rows")

    def checks(parameters):
        assert parameters == {"rows": 3}, "no rows came"

    run = simulate(chain("A"), targets={"A": broken})
    assert (run.error.error_type, run.error.message) == ("Task.Failed", "KeyError: 'rows'")
    with pytest.raises(AssertionError, match="no rows came"):
        simulate(chain("A"), targets={"A": computes(checks)})


@pytest.mark.parametrize(
    ("does", "error_type", "attempt"),
    [
        pytest.param(fails("Load.NoQuota", "words"), "Load.NoQuota", 1, id="fails"),
        pytest.param(refuses("Dataflow.NotFound"), "Dataflow.NotFound", 1, id="is refused"),
        pytest.param(in_turn(is_lost(), fails("Load.Late")), "Load.Late", 2, id="is lost, then fails"),
        pytest.param(is_lost(), "Task.Lost", 101, id="is lost again and again"),
        pytest.param(never_ends(), "Task.Timeout", 1, id="never ends"),
        pytest.param(never_ends().hard_to_cancel(5), "Task.Timeout", 1, id="never ends and cannot be stopped at once"),
        pytest.param(returns().uncertainly(1000), "Task.Timeout", 1, id="no launch call is ever answered"),
    ],
)
def test_what_goes_wrong_is_in_the_run(does, error_type, attempt):
    run = simulate(dag(A=job("B", timeout="10m"), B=job()), targets={"A": does})
    assert (run.status, run.path) == ("Failed", ["A"])
    assert (run.node("A").error.error_type, run.node("A").attempt) == (error_type, attempt)
    assert run.node("B").status == "Skipped"


@pytest.mark.parametrize(
    "does",
    [
        pytest.param(is_lost().times(2), id="is lost twice"),
        pytest.param(returns().uncertainly(3), id="is launched by the fourth call"),
        pytest.param(returns().uncertainly(3, is_started=True), id="was launched by the first call"),
        pytest.param(returns().twice(), id="its event comes twice"),
        pytest.param(returns().with_event_after("2h"), id="its event comes late"),
    ],
)
def test_what_heals_ends_well_and_is_followed_once(does):
    run = simulate(dag(A=job("B"), B=job()), targets={"A": does})
    assert (run.status, run.path, len(run.launches("B"))) == ("Completed", ["A", "B"], 1)


def test_the_launches_of_a_step_do_one_after_another_what_they_are_told():
    lost = is_lost()
    does = lost.times(2).then(lost.after("1h")).then(returns(4))
    run = simulate(chain("A"), targets={"A": does})
    assert [launch.attempt for launch in run.launches("A")] == [1, 2, 3, 4]
    assert run.result("A") == 4
    assert timedelta(hours=1) < run.took < timedelta(hours=1, minutes=1)


def test_an_execution_that_somebody_cancelled_cancels_its_step():
    run = simulate(dag(A=job("B"), B=job()), targets={"A": is_cancelled()})
    assert run.node("A").status == "Cancelled"
    assert run.cancelled("A") == []


def test_a_run_can_be_cancelled_and_what_runs_is_cancelled_with_it():
    steps = dag(P=parallel(dag(A=job()), dag(B=job()), dag(C=job())))
    run = simulate(steps, default=takes("5h"), targets={"C": returns()}, cancel_after="2h")
    assert (run.status, run.took) == ("Cancelled", timedelta(hours=2))
    assert [len(run.cancelled(name)) for name in "ABC"] == [1, 1, 0]


def test_targets_go_by_step_then_by_target_then_by_default():
    steps = dag(A=job("B"), B=job("C", target_name="other"), C=job(target_name="third"))
    run = simulate(
        steps, targets={"A": returns("step"), "count": fails(), "other": returns("target")}, default=returns(3)
    )
    assert [run.result(name) for name in "ABC"] == ["step", "target", 3]


def test_variables_are_there_in_every_step_the_finally_included():
    steps = {"start": "A", "steps": {"A": {"type": "Pass", "result": "${var.project}"}}}
    last = {"start": "F", "steps": {"F": {"type": "Pass", "result": "${var.region}"}}}
    run = simulate({**steps, "finally": last}, variables={"project": "p", "region": "r", "other": 1})
    assert (run.path, run.result("A"), run.result("F")) == (["A", "F"], "p", "r")
    with pytest.raises(SettingsError, match=r"\$\{var.region\}"):
        simulate({**steps, "finally": last}, variables={"project": "p"})


def test_a_result_too_large_for_the_document_is_seen_all_the_same():
    steps = dag(A=task("B"), B={"type": "Pass", "result": "${size(steps.A.result)}"})
    run = simulate(steps, targets={"A": returns("x" * 70_000)})
    assert (run.result("B"), len(run.result("A")), len(str(run.document)) < 10_000) == (70_000, 70_000, True)


@pytest.mark.parametrize("refused", [0, 2])
def test_notifications_are_noted_each_once(refused):
    topic = "projects/p/topics/alerts"
    world = Simulation(
        {**chain("A"), "notify": [{"on": ["started", "failed"], "topic": topic}]},
        targets={"A": fails("Own.Error")},
        notifications_refused=refused,
    )
    run_id = world.start()
    world.finish(run_id)
    world.forward("1h")
    sent = world.run(run_id).notifications
    assert [(each.topic, each.payload["run"]["status"]) for each in sent] == [(topic, "Running"), (topic, "Failed")]


def test_a_step_that_launches_nothing_cannot_be_told_what_to_do():
    branches = parallel(chain("A"), chain("B"))
    for step in (branches, {"type": "Map", "items": [1], "iterator": chain("A")}, {"type": "Pass", "result": 1}):
        with pytest.raises(
            SimulationError, match='targets: "S" is a step that launches nothing; name a Task, or a target'
        ):
            simulate(dag(S=step), targets={"S": returns()})
    both = {"one": dag(S={"type": "Pass", "result": 1}), "two": dag(S=task())}
    assert simulate(both, dag="two", targets={"S": fails()}).status == "Failed", (
        "of two DAGs, one has a Task of the name"
    )


def test_a_name_that_is_no_step_and_no_target_is_an_error_with_a_hint():
    with pytest.raises(SimulationError, match='targets: no step and no target is called "Lode"; did you mean "Load"'):
        simulate(chain("Load"), targets={"Lode": returns()})
    with pytest.raises(SimulationError, match=r"targets.Load: is of type dict; allowed: a behaviour"):
        simulate(chain("Load"), targets={"Load": {"rows": 3}})
    with pytest.raises(SimulationError, match='has no node "Lode"; did you mean "Load"'):
        simulate(chain("Load")).node("Lode")
    with pytest.raises(ValueError, match="returns: result: is nan"):
        returns(float("nan"))


def test_an_item_is_found_by_its_name_in_whichever_part_it_runs():
    fetch = {"start": "F", "steps": {"F": job(parameters={"n": "${item}"})}}
    many = dag(M={"type": "Map", "items": "${run.input.of}", "max_concurrency": 1000, "iterator": fetch})
    run = simulate(many, input={"of": list(range(600))}, targets={"F": lambda parameters: parameters["n"]})
    assert run.result("F[0]") == 0
    assert run.result("F[599]") == 599
    assert [launch.attempt for launch in run.launches("F[599]")] == [1]
    assert run.cancelled("F[599]") == []
    assert [len(part.state.nodes) for part in run.parts] == [1001, 201]
    with pytest.raises(SimulationError, match=r'has no node "F\[600\]"'):
        run.node("F[600]")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pools": {"api": 0}}, "pools.api: is 0; allowed: 1 to 1000"),
        ({"starts_at": datetime(2026, 1, 1)}, "starts_at: 2026-01-01 00:00:00 has no time zone"),
        ({"cannot_be_cancelled": ["Cloud"]}, 'cannot_be_cancelled: "Cloud" is no target type; allowed: CloudFunction'),
        ({"without_outcome": ["Cloud"]}, 'without_outcome: "Cloud" is no target type'),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_a_world_cannot_be_made_of_is_told(keys, said):
    with pytest.raises(SimulationError, match=said):
        Simulation(dag(A=job()), **keys)


def test_a_definition_that_breaks_rules_is_an_error_with_all_of_them():
    with pytest.raises(DefinitionError) as wrong:
        simulate({"start": "X", "steps": {"A": {"type": "Tusk"}}})
    assert len(wrong.value.problems) >= 2


def test_a_run_that_would_never_end_says_what_it_waits_for():
    steps = dag(P=parallel(dag(A=task()), dag(B=job())))
    with pytest.raises(WaitsForEver) as waits:
        simulate(steps, targets={"A": never_ends()})
    assert "A is Running, attempt 1 at Function, which never ends, and it has no timeout" in str(waits.value)
    assert "B is Running" not in str(waits.value)


def test_a_run_that_is_given_too_little_time_says_what_it_waits_for():
    with pytest.raises(OutOfTime, match=r"A is Running, attempt 1 at Function; it was given 1d"):
        simulate(chain("A"), targets={"A": takes("2d")}, within="1d")


@pytest.mark.parametrize("seed", range(8))
def test_what_cannot_be_cancelled_is_waited_for_up_to_its_timeout_by_any_instance(seed):
    steps = {**dag(A=task(timeout="68m")), "timeout": "1s"}
    run = simulate(steps, targets={"A": never_ends()}, instances=3, seed=seed)
    assert timedelta(minutes=68) <= run.took <= timedelta(minutes=70)


def test_a_run_that_goes_on_without_an_end_is_given_up(monkeypatch):
    monkeypatch.setattr("orchestrator.testing.simulation.MAX_STEPS", 50)
    with pytest.raises(OutOfTime, match=r"A is Running.* that took 50 events and Ticks"):
        simulate(chain("A"), targets={"A": is_lost()})


def test_a_target_that_cannot_be_asked_has_a_default_timeout():
    world = Simulation(chain("A"), targets={"A": takes("30d")}, without_outcome=["Function"])
    run = world.finish(world.start())
    assert (run.error.error_type, run.took) == ("Task.Timeout", timedelta(hours=23))


def test_the_same_seed_is_the_same_run_and_another_one_another():
    def run(seed):
        faults = Faults(lost=0.4, twice=0.4, late=0.5, late_by="2h")
        steps = dag(
            P=parallel(*(dag(**{name: job("X" + name), "X" + name: job()}) for name in "ABCDE"), next="Z"), Z=job()
        )
        return simulate(steps, faults=faults, seed=seed, instances=3)

    assert run(1).document == run(1).document
    assert {run(seed).status for seed in range(10)} == {"Completed"}
    assert len({run(seed).took for seed in range(10)}) > 5


def test_its_seed_holds_where_several_executions_are_cancelled_at_once():
    def run():
        steps = dag(P=parallel(*(dag(**{name: job()}) for name in "ABCDE")))
        world = Simulation(steps, default=never_ends(), faults=Faults(lost=0.3, twice=0.3, late=0.5), seed=7)
        run_id = world.start()
        world.cancel(run_id)
        world.forward("3h")
        return world.run(run_id).document, world.broker.published

    assert run() == run()


def test_runs_of_one_simulation_share_its_time_and_nothing_else(caplog):
    world = Simulation(chain("A", "B"), targets={"A": lambda parameters: 1, "B": takes("1h")})
    first = world.start({"n": 1}, run_id="first")
    world.forward("30m")
    second = world.start({"n": 2}, run_id="second")
    with pytest.raises(RunExists):
        world.start({"n": 3}, run_id="second")
    assert world.finish(second).took == timedelta(hours=1, seconds=1)
    assert world.run(first).took == timedelta(hours=1, seconds=1)
    assert [run.run_id for run in world.runs] == ["first", "second"]
    assert world.dead_letters == world.problems == []
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_an_event_that_cannot_be_handled_is_kept_as_a_dead_letter():
    world = Simulation(chain("A"))
    run_id = world.start()
    world.send({"resource": {"type": "start"}, "dag": "none"}, after="10ms")
    world.finish(run_id)
    ((event, error),) = world.dead_letters
    assert event["dag"] == "none"
    assert 'there is no dag "none"' in str(error)


def test_a_path_may_be_a_folder_of_dags_a_dags_folder_or_a_file(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "dag.json").write_text(json.dumps(chain(name.title())))
    assert simulate(tmp_path, dag="two").path == ["Two"]
    assert simulate(tmp_path / "one").path == ["One"]
    assert simulate(str(tmp_path / "one"), dag="two").path == ["Two"]  # those beside it are known too
    assert simulate(tmp_path / "one/dag.json").path == ["One"]
    (tmp_path / "own.yaml").write_text("start: A\nsteps: {A: {type: Pass, result: 3}}\n")
    assert simulate(tmp_path / "own.yaml").result("A") == 3
    with pytest.raises(DefinitionError, match="there is no such file or folder"):
        simulate(tmp_path / "three")
    with pytest.raises(UnknownDag, match='there is no dag "tow"; did you mean "two"'):
        simulate(tmp_path, dag="tow")


def test_what_cannot_be_is_told_at_once():
    for wrong in ({"lost": 2}, {"late": -0.1}, {"late_by": "soon"}):
        with pytest.raises(ValueError, match=r"Faults|soon"):
            Faults(**wrong)
    with pytest.raises(ValueError, match="allowed: 1 or more"):
        fails(times=0)
    with pytest.raises(ValueError, match='"3 days" is not a duration'):
        takes("3 days")
    with pytest.raises(ValueError, match="in_turn: is empty"):
        in_turn()
    with pytest.raises(SimulationError, match="instances: is 0; allowed: 1 or more"):
        Simulation(chain("A"), instances=0)


STEPS = {
    "start": "A",
    "steps": {
        "A": {**job("W"), "retry": {"max_attempts": 4, "delay": "20m", "jitter": 0.5}},
        "W": {"type": "Wait", "for": "3h", "next": "P"},
        "P": parallel(dag(B=job(timeout="2h")), dag(C=job("D"), D=job()), dag(E=task())),
    },
}


@pytest.mark.parametrize("seed", range(4))
def test_leaving_out_ticks_that_could_change_nothing_changes_nothing(seed, monkeypatch):
    def run():
        return simulate(
            STEPS,
            targets={
                "A": fails(times=2).then(takes("90m").without_event()),
                "B": never_ends().hard_to_cancel(3),
                "C": returns().uncertainly(seed % 3),
                "D": in_turn(is_lost().after("5h"), takes("1d")),
            },
            faults=Faults(lost=0.4, twice=0.4, late=0.4, late_by="3h"),
            seed=seed,
        )

    some = run()
    monkeypatch.setattr("orchestrator.testing.ticks.IDLE_TICK", timedelta(minutes=1))
    assert run().document == some.document


# -- a step's own code -----------------------------------------------------------------------------------


def test_the_sample_runs_its_own_functions():
    run = simulate(ROOT / "dag_definitions/sample", default=really())
    assert run.status == "Completed", run
    assert run.result("Step1")["sum"] == 6
    assert run.result("Step2")["sentence"] == "One function serves two steps."


def test_some_steps_run_their_own_code_and_others_do_not(tmp_path):
    for name, word in (("one", "first"), ("two", "second")):
        folder = tmp_path / "both/functions" / name
        folder.mkdir(parents=True)
        (folder / "helper.py").write_text(f"WORD = {word!r}\n")
        (folder / "main.py").write_text(
            "def main(request):\n"
            "    from helper import WORD\n"
            "    if request.get_json().get('fail'):\n"
            "        raise ValueError('no rows')\n"
            "    return {'word': WORD, 'launch': request.args['orchestrator_launch']}\n"
        )
    steps = dag(
        A=task("B", target="one", target_type="CloudFunction", function="main"),
        B=task("C", target="two", target_type="CloudFunction", function="main"),
        C=task("D", function="builtins:dict", parameters={"n": 1}),
        D=job("E"),
        E=task("F", target="one", target_type="CloudFunction", function="main", parameters={"fail": True}),
        F=job(),
    )
    (tmp_path / "both/dag.json").write_text(json.dumps(steps))
    run = simulate(tmp_path / "both", default=really(), targets={"D": returns("fake")})
    assert [run.result(name) for name in "ACD"] == [
        {"word": "first", "launch": f"{run.run_id}/A/1"},
        {"n": 1},
        "fake",
    ]
    assert run.result("B")["word"] == "second"
    assert (run.error.error_type, run.error.node) == ("Task.Failed", "E")
    assert "HTTP 500: ValueError: no rows" in run.error.message


def test_code_that_is_not_there_is_a_refused_launch(tmp_path):
    run = simulate(dag(A=task(function="no.such:work")), default=really())
    assert run.error.error_type == "Function.NotFound"
    run = simulate(dag(A=task(target_type="CloudFunction", function="main")), default=really())
    assert run.error.error_type == "CloudFunction.NotFound"


def test_a_step_without_code_of_its_own_cannot_really_run():
    with pytest.raises(SimulationError, match=r"A: really\(\) cannot run a Dataflow step; allowed: Function and"):
        simulate(dag(A=job()), default=really())
