"""A Map in parts that fails and is redriven through the topic, on the emulated cloud, with two instances."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.cloud import ROOT, Cloud
from tests.support.command_line import until
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

CHECK = """
from pathlib import Path

def main(request):
    asked = request.get_json()
    if asked["count"] != 120 or not Path(asked["mended"]).exists():
        raise RuntimeError("not mended yet")
    return "checked"
"""

DEFINITION = {
    "start": "All",
    "steps": {
        "All": {
            "type": "Map",
            "items": "${run.input.items}",
            "iterator": {"start": "Double", "steps": {"Double": {"type": "Pass", "result": "${item * 2}"}}},
            "next": "Check",
        },
        "Check": {
            "type": "Task",
            "target_type": "CloudFunction",
            "target_name": "check",
            "parameters": {"count": "${size(steps.All.result)}", "mended": "${run.input.mended}"},
        },
    },
}


@pytest.fixture(scope="module")
def cloud(pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    function = folder / "dags" / "parts" / "functions" / "check"
    function.mkdir(parents=True)
    (function / "main.py").write_text(CHECK)
    (folder / "dags" / "parts" / "dag.json").write_text(json.dumps(DEFINITION))
    settings = {"SAVE_INTERVAL": "0s"}
    with Cloud(pubsub_emulator, folder, dags=folder / "dags", instances=2, settings=settings) as cloud:
        cloud.front.twice = 0.3
        yield cloud


def test_a_redrive_by_the_topic_keeps_the_parts_that_completed(cloud, tmp_path):
    mended = tmp_path / "mended"
    given = {"items": list(range(120)), "mended": str(mended)}
    cloud.publish({"resource": {"type": "start"}, "dag": "parts", "run_id": "parts-1", "input": given})
    failed = cloud.wait("parts-1", tick_every_s=5)
    assert (failed["$run"]["status"], failed["All"]["status"]) == ("Failed", "Completed")
    parts = {name: entry["execution_id"] for name, entry in failed.items() if name.startswith("All[")}
    assert parts
    mended.touch()
    told = subprocess.run(
        [sys.executable, "-m", "orchestrator", "redrive", "parts-1"],
        cwd=ROOT,
        env={**os.environ, **cloud.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")
    until(lambda: cloud.document("parts-1")["$run"]["status"] != "Failed")
    ended = cloud.wait("parts-1", tick_every_s=5)
    assert (ended["$run"]["status"], ended["Check"]["attempt"]) == ("Completed", 2)
    assert {name: entry["execution_id"] for name, entry in ended.items() if name.startswith("All[")} == parts
    assert (cloud.launches()["parts-1/Check/1"], cloud.launches()["parts-1/Check/2"]) == (1, 1)
    assert cloud.names("dead_letters/") == []
