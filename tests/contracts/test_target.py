"""Every sentence of the Target port, held against the adapters that run things on this machine."""

import json
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.model.event_factory import EventFactory
from tests.support.local_targets import KINDS, NONCE, RUN_ID, Bench, is_work_alive, tally_of, until

PAYLOADS = Path(__file__).parent.parent / "payloads"

CAPTURED = {  # what the twins leave -> what the services left
    ("cloud function", False): ["cloud_run_request_gen2"],
    ("cloud function", True): ["cloud_run_500"],
    ("cloud function, 1st gen", False): ["cloud_function_gen1"],
    ("cloud function, 1st gen", True): ["cloud_function_gen1_500"],
    ("dataflow", False): ["dataflow_worker_pool_stopped"],
    ("dataflow", True): ["dataflow_workflow_failed", "dataflow_worker_pool_stopped"],
    ("function", False): ["function_completed"],
    ("function", True): ["function_failed"],
    ("fake", False): ["function_completed"],
    ("fake", True): ["function_failed"],
    ("function in a process", False): ["function_completed"],
    ("function in a process", True): ["function_failed"],
}


@pytest.fixture(scope="module", params=KINDS.items(), ids=KINDS.keys())
def named_bench(request, tmp_path_factory):
    name, kind = request.param
    bench = Bench(kind, tmp_path_factory.mktemp(name.replace(" ", "-").replace(",", "")))
    sys.path.insert(0, str(bench.folder))
    try:
        yield name, bench
    finally:
        bench.target.close()
        sys.path.remove(str(bench.folder))


@pytest.fixture
def bench(named_bench):
    return named_bench[1]


@pytest.fixture
def gate(tmp_path):
    """A file that does not exist yet; work that names it waits for it. Opened at the end in any case."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def test_it_says_what_it_promises(bench):
    target = bench.target
    assert (target.identity, target.has_outcome, target.launch_limit_s, target.synchronous) == (
        Identity.FOREVER,
        True,
        0.0,
        False,
    )
    assert target.can_cancel == bench.kind.can_cancel


def test_a_launch_is_followed_by_an_event_and_its_outcome_is_known_by_then(bench):
    launch, told = bench.launch_of(), []
    publish = bench.publish

    def ask_then_publish(event):
        told.append(bench.target.outcome(bench.target.find(launch)))
        publish(event)

    bench.target._publish = ask_then_publish
    try:
        execution = bench.target.launch(launch)
        bench.last_event(launch)
    finally:
        bench.target._publish = publish
    outcome = bench.target.outcome(execution)
    assert outcome.kind is OutcomeKind.COMPLETED
    assert outcome.error is None
    assert told == [outcome]
    assert tally_of(launch) == 1
    if bench.kind.target_type == "Dataflow":
        assert outcome.result == {"job_id": execution.execution_id, "job_name": launch.key}
    else:
        assert outcome.result == {"rows": 3}


def test_a_launch_only_hands_over_and_there_is_no_outcome_while_it_runs(bench, gate):
    launch = bench.launch_of(gate=str(gate))
    execution = bench.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    assert bench.target.outcome(execution) is None
    assert bench.target.find(launch) == execution
    assert bench.events_of(launch) == []
    gate.touch()
    bench.last_event(launch)
    assert bench.target.outcome(execution).kind is OutcomeKind.COMPLETED


def test_the_same_key_again_returns_the_execution_that_it_started(bench, gate):
    launch = bench.launch_of(gate=str(gate))
    first = bench.target.launch(launch)
    assert bench.target.launch(launch) == first
    gate.touch()
    bench.last_event(launch)
    assert bench.target.launch(launch) == first
    assert bench.target.find(launch) == first
    assert tally_of(launch) == 1
    assert len(bench.events_of(launch)) == 1


def test_twenty_threads_that_launch_one_key_start_one_execution(bench):
    launch, barrier, got = bench.launch_of(), Barrier(20), []

    def race():
        barrier.wait()
        got.append(bench.target.launch(launch))

    threads = [Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.last_event(launch)
    assert got == [got[0]] * 20
    assert tally_of(launch) == 1
    assert len(bench.events_of(launch)) == 1


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


def test_work_that_raises_has_failed_and_its_words_are_told(bench):
    launch = bench.launch_of(fail=True)
    outcome = bench.run(launch)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.result is None
    assert outcome.error.error_type == ("Dataflow.JobFailed" if launch.target_type == "Dataflow" else "Task.Failed")
    assert "ValueError: no rows" in outcome.error.message
    assert bench.target.launch(launch) == bench.target.find(launch)
    assert tally_of(launch) == 1


def test_a_launch_of_what_does_not_exist_is_refused_for_good(bench):
    good = bench.launch_of()
    launch = Launch(
        good.node_name, good.target_type, "orch_tset_1", {}, {"function": "no.such:work"}, "sample", RUN_ID, nonce=NONCE
    )
    with pytest.raises(LaunchRefused) as refused:
        bench.target.launch(launch)
    assert refused.value.error_type == f"{launch.target_type}.NotFound"
    assert not refused.value.retry
    assert launch.node_name in str(refused.value)
    if not bench.kind.is_function:
        assert "orch_tset_1" in str(refused.value)  # what was looked for,
        assert str(refused.value).endswith(" that exist: orch_test_1")  # and what there is
    assert bench.target.find(launch) is None


def test_a_cancel_stops_a_running_execution_where_that_can_be(bench, gate):
    launch = bench.launch_of(gate=str(gate))
    execution = bench.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    if not bench.target.can_cancel:
        with pytest.raises(LaunchUncertain):
            bench.target.cancel(execution)
        assert bench.target.outcome(execution) is None
        return
    bench.target.cancel(execution)
    bench.target.cancel(execution)
    bench.last_event(launch)
    assert bench.target.outcome(execution) == Outcome.cancelled()
    assert not is_work_alive(launch)
    assert bench.target.launch(launch) == execution
    assert tally_of(launch) == 1


def test_a_cancel_of_what_has_ended_or_is_unknown_changes_nothing(bench):
    launch = bench.launch_of()
    outcome = bench.run(launch)
    execution = bench.target.find(launch)
    bench.target.cancel(execution)
    assert bench.target.outcome(execution) == outcome
    bench.target.cancel(Execution("host-1.unknown" if bench.kind.is_function else "unknown"))


def test_an_execution_that_nobody_holds_a_record_of_is_lost(bench):
    execution = Execution("host-1.unknown" if bench.kind.is_function else "unknown")
    assert bench.target.outcome(execution).kind is OutcomeKind.LOST


@pytest.mark.parametrize("fail", [False, True], ids=["done", "failed"])
def test_what_it_leaves_has_all_that_the_captured_entries_have(named_bench, fail):
    name, bench = named_bench
    launch = bench.launch_of(fail=True) if fail else bench.launch_of()
    bench.run(launch)
    captured = [json.loads((PAYLOADS / f"{file}.json").read_text()) for file in CAPTURED[name, fail]]
    events = bench.events_of(launch)
    assert len(events) == len(captured)
    for event, real in zip(events, captured, strict=True):
        assert missing(event, real) == []
        assert event.get("severity") == real.get("severity")
        assert event["resource"]["type"] == real["resource"]["type"]


@pytest.mark.parametrize("fail", [False, True], ids=["done", "failed"])
def test_what_it_leaves_is_read_as_an_event_of_this_launch(bench, fail):
    launch = bench.launch_of(fail=True) if fail else bench.launch_of()
    execution = bench.target.launch(launch)
    bench.last_event(launch)
    for data in bench.events_of(launch):
        event = EventFactory.create_from_event(data)
        assert event is not None
        assert event.target_type == launch.target_type
        if bench.target.id_is_ours:
            assert event.launch_id == launch.launch_id
        if launch.target_type == "Dataflow":
            assert (event.job_name, event.execution_id) == (launch.key, execution.execution_id)
            continue
        assert event.task_name == "orch_test_1"
        assert event.verdict.kind is (OutcomeKind.FAILED if fail else OutcomeKind.COMPLETED)
        assert event.launch_id in (launch.launch_id, None)
        assert event.nonce in (NONCE, None)
        assert event.trace_id in (launch.trace_id, None)
        assert event.execution_id in (execution.execution_id, None)
        assert (event.launch_id and event.nonce) or (event.trace_id and event.execution_id)


def missing(ours, real, path=""):
    """The paths of keys that `real` has and `ours` has not."""
    if not (isinstance(ours, dict) and isinstance(real, dict)):
        return []
    return [
        where
        for key, value in real.items()
        for where in ([f"{path}/{key}"] if key not in ours else missing(ours[key], value, f"{path}/{key}"))
    ]
