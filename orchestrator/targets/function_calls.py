"""What both ways of calling HTTP functions share: the request that a launch is, and what tells how a call ended.

A function has no API that tells how a call ended. What tells, is asked in this order: what the function's own
helper has recorded, the event (its log entry, believed with the nonce that the call carried), the logs.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

import msgspec

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotYet
from orchestrator.model.ids import execution_id_of as call_id_of
from orchestrator.model.ids import span_of
from orchestrator.model.messages import launch_query
from orchestrator.model.task_result import CONFLICT
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS, url_problem
from orchestrator.targets.twins import utc_now

URL = "https://{region}-{project}.cloudfunctions.net/{target_name}"
"""Where a function answers, of the 1st and of the 2nd generation alike."""

DISPATCH_LIMITS_S = (15.0, 1800.0)
"""What Cloud Tasks allows a call to take."""

_MAX_URL = 2083  # of a Cloud Tasks task

Finder = Callable[[str], Outcome | None]
"""Something that identifies a launch -> how it ended, None if that is not known."""

_ID = re.compile(r"([a-z][a-z0-9-]{0,62})/([0-9a-f]{32})")


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


def ids_of(execution_id: str) -> tuple[str, str] | None:
    """Return the (launch's key, trace id) that an execution id holds; None for one that the platform has given."""
    ids = _ID.fullmatch(execution_id)
    return (ids[1], ids[2]) if ids else None


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
        ids = ids_of(execution_id)
        return self._results(ids[0]) if ids else None

    def outcome(self, execution_id: str) -> Outcome | None:
        """What the function has recorded, else what the logs tell. Raises NotYet, LaunchUncertain."""
        ids = ids_of(execution_id)
        if ids is None:
            return None
        key, trace_id = ids
        try:
            found = self._results(key)
        except NotYet as exc:
            killed = self._killed(exc, trace_id)
            if killed is None:
                raise
            return killed
        return found if found is not None or self._logs is None else self._logs(trace_id)

    def _killed(self, at_work: NotYet, trace_id: str) -> Outcome | None:
        """How a call ended that has begun and recorded no end, though the queue waits no longer for its answer.

        It was killed at work, and the line of that was lost on its way here; or it goes on, as it may where the
        platform lets it, and there is no line yet.
        """
        if self._logs is None or at_work.since is None:
            return None
        if self._now() < at_work.since + timedelta(seconds=DISPATCH_LIMITS_S[1]):
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


def _audience(where: SplitResult) -> str:
    """Whom an ID token has to name: Cloud Run its service's origin, Cloud Functions the function's own URL.

    Source: googleapis/google-auth-library-nodejs issue 1339. The query would make a 401 of it.
    """
    origin = f"https://{where.hostname}"
    if (where.hostname or "").endswith(".cloudfunctions.net"):
        return f"{origin}/{where.path.strip('/').partition('/')[0]}"
    return origin
