"""The local targets, set up alike: one piece of work that each of them runs from its own kind of source.

The work appends a line to `tally`, holds a lock on `<tally>.lock` as long as its process lives, waits until the
file `gate` exists (if one is named), raises if `fail` is given, and else returns {"rows": 3}.
"""

import fcntl
import json
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from threading import Condition, Event, Thread

from orchestrator.model.commands import Launch
from orchestrator.runtime.clock import SystemClock
from orchestrator.targets.function import FunctionTarget
from orchestrator.targets.local_cloud_function import LocalCloudFunction
from orchestrator.targets.local_dataflow import LocalDataflow
from orchestrator.testing.fake_target import FakeTarget
from orchestrator.testing.real_steps import RealSteps, really
from orchestrator.testing.virtual_time import Agenda

NONCE = "9f86d081884c7d659a2feaa0c55ad015"
RUN_ID = "run_1639322384_5c1e9f0b2a47"

WORK = """
import fcntl, os, time

def work(tally, gate=None, fail=False):
    with open(tally, "a") as file:
        file.write("x")
    lock = os.open(f"{tally}.lock", os.O_RDWR | os.O_CREAT)  # never closed
    fcntl.flock(lock, fcntl.LOCK_SH)
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    if fail:
        raise ValueError("no rows")
    return {"rows": 3}
"""

CLOUD_FUNCTION = """
from work import work  # a sibling in the function's own folder

def main(request):
    return work(**request.get_json())
"""

PIPELINE = """
import argparse, json, sys

parser = argparse.ArgumentParser()
parser.add_argument("--runner", required=True)
parser.add_argument("--job_name", required=True)
parser.add_argument("--tally", required=True)
parser.add_argument("--gate")
parser.add_argument("--fail", type=json.loads, default=False)
options = parser.parse_args()
work(options.tally, options.gate, options.fail)
"""


class Bench:
    """One target, the folder that its sources lie in, and everything that it published."""

    def __init__(self, kind: "Kind", folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.events: list[dict] = []
        self.known: list[bool] = []  # whether the outcome was known when the event came
        self._news, self._names = Condition(), count()
        write_sources(folder)
        self.target = kind.make(self, self.publish)

    def launch_of(self, **parameters) -> Launch:
        """A launch that was never launched. Its work leaves its tally in `tally_of(launch)`."""
        name = f"Step{next(self._names)}"
        parameters = {"tally": str(self.folder / f"{name}.tally"), **parameters}
        step = {"function": f"{self.module}:work"} if self.kind.is_function else {}
        if self.kind.in_process:
            step["worker"] = "process"
        return Launch(
            name, self.kind.target_type, "orch_test_1", parameters, step, dag="sample", run_id=RUN_ID, nonce=NONCE
        )

    @property
    def module(self) -> str:
        return f"work_{self.folder.name.replace('-', '_')}"

    def publish(self, event) -> None:
        with self._news:
            self.events.append(json.loads(json.dumps(event)))
            self._news.notify_all()

    def events_of(self, launch: Launch) -> list[dict]:
        return [event for event in self.events if self.kind.mark(launch) in json.dumps(event)]

    def last_event(self, launch: Launch, within_s: float = 60.0) -> dict:
        """Wait for the event after which no other one comes, and return it."""

        def is_last(event) -> bool:
            return event.get("textPayload", "Worker pool stopped.") == "Worker pool stopped." or self.kind.ends_at_once

        with self._news:
            assert self._news.wait_for(lambda: any(map(is_last, self.events_of(launch))), within_s), "no event"
        return self.events_of(launch)[-1]

    def run(self, launch: Launch):
        """Launch, wait for the end, return the outcome."""
        execution = self.target.launch(launch)
        self.last_event(launch)
        return self.target.outcome(execution)


class Kind:
    """A row of the table of adapters."""

    def __init__(
        self,
        target_type: str,
        make: Callable,
        mark: Callable[[Launch], str],
        *,
        in_process: bool = False,
        can_cancel: bool = False,
    ) -> None:
        self.target_type, self.make, self.mark, self.in_process = target_type, make, mark, in_process
        self.can_cancel = can_cancel
        self.is_function = target_type == "Function"
        self.ends_at_once = target_type != "Dataflow"


class Alive:
    """Hosts as a dict tells."""

    def __init__(self, **alive: bool) -> None:
        self._alive = alive

    def is_alive(self, instance: str) -> bool | None:
        return self._alive.get(instance)


def make_function(bench, publish):
    return FunctionTarget(publish, Alive(), "host-1")


def make_cloud_function(generation):
    def make(bench, publish):
        folders = {"sample": bench.folder / "sample"}
        return LocalCloudFunction(folders, publish, bench.folder / "attempts", generation=generation)

    return make


def make_dataflow(bench, publish):
    return LocalDataflow({"sample": bench.folder / "sample"}, publish, bench.folder / "attempts")


class RealTime:
    """An agenda at the time of this machine, run by a thread until it is closed."""

    def __init__(self) -> None:
        self.agenda, self._is_over = Agenda(SystemClock()), Event()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.001):
            while self.agenda.run_next():
                pass

    def close(self) -> None:
        self._is_over.set()
        self._thread.join()


class RunningFake(FakeTarget):
    """A fake whose executions run the step's own code, as time goes by."""

    def __init__(self, publish) -> None:
        self._time = RealTime()
        really_run = RealSteps({}).bound(really().after("1ms"))
        super().__init__(self._time.agenda, publish, lambda launch: really_run, can_cancel=False)

    def close(self) -> None:
        self._time.close()


def make_fake(bench, publish):
    return RunningFake(publish)


KINDS = {
    "function": Kind("Function", make_function, lambda launch: launch.launch_id),
    "function in a process": Kind("Function", make_function, lambda launch: launch.launch_id, in_process=True),
    "cloud function": Kind("CloudFunction", make_cloud_function(2), lambda launch: launch.trace_id),
    "cloud function, 1st gen": Kind("CloudFunction", make_cloud_function(1), lambda launch: launch.trace_id),
    "dataflow": Kind("Dataflow", make_dataflow, lambda launch: launch.key, can_cancel=True),
    "fake": Kind("Function", make_fake, lambda launch: launch.launch_id),
}


def write_sources(folder: Path) -> None:
    """Write the work as a module, as a Cloud Function and as a pipeline."""
    functions, pipelines = folder / "sample/functions/orch_test_1", folder / "sample/pipelines"
    functions.mkdir(parents=True, exist_ok=True)
    pipelines.mkdir(exist_ok=True)
    (folder / f"work_{folder.name.replace('-', '_')}.py").write_text(WORK)
    (functions / "work.py").write_text(WORK)
    (functions / "main.py").write_text(CLOUD_FUNCTION)
    (pipelines / "orch_test_1.py").write_text(WORK + PIPELINE)


def tally_of(launch: Launch) -> int:
    """How often the launch's work was begun."""
    tally = Path(launch.parameters["tally"])
    return len(tally.read_text()) if tally.exists() else 0


def is_work_alive(launch: Launch) -> bool:
    """Whether the process in which the launch's work was begun still lives."""
    with open(f"{launch.parameters['tally']}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def until(is_so: Callable[[], object], within_s: float = 60.0) -> bool:
    """Wait until it is so; False if it does not become so in time."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
