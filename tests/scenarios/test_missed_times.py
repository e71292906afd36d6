"""Times of a schedule that nobody started a run for: the Tick does as the definition says, and each has one run."""

import json
from datetime import UTC, datetime, timedelta
from threading import Event, Thread

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.schedules import MOST_AT_ONCE, Schedules
from orchestrator.model.errors import BrokerUnavailable
from orchestrator.model.missed import MOST_MISSED
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.world import T0, World, chain

DAILY = {**chain("A"), "schedule": "0 6 * * *"}
HOURS = 3600.0


def hourly(missed: str | None = None, **keys: object) -> dict:
    return {**chain("A"), "schedule": "0 * * * *", **({"missed": missed} if missed else {}), **keys}


def world_of(definition: dict, **parts: object) -> World:
    """A world whose instances look after schedules, as those in the cloud do: by messages."""
    world = World(definition, **parts)
    world.instances = [world.instance(start_missed=world.broker.publish) for _ in world.instances]
    return world


def starts(world: World) -> list[str]:
    """The times of the starts that were published, and taken from the broker."""
    found = [message for message, _ in world.broker.published if message["resource"]["type"] == "start"]
    world.broker.published.clear()
    return [str(message["scheduled_for"]) for message in found]


def mark(world: World, dag: str = "dag") -> dict:
    return json.loads(world.store.get(f"schedules/{dag}.json")[0])


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        pytest.param(None, [], id="by default none"),
        pytest.param("skip", [], id="none"),
        pytest.param("last", ["2026-01-01T16:00:00Z"], id="the last one"),
        pytest.param("all", [f"2026-01-01T{hour}:00:00Z" for hour in (13, 14, 15, 16)], id="all"),
    ],
)
def test_what_passed_while_nothing_ran_is_started_as_the_definition_says(missed, expected):
    world = world_of(hourly(missed))
    world.executor.tick()
    world.clock.forward(4.5 * HOURS)
    world.executor.tick()
    assert starts(world) == expected
    world.clock.forward(60)
    world.executor.tick()
    assert starts(world) == []


def test_a_schedule_that_leaves_missed_times_out_costs_a_tick_nothing():
    world = world_of(hourly())
    world.executor.tick()
    assert list(world.store.list("schedules/")) == []


def test_no_time_before_the_first_look_is_missed():
    world = world_of(hourly("all"))
    world.executor.tick()
    world.clock.forward(59 * 60)
    world.executor.tick()
    assert starts(world) == []
    assert mark(world)["through"] == "2026-01-01T12:00:00Z"


def test_the_ticks_start_and_the_schedulers_own_are_one_run():
    world = world_of(hourly("all"))
    world.executor.tick()
    world.clock.forward(HOURS)
    by_scheduler = world.start("m1", schedule="0 * * * *")
    world.clock.forward(130)
    world.executor.tick()
    ((message, _),) = world.broker.published
    handled = world.executor.execute(message, message_id="m2", publish_time=world.clock.now())
    assert (handled.run_id, handled.verdict) == (by_scheduler, "unchanged")
    assert len(world.target.calls) == 1


def test_a_time_that_may_still_be_started_by_its_own_message_is_left_alone():
    world = world_of(hourly("all"))
    world.executor.tick()
    world.clock.forward(HOURS + 119)
    world.executor.tick()
    assert starts(world) == []
    world.clock.forward(1)
    assert world.executor.tick().started == (("dag", T0 + timedelta(hours=1)),)


def test_two_instances_that_look_at_once_start_no_time_twice_and_leave_none_out():
    world = world_of(hourly("all"), instances=2)
    world.executor.tick()
    world.clock.forward(3.5 * HOURS)
    for instance in world.instances:
        instance.tick()
    assert starts(world) == [f"2026-01-01T{hour}:00:00Z" for hour in (13, 14, 15)]


def test_who_is_killed_before_the_mark_is_written_starts_them_again_and_that_is_no_second_run():
    world = world_of(hourly("all"))
    world.executor.tick()
    before = world.store.get("schedules/dag.json")[0]
    world.clock.forward(2.5 * HOURS)
    world.executor.tick()
    first = [message for message, _ in world.broker.published]
    world.store.put("schedules/dag.json", before, expect=world.store.get("schedules/dag.json")[1])
    world.broker.published.clear()
    world.instance(start_missed=world.broker.publish).tick()
    again = [message for message, _ in world.broker.published]
    assert again == first
    for number, message in enumerate(first + again):
        world.executor.execute(message, message_id=f"m{number}", publish_time=world.clock.now())
    assert len(world.target.calls) == 2


def test_a_topic_that_cannot_be_reached_loses_no_time():
    world = World(hourly("all"))

    def unreachable(message):
        raise BrokerUnavailable("topic: cannot be reached")

    looks = [world.instance(start_missed=unreachable), world.instance(start_missed=world.broker.publish)]
    looks[0].tick()
    world.clock.forward(1.5 * HOURS)
    assert looks[0].tick().problems == ("schedule of dag: topic: cannot be reached",)
    looks[1].tick()
    assert starts(world) == ["2026-01-01T13:00:00Z"]


def test_a_start_that_hangs_holds_up_no_other_schedule_and_its_own_not_for_ever():
    is_called, opens, started = Event(), Event(), []

    def hang(message):
        if not is_called.is_set():
            is_called.set()
            assert opens.wait(60)
        started.append(message["dag"])

    world = World({"one": hourly("all"), "two": hourly("all")})
    executor = world.instance(start_missed=hang)
    executor.tick()
    world.clock.forward(1.5 * HOURS)
    ticking = Thread(target=executor.tick)
    ticking.start()
    assert is_called.wait(60)
    executor.tick()
    assert started == ["two"]
    world.clock.forward(600)
    executor.tick()
    assert started == ["two", "one"]
    opens.set()
    ticking.join(60)
    assert started == ["two", "one", "one"]  # which is one run, by its time
    assert mark(world, "one")["through"] == "2026-01-01T13:38:00Z"  # it goes forwards only


def test_many_missed_times_are_started_a_hundred_a_look():
    world = world_of({**hourly("all"), "schedule": "*/10 * * * *"})
    world.executor.tick()
    world.clock.forward(24 * HOURS)
    looks = []
    for _ in range(3):
        world.executor.tick()
        looks.append(starts(world))
    assert [len(each) for each in looks] == [MOST_AT_ONCE, 43, 0]
    assert looks[0] + looks[1] == sorted(set(looks[0] + looks[1]))


def test_of_very_many_missed_times_the_last_thousand_get_their_runs(caplog):
    world = world_of({**hourly("all"), "schedule": "* * * * *"})
    world.executor.tick()
    world.clock.forward(24 * HOURS)
    found = []
    for _ in range(MOST_MISSED // MOST_AT_ONCE + 1):
        world.executor.tick()
        found += starts(world)
    assert len(found) == MOST_MISSED
    assert found[-1] == "2026-01-02T11:58:00Z"
    assert "schedule of dag: 438 missed times, from 2026-01-01T12:01Z on, get no run" in caplog.text


def test_a_schedule_that_changed_begins_with_the_change_and_what_the_old_one_missed_is_not_lost():
    world = world_of(hourly("all"))
    world.executor.tick()
    world.clock.forward(2.5 * HOURS)
    changed = World({**hourly("all"), "schedule": "15 * * * *"}, store=world.store)
    changed.clock = world.clock
    later = changed.instance(start_missed=world.broker.publish)
    later.tick()
    assert starts(world) == ["2026-01-01T13:00:00Z", "2026-01-01T14:00:00Z"]
    assert mark(world)["schedule"] == "15 * * * *"
    world.clock.forward(HOURS)
    later.tick()
    assert starts(world) == ["2026-01-01T15:15:00Z"]


def test_a_dag_that_comes_back_has_missed_the_times_in_between():
    world = world_of(hourly("last"))
    world.executor.tick()
    gone = World({"other": DAILY}, store=world.store)
    gone.instance(start_missed=world.broker.publish).tick()
    world.clock.forward(48.5 * HOURS)
    world.instance(start_missed=world.broker.publish).tick()
    assert starts(world) == ["2026-01-03T12:00:00Z"]


def test_a_clock_that_is_behind_does_nothing_and_moves_nothing_back():
    world = world_of(hourly("all"))
    world.executor.tick()
    world.clock.forward(3.5 * HOURS)
    world.executor.tick()
    assert len(starts(world)) == 3
    behind = World(hourly("all"), store=world.store)
    behind.clock.forward(1.5 * HOURS)
    behind.instance(start_missed=world.broker.publish).tick()
    assert starts(world) == []
    assert mark(world)["through"] == "2026-01-01T15:28:00Z"


def test_over_a_change_of_the_clock_each_time_has_one_run():
    world = world_of({**chain("A"), "schedule": "30 2 * * *", "time_zone": "Europe/Berlin", "missed": "all"})
    world.clock.forward_to(datetime(2026, 10, 24, 12, tzinfo=UTC))
    world.executor.tick()
    world.clock.forward(24 * HOURS)
    world.executor.tick()
    assert starts(world) == ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]


def test_a_spoilt_mark_is_a_problem_of_its_own_dag_and_is_told_once(caplog):
    world = world_of({"one": hourly("all"), "two": hourly("all")})
    world.executor.tick()
    world.store.put("schedules/one.json", b"{}", expect=world.store.get("schedules/one.json")[1])
    world.clock.forward(1.5 * HOURS)
    world.executor.tick()
    swept = world.executor.tick()
    assert swept.problems[0].startswith("schedule of one: schedules/one.json: is no mark of a schedule")
    assert len([each for each in caplog.records if "schedules/one.json" in each.message]) == 1
    ((message, _),) = world.broker.published
    assert message["dag"] == "two"


def test_a_definition_that_breaks_rules_holds_no_other_schedule_up():
    world = world_of({"one": {"steps": {}, "schedule": 7, "missed": "all"}, "two": hourly("all")})
    world.executor.tick()
    world.clock.forward(1.5 * HOURS)
    world.executor.tick()
    assert starts(world) == ["2026-01-01T13:00:00Z"]


def test_the_mark_of_a_dag_with_an_odd_name_has_a_plain_one():
    world = world_of({"täglich / 1": hourly("all")})
    world.executor.tick()
    (key,) = world.store.list("schedules/")
    assert key.startswith("schedules/sha256-")
    assert json.loads(world.store.get(key)[0])["dag"] == "täglich / 1"


# -- where nobody else starts what is on time ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("missed", "expected"),
    [("skip", ["16:00"]), ("last", ["15:00", "16:00"]), ("all", ["13:00", "14:00", "15:00", "16:00"])],
)
def test_what_is_on_time_is_started_whatever_becomes_of_missed_times(missed, expected):
    world = World(hourly(missed))
    looks = Schedules(world.store, world.catalog, world.clock, world.broker.publish)
    looks.start_due()
    world.clock.forward(4 * HOURS + 30)
    seen = looks.start_due()
    assert [f"{time:%H:%M}" for _, time in seen.started] == expected
    assert sum(seen.left_out.values()) == 4 - len(expected)


def test_a_run_that_its_schema_refuses_is_said_and_the_next_one_is_started(caplog):
    world = World({**hourly("all"), "input_schema": {"required": ["day"]}})
    looks = Schedules(world.store, world.catalog, world.clock, world.executor.execute)
    looks.start_due()
    world.clock.forward(2 * HOURS)
    assert len(looks.start_due().started) == 2
    assert caplog.text.count("cannot be started: input: 'day' is a required property") == 2
    assert looks.start_due().started == ()


def test_the_next_times_of_all_schedules():
    world = World({"daily": DAILY, "hourly": hourly(), "by hand": chain("A")})
    found = Schedules(world.store, world.catalog, world.clock, world.broker.publish).next_times(2)
    assert [(f"{time:%d %H:%M}", dag) for time, dag in found] == [
        ("01 13:00", "hourly"),
        ("01 14:00", "hourly"),
        ("02 06:00", "daily"),
        ("03 06:00", "daily"),
    ]


def test_a_program_of_ones_own_starts_what_is_due():
    clock = VirtualClock(T0 - timedelta(minutes=1))
    step = {"type": "Pass", "result": "${run.scheduled_for}"}
    definition = {"start": "A", "steps": {"A": step}, "schedule": "0 * * * *"}
    with DAGExecutor(definition, "memory://", clock=clock) as executor:
        assert executor.schedules.start_due().started == ()
        assert executor.schedules.next_times(1) == [(T0, "dag")]
        clock.forward(60)
        assert executor.schedules.start_due().started == (("dag", T0),)
        (key,) = executor.store.list("runs/")
        assert executor.wait(key[5:-5], 10).nodes["A"].result == "2026-01-01T12:00:00Z"
