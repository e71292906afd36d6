"""Events of one run that arrive while a save is under way wait, and share the next one."""

import time
from threading import Event, Thread

import pytest

from orchestrator.engine.handled import Handled
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import EventError
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
    world.executor._lead(box, first)

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
    # The first of four saves was 20 ms ago: of all together, the fifth is due three intervals after it.
    assert box.pace.wait_s(now_s, 0.0) == pytest.approx(2.98, abs=1e-3)
