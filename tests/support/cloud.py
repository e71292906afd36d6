"""The whole cloud on one machine: emulators and fakes around real functions-framework servers of main.py.

topic (Pub/Sub emulator) -> push subscription -> front -> main.py, one process or several
main.py -> Cloud Storage, Cloud Tasks, Dataflow, Cloud Logging, the job services (servers of this process)
Cloud Tasks -> functions -> log entry -> topic;   Dataflow -> pipeline -> log entries -> topic
"""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from uuid import uuid4

from tests.support.cloud_tasks_server import CloudTasksServer
from tests.support.dataflow_server import DataflowServer
from tests.support.functions_server import FunctionsServer
from tests.support.job_server import Job, JobServer, JobService
from tests.support.logging_server import LoggingServer
from tests.support.storage_server import StorageServer

ROOT = Path(__file__).resolve().parents[2]
PROJECT, REGION, BUCKET = "my-project", "europe-west1", "state"


MAX_REDELIVERIES = 30
"""How often a message that an instance did not take is handed on again before the emulator gets it back."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Front:
    """What the push subscription pushes to: hands each message to one of the instances, with faults if asked.

    Attributes:
        twice: share of the messages that are delivered to two instances at once.
        late: share of the messages that are held back for up to two seconds, so that others overtake them.
        delivered: deliveries; duplicates: messages handed on twice at once; delayed: messages held back.
    """

    def __init__(self, instances: Sequence[Instance], seed: int = 0) -> None:
        self.instances = instances
        self.random = random.Random(seed)
        self.twice = self.late = 0.0
        self.delivered = self.duplicates = self.delayed = 0
        self._lock = Lock()
        front = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status = front.deliver(self.path, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Front:
        Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def deliver(self, path: str, body: bytes) -> int:
        """Deliver a pushed message; again, to any instance, while that fails: the emulator's own pauses are long."""
        with self._lock:
            is_twice = self.random.random() < self.twice
            is_late = self.random.random() < self.late
            self.duplicates += is_twice
            self.delayed += is_late
            wait_s = self.random.uniform(0.0, 2.0) if is_late else 0.0
        time.sleep(wait_s)
        if is_twice:
            Thread(target=self._post, args=(path, body), daemon=True).start()
        status = self._post(path, body)
        for _ in range(MAX_REDELIVERIES):
            if status < 500:
                break
            time.sleep(self.random.uniform(0.1, 0.5))
            status = self._post(path, body)
        return status

    def _post(self, path: str, body: bytes) -> int:
        with self._lock:
            self.delivered += 1
            instance = self.random.choice(self.instances)
        return instance.post(path, body)


class Instance:
    """One process that serves main.py (or a file like it).

    Args:
        command: port -> the command that serves instead, in `folder`.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        log: Path,
        source: Path,
        *,
        command: Callable[[int], Sequence[str]] | None = None,
        folder: Path = ROOT,
    ) -> None:
        self._environment, self._log, self._folder = environment, log, folder
        self._command = command or (lambda port: [sys.executable, "-m", "tests.support.serve", str(source), str(port)])
        self.port = free_port()
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self._log, "ab") as log:
            self.process = subprocess.Popen(
                self._command(self.port),
                cwd=self._folder,
                env={**os.environ, **self._environment},
                stdout=log,
                stderr=log,
            )
        self.starts += 1

    def wait_until_it_listens(self, timeout_s: float = 60.0) -> None:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise TimeoutError(f"the server did not start: {self._log.read_text()[-2000:]}")

    @property
    def is_dead(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def post(self, path: str, body: bytes) -> int:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status
        except urllib.error.HTTPError as exc:
            return exc.code
        except OSError:
            return 503  # dead, or died at it
        except Exception:
            return 502  # died in the middle of its answer

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


class Cloud:
    """All of it; a context manager.

    Args:
        pubsub_host: host:port of the Pub/Sub emulator.
        folder: where logs go.
        dags: folder of DAG folders.
        instances: how many processes serve main.py.
        settings: further environment of main.py.
        source: what they serve instead of main.py.
        work: what the jobs of the job services do; without it they run until they are ended.
        command: port -> the command that each instance is, instead, in `source`'s folder.
    """

    def __init__(
        self,
        pubsub_host: str,
        folder: Path,
        *,
        dags: Path = ROOT / "dag_definitions",
        instances: int = 1,
        settings: Mapping[str, str] | None = None,
        source: Path = ROOT / "main.py",
        command: Callable[[int], Sequence[str]] | None = None,
        generation: int = 2,
        loses: float = 0.0,
        seed: int = 0,
        work: Callable[[JobService, Job], object] | None = None,
    ) -> None:
        self.pubsub_host, self.folder, self.dags = pubsub_host, folder, dags
        self.topic = f"projects/{PROJECT}/topics/events-{uuid4().hex[:8]}"
        self.loses, self.lost = loses, 0
        self._random = random.Random(seed)
        folders = [path for path in sorted(dags.iterdir()) if path.is_dir()]
        templates = {f"gs://templates/{p.stem}.json": p for f in folders for p in (f / "pipelines").glob("*.py")}
        self.storage = StorageServer(buckets=[BUCKET])
        self.tasks = CloudTasksServer()
        self.functions = FunctionsServer(
            folders, self.leave_entry, generation=generation, project=PROJECT, region=REGION
        )
        self.dataflow = DataflowServer(templates, self.leave_entry)
        self.jobs = JobServer(self.leave_entry, work)
        self.logging = LoggingServer(lambda: self.functions.entries)
        self._first_generation = sorted(p.name for f in folders for p in (f / "functions").glob("*") if generation == 1)
        self._n, self._settings, self._source, self._seed = instances, settings or {}, source, seed
        self._command = command
        self._stack = ExitStack()

    def __enter__(self) -> Cloud:
        enter = self._stack.enter_context
        for server in (self.storage, self.tasks, self.functions, self.dataflow, self.jobs, self.logging):
            enter(server)
        overrides = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
        self.environment = {
            "STATUS_BUCKET": f"gs://{BUCKET}",
            "STORAGE_EMULATOR_HOST": self.storage.url,
            "PUBSUB_EMULATOR_HOST": self.pubsub_host,
            "DAG_DEFINITIONS": str(self.dags),
            "EVENTS_TOPIC": self.topic,
            "TASKS_QUEUE": f"projects/{PROJECT}/locations/{REGION}/queues/launches",
            "INVOKER_SERVICE_ACCOUNT": f"invoker@{PROJECT}.iam.gserviceaccount.com",
            "DEPLOYMENT_KEY": "a key of the deployment, 32 long",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "FUNCTION_REGION": REGION,
            "FIRST_GENERATION_FUNCTIONS": ",".join(self._first_generation),
            "CLOUD_FUNCTIONS_URL": self.functions.url_template,
            "DATAFLOW_TEMPLATES": "gs://templates",
            f"{overrides}DATAFLOW": self.dataflow.url,
            f"{overrides}LOGGING": self.logging.url,
            **self.jobs.environment,
            **self.tasks.environment,
            **self._settings,
        }
        self.instances = [
            Instance(
                self.environment,
                self.folder / f"instance{number}.log",
                self._source,
                command=self._command,
                folder=self._source.parent if self._command else ROOT,
            )
            for number in range(self._n)
        ]
        for instance in self.instances:
            instance.start()
            self._stack.callback(instance.stop)
        self.front = enter(Front(self.instances, self._seed))
        for instance in self.instances:
            instance.wait_until_it_listens()
        self.subscription = self.subscribe(self.topic)
        return self

    def subscribe(self, topic: str) -> str:
        """Make a topic, and have it pushed to the orchestrator under its own path; return the subscription."""
        self._rest("PUT", f"/v1/{topic}", {})
        subscription = topic.replace("/topics/", "/subscriptions/")
        push = {"pushEndpoint": f"{self.front.url}/{topic}"}
        policy = {"minimumBackoff": "0.1s", "maximumBackoff": "1s"}
        body = {"topic": topic, "pushConfig": push, "ackDeadlineSeconds": 60, "retryPolicy": policy}
        self._rest("PUT", f"/v1/{subscription}", body)
        self._stack.callback(self._rest, "DELETE", f"/v1/{subscription}", None)
        return subscription

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def publish(
        self, event: Mapping[str, object] | bytes, topic: str | None = None, attributes: Mapping[str, str] | None = None
    ) -> str:
        """Publish an event (or any bytes) to the topic, or to another one; return its message id."""
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        message = {"data": base64.b64encode(data).decode(), "attributes": dict(attributes or {})}
        answer = self._rest("POST", f"/v1/{topic or self.topic}:publish", {"messages": [message]})
        return answer["messageIds"][0]

    def leave_entry(self, entry: dict) -> None:
        """What the log sink does: publish an entry; some are lost."""
        if self._random.random() < self.loses:
            self.lost += 1
            return
        self.publish(entry)

    def tick(self) -> None:
        """What Cloud Scheduler does."""
        self.publish({"resource": {"type": "tick"}})

    def document(self, run_id: str) -> dict | None:
        """The run document, if there is one."""
        stored = self.storage.stored(BUCKET, f"runs/{run_id}.json")
        return json.loads(stored.data) if stored else None

    def wait(self, run_id: str, timeout_s: float = 60.0, *, tick_every_s: float | None = None) -> dict:
        """Return the run document when the run has ended."""
        until = time.monotonic() + timeout_s
        next_tick = time.monotonic() + (tick_every_s or timeout_s * 2)
        while time.monotonic() < until:
            document = self.document(run_id)
            if document is not None and document["$run"]["status"] not in ("Running", "Queued"):
                return document
            if time.monotonic() >= next_tick:
                next_tick += tick_every_s or timeout_s
                self.tick()
            time.sleep(0.05)
        logs = "\n".join(path.read_text()[-3000:] for path in sorted(self.folder.glob("instance*.log")))
        raise TimeoutError(f"{run_id} did not end: {json.dumps(self.document(run_id), indent=1)}\n{logs}")

    def names(self, prefix: str) -> list[str]:
        """Names of the objects in the state bucket that start with a prefix."""
        return sorted(name for name in self.storage._buckets[BUCKET] if name.startswith(prefix))

    def log_of(self, run_id: str) -> list[dict]:
        """The structured lines that the instances have logged with the label of a run, as Cloud Logging would find."""
        lines = [line for path in sorted(self.folder.glob("instance*.log")) for line in path.read_text().splitlines()]
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if entry.get("logging.googleapis.com/labels", {}).get("run_id") == run_id]

    def launches(self) -> Counter:
        """launch id -> how often its function was called."""
        return Counter(call.launch_id for call in self.functions.calls)

    def _rest(self, method: str, path: str, body: object) -> dict:
        request = urllib.request.Request(
            f"http://{self.pubsub_host}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read() or b"{}")
