"""LocalDataflow: the twin of Dataflow. A DAG's Beam pipelines run with the DirectRunner, each in its own process.

A small wrapper (job_runner) runs the pipeline, keeps its outcome in the ledger, and kills it when this process
dies. The log lines that Dataflow would write are published after that, so a kill loses no outcome.
"""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, OrchestratorError
from orchestrator.targets.ledger import Holder, Ledger
from orchestrator.targets.twins import digest_of, exit_words, source_of, tell, timestamp, utc_now, where

log = logging.getLogger(__name__)

_RUN_ID_TIME = re.compile(r"run_(\d{1,11})_")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MARGIN_S = 2.0  # for a wrapper to end, after the grace that it gives its job


class LocalDataflow:
    """Runs `<folder of the DAG>/pipelines/<target_name>.py` with the flags that a flex template's container gets.

    Args:
        folders: name of a DAG -> its folder.
        publish: takes the log lines of an ended job, in a thread of this target's.
        work_dir: where outcomes and logs are kept.
        project: what stands for the project in log entries.
        region: what stands for the region.
        grace_s: how long a job that is to be stopped has between SIGTERM and SIGKILL.
        now: the time, aware.
    """

    identity: Identity = Identity.FOREVER  # but for what died with its process, which may be started again
    has_outcome: bool = True
    can_cancel: bool = True
    launch_limit_s: float = 0.0
    synchronous: bool = False
    id_is_ours: bool = False

    def __init__(
        self,
        folders: Mapping[str, Path],
        publish: Callable[[Mapping[str, Json]], object],
        work_dir: Path,
        *,
        project: str = "local-project",
        region: str = "local",
        grace_s: float = 5.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._folders = folders
        self._publish = publish
        self._ledger = Ledger(work_dir)
        self._project = project
        self._region = region
        self._grace_s = grace_s
        self._now = now
        self._lock = threading.Lock()
        self._runners = dict[str, subprocess.Popen[bytes]]()
        self._closed = False

    def launch(self, launch: Launch) -> Execution:
        """Start the pipeline; the same key again returns the execution started before.

        Raises:
            LaunchRefused: the DAG has no such pipeline (`Dataflow.NotFound`), or its parameters are too long.
            LaunchUncertain: the ledger cannot be written, no process can be started, or this target is closed.
        """
        source = source_of(self._folders, launch, "pipelines/*.py", error_type="Dataflow.NotFound")
        execution = _execution(launch)
        if self._ledger.find(launch.key) is not None:
            return execution
        holder = self._ledger.hold()
        if not self._ledger.begin(launch.key, execution.execution_id, holder):
            holder.release()
            return execution
        try:
            runner = self._start(launch, execution, source, holder)
        except BaseException:
            holder.release()
            raise
        holder.hand_over()
        threading.Thread(
            target=self._watch, args=(launch, execution, runner, holder), name=launch.key, daemon=True
        ).start()
        return execution

    def find(self, launch: Launch) -> Execution | None:
        """Return the launch's execution if it has ended, or runs under this process or another that lives."""
        return None if self._ledger.find(launch.key) is None else _execution(launch)

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, None while it runs; Lost where the process that ran it is gone."""
        return self._ledger.outcome(execution.execution_id)

    def cancel(self, execution: Execution) -> None:
        """Have the job's wrapper stop it: SIGTERM, and after `grace_s` SIGKILL. Whichever process has started it.

        Raises:
            LaunchUncertain: the wish cannot be written down.
        """
        self._ledger.ask_to_stop(execution.execution_id)

    def close(self) -> None:
        """Stop what runs: that is lost, and may be launched again."""
        with self._lock:
            self._closed = True
            runners = list(self._runners.values())
        for runner in runners:
            assert runner.stdin is not None
            with suppress(OSError):
                runner.stdin.close()
        for runner in runners:
            try:
                runner.wait(self._grace_s + _MARGIN_S)
            except subprocess.TimeoutExpired:
                runner.kill()  # its watcher kills the job
        self._ledger.close()

    def _start(self, launch: Launch, execution: Execution, source: Path, holder: Holder) -> "subprocess.Popen[bytes]":
        """Start the wrapper, which inherits the holder's lock."""
        command = [
            *(sys.executable, "-m", "orchestrator.targets.job_runner"),
            *(str(self._ledger.root), launch.key, holder.name, execution.execution_id, str(self._grace_s)),
            *(sys.executable, str(source), "--runner=DirectRunner", f"--job_name={launch.key}"),
            *(f"--{name}={_flag(value)}" for name, value in launch.parameters.items()),
        ]
        with self._lock:
            if self._closed:
                raise LaunchUncertain(f"{launch.launch_id}: not launched, this process is about to end")
            try:
                with self._ledger.log_file(launch.key).open("ab") as log_file:
                    runner = subprocess.Popen(  # noqa: S603 - the user's own pipeline, as asked for
                        command,
                        stdin=subprocess.PIPE,  # its end is how the wrapper notices ours, even by kill -9
                        stdout=subprocess.PIPE,
                        stderr=log_file,
                        pass_fds=(holder.fd,),
                        start_new_session=True,  # ctrl-C in the terminal is for us
                    )
            except ValueError as exc:
                raise LaunchRefused(
                    f"{launch.node_name}: {exc}; parameters must be words that a command line can hold",
                    error_type="Dataflow.BadParameters",
                ) from exc
            except OSError as exc:
                if exc.errno == errno.E2BIG:
                    raise LaunchRefused(
                        f"{launch.node_name}: the parameters are too long for a command line; "
                        "put them into a file and pass its name",
                        error_type="Dataflow.BadParameters",
                    ) from exc
                raise LaunchUncertain(f"{launch.launch_id}: no process can be started now: {exc}") from exc
            self._runners[launch.key] = runner
            return runner

    def _watch(self, launch: Launch, execution: Execution, runner: "subprocess.Popen[bytes]", holder: Holder) -> None:
        """Wait for the wrapper's end and publish what Dataflow would have logged."""
        assert runner.stdout is not None
        assert runner.stdin is not None
        group = runner.stdout.readline()
        code = runner.wait()
        with self._lock:
            self._runners.pop(launch.key, None)
        try:
            outcome = self._kept(launch.key)
            if outcome is None:
                if group:  # the wrapper was killed, and could not take the job along
                    with suppress(OSError):
                        os.killpg(int(group), signal.SIGKILL)
                if self._closed:
                    return  # it ended with this process: lost, not failed
                message = f"its runner {exit_words(code)}; log: {self._ledger.log_file(launch.key)}"
                outcome = Outcome.failed("Task.Crashed", message)
                if not self._ledger.finish(launch.key, outcome, holder.name):
                    return
        except OrchestratorError:
            text = "run_id=%s node=%s: its outcome cannot be read or kept"
            log.exception(text, launch.run_id, launch.node_name, extra=where(launch))
            return
        finally:
            holder.release()
            runner.stdout.close()
            with suppress(OSError):
                runner.stdin.close()
        for severity, text in _lines(outcome):
            tell(self._publish, launch, self._entry(launch, execution, severity, text))

    def _kept(self, key: str) -> Outcome | None:
        record = self._ledger.read(key)
        return None if record is None else record[1]

    def _entry(self, launch: Launch, execution: Execution, severity: str, text: str) -> dict[str, Json]:
        """A line of the job's message log."""
        job_id, time = execution.execution_id, timestamp(self._now())
        return {
            "insertId": digest_of(job_id, text)[:12],
            "logName": f"projects/{self._project}/logs/dataflow.googleapis.com%2Fjob-message",
            "labels": {
                "dataflow.googleapis.com/job_id": job_id,
                "dataflow.googleapis.com/job_name": launch.key,
                "dataflow.googleapis.com/log_type": "system",
                "dataflow.googleapis.com/region": self._region,
            },
            "resource": {
                "type": "dataflow_step",
                "labels": {
                    "job_id": job_id,
                    "job_name": launch.key,
                    "project_id": self._project,
                    "region": self._region,
                    "step_id": "",
                },
            },
            "severity": severity,
            "textPayload": text,
            "timestamp": time,
            "receiveTimestamp": time,
        }


def job_id_of(launch: Launch) -> str:
    """Return an id shaped as Dataflow's own, `2026-11-20_08_58_37-4369315246414288431`, the same for the same key.

    Its time is that of the run's start as the run_id tells it, 1970 where the author chose the run_id; never the
    clock's, so that two processes that launch at once need not talk to agree on it. The digits are the key's hash.
    """
    told = _RUN_ID_TIME.match(launch.run_id)
    time = _EPOCH + timedelta(seconds=int(told[1]) if told else 0)
    digits = 10**18 + int(digest_of(launch.key)[:16], 16) % (9 * 10**18)
    return f"{time:%Y-%m-%d_%H_%M_%S}-{digits}"


def _execution(launch: Launch) -> Execution:
    job_id = job_id_of(launch)
    return Execution(job_id, {"job": {"id": job_id, "name": launch.key}})


def _flag(value: Json) -> str:
    """A parameter as the command line has it: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _lines(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """What a job's end writes to its log. The pool stops in any case: that line alone means nothing."""
    if outcome.kind is OutcomeKind.FAILED and outcome.error is not None:
        yield "ERROR", f"Workflow failed. Causes: {outcome.error.message}"
    yield "INFO", "Worker pool stopped."
