"""Events of one run that arrive while a save is under way wait, and share the next one."""

import time
from itertools import pairwise
from threading import Event, Thread

import pytest

from orchestrator.engine.handled import Handled
from orchestrator.engine.pace import LINGERING_S, MOST_LINGERING_S
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import EventError
from orchestrator.model.policy import CROWD
from orchestrator.stores.memory import MemoryStore
from tests.support.world import World, chain, completion, dag, parallel

WIDTH = 50


class SlowStore(MemoryStore):
    """Lets a write of a run document begin, and end only when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.is_slow = 0, False
        self.begun, self.go_on = Event(), Event()

    def put(self, key, data, *, expect):
        if key.startswith("runs/"):
            self.writes += 1
            if self.is_slow:
                self.begun.set()
                self.go_on.wait(10)
        return super().put(key, data, expect=expect)


def waiting(world: World, run_id: str) -> int:
    return len(world.executor._boxes._held[run_id]._pending)


def test_what_arrives_during_a_save_is_folded_into_the_next_one():
    branches = (chain(f"B{number}") for number in range(WIDTH))
    world = World(dag(P={**parallel(*branches), "next": "Join"}, **chain("Join")["steps"]), store=SlowStore())
    run_id = world.start()
    events = [completion(launch) for launch in world.target.calls]
    handled: list[Handled] = []
    threads = [Thread(target=lambda e=e: handled.append(world.executor.execute(e))) for e in events]
    world.store.writes, world.store.is_slow = 0, True

    threads[0].start()
    assert world.store.begun.wait(10)
    for thread in threads[1:]:
        thread.start()
    until = time.monotonic() + 60
    while waiting(world, run_id) < WIDTH - 1 and time.monotonic() < until:
        time.sleep(0.001)
    world.store.go_on.set()
    for thread in threads:
        thread.join()

    assert world.store.writes == 2
    assert sorted(result.absorbed for result in handled) == [0] * (WIDTH - 2) + [1, WIDTH - 1]
    assert [result.launches for result in handled if result.launches] == [(f"{run_id}/Join/1",)]
    assert world.target.nodes.count("Join") == 1
    world.end("Join")
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_an_event_that_cannot_be_decided_on_fails_alone(monkeypatch):
    from orchestrator.engine import decide as module

    world = World(dag(P=parallel(chain("A"), chain("B"), chain("C"))))
    run_id = world.start()
    genuine = module._APPLY[module.AttemptEnded]

    def fails_for_b(draft, fact):
        if fact.node_name == "B":
            raise EventError("B: cannot be decided on")
        genuine(draft, fact)

    monkeypatch.setitem(module._APPLY, module.AttemptEnded, fails_for_b)
    results: dict[str, object] = {}
    box = world.executor._boxes.box(run_id)
    from orchestrator.engine.address import Completion
    from orchestrator.engine.run_box import Entry
    from orchestrator.model.event_factory import EventFactory

    for launch in world.target.calls:
        event = EventFactory.create_from_event(completion(launch))
        item = Completion(run_id, launch.node_name, 1, event)
        entry = Entry(item, on_done=lambda handled, error, n=launch.node_name: results.update({n: error or handled}))
        is_leader = box.offer(entry)
        if launch.node_name == "A":
            assert is_leader
            first = entry
    world.executor._leader.lead(box, first)

    assert isinstance(results["B"], EventError)
    statuses = {name: node.status.value for name, node in world.state(run_id).nodes.items()}
    assert statuses == {"P": "Running", "A": "Completed", "B": "Running", "C": "Completed"}


class MeanwhileStore(MemoryStore):
    """Has something else happen, once, while a run document is read."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile = lambda: None

    def get(self, key):
        if key.startswith("runs/"):
            meanwhile, self.meanwhile = self.meanwhile, lambda: None
            meanwhile()
        return super().get(key)


def test_what_arrives_while_a_paced_run_is_loaded_goes_into_the_same_save():
    world = World(dag(P=parallel(chain("A"), chain("B"))), store=MeanwhileStore(), instances=2, save_interval_s=1.0)
    run_id = world.start()
    first, second = (completion(launch) for launch in world.target.calls)
    done: list[Handled | None] = []
    world.store.meanwhile = lambda: world.instances[1].deliver(second, lambda handled, error: done.append(handled))
    saves = len(world.saved)
    world.instances[1].execute(first)  # it does not know the run
    assert len(world.saved) == saves + 1
    assert done == [Handled("applied", run_id)]
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_what_other_instances_have_saved_counts_as_if_it_had_been_saved_here():
    world = World(dag(P=parallel(*(chain(f"B{number}") for number in range(4)))), instances=2, save_interval_s=1.0)
    run_id = world.start()
    events = [completion(launch) for launch in world.target.calls]
    box = world.instances[1]._boxes.box(run_id)
    world.instances[1].execute(events[0])
    for event in events[1:3]:
        world.clock.forward(0.01)
        world.instances[0].execute(event)
    world.instances[1].execute(events[3])  # loses to the two, and loads
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    now_s = world.clock.now().timestamp()
    assert box.pace.is_shared(now_s)
    # The first of five saves, the start's, was 20 ms ago: of all together, the sixth is due four intervals after it.
    assert box.pace.wait_s(now_s, 0.0) == pytest.approx(3.98, abs=1e-3)


class Agenda:
    """Sleeps by moving the clock on, and has things happen in the sleeps that come."""

    def __init__(self, world: World) -> None:
        self.world, self.slept = world, 0.0
        self.meanwhile = [lambda: None]

    def sleep(self, seconds: float) -> None:
        self.world.clock.forward(seconds)
        self.slept += seconds
        if self.meanwhile:
            self.meanwhile.pop(0)()


def test_a_save_that_starts_nothing_lingers_and_goes_along_with_one_that_does():
    join = dag(P={**parallel(chain("A"), chain("B")), "next": "Join"}, **chain("Join")["steps"])
    world = World(join, save_interval_s=1.0)
    agenda = Agenda(world)
    instance = world.instance(sleep=agenda.sleep)
    run_id = world.start()
    first, second = (completion(launch) for launch in world.target.calls)
    done: list[Handled | None] = []
    agenda.meanwhile = [lambda: instance.deliver(second, lambda handled, error: done.append(handled))]
    saves = len(world.saved)
    handled = instance.execute(first)  # it does not know the run, so that it has waited for nothing before
    assert len(world.saved) == saves + 1
    assert (done, handled.launches) == ([Handled("applied", run_id)], (f"{run_id}/Join/1",))
    assert agenda.slept == LINGERING_S


def test_a_save_that_starts_nothing_is_acknowledged_only_once_it_is_there_and_lingers_for_a_while_at_most():
    world = World(dag(P=parallel(*(chain(f"B{number}") for number in range(30)))), save_interval_s=1.0)
    agenda = Agenda(world)
    instance = world.instance(sleep=agenda.sleep)
    run_id = world.start()
    first, *others = (completion(launch) for launch in world.target.calls)
    done: list[Handled | None] = []

    def deliver(event):
        assert not done, "nothing is saved yet"
        instance.deliver(event, lambda handled, error: done.append(handled))

    agenda.meanwhile = [lambda event=event: deliver(event) for event in others]
    saves = len(world.saved)
    instance.execute(first)
    assert len(world.saved) == saves + 1
    ended = sum(node.status.value == "Completed" for node in world.state(run_id).nodes.values())
    assert ended == 1 + MOST_LINGERING_S / LINGERING_S
    assert len(done) == ended - 1


@pytest.mark.parametrize("event", ["the last end", "a step with a next one", "a cancel"])
def test_what_starts_or_ends_something_does_not_linger(event):
    world = World(dag(P=parallel(chain("A", "A2"), chain("B"))), save_interval_s=1.0)
    agenda = Agenda(world)
    instance = world.instance(sleep=agenda.sleep)
    run_id = world.start()
    a, b = (completion(launch) for launch in world.target.calls)
    if event == "the last end":
        world.executor.execute(a)
        world.end("A2")
        instance.execute(b)
        assert world.state(run_id).run.status is RunStatus.COMPLETED
    elif event == "a step with a next one":
        assert instance.execute(a).launches == (f"{run_id}/A2/1",)
    else:
        instance.execute({"resource": {"type": "cancel"}, "run_id": run_id}, publish_time=world.clock.now())
    assert agenda.slept == 0.0


def test_no_two_saves_of_a_run_with_many_attempts_are_closer_than_a_second_whoever_makes_them():
    width = CROWD + 8
    written = []

    class NotedStore(MemoryStore):
        def put(self, key, data, *, expect):
            found = super().put(key, data, expect=expect)
            if key.startswith("runs/"):
                written.append(world.clock.now().timestamp())
            return found

    branches = (chain(f"B{number}") for number in range(width))
    wide = dag(P={**parallel(*branches), "next": "Join"}, **chain("Join")["steps"])
    world = World(wide, store=NotedStore(), save_interval_s=1.0)
    world.clock.forward(0.5)
    agenda = Agenda(world)
    instances = [world.instance(sleep=agenda.sleep) for _ in range(3)]
    run_id = world.start()
    for number, launch in enumerate(list(world.target.calls)):
        world.clock.forward(0.05)
        instances[number % 3].execute(completion(launch))
    join = completion(world.target.of("Join")[0])
    instances[0].execute(join)
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert len(written) == width + 2
    assert min(after - before for before, after in pairwise(written)) >= 1.0


def test_what_comes_while_a_save_waits_for_its_turn_goes_along():
    width = CROWD + 8
    world = World(dag(P=parallel(*(chain(f"B{number}") for number in range(width)))), save_interval_s=1.0)
    agenda = Agenda(world)
    instance = world.instance(sleep=agenda.sleep)
    run_id = world.start()
    first, *others = (completion(launch) for launch in world.target.calls)
    ignore = lambda handled, error: None  # noqa: E731
    agenda.meanwhile = [lambda event=event: instance.deliver(event, ignore) for event in others[:3]]
    saves = len(world.saved)
    instance.execute(first)
    assert len(world.saved) == saves + 1
    assert sum(node.status.value == "Completed" for node in world.state(run_id).nodes.values()) == 4
