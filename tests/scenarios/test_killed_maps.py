"""A process that runs a Map as parts is killed (-9) again and again; whoever resumes finishes every item, once."""

import json
import signal
from pathlib import Path

from orchestrator.stores.local import LocalStore
from tests.support.killed_runs import killed_again_and_again, marked, marking

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


def test_a_map_whose_process_is_killed_again_and_again_runs_every_item_and_repeats_none_that_was_saved(tmp_path):
    log = tmp_path / "log.txt"
    step = marking(log, "Do[${index}]", next="Say")
    items = [{"number": number, "text": "x" * 200} for number in range(ITEMS)]
    whole = {
        "type": "Map",
        "items": items,
        "max_concurrency": AT_ONCE,
        "iterator": {"start": "Do", "steps": {"Do": step, "Say": {"type": "Pass", "result": "${item.number}"}}},
    }
    kills = 0
    saved: dict[str, int] = {}
    for process in killed_again_and_again(tmp_path, {"start": "M", "steps": {"M": whole}}, AT_ONCE):
        kills += process.returncode == -signal.SIGKILL
        counts = marked(log)
        for name, times in saved.items():
            assert counts[name] == times, f"{name} was Completed, and ran again"
        saved = {name: counts[name] for name in completed(tmp_path)}
    assert (process.returncode, process.stdout.strip()) == (0, "Completed")
    assert kills >= 3
    names = {f"Do[{number}]" for number in range(ITEMS)}
    assert completed(tmp_path) == set(marked(log)) == names
    assert sum(marked(log).values()) - ITEMS <= AT_ONCE * kills, "only what ran at a kill may run again"
    document = json.loads(LocalStore(tmp_path / "bucket").get("runs/mine.json")[0])
    assert document["M"]["result"] == list(range(ITEMS))
    assert {name for name in document if name[0] != "$"} == {"M", "M[0]", "M[1]"}
