"""Fan-in: what 500 completions pushed at once cost in writes of the run document; in one instance, for the count of
several depends on who wins their races."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from random import Random
from urllib.parse import urlsplit

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.results import Results
from orchestrator.model.commands import Outcome
from orchestrator.model.errors import OrchestratorError
from orchestrator.runtime.registry import open_store
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_log import Call, End, gen2_entry
from tests.support.storage_server import StorageServer

BUCKET, PROJECT, REGION, RUN = "state", "my-project", "europe-west1", "wide"
WIDTH, INSTANCES, THREADS = 500, 1, 128
MAX_WRITES = 25
WRITE_S = 0.03
"""About what a small object takes in Cloud Storage."""

TASK = {"type": "Task", "target_type": "CloudFunction", "end": True}
WIDE = {
    "start": "All",
    "steps": {
        "All": {
            "type": "Parallel",
            "branches": [
                {"start": f"B{n}", "steps": {f"B{n}": {**TASK, "target_name": f"f{n}"}}} for n in range(WIDTH)
            ],
            "next": "End",
        },
        "End": {**TASK, "target_name": "end"},
    },
}


class Queue:
    """Cloud Tasks, of which nothing is ever called."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict[str, str]]] = []

    def create(self, name_key: str, *, url: str, headers: dict[str, str], **_: object) -> bool:
        self.made.append((url, headers))
        return True


class Silent:
    """A broker that nobody listens to."""

    def publish(self, event: object, *, delay_s: float = 0.0) -> str:
        return "0"


def instance(queue: Queue) -> DAGExecutor:
    """An instance of its own: nothing is shared with another but the bucket."""
    store = open_store(f"gs://{BUCKET}")
    results = Results(store)
    target = CloudFunction(
        queue,
        project=PROJECT,
        region=REGION,
        invoker_service_account="invoker@my-project.iam.gserviceaccount.com",
        results=results.ask,
        told=results.told,
        url="http://functions/{target_name}",
    )
    return DAGExecutor(Catalog({"wide": WIDE}), store=store, targets={"CloudFunction": target}, broker=Silent())


def completion(url: str, headers: dict[str, str]) -> dict:
    """The log entry of a call that was answered by 200."""
    _, trace_id, span_id, _ = headers["traceparent"].split("-")
    parts = urlsplit(url)
    call = Call(PROJECT, REGION, parts.path[1:], "gx", trace_id, span_id, f"/?{parts.query}", b"{}")
    now = datetime.now(UTC)
    return gen2_entry(call, End(200, Outcome.completed()), now, 0.1, now)


@pytest.fixture
def storage(monkeypatch):
    with StorageServer(buckets=[BUCKET]) as storage:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        yield storage


def push(executors, event: dict, message_id: str, random: Random) -> int:
    """Deliver as a push subscription does: to any instance, and again after a passing error; return how often."""
    for tries in range(1, 20):
        try:
            random.choice(executors).execute(event, message_id=message_id, publish_time=datetime.now(UTC))
        except OrchestratorError as exc:
            if not exc.retry:
                raise
            time.sleep(0.1)
        else:
            return tries
    raise TimeoutError(message_id)


def test_500_completions_at_once_cost_few_writes_of_the_run_document(storage):
    queue = Queue()
    executors = [instance(queue) for _ in range(INSTANCES)]
    executors[0].execute(
        {"resource": {"type": "start"}, "dag": "wide", "run_id": RUN}, message_id="0", publish_time=datetime.now(UTC)
    )
    assert len(queue.made) == WIDTH
    document = f"runs/{RUN}.json"
    storage.add_fault(lambda call: call.kind == "write", times=10**6, status=0, delay_s=WRITE_S)
    before, first = storage.writes[document], len(storage.calls)
    generations = _generations_of(storage, document)
    events = [completion(url, headers) for url, headers in queue.made]
    random = Random(7)
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        tries = list(pool.map(lambda n: push(executors, events[n], f"m{n}", random), range(WIDTH)))
    took_s = time.perf_counter() - begin
    writes, accepted = storage.writes[document] - before, len(generations)
    reads = sum(call.kind in ("read", "list") for call in storage.calls[first:])
    print(
        f"{WIDTH} completions, {INSTANCES} instances, {THREADS} requests at once: {writes} writes of the run document "
        f"({accepted} accepted, {writes - accepted} refused), {reads} reads, {sum(tries) - WIDTH} redeliveries, "
        f"{took_s:.1f} s"
    )
    state = json.loads(storage.stored(BUCKET, document).data)
    assert [state[f"B{n}"]["status"] for n in range(WIDTH)] == ["Completed"] * WIDTH
    assert state["End"]["status"] == "Running"
    assert [url for url, _ in queue.made].count(queue.made[-1][0]) == 1
    assert len(queue.made) == WIDTH + 1
    assert writes <= MAX_WRITES


def _generations_of(storage: StorageServer, name: str) -> list[int]:
    """A list that grows with every generation that is written of an object from now on."""
    found: list[int] = []
    write = storage._write

    def noted(bucket, key, *rest):
        made = write(bucket, key, *rest)
        if key == name:
            found.append(made.generation)
        return made

    storage._write = noted
    return found
