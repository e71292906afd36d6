"""The HTTP side of a REST service that stands in for one of Google's: JSON in, JSON out."""

import json
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit


class RestService(Protocol):
    """What answers."""

    def answer(self, method: str, path: str, query: Mapping[str, str], body: dict) -> tuple[int, dict]:
        """Return (status, JSON)."""


class RestServer(ThreadingHTTPServer):
    """Serves on 127.0.0.1, a thread a connection."""

    daemon_threads = True
    request_queue_size = 128  # many threads may launch at once


def rest_handler(service: RestService) -> type[BaseHTTPRequestHandler]:
    """Return a handler of requests to `service`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _answer(self) -> None:
            where = urlsplit(self.path)
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.loads(content) if content else {}
            status, answer = service.answer(self.command, where.path, dict(parse_qsl(where.query)), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
