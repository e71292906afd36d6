"""A redrive of a Dag Task lets its child run go on; a new child is made only where there is none to go on with."""

import json
import sys
from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.cli.main import main
from orchestrator.engine.pruning import Pruner
from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.messages import begin_message
from orchestrator.testing import Simulation, fails, returns, takes
from tests.support.children import Family, child, children_of, dag, job
from tests.support.command_line import Place, clean_environment

KID = dag(("A", job("a")), ("B", job("b")), ("C", job("c")))


def family_of(kid=KID, **keys):
    return {"parent": dag(("Load", child(**keys)), ("Tell", job("tell"))), "kid": kid}


def launched(world):
    """What was launched in all runs, as `step/attempt`."""
    return [f"{launch.node_name}/{launch.attempt}" for run in world.runs for launch in run.all_launches]


def test_the_child_goes_on_where_it_failed_and_its_end_is_that_of_the_next_attempt():
    world = Simulation(family_of(), targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    assert world.finish(run_id).node("Load").error.error_type == "Task.Failed"
    world.redrive(run_id)
    run = world.finish(run_id)
    (kid,) = children_of(world, run_id)
    assert (run.status, run.node("Load").attempt) == ("Completed", 2)
    assert (kid.status, kid.state.run.redrives, kid.state.run.parent.attempt) == ("Completed", 1, 2)
    assert sorted(launched(world)) == ["A/1", "B/1", "B/2", "C/1", "Load/1", "Load/2", "Tell/1"]


def test_a_child_of_a_child_goes_on_too():
    definitions = {**family_of(dag(("Inner", child("inner")))), "inner": KID}
    world = Simulation(definitions, targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    assert launched(world).count("A/1") == 1
    assert len(world.runs) == 3


def test_a_child_that_has_completed_all_the_same_is_not_repeated():
    world = Simulation(family_of(timeout="10s"), targets={"C": takes("1h")}, cannot_be_cancelled=["Dataflow"])
    run_id = world.start(dag="parent")
    world.forward("2h")
    (kid,) = children_of(world, run_id)
    assert (world.run(run_id).status, kid.status) == ("Failed", "Completed")
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    assert sorted(launched(world)) == ["A/1", "B/1", "C/1", "Load/1", "Load/2", "Tell/1"]
    assert children_of(world, run_id)[0].state.run.redrives == 0


def test_a_child_that_is_still_being_stopped_goes_on_once_it_has_ended():
    kid = dag(("A", job("a")), ("B", job("b")), ("C", job("c")))
    world = Simulation(family_of(kid, timeout="10s"), targets={"B": takes("1h")}, cannot_be_cancelled=["Dataflow"])
    run_id = world.start(dag="parent")
    world.forward("10m")
    (before,) = children_of(world, run_id)
    assert (world.run(run_id).status, before.status) == ("Failed", "Running")
    world.redrive(run_id)
    world.forward("5s")
    assert children_of(world, run_id)[0].state.run.goes_on_at_end is not None
    world.forward("2h")
    (after,) = children_of(world, run_id)
    assert (after.status, after.state.run.redrives, after.state.run.goes_on_at_end) == ("Completed", 1, None)
    assert sorted(launched(world))[:3] == ["A/1", "B/1", "C/1"]


def test_a_chosen_step_starts_a_new_child():
    world = Simulation(family_of(), targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    world.redrive(run_id, "Load")
    world.finish(run_id)
    assert [kid.state.run.redrives for kid in children_of(world, run_id)] == [0, 0]
    assert launched(world).count("A/1") == 2


def test_a_retry_after_a_redrive_is_a_new_child_as_ever():
    again = {"max_attempts": 2, "delay": "1s"}
    world = Simulation(family_of(retry=again), targets={"B": fails(times=2)})
    run_id = world.start(dag="parent")
    assert world.finish(run_id).node("Load").attempt == 2
    world.redrive(run_id)
    run = world.finish(run_id)
    assert (run.status, run.node("Load").attempt, len(children_of(world, run_id))) == ("Failed", 4, 3)


def test_where_the_child_is_gone_there_is_a_new_one():
    world = Simulation(family_of(), targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    world.forward("2h")
    kid = children_of(world, run_id)[0].run_id
    pruned = Pruner(world.store, world.clock.now(), 3600.0, lambda run: run.run_id == kid, is_all=False).prune()
    assert pruned.runs == []  # it goes with its parent
    world.store.delete(f"runs/{kid}.json")
    world.redrive(run_id)
    world.finish(run_id)
    (new,) = children_of(world, run_id)
    assert (new.run_id == kid, new.node("A").attempt) == (False, 1)


def test_a_child_that_somebody_has_redriven_is_taken_as_it_is():
    world = Simulation(family_of(), targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    kid = children_of(world, run_id)[0].run_id
    world.redrive(kid)
    assert world.finish(kid).status == "Completed"
    assert world.run(run_id).status == "Failed"
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    assert sorted(launched(world)) == ["A/1", "B/1", "B/2", "C/1", "Load/1", "Load/2", "Tell/1"]


def test_cancelling_a_redriven_parent_cancels_the_child_that_goes_on():
    world = Simulation(family_of(), targets={"B": fails(times=1).then(takes("1h")).then(returns(1))})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    world.redrive(run_id)
    world.cancel(run_id, after="1m")
    assert world.finish(run_id).status == "Cancelled"
    (kid,) = children_of(world, run_id)
    assert (kid.status, kid.node("B").status) == ("Cancelled", "Cancelled")
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    assert launched(world).count("A/1") == 1


def test_a_child_that_was_to_go_on_and_was_cancelled_before_that_goes_on_later():
    world = Simulation(
        {**family_of(), "parent": {**family_of()["parent"], "max_active_runs": 1}}, targets={"B": fails(times=1)}
    )
    run_id = world.start(dag="parent")
    world.finish(run_id)
    other = world.start(dag="parent")
    world.redrive(run_id)
    world.cancel(run_id)
    assert world.finish(run_id).node("Load").attempt == 1
    world.finish(other)
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    (kid,) = children_of(world, run_id)
    assert (kid.status, kid.node("A").attempt) == ("Completed", 1)


# -- killed in between -------------------------------------------------------------------------------------

LAUNCH = Launch("Load", "Dag", "kid", run_id="run_1_parent", attempt=1)


@pytest.fixture
def family():
    made = Family({"parent": dag(("Load", child())), "kid": dag(("A", {"type": "Wait", "for": "1h"}))})
    yield made
    made.executor.close()


def cancelled_child(family):
    """The child run of LAUNCH, cancelled."""
    made = family.target.launch(LAUNCH)
    family.executor.execute(family.published.pop())
    family.executor.execute({"resource": {"type": "cancel"}, "run_id": made.execution_id})
    assert family.state(made.execution_id).run.status is RunStatus.CANCELLED
    return made


def test_a_launch_made_twice_lets_the_child_go_on_once(family):
    made = cancelled_child(family)
    again = replace(LAUNCH, attempt=2, goes_on=made.execution_id)
    assert family.target.find(again) is None
    assert family.target.launch(again) == made == family.target.launch(again) == family.target.find(again)
    state = family.state(made.execution_id)
    assert (state.run.redrives, state.run.parent.attempt, state.nodes["A"].status) == (1, 2, TaskStatus.NEW)
    for message in family.published:
        assert message == begin_message(made.execution_id)
        family.executor.execute(message)
    state = family.state(made.execution_id)
    assert (state.nodes["A"].status, state.nodes["A"].attempt) == (TaskStatus.RUNNING, 2)
    assert family.target.launch(LAUNCH) == made, "the old attempt changes nothing"
    assert family.state(made.execution_id).run.redrives == 1


def test_a_child_that_nobody_tells_to_go_on_is_told_by_the_tick(family):
    made = cancelled_child(family)
    family.target.launch(replace(LAUNCH, attempt=2, goes_on=made.execution_id))
    family.executor.tick()
    assert family.state(made.execution_id).nodes["A"].status is TaskStatus.RUNNING


def test_a_run_of_somebody_else_is_never_taken_for_the_child(family):
    other = family.executor.start("kid", run_id="other")
    made = family.target.launch(replace(LAUNCH, attempt=2, goes_on=other))
    assert made.execution_id != other
    assert family.state(other).run.parent is None


def test_the_outcome_of_the_first_attempt_is_not_that_of_the_next(family):
    made = cancelled_child(family)
    assert family.target.outcome(made).kind == Outcome.cancelled().kind
    family.target.launch(replace(LAUNCH, attempt=2, goes_on=made.execution_id))
    assert family.target.outcome(made) is None


# -- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def test_redrive_finds_the_children_beside_the_path(place, capsys):
    module = place.root / f"{place.module}.py"
    module.write_text(f"{module.read_text()}\n\ndef needs(path):\n    Path(path).read_text()\n")
    place.dag("kid", {"A": place.task("note", "B", name="A"), "B": place.task("needs", path="mended")})
    place.dag("parent", {"Load": {"type": "Task", "target_type": "Dag", "target_name": "kid", "end": True}})
    assert main(["run", "parent", "--run-id", "r1"]) == 1
    (place.root / "mended").write_text("")
    capsys.readouterr()
    assert main(["redrive", "r1", "parent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["Load"]["attempt"] == 2
    assert place.calls() == ["A"]
    (kid,) = (run_id for run_id in place.run_ids() if run_id != "r1")
    assert place.statuses(kid) == {"A": ("Completed", 1), "B": ("Completed", 2)}
    assert not list((place.root / ".orchestrator/open").iterdir())


def test_time_goes_on_between_the_two(place):
    world = Simulation(family_of(), targets={"B": fails(times=1)})
    run_id = world.start(dag="parent")
    world.finish(run_id)
    world.forward("3d")
    world.redrive(run_id)
    assert world.finish(run_id).took > timedelta(days=3)
