"""Measure the cold start: from the start of the deployed function's process to its first event acknowledged.

The events are the two that a new instance meets:

    start        a start message; the first step is a function that a Cloud Tasks queue calls
    completion   the log entry of that call; the run is loaded and saved, and the next step launched

Beside each, in the same round, stands `import google.cloud.storage` in a fresh interpreter, which a function with its
state in Cloud Storage has to pay in any case; and an empty function under the same server, which is the least that any
function costs. What is started is what Google's buildpack starts: the command `functions-framework`, which serves from
gunicorn, over a copy of the source with byte code (GoogleCloudPlatform/buildpacks, cmd/python/functions_framework).
Cloud Storage, Cloud Tasks, the metadata server and the functions are servers of this process, spoken to as the cloud's
are: by TLS, with tokens, under Google's host names.

    python -m benchmarks.cold_start [--python INTERPRETER] [--rounds N]

INTERPRETER is to have what requirements.txt names, and nothing else (`make bench-cold` makes it so).
"""

import argparse
import http.client
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.support.project import Project, asynchronous, delivery

ROOT = Path(__file__).resolve().parents[1]
AIM = 2.5
LIBRARY = "import google.cloud.storage"
LIMIT_S = 60.0
PORT_PROBE_S = 0.002

EMPTY = """import functions_framework


@functions_framework.cloud_event
def on_event(event):
    pass
"""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as it is deployed: where its source is, and its environment."""

    python: str
    source: Path
    environment: Mapping[str, str]
    log: Path

    def cold_start_s(self, event: Mapping[str, object]) -> float:
        """Seconds from exec to the answer that acknowledges an event that Eventarc delivers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = {"FUNCTION_TARGET": "on_event", "FUNCTION_SIGNATURE_TYPE": "cloudevent", "PORT": str(port)}
        environment = {**self.environment, **settings}
        attributes, data = delivery(event)
        headers = {"Content-Type": "application/json", **{f"ce-{name}": value for name, value in attributes.items()}}
        command = [str(Path(self.python).with_name("functions-framework"))]
        with open(self.log, "wb") as out:
            begin = time.perf_counter()
            server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, cwd=self.source)
            try:
                status = _post_as_soon_as_it_listens(port, headers, json.dumps(data), begin + LIMIT_S)
                took_s = time.perf_counter() - begin
            finally:
                server.terminate()
                server.wait()
        if status != 200:
            raise RuntimeError(f"the event was answered by {status}: {self.log.read_text()[-2000:]}")
        return took_s


def _post_as_soon_as_it_listens(port: int, headers: dict[str, str], body: str, until: float) -> int:
    while time.perf_counter() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        with suppress(ConnectionRefusedError):
            connection.request("POST", "/", body, {**headers, "Connection": "close"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        time.sleep(PORT_PROBE_S)
    raise TimeoutError("the server does not listen")


class Cold:
    """What is measured, in a project of this process; a context manager."""

    def __init__(self, python: str) -> None:
        self.python = python
        self._stack = ExitStack()

    def __enter__(self) -> "Cold":
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        source, empty = deploy(folder / "source"), folder / "empty"
        empty.mkdir()
        (empty / "main.py").write_text(EMPTY)
        for each in (source, empty):
            build(self.python, each)
        self.project = self._stack.enter_context(Project(folder, source / "dag_definitions" / "sample"))
        self._ours = Function(self.python, source, self.project.environment, folder / "log")
        self._empty = Function(self.python, empty, self.project.environment, folder / "log")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self) -> dict[str, float]:
        """Measure all once, one after the other; seconds by row."""
        run_id = f"cold-{uuid4().hex[:12]}"
        start = {"resource": {"type": "start"}, "dag": "sample", "run_id": run_id}
        library_s = self._library_s()
        empty_s = self._empty.cold_start_s(start)
        start_s = self._ours.cold_start_s(start)
        self._expect(run_id, Init="Running", Step1="New")
        completion_s = self._ours.cold_start_s(self.project.ended.get(timeout=LIMIT_S))
        self._expect(run_id, Init="Completed", Step1="Running")
        self.project.ended.get(timeout=LIMIT_S)  # Step1 was called too
        library_s = (library_s + self._library_s()) / 2  # before and after: neighbours come and go
        return {"library": library_s, "empty": empty_s, "start": start_s, "completion": completion_s}

    def _library_s(self) -> float:
        """Seconds of a fresh interpreter that imports Cloud Storage's client, and ends."""
        begin = time.perf_counter()
        subprocess.run([self.python, "-c", LIBRARY], check=True)
        return time.perf_counter() - begin

    def _expect(self, run_id: str, **expected: str) -> None:
        statuses = self.project.statuses(run_id)
        got = {name: statuses.get(name) for name in expected}
        if got != expected:
            raise RuntimeError(f"{run_id}: is {got} where it is to be {expected}")


def deploy(folder: Path) -> Path:
    """Copy what is deployed to a folder; in its sample the functions are called by the queue, as is the default."""
    without = shutil.ignore_patterns("__pycache__")
    for name in ("orchestrator", "dag_definitions"):
        shutil.copytree(ROOT / name, folder / name, ignore=without)
    shutil.copy(ROOT / "main.py", folder)
    definition = folder / "dag_definitions" / "sample" / "dag.json"
    definition.write_text(json.dumps(asynchronous(json.loads(definition.read_text())), indent=2))
    return folder


def build(python: str, folder: Path) -> None:
    """Compile a source as the buildpack does, with SOURCE_DATE_EPOCH set, and give its files the times that they get.

    In an image all files are of 1980 (buildpacks/lifecycle, issue 1358). Byte code that goes by the time of its source
    is void then; with SOURCE_DATE_EPOCH Python makes byte code that goes by the hash.
    """
    of_1980 = 315532801
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(of_1980)}
    subprocess.run([python, "-m", "compileall", "-f", "-q", "."], cwd=folder, env=environment, check=True)
    for path in folder.rglob("*"):
        os.utime(path, (of_1980, of_1980))


ROWS: Mapping[str, tuple[str, bool]] = {
    "library": (f"{LIBRARY} alone", False),
    "empty": ("an empty function under functions-framework", False),
    "start": ("start message: run saved, first step launched", True),
    "completion": ("completion: run loaded, saved, next step launched", True),
}
"""Row -> (what it is, whether it is held to the aim)."""


def main() -> int:
    """Measure, print, and return 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="the interpreter to measure")
    parser.add_argument("--rounds", type=int, default=11)
    asked = parser.parse_args()
    with Cold(os.path.abspath(asked.python)) as cold:
        cold.round()  # the warm-up
        rounds = [cold.round() for _ in range(asked.rounds)]
    return 0 if report(rounds, print) else 1


def report(rounds: list[dict[str, float]], say: Callable[[str], object]) -> bool:
    """Say what was measured; return whether the aim is reached."""
    reached = True
    say(f"{'process start to the first event acknowledged':50}      ms    min    max   ratio    min    max  aim")
    for row, (what, is_held) in ROWS.items():
        ms = [times[row] * 1e3 for times in rounds]
        ratios = [times[row] / times["library"] for times in rounds]
        ratio = statistics.median(ratios)
        verdict = ""
        if is_held:
            reached = reached and ratio <= AIM
            verdict = f"{AIM}x {'reached' if ratio <= AIM else 'missed'}"
        spread = f"{min(ms):6.0f} {max(ms):6.0f}  {ratio:6.2f} {min(ratios):6.2f} {max(ratios):6.2f}"
        say(f"{what:50}  {statistics.median(ms):6.0f} {spread}  {verdict}".rstrip())
    say(f"medians of {len(rounds)} rounds; ratio: to `{LIBRARY}` of the same round")
    return reached


if __name__ == "__main__":
    sys.exit(main())
