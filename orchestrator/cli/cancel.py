"""`orchestrator cancel RUN_ID`: have a run stopped. Nothing more is started; what runs is cancelled or, where it cannot
be, waited for.

A run in a directory is cancelled from here, also while another process runs it: both save by compare-and-swap, and the
other one sees the cancel at its next save or Tick. Any other bucket is the cloud's: a message to its topic asks for it.

Exit codes: 0 the run is cancelled, or is being cancelled; 1 it ended otherwise before it could be; 2 there is no such
run, or it had ended otherwise already.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.cli.asking import publish
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.follow import News, follow
from orchestrator.cli.lines import counted, line, listed, printable
from orchestrator.cli.progress import view_for
from orchestrator.cli.summary import summary
from orchestrator.cli.trouble import Trouble
from orchestrator.engine.catalog import Catalog
from orchestrator.model.commands import Json
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import InputError
from orchestrator.model.grammar_rules import text_problem
from orchestrator.model.messages import cancel_message
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunState
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.settings import Settings

DEFAULT_REASON = "cancelled from the command line"
MAX_REASON = 500

_LOOKS = 10
"""How often a run is looked after that a killed process left; each look settles what the one before found out."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which run is to be cancelled, and how that is told."""

    run_id: str
    reason: str = DEFAULT_REASON
    is_waiting: bool = False
    is_json: bool = False
    is_verbose: bool = False
    interval_s: float = 1.0
    topic: str | None = None


def cancel(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Have the run cancelled, and say what became of it.

    Raises:
        RunNotFound: there is no such run in the bucket.
        InputError: it ended otherwise already, the reason cannot be kept, or there is no topic.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    _check(wanted.reason)
    state = bucket.load(wanted.run_id)
    if state.run.status.is_final:
        return _ended_before(console, state, wanted)
    if bucket.root is None:
        message = cancel_message(wanted.run_id, wanted.reason)
        message_id = publish("cancel", message, wanted.topic, bucket, settings, environment, clock, broker_of)
        if wanted.is_waiting:
            state = _follow(console, bucket, wanted, clock)
        return _tell(console, bucket, state, wanted, clock, message_id)
    with DAGExecutor(Catalog({}), store=bucket.store, settings=settings) as executor:
        executor.execute(cancel_message(wanted.run_id, wanted.reason))
        executor.resume(wanted.run_id)
        for _ in range(_LOOKS):
            runs = dict.fromkeys((wanted.run_id, *executor.open_run_ids))  # with its child runs
            found = [executor.look_after(each) for each in runs]
            if not any(found):
                break
        state = _follow(console, bucket, wanted, clock) if wanted.is_waiting else bucket.load(wanted.run_id)
    return _tell(console, bucket, state, wanted, clock)


def _check(reason: str) -> None:
    problem = text_problem(reason)
    if problem is None and len(reason) > MAX_REASON:
        problem = f"has {len(reason):,} characters; allowed are {MAX_REASON}"
    if problem is not None:
        raise InputError(f"cancel: --reason: {problem}")


def _follow(console: Console, bucket: Bucket, wanted: Wanted, clock: Clock) -> RunState:
    """Show the run until it has ended."""
    trouble = Trouble()
    view = view_for(console, is_json=wanted.is_json, is_verbose=wanted.is_verbose, before=bucket.load(wanted.run_id))

    def load() -> RunState:
        state = bucket.load(wanted.run_id)
        trouble.saved()
        return state

    try:
        return follow(News(), view, load, clock.now, trouble.check, trouble.told, wanted.interval_s)
    finally:
        view.close()


def _ended_before(console: Console, state: RunState, wanted: Wanted) -> int:
    if state.run.status is not RunStatus.CANCELLED:
        raise InputError(f"run {wanted.run_id}: has ended as {state.run.status}; there is nothing to cancel")
    if wanted.is_json:
        console.document(encode(state) if wanted.is_waiting else _brief(state, None))
    else:
        console.out(f"run {wanted.run_id} was cancelled already{_why(state)}")
    return 0


def _tell(
    console: Console, bucket: Bucket, state: RunState, wanted: Wanted, clock: Clock, message_id: str | None = None
) -> int:
    run = state.run
    if wanted.is_json:
        console.document(encode(state) if wanted.is_waiting else _brief(state, message_id))
    elif wanted.is_waiting:
        console.out("")
        console.styled(summary(state, bucket, clock.now(), console.size[0], f"orchestrator start {run.dag}"))
    elif run.status.is_final:
        console.out(f"run {run.run_id}: {run.status}{_why(state)}")
    elif message_id is not None:
        console.out(f"run {run.run_id}: asked to be cancelled, by message {message_id}")
    else:
        waits = [node.node_name for node in state.nodes.values() if node.status is TaskStatus.RUNNING and node.attempt]
        console.out(f"run {run.run_id} is being cancelled; {counted(len(waits), 'step')} still to end: {listed(waits)}")
    if not (run.status.is_final or wanted.is_json):
        console.styled([line("watch it with:", "dim"), line(f"  {_watch(wanted, bucket)}")])
    return 1 if run.status in (RunStatus.COMPLETED, RunStatus.FAILED) else 0


def _brief(state: RunState, message_id: str | None) -> bytes:
    told: dict[str, Json] = {"run_id": state.run.run_id, "status": state.run.status}
    return as_json(told if message_id is None else {**told, "message_id": message_id})


def _why(state: RunState) -> str:
    return f" ({printable(state.run.cancel_reason)})" if state.run.cancel_reason else ""


def _watch(wanted: Wanted, bucket: Bucket) -> str:
    return f"orchestrator status {wanted.run_id} --bucket {shlex.quote(bucket.url)} --watch"
