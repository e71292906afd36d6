"""What only a directory can get wrong: processes, kill -9, full disks, editors, clocks, the count of syncs."""

import gc
import hashlib
import inspect
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores import local, stripes
from orchestrator.stores.local import LocalStore
from tests.support.nobody import without_privileges


def pack(by):
    body = json.dumps({"value": sum(by.values()), "by": by}) + " " * random.randrange(9000)  # of any size
    return json.dumps({"sha256": hashlib.sha256(body.encode()).hexdigest(), "body": body}).encode()


def unpack(data):
    found = json.loads(data)
    assert hashlib.sha256(found["body"].encode()).hexdigest() == found["sha256"]
    document = json.loads(found["body"])
    assert document["value"] == sum(document["by"].values())
    return document["by"]


DOCUMENT = f"import hashlib, json, random\n{inspect.getsource(pack)}\n{inspect.getsource(unpack)}"
WRITER = f"""{DOCUMENT}
import os, sys
from pathlib import Path
from orchestrator.model.errors import VersionConflict
from orchestrator.stores import folding, objects
from orchestrator.stores.local import LocalStore

me, folder, limit, changes = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
folding.AFTER_S, objects._SMALL = 0.003, 30_000  # so that much is folded, by everybody
store = LocalStore(folder / "bucket")
acknowledged = os.open(folder / "acknowledged" / me, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
done = 0
while done < limit and not os.path.exists(folder / "stop"):
    data, version = store.get("runs/n.json")
    by = unpack(data)
    by[me] = by.get(me, 0) + 1
    packed = pack(by)
    try:
        if random.random() < changes:
            members = {{name: json.dumps(value).encode() for name, value in json.loads(packed).items()}}
            store.change("runs/n.json", members, expect=version)
        else:
            store.put("runs/n.json", packed, expect=version)
    except VersionConflict:
        continue
    os.write(acknowledged, b".")
    done += 1
store.fold()
"""
READER = f"""{DOCUMENT}
import os, sys, time
from pathlib import Path
from orchestrator.stores.local import LocalStore

folder = Path(sys.argv[1])
store = LocalStore(folder / "bucket")
seen, last = {{}}, 0
while not os.path.exists(folder / "stop"):
    data, version = store.get("runs/n.json")
    value = sum(unpack(data).values())
    assert seen.setdefault(version, value) == value, "two contents have one version"
    assert value >= last, "an old content came back"
    last = value
    assert list(store.list("")) == ["runs/n.json"]
    time.sleep(0.0005)
print(len(seen))
"""


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "bucket")


@pytest.fixture
def bucket(tmp_path):
    return tmp_path / "bucket"


class Crowd:
    """Processes that count up one document together, and one that reads it all the time."""

    def __init__(self, folder, changes):
        self.folder, self.names, self.changes = folder, iter(range(10_000)), changes
        (folder / "acknowledged").mkdir()
        self.store = LocalStore(folder / "bucket")
        self.store.put("runs/n.json", pack({}), expect=None)
        self.reader = subprocess.Popen([sys.executable, "-c", READER, folder], stdout=subprocess.PIPE, text=True)
        self.writers = {}

    def start_writer(self, limit):
        name = f"w{next(self.names)}"
        self.writers[name] = subprocess.Popen(
            [sys.executable, "-c", WRITER, name, self.folder, str(limit), str(self.changes)]
        )
        return name

    def kill(self, name):
        self.writers[name].kill()
        assert self.writers[name].wait() == -signal.SIGKILL

    def acknowledged(self):
        return {entry.name: entry.stat().st_size for entry in os.scandir(self.folder / "acknowledged")}

    def end_reader(self):
        (self.folder / "stop").touch()
        seen, _ = self.reader.communicate()
        assert self.reader.returncode == 0
        assert int(seen) > 10

    def counted(self):
        return unpack(self.store.get("runs/n.json")[0])

    def end(self):
        for process in (self.reader, *self.writers.values()):
            process.kill()
            process.wait()


@pytest.fixture(params=[0.5, 1.0], ids=["puts and changes", "changes"])
def crowd(tmp_path, request):
    crowd = Crowd(tmp_path, request.param)
    yield crowd
    crowd.end()


def test_increments_by_many_processes_are_all_counted_and_a_reader_never_sees_half_a_document(crowd):
    names = [crowd.start_writer(limit=200) for _ in range(8)]
    assert [crowd.writers[name].wait() for name in names] == [0] * 8
    crowd.end_reader()
    assert crowd.counted() == dict.fromkeys(names, 200)
    assert {*os.listdir(crowd.folder / "bucket" / "runs")} - {".n.json.journal"} == {"n.json"}


def test_no_acknowledged_increment_is_lost_when_writers_are_killed(crowd):
    dice = random.Random(7)
    running = [crowd.start_writer(limit=10**9) for _ in range(6)]
    killed = set()
    while sum(crowd.acknowledged().values()) < 1600:
        time.sleep(dice.uniform(0.02, 0.1))
        has_written = crowd.acknowledged()
        at_work = [name for name in running if has_written.get(name)]
        if at_work:
            victim = dice.choice(at_work)
            crowd.kill(victim)
            killed.add(victim)
            running.remove(victim)
            running.append(crowd.start_writer(limit=10**9))
    crowd.end_reader()
    assert [crowd.writers[name].wait() for name in running] == [0] * 6
    acknowledged, counted = crowd.acknowledged(), crowd.counted()
    assert len(killed) >= 5
    total, acknowledged_total = sum(counted.values()), sum(acknowledged.values())
    assert acknowledged_total <= total <= acknowledged_total + len(killed)
    for name in acknowledged.keys() | counted.keys():  # what was being acknowledged at the kill may be one more
        allowed = {0, 1} if name in killed else {0}
        assert counted.get(name, 0) - acknowledged.get(name, 0) in allowed, name
    crowd.store.put("runs/n.json", b"{}", expect=crowd.store.get("runs/n.json")[1])  # no lock was left behind


def test_forked_children_do_not_share_their_parents_locks(store):
    store.put("n", b"0", expect=None)  # opens the lock, which the children inherit
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                count_up(store, 50)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    assert store.get("n")[0] == b"200"


def test_a_fork_while_a_thread_holds_a_lock_leaves_the_child_free(store):
    store.put("k", b"one", expect=None)
    with store._locks.of("k"):  # as a thread in the middle of a put
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(5)  # a deadlock ends the child
                status = int(store._locks.of("k")._lock.locked())
                store.put("other", b"x", expect=None)
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
    assert store.get("other")[0] == b"x"


def count_up(store, times):
    for _ in range(times):
        while True:
            data, version = store.get("n")
            try:
                store.put("n", str(int(data) + 1).encode(), expect=version)
                break
            except VersionConflict:
                continue


def test_two_stores_on_one_directory_are_one(store, bucket):
    other = LocalStore(bucket)
    version = store.put("k", b"one", expect=None)
    with pytest.raises(VersionConflict):
        other.put("k", b"two", expect=None)
    version = other.put("k", b"two", expect=version)
    assert store.get("k") == (b"two", version)


def test_more_locks_than_may_stay_open_still_lock(bucket, monkeypatch):
    monkeypatch.setattr(stripes, "_MOST_OPEN", 2)
    store = LocalStore(bucket, relaxed=("",))
    keys = [f"runs/{n}" for n in range(20)]
    for key in keys:
        store.put(key, b"x", expect=None)
    assert len(store._disk.opened) <= 2
    store.put("n", b"0", expect=None)
    threads = [Thread(target=count_up, args=(LocalStore(bucket, relaxed=("",)), 25)) for _ in range(4)]
    threads += [Thread(target=count_up, args=(store, 25)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n")[0] == b"200"
    assert sorted(store.list("runs/")) == sorted(keys)


# ---- The file is the document -------------------------------------------------------------------------


def test_a_key_is_the_plain_file_of_its_name(store, bucket):
    version = store.put("runs/run_1.json", b'{"$run": {}}\n', expect=None)
    path = bucket / "runs" / "run_1.json"
    assert path.read_bytes() == b'{"$run": {}}\n'
    assert version == str(path.stat().st_mtime_ns)
    assert abs(int(version) - time.time_ns()) < 60e9
    assert os.listdir(bucket / "runs") == ["run_1.json"]


def write_in_place(path):
    path.write_bytes(b"by hand")


def write_beside_and_rename(path):
    path.with_name("run_1.json~").write_bytes(b"by hand")
    path.with_name("run_1.json~").rename(path)


@pytest.mark.parametrize("save", [write_in_place, write_beside_and_rename])
def test_an_editors_save_is_a_new_version(store, bucket, save):
    key = "runs/run_1.json"
    ours = [store.put(key, b"one", expect=None)]
    ours.append(store.put(key, b"two", expect=ours[-1]))
    save(bucket / key)
    data, version = store.get(key)
    assert (data, version in ours) == (b"by hand", False)
    for stale in ours:
        with pytest.raises(VersionConflict, match=f"^{key}: version is {version}; expected {stale}$"):
            store.put(key, b"three", expect=stale)
    assert (bucket / key).read_bytes() == b"by hand"
    after = store.put(key, b"three", expect=version)
    assert store.get(key) == (b"three", after)
    assert after not in {*ours, version}


def test_what_is_no_key_is_not_listed(store, bucket):
    store.put("runs/a", b"x", expect=None)
    for name in (".new-1", ".hidden", "a b", "a~", "é"):
        (bucket / "runs" / name).write_bytes(b"")
    (bucket / "runs" / ".folder").mkdir()
    (bucket / "runs" / ".folder" / "a").write_bytes(b"")
    (bucket / "runs" / "empty").mkdir()
    (bucket / "runs" / "broken").symlink_to("nowhere")
    assert list(store.list("")) == ["runs/a"]


def test_list_reads_only_folders_that_can_hold_what_it_is_asked_for(store, monkeypatch):
    for key in ("executions/x", "runs/a/1", "runs/a/2", "runs/b/1", "runs/c/1"):
        store.put(key, b"x", expect=None)
    scanned, scandir = [], os.scandir
    monkeypatch.setattr(local.os, "scandir", lambda path: scanned.append(Path(path).name) or scandir(path))
    assert list(store.list("runs/b", start_after="")) == ["runs/b/1"]
    assert list(store.list("runs/", start_after="runs/b/0")) == ["runs/b/1", "runs/c/1"]
    assert next(store.list("runs/")) == "runs/a/1"
    assert scanned == ["runs", "b", "runs", "b", "c", "runs", "a"]


def test_a_folder_that_somebody_removed_is_made_again(store, bucket):
    for key in ("runs/a", "executions/a"):
        store.put(key, b"x", expect=None)
    for removed in (["runs", "executions"], [".locks"], ["runs", "executions", ".locks", "."]):
        for name in removed:
            subprocess.run(["rm", "-rf", bucket / name if name != "." else bucket], check=True)
        for key in ("runs/a", "executions/a"):
            found = store.get(key)
            version = store.put(key, b"again", expect=found and found[1])
            assert store.get(key) == (b"again", version)


def test_a_lock_file_that_somebody_removed_is_no_lock_any_more(store, bucket):
    store.put("n", b"0", expect=None)
    other = LocalStore(bucket)
    for lock in (bucket / ".locks").iterdir():
        lock.unlink()
    threads = [Thread(target=count_up, args=(each, 50)) for each in (store, other, store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get("n")[0] == b"200"


def test_a_relative_root_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = LocalStore(Path("bucket"))
    store.put("k", b"x", expect=None)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.get("k")[0] == b"x"
    assert store.root == tmp_path / "bucket"


# ---- Versions when clocks and file systems do not help ------------------------------------------------


def use_the_store(store):
    """Return the versions that one key has had, in their order."""
    versions = []
    for _ in range(3):
        versions.append(store.put("k", b"A", expect=None))
        for data in (b"B", b"A"):
            versions.append(store.put("k", data, expect=versions[-1]))
        store.delete("k")
    return [int(version) for version in versions]


@pytest.mark.parametrize(
    "now_ns",
    [
        pytest.param(partial(next, iter(range(2 * 10**18, 0, -(10**9)))), id="a clock that goes backwards"),
        pytest.param(lambda: 2 * 10**18, id="a clock that stands"),
        pytest.param(lambda: 0, id="a clock that was never set"),
    ],
)
def test_versions_rise_whatever_the_clock_says(bucket, now_ns):
    versions = use_the_store(LocalStore(bucket, now_ns=now_ns))
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("unit_ns", [100, 1_000, 1_000_000_000, 2_000_000_000])
def test_versions_rise_on_a_file_system_that_cuts_times_off(store, monkeypatch, unit_ns):
    utime = os.utime

    def cut(path, ns):
        utime(path, ns=(ns[0] // unit_ns * unit_ns, ns[1] // unit_ns * unit_ns))

    monkeypatch.setattr(local.os, "utime", cut)
    versions = use_the_store(store)
    assert versions == sorted(set(versions))
    assert [version % unit_ns for version in versions] == [0] * 9


# ---- Durability ---------------------------------------------------------------------------------------


def test_a_durable_put_syncs_its_file_and_its_folder(store, monkeypatch):
    store.put("runs/a", b"one", expect=None)
    done = watch(monkeypatch)
    before = store.fsyncs
    version = store.put("runs/b", b"one", expect=None)
    store.put("runs/b", b"two", expect=version)
    assert store.fsyncs - before == 4
    assert done == ["fsync file", "rename", "fsync folder"] * 2


def test_writes_and_their_bytes_are_counted_and_what_loses_is_not(store):
    version = store.put("runs/a", b"one", expect=None)
    store.put("executions/a", b"four", expect=None)
    with pytest.raises(VersionConflict):
        store.put("runs/a", b"two", expect="1")
    assert (store.writes, store.bytes_written) == (2, 7)
    store.put("runs/a", b"three", expect=version)
    assert (store.writes, store.bytes_written) == (3, 12)


def test_a_new_folder_is_synced_into_the_one_above(store, monkeypatch):
    store.put("k", b"one", expect=None)
    before = store.fsyncs
    store.put("a/b/c", b"one", expect=None)  # a into the root, b into a, c itself and into b
    assert store.fsyncs - before == 4


def test_a_folder_that_another_process_made_is_synced_once(bucket):
    LocalStore(bucket).put("runs/a", b"one", expect=None)
    store = LocalStore(bucket)
    store.put("runs/b", b"one", expect=None)  # the root into its parent, runs into the root, b and into runs
    assert store.fsyncs == 4
    store.put("runs/c", b"one", expect=None)
    assert store.fsyncs == 6


def test_a_folder_that_somebody_has_put_in_the_place_of_another_is_synced_with_its_name(store, bucket, monkeypatch):
    store.put("runs/a", b"one", expect=None)
    (bucket / "runs").rename(bucket / "away")
    (bucket / "runs").mkdir()
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino) or fsync(fd))
    store.put("runs/b", b"two", expect=None)
    assert synced[1:] == [(bucket.parent).stat().st_ino, bucket.stat().st_ino, (bucket / "runs").stat().st_ino]
    del synced[:]
    store.put("runs/c", b"two", expect=None)
    assert len(synced) == 2


def test_a_relaxed_put_syncs_nothing_and_is_atomic(store, monkeypatch):
    store.put("runs/a", b"one", expect=None)
    done = watch(monkeypatch)
    before = store.fsyncs
    version = store.put("executions/a", b"one", expect=None)
    store.put("executions/a", b"two", expect=version)
    store.delete("executions/a")
    assert store.fsyncs == before
    assert done == ["rename", "rename"]


def test_a_durable_delete_syncs_its_folder(store, monkeypatch):
    store.put("runs/a", b"one", expect=None)
    done = watch(monkeypatch)
    before = store.fsyncs
    store.delete("runs/a")
    store.delete("runs/a")
    assert (store.fsyncs - before, done) == (1, ["fsync folder"])


def test_what_loses_or_only_reads_syncs_nothing(store):
    store.put("runs/a", b"one", expect=None)
    before = store.fsyncs
    with pytest.raises(VersionConflict):
        store.put("runs/a", b"two", expect=None)
    store.get("runs/a")
    list(store.list(""))
    assert store.fsyncs == before


def watch(monkeypatch):
    """Return a list that grows by what happens to the disk."""
    done, fsync, rename = [], os.fsync, os.rename

    def watched_fsync(fd):
        done.append("fsync folder" if os.path.isdir(f"/dev/fd/{fd}") else "fsync file")
        fsync(fd)

    def watched_rename(source, target):
        done.append("rename")
        rename(source, target)

    monkeypatch.setattr(local.os, "fsync", watched_fsync)
    monkeypatch.setattr(local.os, "rename", watched_rename)
    return done


# ---- Disks that do not play along ---------------------------------------------------------------------


@contextmanager
def mounted(folder, options):
    """A small file system of its own; skips where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if tried.returncode:
        pytest.skip(f"a tmpfs cannot be mounted: {tried.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path):
    """Write to a file until its disk has no room for another block."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_a_full_disk_is_named_and_the_store_works_again_once_there_is_room(tmp_path):
    with mounted(tmp_path / "disk", "size=256k") as disk:
        store = LocalStore(disk / "bucket")
        old = b"o" * 20_000
        version = store.put("runs/a.json", old, expect=None)
        fill(disk / "filler")
        for key, data, expect in (("runs/a.json", b"n" * 20_000, version), ("runs/b.json", b"n", None)):
            message = f"^{disk}/bucket/{key}: cannot be written: No space left on device; free some space on its disk$"
            with pytest.raises(StoreUnavailable, match=message) as caught:
                store.put(key, data, expect=expect)
            assert caught.value.retry
        with pytest.raises(StoreUnavailable, match=f"^{disk}/bucket: cannot be written: No space left on device; "):
            LocalStore(disk / "bucket").ensure_writable()
        assert store.get("runs/a.json") == (old, version)
        assert store.get("runs/b.json") is None
        assert os.listdir(disk / "bucket" / "runs") == ["a.json"]
        (disk / "filler").unlink()
        store.ensure_writable()
        version = store.put("runs/a.json", b"n" * 20_000, expect=version)
        assert store.get("runs/a.json") == (b"n" * 20_000, version)


def test_a_disk_that_fills_up_in_the_middle_of_a_write_leaves_the_old_content(tmp_path):
    with mounted(tmp_path / "disk", "size=256k") as disk:
        store = LocalStore(disk / "bucket")
        version = store.put("runs/a.json", b"old", expect=None)
        with pytest.raises(StoreUnavailable, match=r"/runs/a\.json: cannot be written: No space left on device; "):
            store.put("runs/a.json", b"n" * 300_000, expect=version)
        assert store.get("runs/a.json") == (b"old", version)
        assert os.listdir(disk / "bucket" / "runs") == ["a.json"]
        version = store.put("runs/a.json", b"n" * 150_000, expect=version)
        assert store.get("runs/a.json") == (b"n" * 150_000, version)


def test_a_file_that_may_not_get_as_large_leaves_the_old_content(store, bucket):
    version = store.put("runs/a.json", b"old", expect=None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the first write is short, the next one fails
    try:
        with pytest.raises(StoreUnavailable, match=r"/runs/a\.json: cannot be written: File too large; the limit on "):
            store.put("runs/a.json", b"n" * 20_000, expect=version)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.get("runs/a.json") == (b"old", version)
    assert os.listdir(bucket / "runs") == ["a.json"]
    version = store.put("runs/a.json", b"n" * 20_000, expect=version)
    assert store.get("runs/a.json") == (b"n" * 20_000, version)


def test_short_writes_and_reads_are_continued(store, monkeypatch):
    write, read = os.write, os.read
    monkeypatch.setattr(local.os, "write", lambda fd, data: write(fd, data[:7]))
    monkeypatch.setattr(local.os, "read", lambda fd, size: read(fd, min(size, 11)))
    data = bytes(range(200))
    assert store.get("k") is None
    version = store.put("k", data, expect=None)
    assert store.get("k") == (data, version)


@pytest.mark.parametrize("step", ["write", "utime", "fsync", "rename"])
def test_an_error_at_any_step_leaves_the_old_content_and_no_temporary_file(store, bucket, monkeypatch, step):
    version = store.put("runs/a.json", b"old", expect=None)

    def fail(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(local.os, step, fail)
        message = f"^{bucket}/runs/a.json: cannot be written: Input/output error; what was stored there before is"
        with pytest.raises(StoreUnavailable, match=message):
            store.put("runs/a.json", b"new", expect=version)
    assert store.get("runs/a.json") == (b"old", version)
    assert os.listdir(bucket / "runs") == ["a.json"]
    version = store.put("runs/a.json", b"new", expect=version)
    assert store.get("runs/a.json") == (b"new", version)


def test_a_read_only_disk_can_be_read_and_says_so_when_written(tmp_path):
    with mounted(tmp_path / "disk", "size=256k") as disk:
        bucket = disk / "bucket"
        (bucket / "runs").mkdir(parents=True)
        (bucket / "runs" / "a.json").write_bytes(b"old")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = LocalStore(bucket)
        assert list(store.list("")) == ["runs/a.json"]
        data, version = store.get("runs/a.json")
        assert data == b"old"
        says = "cannot be {}: Read-only file system; writing needs a file system that is not mounted read-only$"
        with pytest.raises(StoreUnavailable, match=f"^{bucket}: {says.format('written')}"):
            store.ensure_writable()
        with pytest.raises(StoreUnavailable, match=f"^{bucket}/runs/a.json: {says.format('written')}"):
            store.put("runs/a.json", b"new", expect=version)
        with pytest.raises(StoreUnavailable, match=f"^{bucket}/runs/a.json: {says.format('deleted')}"):
            store.delete("runs/a.json")
        with pytest.raises(StoreUnavailable, match=f"^{disk}/other/k: {says.format('written')}"):
            LocalStore(disk / "other").put("k", b"new", expect=None)
        assert store.get("runs/a.json") == (b"old", version)


def test_a_folder_without_permission_can_be_read_and_says_so_when_written():
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which nobody else may enter
        bucket = Path(folder) / "bucket"
        bucket.mkdir()
        (bucket / "a.json").write_bytes(b"old")
        bucket.chmod(0o555)
        Path(folder).chmod(0o755)
        says = "cannot be written: Permission denied; this user needs permission for it and its folder$"
        with without_privileges():
            store = LocalStore(bucket)
            with pytest.raises(StoreUnavailable, match=f"^{bucket}: {says}"):
                store.ensure_writable()
            with pytest.raises(StoreUnavailable, match=f"^{bucket}/runs/a: {says}"):
                store.put("runs/a", b"x", expect=None)
            assert list(store.list("")) == ["a.json"]
            assert store.get("a.json")[0] == b"old"
        bucket.chmod(0o755)


@pytest.mark.parametrize("root", ["file", "file/x", "file/x/y"])
def test_a_root_that_is_no_folder_is_unavailable_whatever_is_asked_of_it(tmp_path, root):
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(tmp_path / root)
    asked = {
        "written": (store.ensure_writable, lambda: store.put("runs/a", b"x", expect=None)),
        "read": (lambda: store.get("runs/a"),),
        "listed": (lambda: list(store.list("runs/")),),
        "deleted": (lambda: store.delete("runs/a"),),
    }
    for verb, calls in asked.items():
        for call in calls:
            says = (
                re.escape(f"{tmp_path / root}") + rf"[^:]*: cannot be {verb}: Not a directory; every part of the path"
            )
            with pytest.raises(StoreUnavailable, match=f"^{says}"):
                call()
    assert (tmp_path / "file").read_bytes() == b""


def test_a_key_cannot_be_a_folder_of_another(store, bucket):
    store.put("a/b", b"x", expect=None)
    with pytest.raises(StoreUnavailable, match=f"^{bucket}/a: cannot be written: Is a directory; "):
        store.put("a", b"x", expect=None)
    with pytest.raises(StoreUnavailable, match=f"^{bucket}/a/b/c: cannot be written: Not a directory; "):
        store.put("a/b/c", b"x", expect=None)
    assert list(store.list("")) == ["a/b"]


# ---- Before the first put, and after many -------------------------------------------------------------


def test_reading_makes_nothing(store, bucket):
    assert store.get("k") is None
    assert list(store.list("")) == []
    store.delete("k")
    assert not bucket.exists()


def test_ensure_writable_makes_the_root_and_leaves_no_key(store, bucket):
    for _ in range(2):
        store.ensure_writable()
        assert bucket.is_dir()
        assert list(store.list("")) == []


def test_what_killed_writers_left_is_removed_once_a_day_when_it_is_old(store, bucket):
    store.ensure_writable()
    (bucket / "runs").mkdir()
    hour_ago, day_ago = time.time() - 3700, time.time() - 90_000
    old, young, other = (bucket / "runs" / name for name in (".new-1", ".new-2", "a.json"))
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (hour_ago, hour_ago))
    store.ensure_writable()
    assert old.exists()  # it has looked today
    os.utime(bucket / ".locks" / "swept", (day_ago, day_ago))
    store.ensure_writable()
    assert sorted(os.listdir(bucket / "runs")) == [".new-2", "a.json"]


def test_descriptors_are_given_back(tmp_path):
    gc.collect()
    before = len(os.listdir("/dev/fd"))
    store = LocalStore(tmp_path / "bucket")
    for n in range(200):
        store.put(f"folder{n}/k", b"x", expect=None)
    assert 100 < len(os.listdir("/dev/fd")) - before < 140  # at most 64 locks and 64 folders
    del store
    gc.collect()
    assert len(os.listdir("/dev/fd")) <= before
