"""One call of a user function, from the request to the answer.

The order is what counts: begun before anything is run, the end written before anything is answered. Killed in
between, a launch is begun for ever and has no result: delivered again it is refused, and the timeout of its step
ends the attempt, for nobody can know what the function had done.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

import msgspec

from orchestrator.model.commands import Failure
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.task_result import TaskBegun, TaskResult, reference_to
from orchestrator.ports import ObjectStore
from orchestrator.tasks.context import Context
from orchestrator.tasks.errors import BadRequest, NotJson
from orchestrator.tasks.heartbeat import at_work, touch
from orchestrator.tasks.json_value import encode, words_of
from orchestrator.tasks.parameters import CONTEXT, Signature, read
from orchestrator.tasks.progress import Progress
from orchestrator.tasks.record import Record

log = logging.getLogger(__name__)

LARGE_BYTES = 64 * 1024
"""A recorded result that is longer is answered by the name of its object."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a call needs of the process that it comes to.

    Attributes:
        store: returns the runs' bucket, None where calls are not recorded.
        now: the time, aware.
        token: returns something random that nobody else has.
        instance: returns a name of this process, for a person to find its logs.
        pause: waits before try number n + 1.
        folder: returns where the twin of Cloud Functions looks for heartbeats; empty elsewhere.
    """

    store: Callable[[], ObjectStore | None]
    now: Callable[[], datetime]
    token: Callable[[], str]
    instance: Callable[[], str]
    pause: Callable[[int], None]
    folder: Callable[[], str] = str


@dataclass(frozen=True, slots=True)
class Request:
    """What of an HTTP request counts here; names of headers in lower case."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; `body` is JSON."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How the function ended: `result` is JSON, or there is an error."""

    status: int
    result: bytes = b""
    error: Failure | None = None


def answer(
    function: Callable[..., object], signature: Signature, request: Request, surroundings: Surroundings
) -> Answer:
    """Call the function as the request asks, unless that launch was begun before."""
    try:
        context = Context.of(request.query, request.headers)
    except BadRequest as exc:
        return _error(400, "Task.BadRequest", str(exc))
    try:
        store = surroundings.store() if context.launch_id else None
        if store is None:
            context = _heard_by_file(context, surroundings.folder())
            return _plain_answer(_run(function, signature, request.body, context))
        key = context.key
        record = Record(store, key, surroundings.pause)
        begun = TaskBegun(
            at=surroundings.now(),
            instance=surroundings.instance(),
            execution=request.headers.get("function-execution-id", ""),
            token=surroundings.token(),
        )
        earlier = record.begin(begun)
    except OrchestratorError as exc:
        log.error("%s: not run: %s", context.launch_id, exc, extra=_who(context))
        return _error(503 if exc.retry else 500, "Task.NotBegun", f"the function was not run: {exc}")
    if earlier is not None:
        log.warning("%s: delivered again, not run again", context.launch_id, extra=_who(context))
        return _refusal(context, record, earlier)
    progress = Progress(store, key, context.launch_id, surroundings.now)
    context = replace(context, report=progress.report, beat=progress.beat)
    end = _run(function, signature, request.body, context)
    try:
        record.end(_result_of(end, surroundings.now()))
    except OrchestratorError as exc:
        how = "completed" if end.error is None else f"failed ({end.error.message})"
        log.error("%s: %s, and that cannot be recorded: %s", context.launch_id, how, exc, extra=_who(context))
        return _error(500, "Task.NotRecorded", f"the function {how}, and that cannot be recorded: {exc}")
    if len(end.result) > LARGE_BYTES:
        return Answer(200, msgspec.json.encode(reference_to(key)))
    return _plain_answer(end)


def _heard_by_file(context: Context, folder: str) -> Context:
    """Let a call that is recorded in no bucket be heard of all the same, by a file; only on one machine."""
    if not folder or not context.launch_id:
        return context
    beat = partial(touch, folder, context.key)
    beat()
    return replace(context, report=lambda _fraction, _message: beat(), beat=beat)


def _run(function: Callable[..., object], signature: Signature, body: bytes, context: Context) -> End:
    try:
        parameters = read(body)
        signature.check(parameters)
    except BadRequest as exc:
        return End(400, error=Failure("Task.BadParameters", str(exc)))
    if signature.takes_context:
        parameters[CONTEXT] = context
    try:
        with at_work(context.beat):
            return End(200, encode(function(**parameters)))
    except NotJson as exc:
        log.error("%s: %s", context.launch_id or signature.function_name, exc, extra=_who(context))
        return End(500, error=Failure("Task.BadResult", str(exc)))
    except (Exception, SystemExit) as exc:
        log.exception("%s failed", context.launch_id or signature.function_name, extra=_who(context))
        return End(500, error=Failure("Task.Failed", words_of(exc)))


def _result_of(end: End, at: datetime) -> TaskResult:
    if end.error is not None:
        return TaskResult(kind=OutcomeKind.FAILED, error=end.error, at=at)
    return TaskResult(kind=OutcomeKind.COMPLETED, result=msgspec.Raw(end.result), at=at)


def _plain_answer(end: End) -> Answer:
    if end.error is not None:
        return _error(end.status, end.error.error_type, end.error.message)
    return Answer(end.status, end.result)


def _refusal(context: Context, record: Record, earlier: bytes) -> Answer:
    try:
        begun = msgspec.json.decode(earlier, type=TaskBegun)
        since = f"since {begun.at.isoformat()} by {begun.instance}, execution {begun.execution or 'unknown'}"
    except (msgspec.DecodeError, UnicodeDecodeError):
        since = "by whom cannot be read"
    return _error(
        409,
        "Task.AlreadyBegun",
        f"{record.begun_name}: launch {context.launch_id} was begun, {since}; a launch is run once, "
        f"its result is or will be in {record.result_name}",
    )


def _error(status: int, error_type: str, message: str) -> Answer:
    return Answer(status, msgspec.json.encode({"error_type": error_type, "message": message}))


def _who(context: Context) -> dict[str, str]:
    return {"run_id": context.run_id, "node": context.node_name}
