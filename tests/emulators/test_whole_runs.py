"""The samples run through the emulated cloud: start message in, run document out, the same as on one machine."""

import json
import time
from pathlib import Path

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.catalog import Catalog
from orchestrator.model.run_document import encode
from orchestrator.runtime.catalog import DagFolders
from tests.support.cloud import ROOT, Cloud
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture


@pytest.fixture
def cloud(pubsub_emulator, tmp_path):
    with Cloud(pubsub_emulator, tmp_path, instances=2) as cloud:
        yield cloud


def plain(document: dict, run_id: str) -> dict:
    """A run document without times, ids and what is made of them."""
    text = json.dumps(document).replace(run_id, "RUN")
    entries = json.loads(text)
    for entry in entries.values():
        for key in ("started_at", "ended_at", "message_id", "execution_id"):
            entry.pop(key, None)
        if isinstance(entry.get("result"), dict):
            for key in ("job_id", "job_name"):
                if key in entry["result"]:
                    entry["result"][key] = "ID"
    return entries


def run_here(folder: Path, dag: str, given: dict, run_id: str) -> dict:
    found = DagFolders(ROOT / "dag_definitions")
    with DAGExecutor(Catalog(found), f"file://{folder}/bucket", folders=found.folders) as executor:
        executor.start(dag, given, run_id=run_id)
        return json.loads(encode(executor.wait(run_id, 90)))


@pytest.mark.parametrize("dag", ["sample", "wordcount"])
def test_the_unchanged_definition_gives_the_same_document_here_and_in_the_cloud(cloud, tmp_path, dag):
    text = ROOT / "dag_definitions/wordcount/data/king-james-bible.txt.gz"
    given = {"text": str(text), "output": str(tmp_path / "out")} if dag == "wordcount" else {}
    cloud.publish({"resource": {"type": "start"}, "dag": dag, "input": given, "run_id": "in-the-cloud"})
    there = cloud.wait("in-the-cloud", 90)
    here = run_here(tmp_path, dag, given, "right-here")
    assert there["$run"]["status"] == "Completed"
    assert plain(there, "in-the-cloud") == plain(here, "right-here")
    assert set(cloud.launches().values()) == {1}
    if dag == "wordcount":
        assert len(cloud.dataflow.jobs) == 1


def test_one_filter_of_the_log_shows_a_run_and_one_trace_an_attempt(cloud):
    cloud.publish({"resource": {"type": "start"}, "dag": "sample", "run_id": "told"})
    document = cloud.wait("told")
    labels = "logging.googleapis.com/labels"
    entries = cloud.log_of("told")  # of both instances, one after the other
    said = {entry["message"]: entry[labels] for entry in entries}
    assert said["run started: told of sample"]["event_id"]
    assert "run ended: Completed: told of sample" in said
    assert {each.get("node") for each in said.values()} - {None} == set(document) - {"$run"}
    traces = {entry.get("logging.googleapis.com/trace", "").rpartition("/")[2] for entry in entries} - {""}
    assert traces >= {call.trace_id for call in cloud.functions.calls}


def test_the_tick_deletes_the_marker_of_a_run_that_has_ended(cloud):
    cloud.publish({"resource": {"type": "start"}, "dag": "sample", "run_id": "marked"})
    cloud.wait("marked")
    assert cloud.names("open/") == ["open/marked"]
    cloud.tick()
    until = time.monotonic() + 60
    while cloud.names("open/") and time.monotonic() < until:
        time.sleep(0.05)
    assert cloud.names("open/") == []
