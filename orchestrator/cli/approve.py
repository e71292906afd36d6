"""`orchestrator approve RUN_ID NODE`: answer a Callback Task that waits: it completes or, with --reject, fails.

In a directory the answer is left beside the run, and whoever runs it finds it there at its next Tick. Any other bucket
is the cloud's: a message to its topic carries the answer, with the token of the step as proof, which is read from the
run's document: who may read that and publish may answer.

Exit codes: 0 it is answered, or the answer is on its way; 2 there is no such run or step, or it does not wait.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from orchestrator.cli.asking import publish
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.children import children, waits_for_answer
from orchestrator.cli.console import Console
from orchestrator.cli.lines import line, listed
from orchestrator.model.commands import Failure, Json
from orchestrator.model.enums import OutcomeKind, TargetTypes, TaskStatus
from orchestrator.model.errors import InputError, VersionConflict
from orchestrator.model.grammar_rules import text_problem
from orchestrator.model.ids import key_of
from orchestrator.model.messages import MAX_DEPTH, callback_message, is_too_deep
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState
from orchestrator.model.task_result import TaskResult, result_object
from orchestrator.model.words import did_you_mean
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings

MAX_REASON = 500
REJECTED = "Callback.Rejected"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which step is answered, and how.

    Attributes:
        result: what it completes with, JSON.
        reason: why it is rejected.
    """

    run_id: str
    node_name: str
    is_rejected: bool = False
    result: str | None = None
    reason: str | None = None
    is_json: bool = False
    topic: str | None = None


def approve(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Answer the step, and say so.

    Raises:
        RunNotFound: there is no such run in the bucket.
        InputError: there is no such step, it does not wait for an answer, or the answer is no JSON.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    result, rejected = _answer(wanted)
    state = bucket.load(wanted.run_id)
    node = _node(state, wanted)
    token = node.claim.nonce if node.claim is not None else ""
    message = callback_message(wanted.run_id, node.node_name, node.attempt, token, result, rejected)
    message_id: str | None = None
    if bucket.root is None:
        message_id = publish("approve", message, wanted.topic, bucket, settings, environment, clock, broker_of)
    else:
        _leave(bucket, state.launch_id(node.node_name), result, rejected, clock)
    _tell(console, bucket, wanted, message_id)
    return 0


def _leave(bucket: Bucket, launch_id: str, result: Json, rejected: Failure | None, clock: Clock) -> None:
    """Write the answer where the Callback's target looks for it. Raises InputError: there is one already."""
    kind = OutcomeKind.COMPLETED if rejected is None else OutcomeKind.FAILED
    answer = TaskResult(kind=kind, result=result, error=rejected, at=clock.now())
    try:
        bucket.store.put(result_object(key_of(launch_id)), msgspec.json.encode(answer), expect=None)
    except VersionConflict as exc:
        run_id, name, _ = launch_id.split("/")
        raise InputError(f"run {run_id}: {name} was answered already; its answer cannot be changed") from exc


def _answer(wanted: Wanted) -> tuple[Json, Failure | None]:
    for option, text in (("--reason", wanted.reason), ("--result", wanted.result)):
        problem = text_problem(text) if text is not None else None
        if problem is not None:
            raise InputError(f"approve: {option}: {problem}")
    if wanted.is_rejected:
        if wanted.result is not None:
            raise InputError("approve: --result and --reject do not go together; what is rejected has a --reason")
        if wanted.reason is not None and len(wanted.reason) > MAX_REASON:
            raise InputError(f"approve: --reason: has {len(wanted.reason):,} characters; allowed are {MAX_REASON}")
        return None, Failure(REJECTED, wanted.reason or "rejected")
    if wanted.reason is not None:
        raise InputError("approve: --reason goes with --reject; what is approved may have a --result")
    if wanted.result is None:
        return None, None
    try:
        result: Json = json.loads(wanted.result)
    except (ValueError, RecursionError) as exc:
        raise InputError(f"approve: --result: is no JSON: {exc}") from exc
    if is_too_deep(result):
        raise InputError(f"approve: --result: is nested too deeply; allowed are {MAX_DEPTH} levels")
    return result, None


def _node(state: RunState, wanted: Wanted) -> NodeState:
    """Return the step that is answered. Raises InputError, which says what is so, and what could be answered."""
    run_id, name = wanted.run_id, wanted.node_name
    if state.run.status.is_final:
        raise InputError(f"run {run_id}: has ended as {state.run.status}; there is nothing to answer")
    node = state.nodes.get(name)
    waiting = [each.node_name for each in state.nodes.values() if waits_for_answer(each)]
    hint = f"; waiting for an answer: {listed(waiting)}" if waiting else "; no step of it waits for an answer now"
    if node is None:
        near = did_you_mean(name, state.nodes)
        raise InputError(f'run {run_id}: there is no node "{name}"{f";{near}" if near else hint}')
    if node.target_type != TargetTypes.CALLBACK:
        child = next((child for each, child in children(state) if each is node), None)
        more = f"; its child run is {child}" if child is not None else hint
        what = f"a {node.target_type} Task" if node.target_type else f"a {node.node_type}"
        raise InputError(f"run {run_id}: {name} is {what}, no Callback{more}")
    if waits_for_answer(node):
        return node
    if node.status is TaskStatus.RUNNING:
        raise InputError(f"run {run_id}: {name} does not wait for an answer now; it is between two attempts")
    if node.status is TaskStatus.NEW:
        raise InputError(f"run {run_id}: {name} has not started yet; it cannot be answered ahead")
    raise InputError(f"run {run_id}: {name} is {node.status} already; its answer cannot be changed")


def _tell(console: Console, bucket: Bucket, wanted: Wanted, message_id: str | None) -> None:
    word = "rejected" if wanted.is_rejected else "approved"
    if wanted.is_json:
        told: dict[str, Json] = {"run_id": wanted.run_id, "node": wanted.node_name, "answer": word}
        console.document(as_json(told if message_id is None else {**told, "message_id": message_id}))
    elif message_id is not None:
        console.out(f"run {wanted.run_id}: {wanted.node_name} is {word}, by message {message_id}")
    else:
        console.out(f"run {wanted.run_id}: {wanted.node_name} is {word}")
        again = f"orchestrator run PATH --resume {wanted.run_id} --bucket {shlex.quote(bucket.url)}"
        console.styled([line("if nothing runs it any more, finish it with:", "dim"), line(f"  {again}")])
