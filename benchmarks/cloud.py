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
from orchestrator.runtime.executor import QUESTIONS_AT_ONCE
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

    def most_writes(self, window_s: float) -> int:
        """How often a name was written at the most within any such time."""
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

    def __init__(self, definitions: Mapping[str, Json], lasts: Callable[[str], float], instances: int) -> None:
        self.store = SlowBucket()
        self.seen: dict[str, Seen] = {}
        self.problems: list[str] = []
        self._lasts = lasts
        self._later = Later(CONCURRENCY * instances)
        self._busy: list[list[tuple[float, float]]] = [[] for _ in range(instances)]
        catalog = Catalog(definitions)  # type: ignore[arg-type]
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
            records_all=False,
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

    def create(self, name_key: str, *, url: str, headers: Mapping[str, str], body: bytes, **_: object) -> bool:
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

    def dispatches(self, name_key: str) -> int | None:
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


def transitions(instances: int, runs: int, length: int) -> dict[str, object]:
    """From the event of a step's end to the call that launches the next step."""
    world = World({"chain": chain(length)}, lambda _: random.uniform(1.5, 3.0), instances)
    for number in range(runs):
        world.start("chain", f"run{number}")
        time.sleep(3.0 / runs)
    for number in range(runs):
        assert world.wait(f"run{number}", 60.0 + 5 * length).run.status == "Completed"
    added = [
        (seen.launched[f"S{number + 1}"] - seen.delivered[f"S{number}"]) * 1e3
        for seen in world.seen.values()
        for number in range(length - 1)
    ]
    added.sort()
    return {
        "instances": instances,
        "transitions": len(added),
        "p50_ms": statistics.median(added),
        "p95_ms": added[int(len(added) * 0.95)],
        "max_ms": added[-1],
        "calls_a_transition": sum(world.store.calls.values()) / len(added),
        "lost_or_refused": world.store.refused,
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
        "joins": runs,
        "median_s": statistics.median(added),
        "max_s": max(added),
        "refused": world.store.refused,
        "problems": world.problems[:3],
    }


def fan_in(instances: int, width: int) -> dict[str, object]:
    """A thousand functions that end within five seconds: what the run takes longer than the longest of them."""
    lasts = {f"B{number}": random.Random(number).uniform(5.0, 10.0) for number in range(width)} | {"Last": 0.0}
    world = World({"join": join(width)}, lasts.__getitem__, instances)
    begun = time.monotonic()
    world.start("join", "run")
    state = world.wait("run", 300.0)
    took_s = time.monotonic() - begun
    assert state.run.status == "Completed"
    return {
        "instances": instances,
        "width": width,
        "took_s": took_s,
        "ideal_s": max(lasts.values()),
        "added_s": took_s - max(lasts.values()),
        "saves": len(world.store.written["runs/run.json"]),
        "most_writes_of_a_name_in_1_s": world.store.most_writes(1.0),
        "most_writes_of_a_name_in_10_s": world.store.most_writes(10.0),
        "refused": world.store.refused,
        "problems": world.problems[:3],
    }


def table(result: dict[str, dict[str, object]]) -> str:
    """Return the result as text: each aim, and what was reached."""
    rows = []
    for key in ("transitions of one instance", f"transitions of {INSTANCES} instances"):
        found = result[key]
        rows.append((f"{key}: p50", found["p50_ms"], 100.0, "ms"))
        rows.append((f"{key}: p95", found["p95_ms"], 300.0, "ms"))
    rows.append(("a join of 16: the median", result["joins"]["median_s"], 0.5, "s"))
    rows.append(("a join of 16: the longest", result["joins"]["max_s"], 0.5, "s"))
    rows.append(("a fan-in of 1,000: beyond the ideal", result["fan-in"]["added_s"], 10.0, "s"))
    rows.append(
        ("a name's writes in any 10 s, three in a row", result["fan-in"]["most_writes_of_a_name_in_10_s"], 12, "")
    )
    lines = [f"{'':46}{'aim':>10}{'reached':>12}"]
    for name, value, aim, unit in rows:
        assert isinstance(value, float | int)
        verdict = "" if value <= aim else "  MISSED"
        shown = f"{value:.0f}" if unit in ("ms", "") else f"{value:.2f}"
        lines.append(f"{name:46}{f'{aim:g} {unit}'.strip():>10}{f'{shown} {unit}'.strip():>12}{verdict}")
    lines.append(f"{'writes that were answered 429, in the fan-in':46}{'':>10}{result['fan-in']['refused']!s:>12}")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print and write benchmarks/out/cloud.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.cloud", description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="chains at once (default 20)")
    parser.add_argument("--length", type=int, default=20, help="steps of a chain (default 20)")
    parser.add_argument("--joins", type=int, default=10, help="joins (default 10)")
    parser.add_argument("--width", type=int, default=1000, help="width of the fan-in (default 1000)")
    args = parser.parse_args()
    result = {
        "transitions of one instance": transitions(1, args.runs, args.length),
        f"transitions of {INSTANCES} instances": transitions(INSTANCES, args.runs, args.length),
        "joins": joins(INSTANCES, args.joins, 16),
        "fan-in": fan_in(INSTANCES, args.width),
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
