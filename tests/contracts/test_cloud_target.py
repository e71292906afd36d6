"""Every sentence of the Target port, held against the adapters of the cloud's services, over fakes of these.

The sentences are those of test_target.py, as far as a service keeps them: a key is good for a window here, and a
function cannot be asked how it ended, only its logs.
"""

import json
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Barrier, Condition, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.model.event_factory import EventFactory
from orchestrator.services.google_api import GoogleApis
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_sync import CloudFunctionSync
from orchestrator.targets.cloud_logging import LogSearch
from orchestrator.targets.dataflow import Dataflow
from tests.support.dataflow_server import DataflowServer
from tests.support.functions_server import FunctionsServer
from tests.support.local_targets import NONCE, RUN_ID, is_work_alive, tally_of, until, write_sources

PAYLOADS = Path(__file__).parent.parent / "payloads"


@dataclass(frozen=True)
class Kind:
    """A row of the table of adapters, and what the services left that its fake has to leave."""

    target_type: str
    identity: Identity
    captured: dict[bool, list[str]]  # whether the work fails -> payloads
    generation: int = 2
    template: str = "container_gcs_path"
    synchronous: bool = False


GEN_1 = {False: ["cloud_function_gen1"], True: ["cloud_function_gen1_500"]}
GEN_2 = {False: ["cloud_run_request_gen2"], True: ["cloud_run_500"]}
JOB = {
    False: ["dataflow_worker_pool_stopped"],
    True: ["dataflow_workflow_failed", "dataflow_worker_pool_stopped"],
}
KINDS = {
    "function": Kind("CloudFunction", Identity.WINDOW, GEN_2),
    "function, 1st gen": Kind("CloudFunction", Identity.WINDOW, GEN_1, generation=1),
    "function, called directly": Kind("CloudFunction", Identity.NONE, GEN_2, synchronous=True),
    "flex template": Kind("Dataflow", Identity.WINDOW, JOB),
    "classic template": Kind("Dataflow", Identity.WINDOW, JOB, template="template_path"),
}


class Queue:
    """Cloud Tasks as far as it goes here: a name is taken once, and its call is made by a thread."""

    def __init__(self):
        self._names = {}
        self._calls = {}

    def dispatches(self, name_key):
        return 1 if name_key in self._calls and self._calls[name_key].is_alive() else None

    def create(self, name_key, *, url, headers, body, dispatch_deadline_s=None, oidc=None):
        if self._names.setdefault(name_key, url) is not url:
            return False
        call = Thread(target=self._call, args=(Request(url, body, dict(headers)),), daemon=True)
        call.start()
        self._calls[name_key] = call
        return True

    @staticmethod
    def _call(request):
        try:
            urlopen(request).close()
        except HTTPError as error:
            error.close()


class Entries:
    """Cloud Logging as far as it goes here: the entries whose trace the filter names."""

    def __init__(self, entries):
        self._entries = entries

    def service(self, name, version):
        return self

    def entries(self):
        return self

    def list(self, *, body):
        return body

    def call(self, request, what, *, is_repeatable):
        return {"entries": [entry for entry in self._entries if f'"{entry["trace"]}"' in request["filter"]]}


class Bench:
    """One target, the fake of its service, and everything that this published."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder
        self.events, self._news, self._names = [], Condition(), count()
        self.on_event = lambda event: None
        write_sources(folder)
        if kind.target_type == "Dataflow":
            pipeline = folder / "sample/pipelines/orch_test_1.py"
            self.server = DataflowServer({"gs://bucket/orch_test_1": pipeline}, self.publish)
            apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW": self.server.url})
            self.target = Dataflow(apis, project="my-project", region="europe-west1")
            return
        self.server = FunctionsServer([folder / "sample"], self.publish, generation=kind.generation)
        settings = {
            "project": "my-project",
            "region": "europe-west1",
            "url": self.server.url_template,
            "results": lambda key: None,
            "logs": LogSearch(Entries(self.server.entries), "my-project", per_minute=1000).outcome_by_trace,
        }
        if kind.synchronous:
            self.target = CloudFunctionSync(**settings)
        else:
            self.target = CloudFunction(Queue(), invoker_service_account="invoker", **settings)

    def launch_of(self, **parameters):
        """A launch that was never launched. Its work leaves its tally in `tally_of(launch)`."""
        name = f"Step{next(self._names)}"
        parameters = {"tally": str(self.folder / f"{name}.tally"), **parameters}
        step = {self.kind.template: "gs://bucket/orch_test_1"} if self.is_job else {}
        return Launch(
            name, self.kind.target_type, "orch_test_1", parameters, step, dag="sample", run_id=RUN_ID, nonce=NONCE
        )

    @property
    def is_job(self):
        return self.kind.target_type == "Dataflow"

    def publish(self, event):
        self.on_event(event)
        with self._news:
            self.events.append(json.loads(json.dumps(event)))
            self._news.notify_all()

    def events_of(self, launch):
        mark = launch.key if self.is_job else launch.trace_id
        return [event for event in self.events if mark in json.dumps(event)]

    def last_event(self, launch, within_s=20.0):
        """Wait for the event after which no other one comes, and return it."""

        def is_last(event):
            return not self.is_job or event["textPayload"] == "Worker pool stopped."

        with self._news:
            assert self._news.wait_for(lambda: any(map(is_last, self.events_of(launch))), within_s), "no event"
        return self.events_of(launch)[-1]

    def run(self, launch):
        """Launch, wait for the end, return the outcome."""
        execution = self.target.launch(launch)
        self.last_event(launch)
        return self.target.outcome(execution)


@pytest.fixture(scope="module", params=KINDS.items(), ids=KINDS.keys())
def shared_bench(request, tmp_path_factory):
    name, kind = request.param
    bench = Bench(kind, tmp_path_factory.mktemp(name.replace(" ", "-").replace(",", "")))
    with bench.server:
        yield bench


@pytest.fixture
def bench(shared_bench):
    yield shared_bench
    shared_bench.on_event = lambda event: None


@pytest.fixture
def running(bench):
    """The bench, where a launch does not wait for the end."""
    if bench.target.synchronous:
        pytest.skip("it returns only when the execution has ended")
    return bench


@pytest.fixture
def gate(tmp_path):
    """A file that does not exist yet; work that names it waits for it. Opened at the end in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def test_it_says_what_it_promises(bench):
    target, kind = bench.target, bench.kind
    assert target.identity is kind.identity
    assert (target.has_outcome, target.can_cancel) == (bench.is_job, bench.is_job)
    assert target.synchronous is kind.synchronous
    assert target.launch_limit_s > 0
    assert target.id_is_ours is False


def test_a_launch_is_followed_by_an_event_and_its_outcome_is_known_by_then(bench):
    launch, told = bench.launch_of(), []
    bench.on_event = lambda event: told.append(bench.target.outcome(bench.target.find(launch)))
    execution = bench.target.launch(launch)
    bench.last_event(launch)
    outcome = bench.target.outcome(execution)
    assert tally_of(launch) == 1
    if bench.is_job:
        assert outcome == Outcome.completed({"job_id": execution.execution_id, "job_name": launch.key})
    else:  # an answer holds the result, a log entry does not
        assert outcome == Outcome.completed({"rows": 3} if bench.target.synchronous else None)
    assert [one.kind for one in told] == [OutcomeKind.COMPLETED]


def test_a_launch_only_hands_over_and_there_is_no_outcome_while_it_runs(running, gate):
    launch = running.launch_of(gate=str(gate))
    execution = running.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    assert running.target.outcome(execution) is None
    assert running.events_of(launch) == []
    gate.touch()
    running.last_event(launch)
    assert running.target.outcome(execution).kind is OutcomeKind.COMPLETED


def test_a_synchronous_launch_returns_with_the_outcome(bench):
    assert (bench.target.launch(bench.launch_of()).outcome is not None) == bench.target.synchronous


def test_the_same_key_again_returns_the_execution_that_it_started(running, gate):
    launch = running.launch_of(gate=str(gate))
    first = running.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    assert running.target.launch(launch) == first
    gate.touch()
    running.last_event(launch)
    assert tally_of(launch) == 1
    assert len(running.events_of(launch)) == 1


def test_twenty_threads_that_launch_one_key_start_one_execution(running, gate):
    launch, barrier, got = running.launch_of(gate=str(gate)), Barrier(20), []

    def race():
        barrier.wait()
        got.append(running.target.launch(launch))

    threads = [Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gate.touch()
    running.last_event(launch)
    assert got == [got[0]] * 20
    assert tally_of(launch) == 1
    assert len(running.events_of(launch)) == 1


def test_attempts_and_nodes_have_executions_of_their_own(bench):
    one = bench.launch_of()
    other = Launch(
        one.node_name,
        one.target_type,
        one.target_name,
        one.parameters,
        one.step,
        one.dag,
        RUN_ID,
        attempt=2,
        nonce=NONCE,
    )
    assert bench.target.launch(one) != bench.target.launch(other)
    bench.last_event(one)
    bench.last_event(other)
    assert tally_of(one) == 2


def test_what_was_never_launched_is_not_found(bench):
    assert bench.target.find(bench.launch_of()) is None


def test_what_has_ended_is_found(bench):
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    bench.last_event(launch)
    found = bench.target.find(launch)
    assert found.execution_id == execution.execution_id
    assert (found.outcome or bench.target.outcome(found)).kind is OutcomeKind.COMPLETED


def test_work_that_raises_has_failed_and_its_words_are_told(bench):
    launch = bench.launch_of(fail=True)
    outcome = bench.run(launch)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.result is None
    if bench.is_job:
        assert outcome == Outcome.failed("Dataflow.JobFailed", "Workflow failed. Causes: ValueError: no rows")
    else:
        assert outcome.error.error_type == "Task.Failed"
        assert "500" in outcome.error.message
    assert tally_of(launch) == 1


def test_a_launch_of_what_does_not_exist_is_refused_for_good(bench):
    if not bench.is_job:
        pytest.skip("that a function does not exist its call tells, not its launch")
    launch = bench.launch_of()
    step = {bench.kind.template: "gs://bucket/orch_tset_1"}
    launch = Launch(launch.node_name, "Dataflow", "orch_tset_1", {}, step, "sample", RUN_ID, nonce=NONCE)
    with pytest.raises(LaunchRefused) as refused:
        bench.target.launch(launch)
    assert refused.value.error_type == "Dataflow.NotFound"
    assert not refused.value.retry
    assert launch.node_name in str(refused.value)
    assert "gs://bucket/orch_tset_1" in str(refused.value)
    assert bench.target.find(launch) is None


def test_a_cancel_stops_a_running_execution_where_that_can_be(running, gate):
    launch = running.launch_of(gate=str(gate))
    execution = running.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    if not running.target.can_cancel:
        with pytest.raises(LaunchUncertain):
            running.target.cancel(execution)
        assert running.target.outcome(execution) is None
        return
    running.target.cancel(execution)
    running.target.cancel(execution)
    running.last_event(launch)
    assert running.target.outcome(execution) == Outcome.cancelled()
    assert until(lambda: not is_work_alive(launch))
    assert tally_of(launch) == 1


def test_a_cancel_of_what_has_ended_or_is_unknown_changes_nothing(bench):
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    bench.last_event(launch)
    outcome = bench.target.outcome(execution)
    if bench.target.can_cancel:
        bench.target.cancel(execution)
        bench.target.cancel(Execution("unknown"))
    assert bench.target.outcome(execution) == outcome


@pytest.mark.parametrize("fail", [False, True], ids=["done", "failed"])
def test_what_the_fake_leaves_has_all_that_the_captured_entries_have(bench, fail):
    launch = bench.launch_of(fail=True) if fail else bench.launch_of()
    bench.run(launch)
    captured = [json.loads((PAYLOADS / f"{file}.json").read_text()) for file in bench.kind.captured[fail]]
    events = bench.events_of(launch)
    assert len(events) == len(captured)
    for event, real in zip(events, captured, strict=True):
        assert missing(event, real) == []
        assert event.get("severity") == real.get("severity")
        assert event["resource"]["type"] == real["resource"]["type"]


@pytest.mark.parametrize("fail", [False, True], ids=["done", "failed"])
def test_what_the_fake_leaves_is_read_as_an_event_of_this_launch(bench, fail):
    launch = bench.launch_of(fail=True) if fail else bench.launch_of()
    execution = bench.target.launch(launch)
    bench.last_event(launch)
    for data in bench.events_of(launch):
        event = EventFactory.create_from_event(data)
        assert event is not None
        assert event.target_type == launch.target_type
        if bench.is_job:
            assert (event.job_name, event.execution_id) == (launch.key, execution.execution_id)
            continue
        assert event.task_name == "orch_test_1"
        assert event.verdict.kind is (OutcomeKind.FAILED if fail else OutcomeKind.COMPLETED)
        assert event.trace_id == launch.trace_id  # leads to the record, for the 1st gen's line holds no more
        if not bench.target.synchronous:
            assert event.trace_id == execution.execution_id.rpartition("/")[2]
        if bench.kind.generation == 2:
            assert (event.launch_id, event.nonce) == (launch.launch_id, NONCE)


def missing(ours, real, path=""):
    """The paths of keys that `real` has and `ours` has not."""
    if not (isinstance(ours, dict) and isinstance(real, dict)):
        return []
    return [
        where
        for key, value in real.items()
        for where in ([f"{path}/{key}"] if key not in ours else missing(ours[key], value, f"{path}/{key}"))
    ]
