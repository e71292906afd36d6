"""LocalCloudFunction beyond the port: the request, the servers, and what survives a kill."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.targets import workers
from orchestrator.targets.cloud_function_log import execution_id_of
from orchestrator.targets.local_cloud_function import LocalCloudFunction
from tests.support.local_targets import NONCE, RUN_ID, is_work_alive, tally_of, until, write_sources

SOURCE = """
import json, os, sys, time

def main(request):
    wanted = request.get_json()
    print("at work", wanted)
    if "answer" in wanted:
        return tuple(wanted["answer"])
    if "raise" in wanted:
        raise ValueError(wanted["raise"])
    if "exit" in wanted:
        sys.exit(wanted["exit"])
    if "die" in wanted:
        os._exit(wanted["die"]) if wanted["die"] else os.kill(os.getpid(), 9)
    if "meet" in wanted:
        mine, other = wanted["meet"]
        open(mine, "w").close()
        while not os.path.exists(other):
            time.sleep(0.005)
    return {"pid": os.getpid(), "cwd": os.getcwd(), "input": sys.stdin.read(), "environment": os.environ["K_SERVICE"]}

def show(request):
    return {
        "method": request.method, "path": request.full_path, "body": request.get_data(as_text=True),
        "headers": dict(request.headers),
    }
"""


class Caller:
    def __init__(self, folder: Path, **options) -> None:
        self.folder, self.events = folder, SimpleQueue()
        self.target = LocalCloudFunction({"sample": folder}, self.events.put, folder / "attempts", **options)
        self._number = 0

    def launch_of(self, target_name="orch_test_1", function=None, **parameters) -> Launch:
        self._number += 1
        step = {"function": function} if function else {}
        return Launch(
            f"Step{self._number}", "CloudFunction", target_name, parameters, step, "sample", RUN_ID, nonce=NONCE
        )

    def run(self, launch: Launch) -> Outcome:
        execution = self.target.launch(launch)
        self.events.get(timeout=20)
        return self.target.outcome(execution)


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    write(folder, "orch_test_1", SOURCE)
    caller = Caller(folder)
    yield caller
    caller.target.close()


def write(folder: Path, name: str, source: str) -> None:
    (folder / "functions" / name).mkdir(parents=True, exist_ok=True)
    (folder / "functions" / name / "main.py").write_text(source)


def test_a_function_gets_the_request_that_it_gets_in_the_cloud(caller):
    launch = caller.launch_of(function="show", day="2026-11-20", rows=[1, None])
    request = caller.run(launch).result
    headers = request.pop("headers")
    span = headers.pop("Traceparent").removeprefix(f"00-{launch.trace_id}-").removesuffix("-01")
    assert len(span) == 16
    assert int(span, 16) > 0
    assert request == {
        "method": "POST",
        "path": f"/?orchestrator_launch={RUN_ID}%2F{launch.node_name}%2F1&orchestrator_nonce={NONCE}",
        "body": '{"day":"2026-11-20","rows":[1,null]}',
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "Google-Cloud-Tasks"
    assert headers["Function-Execution-Id"] == execution_id_of(launch.key)


def test_the_log_entry_has_the_clouds_url_and_times(caller):
    launch = caller.launch_of()
    caller.target.launch(launch)
    entry = caller.events.get(timeout=20)
    assert entry["httpRequest"]["requestUrl"] == (
        "https://local-local-project.cloudfunctions.net/orch_test_1"
        f"?orchestrator_launch={RUN_ID}%2F{launch.node_name}%2F1&orchestrator_nonce={NONCE}"
    )
    assert entry["resource"]["labels"]["service_name"] == "orch-test-1"
    assert entry["trace"] == f"projects/local-project/traces/{launch.trace_id}"
    assert entry["timestamp"] < entry["receiveTimestamp"]
    assert float(entry["httpRequest"]["latency"].removesuffix("s")) > 0


def test_one_server_a_function_is_used_again_and_sees_no_input_of_ours(caller):
    one, other = (caller.run(caller.launch_of()).result for _ in range(2))
    assert one == other
    assert one["pid"] != os.getpid()
    assert one == {"pid": one["pid"], "cwd": os.getcwd(), "input": "", "environment": "orch_test_1"}


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        pytest.param(['{"rows": 3}', 200], {"rows": 3}, id="JSON"),
        pytest.param(["OK", 200], "OK", id="text"),
        pytest.param(["", 204], None, id="nothing"),
        pytest.param(["null", 201], None, id="a null"),
        pytest.param(['{"rows": NaN}', 200], '{"rows": NaN}', id="what only looks like JSON is text"),
    ],
)
def test_what_a_2xx_answer_holds_is_the_result(caller, answer, result):
    assert caller.run(caller.launch_of(answer=answer)) == Outcome.completed(result)


@pytest.mark.parametrize("levels", [101, 100_000])
def test_a_result_too_deep_for_a_run_document_is_a_bad_one(caller, levels):
    outcome = caller.run(caller.launch_of(answer=["[" * levels + "]" * levels, 200]))
    assert outcome.error.error_type == "Task.BadResult"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        pytest.param({"raise": "no rows\nat all: é"}, "HTTP 500: ValueError: no rows\nat all: é", id="an exception"),
        pytest.param({"exit": 3}, "HTTP 500: SystemExit: 3", id="sys.exit"),
        pytest.param({"answer": ["no such\n day", 404]}, "HTTP 404: no such day", id="another status with a text"),
        pytest.param({"answer": ["", 503]}, "HTTP 503: SERVICE UNAVAILABLE", id="another status without"),
        pytest.param({"answer": ["busy", 500]}, "HTTP 500: busy", id="a 500 of the function's own"),
        pytest.param({"answer": ["", 302]}, "HTTP 302: FOUND", id="nobody follows a redirect"),
    ],
)
def test_any_other_answer_is_a_failure_with_words(caller, parameters, words):
    launch = caller.launch_of(**parameters)
    outcome = caller.run(launch)
    log = caller.folder / "attempts" / launch.key / "log.txt"
    assert outcome == Outcome.failed("Task.Failed", f"{words}; log: {log}")
    assert log.read_text().startswith("at work {")


def test_calls_run_side_by_side_and_each_writes_to_the_log_of_its_own_attempt(caller, tmp_path):
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    launches = [caller.launch_of(meet=paths), caller.launch_of(meet=paths[::-1])]
    for launch in launches:
        caller.target.launch(launch)
    for _ in launches:
        caller.events.get(timeout=20)
    logs = [(caller.folder / "attempts" / launch.key / "log.txt").read_text() for launch in launches]
    assert logs == [f"at work {{'meet': {paths}}}\n", f"at work {{'meet': {paths[::-1]}}}\n"]


@pytest.mark.parametrize(
    ("die", "how"),
    [
        pytest.param(7, "exited with 7", id="os._exit"),
        pytest.param(0, "was killed by SIGKILL (out of memory?)", id="killed"),
    ],
)
def test_after_a_crash_of_the_server_the_next_launch_gets_a_new_one(caller, die, how):
    launch = caller.launch_of(die=die)
    outcome = caller.run(launch)
    log = caller.folder / "attempts" / launch.key / "log.txt"
    source = caller.folder / "functions/orch_test_1/main.py"
    assert outcome == Outcome.failed("Task.Crashed", f"{source}: its process {how}; log: {log}")
    assert caller.run(caller.launch_of()).kind is OutcomeKind.COMPLETED


def test_a_server_that_died_while_idle_is_replaced(caller):
    pid = caller.run(caller.launch_of()).result["pid"]
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # the kill takes its time; it is the child of this process
    assert caller.run(caller.launch_of()).result["pid"] != pid


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", id="import"),
        pytest.param("def main(request)\n", "SyntaxError: expected ':'", id="syntax"),
        pytest.param("import sys; sys.exit('no luck')", "no luck", id="leaves"),
        pytest.param("def other(request): pass", "MissingTargetException: ", id="without the entry point"),
        pytest.param(
            "import functions_framework.aio as ff\n@ff.http\nasync def main(request): return 'x'",
            "main is asynchronous; only functions of the form f(request) run here",
            id="asynchronous",
        ),
    ],
)
def test_a_source_that_cannot_be_loaded_fails_the_attempt_with_its_last_words(caller, source, words):
    write(caller.folder, "broken", source)
    outcome = caller.run(caller.launch_of("broken"))
    assert outcome.error.error_type == "CloudFunction.LoadError"
    assert words in outcome.error.message
    assert outcome.error.message.startswith(f"{caller.folder}/functions/broken/main.py: cannot be loaded: ")


def test_a_source_that_was_mended_is_loaded_at_the_next_launch(caller):
    write(caller.folder, "mended", "import no_such_module")
    assert caller.run(caller.launch_of("mended")).error.error_type == "CloudFunction.LoadError"
    write(caller.folder, "mended", "def main(request): return 'fine'")
    assert caller.run(caller.launch_of("mended")) == Outcome.completed("fine")


@pytest.mark.parametrize("name", ["no_such", "..", ".", "orch_test_1/../orch_test_1", "", "a\0b"])
def test_a_launch_never_leads_out_of_the_functions_folder(caller, name):
    with pytest.raises(LaunchRefused, match=r"there is no such file; functions that exist: .*orch_test_1"):
        caller.target.launch(caller.launch_of(name))


def test_a_dag_without_a_folder_is_refused(caller):
    launch = Launch("A", "CloudFunction", "orch_test_1", dag="other", run_id=RUN_ID, nonce=NONCE)
    with pytest.raises(LaunchRefused, match="the DAG other has no folder with functions; those with one: sample"):
        caller.target.launch(launch)


# ---- several processes, and their ends --------------------------------------------------------------------


def test_two_targets_that_launch_one_key_at_once_call_the_function_once(tmp_path):
    write_sources(tmp_path)
    one, other = Caller(tmp_path / "sample"), Caller(tmp_path / "sample")
    gate = tmp_path / "gate"
    launch = one.launch_of(tally=str(tmp_path / "tally"), gate=str(gate))
    execution = one.target.launch(launch)
    assert other.target.launch(launch) == execution
    assert other.target.find(launch) == execution
    assert until(lambda: tally_of(launch) == 1)
    assert other.target.outcome(execution) is None
    gate.touch()
    one.events.get(timeout=20)
    assert other.target.outcome(execution) == Outcome.completed({"rows": 3})
    assert other.events.empty()
    assert tally_of(launch) == 1
    for caller in (one, other):
        caller.target.close()


def test_closing_stops_what_runs_and_it_is_lost_not_failed(tmp_path):
    write_sources(tmp_path)
    caller = Caller(tmp_path / "sample")
    launch = caller.launch_of(tally=str(tmp_path / "tally"), gate=str(tmp_path / "never"))
    execution = caller.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    caller.target.close()  # does not return, if it waits for the gate
    assert until(lambda: not is_work_alive(launch))
    assert caller.target.outcome(execution).kind is OutcomeKind.LOST
    assert caller.events.empty()
    with pytest.raises(LaunchUncertain):
        caller.target.launch(caller.launch_of())


def test_a_call_that_no_thread_can_be_had_for_is_lost_and_never_made(tmp_path, monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    write_sources(tmp_path)
    caller = Caller(tmp_path / "sample")
    launch = caller.launch_of(tally=str(tmp_path / "tally"))
    with monkeypatch.context() as machine:
        machine.setattr(workers.Thread, "start", refused)
        with pytest.raises(LaunchUncertain, match="no thread"):
            caller.target.launch(launch)
    assert caller.target.outcome(caller.target.find(launch)).kind is OutcomeKind.LOST
    assert caller.run(caller.launch_of(tally=str(tmp_path / "other"))) == Outcome.completed({"rows": 3})
    assert not (tmp_path / "tally").exists()
    caller.target.close()


ORCHESTRATOR = """
import json, os, sys, time
from pathlib import Path
from orchestrator.model.commands import Launch
from orchestrator.targets.local_cloud_function import LocalCloudFunction

folder, parameters = Path(sys.argv[1]), json.loads(sys.argv[2])
target = LocalCloudFunction({"sample": folder}, lambda event: os.kill(os.getpid(), 9), folder / "attempts")
target.launch(Launch("Step1", "CloudFunction", "orch_test_1", parameters, {}, "sample", sys.argv[3], nonce="n"))
time.sleep(600)
"""


def start_orchestrator(folder: Path, parameters) -> subprocess.Popen:
    """Start a process that launches once, and dies by kill -9 when it is to tell the end."""
    return subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, str(folder), json.dumps(parameters), RUN_ID])


def test_a_server_dies_with_a_killed_orchestrator_and_the_launch_can_be_made_again(tmp_path):
    write_sources(tmp_path)
    gate = tmp_path / "gate"
    parameters = {"tally": str(tmp_path / "tally"), "gate": str(gate)}
    launch = Launch("Step1", "CloudFunction", "orch_test_1", parameters, {}, "sample", RUN_ID, nonce="n")
    caller = Caller(tmp_path / "sample")
    orchestrator = start_orchestrator(tmp_path / "sample", parameters)
    assert until(lambda: tally_of(launch) == 1)
    execution = caller.target.find(launch)
    assert caller.target.outcome(execution) is None
    orchestrator.kill()
    orchestrator.wait()
    assert until(lambda: not is_work_alive(launch), 5)
    assert caller.target.outcome(execution).kind is OutcomeKind.LOST
    assert caller.target.find(launch) is None
    gate.touch()
    assert caller.run(launch) == Outcome.completed({"rows": 3})
    assert caller.target.find(launch) == execution
    assert tally_of(launch) == 2
    caller.target.close()


def test_what_ended_and_was_never_told_is_found_with_its_outcome(tmp_path):
    write_sources(tmp_path)
    parameters = {"tally": str(tmp_path / "tally")}
    launch = Launch("Step1", "CloudFunction", "orch_test_1", parameters, {}, "sample", RUN_ID, nonce="n")
    orchestrator = start_orchestrator(tmp_path / "sample", parameters)
    assert orchestrator.wait(20) == -signal.SIGKILL
    caller = Caller(tmp_path / "sample")
    execution = caller.target.find(launch)
    assert caller.target.outcome(execution) == Outcome.completed({"rows": 3})
    assert caller.target.launch(launch) == execution
    assert tally_of(launch) == 1
    caller.target.close()


def test_a_call_that_waits_for_a_worker_can_be_taken_back_and_one_that_runs_cannot(tmp_path):
    write(tmp_path, "orch_test_1", SOURCE)
    caller, mine, other = Caller(tmp_path, workers=1), tmp_path / "mine", tmp_path / "other"
    first = caller.launch_of(meet=[str(mine), str(other)])
    second = caller.launch_of(meet=[str(tmp_path / "never"), str(other)])
    caller.target.launch(first)
    execution = caller.target.launch(second)
    assert until(mine.exists, 20)
    assert [caller.target.withdraw(launch) for launch in (first, second, second)] == [False, True, False]
    assert caller.target.outcome(execution).kind is OutcomeKind.CANCELLED
    other.touch()
    assert first.launch_id.replace("/", "%2F") in json.dumps(caller.events.get(timeout=20))
    assert caller.target.launch(second) == execution, "it is known, and not begun again"
    assert caller.run(caller.launch_of()).kind is OutcomeKind.COMPLETED
    assert not (tmp_path / "never").exists()
    caller.target.close()
