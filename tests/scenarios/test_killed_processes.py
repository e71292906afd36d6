"""A process with a run in it is killed (-9) again and again; whoever resumes finishes it, repeating nothing saved."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.runtime.settings import Settings
from orchestrator.stores.local import LocalStore
from tests.support.killed_runs import killed_again_and_again, marked, marking

ROOT = Path(__file__).resolve().parents[2]


def chains(log: Path) -> dict:
    """Three chains of ten side by side, between a first and a last step."""
    step = partial(marking, log)

    def chain(letter: str) -> dict:
        names = [f"{letter}{number}" for number in range(10)]
        following = [{"next": name} for name in names[1:]] + [{}]
        return {"start": names[0], "steps": {n: step(n, **f) for n, f in zip(names, following, strict=True)}}

    fork = {"type": "Parallel", "branches": [chain(letter) for letter in "ABC"], "next": "Last"}
    return {"start": "First", "steps": {"First": step("First", next="Fork"), "Fork": fork, "Last": step("Last")}}


def layers(log: Path) -> dict:
    """Eight layers of four, in which each step depends on three of the layer before, and one on all."""
    names = [[f"L{layer}_{number}" for number in range(4)] for layer in range(8)]
    steps = {name: marking(log, name) for name in names[0]}
    for before, layer in pairwise(names):
        for number, name in enumerate(layer):
            steps[name] = marking(log, name, depends_on=[*before[:number], *before[number + 1 :]])
    return {"steps": {**steps, "Last": marking(log, "Last", depends_on=list(steps), trigger="all_done")}}


def document(folder: Path) -> dict:
    """The run's document, with what lies beside its file; {} before there is one."""
    found = LocalStore(folder / "bucket").get("runs/mine.json")
    return json.loads(found[0]) if found is not None else {}


def completed(folder: Path) -> set[str]:
    return {name for name, node in document(folder).items() if node.get("status") == "Completed"}


@pytest.mark.parametrize(("definition", "at_once"), [(chains, 3), (layers, 4)])
def test_a_run_whose_process_is_killed_again_and_again_is_finished_and_repeats_nothing_that_was_saved(
    tmp_path, definition, at_once
):
    log = tmp_path / "log.txt"
    kills = 0
    saved: dict[str, int] = {}
    for process in killed_again_and_again(tmp_path, definition(log), at_once):
        kills += process.returncode == -signal.SIGKILL
        counts = marked(log)
        for name, times in saved.items():
            assert counts[name] == times, f"{name} was Completed, and ran again"
        saved = {name: counts[name] for name in completed(tmp_path) if name in counts}
    assert (process.returncode, process.stdout.strip()) == (0, "Completed")
    assert kills >= 3
    names = [name for name in document(tmp_path) if name[0] != "$"]
    assert set(marked(log)) == set(names) - {"Fork"}
    assert sum(marked(log).values()) - len(marked(log)) <= at_once * kills, "only what ran at a kill may run again"


KILLED_AT_ITS_END = """
import json, os, sys
from orchestrator import DAGExecutor
def end(saved):
    if saved.after.run.status.is_final:
        os._exit(9)
with DAGExecutor(json.load(open("dag.json")), "file://bucket", on_saved=end) as executor:
    executor.start(run_id=sys.argv[1])
    executor.wait(sys.argv[1], 60)
"""

LEFT = """
import json, os, sys
from orchestrator import DAGExecutor
executor = DAGExecutor(json.load(open("dag.json")), "file://bucket", on_saved=lambda _: os._exit(9))
executor.start(run_id=sys.argv[1])
"""


def open_runs(folder: Path) -> list[str]:
    return [key.removeprefix("open/") for key in LocalStore(folder / "bucket").list("open/")]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a run that ended as its process was killed, `ended`, and one that has not ended, `left`."""
    monkeypatch.chdir(tmp_path)
    nothing = {"type": "Task", "target_type": "Function", "function": "builtins:dict"}
    (tmp_path / "dag.json").write_text(json.dumps({"start": "A", "steps": {"A": nothing}}))
    for code, run_id in ((KILLED_AT_ITS_END, "ended"), (LEFT, "left")):
        assert subprocess.run([sys.executable, "-c", code, run_id], cwd=tmp_path).returncode == 9
    assert open_runs(tmp_path) == ["ended", "left"]
    return tmp_path


def test_the_marker_of_a_run_that_ended_as_its_process_was_killed_goes_with_the_next_process(place):
    left = LocalStore(place / "bucket").get("runs/left.json")
    with DAGExecutor({"start": "A", "steps": {"A": {"type": "End"}}}, "file://bucket"):
        pass
    assert open_runs(place) == ["left"]
    assert LocalStore(place / "bucket").get("runs/left.json") == left, "what has not ended is for who resumes it"


def test_a_long_process_lets_go_of_runs_that_others_ended_while_it_looks_after_its_own(place):
    settings = Settings.read({"TICK_INTERVAL": "10ms"})
    wait = {"start": "A", "steps": {"A": {"type": "Wait", "for": "1h", "end": True}}}
    with DAGExecutor(wait, "file://bucket", settings=settings) as executor:
        executor.start(run_id="mine")
        while open_runs(place) != ["left", "mine"]:  # else it hangs here
            time.sleep(0.01)


def test_what_is_no_run_document_or_nobodys_is_left_and_closing_goes_on(place, caplog):
    store = LocalStore(place / "bucket")
    store.put("runs/ended.json", b"{", expect=store.get("runs/ended.json")[1])
    store.put("open/nobodys", b"{}", expect=None)
    with DAGExecutor({"start": "A", "steps": {"A": {"type": "End"}}}, "file://bucket"):
        pass
    assert open_runs(place) == ["ended", "left", "nobodys"]
    assert not caplog.records


def test_resuming_a_run_that_has_ended_deletes_its_marker(place, capsys):
    (place / "ended").mkdir()
    (place / "dag.json").rename(place / "ended" / "dag.json")
    store = LocalStore(place / "bucket")
    content, version = store.get("runs/ended.json")
    store.put("runs/ended.json", content.replace(b'"dag":"dag"', b'"dag":"ended"'), expect=version)
    assert main(["run", "ended", "--resume", "ended", "--bucket", "file://bucket"]) == 0
    assert open_runs(place) == ["left"]
