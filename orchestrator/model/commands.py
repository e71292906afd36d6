"""What the engine wants done (Launch, Cancel, Withdraw, Remind, Notify) and what a target answers (Execution, Outcome).

Pure: the executor acts on commands, a target on launches; these are only their words.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from orchestrator.model.enums import OutcomeKind
from orchestrator.model.ids import key_of, launch_id_of, trace_of

Json = object
"""A JSON value: None, bool, int, float, str, list or dict with str keys."""

EMPTY: Mapping[str, Json] = {}


class Failure(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a node or a run failed: a dotted class (`Task.Failed`, `Task.Timeout`) and a sentence."""

    error_type: str
    message: str
    node: str | None = None
    """In a run's own error: the node that failed first in definition order."""


class Outcome(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How an execution ended. `result` is any JSON value, `error` is given unless it completed."""

    kind: OutcomeKind
    result: Json = None
    error: Failure | None = None

    @classmethod
    def completed(cls, result: Json = None) -> "Outcome":
        """The execution did what it was launched for."""
        return cls(OutcomeKind.COMPLETED, result)

    @classmethod
    def failed(cls, error_type: str, message: str) -> "Outcome":
        """The execution ended, and not well."""
        return cls(OutcomeKind.FAILED, None, Failure(error_type, message))

    @classmethod
    def cancelled(cls, message: str = "cancelled at its target") -> "Outcome":
        """Somebody cancelled the execution."""
        return cls(OutcomeKind.CANCELLED, None, Failure("Task.Cancelled", message))

    @classmethod
    def lost(cls, message: str) -> "Outcome":
        """The execution's host is gone and left no result; the node's next attempt is to be started."""
        return cls(OutcomeKind.LOST, None, Failure("Task.Lost", message))


class Execution(msgspec.Struct, frozen=True, gc=False):
    """What a target runs for a launch.

    `response` is what the service answered to the launch (JSON); `outcome` is set only where that
    answer already was the end (a synchronous call).
    """

    execution_id: str
    response: Json = None
    outcome: Outcome | None = None


class Launch(msgspec.Struct, frozen=True, gc=False):
    """Start one attempt of a Task at its target.

    A Task makes it without the run's part (`Node.execute()`); `decide` adds that part when a save
    claims the attempt, and only such a launch is ever handed to a target.
    """

    node_name: str
    target_type: str
    target_name: str
    parameters: Mapping[str, Json] = EMPTY
    step: Mapping[str, Json] = EMPTY
    """The step's other keys, as its author wrote them: function, region, template_path, …"""
    dag: str = ""
    run_id: str = ""
    attempt: int = 1
    nonce: str = ""
    owner: str = ""
    lease_end: datetime | None = None
    recover: bool = False
    """True where the attempt was taken over: ask `find` before launching again with the same key."""
    trace: str = ""
    """Its claim's, where that holds one."""
    started_at: datetime | None = None
    """When its step started: nothing was launched for it before, so that `find` need not look further back."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets in `parameters`: marked there, until its target is called."""
    goes_on: str | None = None
    """Of a Dag Task: the child run that is to go on for it, where there still is one."""
    depth: int = 0
    """How many runs stand above its run."""
    scheduled_for: datetime | None = None
    """The time, of its schedule, that its run is for."""
    priority: int = 0
    """Of its run."""

    @property
    def launch_id(self) -> str:
        """`run_id/node/attempt`."""
        return launch_id_of(self.run_id, self.node_name, self.attempt)

    @property
    def target_key(self) -> str:
        """Which Target launches it: its type, or `CloudFunction.sync`."""
        return target_key(self.target_type, self.step.get("invocation"))

    @property
    def key(self) -> str:
        """The name under which the target's service is to know this launch: `[a-z][a-z0-9-]{0,62}`."""
        return key_of(self.launch_id)

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits."""
        return self.trace or trace_of(self.launch_id, self.nonce)


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """Cancel the execution of an attempt that is owed a cancel."""

    launch: Launch
    execution_id: str | None


class Withdraw(msgspec.Struct, frozen=True, gc=False):
    """Take back the launch of an attempt that cannot be stopped, if it has not begun; nobody is owed that."""

    launch: Launch


class Remind(msgspec.Struct, frozen=True, gc=False):
    """Publish a reminder for this due entry at `at` (or, with `kind` None, an early question)."""

    run_id: str
    node_name: str
    attempt: int
    kind: str | None
    at: datetime


class AskSlot(msgspec.Struct, frozen=True, gc=False):
    """Ask for a slot of `queue`, for a run (`node_name` None) or for an attempt.

    `since` and `priority` are its place among those that wait; `limit` is how many slots there are, as the asker knows.
    """

    queue: str
    ticket: str
    since: datetime
    priority: int
    limit: int | None
    dag: str
    run_id: str
    node_name: str | None = None
    attempt: int = 0

    @property
    def holder(self) -> str:
        """Who asks: a run id, or a launch id."""
        return self.run_id if self.node_name is None else launch_id_of(self.run_id, self.node_name, self.attempt)


class ReleaseSlot(msgspec.Struct, frozen=True, gc=False):
    """Give back the slot, or the place in the queue, that was asked for with this ticket."""

    queue: str
    holder: str
    ticket: str


class Notify(msgspec.Struct, frozen=True, gc=False):
    """Send `payload` to a topic or a URL; `owner` and `lease_end` are those of the notification that is owed."""

    run_id: str
    notification_id: str
    owner: str
    lease_end: datetime
    topic: str | None
    url: str | None
    payload: Mapping[str, Json]


Command = Launch | Cancel | Withdraw | Remind | Notify | AskSlot | ReleaseSlot


def target_key(target_type: str, invocation: Json) -> str:
    """Which Target launches a step: its type, and `.sync` behind it where the step asks for that."""
    return f"{target_type}.sync" if invocation == "sync" else target_type
