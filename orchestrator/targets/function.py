"""FunctionTarget: a Python callable, called in a thread of this process or in a worker process.

`"function": "package.module:callable"` of the step names it; the parameters are its keyword arguments; what it
returns (JSON) is the result. Launch, call and event together cost tens of microseconds, so a chain of small
functions runs as fast as its run can be saved.

What was started is remembered in this process only. A kill of the process ends its executions with it, and
those whose completion was not saved by then are lost: the engine runs them again, as the next attempt.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.model.messages import function_message
from orchestrator.ports import Hosts
from orchestrator.targets.callables import NotLoaded, attempt, load, words_of
from orchestrator.targets.twins import tell, timestamp, utc_now
from orchestrator.targets.workers import Workers

if TYPE_CHECKING:
    from orchestrator.targets.function_process import FunctionProcess

log = logging.getLogger(__name__)


class FunctionTarget:
    """Calls functions and leaves a `resource.type = "function"` event for each, after its outcome is known.

    Args:
        publish: takes the event, in the thread that ran the function; it may launch more.
        hosts: which other instances are alive, to tell whether their executions still run.
        instance: the id of this process, first part of its execution ids.
        workers: how many functions may run at once in threads.
        processes: how many may run at once in worker processes (steps with `"worker": "process"`).
        now: the time, aware.
    """

    identity: Identity = Identity.FOREVER  # while this process lives
    has_outcome: bool = True
    can_cancel: bool = False
    launch_limit_s: float = 0.0
    synchronous: bool = False
    id_is_ours: bool = True

    def __init__(
        self,
        publish: Callable[[Mapping[str, Json]], object],
        hosts: Hosts,
        instance: str,
        *,
        workers: int = 32,
        processes: int | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._publish = publish
        self._hosts = hosts
        self._instance = instance
        self._now = now
        self._threads = Workers("function", workers, keeps=True)
        self._processes = Workers("function-process", processes or os.cpu_count() or 1)
        self._slot = threading.local()  # each thread of _processes has one child, and calls it
        self._children = set["FunctionProcess"]()
        self._closed = False
        self._callables = dict[str, Callable[..., object]]()
        # dict.setdefault and list.append are atomic: no lock of ours is needed around them.
        self._entries = dict[str, _Entry]()
        self._keys = dict[str, list[str]]()
        self._waiting = dict[str, _Entry]()  # handed over and not begun; who pops an entry, begins or withdraws it

    def launch(self, launch: Launch) -> Execution:
        """Hand the function to a worker; the same key again returns the execution started before.

        Raises:
            LaunchRefused: there is no such callable (`Function.NotFound`).
            LaunchUncertain: this target is closed, or the machine has no thread for it.
        """
        key = launch.key
        entry = self._entries.get(key)
        if entry is not None:
            return entry.execution
        function = self._callable(launch)
        mine = _Entry(launch, function, Execution(f"{self._instance}.{key}"))
        entry = self._entries.setdefault(key, mine)
        if entry is not mine:
            return entry.execution
        self._keys.setdefault(launch.run_id, []).append(key)
        self._waiting[key] = mine
        in_process = launch.step.get("worker") == "process"
        is_accepted = (
            self._processes.submit(partial(self._run_in_process, mine))
            if in_process
            else self._threads.submit(partial(self._run, mine))
        )
        if not is_accepted:
            self._entries.pop(key, None)
            self._waiting.pop(key, None)
            raise LaunchUncertain(
                f"{launch.launch_id}: not launched, this process is about to end or has no thread left"
            )
        return mine.execution

    def find(self, launch: Launch) -> Execution | None:
        """Return what this process started for the launch, if it did."""
        entry = self._entries.get(launch.key)
        return None if entry is None else entry.execution

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, None while it runs; Lost where the process that ran it is gone."""
        instance, _, key = execution.execution_id.rpartition(".")
        if instance == self._instance:
            entry = self._entries.get(key)
            if entry is None:
                return Outcome.lost(f"{execution.execution_id}: this process has no such execution")
            return entry.outcome
        if self._hosts.is_alive(instance) is False:
            return Outcome.lost(f"{execution.execution_id}: its host is gone and left no result")
        return None

    def withdraw(self, launch: Launch) -> bool:
        """Have a function that waits for a worker of this process never called."""
        entry = self._waiting.pop(launch.key, None)
        if entry is None:
            return False
        entry.outcome = Outcome.cancelled("taken back before it began")
        return True

    def cancel(self, execution: Execution) -> None:
        """A function cannot be stopped. Raises LaunchUncertain while it runs."""
        if self.outcome(execution) is None:
            raise LaunchUncertain(f"{execution.execution_id}: a function cannot be stopped, it runs to its end")

    def forget(self, run_id: str) -> None:
        """Drop what is remembered of a run that has ended."""
        for key in self._keys.pop(run_id, ()):
            self._entries.pop(key, None)

    def close(self) -> None:
        """Stop idle workers and kill the worker processes; a function that still runs holds up nothing."""
        self._closed = True
        self._threads.close()
        self._processes.close()
        for child in tuple(self._children):
            child.kill()

    def _callable(self, launch: Launch) -> Callable[..., object]:
        reference = launch.step.get("function")
        if isinstance(reference, str):
            found = self._callables.get(reference)
            if found is not None:
                return found
        try:
            function = load(reference)
        except NotLoaded as exc:
            raise LaunchRefused(f"{launch.node_name}: {exc}", error_type="Function.NotFound") from exc
        return self._callables.setdefault(str(reference), function)

    def _run(self, entry: "_Entry") -> None:
        if self._waiting.pop(entry.launch.key, None) is None:
            return  # withdrawn
        outcome, trace = attempt(entry.function, entry.launch.parameters)
        self._end(entry, outcome, trace)

    def _run_in_process(self, entry: "_Entry") -> None:
        launch = entry.launch
        if self._waiting.pop(launch.key, None) is None:
            return  # withdrawn
        reference = str(launch.step["function"])
        try:
            outcome, trace = self._child().call(reference, launch.parameters)
        except Exception as exc:
            child: FunctionProcess | None = getattr(self._slot, "child", None)
            how = child.exit_words() if child is not None else f"could not be started, {words_of(exc)}"
            self._drop(child)
            if self._closed:
                return  # it ended with this process: lost, not failed
            outcome, trace = Outcome.failed("Task.Crashed", f"{reference}: its process {how}"), ""
        self._end(entry, outcome, trace)

    def _child(self) -> "FunctionProcess":
        """The worker process of this thread; a new one if it has none that lives."""
        from orchestrator.targets.function_process import FunctionProcess  # few runs need one

        child: FunctionProcess | None = getattr(self._slot, "child", None)
        if child is None or not child.is_alive():
            self._drop(child)
            child = self._slot.child = FunctionProcess()
            self._children.add(child)
            if self._closed:  # close() may have looked before it was in the set
                child.kill()
        return child

    def _drop(self, child: "FunctionProcess | None") -> None:
        if child is not None:
            child.close()
            self._children.discard(child)
            self._slot.child = None

    def _end(self, entry: "_Entry", outcome: Outcome, trace: str) -> None:
        launch = entry.launch
        if trace and not launch.secrets:  # it might show them
            log.debug("run_id=%s node=%s: the function raised\n%s", launch.run_id, launch.node_name, trace)
        entry.outcome = outcome
        event = function_message(
            launch.launch_id,
            launch.nonce,
            outcome,
            execution_id=entry.execution.execution_id,
            task_name=launch.target_name,
        )
        event["timestamp"] = timestamp(self._now())
        tell(self._publish, launch, event)


class _Entry:
    """One launch and what became of it."""

    __slots__ = ("execution", "function", "launch", "outcome")

    def __init__(self, launch: Launch, function: Callable[..., object], execution: Execution) -> None:
        self.launch = launch
        self.function = function
        self.execution = execution
        self.outcome: Outcome | None = None
