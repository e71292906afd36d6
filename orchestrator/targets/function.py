"""FunctionTarget: a Python callable, called in a thread of this process or in a worker process.

`"function": "package.module:callable"` of the step names it; the parameters are its keyword arguments; what it
returns (JSON) is the result. Launch, call and event together cost tens of microseconds, so a chain of small
functions runs as fast as its run can be saved.

What was started is remembered in this process only. A kill of the process ends its executions with it, and
those whose completion was not saved by then are lost: the engine runs them again, as the next attempt.
"""

import atexit
import logging
import math
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from importlib import import_module
from operator import attrgetter

import msgspec

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.ports import Hosts
from orchestrator.targets.twins import exit_words, plain, timestamp, utc_now
from orchestrator.targets.workers import Workers

log = logging.getLogger(__name__)

_NOTHING = Outcome.completed()


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
        self._threads = Workers("function", workers)
        self._processes = Workers("function-process", processes or os.cpu_count() or 1)
        self._slot = threading.local()  # each thread of _processes has one child, and calls it
        self._children = set[_Child]()
        self._closed = False
        self._callables = dict[str, Callable[..., object]]()
        # dict.setdefault and list.append are atomic: no lock of ours is needed around them.
        self._entries = dict[str, _Entry]()
        self._keys = dict[str, list[str]]()

    def launch(self, launch: Launch) -> Execution:
        """Hand the function to a worker; the same key again returns the execution started before.

        Raises:
            LaunchRefused: there is no such callable (`Function.NotFound`).
            LaunchUncertain: this target is closed.
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
        in_process = launch.step.get("worker") == "process"
        is_accepted = (
            self._processes.submit(partial(self._run_in_process, mine))
            if in_process
            else self._threads.submit(partial(self._run, mine))
        )
        if not is_accepted:
            self._entries.pop(key, None)
            raise LaunchUncertain(f"{launch.launch_id}: not launched, this process is about to end")
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
        except _NotLoaded as exc:
            raise LaunchRefused(f"{launch.node_name}: {exc}", error_type="Function.NotFound") from exc
        return self._callables.setdefault(str(reference), function)

    def _run(self, entry: "_Entry") -> None:
        outcome, trace = attempt(entry.function, entry.launch.parameters)
        self._end(entry, outcome, trace)

    def _run_in_process(self, entry: "_Entry") -> None:
        launch = entry.launch
        reference = str(launch.step["function"])
        try:
            outcome, trace = self._child().call(reference, launch.parameters)
        except Exception as exc:
            child: _Child | None = getattr(self._slot, "child", None)
            how = child.exit_words() if child is not None else f"could not be started, {_words(exc)}"
            self._drop(child)
            if self._closed:
                return  # it ended with this process: lost, not failed
            outcome, trace = Outcome.failed("Task.Crashed", f"{reference}: its process {how}"), ""
        self._end(entry, outcome, trace)

    def _child(self) -> "_Child":
        """The worker process of this thread; a new one if it has none that lives."""
        child: _Child | None = getattr(self._slot, "child", None)
        if child is None or not child.is_alive():
            self._drop(child)
            child = self._slot.child = _Child()
            self._children.add(child)
            if self._closed:  # close() may have looked before it was in the set
                child.kill()
        return child

    def _drop(self, child: "_Child | None") -> None:
        if child is not None:
            child.kill()
            self._children.discard(child)
            self._slot.child = None

    def _end(self, entry: "_Entry", outcome: Outcome, trace: str) -> None:
        launch = entry.launch
        if trace:
            log.debug("run_id=%s node=%s: the function raised\n%s", launch.run_id, launch.node_name, trace)
        entry.outcome = outcome
        event: dict[str, Json] = {
            "resource": {"type": "function", "labels": {"function_name": launch.target_name}},
            "launch_id": launch.launch_id,
            "nonce": launch.nonce,
            "execution_id": entry.execution.execution_id,
            "status": outcome.kind.value,
            "timestamp": timestamp(self._now()),
        }
        if outcome.error is not None:
            error = outcome.error
            event["error"] = {"error_type": error.error_type, "message": error.message}
        elif outcome.result is not None:
            event["result"] = outcome.result
        try:
            self._publish(event)
        except Exception:
            log.exception(
                "run_id=%s node=%s: the event of its end was not taken; the Tick will find the outcome",
                launch.run_id,
                launch.node_name,
            )


class _Entry:
    """One launch and what became of it."""

    __slots__ = ("execution", "function", "launch", "outcome")

    def __init__(self, launch: Launch, function: Callable[..., object], execution: Execution) -> None:
        self.launch = launch
        self.function = function
        self.execution = execution
        self.outcome: Outcome | None = None


class _NotLoaded(Exception):
    """A reference leads to no callable."""


def load(reference: object) -> Callable[..., object]:
    """Return the callable at `package.module:attribute.path`; raises _NotLoaded, which says why not."""
    module_name, _, path = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not module_name or not path or module_name.startswith("."):
        raise _NotLoaded(f"function is {reference!r}; it must be of the form package.module:callable")
    try:
        module = import_module(module_name)
    except (Exception, SystemExit) as exc:
        raise _NotLoaded(
            f"{reference}: module {module_name} cannot be imported, {_words(exc)}; "
            "it must be importable from where the orchestrator was started"
        ) from exc
    try:
        found: object = attrgetter(path)(module)
    except AttributeError as exc:
        raise _NotLoaded(f"{reference}: {module_name} has no {path}; a callable of that name was expected") from exc
    if not callable(found):
        raise _NotLoaded(f"{reference}: is of type {type(found).__name__}; a callable was expected")
    return found


def attempt(function: Callable[..., object], parameters: Mapping[str, Json]) -> tuple[Outcome, str]:
    """Call the function; return how it ended, and the traceback if it raised. Whatever it raises ends here."""
    try:
        result = function(**{name: _own(value) for name, value in parameters.items()})
    except BaseException as exc:  # SystemExit and KeyboardInterrupt too: they end the attempt, not a worker
        return Outcome.failed("Task.Failed", _words(exc)), traceback.format_exc()
    return (_NOTHING if result is None else _as_json(result)), ""


def _own(value: Json) -> Json:
    """A copy that the function may change: the definition and other attempts share the original."""
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner) for inner in value]
    return value


def _as_json(result: object) -> Outcome:
    """The result as the JSON value it stands for, or Task.BadResult saying what in it stands for none."""
    try:
        data = msgspec.json.encode(result)
        # msgspec writes nan and inf as null, so only where there is a null can there have been one.
        if b"null" not in data or (misfit := _misfit(result, "result")) is None:
            return Outcome.completed(msgspec.json.decode(data))
    except RecursionError:
        misfit = "result: is nested too deeply, or contains itself"
    except Exception as exc:
        misfit = _misfit(result, "result") or f"result: {_words(exc)}"
    return Outcome.failed(
        "Task.BadResult",
        plain(f"{misfit}; a function may return dict, list, str, int, float, bool, None and dataclasses of these"),
    )


def _misfit(value: object, path: str) -> str | None:
    """Return where in the value there is something that is no JSON, and what; None if all is well."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"{path}: is {value}, which JSON does not have"
    parts: list[tuple[str, object]] | None = None
    if isinstance(value, Mapping):
        parts = [(f"{path}.{name}", inner) for name, inner in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        parts = [(f"{path}[{number}]", inner) for number, inner in enumerate(value)]
    elif names := getattr(value, "__dataclass_fields__", None) or getattr(value, "__struct_fields__", None):
        parts = [(f"{path}.{name}", getattr(value, name)) for name in names]
    if parts is not None:
        found = (_misfit(inner, inner_path) for inner_path, inner in parts)
        misfit = next((words for words in found if words is not None), None)
        if misfit is not None or parts:
            return misfit
    try:
        msgspec.json.encode(value)
    except Exception as exc:
        return f"{path}: is of type {type(value).__name__} ({_words(exc)})"
    return None


def _words(exc: BaseException) -> str:
    try:
        message = str(exc)
    except Exception:
        message = "(its message cannot be shown)"
    return plain(f"{type(exc).__name__}: {message}" if message else type(exc).__name__)


class _Child:
    """A worker process, which runs one function at a time.

    One process a slot rather than one ProcessPoolExecutor for all: when a process of an executor dies, the
    executor kills its other processes too and fails everything it holds, and does not tell whose fault it was.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), name="function-process")
        self._process.start()
        theirs.close()
        atexit.register(self.kill)  # else multiprocessing's own exit would wait for it to end

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def call(self, reference: str, parameters: Mapping[str, Json]) -> tuple[Outcome, str]:
        """Run it there. Raises EOFError or OSError if the process dies meanwhile."""
        self._pipe.send((reference, dict(parameters)))
        outcome, trace = self._pipe.recv()
        return outcome, trace

    def exit_words(self) -> str:
        self._process.join(2.0)
        return exit_words(self._process.exitcode)

    def kill(self) -> None:
        atexit.unregister(self.kill)
        self._process.kill()


def _serve(pipe: "multiprocessing.connection.Connection[object, object]") -> None:
    """What a worker process does until its parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C in the terminal is for the orchestrator
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            reference, parameters = pipe.recv()  # type: ignore[misc]
        except EOFError:
            return
        try:
            answer = attempt(load(reference), parameters)
        except _NotLoaded as exc:
            answer = Outcome.failed("Function.NotFound", str(exc)), ""
        pipe.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
