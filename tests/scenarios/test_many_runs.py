"""A bucket with very many finished runs: what is asked of the store does not grow with them."""

import json
import os
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.runs import ALL, Filter, newest
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.enums import RunStatus
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import T0
from tests.support.world import World, chain

PAGE = 1000
FEW, MANY = 30, 3000


class CountingStore(MemoryStore):
    """Counts calls as Cloud Storage does: a listing is a call for each page of 1,000 that is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = Counter[str]()

    def get(self, key):
        self.calls[f"get {key.partition('/')[0]}"] += 1
        return super().get(key)

    def put(self, key, data, *, expect):
        self.calls[f"put {key.partition('/')[0]}"] += 1
        return super().put(key, data, expect=expect)

    def list(self, prefix, *, start_after=""):
        self.calls[f"list {prefix.partition('/')[0]}"] += 1
        for number, key in enumerate(super().list(prefix, start_after=start_after)):
            if number and number % PAGE == 0:
                self.calls[f"list {prefix.partition('/')[0]}"] += 1
            yield key


class DatedStore(CountingStore):
    """And tells when each was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = {}

    def list_dated(self, prefix, *, start_after=""):
        return ((key, self.written.get(key, 0.0)) for key in self.list(prefix, start_after=start_after))


def listed(bucket, limit, wanted, now, since=None):
    return newest(bucket, limit, wanted, now, since)[0]


def ended(run_id: str, at: datetime, dag: str = "dag", status: RunStatus = RunStatus.COMPLETED) -> bytes:
    info = RunInfo(
        format=1, run_id=run_id, dag=dag, definition="sha256:0", status=status, input={}, started_at=at, ended_at=at
    )
    return encode(RunState(info, {}))


def our_id(at: datetime, number: int) -> str:
    return f"run_{int(at.timestamp())}_{number:012x}"


def filled(store: CountingStore, count: int, every: timedelta = timedelta(minutes=7), *, chosen: int = 0):
    """Put so many runs that have ended into a store, the newest first in the list that is returned."""
    ids = []
    for number in range(count):
        at = T0 - number * every
        run_id = f"mine-{number:06}" if number < chosen else our_id(at, number)
        store.put(f"runs/{run_id}.json", ended(run_id, at), expect=None)
        if isinstance(store, DatedStore):
            store.written[f"runs/{run_id}.json"] = at.timestamp()
        ids.append(run_id)
    store.calls.clear()
    return ids


def test_a_new_run_its_end_and_a_tick_make_the_same_calls_among_few_runs_and_among_many():
    spent = []
    for count in (FEW, MANY):
        world = World(chain("A", "B"), store=CountingStore())
        filled(world.store, count)
        run_id = world.start()
        world.end("A")
        world.instance().tick()
        world.end("B")
        world.instance().tick()
        assert world.state(run_id).run.status is RunStatus.COMPLETED
        spent.append(world.store.calls)
    assert spent[0] == spent[1]
    assert spent[0]["list runs"] == 0


@pytest.mark.parametrize("every", [timedelta(seconds=2), timedelta(minutes=7), timedelta(hours=12)])
def test_the_newest_runs_are_found_by_few_listings(every):
    for count in (FEW, MANY, 3 * MANY):
        store = CountingStore()
        ids = filled(store, count, every)
        found = listed(Bucket("gs://b", store), 20, ALL, T0)
        assert [entry.run_id for entry in found] == ids[:20]
        assert store.calls["get runs"] == 21  # one more tells that there are more
        assert store.calls["list open"] == 1
        assert store.calls["list runs"] <= 10, store.calls


def test_runs_whose_ids_were_chosen_are_read_newest_first_where_the_store_dates_them():
    store = DatedStore()
    ids = filled(store, MANY, chosen=MANY // 2)
    found = listed(Bucket("gs://b", store), 20, ALL, T0)
    assert [entry.run_id for entry in found] == ids[:20]
    assert store.calls["get runs"] <= 2 * 21
    assert store.calls["list runs"] <= 2 + 10


@pytest.mark.parametrize("store", [CountingStore, DatedStore])
def test_chosen_ids_and_others_stand_among_each_other_by_the_time_of_their_start(store):
    store = store()
    ids = filled(store, 2 * PAGE)
    for number, run_id in enumerate(("Zed", "a", "run_special", "zed")):
        at = T0 - timedelta(minutes=7 * number + 3)
        store.put(f"runs/{run_id}.json", ended(run_id, at), expect=None)
        if isinstance(store, DatedStore):
            store.written[f"runs/{run_id}.json"] = at.timestamp() + 60
    found = [entry.run_id for entry in listed(Bucket("gs://b", store), 7, ALL, T0)]
    assert found == [ids[0], "Zed", ids[1], "a", ids[2], "run_special", ids[3]]


def test_in_a_directory_the_newest_are_found_alike(tmp_path):
    (tmp_path / "runs").mkdir()
    store = LocalStore(tmp_path)
    ids = []
    for number in range(PAGE + 200):
        at = T0 - timedelta(hours=number)
        ids.append(f"mine-{number}" if number % 100 == 7 else our_id(at, number))
        (tmp_path / f"runs/{ids[-1]}.json").write_bytes(ended(ids[-1], at))
        os.utime(tmp_path / f"runs/{ids[-1]}.json", times=(at.timestamp() + 30,) * 2)
    (tmp_path / "runs" / "run_left_over.tmp").touch()
    bucket = Bucket(f"file://{tmp_path}", store)
    assert [entry.run_id for entry in listed(bucket, 20, ALL, T0)] == ids[:20]
    assert [entry.run_id for entry in listed(bucket, 2 * PAGE, ALL, T0)] == ids
    assert listed(Bucket("file://none", LocalStore(tmp_path / "none")), 20, ALL, T0) == []


def spent_by(monkeypatch, do):
    """Return what `do` does, the folders that it reads, and the bytes that it reads of files."""
    folders, sizes = [], []
    with monkeypatch.context() as patched:
        for name in ("scandir", "listdir"):
            call = getattr(os, name)
            patched.setattr(os, name, lambda path, call=call: folders.append(str(path)) or call(path))
        for name in ("read", "pread"):
            call = getattr(os, name)
            patched.setattr(os, name, lambda *args, call=call: (found := call(*args), sizes.append(len(found)))[0])
        return do(), folders, sum(sizes)


def test_in_a_directory_neither_its_names_nor_its_documents_are_read_but_for_the_newest(tmp_path, monkeypatch):
    read = []
    for count in (2 * PAGE, 10 * PAGE):
        root = tmp_path / str(count)
        (root / "runs").mkdir(parents=True)
        ids = [our_id(T0 - timedelta(minutes=7) * number, number) for number in range(count)]
        document = len(ended(ids[0], T0))
        for number, run_id in enumerate(ids):
            (root / f"runs/{run_id}.json").write_bytes(ended(run_id, T0 - timedelta(minutes=7) * number))
        bucket = Bucket(f"file://{root}", LocalStore(root))
        found, folders, _ = spent_by(monkeypatch, lambda bucket=bucket: listed(bucket, 20, ALL, T0))
        assert [entry.run_id for entry in found] == ids[:20]
        assert folders.count(f"{root}/runs/") == 2  # nobody has kept its names before: once to see how many they are
        world = World(chain("A"), store=LocalStore(root))
        new = world.start()
        world.end("A")
        world.store.delete(f"runs/{ids[3]}.json")
        world.instance().tick()
        other = Bucket(f"file://{root}", LocalStore(root))
        found, folders, size = spent_by(monkeypatch, lambda other=other: listed(other, 20, ALL, T0))
        assert {entry.run_id for entry in found} == {new, *ids[:20]} - {ids[3]}
        assert f"{root}/runs/" not in folders
        read.append(size - 21 * document)
    assert 0 < read[1] < 1.2 * read[0] < 150_000  # which is a page of names, where they are more than a page


def test_in_a_directory_a_new_run_its_end_and_a_tick_read_no_names(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    for number in range(2 * PAGE):
        (tmp_path / f"runs/{our_id(T0, number)}.json").touch()
    assert len(list(LocalStore(tmp_path).list("runs/"))) == 2 * PAGE
    world = World(chain("A", "B"), store=LocalStore(tmp_path))

    def run():
        run_id = world.start()
        for name in ("A", "B"):
            world.end(name)
            world.instance().tick()
        return run_id

    run_id, folders, _ = spent_by(monkeypatch, run)
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert f"{tmp_path}/runs/" not in folders
    found, folders, _ = spent_by(monkeypatch, lambda: list(LocalStore(tmp_path).list("runs/")))
    assert f"{tmp_path}/runs/" not in folders
    assert len(found) == 2 * PAGE + 1


def test_open_runs_are_found_by_their_markers():
    store = CountingStore()
    filled(store, MANY)
    world = World(chain("A"), store=store)
    run_id = world.start()
    store.calls.clear()
    wanted = Filter(statuses=frozenset({RunStatus.RUNNING, RunStatus.PAUSED}))
    assert [entry.run_id for entry in listed(Bucket("gs://b", store), 20, wanted, T0)] == [run_id]
    assert store.calls == {"list open": 1, "get runs": 1}


def test_since_bounds_what_is_looked_through_for_runs_that_are_rare():
    store = CountingStore()
    filled(store, MANY)
    rare = our_id(T0 - timedelta(hours=2), MANY)
    store.put(f"runs/{rare}.json", ended(rare, T0 - timedelta(hours=2), "rare"), expect=None)
    store.calls.clear()
    found = listed(Bucket("gs://b", store), 20, Filter("rare"), T0, T0 - timedelta(hours=7))
    assert [entry.run_id for entry in found] == [rare]
    assert store.calls["get runs"] <= 7 * 60 / 7 + 2
    assert listed(Bucket("gs://b", store), 20, Filter("rare"), T0, T0 - timedelta(hours=1)) == []


def test_child_runs_are_looked_for_from_the_start_of_their_parent_on():
    store = CountingStore()
    ids = filled(store, MANY)
    listed(Bucket("gs://b", store), 20, Filter(parent=ids[10]), T0)
    assert store.calls["get runs"] <= 1 + 11


def test_a_run_of_the_future_and_one_of_long_ago_are_found():
    store = CountingStore()
    ids = filled(store, 2 * PAGE)
    future, old = our_id(T0 + timedelta(days=400), 1), "run_0000000001_00000000000a"
    store.put(f"runs/{future}.json", ended(future, T0 + timedelta(days=400)), expect=None)
    store.put(f"runs/{old}.json", ended(old, datetime(1970, 1, 1, tzinfo=UTC)), expect=None)
    found = [entry.run_id for entry in listed(Bucket("gs://b", store), 3 * PAGE, ALL, T0)]
    assert found == [future, *ids, old]
    assert json.loads(store.get(f"runs/{old}.json")[0])["$run"]["run_id"] == old
    assert OrchestrationStatus(store, old).load() is not None
