"""`orchestrator runs`: the runs of a bucket, newest first; all of them, or those of a DAG, a status, with tags.

Child runs, of which a Map in parts has hundreds, only if they are asked for.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from math import inf

import msgspec

from orchestrator.cli.board import STYLES
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import Line, columns, counted, cut, local_time, pad, printable, took
from orchestrator.engine.status import OpenRuns
from orchestrator.model.commands import Json
from orchestrator.model.enums import RunStatus
from orchestrator.model.ids import RUN_ID
from orchestrator.model.run_state import RunInfo
from orchestrator.runtime.catalog import as_json

_OURS = re.compile(r"run_(\d{1,12})_[0-9a-f]{12}")
"""A run id that was not chosen tells when its run began."""

_ABOUT = "Owner #tags"
_HEADING = ("Run", "DAG", "Status", "Started", "Duration")


class _Head(msgspec.Struct):
    """As much of a run document as is needed here; the nodes are passed over."""

    run: RunInfo = msgspec.field(name="$run")


@dataclass(frozen=True, slots=True)
class Entry:
    """A run, or why it cannot be read."""

    run_id: str
    run: RunInfo | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs are meant: those that all of this is true of. A run that cannot be read is always meant."""

    dag: str | None = None
    statuses: frozenset[RunStatus] = frozenset()
    """One of these; any, where there are none."""
    tags: frozenset[str] = frozenset()
    """All of these."""
    parent: str | None = None
    """The run that they are child runs of."""
    has_children: bool = True
    """Whether child runs are meant, too, where it is not said whose."""

    def meets(self, run: RunInfo) -> bool:
        """Whether a run is meant."""
        if self.dag is not None and run.dag != self.dag:
            return False
        if self.parent is not None and (run.parent is None or run.parent.run_id != self.parent):
            return False
        return (not self.statuses or run.status in self.statuses) and self.tags <= set(run.tags)

    def leaves_out(self, run: RunInfo | None) -> bool:
        """Whether a run is a child run, and none of these was asked for."""
        return run is not None and run.parent is not None and self.parent is None and not self.has_children

    def __str__(self) -> str:
        words = [f"of {self.dag}"] if self.dag else []
        words += [f"that are {' or '.join(sorted(self.statuses))}"] if self.statuses else []
        words += [f"tagged {' and '.join(sorted(self.tags))}"] if self.tags else []
        words += [f"that {self.parent} started"] if self.parent else []
        return "".join(f" {word}" for word in words)


ALL = Filter()


def runs(
    console: Console,
    bucket: Bucket,
    *,
    limit: int,
    wanted: Filter = ALL,
    is_json: bool,
    now: datetime,
    since: datetime | None = None,
) -> int:
    """Write the newest runs, and how many child runs that are as new are left out.

    With `since`, only those that began then or later.
    """
    found, left_out, are_more = newest(bucket, limit, wanted, now, since)
    if is_json:
        console.document(as_json([_as_json(entry) for entry in found]))
    elif found:
        console.styled(table(found, console.size[0], now))
    else:
        console.err(f"no runs{wanted} in {bucket.url}")
    if are_more:
        console.err(f"these are the newest {counted(limit, 'run')}; --limit N shows more")
    if left_out:
        console.err(f"{counted(left_out, 'child run')} left out; --children lists them, too")
    return 0


def newest(
    bucket: Bucket, limit: int, wanted: Filter = ALL, now: datetime | None = None, since: datetime | None = None
) -> tuple[list[Entry], int, bool]:
    """Return the newest runs that are meant, newest first; how many child runs as new as these are left out; and
    whether there are more than `limit`.

    One that cannot be read comes where its id says, else first. Only as many documents are read as it takes, by the
    times that ids have, and of others the times at which they, or the markers of open ones, were written.
    Where only open runs are meant, no others are looked at.
    """
    now_s = (now or datetime.now(UTC)).timestamp()
    since_s = max(_earliest_s(bucket, wanted), since.timestamp() if since is not None else 0.0)
    found: list[Entry] = []
    left_out: list[Entry] = []
    seen: set[str] = set()

    def take(run_ids: Iterable[str]) -> None:
        run_ids = [run_id for run_id in run_ids if run_id not in seen]
        seen.update(run_ids)
        for entry in _read_all(bucket, run_ids, wanted):
            if _began(entry)[0] >= since_s:
                (left_out if wanted.leaves_out(entry.run) else found).append(entry)

    if not wanted.statuses or any(status.is_final for status in wanted.statuses):
        names = bucket.run_names(now_s, since_s)
        for _, group in groupby(names.ours(), key=lambda run_id: run_id[: len("run_1795204507")]):
            if len(found) > limit:
                break
            take(group)
        # The id of a run for a time of its schedule is of that time, which may be long ago: as of a backfill.
        are_unseen = len(found) > limit or since_s > 0.0
        for dated in (*((names.open_ones(), names.written_late()) if are_unseen else ()), names.chosen()):
            for written_s, run_id in dated:
                # It began before that was written last, and so did all that follow.
                if written_s is not None and sum(_began(each)[0] >= written_s for each in found) > limit:
                    break
                take((run_id,))
    else:
        take(sorted({run_id for _, run_id in OpenRuns(bucket.store)}))
    found.sort(key=_began, reverse=True)
    oldest = _began(found[limit - 1]) if len(found) >= limit else (-inf, "")
    return found[:limit], sum(_began(each) > oldest for each in left_out), len(found) > limit


def _earliest_s(bucket: Bucket, wanted: Filter) -> float:
    """When runs that are meant can have begun at the earliest: child runs not before their parent."""
    parent = read(bucket, wanted.parent) if wanted.parent is not None and RUN_ID.fullmatch(wanted.parent) else None
    return parent.run.started_at.timestamp() // 1 if parent is not None and parent.run is not None else 0.0


def read(bucket: Bucket, run_id: str) -> Entry | None:
    """Return what is to be shown of a run; None if it has just been deleted."""
    key = f"runs/{run_id}.json"
    found = bucket.store.get(key)
    if found is None:
        return None
    try:
        run = msgspec.json.decode(found[0], type=_Head).run
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return Entry(run_id, None, f"corrupt: {key} is not a run document: {exc}")
    if run.run_id != run_id:
        return Entry(run_id, None, f"corrupt: {key} says that it is run {run.run_id}")
    return Entry(run_id, run)


def table(entries: Sequence[Entry], width: int, now: datetime) -> list[Line]:
    """Return the heading and a line for each run."""
    rows = [_cells(entry.run, now) for entry in entries if entry.run]
    first = max(len(_HEADING[0]), *(len(entry.run_id) for entry in entries))
    widths = columns([_HEADING, *rows])[1:]
    widths[0] = min(widths[0], max(8, width - first - sum(widths[1:]) - 8))
    room = width - first - sum(widths) - 10
    is_about = room > 10 and any(
        entry.run and (entry.run.owner or entry.run.tags or entry.run.parent) for entry in entries
    )
    lines = [_row(_HEADING, first, widths, "dim", "dim") + (((f"  {_ABOUT}", "dim"),) if is_about else ())]
    for entry in entries:
        if entry.run is None:
            words = cut(printable(entry.error), max(20, width - first - 2))
            lines.append(((f"{pad(entry.run_id, first)}  ", ""), (words, "red")))
        else:
            row = _row(_cells(entry.run, now), first, widths, "", STYLES[entry.run.status])
            about = cut(about_of(entry.run), room) if is_about else ""
            lines.append((*row, (f"  {about}", "dim")) if about else row)
    return lines


def about_of(run: RunInfo) -> str:
    """Return who answers for a run, its tags, and whose child it is: `data-team #daily #finance`."""
    child = [f"child of {run.parent.run_id} {run.parent.node}"] if run.parent else []
    return printable(" ".join([*([run.owner] if run.owner else []), *(f"#{tag}" for tag in run.tags), *child]))


def _row(cells: Sequence[str], first: int, widths: Sequence[int], style: str, status_style: str) -> Line:
    run_id, dag, status, started, duration = cells
    return (
        (f"{pad(run_id, first)}  {pad(dag, widths[0])}  ", style),
        (f"{pad(status, widths[1])}  ", status_style),
        (f"{pad(started, widths[2])}  {pad(duration, widths[3], is_number=True)}", style),
    )


def _cells(run: RunInfo, now: datetime) -> tuple[str, ...]:
    started = local_time(run.started_at, "%Y-%m-%d %H:%M")
    status = f"{run.status}, late" if run.is_late else str(run.status)
    return run.run_id, printable(run.dag), status, started, took(_seconds(run, now))


def _read_all(bucket: Bucket, run_ids: Iterable[str], wanted: Filter) -> Iterator[Entry]:
    for run_id in run_ids:
        entry = read(bucket, run_id)
        if entry is not None and (entry.run is None or wanted.meets(entry.run)):
            yield entry


def _began(entry: Entry) -> tuple[float, str]:
    match = _OURS.fullmatch(entry.run_id)
    if entry.run is not None:
        return entry.run.started_at.timestamp(), entry.run_id
    return (float(match[1]) if match else inf), entry.run_id


def _seconds(run: RunInfo, now: datetime) -> float:
    return ((run.ended_at or now) - (run.redriven_at or run.started_at)).total_seconds()


def _as_json(entry: Entry) -> Json:
    run = entry.run
    if run is None:
        return {"run_id": entry.run_id, "error": entry.error}
    return {
        "run_id": run.run_id,
        "dag": run.dag,
        "status": run.status,
        "priority": run.priority,
        "queued_at": run.queued_at,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "owner": run.owner,
        "tags": list(run.tags),
        "is_late": run.is_late,
        "parent": None if run.parent is None else run.parent.run_id,
    }
