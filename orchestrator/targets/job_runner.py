"""Run one job of LocalDataflow to its end, and keep its outcome before anybody is told.

`python -m orchestrator.targets.job_runner LEDGER KEY HOLDER JOB_ID GRACE_S COMMAND…`, started by LocalDataflow with the
holder's locked file inherited. It tells the job's process group on standard output. It kills the group when its
standard input ends (its parent died, however), and when the ledger says that somebody wants it stopped.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from queue import Empty, SimpleQueue

from orchestrator.model.commands import Outcome
from orchestrator.targets.ledger import Ledger
from orchestrator.targets.twins import exit_words, last_words

_LOOK_EVERY_S = 0.1


class _Why(Enum):
    """Why there is nothing more to wait for."""

    ENDED = "the job ended"
    CANCELLED = "somebody cancelled it"
    ORPHANED = "our parent is gone"


def main(ledger_root: str, key: str, holder: str, job_id: str, grace_s: str, *command: str) -> None:
    """Run `command` in a process group of its own, wait for its end, keep the outcome."""
    ledger = Ledger(Path(ledger_root))
    parent = os.dup(0)
    with ledger.log_file(key).open("ab") as log_file:
        start = log_file.seek(0, 2)
        job = subprocess.Popen(  # noqa: S603 - the user's own pipeline, as asked for
            command,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # the log is there to be read while it runs
            start_new_session=True,
        )
    try:
        with suppress(BrokenPipeError):  # our parent may be gone by now
            os.write(1, b"%d\n" % job.pid)
        why = _wait(job, parent, lambda: ledger.is_asked_to_stop(key, holder))
        is_stopped = why is not _Why.ENDED and _stop(job, float(grace_s))
        code = job.wait()
    finally:
        _signal_group(job.pid, signal.SIGKILL)  # what it has left running, or all of it if we fail
    if is_stopped and why is _Why.ORPHANED:
        return  # it ended with its host: lost, not failed
    if is_stopped:
        outcome = Outcome.cancelled()
    elif code == 0:
        outcome = Outcome.completed({"job_id": job_id, "job_name": key})
    else:
        log_path = ledger.log_file(key)
        words = f"{exit_words(code)}: {last_words(log_path, start)}; log: {log_path}"
        outcome = Outcome.failed("Dataflow.JobFailed", words)
    ledger.finish(key, outcome, holder)


def _wait(job: "subprocess.Popen[bytes]", parent: int, is_asked_to_stop: Callable[[], bool]) -> _Why:
    """Wait until the job has ended or is to be stopped."""
    news = SimpleQueue[_Why]()

    def watch_job() -> None:
        job.wait()
        news.put(_Why.ENDED)

    def watch_parent() -> None:
        while os.read(parent, 1024):
            pass
        news.put(_Why.ORPHANED)

    for watch in (watch_job, watch_parent):
        threading.Thread(target=watch, daemon=True).start()
    while True:
        with suppress(Empty):
            return news.get(timeout=_LOOK_EVERY_S)
        if is_asked_to_stop():
            return _Why.CANCELLED


def _stop(job: "subprocess.Popen[bytes]", grace_s: float) -> bool:
    """Have the job end, by force if it takes its time; False if it had ended by itself."""
    if job.poll() is not None:
        return False
    _signal_group(job.pid, signal.SIGTERM)
    try:
        job.wait(grace_s)
    except subprocess.TimeoutExpired:
        _signal_group(job.pid, signal.SIGKILL)
    return True


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(OSError):
        os.killpg(group, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
