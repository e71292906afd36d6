"""A server that carries out what it is asked for, and then cuts the connection instead of answering."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class CuttingServer:
    """Answers with `status` and an empty object, but for the first `cuts` calls.

    Attributes:
        calls: (path, body) of each call.
        authorizations: the header of each call.
        peers: the connections that calls came by.
        cut_peers: those of which it cuts each call that comes by one.
        together: answers only once so many calls are here.
    """

    def __init__(self, cuts: int = 0, status: int = 200) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.authorizations: list[str | None] = []
        self.peers: set[tuple[str, int]] = set()
        self.cut_peers: set[tuple[str, int]] = set()
        self.together: threading.Barrier | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.calls.append((self.path, body))
                server.authorizations.append(self.headers.get("Authorization"))
                server.peers.add(self.client_address)
                if server.together is not None:
                    server.together.wait(5)
                if len(server.calls) <= cuts or self.client_address in server.cut_peers:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("X-Own", "yes")
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_DELETE = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "CuttingServer":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
