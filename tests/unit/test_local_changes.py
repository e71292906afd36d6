"""Changes of a part of an object on disk: kills at every call of the system, hands that edit, clocks, disks, forks."""

import itertools
import json
import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores import folding, journal, objects
from orchestrator.stores.local import LocalStore
from tests.support.kills import killed_at

KEY = "runs/a.json"
FIRST = b'{"$run": 1,\n"A": 1}\n'


@pytest.fixture
def bucket(tmp_path):
    return tmp_path / "bucket"


@pytest.fixture
def store(bucket, monkeypatch):
    """A store that folds only when it is asked to."""
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    return LocalStore(bucket)


def on_disk(bucket):
    return (bucket / KEY).read_bytes()


def names_in(bucket):
    return sorted(os.listdir(bucket / "runs"))


# ---- What lies where ----------------------------------------------------------------------------------


def test_a_change_is_one_sync_of_the_journal_and_the_file_stays_as_it_is(store, bucket):
    version = store.put(KEY, FIRST, expect=None)
    version = store.change(KEY, {"A": b"2"}, expect=version)  # its name has to be on disk, too
    before = store.fsyncs
    for n in range(10):
        version = store.change(KEY, {"A": b"%d" % n}, expect=version)
    assert store.fsyncs - before == 10
    assert on_disk(bucket) == FIRST
    assert names_in(bucket) == [".a.json.journal", "a.json"]
    assert list(store.list("")) == [KEY]
    assert store.get(KEY) == (b'{"$run": 1,\n"A": 9}\n', version)
    assert LocalStore(bucket).get(KEY) == store.get(KEY)


def test_a_relaxed_change_syncs_nothing(bucket):
    store = LocalStore(bucket, relaxed=("runs/",))
    version = store.put(KEY, FIRST, expect=None)
    before = store.fsyncs
    store.change(KEY, {"A": b"2"}, expect=version)
    assert store.fsyncs == before


def test_folding_makes_it_the_file_and_changes_neither_content_nor_version(store, bucket):
    version = store.put(KEY, FIRST, expect=None)
    for n in range(3):
        version = store.change(KEY, {"A": b"%d" % n, f"N{n}": b"[]"}, expect=version)
    seen = store.get(KEY)
    store.fold()
    assert on_disk(bucket) == seen[0]
    assert str((bucket / KEY).stat().st_mtime_ns) == version
    assert store.get(KEY) == LocalStore(bucket).get(KEY) == seen
    version = store.change(KEY, {"A": b"7"}, expect=version)  # its owner notices nothing
    assert json.loads(store.get(KEY)[0])["A"] == 7
    store.fold()
    assert json.loads(on_disk(bucket))["A"] == 7
    before = store.fsyncs
    store.fold()
    assert store.fsyncs == before


def test_a_change_stands_in_the_file_soon_after_without_anybody_asking(bucket, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.01)
    monkeypatch.setattr(folding, "_IDLE_S", 0.01)
    store = LocalStore(bucket)
    version = store.put(KEY, FIRST, expect=None)
    for n in range(3):
        version = store.change(KEY, {"A": b"%d" % n}, expect=version)
        until = time.monotonic() + 60
        while json.loads(on_disk(bucket))["A"] != n:
            assert time.monotonic() < until
            time.sleep(0.005)
        assert str((bucket / KEY).stat().st_mtime_ns) == version
    until = time.monotonic() + 60
    while store._folder._thread is not None:  # it ends when nothing is left to do
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_journal_that_outgrows_its_object_is_written_into_it(store, bucket, monkeypatch):
    monkeypatch.setattr(objects, "_SMALL", 1000)
    version = store.put(KEY, FIRST, expect=None)
    largest = 0
    for n in range(100):
        version = store.change(KEY, {"A": b"%d" % n}, expect=version)
        assert store.get(KEY) == (b'{"$run": 1,\n"A": %d}\n' % n, version)
        with suppress(FileNotFoundError):
            largest = max(largest, (bucket / "runs" / ".a.json.journal").stat().st_size)
    assert 900 < largest <= 1000


def test_a_put_and_a_delete_take_the_journal_along(store, bucket):
    version = store.put(KEY, FIRST, expect=None)
    version = store.change(KEY, {"A": b"2"}, expect=version)
    version = store.put(KEY, FIRST, expect=version)
    assert names_in(bucket) == ["a.json"]
    changed = store.change(KEY, {"A": b"2"}, expect=version)
    store.delete(KEY)
    assert names_in(bucket) == []
    assert store.get(KEY) is None
    version = store.put(KEY, FIRST, expect=None)
    assert int(version) > int(changed)
    store.fold()
    assert store.get(KEY) == (FIRST, version)


def test_a_name_that_leaves_no_room_for_its_journals_is_written_as_a_whole(store, bucket):
    key = "runs/" + "a" * 255
    version = store.put(key, FIRST, expect=None)
    version = store.change(key, {"A": b"2"}, expect=version)
    assert store.get(key) == (b'{"$run": 1,\n"A": 2}\n', version)
    assert names_in(bucket) == ["a" * 255]


def test_journals_whose_objects_are_gone_are_swept_away_and_others_stay(store, bucket):
    store.ensure_writable()
    for name in ("a", "b"):
        store.change(f"runs/{name}", {"x": b"1"}, expect=store.put(f"runs/{name}", b"{}", expect=None))
    (bucket / "runs" / "b").unlink()
    day_ago = time.time() - 90_000
    os.utime(bucket / ".locks" / "swept", (day_ago, day_ago))
    LocalStore(bucket).ensure_writable()
    assert names_in(bucket) == [".a.journal", "a"]
    assert store.get("runs/a")[0] == b'{"x": 1}\n'


def test_a_journal_is_swept_away_also_where_its_lock_is_that_of_the_sweep(bucket):
    store = LocalStore(bucket)
    store.ensure_writable()
    key = next(key for key in map("runs/{}".format, itertools.count()) if store._locks.of(key) is store._locks.of(""))
    store.change(key, {"x": b"1"}, expect=store.put(key, b"{}", expect=None))
    (bucket / key).unlink()
    day_ago = time.time() - 90_000
    os.utime(bucket / ".locks" / "swept", (day_ago, day_ago))
    sweeping = threading.Thread(target=LocalStore(bucket).ensure_writable, daemon=True)
    sweeping.start()
    sweeping.join(60)
    assert not sweeping.is_alive()
    assert names_in(bucket) == []


# ---- Hands --------------------------------------------------------------------------------------------


def write_in_place(path, data):
    path.write_bytes(data)


def write_beside_and_rename(path, data):
    path.with_name("a.json~").write_bytes(data)
    path.with_name("a.json~").rename(path)


@pytest.mark.parametrize("save", [write_in_place, write_beside_and_rename])
@pytest.mark.parametrize("is_folded", [False, True])
def test_what_a_hand_saves_is_the_object_and_a_new_version(store, bucket, save, is_folded):
    ours = [store.put(KEY, FIRST, expect=None)]
    for _ in range(3):
        ours.append(store.change(KEY, {"A": b"2"}, expect=ours[-1]))
    if is_folded:
        store.fold()
        ours.append(store.change(KEY, {"A": b"3"}, expect=ours[-1]))
    save(bucket / KEY, b'{"by": "hand"}')
    data, version = store.get(KEY)
    assert (data, version in ours) == (b'{"by": "hand"}', False)
    for stale in ours:
        with pytest.raises(VersionConflict):
            store.change(KEY, {"A": b"4"}, expect=stale)
    store.fold()
    assert store.get(KEY) == (data, version)
    after = store.change(KEY, {"A": b"4"}, expect=version)
    assert store.get(KEY) == (b'{"by": "hand",\n"A": 4}\n', after)
    assert after not in {*ours, version}
    store.fold()
    assert on_disk(bucket) == b'{"by": "hand",\n"A": 4}\n'


def test_what_a_hand_saved_is_on_disk_before_a_change_of_it_counts(store, bucket, monkeypatch):
    store.put(KEY, FIRST, expect=None)
    write_in_place(bucket / KEY, b"{}")
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or fsync(fd))
    store.change(KEY, {"A": b"4"}, expect=store.get(KEY)[1])
    assert synced == [str(bucket / KEY), str(bucket / "runs")]


def test_what_a_hand_saved_and_is_no_object_is_left_alone(store, bucket):
    version = store.put(KEY, FIRST, expect=None)
    store.change(KEY, {"A": b"2"}, expect=version)
    write_in_place(bucket / KEY, b"spoilt")
    data, version = store.get(KEY)
    assert data == b"spoilt"
    with pytest.raises(ValueError, match=rf"^{KEY}: is no JSON object"):
        store.change(KEY, {"A": b"2"}, expect=version)
    assert on_disk(bucket) == b"spoilt"
    assert store.get(KEY) == (data, version)


@pytest.mark.parametrize("name", [".a.json.journal", "a.json", ".locks"])
def test_files_that_somebody_removes_are_missed_and_made_again(store, bucket, name):
    version = store.put(KEY, FIRST, expect=None)
    changed = store.change(KEY, {"A": b"2"}, expect=version)
    if name == ".locks":
        for lock in (bucket / ".locks").iterdir():
            lock.unlink()
    else:
        (bucket / "runs" / name).unlink()
    if name == "a.json":
        assert store.get(KEY) is None
        with pytest.raises(VersionConflict):
            store.change(KEY, {"A": b"3"}, expect=changed)
        changed = store.put(KEY, FIRST, expect=None)
    elif name == ".a.json.journal":
        assert store.get(KEY) == (FIRST, version)
        changed = version
    changed = store.change(KEY, {"A": b"3"}, expect=changed)
    assert store.get(KEY) == LocalStore(bucket).get(KEY) == (b'{"$run": 1,\n"A": 3}\n', changed)


# ---- Kills --------------------------------------------------------------------------------------------


def change_once(store):
    store.change(KEY, {"A": b"2", "N": b"3"}, expect=store.get(KEY)[1])


def change_and_fold(store):
    change_once(store)
    store.fold()


def put_once(store):
    store.put(KEY, b'{"put": 1}\n', expect=store.get(KEY)[1])


def delete_once(store):
    store.delete(KEY)


def outgrow(store):
    objects._SMALL = 0
    change_once(store)


CHANGED = b'{"$run": 1,\n"A": 2,\n"N": 3}\n'


@pytest.mark.parametrize(
    ("deed", "become"),
    [
        (change_once, CHANGED),
        (change_and_fold, CHANGED),
        (outgrow, CHANGED),
        (put_once, b'{"put": 1}\n'),
        (delete_once, None),
    ],
)
@pytest.mark.parametrize("has_journal", [False, True])
@pytest.mark.parametrize("is_after", [False, True])
def test_a_kill_at_any_call_leaves_what_was_or_what_is_to_be(bucket, monkeypatch, deed, become, has_journal, is_after):
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    for number in range(1, 60):
        key_folder = bucket / str(number)
        store = LocalStore(key_folder)
        version, was = store.put(KEY, FIRST, expect=None), FIRST
        if has_journal:
            version = store.change(KEY, {"$run": b"0"}, expect=version)
            version = store.change(KEY, {"$run": b"1"}, expect=version)
        died = killed_at(number, is_after, lambda folder=key_folder: deed(LocalStore(folder)))
        assert died in (0, 9)
        found, again = store.get(KEY), LocalStore(key_folder)
        assert again.get(KEY) == found
        assert list(again.list("")) == ([] if found is None else [KEY])
        if found is None or found[0] != was:
            assert (found and found[0]) == become
            assert found is None or int(found[1]) > int(version)
        else:
            assert died
            assert found[1] == version
        for each in (store, again, store):  # all go on from there, and those of before have no say
            with pytest.raises(VersionConflict):
                each.change(KEY, {"x": b"1"}, expect="7")
            found = each.get(KEY) or (FIRST, each.put(KEY, FIRST, expect=None))
            after = each.change(KEY, {"A": b"8"}, expect=found[1])
            assert int(after) > int(found[1])
            assert json.loads(each.get(KEY)[0]) == {**json.loads(found[0]), "A": 8}
        store.fold()
        assert (key_folder / KEY).read_bytes() == LocalStore(key_folder).get(KEY)[0]
        if not died:
            break
    assert not died
    assert number > 2


def test_of_a_journal_that_is_torn_anywhere_the_whole_records_count_and_it_goes_on(store, bucket):
    store.put(KEY, FIRST, expect=None)
    versions = [store.get(KEY)[1]]
    for n in range(3):
        versions.append(store.change(KEY, {"A": b"%d" % (n + 5)}, expect=versions[-1]))
    path = bucket / "runs" / ".a.json.journal"
    whole, mtime = path.read_bytes(), (bucket / KEY).stat().st_mtime_ns
    ends = [0, *(each.end for each in journal.records(whole))]
    for cut in range(len(whole) + 1):
        for tail in (b"", whole[:30]) if cut in ends or not cut % 9 else (b"\0" * 5,):
            (bucket / KEY).write_bytes(FIRST)
            os.utime(bucket / KEY, ns=(mtime, mtime))
            path.write_bytes(whole[:cut] + tail)
            count = sum(end <= cut for end in ends[1:])
            a = 1 if not count else 4 + count
            again = LocalStore(bucket)
            assert again.get(KEY) == (
                b'{"$run": 1,\n"A": %d}\n' % a if count else FIRST,
                versions[count],
            )
            after = again.change(KEY, {"A": b"9"}, expect=versions[count])
            assert store.get(KEY) == again.get(KEY) == (b'{"$run": 1,\n"A": 9}\n', after)


# ---- Several ------------------------------------------------------------------------------------------


def test_two_stores_change_one_object_in_turn_and_fold_it(store, bucket):
    other = LocalStore(bucket)
    version = store.put(KEY, FIRST, expect=None)
    for n in range(30):
        one = (store, other)[n % 2]
        version = one.change(KEY, {f"N{n}": b"1"}, expect=version)
        if n % 7 == 6:
            (store, other)[n // 7 % 2].fold()
        if n % 11 == 10:
            version = one.put(KEY, one.get(KEY)[0], expect=version)
        assert store.get(KEY) == other.get(KEY)
        assert len(json.loads(store.get(KEY)[0])) == n + 3


def count_up(store, times):
    for n in range(times):
        while True:
            data, version = store.get(KEY)
            members = {"A": b"%d" % (json.loads(data)["A"] + 1)}
            try:
                if n % 10 == 9:
                    store.put(KEY, journal.merge(KEY, data, [journal.encode(members)]), expect=version)
                else:
                    store.change(KEY, members, expect=version)
                break
            except VersionConflict:
                continue


def test_forked_children_go_on_with_their_parents_objects(store, bucket, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.005)
    version = store.put(KEY, FIRST, expect=None)
    store.change(KEY, {"A": b"0"}, expect=version)  # opens the journal, which the children inherit
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(60)
                count_up(store, 50)
                store.fold()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    count_up(store, 50)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert json.loads(store.get(KEY)[0])["A"] == 250
    store.fold()
    assert LocalStore(bucket).get(KEY) == store.get(KEY)


def test_more_journals_than_may_stay_open_still_count(bucket, monkeypatch):
    monkeypatch.setattr(objects, "_OPEN_JOURNALS", 2)
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    store = LocalStore(bucket)
    versions = {f"runs/{n}": store.put(f"runs/{n}", b"{}", expect=None) for n in range(10)}
    for n in range(5):
        for key, version in versions.items():
            versions[key] = store.change(key, {"n": b"%d" % n}, expect=version)
    assert len(store._objects._journals._open) == 2
    assert {key: store.get(key) for key in versions} == {key: (b'{"n": 4}\n', each) for key, each in versions.items()}
    store.fold()
    assert (bucket / "runs" / "3").read_bytes() == b'{"n": 4}\n'


# ---- Clocks and disks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("now_ns", [lambda: 2 * 10**18, lambda: 0])
def test_versions_rise_whatever_the_clock_says(bucket, now_ns):
    store = LocalStore(bucket, now_ns=now_ns)
    versions = [store.put(KEY, FIRST, expect=None)]
    for n in range(9):
        versions.append(store.change(KEY, {"A": b"1"}, expect=versions[-1]))
        if n % 4 == 3:
            store.fold()
        if n % 6 == 5:
            versions.append(store.put(KEY, FIRST, expect=versions[-1]))
    store.delete(KEY)
    versions.append(store.put(KEY, FIRST, expect=None))
    assert list(map(int, versions)) == sorted(set(map(int, versions)))


@pytest.mark.parametrize("unit_ns", [100, 1_000_000_000])
def test_where_times_are_cut_off_the_whole_is_written(store, bucket, monkeypatch, unit_ns):
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda path, ns: utime(path, ns=(ns[0] // unit_ns * unit_ns,) * 2))
    versions = [store.put(KEY, FIRST, expect=None)]
    for n in range(3):
        versions.append(store.change(KEY, {"A": b"%d" % n}, expect=versions[-1]))
        assert on_disk(bucket) == b'{"$run": 1,\n"A": %d}\n' % n
    assert list(map(int, versions)) == sorted(set(map(int, versions)))
    assert names_in(bucket) == ["a.json"]


@pytest.mark.parametrize("step", ["pwrite", "fdatasync", "fsync"])
def test_an_error_at_any_step_leaves_the_old_content_or_the_new_and_it_goes_on(store, bucket, monkeypatch, step):
    version = store.put(KEY, FIRST, expect=None)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    for _ in range(2):
        was = store.get(KEY)
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            message = rf"^{bucket}/{KEY}: cannot be written: Input/output error; "
            with pytest.raises(StoreUnavailable, match=message):
                store.change(KEY, {"A": b"2"}, expect=version)
        found = store.get(KEY)
        assert found == was if step == "pwrite" else found[0] == b'{"$run": 1,\n"A": 2}\n'
        version = store.change(KEY, {"A": b"1"}, expect=found[1])
        assert store.get(KEY) == LocalStore(bucket).get(KEY) == (FIRST, version)
        version = store.put(KEY, FIRST, expect=version)


def test_after_a_sync_that_failed_nothing_relies_on_that_journal(store, bucket, monkeypatch):
    version = store.put(KEY, FIRST, expect=None)
    version = store.change(KEY, {"A": b"2"}, expect=version)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", lambda fd: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        with pytest.raises(StoreUnavailable):
            store.change(KEY, {"A": b"3"}, expect=version)
    version = store.change(KEY, {"B": b"4"}, expect=LocalStore(bucket).get(KEY)[1])
    assert on_disk(bucket) == b'{"$run": 1,\n"A": 3,\n"B": 4}\n'
    assert names_in(bucket) == ["a.json"]
    store.change(KEY, {"B": b"5"}, expect=version)
    assert names_in(bucket) == [".a.json.journal", "a.json"]


@pytest.mark.parametrize("deed", ["put", "change"])
def test_after_a_sync_that_failed_nobody_reads_here_what_may_not_be_on_disk(store, bucket, monkeypatch, deed):
    version = store.put(KEY, FIRST, expect=None)
    syncs = []

    def fail(fd):
        syncs.append(fd)
        if deed == "change" or len(syncs) % 2 == 0:  # a put has synced its file, and then its folder is
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        patched.setattr(os, "fdatasync", fail)
        write = {"put": lambda: store.put(KEY, b'{"A": 2}', expect=version)}.get(
            deed, lambda: store.change(KEY, {"A": b"2"}, expect=version)
        )
        with pytest.raises(StoreUnavailable):
            write()
        with pytest.raises(StoreUnavailable, match=f"^{bucket}/{KEY}: cannot be written: No space left on device; "):
            store.get(KEY)
    syncs.clear()
    real, fsync = os.fsync, []
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync.append(fd), real(fd)))
    with pytest.raises(VersionConflict):
        store.put(KEY, b"{}", expect=None)
    assert len(fsync) == 2
    found, version = store.get(KEY)
    assert json.loads(found)["A"] == 2
    assert LocalStore(bucket).get(KEY) == store.get(KEY) == (found, version)
    assert len(fsync) == 2
    assert names_in(bucket) == ["a.json"]


def test_a_fold_that_fails_is_tried_again_and_the_journal_counts_until_then(bucket, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.01)
    store = LocalStore(bucket)
    version = store.put(KEY, FIRST, expect=None)
    version = store.change(KEY, {"A": b"2"}, expect=version)
    tries = []
    with monkeypatch.context() as patched:

        def fail(*_):
            tries.append(1)
            raise OSError(28, "No space left on device")

        patched.setattr(os, "rename", fail)
        version = store.change(KEY, {"A": b"3"}, expect=version)
        until = time.monotonic() + 60
        while len(tries) < 3:
            assert time.monotonic() < until
            time.sleep(0.005)
        assert store.get(KEY) == (b'{"$run": 1,\n"A": 3}\n', version)
    until = time.monotonic() + 60
    while on_disk(bucket) != b'{"$run": 1,\n"A": 3}\n':
        assert time.monotonic() < until
        time.sleep(0.005)
    assert [name for name in names_in(bucket) if name.startswith(".new-")] == []


def test_the_thread_that_folds_ends_once_all_is_folded_and_comes_back(bucket):
    def folders():
        return {thread for thread in threading.enumerate() if thread.name == "orchestrator-fold"}

    others = folders()
    store = LocalStore(bucket)
    version = store.change(KEY, {"A": b"2"}, expect=store.put(KEY, FIRST, expect=None))
    (own,) = folders() - others
    store.fold()
    own.join(timeout=60)
    assert not own.is_alive()
    store.change(KEY, {"A": b"3"}, expect=version)
    assert len(folders() - others) == 1
    store.fold()
    assert b'"A": 3' in on_disk(bucket)


def test_what_no_thread_could_be_started_for_is_folded_once_one_can(bucket, monkeypatch):
    monkeypatch.setattr(folding, "AFTER_S", 0.01)
    store = LocalStore(bucket)
    version = store.put(KEY, FIRST, expect=None)

    def none_left(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        version = store.change(KEY, {"A": b"2"}, expect=version)
    store.change(KEY, {"A": b"3"}, expect=version)
    until = time.monotonic() + 60
    while b'"A": 3' not in on_disk(bucket):
        assert time.monotonic() < until
        time.sleep(0.005)
