"""Measure the cold start: from the start of main.py's process to its first event acknowledged.

Beside it stands `import google.cloud.storage` in a fresh interpreter, which a function with its state in Cloud
Storage has to pay in any case. Both are measured in turn, after a warm-up and with byte code; medians are shown.

    python -m benchmarks.cold_start
"""

import argparse
import base64
import compileall
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

from tests.support.cloud_tasks_server import CloudTasksServer
from tests.support.functions_server import FunctionsServer
from tests.support.storage_server import StorageServer

ROOT = Path(__file__).resolve().parents[1]
AIM = 2.5
BUCKET, PROJECT, REGION = "state", "my-project", "europe-west1"
LIBRARY = [sys.executable, "-c", "import google.cloud.storage"]
LIMIT_S = 60.0


def library_s() -> float:
    """Seconds of a fresh interpreter that imports Cloud Storage's client, and ends."""
    begin = time.perf_counter()
    subprocess.run(LIBRARY, check=True)
    return time.perf_counter() - begin


def cold_start_s(environment: dict[str, str], log: Path) -> float:
    """Seconds from exec to the answer that acknowledges a start of the sample."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--source", str(ROOT / "main.py"), "--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", "functions_framework", "--target", "on_event", "--signature-type", "cloudevent"]
    body = _message({"resource": {"type": "start"}, "dag": "sample", "run_id": f"cold-{uuid4().hex[:12]}"})
    with open(log, "wb") as out:
        begin = time.perf_counter()
        server = subprocess.Popen([*command, *where, "--debug"], env=environment, stdout=out, stderr=out, cwd=ROOT)
        try:
            status = _post_as_soon_as_it_listens(port, body, begin + LIMIT_S)
            took_s = time.perf_counter() - begin
        finally:
            server.terminate()
            server.wait()
    if status != 200:
        raise RuntimeError(f"the event was answered by {status}: {log.read_text()[-2000:]}")
    return took_s


def _message(event: dict) -> bytes:
    data = base64.b64encode(json.dumps(event).encode()).decode()
    message = {
        "data": data,
        "messageId": uuid4().hex,
        "publishTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    return json.dumps({"message": message, "subscription": f"projects/{PROJECT}/subscriptions/events"}).encode()


def _post_as_soon_as_it_listens(port: int, body: bytes, until: float) -> int:
    path = f"/projects/{PROJECT}/topics/events?pubsub_trigger=true"
    while time.perf_counter() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
        with suppress(ConnectionRefusedError):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            return answer.status
        time.sleep(0.002)
    raise TimeoutError("the server does not listen")


def compile_all() -> None:
    """Make the byte code that a deployed function comes with."""
    packages = [
        Path(str(find_spec(name).origin)).parent for name in ("flask", "google.cloud.storage", "googleapiclient")
    ]
    for folder in {ROOT / "orchestrator", *(package.parent for package in packages)}:
        compileall.compile_dir(folder, quiet=2)
    compileall.compile_file(ROOT / "main.py", quiet=2)


def main() -> int:
    """Measure, print, and return 1 where the aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    compile_all()
    sample = ROOT / "dag_definitions" / "sample"
    with (
        tempfile.TemporaryDirectory() as folder,
        StorageServer(buckets=[BUCKET]) as storage,
        CloudTasksServer() as tasks,
        FunctionsServer([sample]) as functions,
    ):
        environment = {
            **os.environ,
            "STATUS_BUCKET": f"gs://{BUCKET}",
            "STORAGE_EMULATOR_HOST": storage.url,
            "DAG_DEFINITIONS": str(sample.parent),
            "EVENTS_TOPIC": f"projects/{PROJECT}/topics/events",
            "TASKS_QUEUE": f"projects/{PROJECT}/locations/{REGION}/queues/launches",
            "INVOKER_SERVICE_ACCOUNT": f"invoker@{PROJECT}.iam.gserviceaccount.com",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "FUNCTION_REGION": REGION,
            "CLOUD_FUNCTIONS_URL": functions.url_template,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": "http://127.0.0.1:9/",
            **tasks.environment,
        }
        log = Path(folder) / "log"
        cold, library = [], []
        for number in range(rounds + 1):
            library.append(library_s())
            cold.append(cold_start_s(environment, log))
            if number == 0:  # the warm-up
                cold.clear()
                library.clear()
    cold_s, bare_s = statistics.median(cold), statistics.median(library)
    ratio = cold_s / bare_s
    print(f"process start to the first event acknowledged  {cold_s * 1e3:6.0f} ms  {_spread(cold)}")
    print(f"import google.cloud.storage alone              {bare_s * 1e3:6.0f} ms  {_spread(library)}")
    print(f"ratio                                          {ratio:6.2f}     aim: at most {AIM}")
    return 0 if ratio <= AIM else 1


def _spread(times: list[float]) -> str:
    return f"({min(times) * 1e3:.0f} to {max(times) * 1e3:.0f}, {len(times)} rounds)"


if __name__ == "__main__":
    sys.exit(main())
