"""RedisStore: what lies in the database, and what comes of a server that forgets, refuses or is not there."""

import fakeredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores import redis as redis_store
from orchestrator.stores.redis import RedisStore
from tests.support.redis_server import RedisServer

CALLS = {
    "get": lambda store: store.get("k"),
    "put": lambda store: store.put("k", b"x", expect=None),
    "list": lambda store: list(store.list("")),
    "delete": lambda store: store.delete("k"),
}


@pytest.fixture
def client():
    return fakeredis.FakeRedis(server=fakeredis.FakeServer())


@pytest.fixture
def real():
    """Start a server with these settings."""
    if not RedisServer.is_installed():
        pytest.skip("there is no redis-server on the PATH")
    started = []

    def start(*settings):
        started.append(RedisServer(*settings).__enter__())
        return started[-1]

    yield start
    for server in started:
        server.__exit__()


def test_what_lies_in_the_database(client):
    store = RedisStore(client)
    version = store.put("runs/a", b"\x00\xff\r\n", expect=None)
    assert sorted(client.keys()) == [b"{orchestrator}:keys", b"{orchestrator}:object:runs/a", b"{orchestrator}:version"]
    assert client.hgetall("{orchestrator}:object:runs/a") == {b"data": b"\x00\xff\r\n", b"version": version.encode()}
    assert client.zrange("{orchestrator}:keys", 0, -1, withscores=True) == [(b"runs/a", 0.0)]
    assert client.get("{orchestrator}:version") == version.encode()
    store.delete("runs/a")
    assert client.keys() == [b"{orchestrator}:version"]


def test_a_prefix_is_a_store_of_its_own(client):
    one, two = RedisStore(client, prefix="one:"), RedisStore(client, prefix="two:")
    version = one.put("k", b"1", expect=None)
    two.put("k", b"2", expect=None)
    two.put("l", b"2", expect=None)
    assert (one.get("k"), two.get("k")[0]) == ((b"1", version), b"2")
    assert (list(one.list("")), list(two.list(""))) == (["k"], ["k", "l"])


@pytest.mark.parametrize("prefix", ["", ":", "{a}", "a}"])
def test_a_prefix_that_would_break_the_hash_tag_is_a_value_error(client, prefix):
    with pytest.raises(ValueError, match="cannot be a prefix; allowed is one or more characters, no braces"):
        RedisStore(client, prefix=prefix)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("redis://localhost/0?decode_responses=True", id="a URL"),
        pytest.param(redis.Redis(decode_responses=True), id="a client"),
    ],
)
def test_a_client_that_decodes_is_a_value_error(given):
    with pytest.raises(ValueError, match="objects are bytes, so decode_responses must be off"):
        RedisStore(given)


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port", "localhost:6379"])
def test_what_is_no_redis_url_is_a_value_error(url):
    with pytest.raises(ValueError, match=r"\S"):
        RedisStore(url)


def test_a_listing_comes_in_pages(client, monkeypatch):
    monkeypatch.setattr(redis_store, "_PAGE", 3)
    store = RedisStore(client)
    for n in range(9):
        store.put(f"runs/{n}", b"x", expect=None)
    listing = store.list("runs/", start_after="runs/1")
    assert next(listing) == "runs/2"
    store.delete("runs/8")
    assert list(listing) == [f"runs/{n}" for n in range(3, 8)]


def test_a_version_is_no_lower_than_the_clock_nor_than_the_last_one(client):
    store = RedisStore(client)
    first = store.put("k", b"x", expect=None)
    seconds, microseconds = client.time()
    assert 0 <= seconds * 1_000_000 + microseconds - int(first) < 60_000_000
    ahead = 2**53 - 10  # as after a clock that was set back
    client.set("{orchestrator}:version", ahead)
    assert [store.put(key, b"x", expect=None) for key in "abc"] == [str(ahead + n) for n in (1, 2, 3)]


def test_a_server_that_lost_its_writes_gives_their_versions_to_nobody(real):
    server = real()
    store = RedisStore(server.url)
    lost = [store.put("k", b"x", expect=None)]
    for _ in range(20):
        lost.append(store.put("k", b"x", expect=lost[-1]))
    server.stop()
    server.start()
    assert store.get("k") is None
    new = store.put("k", b"y", expect=None)
    assert new not in lost
    for stale in lost:
        with pytest.raises(VersionConflict):
            store.put("k", b"z", expect=stale)
    assert store.get("k") == (b"y", new)


def test_with_appendfsync_always_a_put_survives_a_crash(real):
    server = real("--appendonly", "yes", "--appendfsync", "always")
    store = RedisStore(server.url)
    version = store.put("runs/a", b"x", expect=None)
    server.stop()
    server.start()
    assert store.get("runs/a") == (b"x", version)
    assert list(store.list("")) == ["runs/a"]
    assert store.put("runs/a", b"y", expect=version) > version


def test_scripts_that_the_server_has_forgotten_are_sent_again(client):
    store = RedisStore(client)
    version = store.put("k", b"x", expect=None)
    client.script_flush()
    assert store.put("k", b"y", expect=version) > version


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (CALLS["get"], ":object:k: cannot be read: "),
        (CALLS["put"], ":object:k: cannot be written: "),
        (CALLS["list"], ":keys: cannot be listed: "),
        (CALLS["delete"], ":object:k: cannot be deleted: "),
    ],
    ids=CALLS.keys(),
)
def test_a_server_that_is_not_there_is_unavailable(call, says):
    store = RedisStore(redis.Redis(port=1, retry=Retry(NoBackoff(), 1)))
    with pytest.raises(
        StoreUnavailable, match=rf"^Redis {{orchestrator}}{says}.*refused.*; the server must run"
    ) as caught:
        call(store)
    assert caught.value.retry


def test_a_store_of_a_url_gives_up_after_a_few_tries():
    with pytest.raises(StoreUnavailable, match=r"; the server must run and be reachable from here$"):
        RedisStore("redis://127.0.0.1:1/0").get("k")


def test_a_wrong_password_and_a_missing_one_are_said(real):
    server = real("--requirepass", "secret")
    with pytest.raises(StoreUnavailable, match=r"; the URL must hold the user and password"):
        RedisStore(f"redis://:wrong@127.0.0.1:{server.port}/0").get("k")
    with pytest.raises(StoreUnavailable, match=r"; the URL must hold the user and password"):
        RedisStore(server.url).get("k")
    assert RedisStore(f"redis://:secret@127.0.0.1:{server.port}/0").get("k") is None


def test_a_full_server_is_said_and_nothing_is_half_written(real):
    server = real("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    store = RedisStore(server.url)
    with pytest.raises(StoreUnavailable, match=r"cannot be written: .*; the server must have more memory, or fewer "):
        _ = [store.put(str(n), b"x" * 100_000, expect=None) for n in range(100)]
    assert 0 < len(list(store.list(""))) < 100
    assert all(store.get(key)[0] == b"x" * 100_000 for key in store.list(""))


def test_another_kind_of_value_under_our_name_is_unavailable(client):
    client.set("{orchestrator}:object:k", b"x")
    for call in (CALLS["get"], CALLS["put"]):
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            call(RedisStore(client))


def test_a_cluster_keeps_a_store_in_one_slot(client):
    store = RedisStore(client, prefix="a store:")
    for key in ("runs/a", "runs/b", "$run[7]"):
        store.put(key, b"x", expect=None)
    names = client.keys()
    assert len(names) == 5
    assert len({key_slot(name) for name in names}) == 1
