"""LocalCloudFunction: the twin of Cloud Functions. A DAG's functions run from their own source, on this machine.

Each function gets one server process (functions-framework, as in the cloud), started at its first call, and is
called with the very request that it gets in the cloud. Its outcome is kept in a ledger before the log entry that
the cloud would write is published, so a kill of the orchestrator loses neither. What still ran then dies with it.
"""

import logging
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from urllib.parse import quote, unquote

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchUncertain, OrchestratorError
from orchestrator.model.messages import HEARTBEATS_VARIABLE
from orchestrator.model.task_result import heartbeat_file
from orchestrator.targets.callables import NESTED_TOO_DEEPLY, completed
from orchestrator.targets.cloud_function_log import Call, End, gen1_entry, gen2_entry
from orchestrator.targets.function_server import ERROR_HEADER
from orchestrator.targets.ledger import Ledger
from orchestrator.targets.twins import (
    exit_words,
    last_lines,
    plain,
    source_of,
    tell,
    utc_now,
    where,
)
from orchestrator.targets.workers import Workers

log = logging.getLogger(__name__)

_START_LIMIT_S = 240.0  # what Cloud Run allows a container
_EXIT_LIMIT_S = 2.0
_CONNECT_TRIES = 3
_BEGUN = object()


class LocalCloudFunction:
    """Runs `<folder of the DAG>/functions/<target_name>/main.py` and leaves the cloud's log entries.

    Args:
        folders: name of a DAG -> its folder.
        publish: takes the log entry of an ended call, in the thread that made the call.
        work_dir: where outcomes and logs are kept.
        project: what stands for the project in URLs and log entries.
        region: what stands for the region.
        generation: whose log entries to leave: 1 or 2.
        workers: how many calls may run at once; what comes beyond waits its turn.
        now: the time, aware.
    """

    identity: Identity = Identity.FOREVER  # but for what died with its process, which may be started again
    has_outcome: bool = True
    can_cancel: bool = False
    launch_limit_s: float = 0.0
    synchronous: bool = False

    def __init__(
        self,
        folders: Mapping[str, Path],
        publish: Callable[[Mapping[str, Json]], object],
        work_dir: Path,
        *,
        project: str = "local-project",
        region: str = "local",
        generation: int = 2,
        workers: int = 32,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._folders = folders
        self._publish = publish
        self._ledger = Ledger(work_dir)
        self._project = project
        self._region = region
        self.id_is_ours = generation == 2  # its request log shows our URL; 1st gen's line only an execution id
        self._entry = gen1_entry if generation == 1 else gen2_entry
        self._workers = Workers("cloud-function", workers)
        self._now = now
        self._servers = dict[tuple[str, str, str], _Server]()
        self._waiting = dict[str, object]()  # keys handed over and not begun; who pops one, begins or withdraws it
        self._closed = False

    def launch(self, launch: Launch) -> Execution:
        """Have a worker call the function; the same key again returns the execution started before.

        Raises:
            LaunchRefused: the DAG has no such function (`CloudFunction.NotFound`).
            LaunchUncertain: the ledger cannot be written, this target is closed, or the machine has no thread for it.
        """
        source = source_of(self._folders, launch, "functions/*/main.py", error_type="CloudFunction.NotFound")
        call = Call.of(launch, self._project, self._region)
        if self._closed:
            raise LaunchUncertain(f"{launch.launch_id}: not launched, this process is about to end")
        if self._ledger.begin(launch.key, call.execution_id):
            self._waiting[launch.key] = None
            if not self._workers.submit(partial(self._run, launch, source, call)):
                self._waiting.pop(launch.key, None)
                words = "this process is about to end or has no thread left"
                self._ledger.finish(launch.key, Outcome.lost(f"{call.execution_id}: never begun, {words}"))
                raise LaunchUncertain(f"{launch.launch_id}: not launched, {words}")
        return Execution(call.execution_id)

    def find(self, launch: Launch) -> Execution | None:
        """Return the launch's execution if it has ended, or runs in this process or another that lives."""
        execution_id = self._ledger.find(launch.key)
        return None if execution_id is None else Execution(execution_id)

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, None while it runs; Lost where the process that ran it is gone."""
        return self._ledger.outcome(execution.execution_id)

    def heard_at(self, launch: Launch) -> datetime | None:
        """Return when the call last said that it is at work. Raises LaunchUncertain."""
        try:
            seconds = (self._ledger.root / heartbeat_file(launch.key)).stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise LaunchUncertain(f"{launch.launch_id}: its heartbeat cannot be read: {exc}") from exc
        return datetime.fromtimestamp(seconds, UTC)

    def withdraw(self, launch: Launch) -> bool:
        """Have a call that waits for a worker of this process never made. Raises LaunchUncertain."""
        if self._waiting.pop(launch.key, _BEGUN) is _BEGUN:
            return False
        return self._ledger.finish(launch.key, Outcome.cancelled("taken back before it began"))

    def cancel(self, execution: Execution) -> None:
        """A function cannot be stopped. Raises LaunchUncertain while it runs."""
        if self.outcome(execution) is None:
            raise LaunchUncertain(f"{execution.execution_id}: a function cannot be stopped, it runs to its end")

    def close(self) -> None:
        """Stop the servers, and with them what runs there: that is lost, and may be launched again."""
        self._closed = True
        self._workers.close()
        for server in tuple(self._servers.values()):
            server.stop()
        self._ledger.close()

    def _run(self, launch: Launch, source: Path, call: Call) -> None:
        if self._waiting.pop(launch.key, _BEGUN) is _BEGUN:
            return  # withdrawn
        started_at, started = self._now(), monotonic()
        try:
            end = self._call(launch, source, call)
        except Exception as exc:
            end = End(503, Outcome.failed("Task.Crashed", plain(f"{source}: cannot be called, {exc!r}")), "error")
        if self._closed:
            return  # it ended with this process: lost, not failed
        try:
            is_kept = self._ledger.finish(launch.key, end.outcome)
        except OrchestratorError:
            text = "run_id=%s node=%s: its outcome cannot be kept"
            log.exception(text, launch.run_id, launch.node_name, extra=where(launch))
            return
        if is_kept:
            tell(self._publish, launch, self._entry(call, end, started_at, monotonic() - started, self._now()))

    def _call(self, launch: Launch, source: Path, call: Call) -> End:
        server = self._server(launch, source)
        try:
            connection, process = server.connect()
        except _NoServer as exc:
            return End(503, Outcome.failed("CloudFunction.LoadError", str(exc)), "load error")
        try:
            connection.request("POST", call.path, call.body, call.headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, HTTPException):
            message = f"{source}: {_crash_words(process)}; log: {self._log(launch)}"
            return End(503, Outcome.failed("Task.Crashed", message), "crash")
        finally:
            connection.close()
        if 200 <= response.status < 300:
            return End(response.status, outcome_of_answer(content), "", len(content))
        error = unquote(response.headers.get(ERROR_HEADER, ""))
        words = error or " ".join(content.decode("utf-8", "replace").split())[:500] or response.reason
        message = plain(f"HTTP {response.status}: {words}; log: {self._log(launch)}")
        return End(response.status, Outcome.failed("Task.Failed", message), "", len(content))

    def _server(self, launch: Launch, source: Path) -> "_Server":
        entry_point = str(launch.step.get("function") or "main")
        key = (launch.dag, launch.target_name, entry_point)
        server = self._servers.get(key)
        if server is None:
            log_file = self._ledger.root / ".servers" / f"{quote('.'.join(key), safe='')}.txt"
            server = self._servers.setdefault(key, _Server(source, entry_point, self._ledger.root, log_file))
            if self._closed:  # close() may have looked before it was in the dict
                server.stop()
        return server

    def _log(self, launch: Launch) -> Path:
        return self._ledger.log_file(launch.key)


def outcome_of_answer(content: bytes) -> Outcome:
    """What an answer's body says: its JSON is the result, else its text; there is none where it is empty."""
    if not content.strip():
        return Outcome.completed()
    try:
        return completed(msgspec.json.decode(content), content)
    except msgspec.DecodeError:
        return Outcome.completed(content.decode("utf-8", "replace"))
    except RecursionError:
        return NESTED_TOO_DEEPLY


def _crash_words(process: "subprocess.Popen[bytes]") -> str:
    """Say what became of a server that has taken a request and not answered."""
    try:
        return f"its process {exit_words(process.wait(_EXIT_LIMIT_S))}"
    except subprocess.TimeoutExpired:
        return "closed the connection without an answer"


class _NoServer(Exception):
    """The function's server does not start; says why."""


class _Server:
    """The server process of one function: started when it is needed, and again when it has died."""

    def __init__(self, source: Path, entry_point: str, ledger: Path, log_file: Path) -> None:
        self._source = source
        self._command = [
            *(sys.executable, "-m", "orchestrator.targets.function_server"),
            *(str(source), entry_point, str(ledger)),
        ]
        # What a function finds in its environment in the cloud.
        self._environment = {
            "FUNCTION_TARGET": entry_point,
            "FUNCTION_SIGNATURE_TYPE": "http",
            "K_SERVICE": source.parent.name,
            HEARTBEATS_VARIABLE: str(ledger),
        }
        self._log_file = log_file
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._starting: subprocess.Popen[bytes] | None = None
        self._port = 0
        self._stopped = False

    def connect(self) -> "tuple[HTTPConnection, subprocess.Popen[bytes]]":
        """Return a connection to the process that lives, or to a new one. Raises _NoServer."""
        for _ in range(_CONNECT_TRIES):
            with self._lock:
                if self._stopped:
                    raise _NoServer(f"{self._source}: this process is about to end")
                if self._process is None or self._process.poll() is not None:
                    self._process = self._start()
                process = self._process
                connection = HTTPConnection("127.0.0.1", self._port)
            try:
                connection.connect()
            except ConnectionError:  # it died since we looked: nothing was sent, so a new one may be asked
                connection.close()
                self._kill(process)
            else:
                return connection, process
        raise _NoServer(
            f"{self._source}: its server died {_CONNECT_TRIES} times before it was called; log: {self._log_file}"
        )

    def stop(self) -> None:
        """Kill the server, and have no other one started."""
        self._stopped = True  # before the lock: who starts one holds that, and looks again when it is up
        for process in (self._process, self._starting):
            if process is not None:
                self._kill(process)
        with self._lock:
            if self._process is not None:
                self._kill(self._process)

    def _start(self) -> "subprocess.Popen[bytes]":
        self._log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._log_file.open("ab") as log_file:
            begin = log_file.seek(0, 2)
            process = self._starting = subprocess.Popen(  # noqa: S603 - the user's own source, as asked for
                self._command,
                stdin=subprocess.PIPE,  # its end is how the server notices ours, even by kill -9
                stdout=subprocess.PIPE,
                stderr=log_file,
                env=os.environ | self._environment,
                start_new_session=True,  # ctrl-C in the terminal is for us
            )
        assert process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            is_ready = bool(selector.select(_START_LIMIT_S))
        line = process.stdout.readline() if is_ready else b""
        process.stdout.close()
        if not line or self._stopped:
            self._kill(process)
            why = " | ".join(last_lines(self._log_file, begin)[-3:]) if is_ready else f"took over {_START_LIMIT_S} s"
            raise _NoServer(plain(f"{self._source}: cannot be loaded: {why}; log: {self._log_file}"))
        self._port = int(line)
        return process

    @staticmethod
    def _kill(process: "subprocess.Popen[bytes]") -> None:
        """End the process with all that it started, and wait for its end."""
        if process.poll() is None:  # else its id may be somebody else's by now
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
