"""Cloud Tasks: HTTP requests that Google makes later. A name makes one task; a task is carried out at least once.

A queue for launches has one attempt (`maxAttempts` 1), for who retries is the orchestrator, by an attempt of its own. A
task whose request failed is gone then, and a Tick finds what it was for.

Source: the REST reference of projects.locations.queues.tasks, v2, and the client's discovery document.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Required, TypedDict, Unpack

from orchestrator.model.commands import Json
from orchestrator.model.errors import SettingsError
from orchestrator.services.google_api import ApiError, GoogleApis

MAX_AHEAD: Final = timedelta(days=30)
"""How far in the future a task may be scheduled; the service refuses (400) what is beyond."""

MIN_DEADLINE_S: Final = 15.0
MAX_DEADLINE_S: Final = 1800.0
"""What the service allows as the deadline of a request; without one it takes 10 minutes."""

QUEUE: Final = re.compile(r"projects/[A-Za-z0-9:.-]+/locations/[A-Za-z0-9-]+/queues/[A-Za-z0-9-]{1,100}")
KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,475}")
"""What a key may look like: a task id of at most 500 characters, less the hash before it."""

_ALREADY_EXISTS: Final = 409
_NOT_FOUND: Final = 404


class HttpCall(TypedDict, total=False):
    """The request that a task makes, always a POST, and when.

    Attributes:
        url: at most 2,083 characters once encoded.
        headers: Host, Content-Length, User-Agent, X-Google-* and X-AppEngine-* are the service's own.
        body: as it is sent.
        at: not before this time (aware); None or past: now. At most MAX_AHEAD from now.
        dispatch_deadline_s: how long the answer may take, MIN_DEADLINE_S to MAX_DEADLINE_S. After it the attempt has
            failed, though the worker may go on.
        oidc: (service account, audience): call with an ID token, as a function or Cloud Run service asks for. Without
            an audience the service would take the whole URL, query included, which no worker expects.
        oauth: service account: call with an access token, as Google's own APIs ask for.
    """

    url: Required[str]
    headers: Required[Mapping[str, str]]
    body: Required[bytes]
    at: datetime | None
    dispatch_deadline_s: float | None
    oidc: tuple[str, str] | None
    oauth: str | None


class CloudTasks:
    """The tasks of one queue. All methods may be called from many threads, and raise ApiError.

    Args:
        apis: Google's REST APIs.
        queue: `projects/P/locations/R/queues/Q`.
    Raises:
        SettingsError: `queue` is no queue's name.
    """

    def __init__(self, apis: GoogleApis, queue: str) -> None:
        if not QUEUE.fullmatch(queue):
            raise SettingsError(f"queue {queue!r}: is no name of a queue; allowed is projects/P/locations/R/queues/Q")
        self._apis, self._queue = apis, queue
        self._methods: Any = None

    def create(self, name_key: str | None, **call: Unpack[HttpCall]) -> bool:
        """Have a request made; say whether this try made the task.

        Args:
            name_key: `[A-Za-z0-9_-]{1,475}`, distinct for distinct requests: the same key again makes no second task,
                up to 24 hours after the first was carried out. None: no name, which the service takes faster; where
                no answer came, there may be two such tasks.
            call: the request.
        Returns:
            False if the key was used before, so that an earlier try got through.
        """
        try:
            self.add(name_key, **call)
        except ApiError as exc:
            if exc.status == _ALREADY_EXISTS:
                return False
            raise
        return True

    def add(self, name_key: str | None, **call: Unpack[HttpCall]) -> str:
        """Do as `create` does, but return the task's full name, and raise ApiError (409) for a key used before."""
        task = _task(call)
        if name_key is not None:
            task["name"] = self._name(name_key)
        # BASIC: the answer need not repeat the body, and FULL asks for a permission more.
        body = {"task": task, "responseView": "BASIC"}
        request = self._tasks().create(parent=self._queue, body=body)
        what = f"cloudtasks.tasks.create {task.get('name', self._queue)}"
        answer = self._apis.call(request, what, is_repeatable=True)
        return str(answer.get("name", ""))

    def exists(self, name_key: str) -> bool:
        """Whether the task is in the queue: waiting or being carried out. One that is done is not."""
        name = self._name(name_key)
        return self._found(self._tasks().get(name=name), f"cloudtasks.tasks.get {name}")

    def dispatches(self, name_key: str) -> int | None:
        """How often the task's request has been made so far, or is being made; None where it is not in the queue."""
        name = self._name(name_key)
        try:
            task = self._apis.call(self._tasks().get(name=name), f"cloudtasks.tasks.get {name}")
        except ApiError as exc:
            if exc.status == _NOT_FOUND:
                return None
            raise
        count = task.get("dispatchCount")  # left out while it is 0
        return count if isinstance(count, int) else 0

    def delete(self, name_key: str) -> bool:
        """Take the task out of the queue; False if it was not there. A request under way goes on."""
        name = self._name(name_key)
        return self._found(self._tasks().delete(name=name), f"cloudtasks.tasks.delete {name}")

    def _name(self, name_key: str) -> str:
        if not KEY.fullmatch(name_key):
            raise ValueError(f"key {name_key!r}: is no part of a task id; allowed is {KEY.pattern}")
        return f"{self._queue}/tasks/{task_id_of(name_key)}"

    def _found(self, request: Any, what: str) -> bool:
        try:
            self._apis.call(request, what)
        except ApiError as exc:
            if exc.status == _NOT_FOUND:
                return False
            raise
        return True

    def _tasks(self) -> Any:
        if self._methods is None:  # kept: the client makes all methods anew for each who asks, in 2 ms
            self._methods = self._apis.service("cloudtasks", "v2").projects().locations().queues().tasks()
        return self._methods


def task_id_of(name_key: str) -> str:
    """Return `<24 hex>-<key>`: the service spreads tasks by the beginning of their ids, and keys begin alike."""
    return f"{sha256(name_key.encode()).hexdigest()[:24]}-{name_key}"


def _task(call: HttpCall) -> dict[str, Json]:
    """Return the Task resource of a request, without a name."""
    request: dict[str, Json] = {"url": call["url"], "httpMethod": "POST", "headers": dict(call["headers"])}
    if call["body"]:
        request["body"] = b64encode(call["body"]).decode()
    if oidc := call.get("oidc"):
        request["oidcToken"] = {"serviceAccountEmail": oidc[0], "audience": oidc[1]}
    if oauth := call.get("oauth"):
        request["oauthToken"] = {"serviceAccountEmail": oauth}
    task: dict[str, Json] = {"httpRequest": request}
    if (at := call.get("at")) is not None:
        task["scheduleTime"] = _rfc3339(at)
    if (deadline_s := call.get("dispatch_deadline_s")) is not None:
        if not MIN_DEADLINE_S <= deadline_s <= MAX_DEADLINE_S:
            raise ValueError(f"dispatch_deadline_s: is {deadline_s}; allowed is {MIN_DEADLINE_S} to {MAX_DEADLINE_S}")
        task["dispatchDeadline"] = f"{deadline_s:.3f}".rstrip("0").rstrip(".") + "s"  # the service cuts to ms
    return task


def _rfc3339(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError(f"at: {at.isoformat()} has no time zone; times are aware")
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
