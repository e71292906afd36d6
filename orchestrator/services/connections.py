"""Connections to Google's APIs by `requests`, and what all of an instance's have in common.

That is its credentials, and the context of their TLS. Both are costly to come by and safe to share: credentials take
five questions to the metadata server; a context takes 16 ms to read the authorities that it trusts, which `requests`
has every new connection do anew.
"""

from collections.abc import Mapping
from functools import cache
from os.path import isdir
from ssl import SSLContext
from threading import Lock
from typing import Any

import google.auth
from certifi import where
from google.auth.transport.requests import AuthorizedSession
from requests import PreparedRequest, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as NoConnection
from urllib3.exceptions import ProtocolError
from urllib3.util.ssl_ import create_urllib3_context

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

MOST = 80
"""How many connections are kept open to a service: one for each request that an instance is let have at once, which is what
terraform/ has as the orchestrator's `concurrency`. More threads than that make one that is thrown away."""

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


class Http:
    """What googleapiclient takes for an httplib2.Http; for any number of threads, which httplib2 is not.

    Args:
        timeout_s: how long to wait for a connection, and for each part of an answer.
        credentials: google.auth ones; None: none are sent.
    """

    def __init__(self, timeout_s: float, credentials: Any = None) -> None:
        self._timeout_s = timeout_s
        self._session: Session = (
            Session() if credentials is None else AuthorizedSession(credentials, refresh_timeout=timeout_s)  # type: ignore[no-untyped-call]
        )
        self._session.mount("https://", Connections(MOST))
        self._session.mount("http://", HTTPAdapter(pool_maxsize=MOST))

    def request(
        self, uri: str, method: str = "GET", body: Any = None, headers: Mapping[str, str] | None = None, **_: Any
    ) -> tuple[Any, bytes]:
        """Make a request; return (httplib2's Response, content).

        It is made once more where the connection was cut before an answer came, as httplib2 does: most often an
        open one that the service had closed meanwhile.
        """
        from httplib2 import Response

        try:
            answer = self._send(uri, method, body, headers)
        except NoConnection as exc:
            if not _was_cut(exc):
                raise
            answer = self._send(uri, method, body, headers)
        response = Response({**answer.headers, "status": str(answer.status_code)})
        response.reason = answer.reason
        return response, answer.content

    def _send(self, uri: str, method: str, body: Any, headers: Mapping[str, str] | None) -> Any:
        return self._session.request(
            method, uri, data=body, headers=headers, timeout=self._timeout_s, allow_redirects=False
        )

    def close(self) -> None:
        """Close what is open; a later request opens it again."""
        self._session.close()


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
