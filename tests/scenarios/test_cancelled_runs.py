"""A run that is cancelled, before it is there, while it runs and after a kill: what runs is stopped, nothing starts."""

import pytest

from orchestrator.model.errors import NotYet, RunNotFound
from orchestrator.model.messages import cancel_message, reminder_message
from tests.support.world import T0, World, chain

EARLY = {
    "a cancel": cancel_message("mine", "wrong day"),
    "a reminder": reminder_message("mine", "A", 1, kind="timeout", at=T0),
}


@pytest.mark.parametrize("event", [pytest.param(event, id=name) for name, event in EARLY.items()])
def test_what_overtakes_its_start_is_put_off_while_it_is_young_and_then_a_dead_letter(event):
    world = World(chain("A"))
    published = world.clock.now()
    world.clock.forward(59)
    with pytest.raises(NotYet, match=r"runs/mine\.json"):
        world.executor.execute(event, publish_time=published)
    world.clock.forward(2)
    with pytest.raises(RunNotFound, match=r"runs/mine\.json"):
        world.executor.execute(event, publish_time=published)
