"""Connections to Google's APIs: servers are verified though all share one context; what a cut connection does."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import google.auth
import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError

from orchestrator.services import connections
from orchestrator.services.connections import Connections, Http, application_credentials
from tests.support.google_hosts import GoogleHosts


class Server:
    """An HTTP server that cuts the connections of its first calls, and notes those that it gets."""

    def __init__(self, cuts: int = 0, status: int = 200) -> None:
        self.calls: list[tuple[str, bytes]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                server.calls.append((self.path, body))
                if len(server.calls) <= cuts:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response(status)
                self.send_header("X-Own", "yes")
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server of TLS for `localhost`, in front of a plain one; yields (its port, the file that trusts it)."""
    with Server() as server, GoogleHosts(tmp_path, {"localhost": server.url}) as hosts:
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
            monkeypatch.delenv(name, raising=False)
        connections._context.cache_clear()
        yield hosts.tls_port, hosts.environment["REQUESTS_CA_BUNDLE"]
        connections._context.cache_clear()


def get(url: str) -> int:
    session = requests.Session()
    session.mount("https://", Connections(2))
    with session:
        return session.get(url, timeout=5).status_code


def test_a_server_that_no_authority_vouches_for_is_refused(secure):
    with pytest.raises(requests.exceptions.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(f"https://localhost:{secure[0]}/")


def test_a_server_of_another_name_is_refused(secure, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", secure[1])
    with pytest.raises(requests.exceptions.SSLError, match=r"doesn't match|not valid for"):
        get(f"https://127.0.0.1:{secure[0]}/")


def test_the_authorities_are_read_once_for_all_connections(secure, monkeypatch):
    port, authorities = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authorities)
    assert get(f"https://localhost:{port}/") == 200
    with open(authorities, "w") as file:
        file.write("no certificates any more")
    assert get(f"https://localhost:{port}/") == 200
    with pytest.raises(OSError, match=r"NO_CERTIFICATE_OR_CRL_FOUND|X509"):
        requests.get(f"https://localhost:{port}/", timeout=5)  # which reads them again


def test_who_asks_for_no_verification_gets_none(secure):
    session = requests.Session()
    session.mount("https://", Connections(2))
    with session, pytest.warns(Warning, match="Unverified HTTPS request"):
        assert session.get(f"https://localhost:{secure[0]}/", timeout=5, verify=False).status_code == 200


def test_an_answer_is_what_the_client_takes_from_httplib2():
    with Server(status=404) as server:
        response, content = Http(5.0).request(f"{server.url}/a?b=c", "POST", b"x", {"X-Theirs": "1"})
        assert server.calls == [("/a?b=c", b"x")]
    assert (response.status, response.reason, response["x-own"], content) == (404, "Not Found", "yes", b"{}")


def test_no_redirect_is_followed():
    with Server(status=302) as server:
        response, _ = Http(5.0).request(f"{server.url}/")
        assert (response.status, server.calls) == (302, [("/", b"")])


@pytest.mark.parametrize(
    ("cuts", "calls"),
    [
        pytest.param(1, 2, id="a cut connection is tried once more"),
        pytest.param(9, 2, id="and only once"),
    ],
)
def test_a_connection_that_is_cut_before_the_answer(cuts, calls):
    with Server(cuts) as server:
        http = Http(5.0)
        if cuts < calls:
            assert http.request(server.url, "POST", b"x")[0].status == 200
        else:
            with pytest.raises(requests.exceptions.ConnectionError):
                http.request(server.url, "POST", b"x")
        assert len(server.calls) == calls


def test_a_refused_connection_is_not_tried_again(monkeypatch):
    tries = []
    monkeypatch.setattr(Http, "_send", lambda *args, real=Http._send: tries.append(1) or real(*args))
    with pytest.raises(requests.exceptions.ConnectionError):
        Http(1.0).request("http://127.0.0.1:9/")
    assert len(tries) == 1


def test_credentials_are_looked_for_once_however_many_ask(monkeypatch):
    looked: list[object] = []
    begin = threading.Barrier(8)

    def default(scopes: list[str]) -> tuple[object, str]:
        looked.append(scopes)
        return object(), "my-project"

    def ask() -> None:
        begin.wait()
        found.append(application_credentials())

    monkeypatch.setattr(connections, "_found", [])
    monkeypatch.setattr(google.auth, "default", default)
    found: list[object] = []
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert looked == [["https://www.googleapis.com/auth/cloud-platform"]]
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_credentials_that_are_not_there_are_looked_for_again(monkeypatch):
    answers = [DefaultCredentialsError("none yet"), ("theirs", "my-project")]

    def default(scopes: list[str]) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(connections, "_found", [])
    monkeypatch.setattr(google.auth, "default", default)
    with pytest.raises(DefaultCredentialsError):
        application_credentials()
    assert application_credentials() == "theirs"
