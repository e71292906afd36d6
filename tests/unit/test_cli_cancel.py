"""orchestrator cancel: of runs that a living process runs, that a killed one left, that have ended."""

import json
import os
import sys
from pathlib import Path
from threading import Timer

import pytest

from orchestrator.cli.main import main
from tests.support.command_line import Place, clean_environment, until

PIPELINE = """
import argparse, os, signal, sys, time
from pathlib import Path

options, _ = argparse.ArgumentParser().parse_known_args()
if os.environ.get("STUBBORN"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path("job.pid").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""

FUNCTION = """
import time
from pathlib import Path

def main(request):
    Path(HERE, "called").touch()
    while not Path(HERE, "go").exists():
        time.sleep(0.01)
    return {"went": "through"}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.delenv("EVENTS_TOPIC", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def job(place, **step):
    folder = place.dag("job", {"Load": {"type": "Task", "target_type": "Dataflow", "target_name": "load", **step}})
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "load.py").write_text(PIPELINE)


def functions(place):
    """Two Function steps side by side that wait for a file, and one after them."""
    branches = [
        {"start": name, "steps": {name: place.task("wait_for", name=name, path="go")}} for name in ("Left", "Right")
    ]
    place.dag("fork", {"Fork": {"type": "Parallel", "branches": branches, "next": "Join"}, "Join": place.task("echo")})


def started(place, dag, happened, **options):
    process = place.start("run", dag, "--run-id", "mine", **options)
    until(happened)
    return process


def status(place, run_id="mine"):
    return place.document(run_id)["$run"]["status"]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stubborn", ["", "1"], ids=["ends when asked to", "has to be killed"])
def test_a_beam_pipeline_that_another_process_runs_is_killed(place, capsys, stubborn):
    job(place)
    pid_file = place.root / "job.pid"
    process = started(place, "job", pid_file.exists, env={**os.environ, "STUBBORN": stubborn})
    assert main(["cancel", "mine", "--reason", "wrong day", "--wait", "--interval", "100ms"]) == 0
    assert "Cancelled in " in capsys.readouterr().out
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "wrong day" in out
    assert not is_alive(int(pid_file.read_text()))
    document = place.document("mine")
    assert document["$run"]["cancel_reason"] == "wrong day"
    assert document["Load"]["error"] == {"error_type": "Run.Cancelled", "message": "wrong day"}


def test_functions_that_run_cannot_be_stopped_and_the_run_ends_after_them(place, capsys):
    functions(place)
    process = started(place, "fork", lambda: len(place.calls()) == 2)
    assert main(["cancel", "mine"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "run mine is being cancelled; 2 steps still to end: Left, Right"
    assert said[-1] == "  orchestrator status mine --bucket file://.orchestrator --watch"
    assert status(place) == "Running"
    assert main(["status", "mine"]) == 0
    assert "  being cancelled: cancelled from the command line\n" in capsys.readouterr().out
    (place.root / "go").touch()
    process.communicate(timeout=20)
    assert process.returncode == 1
    assert place.statuses("mine") == {
        "Fork": ("Completed", 0),
        "Left": ("Completed", 1),
        "Right": ("Completed", 1),
        "Join": ("Skipped", 0),
    }
    assert status(place) == "Cancelled"


def test_functions_that_wait_for_a_worker_are_never_called(place):
    functions(place)
    one = {**os.environ, "LOCAL_WORKERS": "1", "TICK_INTERVAL": "100ms"}
    process = started(place, "fork", lambda: len(place.calls()) == 1, env=one)
    assert main(["cancel", "mine"]) == 0
    until(lambda: sorted(place.statuses("mine").values())[0][0] == "Cancelled")
    (place.root / "go").touch()
    process.communicate(timeout=20)
    assert len(place.calls()) == 1
    assert status(place) == "Cancelled"


def test_a_cloud_function_that_was_called_runs_to_its_end(place):
    call = {"type": "Task", "target_type": "CloudFunction", "target_name": "slow"}
    folder = place.dag("call", {"A": {**call, "next": "B"}, "B": call})
    (folder / "functions" / "slow").mkdir(parents=True)
    (folder / "functions" / "slow" / "main.py").write_text(FUNCTION.replace("HERE", repr(str(place.root))))
    process = started(place, "call", (place.root / "called").exists)
    assert main(["cancel", "mine"]) == 0
    assert status(place) == "Running"
    (place.root / "go").touch()
    process.communicate(timeout=20)
    assert place.statuses("mine") == {"A": ("Completed", 1), "B": ("Skipped", 0)}
    assert status(place) == "Cancelled"


def test_a_run_whose_last_step_runs_to_its_end_has_completed_and_waiting_for_it_is_1(place, capsys):
    place.dag("last", {"A": place.task("wait_for", name="A", path="go")})
    process = started(place, "last", lambda: place.calls() == ["A"])
    Timer(0.5, (place.root / "go").touch).start()
    assert main(["cancel", "mine", "--wait", "--interval", "100ms"]) == 1
    assert "Completed in " in capsys.readouterr().out
    process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.parametrize("kind", ["functions", "job"])
def test_a_run_that_a_killed_process_left_ends_at_once_and_nothing_of_it_runs_again(place, capsys, kind):
    if kind == "job":
        job(place)
        happened = (place.root / "job.pid").exists
    else:
        functions(place)
        happened = lambda: len(place.calls()) == 2  # noqa: E731
    process = started(place, "job" if kind == "job" else "fork", happened)
    process.kill()
    process.communicate()
    calls = place.calls()
    assert main(["cancel", "mine", "--reason", "not needed"]) == 0
    assert capsys.readouterr().out == "run mine: Cancelled (not needed)\n"
    assert status(place) == "Cancelled"
    assert place.calls() == calls
    if kind == "job":
        until(lambda: not is_alive(int((place.root / "job.pid").read_text())))


def test_a_run_that_was_cancelled_already_is_0_and_one_that_ended_otherwise_is_2(place, capsys):
    place.dag("good", {"A": place.task("echo")})
    place.dag("bad", {"A": place.task("boom")})
    functions(place)
    main(["run", "good", "--run-id", "completed"])
    main(["run", "bad", "--run-id", "failed"])
    process = started(place, "fork", lambda: len(place.calls()) == 2)
    process.kill()
    process.communicate()
    main(["cancel", "mine", "--reason", "wrong day"])
    before = {run_id: place.document(run_id) for run_id in place.run_ids()}
    capsys.readouterr()

    assert main(["cancel", "mine"]) == 0
    assert capsys.readouterr().out == "run mine was cancelled already (wrong day)\n"
    for run_id, word in (("completed", "Completed"), ("failed", "Failed")):
        assert main(["cancel", run_id]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == f"orchestrator: run {run_id}: has ended as {word}; there is nothing to cancel\n"
    assert {run_id: place.document(run_id) for run_id in place.run_ids()} == before


def test_a_run_that_does_not_exist_is_2_and_said_where_it_was_looked_for(place, capsys):
    (place.root / ".orchestrator").mkdir()
    assert main(["cancel", "nobody"]) == 2
    said = capsys.readouterr().err
    assert said == "orchestrator: run nobody: there is no such run in file://.orchestrator; there are none yet\n"
    assert main(["cancel", "nobody", "--bucket", "file://elsewhere"]) == 2
    assert "elsewhere: there is no such directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        pytest.param("x" * 501, "has 501 characters; allowed are 500", id="too long"),
        pytest.param("\udcff", "half of a surrogate pair", id="no Unicode"),
    ],
)
def test_a_reason_that_cannot_be_kept_is_2(place, capsys, reason, problem):
    (place.root / ".orchestrator").mkdir()
    assert main(["cancel", "mine", "--reason", reason]) == 2
    assert problem in capsys.readouterr().err


def test_json_is_one_document(place, capsys):
    functions(place)
    process = started(place, "fork", lambda: len(place.calls()) == 2)
    assert main(["cancel", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": "mine", "status": "Running"}
    process.kill()
    process.communicate()
    assert main(["cancel", "mine", "--json", "--wait", "--interval", "100ms"]) == 0
    assert json.loads(capsys.readouterr().out) == place.document("mine")
    assert main(["cancel", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"run_id": "mine", "status": "Cancelled"}
