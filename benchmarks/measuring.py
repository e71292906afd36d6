"""One workload, measured in this process: rounds of it and of the disk's floor in turn."""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks import noop
from benchmarks.memory import forget_peak, peak_mb
from benchmarks.workloads import TRANSITIONS_A_TASK, WORKLOADS, Workload
from orchestrator import DAGExecutor
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.runtime.registry import open_store
from orchestrator.stores.local import LocalStore

FLOOR_TASKS = 500
"""Of so many tasks the floor is measured at the most."""
LIMIT_S = 3600.0
W4_REPEATS = 10
"""W4 is measured as many times as often."""


def floor_ms(folder: Path, tasks: int) -> float:
    """Milliseconds a task of the disk's floor."""
    path = folder / "floor.jsonl"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = json.dumps({"run": "run_1639322384_5c1e9f0b2a47", "node": "Step1", "status": "Completed"}).encode() + b"\n"
    begin = time.perf_counter()
    for _ in range(TRANSITIONS_A_TASK * tasks):
        os.write(fd, line)
        os.fsync(fd)
    took_s = time.perf_counter() - begin
    os.close(fd)
    path.unlink()
    return took_s * 1e3 / tasks


def run_once(executor: DAGExecutor, name: str, workload: Workload) -> tuple[float, float]:
    """Return (wall ms, CPU ms) a task."""
    noop.called_at.clear()
    given = {"items": list(range(workload.items))} if workload.items else None
    cpu, begin = time.process_time(), time.perf_counter()
    run_ids = [executor.start(name, input=given) for _ in range(workload.runs)]
    for run_id in run_ids:
        executor.wait(run_id, timeout_s=LIMIT_S)
    end = noop.called_at[0] if name == "W4" else time.perf_counter()
    cpu_s = time.process_time() - cpu
    return (end - begin) * 1e3 / workload.tasks, cpu_s * 1e3 / workload.tasks


def measure(name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """Measure a workload; a long one without a round to warm up."""
    workload = WORKLOADS[name]
    repeats = rounds * W4_REPEATS if name == "W4" else rounds
    walls, cpus, floors, peaks = [], [], [], []
    counted: list[tuple[int, int, int]] = []
    with DAGExecutor({name: workload.definition()}, f"file://{folder}/bucket-{name}") as executor:
        store = executor.store
        assert isinstance(store, LocalStore)
        if not workload.is_long:
            run_once(executor, name, workload)
        for _ in range(repeats):
            floors.append(floor_ms(folder, min(workload.tasks, FLOOR_TASKS)))
            before = (store.writes, store.bytes_written, store.fsyncs)
            forget_peak()
            wall, cpu = run_once(executor, name, workload)
            walls.append(wall)
            cpus.append(cpu)
            peaks.append(peak_mb())
            writes, written, fsyncs = before
            counted.append((store.writes - writes, store.bytes_written - written, store.fsyncs - fsyncs))
    ratios = [wall / floor for wall, floor in zip(walls, floors, strict=True)]
    transitions = TRANSITIONS_A_TASK * workload.tasks
    reached = statistics.median(walls if name == "W4" else ratios)
    return {
        "what": workload.what,
        "tasks": workload.tasks,
        "rounds": repeats,
        "runs": (repeats + (not workload.is_long)) * workload.runs,
        "wall_ms_a_task": statistics.median(walls),
        "cpu_ms_a_task": statistics.median(cpus),
        "floor_ms_a_task": statistics.median(floors),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "peak_mb": max(peaks),
        "writes_a_transition": statistics.median(writes for writes, _, _ in counted) / transitions,
        "bytes_a_transition": statistics.median(written for _, written, _ in counted) / transitions,
        "fsyncs": statistics.median(fsyncs for _, _, fsyncs in counted),
        "aim": "" if workload.aim is None else f"{workload.aim:g}{' ms' if name == 'W4' else 'x'}",
        "reached": None if workload.aim is None else reached <= workload.aim,
    }


def verify(bucket: str) -> int:
    """Reopen a bucket; return how many runs it holds, all complete. Raises AssertionError otherwise."""
    store = open_store(bucket)
    count = 0
    for key in store.list("runs/"):
        loaded = OrchestrationStatus(store, key.removeprefix("runs/").removesuffix(".json")).load()
        assert loaded is not None, key
        state = loaded[0]
        assert state.run.status == "Completed", f"{key}: {state.run.status}"
        assert all(node.status == "Completed" for node in state.nodes.values()), key
        assert all(node.attempt == 1 for node in state.nodes.values() if node.target_type), key
        count += state.run.parent is None and state.run.part_of is None
    return count
