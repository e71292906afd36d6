"""Webhooks: a JSON document POSTed to an https URL of an allowed host, signed under a key of that host alone.

    X-Orchestrator-Id         the notification's id; the same for every try: drop what was seen
    X-Orchestrator-Timestamp  seconds since the epoch when this try was made: refuse what is old
    X-Orchestrator-Signature  v1=<hex of HMAC-SHA256 over `<timestamp>.<body>`>, where there is a key

The key is HMAC-SHA256 of `orchestrator webhook <host>` under the deployment's key, in hex: a receiver that has it
can forge neither what others get nor the traces of launches.
"""

import hmac
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

from orchestrator.model.errors import NotSent
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS, url_problem

TIMEOUT_S = 10.0
"""To connect, and then to answer."""

_GONE = 410  # "will not come back"
_MAX_ANSWER = 500


class Webhooks:
    """Posts documents.

    Args:
        allowed_hosts: patterns of the hosts that may be called.
        key: the deployment's; empty: nothing is signed.
        seconds: the time since the epoch.
        connect: (host, port, timeout_s) -> a connection.
    """

    def __init__(
        self,
        *,
        seconds: Callable[[], float],
        allowed_hosts: tuple[str, ...] = ALLOWED_HOSTS,
        key: bytes = b"",
        connect: Callable[[str, int, float], HTTPConnection] = lambda host, port, timeout_s: HTTPSConnection(
            host, port, timeout=timeout_s
        ),
    ) -> None:
        self._allowed_hosts, self._key, self._seconds, self._connect = allowed_hosts, key, seconds, connect

    def post(self, url: str, notification_id: str, body: bytes) -> None:
        """Post a document once; no redirect is followed.

        Raises:
            NotSent: it was not accepted, or no answer came; `retry` says whether another try can help.
        """
        problem: str | None
        try:
            where = urlsplit(url)
            problem = url_problem(where, self._allowed_hosts)
        except ValueError as exc:
            where, problem = urlsplit(""), str(exc)
        if problem is not None:
            allowed = ", ".join(self._allowed_hosts)
            raise NotSent(f"{shown(url)}: {problem}; allowed are https and the hosts {allowed} (NOTIFY_HOSTS)")
        host = where.hostname or ""
        headers = {"Content-Type": "application/json", "X-Orchestrator-Id": notification_id} | self._signed(host, body)
        path = (where.path or "/") + (f"?{where.query}" if where.query else "")
        connection = self._connect(host, where.port or 443, TIMEOUT_S)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            said = response.read(_MAX_ANSWER).decode("utf-8", "replace")
        except (OSError, HTTPException) as exc:
            raise NotSent(f"{shown(url)}: no answer: {type(exc).__name__}: {exc}", retry=True) from exc
        finally:
            connection.close()
        if not 200 <= response.status < 300:
            words = " ".join(said.split()) or response.reason
            raise NotSent(f"{shown(url)}: HTTP {response.status}: {words}", retry=response.status != _GONE)

    def _signed(self, host: str, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._seconds()))
        headers = {"X-Orchestrator-Timestamp": timestamp}
        if self._key:
            signature = hmac.digest(key_of_host(self._key, host).encode(), f"{timestamp}.".encode() + body, "sha256")
            headers["X-Orchestrator-Signature"] = f"v1={signature.hex()}"
        return headers


def key_of_host(deployment_key: bytes, host: str) -> str:
    """Return the key, 64 hex digits, that what is posted to a host is signed under."""
    return hmac.digest(deployment_key, f"orchestrator webhook {host}".encode(), "sha256").hex()


def shown(url: str) -> str:
    """Return a URL as an error may show it: many hold their secret in the path or query."""
    scheme, _, rest = url.partition("://")
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    return f"{scheme}://{host}/…"[:200]
