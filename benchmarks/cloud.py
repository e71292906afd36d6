"""Measure what the engine adds in the cloud: several instances over a Cloud Storage that takes 30 ms a call.

    make bench-cloud

Real time, real threads, the engine and the CloudFunction target of the cloud. Simulated are the store (30 ms a call; a
name takes one write a second and three in a row, more are answered 429 and backed off from as GcsStore does), the
queue (30 ms a call), and the functions, which only last. Log entries are delivered to any instance at random, each on
a thread of its own, at once when a function has ended. Instances of one process share one lock of the interpreter.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from threading import Condition, Lock, Thread
from urllib.parse import parse_qs, urlsplit

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.results import Results
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Json, Outcome
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.ids import execution_id_of
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.policy import QUESTIONS_AT_ONCE
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_log import Call, End, gen2_entry

OUT = Path(__file__).parent / "out"
CALL_S = 0.03
BURST = 3
CONCURRENCY = 200
"""Requests at once that an instance takes, as terraform/ deploys it."""
INSTANCES = 3


class SlowBucket:
    """A store as Cloud Storage is one: each call takes 30 ms, and a name takes one write a second."""

    write_interval_s = 1.0

    def __init__(self) -> None:
        self._store, self._lock = MemoryStore(), Lock()
        self._due: dict[str, float] = {}
        self.written: dict[str, list[float]] = {}
        self.calls = Counter[str]()
        self.refused = self.lost = 0

    def get(self, key: str) -> tuple[bytes, str] | None:
        """See ports.ObjectStore."""
        self._call("get")
        return self._store.get(key)

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """See ports.ObjectStore; 429 is backed off from as the client does it."""
        begun, wait_s = time.monotonic(), 0.2
        while True:
            self._call("put")
            if not self._is_at(key, expect):
                self.lost += 1  # a precondition that fails is no mutation of the object
                raise VersionConflict(f"{key}: version is another one")
            if self._takes(key):
                version = self._store.put(key, data, expect=expect)
                with self._lock:
                    self.written.setdefault(key, []).append(time.monotonic())
                return version
            if time.monotonic() - begun > 20.0:
                raise StoreUnavailable(f"{key}: cannot be written: 429")
            time.sleep(random.uniform(0.0, wait_s))
            wait_s = min(4.0, 2 * wait_s)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """See ports.ObjectStore."""
        self._call("list")
        return self._store.list(prefix, start_after=start_after)

    def delete(self, key: str) -> None:
        """See ports.ObjectStore."""
        self._call("delete")
        self._store.delete(key)

    def _call(self, kind: str) -> None:
        with self._lock:
            self.calls[kind] += 1
        time.sleep(CALL_S)

    def _is_at(self, key: str, expect: str | None) -> bool:
        found = self._store.get(key)
        return (None if found is None else found[1]) == expect

    def _takes(self, key: str) -> bool:
        with self._lock:
            now = time.monotonic()
            due = max(now, self._due.get(key, now))
            if due - now > (BURST - 1) * self.write_interval_s:
                self.refused += 1
                return False
            self._due[key] = due + self.write_interval_s
            return True

    def counted(self) -> dict[str, object]:
        """What was written, how often one name within any second at the most, and what was refused."""
        return {
            "writes": sum(len(times) for times in self.written.values()),
            "most_writes_of_a_name_in_1_s": self.most_writes(1.0),
            "answered_429": self.refused,
            "lost_races": self.lost,
        }

    def most_writes(self, window_s: float) -> int:
        """How often a name was written at the most within any such time, wherever that begins."""
        most = 0
        for times in self.written.values():
            recent = deque[float]()
            for at in sorted(times):
                recent.append(at)
                while at - recent[0] >= window_s:
                    recent.popleft()
                most = max(most, len(recent))
        return most


class Later:
    """Does things at their times, each on a thread of its own."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, "event")
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        self._order, self._changed = count(), Condition(Lock())
        Thread(target=self._run, daemon=True).start()

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Have `do` called at a time of time.monotonic()."""
        with self._changed:
            heappush(self._entries, (when, next(self._order), do))
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._entries or self._entries[0][0] > time.monotonic():
                    left_s = self._entries[0][0] - time.monotonic() if self._entries else None
                    self._changed.wait(left_s)
                do = heappop(self._entries)[2]
            self._pool.submit(do)


@dataclass
class Seen:
    """What is measured of one run: times of time.monotonic()."""

    delivered: dict[str, float] = field(default_factory=dict)
    """Node -> when its function's event was handed to an instance."""
    launched: dict[str, float] = field(default_factory=dict)
    """Node -> when the call that launches it began."""
    handled: list[tuple[float, float]] = field(default_factory=list)


class World:
    """Instances over one store; functions last as long as `lasts` says of a node's name."""

    def __init__(
        self, definitions: Mapping[str, Mapping[str, Json]], lasts: Callable[[str], float], instances: int
    ) -> None:
        self.store = SlowBucket()
        self.seen: dict[str, Seen] = {}
        self.problems: list[str] = []
        self._lasts = lasts
        self._later = Later(CONCURRENCY * instances)
        self._busy: list[list[tuple[float, float]]] = [[] for _ in range(instances)]
        catalog = Catalog(definitions)
        self.instances = [self._instance(catalog, f"instance{number}") for number in range(instances)]

    def _instance(self, catalog: Catalog, name: str) -> DAGExecutor:
        results = Results(self.store)
        target = CloudFunction(
            self,  # type: ignore[arg-type]  # as much of a queue as is used
            project="p",
            region="r",
            invoker_service_account="invoker@p.iam.gserviceaccount.com",
            results=results.ask,
            told=results.told,
        )
        policy = Policy(
            {"CloudFunction": TargetRules(launch_limit_s=target.launch_limit_s)},
            questions_at_once=QUESTIONS_AT_ONCE,
            save_interval_s=self.store.write_interval_s,
        )
        return DAGExecutor(
            catalog,
            store=self.store,
            targets={"CloudFunction": target},
            broker=self,
            clock=SystemClock(),
            hosts=UnknownHosts(),
            instance=name,
            policy=policy,
            random_bytes=os.urandom,
            sleep=time.sleep,
        )

    def start(self, dag: str, run_id: str) -> None:
        """Start a run; its message goes to any instance."""
        self.seen[run_id] = Seen()
        self._later.at(
            time.monotonic(), lambda: self._deliver({"resource": {"type": "start"}, "dag": dag, "run_id": run_id})
        )

    def wait(self, run_id: str, timeout_s: float) -> RunState:
        """Return a run as it ended."""
        until = time.monotonic() + timeout_s
        status = OrchestrationStatus(self.store._store, run_id)  # without a call's time
        while time.monotonic() < until:
            loaded = status.load()
            if loaded is not None and loaded[0].run.status.is_final:
                return loaded[0]
            time.sleep(0.02)
        raise TimeoutError(run_id)

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        """See ports.Broker."""
        self._later.at(time.monotonic() + delay_s, lambda: self._deliver(event))
        return "m"

    def create(self, name_key: str, *, url: str, headers: Mapping[str, str], body: bytes, **_more: object) -> bool:
        """Cloud Tasks: the function is called at once."""
        begun, now = time.monotonic(), datetime.now(UTC)
        parts = urlsplit(url)
        run_id, node, _attempt = parse_qs(parts.query)["orchestrator_launch"][0].split("/")
        self.seen[run_id].launched.setdefault(node, begun)
        time.sleep(CALL_S)
        _, trace_id, span_id, _ = headers["traceparent"].split("-")
        call = Call("p", "r", parts.path[1:], execution_id_of(name_key), trace_id, span_id, f"/?{parts.query}", body)
        lasts_s = self._lasts(node)
        entry = gen2_entry(call, End(200, Outcome.completed()), now, lasts_s, datetime.now(UTC))
        self._later.at(begun + lasts_s, lambda: self._deliver(entry, run_id, node))
        return True

    def dispatches(self, name_key: str) -> None:
        """Nothing waits in the queue."""
        del name_key

    def _deliver(self, event: Mapping[str, Json], run_id: str = "", node: str = "") -> None:
        number = random.randrange(len(self.instances))
        begun = time.monotonic()
        if run_id:
            self.seen[run_id].delivered.setdefault(node, begun)
        for _ in range(30):
            try:
                self.instances[number].execute(event, message_id=f"{random.random()}", publish_time=datetime.now(UTC))
                break
            except Exception as exc:
                self.problems.append(f"{type(exc).__name__}: {exc}")
                time.sleep(0.5)
        self._busy[number].append((begun, time.monotonic()))

    @property
    def billed_s(self) -> float:
        """How long instances were at work, all together."""
        total = 0.0
        for busy in self._busy:
            until = 0.0
            for begun, end in sorted(busy):
                total += max(0.0, end - max(begun, until))
                until = max(until, end)
        return total


def step(name: str, following: str | None = None) -> dict[str, Json]:
    """A step whose function is called by the queue."""
    found: dict[str, Json] = {"type": "Task", "target_type": "CloudFunction", "target_name": name.lower()}
    return {**found, "next": following} if following else found


def chain(length: int) -> dict[str, Json]:
    """Steps one after another."""
    names = [f"S{number}" for number in range(length)]
    following = [*names[1:], None]
    return {"start": names[0], "steps": {n: step(n, after) for n, after in zip(names, following, strict=True)}}


def join(width: int) -> dict[str, Json]:
    """So many side by side, then one."""
    names = [f"B{number}" for number in range(width)]
    branches: list[Json] = [{"start": name, "steps": {name: step(name)}} for name in names]
    return {
        "start": "All",
        "steps": {"All": {"type": "Parallel", "branches": branches, "next": "Last"}, "Last": step("Last")},
    }


def spread_of(values_s: list[float]) -> dict[str, object]:
    """Median, 95th percentile and longest of what was added, in seconds."""
    in_order = sorted(values_s)
    return {
        "measured": len(in_order),
        "median_s": statistics.median(in_order),
        "p95_s": in_order[min(len(in_order) - 1, int(len(in_order) * 0.95))],
        "longest_s": in_order[-1],
    }


def transitions(instances: int, runs: int, length: int) -> dict[str, object]:
    """From the event of a step's end to the call that launches the next step."""
    world = World({"chain": chain(length)}, lambda _: random.uniform(1.5, 3.0), instances)
    for number in range(runs):
        world.start("chain", f"run{number}")
        time.sleep(3.0 / runs)
    for number in range(runs):
        assert world.wait(f"run{number}", 60.0 + 5 * length).run.status == "Completed"
    added = [
        seen.launched[f"S{number + 1}"] - seen.delivered[f"S{number}"]
        for seen in world.seen.values()
        for number in range(length - 1)
    ]
    return {
        "instances": instances,
        **spread_of(added),
        **world.store.counted(),
        "calls_a_transition": sum(world.store.calls.values()) / len(added),
        "billed_s_a_transition": world.billed_s / len(added),
        "problems": world.problems[:3],
    }


def joins(instances: int, runs: int, width: int) -> dict[str, object]:
    """From the event of the last of several that end at once, to the call that launches what follows."""
    added = []
    world = World({"join": join(width)}, lambda _: 3.0, instances)
    for number in range(runs):
        run_id = f"run{number}"
        world.start("join", run_id)
        assert world.wait(run_id, 120.0).run.status == "Completed"
        seen = world.seen[run_id]
        added.append(seen.launched["Last"] - max(at for name, at in seen.delivered.items() if name != "Last"))
    return {
        "instances": instances,
        "width": width,
        **spread_of(added),
        **world.store.counted(),
        "problems": world.problems[:3],
    }


def fan_ins(instances: int, runs: int, width: int) -> dict[str, object]:
    """A thousand functions that end within five seconds: what the run takes longer than the longest of them."""
    lasts = {f"B{number}": random.Random(number).uniform(5.0, 10.0) for number in range(width)} | {"Last": 0.0}
    world = World({"join": join(width)}, lasts.__getitem__, instances)
    took, longest_s = [], max(lasts.values())
    for number in range(runs):
        begun = time.monotonic()
        world.start("join", f"run{number}")
        state = world.wait(f"run{number}", 300.0)
        took.append(time.monotonic() - begun)
        assert state.run.status == "Completed"
    return {
        "instances": instances,
        "width": width,
        "ideal_s": longest_s,
        **spread_of([took_s - longest_s for took_s in took]),
        **world.store.counted(),
        "saves": len(world.store.written["runs/run0.json"]),
        "problems": world.problems[:3],
    }


AIMS: Mapping[str, tuple[Mapping[str, float], int]] = {
    "transitions of one instance": ({"median_s": 0.1, "p95_s": 0.3}, 1000),
    f"transitions of {INSTANCES} instances": ({"median_s": 0.1, "p95_s": 0.3}, 1000),
    "joins": ({"longest_s": 0.5}, 1),
    "fan-ins": ({"longest_s": 10.0}, 1),
}
"""What may be added, and what the unit of the row is of a second."""

MOST_WRITES = 1
"""So often a name may be written within any second, in the fan-in."""


def table(result: dict[str, dict[str, object]]) -> str:
    """Return the result as text: what was added beside its aim, and what was written."""
    lines = [f"{'added':34}{'median':>9}{'p95':>9}{'longest':>9}{'writes':>9}{'in 1 s':>8}{'429':>6}  aim"]
    for key, (aims, unit) in AIMS.items():
        found = result[key]
        figures = "".join(_shown(found[name], unit) for name in ("median_s", "p95_s", "longest_s"))
        verdicts = [f"{name[:-2]} {_shown(aim, unit).strip()}" for name, aim in aims.items()]
        is_missed = any(_number(found[name]) > aim for name, aim in aims.items())
        most = _number(found["most_writes_of_a_name_in_1_s"])
        if key == "fan-ins":
            verdicts.append(f"{MOST_WRITES} in 1 s")
            is_missed = is_missed or most > MOST_WRITES
        counted = f"{found['writes']!s:>9}{most:>8.0f}{found['answered_429']!s:>6}"
        width = f" of {found['width']}" if "width" in found else ""
        verdict = "MISSED" if is_missed else "reached"
        lines.append(
            f"{found['measured']} {key}{width}".ljust(34) + f"{figures}{counted}  {', '.join(verdicts)}: {verdict}"
        )
    lines.append("in 1 s: how often one name was written within any second, at the most; 429: what was answered so")
    return "\n".join(lines)


def _number(value: object) -> float:
    assert isinstance(value, float | int)
    return float(value)


def _shown(value: object, unit: int) -> str:
    return f"{_number(value) * unit:.0f} ms".rjust(9) if unit == 1000 else f"{_number(value):.2f} s".rjust(9)


def main() -> None:
    """Parse the command line, measure, print and write benchmarks/out/cloud.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.cloud", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="chains at once (default 20)")
    parser.add_argument("--length", type=int, default=20, help="steps of a chain (default 20)")
    parser.add_argument("--joins", type=int, default=20, help="joins (default 20)")
    parser.add_argument("--fan-ins", type=int, default=3, help="fan-ins (default 3)")
    parser.add_argument("--width", type=int, default=1000, help="width of a fan-in (default 1000)")
    args = parser.parse_args()
    result = {
        "transitions of one instance": transitions(1, args.runs, args.length),
        f"transitions of {INSTANCES} instances": transitions(INSTANCES, args.runs, args.length),
        "joins": joins(INSTANCES, args.joins, 16),
        "fan-ins": fan_ins(INSTANCES, args.fan_ins, args.width),
    }
    OUT.mkdir(exist_ok=True)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    (OUT / "cloud.json").write_text(json.dumps({"machine": machine, **result}, indent=2) + "\n")
    print(machine, table(result), "", sep="\n")
    for name, found in result.items():
        print(name, json.dumps({key: round(v, 3) if isinstance(v, float) else v for key, v in found.items()}))
    os._exit(0)  # threads that wait for what is not to come


if __name__ == "__main__":
    main()
