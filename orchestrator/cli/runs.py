"""`orchestrator runs`: the runs of a bucket, newest first."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import msgspec

from orchestrator.cli.board import STYLES
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import Line, columns, counted, cut, line, pad, printable, took
from orchestrator.model.commands import Json
from orchestrator.model.run_state import RunInfo
from orchestrator.runtime.catalog import as_json

_OURS = re.compile(r"run_(\d{1,12})_[0-9a-f]{12}")
"""A run id that was not chosen tells when its run began."""

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


def runs(console: Console, bucket: Bucket, *, limit: int, dag: str | None, is_json: bool, now: datetime) -> int:
    """Write the newest runs."""
    found = newest(bucket, limit, dag)
    if is_json:
        console.document(as_json([_as_json(entry) for entry in found]))
    elif found:
        console.styled(table(found, console.size[0], now))
    else:
        console.err(f"no runs{f' of {dag}' if dag else ''} in {bucket.url}")
    return 0


def newest(bucket: Bucket, limit: int, dag: str | None) -> list[Entry]:
    """Return the newest runs (of one DAG), newest first; what cannot be read comes where its id says, else first.

    Only as many documents are read as it takes, but for runs whose ids were chosen.
    """
    chosen: list[str] = []
    by_second: list[tuple[int, str]] = []
    for run_id in bucket.run_ids():
        match = _OURS.fullmatch(run_id)
        if match:
            by_second.append((int(match[1]), run_id))
        else:
            chosen.append(run_id)
    found = [entry for run_id in chosen if _is_of(entry := read(bucket, run_id), dag)]
    enough = len(found) + limit
    for _, group in groupby(sorted(by_second, reverse=True), key=lambda pair: pair[0]):
        found += [entry for _, run_id in group if _is_of(entry := read(bucket, run_id), dag)]
        if len(found) >= enough:
            break
    return sorted(found, key=_began, reverse=True)[:limit]


def read(bucket: Bucket, run_id: str) -> Entry:
    """Return what is to be shown of a run."""
    key = f"runs/{run_id}.json"
    found = bucket.store.get(key)
    if found is None:
        return Entry(run_id, None, "deleted just now")
    try:
        run = msgspec.json.decode(found[0], type=_Head).run
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        return Entry(run_id, None, f"corrupt: {key} is not a run document: {exc}")
    if run.run_id != run_id:
        return Entry(run_id, None, f"corrupt: {key} says that it is run {printable(run.run_id)}")
    return Entry(run_id, run)


def table(entries: Sequence[Entry], width: int, now: datetime) -> list[Line]:
    """Return the heading and a line for each run."""
    cells = [_HEADING, *(_cells(entry, now) for entry in entries)]
    readable = [row for row, entry in zip(cells[1:], entries, strict=True) if entry.run]
    widths = columns([_HEADING, *readable])
    widths[0] = max(len(row[0]) for row in cells)
    lines: list[Line] = []
    for row, run, error in zip(cells, [None, *_infos(entries)], ["", *_errors(entries)], strict=True):
        if error:
            lines.append(((f"{pad(row[0], widths[0])}  ", ""), (cut(printable(error), max(20, width - widths[0] - 2)), "red")))
            continue
        style = STYLES[run.status] if run else "dim"
        quiet = "" if run else "dim"
        lines.append(
            (
                (f"{pad(row[0], widths[0])}  {pad(row[1], widths[1])}  ", quiet),
                (f"{pad(row[2], widths[2])}  ", style),
                (f"{pad(row[3], widths[3])}  ", "dim"),
                (pad(row[4], widths[4], is_number=True), quiet),
            )
        )
    return lines
