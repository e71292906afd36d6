"""What is asked of services for several events, or in one Tick, is asked side by side."""

from threading import Barrier

import pytest

from orchestrator.engine.address import Completion
from orchestrator.engine.run_box import Entry
from orchestrator.model.commands import Outcome
from orchestrator.model.event_factory import EventFactory
from tests.support.world import NotedTarget, World, chain, completion, dag, parallel

WIDTH = 6


class Together(NotedTarget):
    """Answers a question only when as many are asked at once as there are branches."""

    def __init__(self) -> None:
        super().__init__(has_outcome=True)
        self.barrier = Barrier(WIDTH)

    def outcome(self, execution):
        self.barrier.wait(10)
        return Outcome.completed()


@pytest.fixture
def world():
    branches = (chain(f"B{number}") for number in range(WIDTH))
    return World(dag(P=parallel(*branches)), target=Together(), questions_at_once=WIDTH)


def test_of_events_that_share_a_save(world):
    run_id = world.start()
    box = world.executor._boxes.box(run_id)
    entries = []
    for launch in world.target.calls:
        event = EventFactory.create_from_event(completion(launch))
        entries.append(Entry(Completion(run_id, launch.node_name, 1, event), on_done=lambda handled, error: None))
    leads = [box.offer(entry) for entry in entries]
    assert leads == [True] + [False] * (WIDTH - 1)
    world.executor._leader.lead(box, entries[0])
    assert world.state(run_id).run.status.value == "Completed"


def test_in_a_tick(world):
    run_id = world.start()
    swept = world.executor.tick()
    assert len(swept.recovered) == WIDTH
    assert world.state(run_id).run.status.value == "Completed"
