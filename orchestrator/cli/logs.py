"""`orchestrator logs RUN_ID [NODE]`: what a run's functions and jobs wrote, in its directory or in Cloud Logging."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.children import children
from orchestrator.cli.cloud_logs import CloudLogs, Logging
from orchestrator.cli.console import Console
from orchestrator.cli.lines import Line, counted, local_time, pad, printable
from orchestrator.cli.local_logs import LocalLogs
from orchestrator.cli.places import Places
from orchestrator.model.enums import NodeTypes
from orchestrator.model.errors import InputError
from orchestrator.model.log_query import Attempt, Said, attempts_of
from orchestrator.model.run_state import RunState
from orchestrator.model.words import did_you_mean
from orchestrator.ports import Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import log_reader
from orchestrator.runtime.settings import Settings

STYLES: Mapping[str, str] = {
    "DEBUG": "dim",
    "NOTICE": "cyan",
    "WARNING": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold red",
    "ALERT": "bold red",
    "EMERGENCY": "bold red",
}
"""Severity -> the style of its word."""

_MAX_CHILDREN = 10

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are to be shown, and how."""

    run_id: str
    node_name: str | None = None
    attempt: int | None = None
    is_following: bool = False
    since_s: float | None = None
    limit: int = 1000
    project: str | None = None
    is_json: bool = False

    def attempts(self, state: RunState) -> list[Attempt]:
        """The attempts whose lines are wanted."""
        return attempts_of(state, self.node_name, self.attempt)


class Source(Protocol):
    """Where the lines of a run come from.

    Attributes:
        pause_s: how long to wait before asking again.
        lag_s: how long after a run's end lines may still come.
    """

    pause_s: float
    lag_s: float

    def read(self, state: RunState) -> list[Said]:
        """Return the lines that were not returned before, in their order."""


def logs(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    reader_of: Callable[[Sequence[str], Mapping[str, str]], Logging] = log_reader,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Write the lines, and go on doing so until the run has ended where that is asked for.

    Raises:
        RunNotFound: there is no such run in the bucket.
        InputError: there is no such node or attempt, or it is not known whose logs to read.
        OrchestratorError: the logs cannot be read.
    """
    if wanted.is_json and wanted.is_following:
        raise InputError("logs: --json is one document and --follow has no end; keep one of the two")
    state = bucket.load(wanted.run_id)
    _check(state, wanted)
    source = _source(bucket, state, wanted, settings, environment, clock, reader_of)
    lines = source.read(state)
    if len(lines) >= wanted.limit:
        console.err(f"these are the last {counted(wanted.limit, 'line')}; --limit N shows more")
    lines = lines[-wanted.limit :]
    if wanted.is_json:
        console.document(as_json([_as_json(said) for said in lines]))
        return 0
    width = min(32, max((len(attempt.node.node_name) for attempt in wanted.attempts(state)), default=0))
    console.styled(line for said in lines for line in shown(said, width))
    if wanted.is_following:
        _follow(console, bucket, source, wanted, clock, width, sleep)
    found = [each for each in children(state) if wanted.node_name in (None, each[0].node_name)]
    for node, child in found[:_MAX_CHILDREN]:  # what they say is theirs
        console.err(f"{node.node_name} is run {child}: orchestrator logs {child}")
    if len(found) > _MAX_CHILDREN:
        console.err(f"… and {len(found) - _MAX_CHILDREN:,} more: orchestrator runs --parent {wanted.run_id}")
    if not (lines or found or wanted.is_following):
        console.err(_nothing(bucket, wanted))
    return 0


def shown(said: Said, width: int) -> list[Line]:
    """Return `time severity node text`, a line for each of its lines; without the time where the log has none."""
    at = f"{local_time(said.at, '%Y-%m-%d %H:%M:%S')}.{said.at.microsecond // 1000:03} " if said.at else ""
    severity = "" if said.severity == "DEFAULT" else said.severity
    head = (
        (at, "dim"),
        (f"{pad(printable(severity), 8)} ", STYLES.get(said.severity, "")),
        (f"{pad(said.node or '', width)} ", "cyan"),
    )
    return [(*head, (printable(text), "")) for text in _COLOURS.sub("", said.text).splitlines() or [""]]


def _check(state: RunState, wanted: Wanted) -> None:
    if wanted.node_name is None:
        if wanted.attempt is not None:
            raise InputError("logs: --attempt needs the NODE that it is an attempt at")
        return
    node = state.nodes.get(wanted.node_name)
    if node is None and attempts_of(state, wanted.node_name):
        return  # a step of a Map: all its items
    if node is None:
        hint = did_you_mean(wanted.node_name, state.nodes) or f" there are {', '.join(list(state.nodes)[:8])}"
        raise InputError(f'run {wanted.run_id}: there is no node "{wanted.node_name}";{hint}')
    if node.node_type is not NodeTypes.TASK:
        raise InputError(f"run {wanted.run_id}: {wanted.node_name} is a {node.node_type}; only Tasks have logs")
    if wanted.attempt is not None and wanted.attempt > node.attempt:
        raise InputError(
            f"run {wanted.run_id}: {wanted.node_name} has had {counted(node.attempt, 'attempt')}, "
            f"so there is none of number {wanted.attempt}"
        )


def _source(
    bucket: Bucket,
    state: RunState,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    reader_of: Callable[[Sequence[str], Mapping[str, str]], Logging],
) -> Source:
    if bucket.root is not None:
        if wanted.since_s is not None:
            raise InputError(f"logs: the logs in {bucket.url} bear no times, so that --since says nothing")
        return LocalLogs(bucket, wanted.attempts)
    places = Places(bucket, state, settings, wanted.project)
    projects = places.projects()
    if not projects:
        raise InputError(
            "logs: it is not known whose logs to read; set GOOGLE_CLOUD_PROJECT, or name the project by --project"
        )
    since = None if wanted.since_s is None else clock.now() - timedelta(seconds=wanted.since_s)
    return CloudLogs(
        reader_of(projects, environment),
        projects,
        wanted.attempts,
        node_name=wanted.node_name,
        attempt=wanted.attempt,
        since=since,
        limit=wanted.limit,
    )


def _follow(
    console: Console,
    bucket: Bucket,
    source: Source,
    wanted: Wanted,
    clock: Clock,
    width: int,
    sleep: Callable[[float], None],
) -> None:
    """Write what comes until the run has ended and its last lines have come."""
    while True:
        state = bucket.load(wanted.run_id)
        ended_at = state.run.ended_at
        is_over = ended_at is not None and (clock.now() - ended_at).total_seconds() >= source.lag_s
        console.styled(line for said in source.read(state) for line in shown(said, width))
        if is_over:
            return
        sleep(source.pause_s)


def _nothing(bucket: Bucket, wanted: Wanted) -> str:
    what = f"{wanted.node_name} of run {wanted.run_id}" if wanted.node_name else f"run {wanted.run_id}"
    if bucket.root is None:
        return f"{what}: no log entries were found"
    return f"{what}: has left no log; what Function steps print goes where `orchestrator run` writes"


def _as_json(said: Said) -> Mapping[str, object]:
    return {
        "at": said.at,
        "severity": said.severity,
        "node": said.node,
        "attempt": said.attempt,
        "text": said.text,
    }
