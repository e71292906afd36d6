"""The task of the benchmarks: it does nothing, and notes when it was first called."""

import time

called_at: list[float] = []


def noop() -> None:
    """Do nothing."""


def note() -> None:
    """Note the time."""
    called_at.append(time.perf_counter())
