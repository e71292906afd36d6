"""Connections to Google's APIs by `requests`, and what all of an instance's have in common.

That is its credentials, and the context of their TLS. Both are costly to come by and safe to share: credentials take
five questions to the metadata server; a context takes 16 ms to read the authorities that it trusts, which `requests`
has every new connection do anew.
"""

from collections.abc import Mapping
from contextlib import closing
from functools import cache
from os.path import isdir
from ssl import SSLContext
from threading import Lock
from time import monotonic
from typing import Any

import google.auth
from certifi import where
from google.auth.transport.requests import AuthorizedSession
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as NoConnection
from urllib3.exceptions import ProtocolError
from urllib3.util import Timeout
from urllib3.util.ssl_ import create_urllib3_context

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

MOST = 200
"""How many connections are kept open to a service: one for each request that an instance is let have at once, which is
the orchestrator's `concurrency` in terraform/. A thread beyond them makes one that it throws away."""

_REPEATABLE = frozenset(("GET", "HEAD", "PUT", "DELETE"))
"""Methods of which two requests do no more than one: https://www.rfc-editor.org/rfc/rfc9110#name-idempotent-methods."""

_lock = Lock()
_found: list[Any] = []


def application_credentials() -> Any:
    """Return the application's default credentials, looked for once; they hold one token for all who use them.

    Raises:
        google.auth.exceptions.GoogleAuthError: there are none; they are looked for again next time.
    """
    with _lock:
        if not _found:
            _found.append(google.auth.default(scopes=[SCOPE])[0])
        return _found[0]


class Connections(HTTPAdapter):
    """A pool of connections that verify servers by one TLS context, as requests would by one each.

    Args:
        most: how many are kept open; what is beyond them is closed after its use.
    """

    def __init__(self, most: int) -> None:
        super().__init__(pool_maxsize=most)

    def build_connection_pool_key_attributes(
        self, request: PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Add the context, in place of the authorities that each connection would read."""
        host, tls = super().build_connection_pool_key_attributes(request, verify, cert)
        if _is_ours(host["scheme"], verify):
            tls.pop("ca_certs", None)
            tls.pop("ca_cert_dir", None)
            tls["ssl_context"] = _context(str(where() if verify is True else verify))
        return host, tls

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Have the context verify: the authorities, named here, would be read once more."""
        super().cert_verify(conn, url, verify, cert)
        if _is_ours(url.partition(":")[0].lower(), verify):
            conn.ca_certs = conn.ca_cert_dir = None


class OneUse(HTTPAdapter):
    """Sends each request on a connection of its own, which ends with the answer."""

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Send a request on a new connection."""
        is_secure = (request.url or "").lower().startswith("https://")
        with closing(Connections(1) if is_secure else HTTPAdapter(pool_maxsize=1)) as adapter:
            return adapter.send(request, *args, **options)


class Http:
    """What googleapiclient takes for an httplib2.Http; for any number of threads, which httplib2 is not.

    An instance that was frozen finds the connections that it had kept open closed, most often only once it has sent a
    request on one, so that nobody knows whether that was carried out. So a request is made once more, on a new
    connection, where the one that it went by was cut before an answer came; but only if to carry it out twice does no
    harm. Any other goes by a new connection at once, and is made once.

    Args:
        timeout_s: how long a request may take until an answer begins, and the answer between two of its parts.
        credentials: google.auth ones; None: none are sent.
    Attributes:
        repeating: the same, for requests of any method that do no harm if they are carried out twice.
    """

    def __init__(self, timeout_s: float, credentials: Any = None) -> None:
        self._timeout_s, self._credentials = timeout_s, credentials
        self._session = self._opened(Connections(MOST), HTTPAdapter(pool_maxsize=MOST))
        self._once: Session | None = None
        self._lock = Lock()
        self.repeating = Repeating(self)

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> tuple[Any, bytes]:
        """Make a request; return (httplib2's Response, content).

        GET, PUT and DELETE may be made once more; of a POST that is for the caller to say, see `repeating`.
        """
        return self.send(uri, method, body, headers, is_repeatable=method in _REPEATABLE)

    def send(
        self, uri: str, method: str, body: Any, headers: Mapping[str, str] | None, *, is_repeatable: bool
    ) -> tuple[Any, bytes]:
        """Make a request, once more where that helps and `is_repeatable` allows it; both within the time of one."""
        from httplib2 import Response as Answer

        until = monotonic() + self._timeout_s
        if is_repeatable:
            try:
                answer = self._send(self._session, uri, method, body, headers, until)
            except NoConnection as exc:
                if not _was_cut(exc) or monotonic() >= until:
                    raise
                answer = self._send(self._for_once(), uri, method, body, headers, until)
        else:
            answer = self._send(self._for_once(), uri, method, body, headers, until)
        response = Answer({**answer.headers, "status": str(answer.status_code)})
        response.reason = answer.reason
        return response, answer.content

    def _send(
        self, session: Session, uri: str, method: str, body: Any, headers: Mapping[str, str] | None, until: float
    ) -> Any:
        limit: Any = Timeout(total=max(0.001, until - monotonic()))  # requests takes urllib3's; types-requests does not
        return session.request(method, uri, data=body, headers=headers, timeout=limit, allow_redirects=False)

    def _for_once(self) -> Session:
        with self._lock:
            if self._once is None:
                self._once = self._opened(OneUse(), OneUse())
            return self._once

    def _opened(self, secure: HTTPAdapter, plain: HTTPAdapter) -> Session:
        session: Session = (
            Session()
            if self._credentials is None
            else AuthorizedSession(self._credentials, refresh_timeout=self._timeout_s)  # type: ignore[no-untyped-call]
        )
        session.mount("https://", secure)
        session.mount("http://", plain)
        return session

    def close(self) -> None:
        """Close what is open; a later request opens it again."""
        self._session.close()


class Repeating:
    """An Http, for requests that do no harm if they are carried out twice, whatever their method."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> tuple[Any, bytes]:
        """Make a request, as `Http.request` does, once more where that helps."""
        return self._http.send(uri, method, body, headers, is_repeatable=True)


def _was_cut(exc: NoConnection) -> bool:
    cause = exc.args[0] if exc.args else None
    return isinstance(cause, ProtocolError) and any(isinstance(each, ConnectionError) for each in cause.args)


def _is_ours(scheme: str, verify: Any) -> bool:
    return scheme == "https" and bool(verify)


@cache
def _context(authorities: str) -> SSLContext:
    """The context that trusts the authorities in a file or, as OpenSSL keeps them, in a folder."""
    context = create_urllib3_context()
    is_folder = isdir(authorities)
    context.load_verify_locations(None if is_folder else authorities, authorities if is_folder else None)
    return context
