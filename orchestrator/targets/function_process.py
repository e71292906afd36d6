"""A worker process of FunctionTarget: it runs functions one after the other, and dies with its parent.

`python -m orchestrator.targets.function_process FD`: requests come as JSON lines on standard input, the first of
them the parent's `sys.path`; answers go as JSON lines to the inherited descriptor FD. Not multiprocessing: to
spawn, that imports the parent's main script once more, and a script that says `DAGExecutor(…).execute(…)`
without an `if __name__ == "__main__"` would start its runs again. Nor a ProcessPoolExecutor: when one of its
processes dies, it kills its others too and does not tell whose fault it was; here a crash is one attempt's alone.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from queue import SimpleQueue
from typing import BinaryIO

import msgspec

from orchestrator.model.commands import Json, Outcome
from orchestrator.targets.callables import NotLoaded, attempt, load
from orchestrator.targets.twins import exit_words

_EXIT_LIMIT_S = 2.0


class _Request(msgspec.Struct):
    function: str
    parameters: dict[str, Json]


class _Answer(msgspec.Struct):
    outcome: Outcome
    trace: str


class FunctionProcess:
    """One process, for one thread that calls it."""

    def __init__(self) -> None:
        ours, theirs = os.pipe()
        self._answers = open(ours, "rb")  # noqa: SIM115 - it lives as long as the process
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", "orchestrator.targets.function_process", str(theirs)],
                stdin=subprocess.PIPE,  # its end is how the process notices ours, even by kill -9
                pass_fds=(theirs,),
                start_new_session=True,  # ctrl-C in the terminal is for us
            )
        finally:
            os.close(theirs)
        self._send([path or os.getcwd() for path in sys.path])

    def is_alive(self) -> bool:
        """Whether it can be called."""
        return self._process.poll() is None

    def call(self, function: str, parameters: Mapping[str, Json]) -> tuple[Outcome, str]:
        """Run the function there; see `attempt`. Raises EOFError or OSError if the process dies meanwhile."""
        self._send(_Request(function, dict(parameters)))
        line = self._answers.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        answer = msgspec.json.decode(line, type=_Answer)
        return answer.outcome, answer.trace

    def exit_words(self) -> str:
        """Say how it ended."""
        with suppress(subprocess.TimeoutExpired):
            return exit_words(self._process.wait(_EXIT_LIMIT_S))
        return exit_words(None)

    def kill(self) -> None:
        """End it and what it has started, whatever it is at."""
        if self._process.poll() is None:  # else its id may be somebody else's by now
            with suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def close(self) -> None:
        """Kill it and let go of its pipes. Only for the thread that calls it."""
        self.kill()
        self._answers.close()
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(value) + b"\n")
        self._process.stdin.flush()


def main(answers_fd: str) -> None:
    """Run what is asked for, in the main thread, until the parent is gone."""
    os.set_inheritable(int(answers_fd), False)
    answers = open(int(answers_fd), "wb")  # noqa: SIM115 - to the end of this process
    asked = open(os.dup(0), "rb")  # noqa: SIM115 - as above
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # functions see no input
    sys.path[:] = msgspec.json.decode(asked.readline(), type=list[str])
    requests = SimpleQueue[bytes]()
    threading.Thread(target=_read, args=(asked, requests), daemon=True).start()
    while True:
        request = msgspec.json.decode(requests.get(), type=_Request)
        try:
            outcome, trace = attempt(load(request.function), request.parameters)
        except NotLoaded as exc:
            outcome, trace = Outcome.failed("Function.NotFound", str(exc)), ""
        answers.write(msgspec.json.encode(_Answer(outcome, trace)) + b"\n")
        answers.flush()


def _read(asked: BinaryIO, requests: SimpleQueue[bytes]) -> None:
    """Take requests until there can be no more, as the parent is gone; then end, with all we started."""
    for line in asked:
        requests.put(line)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
