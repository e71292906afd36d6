"""`orchestrator schedule`: a process on this machine that starts what is due, and ends well."""

import json
import os
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.cli.console import Console
from orchestrator.cli.follow import Interrupted
from orchestrator.cli.main import main
from orchestrator.cli.schedule import Wanted, schedule
from orchestrator.runtime.settings import Settings
from orchestrator.testing.virtual_time import T0, VirtualClock
from tests.support.command_line import Place, clean_environment, until

PASS = {"start": "A", "steps": {"A": {"type": "Pass", "result": "${run.scheduled_for}"}}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def write(place, name, **keys):
    (place.root / "dags" / name).mkdir(parents=True, exist_ok=True)
    (place.root / "dags" / name / "dag.json").write_text(json.dumps({**PASS, **keys}))


def times(place, dag="d"):
    """Status of each run, by the time that it is for."""
    runs = [place.document(run_id)["$run"] for run_id in place.run_ids()]
    return {f"{run['scheduled_for']:.16}": run["status"] for run in runs if run["dag"] == dag}


def look_after(clock, hours, *, sleeps=None):
    """Look after the schedules in ./dags for so many virtual hours; return the exit code.

    Args:
        sleeps: seconds from the beginning -> how many seconds the machine sleeps then.
    """
    end = clock.now() + timedelta(hours=hours)
    left = {clock.now() + timedelta(seconds=at): seconds for at, seconds in (sleeps or {}).items()}

    def wait(_, seconds):
        clock.forward(max(seconds, 0.001))
        for at in [at for at in left if at <= clock.now()]:
            clock.forward(left.pop(at))
        if clock.now() >= end:
            raise Interrupted(signal.SIGINT)

    return schedule(Console(), Wanted([Path("dags")]), Settings.read({}), clock, wait)


def test_each_time_has_its_run_when_it_comes(place, capsys):
    write(place, "d", schedule="0 * * * *")
    assert look_after(VirtualClock(T0 - timedelta(minutes=30)), 3) == 0
    assert times(place) == dict.fromkeys(["2026-01-01T12:00", "2026-01-01T13:00", "2026-01-01T14:00"], "Completed")
    said = capsys.readouterr()
    assert said.out.splitlines()[0] == "next: d at 2026-01-01 12:00 UTC"
    assert "of d for 2026-01-01 12:00 UTC started" in said.out
    assert said.out.count("of d: Completed") == 3
    assert said.err == "ended; 0 runs left open\n"


@pytest.mark.parametrize(
    ("missed", "made_up"), [("skip", []), ("last", ["15:00"]), ("all", ["12:00", "13:00", "14:00", "15:00"])]
)
def test_what_passed_between_two_processes_is_missed(place, capsys, missed, made_up):
    write(place, "d", schedule="0 * * * *", missed=missed)
    clock = VirtualClock(T0 - timedelta(minutes=90))
    look_after(clock, 1)
    clock.forward_to(T0 + timedelta(hours=3.5))
    look_after(clock, 1)
    assert list(times(place)) == [f"2026-01-01T{each}" for each in ("11:00", *made_up, "16:00")]
    left_out = {"skip": "d: 4 missed times left out\n", "last": "d: 3 missed times left out\n", "all": ""}[missed]
    assert ("left out" in capsys.readouterr().out) == bool(left_out)


def test_a_machine_that_slept_has_missed_what_passed(place, capsys):
    write(place, "d", schedule="0 * * * *")
    look_after(VirtualClock(T0 - timedelta(minutes=30)), 6, sleeps={3600: 4 * 3600 - 60})
    assert list(times(place)) == ["2026-01-01T12:00", "2026-01-01T17:00"]
    assert "d: 4 missed times left out\n" in capsys.readouterr().out


def test_two_processes_over_one_bucket_make_one_run_a_time(place):
    write(place, "d", schedule="0 * * * *")
    for _ in range(2):
        look_after(VirtualClock(T0 - timedelta(minutes=30)), 1)
    assert len(place.run_ids()) == 1


def test_the_next_times_are_told_and_nothing_is_made(place, capsys):
    write(place, "d", schedule="30 6 * * *", time_zone="Europe/Berlin")
    write(place, "e", schedule="0 0 1 * *")
    write(place, "by-hand")
    assert main(["schedule", "dags", "--next", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[-1] for line in lines) == ["d", "d", "e", "e"]
    assert any("UTC  " in line and " 06:30 Europe/Berlin  d" in line for line in lines)
    assert main(["schedule", "dags", "--next", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert all(datetime.fromisoformat(each["scheduled_for"]) > datetime.now(UTC) for each in found)
    assert not (place.root / ".orchestrator").exists()


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["schedule", "dags/by-hand"], 'schedule: none of by-hand has a "schedule"'),
        (["schedule", "dags/nowhere"], "there is no such file or folder"),
        (["schedule", "dags/d", "--json"], "--json goes with --next"),
        (["schedule", "dags/d", "other/d"], "several DAGs are called d"),
        (["schedule", "dags/lacking"], "no_such_module"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(place, capsys, argv, problem):
    write(place, "d", schedule="30 6 * * *")
    write(place, "by-hand")
    step = {"type": "Task", "target_type": "Function", "function": "no_such_module:f"}
    write(place, "lacking", schedule="30 6 * * *", steps={"A": step})
    (place.root / "other").mkdir()
    (place.root / "other" / "d.json").write_text(json.dumps({**PASS, "schedule": "0 * * * *"}))
    assert main([each.replace("other/d", "other/d.json") for each in argv]) == 2
    assert problem in capsys.readouterr().err
    assert place.run_ids() == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_ended_leaves_its_run_to_the_next_one(place, signum):
    steps = {"A": place.task("wait_for", "B", name="A", path="go"), "B": place.task("note", name="B")}
    folder = place.dag("d", steps)
    definition = json.loads((folder / "dag.json").read_text())
    (folder / "dag.json").write_text(json.dumps({**definition, "schedule": "0 6 * * *", "missed": "last"}))
    (place.root / ".orchestrator" / "schedules").mkdir(parents=True)
    mark = {"format": 1, "dag": "d", "schedule": "0 6 * * *", "time_zone": "Etc/UTC"}
    through = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    (place.root / ".orchestrator" / "schedules" / "d.json").write_text(json.dumps({**mark, "through": through}))
    process = place.start("schedule", "d", env={**os.environ})
    until(lambda: place.calls() == ["A"])
    process.send_signal(signum)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (
        0,
        "ended; 1 run left open, which this takes up: orchestrator schedule d\n",
    )
    assert "next: d at " in out
    (place.root / "go").touch()
    process = place.start("schedule", "d")
    until(lambda: [place.document(run_id)["$run"]["status"] for run_id in place.run_ids()] == ["Completed"])
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert place.calls() == ["A", "A", "B"]
