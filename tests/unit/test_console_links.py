"""Links to the console and filters of Cloud Logging: a row a target type, and what status shows of them."""

import json
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from orchestrator.cli.console import _links
from orchestrator.cli.lines import coloured, plain
from orchestrator.cli.main import main
from orchestrator.model.console import ROWS, Place, execution_filter, execution_page, logs_page
from orchestrator.model.enums import NOWHERE_ELSE, NodeTypes, TargetTypes, TaskStatus
from orchestrator.model.ids import execution_id_of, key_of
from orchestrator.model.node_state import NodeState
from tests.support.logging_query import compile_query, matches

LAUNCH = "run_1_a/Load/1"
KEY = key_of(LAUNCH)
HOME = Place("my-project", "europe-west1")
BASE = "https://console.cloud.google.com"


def node(target_type, execution_id=None, attempt=1, name="load"):
    return NodeState(
        node_name="Load",
        node_type=NodeTypes.TASK,
        target_type=target_type,
        target_name=name,
        status=TaskStatus.RUNNING,
        attempt=attempt,
        execution_id=execution_id,
    )


PAGES = [
    ("Dataflow", "2026-11-20_08_58_37-43", "/dataflow/jobs/europe-west1/2026-11-20_08_58_37-43?project=my-project"),
    ("Dataflow", "projects/other/locations/us-east1/jobs/17", "/dataflow/jobs/us-east1/17?project=other"),
    ("CloudFunction", None, "/functions/details/europe-west1/load?project=my-project"),
    (
        "CloudRunJob",
        "projects/p/locations/r/jobs/load/executions/load-x7k",
        "/run/jobs/executions/details/r/load-x7k/tasks?project=p",
    ),
    ("BigQuery", f"projects/p/locations/EU/jobs/{KEY}", f"/bigquery?project=p&ws=!1m5!1m4!1m3!1sp!2s{KEY}!3sEU"),
    ("Dataproc", None, f"/dataproc/batches/europe-west1/{KEY}/monitoring?project=my-project"),
    ("Batch", None, f"/batch/jobsDetail/regions/europe-west1/jobs/{KEY}/details?project=my-project"),
    (
        "Workflows",
        "projects/p/locations/r/workflows/load/executions/5f1c-9e",
        "/workflows/workflow/r/load/execution/5f1c-9e?project=p",
    ),
    ("VertexPipeline", None, f"/vertex-ai/locations/europe-west1/pipelines/runs/{KEY}?project=my-project"),
]


@pytest.mark.parametrize(("target_type", "execution_id", "page"), PAGES)
def test_the_page_of_an_execution(target_type, execution_id, page):
    assert execution_page(node(target_type, execution_id), LAUNCH, HOME) == BASE + page


@pytest.mark.parametrize("target_type", ["Dataflow", "CloudRunJob", "Workflows"])
def test_a_page_whose_id_is_the_services_is_not_known_before_it_is_bound(target_type):
    assert execution_page(node(target_type), LAUNCH, HOME) is None


@pytest.mark.parametrize("place", [Place(None, "europe-west1"), Place("my-project", None)])
def test_without_project_or_region_there_is_no_page(place):
    assert execution_page(node("CloudFunction"), LAUNCH, place) is None


def test_what_has_no_attempt_or_no_row_has_no_page():
    assert execution_page(node("CloudFunction", attempt=0), LAUNCH, HOME) is None
    assert execution_page(node("Function"), LAUNCH, HOME) is None
    assert execution_filter(node("Function"), LAUNCH) is None


def test_every_target_type_that_runs_somewhere_else_has_a_row():
    assert set(TargetTypes) - set(ROWS) == set(NOWHERE_ELSE)


JOB = "load-x7k"
FOUND = [
    ("Dataflow", None, {"resource": {"type": "dataflow_step", "labels": {"job_name": KEY}}}),
    (
        "Dataflow",
        None,
        {"resource": {"type": "dataflow_step"}, "labels": {"dataflow.googleapis.com/job_name": KEY}},
    ),
    ("CloudFunction", None, {"labels": {"execution_id": execution_id_of(KEY)}}),
    ("CloudFunction", "grcug3cacqj4", {"labels": {"execution_id": "grcug3cacqj4"}}),
    (
        "CloudRunJob",
        f"projects/p/locations/r/jobs/load/executions/{JOB}",
        {"resource": {"type": "cloud_run_job"}, "labels": {"run.googleapis.com/execution_name": JOB}},
    ),
    (
        "BigQuery",
        None,
        {"resource": {"type": "bigquery_project"}, "protoPayload": {"resourceName": f"projects/p/jobs/{KEY}"}},
    ),
    ("Dataproc", None, {"resource": {"type": "cloud_dataproc_batch", "labels": {"batch_id": KEY}}}),
    ("Batch", None, {"resource": {"type": "batch.googleapis.com/Job"}, "labels": {"job_uid": f"{KEY}-7c1a-0"}}),
    (
        "Workflows",
        "projects/p/locations/r/workflows/load/executions/5f1c",
        {
            "resource": {"type": "workflows.googleapis.com/Workflow"},
            "labels": {"workflows.googleapis.com/execution_id": "5f1c"},
        },
    ),
    (
        "VertexPipeline",
        None,
        {"resource": {"type": "aiplatform.googleapis.com/PipelineJob", "labels": {"pipeline_job_id": KEY}}},
    ),
]


@pytest.mark.parametrize(("target_type", "execution_id", "entry"), FOUND)
def test_a_filter_finds_the_entries_of_its_execution_and_no_other_ones(target_type, execution_id, entry):
    wanted = execution_filter(node(target_type, execution_id), LAUNCH)
    assert matches(wanted, entry)
    other = json.loads(
        json.dumps(entry)
        .replace(KEY, key_of("run_1_a/Load/2"))
        .replace(execution_id_of(KEY), "another12345")
        .replace("grcug3cacqj4", "another12345")
        .replace(JOB, "load-abc")
        .replace("5f1c", "0000")
    )
    assert other != entry
    assert not matches(wanted, other)


def test_a_name_cannot_break_out_of_its_filter():
    wanted = execution_filter(node("CloudRunJob", 'x" OR resource.type="gce_instance'), LAUNCH)
    assert not matches(wanted, {"resource": {"type": "gce_instance"}})


def test_the_logs_page_holds_the_query_with_its_parentheses_encoded_twice():
    page = logs_page('(a="1" OR b="2") c="3"', "my-project", datetime(2026, 1, 2, tzinfo=UTC))
    assert page.startswith(f"{BASE}/logs/query;query=timestamp%3E%3D%222026-01-02T00%3A00%3A00.000Z%22%0A%2528a%3D")
    assert page.endswith("?project=my-project")
    query = unquote(unquote(page.partition("query;query=")[2].partition("?project=")[0]))
    assert compile_query(query)({"a": 1, "c": 3, "timestamp": "2026-01-03T00:00:00Z"})


# -- what status shows -----------------------------------------------------------------------------------


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A bucket that is no directory, with one run in it."""
    from orchestrator.cli import bucket as bucket_module
    from orchestrator.engine.status import DefinitionStatus
    from orchestrator.stores.memory import MemoryStore

    store = MemoryStore()
    task = {"type": "Task", "target_name": "load"}
    steps = {
        "Init": task | {"target_type": "CloudFunction", "region": "us-east1", "project_id": "other", "next": "Load"},
        "Load": task | {"target_type": "Dataflow", "next": "Sum"},
        "Sum": task | {"target_type": "Function", "function": "builtins:sum"},
    }
    name = DefinitionStatus(store).save({"start": "Init", "steps": steps})
    head = {"format": 1, "run_id": "run_1_a", "dag": "d", "definition": name, "status": "Running", "input": {}}
    document = {"$run": head | {"started_at": "2026-11-26T12:00:00Z"}}
    for step, status, attempt in (("Init", "Completed", 1), ("Load", "Running", 1), ("Sum", "New", 0)):
        entry = {"node_name": step, "node_type": "Task", "target_type": steps[step]["target_type"]}
        document[step] = entry | {"target_name": "load", "status": status, "attempt": attempt}
    store.put("runs/run_1_a.json", json.dumps(document).encode(), expect=None)
    monkeypatch.setattr(bucket_module, "open_store", lambda url: store)
    for setting, value in (
        ("STATUS_BUCKET", "gs://state"),
        ("GOOGLE_CLOUD_PROJECT", "my-project"),
        ("FUNCTION_REGION", "europe-west1"),
    ):
        monkeypatch.setenv(setting, value)
    return store


def test_status_links_each_step_and_the_logs_of_a_run_in_the_cloud(cloud, capsys):
    assert main(["status", "run_1_a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = lines[lines.index("in the console:") + 1 :]
    assert [line.split()[0] for line in found] == ["Init", "Load", "logs"]
    assert found[0].split()[1] == f"{BASE}/functions/details/us-east1/load?project=other"
    assert f"job_name%3D%22{KEY}%22" in found[1], "its log, as nobody knows the job's id yet"
    assert "labels.run_id%3D%22run_1_a%22" in found[2]
    assert [line for line in found if "%25" in line.replace("%2528", "").replace("%2529", "")] == []


def test_status_as_json_is_the_document_alone(cloud, capsys):
    assert main(["status", "run_1_a", "--json"]) == 0
    said = capsys.readouterr().out
    assert list(json.loads(said)) == ["$run", "Init", "Load", "Sum"]
    assert "console" not in said


def test_without_a_project_status_says_what_links_need(cloud, capsys, monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    monkeypatch.delenv("EVENTS_TOPIC", raising=False)
    assert main(["status", "run_1_a"]) == 0
    assert "links to the console need GOOGLE_CLOUD_PROJECT and FUNCTION_REGION\n" in capsys.readouterr().out


def test_a_link_is_hidden_behind_its_text_where_the_terminal_can():
    spans = (("  Load  ", ""), ("Dataflow load", "underline https://x.y/z"))
    assert plain(spans) == "  Load  Dataflow load"
    assert coloured(spans) == "  Load  \x1b]8;;https://x.y/z\x1b\\\x1b[4mDataflow load\x1b[0m\x1b]8;;\x1b\\"


@pytest.mark.parametrize(
    ("environment", "is_linking"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7200"}, True),
        ({"TERM": "xterm-256color", "VTE_VERSION": "4205"}, False),
        ({"TERM": "xterm-kitty"}, True),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x", "TERM_PROGRAM": "iTerm.app"}, False),
        ({"TERM": "xterm", "FORCE_HYPERLINK": "1"}, True),
        ({"TERM": "xterm-kitty", "FORCE_HYPERLINK": "0"}, False),
    ],
)
def test_which_terminals_are_trusted_with_links(environment, is_linking):
    assert _links(environment) is is_linking
