"""orchestrator logs: of a directory, and of Cloud Logging by a fake that reads the filters."""

import json
import sys
import time
from threading import Timer

import pytest

from orchestrator.cli.main import main
from orchestrator.model.ids import execution_id_of, key_of
from tests.support.command_line import Place, clean_environment, until
from tests.support.logging_server import LoggingServer

FUNCTION = """
import time
from pathlib import Path

def main(request):
    print("INFO: begun")
    print("\\x1b[31mred\\x1b[0m and \\x07 bell")
    gate = request.get_json().get("gate")
    while gate and not Path(gate).exists():
        time.sleep(0.02)
    print("ERROR: no such day")
    return {}
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    for name in ("GOOGLE_CLOUD_PROJECT", "EVENTS_TOPIC", "TASKS_QUEUE", "FUNCTION_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def call(place, **parameters):
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": "speak", "parameters": parameters}
    folder = place.dag("call", {"A": {**step, "next": "B"}, "B": {**step, "parameters": {}}})
    (folder / "functions" / "speak").mkdir(parents=True)
    (folder / "functions" / "speak" / "main.py").write_text(FUNCTION)


# -- a directory -----------------------------------------------------------------------------------------


def test_what_a_function_printed_is_shown_with_its_node_and_severity(place, capsys):
    call(place)
    assert main(["run", "call", "--run-id", "mine"]) == 0
    capsys.readouterr()
    assert main(["logs", "mine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    mine = ["INFO     {} INFO: begun", r"         {} red and \x07 bell", "ERROR    {} ERROR: no such day"]
    assert lines == [line.format(node) for node in "AB" for line in mine]
    assert main(["logs", "mine", "B", "--attempt", "1", "--json"]) == 0
    assert [(said["node"], said["attempt"], said["severity"]) for said in json.loads(capsys.readouterr().out)] == [
        ("B", 1, "INFO"),
        ("B", 1, "DEFAULT"),
        ("B", 1, "ERROR"),
    ]


def test_only_the_last_lines_are_shown_and_that_is_said(place, capsys):
    call(place)
    main(["run", "call", "--run-id", "mine"])
    capsys.readouterr()
    assert main(["logs", "mine", "--limit", "2"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    assert said.err == "these are the last 2 lines; --limit N shows more\n"


def test_following_shows_lines_as_they_come_and_ends_with_the_run(place):
    call(place, gate="go")
    run = place.start("run", "call", "--run-id", "mine")
    until(lambda: list(place.root.glob(".orchestrator/attempts/*/log.txt")), 30)
    process = place.start("logs", "mine", "--follow")
    first = process.stdout.readline()
    assert first == "INFO     A INFO: begun\n"
    assert not (place.root / "go").exists()
    (place.root / "go").touch()
    out, err = process.stdout.read(), process.stderr.read()
    assert (process.wait(30), err) == (0, "")
    assert out.splitlines()[-1] == "ERROR    B ERROR: no such day"
    assert len(out.splitlines()) == 5
    run.communicate(timeout=30)


def test_a_run_without_any_log_says_so(place, capsys):
    place.dag("quiet", {"A": place.task("echo")})
    main(["run", "quiet", "--run-id", "mine"])
    capsys.readouterr()
    assert main(["logs", "mine"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "run mine: has left no log" in said.err
    assert main(["logs", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(["nobody"], "run nobody: there is no such run in file://.orchestrator", id="no run"),
        pytest.param(["mine", "Lode"], 'run mine: there is no node "Lode"; did you mean "Load"?', id="no node"),
        pytest.param(["mine", "P"], "run mine: P is a Parallel; only Tasks have logs", id="no Task"),
        pytest.param(["mine", "Load", "--attempt", "2"], "Load has had 1 attempt, so there is none of", id="attempt"),
        pytest.param(["mine", "--attempt", "1"], "--attempt needs the NODE", id="attempt of what"),
        pytest.param(["mine", "--since", "5m"], "bear no times, so that --since says nothing", id="since"),
        pytest.param(["mine", "--json", "--follow"], "keep one of the two", id="json without an end"),
        pytest.param(["mine", "--since", "soon"], '"soon" is not a duration', id="no duration"),
    ],
)
def test_what_is_wrong_is_2(place, capsys, argv, message):
    inside = [{"start": "Load", "steps": {"Load": place.task("echo")}}]
    place.dag("d", {"P": {"type": "Parallel", "branches": inside}})
    main(["run", "d", "--run-id", "mine"])
    capsys.readouterr()
    assert main(["logs", *argv]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err


# -- Cloud Logging ---------------------------------------------------------------------------------------

RUN, TRACE, OLD_TRACE, FIRST_TRACE = "run_1_a", "a" * 32, "b" * 32, "e" * 32
INIT, LOAD = f"{RUN}/Init/2", f"{RUN}/Load/1"


def entry(second, text=None, **fields):
    at = f"2026-11-26T12:00:{second:02}.123456789Z"
    given = {"textPayload": text} if text is not None else {}
    return {"insertId": f"i{second}", "timestamp": at, "severity": "INFO", "logName": "log", **given, **fields}


def request(second, launch_id, trace, **fields):
    url = f"https://f-x.a.run.app/?orchestrator_launch={launch_id.replace('/', '%2F')}&orchestrator_nonce={'0' * 32}"
    made = {"requestMethod": "POST", "requestUrl": url, "status": 200, "latency": "0.203678286s"}
    service = {"type": "cloud_run_revision", "labels": {"service_name": "orch-test-1"}}
    return entry(second, httpRequest=made, resource=service, trace=f"projects/p/traces/{trace}", **fields)


def job_entry(second, text, key, **fields):
    labels = {"dataflow.googleapis.com/job_name": key}
    return entry(second, text, labels=labels, resource={"type": "dataflow_step", "labels": {}}, **fields)


ENTRIES = [
    entry(1, labels={"run_id": RUN, "node": "Load", "attempt": "1"}, jsonPayload={"message": "launch uncertain"}),
    request(2, f"{RUN}/Init/1", OLD_TRACE, severity="ERROR"),
    entry(3, "printed under the old trace", trace=OLD_TRACE),
    request(4, INIT, TRACE),
    entry(5, "printed under the trace", trace=f"projects/p/traces/{TRACE}"),
    entry(6, "printed with the id", labels={"execution_id": execution_id_of(key_of(INIT))}),
    job_entry(7, "Worker pool stopped.", key_of(LOAD)),
    job_entry(8, "of another run", key_of("run_2_b/Load/1")),
    request(9, "run_2_b/Init/1", "c" * 32),
    entry(
        12,
        labels={"run_id": RUN, "node": "Init", "attempt": "1"},
        jsonPayload={"message": "Init: Running, attempt 1"},
        trace=f"projects/p/traces/{FIRST_TRACE}",
    ),
    entry(13, "printed under a trace that only the orchestrator's line tells", trace=FIRST_TRACE),
    entry(10, labels={"run_id": "run_2_b"}, jsonPayload={"message": "of another run"}),
    entry(11, "nobody's", trace="projects/p/traces/" + "d" * 32),
]


@pytest.fixture
def cloud(place, monkeypatch):
    """A bucket that is no directory, with one run, and a Cloud Logging with entries of it and of others."""
    from orchestrator.cli import bucket as bucket_module
    from orchestrator.stores.memory import MemoryStore

    store = MemoryStore()
    head = {"format": 1, "run_id": RUN, "dag": "d", "definition": "sha256:0", "status": "Completed", "input": {}}
    times = {"started_at": "2026-11-26T12:00:00Z", "ended_at": "2026-11-26T12:00:09Z"}
    task = {"node_type": "Task", "status": "Completed"}
    document = {
        "$run": head | times,
        "Init": task
        | {"node_name": "Init", "target_type": "CloudFunction", "target_name": "orch-test-1", "attempt": 2}
        | {"execution_id": f"{key_of(INIT)}/{TRACE}"},
        "Load": task | {"node_name": "Load", "target_type": "Dataflow", "target_name": "load", "attempt": 1},
    }
    store.put(f"runs/{RUN}.json", json.dumps(document).encode(), expect=None)
    monkeypatch.setattr(bucket_module, "open_store", lambda url: store)
    monkeypatch.setenv("STATUS_BUCKET", "gs://state")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    entries = list(ENTRIES)
    with LoggingServer(lambda: entries) as server:
        monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING", server.url)
        server.logged = entries
        server.store = store
        yield server


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_all_that_is_logged_of_a_run_is_found_and_nothing_else(cloud, capsys):
    assert main(["logs", RUN]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-26 12:00:01.123 INFO     Load launch uncertain",
        "2026-11-26 12:00:02.123 ERROR    Init POST orch-test-1: 200 in 0.204 s",
        "2026-11-26 12:00:03.123 INFO     Init printed under the old trace",
        "2026-11-26 12:00:04.123 INFO     Init POST orch-test-1: 200 in 0.204 s",
        "2026-11-26 12:00:05.123 INFO     Init printed under the trace",
        "2026-11-26 12:00:06.123 INFO     Init printed with the id",
        "2026-11-26 12:00:07.123 INFO     Load Worker pool stopped.",
        "2026-11-26 12:00:12.123 INFO     Init Running, attempt 1",
        "2026-11-26 12:00:13.123 INFO     Init printed under a trace that only the orchestrator's line tells",
    ]
    assert cloud.resources == [["projects/p"]] * 2


def test_the_proof_in_a_calls_url_is_not_shown(cloud, capsys):
    main(["logs", RUN, "--json"])
    assert "nonce" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "seconds"),
    [
        pytest.param(["Init"], [2, 3, 4, 5, 6, 12, 13], id="a node"),
        pytest.param(["Init", "--attempt", "1"], [2, 3, 12, 13], id="an attempt"),
        pytest.param(["Init", "--attempt", "2"], [4, 5, 6], id="the last attempt"),
        pytest.param(["Load"], [1, 7], id="a job"),
        pytest.param(["--limit", "2"], [12, 13], id="the last ones"),
    ],
)
def test_what_is_asked_for_is_what_is_shown(cloud, capsys, argv, seconds):
    assert main(["logs", RUN, *argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [int(said["at"][17:19]) for said in found] == seconds


def test_since_looks_no_further_back(cloud, capsys):
    assert main(["logs", RUN, "--since", "5m"]) == 0
    assert capsys.readouterr().err == f"run {RUN}: no log entries were found\n"


def test_following_shows_what_comes_later_and_nothing_twice(cloud, capsys, monkeypatch):
    from orchestrator.cli import cloud_logs

    monkeypatch.setattr(cloud_logs.CloudLogs, "pause_s", 0.05)
    key = f"runs/{RUN}.json"
    data, version = cloud.store.get(key)
    running = json.loads(data)
    running["$run"] |= {"status": "Running", "ended_at": None}
    cloud.store.put(key, json.dumps(running).encode(), expect=version)
    late = job_entry(6, "came late", key_of(LOAD), insertId="late")  # older than what was shown, by its time

    def end():
        cloud.logged.append(late)
        cloud.store.put(key, data, expect=cloud.store.get(key)[1])

    Timer(0.3, end).start()
    assert main(["logs", RUN, "--follow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines)) == 10
    assert lines[-1].endswith("Load came late")


def test_many_pages_are_read(cloud, capsys):
    cloud.logged += [job_entry(20, f"line {n}", key_of(LOAD), insertId=f"n{n}") for n in range(2500)]
    assert main(["logs", RUN, "Load", "--limit", "2400", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2400


def test_logs_that_may_not_be_read_are_2_and_one_line(cloud, capsys):
    cloud.refuses = 403
    assert main(["logs", RUN]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "logging: entries of the run: 403: Permission denied for all log views" in said.err


def test_without_a_project_it_is_said_how_to_name_one(cloud, capsys, monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT")
    assert main(["logs", RUN]) == 2
    assert "set GOOGLE_CLOUD_PROJECT, or name the project by --project" in capsys.readouterr().err
    assert main(["logs", RUN, "--project", "p", "--json"]) == 0
    monkeypatch.setenv("EVENTS_TOPIC", "projects/told/topics/t")
    assert main(["logs", RUN, "--json"]) == 0
    assert cloud.resources[-1] == ["projects/told"]
