"""Objects that are created together on disk: what it costs, kills and power cuts at every call, several, forks."""

import json
import os
import threading

import pytest

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores import creations, folding
from orchestrator.stores.local import LocalStore
from tests.support.kills import Disk, killed_at

MARKER, KEY = "open/a", "runs/a.json"
FIRST = b'{"$run": 1,\n"A": 1}\n'
BOTH = {MARKER: b"{}", KEY: FIRST}


@pytest.fixture
def bucket(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def store(bucket, monkeypatch):
    """A store that settles only when it is asked to."""
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    return LocalStore(bucket)


def logs_of(bucket):
    return sorted((bucket / ".created").iterdir()) if (bucket / ".created").exists() else []


def syncs_of(monkeypatch):
    """The names of what is synced from now on."""
    synced = []
    for name in ("fsync", "fdatasync"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda fd, call=call: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or call(fd)
        )
    return synced


# ---- What it costs ------------------------------------------------------------------------------------


def test_what_is_created_together_is_one_sync_and_lies_where_it_belongs(store, bucket, monkeypatch):
    store.create_all({"open/0": b"", "runs/0.json": b"{}"})
    synced = syncs_of(monkeypatch)
    versions = store.create_all(BOTH)
    assert synced == [str(logs_of(bucket)[0])]
    assert (bucket / MARKER).read_bytes() == b"{}"
    assert (bucket / KEY).read_bytes() == FIRST
    for each in (store, LocalStore(bucket)):
        assert {key: each.get(key) for key in BOTH} == {key: (data, versions[key]) for key, data in BOTH.items()}
        assert list(each.list("")) == sorted([*BOTH, "open/0", "runs/0.json"])


def test_the_first_change_of_it_syncs_nothing_but_the_journal(store, bucket, monkeypatch):
    version = store.create_all(BOTH)[KEY]
    synced = syncs_of(monkeypatch)
    store.change(KEY, {"A": b"2"}, expect=version)
    assert synced == [str(bucket / "runs" / ".a.json.journal"), str(bucket / "runs")]


def test_settling_syncs_what_is_still_the_same_and_begins_the_log_anew(store, bucket, monkeypatch):
    store.create_all(BOTH)
    store.create_all({"open/b": b"", "runs/b.json": FIRST})
    store.put("runs/b.json", b"{}", expect=store.get("runs/b.json")[1])
    store.delete("open/b")
    log = logs_of(bucket)[0]
    assert log.stat().st_size
    synced = syncs_of(monkeypatch)
    assert not store._together.log.settle()
    assert set(synced[:2]) == {str(bucket / MARKER), str(bucket / KEY)}
    assert set(synced[2:4]) == {str(bucket / "open"), str(bucket / "runs")}
    assert synced[4:] == [str(log)]
    assert log.stat().st_size == 0
    del synced[:]
    store.delete(MARKER)
    assert synced == [str(bucket / "open")]  # as any object's
    store.fold()
    assert logs_of(bucket) == []
    store.create_all({"open/c": b"", "runs/c.json": FIRST})
    assert len(logs_of(bucket)) == 1


def test_it_is_settled_soon_after_without_anybody_asking(bucket, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.01)
    settled = threading.Event()
    store = LocalStore(bucket)
    settle = store._together.log.settle
    monkeypatch.setattr(store._together.log, "settle", lambda: (settle(), settled.set())[0])
    store.create_all(BOTH)
    assert settled.wait(30)
    assert logs_of(bucket)[0].stat().st_size == 0


def test_what_is_large_is_not_written_twice(store, bucket):
    large = b"x" * (creations.MOST_BYTES + 1)
    assert store.create_all({MARKER: b"{}", KEY: large})[KEY] == store.get(KEY)[1]
    assert logs_of(bucket) == []
    assert store.get(KEY)[0] == large


# ---- Conflicts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("there", BOTH)
def test_if_one_is_there_none_is_written(store, bucket, there):
    version = store.put(there, b"before", expect=None)
    with pytest.raises(VersionConflict, match=rf"^{there}: version is {version}; expected None"):
        store.create_all(BOTH)
    assert list(store.list("")) == [there]
    assert store.get(there) == (b"before", version)
    assert [name for _, _, names in os.walk(bucket) for name in names if name.startswith(".new-")] == []


def test_of_several_that_create_the_same_one_does(bucket):
    won = []

    def create(store, n):
        for place in range(20):
            keys = [f"open/{place}", f"runs/{place}.json"]
            try:
                store.create_all(dict.fromkeys(keys if n % 2 else reversed(keys), b"%d" % n))
                won.append((place, n))
            except VersionConflict:
                pass

    stores = [LocalStore(bucket), LocalStore(bucket)]
    threads = [threading.Thread(target=create, args=(stores[n % 2], n)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(place for place, _ in won) == list(range(20))
    for place, n in won:
        assert stores[0].get(f"open/{place}")[0] == stores[1].get(f"runs/{place}.json")[0] == b"%d" % n


def test_a_version_is_above_that_of_what_was_deleted(bucket):
    ahead = LocalStore(bucket, now_ns=lambda: 4_000_000_000_000_000_000)
    gone = ahead.create_all(BOTH)
    for key in BOTH:
        ahead.delete(key)
    behind = LocalStore(bucket, now_ns=lambda: 5)
    assert all(int(version) > int(gone[key]) for key, version in behind.create_all(BOTH).items())


# ---- Logs that were left ------------------------------------------------------------------------------


def left_behind(bucket, deed):
    """Have a process do something, and be killed."""
    assert killed_at(10_000, False, lambda: (deed(LocalStore(bucket)), os.kill(os.getpid(), 9))) == -9


def test_a_log_of_a_process_that_lives_is_left_alone(store, bucket):
    store.create_all(BOTH)
    (bucket / KEY).unlink()
    assert LocalStore(bucket).get(KEY) is None
    assert len(logs_of(bucket)) == 1


@pytest.mark.parametrize("is_empty", [False, True])
def test_what_a_log_that_was_left_has_is_made_anew_by_who_reads_next(bucket, is_empty):
    left_behind(bucket, lambda store: store.create_all(BOTH))
    version = str((bucket / KEY).stat().st_mtime_ns)
    for key in BOTH:
        before = (bucket / key).stat().st_mtime_ns - 5
        (bucket / key).unlink()
        if is_empty:
            (bucket / key).touch()
            os.utime(bucket / key, ns=(before, before))
    assert LocalStore(bucket).get(KEY) == (FIRST, version)
    assert (bucket / MARKER).read_bytes() == b"{}"
    assert logs_of(bucket) == []


def test_what_was_written_deleted_or_edited_since_stays_so(bucket):
    def deed(store):
        for name in "abcd":
            store.create_all({f"open/{name}": b"", f"runs/{name}.json": FIRST})
        store.put("runs/a.json", b"{}", expect=store.get("runs/a.json")[1])
        store.delete("open/b")
        store.change("runs/c.json", {"A": b"7"}, expect=store.get("runs/c.json")[1])

    left_behind(bucket, deed)
    (bucket / "runs" / "d.json").write_bytes(b"by hand")
    store = LocalStore(bucket)
    assert store.get("runs/a.json")[0] == b"{}"
    assert store.get("open/b") is None
    assert json.loads(store.get("runs/c.json")[0])["A"] == 7
    assert store.get("runs/d.json")[0] == b"by hand"
    assert logs_of(bucket) == []


def test_a_log_that_may_only_be_read_holds_up_nobody(bucket, monkeypatch):
    left_behind(bucket, lambda store: store.create_all(BOTH))
    log, real = logs_of(bucket)[0], os.open

    def opened(path, *args, **kwargs):
        if str(path) == str(log):
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", opened)
    assert LocalStore(bucket).get(KEY)[0] == FIRST


# ---- Kills and power cuts -----------------------------------------------------------------------------


def go_through(store, done):
    """A run's way, and its end; each step is noted once it has returned."""
    version = store.create_all(BOTH)[KEY]
    done.append("created")
    version = store.change(KEY, {"A": b"2"}, expect=version)
    done.append("changed")
    store._fold(KEY)
    store._together.log.settle()
    version = store.change(KEY, {"A": b"3"}, expect=version)
    done.append("changed again")
    store.put(KEY, b'{"$run": 1,\n"A": 4}\n', expect=version)
    done.append("ended")
    store.delete(MARKER)
    done.append("cleared")


def go_through_quickly(store, done):
    """The same, before anything has settled."""
    version = store.create_all(BOTH)[KEY]
    done.append("created")
    version = store.change(KEY, {"A": b"2"}, expect=version)
    done.append("changed")
    version = store.change(KEY, {"A": b"3"}, expect=version)
    done.append("changed again")
    store.delete(MARKER)
    done.append("cleared")
    store._fold(KEY)
    version = store.put(KEY, b'{"$run": 1,\n"A": 4}\n', expect=version)
    done.append("ended")
    store.fold()


VALUE_AFTER = {"created": 1, "changed": 2, "changed again": 3, "ended": 4}


@pytest.mark.parametrize(
    ("way", "before_it_is_cleared"), [(go_through, "ended"), (go_through_quickly, "changed again")]
)
@pytest.mark.parametrize("is_after", [False, True])
def test_a_kill_or_a_power_cut_at_any_call_loses_nothing_that_was_done(
    tmp_path, monkeypatch, way, before_it_is_cleared, is_after
):
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    for name in ("fsync", "fdatasync"):  # the disk is one that is told of
        monkeypatch.setattr(os, name, lambda _: None)
    for number in range(1, 200):
        bucket = tmp_path / str(number)
        LocalStore(bucket).ensure_writable()
        disk = Disk(bucket, tmp_path / "notes")
        died = killed_at(number, is_after, lambda: way(LocalStore(bucket), disk.done), disk)  # noqa: B023 - at once
        assert died in (0, 9)
        left = [bucket]
        for has_names in (False, True):
            left.append(tmp_path / f"{number}-{has_names}")
            done = disk.cut(left[-1], has_names=has_names)
        least = max((VALUE_AFTER.get(each, 0) for each in done), default=0)
        for folder in left:
            store = LocalStore(folder)
            found, marker = store.get(KEY), store.get(MARKER)
            value = json.loads(found[0])["A"] if found is not None else 0
            assert least <= value <= least + 1, (folder, done)
            if value and "cleared" not in done and (done or [""])[-1] != before_it_is_cleared:
                assert marker is not None, (folder, done)
            if "cleared" in done:
                assert marker is None, (folder, done)
            assert marker is None or marker[0] == b"{}"
            assert logs_of(folder) == []
            again = LocalStore(folder)
            assert (again.get(KEY), again.get(MARKER)) == (found, marker)
            again.create_all({"open/b": b"", "runs/b.json": FIRST})
            if found is not None:
                version = again.change(KEY, {"A": b"9"}, expect=found[1])
                assert json.loads(store.get(KEY)[0])["A"] == 9
                assert int(version) > int(found[1])
        if not died:
            break
    assert not died
    assert number > 20


# ---- Disks that fail, forks ---------------------------------------------------------------------------


def test_a_sync_of_the_log_that_fails_is_told_and_the_log_is_trusted_no_more(store, bucket, monkeypatch):
    store.create_all(BOTH)
    fdatasync = os.fdatasync

    def fails(fd):
        if ".created/" in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(5, "Input/output error")
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(StoreUnavailable, match=r"cannot be written: Input/output error"):
        store.create_all({"open/b": b"", "runs/b.json": FIRST})
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    assert store.get("runs/b.json") is None
    store.create_all({"open/b": b"", "runs/b.json": FIRST})
    assert len(logs_of(bucket)) == 2
    assert not store._together.log.settle()
    assert [each.stat().st_size for each in logs_of(bucket)] == [0]


def test_what_cannot_be_synced_in_its_place_is_written_anew_before_the_log_forgets_it(store, bucket, monkeypatch):
    version = store.create_all(BOTH)[KEY]
    fsync = os.fsync

    def fails(fd):
        if os.readlink(f"/proc/self/fd/{fd}") == str(bucket / KEY):
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fails)
    assert store._fold("")
    assert logs_of(bucket)[0].stat().st_size
    monkeypatch.setattr(os, "fsync", fsync)  # a second sync of the same file would say that all is well
    assert not store._fold("")
    assert logs_of(bucket)[0].stat().st_size == 0
    found = store.get(KEY)
    assert found[0] == FIRST
    assert int(found[1]) > int(version)


def test_a_creation_under_way_is_not_settled(store, bucket):
    store.create_all(BOTH)
    with store._together.log.noted([creations.Created("runs/b.json", 7, b"{}")]):
        assert store._together.log.settle()
        assert logs_of(bucket)[0].stat().st_size
    assert not store._together.log.settle()


def test_a_forked_child_has_a_log_of_its_own(store, bucket):
    store.create_all(BOTH)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            store.create_all({"open/b": b"", "runs/b.json": FIRST})
            status = len(logs_of(bucket)) - 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    (bucket / "runs" / "b.json").unlink()
    assert LocalStore(bucket).get("runs/b.json")[0] == FIRST  # the child is gone, its parent is not
    assert len(logs_of(bucket)) == 1


def test_what_is_not_synced_waits_for_no_lock_of_what_is(store):
    keys = [f"{n}.json" for n in range(1000)]
    synced = {store._locks.of(f"runs/{key}") for key in keys}
    relaxed = {store._locks.of(f"executions/{key}") for key in keys}
    assert synced
    assert relaxed
    assert not synced & relaxed
