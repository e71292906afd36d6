"""What looks after runs that nobody is at: the Tick's markers and questions, schedules, and pruning beside others."""

from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.pruning import LEAST_AGE_S, REDELIVERY_S, TRASH_S, Pruned, Pruner
from orchestrator.engine.schedules import LATE, MOST_AT_ONCE, Marks, Schedules
from orchestrator.engine.status import OpenRuns, OrchestrationStatus, tombstone_of
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import CorruptState, RunNotFound, StoreUnavailable, VersionConflict
from orchestrator.model.messages import redrive_message
from orchestrator.model.slots import Place, Slots
from orchestrator.model.slots import encode as encode_slots
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.story import Notifier
from tests.support.world import T0, NotedTarget, World, chain, dag, parallel, task

DAY = 86400.0
FAILED = Outcome.failed("Own.Error", "no")


def markers(world):
    return list(world.store.list("open/"))


def rewrite(world, run_id, **changes):
    """Change a run's own entry as somebody else would."""
    status = OrchestrationStatus(world.store, run_id)
    state, version = status.load()
    status.save(replace(state, run=replace(state.run, **changes)), expect=version)


# -- markers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redrives", "marks", "status", "marker", "left", "closes"),
    [
        (0, [0], RunStatus.COMPLETED, 0, [], True),
        (1, [0, 1], RunStatus.COMPLETED, 1, [], True),
        (1, [0, 1, 2], RunStatus.COMPLETED, 1, [2], True),
        (1, [0, 1, 2], RunStatus.COMPLETED, 2, [0, 1, 2], False),
        (0, [0], RunStatus.RUNNING, 0, [0], False),
        (2, [0], RunStatus.COMPLETED, 0, [], True),
        (0, [0], RunStatus.COMPLETED, None, [0], True),
    ],
    ids=["its own", "after a redrive", "before a redrive's save", "of that redrive", "runs", "older", "not named"],
)
def test_the_markers_of_a_run_that_has_ended_go_except_that_of_a_redrive_to_come(
    redrives, marks, status, marker, left, closes
):
    world = World(chain("A"))
    run_id = world.start()
    runs = OpenRuns(world.store)
    for number in marks:
        runs.mark(run_id, T0, number)
    rewrite(world, run_id, redrives=redrives, status=status, ended_at=T0)
    names = [f"open/{run_id}" + (f".{number}" if number else "") for number in range(3)]
    found = world.executor.look_after(run_id, None if marker is None else names[marker])
    assert markers(world) == [names[number] for number in left]
    assert (found is None) is closes


def test_the_marker_of_a_redrive_that_never_came_goes_after_a_day():
    world = World(chain("A"))
    run_id = world.start()
    world.end("A")
    OpenRuns(world.store).mark(run_id, T0, 1)
    world.clock.forward(DAY - 1)
    assert world.executor.look_after(run_id, f"open/{run_id}.1") == ()
    assert f"open/{run_id}.1" in markers(world)
    world.clock.forward(1)
    assert world.executor.look_after(run_id, f"open/{run_id}.1") is None
    assert markers(world) == []


def test_who_is_redriven_while_its_old_marker_is_deleted_is_marked_again():
    world = World(chain("A"))
    run_id = world.start()
    world.end("A", FAILED)
    OpenRuns(world.store).mark(run_id, T0, 1)
    world.clock.forward(DAY)
    delete = world.store.delete

    def redriven_meanwhile(key):
        delete(key)
        if key == f"open/{run_id}.1":
            rewrite(world, run_id, status=RunStatus.RUNNING, ended_at=None, redrives=1)

    world.store.delete = redriven_meanwhile
    assert world.executor.look_after(run_id, f"open/{run_id}.1") == ()
    assert markers(world) == [f"open/{run_id}.1"]
    assert OpenRuns(world.store).read(f"open/{run_id}.1").at == world.clock.now()


def test_a_run_that_is_gone_when_its_old_marker_is_deleted_is_let_go_of():
    world = World(chain("A"))
    run_id = world.start()
    world.end("A", FAILED)
    OpenRuns(world.store).mark(run_id, T0, 1)
    world.clock.forward(DAY)
    delete = world.store.delete

    def pruned_meanwhile(key):
        delete(key)
        delete(f"runs/{run_id}.json")

    world.store.delete = pruned_meanwhile
    assert world.executor.look_after(run_id, f"open/{run_id}.1") is None
    assert markers(world) == []


@pytest.mark.parametrize("owes", [True, False])
def test_a_run_that_owes_notifications_is_not_let_go_of(owes):
    world = World({**chain("A"), "notify": [{"on": ["completed"], "topic": "projects/my-project/topics/alerts"}]})
    notifier = Notifier()
    notifier.failing = [ValueError("odd")] if owes else []
    world.instances = [world.instance(notifier=notifier)]
    run_id = world.start()
    world.end("A")
    assert world.executor.let_go_of_ended() == (() if owes else (run_id,))
    assert bool(markers(world)) is owes
    world.clock.forward(66)
    swept = world.executor.tick()
    assert (swept.closed, len(notifier.sent)) == ((run_id,) if owes else (), 1)
    assert markers(world) == []


def test_of_runs_that_have_ended_the_markers_are_deleted_and_what_cannot_be_read_is_left_to_a_tick():
    world = World(chain("A"))
    ended, spoilt, running, gone = (world.start(f"m{number}") for number in range(4))
    for launch in [each for each in world.target.calls if each.run_id == ended]:
        from tests.support.world import completion

        world.executor.execute(completion(launch))
    world.store.put(f"runs/{spoilt}.json", b"{", expect=world.store.get(f"runs/{spoilt}.json")[1])
    world.store.delete(f"runs/{gone}.json")
    assert world.executor.let_go_of_ended() == (ended,)
    assert markers(world) == sorted(f"open/{each}" for each in (spoilt, running, gone))
    assert world.executor.let_go_of_ended() == ()


def test_so_many_markers_are_looked_at_and_others_the_next_time():
    world = World(dag(P={"type": "Pass", "result": 1}))
    runs = sorted(world.start(f"m{number}") for number in range(7))
    ticker = world.executor._ticker
    found = [ticker.let_go_of_ended(3), ticker.let_go_of_ended(3), ticker.let_go_of_ended(3)]
    assert [len(each) for each in found] == [3, 3, 1]
    assert sorted(run_id for each in found for run_id in each) == runs
    assert ticker.let_go_of_ended(3) == ()


def test_a_run_is_looked_after_once_however_many_markers_it_has():
    world = World(chain("A"))
    run_id, other = world.start("m1"), world.start("m2")
    for number in (1, 10, 2):
        OpenRuns(world.store).mark(run_id, T0, number)
    assert sorted(world.executor._ticker._markers()) == sorted([f"open/{run_id}.10", f"open/{other}"])
    assert world.executor.tick().runs == 2


@pytest.mark.parametrize(
    ("name", "made_for", "age_s", "is_there"),
    [
        ("run_1_x", None, DAY - 1, True),
        ("run_1_x", None, DAY, "an error"),
        ("run_1_x.1", None, DAY - 1, True),
        ("run_1_x.1", None, DAY, False),
        ("run_1_x", "wanted", DAY, "an error"),
        ("run_1_x", "another attempt", DAY, False),
        ("run_1_x", "no run", DAY, False),
        ("run_1_x", "no step", DAY, False),
        ("run_1_x", "odd", DAY, False),
    ],
)
def test_a_marker_without_a_run(name, made_for, age_s, is_there):
    world = World(chain("A"), target=NotedTarget(has_outcome=True))
    parent = world.start()
    launch_id = {"wanted": f"{parent}/A/1", "another attempt": f"{parent}/A/2", "no run": "run_1_none/A/1",
                 "no step": f"{parent}/Q/1", "odd": "odd"}.get(made_for)  # fmt: skip
    number = int(name.partition(".")[2] or 0)
    OpenRuns(world.store).mark("run_1_x", T0, number, launch_id)
    world.clock.forward(age_s)
    if is_there == "an error":
        with pytest.raises(RunNotFound) as told:
            world.executor.look_after("run_1_x", f"open/{name}")
        assert str(told.value) == (
            f"open/{name}: marks a run since 2026-01-01T12:00:00+00:00, but runs/run_1_x.json does not exist"
        )
        assert f"open/{name}" in markers(world)
        return
    assert world.executor.look_after("run_1_x", f"open/{name}") == ()
    assert (f"open/{name}" in markers(world)) is is_there
    assert world.executor.look_after("run_1_x") == ()


# -- questions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [True, False])
def test_a_tick_that_finds_a_timeout_due_asks_first_whether_the_attempt_has_ended(ends):
    step = {"type": "Task", "target_type": "Dataflow", "target_name": "j", "timeout": "30s"}
    world = World(dag(A=step), instances=2, target=NotedTarget(has_outcome=True))
    run_id = world.start()
    key = f"x-{world.target.calls[0].key}"
    if ends:
        world.target.outcomes[key] = Outcome.completed({"n": 1})
    world.clock.forward(31)
    assert world.instances[1].tick().recovered == (f"{run_id}/A/1",)
    node = world.state(run_id).nodes["A"]
    if ends:
        assert (node.status, node.result, node.execution_id) == ("Completed", {"n": 1}, key)
    else:
        assert (node.status, node.error.message) == ("Failed", "A: no end within 30 s")


def test_an_execution_that_is_known_here_only_is_bound_when_its_lease_is_over():
    world = World(chain("A"), target=NotedTarget(has_outcome=True))
    run_id = world.start()
    world.clock.forward(59)
    world.executor.tick()
    assert world.state(run_id).nodes["A"].execution_id is None
    world.clock.forward(1)
    world.executor.tick()
    assert world.state(run_id).nodes["A"].execution_id == f"x-{world.target.calls[0].key}"
    assert world.target.nodes == ["A"]


def test_what_is_due_of_a_run_is_found_by_whoever_looks_after_it():
    definition = {**dag(P=parallel(dag(W={"type": "Wait", "for": "1m"}), dag(A=task()))), "timeout": "10m"}
    world = World(definition)
    run_id = world.start()
    world.clock.forward(60)
    assert world.executor.look_after(run_id) == (f"{run_id}/A/1", f"{run_id}/W/1"), "its lease is over, and it is bound"
    assert world.executor.look_after(run_id) == ()
    world.clock.forward(539)
    assert world.executor.look_after(run_id) == ()
    assert world.state(run_id).run.is_out_of_time is False
    world.clock.forward(1)
    world.executor.look_after(run_id)
    assert world.state(run_id).run.is_out_of_time is True


# -- schedules --------------------------------------------------------------------------------------------


class Reads(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.racing: list = []

    def get(self, key):
        self.calls.append("get")
        return super().get(key)

    def put(self, key, data, *, expect):
        self.calls.append("put")
        if self.racing:
            self.racing.pop(0)()
        return super().put(key, data, expect=expect)

    def taken(self):
        calls, self.calls = self.calls, []
        return calls


def scheduled(missed="all", schedule="0 * * * *", **others):
    """Schedules over a store, their clock, and what they start."""
    store, clock, started = Reads(), VirtualClock(), []
    definitions = {"dag": {**chain("A"), "schedule": schedule, **({"missed": missed} if missed else {})}, **others}
    make = lambda: Schedules(store, Catalog(definitions), clock, started.append)  # noqa: E731
    return make, store, clock, started


def hours(started):
    return [message["scheduled_for"][11:16] for message in started]


def test_nothing_is_read_until_more_is_due():
    make, store, clock, started = scheduled()
    schedules = make()
    schedules.start_due()
    assert store.taken() == ["get", "put"]
    for minutes, calls in (
        (1, ["get"]),
        (30, []),
        (28, []),
        (1, ["get", "put"]),
        (1, []),
        (58, []),
        (1, ["get", "put"]),
    ):
        clock.forward(60.0 * minutes)
        schedules.start_due()
        found = store.taken()
        assert (minutes, found) in ((minutes, calls), (minutes, []))
    assert hours(started) == ["13:00", "14:00"]


def test_two_that_race_for_a_schedule_start_the_same_runs_and_each_tells_of_each_once():
    make, store, clock, started = scheduled()
    first, second = make(), make()
    first.start_due()
    clock.forward(2.5 * 3600)
    seen = []
    store.racing = [lambda: seen.append(second.start_due(timedelta(hours=5)))]
    told = first.start_due(timedelta(hours=5))
    expected = [T0 + timedelta(hours=number) for number in (1, 2)]
    assert [time for _, time in told.started] == expected
    assert [time for _, time in seen[0].started] == expected
    assert hours(started) == ["13:00", "14:00"] * 2
    assert Marks(store).load("dag")[0].through == clock.now()
    clock.forward(3600)
    store.racing = [lambda: seen.append(second.start_due(timedelta(hours=5)))]
    assert [time for _, time in first.start_due(timedelta(hours=5)).started] == [T0 + timedelta(hours=3)]


def test_what_is_started_by_one_look_after_a_lost_race_is_told_with_what_was_before_it():
    make, store, clock, started = scheduled()
    schedules = make()
    schedules.start_due()
    clock.forward(1.5 * 3600)

    def later():
        mark, version = Marks(store).load("dag")
        Marks(store).save(msgspec.structs.replace(mark, through=T0 + timedelta(hours=0.5)), version)
        clock.forward(0)

    store.racing = [later]
    told = schedules.start_due(timedelta(hours=9))
    assert [time for _, time in told.started] == [T0 + timedelta(hours=1)]
    assert hours(started) == ["13:00", "13:00"]


def test_a_schedule_that_always_loses_its_race_is_left_to_the_next_look():
    make, store, clock, started = scheduled()
    schedules = make()
    schedules.start_due()
    clock.forward(1.5 * 3600)
    put = MemoryStore.put

    def lost(key, data, *, expect):
        raise VersionConflict("412")

    store.put = lost
    told = schedules.start_due(timedelta(hours=9))
    assert (len(told.started), hours(started)) == (1, ["13:00"] * 10)
    store.put = lambda key, data, *, expect: put(store, key, data, expect=expect)
    assert [time for _, time in schedules.start_due(timedelta(hours=9)).started] == [T0 + timedelta(hours=1)]
    assert schedules.start_due(timedelta(hours=9)).started == ()


def test_no_more_than_so_many_are_started_at_one_look_and_the_next_goes_on_from_there():
    make, store, clock, started = scheduled(schedule="* * * * *")
    schedules = make()
    schedules.start_due()
    clock.forward(60.0 * (MOST_AT_ONCE + 2))
    late = timedelta(days=1)
    assert len(schedules.start_due(late).started) == MOST_AT_ONCE
    assert Marks(store).load("dag")[0].through == T0 + timedelta(minutes=MOST_AT_ONCE)
    assert [f"{time:%H:%M}" for _, time in schedules.start_due(late).started] == ["13:41", "13:42"]
    assert schedules.start_due(late).started == ()
    assert len(started) == MOST_AT_ONCE + 2


@pytest.mark.parametrize(
    ("missed", "expected", "left_out"),
    [(None, [], 3), ("skip", [], 3), ("last", ["15:00"], 2), ("all", ["13:00", "14:00", "15:00"], 0)],
)
def test_which_missed_times_are_made_up_for_and_which_are_left_out(missed, expected, left_out, caplog):
    caplog.set_level("INFO", "orchestrator")
    make, _, clock, started = scheduled(missed)
    schedules = make()
    schedules.make_up()
    schedules.start_due()
    clock.forward(3 * 3600 + LATE.total_seconds())
    told = schedules.make_up()
    assert hours(started) == expected
    if missed == "last":
        assert told.left_out == {"dag": 2}
        assert [line.getMessage() for line in caplog.records] == ["schedule of dag: 2 missed times are left out"]
    else:
        assert (told.left_out, caplog.records) == ({}, [])
    clock.forward(30)
    rest = schedules.start_due()
    if missed in (None, "skip"):
        assert (rest.left_out, rest.started) == ({"dag": left_out}, ())
    else:
        assert (rest.left_out, rest.started) == ({}, ())


def test_the_next_times_of_all_schedules_the_nearest_first():
    make, _, clock, _ = scheduled(daily={**chain("A"), "schedule": "30 13 * * *"}, none=chain("A"))
    at = lambda hour, minute=0, day=1: T0.replace(day=day, hour=hour, minute=minute)  # noqa: E731
    assert make().next_times(2) == [
        (at(13), "dag"), (at(13, 30), "daily"), (at(14), "dag"), (at(13, 30, 2), "daily")]  # fmt: skip
    clock.forward(3600)
    assert make().next_times(1) == [(at(13, 30), "daily"), (at(14), "dag")]
    assert list(make().scheduled) == ["dag", "daily"]


def test_a_mark_is_named_after_its_dag_or_a_hash_of_that():
    assert Marks.key("my-dag.2") == "schedules/my-dag.2.json"
    assert Marks.key("../odd").startswith("schedules/sha256-")
    assert Marks.key("a" * 200) == f"schedules/{'a' * 200}.json"
    assert Marks.key("a" * 201).startswith("schedules/sha256-")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "schedules/dag.json: is no mark of a schedule: .*; delete it to begin anew"),
        (b'{"format":2,"dag":"dag","schedule":"* * * * *","time_zone":"UTC","through":"2026-01-01T12:00:00Z"}',
         "schedules/dag.json: is of a format that this version does not know; it reads up to 1"),
        (b'{"format":1,"dag":"dag","schedule":"* * * * *","time_zone":"UTC","through":"2026-01-01T12:00:00"}',
         "schedules/dag.json: is of a format that this version does not know; it reads up to 1"),
    ],
)  # fmt: skip
def test_a_mark_that_cannot_be_read(content, words, caplog):
    make, store, clock, started = scheduled()
    store.put("schedules/dag.json", content, expect=None)
    with pytest.raises(CorruptState, match=rf"^{words}$"):
        Marks(store).load("dag")
    schedules = make()
    clock.forward(2 * 3600)
    for _ in range(2):
        (problem,) = schedules.start_due().problems
        assert problem.startswith("schedule of dag: schedules/dag.json: is ")
    (line,) = caplog.records
    assert (line.getMessage(), started) == (problem, [])
    store.delete("schedules/dag.json")
    assert schedules.start_due().problems == ()
    store.put("schedules/dag.json", content, expect=store.get("schedules/dag.json")[1])
    clock.forward(3600)
    schedules.start_due()
    assert len(caplog.records) == 2, "it is news again"


def test_a_look_while_another_one_is_under_way_does_nothing():
    store, clock = MemoryStore(), VirtualClock()
    seen = []
    definitions = {"dag": {**chain("A"), "schedule": "0 * * * *", "missed": "all"}}
    schedules = Schedules(store, Catalog(definitions), clock, lambda message: seen.append(schedules.start_due()))
    schedules.start_due()
    clock.forward(3600)
    assert len(schedules.start_due().started) == 1
    assert [(each.started, each.problems) for each in seen] == [((), ())]
    assert Schedules(store, Catalog({}), clock, seen.append).make_up().started == ()


# -- pruning ------------------------------------------------------------------------------------------------


def old_run(store=None, message_id="m1", **start):
    world = World(chain("A"), store=store or MemoryStore())
    run_id = world.start(message_id, **start)
    world.end("A")
    world.executor.tick()
    world.clock.forward(40 * DAY)
    return world, run_id


def pruned(world, older_than_s=30 * DAY, **options):
    given = {"is_all": True, **options}
    return Pruner(
        world.store, world.clock.now(), older_than_s, given.pop("is_meant", lambda run: True), **given
    ).prune()


@pytest.mark.parametrize("is_dry", [True, False])
@pytest.mark.parametrize("races", [0, 1, 3])
def test_slots_that_a_pruned_run_held_are_taken_from_their_queue_whoever_writes_it_meanwhile(is_dry, races):
    world, run_id = old_run()
    held = Place(f"{run_id}/A/1", "t1", T0, 0)
    waits = Place(f"{run_id}/B/1", "t2", T0, 0)
    other = Place("run_1_other/A/1", "t3", T0, 0)
    key, put = "slots/pool/api.json", world.store.put
    put(key, encode_slots(Slots(limit=5, held=(held, other), waiting=(waits,))), expect=None)
    left = [races]

    def racing(name, data, *, expect):
        if name == key and left[0]:
            left[0] -= 1
            raise VersionConflict("412")
        return put(name, data, expect=expect)

    world.store.put = racing
    told = pruned(world, is_dry=is_dry)
    assert (told.runs, told.problems) == ([run_id], [])
    content = world.store.get(key)[0]
    assert [ticket in content for ticket in (b"t1", b"t2", b"t3")] == [is_dry, is_dry, True]


def test_a_queue_that_cannot_be_read_is_a_problem_and_no_more():
    world, run_id = old_run()
    world.store.put("slots/pool/api.json", b"{", expect=None)
    held = encode_slots(Slots(limit=5, held=(Place(f"{run_id}/A/1", "t1", T0, 0),)))
    world.store.put("slots/pool/db.json", held, expect=None)
    told = pruned(world)
    assert told.runs == [run_id]
    assert len(told.problems) == 1
    assert told.problems[0].startswith("slots/pool/api.json: ")
    assert b"t1" not in world.store.get("slots/pool/db.json")[0], "the next one is seen to all the same"


def test_a_run_that_cannot_be_read_any_more_is_left_alone_with_all_that_is_of_it():
    world, run_id = old_run()
    key = f"runs/{run_id}.json"
    marked, put = [], world.store.put

    def spoilt_after(name, data, *, expect):
        version = put(name, data, expect=expect)
        if name == key and not marked:
            marked.append(name)
            put(key, b"{", expect=version)
        return version

    world.store.put = spoilt_after
    told = pruned(world)
    assert told.runs == []
    assert [problem.partition(": ")[0] for problem in told.problems] == [key, "definitions/"]
    assert told.problems[-1] == "definitions/: left alone, for not every run can be read"
    assert list(world.store.list("executions/")) != []
    assert world.store.get(key) is not None


@pytest.mark.parametrize(
    ("until_s", "written"), [(-1, True), (0, False), (1, False)], ids=["sooner", "as long", "longer"]
)
def test_a_run_is_remembered_for_as_long_as_its_start_can_come_again(until_s, written):
    world = World(chain("A"))
    run_id = world.start()
    world.end("A")
    world.clock.forward(2 * DAY)
    until = T0 + timedelta(seconds=REDELIVERY_S)
    known = msgspec.json.encode({"until": until + timedelta(seconds=until_s)})
    version = world.store.put(tombstone_of(run_id), known, expect=None)
    pruned(world, DAY)
    found = world.store.get(tombstone_of(run_id))
    assert (found[1] != version) is written
    assert (
        msgspec.json.decode(found[0])["until"] == f"{max(until, until + timedelta(seconds=until_s)):%Y-%m-%dT%H:%M:%SZ}"
    )


@pytest.mark.parametrize("races", [1, 2])
def test_what_remembers_a_run_is_written_though_others_write_it_too(races):
    world = World(chain("A"))
    run_id = world.start()
    world.end("A")
    world.clock.forward(2 * DAY)
    put, left = world.store.put, [races]

    def racing(name, data, *, expect):
        if name == tombstone_of(run_id) and left[0]:
            left[0] -= 1
            raise VersionConflict("412")
        return put(name, data, expect=expect)

    world.store.put = racing
    assert pruned(world, DAY).runs == [run_id]
    assert world.store.get(tombstone_of(run_id)) is not None


def test_a_run_is_remembered_only_where_its_start_may_come_again():
    world, run_id = old_run()
    pruned(world)
    assert world.store.get(tombstone_of(run_id)) is None


@pytest.mark.parametrize("age_s", [TRASH_S, TRASH_S + 1])
def test_a_definition_that_no_run_has_lies_in_the_trash_for_a_day(age_s):
    world, _ = old_run()
    (key,) = world.store.list("definitions/")
    content = world.store.get(key)[0]
    told = pruned(world)
    assert (told.definitions, list(world.store.list("definitions/"))) == (1, [])
    thrown = msgspec.json.decode(world.store.get(f"pruned/{key}")[0])
    assert (thrown["at"], thrown["definition"]) == (
        f"{world.clock.now():%Y-%m-%dT%H:%M:%SZ}",
        msgspec.json.decode(content),
    )
    world.clock.forward(age_s)
    pruned(world)
    assert (world.store.get(f"pruned/{key}") is None) is (age_s > TRASH_S)


def test_a_definition_that_a_run_has_again_is_put_back():
    world, _ = old_run()
    (key,) = world.store.list("definitions/")
    pruned(world)
    executor = world.instance()
    world.instances = [executor]
    world.start("m2")
    world.store.delete(key)
    told = pruned(world)
    assert (world.store.get(key) is not None, world.store.get(f"pruned/{key}")) == (True, None)
    assert told.definitions == 0


def test_in_a_dry_run_all_is_counted_and_nothing_is_written():
    world, run_id = old_run()
    world.store.put(f"results/{world.target.calls[0].key}.json", b"{}", expect=None)
    world.store.put("dead_letters/2026-01-01-0.json", b"{}", expect=None)
    world.store.put("dead_letters/odd", b"{}", expect=None)
    before = {key: world.store.get(key) for key in world.store.list("")}
    removed = []
    told = pruned(world, is_dry=True, remove_attempt=lambda key, is_dry: removed.append((key, is_dry)) or 2)
    assert told == Pruned(
        runs=[run_id], kept=0, results=1, attempts=2, executions=1, definitions=1, dead_letters=1, problems=[]
    )
    assert removed == [(world.target.calls[0].key, True)]
    assert {key: world.store.get(key) for key in world.store.list("")} == before


@pytest.mark.parametrize(("day", "goes"), [("2025-12-31", True), ("2026-01-01", False), ("2026-01-02", False)])
def test_a_dead_letter_goes_by_the_end_of_its_day(day, goes):
    world = World(chain("A"))
    world.clock.forward(DAY / 2)  # the end of the first of January
    key = f"dead_letters/{day}-0123.json"
    world.store.put(key, b"{}", expect=None)
    told = pruned(world, 12 * 3600.0)
    assert ((told.dead_letters, world.store.get(key)) == (1, None)) is goes
    assert pruned(world, LEAST_AGE_S, is_all=False).dead_letters == 0


def test_records_of_others_and_odd_ones_stay():
    world, run_id = old_run()
    record = msgspec.json.decode(world.store.get(next(iter(world.store.list("executions/"))))[0])
    young = {**record, "launched_at": "2027-01-01T00:00:00Z", "execution_id": "young"}
    other = {**record, "run_id": "run_1_other"}
    for name, content in (("young", young), ("other", other), ("odd", {"run_id": 1})):
        world.store.put(f"executions/{name}.json", msgspec.json.encode(content), expect=None)
    told = pruned(world)
    assert (told.runs, told.executions) == ([run_id], 2)
    assert list(world.store.list("executions/")) == ["executions/odd.json", "executions/other.json"]
    assert len(told.problems) == 1
    assert told.problems[0].startswith("executions/odd.json: is no execution record: ")


def test_what_is_no_run_is_not_looked_at_and_a_store_that_fails_is_a_problem():
    world, run_id = old_run()
    world.store.put("runs/odd.json.bak", b"{}", expect=None)
    put = world.store.put

    def fails(name, data, *, expect):
        if name.startswith("runs/"):
            raise StoreUnavailable("503")
        return put(name, data, expect=expect)

    world.store.put = fails
    told = pruned(world)
    assert told.runs == []
    assert told.problems == [
        f"runs/{run_id}.json: 503",
        "definitions/: left alone, for not every run can be read",
    ]


def test_a_run_that_was_redriven_meanwhile_counts_as_kept():
    world = World(chain("A"))
    run_id = world.start()
    world.end("A", FAILED)
    world.clock.forward(40 * DAY)
    pruner = Pruner(world.store, world.clock.now(), 30 * DAY, lambda run: True, is_all=True)
    mark = pruner._mark

    def redriven_before(state):
        world.executor.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
        return mark(state)

    pruner._mark = redriven_before
    told = pruner.prune()
    assert (told.runs, told.kept, told.definitions) == ([], 1, 0)
    assert world.state(run_id).run.status is RunStatus.RUNNING
