"""What a review of the engine found: leads that got lost, events that failed together, launches that came too late."""

import os
from collections.abc import Callable
from threading import Event, Thread
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from orchestrator.engine.address import Completion, Known
from orchestrator.engine.handled import Handled
from orchestrator.engine.run_box import Baton, Entry
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import Identity, RunStatus
from orchestrator.model.errors import LaunchUncertain, NotYet, RunExists, RunNotFound, StoreUnavailable
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.facts import ClaimExpired
from orchestrator.model.messages import cancel_message
from orchestrator.runtime.executor import DAGExecutor as PublicExecutor
from orchestrator.runtime.own_runs import MAX_ENDED_RUNS
from orchestrator.runtime.settings import Settings
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore
from tests.support.world import START, NotedTarget, World, chain, completion, dag, parallel, task


class Killed(BaseException):
    """Somebody ends the thread: ctrl-C, or the host."""


def within_10_s(*calls: Callable[[], object]) -> list[object]:
    """Run each in a thread of its own; return what they returned or raised. None of them may hang."""
    results: list[object] = [None] * len(calls)

    def body(number: int, call: Callable[[], object]) -> None:
        try:
            results[number] = call()
        except BaseException as exc:
            results[number] = exc

    threads = [Thread(target=body, args=(n, call), daemon=True) for n, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads), "it hangs"
    return results


def folded(world: World, run_id: str, *entries: Entry) -> None:
    """Have the first instance handle entries as one batch, by a thread that is none of theirs."""
    box = world.executor._boxes.box(run_id)
    assert box.offer(entries[0])
    for entry in entries[1:]:
        assert not box.offer(entry)
    world.executor._leader.lead(box, entries[0])


def noting(results: dict[str, object], name: str) -> Callable[[Handled | None, BaseException | None], None]:
    return lambda handled, error: results.update({name: error or handled})


# -- who leads a run --------------------------------------------------------------------------------


class GatedStore(MemoryStore):
    """Holds up the first look at a run; its writes of runs can be made to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.is_held, self.reached, self.go_on = False, Event(), Event()
        self.faults: list[BaseException] = []

    def get(self, key):
        if key.startswith("runs/") and self.is_held:
            self.is_held = False
            self.reached.set()
            self.go_on.wait(10)
        return super().get(key)

    def put(self, key, data, *, expect):
        if key.startswith("runs/") and self.faults:
            raise self.faults.pop(0)
        return super().put(key, data, expect=expect)


def test_an_event_put_back_behind_a_start_that_fails_does_not_take_the_lead_away_with_it():
    world = World(chain("A"), store=GatedStore())
    world.store.is_held, world.store.faults = True, [StoreUnavailable("503")] * 5
    cancel, start = cancel_message("mine"), {**START, "run_id": "mine"}
    box = world.executor._boxes.box("mine")

    def behind(number: int, event: dict) -> object:
        assert world.store.reached.wait(10)
        while len(box._pending) < number:
            pass
        return world.executor.execute(event, message_id="m1")

    def let_go() -> None:
        while len(box._pending) < 2:
            pass
        world.store.go_on.set()

    results = within_10_s(
        lambda: world.executor.execute(cancel), lambda: behind(0, cancel), lambda: behind(1, start), let_go
    )
    assert [type(result) for result in results[:3]] == [NotYet, NotYet, StoreUnavailable]
    assert box.is_idle
    assert within_10_s(lambda: world.executor.execute(start, message_id="m1").verdict) == ["applied"]


@pytest.mark.parametrize("place", ["save", "launch", "on_saved"])
def test_a_thread_that_is_killed_while_it_leads_leaves_the_run_to_others(place):
    world = World(chain("A", "B"), store=GatedStore())
    run_id = world.start()
    results: dict[str, object] = {}
    event = completion(world.target.calls[0])

    def kill(_: object) -> None:
        world.target.before_launch = lambda launch: None
        world.executor._committer.on_saved = None
        raise Killed

    if place == "save":
        world.store.faults = [Killed()]
    elif place == "launch":
        world.target.before_launch = kill
    else:
        world.executor._committer.on_saved = kill
    item = Completion(run_id, "A", 1, EventFactory.create_from_event(event))
    entries = [Entry(item) for _ in range(2)] + [Entry(item, on_done=noting(results, "called back"))]
    with pytest.raises(Killed):
        folded(world, run_id, *entries)
    assert world.executor._boxes.box(run_id).is_idle
    assert all(entry.is_done for entry in entries), "nobody waits for ever"
    assert len(results) == 1
    world.clock.forward(66)
    within_10_s(lambda: world.end("A"), world.executor.tick)
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


def test_a_thread_that_is_interrupted_while_it_waits_does_not_get_the_lead():
    world = World(chain("A"))
    run_id = world.start()
    box = world.executor._boxes.box(run_id)
    led, waits = Entry(Known(run_id, ())), Entry(Known(run_id, ()))
    assert box.offer(led)

    def interrupted() -> None:
        assert box.take() == [led, waits]
        box.put_back([waits])
        assert box.pass_on() is Baton.HANDED_ON
        raise KeyboardInterrupt

    waits.signal = SimpleNamespace(wait=interrupted, set=lambda: None, clear=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        world.executor._leader.lead_or_wait(box, waits)
    assert box.is_idle
    within_10_s(lambda: world.end("A"))
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_a_thread_that_is_interrupted_before_it_saves_does_not_keep_the_lead():
    world = World(dag(P=parallel(chain("A"), chain("B"))), save_interval_s=1.0)
    run_id = world.start()

    def interrupted(_: float) -> None:
        world.executor._committer._sleep = lambda seconds: None
        raise Killed

    world.executor._committer._sleep = interrupted  # saves are paced: it waits for its turn
    with pytest.raises(Killed):
        world.end("A")
    assert world.executor._boxes.box(run_id).is_idle
    within_10_s(lambda: world.end("A"), lambda: world.end("B"))
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_a_thread_that_is_interrupted_while_its_event_is_handled_does_not_get_the_lead_after_that():
    world = World(chain("A"))
    run_id = world.start()
    box = world.executor._boxes.box(run_id)
    led, waits = Entry(Known(run_id, ())), Entry(Known(run_id, ()))
    assert box.offer(led)

    def interrupted() -> None:
        assert box.take() == [led, waits]
        raise KeyboardInterrupt

    waits.signal = SimpleNamespace(wait=interrupted, set=lambda: None, clear=lambda: None)
    with pytest.raises(KeyboardInterrupt):
        world.executor._leader.lead_or_wait(box, waits)
    box.put_back([waits])  # as who leads does with what is too much at once
    assert box.pass_on() is Baton.KEPT


def test_a_callback_that_raises_costs_nobody_else_anything():
    world = World(dag(P=parallel(chain("A", "A2"), chain("B", "B2"))))
    run_id = world.start()

    def broken(handled: Handled | None, error: BaseException | None) -> None:
        raise ValueError("the subscriber is broken")

    entries = [
        Entry(Completion(run_id, x.node_name, 1, EventFactory.create_from_event(completion(x))), on_done=broken)
        for x in world.target.calls
    ]
    folded(world, run_id, *entries)
    assert world.target.nodes == ["A", "B", "A2", "B2"]
    assert world.executor._boxes.box(run_id).is_idle


# -- events that share a save -----------------------------------------------------------------------


def test_of_two_starts_that_share_a_save_the_one_that_makes_the_run_wins_and_the_other_is_told():
    world = World(chain("A"))
    resolve = world.executor._resolver.resolve
    results: dict[str, object] = {}
    entries = [
        Entry(
            resolve(
                {**START, "run_id": "mine", "input": {"by": name}}, message_id, world.clock.now(), world.clock.now()
            ),
            on_done=noting(results, name),
        )
        for name, message_id in (("first", "m1"), ("again", "m1"), ("other", "m2"))
    ]
    folded(world, "mine", *entries)
    assert {name: getattr(result, "verdict", type(result)) for name, result in results.items()} == {
        "first": "applied",
        "again": "applied",
        "other": RunExists,
    }
    assert world.state("mine").run.input == {"by": "first"}


def test_an_event_whose_result_cannot_be_saved_fails_alone():
    target = NotedTarget(has_outcome=True)
    world = World(dag(P=parallel(chain("A"), chain("B"), chain("C"))), target=target)
    run_id = world.start()
    results: dict[str, object] = {}
    entries = []
    for launch in target.calls:
        target.outcomes[f"x-{launch.key}"] = Outcome.completed("\ud800" if launch.node_name == "B" else 1)
        item = Completion(run_id, launch.node_name, 1, EventFactory.create_from_event(completion(launch)))
        entries.append(Entry(item, on_done=noting(results, launch.node_name)))
    folded(world, run_id, *entries)
    assert isinstance(results["B"], UnicodeEncodeError)
    statuses = {name: node.status.value for name, node in world.state(run_id).nodes.items()}
    assert statuses == {"P": "Running", "A": "Completed", "B": "Running", "C": "Completed"}


def test_a_claim_that_is_taken_over_in_the_save_that_also_hears_of_its_end_is_not_launched_again():
    world = World(chain("A", "B"))
    world.target.find = lambda launch: None
    run_id = world.start()
    launch = world.target.calls[0]
    world.clock.forward(66)
    expired = Known(run_id, (ClaimExpired("A", 1, launch.owner),))
    ended = Completion(run_id, "A", 1, EventFactory.create_from_event(completion(launch)))
    folded(world, run_id, Entry(expired), Entry(ended))
    assert world.target.nodes == ["A", "B"]


# -- timeouts of launches that nobody answers -------------------------------------------------------


def unanswered(launch: Launch) -> None:
    raise LaunchUncertain("503")


def test_an_attempt_that_times_out_in_the_tick_that_finds_its_claim_over_is_not_launched_again():
    world = World(dag(A=task("B", timeout="50s"), B=task()))
    world.target.before_launch = unanswered
    run_id = world.start()
    world.clock.forward(66)
    world.executor.tick()
    assert world.state(run_id).nodes["A"].claim.takeovers == 1
    world.target.before_launch = lambda launch: None
    world.clock.forward(66)
    world.executor.tick()
    state = world.state(run_id)
    assert (state.run.status, state.run.error.error_type) == (RunStatus.FAILED, "Task.Timeout")
    assert world.target.launched == {}, "nothing is launched when the run has ended"


def test_a_claim_taken_over_does_not_time_out_while_its_new_owner_may_still_launch():
    world = World(dag(A=task("B", timeout="10s"), B=task()), instances=2)
    world.target.before_launch = unanswered
    run_id = world.start()
    world.clock.forward(66)

    def stall(launch: Launch) -> None:
        world.target.before_launch = lambda launch: None
        world.clock.forward(20)
        world.instances[1].tick()
        seen.append(world.state(run_id).run.status)

    seen: list[RunStatus] = []
    world.target.before_launch = stall
    world.instances[0].tick()
    assert seen == [RunStatus.RUNNING], "its launch was about to get through"
    world.clock.forward(66)
    world.instances[1].tick()
    assert world.state(run_id).run.status.is_final


# -- the Tick ---------------------------------------------------------------------------------------


def test_a_run_at_which_the_tick_stumbles_holds_up_no_other(monkeypatch):
    world = World(chain("A"))
    world.target.before_launch = unanswered
    world.store.put("open/a-mark-that-is-spoilt", b'{"at": "2026-01-01T12:00:00"}', expect=None)
    run_id = world.start()
    world.target.before_launch = lambda launch: None
    world.clock.forward(66)
    swept = world.executor.tick()
    assert swept.recovered == (f"{run_id}/A/1",)
    assert len(swept.problems) == 1


@pytest.mark.parametrize("is_ours", [True, False])
def test_an_execution_is_recorded_where_its_events_do_not_name_its_launch(is_ours):
    class Named(NotedTarget):
        id_is_ours = is_ours

        def is_named(self, launch: Launch) -> bool:
            return launch.node_name == "B"

    world = World(chain("A", "B"), target=Named())
    run_id = world.start()
    world.end("A")
    world.end("B")
    world.executor.close()
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    recorded = {key.split("-")[2] for key in world.store.list("executions/")}
    assert recorded == (set() if is_ours else {"a"})


def test_a_record_that_cannot_be_written_is_said_and_stops_nothing(caplog):
    class Odd(NotedTarget):
        def launch(self, launch: Launch) -> Execution:
            return Execution(super().launch(launch).execution_id, object() if launch.node_name == "A" else None)

    world = World(chain("A", "B"), target=Odd())
    world.start()
    world.end("A")
    world.executor.close()
    assert [key.startswith("executions/x-orch-b-1-") for key in world.store.list("executions/")] == [True]
    (line,) = [line for line in caplog.records if line.getMessage().startswith("cannot record an execution: ")]
    assert (line.levelname, line.node, line.attempt) == ("WARNING", "A", 1)


# -- launches that block ----------------------------------------------------------------------------


class Calls(NotedTarget):
    """A synchronous target: its launch is the call, and `of_node` says what happens during it."""

    identity = Identity.NONE
    synchronous = True
    launch_limit_s = 30.0

    def __init__(self, **of_node: Callable[[], object]) -> None:
        super().__init__()
        self.of_node = of_node

    def launch(self, launch: Launch) -> Execution:
        self.calls.append(launch)
        self.of_node.get(launch.node_name, lambda: None)()
        return Execution(f"x-{launch.key}", outcome=Outcome.completed(launch.node_name))


def test_a_branch_goes_on_while_the_call_of_another_one_lasts():
    reached, in_time = Event(), []
    target = Calls(Long=lambda: in_time.append(reached.wait(5)), Third=reached.set)
    world = World(dag(P=parallel(chain("Long"), chain("First", "Second", "Third"))), target=target)
    state = world.state(world.start())
    assert state.run.status is RunStatus.COMPLETED
    assert in_time == [True]


def test_what_is_only_handed_over_does_not_wait_for_a_call():
    handed_over = NotedTarget()
    seen: list[int] = []
    calls = Calls(A=lambda: seen.append(len(handed_over.calls)))
    world = World(
        dag(P=parallel(dag(A=task(target_type="CloudFunction", function="main")), chain("B"))),
        targets={"CloudFunction": calls, "Function": handed_over},
    )
    world.start()
    assert seen == [1]


def test_events_with_nobody_waiting_are_handled_while_the_leader_launches():
    ended, in_time = Event(), []
    quick, calls = NotedTarget(), Calls(Long=lambda: in_time.append(ended.wait(5)))
    long = dag(A=task("Long"), Long=task(target_type="CloudFunction", function="main"))
    world = World(dag(P=parallel(long, chain("B"))), targets={"CloudFunction": calls, "Function": quick})
    run_id = world.start()
    a, b = (Completion(run_id, x.node_name, 1, EventFactory.create_from_event(completion(x))) for x in quick.calls)

    def arrives(_: object) -> None:
        world.executor._committer.on_saved = None
        assert not world.executor._boxes.box(run_id).offer(Entry(b, on_done=lambda *_: ended.set()))

    world.executor._committer.on_saved = arrives
    folded(world, run_id, Entry(a, on_done=lambda *_: None))
    assert in_time == [True]
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_what_waits_is_handled_after_the_call_where_the_machine_has_no_thread_left(monkeypatch):
    quick, calls = NotedTarget(), Calls()
    long = dag(A=task("Long"), Long=task(target_type="CloudFunction", function="main"))
    world = World(dag(P=parallel(long, chain("B"))), targets={"CloudFunction": calls, "Function": quick})
    run_id = world.start()
    a, b = (Completion(run_id, x.node_name, 1, EventFactory.create_from_event(completion(x))) for x in quick.calls)
    results: dict[str, object] = {}

    def arrives(_: object) -> None:
        world.executor._committer.on_saved = None
        assert not world.executor._boxes.box(run_id).offer(Entry(b, on_done=noting(results, "B")))

    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    world.executor._committer.on_saved = arrives
    monkeypatch.setattr(Thread, "start", none_left)
    folded(world, run_id, Entry(a, on_done=noting(results, "A")))
    assert {name: type(result) for name, result in results.items()} == {"A": Handled, "B": Handled}
    assert world.state(run_id).run.status is RunStatus.COMPLETED


# -- an instance that lives long --------------------------------------------------------------------


def test_what_an_instance_remembers_of_ended_runs_is_bounded():
    target = NotedTarget()
    with PublicExecutor(chain("A"), store=MemoryStore(), targets={"Function": target}) as executor:
        for number in range(MAX_ENDED_RUNS + 50):
            executor.execute(START, message_id=f"m{number}")
            executor.execute(completion(target.calls[-1]))
        first = target.calls[0].run_id
        assert len(executor._runs._ended) == MAX_ENDED_RUNS
        assert executor.wait(first, timeout_s=1).run.status is RunStatus.COMPLETED
        assert not executor._boxes.box(first).status._encoder._lines


def test_a_run_that_has_ended_is_open_no_more_however_many_ended_after_it():
    target, store = NotedTarget(), MemoryStore()
    settings = replace(Settings.read({}), tick_interval_s=3600.0)
    with PublicExecutor(chain("A"), store=store, targets={"Function": target}, settings=settings) as executor:
        for number in range(MAX_ENDED_RUNS + 50):
            executor.execute(START, message_id=f"m{number}")
            executor.execute(completion(target.calls[-1]))
        assert executor.open_run_ids == []
        executor.redrive(target.calls[0].run_id, "A")
        assert executor.open_run_ids == [target.calls[0].run_id]
        executor.execute(completion(target.calls[-1]))
        assert executor.open_run_ids == []
    assert list(store.list("open/")) == []


def test_of_a_run_that_ends_by_its_first_save_no_marker_is_left():
    store = MemoryStore()
    broken = dag(A=task(parameters={"x": "${run.input.there_is_none}"}))
    with PublicExecutor(broken, store=store, targets={"Function": NotedTarget()}) as executor:
        run_id = executor.start()
        assert executor.wait(run_id, timeout_s=0).run.status is RunStatus.FAILED
        assert executor.open_run_ids == []
    assert list(store.list("open/")) == []


def test_a_run_that_another_process_let_go_on_is_waited_for_to_its_new_end():
    target, store = NotedTarget(), MemoryStore()
    with PublicExecutor(chain("A"), store=store, targets={"Function": target}) as executor:
        run_id = executor.start()
        executor.execute(completion(target.calls[0]))
        with PublicExecutor(chain("A"), store=store, targets={"Function": target}) as other:
            other.redrive(run_id, "A")
        executor.resume(run_id)
        assert executor.open_run_ids == [run_id]
        with pytest.raises(TimeoutError):
            executor.wait(run_id, timeout_s=0)
        executor.execute(completion(target.calls[1], Outcome.failed("Task.Failed", "it did")))
        assert executor.wait(run_id, timeout_s=10).run.status is RunStatus.FAILED


def test_an_on_saved_that_raises_keeps_nobody_waiting():
    def broken(_: object) -> None:
        raise BrokenPipeError("nobody reads what is printed")

    target = NotedTarget()
    with PublicExecutor(chain("A"), store=MemoryStore(), targets={"Function": target}, on_saved=broken) as executor:
        run_id = executor.start()
        assert run_id in executor._runs._mine, "the timer looks after it"
        executor.execute(completion(target.calls[0]))
        assert run_id in executor._runs._ended


def test_who_waits_for_no_time_at_all_is_told_of_a_run_that_has_ended():
    store, target = MemoryStore(), NotedTarget()
    with PublicExecutor(chain("A"), store=store, targets={"Function": target}) as executor:
        run_id = executor.start()
        with PublicExecutor(chain("A"), store=store, targets={"Function": target}) as other:
            with pytest.raises(TimeoutError):
                other.wait(run_id, timeout_s=0)
            executor.execute(completion(target.calls[0]))
            assert other.wait(run_id, timeout_s=0).run.status is RunStatus.COMPLETED
            with pytest.raises(RunNotFound):
                other.wait("there-is-none", timeout_s=0)


def test_a_run_that_is_being_looked_after_is_open_meanwhile():
    seen: list[tuple[list[str], bool]] = []
    asked = Event()

    class Slow(NotedTarget):
        def outcome(self, execution: Execution) -> Outcome | None:
            seen.append((executor.open_run_ids, executor._runs.drives(run_id)))
            asked.set()
            return super().outcome(execution)

    target = Slow(has_outcome=True)
    settings = replace(Settings.read({}), tick_interval_s=0.01)
    with PublicExecutor(chain("A"), store=MemoryStore(), targets={"Function": target}, settings=settings) as executor:
        run_id = executor.start()
        assert asked.wait(60)
    assert seen[0] == ([run_id], True)


def test_a_run_that_is_redriven_while_its_marker_is_being_deleted_stays_in_the_hands_of_its_process():
    target, deleting, go_on = NotedTarget(), Event(), Event()

    class Held(MemoryStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            if key.startswith("open/"):
                deleting.set()
                assert go_on.wait(60)

    settings = replace(Settings.read({}), tick_interval_s=0.01)
    with PublicExecutor(chain("A"), store=Held(), targets={"Function": target}, settings=settings) as executor:
        run_id = executor.start()
        executor.execute(completion(target.calls[0], Outcome.failed("Task.Failed", "it did")))
        assert deleting.wait(60)
        executor.redrive(run_id)
        go_on.set()
        deleting.clear()
        assert executor.open_run_ids == [run_id]
        executor.execute(completion(target.calls[1]))
        assert deleting.wait(60), "it is looked after to its end"


def test_a_run_is_looked_after_as_soon_as_there_is_a_thread_for_that(monkeypatch):
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    target = NotedTarget()
    executor = PublicExecutor(chain("A", "B"), store=MemoryStore(), targets={"Function": target})
    with monkeypatch.context() as patched:
        patched.setattr(Thread, "start", none_left)
        executor.start()
    executor.execute(completion(target.calls[-1]))
    assert executor._runs._timer is not None
    assert executor._runs._timer.is_alive()
    executor.close()


def test_who_never_had_a_thread_to_look_after_runs_can_be_closed(monkeypatch):
    def none_left(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", none_left)
    with PublicExecutor(chain("A"), store=MemoryStore(), targets={"Function": NotedTarget()}) as executor:
        executor.start()


def test_what_is_kept_of_a_run_that_was_let_go_meanwhile_counts_for_nothing():
    boxes = RunBoxes(MemoryStore(), 0.0)
    for number in range(3):
        box = boxes.box("a")
        if number:
            boxes.forget("a")  # another thread does, before this one leads it
        box.status.size_bytes = 1000
        boxes.count(box)
    assert boxes.kept_bytes == sum(box.counted_bytes for box in boxes._held.values())


def test_an_event_is_not_acknowledged_by_a_save_that_is_not_on_disk(tmp_path, monkeypatch):
    world = World(chain("A", "B"), store=LocalStore(tmp_path))
    run_id = world.start()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", full)
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable):
            world.end("A")
        assert world.target.nodes == ["A"], "a claim is on disk before anything is launched"
    world.end("A")
    world.clock.forward(66)
    world.executor.tick()
    world.end("B")
    assert world.state(run_id).run.status is RunStatus.COMPLETED
