"""FunctionTarget beyond the port: what functions may do, how workers end, what it costs."""

import fcntl
import logging
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Event, active_count, current_thread

import pytest

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.targets import workers
from orchestrator.targets.function import FunctionTarget
from tests.support.local_targets import NONCE, RUN_ID, Alive, until

MODULE = "functions_of_these_tests"

SOURCE = """
import os, sys, time

class Tools:
    @staticmethod
    def add(a, b):
        return a + b

number = 5

def echo(**parameters):
    return parameters

def crash(code=None):
    os._exit(code) if code is not None else os.kill(os.getpid(), 9)

def leave():
    sys.exit("enough")

def pid():
    return os.getpid()

def strange():
    return {"rows": [1, object()]}

def wait_for(path, mark=None):
    if mark:
        open(mark, "w").close()
    while not os.path.exists(path):
        time.sleep(0.005)
    return "seen"

def hold(path):
    import fcntl
    fcntl.flock(os.open(path, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def functions(tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    (tmp_path / "broken_module_of_these_tests.py").write_text("raise RuntimeError('no luck')")
    (tmp_path / "leaving_module_of_these_tests.py").write_text("import sys; sys.exit(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop(MODULE, None)


class Caller:
    """A target and the events that it publishes, in the order in which they come."""

    def __init__(self, **options) -> None:
        self.events = SimpleQueue()
        self.target = FunctionTarget(self.events.put, Alive(dead=False, living=True), "host-1", **options)
        self._number = 0

    def launch_of(self, function, step=None, **parameters) -> Launch:
        """A new launch; `function` is a reference, or a callable of the test's own."""
        self._number += 1
        if callable(function):
            reference = f"test:{self._number}"
            self.target._callables[reference] = function
        else:
            reference = f"{MODULE}:{function}"
        step = {"function": reference, **(step or {})}
        return Launch(f"Step{self._number}", "Function", "add", parameters, step, run_id=RUN_ID, nonce=NONCE)

    def in_process(self, function, **parameters) -> Launch:
        return self.launch_of(function, {"worker": "process"}, **parameters)

    def run(self, launch: Launch) -> Outcome:
        execution = self.target.launch(launch)
        self.events.get(timeout=60)
        return self.target.outcome(execution)


@pytest.fixture
def caller():
    caller = Caller(processes=2)
    yield caller
    caller.target.close()


@dataclass
class Row:
    name: str
    score: float | None = None


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        pytest.param(None, None, id="nothing"),
        pytest.param({"a": [1, 2.5, "x", None, True]}, {"a": [1, 2.5, "x", None, True]}, id="JSON as it is"),
        pytest.param([Row("a", 1.0)], [{"name": "a", "score": 1.0}], id="dataclasses become objects"),
        pytest.param(Row("a"), {"name": "a", "score": None}, id="an honest null is no nan"),
        pytest.param((1, 2), [1, 2], id="a tuple is an array"),
        pytest.param({1: "a"}, {"1": "a"}, id="keys become text, as in JSON"),
        pytest.param("null", "null", id="the word null"),
        pytest.param(2**70, 2**70, id="a large number"),
    ],
)
def test_what_a_function_returns_is_its_result_as_json(caller, returned, result):
    assert caller.run(caller.launch_of(lambda: returned)) == Outcome.completed(result)


def nested(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def cyclic():
    value = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        pytest.param(object(), "result: is of type object (", id="not JSON at all"),
        pytest.param({"rows": [1, {"x": {1j}}]}, "result.rows[1].x[0]: is of type complex (", id="deep inside"),
        pytest.param([Row("a", math.nan)], "result[0].score: is nan, which", id="nan, which is written as null"),
        pytest.param({"a": None, "b": -math.inf}, "result.b: is -inf, which", id="an infinity beside a null"),
        pytest.param({("a", 1): 2}, "result: TypeError: ", id="keys that are no text"),
        pytest.param("\ud800", "result: is of type str (UnicodeEncodeError: ", id="half a character"),
        pytest.param(nested(101), "result: is nested too deeply", id="too deep for a run document"),
        pytest.param(nested(100_000), "result: is nested too deeply", id="too deep to look at"),
        pytest.param(cyclic(), "result: is nested too deeply, or contains itself", id="a cycle"),
        pytest.param([cyclic, cyclic()], "result[0]: is of type function", id="a cycle behind something worse"),
        pytest.param([{"a": cyclic()}, object()], "result: is nested too deeply", id="a cycle before it"),
    ],
)
def test_a_result_that_is_no_json_fails_the_attempt_and_says_what_is_wrong_where(caller, returned, words):
    outcome = caller.run(caller.launch_of(lambda: returned))
    assert outcome.error.error_type == "Task.BadResult"
    assert outcome.error.message.startswith(words)
    assert ";" in outcome.error.message


def test_results_of_a_hundred_levels_are_allowed(caller):
    assert caller.run(caller.launch_of(lambda: nested(100))).kind is OutcomeKind.COMPLETED


def raising(exc):
    def function():
        raise exc

    return function


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("never mind")


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        pytest.param(ValueError("no rows"), "ValueError: no rows", id="an exception"),
        pytest.param(ValueError(), "ValueError", id="without a message"),
        pytest.param(SystemExit(3), "SystemExit: 3", id="sys.exit ends the attempt, not the orchestrator"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="so does an interrupt of its own making"),
        pytest.param(Unspeakable(), "Unspeakable: (its message cannot be shown)", id="one that cannot be told"),
        pytest.param(ValueError("\ud800"), "ValueError: ?", id="half a character, which no document holds"),
        pytest.param(ValueError("x" * 9000), f"ValueError: {'x' * 3988}…", id="an endless one is cut off"),
    ],
)
def test_what_a_function_raises_fails_the_attempt(caller, exc, message):
    assert caller.run(caller.launch_of(raising(exc))) == Outcome.failed("Task.Failed", message)
    assert caller.run(caller.launch_of("Tools.add", a=1, b=2)) == Outcome.completed(3)


def test_the_traceback_goes_to_the_log_at_debug(caller, caplog):
    with caplog.at_level(logging.DEBUG, "orchestrator.targets.function"):
        caller.run(caller.launch_of(raising(ValueError("no rows"))))
    assert f"run_id={RUN_ID} node=Step1: the function raised\nTraceback" in caplog.text


@pytest.mark.parametrize(
    ("function", "words"),
    [
        pytest.param(None, "Step1: function is None; it must be of the form package.module:callable", id="missing"),
        pytest.param(7, "Step1: function is 7; it must be", id="no text"),
        pytest.param("math.sqrt", "Step1: function is 'math.sqrt'; it must be", id="without a colon"),
        pytest.param(":f", "Step1: function is ':f'; it must be", id="without a module"),
        pytest.param(".math:f", "Step1: function is '.math:f'; it must be", id="relative to nothing"),
        pytest.param("math:sqroot", "Step1: math:sqroot: math has no sqroot; a callable", id="no such attribute"),
        pytest.param("math:pi", "Step1: math:pi: is of type float; a callable was expected", id="not callable"),
        pytest.param(
            "no_such_module:f",
            "Step1: no_such_module:f: module no_such_module cannot be imported, ModuleNotFoundError: No module",
            id="no such module",
        ),
        pytest.param(
            "broken_module_of_these_tests:f",
            "Step1: broken_module_of_these_tests:f: module broken_module_of_these_tests cannot be imported, RuntimeErr",
            id="a module that raises",
        ),
        pytest.param(
            "leaving_module_of_these_tests:f",
            "Step1: leaving_module_of_these_tests:f: module leaving_module_of_these_tests cannot be imported, SystemEx",
            id="a module that leaves",
        ),
    ],
)
@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_function_that_cannot_be_found_is_refused(caller, function, words, worker):
    step = {"worker": worker} if function is None else {"function": function, "worker": worker}
    launch = Launch("Step1", "Function", "add", {}, step, run_id=RUN_ID, nonce=NONCE)
    with pytest.raises(LaunchRefused) as refused:
        caller.target.launch(launch)
    assert refused.value.error_type == "Function.NotFound"
    assert str(refused.value).startswith(words)
    assert caller.target.find(launch) is None


def test_a_function_may_change_its_parameters_and_no_other_attempt_sees_it(caller):
    def spoil(rows, options):
        rows.append(4)
        options["deep"]["list"].clear()
        return rows

    launch = caller.launch_of(spoil, rows=[1, 2, 3], options={"deep": {"list": [1]}})
    assert caller.run(launch) == Outcome.completed([1, 2, 3, 4])
    assert launch.parameters == {"rows": [1, 2, 3], "options": {"deep": {"list": [1]}}}


def test_the_event_says_everything(caller):
    good, bad = caller.launch_of("Tools.add", a=1, b=2), caller.launch_of("Tools.add", a=1)
    caller.target.launch(good)
    event = caller.events.get(timeout=60)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "resource": {"type": "function", "labels": {"function_name": "add"}},
        "launch_id": f"{RUN_ID}/Step1/1",
        "nonce": NONCE,
        "execution_id": f"host-1.{good.key}",
        "status": "Completed",
        "result": 3,
    }
    caller.target.launch(bad)
    event = caller.events.get(timeout=60)
    assert event["status"] == "Failed"
    assert "result" not in event
    assert event["error"]["error_type"] == "Task.Failed"
    assert event["error"]["message"].startswith("TypeError: ")


@pytest.mark.parametrize(
    ("execution_id", "kind"),
    [
        pytest.param("host-1.orch-a", OutcomeKind.LOST, id="ours, and we do not have it"),
        pytest.param("dead.orch-a", OutcomeKind.LOST, id="its host is gone"),
        pytest.param("living.orch-a", None, id="its host lives"),
        pytest.param("unheard-of.orch-a", None, id="nobody can tell"),
    ],
)
def test_the_outcome_of_what_is_not_ours_depends_on_its_host(caller, execution_id, kind):
    outcome = caller.target.outcome(Execution(execution_id))
    assert (outcome and outcome.kind) == kind


def test_what_a_run_has_left_is_forgotten_with_it(caller):
    launches = [caller.launch_of("echo") for _ in range(3)]
    for launch in launches:
        caller.run(launch)
    caller.target.forget(RUN_ID)
    caller.target.forget("another_run")
    assert [caller.target.find(launch) for launch in launches] == [None] * 3
    assert (caller.target._entries, caller.target._keys) == ({}, {})


# ---- workers --------------------------------------------------------------------------------------------


def test_functions_run_side_by_side_up_to_the_limit_and_no_further():
    caller, gate, running = Caller(workers=3), Event(), SimpleQueue()

    def work():
        running.put(current_thread().name)
        gate.wait(10)

    launches = [caller.launch_of(work) for _ in range(5)]
    for launch in launches:
        caller.target.launch(launch)
    names = {running.get(timeout=60) for _ in range(3)}
    time.sleep(0.05)
    assert len(names) == 3
    assert running.empty()
    gate.set()
    for _ in launches:
        caller.events.get(timeout=60)
    caller.target.close()


@pytest.mark.parametrize("worker", ["thread", "process"])
def test_a_function_that_waits_for_a_worker_can_be_taken_back_and_one_that_runs_cannot(tmp_path, worker):
    caller, gate, mark = Caller(workers=1, processes=1), tmp_path / "gate", tmp_path / "begun"
    step = {"worker": worker}
    first = caller.launch_of("wait_for", step, path=str(gate), mark=str(mark))
    second = caller.launch_of("wait_for", step, path=str(gate), mark=str(tmp_path / "never"))
    caller.target.launch(first)
    execution = caller.target.launch(second)
    assert until(mark.exists)
    assert [caller.target.withdraw(launch) for launch in (first, second, second)] == [False, True, False]
    assert caller.target.outcome(execution).kind is OutcomeKind.CANCELLED
    gate.touch()
    assert caller.events.get(timeout=60)["launch_id"] == first.launch_id
    assert caller.run(caller.launch_of("echo", step, a=1)) == Outcome.completed({"a": 1})
    assert not (tmp_path / "never").exists()
    caller.target.close()


def test_an_idle_worker_is_used_before_another_one_is_made(caller):
    caller.run(caller.launch_of("echo"))
    threads = active_count()
    for _ in range(50):
        caller.run(caller.launch_of("echo"))
        # the worker is idle only when it has come back from publishing, which a test cannot see
        time.sleep(0.001)
    assert active_count() <= threads + 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_chain_that_is_launched_from_within_the_workers_never_waits_for_itself(workers):
    done, length = Event(), 300

    def publish(event):
        number = int(event["launch_id"].split("/")[1][1:])
        if number == length:
            done.set()
        for _ in range(2):  # the second one is a duplicate
            target.launch(step(number + 1))

    def step(number):
        return Launch(f"n{number}", "Function", "add", {}, {"function": f"{MODULE}:echo"}, run_id=RUN_ID, nonce=NONCE)

    target = FunctionTarget(publish, Alive(), "host-1", workers=workers)
    target.launch(step(0))
    assert done.wait(60)
    target.close()


def test_a_worker_goes_on_when_the_event_is_not_taken(caplog):
    caller = Caller(workers=1)
    target, put, fails = caller.target, caller.events.put, iter([True, False])

    def publish(event):
        put(event)
        if next(fails):
            raise OSError("no bus")

    target._publish = publish
    first = caller.launch_of("echo", a=1)
    assert caller.run(first) == Outcome.completed({"a": 1})
    assert caller.run(caller.launch_of("echo", a=2)) == Outcome.completed({"a": 2})
    assert f"run_id={RUN_ID} node=Step1: the event of its end was not taken" in caplog.text
    target.close()


def test_a_function_that_no_thread_can_be_had_for_can_be_launched_again(caller, monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    target, launch = caller.target, caller.launch_of(lambda: 5)
    with monkeypatch.context() as machine:
        machine.setattr(workers.Thread, "start", refused)
        with pytest.raises(LaunchUncertain, match="no thread"):
            target.launch(launch)
    assert target.find(launch) is None
    assert caller.run(launch) == Outcome.completed(5)
    assert caller.events.empty()


def test_a_closed_target_begins_nothing(caller):
    caller.target.close()
    for launch in (caller.launch_of("echo"), caller.in_process("echo")):
        with pytest.raises(LaunchUncertain):
            caller.target.launch(launch)
        assert caller.target.find(launch) is None


def test_closing_waits_for_nobody():
    caller, gate, ended = Caller(), Event(), []

    def waits():
        gate.wait(30)
        ended.append(gate.is_set())

    caller.target.launch(caller.launch_of(waits))
    caller.target.close()
    assert ended == []
    gate.set()


NEVER_ENDS = f"""
import sys, time
from pathlib import Path
from orchestrator.model.commands import Launch
from orchestrator.targets.function import FunctionTarget

def launch(target, name, reference, worker, **parameters):
    step = {{"function": reference, "worker": worker}}
    target.launch(Launch(name, "Function", "f", parameters, step, run_id="r", nonce="n"))

# no `if __name__` around it: a worker process must not import this script
target = FunctionTarget(print, None, "host-1")
launch(target, "A", "{MODULE}:hold", "thread", path=sys.argv[1] + "/thread.lock")
launch(target, "B", "{MODULE}:hold", "process", path=sys.argv[1] + "/process.lock")
while not Path(sys.argv[1], "process.lock").exists():
    time.sleep(0.01)
print("running", flush=True)
if sys.argv[2] == "wait":
    time.sleep(600)
"""


@pytest.fixture
def never_ends(tmp_path):
    """Start a program with two functions that never end, one in a thread and one in a process."""
    started = []

    def start(then):
        script = tmp_path / "never_ends.py"
        script.write_text(NEVER_ENDS)
        environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"}
        program = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), then], stdout=subprocess.PIPE, env=environment
        )
        started.append(program)
        assert program.stdout.readline() == b"running\n"
        return program

    yield start
    for program in started:
        program.kill()
        program.wait()
        program.stdout.close()


def test_functions_that_never_return_do_not_keep_the_process_from_ending(never_ends, tmp_path):
    program = never_ends("end")
    assert program.wait(60) == 0
    assert program.stdout.read() == b""  # "running" was said once
    assert until(lambda: is_free(tmp_path / "process.lock"), 5)


def test_a_worker_process_dies_with_its_parent_even_by_kill_9(never_ends, tmp_path):
    program = never_ends("wait")
    assert not is_free(tmp_path / "process.lock")
    program.kill()
    assert until(lambda: is_free(tmp_path / "process.lock"), 5)


def is_free(lock):
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# ---- worker processes -----------------------------------------------------------------------------------


def test_worker_processes_call_functions_as_threads_do(caller):
    assert caller.run(caller.in_process("echo", a=[1])) == Outcome.completed({"a": [1]})
    first, second = (caller.run(caller.in_process("pid")).result for _ in range(2))
    assert os.getpid() not in (first, second)
    assert caller.run(caller.in_process("leave")) == Outcome.failed("Task.Failed", "SystemExit: enough")
    strange = caller.run(caller.in_process("strange"))
    assert strange.error.error_type == "Task.BadResult"
    assert strange.error.message.startswith("result.rows[1]: is of type object")


@pytest.mark.parametrize(
    ("parameters", "how"),
    [
        pytest.param({}, "was killed by SIGKILL (out of memory?)", id="killed"),
        pytest.param({"code": 3}, "exited with 3", id="os._exit"),
    ],
)
def test_a_crash_of_a_worker_process_is_that_attempts_alone(caller, tmp_path, parameters, how):
    gate, mark = tmp_path / "gate", tmp_path / "mark"
    other = caller.in_process("wait_for", path=str(gate), mark=str(mark))
    caller.target.launch(other)
    assert until(mark.exists)
    crash = caller.in_process("crash", **parameters)
    message = f"{MODULE}:crash: its process {how}"
    assert caller.run(crash) == Outcome.failed("Task.Crashed", message)
    assert caller.target.outcome(caller.target.find(other)) is None
    assert caller.run(caller.in_process("echo")) == Outcome.completed({})
    gate.touch()
    caller.events.get(timeout=60)
    assert caller.target.outcome(caller.target.find(other)) == Outcome.completed("seen")


def test_a_worker_process_that_died_while_idle_is_replaced(caller):
    pids = {caller.run(caller.in_process("pid")).result for _ in range(3)}
    for pid in pids:
        os.kill(pid, 9)
    assert until(lambda: not any(child.is_alive() for child in caller.target._children))
    assert caller.run(caller.in_process("pid")).result not in pids


def test_what_close_kills_is_not_told_as_failed(caller, tmp_path):
    mark = tmp_path / "mark"
    launch = caller.in_process("wait_for", path=str(tmp_path / "never"), mark=str(mark))
    execution = caller.target.launch(launch)
    assert until(mark.exists)
    caller.target.close()
    assert until(lambda: not any(child.is_alive() for child in caller.target._children))
    time.sleep(0.05)
    assert caller.events.empty()
    assert caller.target.outcome(execution) is None
