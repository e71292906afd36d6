"""What the command line says of queues: what a run waits for, who holds slots; and runs of several terminals."""

import json
import signal
import sys

import pytest

from orchestrator.cli.main import main
from tests.support.command_line import Place, clean_environment, until


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.delenv("POOLS", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def limited(place: Place, **keys: object) -> None:
    """A DAG of one run at a time, which waits for a file."""
    folder = place.dag("slow", {"A": place.task("wait_for", name="A", path="go") | keys})
    definition = json.loads((folder / "dag.json").read_text())
    (folder / "dag.json").write_text(json.dumps({**definition, "max_active_runs": 1}))


def waiting(place: Place, queue: str) -> int:
    """How many wait in a queue."""
    return len(json.loads((place.root / f".orchestrator/slots/{queue}.json").read_text())["waiting"])


def test_runs_of_several_terminals_wait_for_each_other_and_say_so(place, capsys):
    limited(place)
    first = place.start("run", "slow", "--run-id", "first")
    until(lambda: place.calls() == ["A"])
    second = place.start("run", "slow", "--run-id", "second")
    until(lambda: "second" in place.run_ids())
    third = place.start("run", "slow", "--run-id", "third", "--priority", "7")
    until(lambda: "third" in place.run_ids())
    until(lambda: waiting(place, "dag/slow") == 2)

    assert main(["status", "second"]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].split()[:3] == ["slow", "second", "Queued"]
    assert "waits for its turn: 2nd of 2; max_active_runs 1, held by first\n" in said
    assert main(["runs", "--status", "Queued", "--json"]) == 0
    queued = json.loads(capsys.readouterr().out)
    assert [(run["run_id"], run["priority"]) for run in queued] == [("third", 7), ("second", 0)]
    assert main(["pools"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["Queue", "Limit", "Held", "Waiting"],
        ["runs", "of", "slow", "1", "1", "2"],
    ]
    assert main(["pools", "--json"]) == 0
    (queue,) = json.loads(capsys.readouterr().out)
    assert (queue["queue"], queue["limit"]) == ("dag/slow", 1)
    assert [place["run_id"] for place in queue["held"] + queue["waiting"]] == ["first", "third", "second"]
    assert "ticket" not in queue["held"][0]

    (place.root / "go").touch()
    outputs = [process.communicate(timeout=60) for process in (first, second, third)]
    assert [process.returncode for process in (first, second, third)] == [0, 0, 0]
    assert "run second waits for its turn: 1st of 1; max_active_runs 1, held by first\n" in outputs[1][1]
    assert [line.partition(" ")[2] for line in outputs[1][0].splitlines()[:2]] == [
        "run second of slow is queued",
        "run second begins",
    ]
    assert outputs[0][0].splitlines()[0].endswith(" run first of slow started")
    began = {run: place.document(run)["$run"]["started_at"] for run in ("first", "second", "third")}
    assert sorted(began, key=began.__getitem__) == ["first", "third", "second"]
    assert main(["pools"]) == 0
    assert capsys.readouterr().out.split()[-3:] == ["1", "0", "0"]


def test_a_queued_run_is_cancelled_from_another_terminal(place, capsys):
    limited(place)
    first = place.start("run", "slow", "--run-id", "first")
    until(lambda: place.calls() == ["A"])
    second = place.start("run", "slow", "--run-id", "second")
    until(lambda: "second" in place.run_ids())
    assert main(["cancel", "second", "--reason", "no need"]) == 0
    assert "run second: Cancelled (no need)" in capsys.readouterr().out
    assert second.wait(60) == 1
    assert place.statuses("second") == {"A": ("Skipped", 0)}
    (place.root / "go").touch()
    assert first.wait(60) == 0


def test_a_run_that_is_interrupted_while_it_waits_lets_others_pass_and_comes_back(place, capsys):
    limited(place)
    first = place.start("run", "slow", "--run-id", "first")
    until(lambda: place.calls() == ["A"])
    second = place.start("run", "slow", "--run-id", "second")
    until(lambda: "second" in place.run_ids() and waiting(place, "dag/slow") == 1)
    second.send_signal(signal.SIGINT)
    assert second.wait(60) == 130
    assert waiting(place, "dag/slow") == 0
    assert main(["status", "second"]) == 0
    assert "waits for its turn: not before it is resumed" in capsys.readouterr().out
    third = place.start("run", "slow", "--run-id", "third")
    until(lambda: "third" in place.run_ids() and waiting(place, "dag/slow") == 1)
    (place.root / "go").touch()
    assert [first.wait(60), third.wait(60)] == [0, 0]
    assert main(["run", "slow", "--resume", "second"]) == 0
    assert place.document("second")["$run"]["status"] == "Completed"


def test_a_killed_process_leaves_its_slot_to_nobody_until_its_run_is_finished(place):
    limited(place)
    first = place.start("run", "slow", "--run-id", "first")
    until(lambda: place.calls() == ["A"])
    first.kill()
    first.wait(60)
    second = place.start("run", "slow", "--run-id", "second")
    until(lambda: "second" in place.run_ids())
    (place.root / "go").touch()
    assert main(["run", "slow", "--resume", "first"]) == 0
    assert second.wait(60) == 0


def test_steps_of_one_pool_wait_for_each_other_and_status_says_so(place, capsys, monkeypatch):
    monkeypatch.setenv("POOLS", "api=1 spare=3")
    limited(place, pool="api")
    place.dag("other", {"B": place.task("echo", value=1) | {"pool": "api"}})
    first = place.start("run", "slow", "--run-id", "first")
    until(lambda: place.calls() == ["A"])
    other = place.start("run", "other", "--run-id", "other")
    until(lambda: waiting(place, "pool/api") == 1)
    assert main(["status", "other"]) == 0
    said = capsys.readouterr().out
    assert "waits for pool api" in said
    assert "B waits for a slot of pool api: 1st of 1; it has 1, held by first/A/1\n" in said
    assert main(["pools"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [
        ["runs", "of", "slow", "1", "1", "0"],
        ["pool", "api", "1", "1", "1"],
        ["pool", "spare", "3", "0", "0"],
    ]
    (place.root / "go").touch()
    out = [process.communicate(timeout=60)[0] for process in (first, other)]
    assert [first.returncode, other.returncode] == [0, 0]
    assert "attempt 1 waits for a slot of pool api\n" in out[1]


def test_a_pool_without_a_limit_is_told_before_anything_runs(place, capsys, monkeypatch):
    monkeypatch.setenv("POOLS", "other=3")
    place.dag("d", {"A": place.task("echo") | {"pool": "api"}})
    assert main(["run", "d"]) == 2
    assert capsys.readouterr().err == (
        'orchestrator: POOLS: gives the pool "api" no limit; set it, as in POOLS=api=5; there are other\n'
    )
    assert place.run_ids() == []


@pytest.mark.parametrize(
    ("pools", "said"),
    [
        ("api", 'POOLS: "api" gives no number of slots; write it as in api=5, from 1 to 1000'),
        ("api=0", 'POOLS: "api=0" gives no number of slots; write it as in api=5, from 1 to 1000'),
        ("api=2,api=3", 'POOLS: "api" stands there twice'),
        ("a/b=2", 'POOLS: "a/b" is not the name of a pool; write 1 to 63 of A-Z a-z 0-9 _ -'),
    ],
)
def test_pools_that_cannot_be_read_are_an_error_that_says_how(place, capsys, monkeypatch, pools, said):
    monkeypatch.setenv("POOLS", pools)
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == f"orchestrator: {said}\n"


def test_nothing_that_shares_a_limit_is_said(place, capsys):
    place.dag("d", {"A": place.task("echo")})
    assert main(["run", "d"]) == 0
    capsys.readouterr()
    assert main(["pools"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err.startswith("nothing shares a limit in ")) == ("", True)


@pytest.mark.parametrize("priority", ["101", "-101", "high", "1.5"])
def test_a_priority_that_there_is_not_is_2(place, capsys, priority):
    assert main(["start", "d", f"--priority={priority}"]) == 2
    assert f'"{priority}" is not a whole number from -100 to 100' in capsys.readouterr().err


def test_a_run_that_was_started_has_its_priority(place, capsys):
    assert main(["run", "d", "--resume", "r", "--priority", "3"]) == 2
    assert "a run that was started has its priority" in capsys.readouterr().err
