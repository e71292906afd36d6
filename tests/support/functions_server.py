"""A server that stands in for Cloud Functions: a DAG's functions under functions-framework, each at /<name>.

After each call the log entry that the platform would write goes to `publish`, as a sink delivers it.

    with FunctionsServer([Path("dag_definitions/wordcount")], publish) as server:
        CloudFunction(tasks, url=server.url_template, …)
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from time import monotonic
from urllib.parse import parse_qs

import functions_framework
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app

from orchestrator.model.commands import Outcome
from orchestrator.model.messages import LAUNCH_PARAMETER, NONCE_PARAMETER
from orchestrator.targets.cloud_function_log import Call, End, gen1_entry, gen2_entry


@dataclass
class Answered:
    """A call that was answered."""

    function: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    content: bytes = field(repr=False)

    @property
    def launch_id(self) -> str:
        return parse_qs(self.query).get(LAUNCH_PARAMETER, [""])[0]

    @property
    def nonce(self) -> str:
        return parse_qs(self.query).get(NONCE_PARAMETER, [""])[0]

    @property
    def trace_id(self) -> str:
        return self.headers.get("traceparent", "00--").split("-")[1]


class FunctionsServer:
    """The server; a context manager. A function is loaded at its first call, once.

    Args:
        folders: folders of DAGs: `<folder>/functions/<name>/main.py` answers at /<name>.
        publish: takes a call's log entry, in the thread that answers.
        generation: whose log entries to leave: 1 or 2.
        entry_points: function -> its entry point, where that is not `main`.

    Attributes:
        calls: the calls that were answered.
        loses_entries: True: no entry is published.
        fail_next: statuses to answer the next calls with, instead of calling the function.
        entries: every entry that was or would have been published.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        publish: Callable[[dict], object] = lambda entry: None,
        *,
        generation: int = 2,
        project: str = "my-project",
        region: str = "europe-west1",
        entry_points: Mapping[str, str] | None = None,
    ) -> None:
        self._folders, self._publish = list(folders), publish
        self._entry = gen1_entry if generation == 1 else gen2_entry
        self._generation, self._project, self._region = generation, project, region
        self._entry_points = entry_points or {}
        self._apps: dict[str, Callable] = {}
        self._lock, self._numbers = Lock(), count(1)
        self._path = list(sys.path)
        self.calls: list[Answered] = []
        self.entries: list[dict] = []
        self.fail_next: list[int] = []
        self.loses_entries = False
        self._server = make_server("127.0.0.1", 0, self._application, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.url_template = f"{self.url}/{{target_name}}"

    def __enter__(self) -> "FunctionsServer":
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        sys.path[:] = self._path  # the framework appends the folder of each function

    def calls_of(self, launch_id: str) -> list[Answered]:
        """The calls for one launch."""
        return [call for call in self.calls if call.launch_id == launch_id]

    def _application(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        name, _, rest = environ["PATH_INFO"].lstrip("/").partition("/")
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        started_at, started = datetime.now(UTC), monotonic()
        status, headers, content = self._answer(name, {**environ, "PATH_INFO": f"/{rest}"}, body)
        headers = [(key, value) for key, value in headers if key.lower() != "content-length"]
        names = {key: key.removeprefix("HTTP_").replace("_", "-").lower() for key in environ if key.startswith("HTTP_")}
        received = {short: environ[key] for key, short in names.items()}
        answered = Answered(name, environ["QUERY_STRING"], received, body, status, content)
        call = self._call(answered)
        if self._generation == 1:
            headers.append(("Function-Execution-Id", call.execution_id))
        start_response(f"{status} said", [*headers, ("Content-Length", str(len(content)))])
        yield content
        end = End(status, Outcome.completed(), "timeout" if status == 504 else "", len(content))
        entry = self._entry(call, end, started_at, monotonic() - started, datetime.now(UTC))
        entry = json.loads(json.dumps(entry))
        with self._lock:
            self.calls.append(answered)
            self.entries.append(entry)
        if not self.loses_entries:
            self._publish(entry)

    def _answer(self, name: str, environ: dict, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with self._lock:
            fault = self.fail_next.pop(0) if self.fail_next else None
        if fault is not None:
            return fault, [("Content-Type", "text/plain")], b"as the test asked for"
        app = self._app(name)
        if app is None:
            return 404, [("Content-Type", "text/plain")], b"no such function"
        chunks, line, headers = run_wsgi_app(app, {**environ, "wsgi.input": BytesIO(body)}, buffered=True)
        return int(line.split()[0]), list(headers), b"".join(chunks)

    def _app(self, name: str) -> Callable | None:
        with self._lock:
            if name not in self._apps:
                found = (folder / "functions" / name / "main.py" for folder in self._folders)
                source = next((path for path in found if path.is_file()), None)
                if source is None:
                    return None
                module = sys.modules.get("main")  # the framework loads each function as `main`
                try:
                    entry_point = self._entry_points.get(name, "main")
                    self._apps[name] = functions_framework.create_app(entry_point, str(source), "http")
                finally:
                    with suppress(KeyError):
                        del sys.modules["main"]
                    if module is not None:
                        sys.modules["main"] = module
            return self._apps[name]

    def _call(self, answered: Answered) -> Call:
        parts = answered.headers.get("traceparent", f"00-{'0' * 32}-{'0' * 16}-01").split("-")
        return Call(
            project=self._project,
            region=self._region,
            function_name=answered.function,
            execution_id=f"gx{next(self._numbers):010x}",  # the platform's own: no id of ours leads to it
            trace_id=parts[1],
            span_id=parts[2],
            path=f"/?{answered.query}",
            body=answered.body,
        )


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        """Write nothing."""
