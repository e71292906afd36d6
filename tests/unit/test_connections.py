"""Connections to Google's APIs: servers are verified though all share one context; what a cut connection does."""

import threading
from concurrent.futures import ThreadPoolExecutor

import google.auth
import pytest
import requests
from google.auth.exceptions import DefaultCredentialsError
from google.oauth2.credentials import Credentials
from urllib3.exceptions import ProtocolError

from orchestrator.services import connections
from orchestrator.services.connections import Connections, Http, application_credentials
from tests.support.cutting_server import CuttingServer
from tests.support.google_hosts import GoogleHosts


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server of TLS for `localhost`, in front of a plain one; yields (its port, the file that trusts it)."""
    with CuttingServer() as server, GoogleHosts(tmp_path, {"localhost": server.url}) as hosts:
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
    with CuttingServer(status=404) as server:
        response, content = Http(5.0).request(f"{server.url}/a?b=c", "POST", b"x", {"X-Theirs": "1"})
        assert server.calls == [("/a?b=c", b"x")]
    assert (response.status, response.reason, response["x-own"], content) == (404, "Not Found", "yes", b"{}")


def test_no_redirect_is_followed():
    with CuttingServer(status=302) as server:
        response, _ = Http(5.0).request(f"{server.url}/")
        assert (response.status, server.calls) == (302, [("/", b"")])


def way(http: Http, is_repeatable: bool) -> Http:
    return http.repeating if is_repeatable else http


@pytest.mark.parametrize(
    ("method", "is_repeatable", "cuts", "calls"),
    [
        pytest.param("GET", False, 1, 2, id="a question is asked once more"),
        pytest.param("DELETE", False, 1, 2, id="so is what leaves the same behind if it is done twice"),
        pytest.param("POST", True, 1, 2, id="and a POST of which the caller says so"),
        pytest.param("POST", True, 9, 2, id="only once"),
        pytest.param("POST", False, 1, 1, id="any other POST may have been carried out, so it is not made again"),
    ],
)
def test_a_connection_that_is_cut_before_the_answer(method, is_repeatable, cuts, calls):
    with CuttingServer(cuts) as server:
        http = way(Http(5.0), is_repeatable)
        if cuts < calls:
            assert http.request(server.url, method, b"x")[0].status == 200
        else:
            with pytest.raises(requests.exceptions.ConnectionError):
                http.request(server.url, method, b"x")
        assert len(server.calls) == calls


@pytest.mark.parametrize(
    ("is_repeatable", "connections_made"),
    [
        pytest.param(True, 1, id="one that may be made again, on the one that is open"),
        pytest.param(False, 3, id="one that may not, on one that nobody can have closed yet"),
    ],
)
def test_the_connection_that_a_post_is_made_on(is_repeatable, connections_made):
    with CuttingServer() as server:
        http = way(Http(5.0), is_repeatable)
        for _ in range(3):
            assert http.request(server.url, "POST", b"x")[0].status == 200
        assert len(server.peers) == connections_made


def test_the_second_try_goes_by_a_new_connection_though_several_are_open():
    with CuttingServer() as server:
        http = Http(5.0)
        with ThreadPoolExecutor(4) as pool:
            server.together = threading.Barrier(4)
            assert {each[0].status for each in pool.map(http.request, [server.url] * 4)} == {200}
        server.together = None
        open_ones = set(server.peers)
        server.cut_peers = open_ones  # as a service does with all of them while an instance is frozen
        assert http.request(server.url)[0].status == 200
        assert len(server.peers - open_ones) == 1
        assert len(server.calls) == 6


def test_both_tries_share_the_time_of_one(monkeypatch):
    limits: list[float] = []
    now = [100.0]

    def cut(session: object, method: str, uri: str, *, timeout: object, **_: object) -> None:
        limits.append(timeout.total)
        now[0] += 4.0
        raise requests.exceptions.ConnectionError(ProtocolError("cut", ConnectionResetError()))

    monkeypatch.setattr(connections, "monotonic", lambda: now[0])
    monkeypatch.setattr(requests.Session, "request", cut)
    with pytest.raises(requests.exceptions.ConnectionError):
        Http(5.0).request("http://127.0.0.1:9/")
    assert limits == [5.0, 1.0]


def test_a_post_that_is_made_once_carries_the_credentials():
    with CuttingServer() as server:
        Http(5.0, Credentials("token")).request(server.url, "POST", b"x")
        assert server.authorizations == ["Bearer token"]


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
