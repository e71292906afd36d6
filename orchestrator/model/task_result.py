"""What the helper for user functions leaves in the bucket, under the key of the launch that called one.

    results/<key>.begun      TaskBegun     created before the function runs: the launch runs nowhere else
    results/<key>.json       TaskResult    how it ended; created before the call is answered, never changed
    results/<key>.progress   TaskProgress  how far it is; written over and over

Pure.
"""

from datetime import datetime

import msgspec

from orchestrator.model.commands import Failure, Json, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import CorruptState

CONFLICT = "Task.Conflict"
"""Error type of an event that tells of a 409: from the helper, that an earlier call of the launch was begun."""


def begun_object(key: str) -> str:
    """Name of the object that says: this launch is being run, or was."""
    return f"results/{key}.begun"


def result_object(key: str) -> str:
    """Name of the object that says how a launch's call ended."""
    return f"results/{key}.json"


def progress_object(key: str) -> str:
    """Name of the object that says how far a launch's call is."""
    return f"results/{key}.progress"


def heartbeat_file(key: str) -> str:
    """Path of the file by which the call of a launch is heard of on one machine, below its twin's folder."""
    return f"{key}/heartbeat"


def reference_to(key: str) -> dict[str, Json]:
    """What a call answers in place of a result that is large: where it lies."""
    return {"result": result_object(key)}


class TaskBegun(msgspec.Struct, frozen=True, kw_only=True):
    """Who runs a launch's function, and since when."""

    at: datetime
    instance: str
    """The service and process, for a person to find its logs."""
    execution: str
    """The platform's id of the call."""
    token: str
    """Random: after an uncertain write, whoever knows it has written this object."""


class TaskProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What a function last said of how far it is."""

    fraction: float
    """0 to 1."""
    message: str
    at: datetime


class TaskResult(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a function's call ended: it completed with a result (any JSON value), or failed with an error."""

    kind: OutcomeKind
    result: Json = None
    error: Failure | None = None
    at: datetime

    @property
    def outcome(self) -> Outcome:
        """The same as a target would tell it."""
        return Outcome(self.kind, self.result, self.error)


_begun_decoder = msgspec.json.Decoder(TaskBegun)
_result_decoder = msgspec.json.Decoder(TaskResult)


def begun_at(data: bytes) -> datetime | None:
    """Read from a `.begun` object when its function began; None where it does not say, aware otherwise."""
    try:
        at = _begun_decoder.decode(data).at
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # that it is there is what counts
    return at if at.tzinfo is not None else None


def decode(data: bytes, where: str) -> TaskResult:
    """Read a result document.

    Args:
        data: its content.
        where: the object's name, for the error.
    Raises:
        CorruptState: it is no result document.
    """
    try:
        found = _result_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise CorruptState(f"{where}: is not a task's result: {exc}") from exc
    is_completed = found.kind is OutcomeKind.COMPLETED
    if not is_completed and found.kind is not OutcomeKind.FAILED:
        raise CorruptState(f"{where}: is not a task's result: its kind is {found.kind}; allowed are Completed, Failed")
    if is_completed != (found.error is None):
        raise CorruptState(
            f'{where}: is not a task\'s result: {found.kind} with{"out" if found.error is None else ""} an "error"; '
            "it must be there if Failed, and only then"
        )
    return found
