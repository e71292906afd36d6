"""Google's own host names on this machine, by TLS, and the metadata server.

A process with this environment is on Google Cloud as far as its client libraries can tell: it asks the metadata server
for a token, and speaks TLS to storage.googleapis.com and the like, with no emulator set. One listener ends the TLS and
hands the bytes on to the server of the test's that speaks the API in question. Names are resolved to it by a
`sitecustomize` module, for httplib2 knows no proxy without one more library.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from urllib.parse import urlsplit

import certifi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

TOKEN = "ya29.of-the-metadata-server"
ACCOUNT = "orchestrator@my-project.iam.gserviceaccount.com"

_RESOLVER = """import socket

WHERE = {where!r}
resolve, connect = socket.getaddrinfo, socket.socket.connect


def getaddrinfo(host, port, *args, **kwargs):
    return resolve(*WHERE.get(host, (host, port)), *args, **kwargs)


def connect_to(self, address):
    return connect(self, WHERE.get(address[0], address))


socket.getaddrinfo, socket.socket.connect = getaddrinfo, connect_to
"""


class GoogleHosts:
    """The TLS listener and the metadata server; a context manager.

    Args:
        folder: where certificates and the resolver go.
        servers: host name -> URL of the server that answers for it, such as {"storage.googleapis.com": storage.url}.
        project: which the metadata server names.

    Attributes:
        asked: paths that the metadata server was asked for.
        heads: the first bytes of each connection, as (host, bytes): the head of its first request.
    """

    def __init__(self, folder: Path, servers: Mapping[str, str], project: str = "my-project") -> None:
        self.asked: list[str] = []
        self.heads: list[tuple[str, bytes]] = []
        self._folder, self._servers, self._project = folder, servers, project
        self._metadata = ThreadingHTTPServer(("127.0.0.1", 0), _metadata_handler(self))
        self._tls = _Tls(("127.0.0.1", 0), _tls_handler(self))

    def __enter__(self) -> GoogleHosts:
        authorities = self._folder / "authorities.pem"
        self.key = self._folder / "hosts.pem"
        self.key.write_bytes(_certificate(sorted(self._servers)))
        # Beside all that a client trusts otherwise, for reading those takes its time.
        authorities.write_bytes(
            Path(certifi.where()).read_bytes() + self.key.read_bytes().partition(b"-----BEGIN EC")[0]
        )
        where = dict.fromkeys(self._servers, self._tls.server_address)
        (self._folder / "sitecustomize.py").write_text(_RESOLVER.format(where=where))
        metadata = f"127.0.0.1:{self._metadata.server_address[1]}"
        self.environment = {
            "PYTHONPATH": str(self._folder),
            "REQUESTS_CA_BUNDLE": str(authorities),
            "HTTPLIB2_CA_CERTS": str(authorities),
            "GCE_METADATA_HOST": metadata,
            "GCE_METADATA_IP": metadata,
            "CLOUDSDK_CONFIG": str(self._folder / "no-gcloud"),
        }
        for server in (self._metadata, self._tls):
            Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._metadata, self._tls):
            server.shutdown()
            server.server_close()

    @property
    def tls_port(self) -> int:
        """Where TLS is spoken."""
        return self._tls.server_address[1]

    def answer(self, path: str) -> str | None:
        """What the metadata server says at a path; None: 404."""
        self.asked.append(path)
        where, _, query = path.partition("?")
        account = {"email": ACCOUNT, "scopes": ["https://www.googleapis.com/auth/cloud-platform"]}
        token = {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}
        name = where.removeprefix("/computeMetadata/v1/").rstrip("/")
        if name.startswith("instance/service-accounts/") and "recursive=true" in query:
            return json.dumps(account)
        if name.startswith("instance/service-accounts/") and name.endswith("/token"):
            return json.dumps(token)
        return {"": "", "/": "", "project/project-id": self._project, "universe/universe-domain": "googleapis.com"}.get(
            name
        )

    def backend(self, host: str) -> tuple[str, int]:
        """Where a host's server is."""
        where = urlsplit(self._servers[host])
        return where.hostname or "", where.port or 80


def without_clouds(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment without what would lead its clients elsewhere."""
    elsewhere = ("CLOUDSDK_", "GOOGLE_", "GCE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "PYTHON")
    kept = {name: value for name, value in environment.items() if not name.upper().startswith(elsewhere)}
    return {name: value for name, value in kept.items() if not name.endswith("EMULATOR_HOST")}


def _certificate(hosts: list[str]) -> bytes:
    """A certificate for some hosts, signed by itself, and its key; PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hosts of a test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


class _Tls(ThreadingTCPServer):
    daemon_threads, block_on_close, allow_reuse_address = True, False, True


def _metadata_handler(hosts: GoogleHosts) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # an answer in one packet: else its end waits 40 ms for a delayed acknowledgement

        def do_GET(self) -> None:
            answer = hosts.answer(self.path)
            body = (answer or "").encode()
            self.send_response_only(404 if answer is None else 200)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Content-Type", "application/json" if body.startswith(b"{") else "application/text")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


def _tls_handler(hosts: GoogleHosts) -> type[BaseRequestHandler]:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            asked: list[str] = []
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(hosts.key)
            context.sni_callback = lambda _, name, __: asked.append(name)
            with (
                suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection(hosts.backend(asked[0])) as server,
            ):
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                back = Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                first = client.recv(2**16)
                hosts.heads.append((asked[0], first))
                server.sendall(first)
                _pump(client, server)
                back.join()

    return Handler


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
