"""What the classic implementation of this design gets wrong, made impossible; a test each."""

from collections import Counter
from functools import partial
from threading import Barrier, Thread

import pytest

from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import Identity, RunStatus, TaskStatus
from orchestrator.model.errors import LaunchRefused, NotYet
from orchestrator.stores.memory import MemoryStore
from tests.support.interleave import GatedStore, every_schedule
from tests.support.world import START, NotedTarget, World, chain, completion, dag, parallel, task

FORK = dag(Init=task("Fork"), Fork=parallel(chain("Left"), chain("Right"), next="Join"), Join=task())


@pytest.mark.parametrize(
    ("names", "is_warm", "at_least"),
    [
        pytest.param(("Left", "Right"), False, 6, id="two instances that load the run"),
        pytest.param(("Left", "Right"), True, 2, id="two instances that have it in memory"),
        pytest.param(("Left", "Right", "Left"), False, 90, id="and one of the completions twice"),
        pytest.param(("Left", "Right", "Right"), True, 20, id="twice, to instances that have it in memory"),
    ],
)
def test_branch_completions_handled_at_once_open_the_join_in_every_interleaving(names, is_warm, at_least):
    """Each handler reads and writes the run; all orders of those calls are tried, none may stall the join."""
    tried = 0
    for schedule in every_schedule(limit=20_000):
        world = World(FORK, store=GatedStore(MemoryStore()))
        run_id = world.start()
        world.end("Init")
        world.instances = [world.instance() for _ in names]
        for instance in world.instances if is_warm else ():
            instance.execute(completion(world.target.of("Init")[0]))  # a duplicate: it only loads the run
        handlers = [
            partial(instance.execute, completion(world.target.of(name)[0]))
            for instance, name in zip(world.instances, names, strict=True)
        ]
        world.store.run(schedule, handlers)
        assert world.target.nodes.count("Join") == 1, schedule.taken
        world.end("Join")
        assert world.state(run_id).run.status is RunStatus.COMPLETED, schedule.taken
        tried += 1
    assert tried >= at_least


@pytest.mark.parametrize("times", [2, 10])
def test_a_completion_delivered_again_launches_nothing_again(times):
    world = World(chain("A", "B"))
    run_id = world.start()
    world.end("A", times=times)
    assert world.target.nodes == ["A", "B"]
    world.end("B", times=times)
    before = world.state(run_id)
    world.end("A")
    world.end("B", Outcome.failed("Task.Failed", "too late to tell"))
    assert world.state(run_id) == before
    assert world.target.nodes == ["A", "B"]


def test_a_completion_that_arrives_before_its_execution_record_is_put_off_and_then_counts():
    world = World(chain("A", "B"), target=NotedTarget(has_outcome=True))
    run_id = world.start()
    launch = world.target.of("A")[0]
    key = f"executions/x-{launch.key}.json"
    record = world.store.get(key)[0]
    world.store.delete(key)
    world.target.outcomes[f"x-{launch.key}"] = Outcome.completed()
    line = {
        "resource": {"type": "dataflow_step", "labels": {"job_id": f"x-{launch.key}", "job_name": launch.key}},
        "logName": "projects/p/logs/dataflow.googleapis.com%2Fjob-message",
        "textPayload": "Worker pool stopped.",
    }
    other = world.instance()  # the one that launched it remembers
    with pytest.raises(NotYet) as put_off:
        other.execute(line, message_id="m2", publish_time=world.clock.now())
    assert put_off.value.retry
    published = world.clock.now()
    world.store.put(key, record, expect=None)
    world.clock.forward(2)
    other.execute(line, message_id="m2", publish_time=published)
    assert world.state(run_id).nodes["A"].status is TaskStatus.COMPLETED


def test_a_completion_of_nobody_is_put_off_only_while_it_is_young():
    world = World(chain("A"))
    world.start()
    line = {
        "resource": {"type": "dataflow_step", "labels": {"job_id": "2026-01-01_x", "job_name": "orch-theirs"}},
        "logName": "projects/p/logs/dataflow.googleapis.com%2Fjob-message",
        "textPayload": "Worker pool stopped.",
    }
    published = world.clock.now()
    with pytest.raises(NotYet):
        world.executor.execute(line, message_id="m2", publish_time=published)
    world.clock.forward(61)
    assert world.executor.execute(line, message_id="m2", publish_time=published).verdict == "not ours"


def test_a_function_that_ends_with_an_error_fails_the_run_with_the_reason_in_its_document():
    world = World(chain("A", "B", "C"))
    run_id = world.start()
    world.end("A")
    world.end("B", Outcome.failed("Task.Failed", "ValueError: no such day"))
    state = world.state(run_id)
    assert state.run.status is RunStatus.FAILED
    assert (state.run.error.node, state.run.error.error_type) == ("B", "Task.Failed")
    assert state.run.error.message == "ValueError: no such day"
    assert [node.status for node in state.nodes.values()] == [
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.SKIPPED,
    ]
    assert world.target.nodes == ["A", "B"]


def test_a_launch_that_is_refused_fails_the_run_with_the_services_words():
    target = NotedTarget()

    def refuse(launch: Launch) -> None:
        raise LaunchRefused("403: the caller lacks run.invoker on f", error_type="Launch.Forbidden")

    target.before_launch = refuse
    world = World(chain("A", "B"), target=target)
    state = world.state(world.start())
    assert state.run.status is RunStatus.FAILED
    assert state.run.error.error_type == "Launch.Forbidden"
    assert "403" in state.run.error.message


def test_a_launch_that_raises_is_tried_again_by_the_tick_when_its_lease_is_over():
    target = NotedTarget()
    faults = iter([ConnectionResetError("peer"), None])

    def fault(launch: Launch) -> None:
        if (error := next(faults)) is not None:
            raise error

    target.before_launch = fault
    world = World(chain("A", "B"), target=target)
    run_id = world.start()
    world.executor.tick()
    assert target.nodes == ["A"], "its lease is not over: nobody else may launch"
    world.clock.forward(66)
    world.executor.tick()
    assert target.nodes == ["A", "A"]
    assert {launch.key for launch in target.calls} == {target.calls[0].key}, "the same attempt, the same key"
    assert target.calls[0].nonce == target.calls[1].nonce
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


class Killed(BaseException):
    """The process is gone: no handler of the engine may catch this and go on."""


@pytest.mark.parametrize("moment", ["before_launch", "after_launch"], ids=["before it got through", "after it did"])
def test_a_process_killed_inside_a_launch_costs_a_tick_and_no_second_execution(moment):
    target = NotedTarget()

    def kill(launch: Launch) -> None:
        setattr(target, moment, lambda launch: None)
        raise Killed

    setattr(target, moment, kill)
    world = World(chain("A", "B"), target=target)
    with pytest.raises(Killed):
        world.start()
    (marker,) = world.store.list("open/")
    run_id = marker.removeprefix("open/")
    survivor = world.instance()
    world.instances = [survivor]
    world.start()  # the start message was not acknowledged: it comes again
    assert len(target.calls) == 1, "a duplicate start launches nothing"
    world.clock.forward(66)
    survivor.tick()
    assert len(target.launched) == 1
    state = world.state(run_id)
    assert state.nodes["A"].execution_id == f"x-{target.calls[0].key}", "an attempt taken over is bound in the run"
    assert state.nodes["A"].attempt == 1
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


def test_two_starts_within_one_second_are_two_runs_and_one_delivered_twice_is_one():
    world = World(chain("A"))
    first, second, again = (world.start(message_id) for message_id in ("m1", "m2", "m1"))
    assert first != second
    assert first == again
    assert world.target.nodes == ["A", "A"]
    without_ids = {world.executor.execute(START).run_id for _ in range(3)}
    assert len(without_ids) == 3


def test_one_function_in_two_steps_of_a_chain():
    world = World(dag(A=task("B", target="same"), B=task("C"), C=task("D", target="same"), D=task()))
    run_id = world.start()
    first = completion(world.target.of("A")[0])
    world.executor.execute(first)
    world.end("B")
    world.executor.execute(first)  # the function's first completion once more must not complete C
    assert world.target.nodes == ["A", "B", "C"]
    assert world.state(run_id).nodes["C"].status is TaskStatus.RUNNING
    world.end("C")
    world.end("D")
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert world.target.nodes == ["A", "B", "C", "D"]


INNER = parallel(chain("X"), chain("Y"))


@pytest.mark.parametrize(
    ("branch", "order"),
    [
        pytest.param(
            {"start": "P", "steps": {"P": {**INNER, "next": "After"}, "After": task()}},
            ["X", "Y", "Other", "After", "Join"],
            id="first in a branch",
        ),
        pytest.param(
            {"start": "Before", "steps": {"Before": task("P"), "P": {**INNER, "next": "After"}, "After": task()}},
            ["Before", "Other", "X", "Y", "After", "Join"],
            id="in the middle of a branch",
        ),
        pytest.param({"start": "P", "steps": {"P": INNER}}, ["X", "Y", "Other", "Join"], id="alone in a branch"),
    ],
)
def test_a_parallel_inside_a_branch(branch, order):
    world = World(dag(Outer=parallel(branch, chain("Other"), next="Join"), Join=task()))
    state = world.run_all(world.start())
    assert state.run.status is RunStatus.COMPLETED
    assert world.target.nodes == order


class MeetingTarget(NotedTarget):
    """A synchronous target whose launches return only when both branches are being launched."""

    identity = Identity.NONE
    synchronous = True
    launch_limit_s = 10.0

    def __init__(self) -> None:
        super().__init__()
        self.barrier = Barrier(2, timeout=60)

    def launch(self, launch: Launch) -> Execution:
        self.calls.append(launch)
        if launch.node_name in ("Left", "Right"):
            self.barrier.wait()
        return Execution(f"x-{launch.key}", outcome=Outcome.completed(launch.node_name))


def test_branches_start_at_once_even_where_a_launch_blocks():
    world = World(FORK, target=MeetingTarget())
    state = world.state(world.start())
    assert state.run.status is RunStatus.COMPLETED
    assert sorted(world.target.nodes) == ["Init", "Join", "Left", "Right"]


def test_a_call_for_which_a_slot_was_granted_holds_up_no_other():
    fork = dag(P=parallel(dag(Left=task(pool="api")), chain("Right")))
    world = World(fork, target=MeetingTarget(), pools={"api": 1})
    assert world.state(world.start()).run.status is RunStatus.COMPLETED


def test_an_event_to_twenty_threads_and_three_instances_at_once_launches_each_task_once():
    wide = dag(Init=task("Fork"), Fork=parallel(*(chain(f"B{i}", f"C{i}") for i in range(8)), next="Join"), Join=task())
    for round_number in range(5):
        world = World(wide, instances=3, seed=round_number)
        run_id = world.start()
        told: set[str] = set()
        while not world.state(run_id).run.status.is_final:
            ready = [launch for launch in list(world.target.calls) if launch.launch_id not in told]
            told |= {launch.launch_id for launch in ready}
            at_once(world.instances, [completion(launch) for launch in ready], threads=20)
        assert Counter(world.target.nodes) == dict.fromkeys(world.catalog.find(None)[2].by_name.keys() - {"Fork"}, 1)


def at_once(instances: list[DAGExecutor], events: list[dict], threads: int) -> None:
    """Deliver each event by every thread, to instances in turn; any error fails the test."""
    barrier, errors = Barrier(threads), []

    def deliver(number: int) -> None:
        barrier.wait()
        for event in events if number % 2 else reversed(events):
            try:
                instances[number % len(instances)].execute(event)
            except Exception as exc:
                errors.append(exc)

    crowd = [Thread(target=deliver, args=(number,)) for number in range(threads)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert errors == []
