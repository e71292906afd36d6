"""The process of a peer: it takes the names of workloads, runs each, and says how long it took.

Runs in the peer's own virtual environment, and so imports nothing but the standard library. On the way in a line of
JSON, `{"workload": "W1", "repeats": 3}`; on the way out one, `{"walls_s": [0.1, 0.1, 0.1]}`. The first line out says
`{"version": "…"}`, once all is up. `{"count": true}` asks how many tasks are recorded as done: `{"done": 2312}`. What
the peer itself prints goes to standard error.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

THREADS = 32
"""How many tasks may run at once: our LOCAL_WORKERS, and whatever a peer calls it."""
CHAIN, WIDTH, DEPTH, LAYER, RUNS, RUN_LENGTH = 100, 1000, 5, 20, 100, 10
"""Sizes of W1, W2, W3 (twice) and W5 (twice), as in benchmarks/workloads.py."""

Workload = Callable[[], "float | None"]
"""Runs once; returns when the first task was entered (perf_counter) where that is its end, else None."""


def serve(version: str, workloads: Mapping[str, Workload], done: Callable[[], int], replies: int) -> None:
    """Run what standard input asks for until it ends; `replies` is the file descriptor to answer on."""
    _reply(replies, {"version": version})
    for line in sys.stdin:
        asked = json.loads(line)
        if "count" in asked:
            _reply(replies, {"done": done()})
            continue
        run = workloads[asked["workload"]]
        _reply(replies, {"walls_s": [seconds(run) for _ in range(asked["repeats"])]})


def seconds(run: Workload) -> float:
    """How long a workload took."""
    begin = time.perf_counter()
    entered = run()
    return (entered or time.perf_counter()) - begin


def take_standard_output() -> int:
    """Keep standard output for replies, and let all else that is printed go to standard error."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


@contextmanager
def service(command: list[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there meanwhile, and stopped after; `options` are those of Popen."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def wait_for(url: str, process: "subprocess.Popen[bytes]", limit_s: float = 60) -> None:
    """Wait until a URL answers 200. Raises RuntimeError if its server ends or takes too long."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: its server ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                if response.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url}: does not answer within {limit_s:g} s")


def _reply(replies: int, value: object) -> None:
    os.write(replies, json.dumps(value).encode() + b"\n")
