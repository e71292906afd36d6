"""A run driven through the public DAGExecutor by hand, with the completion events as the cloud writes them."""

import json
from pathlib import Path

import pytest

from orchestrator import DAGExecutor, OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.messages import launch_query
from tests.support.world import NotedTarget, dag, task

PAYLOADS = Path(__file__).resolve().parents[1] / "payloads"


def payload(name: str) -> dict:
    return json.loads((PAYLOADS / name).read_text())


def first_gen(launch, execution_id, **text):
    entry = payload("cloud_function_gen1.json")
    entry["labels"]["execution_id"] = execution_id
    entry["trace"] = f"projects/p/traces/{launch.trace_id}"
    return {**entry, **text}


def second_gen(launch, execution_id, status=200, nonce=None):
    entry = payload("cloud_run_request_gen2.json")
    query = launch_query(launch.launch_id, nonce or launch.nonce)
    entry["httpRequest"] |= {"requestUrl": f"https://f-x.a.run.app/?{query}", "status": status}
    return entry


def dataflow(launch, execution_id):
    entry = payload("dataflow_worker_pool_stopped.json")
    entry["resource"]["labels"] |= {"job_id": execution_id, "job_name": launch.key}
    entry["labels"] |= {
        "dataflow.googleapis.com/job_id": execution_id,
        "dataflow.googleapis.com/job_name": launch.key,
    }
    return entry


@pytest.fixture
def run(tmp_path):
    """A run of three kinds of steps; returns (executor, run id, target of functions, target of jobs)."""
    functions, jobs = NotedTarget(), NotedTarget(has_outcome=True)
    definition = dag(
        First={"type": "Task", "target_type": "CloudFunction", "target_name": "one", "next": "Second"},
        Second={"type": "Task", "target_type": "CloudFunction", "target_name": "two", "next": "Third"},
        Third={"type": "Task", "target_type": "Dataflow", "target_name": "job", "next": "Last"},
        Last=task(),
    )
    targets = {"CloudFunction": functions, "Dataflow": jobs, "Function": functions}
    executor = DAGExecutor(dag_definition=definition, bucket_name=f"file://{tmp_path}/bucket", targets=targets)
    run_id = executor.execute(data={"resource": {"type": "start"}}).run_id
    yield executor, run_id, functions, jobs
    executor.close()


def statuses(executor, run_id) -> list[str]:
    return [node.status.value for node in OrchestrationStatus(executor.store, run_id).nodes().values()]


def test_the_completion_events_of_both_generations_and_of_dataflow_drive_a_run(run):
    executor, run_id, functions, jobs = run
    executor.execute(data=first_gen(functions.of("First")[0], f"x-{functions.of('First')[0].key}"))
    assert statuses(executor, run_id) == ["Completed", "Running", "New", "New"]
    executor.execute(data=second_gen(functions.of("Second")[0], None))
    assert statuses(executor, run_id) == ["Completed", "Completed", "Running", "New"]
    job = jobs.of("Third")[0]
    executor.execute(data=dataflow(job, f"x-{job.key}"))
    assert statuses(executor, run_id)[2] == "Running", "the line says that it stopped, the job that it runs"
    jobs.outcomes[f"x-{job.key}"] = Outcome.completed()
    executor.execute(data=dataflow(job, f"x-{job.key}"))
    assert statuses(executor, run_id) == ["Completed", "Completed", "Completed", "Running"]


def test_the_error_lines_of_both_generations_fail_a_run(run):
    executor, run_id, functions, _ = run
    executor.execute(data=first_gen(functions.of("First")[0], f"x-{functions.of('First')[0].key}"))
    executor.execute(data=second_gen(functions.of("Second")[0], None, status=500))
    assert statuses(executor, run_id) == ["Completed", "Failed", "Skipped", "Skipped"]


def test_forged_lines_change_nothing(run):
    executor, run_id, functions, _ = run
    launch = functions.of("First")[0]
    forged = first_gen(launch, f"x-{launch.key}") | {"trace": f"projects/p/traces/{'0' * 32}"}
    executor.execute(data=forged)
    executor.execute(data=second_gen(launch, None, nonce="0" * 32))
    assert statuses(executor, run_id) == ["Running", "New", "New", "New"]
