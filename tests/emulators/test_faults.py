"""Processes killed (-9) at every step of the loop; messages come twice, late and out of order, lines are lost."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.cloud import Cloud
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

RUNS = 50
STEPS = (
    "1 event in",
    "3 resolved",
    "4 loaded",
    "5 witnessed",
    "6 decided",
    "7 saved",
    "8 launching",
    "8 launched",
    "9 bound",
    "10 acknowledging",
)

STEP = {"type": "Task", "target_type": "CloudFunction", "target_name": "work", "parameters": {"n": 1}}
DAG = {
    "start": "First",
    "steps": {
        "First": {**STEP, "next": "Fork"},
        "Fork": {
            "type": "Parallel",
            "branches": [{"start": "Left", "steps": {"Left": STEP}}, {"start": "Right", "steps": {"Right": STEP}}],
            "next": "Last",
        },
        "Last": STEP,
    },
}
TASKS = ("First", "Left", "Right", "Last")

SETTINGS = {
    "LAUNCH_LEASE": "3s",
    "LAUNCH_CALL_LIMIT": "1s",
    "LOG_SEARCHES_PER_MINUTE": "6000",
    "CLOCK_ALLOWANCE": "100ms",
    "EVENT_GRACE": "5s",
    "KILL_RATE": "0.01",
}


def keep_alive(cloud: Cloud, stop: threading.Event) -> None:
    """Start what died again, as the platform does."""
    while not stop.is_set():
        for instance in cloud.instances:
            if instance.is_dead and not stop.is_set():
                instance.start()
        time.sleep(0.02)


def test_fifty_runs_end_well_and_each_task_is_called_once(pubsub_emulator, tmp_path, capsys):
    folder = tmp_path / "dags" / "work" / "functions" / "work"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("def main(request):\n    return {'done': request.get_json()['n']}\n")
    (tmp_path / "dags" / "work" / "dag.json").write_text(json.dumps(DAG))
    kill_log = tmp_path / "kills.txt"
    kill_log.touch()
    settings = {**SETTINGS, "KILL_LOG": str(kill_log)}
    source = Path(__file__).with_name("killable.py")
    with Cloud(
        pubsub_emulator, tmp_path, dags=tmp_path / "dags", instances=3, settings=settings, source=source, loses=0.1
    ) as cloud:
        cloud.front.twice, cloud.front.late = 0.3, 0.1
        stop = threading.Event()
        keeper = threading.Thread(target=keep_alive, args=(cloud, stop))
        keeper.start()
        try:
            run_ids = [f"run-{number}" for number in range(RUNS)]
            for run_id in run_ids:
                cloud.publish({"resource": {"type": "start"}, "dag": "work", "run_id": run_id})
            documents = {}
            until = time.monotonic() + 400  # far beyond what it takes
            while len(documents) < RUNS and time.monotonic() < until:
                cloud.tick()
                for run_id in run_ids:
                    document = cloud.document(run_id)
                    if document and document["$run"]["status"] != "Running":
                        documents[run_id] = document
                time.sleep(2)
        finally:
            (Path(f"{kill_log}.stop")).touch()
            stop.set()
            keeper.join()
        kills = Counter(kill_log.read_text().splitlines())
        calls = cloud.launches()
        with capsys.disabled():
            print(f"\n  {sum(kills.values())} kills: " + ", ".join(f"{step} {kills[step]}" for step in STEPS))
            print(
                f"  {cloud.front.delivered} deliveries, {cloud.front.duplicates} messages twice at once, "
                f"{cloud.front.delayed} held back; {cloud.lost} log lines lost; {len(calls)} launches, "
                f"{sum(calls.values())} calls"
            )
        unended = [run_id for run_id in run_ids if run_id not in documents]
        assert unended == [], cloud.document(unended[0])
        statuses = Counter(document["$run"]["status"] for document in documents.values())
        assert statuses == {"Completed": RUNS}
        expected = {f"{run_id}/{task}/1" for run_id in run_ids for task in TASKS}
        assert set(calls) == expected
        # The queue takes a task's name once: identity "window". So no kill may double a call.
        assert {launch: times for launch, times in calls.items() if times > 1} == {}
        assert all(kills[step] for step in STEPS), kills
