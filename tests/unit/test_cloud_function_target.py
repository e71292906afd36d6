"""CloudFunction, CloudFunctionSync and LogSearch: their requests, whom they call, and what they make of answers."""

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import msgspec
import pytest
from google.auth.exceptions import DefaultCredentialsError

from orchestrator.engine.results import Results
from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotYet
from orchestrator.model.ids import execution_id_of as call_id_of
from orchestrator.model.task_result import TaskBegun, begun_object, result_object
from orchestrator.ports import Named
from orchestrator.services.cloud_tasks import CloudTasks
from orchestrator.services.google_api import ApiError, GoogleApis
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_sync import CloudFunctionSync
from orchestrator.targets.cloud_logging import LogSearch
from orchestrator.targets.function_calls import FunctionCalls

PAYLOADS = Path(__file__).parent.parent / "payloads"

NONCE = "9f86d081884c7d659a2feaa0c55ad015"
INVOKER = "invoker@my-project.iam.gserviceaccount.com"
HOME = {"project": "my-project", "region": "europe-west1"}
QUERY = f"orchestrator_launch=run_1_a%2FInit%2F1&orchestrator_nonce={NONCE}"


def launch_of(step=None, parameters=None, *, name="orch-test-1"):
    return Launch("Init", "CloudFunction", name, parameters or {}, step or {}, "sample", "run_1_a", 1, NONCE)


class Queue:
    """Tasks in a list; a name is taken once."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict] = {}
        self.calls: dict[str, int] = {}
        self.error: ApiError | None = None
        self.error_comes_after = False

    def create(self, name_key, **task) -> bool:
        error, self.error = self.error, None
        if error is not None and not self.error_comes_after:
            raise error
        is_new = name_key not in self.tasks
        self.tasks.setdefault(name_key, task)
        if error is not None:
            raise error
        return is_new

    def dispatches(self, name_key) -> int | None:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return self.calls.get(name_key, 0) if name_key in self.tasks else None

    def delete(self, name_key) -> bool:
        return self.tasks.pop(name_key, None) is not None


@pytest.fixture
def queue():
    return Queue()


def nothing(key):
    return None


def id_of(launch):
    return f"{launch.key}/{launch.trace_id}"


def target_of(queue, **settings):
    settings = {**HOME, "invoker_service_account": INVOKER, "results": nothing, **settings}
    return CloudFunction(queue, **settings)


# ---- by way of the queue -----------------------------------------------------------------------------


def test_a_call_is_this_task(queue):
    launch = launch_of(parameters={"day": "2026-11-20", "top": 20})
    execution = target_of(queue).launch(launch)
    assert execution == Execution(id_of(launch), {"task": launch.key})
    (task,) = queue.tasks.values()
    span = task["headers"]["traceparent"].split("-")[2]
    assert len(span) == 16
    assert int(span, 16) > 0
    assert queue.tasks == {
        launch.key: {
            "url": f"https://europe-west1-my-project.cloudfunctions.net/orch-test-1?{QUERY}",
            "headers": {
                "Content-Type": "application/json",
                "traceparent": f"00-{launch.trace_id}-{span}-01",
                "Function-Execution-Id": call_id_of(launch.key),
            },
            "body": b'{"day":"2026-11-20","top":20}',
            "dispatch_deadline_s": 1800.0,
            "oidc": (INVOKER, "https://europe-west1-my-project.cloudfunctions.net/orch-test-1"),
        }
    }


def test_only_the_first_generations_events_do_not_name_their_launch(queue):
    target = target_of(queue, first_generation=("old",))
    assert isinstance(target, Named)
    assert [target.is_named(launch_of(name=name)) for name in ("old", "new")] == [False, True]


@pytest.mark.parametrize(
    ("step", "url", "audience"),
    [
        pytest.param(
            {"project_id": "other", "region": "us-east1"},
            f"https://us-east1-other.cloudfunctions.net/orch-test-1?{QUERY}",
            "https://us-east1-other.cloudfunctions.net/orch-test-1",
            id="the step's own project and region",
        ),
        pytest.param(
            {"url": "https://svc-abc-ew.a.run.app"},
            f"https://svc-abc-ew.a.run.app/?{QUERY}",
            "https://svc-abc-ew.a.run.app",
            id="a Cloud Run service",
        ),
        pytest.param(
            {"url": "https://svc-abc-ew.a.run.app/jobs/x?full=1#part"},
            f"https://svc-abc-ew.a.run.app/jobs/x?full=1&{QUERY}",
            "https://svc-abc-ew.a.run.app",
            id="a path and a query stay; a Cloud Run token is for the origin",
        ),
        pytest.param(
            {"url": "https://r-p.cloudfunctions.net/f/deep?full=1"},
            f"https://r-p.cloudfunctions.net/f/deep?full=1&{QUERY}",
            "https://r-p.cloudfunctions.net/f",
            id="a Cloud Functions token is for the function",
        ),
    ],
)
def test_what_is_called_and_with_a_token_for_whom(queue, step, url, audience):
    target_of(queue).launch(launch_of(step))
    (task,) = queue.tasks.values()
    assert (task["url"], task["oidc"]) == (url, (INVOKER, audience))


def test_an_overridden_url_is_called_without_a_token(queue):
    target_of(queue, url="http://127.0.0.1:9000/{project}/{region}/{target_name}").launch(
        launch_of({"region": "us-east1", "url": "https://svc.a.run.app"})
    )
    (task,) = queue.tasks.values()
    assert (task["url"], task["oidc"]) == (f"http://127.0.0.1:9000/my-project/us-east1/orch-test-1?{QUERY}", None)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://svc.a.run.app/", id="not https"),
        pytest.param("ftp://svc.a.run.app/", id="another scheme"),
        pytest.param("//svc.a.run.app/", id="no scheme"),
        pytest.param("https://example.com/", id="another host"),
        pytest.param("https://run.app/", id="the pattern asks for a name before it"),
        pytest.param("https://evilrun.app/", id="ends alike"),
        pytest.param("https://svc.a.run.app.example.com/", id="begins alike"),
        pytest.param("https://svc.a.run.app@example.com/", id="userinfo that looks like a host"),
        pytest.param("https://user:word@svc.a.run.app/", id="userinfo"),
        pytest.param("https://example.com\\.run.app/", id="a backslash, which some read as a slash"),
        pytest.param("https://example.com#.run.app/", id="a fragment"),
        pytest.param("https://example.com?.run.app/", id="a query"),
        pytest.param("https://svc.a.run.app:8443/", id="another port"),
        pytest.param("https://svc.a.run.app:port/", id="no port"),
        pytest.param("https://svc.a.run.app./", id="a dot at the end"),
        pytest.param("https://ｓvc.a.run.app/", id="another alphabet"),
        pytest.param("https://10.0.0.1/", id="an address"),
        pytest.param("https://[::1]/", id="an IPv6 address"),
        pytest.param("https://[::1.run.app/", id="half of one"),
        pytest.param("https:///path", id="no host"),
        pytest.param("metadata.google.internal", id="no URL"),
    ],
)
def test_a_host_that_is_not_allowed_is_refused(queue, url):
    for target in (target_of(queue), CloudFunctionSync(**HOME, results=nothing, fetch_id_token=lambda audience: "t")):
        with pytest.raises(LaunchRefused) as refused:
            target.launch(launch_of({"url": url}))
        assert refused.value.error_type == "Launch.HostNotAllowed"
        assert "*.run.app" in str(refused.value)
    assert queue.tasks == {}


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("https://api.example.com/", True),
        ("https://API.Example.com:443/", True),
        ("https://a.b.example.com/", True),
        ("https://svc.a.run.app/", False),
        ("https://169.254.169.254/", False),
        ("https://2852039166/", False),
        ("https://0x7f.1/", False),
    ],
)
def test_the_allowed_hosts_are_a_setting_and_an_address_is_never_one(url, is_allowed):
    calls = FunctionCalls(**HOME, allowed_hosts=("*.Example.com", "[0-9]*"))
    if is_allowed:
        assert calls.request(launch_of({"url": url})).audience == f"https://{url[8:-1].lower().removesuffix(':443')}"
        return
    with pytest.raises(LaunchRefused):
        calls.request(launch_of({"url": url}))


def test_a_project_that_makes_no_url_is_refused(queue):
    with pytest.raises(LaunchRefused):
        target_of(queue).launch(launch_of({"project_id": "example.com:project"}))


@pytest.mark.parametrize(
    ("timeout", "deadline_s"), [("10s", 15.0), ("15s", 15.0), ("10m", 600.0), ("30m", 1800.0), ("2h", 1800.0)]
)
def test_the_steps_timeout_is_the_dispatch_deadline_within_the_services_limits(queue, timeout, deadline_s):
    target_of(queue).launch(launch_of({"timeout": timeout}))
    (task,) = queue.tasks.values()
    assert task["dispatch_deadline_s"] == deadline_s


def test_launched_twice_is_one_task(queue):
    target = target_of(queue)
    assert target.launch(launch_of()) == target.launch(launch_of())
    assert len(queue.tasks) == 1


def test_an_uncertain_launch_that_got_through_puts_in_nothing_when_launched_again(queue):
    target = target_of(queue)
    queue.error, queue.error_comes_after = ApiError("cloudtasks.create: 503: try later", 503), True
    with pytest.raises(LaunchUncertain):
        target.launch(launch_of())
    assert target.find(launch_of()).execution_id == id_of(launch_of())  # it waits there
    assert target.launch(launch_of()).execution_id == id_of(launch_of())
    assert len(queue.tasks) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        pytest.param(400, LaunchRefused, id="400: too large, for example"),
        pytest.param(403, LaunchRefused, id="403: no permission on queue or invoker"),
        pytest.param(404, LaunchRefused, id="404: no such queue"),
        pytest.param(429, LaunchUncertain, id="429: not now"),
        pytest.param(500, LaunchUncertain, id="500: who knows"),
        pytest.param(503, LaunchUncertain, id="503: who knows"),
        pytest.param(None, LaunchUncertain, id="no answer: who knows"),
    ],
)
def test_what_a_launch_makes_of_the_queues_answer(queue, status, error):
    queue.error = ApiError("cloudtasks: the service's own words", status)
    with pytest.raises(error, match="the service's own words"):
        target_of(queue).launch(launch_of())


def test_a_launch_without_credentials_is_uncertain_for_they_may_come_back():
    def none():
        raise DefaultCredentialsError("the metadata server did not answer")

    tasks = CloudTasks(GoogleApis({}, credentials=none), "projects/p/locations/r/queues/q")
    with pytest.raises(LaunchUncertain, match="no credentials: the metadata server did not answer"):
        target_of(tasks).launch(launch_of())


# ---- how a call ended --------------------------------------------------------------------------------

ONE, OTHER = Outcome.completed({"rows": 1}), Outcome.failed("Task.Failed", "boom")


@pytest.mark.parametrize(
    ("recorded", "logged", "expected"),
    [
        pytest.param(ONE, OTHER, ONE, id="the function's own record comes first"),
        pytest.param(None, OTHER, OTHER, id="then the logs"),
        pytest.param(None, None, None, id="else nobody knows"),
    ],
)
def test_who_is_asked_how_a_call_ended(queue, recorded, logged, expected):
    asked = []
    launch = launch_of()
    target = target_of(
        queue,
        results=lambda key: asked.append(("results", key)) or recorded,
        logs=lambda trace_id: asked.append(("logs", trace_id)) or logged,
    )
    assert target.outcome(Execution(id_of(launch))) == expected  # the run document keeps the id alone
    assert target.find(launch) == (expected and Execution(id_of(launch), outcome=expected))
    assert asked == [("results", launch.key), *([] if recorded else [("logs", launch.trace_id)])] * 2


@pytest.mark.parametrize("execution_id", ["grcug3cacqj4", "x/y", "", f"x/{'0' * 31}"])
def test_of_an_execution_that_is_not_ours_nobody_is_asked(queue, execution_id):
    target = target_of(queue, results=lambda key: ONE, logs=lambda trace_id: ONE)
    assert target.outcome(Execution(execution_id)) is None


def test_what_the_helper_leaves_in_the_bucket_is_read(queue):
    store, launch = MemoryStore(), launch_of()
    target = target_of(queue, results=Results(store).ask, logs=lambda trace_id: OTHER)
    execution = target.launch(launch)
    assert target.outcome(execution) == OTHER  # it does not use the helper, as far as anybody knows
    store.put(begun_object(launch.key), b"{}", expect=None)
    with pytest.raises(NotYet):
        target.outcome(execution)
    assert target.find(launch) == Execution(execution.execution_id)
    with pytest.raises(LaunchUncertain):
        target.cancel(execution)
    result = b'{"kind": "Completed", "result": {"rows": 1}, "at": "2026-11-20T12:00:00Z"}'
    store.put(result_object(launch.key), result, expect=None)
    assert target.outcome(execution) == ONE
    assert target.find(launch) == Execution(execution.execution_id, outcome=ONE)
    target.cancel(execution)


BEGAN = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REFUSED = Outcome.failed("Task.Conflict", "finished with status 409")


def begun_at(at: datetime | None) -> bytes:
    began = TaskBegun(at=at, instance="load-00001", execution="5bygt74ir3mi", token="t") if at else {}
    return msgspec.json.encode(began)


@pytest.mark.parametrize(
    ("minutes", "began", "logged", "expected"),
    [
        pytest.param(29, BEGAN, OTHER, None, id="while the queue waits for an answer, it is at work"),
        pytest.param(30, BEGAN, OTHER, OTHER, id="then its line in the log tells that it was killed"),
        pytest.param(30, BEGAN, None, None, id="if there is none, it may still be at work"),
        pytest.param(30, BEGAN, REFUSED, None, id="that a second call was refused says nothing of the first"),
        pytest.param(30, BEGAN, LaunchUncertain("no searches left"), None, id="nor does a log that cannot be asked"),
        pytest.param(9999, None, OTHER, None, id="since when is not known"),
    ],
)
def test_a_function_that_was_killed_at_work_is_found_though_its_line_was_lost(queue, minutes, began, logged, expected):
    store, launch = MemoryStore(), launch_of()

    def logs(trace_id):
        if isinstance(logged, Exception):
            raise logged
        return logged

    target = target_of(queue, results=Results(store).ask, logs=logs, now=lambda: BEGAN + timedelta(minutes=minutes))
    store.put(begun_object(launch.key), begun_at(began), expect=None)
    assert target.find(launch) == Execution(id_of(launch), outcome=expected)
    if expected is None:
        with pytest.raises(NotYet, match="still at work"):
            target.outcome(Execution(id_of(launch)))
    else:
        assert target.outcome(Execution(id_of(launch))) == expected


def test_a_call_that_is_under_way_cannot_be_cancelled_one_that_waits_or_is_over_can(queue):
    target, launch = target_of(queue), launch_of()
    execution = target.launch(launch)
    queue.calls[launch.key] = 1
    with pytest.raises(LaunchUncertain, match="runs to its end"):
        target.cancel(execution)
    queue.error = ApiError("503", 503)
    with pytest.raises(LaunchUncertain, match="503"):
        target.cancel(execution)
    queue.calls.clear()
    target.cancel(execution)
    assert queue.tasks == {}
    target.cancel(execution)
    assert not target.can_cancel


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_call_that_begins_while_it_is_taken_back_is_waited_for(queue, has_ended):
    store, launch = MemoryStore(), launch_of()
    target = target_of(queue, results=Results(store).ask)
    execution = target.launch(launch)
    delete = queue.delete

    def begins(key):
        store.put(begun_object(launch.key), b"{}", expect=None)
        if has_ended:
            result = b'{"kind": "Completed", "result": {"rows": 1}, "at": "2026-11-20T12:00:00Z"}'
            store.put(result_object(launch.key), result, expect=None)
        return delete(key)

    queue.delete = begins
    assert not target.withdraw(launch)
    assert queue.tasks == {}
    if has_ended:
        assert target.outcome(execution) == ONE
    else:
        with pytest.raises(LaunchUncertain, match="runs to its end"):
            target.cancel(Execution(execution.execution_id))


def test_a_call_that_begins_while_it_is_cancelled_is_waited_for(queue):
    store, launch = MemoryStore(), launch_of()
    target = target_of(queue, results=Results(store).ask)
    execution = target.launch(launch)
    delete = queue.delete
    queue.delete = lambda key: store.put(begun_object(launch.key), b"{}", expect=None) and delete(key)
    with pytest.raises(LaunchUncertain, match="runs to its end"):
        target.cancel(execution)


def test_a_call_that_waits_in_the_queue_is_taken_back_and_one_under_way_is_not(queue):
    target, launch = target_of(queue), launch_of()
    assert not target.withdraw(launch)
    target.launch(launch)
    queue.calls[launch.key] = 1
    assert not target.withdraw(launch)
    assert list(queue.tasks) == [launch.key]
    queue.calls.clear()
    queue.error = ApiError("503", 503)
    with pytest.raises(LaunchUncertain):
        target.withdraw(launch)
    assert target.withdraw(launch)
    assert queue.tasks == {}


def test_what_waits_or_is_called_by_the_queue_is_found_there(queue):
    target, launch = target_of(queue), launch_of()
    assert target.find(launch) is None
    execution = target.launch(launch)
    assert target.find(launch) == execution
    queue.error = ApiError("403", 403)
    assert target.find(launch) is None


# ---- directly ----------------------------------------------------------------------------------------


@contextmanager
def answering(status=200, body=b"", headers=None, gate=None, requests=None):
    """The URL template of a server that answers everything so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            content = self.rfile.read(int(self.headers["Content-Length"]))
            if requests is not None:
                requests.append((self.path, dict(self.headers), content))
            if gate is not None:
                gate.wait(10)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, address: None  # a caller that did not wait for the answer
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{{target_name}}"
    finally:
        server.shutdown()
        server.server_close()


def sync_of(url=None, **settings):
    return CloudFunctionSync(**HOME, **{"results": nothing, "url": url, **settings})


def test_a_direct_call_is_this_request_and_its_answer_the_outcome():
    requests = []
    with answering(body=b'{"rows": 3}', requests=requests) as url:
        execution = sync_of(url).launch(launch_of(parameters={"day": 1}))
    ((path, headers, body),) = requests
    assert (path, body) == (f"/orch-test-1?{QUERY}", b'{"day":1}')
    assert headers["traceparent"].split("-")[1] == launch_of().trace_id
    assert "Authorization" not in headers
    assert execution == Execution(id_of(launch_of()), {"status": 200}, Outcome.completed({"rows": 3}))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(200, b"", Outcome.completed(), id="no content, no result"),
        pytest.param(201, b"[1, 2]", Outcome.completed([1, 2]), id="any JSON"),
        pytest.param(200, b"OK", Outcome.completed("OK"), id="text that is no JSON"),
        pytest.param(500, b"boom\n there", Outcome.failed("Task.Failed", "HTTP 500: boom there"), id="500"),
        pytest.param(403, b"", Outcome.failed("Task.Failed", "HTTP 403: Forbidden"), id="403 without words"),
        pytest.param(302, b"gone", Outcome.failed("Task.Failed", "HTTP 302: gone"), id="a redirect is not followed"),
    ],
)
def test_what_a_direct_call_makes_of_an_answer(status, body, expected):
    with answering(status, body, {"Location": "https://example.com/"}) as url:
        assert sync_of(url).launch(launch_of()).outcome == expected


@pytest.mark.parametrize(
    ("status", "recorded", "expected"),
    [
        pytest.param(200, ONE, ONE, id="a large result is answered by a reference only"),
        pytest.param(409, ONE, ONE, id="an earlier call of this launch went well"),
        pytest.param(500, OTHER, OTHER, id="an error in its own words"),
        pytest.param(409, NotYet("begun"), LaunchUncertain, id="an earlier call of this launch is at work"),
        pytest.param(503, NotYet("begun"), Outcome.failed("Task.Failed", "HTTP 503: said"), id="killed at work"),
        pytest.param(409, None, Outcome.failed("Task.Failed", "HTTP 409: said"), id="its own 409, without a helper"),
    ],
)
def test_what_a_function_recorded_counts_more_than_its_answer(status, recorded, expected):
    def results(key):
        assert key == launch_of().key
        if isinstance(recorded, NotYet):
            raise recorded
        return recorded

    with answering(status, b"said") as url:
        target = sync_of(url, results=results)
        if expected is LaunchUncertain:
            with pytest.raises(LaunchUncertain):
                target.launch(launch_of())
        else:
            assert target.launch(launch_of()).outcome == expected


@pytest.mark.parametrize("body", [b"0" * (8 * 2**20 + 1), b'"' + b"x" * 9_000_000 + b'"'])
def test_an_answer_that_is_too_large_has_failed_and_is_not_asked_for_again(body):
    with answering(200, body) as url:
        outcome = sync_of(url).launch(launch_of()).outcome
    said = "the answer has more than 8,388,608 bytes; return less, or record it by orchestrator.tasks"
    assert outcome == Outcome.failed("Task.BadResult", said)


def test_of_a_long_answer_of_a_failed_call_the_beginning_is_told():
    with answering(500, b"x" * 501) as url:
        assert sync_of(url).launch(launch_of()).outcome == Outcome.failed("Task.Failed", f"HTTP 500: {'x' * 500}")


def test_a_result_that_is_nested_too_deeply_has_failed():
    with answering(body=b"[" * 200 + b"]" * 200) as url:
        outcome = sync_of(url).launch(launch_of()).outcome
    assert outcome.error.error_type == "Task.BadResult"


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        pytest.param("grcug3cacqj4", "grcug3cacqj4", id="1st gen: the platform's id, that its log line has"),
        pytest.param("../x", None, id="no id at all"),
    ],
)
def test_a_direct_calls_execution_id(told, expected):
    with answering(headers={"Function-Execution-Id": told}) as url:
        assert sync_of(url).launch(launch_of()).execution_id == (expected or id_of(launch_of()))


def test_no_answer_in_time_is_uncertain():
    gate = Event()
    with answering(gate=gate) as url, pytest.raises(LaunchUncertain):
        sync_of(url, timeout_s=0.2).launch(launch_of())
    gate.set()


def test_an_answer_that_breaks_off_is_uncertain():
    with answering(body=b'{"rows"', headers={"Content-Length": "100"}) as url, pytest.raises(LaunchUncertain):
        sync_of(url).launch(launch_of())


def test_a_connection_that_is_refused_is_uncertain():
    with pytest.raises(LaunchUncertain):
        sync_of("http://127.0.0.1:1/{target_name}").launch(launch_of())


def test_no_token_is_uncertain_and_calls_nobody():
    audiences = []

    def fetch(audience):
        audiences.append(audience)
        raise RuntimeError("no metadata server")

    with pytest.raises(LaunchUncertain, match="no metadata server"):
        sync_of(fetch_id_token=fetch).launch(launch_of())
    assert audiences == ["https://europe-west1-my-project.cloudfunctions.net/orch-test-1"]


def test_a_direct_call_limits_itself_and_its_lost_caller_is_made_up_for():
    target = sync_of("http://127.0.0.1:1/", timeout_s=42.0, logs=lambda trace_id: ONE)
    assert (target.launch_limit_s, target.synchronous) == (42.0, True)
    assert target.find(launch_of()) == Execution(id_of(launch_of()), outcome=ONE)
    assert target.outcome(Execution("x", outcome=OTHER)) == OTHER
    target.cancel(Execution("x"))


# ---- what the logs tell ------------------------------------------------------------------------------

TRACE = launch_of().trace_id


def payload(name, **changes):
    entry = json.loads((PAYLOADS / f"{name}.json").read_text())
    return {**entry, "trace": f"projects/my-project/traces/{TRACE}", **changes}


OK_2 = payload("cloud_run_request_gen2")
FAILED_2 = payload("cloud_run_500")
REFUSED_2 = {**FAILED_2, "httpRequest": {**FAILED_2["httpRequest"], "status": 409}}
OK_1 = payload("cloud_function_gen1")


class Logging:
    """entries.list, of pages that the test gives."""

    def __init__(self, *pages, status=None):
        self.pages, self.status, self.bodies = list(pages), status, []

    def service(self, name, version):
        assert (name, version) == ("logging", "v2")
        return self

    def entries(self):
        return self

    def list(self, *, body):
        self.bodies.append(dict(body))
        return body

    def call(self, request, what, *, is_repeatable):
        if self.status is not None:
            raise ApiError(f"{what}: {self.status}", self.status)
        page = self.pages.pop(0)
        return ({"entries": page} if page else {}) | ({"nextPageToken": "more"} if self.pages else {})


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        pytest.param([[]], None, id="nothing"),
        pytest.param([[OK_2]], OutcomeKind.COMPLETED, id="2nd gen"),
        pytest.param([[OK_1]], OutcomeKind.COMPLETED, id="1st gen"),
        pytest.param([[{**OK_1, "trace": TRACE}]], OutcomeKind.COMPLETED, id="a bare trace"),
        pytest.param([[FAILED_2]], OutcomeKind.FAILED, id="a failure"),
        pytest.param([[FAILED_2, OK_2]], OutcomeKind.COMPLETED, id="called twice: once well is well"),
        pytest.param(
            [[REFUSED_2, FAILED_2]], OutcomeKind.FAILED, id="nor does one count that was refused as the second"
        ),
        pytest.param([[], [], [OK_2]], OutcomeKind.COMPLETED, id="empty pages only say that the search goes on"),
        pytest.param([[{**OK_2, "trace": "0" * 31 + "1"}]], None, id="another trace"),
        pytest.param([[payload("cloud_run_without_our_id")]], None, id="a service that the function called"),
        pytest.param([[payload("cloud_function_gen1_printed")]], None, id="what a function prints"),
        pytest.param([[{**OK_2, "httpRequest": {**OK_2["httpRequest"], "status": "x"}}]], None, id="malformed"),
        pytest.param([["no entry", None]], None, id="no entries at all"),
    ],
)
def test_what_the_logs_tell_of_a_call(pages, kind):
    outcome = LogSearch(Logging(*pages), "my-project").outcome_by_trace(TRACE)
    assert (outcome and outcome.kind) == kind
    assert outcome is None or outcome.error is None or outcome.error.error_type != "Task.Conflict"


def test_the_logs_are_searched_by_trace_in_the_logs_of_calls_alone():
    apis = Logging([], [])
    LogSearch(apis, "my-project").outcome_by_trace(TRACE)
    first, second = apis.bodies
    assert second == {**first, "pageToken": "more"}
    assert first == {
        "resourceNames": ["projects/my-project"],
        "orderBy": "timestamp desc",
        "pageSize": 50,
        "filter": f'trace=("projects/my-project/traces/{TRACE}" OR "{TRACE}")\n'
        '(logName="projects/my-project/logs/run.googleapis.com%2Frequests" OR\n'
        '(logName="projects/my-project/logs/cloudfunctions.googleapis.com%2Fcloud-functions"\n'
        'textPayload:"Function execution took"))',
    }


def test_searches_are_limited():
    now = [0.0]
    apis = Logging()
    search = LogSearch(apis, "my-project", per_minute=2, seconds=lambda: now[0])
    for at, is_made in ((0.0, True), (30.0, True), (59.0, False), (60.0, True), (61.0, False), (90.0, True)):
        now[0], apis.pages = at, [[OK_2]]
        if is_made:
            assert search.outcome_by_trace(TRACE).kind is OutcomeKind.COMPLETED
        else:
            with pytest.raises(LaunchUncertain):
                search.outcome_by_trace(TRACE)


@pytest.mark.parametrize("status", [403, 429, 503])
def test_logs_that_cannot_be_read_tell_nothing_now(status):
    with pytest.raises(LaunchUncertain):
        LogSearch(Logging(status=status), "my-project").outcome_by_trace(TRACE)


def test_the_client_knows_the_call():
    apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": "http://127.0.0.1:1"}, timeout_s=1)
    with pytest.raises(LaunchUncertain, match="no answer"):
        LogSearch(apis, "my-project").outcome_by_trace(TRACE)
