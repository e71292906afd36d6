"""Measure the workloads on the local store, every transition durable, and print one table.

Beside each workload stands the floor of this disk, measured in turn with it: a loop that appends one JSON line and
calls fsync per transition (two a task) on one open file. Rounds of both alternate, and medians are shown, because
machines are noisy. Each workload has a process of its own, so that its memory is its own. A fresh process then reopens
and verifies every run.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.measuring import measure, verify
from benchmarks.workloads import GROWTH, GROWTH_AIM, WORKLOADS

OUT = Path(__file__).parent / "out"
Row = dict[str, Any]


def in_a_process(*arguments: str) -> str:
    """Run this command with other arguments; return what it prints."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def file_system(folder: Path) -> str:
    """Type of the file system that a folder lies on, as `df` names it."""
    shown = subprocess.run(["df", "-PT", str(folder)], capture_output=True, text=True, check=False).stdout.split("\n")
    return shown[1].split()[1] if len(shown) > 1 and shown[1] else "unknown"


def measure_all(folder: Path, names: list[str], rounds: int) -> Row:
    """Measure workloads, each in a process of its own, and verify each.

    What they have written stays until all are measured: for some minutes after thousands of files were deleted, ext4
    takes up to 0.8 ms to make a new one.
    """
    load = os.getloadavg()[0]
    rows: dict[str, Row] = {}
    verified = 0
    for name in names:
        sys.stderr.write(f"{name} {WORKLOADS[name].what} …\n")
        rows[name] = json.loads(in_a_process("--row", name, "--folder", str(folder), "--rounds", str(rounds)))
        bucket = folder / f"bucket-{name}"
        found = int(in_a_process("--verify", f"file://{bucket}"))
        assert found == rows[name]["runs"], f"{name}: {found} runs verified, {rows[name]['runs']} were run"
        verified += found
    for name in names:
        shutil.rmtree(folder / f"bucket-{name}")
    return {
        "file_system": file_system(folder),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "load": load,
        "runs_verified": verified,
        "workloads": rows,
    }


def growth(rows: dict[str, Row]) -> dict[str, Row]:
    """How many times the cost of a transition at 100 nodes that at 10,000 is, where both were measured."""
    found = {}
    for what, (small, large) in GROWTH.items():
        if small in rows and large in rows:
            times = {
                cost: rows[large][key] / rows[small][key]
                for cost, key in (("cpu", "cpu_ms_a_task"), ("bytes", "bytes_a_transition"))
            }
            found[what] = {**times, "reached": max(times.values()) <= GROWTH_AIM}
    return found


def table(result: Row) -> str:
    """Return the result as text."""
    lines = [
        f"{result['machine']}, Python {result['python']}, {result['file_system']}, load before {result['load']:.1f}; "
        "medians of the rounds",
        "",
        f"{'':4}{'workload':34}{'ms/task':>8}{'CPU':>7}{'floor':>7}{'ratio':>7}{'min':>6}{'max':>7}{'rounds':>7}"
        f"{'fsyncs':>8}{'writes':>8}{'bytes':>8}{'MB':>6}  aim",
    ]
    for name, row in result["workloads"].items():
        verdict = "" if row["reached"] is None else "reached" if row["reached"] else "MISSED"
        lines.append(
            f"{name:4}{row['what']:34}{row['wall_ms_a_task']:8.3f}{row['cpu_ms_a_task']:7.3f}"
            f"{row['floor_ms_a_task']:7.3f}{row['ratio']:7.2f}{row['ratio_min']:6.2f}{row['ratio_max']:7.2f}"
            f"{row['rounds']:7}{row['fsyncs']:8.0f}{row['writes_a_transition']:8.3f}{row['bytes_a_transition']:8.0f}"
            f"{row['peak_mb']:6.0f}  {row['aim']} {verdict}".rstrip()
        )
    lines += ["", "CPU in ms a task; writes of objects and bytes a transition, two a task; MB of memory at the most"]
    for what, times in result["growth"].items():
        lines.append(
            f"{what}, a transition at 10,000 nodes by one at 100: CPU {times['cpu']:.2f}x, "
            f"bytes {times['bytes']:.2f}x, aim {GROWTH_AIM:g}x {'reached' if times['reached'] else 'MISSED'}"
        )
    lines += [f"{result['runs_verified']} runs reopened and verified by a fresh process: all Completed, attempt 1"]
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print and write benchmarks/out/bench.json and .txt, or bench-long."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument(
        "--long", action="store_true", help="the workloads of 10,000 tasks and more, and their like of 100"
    )
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, metavar="NAME", help="these workloads")
    parser.add_argument("--rounds", type=int, help="how often each workload is measured (default 7, with --long 5)")
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder beside this one)")
    parser.add_argument("--row", choices=WORKLOADS, metavar="NAME", help="only measure one, in this process, as JSON")
    parser.add_argument("--verify", metavar="BUCKET", help="only reopen and verify a bucket")
    args = parser.parse_args()
    rounds = args.rounds or (5 if args.long else 7)
    if args.verify:
        print(verify(args.verify))
        return
    if args.row:
        print(json.dumps(measure(args.row, args.folder, rounds)))
        return
    compared = {name for pair in GROWTH.values() for name in pair}
    names = [
        name
        for name, workload in WORKLOADS.items()
        if (
            name in args.only
            if args.only
            else workload.is_long or name in compared
            if args.long
            else not workload.is_long
        )
    ]
    OUT.mkdir(exist_ok=True)
    folder = args.folder or Path(tempfile.mkdtemp(prefix="bench-", dir=OUT))
    try:
        result = measure_all(folder.resolve(), names, rounds)
    finally:
        if args.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    result["growth"] = growth(result["workloads"])
    name = "bench-some" if args.only else "bench-long" if args.long else "bench"
    (OUT / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    (OUT / f"{name}.txt").write_text(table(result) + "\n")
    print(table(result))


if __name__ == "__main__":
    main()
