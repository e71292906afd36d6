"""max_active_runs and pools against the emulated cloud: two instances, turns told by messages of the topic."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.cloud import BUCKET, ROOT, Cloud
from tests.support.command_line import until
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

SLOW = """
import time
from pathlib import Path

def main(request):
    gate = Path(request.get_json()["gate"])
    gate.with_suffix(".called").touch()
    while not gate.exists():
        time.sleep(0.02)
    return "through"
"""

CALL = {
    "type": "Task",
    "target_type": "CloudFunction",
    "target_name": "slow",
    "parameters": {"gate": "${run.input.gate}"},
}
DAGS = {
    "nightly": {"start": "Call", "max_active_runs": 1, "steps": {"Call": CALL}},
    "pooled": {"start": "Call", "steps": {"Call": {**CALL, "pool": "api"}}},
}


@pytest.fixture(scope="module")
def cloud(pubsub_emulator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("queues")
    for name, definition in DAGS.items():
        functions = folder / "dags" / name / "functions" / "slow"
        functions.mkdir(parents=True)
        (functions / "main.py").write_text(SLOW)
        (folder / "dags" / name / "dag.json").write_text(json.dumps(definition))
    with Cloud(
        pubsub_emulator, folder, dags=folder / "dags", instances=2, settings={"POOLS": "api=1", "SAVE_INTERVAL": "50ms"}
    ) as cloud:
        yield cloud


def pools(cloud):
    """What `orchestrator pools` tells, by queue: (limit, runs that hold, runs that wait)."""
    told = subprocess.run(
        [sys.executable, "-m", "orchestrator", "pools", "--json", "--bucket", f"gs://{BUCKET}"],
        cwd=ROOT,
        env={**os.environ, **cloud.environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (told.returncode, told.stderr) == (0, "")
    return {
        each["queue"]: (
            each["limit"],
            [place["run_id"] for place in each["held"]],
            [place["run_id"] for place in each["waiting"]],
        )
        for each in json.loads(told.stdout)
    }


@pytest.mark.parametrize(("dag", "queue"), [("nightly", "dag/nightly"), ("pooled", "pool/api")])
def test_runs_get_their_turn_one_by_one_without_a_tick(cloud, tmp_path, dag, queue):
    names = [f"{dag}-{number}" for number in range(3)]
    for place, (name, priority) in enumerate(zip(names, (0, 0, 9), strict=True)):
        start = {"resource": {"type": "start"}, "dag": dag, "run_id": name, "priority": priority}
        cloud.publish({**start, "input": {"gate": str(tmp_path / name)}})
        until(lambda: sum(map(len, pools(cloud).get(queue, (1, (), ()))[1:])) == place + 1)  # noqa: B023
    first, second, third = names
    assert pools(cloud)[queue] == (1, [first], [third, second])
    waits = "Queued" if dag == "nightly" else "Running"
    assert cloud.document(second)["$run"]["status"] == waits
    for name in (first, third, second):
        until((tmp_path / name).with_suffix(".called").exists)
        assert pools(cloud)[queue][1] == [name]
        (tmp_path / name).touch()
        assert cloud.wait(name)["$run"]["status"] == "Completed"
        assert cloud.launches()[f"{name}/Call/1"] == 1
    until(lambda: pools(cloud)[queue] == (1, [], []))
    assert cloud.names("dead_letters/") == []
