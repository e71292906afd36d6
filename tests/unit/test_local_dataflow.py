"""LocalDataflow beyond the port: real pipelines, their wrapper, and what survives a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue

import pytest

from orchestrator.model.commands import Launch, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.targets.local_dataflow import LocalDataflow, job_id_of
from tests.support.local_targets import NONCE, RUN_ID, is_work_alive, tally_of, until, write_sources

BEAM = """
import argparse
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

parser = argparse.ArgumentParser()
parser.add_argument("--input")
parser.add_argument("--output")
known, flags = parser.parse_known_args()
with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
    (
        pipeline
        | beam.io.ReadFromText(known.input)
        | beam.FlatMap(str.split)
        | beam.combiners.Count.PerElement()
        | beam.MapTuple(lambda word, count: f"{word} {count}")
        | beam.io.WriteToText(known.output, shard_name_template="")
    )
"""


class Caller:
    def __init__(self, folder: Path, **options) -> None:
        self.folder, self.events = folder, SimpleQueue()
        self.target = LocalDataflow({"sample": folder}, self.events.put, folder / "attempts", **options)
        self._number = 0

    def launch_of(self, target_name="orch_test_1", **parameters) -> Launch:
        self._number += 1
        return Launch(f"Step{self._number}", "Dataflow", target_name, parameters, {}, "sample", RUN_ID, nonce=NONCE)

    def written(self, source: str, **parameters) -> Launch:
        """A launch of a pipeline with this source."""
        launch = self.launch_of(f"p{self._number}", **parameters)
        (self.folder / "pipelines" / f"{launch.target_name}.py").write_text(source)
        return launch

    def run(self, launch: Launch) -> Outcome:
        execution = self.target.launch(launch)
        self.texts()
        return self.target.outcome(execution)

    def texts(self) -> list[str]:
        """Wait for the last line of a job's log; return all of them."""
        texts = []
        while texts[-1:] != ["Worker pool stopped."]:
            texts.append(self.events.get(timeout=30)["textPayload"])
        return texts

    def log(self, launch: Launch) -> Path:
        return self.folder / "attempts" / launch.key / "log.txt"


@pytest.fixture
def caller(tmp_path):
    write_sources(tmp_path)
    caller = Caller(tmp_path / "sample", grace_s=0.3)
    yield caller
    caller.target.close()


def test_a_real_beam_pipeline_runs_as_a_job(caller, tmp_path):
    (tmp_path / "words.txt").write_text("a rose is a rose\n")
    launch = caller.written(BEAM, input=str(tmp_path / "words.txt"), output=str(tmp_path / "counts.txt"))
    outcome = caller.run(launch)
    assert outcome == Outcome.completed({"job_id": job_id_of(launch), "job_name": launch.key}), caller.log(
        launch
    ).read_text()
    assert sorted((tmp_path / "counts.txt").read_text().split("\n")) == ["", "a 2", "is 1", "rose 2"]


def test_a_pipeline_gets_the_flags_that_a_templates_container_gets(caller):
    launch = caller.written(
        "import os, sys, json; print(json.dumps([sys.argv[1:], sys.stdin.read(), os.getcwd()]))",
        input="gs://b/a file*",
        count=3,
        ratio=0.5,
        deep={"a": [None]},
        on=True,
        empty="",
    )
    caller.run(launch)
    flags = [
        "--runner=DirectRunner",
        f"--job_name={launch.key}",
        "--input=gs://b/a file*",
        "--count=3",
        "--ratio=0.5",
        '--deep={"a":[null]}',
        "--on=true",
        "--empty=",
    ]
    assert json.loads(caller.log(launch).read_text()) == [flags, "", os.getcwd()]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("raise ValueError('no rows')", "exited with 1: ValueError: no rows", id="an exception"),
        pytest.param(
            "import sys; print('RuntimeError: early'); sys.exit('usage: give --input')",
            "exited with 1: RuntimeError: early",
            id="a line that ends a traceback says most",
        ),
        pytest.param("import sys; sys.exit('give --input')", "exited with 1: give --input", id="else the last line"),
        pytest.param("import os; os._exit(3)", "exited with 3: it left no words", id="nothing said"),
        pytest.param("print('aé\\ud83d'.encode('utf-8', 'surrogatepass'))\n1/0", "exited with 1: ZeroDiv", id="bytes"),
        pytest.param("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV: it left no words", id="a signal"),
    ],
)
def test_a_job_that_fails_says_what_it_said_last(caller, source, words):
    launch = caller.written(source)
    execution = caller.target.launch(launch)
    first, last = caller.texts()
    outcome = caller.target.outcome(execution)
    assert outcome.error.error_type == "Dataflow.JobFailed"
    assert outcome.error.message.startswith(words)
    assert outcome.error.message.endswith(f"; log: {caller.log(launch)}")
    assert (first, last) == (f"Workflow failed. Causes: {outcome.error.message}", "Worker pool stopped.")


@pytest.mark.parametrize(
    ("run_id", "time"),
    [
        pytest.param("run_1639322384_5c1e9f0b2a47", "2021-12-12_15_19_44", id="the time of the run's start"),
        pytest.param("my-own-run", "1970-01-01_00_00_00", id="a run_id of the author's own tells none"),
        pytest.param("run_99999999999_x", "5138-11-16_09_46_39", id="any number that fits"),
    ],
)
def test_a_job_id_looks_like_dataflows_and_depends_on_the_key_alone(run_id, time):
    launch = Launch("A", "Dataflow", "p", run_id=run_id)
    other = Launch("A", "Dataflow", "p", run_id=run_id, attempt=2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d_\d\d_\d\d-\d{19}", job_id_of(launch))
    assert job_id_of(launch).startswith(f"{time}-")
    assert job_id_of(launch) == job_id_of(Launch("A", "Dataflow", "q", {"x": 1}, run_id=run_id))
    assert job_id_of(launch) != job_id_of(other)


def test_parameters_that_no_command_line_can_hold_are_refused(caller):
    for parameters in ({"long": "x" * 3_000_000}, {"nul": "a\0b"}):
        launch = caller.launch_of(**parameters)
        with pytest.raises(LaunchRefused) as refused:
            caller.target.launch(launch)
        assert refused.value.error_type == "Dataflow.BadParameters"
        assert caller.target.find(launch) is None


def test_log_lines_have_the_time_that_the_target_is_given(tmp_path):
    write_sources(tmp_path)
    now = datetime(2026, 11, 20, 8, 58, 37, tzinfo=UTC)
    caller = Caller(tmp_path / "sample", now=lambda: now, project="P", region="europe-west1")
    caller.target.launch(caller.launch_of(tally=str(tmp_path / "tally")))
    entry = caller.events.get(timeout=20)
    assert entry["timestamp"] == entry["receiveTimestamp"] == "2026-11-20T08:58:37.000000Z"
    assert entry["logName"] == "projects/P/logs/dataflow.googleapis.com%2Fjob-message"
    assert entry["resource"]["labels"]["region"] == "europe-west1"
    caller.target.close()


# ---- stopping ---------------------------------------------------------------------------------------------

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", WORK + "\\nwork(sys.argv[1], gate='/no/such/file')", sys.argv[3][8:]])
work(sys.argv[3][8:], gate="/no/such/file")
"""


def stubborn_launch(caller, tmp_path):
    """A job that ignores SIGTERM, with a child of its own."""
    work = (caller.folder / "pipelines/orch_test_1.py").read_text().split("import argparse")[0]
    source = f"import sys\nWORK = '''import sys\n{work}'''\nexec(WORK)\n{STUBBORN}"
    return caller.written(source, tally=str(tmp_path / "tally"))


def test_a_cancel_stops_a_job_that_does_not_listen_and_all_that_it_has_started(caller, tmp_path):
    launch = stubborn_launch(caller, tmp_path)
    execution = caller.target.launch(launch)
    assert until(lambda: tally_of(launch) == 2)
    caller.target.cancel(execution)
    assert caller.texts() == ["Worker pool stopped."]
    assert caller.target.outcome(execution) == Outcome.cancelled()
    assert until(lambda: not is_work_alive(launch))


def test_a_cancel_reaches_a_job_that_another_process_has_started(caller, tmp_path):
    launch = caller.launch_of(tally=str(tmp_path / "tally"), gate=str(tmp_path / "never"))
    execution = caller.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    other = Caller(caller.folder)
    other.target.cancel(other.target.find(launch))
    assert caller.texts() == ["Worker pool stopped."]
    assert other.target.outcome(execution) == Outcome.cancelled()


def test_a_job_whose_wrapper_is_killed_is_killed_too_and_has_failed(caller, tmp_path):
    launch = caller.launch_of(tally=str(tmp_path / "tally"), gate=str(tmp_path / "never"))
    execution = caller.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    os.kill(caller.target._runners[launch.key].pid, signal.SIGKILL)
    caller.texts()
    message = f"its runner was killed by SIGKILL (out of memory?); log: {caller.log(launch)}"
    assert caller.target.outcome(execution) == Outcome.failed("Task.Crashed", message)
    assert until(lambda: not is_work_alive(launch))


def test_closing_stops_what_runs_and_it_is_lost_not_failed(caller, tmp_path):
    launch = caller.launch_of(tally=str(tmp_path / "tally"), gate=str(tmp_path / "never"))
    execution = caller.target.launch(launch)
    assert until(lambda: tally_of(launch) == 1)
    caller.target.close()
    assert not is_work_alive(launch)
    assert caller.target.outcome(execution).kind is OutcomeKind.LOST
    assert caller.events.empty()
    with pytest.raises(LaunchUncertain):
        caller.target.launch(caller.launch_of())


ORCHESTRATOR = """
import json, os, sys, time
from pathlib import Path
from orchestrator.model.commands import Launch
from orchestrator.targets.local_dataflow import LocalDataflow

folder, parameters = Path(sys.argv[1]), json.loads(sys.argv[2])
target = LocalDataflow({"sample": folder}, lambda event: os.kill(os.getpid(), 9), folder / "attempts")
target.launch(Launch("Step1", "Dataflow", "orch_test_1", parameters, {}, "sample", sys.argv[3], nonce="n"))
time.sleep(600)
"""


def start_orchestrator(folder: Path, parameters) -> subprocess.Popen:
    """Start a process that launches once, and dies by kill -9 when it is to tell the end."""
    return subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, str(folder), json.dumps(parameters), RUN_ID])


def test_a_job_dies_with_a_killed_orchestrator_and_the_launch_can_be_made_again(caller, tmp_path):
    gate = tmp_path / "gate"
    parameters = {"tally": str(tmp_path / "tally"), "gate": str(gate)}
    launch = caller.launch_of(**parameters)
    orchestrator = start_orchestrator(caller.folder, parameters)
    assert until(lambda: tally_of(launch) == 1)
    execution = caller.target.find(launch)
    assert execution.execution_id == job_id_of(launch)
    assert caller.target.outcome(execution) is None
    orchestrator.kill()
    orchestrator.wait()
    assert until(lambda: not is_work_alive(launch), 5)
    assert until(lambda: caller.target.outcome(execution) is not None, 5)
    assert caller.target.outcome(execution).kind is OutcomeKind.LOST
    assert caller.target.find(launch) is None
    gate.touch()
    assert caller.run(launch).kind is OutcomeKind.COMPLETED
    assert caller.target.find(launch) == execution
    assert tally_of(launch) == 2


def test_what_ended_and_was_never_told_is_found_with_its_outcome(caller, tmp_path):
    parameters = {"tally": str(tmp_path / "tally")}
    launch = caller.launch_of(**parameters)
    orchestrator = start_orchestrator(caller.folder, parameters)
    assert orchestrator.wait(20) == -signal.SIGKILL
    execution = caller.target.find(launch)
    assert caller.target.outcome(execution).kind is OutcomeKind.COMPLETED
    assert caller.target.launch(launch) == execution
    time.sleep(0.05)
    assert tally_of(launch) == 1
    assert caller.events.empty()
