"""`orchestrator backfill PATH --from TIME --to TIME`: a run for each time of a schedule in a while that has none yet.

The id of such a run is made of its DAG and its time, so that it may be killed and called again: what is there is left
alone, what was left open is taken up. Runs in a directory run here; any other bucket is the cloud's: start messages
to its topic ask for them.

Exit codes: 0 all that ran Completed (in the cloud: all are asked for); 1 one Failed or was Cancelled; 2 what was asked
for is wrong; 130 interrupted.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, islice
from pathlib import Path

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.definitions import Loaded, load
from orchestrator.cli.follow import Interrupted
from orchestrator.cli.here import Here
from orchestrator.cli.inputs import read_inputs
from orchestrator.cli.lines import counted
from orchestrator.model.commands import Json
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import BrokerUnavailable, InputError
from orchestrator.model.ids import run_id_of, scheduled_start_of
from orchestrator.model.messages import rfc3339, start_message
from orchestrator.model.missed import Scheduled
from orchestrator.model.run_state import RunState
from orchestrator.model.schedule import DEFAULT_ZONE, ticks, zone_of
from orchestrator.model.times import HOW_YEARS, is_of_our_years, parse_time
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.settings import Settings

MOST_TIMES = 10_000
"""How many times one backfill is about at most."""
MAX_ACTIVE = 4

_AT_ONCE = 16
"""How many runs are looked for side by side."""
_LOOK_S = 1.0
"""How often runs are read that another process may have ended."""
_HOW_TIME = 'write a day as in "2026-01-31", or a time as in "2026-01-31T06:00:00Z"'


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which runs are wanted, and how that is told.

    Attributes:
        first, end: from when on, and up to when; that itself is not one of them.
        every_s: a time each so many seconds, in place of the definition's schedule.
        max_active: how many run at once, here.
        rerun: "failed": those that failed or were cancelled are run again; "all": all that have ended are.
        since: with "all": those that were started since are left alone.
    """

    path: Path
    first: str
    end: str
    every_s: float | None = None
    max_active: int | None = None
    is_reverse: bool = False
    rerun: str | None = None
    since: str | None = None
    inputs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    bucket: str | None = None
    topic: str | None = None
    is_dry: bool = False
    is_json: bool = False
    options: tuple[str, ...] = ()
    """As they were written, for the command that goes on."""


@dataclass(frozen=True, slots=True)
class Row:
    """One time: its run, and what becomes of it.

    Attributes:
        action: "start", "resume" (it is open), "rerun", or "leave".
        run_id: of the run that is started, taken up or left alone.
        status: of the run that is there.
    """

    at: datetime
    run_id: str
    action: str
    status: RunStatus | None = None

    def json(self) -> dict[str, Json]:
        """As the document has it."""
        status = None if self.status is None else self.status.value
        return {"scheduled_for": rfc3339(self.at), "run_id": self.run_id, "action": self.action, "status": status}


@dataclass
class _Tally:
    """What has become of the rows."""

    rows: dict[datetime, Row] = field(default_factory=dict)

    def document(self, dag: str) -> bytes:
        return as_json({"dag": dag, "runs": [row.json() for row in self.rows.values()]})

    def of(self, *actions: str) -> list[Row]:
        return [row for row in self.rows.values() if row.action in actions]


def backfill(
    console: Console,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
    wait: Callable[[Here, float], None] = lambda here, seconds: here.news.wait(seconds),
) -> int:
    """Run what is wanted, or ask for it, and say what became of each time.

    Raises:
        InputError: the while, or the input, is wrong; there is no schedule; a DAG lacks something to run here.
        DefinitionError: the definition breaks rules.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    loaded = load(wanted.path)
    given = read_inputs(wanted.inputs)
    now = clock.now()
    times = _times(wanted, loaded, now)
    url = wanted.bucket or settings.status_bucket
    bucket = Bucket(url, open_store(url))
    is_cloud = wanted.topic is not None or (bucket.root is None and not url.startswith("memory://"))
    if is_cloud and wanted.max_active is not None:
        raise InputError(
            "backfill: --max-active: bounds runs on this machine; in the cloud a definition's own max_active_runs does"
        )
    if wanted.rerun is not None and is_cloud and bucket.root is not None:
        raise InputError("backfill: --rerun: has to know what became of the runs; name where they are by --bucket")
    looked_at = bucket if bucket.root is None or not is_cloud else None
    since = _time("--since", wanted.since, DEFAULT_ZONE) if wanted.since else now
    with ThreadPoolExecutor(_AT_ONCE, "orchestrator-look") as pool:  # a read of a bucket in the cloud takes some 30 ms
        rows = list(pool.map(lambda at: _row(loaded.name, at, wanted.rerun, since, looked_at), times))
    tally = _Tally({row.at: row for row in rows})
    if wanted.is_dry:
        _tell_plan(console, wanted, loaded.name, tally)
        return 0
    if is_cloud:
        topic = wanted.topic or settings.events_topic
        if topic is None:
            raise InputError(
                f"backfill: EVENTS_TOPIC is not set, and runs in {url} are started by messages; set it, or name the "
                "topic by --topic projects/P/topics/T"
            )
        _publish(loaded.name, given, tally, broker_of(topic, environment, clock))
    else:
        here = Here([loaded], url, settings, clock, _quiet(console, wanted), read_inputs(wanted.variables, "--var"))
        here.check()
        try:
            with console.output_kept_clean() if wanted.is_json else nullcontext():
                _run(here, wanted, loaded.name, given, tally, wait)
        except Interrupted as exc:
            console.err(f"interrupted; go on with: {_again(wanted, now)}")
            return 128 + exc.signum
    return _tell_end(console, wanted, loaded.name, tally, is_cloud=is_cloud)


# -- which times, and which runs ------------------------------------------------------------------------------


def _times(wanted: Wanted, loaded: Loaded, now: datetime) -> list[datetime]:
    """The times that are wanted and have come, in the order in which their runs are to be started."""
    scheduled = Scheduled.of(loaded.definition)
    zone = scheduled.time_zone if scheduled else DEFAULT_ZONE
    first, end = _time("--from", wanted.first, zone), _time("--to", wanted.end, zone)
    if first >= end:
        raise InputError(
            f"backfill: --to {wanted.end}: is not later than --from; the end itself is not one of the times"
        )
    if wanted.every_s is not None:
        if wanted.every_s < 1 or wanted.every_s != int(wanted.every_s):
            raise InputError("backfill: --every: has to be whole seconds, from 1 on")
        step = timedelta(seconds=wanted.every_s)
        some: Iterator[datetime] = (first + step * number for number in count())
    elif scheduled is not None:
        some = ticks(scheduled.cron, scheduled.time_zone, first - timedelta(seconds=1), end)
    else:
        raise InputError(f'backfill: {loaded.name} has no "schedule"; say how often by --every, as in --every 1d')
    found: list[datetime] = []
    for at in some:
        if at >= min(end, now):
            break
        found.append(at)
        if len(found) > MOST_TIMES:
            raise InputError(f"backfill: there are more than {MOST_TIMES:,} times from {wanted.first} on; take a part")
    if not found:
        raise InputError(f"backfill: no time of {loaded.name} has come from {wanted.first} up to {wanted.end}")
    return found[::-1] if wanted.is_reverse else found


def _time(option: str, text: str, zone: str) -> datetime:
    """Return the time that an option says; a day begins in the zone."""
    found = parse_time(text)
    if found is None:
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise InputError(f'backfill: {option} "{text}" is no time; {_HOW_TIME}') from None
        found = datetime.combine(day, time(), zone_of(zone))
    if not is_of_our_years(found) or not is_of_our_years(found.astimezone(UTC)):
        raise InputError(f'backfill: {option} "{text}" is out of range; {HOW_YEARS}')
    return found.astimezone(UTC).replace(microsecond=0)


def _row(dag: str, at: datetime, rerun: str | None, since: datetime, bucket: Bucket | None) -> Row:
    """Say what is to become of a time."""
    first = run_id_of(scheduled_start_of(dag, at), at)
    there = bucket.find(first) if bucket is not None else None
    if there is None:
        return Row(at, first, "start")
    run_id = first
    for number in islice(count(2), 10_000) if rerun is not None and bucket is not None else ():
        following = f"{first}-r{number}"
        later = bucket.find(following) if bucket is not None else None
        if later is None:
            break
        run_id, there = following, later
    status = there.run.status
    if not status.is_final:
        return Row(at, run_id, "resume", status)
    if rerun is not None and _is_wanted_again(there, rerun, since):
        return Row(at, following, "rerun", status)
    return Row(at, run_id, "leave", status)


def _is_wanted_again(state: RunState, rerun: str, since: datetime) -> bool:
    if rerun == "failed":
        return state.run.status is not RunStatus.COMPLETED
    return state.run.started_at < since


def _message(dag: str, given: Mapping[str, Json], row: Row) -> dict[str, Json]:
    run_id = row.run_id if row.action == "rerun" else None
    return start_message(dag, given or None, run_id, row.at)


# -- here, and in the cloud -----------------------------------------------------------------------------------


def _run(
    here: Here,
    wanted: Wanted,
    dag: str,
    given: Mapping[str, Json],
    tally: _Tally,
    wait: Callable[[Here, float], None],
) -> None:
    """Run all that is to run, some at once."""
    most = wanted.max_active or MAX_ACTIVE
    waiting = [row for row in tally.rows.values() if row.action != "leave"][::-1]
    active: dict[str, Row] = {}
    with here.executor() as executor:
        bucket = here.bucket(executor)
        while waiting or active:
            while waiting and len(active) < most:
                row = waiting.pop()
                _begin(executor, dag, given, row)
                active[row.run_id] = row
            for run_id, row in list(active.items()):
                state = here.ended.pop(run_id, None) or bucket.find(run_id)
                if state is None:  # it was pruned: such a run is not started anew
                    tally.rows[row.at] = replace(row, action="leave", status=None)
                    del active[run_id]
                elif state.run.status.is_final:
                    tally.rows[row.at] = replace(row, status=state.run.status)
                    del active[run_id]
                else:
                    tally.rows[row.at] = replace(row, status=state.run.status)
            here.trouble.check()
            if active and (len(active) == most or not waiting):
                wait(here, _LOOK_S)


def _begin(executor: DAGExecutor, dag: str, given: Mapping[str, Json], row: Row) -> None:
    if row.action == "resume":
        executor.resume(row.run_id)
    else:
        executor.execute(_message(dag, given, row))


def _publish(dag: str, given: Mapping[str, Json], tally: _Tally, broker: Broker) -> None:
    for row in tally.of("start", "rerun"):
        try:
            broker.publish(_message(dag, given, row))
        except BrokerUnavailable as exc:
            exc.add_note("some may have got through; asking again does no harm")
            raise
    for row in tally.of("resume"):
        tally.rows[row.at] = replace(row, action="leave")


# -- what is told ---------------------------------------------------------------------------------------------


def _quiet(console: Console, wanted: Wanted) -> Callable[[str], None]:
    return (lambda _: None) if wanted.is_json else console.out


def _tell_plan(console: Console, wanted: Wanted, dag: str, tally: _Tally) -> None:
    if wanted.is_json:
        console.document(tally.document(dag))
        return
    for row in tally.rows.values():
        there = "" if row.status is None else f"  {row.status}"
        console.out(f"{row.at:%Y-%m-%d %H:%M} UTC  {row.action:<6}  {row.run_id}{there}")
    console.out(f"{_summary(tally)}; nothing was done")


def _summary(tally: _Tally) -> str:
    new, again, opened = (len(tally.of(each)) for each in ("start", "rerun", "resume"))
    parts = [f"{counted(new, 'run')} to start"]
    parts += [f"{again} to run again"] if again else []
    parts += [f"{opened} to take up"] if opened else []
    return ", ".join([*parts, f"{len(tally.of('leave'))} left alone"])


def _tell_end(console: Console, wanted: Wanted, dag: str, tally: _Tally, *, is_cloud: bool) -> int:
    done = tally.of("start", "rerun", "resume")
    bad = [row for row in done if row.status in (RunStatus.FAILED, RunStatus.CANCELLED)]
    if wanted.is_json:
        console.document(tally.document(dag))
        return 0 if is_cloud else int(bool(bad))
    left = f", {len(tally.of('leave'))} left alone"
    if is_cloud:
        console.out(f"{counted(len(done), 'run')} of {dag} asked for{left}")
        return 0
    console.out(f"{counted(len(done) - len(bad), 'run')} of {dag} Completed, {len(bad)} did not{left}")
    left_bad = [row for row in tally.of("leave") if row.status in (RunStatus.FAILED, RunStatus.CANCELLED)]
    if bad or left_bad:
        console.err("run what failed again with: --rerun failed")
    return int(bool(bad))


def _again(wanted: Wanted, now: datetime) -> str:
    since = ("--since", rfc3339(now)) if wanted.rerun == "all" and wanted.since is None else ()
    return shlex.join(("orchestrator", "backfill", *wanted.options, *since))
