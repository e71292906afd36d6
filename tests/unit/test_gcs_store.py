"""GcsStore against the repository's own Cloud Storage: how many requests it makes, and what comes of bad answers."""

import logging
import time
from threading import Barrier, Thread

import pytest
from google.api_core.exceptions import NotFound

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores import gcs
from orchestrator.stores.gcs import GcsStore, open_client
from tests.support.storage_server import StorageServer, of


@pytest.fixture
def server(monkeypatch):
    with StorageServer(buckets=("b",), page_size=3) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        monkeypatch.setattr(gcs, "_FIRST_BACKOFF_S", 0.01)
        yield running


@pytest.fixture
def store(server):
    return GcsStore("b")


CALLS = {
    "get": lambda store: store.get("runs/a.json"),
    "put": lambda store: store.put("runs/a.json", b"x", expect=None),
    "list": lambda store: list(store.list("runs/")),
    "delete": lambda store: store.delete("runs/a.json"),
}


def kinds(server):
    return [call.kind for call in server.calls]


def test_nothing_is_asked_for_before_the_first_call(server, monkeypatch):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere")
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    GcsStore("b")
    assert server.calls == []


def test_a_get_and_a_put_are_one_request_each(server, store):
    assert store.get("runs/a.json") is None
    first = store.put("runs/a.json", b"one", expect=None)
    assert store.get("runs/a.json") == (b"one", first)
    second = store.put("runs/a.json", b"two", expect=first)
    store.delete("runs/a.json")
    assert second != first
    assert kinds(server) == ["read", "write", "read", "write", "delete"]
    assert (store.reads, store.writes) == (2, 3)
    assert (server.reads, server.writes) == ({"runs/a.json": 2}, {"runs/a.json": 3})


def test_the_version_is_the_generation(server, store):
    version = store.put("k", b"x", expect=None)
    assert version == str(server.stored("b", "k").generation)
    assert [call.query["ifGenerationMatch"] for call in server.calls] == ["0"]
    store.put("k", b"y", expect=version)
    assert server.calls[-1].query["ifGenerationMatch"] == version


@pytest.mark.parametrize(
    ("key", "content_type"),
    [
        pytest.param("runs/a.json", "application/json", id="a console shows it"),
        pytest.param("open/a", "application/octet-stream", id="a marker"),
    ],
)
def test_an_object_has_a_content_type_a_checksum_and_is_not_cached(server, store, key, content_type):
    store.put(key, b"{}", expect=None)
    made = server.stored("b", key)
    assert (made.content_type, made.metadata["cacheControl"]) == (content_type, "no-store")
    assert made.metadata["crc32c"] == made.crc32c


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param("0", id="which would mean that there is no object"),
        pytest.param("", id="empty"),
        pytest.param("-1", id="negative"),
        pytest.param("1.5", id="no integer"),
        pytest.param("٣", id="a digit that int() takes"),
        pytest.param(" 1", id="a space that int() takes"),
        pytest.param("9" * 19, id="more than 64 bits"),
        pytest.param("9" * 5000, id="more than int() takes"),
    ],
)
def test_a_version_that_no_object_can_have_is_a_conflict_without_a_request(server, store, stale):
    with pytest.raises(VersionConflict, match=r"^k: version is another one; expected "):
        store.put("k", b"x", expect=stale)
    assert server.calls == []


def test_a_listing_comes_in_pages(server, store):
    for n in range(8):
        server.write("b", f"runs/{n}", b"x")
    assert list(store.list("runs/")) == [f"runs/{n}" for n in range(8)]
    assert kinds(server) == ["list"] * 3
    assert store.reads == 3
    assert list(store.list("runs/", start_after="runs/5")) == ["runs/6", "runs/7"]
    assert server.calls[-1].query["startOffset"] == "runs/5"
    assert len(server.calls) == 4


def test_a_listing_asks_for_a_page_when_its_turn_comes(server, store):
    for n in range(8):
        server.write("b", f"runs/{n}", b"x")
    listing = store.list("runs/")
    assert [next(listing) for _ in range(3)] == ["runs/0", "runs/1", "runs/2"]
    assert len(server.calls) == 1


def test_a_listing_can_tell_when_each_was_written_last(server, store):
    begun_s = time.time()
    for key in ("runs/a", "runs/b", "runs/c", "runs/d"):
        store.put(key, b"x", expect=None)
    store.put("runs/a", b"y", expect=store.get("runs/a")[1])
    found = list(store.list_dated("runs/", start_after=""))
    assert [key for key, _ in found] == list(store.list("runs/"))
    times = dict(found)
    assert all(begun_s - 1 <= at <= time.time() + 1 for at in times.values())
    assert times["runs/b"] <= times["runs/c"] <= times["runs/d"] <= times["runs/a"]


def test_names_that_are_no_keys_are_not_listed(server, store):
    for name in ("runs/", "runs/a", "runs/.b", "runs/c d", "runs//e"):
        server.write("b", name, b"x")
    assert list(store.list("runs")) == ["runs/a"]


def test_a_prefix_is_a_store_of_its_own(server):
    store, other = GcsStore("b", prefix="/team/one/"), GcsStore("b", prefix="team/one-more")
    assert (store.bucket_url(), GcsStore("b").bucket_url()) == ("gs://b/team/one", "gs://b")
    version = store.put("runs/a", b"x", expect=None)
    other.put("runs/b", b"x", expect=None)
    assert server.stored("b", "team/one/runs/a").data == b"x"
    assert store.get("runs/a") == (b"x", version)
    assert (list(store.list("")), list(other.list("run"))) == (["runs/a"], ["runs/b"])
    assert list(store.list("runs/", start_after="runs/a")) == []
    store.delete("runs/a")
    assert list(GcsStore("b").list("")) == ["team/one-more/runs/b"]
    with pytest.raises(ValueError, match="1024 characters"):
        store.get("/".join(["a" * 204] * 5))
    with pytest.raises(ValueError, match="cannot name an object"):
        GcsStore("b", prefix="../x")


@pytest.mark.parametrize(
    ("call", "status"),
    [(call, status) for call in CALLS for status in (429, 503)] + [("get", status) for status in (408, 500, 502, 504)],
)
def test_what_passes_is_tried_again(server, store, call, status):
    server.add_fault(lambda _: True, times=2, status=status)
    CALLS[call](store)
    assert len(server.calls) == 3
    assert store.reads + store.writes == 3


def test_a_connection_that_breaks_is_tried_again_from_the_start(server, store):
    generation = server.write("b", "k", b"x" * 100_000)
    server.add_fault(of("read"), status=0, cut=50_000)
    server.add_fault(of("list"), status=0, cut=10)
    assert store.get("k") == (b"x" * 100_000, str(generation))
    assert list(store.list("")) == ["k"]
    assert kinds(server) == ["read", "read", "list", "list"]
    assert [call.headers.get("range") for call in server.calls] == [None] * 4


def test_a_put_whose_answer_is_lost_on_the_way_is_a_conflict_though_it_is_ours(server, store):
    server.add_fault(of("write"), status=0, cut=0)
    with pytest.raises(VersionConflict):
        store.put("k", b"ours", expect=None)
    assert server.stored("b", "k").data == b"ours"


def test_a_put_that_was_carried_out_but_answered_503_is_a_conflict_though_it_is_ours(server, store):
    server.add_fault(of("write"), is_applied=True)
    with pytest.raises(VersionConflict, match=r"^k: version is another one; expected None$"):
        store.put("k", b"ours", expect=None)
    assert store.get("k")[0] == b"ours"
    assert kinds(server) == ["write", "write", "read"]  # no reading back inside of put


def test_a_delete_that_was_carried_out_but_answered_503_is_done(server, store):
    server.write("b", "k", b"x")
    server.add_fault(of("delete"), is_applied=True)
    store.delete("k")
    assert store.get("k") is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (CALLS["get"], "/runs/a.json: cannot be read: 429 slow down, given up after 0.2 s; an object takes one write"),
        (CALLS["put"], "/runs/a.json: cannot be written: 429 slow down, given up after 0.2 s; an object takes one"),
        (CALLS["list"], "/runs/: cannot be listed: 429 slow down, given up after 0.2 s; an object takes one write"),
        (CALLS["delete"], "/runs/a.json: cannot be deleted: 429 slow down, given up after 0.2 s; an object takes"),
    ],
    ids=CALLS.keys(),
)
def test_what_does_not_pass_in_time_is_unavailable(server, call, says):
    server.add_fault(lambda _: True, times=1000, status=429, message="slow down")
    with pytest.raises(StoreUnavailable, match=f"^gs://b{says}") as caught:
        call(GcsStore("b", deadline_s=0.2))
    assert caught.value.retry
    assert len(server.calls) > 2


def test_a_service_that_does_not_answer_is_unavailable_in_time(server):
    server.add_fault(lambda _: True, times=1000, status=0, delay_s=1.5)
    store = GcsStore("b", deadline_s=0.4)
    with pytest.raises(StoreUnavailable, match=r"cannot be written: .*timed out.* it may have been, all the same$"):
        store.put("k", b"x", expect=None)
    assert store.writes > 1


def test_a_service_that_is_not_there_is_unavailable(monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable, match=r"^gs://b/k: cannot be read: .*Connection refused"):
        GcsStore("b", deadline_s=0.2).get("k")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_missing_bucket_is_said_at_once(server, call):
    with pytest.raises(StoreUnavailable, match=r"^gs://none/.*404 The specified bucket does not exist\.; the bucket "):
        call(GcsStore("none"))
    assert len(server.calls) == 1


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_missing_permission_is_said_at_once(server, store, call):
    says = "x@y.iam.gserviceaccount.com does not have storage.objects.get access."
    server.add_fault(lambda _: True, status=403, message=says)
    with pytest.raises(StoreUnavailable, match=rf"^gs://b/.*: 403 {says}; .* role roles/storage\.objectUser"):
        call(store)
    assert len(server.calls) == 1


def test_missing_credentials_are_said(monkeypatch):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nowhere/key.json")
    with pytest.raises(StoreUnavailable, match=r"^gs://b/k: cannot be read: .*/nowhere/key.json .*`gcloud auth "):
        GcsStore("b").get("k")


@pytest.mark.parametrize("host", ["localhost:9023", "127.0.0.1:9023"])
def test_an_emulator_without_a_scheme_is_said(monkeypatch, host):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
    with pytest.raises(StoreUnavailable, match=r"; STORAGE_EMULATOR_HOST must be a URL such as http://localhost:9023$"):
        GcsStore("b").get("k")


def test_a_download_that_breaks_while_another_writes_yields_the_new_content(server, store):
    old = server.write("b", "k", b"old" * 100_000)

    def break_it():
        server.add_fault(of("read"), status=0, cut=200_000, then=lambda: server.write("b", "k", b"new" * 100_000))

    break_it()
    data, version = store.get("k")
    assert data == b"new" * 100_000
    assert version == str(server.stored("b", "k").generation) != str(old)
    break_it()  # why the client's own retry is off: it goes on in the generation that is gone
    with pytest.raises(NotFound):
        open_client().bucket("b").blob("k").download_as_bytes()


def test_a_content_that_does_not_match_its_checksum_is_unavailable(server, store, monkeypatch):
    server.write("b", "k", b"x")
    monkeypatch.setattr("tests.support.storage_server.Stored.crc32c", "AAAAAA==")
    with pytest.raises(StoreUnavailable, match=r"^gs://b/k: cannot be read: .*Checksum mismatch"):
        store.get("k")


def test_an_upload_that_does_not_match_its_checksum_is_not_kept(server, store, monkeypatch):
    monkeypatch.setattr("tests.support.storage_server.Stored.crc32c", "AAAAAA==")
    with pytest.raises(StoreUnavailable, match=r"^gs://b/k: cannot be written: 400 Provided crc32c "):
        store.put("k", b"x", expect=None)
    assert server.stored("b", "k") is None


def test_more_than_8_mib_is_compared_at_its_end_too(server, store):
    data = bytes(range(256)) * 36_000
    version = store.put("k", data, expect=None)
    assert store.get("k") == (data, version)
    assert kinds(server) == ["write", "chunk", "read"]
    server.add_fault(of("chunk"), status=503, then=lambda: server.write("b", "k", b"another's"))
    with pytest.raises(VersionConflict):
        store.put("k", data, expect=version)
    assert store.get("k")[0] == b"another's"


def test_many_threads_work_at_once_on_connections_that_are_kept(server, store, caplog):
    caplog.set_level(logging.WARNING, "urllib3")
    server.write("b", "k", b"x")
    store.get("k")
    before = server.connections
    got = []
    for _ in range(2):
        together = Barrier(64, timeout=60)  # broken, unless all are being answered at once
        server.add_fault(of("read"), times=64, status=0, then=together.wait)
        start = Barrier(64)

        def read(start=start):
            start.wait()
            got.append(store.get("k")[0])

        threads = [Thread(target=read) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert got == [b"x"] * 128
    assert store.reads == 129
    assert server.connections - before <= 64
    assert caplog.text == ""
