"""What docs/targets.md says is so: a row a target type, definitions that are valid, the log entries that are ours."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.model.definition import problems
from orchestrator.model.enums import JOBS, Identity, TargetTypes
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.grammar import TASKS
from orchestrator.targets.job_services import SERVICES
from tests.support.job_server import KINDS, JobServer

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/targets.md").read_text()
README = (ROOT / "README.md").read_text()


def table(heading: str) -> dict[str, list[str]]:
    """The rows of the first table after a line that begins like this, by their first cell."""
    after = PAGE[PAGE.index(f"\n{heading}") :]
    found = re.search(r"^\|.*?\n\n", after, re.DOTALL | re.MULTILINE)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[0].strip().splitlines()]
    return {row[0].strip("`"): row[1:] for row in rows[2:]}


def test_every_target_type_has_a_row_here_and_in_the_readme():
    assert list(table("| `target_type` | launches")) == list(TargetTypes)
    for target_type in TargetTypes:
        assert f"| `{target_type}` |" in README


def test_every_job_service_has_its_rows():
    for heading in ("## Keys of a step", "## Rights"):
        assert list(table(heading)) == list(JOBS)
    assert set(table("## Events")) == {name for name in JOBS if not SERVICES[name].first_question_s}


def test_the_keys_are_those_of_the_grammar():
    shared = {"type", "next", "end", "target_type", "timeout", "retry", "on_error", "target_name", "parameters"}
    shared |= {"project_id", "region", "depends_on", "trigger", "pool"}
    for name, (_, _, further) in table("## Keys of a step").items():
        assert set(re.findall(r"`([a-z_]+)`", further)) - {"region"} == set(TASKS[name].keys) - shared


def test_the_identities_are_those_of_the_table():
    words = {Identity.FOREVER: "for ever", Identity.WINDOW: "until the", Identity.FOUND: "it takes none"}
    for name, cells in table("| `target_type` | launches").items():
        if name in JOBS:
            assert cells[1].startswith(words[SERVICES[name].identity])


@pytest.mark.parametrize("name", JOBS)
def test_the_results_have_the_keys_that_are_said(name):
    said = re.findall(r"\w+", table("| `target_type` | launches")[name][3])
    server = JobServer()
    service = KINDS[name](server)
    launched = {
        "CloudRunJob": {},
        "BigQuery": {"jobReference": {"jobId": "j", "location": "EU"}, "configuration": {"query": {"query": "1"}}},
        "VertexPipeline": {"runtimeConfig": {"gcsOutputDirectory": "gs://b/x"}},
    }
    query = {"batchId": "k", "requestId": "r", "jobId": "k", "pipelineJobId": "k"}
    service.check = lambda body, query: None
    service.launch("projects/p/locations/r/jobs/nightly", query, launched.get(name, {}))
    (job,) = service.jobs.values()
    job.state, job.result = "Succeeded", 1
    row = SERVICES[name]
    where = row.where(row.name.format(project="p", region="r", target="t", id="i"))
    assert list(row.result(service.resource(job), where)) == said


def test_the_definitions_are_valid():
    for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        assert problems(json.loads(block)) == []


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("CloudRunJob", "cloud_run_job_completed"),
        ("BigQuery", "bigquery_job_done"),
        ("Workflows", "workflow_succeeded"),
        ("VertexPipeline", "vertex_pipeline_failed"),
    ],
)
def test_the_entries_that_a_sink_has_to_match_are_ours(name, payload):
    entry = json.loads((ROOT / f"tests/payloads/{payload}.json").read_text())
    resource_type, log, _ = (cell.strip("`") for cell in table("## Events")[name])
    assert entry["resource"]["type"] == resource_type
    assert entry["logName"].endswith(f"/logs/{log}")
    assert EventFactory.create_from_event(entry).target_type == name


def test_the_files_that_it_points_to_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
