"""Whatever a scheduler drops or sends twice, and whoever is killed when: each time has the run that it is to have."""

from contextlib import suppress
from datetime import datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.schedules import LATE
from orchestrator.model.errors import StoreUnavailable
from orchestrator.model.schedule import ticks
from orchestrator.stores.memory import MemoryStore
from tests.support.world import World, chain

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 7200)),
        st.tuples(st.just("look"), st.integers(0, 1)),
        st.tuples(st.just("killed look"), st.integers(0, 1)),
        st.tuples(st.just("deliver"), st.integers(0, 5)),
        st.tuples(st.just("deliver twice"), st.integers(0, 5)),
    ),
    max_size=40,
)


class Killing(MemoryStore):
    """A store in which who writes a mark is killed before it has."""

    kills = False

    def put(self, key, data, *, expect):
        if self.kills and key.startswith("schedules/"):
            raise StoreUnavailable(f"{key}: killed")
        return super().put(key, data, expect=expect)


@settings(deadline=None, max_examples=60)
@given(
    actions=ACTIONS,
    drops=st.sets(st.integers(0, 60)),
    missed=st.sampled_from(["skip", "last", "all"]),
    cron=st.sampled_from(["0 * * * *", "*/20 * * * *", "30 1-3 * * *"]),
    begins=st.sampled_from(["2026-01-01T12:00Z", "2026-10-24T22:10Z", "2026-03-28T23:50Z"]),
)
def test_each_time_has_one_run_or_none_as_the_definition_says(actions, drops, missed, cron, begins):
    zone = "Europe/Berlin"
    definition = {**chain("A"), "schedule": cron, "time_zone": zone, "missed": missed}
    world = World(definition, store=Killing())
    world.clock.forward_to(datetime.fromisoformat(begins))
    first = world.clock.now()
    instances = [world.instance(start_missed=world.broker.publish) for _ in range(2)]
    sent, seen = [], first

    def scheduler() -> None:
        """Send what came due since; drop what is to be dropped."""
        nonlocal seen
        for at in ticks(cron, zone, seen, world.clock.now()):
            if len(sent) not in drops:
                message = {"resource": {"type": "start"}, "schedule": cron, "time_zone": zone}
                world.broker.published.append((message, at))
            sent.append(at)
        seen = world.clock.now()

    def deliver(number: int, *, is_kept: bool = False) -> None:
        if not world.broker.published:
            return
        at = number % len(world.broker.published)
        message, published = world.broker.published[at] if is_kept else world.broker.published.pop(at)
        time = published if isinstance(published, datetime) else world.clock.now()
        instances[number % 2].execute(message, message_id=f"m{number}-{time}", publish_time=time)

    instances[0].tick()
    for action, number in actions:
        match action:
            case "wait":
                world.clock.forward(number)
                scheduler()
            case "look":
                instances[number].tick()
            case "killed look":
                world.store.kills = True
                instances[number].tick()
                world.store.kills = False
                instances[number] = world.instance(start_missed=world.broker.publish)
            case "deliver":
                deliver(number)
            case "deliver twice":
                deliver(number, is_kept=True)
    world.clock.forward(LATE.total_seconds() + 60)
    scheduler()
    for instance in (*instances, *instances):
        instance.tick()
    while world.broker.published:
        deliver(0)
    launched = [launch.run_id for launch in world.target.calls]
    assert len(launched) == len(set(launched))
    found = sorted(world.state(run_id).run.scheduled_for for run_id in launched)
    assert len(found) == len(set(found))
    due = list(ticks(cron, zone, first, world.clock.now()))
    by_scheduler = {at for number, at in enumerate(due) if number not in drops}
    late = [at for at in due if at <= world.clock.now() - LATE]
    assert set(found) <= set(due)
    assert by_scheduler <= set(found)
    match missed:
        case "skip":
            assert set(found) == by_scheduler
        case "last":
            assert set(late[-1:]) <= set(found)
        case "all":
            assert set(late) <= set(found)


@settings(deadline=None, max_examples=40)
@given(
    kills=st.lists(st.integers(0, 12), max_size=4),
    times=st.integers(1, 4),
    dags=st.integers(1, 3),
    seconds=st.integers(0, 5000),
)
def test_an_event_starts_each_run_once_wherever_who_handles_it_is_killed(kills, times, dags, seconds):
    class Killed(BaseException):
        pass

    class Store(MemoryStore):
        left = -1

        def put(self, key, data, *, expect):
            if self.left == 0:
                self.left = -1
                raise Killed
            self.left -= 1
            return super().put(key, data, expect=expect)

    definition = {**chain("A"), "triggers": [{"object": {"bucket": "landing"}}]}
    world = World({f"d{number}": definition for number in range(dags)}, store=Store())
    event = {"resource": {"type": "object"}, "bucket": "landing", "name": "a", "generation": "1769841000123456"}
    for number, at in enumerate((*kills, *[None] * times)):
        world.store.left = -1 if at is None else at
        with suppress(Killed):
            world.instance().execute(event, message_id=f"m{number}", publish_time=world.clock.now())
        world.store.left = -1
        world.clock.forward(seconds)
    world.clock.forward(timedelta(minutes=5).total_seconds())
    world.executor.tick()
    assert len({launch.key for launch in world.target.calls}) == len(world.target.launched) == dags
    runs = [world.state(key[5:-5]).run for key in world.store.list("runs/")]
    assert sorted(run.dag for run in runs) == sorted(f"d{number}" for number in range(dags))
