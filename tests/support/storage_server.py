"""A small Cloud Storage: the JSON API as far as the official client speaks it, in memory, on 127.0.0.1.

    with StorageServer(buckets=("b",)) as server:  # STORAGE_EMULATOR_HOST=server.url
    python -m tests.support.storage_server --port 9023 --bucket b

What it takes over from the service: generations that only grow, preconditions on every verb (checked at the start
and at the end of a resumable upload), checksums, listings in pages, Google's error bodies, and for a download, where
the service answers in plain text, their texts. Faults are answers that a test asks for, before or after the call
was carried out.
"""

import argparse
import base64
import hashlib
import json
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from socket import SHUT_RDWR
from threading import Lock, Thread
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import google_crc32c


@dataclass(frozen=True, slots=True)
class Call:
    """A request, as a test sees it: read stat write delete list, or bucket for what is about a bucket itself."""

    kind: str
    bucket: str
    name: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Fault:
    """What the next `times` calls that match get instead of their answer.

    Attributes:
        matches: which calls.
        status: to answer; 0 = the call's own answer.
        is_applied: whether the call is carried out first.
        delay_s: to wait before the answer.
        cut: how many bytes of the body are sent before the connection breaks; None = all of it.
        then: what else happens before the answer is sent, such as another writer's put.
        message: in the error's body.
    """

    matches: Callable[[Call], bool]
    times: int = 1
    status: int = 503
    is_applied: bool = False
    delay_s: float = 0.0
    cut: int | None = None
    then: Callable[[], object] | None = None
    message: str = "a fault that the test asked for"


@dataclass(frozen=True, slots=True)
class Stored:
    """One generation of an object."""

    data: bytes
    generation: int
    content_type: str
    metadata: dict[str, object]

    @property
    def crc32c(self) -> str:
        return base64.b64encode(struct.pack(">I", google_crc32c.value(self.data))).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(hashlib.md5(self.data).digest()).decode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status, self.reason, self.message = status, reason, message
        super().__init__(message)

    def answer(self, *, as_text: bool = False) -> Answer:
        if as_text:
            return Answer(self.status, self.message.encode(), {"Content-Type": "text/html; charset=UTF-8"})
        detail = {"message": self.message, "domain": "global", "reason": self.reason}
        if self.status == 412:
            detail |= {"locationType": "header", "location": "If-Match"}
        return as_json({"error": {"code": self.status, "message": self.message, "errors": [detail]}}, self.status)


REASONS = {403: "forbidden", 404: "notFound", 412: "conditionNotMet", 429: "rateLimitExceeded"}


def as_json(content: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode(), {"Content-Type": "application/json; charset=UTF-8"})


class StorageServer:
    """The server; it runs while it is entered.

    Args:
        buckets: that there are from the start.
        port: 0 = any free one.
        page_size: how many names a page of a listing holds at most.
        ignore_preconditions: behave as some emulators do, which a contract suite has to find out.
    """

    def __init__(
        self, *, buckets: Sequence[str] = (), port: int = 0, page_size: int = 1000, ignore_preconditions: bool = False
    ) -> None:
        self.page_size, self.ignore_preconditions = page_size, ignore_preconditions
        self.reads, self.writes = Counter[str](), Counter[str]()
        """Object name -> requests for its content; object name -> uploads and deletions. Refused ones too."""
        self.calls = list[Call]()
        """Every request, in the order of their arrival."""
        self.connections = 0
        """How many were opened."""
        self.faults = list[Fault]()
        self._lock = Lock()
        self._buckets = {name: dict[str, Stored]() for name in buckets}
        self._uploads = dict[str, tuple[Call, dict[str, object], bytearray]]()
        self._upload_ids = count(1)
        self._generation = 0
        self._open = set[Handler]()
        self._http = _Http(("127.0.0.1", port), Handler)
        self._http.storage = self
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        for handler in list(self._open):
            handler.hang_up()

    def opened(self, handler: "Handler") -> None:
        """Note a connection."""
        with self._lock:
            self.connections += 1
            self._open.add(handler)

    def closed(self, handler: "Handler") -> None:
        """Forget a connection."""
        with self._lock:
            self._open.discard(handler)

    def make_bucket(self, name: str) -> None:
        with self._lock:
            self._buckets.setdefault(name, {})

    def write(self, bucket: str, name: str, data: bytes) -> int:
        """Write an object as another client would, without a request; return its generation."""
        with self._lock:
            return self._write(bucket, name, data, "application/octet-stream", {}).generation

    def stored(self, bucket: str, name: str) -> Stored | None:
        """What lies there now."""
        return self._buckets[bucket].get(name)

    def add_fault(self, matches: Callable[[Call], bool], **fault: object) -> Fault:
        """Answer the next calls that match otherwise; see Fault."""
        made = Fault(matches, **fault)  # type: ignore[arg-type]
        with self._lock:
            self.faults.append(made)
        return made

    # ---- one call -----------------------------------------------------------------------------------------

    def respond(self, call: Call, body: bytes) -> tuple[Answer, int | None]:
        """Carry out a call; return the answer, and after how many bytes of it the connection breaks, if it does."""
        with self._lock:
            self.calls.append(call)
            if call.kind == "read":
                self.reads[call.name] += 1
            elif call.kind in ("write", "delete"):
                self.writes[call.name] += 1
            fault = next((f for f in self.faults if f.times > 0 and f.matches(call)), None)
            if fault is not None:
                fault.times -= 1
            if fault is not None and fault.status and not fault.is_applied:
                answer = None
            else:
                answer = self._carry_out(call, body)
        if fault is None:
            assert answer is not None
            return answer, None
        if fault.then is not None:
            fault.then()
        time.sleep(fault.delay_s)
        if fault.status or answer is None:
            reason = REASONS.get(fault.status, "backendError")
            answer = Refusal(fault.status, reason, fault.message).answer(as_text=call.kind == "read")
        return answer, fault.cut

    def _carry_out(self, call: Call, body: bytes) -> Answer:
        try:
            return getattr(self, f"_on_{call.kind}")(call, body)
        except Refusal as refusal:
            return refusal.answer(as_text=call.kind == "read")

    def _on_bucket(self, call: Call, body: bytes) -> Answer:
        if not call.bucket:
            name = json.loads(body)["name"]
            if name in self._buckets:
                raise Refusal(409, "conflict", "Your previous request to create the named bucket succeeded")
            self._buckets[name] = {}
        else:
            name = call.bucket
            self._objects(call)
        return as_json({"kind": "storage#bucket", "id": name, "name": name, "metageneration": "1", "location": "LOCAL"})

    def _on_list(self, call: Call, _: bytes) -> Answer:
        query = call.query
        start = max(query.get("startOffset", ""), query.get("pageToken", ""))
        size = min(int(query.get("maxResults", self.page_size)), self.page_size)
        names = sorted(n for n in self._objects(call) if n.startswith(query.get("prefix", "")) and n >= start)
        if "endOffset" in query:
            names = [name for name in names if name < query["endOffset"]]
        page: dict[str, object] = {"kind": "storage#objects"}
        if names:
            page["items"] = [self._resource(call.bucket, name) for name in names[:size]]
        if len(names) > size:
            page["nextPageToken"] = names[size]
        return as_json(page)

    def _on_stat(self, call: Call, _: bytes) -> Answer:
        self._found(call)
        return as_json(self._resource(call.bucket, call.name))

    def _on_read(self, call: Call, _: bytes) -> Answer:
        found = self._found(call)
        headers = {
            "Content-Type": found.content_type,
            "x-goog-generation": str(found.generation),
            "x-goog-metageneration": "1",
            "x-goog-hash": f"crc32c={found.crc32c},md5={found.md5}",
            "x-goog-stored-content-encoding": "identity",
            "x-goog-stored-content-length": str(len(found.data)),
            "x-goog-storage-class": "STANDARD",
        }
        first, _, last = call.headers.get("range", "").removeprefix("bytes=").partition("-")
        if not first and not last:
            return Answer(200, found.data, headers)
        if int(first or 0) >= len(found.data):
            raise Refusal(416, "requestedRangeNotSatisfiable", "Request range not satisfiable")
        part = found.data[int(first or 0) : int(last) + 1 if last else None]
        span = f"bytes {first or 0}-{int(first or 0) + len(part) - 1}/{len(found.data)}"
        return Answer(206, part, headers | {"Content-Range": span})

    def _on_delete(self, call: Call, _: bytes) -> Answer:
        self._found(call)
        del self._objects(call)[call.name]
        return Answer(204)

    def _on_write(self, call: Call, body: bytes) -> Answer:
        self._check_generation(call, self._objects(call).get(call.name))
        upload_type = call.query.get("uploadType")
        if upload_type == "multipart":
            metadata, content_type, data = _parts(call.headers["content-type"], body)
            return self._finish(call, metadata, content_type, data)
        if upload_type == "media":
            return self._finish(call, {}, call.headers.get("content-type", ""), body)
        if upload_type != "resumable":
            raise Refusal(400, "invalid", f"Unknown uploadType: {upload_type}")
        upload_id = f"u{next(self._upload_ids)}"
        self._uploads[upload_id] = (call, json.loads(body or b"{}"), bytearray())
        location = f"{self.url}/upload/storage/v1/b/{call.bucket}/o?uploadType=resumable&upload_id={upload_id}"
        return Answer(200, b"", {"Location": location})

    def _on_chunk(self, call: Call, body: bytes) -> Answer:
        upload_id = call.query["upload_id"]
        if upload_id not in self._uploads:
            raise Refusal(404, "notFound", "Not Found")
        begun, metadata, data = self._uploads[upload_id]
        span, _, total = call.headers.get("content-range", "bytes */*").removeprefix("bytes ").partition("/")
        if span != "*":
            if int(span.partition("-")[0]) != len(data):
                raise Refusal(400, "invalid", "Invalid request: a chunk must follow the one before")
            data += body
        if total == "*" or len(data) < int(total):
            return Answer(308, b"", {"Range": f"bytes=0-{len(data) - 1}"} if data else {})
        del self._uploads[upload_id]
        self._check_generation(begun, self._objects(begun).get(begun.name))
        content_type = begun.headers.get("x-upload-content-type", "application/octet-stream")
        return self._finish(begun, metadata, content_type, bytes(data))

    # ---- what calls are made of ---------------------------------------------------------------------------

    def _objects(self, call: Call) -> dict[str, Stored]:
        if call.bucket not in self._buckets:
            raise Refusal(404, "notFound", "The specified bucket does not exist.")
        return self._buckets[call.bucket]

    def _found(self, call: Call) -> Stored:
        found = self._objects(call).get(call.name)
        wanted = call.query.get("generation")
        if found is None or (wanted is not None and int(wanted) != found.generation):
            shown = f"{call.bucket}/{call.name}" + (f"#{wanted}" if wanted else "")
            raise Refusal(404, "notFound", f"No such object: {shown}")
        self._check_generation(call, found)
        return found

    def _check_generation(self, call: Call, found: Stored | None) -> None:
        if self.ignore_preconditions:
            return
        generation = 0 if found is None else found.generation
        wanted, unwanted = call.query.get("ifGenerationMatch"), call.query.get("ifGenerationNotMatch")
        if (wanted is not None and int(wanted) != generation) or (unwanted is not None and int(unwanted) == generation):
            raise Refusal(412, "conditionNotMet", "At least one of the pre-conditions you specified did not hold.")

    def _finish(self, call: Call, metadata: dict[str, object], content_type: str, data: bytes) -> Answer:
        made = self._write(call.bucket, call.name, data, str(metadata.get("contentType", content_type)), metadata)
        for name, digest in (("crc32c", made.crc32c), ("md5Hash", made.md5)):
            if metadata.get(name, digest) != digest:
                del self._buckets[call.bucket][call.name]
                raise Refusal(400, "invalid", f'Provided {name} "{metadata[name]}" does not match "{digest}".')
        return as_json(self._resource(call.bucket, call.name))

    def _write(self, bucket: str, name: str, data: bytes, content_type: str, metadata: dict[str, object]) -> Stored:
        self._generation = max(time.time_ns() // 1000, self._generation + 1)
        made = self._buckets[bucket][name] = Stored(data, self._generation, content_type, metadata)
        return made

    def _resource(self, bucket: str, name: str) -> dict[str, object]:
        found = self._buckets[bucket][name]
        own = {k: v for k, v in found.metadata.items() if k in ("cacheControl", "metadata", "contentEncoding")}
        return own | {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{found.generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(found.generation),
            "metageneration": "1",
            "contentType": found.content_type,
            "storageClass": "STANDARD",
            "size": str(len(found.data)),
            "crc32c": found.crc32c,
            "md5Hash": found.md5,
            "etag": str(found.generation),
            "updated": f"{datetime.fromtimestamp(found.generation / 1e6, UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        }


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    storage: StorageServer


class Handler(BaseHTTPRequestHandler):
    """Turns bytes into a Call and an Answer into bytes."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Http

    def setup(self) -> None:
        super().setup()
        self.server.storage.opened(self)

    def finish(self) -> None:
        self.server.storage.closed(self)
        super().finish()

    def hang_up(self) -> None:
        """Break the connection."""
        self.close_connection = True
        with suppress(OSError):  # it is closed already
            self.connection.shutdown(SHUT_RDWR)

    def handle(self) -> None:
        with suppress(OSError):  # the client has gone
            super().handle()

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        call = self._call(body)
        if call is None:
            answer, cut = Refusal(404, "notFound", "Not Found").answer(), None
        else:
            answer, cut = self.server.storage.respond(call, body)
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[:cut])
        self.wfile.flush()
        if cut is not None:
            self.hang_up()

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _call(self, body: bytes) -> Call | None:
        """Name what is asked for; None = nothing that this server knows."""
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = address.path.removeprefix("/upload").removeprefix("/download").removeprefix("/resumable/upload")
        if not path.startswith("/storage/v1/b"):
            return None
        bucket, _, rest = path.removeprefix("/storage/v1/b").removeprefix("/").partition("/")
        bucket, name = unquote(bucket), unquote(rest.removeprefix("o").removeprefix("/"))
        verb, is_upload = self.command, address.path.startswith(("/upload/", "/resumable/"))
        if "upload_id" in query:
            kind = "chunk"
        elif is_upload:
            kind, name = "write", query.get("name") or str(_first_part(headers, body).get("name", ""))
        elif not rest:
            kind = "bucket"
        elif not name:
            kind = "list"
        elif verb == "DELETE":
            kind = "delete"
        else:
            kind = "read" if query.get("alt") == "media" else "stat"
        return Call(kind, bucket, name, query, headers)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _first_part(headers: dict[str, str], body: bytes) -> dict[str, object]:
    """Return the metadata that an upload begins with."""
    content_type = headers.get("content-type", "")
    if content_type.startswith("multipart/related"):
        return _parts(content_type, body)[0]
    return json.loads(body) if body and content_type.startswith("application/json") else {}


def _parts(content_type: str, body: bytes) -> tuple[dict[str, object], str, bytes]:
    """Return metadata, content type and content of a multipart/related upload."""
    boundary = b"--" + content_type.partition("boundary=")[2].strip("\"'").encode()
    _, first, rest = body.split(boundary, 2)
    end = rest.rindex(b"\r\n" + boundary + b"--")
    head, _, data = rest[:end].removeprefix(b"\r\n").partition(b"\r\n\r\n")
    media_type = head.decode().partition(":")[2].strip() or "application/octet-stream"
    return json.loads(first.partition(b"\r\n\r\n")[2]), media_type, data


def of(kind: str, name: str | None = None) -> Callable[[Call], bool]:
    """Match calls of a kind, about one object if it is named."""
    return lambda call: call.kind == kind and name in (None, call.name)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.storage_server", description=__doc__)
    parser.add_argument("--port", type=int, default=9023)
    parser.add_argument("--bucket", action="append", default=[], help="one that there is from the start; repeatable")
    options = parser.parse_args(arguments)
    with StorageServer(port=options.port, buckets=options.bucket) as server:
        print(f"STORAGE_EMULATOR_HOST={server.url}", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
