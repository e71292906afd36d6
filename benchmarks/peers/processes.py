"""Processor time of a process and all that it started: Linux's /proc, and the clocks of processes."""

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
            reaped_s = sum(map(int, fields[13:15])) / TICKS_A_SECOND
            parents[int(entry.name)] = (int(fields[1]), own_s(int(entry.name)) + reaped_s)
    within = {root: parents[root][1]} if root in parents else {}
    grown = True
    while grown:
        grown = False
        for pid, (parent, used_s) in parents.items():
            if parent in within and pid not in within:
                within[pid] = used_s
                grown = True
    return within


def own_s(pid: int) -> float:
    """Seconds that a process alone has used, all its threads, user and system, those that have ended too.

    /proc has it in hundredths of a second, which is longer than a start of a run takes. The id of a process's clock is
    made as `clock_getcpuclockid` makes it (Linux, include/linux/posix-timers_types.h: CPUCLOCK_SCHED is 2).
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0  # it ended


def cpu_s(root: int) -> float:
    """Seconds of processor time that a process and all that it started have used until now."""
    return sum(tree(root).values())


def settle(root: int, limit_s: float = 60) -> float:
    """Wait until a process and all that it started do next to nothing, a twentieth of a core for a fifth of a second;
    return how many seconds of processor time they used until then."""
    until = time.monotonic() + limit_s
    begin = before = cpu_s(root)
    while time.monotonic() < until:
        time.sleep(0.2)
        now = cpu_s(root)
        if now - before <= 0.01:
            break
        before = now
    return before - begin


def kill(root: int) -> None:
    """End a process and all that it started, each by its pid."""
    for pid in tree(root):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
