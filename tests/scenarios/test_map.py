"""docs/language/map.md, run: its examples, and each of its promises through the public surface."""

import json
import re
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.model.commands import Outcome
from orchestrator.model.definition import problems
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.testing import Faults, Simulation, fails, never_ends, returns, simulate, takes
from tests.support.children import children_of
from tests.support.command_line import Place, clean_environment
from tests.support.world import World, dag, parallel, task

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language" / "map.md").read_text()
EXAMPLES = {
    name: (json.loads(definition), json.loads(result))
    for name, definition, result in re.findall(
        r"<!-- example: (\w+) -->\n```json\n(.*?)^```.*?^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE
    )
}


def each(items, *, steps=None, **keys):
    """A Map of one Task, unless other steps are given."""
    return {"type": "Map", "items": items, "iterator": dag(**(steps or {"Do": task()})), **keys}


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_comes_to_what_the_page_says(place, name, capsys):
    definition, result = EXAMPLES[name]
    assert problems(definition) == []
    (place.root / name).mkdir()
    (place.root / name / "dag.json").write_text(json.dumps(definition))
    assert main(["run", name, "--run-id", "one"]) == 0
    last = [step for step, keys in definition["steps"].items() if "next" not in keys][-1]
    assert place.document("one")[last]["result"] == result
    assert PAGE.count("```json") == 2 * len(EXAMPLES) == 4


def test_the_unit_test_of_the_page_passes():
    names: dict = {}
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    exec(compile(block, "map.md", "exec"), names)
    names["test_one_file_that_fails_is_left_out"](EXAMPLES["sizes"][0])


# -- items -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        pytest.param({"files": {"a": 1}}, "M.items: ${run.input.files} is an object, no list", id="an object"),
        pytest.param({"files": "a,b"}, "M.items: ${run.input.files} is a string, no list", id="a string"),
        pytest.param({"file": []}, '${run.input.files}: run.input has no "files"; did you mean "file"?', id="missing"),
    ],
)
def test_items_that_are_no_list_fail_the_map_and_name_the_expression(given, words):
    run = simulate(dag(M=each("${run.input.files}")), input=given)
    assert (run.status, run.error.error_type, run.error.node) == ("Failed", "Map.BadItems", "M")
    assert words in run.error.message


def test_an_empty_list_completes_at_once_with_an_empty_list():
    run = simulate(dag(M={**each([]), "next": "After"}, After={"type": "Pass", "result": "${steps.M.result}"}))
    assert run.result("After") == []
    assert run.all_launches == ()


def test_a_list_of_more_items_than_are_allowed_fails_the_map():
    world = World(dag(M=each("${run.input.files}")), max_items=2)
    state = world.state(world.start(input={"files": [1, 2, 3]}))
    assert state.run.error.error_type == "Map.TooManyItems"
    assert state.run.error.message == "M.items: has 3 items; allowed: 2"


def test_what_items_a_map_has_is_settled_when_it_starts_and_its_document_grows_with_what_has_begun():
    world = World(dag(M=each(["${run.input.day}", 2, 3], max_concurrency=1)))
    run_id = world.start(input={"day": "monday"})
    assert set(world.state(run_id).nodes) == {"M", "M[0]", "Do[0]"}
    world.end("Do[0]", Outcome.completed("first"))
    state = world.state(run_id)
    assert set(state.nodes) == {"M", "M[0]", "Do[0]", "M[1]", "Do[1]"}
    assert state.nodes["M"].items.values == ["monday", 2, 3]
    assert (state.nodes["M"].items.started, state.nodes["M"].items.ended) == (2, 1)


def test_a_large_list_lies_beside_the_document_and_every_step_still_sees_its_item():
    rows = [{"name": f"{number}", "text": "x" * 2_000} for number in range(60)]
    steps = {"Do": task("Again", parameters={"name": "${item.name}"}), "Again": task(parameters={"n": "${size(item)}"})}
    definition = dag(M=each("${run.input.rows}", steps=steps, max_concurrency=7))
    run = simulate(definition, input={"rows": rows})
    assert run.status == "Completed"
    assert [run.launches(f"Do[{n}]")[0].parameters["name"] for n in range(60)] == [f"{n}" for n in range(60)]
    assert run.launches("Again[59]")[0].parameters == {"n": 2}
    assert run.document["M"]["items"]["stored"]["size_bytes"] > 120_000
    assert "values" not in run.document["M"]["items"]


def test_a_takeover_days_later_launches_an_item_with_what_it_had():
    rows = [{"name": f"{number}", "text": "x" * 2_000} for number in range(60)]
    definition = dag(M=each("${run.input.rows}", steps={"Do": task(parameters={"name": "${item.name}"})}))
    does = returns().uncertainly(3, is_started=False)
    run = simulate(definition, input={"rows": rows}, targets={"Do[3]": does})
    assert run.status == "Completed"
    assert run.launches("Do[3]")[0].parameters == {"name": "3"}


# -- results ---------------------------------------------------------------------------------------------


def test_the_result_is_the_list_of_the_items_results_whoever_ends_first():
    targets = {f"Do[{n}]": returns(f"r{n}").after(f"{9 - n}m") for n in range(5)}
    run = simulate(dag(M=each([0, 1, 2, 3, 4])), targets=targets)
    assert run.result("M") == ["r0", "r1", "r2", "r3", "r4"]


def test_results_of_any_size_become_one_result_beside_the_document():
    large = "x" * 70_000
    after = {"type": "Pass", "result": "${steps.M.result[2]}"}
    run = simulate(dag(M=each([1, 2, 3], next="After"), After=after), targets={"Do": returns(large), "Do[1]": fails()})
    assert run.status == "Failed"
    definition = dag(M=each([1, 2, 3], next="After", tolerated_failures=1), After=after)
    run = simulate(definition, targets={"Do": returns(large), "Do[1]": fails()})
    assert run.result("M") == [large, None, large]
    assert run.result("After") == large
    assert "result" not in run.document["M"]


def test_a_result_of_an_item_that_somebody_deleted_fails_the_map():
    world = World(dag(M=each([1, 2])))
    run_id = world.start()
    world.end("Do[0]", Outcome.completed("x" * 70_000))
    for name in world.store.list("results/"):
        world.store.delete(name)
    world.end("Do[1]", Outcome.completed("small"))
    error = world.state(run_id).run.error
    assert error.error_type == "Map.BadResult"
    assert error.message.endswith("is missing; it is the result of Do[0]")


# -- how many run, and how many may fail -----------------------------------------------------------------


def test_no_more_items_run_at_once_than_are_to_and_they_begin_in_their_order():
    world = World(dag(M=each(list(range(9)), max_concurrency=3)))
    run_id = world.start()
    for index in (2, 0, 1, 4, 3, 5, 7, 6, 8):
        running = [n for n, node in world.state(run_id).nodes.items() if node.attempt and not node.status.is_final]
        assert len(running) <= 3
        world.end(f"Do[{index}]")
    assert world.target.nodes == [f"Do[{n}]" for n in range(9)]
    assert world.state(run_id).run.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("tolerated", "failing", "status"),
    [
        (0, [], "Completed"),
        (0, [3], "Failed"),
        (2, [3, 7], "Completed"),
        (2, [3, 7, 8], "Failed"),
        ("20%", [3, 7], "Completed"),
        ("29.9%", [3, 7, 8], "Failed"),
        ("100%", list(range(10)), "Completed"),
    ],
)
def test_so_many_items_may_fail(tolerated, failing, status):
    definition = dag(M=each(list(range(10)), tolerated_failures=tolerated))
    run = simulate(definition, targets={f"Do[{n}]": fails("Own.Error", f"item {n}") for n in failing})
    assert run.status == status
    assert run.node("M").items.failed == tuple(failing)
    if status == "Failed":
        assert (run.error.error_type, run.error.node) == ("Own.Error", f"Do[{failing[0]}]")


def test_one_failure_too_many_begins_no_item_more_and_lets_those_that_run_end():
    targets = {"Do": takes("1h"), "Do[1]": fails("Own.Error")}
    run = simulate(dag(M=each(list(range(9)), max_concurrency=3)), targets=targets)
    assert [name for name in run.state.nodes if name.startswith("Do")] == ["Do[0]", "Do[1]", "Do[2]"]
    assert [run.node(f"M[{n}]").status for n in range(3)] == ["Completed", "Failed", "Completed"]
    assert run.all_cancelled == ()


def test_one_failure_too_many_may_stop_those_that_run():
    definition = dag(
        M=each(
            list(range(9)),
            steps={"Do": {**task(), "target_type": "BigQuery", "target_name": "q", "query": "SELECT 1"}},
            max_concurrency=3,
            on_failure="stop",
            on_error=[{"errors": ["Own.*"], "next": "Clean"}],
        ),
        Clean={"type": "Pass", "result": "${error.node}"},
    )
    for step in definition["steps"]["M"]["iterator"]["steps"].values():
        step.pop("function")
    run = simulate(definition, targets={"Do": never_ends(), "Do[1]": fails("Own.Error")})
    assert run.status == "Completed"
    assert run.result("Clean") == "Do[1]"
    assert {launch.node_name for launch in run.all_cancelled} == {"Do[0]", "Do[2]"}
    assert run.node("Do[0]").error.error_type == "Map.Stopped"


def test_retries_and_routes_inside_hold_for_each_item_by_itself():
    steps = {
        "Do": task(retry={"max_attempts": 3, "delay": "1m"}, on_error=[{"next": "Mend"}]),
        "Mend": {"type": "Pass", "result": "${error.node} of ${item}"},
    }
    targets = {"Do": returns("good"), "Do[1]": fails(times=2).then(returns("late")), "Do[2]": fails()}
    run = simulate(dag(M=each(["a", "b", "c"], steps=steps)), targets=targets)
    assert run.result("M") == ["good", "late", "Do[2] of c"]
    assert [run.node(f"Do[{n}]").attempt for n in range(3)] == [1, 3, 3]


# -- in one another, cancelled, paused -------------------------------------------------------------------

DEEP = dag(
    Before={"type": "Pass", "result": {"days": ["mon", "tue"]}, "next": "P"},
    P=parallel(
        dag(
            Days=each(
                "${steps.Before.result.days}",
                steps={
                    "Day": {"type": "Pass", "result": "${item}", "next": "Both"},
                    "Both": parallel(
                        dag(
                            Hours=each(
                                "${[index, index + 10]}",
                                steps={
                                    "Pick": {
                                        "type": "Condition",
                                        "choices": [{"when": "${item > 5}", "next": "Rest"}],
                                        "default": "Hour",
                                    },
                                    "Rest": {"type": "Wait", "for": "1h", "next": "Hour"},
                                    "Hour": task(parameters={"day": "${steps.Day.result}", "hour": "${item}"}),
                                },
                            )
                        ),
                        dag(Side=task(parameters={"day": "${item}"})),
                        next="Sum",
                    ),
                    "Sum": {"type": "Pass", "result": "${size(steps.Hours.result)} ${steps.Hours.status}"},
                },
            )
        ),
        next="After",
    ),
    After=task(parameters={"sums": "${steps.Days.result}"}),
)


def test_maps_stand_in_parallels_and_in_one_another():
    assert problems(DEEP) == []
    run = simulate(DEEP)
    assert run.status == "Completed"
    assert run.launches("Hour[1][0]")[0].parameters == {"day": "tue", "hour": 1}
    assert run.launches("Hour[0][1]")[0].parameters == {"day": "mon", "hour": 10}
    assert run.launches("Side[1]")[0].parameters == {"day": "tue"}
    assert run.launches("After")[0].parameters == {"sums": ["2 Completed", "2 Completed"]}


def test_a_cancel_reaches_every_item_and_begins_none():
    run = simulate(DEEP, targets={"Hour": takes("5h")}, cancel_after="30m")
    assert run.status == "Cancelled"
    assert run.node("Days").status == "Cancelled"
    assert all(node.status.is_final for node in run.state.nodes.values())
    assert run.launches("After") == []


def test_a_run_out_of_time_stops_its_maps():
    definition = {**dag(M=each(list(range(99)))), "timeout": "2h"}
    run = simulate(definition, targets={"Do": takes("45m")})
    assert (run.status, run.error.error_type) == ("Failed", "Run.Timeout")
    assert run.node("M").items.started == 30
    assert run.node("M").status is TaskStatus.CANCELLED


def test_a_map_that_tolerates_failures_is_cancelled_all_the_same():
    run = simulate(dag(M=each([1, 2], tolerated_failures=2)), targets={"Do": takes("2h")}, cancel_after="1h")
    assert run.status in ("Cancelled", "Completed")
    waits = dag(M=each([1, 2], steps={"W": {"type": "Wait", "for": "2h"}}, tolerated_failures=2))
    run = simulate(waits, cancel_after="1h")
    assert (run.status, run.node("M").status) == ("Cancelled", "Cancelled")


def test_a_paused_run_begins_no_task_of_an_item_until_it_is_resumed():
    world = Simulation(dag(M=each(list(range(6)), max_concurrency=2)), targets={"Do": takes("1h")})
    run_id = world.start()
    world.forward("30m")
    world.pause(run_id)
    world.forward("10h")
    assert len(world.run(run_id).all_launches) == 2
    world.resume(run_id)
    run = world.finish(run_id)
    assert run.status == "Completed"
    assert len(run.all_launches) == 6


def test_a_map_in_a_finally_runs_for_its_items():
    definition = {
        **dag(A=task()),
        "finally": dag(M=each(["a", "b"], steps={"Tell": task(parameters={"x": "${item}"})})),
    }
    run = simulate(definition, targets={"A": fails()})
    assert run.status == "Failed"
    assert [run.launches(f"Tell[{n}]")[0].parameters["x"] for n in range(2)] == ["a", "b"]


# -- what may be asked -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        pytest.param(
            dag(M=each([1], next="B"), B=task(parameters={"x": "${steps.Do.result}"})),
            'steps.B.parameters.x: ${steps.Do.result}: "Do" runs once an item; outside of "M" '
            "ask for the result of that; "
            'only steps that have ended before "B" starts have a result',
            id="a step inside, from outside",
        ),
        pytest.param(
            {**dag(M=each([1])), "finally": dag(B=task(parameters={"x": "${steps.Do.status}"}))},
            'finally.steps.B.parameters.x: ${steps.Do.status}: "Do" runs once an item; outside of "M" '
            'ask for the result of that; only steps that have ended before "B" starts have a result',
            id="a step inside, from the finally",
        ),
        pytest.param(
            dag(A=task(parameters={"x": "${item}"})),
            'steps.A.parameters.x: ${item}: there is no "item" here; there is "run", "steps", "var"',
            id="the item of no Map",
        ),
        pytest.param(
            dag(M=each("${item}")),
            'steps.M.items: ${item}: there is no "item" here; there is "run", "steps", "var"',
            id="its own item",
        ),
        pytest.param(
            dag(M=each([1], steps={"Do": task(parameters={"x": "${steps.M.result}"})})),
            'steps.M.iterator.steps.Do.parameters.x: ${steps.M.result}: "M" holds this step and ends after it; '
            'only steps that have ended before "Do" starts have a result',
            id="the Map around it",
        ),
        pytest.param(
            dag(M=each("files ${run.input.x}")),
            'steps.M.items: "files ${run.input.x}" is no list; '
            "write one, or an expression alone, as in ${steps.A.result.files}",
            id="items in a text",
        ),
        pytest.param(
            dag(M=each([1], tolerated_failures="200%")),
            'steps.M.tolerated_failures: "200%" is not a share; write it as in "10%", at most 100%',
            id="more than all",
        ),
        pytest.param(
            dag(M=each([1], max_concurrency=0)),
            "steps.M.max_concurrency: is 0; allowed: a whole number from 1 to 1000",
            id="none at once",
        ),
        pytest.param(
            dag(M={"type": "Map", "items": [1]}),
            "steps.M.iterator: is missing; a Map needs it",
            id="no iterator",
        ),
        pytest.param(
            dag(A=task("M"), M=each([1], steps={"A": task()})),
            'steps.M.iterator.steps.A: the name "A" is taken by steps.A; names are unique over all branches',
            id="a name taken",
        ),
    ],
)
def test_what_cannot_be_is_found_by_validate(definition, words):
    assert words in [re.sub(r"(there is \"run\", \"steps\", \"var\").*", r"\1", each) for each in problems(definition)]


def test_six_maps_in_one_another_are_too_many():
    definition = dag(S0=task())
    for level in range(1, 7):
        assert problems(definition) == []
        definition = dag(**{f"S{level}": {"type": "Map", "items": [1], "iterator": definition}})
    assert [each.partition(": ")[2] for each in problems(definition)] == [
        "is nested too deeply; allowed: 5 levels of Maps"
    ]


# -- on the command line ---------------------------------------------------------------------------------


def test_a_map_is_one_line_with_its_counts_and_its_failed_items(place, capsys):
    steps = {"Do": place.task("boom", message="item ${item}")}
    place.dag("many", {"M": each(list(range(30)), steps=steps, tolerated_failures=3, max_concurrency=1)})
    assert main(["run", "many", "--run-id", "one"]) == 1
    capsys.readouterr()
    assert main(["status", "one"]) == 1
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("M ")]
    assert "4 of 30 items, 4 failed: 0, 1, 2, 3" in row
    assert len(lines) < 20
    assert main(["graph", "one"]) == 0
    drawn = capsys.readouterr().out
    assert "Failed, 4 of 30 items, 4 failed" in drawn
    assert drawn.count("boom") == 1
    assert "Failed 4" in drawn


def test_the_log_of_a_step_of_a_map_is_that_of_all_its_items_or_of_one(place, capsys):
    place.dag("many", {"M": each(["a", "b"], steps={"Do": place.task("echo", value="${item}")})})
    assert main(["run", "many", "--run-id", "one"]) == 0
    assert main(["logs", "one", "Do"]) == 0
    assert main(["logs", "one", "Do[1]"]) == 0
    assert main(["logs", "one", "Do[7]"]) == 2
    assert 'there is no node "Do[7]"' in capsys.readouterr().err


# -- parts -----------------------------------------------------------------------------------------------


def many(count, **keys):
    """A definition whose Map becomes parts above 100 items."""
    steps = {
        "Do": task("Say", parameters={"item": "${item}", "run": "${run.run_id}", "pre": "${steps.Before.result.pre}"}),
        "Say": {"type": "Pass", "result": "${item}: ${index} of ${run.input.count}"},
    }
    return dag(
        Before={"type": "Pass", "result": {"pre": "x" * 70_000}, "next": "M"},
        M=each("${run.input.rows}", steps=steps, next="After", **keys),
        After={"type": "Pass", "result": "${[steps.M.result[0], steps.M.result[1100]]}"},
    ), {"rows": [f"r{number}" for number in range(count)], "count": count}


def test_a_long_list_runs_as_parts_that_see_what_they_would_see_in_one_run():
    definition, given = many(1_200, max_concurrency=120)
    world = Simulation(definition)
    run = world.finish(world.start(given))
    assert run.status == "Completed"
    assert run.result("After") == ["r0: 0 of 1200", "r1100: 1100 of 1200"]
    assert run.result("M") == [f"r{number}: {number} of 1200" for number in range(1_200)]
    assert set(run.state.nodes) == {"Before", "M", "After", "M[0]", "M[1]", "M[2]"}
    parts = children_of(world, run.run_id)
    assert sorted(len(part.all_launches) for part in parts) == [200, 500, 500]
    for part in parts:
        assert {launch.parameters["run"] for launch in part.all_launches} == {run.run_id}
        assert {launch.parameters["pre"] for launch in part.all_launches} == {"x" * 70_000}
        assert part.notifications == ()
    assert [run.node(f"M[{n}]").slice.at_once for n in range(3)] == [40, 40, 40]
    world.forward("2m")
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []


@pytest.mark.parametrize(
    ("asked", "kept"),
    [("${run.input.count}", ["count"]), ("${size(run.input)}", ["count", "rows"]), ("${run.input.cout}", [])],
)
def test_a_part_has_of_the_run_s_input_what_is_asked_about_in_it(asked, kept):
    given = {"rows": list(range(101)), "count": 101}
    steps = {"Do": {"type": "Pass", "result": {"of": asked}}}
    world = Simulation(dag(M=each("${run.input.rows}", steps=steps)))
    run = world.finish(world.start(given))
    assert [sorted(part.state.run.input) for part in children_of(world, run.run_id)] == [kept]
    assert run.status == ("Completed" if kept else "Failed")


def test_a_hundred_items_stand_in_the_runs_own_document():
    world = Simulation(dag(M=each(list(range(100)))))
    assert len(world.finish(world.start()).state.nodes) == 201
    assert len(world.runs) == 1


@pytest.mark.parametrize(("tolerated", "status"), [(4, "Completed"), (3, "Failed"), ("1%", "Completed")])
def test_failures_are_tolerated_over_all_parts_together(tolerated, status):
    definition, given = many(1_200, tolerated_failures=tolerated)
    failing = (3, 600, 601, 1_199)
    world = Simulation(definition, targets={f"Do[{number}]": fails("Own.Error") for number in failing})
    run = world.finish(world.start(given))
    assert run.status == status
    if status == "Completed":
        assert run.node("M").items.failed == failing
        assert [n for n, result in enumerate(run.result("M")) if result is None] == list(failing)
    else:
        assert run.error.error_type == "Own.Error"
        assert run.error.node == "M[2]"
        assert "Do[1199]" in run.error.message


def test_failures_of_parts_that_ran_at_once_are_too_many_together():
    definition, given = many(1_000, tolerated_failures=1, max_concurrency=100)
    world = Simulation(definition, targets={"Do[3]": fails("Own.Error"), "Do[700]": fails("Own.Error")})
    run = world.finish(world.start(given))
    assert run.error.error_type == "Map.TooManyFailures"
    assert run.error.message == "M: 2 of 1,000 items have not completed; the first is 3"


def test_a_part_that_fails_begins_no_part_more():
    definition, given = many(1_200)
    world = Simulation(definition, targets={"Do[3]": fails("Own.Error")})
    run = world.finish(world.start(given))
    assert (run.status, run.error.error_type) == ("Failed", "Own.Error")
    assert len(children_of(world, run.run_id)) == 1
    assert run.node("M").items.begun_parts == 1


def test_a_cancel_reaches_the_items_of_all_parts():
    definition, given = many(1_200, max_concurrency=120)
    world = Simulation(definition, targets={"Do": takes("1h")})
    run_id = world.start(given)
    world.cancel(run_id, after="90m")
    run = world.finish(run_id)
    world.forward("1d")
    assert run.status == "Cancelled"
    assert [part.status for part in children_of(world, run_id)] == ["Cancelled"] * 3
    assert sum(len(part.all_launches) for part in children_of(world, run_id)) == 240
    assert list(world.store.list("open/")) == []


def test_too_many_failures_may_stop_the_parts_that_run():
    definition, given = many(1_200, max_concurrency=120, on_failure="stop")
    world = Simulation(definition, targets={"Do": takes("1h"), "Do[600]": fails("Own.Error")})
    run = world.finish(world.start(given))
    assert (run.status, run.error.error_type) == ("Failed", "Own.Error")
    assert run.node("M[0]").error.message == "M: part 1 has not completed"
    world.forward("2h")  # what runs in a part that was cancelled ends in its own time
    assert sum(len(part.all_launches) for part in children_of(world, run.run_id)) < 600
    assert [part.status.value for part in children_of(world, run.run_id)].count("Cancelled") == 2


def test_a_map_of_parts_in_an_item_of_a_map_and_in_a_finally():
    inner = each("${run.input.rows}", steps={"Do": task(parameters={"x": "${steps.Keep.result}-${item}-${index}"})})
    outer = each(["a", "b"], steps={"Keep": {"type": "Pass", "result": "${item}", "next": "N"}, "N": inner})
    last = each("${run.input.rows}", steps={"Tell": task(parameters={"x": "${run.status} ${error.type}"})})
    definition = {**dag(M=outer), "finally": dag(F=last)}
    definition["steps"]["M"]["next"] = "Fails"
    definition["steps"]["Fails"] = task()
    world = Simulation(definition, targets={"Fails": fails("Own.Error"), "Do": lambda given: given["x"]})
    run = world.finish(world.start({"rows": list(range(101))}))
    assert run.status == "Failed"
    assert run.result("M") == [[f"{item}-{number}-{number}" for number in range(101)] for item in "ab"]
    told = [
        launch for part in children_of(world, run.run_id) for launch in part.all_launches if "Tell" in launch.node_name
    ]
    assert {launch.parameters["x"] for launch in told} == {"Failed Own.Error"}
    assert len(told) == 101


def test_what_gets_lost_doubled_and_late_stops_no_part():
    definition, given = many(1_101, max_concurrency=150, tolerated_failures=3)
    for seed in range(3):
        world = Simulation(
            definition, seed=seed, instances=3, faults=Faults(lost=0.3, twice=0.3, late=0.3, late_by="10m")
        )
        run = world.finish(world.start(given))
        assert run.status == "Completed"
        launches = [launch.launch_id for part in children_of(world, run.run_id) for launch in part.all_launches]
        assert len(launches) == len(set(launches)) == 1_101
        assert world.dead_letters == world.problems == []


def test_parts_are_run_from_the_command_line_and_shown_as_one_line(place, capsys):
    place.dag("many", {"M": each("${run.input.rows}", steps={"Do": place.task("echo", value="${item}")})})
    (place.root / "input.json").write_text(json.dumps({"rows": list(range(130))}))
    assert main(["run", "many", "--run-id", "one", "--input", "input.json"]) == 0
    assert place.document("one")["M"]["result"] == list(range(130))
    capsys.readouterr()
    assert main(["status", "one"]) == 0
    said = capsys.readouterr().out
    assert "130 of 130 items" in said
    assert "Do[" not in said
