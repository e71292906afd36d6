"""Dag Tasks: a child run is made once for a launch, whatever is lost, doubled or killed, and its end is its step's."""

import json
import sys
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.engine.pruning import Pruner
from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, RunExists
from orchestrator.model.messages import begin_message, start_message
from orchestrator.model.run_state import child_of
from orchestrator.testing import Faults, Simulation, fails, returns, takes
from tests.support.children import Family, child, children_of, dag, job
from tests.support.command_line import Place, clean_environment, until

KID = dag(("Work", job(parameters={"day": "${run.input.day}"})), result={"rows": "${steps.Work.result.rows}"})
FAMILY = {
    "parent": dag(
        ("Load", child(parameters={"day": "${run.input.day}"})),
        ("Tell", {"type": "Pass", "result": "${steps.Load.result.rows} rows"}),
    ),
    "kid": KID,
}


def test_a_child_run_has_the_parameters_as_its_input_and_its_result_is_the_step_s():
    world = Simulation(FAMILY, targets={"Work": returns({"rows": 7})})
    run = world.finish(world.start({"day": "monday"}, dag="parent"))
    assert (run.status, run.result("Load"), run.result("Tell")) == ("Completed", {"rows": 7}, "7 rows")
    (kid,) = children_of(world, run.run_id)
    about = kid.state.run
    assert (about.dag, about.input, about.result) == ("kid", {"day": "monday"}, {"rows": 7})
    assert (about.parent.node, about.parent.attempt, about.parent.depth) == ("Load", 1, 1)
    assert kid.run_id == run.node("Load").execution_id == child_of(run.run_id, run.node("Load"))
    assert about.message_id == f"{run.run_id}/Load/1"
    assert kid.launches("Work")[0].parameters == {"day": "monday"}


def test_each_item_of_a_map_may_be_a_child_run():
    inner = dag(("Each", child(parameters={"day": "${item}"})))
    family = {"parent": dag(("All", {"type": "Map", "items": ["mon", "tue"], "iterator": inner})), "kid": KID}
    world = Simulation(family, targets={"Work": lambda parameters: {"rows": len(parameters["day"])}})
    run = world.finish(world.start(dag="parent"))
    assert run.result("All") == [{"rows": 3}, {"rows": 3}]
    kids = {kid.state.run.parent.node: kid.state.run.input for kid in children_of(world, run.run_id)}
    assert kids == {"Each[0]": {"day": "mon"}, "Each[1]": {"day": "tue"}}


def test_a_child_run_is_for_the_time_that_its_parent_is_for():
    world = Simulation(FAMILY, targets={"Work": returns({"rows": 7})})
    world.send({**start_message("parent", {"day": "x"}), "scheduled_for": "2026-01-01T06:30:00Z"})
    world.forward("1h")
    parent, kid = sorted(world.runs, key=lambda run: run.state.run.dag != "parent")
    assert kid.state.run.scheduled_for == parent.state.run.scheduled_for is not None


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 2**32),
    st.sampled_from([Faults(lost=0.5), Faults(twice=1.0), Faults(late=0.7), Faults(lost=0.4, twice=0.4, late=0.4)]),
    st.integers(1, 3),
)
def test_whatever_is_lost_doubled_or_late_each_launch_makes_one_child_run(seed, faults, instances):
    definition = {
        "parent": dag(("Both", {"type": "Parallel", "branches": [
            dag(("A", child("middle"))), dag(("B", child("middle", retry={"max_attempts": 2, "delay": "1m"})))]})),
        "middle": dag(("Down", child("kid", parameters={"day": "x"}))),
        "kid": KID,
    }  # fmt: skip
    world = Simulation(
        definition,
        targets={"Work": returns({"rows": 1})},
        seed=seed,
        faults=faults,
        instances=instances,
    )
    run = world.finish(world.start(dag="parent"))
    assert run.status == "Completed"
    by_dag = sorted(each.state.run.dag for each in world.runs)
    assert by_dag == ["kid", "kid", "middle", "middle", "parent"]
    for each in world.runs:
        assert each.status == "Completed"
        assert len(each.all_launches) == len({launch.launch_id for launch in each.all_launches})
    world.close()


@pytest.mark.parametrize(
    ("definitions", "error_type", "words"),
    [
        ({"parent": dag(("Load", child("kit"))), "kid": KID}, "Dag.NotFound", 'no dag "kit"; did you mean "kid"?'),
        (
            {"parent": dag(("Load", child("kid"))), "kid": {**KID, "input_schema": {"required": ["day"]}}},
            "Dag.BadInput",
            "day",
        ),
        ({"parent": dag(("Load", child("kid"))), "kid": {"steps": {}}}, "Dag.BadDefinition", "kid: "),
        (
            {"parent": dag(("Load", child("kid"))), "kid": dag(("A", {"type": "Pass", "result": "${var.nobody}"}))},
            "Dag.NoVariable",
            "${var.nobody}",
        ),
        ({"parent": dag(("Load", child("parent")))}, "Dag.TooDeep", "allowed are 8 child runs in one another"),
    ],
    ids=["no such DAG", "an input that breaks its schema", "broken rules", "no variable", "a DAG that starts itself"],
)  # fmt: skip
def test_what_cannot_be_started_fails_the_step_and_leaves_no_run(definitions, error_type, words):
    with DAGExecutor(definitions, "memory://") as executor:
        run = executor.wait(executor.start("parent"), 20)
        runs = list(executor.store.list("runs/"))
    assert (run.run.status, run.run.error.error_type) == (RunStatus.FAILED, error_type)
    assert words in run.nodes["Load"].error.message
    assert len(runs) == (9 if error_type == "Dag.TooDeep" else 1)


def test_defaults_of_the_child_s_input_schema_are_filled_in():
    schema = {"properties": {"day": {"default": "today"}}}
    world = Simulation({"parent": dag(("Load", child())), "kid": {**KID, "input_schema": schema}},
                       targets={"Work": returns({"rows": 1})})  # fmt: skip
    run = world.finish(world.start(dag="parent"))
    assert children_of(world, run.run_id)[0].state.run.input == {"day": "today"}


def test_a_child_that_fails_fails_its_step_with_its_own_class_and_a_retry_is_a_new_child():
    retrying = dag(("Load", child(retry={"errors": ["Dataflow.JobFailed"], "max_attempts": 3, "delay": "1m"})))
    world = Simulation(
        {"parent": retrying, "kid": dag(("Work", job()))}, targets={"Work": fails("Dataflow.JobFailed", "no quota")}
    )
    run = world.finish(world.start(dag="parent"))
    assert run.error.error_type == "Dataflow.JobFailed"
    assert run.error.message.endswith("Work: no quota")
    kids = children_of(world, run.run_id)
    assert sorted(kid.state.run.parent.attempt for kid in kids) == [1, 2, 3]
    assert len({kid.run_id for kid in kids}) == 3


def test_cancelling_the_parent_cancels_the_child_and_what_runs_in_it():
    world = Simulation(FAMILY, targets={"Work": takes("3d")})
    run_id = world.start({"day": "x"}, dag="parent")
    world.cancel(run_id, "wrong day", after="1h")
    run = world.finish(run_id)
    assert (run.status, run.took) == ("Cancelled", timedelta(hours=1))
    (kid,) = children_of(world, run_id)
    assert kid.status == "Cancelled"
    assert [launch.node_name for launch in kid.all_cancelled] == ["Work"]


def test_a_cancel_that_the_child_has_lost_is_asked_for_again_until_it_has_taken_it_in():
    for seed in range(12):
        world = Simulation(FAMILY, targets={"Work": takes("3d")}, seed=seed, faults=Faults(lost=0.6))
        run_id = world.start({"day": "x"}, dag="parent")
        world.forward("2h")
        world._execute({"resource": {"type": "cancel"}, "run_id": run_id}, "cancel", world.clock.now())
        run = world.finish(run_id)
        (kid,) = children_of(world, run_id)
        assert (run.status, kid.state.run.stop is not None) == ("Cancelled", True)
        assert world.finish(kid.run_id).status == "Cancelled"


def test_the_step_s_timeout_cancels_the_child():
    family = {**FAMILY, "parent": dag(("Load", child(timeout="2h", parameters={"day": "x"})))}
    world = Simulation(family, targets={"Work": takes("3d")})
    run = world.finish(world.start(dag="parent"))
    assert (run.error.error_type, children_of(world, run.run_id)[0].status) == ("Task.Timeout", "Cancelled")


def test_a_child_at_its_finally_ends_by_itself_and_the_parent_waits_for_it():
    kid = {**dag(("Work", job())), "finally": dag(("Clean", job("clean")))}
    world = Simulation({"parent": dag(("Load", child())), "kid": kid}, targets={"Clean": takes("5h")})
    run_id = world.start(dag="parent")
    world.cancel(run_id, after="1h")
    run = world.finish(run_id)
    assert run.status == "Cancelled"
    assert run.took >= timedelta(hours=5)
    assert children_of(world, run_id)[0].node("Clean").status == "Completed"


def test_cancelling_the_child_itself_fails_its_step_as_cancelled():
    world = Simulation(FAMILY, targets={"Work": takes("3d")})
    run_id = world.start({"day": "x"}, dag="parent")
    world.forward("1m")
    (kid,) = children_of(world, run_id)
    world.cancel(kid.run_id, "by hand")
    run = world.finish(run_id)
    assert (run.status, run.node("Load").status, run.error.error_type) == ("Failed", "Cancelled", "Task.Cancelled")
    assert "by hand" in run.error.message


def test_a_result_of_any_size_comes_from_a_child():
    large = {"rows": ["x" * 1000] * 300}
    kid = {"start": "A", "steps": {"A": {"type": "Pass", "result": large}}}
    own = {**kid, "result": {"all": "${steps.A.result.rows}"}}
    for definition, expected in ((kid, large), (own, {"all": large["rows"]})):
        with DAGExecutor({"parent": dag(("Load", child())), "kid": definition}, "memory://") as executor:
            run = executor.wait(executor.start("parent"), 20)
            assert run.nodes["Load"].stored_result is not None
            assert executor.result_of(run, "Load") == expected
            assert executor.result_of_run(run) == expected


def test_a_child_tells_of_its_start_and_its_end_once_each_and_only_when_it_has_begun():
    told = [{"on": ["started", "completed"], "topic": "projects/p/topics/told"}]
    family = {**FAMILY, "kid": {**KID, "notify": told}}
    world = Simulation(family, targets={"Work": returns({"rows": 1})})
    run = world.finish(world.start({"day": "x"}, dag="parent"))
    world.forward("10m")
    assert run.notifications == ()
    (kid,) = children_of(world, run.run_id)
    assert [each.payload["event"] for each in kid.notifications] == ["started", "completed"]


def test_hundreds_of_children_that_end_at_once_follow_one_another(caplog):
    quick = dag(("A", {"type": "Pass", "result": 1}))
    with DAGExecutor({"parent": dag(*((f"S{n}", child()) for n in range(300))), "kid": quick}, "memory://") as executor:
        run = executor.wait(executor.start("parent"), 60)
    assert run.run.status is RunStatus.COMPLETED
    assert [record.getMessage() for record in caplog.records] == []


# -- the target by itself ------------------------------------------------------------------------------

LAUNCH = Launch("Load", "Dag", "kid", {"day": "x"}, run_id="run_1_000000000000", nonce="n")


@pytest.fixture
def family():
    made = Family({**FAMILY, "kid": dag(("A", {"type": "Pass", "result": 1}))})
    yield made
    made.executor.close()


def test_a_launch_made_twice_is_one_child_run_that_begins_once(family):
    first = family.target.launch(LAUNCH)
    assert family.target.launch(LAUNCH) == first == family.target.find(LAUNCH)
    made = family.state(first.execution_id)
    assert (made.run.status, made.nodes["A"].status) == (RunStatus.RUNNING, TaskStatus.NEW)
    assert family.target.outcome(first) is None
    assert family.published == [begin_message(first.execution_id)] * 2
    for message in family.published:
        family.executor.execute(message)
    assert family.target.outcome(first) == Outcome.completed(1)
    assert family.target.launch(LAUNCH) == first
    assert len(list(family.store.list("runs/"))) == 1


def test_a_child_that_nobody_tells_to_begin_is_begun_by_the_tick(family):
    made = family.target.launch(LAUNCH)
    family.executor.tick()
    assert family.target.outcome(made) == Outcome.completed(1)


def test_there_is_no_child_of_a_launch_that_was_never_made(family):
    assert family.target.find(LAUNCH) is None


def test_an_id_that_another_run_has_is_an_error_and_not_that_run(family):
    run_id = child_of(LAUNCH.run_id, replace_node())
    family.executor.start("kid", run_id=run_id)
    with pytest.raises(LaunchRefused, match="another message") as refused:
        family.target.launch(LAUNCH)
    assert refused.value.error_type == "Dag.RunExists"


def replace_node():
    from datetime import UTC, datetime

    from orchestrator.model.node_state import NodeState

    at = datetime.fromtimestamp(0, UTC)
    return NodeState(
        node_name="Load", node_type="Task", target_type="Dag", status=TaskStatus.RUNNING, attempt=1, started_at=at
    )


def test_a_start_message_cannot_take_the_id_of_a_child(family):
    made = family.target.launch(LAUNCH)
    with pytest.raises(RunExists):
        family.executor.start("kid", run_id=made.execution_id)


def test_a_child_that_was_pruned_is_an_error_and_never_a_new_one(family):
    made = family.target.launch(LAUNCH)
    family.executor.execute(begin_message(made.execution_id))
    now = family.state(made.execution_id).run.ended_at + timedelta(hours=3)
    pruned = Pruner(family.store, now, 3600.0, lambda _: True, is_all=True).prune()
    assert pruned.runs == [made.execution_id]
    assert family.target.outcome(made).error.error_type == "Dag.Pruned"
    with pytest.raises(LaunchRefused, match="was pruned"):
        family.target.launch(LAUNCH)


def test_pruning_keeps_the_children_of_a_run_that_has_not_ended():
    world = Simulation(
        {"parent": dag(("Load", child()), ("Wait", {"type": "Wait", "for": "60d"})), "kid": dag(("A", job()))}
    )
    run_id = world.start(dag="parent")
    world.forward("30d")
    (kid,) = children_of(world, run_id)

    def prune():
        return Pruner(world.store, world.clock.now(), 3600.0, lambda _: True, is_all=True).prune().runs

    assert kid.status == "Completed"
    assert prune() == []
    world.finish(run_id)
    world.forward("2h")
    assert prune() == sorted([run_id, kid.run_id])


def test_a_cancel_is_owed_until_the_child_has_taken_it_in():
    family = Family({**FAMILY, "kid": dag(("A", {"type": "Wait", "for": "1h"}))})
    made = family.target.launch(LAUNCH)
    family.executor.execute(family.published.pop())
    with pytest.raises(LaunchUncertain, match="has not taken that in yet"):
        family.target.cancel(made)
    family.executor.execute(family.published.pop())
    family.target.cancel(made)
    assert family.published == []
    assert family.target.outcome(made).error.error_type == "Task.Cancelled"
    family.executor.close()


def test_a_child_cancelled_before_it_begins_starts_nothing():
    family = Family({**FAMILY, "kid": dag(("A", job()))})
    made = family.target.launch(LAUNCH)
    with pytest.raises(LaunchUncertain):
        family.target.cancel(made)
    begin, cancel = family.published
    family.executor.execute(cancel)
    family.executor.execute(begin)
    state = family.state(made.execution_id)
    assert (state.run.status, state.nodes["A"].attempt) == (RunStatus.CANCELLED, 0)
    family.executor.close()


def test_a_child_paused_before_it_begins_waits_for_its_resume():
    family = Family({**FAMILY, "kid": dag(("A", {"type": "Pass", "result": 1}))})
    made = family.target.launch(LAUNCH)
    family.executor.execute({"resource": {"type": "pause"}, "run_id": made.execution_id})
    family.executor.execute(family.published.pop())
    assert family.state(made.execution_id).nodes["A"].status is TaskStatus.NEW
    family.executor.execute({"resource": {"type": "resume"}, "run_id": made.execution_id})
    assert family.target.outcome(made) == Outcome.completed(1)
    family.executor.close()


# -- the command line ----------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def test_run_finds_the_children_beside_the_path_and_status_shows_them(place, capsys):
    place.dag(
        "parent",
        {
            "Load": child(parameters={"x": 3}),
        },
    )
    place.dag("kid", {"Work": place.task("echo", value="${run.input.x}")})
    assert main(["run", "parent", "--run-id", "mine"]) == 0
    out = capsys.readouterr().out
    assert "Load Completed" in out
    assert f"attempt 1, as run {place.document('mine')['Load']['execution_id']}" in out
    assert "Work" not in out  # the child has a document of its own
    kid = place.document("mine")["Load"]["execution_id"]
    assert place.document("mine")["Load"]["result"] == 3
    assert main(["status", "mine"]) == 0
    out = capsys.readouterr().out
    assert f"Dag kid {kid[:20]}" in out
    assert f"child run: Load  {kid}  Completed, 1 of 1 steps ended" in out
    assert main(["status", kid]) == 0
    assert "child of: mine, step Load, attempt 1" in capsys.readouterr().out
    assert main(["runs"]) == 0
    said = capsys.readouterr()
    assert [line.split()[0] for line in said.out.splitlines()] == ["Run", "mine"]
    assert said.err == "1 child run left out; --children lists them, too\n"
    assert main(["runs", "--dag", "kid", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["runs", "--children", "--limit", "1"]) == 0
    said = capsys.readouterr()
    assert "child of mine" in said.out
    assert said.err == "these are the newest 1 run; --limit N shows more\n"
    assert main(["runs", "--parent", "mine", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["run_id"], listed["parent"]) == (kid, "mine")


def test_validate_and_run_name_a_dag_that_there_is_not_and_a_cycle_of_dags(place, capsys):
    place.dag("parent", {"Load": child("kit")})
    place.dag("kid", {"Work": place.task("echo")})
    place.dag("ping", {"A": child("pong")})
    place.dag("pong", {"B": child("ping")})
    for argv in (["validate", "parent"], ["run", "parent"]):
        assert main(argv) == 2
        assert 'there is no DAG "kit"; did you mean "kid"?' in capsys.readouterr().err
    assert main(["validate", "."]) == 2
    err = capsys.readouterr().err
    assert "ping/dag.json: steps.A.target_name: makes a cycle of DAGs: ping -> pong -> ping" in err
    assert main(["validate", "kid"]) == 0


def test_a_parent_that_was_killed_is_resumed_with_its_child_and_nothing_is_done_twice(place):
    place.dag("parent", {"Load": child(next="After"), "After": place.task("note", name="after")})
    place.dag(
        "kid",
        {
            "First": place.task("note", "Second", name="first"),
            "Second": place.task("wait_for", name="second", path="go"),
        },
    )
    process = place.start("run", "parent", "--run-id", "mine")
    until(lambda: "second" in place.calls())
    process.kill()
    process.wait()
    (place.root / "go").touch()
    assert place.start("run", "parent", "--resume", "mine").wait(60) == 0
    assert place.calls() == ["first", "second", "second", "after"]  # a Function dies with its process
    assert len(place.run_ids()) == 2


def test_pause_and_resume_reach_the_child_runs_that_run(place, capsys):
    place.dag("parent", {"Load": child()})
    place.dag(
        "kid",
        {
            "First": place.task("wait_for", "Second", name="first", path="go"),
            "Second": place.task("note", name="second"),
        },
    )
    process = place.start("run", "parent", "--run-id", "mine")
    until(lambda: "first" in place.calls())
    assert main(["pause", "mine"]) == 0
    assert "run mine is paused, with 1 child run" in capsys.readouterr().out
    (place.root / "go").touch()
    kid = next(each for each in place.run_ids() if each != "mine")
    until(lambda: place.document(kid)["First"]["status"] == "Completed")
    assert place.document(kid)["$run"]["status"] == "Paused"
    assert place.document(kid)["Second"]["status"] == "New"
    assert main(["resume", "mine"]) == 0
    assert process.wait(60) == 0
    assert place.calls() == ["first", "second"]


def test_cancelling_the_parent_from_another_process_cancels_the_child(place):
    place.dag("parent", {"Load": child()})
    place.dag(
        "kid",
        {
            "First": place.task("wait_for", "Second", name="first", path="go"),
            "Second": place.task("note", name="second"),
        },
    )
    process = place.start("run", "parent", "--run-id", "mine")
    until(lambda: "first" in place.calls())
    assert main(["cancel", "mine"]) == 0
    (place.root / "go").touch()
    assert process.wait(60) == 1
    kid = next(each for each in place.run_ids() if each != "mine")
    until(lambda: place.document(kid)["$run"].get("cancel_reason") is not None)
    assert place.document("mine")["$run"]["status"] == "Cancelled"
    assert place.calls() == ["first"]


def test_validate_for_gcp_finds_a_dag_that_is_not_deployed(place, capsys):
    place.dag("parent", {"Load": child("kit")})
    place.dag("kid", {"Work": {"type": "Pass", "result": 1}})
    assert main(["validate", "--for", "gcp", "."]) == 2
    told = capsys.readouterr()
    assert 'parent/dag.json: steps.Load.target_name: there is no DAG "kit"; did you mean "kid"?' in told.err
    assert "kid: ok for gcp" in told.out


def test_the_result_of_a_run_is_what_the_command_line_shows(place, capsys):
    folder = place.dag("sum", {"A": {"type": "Pass", "result": 2, "next": "B"}, "B": {"type": "Pass", "result": 3}})
    definition = json.loads((folder / "dag.json").read_text())
    assert main(["run", "sum", "--run-id", "plain"]) == 0
    assert "B  3" in capsys.readouterr().out
    definition["result"] = "${steps.A.result + steps.B.result}"
    (folder / "dag.json").write_text(json.dumps(definition))
    assert main(["run", "sum", "--run-id", "summed"]) == 0
    assert "result  5" in capsys.readouterr().out
    assert main(["status", "summed"]) == 0
    assert "result  5" in capsys.readouterr().out


def test_logs_of_a_dag_step_name_its_child_run(place, capsys):
    place.dag("parent", {"Load": child()})
    place.dag("kid", {"Work": place.task("echo")})
    assert main(["run", "parent", "--run-id", "mine"]) == 0
    capsys.readouterr()
    assert main(["logs", "mine", "Load"]) == 0
    kid = place.document("mine")["Load"]["execution_id"]
    assert f"Load is run {kid}: orchestrator logs {kid}" in capsys.readouterr().err


def test_run_waits_for_a_cancelled_child_that_outlives_its_parent(place):
    place.dag("parent", {"Load": child(timeout="3s")})
    place.dag("kid", {"Work": place.task("wait_for", "After", name="work", path="go"), "After": place.task("echo")})
    process = place.start("run", "parent", "--run-id", "mine")
    until(lambda: "mine" in place.run_ids() and place.document("mine")["$run"]["status"] == "Failed")
    kid = next(each for each in place.run_ids() if each != "mine")
    assert place.document(kid)["$run"]["status"] == "Running"  # a function that was called cannot be stopped
    assert process.poll() is None
    (place.root / "go").touch()
    assert process.wait(60) == 1
    assert f"run mine has ended; 1 child run still to end: {kid}" in process.stderr.read()
    assert place.document(kid)["$run"]["status"] == "Cancelled"


def test_cancelling_a_family_that_a_killed_process_left_ends_all_of_it(place):
    place.dag("parent", {"Load": child()})
    place.dag("kid", {"Down": child("leaf")})
    place.dag("leaf", {"Work": place.task("wait_for", name="work", path="go")})
    process = place.start("run", "parent", "--run-id", "mine")
    until(lambda: "work" in place.calls())
    process.kill()
    process.wait()
    assert main(["cancel", "mine"]) == 0
    assert {place.document(each)["$run"]["status"] for each in place.run_ids()} == {"Cancelled"}
    assert len(place.run_ids()) == 3
