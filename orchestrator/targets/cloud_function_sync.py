"""CloudFunctionSync: calls HTTP functions directly, and waits for the answer, which is the result.

It is paid for twice, and for short functions only.
"""

import re
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from time import monotonic
from urllib.parse import urlsplit

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchUncertain, NotYet
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS
from orchestrator.targets.callables import NESTED_TOO_DEEPLY, completed
from orchestrator.targets.function_calls import Finder, FunctionCalls, Witnesses, execution_id_of
from orchestrator.targets.twins import plain

_EXECUTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ANSWER = 8 * 2**20


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


def _fetch_id_token(audience: str) -> str:
    """The ID token of the service account that this runs as."""
    from google.auth.transport.requests import Request as Transport
    from google.oauth2 import id_token

    return str(id_token.fetch_id_token(Transport(), audience))  # type: ignore[no-untyped-call]


def _post(url: str, headers: Mapping[str, str], body: bytes, until: float) -> tuple[HTTPResponse, bytes]:
    """Make a request, follow no redirect, and return the answer with its content, all before `until`.

    Of more than _MAX_ANSWER bytes as much is read as shows that.
    """
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
                return response, bytes(content)  # which is too much, and says what has become of the call
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
    if len(content) > _MAX_ANSWER:  # not all of it was read
        return Outcome.failed(
            "Task.BadResult",
            f"the answer has more than {_MAX_ANSWER:,} bytes; return less, or record it by orchestrator.tasks",
        )
    if not content.strip():
        return Outcome.completed()
    try:
        result: Json = msgspec.json.decode(content)
    except msgspec.DecodeError:
        return Outcome.completed(plain(content.decode("utf-8", "replace")))
    except RecursionError:
        return NESTED_TOO_DEEPLY
    return completed(result, content)
