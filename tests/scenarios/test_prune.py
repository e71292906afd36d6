"""orchestrator prune: what goes, what stays, and that nobody is harmed who works beside it."""

import json
import sys
from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from orchestrator.cli.main import main
from orchestrator.engine.pruning import LEAST_AGE_S, REDELIVERY_S, TRASH_S, Pruner
from orchestrator.engine.status import VERIFIED_S, DefinitionStatus, OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.ids import key_of, launch_id_of
from orchestrator.model.run_state import RunState
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import Simulation, fails, takes
from tests.support.command_line import Place, clean_environment
from tests.support.storage_server import StorageServer
from tests.support.world import START, World, chain, dag, parallel, task

DAY = 86400.0


@pytest.fixture
def gcs_store():
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    from orchestrator.stores.gcs import GcsStore

    with StorageServer(buckets=("b",)) as server:
        client = storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": server.url})
        yield GcsStore("b", client=client)


@pytest.fixture(params=["memory", "directory", "redis", "gcs"])
def store(request, tmp_path):
    """A bucket of each kind."""
    match request.param:
        case "memory":
            return MemoryStore()
        case "directory":
            return LocalStore(tmp_path / "bucket")
        case "redis":
            import fakeredis

            from orchestrator.stores.redis import RedisStore

            return RedisStore(fakeredis.FakeRedis(server=fakeredis.FakeServer()))
    return request.getfixturevalue("gcs_store")


def prune(world, older_than_s=30 * DAY, is_meant=lambda run: True, **options):
    options.setdefault("is_all", True)
    return Pruner(world.store, world.clock.now(), older_than_s, is_meant, **options).prune()


def keys(world, *prefixes):
    return [key for key in world.store.list("") if key.startswith(prefixes or ("",))]


def ended(world, message_id="m1", **start):
    run_id = world.start(message_id, **start)
    world.run_all(run_id)
    world.executor.close()  # records are written
    return run_id


def test_an_old_run_goes_with_all_that_belongs_to_it(store):
    world = World(chain("A", "B"), store=store)
    run_id = ended(world)
    key = world.target.calls[0].key
    for name in (f"results/{key}.json", f"results/{key}.begun", f"results/{key}.progress"):
        store.put(name, b"{}", expect=None)
    store.put("dead_letters/2026-01-01-0123456789abcdef.json", b"{}", expect=None)
    world.clock.forward(40 * DAY)
    open_id = world.start("m2")
    record = f"executions/x-{world.target.calls[-1].key}.json"
    stays = {f"runs/{open_id}.json", f"open/{open_id}", record, *keys(world, "definitions/")}
    told = prune(world)
    assert set(keys(world)) == stays
    assert (told.runs, told.kept, told.results, told.executions, told.dead_letters) == ([run_id], 1, 3, 2, 1)
    assert told.problems == []
    assert prune(world).runs == []


def test_large_results_go_with_their_run():
    big = "x" * 70_000
    steps = {"P": {"type": "Pass", "result": [big], "next": "A"}, "A": chain("A")["steps"]["A"]}
    world = World({"start": "P", "steps": steps})
    world.start()
    world.end("A", Outcome.completed(big))
    assert len(keys(world, "results/")) == 2
    world.clock.forward(40 * DAY)
    assert prune(world).results == 2
    assert keys(world, "results/") == []


def test_large_results_of_steps_that_launch_nothing_go_with_their_run_even_those_of_a_lost_save():
    step = {"type": "Pass", "result": ["x" * 70_000], "next": "A"}
    world = World({"start": "P", "steps": {"P": step, "A": chain("A")["steps"]["A"]}})
    run_id = ended(world)
    key = key_of(launch_id_of(run_id, "P", 0))
    other = key_of(launch_id_of("another", "P", 0))
    for name in (f"results/{key}-{'0' * 24}.json", f"results/{other}-{'0' * 24}.json"):
        world.store.put(name, b"{}", expect=None)  # by a save that lost its race
    assert len(keys(world, f"results/{key}-")) == 2
    world.clock.forward(40 * DAY)
    assert prune(world).results == 2
    assert keys(world, "results/") == [f"results/{other}-{'0' * 24}.json"]


@pytest.mark.parametrize(
    ("age_s", "goes"), [(30 * DAY + 1, True), (30 * DAY - 1, False)], ids=["old enough", "too young"]
)
def test_the_age_counts_from_the_end_of_a_run(age_s, goes):
    world = World(chain("A"))
    run_id = world.start()
    world.clock.forward(50 * DAY)
    world.run_all(run_id)
    world.clock.forward(age_s)
    assert prune(world).runs == ([run_id] if goes else [])


def test_an_open_run_never_goes_however_old():
    world = World(chain("A"))
    run_id = world.start()
    world.clock.forward(1000 * DAY)
    before = keys(world)
    assert prune(world).runs == []
    assert keys(world) == before
    world.run_all(run_id)


def test_a_dry_run_tells_and_changes_nothing():
    world = World(chain("A"))
    run_id = ended(world)
    world.clock.forward(40 * DAY)
    before = {key: world.store.get(key) for key in keys(world)}
    told = prune(world, is_dry=True)
    assert (told.runs, told.definitions, told.executions) == ([run_id], 1, 1)
    assert {key: world.store.get(key) for key in keys(world)} == before


def test_only_what_is_meant_goes_and_dead_letters_only_where_all_is():
    world = World(chain("A"))
    ids = [ended(world, "m1"), ended(world, "m2")]
    world.store.put("dead_letters/2026-01-01-0123456789abcdef.json", b"{}", expect=None)
    world.clock.forward(40 * DAY)
    told = prune(world, is_meant=lambda run: run.run_id == ids[0], is_all=False)
    assert (told.runs, told.kept, told.dead_letters) == ([ids[0]], 1, 0)
    assert keys(world, "runs/") == [f"runs/{ids[1]}.json"]
    assert keys(world, "dead_letters/") != []


# -- beside others ---------------------------------------------------------------------------------------


def test_a_reminder_of_a_timeout_that_comes_after_its_run_was_pruned_is_no_dead_letter():
    world = Simulation(dag(A=task(timeout="2d")))
    world.finish(world.start())
    world.forward("3h")
    assert Pruner(world.store, world.clock.now(), 3600.0, lambda _: True, is_all=True).prune().kept == 0
    world.forward("3d")
    assert world.dead_letters == []


FAMILIES = {
    "child runs": {"type": "Task", "target_type": "Dag", "target_name": "kid"},
    "parts": {"type": "Map", "items": [*range(101)], "max_concurrency": 1000, "iterator": dag(K=task())},
}


@pytest.mark.parametrize("step", [pytest.param(step, id=name) for name, step in FAMILIES.items()])
def test_child_runs_stay_as_long_as_their_parent_does_which_may_be_redriven(step):
    two = {"first": dag(C=step), "second": dag(L=task())}
    world = Simulation(
        {"top": dag(P=parallel(*two.values())), "kid": dag(K=task("F"), F=task())},
        targets={"L": takes("3d"), "F": fails(times=1), "K[7]": fails(times=1)},
    )
    run_id = world.start(dag="top")
    world.finish(run_id)
    before = {run.run_id: len(run.all_launches) for run in world.runs}
    told = Pruner(world.store, world.clock.now(), DAY, lambda _: True, is_all=True).prune()
    assert (told.runs, told.kept) == ([], len(before))
    world.redrive(run_id)
    assert world.finish(run_id).status == "Completed"
    assert {run.run_id for run in world.runs} == before.keys()
    assert sum(len(run.all_launches) for run in world.runs) == sum(before.values()) + 2
    world.forward("3d")
    assert Pruner(world.store, world.clock.now(), DAY, lambda _: True, is_all=True).prune().kept == 0
    assert [key for key in world.store.list("") if not key.startswith("pruned/")] == []


def test_a_child_run_stays_where_its_parent_is_redriven_while_both_are_to_go():
    call = {"type": "Task", "target_type": "Dag", "target_name": "kid"}
    world = Simulation({"top": dag(C=call), "kid": dag(F=task())}, targets={"F": fails(times=1)})
    run_id = world.start(dag="top")
    world.finish(run_id)
    world.forward("3d")
    put = world.store.put

    def redriven_meanwhile(key, data, *, expect):
        if key == f"runs/{run_id}.json":
            world.store.put = put
            world.redrive(run_id)
        return put(key, data, expect=expect)

    world.store.put = redriven_meanwhile
    told = Pruner(world.store, world.clock.now(), DAY, lambda _: True, is_all=True).prune()
    assert (told.runs, told.kept) == ([], 2)
    assert world.finish(run_id).status == "Completed"
    assert len(world.runs) == 2


def test_a_child_run_that_outlives_its_pruned_parent_ends_in_peace_and_goes_then():
    call = {"type": "Task", "target_type": "Dag", "target_name": "kid"}
    kid = {**dag(K=task()), "finally": dag(F=task())}
    world = Simulation({"top": dag(A=call), "kid": kid}, targets={"K": takes("1h"), "F": takes("5h")})
    run_id = world.start(dag="top")
    world.cancel(run_id, after="10m")
    world.finish(run_id)
    world.forward("3h")
    told = Pruner(world.store, world.clock.now(), 3600.0, lambda _: True, is_all=True).prune()
    assert (told.runs, told.kept) == ([run_id], 1)
    world.forward("2d")
    assert [run.status.is_final for run in world.runs] == [True]
    assert world.dead_letters == world.problems == []
    Pruner(world.store, world.clock.now(), 3600.0, lambda _: True, is_all=True).prune()
    assert [key for key in world.store.list("") if not key.startswith("pruned/")] == []


def test_a_start_that_comes_again_after_its_run_was_pruned_does_not_start_it_anew():
    world = World(chain("A"))
    published_at = world.clock.now()
    run_id = ended(world)
    world.clock.forward(LEAST_AGE_S + 1)
    assert prune(world, LEAST_AGE_S).runs == [run_id]
    again = world.instance().execute(START, message_id="m1", publish_time=published_at)
    assert (again.verdict, again.run_id) == ("unchanged", run_id)
    assert keys(world, "runs/", "open/") == []
    assert world.target.nodes == ["A"]


def test_a_scheduled_start_that_is_sent_again_does_not_start_a_pruned_run_anew():
    world = World(chain("A"))
    start = {"scheduled_for": "2026-01-01T11:00:00Z"}
    run_id = ended(world, **start)
    world.clock.forward(LEAST_AGE_S + 1)
    assert prune(world, LEAST_AGE_S).runs == [run_id]
    again = world.executor.execute({**START, **start}, message_id="other", publish_time=world.clock.now())
    assert (again.verdict, again.run_id) == ("unchanged", run_id)


def test_a_new_message_may_take_the_run_id_of_a_run_that_was_pruned():
    world = World(chain("A"))
    ended(world, run_id="mine")
    world.clock.forward(LEAST_AGE_S + 1)
    prune(world, LEAST_AGE_S)
    assert world.start("m2", run_id="mine") == "mine"
    assert world.state("mine").run.message_id == "m2"


def test_what_remembers_a_pruned_run_goes_when_its_start_cannot_come_again():
    world = World(chain("A"))
    run_id = ended(world)
    world.clock.forward(2 * DAY)
    prune(world, DAY)
    assert f"pruned/{run_id}.json" in keys(world)
    world.clock.forward(REDELIVERY_S)
    prune(world, DAY)
    assert keys(world) == []


def test_a_run_that_is_taken_up_again_meanwhile_stays():
    """Whatever reopens a run saves it by compare-and-swap: one of the two loses."""
    world = World(chain("A"))
    run_id = ended(world)
    world.clock.forward(40 * DAY)
    put = world.store.put

    def reopened_before(key, data, *, expect):
        if key == f"runs/{run_id}.json":
            world.store.put = put
            state, version = OrchestrationStatus(world.store, run_id).load()
            opened = RunState(replace(state.run, status="Running", ended_at=None), state.nodes)
            OrchestrationStatus(world.store, run_id).save(opened, expect=version)
        return put(key, data, expect=expect)

    world.store.put = reopened_before
    told = prune(world)
    assert (told.runs, told.kept) == ([], 1)
    assert world.state(run_id).run.pruned_at is None
    assert keys(world, "definitions/", "executions/") != []


@pytest.mark.parametrize("at", ["runs/", "executions/", "open/"], ids=["marked", "swept", "about to be deleted"])
def test_a_run_that_takes_the_run_id_while_two_prune_is_left_alone(at):
    """The other pruning finishes first, and a new message starts a run of the same run_id at once."""
    world = World(chain("A", "B"))
    ended(world, run_id="mine")
    world.clock.forward(40 * DAY)
    store = world.store

    class Overtaken:
        """A store that is held up once: after it marked the run, or before it lists what is `at`."""

        get, delete = store.get, store.delete
        is_held_up = False

        def put(self, key, data, *, expect):
            version = store.put(key, data, expect=expect)
            self.hold_up(key)
            return version

        def list(self, prefix, *, start_after=""):
            self.hold_up(prefix)
            return store.list(prefix, start_after=start_after)

        def hold_up(self, key):
            is_mark = key.startswith("runs/") and key != "runs/"
            if self.is_held_up or not key.startswith(at) or (at == "runs/" and not is_mark):
                return
            self.is_held_up = True
            assert prune(world).runs == ["mine"]
            world.target.calls.clear()
            world.start("m2", run_id="mine")
            world.executor.close()
            first = world.target.of("A")[-1].key
            store.put(f"results/{first}.json", b"{}", expect=None)

    overtaken = Overtaken()
    Pruner(overtaken, world.clock.now(), 30 * DAY, lambda run: True, is_all=True).prune()
    assert overtaken.is_held_up
    assert world.state("mine").run.message_id == "m2"
    first = world.target.of("A")[-1].key
    left = ["open/mine", f"results/{first}.json", f"executions/x-{first}.json"]
    assert keys(world, "open/", "results/", "executions/") == sorted(left)
    world.run_all("mine")


def test_who_loaded_a_run_before_it_was_pruned_cannot_save_it_after():
    world = World(chain("A"))
    run_id = ended(world)
    status = OrchestrationStatus(world.store, run_id)
    state, version = status.load()
    world.clock.forward(40 * DAY)
    prune(world)
    with pytest.raises(VersionConflict):
        status.save(state, expect=version)


class KilledAt:
    """A store whose process dies at its n-th write or delete, before or after it."""

    def __init__(self, store, number, *, is_after):
        self.store, self.left, self.is_after = store, number, is_after
        self.get, self.list = store.get, store.list

    def _step(self, call):
        self.left -= 1
        if self.left == 0 and not self.is_after:
            raise StoreUnavailable("killed")
        result = call()
        if self.left <= 0:
            raise StoreUnavailable("killed")
        return result

    def put(self, key, data, *, expect):
        return self._step(lambda: self.store.put(key, data, expect=expect))

    def delete(self, key):
        self._step(lambda: self.store.delete(key))


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_killed_anywhere_it_is_finished_by_the_next_one(is_after):
    number = 0
    while True:
        number += 1
        world = World(chain("A", "B"))
        run_id = ended(world)
        world.store.put(f"results/{world.target.calls[0].key}.json", b"{}", expect=None)
        world.clock.forward(40 * DAY)
        killed = KilledAt(world.store, number, is_after=is_after)
        try:
            told = Pruner(killed, world.clock.now(), 30 * DAY, lambda run: True, is_all=True).prune()
        except StoreUnavailable:
            told = None
        if told is not None and not told.problems:
            break
        prune(world)
        world.clock.forward(TRASH_S + 1)
        prune(world)
        assert keys(world) == [], f"killed at {number}"
    assert number > 6
    assert run_id in told.runs


# -- definitions -----------------------------------------------------------------------------------------


def test_a_definition_goes_when_no_run_has_had_it_for_a_day():
    world = World(chain("A"))
    ended(world)
    world.clock.forward(40 * DAY)
    assert prune(world).definitions == 1
    assert [key.rpartition("/")[0] for key in keys(world)] == ["pruned/definitions"]
    world.clock.forward(TRASH_S - 60)
    prune(world)
    assert keys(world) != []
    world.clock.forward(120)
    prune(world)
    assert keys(world) == []


def test_a_definition_that_is_thrown_away_again_is_kept_for_a_day_again():
    world = World(chain("A"))
    ended(world)
    world.clock.forward(2 * DAY)
    prune(world, DAY)
    world.target.calls.clear()
    ended(world, "m2")
    world.clock.forward(2 * DAY)
    assert prune(world, DAY).definitions == 1
    assert len(keys(world, "pruned/definitions/")) == 1
    world.clock.forward(TRASH_S + 60)
    prune(world, DAY)
    assert keys(world, "definitions/", "pruned/definitions/") == []


def test_the_start_of_a_second_run_of_one_run_id_is_remembered_for_as_long():
    world = World(chain("A"))
    ended(world, run_id="mine")
    world.clock.forward(DAY + 1)
    prune(world, DAY)
    world.clock.forward(20 * DAY)
    published_at = world.clock.now()
    world.target.calls.clear()
    ended(world, "m2", run_id="mine")
    world.clock.forward(DAY + 1)
    assert prune(world, DAY).runs == ["mine"]
    world.clock.forward(REDELIVERY_S - 10 * DAY)  # the first one's start cannot come again any more
    prune(world, DAY)
    again = world.instance().execute({**START, "run_id": "mine"}, message_id="m2", publish_time=published_at)
    assert again.verdict == "unchanged"


def test_a_start_that_saw_the_definition_just_before_it_went_finds_it_all_the_same():
    world = World(chain("A", "B"))
    ended(world)
    world.clock.forward(40 * DAY)
    other = world.instance()
    mark = other._committer._open_runs.mark

    def pruned_between(*what):  # after the definition was seen, before the run is written
        prune(world)
        assert keys(world, "definitions/") == []
        mark(*what)

    other._committer._open_runs.mark = pruned_between
    run_id = other.execute(START, message_id="m9", publish_time=world.clock.now()).run_id
    (name,) = keys(world, "pruned/definitions/")
    # The instance that goes on has another version of the DAG deployed, so it has to find the run's own.
    dag = DefinitionStatus(world.store).load(world.state(run_id).run.definition)
    assert [node.node_name for node in dag.nodes] == ["A", "B"]
    assert keys(world, "definitions/") == [name.removeprefix("pruned/")]
    world.clock.forward(TRASH_S + 1)
    prune(world)
    assert keys(world, "definitions/", "pruned/") == [name.removeprefix("pruned/")]


def test_pruning_puts_a_definition_back_that_a_run_has_after_all():
    world = World(chain("A"))
    ended(world)
    world.clock.forward(40 * DAY)
    prune(world)
    (name,) = keys(world, "pruned/definitions/")
    world.start("m2")  # this instance saw the definition within the hour, it thinks
    world.executor._definitions._load.cache_clear()
    prune(world)
    assert name.removeprefix("pruned/") in keys(world)


def test_an_instance_that_lives_long_looks_again_whether_its_definition_is_there():
    world = World(chain("A"))
    ended(world)
    world.clock.forward(40 * DAY)
    prune(world)
    world.clock.forward(TRASH_S + VERIFIED_S)
    prune(world)
    assert keys(world) == []
    world.start("m2")
    assert len(keys(world, "definitions/")) == 1


def test_where_a_run_cannot_be_read_every_definition_stays():
    world = World(chain("A"))
    ended(world)
    world.store.put("runs/spoilt.json", b"{", expect=None)
    world.clock.forward(40 * DAY)
    told = prune(world)
    assert len(told.runs) == 1
    assert told.definitions == 0
    assert [problem.partition(":")[0] for problem in told.problems] == ["runs/spoilt.json", "definitions/"]
    assert len(keys(world, "definitions/")) == 1


# -- the command -----------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = Place(tmp_path)
    place.dag("good", {"A": place.task("echo", value=1)})
    place.dag("bad", {"A": place.task("boom")})
    assert main(["run", "good", "--run-id", "old-good"]) == 0
    assert main(["run", "bad", "--run-id", "old-bad"]) == 1
    assert main(["run", "good", "--run-id", "young"]) == 0
    for run_id in ("old-good", "old-bad"):
        age(place, run_id)
    return place


def age(place, run_id):
    path = place.root / ".orchestrator" / "runs" / f"{run_id}.json"
    state = json.loads(path.read_text())
    state["$run"] |= {"started_at": "2025-01-01T00:00:00Z", "ended_at": "2025-01-01T00:00:01Z"}
    path.write_text(json.dumps(state))


def test_the_command_deletes_old_runs_and_says_so(place, capsys):
    capsys.readouterr()
    assert main(["prune", "--older-than", "30d", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "would delete 2 runs, 1 definition; 1 run kept",
        "  old-bad",
        "  old-good",
    ]
    assert place.run_ids() == ["old-bad", "old-good", "young"]
    assert main(["prune", "--older-than", "30d", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["runs"], told["kept"], told["dry_run"]) == (["old-bad", "old-good"], 1, False)
    assert place.run_ids() == ["young"]
    assert main(["prune", "--older-than", "30d"]) == 0
    assert capsys.readouterr().out == "deleted nothing; 1 run kept\n"


def test_the_command_takes_a_dag_and_statuses(place, capsys):
    assert main(["prune", "--older-than", "30d", "--status", "Failed", "--dag", "good"]) == 0
    assert len(place.run_ids()) == 3
    assert main(["prune", "--older-than", "30d", "--status", "Failed"]) == 0
    assert place.run_ids() == ["old-good", "young"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--older-than", "59m"], "prune: --older-than: is too short; at least 1h"),
        (["--older-than", "soon"], '"soon" is not a duration'),
        ([], "the following arguments are required: --older-than"),
        (["--older-than", "1d", "--status", "Running"], "prune: --status Running: such a run has not ended; allowed:"),
    ],
)
def test_what_would_not_be_safe_is_refused(place, capsys, options, said):
    capsys.readouterr()
    assert main(["prune", *options]) == 2
    assert said in capsys.readouterr().err


def test_what_local_targets_left_of_an_attempt_goes_too(place, capsys):
    from orchestrator.model.ids import key_of

    attempts = place.root / ".orchestrator" / "attempts"
    key = key_of("old-good/A/1")
    (attempts / key).mkdir(parents=True)
    (attempts / key / "execution.json").write_bytes(msgspec.json.encode({"execution_id": "abc", "holder": "h"}))
    (attempts / key / "log.txt").write_text("said")
    (attempts / ".executions").mkdir()
    (attempts / ".executions" / "abc").symlink_to(f"../{key}")
    capsys.readouterr()
    assert main(["prune", "--older-than", "30d", "--dag", "good"]) == 0
    assert "1 attempt;" in capsys.readouterr().out
    assert [path.name for path in attempts.rglob("*")] == [".executions"]


def test_a_problem_is_told_and_is_2(place, capsys):
    (place.root / ".orchestrator" / "runs" / "spoilt.json").write_text("{")
    capsys.readouterr()
    assert main(["prune", "--older-than", "30d"]) == 2
    said = capsys.readouterr()
    assert "deleted 2 runs" in said.out
    assert "runs/spoilt.json" in said.err
    assert timedelta(seconds=LEAST_AGE_S) == timedelta(hours=1)
