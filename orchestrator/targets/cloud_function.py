"""CloudFunction and CloudFunctionSync: call HTTP functions, by way of a Cloud Tasks queue or directly.

By way of a queue nobody waits for the function, which is what makes waiting free; it is the default. The queue
is to try a task once (`max_attempts = 1`): attempts are the orchestrator's. A direct call waits for the answer,
which is the result; it is paid for twice, and for short functions only.

A function has no API that tells how a call ended. What tells, is asked in this order: what the function's own
helper has recorded, the event (its log entry, believed with the nonce that the call carried), the logs.
"""

import re
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from typing import Protocol
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotYet
from orchestrator.model.ids import execution_id_of as call_id_of
from orchestrator.model.ids import span_of
from orchestrator.model.messages import launch_query
from orchestrator.model.task_result import CONFLICT
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS, url_problem
from orchestrator.services.google_api import ApiError
from orchestrator.targets.callables import NESTED_TOO_DEEPLY, completed
from orchestrator.targets.twins import plain, utc_now

URL = "https://{region}-{project}.cloudfunctions.net/{target_name}"
"""Where a function answers, of the 1st and of the 2nd generation alike."""

_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_URL = 2083  # of a Cloud Tasks task
_DISPATCH_LIMITS_S = (15.0, 1800.0)  # what Cloud Tasks allows a call to take
_MAX_ANSWER = 8 * 2**20

Finder = Callable[[str], Outcome | None]
"""Something that identifies a launch -> how it ended, None if that is not known."""

Teller = Callable[[str, Outcome], Outcome]
"""A launch's key, and what its event tells -> how it ended."""

_ID = re.compile(r"([a-z][a-z0-9-]{0,62})/([0-9a-f]{32})")


class Tasks(Protocol):
    """A Cloud Tasks queue, as `services.cloud_tasks.CloudTasks` is one."""

    def create(
        self,
        name_key: str,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        dispatch_deadline_s: float | None = None,
        oidc: tuple[str, str] | None = None,
    ) -> bool:
        """Have the request made once; False if there is or was a task of this name. Raises ApiError.

        Args:
            oidc: (service account, audience) of the ID token to call with.
        """

    def dispatches(self, name_key: str) -> int | None:
        """How often the request has been made, or is being made; None where it is not in the queue. Raises ApiError."""

    def delete(self, name_key: str) -> bool:
        """Take the request out of the queue; False if it was not there. Raises ApiError."""


@dataclass(frozen=True, slots=True)
class Request:
    """A launch as the HTTP request that it is. `audience` is whom an ID token is for; None where none is needed."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    audience: str | None


class FunctionCalls:
    """Makes requests of launches.

    Args:
        project: of functions whose step has no `project_id`.
        region: of functions whose step has no `region`.
        url: where functions are instead, with `{project}`, `{region}` and `{target_name}`: an emulator, which
            gets no token, and whose host need not be allowed.
        allowed_hosts: patterns of the hosts that may be called. Whatever is called gets an ID token.
    """

    def __init__(
        self, project: str, region: str, *, url: str | None = None, allowed_hosts: tuple[str, ...] = ALLOWED_HOSTS
    ) -> None:
        self._project, self._region, self._url = project, region, url
        self._allowed_hosts = allowed_hosts

    def request(self, launch: Launch) -> Request:
        """Return the request of a launch.

        Raises:
            LaunchRefused: it would go to a host that is not allowed (`Launch.HostNotAllowed`).
        """
        where = self._allowed(launch, self._where(launch)) if self._url is None else urlsplit(self._where(launch))
        query = f"{where.query}&" if where.query else ""
        query += launch_query(launch.launch_id, launch.nonce)
        url = urlunsplit((where.scheme, where.netloc, where.path or "/", query, ""))
        if len(url) > _MAX_URL:
            raise LaunchRefused(f"{launch.node_name}: the URL has {len(url)} characters; allowed are {_MAX_URL}")
        headers = {
            "Content-Type": "application/json",
            "traceparent": f"00-{launch.trace_id}-{span_of(launch.key)}-01",
            "Function-Execution-Id": call_id_of(launch.key),  # what the function prints is found by it
        }
        audience = None if self._url is not None else _audience(where)
        return Request(url, headers, msgspec.json.encode(launch.parameters), audience)

    def _where(self, launch: Launch) -> str:
        own = launch.step.get("url")
        if own and self._url is None:
            return str(own)
        url = self._url or URL
        for name, value in (
            ("project", launch.step.get("project_id") or self._project),
            ("region", launch.step.get("region") or self._region),
            ("target_name", quote(launch.target_name, safe="")),
        ):
            url = url.replace(f"{{{name}}}", str(value))
        return url

    def _allowed(self, launch: Launch, url: str) -> SplitResult:
        """The parts of a URL that may be called."""
        problem: str | None
        try:
            where = urlsplit(url)
            problem = url_problem(where, self._allowed_hosts)
        except ValueError as exc:
            where, problem = urlsplit(""), str(exc)
        if problem is not None:
            raise LaunchRefused(
                f"{launch.node_name}: {url[:200]}: {problem}; allowed are https and the hosts "
                f"{', '.join(self._allowed_hosts)}",
                error_type="Launch.HostNotAllowed",
            )
        return where


def execution_id_of(launch: Launch) -> str:
    """Return `<launch's key>/<its trace id>`: its result lies under the one, and the other is in all of its
    log entries (a 1st gen function's line has nothing else that leads to the launch)."""
    return f"{launch.key}/{launch.trace_id}"


class Witnesses:
    """What is known of how calls ended.

    Args:
        results: launch key -> what the function's own helper has recorded. It raises NotYet where that is at work.
        logs: trace id -> what the logs tell, for calls whose event never came.
        now: the time, aware.
    """

    def __init__(self, results: Finder, logs: Finder | None, now: Callable[[], datetime] = utc_now) -> None:
        self._results, self._logs, self._now = results, logs, now

    def recorded(self, execution_id: str) -> Outcome | None:
        """What the function itself has recorded. Raises NotYet."""
        ids = _ID.fullmatch(execution_id)
        return self._results(ids[1]) if ids else None

    def outcome(self, execution_id: str) -> Outcome | None:
        """What the function has recorded, else what the logs tell. Raises NotYet, LaunchUncertain."""
        ids = _ID.fullmatch(execution_id)
        if ids is None:
            return None
        try:
            found = self._results(ids[1])
        except NotYet as exc:
            killed = self._killed(exc, ids[2])
            if killed is None:
                raise
            return killed
        return found if found is not None or self._logs is None else self._logs(ids[2])

    def _killed(self, at_work: NotYet, trace_id: str) -> Outcome | None:
        """How a call ended that has begun and recorded no end, though the queue waits no longer for its answer.

        It was killed at work, and the line of that was lost on its way here; or it goes on, as it may where the
        platform lets it, and there is no line yet.
        """
        if self._logs is None or at_work.since is None:
            return None
        if self._now() < at_work.since + timedelta(seconds=_DISPATCH_LIMITS_S[1]):
            return None
        try:
            found = self._logs(trace_id)
        except LaunchUncertain:
            return None
        is_refusal = found is not None and found.error is not None and found.error.error_type == CONFLICT
        return None if is_refusal else found

    def find(self, launch: Launch) -> Execution | None:
        """The launch's execution, if anything tells that there is one."""
        execution_id = execution_id_of(launch)
        try:
            outcome = self.outcome(execution_id)
        except NotYet:  # it is at work
            return Execution(execution_id)
        return None if outcome is None else Execution(execution_id, outcome=outcome)


class CloudFunction:
    """Has functions called by a Cloud Tasks queue.

    The task bears the launch's key as its name, which the queue takes once in 24 hours. For execution ids see
    `execution_id_of`: events carry the end of one.

    Args:
        tasks: the queue.
        invoker_service_account: as whom the functions are called.
        project, region, url, allowed_hosts: of the functions, see FunctionCalls.
        results, logs: how calls ended, see Witnesses.
        told: (launch key, what its event tells) -> how it ended.
        first_generation: names of functions of the 1st generation, whose log lines do not name their launch.
        launch_limit_s: how long the call of the queue may take.
        now: the time, aware.
    """

    identity: Identity = Identity.WINDOW
    has_outcome: bool = False  # not for sure: `outcome` may know, and where it does not an event is believed
    can_cancel: bool = False
    synchronous: bool = False
    id_is_ours: bool = False  # 2nd gen's events carry the launch id, 1st gen's only the trace

    def __init__(
        self,
        tasks: Tasks,
        *,
        project: str,
        region: str,
        invoker_service_account: str,
        results: Finder,
        told: Teller | None = None,
        logs: Finder | None = None,
        url: str | None = None,
        allowed_hosts: tuple[str, ...] = ALLOWED_HOSTS,
        first_generation: Container[str] = (),
        launch_limit_s: float = 30.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.launch_limit_s = launch_limit_s
        self._tasks = tasks
        self._invoker = invoker_service_account
        self._calls = FunctionCalls(project, region, url=url, allowed_hosts=allowed_hosts)
        self._witnesses, self._told = Witnesses(results, logs, now), told
        self._first_generation = first_generation

    def is_named(self, launch: Launch) -> bool:
        """Whether the request log shows the URL that was called, with the launch id in it: 2nd gen's does."""
        return launch.target_name not in self._first_generation

    def launch(self, launch: Launch) -> Execution:
        """Put the call into the queue; the same key again within 24 hours puts in nothing.

        Raises:
            LaunchRefused: its host is not allowed, or the queue will never take it.
            LaunchUncertain: the queue may have taken it.
        """
        request = self._calls.request(launch)
        try:
            self._tasks.create(
                launch.key,
                url=request.url,
                headers=request.headers,
                body=request.body,
                dispatch_deadline_s=_dispatch_deadline_s(launch),
                oidc=None if request.audience is None else (self._invoker, request.audience),
            )
        except ApiError as exc:
            if exc.is_passing:
                raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
            raise LaunchRefused(f"{launch.node_name}: {exc}") from exc
        return Execution(execution_id_of(launch), {"task": launch.key})

    def find(self, launch: Launch) -> Execution | None:
        """Return the launch's execution if the function's records, the logs or the queue know it.

        None does no harm, the queue does not take a launch twice; so logs that cannot be searched now are no reason
        to put the launch off.
        """
        found: Execution | None = None
        with suppress(LaunchUncertain):
            found = self._witnesses.find(launch)
        if found is not None:
            return found
        with suppress(ApiError):
            if self._tasks.dispatches(launch.key) is not None:
                return Execution(execution_id_of(launch), {"task": launch.key})
        return None

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, from the function's own record or the logs; None: not known.

        Raises:
            NotYet: the function has recorded that it is at work, so that its event is not to be believed yet. Once that
                is longer ago than the queue waits for an answer, the logs are asked whether it was killed.
            LaunchUncertain: cannot tell now.
        """
        return self._witnesses.outcome(execution.execution_id)

    def confirm(self, launch: Launch, verdict: Outcome) -> Execution:
        """Return the launch's execution with the outcome that counts, where its own event tells `verdict`.

        The logs are not searched: the event is what they would show.

        Raises:
            NotYet: the function has recorded that it is at work, and the event is not to be believed yet.
        """
        outcome = self._told(launch.key, verdict) if self._told is not None else verdict
        return Execution(execution_id_of(launch), outcome=outcome)

    def withdraw(self, launch: Launch) -> bool:
        """Take the call out of the queue if it has not been made. It is never put in again: its name stays used.

        Raises:
            LaunchUncertain: the queue cannot tell now.
        """
        try:
            is_waiting = self._tasks.dispatches(launch.key) == 0
            return is_waiting and self._taken_out(launch.key, execution_id_of(launch))
        except ApiError as exc:
            raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc

    def _taken_out(self, key: str, execution_id: str) -> bool:
        """Take a call out of the queue that has not been made when that was asked.

        The queue has no conditional delete, and takes a call out too that it is making: the function may have begun
        in between. It is asked, if it uses the helper; any other runs to its end unseen.
        """
        if not self._tasks.delete(key):
            return False
        try:
            return self._witnesses.recorded(execution_id) is None
        except NotYet:
            return False

    def cancel(self, execution: Execution) -> None:
        """Return if the call is over, or was taken out of the queue. One under way cannot be stopped.

        Raises:
            LaunchUncertain: it runs on, or that cannot be told now.
        """
        ids = _ID.fullmatch(execution.execution_id)
        if execution.outcome is not None or ids is None:
            return
        try:
            if self._witnesses.recorded(execution.execution_id) is not None:
                return
            dispatches = self._tasks.dispatches(ids[1])
            if dispatches is None or (dispatches == 0 and self._taken_out(ids[1], execution.execution_id)):
                return
        except NotYet:
            pass
        except ApiError as exc:
            raise LaunchUncertain(f"{execution.execution_id}: {exc}") from exc
        raise LaunchUncertain(f"{execution.execution_id}: a function cannot be stopped, it runs to its end")


class CloudFunctionSync:
    """Calls functions directly, and waits for the answer.

    An execution id is the one that the platform gives (1st gen, `Function-Execution-Id`), else as CloudFunction's.

    Args:
        fetch_id_token: audience -> ID token; the application's own one, where None.
        timeout_s: how long a call may take; the orchestrator's own request has to last longer.
        project, region, url, allowed_hosts: of the functions, see FunctionCalls.
        results, logs: how calls ended whose caller died, see Witnesses.
    """

    identity: Identity = Identity.NONE
    has_outcome: bool = False
    can_cancel: bool = False
    synchronous: bool = True
    id_is_ours: bool = False

    def __init__(
        self,
        *,
        project: str,
        region: str,
        results: Finder,
        logs: Finder | None = None,
        url: str | None = None,
        allowed_hosts: tuple[str, ...] = ALLOWED_HOSTS,
        fetch_id_token: Callable[[str], str] | None = None,
        timeout_s: float = 300.0,
    ) -> None:
        self.launch_limit_s = timeout_s
        self._calls = FunctionCalls(project, region, url=url, allowed_hosts=allowed_hosts)
        self._witnesses = Witnesses(results, logs)
        self._fetch_id_token = fetch_id_token or _fetch_id_token

    def launch(self, launch: Launch) -> Execution:
        """Call the function; its answer is the outcome: 2xx with the result, anything else has failed.

        What its helper has recorded counts more: a large result is answered by a reference, and a launch that
        was begun before by a 409.

        Raises:
            LaunchRefused: its host is not allowed.
            LaunchUncertain: no answer came in time, or an earlier call of this launch is at work.
        """
        until = monotonic() + self.launch_limit_s
        request = self._calls.request(launch)
        headers = dict(request.headers)
        try:
            if request.audience is not None:
                headers["Authorization"] = f"Bearer {self._fetch_id_token(request.audience)}"
            response, content = _post(request.url, headers, request.body, until)
        except Exception as exc:  # google-auth's own too: by then nothing was sent, and the Tick tries again
            what = request.url.partition("?")[0]
            raise LaunchUncertain(f"{launch.launch_id}: {what}: no answer: {type(exc).__name__}: {exc}") from exc
        told = response.headers.get("Function-Execution-Id", "")
        execution_id = told if _EXECUTION_ID.fullmatch(told) else execution_id_of(launch)
        return Execution(execution_id, {"status": response.status}, self._outcome(launch, response, content))

    def _outcome(self, launch: Launch, response: HTTPResponse, content: bytes) -> Outcome:
        try:
            recorded = self._witnesses.recorded(execution_id_of(launch))
        except NotYet as exc:
            if response.status == 409:
                raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
            recorded = None  # begun, and it answered all the same: it was killed
        return recorded or _answered(response, content)

    def find(self, launch: Launch) -> Execution | None:
        """Return the launch's execution if the function's records or the logs know it. Raises LaunchUncertain."""
        return self._witnesses.find(launch)

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended; None: not known. Raises NotYet, LaunchUncertain."""
        return execution.outcome or self._witnesses.outcome(execution.execution_id)

    def cancel(self, execution: Execution) -> None:
        """A call has ended when its execution is known."""


def _audience(where: SplitResult) -> str:
    """Whom an ID token has to name: Cloud Run its service's origin, Cloud Functions the function's own URL.

    Source: googleapis/google-auth-library-nodejs issue 1339. The query would make a 401 of it.
    """
    origin = f"https://{where.hostname}"
    if (where.hostname or "").endswith(".cloudfunctions.net"):
        return f"{origin}/{where.path.strip('/').partition('/')[0]}"
    return origin


def _dispatch_deadline_s(launch: Launch) -> float:
    timeout = launch.step.get("timeout")
    least, most = _DISPATCH_LIMITS_S
    return most if timeout is None else min(max(parse_duration(str(timeout)), least), most)


def _fetch_id_token(audience: str) -> str:
    """The ID token of the service account that this runs as."""
    from google.auth.transport.requests import Request as Transport
    from google.oauth2 import id_token

    return str(id_token.fetch_id_token(Transport(), audience))  # type: ignore[no-untyped-call]


def _post(url: str, headers: Mapping[str, str], body: bytes, until: float) -> tuple[HTTPResponse, bytes]:
    """Make a request, follow no redirect, and return the answer with its content, all before `until`."""
    where = urlsplit(url)
    make = HTTPSConnection if where.scheme == "https" else HTTPConnection
    connection = make(where.hostname or "", where.port, timeout=_left_s(until))
    try:
        connection.request("POST", f"{where.path}?{where.query}", body, dict(headers))
        sock = connection.sock  # getresponse lets go of it where the answer ends with the connection
        response = connection.getresponse()
        content = bytearray()
        while not response.isclosed():  # it closes itself, and from Python 3.13 on the socket, once all is read
            sock.settimeout(_left_s(until))
            part = response.read1(2**16)
            if not part:
                break
            content += part
            if len(content) > _MAX_ANSWER:
                raise HTTPException(f"the answer has more than {_MAX_ANSWER} bytes")
        if response.length:  # read1 does not tell a connection that broke from an answer that ended
            raise HTTPException("the answer ended early")
        return response, bytes(content)
    finally:
        connection.close()


def _left_s(until: float) -> float:
    left_s = until - monotonic()
    if left_s <= 0:
        raise TimeoutError("it took too long")
    return left_s


def _answered(response: HTTPResponse, content: bytes) -> Outcome:
    """What an answer says: of a 2xx its JSON is the result, else its text; there is none where it is empty."""
    if not 200 <= response.status < 300:
        words = " ".join(content.decode("utf-8", "replace").split())[:500] or response.reason
        return Outcome.failed("Task.Failed", plain(f"HTTP {response.status}: {words}"))
    if not content.strip():
        return Outcome.completed()
    try:
        result: Json = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return Outcome.completed(plain(content.decode("utf-8", "replace")))
    except RecursionError:
        return NESTED_TOO_DEEPLY
    return completed(result, content)
