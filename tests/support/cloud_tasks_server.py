"""Cloud Tasks in this process: its REST API v2 for tasks, on 127.0.0.1, and the requests that tasks make.

Like the service with a queue of one attempt (`maxAttempts` 1): a task is gone after its request, however that ended,
and its name stays used. It refuses what the service refuses, unknown fields included. It never calls another machine.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Condition, Thread
from time import monotonic
from urllib.parse import unquote, urlsplit

QUEUE_NAME = r"projects/[A-Za-z0-9:.-]+/locations/[A-Za-z0-9-]+/queues/[A-Za-z0-9-]{1,100}"
TASK_NAME = re.compile(rf"({QUEUE_NAME})/tasks/[A-Za-z0-9_-]{{1,500}}")
DURATION = re.compile(r"(\d+(?:\.\d{1,9})?)s")

TASK_FIELDS = {"name", "httpRequest", "scheduleTime", "dispatchDeadline"}
REQUEST_FIELDS = {"url", "httpMethod", "headers", "body", "oidcToken", "oauthToken"}
TOKEN_FIELDS = {"oidcToken": {"serviceAccountEmail", "audience"}, "oauthToken": {"serviceAccountEmail", "scope"}}
BODY_METHODS = {"POST", "PUT", "PATCH"}
METHODS = BODY_METHODS | {"GET", "HEAD", "DELETE", "OPTIONS"}

MAX_TASK_BYTES = 1 << 20
MAX_URL = 2083
MAX_AHEAD = timedelta(days=30)
DEADLINE_S = (15.0, 1800.0)
DEFAULT_DEADLINE_S = 600.0
THIS_MACHINE = {"127.0.0.1", "localhost", "::1"}

STATUSES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "ALREADY_EXISTS", 429: "RESOURCE_EXHAUSTED"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API; `status` is what was answered, None where the connection was cut."""

    method: str
    path: str
    body: Mapping[str, object] | None
    status: int | None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One request that a task made; `status` is the worker's, None where no answer came: see `error`."""

    task_name: str
    at: datetime
    url: str
    method: str
    headers: Mapping[str, str]
    body: bytes
    status: int | None
    answer: bytes = b""
    error: str | None = None


class CloudTasksServer:
    """Runs from `with` until its end; every queue exists.

    Args:
        clock: what time it is; the real one by default.
        paused: tasks wait until the test calls `run`; also an attribute, for the tasks that come from then on.
        deadline_scale: what dispatch deadlines are multiplied by, for a test cannot wait for 15 seconds.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        paused: bool = False,
        deadline_scale: float = 1.0,
    ) -> None:
        self.calls: list[Call] = []
        self.dispatches: list[Dispatch] = []
        self._clock, self.paused, self._scale = clock, paused, deadline_scale
        self._changed = Condition()
        self._tasks: dict[str, _Task] = {}
        self._used: set[str] = set()
        self._faults: list[tuple[str, int | None, bool]] = []
        self._ids = count(1)
        self._is_closed = False
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads, self._http.block_on_close = True, False
        self._threads = [
            Thread(target=self._http.serve_forever, args=(0.01,), name="cloud-tasks-api", daemon=True),
            Thread(target=self._dispatch_due, name="cloud-tasks-queue", daemon=True),
        ]

    def __enter__(self) -> CloudTasksServer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._http.shutdown()
        self._http.server_close()
        for thread in self._threads:
            thread.join()

    @property
    def endpoint(self) -> str:
        """Its root, without a slash at the end."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What leads GoogleApis here."""
        return {"CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDTASKS": f"{self.endpoint}/"}

    @property
    def tasks(self) -> dict[str, Mapping[str, object]]:
        """The tasks in the queues as they were created, by full name."""
        with self._changed:
            return {name: task.resource for name, task in self._tasks.items()}

    def fail(self, method: str, status: int | None = 503, *, applied: bool, times: int = 1) -> None:
        """Answer the next calls of a method with an error, None: cut the connection; `applied`: do what they ask."""
        with self._changed:
            self._faults += [(method, status, applied)] * times

    def run(self, name: str) -> Dispatch:
        """Make a task's request now, and return how it went."""
        with self._changed:
            task = self._tasks[name]
            task.is_started = True
        return self._dispatch(task)

    def wait_for_dispatches(self, number: int, timeout_s: float = 60.0) -> list[Dispatch]:
        """Return all dispatches as soon as there are so many."""
        with self._changed:
            enough = self._changed.wait_for(lambda: len(self.dispatches) >= number, timeout_s)
            assert enough, f"{len(self.dispatches)} dispatches after {timeout_s} s; expected {number}"
            return list(self.dispatches)

    # ---- the API

    def handle(self, method: str, path: str, content: bytes) -> tuple[int | None, Mapping[str, object]]:
        """Answer a call with (status, JSON); a status of None cuts the connection."""
        body = json.loads(content) if content else None
        with self._changed:
            fault = next((fault for fault in self._faults if fault[0] == method), None)
            if fault is not None:
                self._faults.remove(fault)
            if fault is None or fault[2]:
                try:
                    status, answer = 200, self._apply(method, path, body, len(content))
                except _Refused as exc:
                    status, answer = exc.status, _error(exc.status, str(exc))
            if fault is not None:
                status = fault[1]
                answer = _error(status, "a fault of the test's") if status else {}
            self.calls.append(Call(method, path, body, status))
            self._changed.notify_all()
        return status, answer

    def _apply(self, method: str, path: str, body: object, size: int) -> Mapping[str, object]:
        name = path.removeprefix("/v2/")
        if method == "POST" and (parent := re.fullmatch(rf"({QUEUE_NAME})/tasks", name)):
            return self._create(parent[1], body, size)
        if not TASK_NAME.fullmatch(name) or method not in ("GET", "DELETE"):
            raise _Refused(404, f"{method} {path}: no such method")
        task = self._tasks.get(name)
        if task is None:
            existed = "The task no longer exists, though a task with this name existed recently."
            raise _Refused(404, existed if name in self._used else "Requested entity was not found.")
        if method == "DELETE":
            del self._tasks[name]
            return {}
        return task.view

    def _create(self, queue: str, body: object, size: int) -> Mapping[str, object]:
        if not isinstance(body, dict) or not isinstance(body.get("task"), dict):
            raise _Refused(400, "task: is required")
        _only("", body, {"task", "responseView"})
        if size > MAX_TASK_BYTES:
            raise _Refused(400, "Task size too large")
        resource = body["task"]
        now = self._clock()
        task = _Task(resource, queue, now, f"{next(self._ids):020d}", self._scale)
        if task.name in self._used:
            waiting = task.name in self._tasks
            raise _Refused(
                409,
                "Requested entity already exists"
                if waiting
                else "The task cannot be created because a task with this name existed too recently.",
            )
        self._used.add(task.name)
        self._tasks[task.name] = task
        return task.view

    # ---- the queues

    def _dispatch_due(self) -> None:
        while True:
            with self._changed:
                if self._is_closed:
                    return
                now = self._clock()
                waiting = [] if self.paused else [task for task in self._tasks.values() if not task.is_started]
                due = [task for task in waiting if task.at <= now]
                if not due:
                    soonest = min((task.at for task in waiting), default=None)
                    self._changed.wait(None if soonest is None else max(0.001, (soonest - now).total_seconds()))
                    continue
                for task in due:
                    task.is_started = True
            for task in due:
                Thread(target=self._dispatch, args=(task,), name="cloud-tasks-request", daemon=True).start()

    def _dispatch(self, task: _Task) -> Dispatch:
        at, headers = self._clock(), task.headers()
        status, answer, error = _send(task.url, task.method, headers, task.body, task.deadline_s)
        done = Dispatch(task.name, at, task.url, task.method, headers, task.body, status, answer, error)
        with self._changed:
            if self._tasks.get(task.name) is task:
                del self._tasks[task.name]  # one attempt, however it ended
            self.dispatches.append(done)
            self._changed.notify_all()
        return done


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class _Task:
    """A task that the service would take; raises _Refused for others."""

    def __init__(self, resource: dict, queue: str, now: datetime, new_id: str, scale: float) -> None:
        _only("task", resource, TASK_FIELDS)
        request = resource.get("httpRequest")
        if not isinstance(request, dict):
            raise _Refused(400, "task.httpRequest: is required")
        _only("task.httpRequest", request, REQUEST_FIELDS)
        self.resource, self.queue, self.created = resource, queue, now
        self.name = resource.get("name") or f"{queue}/tasks/{new_id}"
        if not TASK_NAME.fullmatch(self.name) or not self.name.startswith(f"{queue}/tasks/"):
            raise _Refused(400, f'Task name must be formatted: "{queue}/tasks/<TASK_ID>"')
        self.url, self.method = request.get("url", ""), request.get("httpMethod", "POST")
        if not self.url.startswith(("http://", "https://")) or len(self.url) > MAX_URL:
            raise _Refused(400, "HttpRequest.url: must begin with http:// or https://, and be no longer than 2083")
        if self.method not in METHODS or ("body" in request and self.method not in BODY_METHODS):
            raise _Refused(400, f"HttpRequest.httpMethod: {self.method}")
        try:
            self.body = b64decode(request.get("body", ""), validate=True)
        except Base64Error as exc:
            raise _Refused(400, "HttpRequest.body: is not base64") from exc
        self.at = max(now, _time(resource.get("scheduleTime"), now))
        if self.at > now + MAX_AHEAD:
            raise _Refused(400, "The task.schedule_time is too far in the future.")
        deadline = DURATION.fullmatch(resource.get("dispatchDeadline", f"{DEFAULT_DEADLINE_S:g}s"))
        if not deadline or not DEADLINE_S[0] <= float(deadline[1]) <= DEADLINE_S[1]:
            raise _Refused(400, "Task.dispatchDeadline must be between [15s, 30m].")
        self.deadline_s = float(deadline[1]) * scale
        if "oidcToken" in request and "oauthToken" in request:
            raise _Refused(400, "HttpRequest: has two authorization headers")
        for field, allowed in TOKEN_FIELDS.items():
            _only(f"task.httpRequest.{field}", request.get(field, {}), allowed)
        self.is_started = False

    @property
    def view(self) -> Mapping[str, object]:
        """The BASIC view: without the body."""
        request = {key: value for key, value in self.resource["httpRequest"].items() if key != "body"}
        return {
            "name": self.name,
            "httpRequest": request,
            "scheduleTime": _rfc3339(self.at),
            "createTime": _rfc3339(self.created.replace(microsecond=0)),
            "dispatchDeadline": self.resource.get("dispatchDeadline", f"{DEFAULT_DEADLINE_S:g}s"),
            "dispatchCount": int(self.is_started),
            "view": "BASIC",
        }

    def headers(self) -> dict[str, str]:
        """What the request is sent with: the creator's headers, the service's own, and who calls."""
        request = self.resource["httpRequest"]
        own = re.compile(r"host|content-length|user-agent|(x-google|x-appengine|x-cloudtasks)-.*", re.IGNORECASE)
        sent = {name: value for name, value in request.get("headers", {}).items() if not own.fullmatch(name)}
        sent["User-Agent"] = "Google-Cloud-Tasks"
        sent["X-CloudTasks-QueueName"] = self.queue.rpartition("/")[2]
        sent["X-CloudTasks-TaskName"] = self.name.rpartition("/")[2]
        sent["X-CloudTasks-TaskRetryCount"] = sent["X-CloudTasks-TaskExecutionCount"] = "0"
        sent["X-CloudTasks-TaskETA"] = f"{self.at.timestamp():.6f}"
        if "oidcToken" in request:
            token = request["oidcToken"]
            claims = {"email": token["serviceAccountEmail"], "aud": token.get("audience") or self.url}
            sent["Authorization"] = f"Bearer {_encoded({'alg': 'none'})}.{_encoded(claims)}."
        elif "oauthToken" in request:
            sent["Authorization"] = f"Bearer access-token-of.{request['oauthToken']['serviceAccountEmail']}"
        return sent


def _send(
    url: str, method: str, headers: Mapping[str, str], body: bytes, deadline_s: float
) -> tuple[int | None, bytes, str | None]:
    """Make a request; return (status, answer, error)."""
    parts = urlsplit(url)
    if parts.hostname not in THIS_MACHINE or parts.scheme != "http":
        return None, b"", f"{parts.scheme}://{parts.netloc} is not called: it is not on this machine"
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=deadline_s)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    started_s = monotonic()
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read(), None
    except TimeoutError:
        return None, b"", f"DEADLINE_EXCEEDED after {monotonic() - started_s:.2f} s"
    except (OSError, HTTPException) as exc:
        return None, b"", f"UNAVAILABLE: {type(exc).__name__}: {exc}"
    finally:
        connection.close()


def _handler(server: CloudTasksServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self._answer()

        def do_DELETE(self) -> None:
            self._answer()

        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = server.handle(self.command, unquote(urlsplit(self.path).path), content)
            if status is None:
                self.close_connection = True
                return
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Say nothing: `calls` has it all."""

    return Handler


def _only(where: str, value: Mapping[str, object], allowed: set[str]) -> None:
    for name in value:
        if name not in allowed:
            raise _Refused(
                400, f'Invalid JSON payload received. Unknown name "{name}" at "{where}": Cannot find field.'
            )


def _error(status: int, message: str) -> Mapping[str, object]:
    return {"error": {"code": status, "message": message, "status": STATUSES.get(status, "UNAVAILABLE")}}


def _time(text: str | None, default: datetime) -> datetime:
    if text is None:
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise _Refused(400, f"Invalid value at 'task.schedule_time': {text}") from exc
    if at.tzinfo is None:
        raise _Refused(400, f"Invalid value at 'task.schedule_time': {text}")
    return at


def _rfc3339(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _encoded(value: Mapping[str, object]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
