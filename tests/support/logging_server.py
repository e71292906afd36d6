"""A small Cloud Logging: `entries.list` over a list of entries, by a filter, in pages."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tests.support.logging_query import compile_query


class LoggingServer:
    """The server; a context manager.

    Args:
        entries: returns what has been logged so far.
    Attributes:
        searches: how often it was asked; filters: what for; resources: of which projects.
        refuses: answer everything with this status.
    """

    def __init__(self, entries: Callable[[], list[dict]]) -> None:
        self._entries = entries
        self.searches = 0
        self.filters: list[str] = []
        self.resources: list[list[str]] = []
        self.refuses: int | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
                outer.searches += 1
                status, answer = outer.answer(self.path, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, path: str, body: dict) -> tuple[int, dict]:
        """Answer a call: (HTTP status, JSON)."""
        if self.refuses is not None:
            return self.refuses, {"error": {"code": self.refuses, "message": "Permission denied for all log views"}}
        if path.partition("?")[0] != "/v2/entries:list":
            return 404, {"error": {"code": 404, "message": f"{path}: no such method"}}
        self.filters.append(body.get("filter", ""))
        self.resources.append(body.get("resourceNames", []))
        test = compile_query(body.get("filter", ""))
        found = sorted((each for each in self._entries() if test(each)), key=lambda each: each.get("timestamp", ""))
        if body.get("orderBy") == "timestamp desc":
            found.reverse()
        start, size = int(body.get("pageToken") or 0), int(body.get("pageSize") or 50)
        more = {"nextPageToken": str(start + size)} if found[start + size :] else {}
        return 200, {"entries": found[start : start + size], **more}

    def __enter__(self) -> "LoggingServer":
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
