"""orchestrator status and runs: what lies in a bucket, whatever state it is in."""

import json
import os
import shutil
import sys
import time
from collections import Counter
from datetime import datetime
from threading import Timer

import pytest

from orchestrator.cli import main as main_module
from orchestrator.cli import status as status_module
from orchestrator.cli.main import main
from tests.support.command_line import Place, clean_environment
from tests.support.storage_server import StorageServer


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


@pytest.fixture
def bucket(place, capsys):
    """Three runs: one Completed, one Failed, and one that nobody runs any more."""
    place.dag("good", {"A": place.task("echo", "B", value="x"), "B": place.task("echo", value=[1, 2])})
    place.dag("bad", {"A": place.task("boom")})
    assert main(["run", "good", "--run-id", "completed"]) == 0
    assert main(["run", "bad", "--run-id", "failed"]) == 1
    runs = place.root / ".orchestrator" / "runs"
    document = json.loads((runs / "completed.json").read_text())
    document["$run"] |= {"run_id": "left", "status": "Running", "started_at": "2026-01-01T00:00:00Z"}
    document["$run"].pop("ended_at")
    document["B"] |= {"status": "Running"}
    document["B"].pop("ended_at")
    (runs / "left.json").write_text(json.dumps(document))
    capsys.readouterr()
    return runs


def test_a_run_that_completed_is_0(bucket, capsys):
    assert main(["status", "completed"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["good", "completed", "Completed"]
    assert lines[3].split()[:1] == ["A"]
    assert "B  [1, 2]" in lines
    assert lines[-2] == "run document: .orchestrator/runs/completed.json"
    assert lines[-1].startswith("cost in Google Cloud, were it there: about $0.00")


def test_a_run_that_failed_is_1_and_says_why(bucket, capsys):
    assert main(["status", "failed"]) == 1
    said = capsys.readouterr().out
    assert "  step A, attempt 1: Task.Failed: ValueError: boom\n" in said
    assert "or start a new one:\n  orchestrator run PATH\ncost " in said


def test_what_a_run_costs_is_told_service_by_service_and_each_line_of_the_bill_on_request(bucket, capsys):
    assert main(["status", "failed"]) == 1
    short = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cost "))
    services = ("storage", "Pub/Sub", "Cloud Tasks", "requests", "time")
    assert all(f"{name} $0" in short for name in services)
    assert main(["status", "failed", "--cost"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert short in lines
    bill = [line[2:15].strip() for line in lines[lines.index(short) + 1 : -1]]
    assert [name for name in bill if name] == list(services)
    assert lines[-1].startswith("  at list prices of 20")


def test_the_run_document_alone_is_written_as_json_whatever_it_costs(bucket, capsys):
    assert main(["status", "completed", "--json", "--cost"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((bucket / "completed.json").read_text())


def test_a_run_that_has_not_ended_is_0_and_says_how_it_could_be_finished(bucket, capsys):
    assert main(["status", "left"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5].startswith("Running for ")
    assert lines[-1] == "  orchestrator run PATH --resume left"
    main(["status", "left", "--bucket", "file://.orchestrator"])
    assert capsys.readouterr().out.endswith("--resume left --bucket file://.orchestrator\n")


@pytest.fixture(params=["America/New_York", "Asia/Tokyo"])
def zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    "at", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-14:00"]
)
def test_a_time_that_this_zone_does_not_have_is_shown_as_it_stands_and_no_fault_of_ours(bucket, zone, at, capsys):
    document = json.loads((bucket / "left.json").read_text())
    document["$run"]["started_at"] = at
    document["A"] |= {"started_at": at, "ended_at": at}
    document["B"] |= {"node_type": "Wait", "started_at": at, "due": {"wait": at}}
    (bucket / "left.json").write_text(json.dumps(document))
    for argv in (
        ["runs"],
        ["runs", "--json"],
        ["runs", "--since", "1d"],
        ["status", "left", "--cost"],
        ["graph", "left"],
    ):
        assert (main(argv), capsys.readouterr().err) == (0, ""), argv
    assert main(["status", "left", "--verbose"]) == 0
    shown = capsys.readouterr().out
    zone_has_it = (zone == "Asia/Tokyo") == at.startswith("0001")
    if at.endswith("Z") and not zone_has_it:
        assert f"Wait until {at.removesuffix('Z').replace('T', ' ').lstrip('0')} UTC" in shown


@pytest.mark.parametrize(("run_id", "code"), [("completed", 0), ("failed", 1), ("left", 0)])
def test_json_is_the_document(bucket, capsys, run_id, code):
    assert main(["status", run_id, "--json"]) == code
    assert json.loads(capsys.readouterr().out) == json.loads((bucket / f"{run_id}.json").read_text())


@pytest.mark.parametrize(
    ("run_id", "hint"),
    [
        pytest.param("complete", "did you mean completed?", id="part of one"),
        pytest.param("faild", "did you mean failed?", id="misspelt"),
        pytest.param("../../etc/passwd", "the last one there is left", id="no run id at all"),
        pytest.param("", "the last one there is left", id="empty"),
    ],
)
def test_a_run_that_does_not_exist_is_2(bucket, capsys, run_id, hint):
    assert main(["status", run_id]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"orchestrator: run {run_id}: there is no such run in file://.orchestrator; {hint}\n"


@pytest.mark.parametrize(
    "content", [pytest.param("{", id="no JSON"), pytest.param("{}", id="no run"), pytest.param("\0\0", id="zeros")]
)
def test_a_document_that_is_spoilt_is_2_and_named(bucket, capsys, content):
    (bucket / "completed.json").write_text(content)
    for argv in (["status", "completed"], ["status", "completed", "--json"], ["run", "good", "--resume", "completed"]):
        assert main(argv) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("orchestrator: runs/completed.json: ")


@pytest.mark.parametrize("argv", [["status", "x"], ["runs"], ["run", "good", "--resume", "x"]])
def test_a_directory_that_does_not_exist_is_2_and_is_not_made(place, capsys, argv):
    place.dag("good", {"A": place.task("echo")})
    assert main([*argv, "--bucket", "file://nowhere"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("orchestrator: bucket file://nowhere: nowhere: there is no such directory")
    assert not (place.root / "nowhere").exists()


def test_a_bucket_that_is_a_file_or_lives_in_memory_is_2(place, capsys):
    (place.root / "file").touch()
    assert main(["runs", "--bucket", "file://file"]) == 2
    assert "file: is no directory" in capsys.readouterr().err
    assert main(["runs", "--bucket", "memory://"]) == 2
    assert "bucket memory://: is empty" in capsys.readouterr().err


def test_looking_writes_nothing(bucket, capsys):
    before = sorted(bucket.parent.rglob("*"))
    for argv in (["status", "completed"], ["runs"], ["status", "left", "--json"]):
        main(argv)
    assert sorted(bucket.parent.rglob("*")) == before


def test_watching_goes_on_until_the_end(bucket, capsys):
    ended = (bucket / "completed.json").read_text().replace('"run_id":"completed"', '"run_id":"left"')

    def end():
        (bucket / "new").write_text(ended)
        shutil.move(bucket / "new", bucket / "left.json")

    Timer(0.3, end).start()
    assert main(["status", "left", "--watch", "--interval", "50ms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split()[1:3] == ["B", "Completed"] for line in lines)
    assert any(line.startswith("Completed in") for line in lines)


def test_watching_with_json_waits_and_then_writes_one_document(bucket, capsys):
    ended = (bucket / "failed.json").read_text().replace('"run_id":"failed"', '"run_id":"left"')
    Timer(0.2, lambda: (bucket / "left.json").write_text(ended)).start()
    assert main(["status", "left", "--watch", "--json", "--interval", "50ms"]) == 1
    assert json.loads(capsys.readouterr().out)["$run"]["status"] == "Failed"


# -- runs ------------------------------------------------------------------------------------------------


def head(run_id, started_at, dag="d", status="Completed"):
    run = {"format": 1, "run_id": run_id, "dag": dag, "definition": "sha256:0", "status": status, "input": {}}
    return json.dumps({"$run": run | {"started_at": started_at}})


@pytest.fixture
def many(place):
    runs = place.root / ".orchestrator" / "runs"
    runs.mkdir(parents=True)
    for second in range(5):
        run_id = f"run_{1767268800 + second}_00000000000{second}"
        (runs / f"{run_id}.json").write_text(
            head(run_id, f"2026-01-01T12:00:0{second}Z", "even" if second % 2 == 0 else "odd")
        )
    (runs / "mine.json").write_text(head("mine", "2026-01-01T12:00:02.5Z"))
    return runs


def ids(capsys):
    return [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]


def test_runs_come_newest_first_whatever_their_ids(many, capsys):
    assert main(["runs"]) == 0
    assert [each[-1] for each in ids(capsys)] == ["4", "3", "e", "2", "1", "0"]
    assert main(["runs", "--limit", "3"]) == 0
    assert [each[-1] for each in ids(capsys)] == ["4", "3", "e"]
    assert main(["runs", "--dag", "odd"]) == 0
    assert [each[-1] for each in ids(capsys)] == ["3", "1"]


def test_a_run_for_a_time_long_ago_that_has_not_ended_is_among_the_newest(many, capsys):
    backfilled = "run_1700000000_00000000000b"
    (many / f"{backfilled}.json").write_text(head(backfilled, "2026-01-01T12:00:03.5Z", status="Running"))
    (many.parent / "open").mkdir()
    (many.parent / "open" / backfilled).write_text("")
    assert main(["runs", "--limit", "3"]) == 0
    assert [each[-1] for each in ids(capsys)] == ["4", "b", "3"]


@pytest.mark.parametrize("argv", [["--limit", "3"], ["--limit", "20", "--since", "2d"], ["--limit", "1", "--dag", "b"]])
def test_a_finished_run_for_a_time_long_ago_is_where_it_began(many, argv, capsys, monkeypatch):
    backfilled = "run_1700000000_00000000000b"
    (many / f"{backfilled}.json").write_text(head(backfilled, "2026-01-01T12:00:03.5Z", "b"))
    old = "run_1700000000_00000000000c"
    (many / f"{old}.json").write_text(head(old, "2023-11-14T22:13:20Z", "b"))
    os.utime(many / f"{old}.json", (1700000000, 1700000000))

    class Now(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2, tzinfo=tz)

    monkeypatch.setattr(main_module, "datetime", Now)
    assert main(["runs", *argv]) == 0
    expected = ["b"] if "b" in argv else ["4", "b", "3"] if "3" in argv else ["4", "b", "3", "e", "2", "1", "0"]
    assert [each[-1] for each in ids(capsys)] == expected


def test_a_corrupt_document_is_a_row_that_says_so(many, capsys):
    (many / "run_1767268803_000000000003.json").write_text("{")
    (many / "chosen.json").write_text(head("other", "2026-01-01T12:00:00Z"))
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert lines[0].startswith("chosen                       corrupt: runs/chosen.json says that it is run other")
    assert lines[2].startswith("run_1767268803_000000000003  corrupt: runs/run_1767268803_000000000003.json is not")
    assert len(lines) == 7


def test_a_time_without_its_offset_makes_its_document_corrupt_and_no_fault_of_ours(many, capsys):
    (many / "naive.json").write_text(head("naive", "2026-01-01T12:00:01"))
    assert main(["runs"]) == 0
    said = capsys.readouterr()
    assert "naive                        corrupt: runs/naive.json is not a run document" in said.out
    assert len(said.out.splitlines()) == 8
    for more in ((), ("--cost",)):
        assert main(["status", "naive", *more]) == 2
        assert "runs/naive.json: is not a run document" in capsys.readouterr().err


def test_the_cost_of_a_run_whose_clock_is_ahead_is_not_below_that_of_its_start(many, capsys):
    (many / "ahead.json").write_text(head("ahead", "2999-01-01T12:00:00Z", status="Running"))
    assert main(["status", "ahead", "--cost"]) == 0
    assert "  -" not in capsys.readouterr().out.partition("cost")[2]


def test_runs_as_json(many, capsys):
    (many / "mine.json").write_text("")
    assert main(["runs", "--json", "--limit", "2"]) == 0
    mine, newest = json.loads(capsys.readouterr().out)
    assert mine["run_id"] == "mine"
    assert mine["error"].startswith("corrupt: runs/mine.json is not a run document")
    assert newest == {
        "run_id": "run_1767268804_000000000004",
        "dag": "even",
        "status": "Completed",
        "started_at": "2026-01-01T12:00:04Z",
        "ended_at": None,
        "owner": None,
        "tags": [],
        "is_late": False,
        "parent": None,
        "priority": 0,
        "queued_at": None,
    }


def test_no_runs_are_said_to_be_none(place, capsys):
    (place.root / ".orchestrator").mkdir()
    assert main(["runs"]) == 0
    assert main(["runs", "--dag", "x"]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "no runs in file://.orchestrator\nno runs of x in file://.orchestrator\n")
    assert main(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_files_that_are_no_runs_are_passed_over(many, capsys):
    (many / "note.txt").write_text("x")
    (many / "a b.json").write_text("x")
    (many / "folder.json").mkdir()
    assert main(["runs"]) == 0
    assert len(ids(capsys)) == 6


def test_a_run_that_never_comes_is_looked_for_ever_more_rarely_and_other_runs_are_listed_once(
    place, monkeypatch, capsys
):
    now = [0.0]
    monkeypatch.setattr(status_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(status_module, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    with StorageServer(buckets=["state"]) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        for number in range(5):
            server.write("state", f"runs/run_160000000{number}_abcdefabcdef.json", b"{}")
        before = len(server.calls)
        wanted = "run_1600000009_abcdefabcdef"
        assert main(["status", wanted, "--watch", "--bucket", "gs://state"]) == 2
        calls = Counter(call.kind for call in server.calls[before:])
    assert now[0] == pytest.approx(10.0)
    assert calls == {"read": 7, "list": 1}
    assert "did you mean run_160000000" in capsys.readouterr().err
