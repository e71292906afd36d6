"""Fan-in: what 500 completions pushed at once at several processes cost in writes of the run document.

The processes are what is deployed: functions-framework, serving from gunicorn by the threads that terraform/ gives it.
"""

import base64
import json
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.cloud import BUCKET, PROJECT, REGION, ROOT, Front, Instance
from tests.support.cloud_tasks_server import CloudTasksServer
from tests.support.functions_server import FunctionsServer
from tests.support.storage_server import StorageServer
from tests.support.terraform import concurrency

RUN, DOCUMENT = "wide", "runs/wide.json"
WIDTH, INSTANCES, AT_ONCE = 500, 3, 256
"""Google's front end hands an instance as many requests at once as it is deployed for: terraform/ says 80 and more."""
MAX_WRITES = 25
WRITE_S = 0.03
"""About what a small object takes in Cloud Storage."""
TOPIC = f"projects/{PROJECT}/topics/events"

SERVER = [str(Path(sys.executable).parent / "functions-framework"), "--source", str(ROOT / "main.py")]
"""What Google's buildpack starts; with --debug it would be another server."""

TASK = {"type": "Task", "target_type": "CloudFunction", "target_name": "work"}
WIDE = {
    "start": "All",
    "steps": {
        "All": {
            "type": "Parallel",
            "branches": [{"start": f"B{n}", "steps": {f"B{n}": TASK}} for n in range(WIDTH)],
            "next": "End",
        },
        "End": TASK,
    },
}


class Deployed:
    """Several processes of main.py behind one endpoint, and what they call."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        dags = folder / "dags"
        source = dags / "wide" / "functions" / "work"
        source.mkdir(parents=True)
        (source / "main.py").write_text("def main(request):\n    return {}\n")
        (dags / "wide" / "dag.json").write_text(json.dumps(WIDE))
        self.storage = stack.enter_context(StorageServer(buckets=[BUCKET]))
        self.tasks = stack.enter_context(CloudTasksServer())
        self.functions = stack.enter_context(FunctionsServer([dags / "wide"]))  # its log entries go nowhere
        environment = {
            "STATUS_BUCKET": f"gs://{BUCKET}",
            "STORAGE_EMULATOR_HOST": self.storage.url,
            "DAG_DEFINITIONS": str(dags),
            "EVENTS_TOPIC": TOPIC,
            "TASKS_QUEUE": f"projects/{PROJECT}/locations/{REGION}/queues/launches",
            "INVOKER_SERVICE_ACCOUNT": f"invoker@{PROJECT}.iam.gserviceaccount.com",
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "FUNCTION_REGION": REGION,
            "CLOUD_FUNCTIONS_URL": self.functions.url_template,
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": "http://127.0.0.1:9/",
            "THREADS": str(concurrency()),
            **self.tasks.environment,
        }

        def served(port: int) -> list[str]:
            return [*SERVER, "--target", "on_event", "--signature-type", "cloudevent", "--port", str(port)]

        instances = [
            Instance(environment, folder / f"{n}.log", ROOT / "main.py", command=served) for n in range(INSTANCES)
        ]
        for instance in instances:
            instance.start()
            stack.callback(instance.stop)
        for instance in instances:
            instance.wait_until_it_listens()
        self.front = stack.enter_context(Front(instances))

    def push(self, event: Mapping[str, object], message_id: str) -> int:
        """Deliver a message as a push subscription does; return the status that it was answered with."""
        data = base64.b64encode(json.dumps(event).encode()).decode()
        message = {"data": data, "messageId": message_id, "publishTime": datetime.now(UTC).isoformat()}
        return self.front.deliver(f"/{TOPIC}", json.dumps({"message": message, "subscription": "s"}).encode())


@pytest.fixture
def deployed(tmp_path):
    with ExitStack() as stack:
        yield Deployed(tmp_path, stack)


def until(happened, limit_s: float = 60.0) -> None:
    end = time.monotonic() + limit_s
    while not happened():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.05)


def test_500_completions_at_once_cost_few_writes_of_the_run_document(deployed, capsys):
    storage, entries = deployed.storage, deployed.functions.entries
    assert deployed.push({"resource": {"type": "start"}, "dag": "wide", "run_id": RUN}, "0") < 300
    until(lambda: len(entries) == WIDTH)
    storage.add_fault(lambda call: call.kind == "write", times=10**6, status=0, delay_s=WRITE_S)
    before, begin = storage.writes[DOCUMENT], time.perf_counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        statuses = list(pool.map(lambda n: deployed.push(entries[n], f"m{n}"), range(WIDTH)))
    took_s, writes = time.perf_counter() - begin, storage.writes[DOCUMENT] - before
    with capsys.disabled():
        print(
            f"\n  {WIDTH} completions at {INSTANCES} processes, {AT_ONCE} requests at once: {writes} writes of the run "
            f"document, {deployed.front.delivered - WIDTH - 1} redeliveries, {took_s:.1f} s"
        )
    assert max(statuses) < 300
    stored = storage.stored(BUCKET, DOCUMENT)
    assert stored is not None
    state = json.loads(stored.data)
    assert [state[f"B{n}"]["status"] for n in range(WIDTH)] == ["Completed"] * WIDTH
    assert state["End"]["status"] == "Running"
    until(lambda: len(deployed.functions.calls) == WIDTH + 1)
    assert writes <= MAX_WRITES
