"""A worker process of FunctionTarget: it runs functions one after the other, and dies with its parent."""

import atexit
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping
from multiprocessing.connection import Connection

from orchestrator.model.commands import Json, Outcome
from orchestrator.targets.callables import NotLoaded, attempt, load
from orchestrator.targets.twins import exit_words


class FunctionProcess:
    """One process, for one thread that calls it.

    Not a ProcessPoolExecutor: when one process of an executor dies, the executor kills its other ones too and
    fails everything it holds, and does not tell whose fault it was. Here a crash is one attempt's alone.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="function-process")
        self._process.start()
        theirs.close()
        atexit.register(self.kill)  # else multiprocessing's own exit would wait for it to end

    def is_alive(self) -> bool:
        """Whether it can be called."""
        return self._process.is_alive()

    def call(self, reference: str, parameters: Mapping[str, Json]) -> tuple[Outcome, str]:
        """Run the function there; see `attempt`. Raises EOFError or OSError if the process dies meanwhile."""
        self._pipe.send((reference, dict(parameters)))
        outcome, trace = self._pipe.recv()
        return outcome, trace

    def exit_words(self) -> str:
        """Say how it ended."""
        self._process.join(2.0)
        return exit_words(self._process.exitcode)

    def kill(self) -> None:
        """End it, whatever it is at."""
        atexit.unregister(self.kill)
        self._process.kill()


def _serve(pipe: Connection) -> None:
    """What the process does until its parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C in the terminal is for the orchestrator
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            reference, parameters = pipe.recv()
        except EOFError:
            return
        try:
            answer = attempt(load(reference), parameters)
        except NotLoaded as exc:
            answer = Outcome.failed("Function.NotFound", str(exc)), ""
        pipe.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
