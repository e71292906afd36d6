"""Google's own Pub/Sub emulator for tests, and what is asked of it beside publishing.

`PUBSUB_EMULATOR_HOST` names one that runs; else one is started, where gcloud, its emulator and Java are there. In a
test module: `from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401`, and a test's or fixture's
argument `pubsub_emulator` is then its host:port. All modules share one.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest

START_LIMIT_S = 30.0
PROJECT = "projects/emulated"


class NotHere(Exception):
    """There is no emulator, with the reason."""


class Emulator:
    """A Pub/Sub emulator of our own, in a process group of its own."""

    def __init__(self) -> None:
        for program in ("gcloud", "java"):
            if shutil.which(program) is None:
                raise NotHere(f"no PUBSUB_EMULATOR_HOST is set, and there is no {program} to start an emulator with")
        self._folder = Path(tempfile.mkdtemp(prefix="pubsub-emulator-"))
        self._log = self._folder / "log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{free.getsockname()[1]}"
        command = ["gcloud", "--quiet", "beta", "emulators", "pubsub", "start"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, f"--host-port={self.host}", f"--data-dir={self._folder}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "CLOUDSDK_CORE_DISABLE_PROMPTS": "1"},
                start_new_session=True,
            )
        atexit.register(self.stop)
        try:
            self._wait()
        except NotHere:
            self.stop()
            raise

    def stop(self) -> None:
        """End it, gcloud and Java both; it is no error if it has ended."""
        atexit.unregister(self.stop)
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(2.0)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        until_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < until_s:
            if self._process.poll() is not None:
                raise NotHere(f"the Pub/Sub emulator did not start: {self._log.read_text()[-500:].strip()}")
            try:
                urllib.request.urlopen(f"http://{self.host}", timeout=1.0).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise NotHere(f"the Pub/Sub emulator does not answer after {START_LIMIT_S:g} s")


@cache
def _own() -> Emulator | NotHere:
    try:
        return Emulator()
    except NotHere as exc:
        return exc  # cached too: nobody waits for it twice


@pytest.fixture(scope="session", name="pubsub_emulator")
def pubsub_emulator_host(request: pytest.FixtureRequest) -> str:
    """host:port of the emulator; skips where there is none."""
    host = os.environ.get("PUBSUB_EMULATOR_HOST")
    if not host:
        emulator = _own()
        if isinstance(emulator, NotHere):
            pytest.skip(str(emulator))
        request.config.add_cleanup(emulator.stop)
        host = emulator.host
    return host


@dataclass(frozen=True, slots=True)
class Pulled:
    """One delivery of a message."""

    ack_id: str
    message_id: str
    publish_time: datetime
    event: Mapping[str, object]


class Subscription:
    """A new topic and a pull subscription to it, by REST."""

    def __init__(self, host: str) -> None:
        self._root = f"http://{host}/v1/"
        name = f"test-{uuid4().hex}"
        self.topic, self._name = f"{PROJECT}/topics/{name}", f"{PROJECT}/subscriptions/{name}"
        self._call("PUT", self.topic, {})
        self._call("PUT", self._name, {"topic": self.topic, "ackDeadlineSeconds": 60})

    def pull(self, number: int = 100) -> list[Pulled]:
        """Return what there is now, without waiting."""
        answer = self._call("POST", f"{self._name}:pull", {"maxMessages": number, "returnImmediately": True})
        return [
            Pulled(
                received["ackId"],
                received["message"]["messageId"],
                datetime.fromisoformat(received["message"]["publishTime"]),
                json.loads(b64decode(received["message"]["data"])),
            )
            for received in answer.get("receivedMessages", [])
        ]

    def ack(self, pulled: Pulled) -> None:
        """Have it never delivered again."""
        self._call("POST", f"{self._name}:acknowledge", {"ackIds": [pulled.ack_id]})

    def nack(self, pulled: Pulled) -> None:
        """Have it delivered again."""
        self._call("POST", f"{self._name}:modifyAckDeadline", {"ackIds": [pulled.ack_id], "ackDeadlineSeconds": 0})

    def delete(self) -> None:
        self._call("DELETE", self._name, None)
        self._call("DELETE", self.topic, None)

    def _call(self, method: str, path: str, body: Mapping[str, object] | None) -> dict:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._root + path, data=data, headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=10.0) as answer:
            return json.loads(answer.read() or b"{}")
