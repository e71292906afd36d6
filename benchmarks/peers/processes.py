"""Processor time of a process and all that it started, from Linux's /proc."""

import os
import signal
import time
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> dict[int, float]:
    """Pid -> seconds of processor time, reaped children's with it, of a process and its living descendants."""
    parents: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended
            parents[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS_A_SECOND)
    within = {root: parents[root][1]} if root in parents else {}
    grown = True
    while grown:
        grown = False
        for pid, (parent, used_s) in parents.items():
            if parent in within and pid not in within:
                within[pid] = used_s
                grown = True
    return within


def cpu_s(root: int) -> float:
    """Seconds of processor time that a process and all that it started have used until now."""
    return sum(tree(root).values())


def settle(root: int, limit_s: float = 60) -> None:
    """Wait until a process and all that it started do next to nothing: a twentieth of a core for half a second."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        before = cpu_s(root)
        time.sleep(0.5)
        if cpu_s(root) - before <= 0.025:
            return


def kill(root: int) -> None:
    """End a process and all that it started, each by its pid."""
    for pid in tree(root):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
