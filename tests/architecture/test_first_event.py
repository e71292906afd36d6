"""What an instance's first event may load and ask for: main.py in a fresh process, on Google Cloud for all it knows.

benchmarks/cold_start.py measures it; here stands what it must not grow by.
"""

import json
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.google_hosts import TOKEN
from tests.support.project import Project, asynchronous, delivery

ROOT = Path(__file__).resolve().parents[2]

PARTS = {
    "brokers": "pubsub",
    "engine": (
        "acting address attempts batch catalog claims committing dag_executor decide deciding draft ending handled "
        "large_results leading notifying observing pace pausing resolve results retry run_box run_boxes saved "
        "scope starting status wanted witness"
    ),
    "model": (
        "allowance bodies commands dag dag_builder definition definition_values durations enums errors "
        "event_factory event_values events execution expressions facts fixed grammar grammar_keys grammar_of_runs "
        "grammar_of_targets grammar_rules ids job_events json_paths log_events messages node_factory node_state "
        "nodes own_events policy pubsub rules run_document run_state schedule secrets task_result templates times "
        "words"
    ),
    "ports": "",
    "runtime": (
        "catalog clock cloud executor gcp logs own_runs own_targets policy registry secrets settings story "
        "unknown_hosts"
    ),
    "services": "allowed_hosts cloud_logging cloud_tasks connections google_api",
    "stores": "gcs keys",
    "targets": "cloud_function cloud_logging function_calls twins",
}
"""Part of the package -> modules of it that are loaded until the first event is acknowledged: a start, or an end."""

OURS = {f"orchestrator.{part}" for part in PARTS} | {
    f"orchestrator.{part}.{name}" for part, names in PARTS.items() for name in names.split()
}

LIBRARIES = "functions_framework, google.cloud.storage, googleapiclient.discovery, msgspec"
"""Libraries that the function is made of. What they load themselves is theirs, google_crc32c with the first upload."""

HANDLE = """
import gc, json, sys
from concurrent.futures import ThreadPoolExecutor
import main
from cloudevents.http import CloudEvent
deliveries = json.load(sys.stdin)
with ThreadPoolExecutor(len(deliveries)) as pool:
    list(pool.map(lambda each: main.on_event(CloudEvent(*each)), deliveries))
print(json.dumps({"modules": sorted(sys.modules), "collects": gc.isenabled(), "spared": gc.get_freeze_count()}))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with the sample, whose functions are called by the queue."""
    folder = tmp_path_factory.mktemp("project")
    dag = folder / "dags" / "sample"
    dag.mkdir(parents=True)
    sample = ROOT / "dag_definitions" / "sample"
    (dag / "dag.json").write_text(json.dumps(asynchronous(json.loads((sample / "dag.json").read_text()))))
    with Project(folder, sample) as project:
        project.environment |= {"DAG_DEFINITIONS": str(folder / "dags"), "PYTHONDONTWRITEBYTECODE": "1"}
        yield project


@pytest.fixture
def events(project):
    """A start and, once that is handled, the completion of its first step; with the id of their run."""
    run_id = f"first-{uuid4().hex[:8]}"
    return {"resource": {"type": "start"}, "dag": "sample", "run_id": run_id}, run_id


def handled(project: Project, *messages: dict) -> dict:
    """Handle events at once in a fresh process; return what it tells of itself."""
    done = subprocess.run(
        [sys.executable, "-c", HANDLE],
        input=json.dumps([delivery(message) for message in messages]),
        env=project.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout.splitlines()[-1])


def test_the_first_event_loads_of_the_package_what_it_needs_and_nothing_else(project, events):
    start, run_id = events
    loaded = set(handled(project, start)["modules"])
    assert project.statuses(run_id)["Init"] == "Running"
    loaded |= set(handled(project, project.ended.get(timeout=60))["modules"])
    assert project.statuses(run_id)["Init"] == "Completed"
    assert project.statuses(run_id)["Step1"] == "Running"
    packages = {"orchestrator", *(f"orchestrator.{part}" for part in PARTS)}
    assert {name for name in loaded if name.startswith("orchestrator")} | packages == OURS | packages
    project.ended.get(timeout=60)


def test_the_first_event_loads_no_library_that_is_not_needed(project, events):
    loaded = {name.partition(".")[0] for name in handled(project, events[0])["modules"]}
    show = f"import sys, {LIBRARIES}; print(*sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", show], env=project.environment, check=True, capture_output=True, text=True
    )
    theirs = {name.partition(".")[0] for name in shown.stdout.split()}
    assert loaded - theirs - sys.stdlib_module_names == {"main", "orchestrator", "google_crc32c"}
    project.ended.get(timeout=60)


def test_the_first_event_asks_for_one_token_and_shows_it_to_every_service(project, events):
    project.hosts.asked.clear()
    project.hosts.heads.clear()
    handled(project, events[0])
    project.ended.get(timeout=60)
    asked = [path.partition("?")[0].rpartition("/")[2] for path in project.hosts.asked]
    assert asked.count("token") == asked.count("project-id") == 1
    assert {host for host, _ in project.hosts.heads} == {"storage.googleapis.com", "cloudtasks.googleapis.com"}
    for _, head in project.hosts.heads:
        assert f"authorization: bearer {TOKEN}" in head.decode("latin-1").lower()


def test_garbage_is_collected_from_the_first_event_on(project, events):
    told = handled(project, events[0])
    assert told["collects"] is True
    assert told["spared"] > 50_000
    project.ended.get(timeout=60)


def test_many_events_at_once_may_be_the_first(project):
    project.hosts.asked.clear()
    before = len(project.tasks.calls)
    runs = [f"many-{uuid4().hex[:8]}" for _ in range(12)]
    handled(project, *({"resource": {"type": "start"}, "dag": "sample", "run_id": run_id} for run_id in runs))
    assert [project.statuses(run_id)["Init"] for run_id in runs] == ["Running"] * 12
    assert len(project.tasks.calls) == before + 12
    assert len([path for path in project.hosts.asked if path.endswith("/project-id")]) == 1
    for _ in runs:
        project.ended.get(timeout=60)


def test_garbage_is_collected_though_the_first_event_could_not_even_load_the_package(project):
    fails = HANDLE.replace("list(pool.map(lambda each: main.on_event(CloudEvent(*each)), deliveries))", "tried(pool)")
    tried = """
def tried(pool):
    sys.modules["orchestrator.runtime.gcp"] = None  # importing it raises
    [calling] = [pool.submit(main.on_event, CloudEvent(*each)) for each in deliveries]
    assert isinstance(calling.exception(), ImportError)
"""
    done = subprocess.run(
        [sys.executable, "-c", fails.replace("deliveries =", f"{tried}\ndeliveries =")],
        input=json.dumps([delivery({"resource": {"type": "tick"}})]),
        env=project.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["collects"] is True
