"""What a save does that is refused, answered by an error, or has others' saves in its way: whoever it is of."""

import logging
from itertools import pairwise
from threading import Event, Thread

import pytest
from msgspec.structs import replace

from orchestrator.engine.batch import known
from orchestrator.engine.committing import MAX_FAULTS, MAX_SAVES, RACES_AT_ONCE, Committer
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.observing import Observed
from orchestrator.engine.pace import GATHERING_S, Pace
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import OpenRuns, OrchestrationStatus
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.facts import AttemptEnded, LaunchBound, LaunchFailed, PauseEnded
from orchestrator.model.messages import cancel_message, redrive_message
from orchestrator.model.run_state import ParentRun
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.story import Notifier
from tests.support.world import START, NotedTarget, World, chain, completion, dag, parallel, task


class Faulty(MemoryStore):
    """Does as `answers` say with the next writes of run documents: each a call that is given what would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list = []
        self.writes: list[str] = []

    def put(self, key, data, *, expect):
        if key.startswith(("runs/", "open/")):
            self.writes.append(key.partition("/")[0])
        if not key.startswith("runs/") or not self.answers:
            return super().put(key, data, expect=expect)
        return self.answers.pop(0)(lambda: MemoryStore.put(self, key, data, expect=expect))


def raises(error, *, after=lambda: None, is_written=False):
    """An answer: an error, perhaps after all was written, and something else has happened then."""

    def answer(write):
        if is_written:
            write()
        after()
        raise error

    return answer


def half(count: int) -> bytes:
    """Random bytes of which a number from 0 to 1 is made that is 0.5."""
    return b"\x80\0\0\0"[:count]


def slept_by(world, **parts):
    """An instance, and how long it sleeps each time; it draws 0.5 where it leaves that to chance."""
    slept: list[float] = []
    draw = lambda count: half(count) if count == 4 else world.random.randbytes(count)  # noqa: E731
    return world.instance(sleep=slept.append, random_bytes=draw, **parts), slept


# -- how long it waits ----------------------------------------------------------------------------------


def test_a_save_that_loses_races_tries_again_ever_later_and_gives_up_in_the_end():
    world = World(chain("A", "B"), store=Faulty())
    lost = []
    instance, slept = slept_by(world, observer=type("Seen", (), {"lost": lambda self, run_id: lost.append(run_id)})())
    run_id = world.start()
    world.store.answers = [raises(VersionConflict("412"))] * (MAX_SAVES - 1)
    assert instance.execute(completion(world.target.of("A")[0])).verdict == "applied"
    assert slept == [0.002, 0.004, 0.008, 0.016, 0.032] + [0.064] * (MAX_SAVES - 6)
    assert lost == [run_id] * (MAX_SAVES - 1)
    world.store.answers = [raises(VersionConflict("412"))] * MAX_SAVES
    with pytest.raises(VersionConflict, match="412"):
        instance.execute(completion(world.target.of("B")[0]))
    assert (world.store.answers, world.state(run_id).nodes["B"].status) == ([], "Running")
    assert instance.execute(completion(world.target.of("B")[0])).verdict == "applied"


def test_a_store_that_cannot_be_written_is_tried_a_few_times():
    world = World(chain("A", "B"), store=Faulty())
    instance, slept = slept_by(world)
    world.start()
    world.store.answers = [raises(StoreUnavailable("503"))] * (MAX_FAULTS - 1)
    assert instance.execute(completion(world.target.of("A")[0])).verdict == "applied"
    assert slept == [0.002, 0.004, 0.008, 0.016]
    world.store.answers = [raises(StoreUnavailable("503"))] * MAX_FAULTS
    with pytest.raises(StoreUnavailable, match="503"):
        instance.execute(completion(world.target.of("B")[0]))
    assert world.store.answers == []
    assert (len(slept), max(slept)) == (8, 0.016)


def test_no_wait_between_tries_is_longer_than_a_second():
    slept: list[float] = []
    committer = committer_of(VirtualClock(), slept)
    committer._back_off(50)
    assert slept == [0.5]


def committer_of(clock, slept, store=None):
    parts = (None, LargeResults(store or MemoryStore()), OpenRuns(store or MemoryStore()), Observed(None), clock)
    return Committer(*parts, instance="me", random_bytes=half, sleep=slept.append, on_saved=None)


def box_of(clock, *, interval_s=1.0, saves=0, saved=None):
    """A run that this instance has saved so many times just now."""
    box = RunBox("run_1_x", OrchestrationStatus(MemoryStore(), "run_1_x"), Pace(interval_s))
    box.saved = saved
    for _ in range(saves):
        box.pace.saved(clock.now().timestamp())
    return box


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        pytest.param(0, 2.0, id="the first try waits for its turn"),
        *(
            pytest.param(lost, 0.001 * 2**lost, id=f"after {lost} lost races a little")
            for lost in range(1, RACES_AT_ONCE + 1)
        ),
        pytest.param(RACES_AT_ONCE + 1, 2.0, id="after one more it waits for its turn"),
    ],
)
def test_who_loses_a_few_races_of_a_paced_run_tries_again_soon_and_then_waits_for_the_pace(lost, expected):
    clock, slept = VirtualClock(), []
    committer_of(clock, slept).linger(box_of(clock, saves=4), lost)
    assert slept == pytest.approx([expected], abs=1e-4)


def running(number):
    world = World(dag(P=parallel(*(chain(f"B{n}") for n in range(number)))))
    return world.state(world.start()), "1"


@pytest.mark.parametrize(
    ("number", "interval_s", "lost", "expected"),
    [(1, 1.0, 0, []), (2, 1.0, 0, [GATHERING_S]), (2, 0.0, 0, []), (2, 1.0, 1, [0.002]), (0, 1.0, 0, [])],
    ids=["one runs", "two run", "no pace", "after a lost race", "nothing is known"],
)
def test_a_save_of_a_paced_run_waits_a_moment_where_others_may_end_together_with_it(number, interval_s, lost, expected):
    clock, slept = VirtualClock(), []
    box = box_of(clock, interval_s=interval_s, saved=running(number) if number else None)
    committer_of(clock, slept).linger(box, lost)
    assert slept == expected


def test_in_a_crowd_it_is_the_save_that_waits_which_knows_more_by_then():
    clock, slept = VirtualClock(), []
    box = box_of(clock, saves=4, saved=running(1))
    box.pace.crowded(clock.now().timestamp())
    committer_of(clock, slept).linger(box)
    assert slept == []


def test_a_run_without_a_pace_is_saved_at_once_however_often():
    clock, slept = VirtualClock(), []
    committer_of(clock, slept).linger(box_of(clock, interval_s=0.0, saves=9))
    assert slept == []


# -- what was written all the same -------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable("503"), VersionConflict("412")], ids=["503", "412"])
@pytest.mark.parametrize("can_cancel", [True, False])
def test_what_was_claimed_by_a_save_that_seemed_to_fail_is_not_launched_after_a_cancel(can_cancel, error):
    world = World(chain("A", "B"), store=Faulty(), instances=2, target=NotedTarget(can_cancel=can_cancel))
    run_id = world.start()

    def cancel():
        world.clock.forward(0.001)
        world.instances[1].execute(cancel_message(run_id), message_id="c", publish_time=world.clock.now())

    world.store.answers = [raises(error, after=cancel, is_written=True)]
    world.end("A")
    assert world.target.of("B") == []
    for _ in range(4):
        world.clock.forward(100)
        world.executor.tick()
    world.clock.forward(86400)
    world.executor.tick()
    assert (world.target.of("B"), world.state(run_id).run.status) == ([], RunStatus.CANCELLED)


@pytest.mark.parametrize("is_written", [True, False])
def test_what_was_claimed_by_such_a_save_does_not_wait_for_the_turn_of_the_next_one(is_written):
    branches = (chain("A", "A2"), *(chain(f"B{number}") for number in range(5)))
    world = World(dag(P=parallel(*branches)), store=Faulty(), save_interval_s=1.0, crowd=2)
    slept: list[float] = []

    def sleep(seconds):
        slept.append(seconds)
        world.clock.forward(seconds)

    draw = lambda count: half(count) if count == 4 else world.random.randbytes(count)  # noqa: E731
    instance = world.instance(sleep=sleep, random_bytes=draw)
    run_id = instance.execute(START, message_id="m1", publish_time=world.clock.now()).run_id
    done = []

    def another_ends():
        slept.clear()
        instance.deliver(completion(world.target.of("B0")[0]), lambda handled, error: done.append(handled.verdict))

    world.store.answers = [raises(VersionConflict("412"), after=another_ends, is_written=is_written)]
    instance.execute(completion(world.target.of("A")[0]))
    assert (done, world.target.nodes[-1], world.state(run_id).nodes["B0"].status) == (["applied"], "A2", "Completed")
    assert slept == [0.002]


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("error", [StoreUnavailable("503"), VersionConflict("412")], ids=["503", "412"])
@pytest.mark.parametrize("times", [1, 2])
def test_whatever_such_a_save_entitles_to_is_done_once(error, is_written, times):
    alerts = {"on": ["started", "completed"], "topic": "projects/my-project/topics/alerts"}
    definition = {**dag(A=task("B", pool="api"), B=task(pool="api")), "notify": [alerts], "max_active_runs": 1}
    world = World(definition, store=Faulty(), pools={"api": 1})
    notifier, told = Notifier(), []
    world.instances = [world.instance(notifier=notifier, on_saved=told.append)]
    answer = raises(error, is_written=is_written)
    world.store.answers = [answer] * times
    run_id = world.start()
    while not world.state(run_id).run.status.is_final:
        node = next(name for name in "AB" if not world.state(run_id).nodes[name].status.is_final)
        if world.target.nodes[-1:] != [node]:  # a slot was not given back: that is for a Tick
            world.clock.forward(61)
            world.executor.tick()
        assert world.target.nodes[-1] == node
        world.store.answers = [answer] * times
        world.end(node)
    world.executor.tick()
    assert world.target.nodes == ["A", "B"]
    assert [each.payload["event"] for each in notifier.sent] == ["started", "completed"]
    assert list(world.store.list("slots/")) == ["slots/dag/dag.json", "slots/pool/api.json"]
    states = [saved.after for saved in told]
    assert [(saved.after.run.status, len(saved.items)) for saved in told if saved.has_ended] == [("Completed", 1)]
    assert len(states) == len({id(state) for state in states})
    assert all(before != after for before, after in pairwise(states))


def test_who_is_told_of_saves_is_told_of_one_that_seemed_to_fail_and_of_what_it_took_in():
    world, told = World(chain("A", "B"), store=Faulty()), []
    world.instances = [world.instance(on_saved=told.append)]
    run_id = world.start()
    world.store.answers = [raises(StoreUnavailable("503"), is_written=True)]
    world.end("A")
    assert len(told) == 2
    assert [item.node_name for item in told[-1].items] == ["A"]
    assert (told[-1].before, told[-1].after) == (told[0].after, world.state(run_id))
    assert told[-1].touched is not None
    assert set(told[-1].touched) == {"A", "B"}


def test_nobody_is_told_of_a_save_that_was_not_written():
    world, told = World(chain("A", "B"), store=Faulty(), instances=2), []
    world.instances = [world.instance(on_saved=told.append), world.instances[1]]
    run_id = world.start()
    other = lambda: world.instances[1].execute(completion(world.target.of("A")[0]))  # noqa: E731
    world.store.answers = [raises(VersionConflict("412"), after=other)]
    world.end("A")
    assert (len(told), world.state(run_id).nodes["A"].status) == (1, "Completed")


# -- markers -------------------------------------------------------------------------------------------


def test_a_run_that_is_redriven_has_its_marker_before_and_after_the_save():
    world = World(chain("A"), store=Faulty())
    run_id = world.start()
    world.end("A", Outcome.failed("Own.Error", "no"))
    world.executor.tick()
    assert list(world.store.list("open/")) == []
    marks = []
    world.store.writes = []
    world.store.answers = [lambda write: (marks.append([*world.store.list("open/")]), write())[1]]
    world.clock.forward(1)
    world.executor.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
    assert (marks, world.store.writes) == ([[f"open/{run_id}.1"]], ["open", "runs", "open"])
    assert list(world.store.list("open/")) == [f"open/{run_id}.1"]


@pytest.mark.parametrize("faults", [1, MAX_FAULTS - 1])
def test_a_marker_that_cannot_be_written_again_after_a_redrive_fails_nothing(faults):
    world = World(chain("A"), store=Faulty())
    instance, slept = slept_by(world)
    run_id = world.start()
    world.end("A", Outcome.failed("Own.Error", "no"))
    world.executor.tick()
    put, failing = world.store.put, []

    def after_the_save(write):
        failing.extend([StoreUnavailable("503")] * faults)
        return write()

    def put_of_markers(key, data, *, expect):
        if key.startswith("open/") and failing:
            raise failing.pop()
        return put(key, data, expect=expect)

    world.store.put, world.store.answers = put_of_markers, [after_the_save]
    world.clock.forward(1)
    handled = instance.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
    assert (handled.verdict, failing) == ("applied", [])
    assert slept == [0.002, 0.004, 0.008, 0.016][:faults]


@pytest.mark.parametrize("is_child", [True, False])
def test_the_marker_that_is_written_again_says_what_the_first_one_said(is_child):
    world = World(chain("A"), store=Faulty())
    parent = ParentRun("run_1_p", "K", 1, 1) if is_child else None
    run_id = world.start()
    world.end("A", Outcome.failed("Own.Error", "no"))
    world.executor.tick()
    key = f"runs/{run_id}.json"
    status = OrchestrationStatus(world.store, run_id)
    state, version = status.load()
    status.save(replace(state, run=replace(state.run, parent=parent)), expect=version)
    world.instances = [world.instance()]

    def deleted_meanwhile(write):
        world.store.delete(f"open/{run_id}.1")  # by a Tick that took it for one of long ago
        return write()

    world.store.answers = [deleted_meanwhile]
    world.clock.forward(1)
    world.executor.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
    marker = OpenRuns(world.store).read(f"open/{run_id}.1")
    assert (marker.at, marker.made_for) == (world.clock.now(), "m1" if is_child else None)
    assert world.store.get(key) is not None


def test_the_marker_of_a_run_is_there_before_its_document():
    world = World(chain("A"), store=Faulty())
    world.start()
    assert world.store.writes == ["open", "runs"]


# -- what the executor tells itself ------------------------------------------------------------------------


FAILURE = Failure("Launch.Refused", "no")


@pytest.mark.parametrize(
    ("facts", "labels"),
    [
        ([AttemptEnded("A", 2, Outcome.completed())], {"node": "A", "attempt": 2}),
        ([LaunchBound("A", 2, "me.1", "x")], {"node": "A", "attempt": 2}),
        ([LaunchFailed("A", 2, "me.1", FAILURE)], {"node": "A", "attempt": 2}),
        ([LaunchBound("A", 2, "me.1", "x"), AttemptEnded("A", 2, Outcome.completed())], {"node": "A", "attempt": 2}),
        ([AttemptEnded("A", 2, Outcome.completed()), LaunchBound("B", 1, "me.1", "x")], {}),
        ([PauseEnded()], {}),
    ],
    ids=["an end", "an execution", "a refusal", "both of one", "of two", "of the run"],
)
def test_what_came_of_a_launch_and_cannot_be_saved_is_said_of_whom_it_is(facts, labels, caplog):
    box = box_of(VirtualClock())
    entry = known(box, tuple(facts))
    assert entry.signal is None, "nobody waits"
    entry.finish(None, StoreUnavailable("503"))
    (line,) = caplog.records
    assert line.getMessage() == "could not save what came of a launch; the Tick finds out: 503"
    assert line.levelno == logging.WARNING
    found = {name: getattr(line, name) for name in ("run_id", "node", "attempt") if hasattr(line, name)}
    assert found == {"run_id": "run_1_x", **labels}


def test_what_came_of_a_launch_and_was_saved_is_no_news(caplog):
    known(box_of(VirtualClock()), ()).finish(None, None)
    assert caplog.records == []


# -- batches that are too large ----------------------------------------------------------------------------


class Held(MemoryStore):
    """Lets a write of a run document wait until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held, self.begun, self.go_on = False, Event(), Event()
        self.refuses = lambda data: False
        self.written: list[bytes] = []

    def put(self, key, data, *, expect):
        if not key.startswith("runs/"):
            return super().put(key, data, expect=expect)
        if self.is_held:
            self.begun.set()
            assert self.go_on.wait(60)
        if self.refuses(data):
            raise ValueError("cannot be written")
        self.written.append(data)
        return super().put(key, data, expect=expect)


@pytest.mark.parametrize("bad", [1, 2, 5, 8])
def test_of_many_events_in_one_save_the_one_that_cannot_be_written_fails_alone(bad):
    world = World(dag(P=parallel(*(chain(f"B{n}") for n in range(9)))), store=Held())
    run_id = world.start()
    results: dict[int, object] = {}

    def handle(number):
        outcome = Outcome.completed("unspeakable" if number == bad else number)
        try:
            results[number] = world.executor.execute(completion(world.target.calls[number], outcome)).verdict
        except ValueError as exc:
            results[number] = str(exc)

    world.store.is_held = True
    world.store.refuses = lambda data: b"unspeakable" in data
    threads = [Thread(target=handle, args=(number,)) for number in range(9)]
    threads[0].start()
    assert world.store.begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(world.executor._boxes.box(run_id)._pending) < 8:
        pass
    world.store.go_on.set()
    for thread in threads:
        thread.join()
    assert results == {number: "cannot be written" if number == bad else "applied" for number in range(9)}
    assert world.state(run_id).nodes[f"B{bad}"].status == "Running"
    world.store.refuses = lambda data: False
    world.end(f"B{bad}")
    assert world.state(run_id).run.status is RunStatus.COMPLETED
