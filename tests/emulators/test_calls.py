"""Calls of Cloud Storage, counted: what a start, a transition and an end cost a warm and a cold instance.

One instance at a time, event by event: the executor of main.py's parts over GcsStore, its bucket on the storage
server. Functions are called by nobody; the test writes what their helper would have, and delivers their log entries.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.results import Results
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.ids import key_of
from orchestrator.model.task_result import TaskResult, begun_object, result_object
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.registry import open_store
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_log import Call, End, gen1_entry, gen2_entry
from tests.support.storage_server import StorageServer

BUCKET, PROJECT, REGION = "state", "my-project", "europe-west1"
STEPS = ("A", "B", "C", "D")
CHAIN = {
    "start": "A",
    "steps": {
        name: {"type": "Task", "target_type": "CloudFunction", "target_name": f"f-{name.lower()}"}
        | ({"next": following} if following else {"end": True})
        for name, following in zip(STEPS, (*STEPS[1:], None), strict=True)
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


@dataclass
class World:
    """The bucket, the queue, and the instance that handles what comes."""

    storage: StorageServer
    entry: Callable
    uses_helper: bool

    @property
    def writes(self) -> int:
        """Of a transition: the save and, of a 1st gen function, the record of the launch."""
        return 2 if self.entry is gen1_entry else 1

    def __post_init__(self) -> None:
        self.queue, self.messages = Queue(), 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Put a cold instance in the place of the one there was."""
        store = open_store(f"gs://{BUCKET}")
        results = Results(store)
        target = CloudFunction(
            self.queue,
            project=PROJECT,
            region=REGION,
            invoker_service_account="invoker@my-project.iam.gserviceaccount.com",
            results=results.ask,
            told=results.told,
            logs=self.no_logs,
            first_generation=[f"f-{name.lower()}" for name in STEPS if self.entry is gen1_entry],
            url="http://functions/{target_name}",
        )
        self.executor = DAGExecutor(
            Catalog({"chain": CHAIN}), store=store, targets={"CloudFunction": target}, broker=Silent()
        )

    def no_logs(self, _: str) -> Outcome | None:
        raise AssertionError("Cloud Logging was searched for an event that proved itself")

    def deliver(self, event: dict) -> tuple[int, int]:
        """Handle an event; return the reads (listings among them) and writes that it took."""
        before = len(self.storage.calls)
        self.messages += 1
        self.executor.execute(event, message_id=str(self.messages), publish_time=datetime.now(UTC))
        kinds = [call.kind for call in self.storage.calls[before:]]
        writes = sum(kind in ("write", "delete") for kind in kinds)
        return len(kinds) - writes, writes

    def start(self) -> tuple[int, int]:
        return self.deliver({"resource": {"type": "start"}, "dag": "chain", "run_id": "run"})

    def finish(self, name: str, status: int = 200) -> tuple[int, int]:
        """Let the function of the step that was launched last answer, and handle its log entry."""
        url, headers = self.queue.made[-1]
        key = key_of(f"run/{name}/1")
        if self.uses_helper:
            at = datetime.now(UTC)
            result = TaskResult(kind=OutcomeKind.COMPLETED, result={"step": name}, at=at)
            self.storage.write(BUCKET, begun_object(key), b"{}")
            self.storage.write(BUCKET, result_object(key), as_json(result))
        _, trace_id, span_id, _ = headers["traceparent"].split("-")
        parts = urlsplit(url)
        call = Call(PROJECT, REGION, parts.path[1:], f"gx{name}", trace_id, span_id, f"/?{parts.query}", b"{}")
        now = datetime.now(UTC)
        return self.deliver(self.entry(call, End(status, Outcome.completed()), now, 0.1, now))

    @property
    def status(self) -> str:
        stored = self.storage.stored(BUCKET, "runs/run.json")
        assert stored is not None
        return json.loads(stored.data)["$run"]["status"]


@pytest.fixture(params=["1st gen", "2nd gen"])
def entry(request):
    return gen1_entry if request.param == "1st gen" else gen2_entry


@pytest.fixture(params=["with the helper", "without it"])
def world(request, entry, monkeypatch):
    with StorageServer(buckets=[BUCKET]) as storage:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.url)
        yield World(storage, entry, request.param == "with the helper")


def test_a_warm_instance(world):
    spent = {"start": world.start()} | {name: world.finish(name) for name in STEPS}
    print(spent)
    assert world.status == "Completed"
    for name in ("A", "B", "C"):
        assert_at_most(spent[name], 1, world.writes)
    assert_at_most(spent["start"], 1, world.writes + 2)
    assert_at_most(spent["D"], 1, 1)


def test_cold_instances(world):
    spent = {"start": world.start()}
    for name in STEPS:
        world.begin_anew()
        spent[name] = world.finish(name)
    print(spent)
    assert world.status == "Completed"
    for name in ("A", "B", "C"):
        assert_at_most(spent[name], 3, world.writes)
    assert_at_most(spent["start"], 3, world.writes + 2)
    assert_at_most(spent["D"], 3, 1)


def test_a_second_run_of_the_same_definition_does_not_write_it_again(world):
    world.start()
    second = world.deliver({"resource": {"type": "start"}, "dag": "chain", "run_id": "run2"})
    assert_at_most(second, 1, world.writes + 1)


@pytest.mark.parametrize(
    "left",
    [
        pytest.param((), id="by a function without the helper"),
        pytest.param((begun_object,), id="by one that was killed at work"),
    ],
)
def test_a_call_that_failed(world, left):
    world.uses_helper = False
    world.start()
    for name in left:
        world.storage.write(BUCKET, name(key_of("run/A/1")), b"{}")
    assert_at_most(world.finish("A", 500), 1, 1)
    assert world.status == "Failed"


def test_the_helpers_409_says_nothing_while_an_earlier_call_is_at_work(world):
    world.uses_helper = False
    world.start()
    world.storage.write(BUCKET, begun_object(key_of("run/A/1")), b"{}")
    world.finish("A", 409)
    assert world.status == "Running"
    world.uses_helper = True
    world.finish("A")
    assert json.loads(world.storage.stored(BUCKET, "runs/run.json").data)["A"]["status"] == "Completed"


def test_a_functions_own_409_fails_it(world):
    world.uses_helper = False
    world.start()
    world.finish("A", 409)
    assert world.status == "Failed"


def assert_at_most(spent: tuple[int, int], reads: int, writes: int) -> None:
    assert spent[0] <= reads, f"{spent[0]} reads; allowed are {reads}"
    assert spent[1] <= writes, f"{spent[1]} writes; allowed are {writes}"


def test_a_tick_without_open_runs_is_one_listing(world):
    before = len(world.storage.calls)
    world.executor.tick()
    assert [call.kind for call in world.storage.calls[before:]] == ["list"]
