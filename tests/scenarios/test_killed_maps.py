"""A process that runs a Map as parts is killed (-9) again and again; whoever resumes finishes every item, once."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from orchestrator.stores.local import LocalStore
from tests.scenarios.test_killed_processes import MARK, RUN

ITEMS = 620
AT_ONCE = 60


def completed(folder: Path) -> set[str]:
    """The steps of items that are saved as Completed, in the runs of all parts."""
    found = set()
    store = LocalStore(folder / "bucket")  # beside a file may lie what has changed
    for key in store.list("runs/"):
        document = json.loads(store.get(key)[0])
        found |= {name for name, node in document.items() if name[:3] == "Do[" and node.get("status") == "Completed"}
    return found


def executed(log: Path) -> Counter:
    return Counter(log.read_text().split()) if log.exists() else Counter()


def test_a_map_whose_process_is_killed_again_and_again_runs_every_item_and_repeats_none_that_was_saved(tmp_path):
    log = tmp_path / "log.txt"
    step = {"type": "Task", "target_type": "Function", "function": "mark:mark"}
    step["parameters"] = {"name": "Do[${index}]", "path": str(log)}
    items = [{"number": number, "text": "x" * 200} for number in range(ITEMS)]
    whole = {
        "type": "Map",
        "items": items,
        "max_concurrency": AT_ONCE,
        "iterator": {"start": "Do", "steps": {"Do": {**step, "next": "Say"}, "Say": {"type": "Pass", "result": 0}}},
    }
    whole["iterator"]["steps"]["Say"]["result"] = "${item.number}"
    (tmp_path / "mark.py").write_text(MARK)
    (tmp_path / "run.py").write_text(RUN)
    (tmp_path / "dag.json").write_text(json.dumps({"start": "M", "steps": {"M": whole}}))
    draw = random.Random(7)
    kills = 0
    saved: dict[str, int] = {}
    for _ in range(40):
        process = subprocess.Popen(
            [sys.executable, "run.py"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        until = time.monotonic() + 60
        before = len(executed(log))
        while len(executed(log)) < before + 60 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        out = process.communicate()[0]
        counts = executed(log)
        for name, times in saved.items():
            assert counts[name] == times, f"{name} was Completed, and ran again"
        saved = {name: counts[name] for name in completed(tmp_path)}
        if out.strip() == "Completed":
            break
    assert out.strip() == "Completed"
    assert kills >= 3
    names = {f"Do[{number}]" for number in range(ITEMS)}
    assert completed(tmp_path) == set(executed(log)) == names
    assert sum(executed(log).values()) - ITEMS <= AT_ONCE * kills, "only what ran at a kill may run again"
    document = json.loads(LocalStore(tmp_path / "bucket").get("runs/mine.json")[0])
    assert document["M"]["result"] == list(range(ITEMS))
    assert {name for name in document if name[0] != "$"} == {"M", "M[0]", "M[1]"}
