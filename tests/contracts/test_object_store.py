"""Every sentence of the ObjectStore port, held against every adapter."""

import json
import os
import sys
from contextlib import suppress
from itertools import pairwise
from threading import Event, Thread
from time import time
from uuid import uuid4

import fakeredis
import pytest

from orchestrator.model.errors import VersionConflict
from orchestrator.ports import ChangingStore, CreatingStore, Timed
from orchestrator.stores import names
from orchestrator.stores.gcs import GcsStore, open_client
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore
from orchestrator.stores.redis import RedisStore
from tests.support.fake_gcs_server import FakeGcsServer
from tests.support.redis_server import RedisServer
from tests.support.storage_server import StorageServer


def local_store(request, **options):
    return LocalStore(request.getfixturevalue("tmp_path") / "bucket", **options)


def indexed_local_store(request):
    request.getfixturevalue("monkeypatch").setattr(names, "FEW", 0)
    return local_store(request, indexed=("runs/", "a/", "runs/run_1/"))


def gcs_store(request, **options):
    client = request.getfixturevalue("storage_client")
    return GcsStore(client.create_bucket(f"contract-{uuid4().hex}").name, client=client, **options)


def emulated_gcs_store(request):
    client = request.getfixturevalue("emulator_client")
    return GcsStore(client.create_bucket(f"contract-{uuid4().hex}").name, client=client)


def fake_redis_store(request):
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    client.ping()  # makes its database, of which threads that come first together would make two
    return RedisStore(client)


def redis_store(request):
    return RedisStore(request.getfixturevalue("redis_url"), prefix=f"contract-{uuid4().hex}")


ADAPTERS = {  # name -> how to make an empty one
    "memory": lambda request: MemoryStore(),
    "local": lambda request: local_store(request, relaxed=()),
    "local, with names kept": indexed_local_store,
    "local, relaxed": lambda request: local_store(request, relaxed=("",)),
    "gcs": gcs_store,
    "gcs, of another emulator": emulated_gcs_store,
    "redis, fake": fake_redis_store,
    "redis": redis_store,
}


@pytest.fixture(scope="module")
def storage_client():
    """A client of the repository's own Cloud Storage."""
    with StorageServer() as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", server.url)
            client = open_client()
        yield client


@pytest.fixture(scope="module")
def emulator_client():
    """A client of an emulator that others wrote: one that runs already, of whatever kind, or fake-gcs-server."""
    if "STORAGE_EMULATOR_HOST" in os.environ:
        yield open_client()
        return
    if not FakeGcsServer.is_installed():
        pytest.skip("STORAGE_EMULATOR_HOST is not set, and there is no fake-gcs-server on the PATH")
    with FakeGcsServer() as server:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STORAGE_EMULATOR_HOST", server.url)
            client = open_client()
        yield client


@pytest.fixture(scope="module")
def redis_url():
    if not RedisServer.is_installed():
        pytest.skip("there is no redis-server on the PATH")
    with RedisServer() as server:
        yield server.url


# What sorts differently as plain strings than a directory walk would have it: - and . come before /, digits after.
KEYS = sorted(
    [
        "a-b/c",
        "a/b",
        "a/b0",
        "a0",
        "definitions/x",
        "open/run_1",
        "runs/run_1-x/y",
        "runs/run_1.5.json",
        "runs/run_1.json",
        "runs/run_1/d/e",
        "runs/run_1/f",
        "runs/run_10.json",
        "runs/run_2.json",
        "runs/$x[7]",
        "run_1",
        "A/b",
        "_",
        "0",
    ]
)


@pytest.fixture(params=ADAPTERS.values(), ids=ADAPTERS.keys())
def store(request):
    return request.param(request)


CHANGING = ("memory", "local", "local, with names kept", "local, relaxed")
"""Those that change a part of an object for less than the whole of it costs."""


@pytest.fixture(params=CHANGING)
def changing(request):
    return ADAPTERS[request.param](request)


CREATING = ("local", "local, with names kept", "local, relaxed")
"""Those that create several objects for less than one after another costs."""


@pytest.fixture(params=CREATING)
def creating(request):
    return ADAPTERS[request.param](request)


@pytest.fixture
def rounds(request):
    """How often threads meet: less often where each call is an HTTP request."""
    return 10 if "gcs" in request.node.name else 50


def in_threads(count, work):
    """Run work(0), work(1), … at the same time; what one of them raises fails the test."""
    failed = []

    def caught(number):
        try:
            work(number)
        except BaseException as exc:
            failed.append(exc)

    threads = [Thread(target=caught, args=(i,)) for i in range(count)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # seconds: so that threads meet in the middle of a call
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failed == []


def test_get_returns_none_if_there_is_no_such_key(store):
    assert store.get("runs/nobody.json") is None
    store.put("runs/somebody.json", b"x", expect=None)
    assert store.get("runs/nobody.json") is None
    assert store.get("runs") is None
    assert store.get("runs/somebody.json/x") is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"one", id="short"),
        pytest.param(bytes(range(256)) * 8192, id="2 MiB of every byte"),
    ],
)
def test_get_returns_what_was_put_and_its_version(store, data):
    version = store.put("k", data, expect=None)
    assert isinstance(version, str)
    assert store.get("k") == (data, version)


def test_create_only_loses_if_the_key_exists(store):
    first = store.put("k", b"one", expect=None)
    with pytest.raises(VersionConflict, match=f"^k: version is ({first}|another one); expected None$"):
        store.put("k", b"two", expect=None)
    assert store.get("k") == (b"one", first)


def test_an_expected_version_loses_if_the_key_does_not_exist(store):
    with pytest.raises(VersionConflict, match=r"^k: version is (None|another one); expected 7$"):
        store.put("k", b"two", expect="7")
    assert store.get("k") is None
    assert list(store.list("")) == []


def test_the_second_writer_with_a_stale_version_loses(store):
    first = store.put("k", b"one", expect=None)
    second = store.put("k", b"two", expect=first)
    for stale in (None, first, "", "no such version"):
        with pytest.raises(VersionConflict):
            store.put("k", b"three", expect=stale)
        assert store.get("k") == (b"two", second)


def test_a_content_that_comes_back_has_a_new_version(store):
    versions = [store.put("k", b"A", expect=None)]
    for data in (b"B", b"A", b"A"):
        versions.append(store.put("k", data, expect=versions[-1]))
    assert len(set(versions)) == 4
    with pytest.raises(VersionConflict):
        store.put("k", b"C", expect=versions[0])
    assert store.get("k") == (b"A", versions[-1])


def test_a_key_that_comes_back_does_not_revive_its_old_versions(store):
    versions = []
    for _ in range(20):
        versions.append(store.put("k", b"A", expect=None))
        store.delete("k")
        with pytest.raises(VersionConflict):
            store.put("k", b"B", expect=versions[-1])
    last = store.put("k", b"A", expect=None)
    assert len({*versions, last}) == 21
    with pytest.raises(VersionConflict):
        store.put("k", b"B", expect=versions[-1])
    assert store.get("k") == (b"A", last)


def test_deleting_removes_this_key_alone(store):
    for key in ("runs/a", "runs/b"):
        store.put(key, b"x", expect=None)
    store.delete("runs/a")
    assert store.get("runs/a") is None
    assert list(store.list("")) == ["runs/b"]


def test_deleting_nothing_is_no_error(store):
    store.delete("k")
    store.put("runs/a", b"x", expect=None)
    store.delete("runs/a")
    for key in ("runs/a", "runs/nobody", "runs", "runs/a/b", "other/x"):
        store.delete(key)
    assert list(store.list("")) == []


def test_an_empty_store_lists_nothing(store):
    assert list(store.list("")) == []
    assert list(store.list("runs/")) == []


def test_list_yields_the_keys_with_the_prefix_after_the_start_sorted(store):
    for key in reversed(KEYS):
        store.put(key, b"x", expect=None)
    texts = {key[:n] for key in KEYS for n in range(len(key) + 1)} | {
        "z",
        "runs/run_1/d/e/",
        "runs//",
        "runs/run_1\x7f",
    }
    for prefix in sorted(texts):
        expected = [key for key in KEYS if key.startswith(prefix)]
        assert list(store.list(prefix)) == expected, prefix
    for start_after in sorted(texts):
        for prefix in ("", "runs/", "runs/run_1"):
            expected = [key for key in KEYS if key.startswith(prefix) and key > start_after]
            assert list(store.list(prefix, start_after=start_after)) == expected, (prefix, start_after)


@pytest.mark.parametrize(
    "prefix", ["/", "//", "../", "./", "runs/../", ".locks/", "\0", "x y/", "é", "k" * 300, "/etc/"]
)
def test_a_prefix_that_no_key_can_have_lists_nothing(store, prefix):
    store.put("k", b"x", expect=None)
    assert list(store.list(prefix)) == []


def test_list_shows_a_put_and_a_delete_at_once(store):
    for n in range(10):
        store.put(f"runs/{n}", b"x", expect=None)
        assert list(store.list("runs/")) == [f"runs/{i}" for i in range(n + 1)]
    store.delete("runs/4")
    assert list(store.list("runs/", start_after="runs/2")) == [f"runs/{i}" for i in (3, 5, 6, 7, 8, 9)]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="nothing"),
        pytest.param("/", id="only a slash"),
        pytest.param("/etc/passwd", id="absolute"),
        pytest.param("runs/", id="ends in a slash"),
        pytest.param("runs//a", id="an empty segment"),
        pytest.param(".", id="one dot"),
        pytest.param("..", id="two dots"),
        pytest.param("../a", id="out of the store"),
        pytest.param("runs/../../a", id="out of the store, further in"),
        pytest.param("runs/./a", id="one dot as a segment"),
        pytest.param(".locks/0001", id="a leading dot"),
        pytest.param("runs/.new", id="a leading dot further in"),
        pytest.param("runs/a b", id="a space"),
        pytest.param("runs/a\n", id="a newline at the end"),
        pytest.param("runs/a\0", id="a null"),
        pytest.param("runs\\a", id="a backslash"),
        pytest.param("runs/é", id="a letter that is none of ASCII's"),
        pytest.param("runs/٣", id="a digit that is none of ASCII's"),
        pytest.param("runs/" + "a" * 256, id="a segment of 256"),
        pytest.param("/".join(["a" * 204] * 5) + "/", id="1,025 in all"),
    ],
)
def test_what_cannot_be_a_key_is_a_value_error(store, key):
    for call in (store.get, store.delete, lambda k: store.put(k, b"x", expect=None)):
        with pytest.raises(ValueError, match="cannot name an object; allowed are"):
            call(key)
    assert list(store.list("")) == []


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("a" * 255, id="a segment of 255"),
        pytest.param("/".join(["a" * 204] * 5), id="1,024 in all"),
        pytest.param("a.b..c/d.", id="dots that do not lead"),
        pytest.param("$run/Name[7]/-x/_y/A9", id="every other character"),
    ],
)
def test_what_can_be_a_key_is_one(store, key):
    version = store.put(key, b"x", expect=None)
    assert store.get(key) == (b"x", version)
    assert list(store.list(key)) == [key]
    store.delete(key)
    assert store.get(key) is None


def test_increments_by_many_threads_are_all_counted(store, rounds):
    store.put("n", b"0", expect=None)
    seen = [[] for _ in range(8)]

    def count(number):
        for _ in range(rounds):
            while True:
                data, version = store.get("n")
                try:
                    seen[number].append(store.put("n", str(int(data) + 1).encode(), expect=version))
                    break
                except VersionConflict:
                    continue

    in_threads(8, count)
    assert store.get("n")[0] == str(8 * rounds).encode()
    assert len({version for versions in seen for version in versions}) == 8 * rounds


def test_of_many_that_create_a_key_one_wins(store):
    for attempt in range(10):
        won = []

        def create(number, key=f"runs/{attempt}", won=won):
            with suppress(VersionConflict):
                won.append((str(number).encode(), store.put(key, str(number).encode(), expect=None)))

        in_threads(8, create)
        assert [store.get(f"runs/{attempt}")] == won


def test_threads_that_write_different_keys_do_not_meet(store):
    def write(number):
        version = None
        for n in range(20):
            version = store.put(f"runs/{number}", str(n).encode(), expect=version)

    in_threads(8, write)
    assert {key: store.get(key)[0] for key in store.list("")} == {f"runs/{n}": b"19" for n in range(8)}


def test_a_reader_never_sees_half_a_content_nor_a_version_that_belongs_to_another(store):
    contents = [json.dumps({"n": n, "fill": "x" * size}).encode() for n, size in enumerate((0, 90_000, 7, 5_000))]
    written = {store.put("k", contents[0], expect=None): contents[0]}
    done, seen = Event(), {}

    def read(_):
        while not done.is_set():
            data, version = store.get("k")
            assert seen.setdefault(version, data) == data

    def write(_):
        try:
            version = next(iter(written))
            for n in range(1, 100_000):
                version = store.put("k", contents[n % 4], expect=version)
                written[version] = contents[n % 4]
                if n >= 200 and len(seen) >= 20:
                    break
        finally:
            done.set()

    in_threads(3, lambda number: write(number) if number == 0 else read(number))
    assert len(seen) >= 20
    assert {version: written[version] for version in seen} == seen


def test_versions_of_a_key_are_all_different_however_fast_it_is_written(store):
    versions = [None]
    for n in range(300):
        versions.append(store.put("k", str(n % 2).encode(), expect=versions[-1]))
    assert len(set(versions)) == 301
    assert all(a != b for a, b in pairwise(versions))


# ---- CreatingStore ------------------------------------------------------------------------------------


def test_only_these_stores_create_several_objects_together(store, request):
    assert isinstance(store, CreatingStore) == (request.node.callspec.params["store"] in map(ADAPTERS.get, CREATING))


def test_what_is_created_together_is_there_with_the_versions_that_are_told(creating):
    store = creating
    objects = {"open/a": b"", "runs/a.json": b"{}"}
    versions = store.create_all(objects)
    assert {key: store.get(key) for key in objects} == {key: (objects[key], versions[key]) for key in objects}
    for there in objects:
        with pytest.raises(VersionConflict):
            store.create_all({"b": b"new", there: b"again"})
        assert store.get(there) == (objects[there], versions[there])
    version = store.put("runs/a.json", b"[]", expect=versions["runs/a.json"])
    assert store.get("runs/a.json") == (b"[]", version) != (b"[]", versions["runs/a.json"])
    for key in objects:
        store.delete(key)
        assert store.get(key) is None
    again = store.create_all(objects)
    assert not set(again.values()) & set(versions.values())


# ---- Timed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CREATING)
def test_it_tells_when_a_key_was_written_last(name, request):
    store = ADAPTERS[name](request)
    assert isinstance(store, Timed)
    assert store.written_at("runs/a") is None
    before_s = time() - 1
    version = store.put("runs/a", b"1", expect=None)
    first_s = store.written_at("runs/a")
    assert before_s <= first_s <= time() + 1
    store.put("runs/a", b"2", expect=version)
    assert store.written_at("runs/a") >= first_s
    assert store.written_at("runs/a/b") is None
    store.delete("runs/a")
    assert store.written_at("runs/a") is None


# ---- ChangingStore ------------------------------------------------------------------------------------


def test_only_these_stores_change_a_part_of_an_object(store, request):
    assert isinstance(store, ChangingStore) == (request.node.callspec.params["store"] in map(ADAPTERS.get, CHANGING))


@pytest.mark.parametrize(
    ("before", "members", "after"),
    [
        pytest.param(b"{}", {}, b"{}\n", id="nothing"),
        pytest.param(b"{}", {"a": b"1"}, b'{"a": 1}\n', id="the first"),
        pytest.param(b'{"b": 1}\n', {"a": b"2"}, b'{"b": 1,\n"a": 2}\n', id="a new one comes behind"),
        pytest.param(
            b'{"c": 1,\n"a": 2,\n"b": 3}\n',
            {"b": b"null", "c": b'{"x":[1]}'},
            b'{"c": {"x":[1]},\n"a": 2,\n"b": null}\n',
            id="each in its place",
        ),
        pytest.param(
            b' {\n  "$run" : {"a" :1},\n\n "B": [ ]\n}',
            {"B": b'" "'},
            b'{"$run": {"a" :1},\n"B": " "}\n',
            id="spaces of a person",
        ),
        pytest.param(
            b'{"\\u00e9\\n": 1}', {"é\n": b"2", '"': b"3"}, '{"é\\n": 2,\n"\\"": 3}\n'.encode(), id="odd names"
        ),
        pytest.param(b'{"a": 1}', {"a": b'{"x":\n"y"}'}, b'{"a": {"x":\n"y"}}\n', id="JSON of two lines"),
    ],
)
def test_a_change_replaces_members_and_adds_new_ones(changing, before, members, after):
    first = changing.put("runs/k", before, expect=None)
    second = changing.change("runs/k", members, expect=first)
    assert second != first
    assert changing.get("runs/k") == (after, second)
    assert list(changing.list("")) == ["runs/k"]


def test_many_changes_are_seen_each_at_once_and_have_versions_of_their_own(changing):
    held = {f"n{n}": "x" * 1000 for n in range(100)}
    versions = [changing.put("k", document(held), expect=None)]
    for n in range(900):
        held[f"n{n % 113}"] = str(n)
        versions.append(changing.change("k", {f"n{n % 113}": json.dumps(str(n)).encode()}, expect=versions[-1]))
        if not n % 9:
            assert changing.get("k") == (document(held), versions[-1])
    assert changing.get("k") == (document(held), versions[-1])
    assert len(set(versions)) == 901


def document(members):
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members.items())
    return f"{{{lines}}}\n".encode()


def test_a_stale_version_cannot_be_changed_nor_put(changing):
    first = changing.put("k", b'{"a": 1}', expect=None)
    second = changing.change("k", {"a": b"2"}, expect=first)
    for stale in (first, "", "7"):
        with pytest.raises(VersionConflict, match=f"^k: version is {second}; expected {stale}$"):
            changing.change("k", {"a": b"3"}, expect=stale)
        with pytest.raises(VersionConflict, match=f"^k: version is {second}; expected {stale}$"):
            changing.put("k", b"3", expect=stale)
    with pytest.raises(VersionConflict):
        changing.put("k", b"3", expect=None)
    assert changing.get("k") == (b'{"a": 2}\n', second)


def test_what_there_is_not_cannot_be_changed(changing):
    with pytest.raises(VersionConflict, match=r"^k: version is None; expected 7$"):
        changing.change("k", {"a": b"1"}, expect="7")
    assert changing.get("k") is None
    assert list(changing.list("")) == []
    with pytest.raises(ValueError, match="cannot name an object"):
        changing.change("../k", {}, expect="7")


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'{"a": 1', b'{"a": 1} x', b"\xff"])
def test_what_is_no_json_object_cannot_be_changed(changing, content):
    version = changing.put("k", content, expect=None)
    with pytest.raises(ValueError, match=r"^k: is no JSON object, so that no member of it can be changed: "):
        changing.change("k", {"a": b"1"}, expect=version)
    assert changing.get("k") == (content, version)


def test_changes_and_puts_and_deletes_follow_each_other(changing):
    versions = [changing.put("k", b'{"a": 1}', expect=None)]
    for n in range(5):
        versions.append(changing.change("k", {"a": b"2"}, expect=versions[-1]))
        versions.append(changing.put("k", b'{"b": %d}' % n, expect=versions[-1]))
        versions.append(changing.change("k", {"c": b"3"}, expect=versions[-1]))
        assert changing.get("k") == (b'{"b": %d,\n"c": 3}\n' % n, versions[-1])
        changing.delete("k")
        assert changing.get("k") is None
        with pytest.raises(VersionConflict):
            changing.change("k", {"a": b"2"}, expect=versions[-1])
        versions.append(changing.put("k", b'{"a": 1}', expect=None))
        assert changing.get("k") == (b'{"a": 1}', versions[-1])
    assert len(set(versions)) == len(versions)


def test_changes_by_many_threads_are_all_counted(changing):
    changing.put("k", b'{"n": 0}', expect=None)
    seen = [[] for _ in range(8)]

    def count(number):
        for _ in range(50):
            while True:
                data, version = changing.get("k")
                n = json.loads(data)["n"] + 1
                try:
                    if n % 10 == 7:
                        seen[number].append(changing.put("k", b'{"n": %d}' % n, expect=version))
                    else:
                        seen[number].append(changing.change("k", {"n": b"%d" % n}, expect=version))
                    break
                except VersionConflict:
                    continue

    in_threads(8, count)
    assert json.loads(changing.get("k")[0]) == {"n": 400}
    assert len({version for versions in seen for version in versions}) == 400


@pytest.mark.parametrize(
    "sentence",
    [
        test_create_only_loses_if_the_key_exists,
        test_an_expected_version_loses_if_the_key_does_not_exist,
        test_the_second_writer_with_a_stale_version_loses,
        test_a_content_that_comes_back_has_a_new_version,
        test_a_key_that_comes_back_does_not_revive_its_old_versions,
        lambda store: test_increments_by_many_threads_are_all_counted(store, 5),
        test_of_many_that_create_a_key_one_wins,
    ],
)
def test_an_emulator_that_ignores_preconditions_breaks_the_sentences_on_compare_and_swap(sentence, monkeypatch):
    with StorageServer(ignore_preconditions=True, buckets=("b",)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        store = GcsStore("b")
        test_get_returns_what_was_put_and_its_version(store, b"one")  # all else is as it should be
        store.delete("k")
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            sentence(store)
