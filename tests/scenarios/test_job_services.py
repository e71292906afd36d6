"""A step of each job service side by side, through the engine with fakes of their APIs, and what may go wrong."""

from datetime import datetime, timedelta
from functools import partial

import pytest

from orchestrator.model.enums import DueKind, TaskStatus
from orchestrator.model.messages import cancel_message, reminder_message
from orchestrator.services.google_api import GoogleApis
from orchestrator.targets.job_services import SERVICES
from orchestrator.targets.jobs import JobTarget
from tests.support.job_server import JobServer
from tests.support.job_steps import PLACE, definition_of_all
from tests.support.world import NotedTarget, World, completion

NAMES = tuple(name.value for name in SERVICES)
WITHOUT_EVENT = ("Dataproc", "Batch")


class JobWorld(World):
    """A world with the services' fakes; what their logs publish waits in `entries` for the test to deliver."""

    def __init__(self, server, **more):
        self.server, self.entries, self.end_target = server, [], NotedTarget()
        server.publish = self.entries.append
        server.now = lambda: self.clock.now()
        apis = GoogleApis(server.environment)
        targets = {name.value: JobTarget(row, apis, launch_limit_s=0.0, **PLACE) for name, row in SERVICES.items()}
        super().__init__(definition_of_all(), targets={**targets, "Function": self.end_target}, **more)

    def jobs(self, name):
        return list(self.server[name].jobs.values())

    def end_all(self, *names, **how):
        for name in names or NAMES:
            for job in self.jobs(name):
                self.server[name].end(job.id, **how)

    def deliver(self, *, on=0):
        """Deliver what the logs published since."""
        for number, entry in enumerate(self.entries):
            self.instances[on].execute(entry, message_id=f"e{number}", publish_time=self.clock.now())
        self.entries.clear()

    def remind(self, *, times=1, on=0):
        """Deliver the reminders that are due by now, and move the clock on to the last; return how many there were."""
        due = [event for event, _ in self.broker.published if event["kind"] == DueKind.QUESTION]
        self.broker.published.clear()
        for event in due:
            self.clock.time = max(self.clock.time, _time(event["at"]))
            for _ in range(times):
                self.instances[on].execute(event, message_id="r", publish_time=self.clock.now())
        return len(due)

    def statuses(self, run_id):
        return {name: self.state(run_id).nodes[name].status.value for name in NAMES}

    def finish(self, run_id):
        """End the step behind them all; return the run's status."""
        (launch,) = self.end_target.of("End")
        self.executor.execute(completion(launch), message_id="end", publish_time=self.clock.now())
        return self.state(run_id).run.status.value


def _time(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.fixture
def server():
    with JobServer() as server:
        yield server


@pytest.fixture
def world(server):
    return JobWorld(server, instances=2)


def test_all_six_run_from_start_to_completed_by_their_events_and_questions(world):
    run_id = world.start()
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)
    world.end_all(result=3)
    world.deliver()
    told = world.statuses(run_id)
    assert {name for name in NAMES if told[name] == "Completed"} == set(NAMES) - set(WITHOUT_EVENT)
    assert world.remind() == len(WITHOUT_EVENT)
    assert set(world.statuses(run_id).values()) == {"Completed"}
    assert world.state(run_id).nodes["Workflows"].result["output"] == 3
    assert world.finish(run_id) == "Completed"


def test_an_event_that_comes_to_another_instance_ends_the_step_too(world):
    run_id = world.start()
    world.end_all()
    world.deliver(on=1)
    world.remind(on=1)
    assert set(world.statuses(run_id).values()) == {"Completed"}
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)


@pytest.mark.parametrize("on", [0, 1], ids=["the instance that launched them", "another instance"])
def test_where_every_event_and_reminder_is_lost_the_tick_finds_out(world, on):
    run_id = world.start()
    world.end_all()
    world.entries.clear()
    world.broker.published.clear()
    for _ in range(3):
        world.clock.forward(70.0)  # beyond the lease, then another instance takes the claims over
        world.instances[on].tick()
    assert set(world.statuses(run_id).values()) == {"Completed"}
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)
    assert world.finish(run_id) == "Completed"


def test_an_event_of_a_job_that_runs_on_changes_nothing_and_asks_again_later(world):
    run_id = world.start()
    world.end_all()
    entries = list(world.entries)
    for name in NAMES:  # as if the line were forged
        for job in world.jobs(name):
            job.state = "Running"
    world.deliver()
    assert set(world.statuses(run_id).values()) == {"Running"}
    questions = [event for event, _ in world.broker.published if "kind" not in event]
    assert len(questions) == len(entries)


def test_a_launch_that_got_through_and_was_not_answered_is_one_job(world):
    for name in NAMES:
        world.server[name].fail_next("launch", 503, after_applying=True)
    run_id = world.start()
    for _ in range(2):
        world.clock.forward(70.0)
        world.instances[1].tick()
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)
    assert {name: world.state(run_id).nodes[name].execution_id is not None for name in NAMES} == dict.fromkeys(
        NAMES, True
    )
    world.end_all()
    world.deliver()
    world.remind()
    assert set(world.statuses(run_id).values()) == {"Completed"}


@pytest.mark.parametrize("launches", [False, True], ids=["before it launches", "after it, before it binds"])
def test_an_owner_that_is_killed_leaves_the_rest_to_the_tick(world, launches):
    class Killed(BaseException):
        pass

    def kill(launch, spared):
        if launches:
            spared(launch)
        raise Killed

    spared = {name: world.targets[name].launch for name in NAMES}
    for name in NAMES:  # a run each, so that each target is the one at which its owner is killed
        for other in NAMES:
            world.targets[other].launch = partial(kill, spared=spared[other]) if other == name else spared[other]
        with pytest.raises(Killed):
            world.start(f"m-{name}")
    for name in NAMES:
        world.targets[name].launch = spared[name]
    for _ in range(2):
        world.clock.forward(70.0)
        world.instances[1].tick()
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, len(NAMES))
    world.end_all()
    world.instances[1].tick()
    runs = {key.removeprefix("runs/").removesuffix(".json") for key in world.store.list("runs/")}
    assert len(runs) == len(NAMES)
    assert {status for run_id in runs for status in world.statuses(run_id).values()} == {"Completed"}


def test_events_that_come_twice_to_every_instance_end_each_step_once(world):
    run_id = world.start()
    world.end_all()
    entries = list(world.entries)
    for on in (0, 1, 1, 0):
        world.entries[:] = entries
        world.deliver(on=on)
    world.remind(times=3)
    assert set(world.statuses(run_id).values()) == {"Completed"}
    assert world.end_target.nodes == ["End"]
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)


def test_a_start_delivered_many_times_is_one_job_of_each(world):
    for on in (0, 1, 0, 1):
        world.instances[on].execute(
            {"resource": {"type": "start"}}, message_id="m1", publish_time=world.clock.now() - timedelta(seconds=1)
        )
    assert {name: len(world.jobs(name)) for name in NAMES} == dict.fromkeys(NAMES, 1)


def test_jobs_that_fail_fail_their_steps_and_the_run_ends_when_all_have(world):
    run_id = world.start()
    world.end_all("Batch", "BigQuery", state="Failed", error="ValueError: no rows")
    world.end_all()
    world.deliver()
    world.remind()
    state = world.state(run_id)
    assert state.nodes["Batch"].error.error_type == "Batch.JobFailed"
    assert state.nodes["BigQuery"].error.error_type == "BigQuery.JobFailed"
    assert "ValueError: no rows" in state.nodes["BigQuery"].error.message
    assert state.run.status == "Failed"
    assert state.run.error.node == "BigQuery", "the first in definition order"
    assert state.nodes["End"].status is TaskStatus.SKIPPED


def test_a_run_that_is_cancelled_cancels_every_job(world):
    run_id = world.start()
    world.executor.execute(cancel_message(run_id, "wrong day"), message_id="c", publish_time=world.clock.now())
    assert {job.state for name in NAMES for job in world.jobs(name)} == {"Cancelled"}
    assert world.state(run_id).run.status == "Cancelled"


def test_a_cancel_that_is_not_accepted_stays_owed_until_it_is(world):
    run_id = world.start()
    for name in NAMES:
        world.server[name].fail_next("cancel", 503)
    world.executor.execute(cancel_message(run_id), message_id="c", publish_time=world.clock.now())
    assert world.state(run_id).run.status == "Running"
    world.instances[1].tick()
    assert {job.state for name in NAMES for job in world.jobs(name)} == {"Cancelled"}
    assert world.state(run_id).run.status == "Cancelled"


def test_a_reminder_delivered_again_and_again_asks_no_more_often(world):
    run_id = world.start()
    for _ in range(4):
        assert world.remind(times=3) == len(WITHOUT_EVENT)
    asked = [call for name in WITHOUT_EVENT for call in world.server[name].calls if call[0].endswith(".get")]
    assert len(asked) == 4 * len(WITHOUT_EVENT), "a question that was answered is not due any more"
    assert set(world.statuses(run_id).values()) == {"Running"}


def test_reminders_end_and_the_tick_alone_goes_on(world):
    run_id = world.start()
    rounds = 0
    while world.remind():
        rounds += 1
        assert rounds < 20
    world.end_all()
    world.entries.clear()
    world.executor.tick()
    assert set(world.statuses(run_id).values()) == {"Completed"}


def test_a_tick_leaves_a_question_to_its_reminder_and_asks_once(world):
    run_id = world.start()
    due = world.state(run_id).nodes["Batch"].due
    world.clock.forward(20.0)
    world.executor.tick()
    assert [call[0] for call in world.server["Batch"].calls[1:]] == ["batch.projects.locations.jobs.get"]
    assert world.state(run_id).nodes["Batch"].due == due


def test_a_question_about_an_attempt_that_is_gone_is_nobody_s(world):
    run_id = world.start()
    world.executor.execute(
        reminder_message(run_id, "Batch", 7, DueKind.QUESTION, world.clock.now()),
        message_id="r",
        publish_time=world.clock.now(),
    )
    assert world.server["Batch"].calls[1:] == []
