"""CloudTasks: what it asks of the service, what it makes of the answers; and the service's double."""

import json
import time
from base64 import urlsafe_b64decode
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from orchestrator.model.errors import SettingsError
from orchestrator.services.cloud_tasks import MAX_AHEAD, CloudTasks, task_id_of
from orchestrator.services.google_api import ApiError, GoogleApis
from tests.support.cloud_tasks_server import CloudTasksServer

QUEUE = "projects/demo/locations/europe-west1/queues/launches"
KEY = "orch-load-1-5c1e9f0b2a475c1e9f0b2a47"
TASK_ID = "b38ba8a116d444f5fbef937d-" + KEY  # printf %s "$KEY" | sha256sum
URL = "https://load-x-ew.a.run.app/?orchestrator_launch=run_1%2FLoad%2F1"
T0 = datetime(2026, 1, 1, 12, 0, 0, 250_000, tzinfo=UTC)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server():
    """A queue in which tasks wait."""
    with CloudTasksServer(clock=lambda: T0, paused=True) as server:
        yield server


@pytest.fixture
def tasks(server):
    return CloudTasks(GoogleApis(server.environment), QUEUE)


def call(**more):
    return {"url": URL, "headers": JSON, "body": b"{}", **more}


def test_a_task_is_created_with_all_that_the_request_is_made_of(server, tasks):
    created = tasks.create(
        KEY,
        url=URL,
        headers={"Content-Type": "application/json", "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-01-01"},
        body=b'{"day":"2026-01-01"}',
        at=T0 + timedelta(seconds=30),
        dispatch_deadline_s=1800.0,
        oidc=("invoker@demo.iam.gserviceaccount.com", "https://load-x-ew.a.run.app"),
        oauth=None,
    )
    assert created is True
    (made,) = server.calls
    assert (made.method, made.path) == ("POST", f"/v2/{QUEUE}/tasks")
    assert made.body == {
        "task": {
            "name": f"{QUEUE}/tasks/{TASK_ID}",
            "scheduleTime": "2026-01-01T12:00:30.250000Z",
            "dispatchDeadline": "1800s",
            "httpRequest": {
                "url": URL,
                "httpMethod": "POST",
                "headers": {
                    "Content-Type": "application/json",
                    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-01-01",
                },
                "body": "eyJkYXkiOiIyMDI2LTAxLTAxIn0=",
                "oidcToken": {
                    "serviceAccountEmail": "invoker@demo.iam.gserviceaccount.com",
                    "audience": "https://load-x-ew.a.run.app",
                },
            },
        },
        "responseView": "BASIC",
    }


def test_a_task_without_name_time_deadline_and_body_leaves_them_to_the_service(server, tasks):
    name = tasks.add(None, url=URL, headers={}, body=b"", oauth="publisher@demo.iam.gserviceaccount.com")
    assert server.calls[0].body == {
        "task": {
            "httpRequest": {
                "url": URL,
                "httpMethod": "POST",
                "headers": {},
                "oauthToken": {"serviceAccountEmail": "publisher@demo.iam.gserviceaccount.com"},
            },
        },
        "responseView": "BASIC",
    }
    assert list(server.tasks) == [name]
    assert tasks.create(None, **call()) is True
    assert tasks.create(None, **call()) is True
    assert len(server.tasks) == 3


@pytest.mark.parametrize(
    ("deadline_s", "expected"),
    [
        pytest.param(15, "15s", id="the shortest"),
        pytest.param(600.0, "600s", id="zeros of the whole part stay"),
        pytest.param(20.5, "20.5s", id="a half"),
        pytest.param(20.12345, "20.123s", id="milliseconds are the service's finest"),
    ],
)
def test_a_deadline_is_written_as_a_duration(server, tasks, deadline_s, expected):
    tasks.create(None, **call(dispatch_deadline_s=deadline_s))
    assert server.calls[0].body["task"]["dispatchDeadline"] == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param({"dispatch_deadline_s": 14.9}, r"dispatch_deadline_s: is 14\.9", id="deadline too short"),
        pytest.param({"dispatch_deadline_s": 1800.1}, r"dispatch_deadline_s: is 1800\.1", id="deadline too long"),
        pytest.param({"at": datetime(2026, 1, 1)}, "has no time zone", id="naive time"),
    ],
)
def test_what_the_service_cannot_be_asked_is_not_asked(server, tasks, wrong, message):
    with pytest.raises(ValueError, match=message):
        tasks.create(None, **call(**wrong))
    assert server.calls == []


@pytest.mark.parametrize("key", ["", "a/b", "a.b", "ä", "a" * 476, "a\n"])
def test_a_key_that_is_no_part_of_a_task_id_is_refused(server, tasks, key):
    with pytest.raises(ValueError, match="is no part of a task id"):
        tasks.create(key, **call())
    assert server.calls == []


def test_the_longest_key_makes_the_longest_task_id(tasks):
    assert len(task_id_of("a" * 475)) == 500
    assert tasks.create("a" * 475, **call()) is True


@pytest.mark.parametrize(
    "queue",
    [
        pytest.param("launches", id="the name alone"),
        pytest.param(f"{QUEUE}/tasks/x", id="a task"),
        pytest.param(f"/{QUEUE}", id="a slash before it"),
        pytest.param("", id="empty"),
    ],
)
def test_a_queue_is_a_full_name(queue):
    with pytest.raises(SettingsError, match="allowed is projects/P/locations/R/queues/Q"):
        CloudTasks(GoogleApis({}), queue)


def test_a_project_may_have_a_domain():
    CloudTasks(GoogleApis({}), "projects/example.com:demo-1/locations/europe-west1/queues/q")


def test_a_key_makes_one_task_ever(server, tasks):
    assert tasks.create(KEY, **call()) is True
    assert tasks.create(KEY, **call()) is False
    server.run(f"{QUEUE}/tasks/{TASK_ID}")
    assert tasks.create(KEY, **call()) is False
    assert tasks.create(f"{KEY}0", **call()) is True
    with pytest.raises(ApiError) as caught:
        tasks.add(KEY, **call())
    assert caught.value.status == 409


def test_a_task_exists_until_it_is_deleted_or_done(server, tasks):
    assert not tasks.exists(KEY)
    tasks.create(KEY, **call())
    tasks.create("other", **call())
    assert tasks.exists(KEY)
    tasks.delete(KEY)
    assert not tasks.exists(KEY)
    assert tasks.exists("other")
    server.run(f"{QUEUE}/tasks/{task_id_of('other')}")
    assert not tasks.exists("other")


def test_how_often_a_task_was_sent_is_told_while_it_is_in_the_queue(server, tasks):
    assert tasks.dispatches(KEY) is None
    tasks.create(KEY, **call())
    assert tasks.dispatches(KEY) == 0
    assert [tasks.delete(KEY), tasks.delete(KEY)] == [True, False]
    assert tasks.dispatches(KEY) is None


def test_what_is_not_there_may_be_deleted(server, tasks):
    tasks.delete(KEY)
    tasks.create(KEY, **call())
    tasks.delete(KEY)
    tasks.delete(KEY)
    assert [made.status for made in server.calls] == [404, 200, 200, 404]
    assert tasks.create(KEY, **call()) is False  # the name stays used


@pytest.mark.parametrize(
    ("ahead", "is_taken"),
    [
        pytest.param(MAX_AHEAD, True, id="30 days"),
        pytest.param(MAX_AHEAD + timedelta(seconds=1), False, id="a second more"),
    ],
)
def test_the_service_takes_what_is_at_most_30_days_ahead(server, tasks, ahead, is_taken):
    if is_taken:
        assert tasks.create(KEY, **call(at=T0 + ahead)) is True
    else:
        with pytest.raises(ApiError, match="too far in the future") as caught:
            tasks.create(KEY, **call(at=T0 + ahead))
        assert (caught.value.status, caught.value.is_passing) == (400, False)


def test_errors_are_api_errors_that_name_the_call_and_the_task(server, tasks):
    for method, ask in [
        ("POST", lambda: tasks.create(KEY, **call())),
        ("GET", lambda: tasks.exists(KEY)),
        ("DELETE", lambda: tasks.delete(KEY)),
    ]:
        server.fail(method, 503, applied=False)
        with pytest.raises(ApiError, match=rf"^cloudtasks\.tasks\.\w+ {QUEUE}/tasks/{TASK_ID}: 503: ") as caught:
            ask()
        assert (caught.value.status, caught.value.is_passing) == (503, True)
    assert server.tasks == {}


def test_an_uncertain_creation_is_cleared_up_by_the_same_key(server, tasks):
    server.fail("POST", 503, applied=True)
    with pytest.raises(ApiError):
        tasks.create(KEY, **call())
    assert tasks.create(KEY, **call()) is False
    assert len(server.tasks) == 1


def test_a_lost_answer_makes_no_second_task_under_a_key(server, tasks):
    server.fail("POST", None, applied=True)  # the HTTP client asks again by itself
    assert tasks.create(KEY, **call()) is False
    assert len(server.tasks) == 1


def test_without_a_service_the_error_has_no_status():
    tasks = CloudTasks(GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDTASKS": "http://127.0.0.1:9/"}), QUEUE)
    with pytest.raises(ApiError, match="no answer") as caught:
        tasks.create(KEY, **call())
    assert (caught.value.status, caught.value.is_passing) == (None, True)


# ---- the double itself: what tests of others rely on


class Worker:
    """An HTTP server that notes what it is sent."""

    def __init__(self):
        self.requests, self.status, self.gate = [], 200, Event()
        self.gate.set()
        worker = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                worker.requests.append((self.path, dict(self.headers), body))
                worker.gate.wait(5)
                self.send_response(worker.status)
                self.end_headers()

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.block_on_close = True, False
        self.url = f"http://127.0.0.1:{self.http.server_port}/load?launch=1"
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.gate.set()
    worker.http.shutdown()
    worker.http.server_close()


def test_a_task_makes_its_request_at_its_time(worker):
    with CloudTasksServer() as server:
        tasks, at = CloudTasks(GoogleApis(server.environment), QUEUE), datetime.now(UTC) + timedelta(seconds=0.2)
        headers = {"Content-Type": "text/plain", "traceparent": "00-ab-cd-01", "Host": "x", "User-Agent": "y"}
        oidc = ("invoker@demo.iam.gserviceaccount.com", "https://worker")
        tasks.create(KEY, url=worker.url, headers=headers, body=b"\x00\xff", at=at, oidc=oidc)
        (dispatch,) = server.wait_for_dispatches(1)
        assert dispatch.at >= at
        assert (dispatch.task_name, dispatch.status, dispatch.error) == (f"{QUEUE}/tasks/{TASK_ID}", 200, None)
    ((path, sent, body),) = worker.requests
    assert (path, body) == ("/load?launch=1", b"\x00\xff")
    claims = sent.pop("Authorization").removeprefix("Bearer ").split(".")[1]
    assert json.loads(urlsafe_b64decode(claims + "==")) == {"email": oidc[0], "aud": oidc[1]}
    assert float(sent.pop("X-CloudTasks-TaskETA")) == pytest.approx(at.timestamp(), abs=1e-5)
    assert {name: value for name, value in sent.items() if name not in ("Host", "Accept-Encoding")} == {
        "Content-Type": "text/plain",
        "traceparent": "00-ab-cd-01",
        "Content-Length": "2",
        "User-Agent": "Google-Cloud-Tasks",
        "X-CloudTasks-QueueName": "launches",
        "X-CloudTasks-TaskName": TASK_ID,
        "X-CloudTasks-TaskRetryCount": "0",
        "X-CloudTasks-TaskExecutionCount": "0",
    }
    assert sent["Host"].startswith("127.0.0.1:")


def test_a_request_that_failed_is_not_made_again(worker):
    worker.status = 500
    with CloudTasksServer() as server:
        tasks = CloudTasks(GoogleApis(server.environment), QUEUE)
        tasks.create(KEY, **call(url=worker.url))
        (dispatch,) = server.wait_for_dispatches(1)
        assert (dispatch.status, server.tasks) == (500, {})
        time.sleep(0.1)
    assert len(worker.requests) == 1


def test_a_worker_that_misses_the_deadline_has_failed(worker):
    worker.gate.clear()
    with CloudTasksServer(deadline_scale=0.01) as server:
        tasks = CloudTasks(GoogleApis(server.environment), QUEUE)
        tasks.create(KEY, **call(url=worker.url, dispatch_deadline_s=15.0))
        while not worker.requests:
            time.sleep(0.001)
        assert tasks.exists(KEY)  # while it is under way
        assert tasks.dispatches(KEY) == 1
        (dispatch,) = server.wait_for_dispatches(1)
        assert (dispatch.status, dispatch.error[:24]) == (None, "DEADLINE_EXCEEDED after ")
        assert not tasks.exists(KEY)


def test_other_machines_are_never_called(server, tasks):
    tasks.create(KEY, **call())
    dispatch = server.run(f"{QUEUE}/tasks/{TASK_ID}")
    assert dispatch.error == "https://load-x-ew.a.run.app is not called: it is not on this machine"
