"""DBOS Transact: a run is a workflow, a task is a step; what a step returned is committed before the next one begins.

Durable mode: the system database in PostgreSQL, with `fsync` and `synchronous_commit` on: "for production, we
recommend using Postgres" (docs.dbos.dev/python/tutorials/database-connection). SQLite, its default, is measured beside
it.

As quick as its makers let it be: the least durable unit that there is, a step, not a workflow on a queue, which polls
once a second; tasks that are independent are steps of one workflow in `asyncio.gather`
(docs.dbos.dev/python/tutorials/workflow-tutorial). As many threads as tasks may run at once, and as many connections
to PostgreSQL (`max_executor_threads` and `sys_db_pool_size`, docs.dbos.dev/python/reference/configuration; with 8 of
each, or the default of 20 connections, it was not quicker). To SQLite one connection: there is one writer, and more
of them wait for each other in its busy handler, which took ten times as long in W3. Its journal and `synchronous` stay
as DBOS leaves them, SQLite's defaults: a rollback journal, FULL. `pool_pre_ping` stays as it comes, on. W1 and W4 are
sync or async workflows, whichever take less here (a busy machine favours the async ones in W1); W5 are sync ones:
a hundred async ones at once took many times as long. No tracing, no Conductor.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path

from dbos import DBOS

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
    seconds,
    serve,
    take_standard_output,
)

entered: list[float] = []


@DBOS.step()
def noop() -> None:
    """Do nothing."""


@DBOS.step()
async def noop_at_once() -> None:
    """Do nothing, on the event loop."""


@DBOS.step()
def note() -> None:
    """Note the time."""
    entered.append(time.perf_counter())


@DBOS.workflow()
def chain(length: int) -> None:
    """`length` tasks one after another."""
    for _ in range(length):
        noop()


@DBOS.workflow()
async def long_chain(length: int) -> None:
    """The same on the event loop."""
    for _ in range(length):
        await noop_at_once()


@DBOS.workflow()
async def fan_out(width: int) -> None:
    """One task, `width` at once, one task."""
    await noop_at_once()
    await asyncio.gather(*(noop_at_once() for _ in range(width)))
    await noop_at_once()


@DBOS.workflow()
async def layers(depth: int, width: int) -> None:
    """`depth` times `width` tasks at once."""
    for _ in range(depth):
        await asyncio.gather(*(noop_at_once() for _ in range(width)))


@DBOS.step()
async def note_at_once() -> None:
    """Note the time, on the event loop."""
    entered.append(time.perf_counter())


@DBOS.workflow()
def first() -> None:
    """One task."""
    note()


@DBOS.workflow()
async def first_at_once() -> None:
    """One task, on the event loop."""
    await note_at_once()


def start_to_first(workflow: Callable[[], object]) -> float:
    """Return when the first task was entered."""
    entered.clear()
    DBOS.start_workflow(workflow).get_result()
    return entered[0]


def at_once() -> None:
    """Many runs of a chain at once."""
    handles = [DBOS.start_workflow(chain, RUN_LENGTH) for _ in range(RUNS)]
    for handle in handles:
        handle.get_result()


def quicker(*ways: Workload) -> Workload:
    """Return the one of them that takes less: the fastest of seven times each, in turn."""
    took = {way: [seconds(way) for _ in range(2)][1:] for way in ways}
    for _ in range(6):
        for way in ways:
            took[way].append(seconds(way))
    return min(ways, key=lambda way: min(took[way]))


def done() -> int:
    """Return how many steps are recorded as done."""
    listed = DBOS.list_workflows(load_input=False, load_output=False)
    return sum(step["error"] is None for workflow in listed for step in DBOS.list_workflow_steps(workflow.workflow_id))


def main() -> None:
    """Serve; the arguments are the folder to write to, and `postgres` or `sqlite`."""
    replies = take_standard_output()
    folder, database = Path(sys.argv[1]), sys.argv[2]
    with postgres(folder) if database == "postgres" else nullcontext("") as address:
        url = f"postgresql://{address}/postgres" if address else f"sqlite:///{folder}/dbos.sqlite"
        DBOS(
            config={
                "name": "peer",
                "system_database_url": url,
                "max_executor_threads": THREADS,
                "sys_db_pool_size": THREADS if address else 1,
                "log_level": "ERROR",
                "enable_otlp": False,
            }
        )
        DBOS.launch()
        workloads = {
            "W1": quicker(
                lambda: DBOS.start_workflow(chain, CHAIN).get_result(),
                lambda: DBOS.start_workflow(long_chain, CHAIN).get_result(),
            ),
            "W2": lambda: DBOS.start_workflow(fan_out, WIDTH).get_result(),
            "W3": lambda: DBOS.start_workflow(layers, DEPTH, LAYER).get_result(),
            "W4": quicker(lambda: start_to_first(first), lambda: start_to_first(first_at_once)),
            "W5": at_once,
        }
        try:
            before = done()
            serve(version("dbos"), workloads, lambda: done() - before, replies)
        finally:
            DBOS.destroy()


if __name__ == "__main__":
    main()
