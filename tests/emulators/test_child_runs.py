"""Child runs and answers in the emulated cloud, through main.py on the Pub/Sub emulator and a storage server."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.support.cloud import ROOT, Cloud
from tests.support.command_line import until
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

COUNT = """
def main(request):
    return {"rows": 12 * request.get_json()["day"]}
"""

PIPELINE = """
import time

while True:
    time.sleep(0.05)
"""


def step(target_type, target_name, **more):
    return {"type": "Task", "target_type": target_type, "target_name": target_name, **more}


DAGS = {
    "nightly": {
        "Load": step("Dag", "load", parameters={"day": "${run.input.day}"}, next="Approve"),
        "Approve": step("Callback", "data-team", parameters={"rows": "${steps.Load.result}"}, next="Tell"),
        "Tell": {"type": "Pass", "result": "${steps.Load.result} rows by ${steps.Approve.result.by}"},
    },
    "fan": {
        "All": {
            "type": "Parallel",
            "branches": [
                {"start": f"L{n}", "steps": {f"L{n}": step("Dag", "load", parameters={"day": n})}} for n in range(1, 9)
            ],
        }
    },
    "load": {"Count": step("CloudFunction", "count", invocation="sync", parameters={"day": "${run.input.day}"})},
    "long": {"Child": step("Dag", "forever")},
    "forever": {"Job": step("Dataflow", "forever")},
}


@pytest.fixture(scope="module")
def cloud(pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("children")
    for name, steps in DAGS.items():
        (folder / "dags" / name).mkdir(parents=True)
        definition = {"start": next(iter(steps)), "steps": steps}
        if name == "load":
            definition["result"] = "${steps.Count.result.rows}"
        (folder / "dags" / name / "dag.json").write_text(json.dumps(definition))
    for path, text in (("load/functions/count/main.py", COUNT), ("forever/pipelines/forever.py", PIPELINE)):
        file = folder / "dags" / path
        file.parent.mkdir(parents=True)
        file.write_text(text)
    settings = {"SAVE_INTERVAL": "0s"}
    with Cloud(pubsub_emulator, folder, dags=folder / "dags", instances=2, settings=settings) as cloud:
        cloud.front.twice = 0.3
        yield cloud


def call(cloud, *arguments):
    """`orchestrator …` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *arguments],
        cwd=ROOT,
        env={**os.environ, **cloud.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def start(cloud, dag, run_id, **given):
    cloud.publish({"resource": {"type": "start"}, "dag": dag, "input": given, "run_id": run_id})


def children_of(cloud, run_id):
    documents = [cloud.document(name[5:-5]) for name in cloud.names("runs/")]
    return [each for each in documents if each["$run"].get("parent", {}).get("run_id") == run_id]


def test_a_child_run_and_an_approval(cloud):
    start(cloud, "nightly", "night-1", day=3)
    until(lambda: (cloud.document("night-1") or {}).get("Approve", {}).get("status") == "Running", 60)
    (kid,) = children_of(cloud, "night-1")
    assert (kid["$run"]["status"], kid["$run"]["result"], kid["$run"]["dag"]) == ("Completed", 36, "load")
    assert cloud.launches()[f"{kid['$run']['run_id']}/Count/1"] == 1
    shown = call(cloud, "status", "night-1")
    assert f"child run: Load  {kid['$run']['run_id']}  Completed" in shown.stdout
    assert '{"rows":36}' in shown.stdout
    told = call(cloud, "approve", "night-1", "Approve", "--result", '{"by": "anna"}')
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("run night-1: Approve is approved, by message ")
    document = cloud.wait("night-1")
    assert document["Tell"]["result"] == "36 rows by anna"
    again = call(cloud, "approve", "night-1", "Approve", "--reject")
    assert (again.returncode, again.stdout) == (2, "")
    assert "run night-1: has ended as Completed; there is nothing to answer" in again.stderr


def test_a_forged_answer_changes_nothing(cloud):
    start(cloud, "nightly", "night-2", day=1)
    until(lambda: (cloud.document("night-2") or {}).get("Approve", {}).get("status") == "Running", 60)
    forged = {"resource": {"type": "callback"}, "run_id": "night-2", "node_name": "Approve", "attempt": 1}
    handed_on = cloud.front.delivered
    cloud.publish({**forged, "token": "0" * 32, "status": "Completed", "result": {"by": "mallory"}})
    until(lambda: cloud.front.delivered > handed_on)
    assert call(cloud, "approve", "night-2", "Approve", "--reject", "--reason", "no").returncode == 0
    document = cloud.wait("night-2")
    assert document["$run"]["error"] == {"error_type": "Callback.Rejected", "message": "no", "node": "Approve"}


def test_eight_children_at_once_of_which_one_instance_is_killed(cloud):
    start(cloud, "fan", "fan-1")
    until(lambda: len(children_of(cloud, "fan-1")) >= 3, 60)
    cloud.instances[0].kill()
    cloud.instances[0].start()
    cloud.instances[0].wait_until_it_listens()
    document = cloud.wait("fan-1", 150, tick_every_s=5)
    assert document["$run"]["status"] == "Completed"
    assert [document[f"L{n}"]["result"] for n in range(1, 9)] == [12 * n for n in range(1, 9)]
    kids = children_of(cloud, "fan-1")
    assert Counter(each["$run"]["parent"]["node"] for each in kids) == {f"L{n}": 1 for n in range(1, 9)}


def test_cancelling_the_parent_cancels_the_job_of_its_child(cloud):
    start(cloud, "long", "long-1")
    until(lambda: any(job.state == "JOB_STATE_RUNNING" for job in cloud.dataflow.jobs.values()), 60)
    assert call(cloud, "cancel", "long-1", "--wait", "--interval", "0.2").returncode == 0
    (kid,) = children_of(cloud, "long-1")
    document = cloud.wait(kid["$run"]["run_id"])
    assert (cloud.document("long-1")["$run"]["status"], document["$run"]["status"]) == ("Cancelled", "Cancelled")
    assert [job.state for job in cloud.dataflow.jobs.values()] == ["JOB_STATE_CANCELLED"]
