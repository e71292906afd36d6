"""Redrive by the executor and the command line: once for each end, however often it is asked, whoever dies when."""

import json
import logging
import sys
from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.status import OpenRuns, OrchestrationStatus, marker_of
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import InputError, NotYet, RunNotFound, StoreUnavailable, VersionConflict
from orchestrator.model.messages import cancel_message, pause_message, redrive_message, resume_message
from orchestrator.model.run_state import RunState, run_result
from orchestrator.runtime.story import log_saved
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import fails, returns
from orchestrator.testing.simulation import Simulation
from tests.support.command_line import Place, clean_environment, until
from tests.support.world import T0, World, chain, completion, dag, task

FAILED = Outcome.failed("Task.Failed", "boom")


class RedrivingWorld(World):
    """A World in which each request is made a moment after the one before."""

    def ask(self, message, *, at=None, message_id=None):
        if at is None:
            self.clock.forward(0.001)
            at = self.clock.now()
        return self.executor.execute(message, message_id=message_id or f"ask-{at}", publish_time=at)

    def redrive(self, run_id, start_from=None, number=None, **options):
        return self.ask(redrive_message(run_id, start_from, number), **options)

    def failed(self, **start):
        """A run whose first step has failed."""
        run_id = self.start(**start)
        self.end("A", FAILED)
        return run_id


# -- what is asked, and how often it comes -----------------------------------------------------------------


def test_a_pause_that_comes_after_a_redrive_is_of_no_effect_where_its_resume_came_before_it():
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.failed()
    asked = [world.clock.now() + timedelta(seconds=second) for second in range(1, 4)]
    world.clock.forward(5)
    world.ask(resume_message(run_id), at=asked[2])
    saved = len(world.saved)
    world.ask(resume_message(run_id), at=asked[2], message_id="again")
    assert len(world.saved) == saved
    assert world.state(run_id).run.status is RunStatus.FAILED
    world.redrive(run_id, at=asked[0])
    world.ask(pause_message(run_id), at=asked[1])
    assert world.state(run_id).run.status is RunStatus.RUNNING


@pytest.mark.parametrize("number", [None, 1])
def test_a_redrive_that_comes_twice_or_late_changes_nothing(number):
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.failed()
    asked = world.clock.now() + timedelta(seconds=1)
    world.clock.forward(1)
    assert world.redrive(run_id, number=number, at=asked).verdict == "applied"
    assert world.redrive(run_id, number=number, at=asked).verdict == "unchanged"
    world.end("A", FAILED)
    assert world.redrive(run_id, number=number, at=asked).verdict == "unchanged"
    assert [launch.attempt for launch in world.target.calls] == [1, 2]
    assert world.state(run_id).run.redrives == 1


def test_of_two_redrives_of_one_end_one_counts():
    world = RedrivingWorld(chain("A"), instances=2)
    run_id = world.failed()
    for on in world.instances:
        on.execute(redrive_message(run_id, number=1), publish_time=world.clock.now())
    assert [launch.attempt for launch in world.target.calls] == [1, 2]


def test_a_redrive_that_was_asked_for_before_the_end_is_about_none():
    world = RedrivingWorld(chain("A"))
    run_id = world.start()
    assert world.redrive(run_id, number=2).verdict == "unchanged"
    world.clock.forward(1)
    world.end("A", FAILED)
    assert world.redrive(run_id, at=T0).verdict == "unchanged"


def test_what_cannot_be_is_an_error_that_a_person_sees():
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.failed()
    with pytest.raises(InputError, match=f"run {run_id}: did not come by B"):
        world.redrive(run_id, "B")
    assert world.state(run_id).run.redrives == 0


def test_a_cancel_or_a_pause_of_the_run_that_had_ended_does_not_touch_the_one_that_goes_on():
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.start()
    world.clock.forward(1)
    at = world.clock.now()
    world.ask(cancel_message(run_id, "why"), at=at)
    world.end("A")
    assert world.state(run_id).run.status is RunStatus.CANCELLED
    world.redrive(run_id)
    world.ask(cancel_message(run_id, "why"), at=at)
    world.ask(pause_message(run_id), at=at)
    run = world.state(run_id).run
    assert (run.status, run.cancel_reason) == (RunStatus.RUNNING, None)
    world.ask(cancel_message(run_id, "again"))
    assert world.state(run_id).run.cancel_reason == "again"


def test_an_old_attempt_that_tells_of_its_end_late_tells_nothing():
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.failed()
    first = world.target.calls[0]
    world.redrive(run_id)
    assert world.executor.execute(completion(first)).verdict == "unchanged"
    assert world.state(run_id).nodes["A"].attempt == 2


def test_a_step_that_waits_to_be_come_to_again_is_not_ended_by_its_last_attempt():
    world = RedrivingWorld(chain("A", "B"))
    run_id = world.start()
    world.end("A")
    world.end("B")
    last = world.target.calls[-1]
    world.redrive(run_id, "A")
    assert world.executor.execute(completion(last)).verdict == "unchanged"
    node = world.state(run_id).nodes["B"]
    assert (node.status, node.attempt, node.result) == (TaskStatus.NEW, 1, None)


@pytest.mark.parametrize("own", [{}, {"result": "${steps.A.result.n + 1}"}])
def test_a_run_whose_finally_alone_had_failed_has_its_result_in_the_end(own):
    world = RedrivingWorld({**dag(A=task()), "finally": dag(Z=task()), **own})
    run_id = world.start()
    world.end("A", Outcome.completed({"n": 1}))
    world.end("Z", FAILED)
    assert run_result(world.state(run_id)) == (None, None)
    world.redrive(run_id)
    world.end("Z")
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert run_result(world.state(run_id)) == (2 if own else {"n": 1}, None)


def test_a_run_that_was_out_of_time_has_all_its_time_again():
    world = RedrivingWorld({**chain("A", "B"), "timeout": "1h"})
    run_id = world.start()
    world.clock.forward(3700)
    world.executor.tick()
    world.end("A")
    assert world.state(run_id).run.error.error_type == "Run.Timeout"
    world.redrive(run_id)
    run = world.state(run_id).run
    assert (run.is_out_of_time, run.timeout_at) == (False, world.clock.now() + timedelta(hours=1))
    assert world.target.nodes == ["A", "B"]


def test_each_end_is_told_of_and_each_by_another_id():
    definition = {
        **chain("A"),
        "notify": [{"on": ["failed", "completed", "started"], "topic": "projects/my-project/topics/alerts"}],
    }
    simulation = Simulation(definition, targets={"A": fails(times=2)})
    run_id = simulation.start()
    for _ in range(2):
        simulation.finish(run_id)
        simulation.redrive(run_id)
    simulation.finish(run_id)
    told = simulation.notifications
    assert [each.payload["event"] for each in told] == ["started", "failed", "failed", "completed"]
    assert len({each.notification_id for each in told}) == 4


def test_what_is_still_to_be_told_of_an_end_tells_of_that_after_a_redrive_too():
    definition = {**chain("A"), "notify": [{"on": ["failed"], "topic": "projects/my-project/topics/alerts"}]}
    simulation = Simulation(definition, targets={"A": fails(message="first", times=1)}, notifications_refused=3)
    run_id = simulation.start()
    simulation.finish(run_id)
    simulation.redrive(run_id)
    assert simulation.finish(run_id).status == "Completed"
    simulation.forward("1d")
    (told,) = simulation.notifications
    assert (told.payload["run"]["status"], told.payload["run"]["error"]["message"]) == ("Failed", "first")


def test_a_large_result_is_kept_where_it_is_used_and_replaced_where_its_step_runs_again():
    steps = dag(A=task("B"), B=task(parameters={"x": "${steps.A.result}"}))
    first, second = ["1" * 70_000], ["2" * 70_000]
    simulation = Simulation(steps, targets={"A": returns(first).then(returns(second)), "B": fails(times=1)})
    run_id = simulation.start()
    simulation.finish(run_id)
    simulation.redrive(run_id)
    assert simulation.finish(run_id).launches("B")[-1].parameters == {"x": first}
    simulation.redrive(run_id, "A")
    run = simulation.finish(run_id)
    assert run.launches("B")[-1].parameters == {"x": second}
    assert run.result("A") == second


def test_the_log_says_that_a_run_was_redriven(caplog):
    caplog.set_level(logging.INFO)
    world = RedrivingWorld(chain("A", "B"))
    world.instances = [world.instance(on_saved=log_saved)]
    run_id = world.start()
    world.end("A")
    world.end("B", FAILED)
    world.redrive(run_id)
    world.end("B")
    said = [record.getMessage() for record in caplog.records if record.name == "orchestrator"]
    assert said[-5:] == [
        f"run ended: Failed: {run_id} of dag: Task.Failed: boom",
        f"run redriven: {run_id} of dag, number 1",
        "B: Running, attempt 2",
        "B: Completed after 0.0 s",
        f"run ended: Completed: {run_id} of dag",
    ]


# -- the marker --------------------------------------------------------------------------------------------


class Interrupting(MemoryStore):
    """A store in which something else happens right before a key is written or deleted, or goes wrong right after."""

    def __init__(self):
        super().__init__()
        self.before, self.after = {}, {}

    def _happens(self, what, key):
        happens = self.before.pop((what, key), None)
        if happens is not None:
            happens()

    def put(self, key, data, *, expect):
        self._happens("put", key)
        version = super().put(key, data, expect=expect)
        if (error := self.after.pop(("put", key), None)) is not None:
            raise error
        return version

    def delete(self, key):
        self._happens("delete", key)
        super().delete(key)


def marked(world):
    return [marker for marker, _ in OpenRuns(world.store)]


def test_a_tick_that_deletes_the_marker_of_the_end_does_not_lose_the_run_that_goes_on_meanwhile():
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    world.store.before["delete", f"open/{run_id}"] = lambda: world.redrive(run_id)
    world.instances[1].tick()
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert marked(world) == [f"open/{run_id}.1"]


def test_a_tick_between_the_marker_and_the_save_of_a_redrive_leaves_the_marker():
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    world.store.before["put", f"runs/{run_id}.json"] = world.instances[1].tick
    world.redrive(run_id)
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert f"open/{run_id}.1" in marked(world)


class Killed(BaseException):
    """The process is gone."""


def test_killed_between_the_marker_and_the_save_the_redrive_is_delivered_again_and_counts():
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()

    def die():
        raise Killed

    world.store.before["put", f"runs/{run_id}.json"] = die
    at = world.clock.now() + timedelta(seconds=1)
    with pytest.raises(Killed):
        world.redrive(run_id, at=at)
    for _ in range(3):
        world.clock.forward(90_000)
        world.instances[1].tick()
    world.instances[1].execute(redrive_message(run_id), publish_time=at)
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert marker_of(run_id, 1) in marked(world)
    world.end("A", on=1)
    world.instances[1].tick()
    assert marked(world) == []


def test_the_marker_of_a_redrive_that_was_killed_and_is_not_asked_for_again_goes_after_a_day():
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(86_000)
    world.instances[1].tick()
    assert marker_of(run_id, 1) in marked(world)
    world.clock.forward(1_000)
    assert world.instances[1].tick().problems == ()
    assert marked(world) == []


@pytest.mark.parametrize("at", ["put", "delete"], ids=["before it is saved", "and a Tick before it is deleted"])
def test_a_redrive_of_which_the_marker_was_just_given_up_has_one_all_the_same(at):
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(90_000)
    if at == "put":
        world.store.before["put", f"runs/{run_id}.json"] = world.instances[1].tick
        world.redrive(run_id)
    else:
        world.store.before["delete", marker_of(run_id, 1)] = lambda: world.redrive(run_id)
        world.instances[1].tick()
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert marker_of(run_id, 1) in marked(world)


def test_a_redrive_of_which_the_marker_was_just_given_up_has_one_though_the_store_fails_then():
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(90_000)

    def refuse():
        raise StoreUnavailable("429")

    def is_given_up():
        world.instances[1].tick()
        world.store.before["put", marker_of(run_id, 1)] = refuse

    world.store.before["put", f"runs/{run_id}.json"] = is_given_up
    world.redrive(run_id)
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert marker_of(run_id, 1) in marked(world)


@pytest.mark.parametrize("error", [StoreUnavailable("503"), VersionConflict("412")], ids=["503", "412"])
def test_a_redrive_of_which_the_marker_was_just_given_up_has_one_though_its_save_seemed_to_fail(error):
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(90_000)

    def is_given_up_and_saved():
        world.instances[1].tick()
        world.store.after["put", f"runs/{run_id}.json"] = error

    world.store.before["put", f"runs/{run_id}.json"] = is_given_up_and_saved
    world.redrive(run_id)
    assert world.state(run_id).run.status is RunStatus.RUNNING
    assert marker_of(run_id, 1) in marked(world)


@pytest.mark.parametrize("meets", ["nothing else", "a cancel"])
def test_a_redrive_of_which_the_marker_was_just_given_up_has_one_though_it_is_killed_after_its_save(meets):
    world = RedrivingWorld(chain("A"), store=Interrupting(), instances=2)
    run_id = world.failed()
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(90_000)

    def is_given_up_and_killed():
        world.instances[1].tick()
        world.store.after["put", f"runs/{run_id}.json"] = Killed()

    world.store.before["put", f"runs/{run_id}.json"] = is_given_up_and_killed
    at = world.clock.now() + timedelta(seconds=1)
    with pytest.raises(Killed):
        world.redrive(run_id, at=at)
    assert marked(world) == []
    world.clock.forward(90)
    again = redrive_message(run_id), {"message_id": "again", "publish_time": at}
    if meets == "nothing else":
        world.instances[1].execute(again[0], **again[1])
    else:  # it is saved together with what does change the run
        asked = world.instances[1]._committer.linger
        world.instances[1]._committer.linger = lambda box: (
            asked(box),
            world.instances[1].deliver(again[0], lambda *_: None, **again[1]),
        )
        world.instances[1].execute(cancel_message(run_id, "enough"), publish_time=world.clock.now())
    assert not world.state(run_id).run.status.is_final
    assert marker_of(run_id, 1) in marked(world)


def test_the_marker_of_a_redrive_of_a_run_that_was_pruned_goes_after_a_day():
    world = RedrivingWorld(chain("A"))
    run_id = world.failed()
    world.clock.forward(7200)
    prune(world)
    OpenRuns(world.store).mark(run_id, world.clock.now(), 1)
    world.clock.forward(90_000)
    assert world.instances[0].tick().problems == ()
    assert marked(world) == []


def test_killed_between_the_save_and_the_launch_the_tick_launches_it():
    world = RedrivingWorld(chain("A"), instances=2)
    run_id = world.failed()

    def die(_):
        raise Killed

    world.target.before_launch = die
    with pytest.raises(Killed):
        world.redrive(run_id)
    world.target.before_launch = lambda _: None
    world.clock.forward(120)
    world.instances[1].tick()
    assert [launch.attempt for launch in world.target.launched.values()] == [1, 2]


# -- what pruning has done ---------------------------------------------------------------------------------


def prune(world, **options):
    return Pruner(world.store, world.clock.now(), 3600.0, lambda run: True, is_all=True, **options).prune()


def test_a_run_that_was_pruned_cannot_be_redriven_and_is_said_to_have_been():
    world = RedrivingWorld(chain("A"))
    run_id = world.failed()
    world.clock.forward(7200)
    prune(world)
    at = world.clock.now()
    with pytest.raises(NotYet):
        world.redrive(run_id, at=at)
    world.clock.forward(120)
    with pytest.raises(RunNotFound, match=f"run {run_id}: was deleted by prune"):
        world.redrive(run_id, at=at)


def test_a_run_that_is_being_pruned_is_not_redriven():
    world = RedrivingWorld(chain("A"))
    run_id = world.failed()
    status = OrchestrationStatus(world.store, run_id)
    state, version = status.load()
    status.save(RunState(replace(state.run, pruned_at=world.clock.now()), state.nodes), expect=version)
    with pytest.raises(InputError, match="is being deleted by prune"):
        world.redrive(run_id)


def test_a_run_that_goes_on_while_it_is_looked_at_by_prune_stays():
    world = RedrivingWorld(chain("A"), store=Interrupting())
    run_id = world.failed()
    world.clock.forward(7200)
    world.store.before["put", f"runs/{run_id}.json"] = lambda: world.redrive(run_id)
    assert prune(world).runs == []
    assert world.state(run_id).run.status is RunStatus.RUNNING


# -- on this machine ---------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def three(place):
    steps = {
        "A": place.task("note", "B", name="A"),
        "B": place.task("needs", "C", path="mended"),
        "C": place.task("note", name="C"),
    }
    module = place.root / f"{place.module}.py"
    module.write_text(f"{module.read_text()}\n\ndef needs(path):\n    Path(path).read_text()\n")
    place.dag("three", steps)


def test_the_command_lets_a_run_go_on_to_its_end_here(place, capsys):
    three(place)
    assert main(["run", "three", "--run-id", "r1"]) == 1
    said = capsys.readouterr().out
    assert "then let the run go on:\n  orchestrator redrive r1 three\nor start a new one:\n" in said
    assert main(["redrive", "r1", "three"]) == 1
    (place.root / "mended").write_text("")
    capsys.readouterr()
    assert main(["redrive", "r1", "three"]) == 0
    said = capsys.readouterr().out
    assert "run r1 of three goes on; 1 of 3 steps had completed" in said
    assert "redriven 2 times" in said
    assert place.calls() == ["A", "C"]
    document = place.document("r1")
    assert [document[name]["attempt"] for name in "ABC"] == [1, 3, 1]
    assert not list((place.root / ".orchestrator/open").iterdir())


def test_the_command_runs_a_completed_run_again_from_a_step_and_prints_its_document(place, capsys):
    three(place)
    (place.root / "mended").write_text("")
    assert main(["run", "three", "--run-id", "r1"]) == 0
    capsys.readouterr()
    assert main(["redrive", "r1", "three", "--from", "B", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["$run"]["redrives"], document["C"]["attempt"]) == (1, 2)
    assert place.calls() == ["A", "C", "C"]


def test_the_folder_of_the_dag_is_found_among_the_dags(place, capsys, monkeypatch):
    three(place)
    main(["run", "three", "--run-id", "r1"])
    (place.root / "mended").write_text("")
    capsys.readouterr()
    assert main(["redrive", "r1"]) == 2
    assert capsys.readouterr().err == (
        "orchestrator: redrive: there is no dag_definitions/three; name the folder of the DAG: redrive r1 PATH\n"
    )
    monkeypatch.setenv("DAG_DEFINITIONS", ".")
    assert main(["redrive", "r1"]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["r1"], "run r1: has completed, so there is nothing to redrive; --from STEP runs it again from a step"),
        (["r1", "--from", "D"], 'run r1: has no step "D"; there are "A", "B", "C"'),
        (["r2"], "run r2: there is no such run in file://.orchestrator; the last one there is r1"),
    ],
)
def test_what_cannot_be_redriven_is_2_and_says_what_is_so(place, capsys, arguments, said):
    three(place)
    (place.root / "mended").write_text("")
    main(["run", "three", "--run-id", "r1"])
    capsys.readouterr()
    assert main(["redrive", *arguments]) == 2
    assert capsys.readouterr().err == f"orchestrator: {said}\n"


def test_a_redrive_whose_process_is_killed_is_taken_up_as_any_run(place):
    steps = {"A": place.task("boom", "B"), "B": place.task("note", name="B")}
    steps["A"]["on_error"] = [{"next": "W"}]
    steps["W"] = place.task("wait_for", "X", name="W", path="go")
    steps["X"] = place.task("note", name="X")
    place.dag("two", steps)
    (place.root / "go").touch()
    assert main(["run", "two", "--run-id", "r1"]) == 0
    (place.root / "go").unlink()
    process = place.start("redrive", "r1", "two", "--from", "W")
    until(lambda: place.calls() == ["W", "X", "W"])
    process.kill()
    process.communicate()
    (place.root / "go").touch()
    assert main(["run", "two", "--resume", "r1"]) == 0
    assert place.calls() == ["W", "X", "W", "W", "X"]
    assert not list((place.root / ".orchestrator/open").iterdir())


def test_one_process_waits_for_the_next_end_of_a_run_that_it_redrives(place):
    three(place)
    definition = json.loads((place.root / "three/dag.json").read_text())
    sys.path.insert(0, str(place.root))
    with DAGExecutor(definition, "file://.orchestrator") as executor:
        run_id = executor.start()
        assert executor.wait(run_id, 20).run.status is RunStatus.FAILED
        (place.root / "mended").write_text("")
        assert executor.redrive(run_id).run.status is RunStatus.FAILED
        assert executor.wait(run_id, 20).run.status is RunStatus.COMPLETED
        with pytest.raises(InputError, match="has completed"):
            executor.redrive(run_id)
    assert not list((place.root / ".orchestrator/open").iterdir())


class Published:
    """Stands for the topic: keeps what is published."""

    def __init__(self) -> None:
        self.events = []

    def publish(self, event, *, delay_s=0.0):
        self.events.append(event)
        return "m7"


def test_in_the_cloud_a_message_asks_for_it(capsys):
    from orchestrator.cli.bucket import Bucket
    from orchestrator.cli.console import Console
    from orchestrator.cli.redrive import Wanted, redrive
    from orchestrator.runtime.settings import Settings

    world = RedrivingWorld(chain("A", "B"))
    run_id = world.failed()
    bucket, topic = Bucket("gs://b", world.store), Published()

    def ask(**options):
        wanted = Wanted(run_id, **options)
        return redrive(Console(), bucket, wanted, Settings.read({}), {}, world.clock, broker_of=lambda *_: topic)

    with pytest.raises(InputError, match="redrive: EVENTS_TOPIC is not set"):
        ask()
    assert ask(topic="projects/p/topics/t", start_from="A") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"run {run_id}: asked to go on, by message m7",
        "watch it with:",
        f"  orchestrator status {run_id} --bucket gs://b --watch",
    ]
    assert topic.events == [redrive_message(run_id, "A", 1)]
    assert ask(topic="projects/p/topics/t", is_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": run_id, "status": "Failed", "message_id": "m7"}
    world.ask(topic.events[0])
    assert world.ask(topic.events[1]).verdict == "unchanged"
    assert world.state(run_id).run.status is RunStatus.RUNNING
