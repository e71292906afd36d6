"""Pause and resume: a paused run starts nothing and follows what runs; whatever the order, it ends the same."""

import json
import sys
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.cli.main import main
from orchestrator.engine.pausing import resumed
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import LaunchUncertain, NotYet
from orchestrator.model.messages import cancel_message, pause_message, reminder_message, resume_message
from orchestrator.model.run_state import RunState
from orchestrator.testing import takes
from orchestrator.testing.simulation import Simulation
from tests.strategies import definitions
from tests.support.command_line import Place, clean_environment, until
from tests.support.world import T0, NotedTarget, World, chain, completion, dag, outcome_of, parallel, plain, task

FORK = dag(Init=task("Fork"), Fork=parallel(chain("Left", "After"), chain("Right"), next="Join"), Join=task())


class PausingWorld(World):
    """A World in which each request is made a moment after the one before."""

    def steer(self, message, *, at=None, on=0):
        if at is None:
            self.clock.forward(0.001)
            at = self.clock.now()
        return self.instances[on].execute(message, message_id=f"steer-{at}", publish_time=at)

    def pause(self, run_id, **options):
        return self.steer(pause_message(run_id), **options)

    def resume(self, run_id, **options):
        return self.steer(resume_message(run_id), **options)

    def status(self, run_id):
        return self.state(run_id).run.status


def test_a_paused_run_follows_what_runs_and_starts_nothing_until_it_is_resumed():
    world = PausingWorld(FORK)
    run_id = world.start()
    world.pause(run_id)
    assert world.status(run_id) is RunStatus.PAUSED
    world.end("Init")
    state = world.state(run_id)
    assert (state.nodes["Init"].status, state.nodes["Fork"].status) == (TaskStatus.COMPLETED, TaskStatus.NEW)
    assert [held.node for held in state.run.held] == ["Fork"]
    assert world.target.nodes == ["Init"]
    world.executor.tick()
    assert world.target.nodes == ["Init"]
    world.resume(run_id)
    assert world.target.nodes == ["Init", "Left", "Right"]
    assert world.state(run_id).run.held == ()
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


def test_the_end_of_a_paused_run_is_its_end():
    world = PausingWorld(chain("A"))
    run_id = world.start()
    world.pause(run_id)
    world.end("A")
    assert world.status(run_id) is RunStatus.COMPLETED


def test_a_parallel_that_ends_while_paused_goes_on_after():
    world = PausingWorld(FORK)
    run_id = world.start()
    world.end("Init")
    world.end("Left")
    world.pause(run_id)
    for name in ("After", "Right"):
        world.end(name)
    assert world.state(run_id).nodes["Fork"].status is TaskStatus.COMPLETED
    assert world.target.nodes[-1] == "After"
    world.resume(run_id)
    assert world.target.nodes[-1] == "Join"


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        pytest.param([("pause", 1), ("pause", 1)], RunStatus.PAUSED, id="a pause delivered twice"),
        pytest.param([("pause", 1), ("resume", 2), ("pause", 1)], RunStatus.RUNNING, id="again after the resume"),
        pytest.param([("resume", 2), ("pause", 1)], RunStatus.RUNNING, id="overtaken by a later resume"),
        pytest.param([("pause", 3), ("resume", 2)], RunStatus.PAUSED, id="overtaken by a later pause"),
    ],
)
def test_the_latest_request_counts_whatever_order_they_come_in(requests, expected):
    world = PausingWorld(chain("A", "B"))
    run_id = world.start()
    for word, second in requests:
        getattr(world, word)(run_id, at=T0 + timedelta(seconds=second))
    assert world.status(run_id) is expected


def test_a_retry_that_falls_due_while_paused_waits_for_the_resume():
    world = PausingWorld(dag(A=task(retry={"max_attempts": 3, "delay": "10s"})))
    run_id = world.start()
    world.end("A", Outcome.failed("Task.Failed", "x"))
    world.pause(run_id)
    world.clock.forward(11)
    for event, _ in list(world.broker.published):
        world.executor.execute(event)
    world.executor.tick()
    assert world.target.nodes == ["A"]
    world.resume(run_id)
    assert [launch.attempt for launch in world.target.calls] == [1, 2]
    world.end("A")
    assert world.status(run_id) is RunStatus.COMPLETED


def test_an_attempt_that_fails_or_is_lost_while_paused_is_tried_again_after():
    for outcome in (Outcome.failed("Task.Failed", "x"), Outcome.lost("its host is gone")):
        target = NotedTarget(has_outcome=True)
        world = PausingWorld(dag(A=task(retry={"max_attempts": 3, "delay": "10s"})), target=target)
        run_id = world.start()
        world.pause(run_id)
        target.outcomes[f"x-{target.calls[0].key}"] = outcome
        world.executor.tick()
        world.clock.forward(60)
        world.executor.tick()
        node = world.state(run_id).nodes["A"]
        assert (node.status, node.attempt, node.claim, list(node.due)) == (TaskStatus.RUNNING, 2, None, ["retry"])
        assert world.target.nodes == ["A"]
        world.resume(run_id)
        world.executor.tick()
        assert [launch.attempt for launch in world.target.calls] == [1, 2]


def test_a_claim_that_nobody_launched_is_neither_taken_over_nor_timed_out_while_paused():
    target = NotedTarget()
    target.before_launch = lambda launch: (_ for _ in ()).throw(LaunchUncertain("killed"))
    world = PausingWorld(dag(A=task(timeout="30s")), target=target)
    run_id = world.start()
    world.clock.forward(70)
    world.executor.tick()  # taken over once, and not answered either
    world.pause(run_id)
    target.before_launch = lambda launch: None
    world.clock.forward(3600)
    world.executor.tick()
    for event, _ in list(world.broker.published):
        world.executor.execute(event)
    assert (world.status(run_id), len(target.calls)) == (RunStatus.PAUSED, 2)
    world.resume(run_id)
    world.executor.tick()
    assert (len(target.calls), len(target.launched)) == (3, 1)
    world.end("A")
    assert world.status(run_id) is RunStatus.COMPLETED


def test_what_runs_is_timed_out_in_a_paused_run_too():
    world = PausingWorld(dag(A=task("B", timeout="10m"), B=task()))
    run_id = world.start()
    world.pause(run_id)
    world.clock.forward(700)
    node = world.state(run_id).nodes["A"]
    world.executor.execute(reminder_message(run_id, "A", 1, "timeout", node.due["timeout"]))
    assert world.state(run_id).run.error.error_type == "Task.Timeout"


def test_a_wait_that_ends_while_paused_is_followed_after():
    world = PausingWorld(dag(W={"type": "Wait", "for": "10s", "next": "A"}, A=task()))
    run_id = world.start()
    world.pause(run_id)
    world.clock.forward(20)
    world.executor.tick()
    assert world.state(run_id).nodes["W"].status is TaskStatus.COMPLETED
    assert world.target.nodes == []
    world.resume(run_id)
    assert world.target.nodes == ["A"]


def test_where_an_error_leads_is_remembered_over_a_pause():
    steps = dag(A=task("B", on_error=[{"next": "Clean"}]), B=task(), Clean=task(parameters={"why": "${error.message}"}))
    world = PausingWorld(steps)
    run_id = world.start()
    world.pause(run_id)
    world.end("A", Outcome.failed("Task.Failed", "boom"))
    world.resume(run_id)
    assert world.target.of("Clean")[0].parameters == {"why": "boom"}


@pytest.mark.parametrize("ended", [(), ("Init",), ("Init", "Left"), ("Init", "Left", "Right")])
def test_a_paused_run_that_is_cancelled_ends(ended):
    world = PausingWorld(FORK)
    run_id = world.start()
    for name in ended[:-1]:
        world.end(name)
    world.pause(run_id)
    for name in ended[-1:]:
        world.end(name)
    world.executor.execute(cancel_message(run_id, "enough"))
    for launch in list(world.target.calls):
        world.executor.execute(completion(launch))
    state = world.state(run_id)
    assert state.run.status is RunStatus.CANCELLED
    assert state.run.held == ()
    assert all(node.status.is_final for node in state.nodes.values())
    world.resume(run_id)
    assert world.state(run_id).nodes == state.nodes
    assert replace(world.state(run_id).run, steered_at=state.run.steered_at) == state.run  # but for when it was asked


def test_a_run_that_has_ended_or_is_being_cancelled_is_not_paused():
    world = PausingWorld(chain("A"))
    run_id = world.start()
    world.executor.execute(cancel_message(run_id, "enough"))
    world.pause(run_id)
    assert world.status(run_id) is RunStatus.RUNNING
    world.end("A")
    before = world.state(run_id)
    assert world.pause(run_id).verdict == "unchanged"
    assert world.state(run_id) == before


def test_a_pause_of_a_run_that_is_not_there_yet_is_put_off():
    world = PausingWorld(chain("A"))
    with pytest.raises(NotYet):
        world.pause("run_1_000000000000")


@pytest.mark.parametrize("then", ["tick", "resume", "pause and resume"])
def test_a_resume_that_was_only_written_down_is_carried_out_by_whoever_comes_next(then):
    """As `orchestrator resume` writes it into the document of a run in a directory."""
    world = PausingWorld(chain("A", "B"))
    run_id = world.start()
    world.pause(run_id)
    world.end("A")
    world.clock.forward(1)
    status = OrchestrationStatus(world.store, run_id)
    state, version = status.load()
    status.save(RunState(resumed(state.run, world.clock.now()), state.nodes), expect=version)
    if then == "tick":
        world.executor.tick()
    else:
        if then != "resume":
            world.pause(run_id)
        world.resume(run_id)
    assert world.target.nodes == ["A", "B"]
    world.executor.tick()
    world.end("B")
    assert world.status(run_id) is RunStatus.COMPLETED


WITH_FINALLY = {**chain("A", "B"), "finally": chain("Clean"), "timeout": "1h"}


def test_the_finally_of_a_paused_run_waits_for_the_resume():
    world = PausingWorld({**chain("A"), "finally": chain("Clean")})
    run_id = world.start()
    world.pause(run_id)
    world.end("A")
    assert (world.status(run_id), world.target.nodes) == (RunStatus.PAUSED, ["A"])
    world.resume(run_id)
    world.end("Clean")
    assert (world.status(run_id), world.target.nodes) == (RunStatus.COMPLETED, ["A", "Clean"])


@pytest.mark.parametrize("stopped_by", ["cancel", "timeout"])
def test_a_paused_run_that_is_stopped_is_not_paused_any_more_so_that_its_finally_runs(stopped_by):
    world = PausingWorld(WITH_FINALLY)
    run_id = world.start()
    world.pause(run_id)
    world.end("A")
    if stopped_by == "cancel":
        world.executor.execute(cancel_message(run_id, "enough"))
    else:
        world.clock.forward(3601)
        world.executor.tick()
    state = world.state(run_id)
    assert (state.run.status, state.run.held) == (RunStatus.RUNNING, ())
    assert state.nodes["B"].status is TaskStatus.CANCELLED
    assert world.pause(run_id).verdict == "unchanged"
    world.end("Clean")
    assert world.status(run_id) is (RunStatus.CANCELLED if stopped_by == "cancel" else RunStatus.FAILED)


def test_a_parallel_that_stops_its_branches_stops_what_is_held_in_them():
    fork = parallel(chain("Left", "After"), chain("Right"), next="Join")
    world = PausingWorld(dag(Fork={**fork, "on_failure": "stop"}, Join=task()))
    run_id = world.start()
    world.pause(run_id)
    world.end("Left")
    assert [held.node for held in world.state(run_id).run.held] == ["After"]
    world.end("Right", Outcome.failed("Task.Failed", "x"))
    state = world.state(run_id)
    assert (state.run.status, state.run.held) == (RunStatus.FAILED, ())
    assert state.nodes["After"].status is TaskStatus.CANCELLED


# -- any order -------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.data())
def test_any_interleaving_of_pauses_resumes_ticks_and_ends_leaves_the_same_document(data):
    definition = data.draw(definitions())
    in_order = World(definition)
    in_order_id = in_order.start()
    names = sorted(in_order.state(in_order_id).nodes)
    failing = frozenset(data.draw(st.sets(st.sampled_from(names), max_size=2)))
    expected = plain(in_order.run_all(in_order_id, failing))

    world = PausingWorld(definition, instances=2)
    run_id = world.start()
    delivered, asked, latest = set(), [], ("resume", T0)
    for _ in range(6 * len(names) + 8):
        before = len(world.target.calls)
        was_paused = world.status(run_id) is RunStatus.PAUSED
        action = data.draw(st.sampled_from(["end", "end", "pause", "resume", "again", "tick"]))
        on = data.draw(st.integers(0, 1))
        if action in ("pause", "resume"):
            getattr(world, action)(run_id, on=on)
            asked.append((action, world.clock.now()))
            latest = asked[-1]
        elif action == "again" and asked:
            word, at = data.draw(st.sampled_from(asked))
            getattr(world, word)(run_id, at=at, on=on)
        elif action == "tick":
            world.clock.forward(data.draw(st.sampled_from([0, 1, 30])))
            world.instances[on].tick()
        elif world.target.calls:
            launch = data.draw(st.sampled_from(list(world.target.calls)))
            world.instances[on].execute(completion(launch, outcome_of(launch, failing)), message_id=launch.key)
            delivered.add(launch.launch_id)
        state = world.state(run_id)
        if state.run.status.is_final:
            break
        assert (state.run.status is RunStatus.PAUSED) == (latest[0] == "pause")
        assert state.run.status is RunStatus.PAUSED or not state.run.held
        if was_paused and action not in ("resume", "again"):
            assert len(world.target.calls) == before
    if not world.state(run_id).run.status.is_final:
        world.resume(run_id)
    while not world.state(run_id).run.status.is_final:
        launch = next(x for x in world.target.calls if x.launch_id not in delivered)
        world.executor.execute(completion(launch, outcome_of(launch, failing)))
        delivered.add(launch.launch_id)
    ended = plain(world.state(run_id))
    ended["$run"].pop("steered_at", None)
    assert ended == expected
    assert len(world.target.calls) == len(in_order.target.calls)


# -- the commands ----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def test_a_run_in_another_process_is_paused_and_resumed_from_here(place, capsys):
    steps = {"A": place.task("wait_for", "B", name="A", path="go"), "B": place.task("note", name="B")}
    place.dag("two", steps)
    process = place.start("run", "two", "--run-id", "r1")
    try:
        until(lambda: place.calls() == ["A"])
        assert main(["pause", "r1"]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "run r1 is paused; 1 step still at work: A",
            "let it go on with:",
            "  orchestrator resume r1 --bucket file://.orchestrator",
        ]
        assert main(["pause", "r1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"run_id": "r1", "status": "Paused"}
        (place.root / "go").touch()
        until(lambda: place.document("r1")["A"]["status"] == "Completed")
        assert place.document("r1")["$run"]["held"] == [{"node": "B"}]
        assert place.calls() == ["A"]
        assert main(["resume", "r1"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == "run r1 goes on"
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.communicate()
    assert place.calls() == ["A", "B"]
    assert "held" not in place.document("r1")["$run"]


def test_a_paused_run_whose_process_was_killed_goes_on_where_it_is_taken_up(place, capsys):
    steps = {"A": place.task("wait_for", "B", name="A", path="go"), "B": place.task("note", name="B")}
    place.dag("two", steps)
    process = place.start("run", "two", "--run-id", "r1")
    until(lambda: place.calls() == ["A"])
    main(["pause", "r1"])
    process.kill()
    process.communicate()
    (place.root / "go").touch()
    assert main(["resume", "r1"]) == 0
    assert main(["run", "two", "--resume", "r1"]) == 0
    assert place.calls() == ["A", "A", "B"]


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_run_that_has_ended_is_neither_paused_nor_resumed(place, capsys, command):
    place.dag("one", {"A": place.task("echo")})
    main(["run", "one", "--run-id", "r1"])
    capsys.readouterr()
    assert main([command, "r1"]) == 2
    said = f"orchestrator: run r1: has ended as Completed; there is nothing to {command}\n"
    assert capsys.readouterr().err == said
    assert main([command, "r2"]) == 2
    assert "run r2: there is no such run" in capsys.readouterr().err


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
    from orchestrator.cli.pause import pause
    from orchestrator.cli.resume import resume
    from orchestrator.cli.steering import Wanted
    from orchestrator.model.errors import InputError
    from orchestrator.runtime.settings import Settings

    world = PausingWorld(chain("A", "B"))
    run_id = world.start()
    bucket, topic = Bucket("gs://b", world.store), Published()

    def ask(call, **options):
        wanted = Wanted(run_id, **options)
        return call(Console(), bucket, wanted, Settings.read({}), {}, world.clock, broker_of=lambda *_: topic)

    with pytest.raises(InputError, match="pause: EVENTS_TOPIC is not set"):
        ask(pause)
    assert ask(pause, topic="projects/p/topics/t") == 0
    assert capsys.readouterr().out == f"run {run_id}: asked to pause, by message m7\n"
    assert topic.events == [pause_message(run_id)]
    world.steer(topic.events[0])
    assert ask(resume, topic="projects/p/topics/t", is_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": run_id, "status": "Paused", "message_id": "m7"}
    world.steer(topic.events[1])
    assert world.status(run_id) is RunStatus.RUNNING


def test_a_simulated_run_is_paused_for_a_day():
    simulation = Simulation(chain("A", "B"), targets={"A": takes("10m")})
    run_id = simulation.start()
    simulation.pause(run_id, after="1m")
    simulation.resume(run_id, after="1d")
    run = simulation.finish(run_id)
    assert timedelta(days=1) <= run.took < timedelta(days=1, minutes=2)
