"""Measure W1 to W7 on the local store, every transition durable, and print one table.

Beside each workload stands the floor of this disk, measured in turn with it: a loop that appends one
JSON line and calls fsync per transition (two a task) on one open file. Rounds of both alternate, and
medians are shown, because machines are noisy. A fresh process then reopens and verifies every run.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import noop
from benchmarks.workloads import AIMS, DEFINITIONS, RUNS, TASKS, W4_AIM_MS, WHAT
from orchestrator import DAGExecutor
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.runtime.registry import open_store
from orchestrator.stores.local import LocalStore

OUT = Path(__file__).parent / "out"


def floor_ms(folder: Path, tasks: int) -> float:
    """Milliseconds a task of the disk's floor."""
    path = folder / "floor.jsonl"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    line = json.dumps({"run": "run_1639322384_5c1e9f0b2a47", "node": "Step1", "status": "Completed"}).encode() + b"\n"
    begin = time.perf_counter()
    for _ in range(2 * tasks):
        os.write(fd, line)
        os.fsync(fd)
    took_s = time.perf_counter() - begin
    os.close(fd)
    path.unlink()
    return took_s * 1e3 / tasks


def run_once(executor: DAGExecutor, name: str) -> tuple[float, float, list[str]]:
    """Return (wall ms, CPU ms) a task, and the run ids."""
    noop.called_at.clear()
    cpu, begin = time.process_time(), time.perf_counter()
    run_ids = [executor.start(name) for _ in range(RUNS[name])]
    for run_id in run_ids:
        executor.wait(run_id, timeout_s=120)
    end = noop.called_at[0] if name == "W4" else time.perf_counter()
    cpu_s = time.process_time() - cpu
    return (end - begin) * 1e3 / TASKS[name], cpu_s * 1e3 / TASKS[name], run_ids


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
        count += 1
    return count


def file_system(folder: Path) -> str:
    """Type of the file system that a folder lies on, as `df` names it."""
    shown = subprocess.run(["df", "-PT", str(folder)], capture_output=True, text=True, check=False).stdout.split("\n")
    return shown[1].split()[1] if len(shown) > 1 and shown[1] else "unknown"


def measure(folder: Path, rounds: int) -> dict[str, object]:
    """Measure all workloads; a workload and its floor in turn."""
    bucket = f"file://{folder}/bucket"
    rows = {}
    expected = 0
    with DAGExecutor(DEFINITIONS, bucket) as executor:
        store = executor.store
        assert isinstance(store, LocalStore)
        for name in DEFINITIONS:
            run_once(executor, name)  # warm
            expected += RUNS[name]
        for name in DEFINITIONS:
            repeats = rounds * 10 if name == "W4" else rounds
            walls, cpus, floors, ratios, fsyncs = [], [], [], [], []
            for _ in range(repeats):
                floor = floor_ms(folder, min(TASKS[name], 500))
                before = store.fsyncs
                wall, cpu, _ids = run_once(executor, name)
                fsyncs.append(store.fsyncs - before)
                expected += RUNS[name]
                walls.append(wall)
                cpus.append(cpu)
                floors.append(floor)
                ratios.append(wall / floor)
            rows[name] = {
                "what": WHAT[name],
                "tasks": TASKS[name],
                "wall_ms_a_task": statistics.median(walls),
                "cpu_ms_a_task": statistics.median(cpus),
                "floor_ms_a_task": statistics.median(floors),
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "fsyncs": statistics.median(fsyncs),
                "aim": f"< {W4_AIM_MS:g} ms" if name == "W4" else f"{AIMS[name]:g}x",
                "reached": statistics.median(walls) < W4_AIM_MS
                if name == "W4"
                else statistics.median(ratios) <= AIMS[name],
            }
    fresh = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--verify", bucket], capture_output=True, text=True, check=False
    )
    verified = fresh.stdout.strip()
    assert fresh.returncode == 0, fresh.stderr
    assert int(verified) == expected, f"{verified} runs verified, {expected} were run"
    return {
        "file_system": file_system(folder),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "rounds": rounds,
        "runs_verified": int(verified),
        "workloads": rows,
    }


def table(result: dict[str, object]) -> str:
    """Return the result as text."""
    rows = result["workloads"]
    assert isinstance(rows, dict)
    lines = [
        f"{result['machine']}, Python {result['python']}, {result['file_system']}; "
        f"medians of {result['rounds']} rounds (W4: 10 times as many)",
        "",
        f"{'':4}{'workload':36}{'ms/task':>9}{'CPU':>8}{'floor':>8}{'ratio':>8}{'min':>7}{'max':>7}{'fsyncs':>8}  aim",
    ]
    for name, row in rows.items():
        lines.append(
            f"{name:4}{row['what']:36}{row['wall_ms_a_task']:9.3f}{row['cpu_ms_a_task']:8.3f}"
            f"{row['floor_ms_a_task']:8.3f}{row['ratio']:8.2f}{row['ratio_min']:7.2f}{row['ratio_max']:7.2f}"
            f"{row['fsyncs']:8.0f}  {row['aim']} {'reached' if row['reached'] else 'MISSED'}"
        )
    lines += ["", f"{result['runs_verified']} runs reopened and verified by a fresh process: all Completed, attempt 1"]
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print and write benchmarks/out/bench.json."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each workload is measured (default 7)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder beside this one)")
    parser.add_argument("--verify", metavar="BUCKET", help="only reopen and verify a bucket")
    args = parser.parse_args()
    if args.verify:
        print(verify(args.verify))
        return
    OUT.mkdir(exist_ok=True)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="bench-", dir=OUT))
    try:
        result = measure(folder, args.rounds)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    (OUT / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


main()
