"""`orchestrator pause RUN_ID` and `orchestrator resume RUN_ID`: have a run start nothing more for now; have it go on.

In a directory the run's document is changed from here, and whoever runs it sees that at its next Tick or save: what a
resume starts has to run there. Any other bucket is the cloud's: a message to its topic asks for it.

Exit codes: 0 it is so, or is asked for; 2 there is no such run, or it has ended or is being cancelled.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from orchestrator.cli.asking import publish
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.children import children
from orchestrator.cli.console import Console
from orchestrator.cli.lines import counted, line, listed
from orchestrator.engine.pausing import paused, resumed
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Json
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import InputError, VersionConflict
from orchestrator.model.messages import pause_message, resume_message
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run is meant, and how that is told."""

    run_id: str
    is_json: bool = False
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class Way:
    """To pause or to resume: its word, what the run becomes by it, and how."""

    word: str
    status: RunStatus
    of: Callable[[RunInfo, datetime], RunInfo]
    message: Callable[[str], dict[str, Json]]


PAUSE = Way("pause", RunStatus.PAUSED, paused, pause_message)
RESUME = Way("resume", RunStatus.RUNNING, resumed, resume_message)


def steer(
    console: Console,
    bucket: Bucket,
    way: Way,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker],
) -> int:
    """Have the run paused, or go on, and say so.

    Raises:
        RunNotFound: there is no such run in the bucket.
        InputError: it has ended or is being cancelled, or there is no topic.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    state = bucket.load(wanted.run_id)
    _check(state.run, way)
    message_id = None
    if bucket.root is not None:
        state = _save(bucket, way, wanted.run_id, clock.now())
    elif state.run.status is not way.status:
        message = way.message(wanted.run_id)
        message_id = publish(way.word, message, wanted.topic, bucket, settings, environment, clock, broker_of)
    told = _steer_children(
        bucket,
        way,
        state,
        clock,
        lambda message: publish(way.word, message, wanted.topic, bucket, settings, environment, clock, broker_of),
    )
    _tell(console, bucket, state, way, message_id, told, is_json=wanted.is_json)
    return 0


def _steer_children(
    bucket: Bucket, way: Way, state: RunState, clock: Clock, ask: Callable[[Mapping[str, Json]], str]
) -> int:
    """Have the child runs of a run, and theirs, do as it does; return how many were told."""
    told, waiting = 0, [child for _, child in children(state, are_running=True)]
    while waiting:
        child = bucket.find(waiting.pop())
        if child is None or child.run.status.is_final:
            continue
        waiting += [each for _, each in children(child, are_running=True)]
        if child.run.stop is not None or child.run.status is way.status:
            continue
        if bucket.root is None:
            ask(way.message(child.run.run_id))
        else:
            try:
                _save(bucket, way, child.run.run_id, clock.now())
            except InputError:  # it has ended meanwhile
                continue
        told += 1
    return told


def _check(run: RunInfo, way: Way) -> None:
    if run.status.is_final:
        raise InputError(f"run {run.run_id}: has ended as {run.status}; there is nothing to {way.word}")
    if run.stop is not None:
        raise InputError(f"run {run.run_id}: is being stopped; there is nothing to {way.word}")


def _save(bucket: Bucket, way: Way, run_id: str, now: datetime) -> RunState:
    """Write it into the document, by compare-and-swap, if it is not so already."""
    status = OrchestrationStatus(bucket.store, run_id)
    while True:
        loaded = status.load()
        if loaded is None:
            raise bucket.not_found(run_id)
        state, version = loaded
        _check(state.run, way)
        if state.run.status is way.status:
            return state
        run = way.of(state.run, now)
        if run is state.run:
            raise InputError(f"run {run.run_id}: was paused or resumed at {run.steered_at}, after this clock's time")
        try:
            status.save(RunState(run, state.nodes), expect=version)
        except VersionConflict:
            continue
        return RunState(run, state.nodes)


def _tell(
    console: Console,
    bucket: Bucket,
    state: RunState,
    way: Way,
    message_id: str | None,
    told_children: int,
    *,
    is_json: bool,
) -> None:
    run = state.run
    also = f", with {counted(told_children, 'child run')}" if told_children else ""
    if is_json:
        told: dict[str, Json] = {"run_id": run.run_id, "status": run.status}
        console.document(as_json(told if message_id is None else {**told, "message_id": message_id}))
        return
    if message_id is not None:
        console.out(f"run {run.run_id}: asked to {way.word}{also}, by message {message_id}")
        return
    if way is PAUSE:
        runs = [node.node_name for node in state.nodes.values() if node.status is TaskStatus.RUNNING and node.claim]
        still = f"; {counted(len(runs), 'step')} still at work: {listed(runs)}" if runs else ""
        console.out(f"run {run.run_id} is paused{also}{still}")
        again = f"orchestrator resume {run.run_id} --bucket {shlex.quote(bucket.url)}"
        console.styled([line("let it go on with:", "dim"), line(f"  {again}")])
    else:
        console.out(f"run {run.run_id} goes on{also}")
        again = f"orchestrator run PATH --resume {run.run_id} --bucket {shlex.quote(bucket.url)}"
        if bucket.root is not None:
            console.styled([line("if nothing runs it any more, finish it with:", "dim"), line(f"  {again}")])
