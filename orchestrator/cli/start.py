"""`orchestrator start NAME`: publish a start message to the topic that the Cloud Function listens to."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from orchestrator.cli.console import Console
from orchestrator.cli.inputs import read_inputs
from orchestrator.model.errors import BrokerUnavailable, InputError
from orchestrator.model.ids import RUN_ID, run_id_of
from orchestrator.model.messages import MAX_DEPTH, is_too_deep, start_message
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings

_NO_TOPIC = "start: EVENTS_TOPIC is not set; set it, or name the topic by --topic projects/P/topics/T"
_RUN_ID_HOW = "write 1 to 128 of A-Z a-z 0-9 _ -, beginning with a letter or digit"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be started, and how that is told."""

    dag: str
    inputs: tuple[str, ...] = ()
    run_id: str | None = None
    topic: str | None = None
    bucket: str | None = None
    is_json: bool = False
    priority: int | None = None


def start(
    console: Console,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    random_id: Callable[[], str],
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Publish the message and say how to watch the run.

    The run id is chosen here, so that a message that is published twice, by a publisher that tries again, starts
    one run.

    Raises:
        InputError: there is no topic, or the input or the id is wrong.
        SettingsError: the topic is no name of one.
        BrokerUnavailable: the topic cannot be reached, is not there or not ours to publish to.
    """
    topic = wanted.topic or settings.events_topic
    if topic is None:
        raise InputError(_NO_TOPIC)
    run_id = wanted.run_id or run_id_of(random_id(), clock.now())
    if not RUN_ID.fullmatch(run_id):
        raise InputError(f'start: --run-id "{run_id}" is no run id; {_RUN_ID_HOW}')
    given = read_inputs(wanted.inputs)
    if is_too_deep(given):
        raise InputError(f"start: the input is nested too deeply; allowed are {MAX_DEPTH} levels")
    broker = broker_of(topic, environment, clock)
    try:
        message_id = broker.publish(start_message(wanted.dag, given, run_id, priority=wanted.priority))
    except BrokerUnavailable as exc:
        again = replace(wanted, run_id=run_id)
        exc.add_note(f"it may have got through; the same run is started again by: {_command(again)}")
        raise
    if wanted.is_json:
        console.document(as_json({"run_id": run_id, "message_id": message_id}))
        return 0
    bucket = wanted.bucket or settings.status_bucket
    console.out(run_id, "watch it with:", f"  orchestrator status {run_id} --bucket {shlex.quote(bucket)} --watch")
    return 0


def _command(wanted: Wanted) -> str:
    """The command as a person types it."""
    words = ["orchestrator", "start", wanted.dag]
    words += ["--input", *wanted.inputs] if wanted.inputs else []
    words += [f"--priority={wanted.priority}"] if wanted.priority is not None else []
    for option, value in (("--run-id", wanted.run_id), ("--topic", wanted.topic), ("--bucket", wanted.bucket)):
        words += [option, value] if value else []
    return shlex.join(words)
