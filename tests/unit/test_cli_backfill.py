"""`orchestrator backfill`: a run for each time of a while that has none, once, however often it is called."""

import json
import signal
import sys
from datetime import UTC, datetime

import pytest

from orchestrator.cli.backfill import MOST_TIMES, Wanted, backfill
from orchestrator.cli.console import Console
from orchestrator.cli.main import main
from orchestrator.model.errors import BrokerUnavailable, InputError
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.settings import Settings
from orchestrator.stores.memory import MemoryStore
from tests.support.command_line import Place, clean_environment, until
from tests.support.world import KeptBroker, World

WHILE = ("--from", "2026-01-01", "--to", "2026-01-04")
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    for name in ("EVENTS_TOPIC", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    place = Place(tmp_path)
    daily(place, {"type": "Pass", "result": "${run.scheduled_for}"})
    return place


def daily(place, step, **keys):
    folder = place.dag("d", {"A": step})
    definition = json.loads((folder / "dag.json").read_text())
    schedule = {"schedule": "0 6 * * *", "time_zone": "Europe/Berlin"}
    (folder / "dag.json").write_text(json.dumps({**definition, **schedule, **keys}))


def runs(place):
    """(time, status) of all runs, as their documents have them, in the order of their starts."""
    found = [place.document(run_id)["$run"] for run_id in place.run_ids()]
    return [(run["scheduled_for"], run["status"]) for run in sorted(found, key=lambda run: run["started_at"])]


def told(capsys):
    return json.loads(capsys.readouterr().out)["runs"]


def test_each_time_of_the_while_has_a_run(place, capsys):
    assert main(["backfill", "d", *WHILE]) == 0
    assert runs(place) == [(f"{day}T05:00:00Z", "Completed") for day in DAYS]
    assert capsys.readouterr().out.endswith("3 runs of d Completed, 0 did not, 0 left alone\n")


def test_the_status_of_a_run_says_for_when_it_is(place, capsys):
    main(["backfill", "d", *WHILE])
    capsys.readouterr()
    assert main(["status", place.run_ids()[0]]) == 0
    assert "scheduled for: 2026-01-01 05:00:00 UTC" in capsys.readouterr().out


def test_what_is_there_is_left_alone_whoever_started_it(place, capsys):
    world = World({"d": json.loads((place.root / "d" / "dag.json").read_text())})
    by_scheduler = world.executor.execute(
        {"resource": {"type": "start"}, "dag": "d", "schedule": "0 6 * * *", "time_zone": "Europe/Berlin"},
        message_id="m1",
        publish_time=datetime(2026, 1, 2, 5, 0, 3, tzinfo=UTC),
    ).run_id
    main(["backfill", "d", *WHILE])
    assert by_scheduler in place.run_ids()
    capsys.readouterr()
    assert main(["backfill", "d", *WHILE, "--json"]) == 0
    assert [(row["action"], row["status"]) for row in told(capsys)] == [("leave", "Completed")] * 3
    assert len(runs(place)) == 3


def test_the_latest_first(place):
    assert main(["backfill", "d", *WHILE, "--reverse", "--max-active", "1"]) == 0
    assert [at for at, _ in runs(place)] == [f"{day}T05:00:00Z" for day in reversed(DAYS)]


def test_another_interval_than_the_schedules(place):
    assert (
        main(["backfill", "d", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T12:00:00Z", "--every", "6h"]) == 0
    )
    assert [at for at, _ in runs(place)] == ["2026-01-01T00:00:00Z", "2026-01-01T06:00:00Z"]


def test_an_input_for_all(place):
    daily(place, {"type": "Pass", "result": "${run.input.shop + 1}"})
    assert main(["backfill", "d", *WHILE, "--input", "shop=7"]) == 0
    assert [place.document(run_id)["A"]["result"] for run_id in place.run_ids()] == [8] * 3


def test_a_dry_run_makes_nothing(place, capsys):
    assert main(["backfill", "d", *WHILE, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == DAYS
    assert lines[3] == "3 runs to start, 0 left alone; nothing was done"
    assert not (place.root / ".orchestrator").exists()


def test_so_many_run_at_once(place):
    daily(place, place.task("wait_for", name="A", path="go"))
    process = place.start("backfill", "d", "--from", "2026-01-01", "--to", "2026-01-10", "--max-active", "2")
    until(lambda: len(place.calls()) == 2)
    assert len(place.run_ids()) == 2
    (place.root / "go").touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert "9 runs of d Completed" in out
    assert len(place.calls()) == 9


def test_what_waits_for_its_turn_is_queued_and_then_begins_and_child_runs_are_not_told(place, capsys):
    daily(place, {"type": "Task", "target_type": "Dag", "target_name": "kid"}, max_active_runs=1)
    place.dag("kid", {"B": {"type": "Wait", "for": "500ms"}})
    assert main(["backfill", "d", "--from", "2026-01-01", "--to", "2026-01-03"]) == 0
    said = capsys.readouterr().out
    words = [line.split()[-1] for line in said.splitlines()[:-1]]
    assert sorted(words) == ["Completed"] * 2 + ["begins"] * 2 + ["queued"] * 2
    assert words.index("Completed") < max(index for index, word in enumerate(words) if word == "begins")
    assert " of kid" not in said
    assert said.endswith("2 runs of d Completed, 0 did not, 0 left alone\n")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_one_goes_on_and_does_nothing_twice_that_was_done(place, signum):
    daily(place, place.task("wait_for", name="A", path="go"))
    first = place.start("backfill", "d", *WHILE, "--max-active", "1")
    until(lambda: len(place.calls()) == 1)
    first.send_signal(signum)
    _, err = first.communicate(timeout=30)
    if signum == signal.SIGINT:
        assert first.returncode == 130
        again = "orchestrator backfill d --from 2026-01-01 --to 2026-01-04 --max-active 1"
        assert err == f"interrupted; go on with: {again}\n"
    (place.root / "go").touch()
    process = place.start("backfill", "d", *WHILE)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "3 runs of d Completed, 0 did not, 0 left alone" in out
    assert len(runs(place)) == 3


def test_what_failed_is_run_again_if_asked_and_only_that(place, capsys):
    daily(place, {"type": "Pass", "result": "${10 / run.input.by}"})
    assert main(["backfill", "d", "--from", "2026-01-01", "--to", "2026-01-02", "--input", "by=5"]) == 0
    assert main(["backfill", "d", *WHILE, "--input", "by=0"]) == 1
    said = capsys.readouterr()
    assert said.out.endswith("0 runs of d Completed, 2 did not, 1 left alone\n")
    assert said.err.endswith("run what failed again with: --rerun failed\n")
    for by, code, actions in (
        (0, 1, ["leave", "rerun", "rerun"]),
        (2, 0, ["leave", "rerun", "rerun"]),
        (2, 0, ["leave"] * 3),
    ):
        assert main(["backfill", "d", *WHILE, "--rerun", "failed", "--input", f"by={by}", "--json"]) == code
        rows = told(capsys)
        assert [row["action"] for row in rows] == actions
    assert rows[1]["run_id"].endswith("-r3")
    assert len(place.run_ids()) == 7
    assert place.document(rows[1]["run_id"])["$run"]["scheduled_for"] == "2026-01-02T05:00:00Z"


def test_all_are_run_again_if_asked_but_not_what_was_since(place, capsys):
    main(["backfill", "d", *WHILE])
    capsys.readouterr()
    since = datetime.now(UTC).isoformat()
    assert main(["backfill", "d", *WHILE, "--rerun", "all", "--json"]) == 0
    assert [row["action"] for row in told(capsys)] == ["rerun"] * 3
    assert main(["backfill", "d", *WHILE, "--rerun", "all", "--since", since, "--json"]) == 0
    assert [row["action"] for row in told(capsys)] == ["leave"] * 3


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--from", "yesterday", "--to", "2026-01-02"], '--from "yesterday" is no time; write a day'),
        (["--from", "2026-01-01T06:00", "--to", "2026-01-02"], '--from "2026-01-01T06:00" is no time'),
        (["--from", "2026-01-02", "--to", "2026-01-02"], "is not later than --from"),
        (["--from", "2999-01-01", "--to", "2999-01-02"], "no time of d has come"),
        (["--from", "0001-01-01", "--to", "2026-01-02"], "is out of range"),
        ([*WHILE, "--every", "500ms"], "has to be whole seconds"),
        (["--from", "2020-01-01", "--to", "2026-01-01", "--every", "1m"], f"more than {MOST_TIMES:,} times"),
        ([*WHILE, "--topic", "projects/p/topics/t", "--max-active", "3"], "--max-active: bounds runs on this machine"),
        ([*WHILE, "--topic", "projects/p/topics/t", "--rerun", "all"], "name where they are by --bucket"),
        ([*WHILE, "--bucket", "redis://127.0.0.1:1/0"], "Redis"),
        ([*WHILE, "--input", "nowhere.json"], "there is no such file"),
    ],
)
def test_what_is_wrong_is_said(place, capsys, argv, problem):
    assert main(["backfill", "d", *argv]) == 2
    assert problem in capsys.readouterr().err
    assert place.run_ids() == []


def test_a_dag_without_a_schedule_needs_an_interval(place, capsys):
    place.dag("e", {"A": {"type": "Pass", "result": 1}})
    assert main(["backfill", "e", *WHILE]) == 2
    assert 'e has no "schedule"; say how often by --every' in capsys.readouterr().err
    assert main(["backfill", "e", *WHILE, "--every", "1d"]) == 0


def test_an_input_that_the_schema_refuses_starts_nothing(place, capsys):
    daily(place, {"type": "Pass", "result": 1}, input_schema={"required": ["day"]})
    assert main(["backfill", "d", *WHILE]) == 2
    assert "'day' is a required property" in capsys.readouterr().err


# -- in the cloud -----------------------------------------------------------------------------------------------


def in_the_cloud(place, monkeypatch, store, broker, **wanted):
    monkeypatch.setattr("orchestrator.cli.backfill.open_store", lambda _: store)
    asked = Wanted(
        place.root / "d",
        "2026-01-01",
        "2026-01-04",
        **{"bucket": "gs://runs", "topic": "projects/p/topics/t", **wanted},
    )
    return backfill(Console(), asked, Settings.read({}), {}, SystemClock(), broker_of=lambda *_: broker)


def test_in_the_cloud_they_are_asked_for_by_messages_and_are_the_runs_of_their_times(place, monkeypatch, capsys):
    store, broker = MemoryStore(), KeptBroker()
    world = World({"d": json.loads((place.root / "d" / "dag.json").read_text())}, store=store)
    world.start("m1", dag="d", scheduled_for="2026-01-02T05:00:00Z")
    assert in_the_cloud(place, monkeypatch, store, broker) == 0
    assert capsys.readouterr().out == "2 runs of d asked for, 1 left alone\n"
    assert [message["scheduled_for"] for message, _ in broker.published] == [
        f"{DAYS[0]}T05:00:00Z",
        f"{DAYS[2]}T05:00:00Z",
    ]
    for number, (message, _) in enumerate(broker.published):
        world.executor.execute(message, message_id=f"m{number}", publish_time=world.clock.now())
    broker.published.clear()
    in_the_cloud(place, monkeypatch, store, broker)
    assert broker.published == []


def test_a_topic_that_cannot_be_reached_is_told(place, monkeypatch):
    class Unreachable:
        def publish(self, *_, **__):
            raise BrokerUnavailable("topic: cannot be reached")

    with pytest.raises(BrokerUnavailable) as caught:
        in_the_cloud(place, monkeypatch, MemoryStore(), Unreachable())
    assert caught.value.__notes__ == ["some may have got through; asking again does no harm"]


def test_without_a_topic_the_cloud_cannot_be_asked(place, monkeypatch):
    with pytest.raises(InputError, match="EVENTS_TOPIC is not set"):
        in_the_cloud(place, monkeypatch, MemoryStore(), KeptBroker(), topic=None)
