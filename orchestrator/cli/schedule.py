"""`orchestrator schedule [PATH…]`: start the runs of schedules at their times, on this machine, until a signal ends it.

What Cloud Scheduler and the Tick are where a DAG is deployed. What passed while this was not running is missed, and
`missed` says what becomes of it. Runs that an earlier process left are taken up.
"""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from logging import getLogger
from pathlib import Path

from orchestrator.cli.console import Console
from orchestrator.cli.definitions import Loaded, find_all, load_file
from orchestrator.cli.follow import Interrupted
from orchestrator.cli.here import Here
from orchestrator.cli.lines import counted, listed, printable
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.schedules import Schedules
from orchestrator.engine.status import OpenRuns, OrchestrationStatus
from orchestrator.model.commands import Json
from orchestrator.model.errors import InputError, OrchestratorError
from orchestrator.model.missed import Scheduled
from orchestrator.model.schedule import zone_of
from orchestrator.ports import Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.settings import Settings

log = getLogger("orchestrator")

LOOK_S = 15.0
"""How long it waits at most before it looks at the clock again: one that was set, or a machine that slept."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose schedules are looked after.

    Attributes:
        next_times: only say so many of each one's next times.
    """

    paths: Sequence[Path]
    bucket: str | None = None
    next_times: int | None = None
    is_json: bool = False
    variables: Mapping[str, Json] | None = None


def schedule(
    console: Console,
    wanted: Wanted,
    settings: Settings,
    clock: Clock,
    wait: Callable[[Here, float], None] = lambda here, seconds: here.news.wait(seconds),
) -> int:
    """Look after the schedules; return 0 when a signal has ended that.

    Args:
        wait: waits so many seconds, or until something happens. Raises Interrupted, by a signal.
    Raises:
        InputError: there is no schedule, or a DAG lacks something to run here.
        DefinitionError: a definition breaks rules.
    """
    found = [load_file(name, file) for path in wanted.paths for name, file in find_all(path)]
    for each in found:
        if any(other.name == each.name and other.file != each.file for other in found):
            raise InputError(f"schedule: several DAGs are called {each.name}; name one of them")
    scheduled = {each.name: kept for each in found if (kept := Scheduled.of(each.definition)) is not None}
    if not scheduled:
        raise InputError(f'schedule: none of {listed(each.name for each in found)} has a "schedule"')
    if wanted.next_times is not None:
        return _tell_next(console, wanted, found, scheduled, clock)
    url = wanted.bucket or settings.status_bucket
    here = Here(found, url, settings, clock, console.out, wanted.variables or {})
    here.check()
    try:
        with here.executor() as executor:
            _take_up(executor, {each.name for each in found})
            catalog = Catalog({each.name: each.definition for each in found})
            schedules = Schedules(executor.store, catalog, clock, executor.execute)
            _tell(console, schedules.next_times(1))
            while True:
                _look(console, schedules)
                ((at, _), *_) = schedules.next_times(1)
                wait(here, min(LOOK_S, max(0.0, (at - clock.now()).total_seconds())))
                here.trouble.check()
    except Interrupted:
        pass  # there is no other end
    left = counted(len(here.open), "run")
    bucket = ("--bucket", wanted.bucket) if wanted.bucket else ()
    again = shlex.join(("orchestrator", "schedule", *map(str, wanted.paths), *bucket))
    console.err(f"ended; {left} left open{f', which this takes up: {again}' if here.open else ''}")
    return 0


def _look(console: Console, schedules: Schedules) -> None:
    """Start what is due."""
    seen = schedules.start_due()
    for dag, number in seen.left_out.items():
        console.out(f"{dag}: {counted(number, 'missed time')} left out")
    if seen.started:
        _tell(console, schedules.next_times(1))


def _take_up(executor: DAGExecutor, names: set[str]) -> None:
    """Take up the runs of these DAGs that an earlier process left."""
    for _, run_id in list(OpenRuns(executor.store)):
        try:
            loaded = OrchestrationStatus(executor.store, run_id).load()
            if loaded is not None and loaded[0].run.dag in names and not loaded[0].run.status.is_final:
                executor.resume(run_id)
        except OrchestratorError as exc:
            log.error("run %s cannot be taken up: %s", run_id, exc)


def _tell(console: Console, times: Sequence[tuple[datetime, str]]) -> None:
    at, dag = times[0]
    console.out(f"next: {dag} at {at:%Y-%m-%d %H:%M} UTC")


def _tell_next(
    console: Console, wanted: Wanted, found: Sequence[Loaded], scheduled: Mapping[str, Scheduled], clock: Clock
) -> int:
    catalog = Catalog({each.name: each.definition for each in found})
    schedules = Schedules(open_store("memory://"), catalog, clock, lambda _: None)
    times = schedules.next_times(wanted.next_times or 1)
    if wanted.is_json:
        console.document(as_json([{"dag": dag, "scheduled_for": at} for at, dag in times]))
        return 0
    for at, dag in times:
        zone = scheduled[dag].time_zone
        there = at.astimezone(zone_of(zone))
        console.out(f"{at:%Y-%m-%d %H:%M} UTC  {there:%a %H:%M} {zone}  {printable(dag)}")
    return 0
