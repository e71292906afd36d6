"""Prefect: a run is a flow run, a task is a task run; results are persisted, so that a flow run that is retried after a
crash finds what had been done.

Durable mode: `persist_result=True`, whose caches go by the id of the flow run, which `prefect flow-run retry` keeps
(docs.prefect.io/v3/how-to-guides/workflows/retries and …/retry-flow-runs); a server of its own rather than one that
the process starts for itself, with its database in PostgreSQL: "best for production use"
(docs.prefect.io/v3/concepts/server). On SQLite, its default, this version's server answers 503 to flows that begin at
once, so that W5 fails. A result is a file under PREFECT_HOME that is not synced to the disk, and the states of task
runs reach the server a little later, by its event stream: less durable than ours.

As quick as its makers let it be: tasks are called where they follow one another, and submitted to the thread pool
where they do not: async tasks in `asyncio.gather` took as much processor time in W1 and W4, and more in W3. No UI, no
log of runs, no analytics. A server of one process: more of them, and Redis between, are for more machines than one
(docs.prefect.io/v3/advanced/self-hosted). A task has its number as its parameter, since equal parameters in one run
would be a hit in the cache.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.postgres import postgres
from benchmarks.peers.serving import (
    CHAIN,
    DEPTH,
    LAYER,
    RUN_LENGTH,
    RUNS,
    THREADS,
    WIDTH,
    Workload,
    free_port,
    serve,
    service,
    take_standard_output,
    wait_for,
)

SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_TASKS_RUNNER_THREAD_POOL_MAX_WORKERS": str(THREADS),
}


@contextmanager
def server(folder: Path, database: str) -> Iterator[str]:
    """URL of the API of a Prefect server that is there meanwhile."""
    port = free_port()
    with postgres(folder) if database == "postgres" else nullcontext("") as address:
        url = f"postgresql+asyncpg://{address}/postgres" if address else f"sqlite+aiosqlite:///{folder}/prefect.db"
        os.environ["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = url
        command = [str(Path(sys.executable).parent / "prefect"), "server", "start", "--host", "127.0.0.1"]
        with service([*command, "--port", str(port)]) as process:
            wait_for(f"http://127.0.0.1:{port}/api/health", process)
            yield f"http://127.0.0.1:{port}/api"


def tasks_done(url: str) -> int:
    """Return how many task runs the server has recorded as completed, once there have been no more for ten seconds."""
    count, since = -1, time.monotonic()
    while time.monotonic() < since + 10:
        if (now := completed(url)) != count:
            count, since = now, time.monotonic()
        time.sleep(0.5)
    return count


def completed(url: str) -> int:
    """Return how many there are now."""
    wanted = json.dumps({"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}).encode()
    asked = urllib.request.Request(f"{url}/task_runs/count", wanted, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return int(answer.read())


def workloads() -> dict[str, Workload]:
    """Return what is measured; the settings stand in the environment when Prefect is imported."""
    from prefect import flow, task
    from prefect.task_runners import ThreadPoolTaskRunner

    entered: list[float] = []

    @task(persist_result=True)
    def noop(number: int) -> int:
        return number

    @task(persist_result=True)
    def note() -> None:
        entered.append(time.perf_counter())

    def together(numbers: range) -> None:
        for future in [noop.submit(number) for number in numbers]:
            future.result()

    @flow(persist_result=True)
    def chain(length: int) -> None:
        for number in range(length):
            noop(number)

    @flow(persist_result=True, task_runner=ThreadPoolTaskRunner(max_workers=THREADS))
    def fan_out(width: int) -> None:
        noop(-1)
        together(range(width))
        noop(-2)

    @flow(persist_result=True, task_runner=ThreadPoolTaskRunner(max_workers=THREADS))
    def layers(depth: int, width: int) -> None:
        for layer in range(depth):
            together(range(layer * width, (layer + 1) * width))

    @flow(persist_result=True)
    def first() -> None:
        note()

    def start_to_first() -> float:
        entered.clear()
        first()
        return entered[0]

    def at_once() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(chain, RUN_LENGTH) for _ in range(RUNS)]:
                done.result()

    return {
        "W1": lambda: chain(CHAIN),
        "W2": lambda: fan_out(WIDTH),
        "W3": lambda: layers(DEPTH, LAYER),
        "W4": start_to_first,
        "W5": at_once,
    }


def main() -> None:
    """Serve; the arguments are the folder to write to, and `postgres` or `sqlite`."""
    replies = take_standard_output()
    folder, database = Path(sys.argv[1]), sys.argv[2]
    os.environ.update(SETTINGS, PREFECT_HOME=str(folder / "prefect"))
    with server(folder, database) as url:
        os.environ["PREFECT_API_URL"] = url
        serve(version("prefect"), workloads(), lambda: tasks_done(url), replies)


if __name__ == "__main__":
    main()
