"""The names that are kept of a large folder: that they are all, whoever changes it, and are had without reading it."""

import os
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.errors import VersionConflict
from orchestrator.stores import folding, names
from orchestrator.stores.keys import is_key
from orchestrator.stores.local import LocalStore
from orchestrator.stores.sorted_names import SortedNames
from tests.support.kills import killed_at
from tests.support.nobody import without_privileges

KEY = "runs/a.json"
FIRST = b'{"A": 1}\n'


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A directory whose names are kept however few they are."""
    monkeypatch.setattr(names, "FEW", 0)
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    return tmp_path / "bucket"


@pytest.fixture
def store(bucket):
    """With some runs, whose names are kept."""
    store = LocalStore(bucket)
    for name in ("a.json", "b.json", "run_1.json"):
        store.put(f"runs/{name}", FIRST, expect=None)
    assert listed(store) == there_in(bucket)
    return store


@pytest.fixture
def read(monkeypatch):
    """The folders that are read from now on."""
    read, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: read.append(Path(str(path)).name) or scandir(path))
    return read


def there_in(bucket, folder="runs"):
    """The keys in a folder, told by nobody but the system."""
    found = []
    for above, _, files in os.walk(bucket / folder, followlinks=True):
        found += [os.path.relpath(f"{above}/{name}", bucket) for name in files if os.path.isfile(f"{above}/{name}")]
    return sorted(key for key in found if is_key(key))


def listed(store):
    return list(store.list("runs/"))


# ---- What is read -------------------------------------------------------------------------------------


def test_after_a_folder_was_read_once_its_stores_list_it_without_reading_it(store, bucket, read):
    others = [LocalStore(bucket), LocalStore(bucket)]
    version = store.put("runs/new.json", FIRST, expect=None)
    version = store.change("runs/new.json", {"A": b"2"}, expect=version)
    others[0].fold()
    store.fold()
    version = others[0].put("runs/new.json", FIRST, expect=store.get("runs/new.json")[1])
    others[1].create_all({"open/c": b"", "runs/c.json": FIRST})
    with pytest.raises(VersionConflict):
        others[1].create_all({"runs/d.json": FIRST, "runs/c.json": FIRST})
    others[0].delete("runs/c.json")
    others[0].delete("runs/nobody.json")
    store.delete("runs/b.json")
    for each in (store, *others, LocalStore(bucket)):
        assert listed(each) == ["runs/a.json", "runs/new.json", "runs/run_1.json"]
        assert list(each.list("runs/run_", start_after="runs/n")) == ["runs/run_1.json"]
    assert "runs" not in read
    assert listed(store) == there_in(bucket)


def test_of_few_names_none_are_kept(bucket, monkeypatch, read):
    monkeypatch.setattr(names, "FEW", 4)
    store = LocalStore(bucket)
    for n in range(3):
        store.put(f"runs/{n}", b"", expect=None)
    assert len(listed(store)) == 3
    assert not (bucket / ".names").exists()
    store.put("runs/3", b"", expect=None)
    assert len(listed(store)) == 4
    del read[:]
    assert len(listed(store)) == 4
    assert read == []
    assert sorted(os.listdir(bucket / ".names")) == ["runs", "runs.log"]


def test_of_what_stays_nothing_is_noted(store, bucket):
    version, log = store.get(KEY)[1], bucket / ".names" / "runs.log"
    store.put("runs/new.json", FIRST, expect=None)
    size = log.stat().st_size
    for _ in range(3):
        version = store.put(KEY, FIRST, expect=version)
        version = store.change(KEY, {"A": b"2"}, expect=version)
        store.fold()
    assert log.stat().st_size == size == 128 + len("+new.json\n")


def test_what_is_long_is_noted_no_more_and_the_folder_read_anew(store, bucket, monkeypatch, read):
    monkeypatch.setattr(names, "LONGEST_LOG", 100)
    for n in range(30):
        store.put(f"runs/{n}", b"", expect=None)
    assert (bucket / ".names" / "runs.log").stat().st_size <= 128 + 100
    assert listed(store) == there_in(bucket)
    assert read.count("runs") == 2  # and by the test
    assert listed(store) == there_in(bucket)
    assert read.count("runs") == 3


def test_the_daily_sweep_has_it_read_anew_and_takes_half_a_file_of_names_away(store, bucket, read):
    store.ensure_writable()
    old, day_ago = bucket / ".names" / ".new-1", time.time() - 90_000
    old.touch()
    os.utime(old, times=(day_ago, day_ago))
    os.utime(bucket / ".locks" / "swept", times=(day_ago, day_ago))
    store.ensure_writable()
    assert sorted(os.listdir(bucket / ".names")) == ["runs", "runs.log"]
    del read[:]
    listed(store)
    listed(store)
    assert read == ["runs"]


# ---- Hands --------------------------------------------------------------------------------------------


def copy_in(runs):
    (runs / "by hand.json").write_bytes(b"")
    (runs / "by_hand.json").write_bytes(FIRST)


def take_out(runs):
    (runs / "a.json").unlink()


def rename(runs):
    (runs / "a.json").rename(runs / "z.json")


def rename_and_set_the_time_back(runs):
    before = runs.stat()
    (runs / "a.json").rename(runs / "z.json")
    os.utime(runs, ns=(before.st_atime_ns, before.st_mtime_ns))


def make_folders(runs):
    (runs / "b.json").unlink()
    (runs / "b.json").mkdir()
    (runs / "b.json" / "x").write_bytes(b"")
    (runs / "c").mkdir()


def link(runs):
    (runs / "linked").symlink_to(runs / "a.json")
    (runs / "broken").symlink_to("nowhere")


def replace_the_folder(runs):
    runs.rename(runs.with_name("away"))
    runs.mkdir()
    (runs / "only.json").write_bytes(FIRST)


def remove_the_folder(runs):
    subprocess.run(["rm", "-r", runs], check=True)


def make_it_a_file(runs):
    subprocess.run(["rm", "-r", runs], check=True)
    runs.write_bytes(b"")


HANDS = [
    copy_in,
    take_out,
    rename,
    rename_and_set_the_time_back,
    make_folders,
    link,
    replace_the_folder,
    remove_the_folder,
    make_it_a_file,
]


@pytest.mark.parametrize("hand", HANDS)
@pytest.mark.parametrize("is_written_after", [False, True])
def test_what_is_done_by_hand_shows_at_once(store, bucket, hand, is_written_after):
    time.sleep(0.02 if hand is rename_and_set_the_time_back else 0)  # in another tick of the system's clock
    hand(bucket / "runs")
    if is_written_after and hand is not make_it_a_file:
        LocalStore(bucket).put("runs/new.json", FIRST, expect=None)
    for each in (store, LocalStore(bucket)):
        assert listed(each) == there_in(bucket)
        assert listed(each) == there_in(bucket)


def test_what_a_link_leads_to_may_come_and_go(store, bucket):
    (bucket / "runs" / "linked").symlink_to(bucket / "elsewhere")
    assert "runs/linked" not in listed(store)
    (bucket / "elsewhere").touch()
    assert "runs/linked" in listed(store)
    (bucket / "elsewhere").unlink()
    assert "runs/linked" not in listed(store)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-7])


def write_over(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a.json", b"x.json").replace(b"+", b"-") + b"y\n")


def turn_over(path):
    path.write_bytes(path.read_bytes()[::-1])


@pytest.mark.parametrize("name", ["runs", "runs.log"])
@pytest.mark.parametrize("spoil", [Path.unlink, cut_off, write_over, turn_over, lambda path: path.write_bytes(b"")])
def test_files_of_names_that_were_spoilt_or_removed_count_for_nothing(store, bucket, name, spoil):
    store.put("runs/new.json", FIRST, expect=None)
    spoil(bucket / ".names" / name)
    store.put("runs/newer.json", FIRST, expect=None)
    for each in (store, LocalStore(bucket), store):
        assert listed(each) == there_in(bucket)
        each.delete(listed(each)[0])
        assert listed(each) == there_in(bucket)


def test_the_folder_of_names_may_be_removed_while_it_is_in_use(store, bucket, read):
    subprocess.run(["rm", "-r", bucket / ".names"], check=True)
    store.put("runs/new.json", FIRST, expect=None)
    for _ in range(3):
        assert len(listed(store)) == 4
    assert read.count("runs") == 2  # once to see how many there are, once more to keep them


def test_a_copy_of_the_directory_does_not_go_by_the_names_of_the_first(store, bucket, tmp_path):
    subprocess.run(["cp", "-a", bucket, tmp_path / "copy"], check=True)
    (tmp_path / "copy" / "runs" / "by_hand.json").write_bytes(FIRST)
    os.utime(tmp_path / "copy" / "runs", ns=((bucket / "runs").stat().st_mtime_ns,) * 2)
    assert listed(LocalStore(tmp_path / "copy")) == there_in(tmp_path / "copy") != there_in(bucket)


def calls_of(monkeypatch, before):
    """Have `before(n)` called in front of the n-th call of the system; the list of (name, whether of the folder)."""
    calls, is_within = [], []

    def watched(name, call):
        def called(*args, **kwargs):
            if not is_within:
                is_within.append(1)
                before(len(calls))
                is_within.clear()
                calls.append((name, str(args[0]).endswith("/runs/")))
            return call(*args, **kwargs)

        return called

    watching = ("stat", "lstat", "open", "pread", "pwrite", "write", "utime", "fsync", "fdatasync", "rename", "unlink")
    for name in (*watching, "scandir"):
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    return calls


def put_new(store):
    store.put("runs/new.json", FIRST, expect=None)


def put_again(store):
    store.put(KEY, FIRST, expect=store.get(KEY)[1])


def create_together(store):
    store.create_all({"open/new": b"", "runs/new.json": FIRST})


def change_and_fold(store):
    store.change(KEY, {"A": b"2"}, expect=store.get(KEY)[1])
    store.fold()


def delete(store):
    store.delete(KEY)


def read_anew(store):
    store._disk.names["runs/"].distrust()
    listed(store)


DEEDS = [put_new, put_again, create_together, change_and_fold, delete, read_anew]


@pytest.mark.parametrize("deed", DEEDS)
def test_only_what_comes_between_a_stores_look_and_its_stamp_is_missed_and_not_for_long(bucket, monkeypatch, deed):
    missed = 0
    for number in range(200):
        folder = bucket / str(number)
        store = LocalStore(folder)
        store.put(KEY, FIRST, expect=None)
        listed(store)
        with monkeypatch.context() as patched:
            calls = calls_of(
                patched,
                lambda n, folder=folder, number=number: n == number and (folder / "runs" / "by_hand").touch(),
            )
            deed(store)
        if number >= len(calls):
            break
        for each in (store, LocalStore(folder)):
            if listed(each) == there_in(folder):
                continue
            missed += 1
            around = [name for name, is_folder in calls[:number] if is_folder][-1:]
            around += [name for name, is_folder in calls[number:] if is_folder][:1]
            assert around == ["stat", "utime"], (number, calls)
            each._disk.names["runs/"].distrust()  # as once a day
            assert listed(each) == there_in(folder)
    assert number > 10
    assert missed <= 30


# ---- Kills --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("is_after", [False, True])
def test_a_kill_at_any_call_leaves_names_that_are_all_or_are_not_gone_by(bucket, monkeypatch, deed, is_after):
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)
    for number in range(1, 100):
        folder = bucket / str(number)
        store = LocalStore(folder)
        store.put(KEY, FIRST, expect=None)
        listed(store)
        store.put("runs/b.json", FIRST, expect=None)
        died = killed_at(number, is_after, lambda folder=folder: deed(LocalStore(folder)))
        assert died in (0, 9)
        for each in (LocalStore(folder), store):
            assert listed(each) == there_in(folder)
            each.put(f"runs/{len(listed(each))}", FIRST, expect=None)
            assert listed(each) == there_in(folder)
        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", None)
            assert len(listed(store)) >= 3
        if not died:
            break
    assert not died
    assert number > 5


def test_a_head_that_was_written_in_part_is_not_gone_by(store, bucket):
    log, size = bucket / ".names" / "runs.log", names._FORM.size + 4
    before = log.read_bytes()[:size]
    store.put("runs/new.json", FIRST, expect=None)
    after = log.read_bytes()
    assert len(list(store._disk.names["runs/"]._kept().since(b""))) == 4
    for cut in range(1, size - 4):
        if after[:cut] != before[:cut] and after[cut:size] != before[cut:]:
            log.write_bytes(after[:cut] + before[cut:] + after[size:])
            assert store._disk.names["runs/"]._kept() is None
    assert listed(store) == there_in(bucket)


def test_with_a_clock_that_stands_what_could_not_be_noted_shows(bucket, monkeypatch):
    monkeypatch.setattr(names.time, "time_ns", lambda: 2 * 10**18)
    for name in ("fsync", "fdatasync"):  # so that all is done within a tick of the system's clock, mostly
        monkeypatch.setattr(os, name, lambda _: None)
    store, pwrite = LocalStore(bucket), os.pwrite

    def fails(fd, data, offset):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("runs.log"):
            raise OSError(28, "No space left on device")
        return pwrite(fd, data, offset)

    store.put("runs/1", b"", expect=None)
    for n in range(30):
        listed(store)
        store.put("runs/2", b"", expect=None)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", fails)
            store.put(f"runs/{n}-", b"", expect=None)
        assert listed(store) == there_in(bucket)
        store.delete("runs/2")


def test_after_another_start_of_the_machine_the_folder_is_read_anew(store, bucket, monkeypatch, read):
    monkeypatch.setattr(names, "_boot_id", lambda: b"another start   ")
    assert len(listed(store)) == 3
    assert len(listed(store)) == 3
    assert read == ["runs"]


def test_where_it_is_not_told_which_start_it_is_the_folder_is_read_each_time(bucket, monkeypatch, read):
    monkeypatch.setattr(names, "_boot_id", lambda: None)
    store = LocalStore(bucket)
    for n in range(3):
        store.put(f"runs/{n}", b"", expect=None)
        assert len(listed(store)) == n + 1
    assert read == ["runs"] * 3


# ---- Several ------------------------------------------------------------------------------------------


def work(store, number):
    for n in range(40):
        key = f"runs/{number}-{n}.json"
        version = store.put(key, FIRST, expect=None)
        if n % 3 == 0:
            store.fold()
            store.delete(key)
        elif n % 3 == 1:
            store.change(key, {"A": b"2"}, expect=version)
        else:
            store.create_all({f"open/{number}-{n}": b"", f"runs/{number}+{n}.json".replace("+", "_"): FIRST})


def test_processes_that_create_and_delete_at_once_keep_all_names_and_nobody_reads_the_folder(store, bucket, read):
    children = []
    for number in range(4):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                work(store if number % 2 else LocalStore(bucket), number)
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    ended = 0
    while ended < 4:
        assert {"runs/a.json", "runs/b.json", "runs/run_1.json"} <= set(listed(store))
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert pid in children
            assert status == 0
            ended += 1
    found = listed(store)
    assert "runs" not in read
    assert found == there_in(bucket)
    assert len(found) == 3 + 4 * (26 + 13)


def test_of_two_versions_neither_goes_by_what_the_other_has_noted(store, bucket, monkeypatch, read):
    for n in range(4):
        monkeypatch.setattr(names, "_MAGIC", (b"names 2\n", b"names 1\n")[n % 2])
        store.put(f"runs/{n}", b"", expect=None)
        assert len(listed(store)) == len(listed(store)) == 4 + n
    assert read == ["runs"] * 4
    assert listed(store) == there_in(bucket)


def test_a_reading_that_another_one_has_overtaken_is_not_gone_by(store, bucket, monkeypatch):
    store._disk.names["runs/"].distrust()
    write = SortedNames.write

    def write_late(found, *args):
        with monkeypatch.context() as patched:
            patched.setattr(SortedNames, "write", write)
            other = LocalStore(bucket)
            other._disk.names["runs/"].distrust()
            listed(other)
            other.delete(KEY)
        write(found, *args)

    with monkeypatch.context() as patched:
        patched.setattr(SortedNames, "write", write_late)
        assert KEY in listed(store)
    assert listed(store) == there_in(bucket)
    assert KEY not in listed(store)


@pytest.mark.parametrize("is_many", [False, True])
def test_what_takes_the_place_of_a_file_while_the_folder_is_read_is_listed(store, bucket, monkeypatch, is_many):
    store._disk.names["runs/"].distrust()
    real, put = os.scandir, []

    class Overtaken:
        """As on tmpfs and btrfs: what takes a file's place gets a place of its own, behind where a reading ends."""

        def __init__(self, path):
            self.entries = real(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.entries.close()

        def __iter__(self):
            found = list(self.entries)
            for key in ("runs/a.json", "runs/b.json") if is_many else (KEY,):
                other = LocalStore(bucket)
                put.append(other.put(key, FIRST, expect=other.get(key)[1]))
                found = [entry for entry in found if entry.name != key.removeprefix("runs/")]
            return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", Overtaken)
        found = listed(store)
    assert found == there_in(bucket)
    assert put
    for each in (store, LocalStore(bucket)):
        assert listed(each) == there_in(bucket)
    size = (bucket / ".names" / "runs.log").stat().st_size
    store.put(KEY, FIRST, expect=store.get(KEY)[1])  # the reading is over: it stays what it was
    assert (bucket / ".names" / "runs.log").stat().st_size == size


def test_a_folder_that_a_store_makes_is_noted(store, bucket, read):
    store.put("runs/sub/x", b"", expect=None)
    LocalStore(bucket, relaxed=("runs/",)).put("runs/sub-2/deep/x", b"", expect=None)
    assert listed(store) == ["runs/a.json", "runs/b.json", "runs/run_1.json", "runs/sub-2/deep/x", "runs/sub/x"]
    assert "runs" not in read
    assert sorted(listed(store)) == there_in(bucket)


def test_what_takes_the_place_of_no_file_is_noted(store, bucket):
    os.mkfifo(bucket / "runs" / "pipe.json")
    assert "runs/pipe.json" not in listed(store)
    store.put("runs/pipe.json", FIRST, expect=str((bucket / "runs" / "pipe.json").stat().st_mtime_ns))
    assert "runs/pipe.json" in listed(store)


def test_a_child_lets_go_of_the_lock_that_it_shares(store, bucket):
    store.put("runs/new.json", FIRST, expect=None)
    held = store._disk.names["runs/"]._lock
    pid = os.fork()
    if not pid:
        os._exit(0 if held.fd < 0 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert held.fd >= 0


# ---- Who may not write, and disks ---------------------------------------------------------------------


@contextmanager
def readable_bucket():
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which nobody else may enter
        Path(folder).chmod(0o755)
        yield Path(folder) / "bucket"


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_may_only_read_lists_what_is_there_and_changes_nothing(bucket, read, is_kept):
    if os.geteuid():
        pytest.skip("who owns a folder may set its times, even if it may not write there")
    with readable_bucket() as bucket:
        store = LocalStore(bucket)
        for n in range(3):
            store.put(f"runs/{n}", b"", expect=None)
        for each in (bucket, bucket / "runs"):
            each.chmod(0o555)
        if is_kept:
            listed(store)
        modified_ns = (bucket / "runs").stat().st_mtime_ns
        del read[:]
        with without_privileges():
            assert len(listed(LocalStore(bucket))) == 3
        assert ("runs" in read) is not is_kept
        assert (bucket / "runs").stat().st_mtime_ns == modified_ns
        (bucket / "runs" / "by_hand").touch()
        with without_privileges():
            assert len(listed(LocalStore(bucket))) == 4
        assert (bucket / ".names").exists() is is_kept
        for each in (bucket, bucket / "runs"):
            each.chmod(0o755)


def test_who_owns_the_folder_and_may_not_keep_its_names_leaves_its_times(bucket, read):
    if os.geteuid():
        pytest.skip("nobody else can be given a folder")
    with readable_bucket() as bucket:
        store = LocalStore(bucket)
        store.put(KEY, FIRST, expect=None)
        listed(store)
        (bucket / "runs" / "by_hand").touch()
        os.chown(bucket / "runs", 65534, 65534)
        before = (bucket / "runs").stat()
        with without_privileges():
            assert len(listed(LocalStore(bucket))) == 2
        assert (bucket / "runs").stat().st_mtime_ns == before.st_mtime_ns
        with without_privileges():
            (bucket / ".names" / "runs.log").stat()
            LocalStore(bucket)._disk.make(f"{bucket}/runs/theirs", os.O_WRONLY | os.O_CREAT)
        assert listed(store) == there_in(bucket)


def test_who_cannot_keep_names_reads_a_folder_that_is_as_it_was_once(bucket, monkeypatch, read):
    monkeypatch.setattr(names, "_boot_id", lambda: None)
    monkeypatch.setattr(names, "_SETTLED_NS", -(10**18))  # all changes are old enough to be told apart
    store = LocalStore(bucket)
    for n in range(3):
        store.put(f"runs/{n}", b"", expect=None)
    for _ in range(3):
        assert len(listed(store)) == 3
    assert read == ["runs"]
    (bucket / "runs" / "x").touch()
    os.utime(bucket / "runs", ns=(5, 5))
    assert len(listed(store)) == 4


@pytest.mark.parametrize("unit_ns", [100, 1_000_000_000])
def test_where_times_are_cut_off_the_folder_is_read_each_time(bucket, monkeypatch, read, unit_ns):
    utime = os.utime
    monkeypatch.setattr(names.time, "time_ns", iter(range(2 * 10**18, 3 * 10**18, unit_ns)).__next__)
    monkeypatch.setattr(os, "utime", lambda path, ns: utime(path, ns=(ns[0] // unit_ns * unit_ns,) * 2))
    store = LocalStore(bucket)
    for n in range(3):
        store.put(f"runs/{n}", b"", expect=None)
        assert len(listed(store)) == n + 1
    assert read.count("runs") >= 3


@pytest.mark.parametrize("step", ["utime", "pwrite", "pread"])
def test_what_cannot_be_noted_holds_up_nobody(store, bucket, monkeypatch, step):
    real = getattr(os, step)

    def fails(target, *args, **kwargs):
        path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
        if path.endswith(("runs/", "runs.log")):
            raise OSError(28, "No space left on device")
        return real(target, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, step, fails)
        store.put("runs/new.json", FIRST, expect=None)
        assert listed(store) == there_in(bucket)
        store.delete(KEY)
        assert listed(store) == there_in(bucket)
    assert listed(store) == there_in(bucket)


# ---- Any sequence -------------------------------------------------------------------------------------

NAMES = st.sampled_from(("a", "a-b", "a.json", "b", "run_1.json", "run_1", "run_2.json", "z"))
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("put", "put", "create", "change", "delete", "delete", "fold", "list", "list from"),
                *("touch", "remove", "rename", "mkdir", "forget", "spoil", "distrust"),
            )
        ),
        NAMES,
        NAMES,
        st.integers(0, 2),
    ),
    max_size=40,
)


def take(step, name, other, store, bucket):
    key, runs = f"runs/{name}", bucket / "runs"
    found = store.get(key)
    if step == "put" and not (runs / name).is_dir():
        store.put(key, FIRST, expect=found and found[1])
    elif step == "create" and not (runs / name).exists() and not (runs / other).exists() and name != other:
        store.create_all({key: FIRST, f"runs/{other}": FIRST})
    elif step == "change" and found is not None and found[0]:
        store.change(key, {"A": b"2"}, expect=found[1])
    elif step == "delete":
        store.delete(key)
    elif step == "fold":
        store.fold()
    elif step == "list from":
        wanted = [each for each in there_in(bucket) if each > f"runs/{other}" and each.startswith(f"runs/{name[:3]}")]
        assert list(store.list(f"runs/{name[:3]}", start_after=f"runs/{other}")) == wanted
    elif step == "touch" and not (runs / name).exists():
        runs.mkdir(parents=True, exist_ok=True)
        (runs / name).touch()
    elif step == "remove" and (runs / name).is_file():
        (runs / name).unlink()
    elif step == "rename" and (runs / name).is_file() and not (runs / other).is_dir():
        (runs / name).rename(runs / other)
    elif step == "mkdir" and not (runs / name).exists():
        (runs / name).mkdir(parents=True)
        (runs / name / "x").touch()
    elif step in ("forget", "spoil"):
        where = bucket / ".names" / ("runs" if name < other else "runs.log")
        if where.exists():
            where.unlink() if step == "forget" else write_over(where)
    elif step == "distrust":
        store._disk.names["runs/"].distrust()


def test_whatever_stores_and_hands_do_a_listing_has_what_is_there(monkeypatch):
    monkeypatch.setattr(names, "FEW", 2)
    monkeypatch.setattr(names, "LONGEST_LOG", 60)
    monkeypatch.setattr(folding, "AFTER_S", 3600.0)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda _: None)

    @settings(max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")), deadline=None)
    @given(STEPS)
    def check(steps):
        with tempfile.TemporaryDirectory() as folder:
            bucket = Path(folder) / "bucket"
            stores = [LocalStore(bucket) for _ in range(3)]
            for step, name, other, number in steps:
                take(step, name, other, stores[number], bucket)
                if step.startswith("list"):
                    assert listed(stores[number]) == there_in(bucket)
            for each in stores:
                assert listed(each) == there_in(bucket)

    check()


@settings(max_examples=100, deadline=None)
@given(
    st.sets(st.text("ab-.09_z", min_size=1, max_size=200), max_size=200), st.text("ab-/.09_z", max_size=5), st.data()
)
def test_sorted_names_are_found_from_any_one_on(found, first, data):
    found = [name.encode() for name in found if is_key(name)]
    changed = data.draw(st.dictionaries(st.sampled_from([*found, b"b0", b"new", b"-"]), st.booleans(), max_size=9))
    log = [(b"+" if is_there else b"-") + name for name, is_there in changed.items()]
    wanted = sorted({*found, *(n for n, t in changed.items() if t)} - {n for n, t in changed.items() if not t})
    wanted = [name.decode() for name in wanted if name >= first.encode()]
    kept = SortedNames.of(found)
    assert list(kept.changed_by(log).since(first.encode())) == wanted
    with tempfile.TemporaryDirectory() as folder:
        kept.write(f"{folder}/names", 7, 1_000_000_001)
        assert SortedNames.read(f"{folder}/names", 8) is None
        assert list(SortedNames.read(f"{folder}/names", 7).changed_by(log).since(first.encode())) == wanted
