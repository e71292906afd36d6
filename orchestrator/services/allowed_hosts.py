"""Which URLs may be called at all: https, and only the hosts that are allowed. Pure."""

import re
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import SplitResult

ALLOWED_HOSTS = ("*.run.app", "*.cloudfunctions.net")
"""Patterns of the hosts that may be called unless others are named: Google's own for functions and services."""

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


def url_problem(where: SplitResult, allowed: tuple[str, ...]) -> str | None:
    """Return why a URL may not be called, if so. Raises ValueError where its port is none."""
    if where.scheme != "https":
        return f"its scheme is {where.scheme or 'missing'}"
    if "@" in where.netloc:
        return "it holds a user's name"
    if where.port not in (None, 443):
        return f"its port is {where.port}"
    host = where.hostname or ""
    # Only what every reader of URLs takes for the same host: no backslash, no blank, no other alphabet.
    if not _HOST.fullmatch(host) or _is_address(host):
        return f"its host is {host!r}"
    if not any(fnmatchcase(host, pattern.lower()) for pattern in allowed):
        return f"its host is {host}"
    return None


def _is_address(host: str) -> bool:
    """Whether a host is a number: 10.0.0.1, or one of the other ways in which resolvers let it be written."""
    try:
        ip_address(host)
    except ValueError:
        return re.fullmatch(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+))*", host) is not None
    return True
