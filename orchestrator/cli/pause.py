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
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run is to be paused, or to go on."""

    run_id: str
    is_pause: bool
    is_json: bool = False
    topic: str | None = None

    @property
    def command(self) -> str:
        """As it is called on the command line."""
        return "pause" if self.is_pause else "resume"

    @property
    def status(self) -> RunStatus:
        """What the run is to be."""
        return RunStatus.PAUSED if self.is_pause else RunStatus.RUNNING


def steer(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Have the run paused, or go on, and say so.

    Raises:
        RunNotFound: there is no such run in the bucket.
        InputError: it has ended or is being cancelled, or there is no topic.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    state = bucket.load(wanted.run_id)
    _check(state.run, wanted)
    message_id = None
    if bucket.root is not None:
        state = _save(bucket, wanted, clock.now())
    elif state.run.status is not wanted.status:
        message = (pause_message if wanted.is_pause else resume_message)(wanted.run_id)
        message_id = publish(wanted.command, message, wanted.topic, bucket, settings, environment, clock, broker_of)
    _tell(console, bucket, state, wanted, message_id)
    return 0


def _check(run: RunInfo, wanted: Wanted) -> None:
    if run.status.is_final:
        raise InputError(f"run {run.run_id}: has ended as {run.status}; there is nothing to {wanted.command}")
    if run.cancel_reason is not None:
        raise InputError(f"run {run.run_id}: is being cancelled; there is nothing to {wanted.command}")


def _save(bucket: Bucket, wanted: Wanted, now: datetime) -> RunState:
    """Write it into the document, by compare-and-swap, if it is not so already."""
    status = OrchestrationStatus(bucket.store, wanted.run_id)
    while True:
        loaded = status.load()
        if loaded is None:
            raise bucket.not_found(wanted.run_id)
        state, version = loaded
        _check(state.run, wanted)
        if state.run.status is wanted.status:
            return state
        run = (paused if wanted.is_pause else resumed)(state.run, now)
        if run is state.run:
            raise InputError(f"run {run.run_id}: was paused or resumed at {run.steered_at}, after this clock's time")
        try:
            status.save(RunState(run, state.nodes), expect=version)
        except VersionConflict:
            continue
        return RunState(run, state.nodes)


def _tell(console: Console, bucket: Bucket, state: RunState, wanted: Wanted, message_id: str | None) -> None:
    run = state.run
    if wanted.is_json:
        told: dict[str, Json] = {"run_id": run.run_id, "status": run.status}
        console.document(as_json(told if message_id is None else {**told, "message_id": message_id}))
        return
    if message_id is not None:
        console.out(f"run {run.run_id}: asked to {wanted.command}, by message {message_id}")
        return
    if wanted.is_pause:
        runs = [node.node_name for node in state.nodes.values() if node.status is TaskStatus.RUNNING and node.claim]
        still = f"; {counted(len(runs), 'step')} still at work: {listed(runs)}" if runs else ""
        console.out(f"run {run.run_id} is paused{still}")
        again = f"orchestrator resume {run.run_id} --bucket {shlex.quote(bucket.url)}"
        console.styled([line("let it go on with:", "dim"), line(f"  {again}")])
    else:
        console.out(f"run {run.run_id} goes on")
        again = f"orchestrator run PATH --resume {run.run_id} --bucket {shlex.quote(bucket.url)}"
        if bucket.root is not None:
            console.styled([line("if nothing runs it any more, finish it with:", "dim"), line(f"  {again}")])
