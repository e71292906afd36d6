"""`orchestrator redrive RUN_ID`: let a run that has ended go on, from where it failed or, again, from a step.

A run in a directory goes on here, to its end, and is shown as `orchestrator run` shows one. Any other bucket is the
cloud's: a message to its topic asks for it.

Exit codes: as those of `orchestrator run`; of a run in the cloud 0 once it is asked for; 2 there is no such run, or
nothing in it to redrive.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli import run as running
from orchestrator.cli.asking import publish
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.lines import line
from orchestrator.engine.redriving import refusal
from orchestrator.engine.status import DefinitionStatus, tombstone_of
from orchestrator.model.commands import Json
from orchestrator.model.errors import InputError, RunNotFound
from orchestrator.model.ids import RUN_ID
from orchestrator.model.messages import redrive_message
from orchestrator.model.run_state import RunState
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run is to go on, from where, and how that is told."""

    run_id: str
    path: Path | None = None
    """The folder of its DAG, where that is not in the folder of the DAGs."""
    start_from: str | None = None
    bucket: str | None = None
    topic: str | None = None
    is_json: bool = False
    is_verbose: bool = False


def redrive(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Let the run go on, and say what became of it.

    Raises:
        RunNotFound: there is no such run in the bucket, or not any more.
        InputError: it has not ended, has completed, did not come by the step; or there is no topic.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    state = _loaded(bucket, wanted.run_id)
    why_not = refusal(DefinitionStatus(bucket.store).load(state.run.definition), state, wanted.start_from)
    if why_not is not None:
        raise InputError(f"run {wanted.run_id}: {why_not}")
    if bucket.root is not None:
        path = wanted.path or Path(settings.dag_definitions) / state.run.dag
        if wanted.path is None and not path.is_dir():
            raise InputError(f"redrive: there is no {path}; name the folder of the DAG: redrive {wanted.run_id} PATH")
        going_on = running.Redrive(wanted.run_id, wanted.start_from)
        asked = running.Wanted(
            path, bucket=wanted.bucket, is_json=wanted.is_json, is_verbose=wanted.is_verbose, redrive=going_on
        )
        return running.run(console, asked, settings)
    message = redrive_message(wanted.run_id, wanted.start_from, state.run.redrives + 1)
    message_id = publish("redrive", message, wanted.topic, bucket, settings, environment, clock, broker_of)
    if wanted.is_json:
        told: dict[str, Json] = {"run_id": wanted.run_id, "status": state.run.status, "message_id": message_id}
        console.document(as_json(told))
    else:
        console.out(f"run {wanted.run_id}: asked to go on, by message {message_id}")
        watch = f"orchestrator status {wanted.run_id} --bucket {shlex.quote(bucket.url)} --watch"
        console.styled([line("watch it with:", "dim"), line(f"  {watch}")])
    return 0


def _loaded(bucket: Bucket, run_id: str) -> RunState:
    state = bucket.find(run_id)
    if state is not None:
        return state
    if _was_pruned(bucket, run_id):
        raise RunNotFound(f"run {run_id}: was deleted by prune, so it cannot be redriven")
    raise bucket.not_found(run_id)


def _was_pruned(bucket: Bucket, run_id: str) -> bool:
    return RUN_ID.fullmatch(run_id) is not None and bucket.store.get(tombstone_of(run_id)) is not None
