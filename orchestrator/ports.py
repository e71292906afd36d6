"""What the core asks of the outside; tests/contracts/ holds every adapter to these words."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Protocol, runtime_checkable

from orchestrator.model.commands import Execution, Json, Launch, Notify, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused

Version = str
"""Opaque; two contents of one key never share a version while the key exists."""


class ObjectStore(Protocol):
    """A flat map of names to bytes with compare-and-swap, as Cloud Storage is one.

    Keys are relative paths of `/`-separated segments of `[A-Za-z0-9._$[]-]` that neither start with a
    dot nor are empty; anything else is a ValueError. A store that cannot be reached, read or written
    raises `StoreUnavailable`, naming the object. All methods may be called from many threads.
    """

    def get(self, key: str) -> tuple[bytes, Version] | None:
        """Return (content, version), or None if there is no such key. Never half a content."""

    def put(self, key: str, data: bytes, *, expect: Version | None) -> Version:
        """Write iff the stored version is `expect` (None = must not exist); return the new version.

        It is durable when this returns. Raises:
            VersionConflict: the stored version is another one; nothing was written.
        """

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` (any string) and are > `start_after`, sorted."""

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none."""


@runtime_checkable
class ChangingStore(ObjectStore, Protocol):
    """A store that changes a part of an object for less than it costs to write the whole."""

    def change(self, key: str, members: Mapping[str, bytes], *, expect: Version) -> Version:
        """Replace or add members of a JSON object iff its version is `expect`; return the new version.

        All other calls see it as if it had been put, a line a member; what is replaced stays in its place, what is new
        comes behind. It is durable when this returns.

        Args:
            members: name -> JSON.
        Raises:
            VersionConflict: the stored version is another one, or there is none; nothing was written.
            ValueError: what is stored is no JSON object.
        """


@runtime_checkable
class CreatingStore(ObjectStore, Protocol):
    """A store that creates several objects for less than it costs to put one after another."""

    def create_all(self, objects: Mapping[str, bytes]) -> Mapping[str, Version]:
        """Write objects none of which may exist yet, key -> content; return their versions.

        They appear one after another, in this order; all are durable when this returns. Raises:
            VersionConflict: one of them exists; those before it may have been written.
        """


class Secrets(Protocol):
    """What `${secret.NAME}` stands for. From many threads; a value is kept nowhere but in memory."""

    def get(self, name: str) -> str:
        """Return a secret's value, of any length.

        Raises:
            LaunchRefused: for good (no such secret, no right to read it); the message names it.
            LaunchUncertain: it cannot be read now.
        """


class HeldSecrets:
    """Secrets that were handed over, by name; none, by default."""

    def __init__(self, held: Mapping[str, str] | None = None) -> None:
        self._held = held or {}

    def get(self, name: str) -> str:
        """Return one of them."""
        if name not in self._held:
            raise LaunchRefused(f"secret {name}: there is none here", error_type="Launch.NoSecret")
        return self._held[name]


@runtime_checkable
class Paced(Protocol):
    """An ObjectStore that takes only so many writes of one key."""

    write_interval_s: float
    """The least time between two writes of a key in the long run, in seconds; a few in a row are taken."""


@runtime_checkable
class Dated(Protocol):
    """An ObjectStore whose listing can tell when each key was written last."""

    def list_dated(self, prefix: str, *, start_after: str = "") -> Iterator[tuple[str, float]]:
        """Yield what `list` does, each with seconds since the epoch."""


@runtime_checkable
class Timed(Protocol):
    """An ObjectStore that can be asked when a key was written last, for next to nothing."""

    def written_at(self, key: str) -> float | None:
        """Return seconds since the epoch; None where there is no such key, or it cannot be told."""


class Target(Protocol):
    """A place that can run a launch.

    All methods may be called from many threads, and from several processes for the same launch.
    """

    identity: Identity
    """What the service does with our key. forever: a second launch with a key never starts a second
    execution. window: so while its window lasts. found: it takes no key, but `find` sees running and
    finished executions. none: nothing of the kind."""

    has_outcome: bool
    """Whether `outcome` always tells in the end. If not, None from it says nothing: an event is believed,
    with its nonce, and the attempt has a timeout, a default one if its author gave none."""

    can_cancel: bool
    """Whether `cancel` can stop a running execution."""

    launch_limit_s: float
    """The longest that a `launch` call may take, in seconds; 0 = it only hands over and returns."""

    synchronous: bool
    """Whether `launch` returns only when the execution has ended, with its outcome."""

    id_is_ours: bool
    """Whether its events carry our launch id, so that nobody needs an execution's record to know whose
    it is: then none is written."""

    def launch(self, launch: Launch) -> Execution:
        """Start the attempt. The same key again returns the execution that it started before,
        as far as `identity` promises that.

        Raises:
            LaunchRefused: for good (no such function, no permission, bad parameters).
            LaunchUncertain: it may have got through; the Tick finds out.
        """

    def find(self, launch: Launch) -> Execution | None:
        """Return the execution that an earlier try of this launch started, finished or not, if any."""

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, or None while that is not final (or, without `has_outcome`, not known).

        Raises:
            NotYet: it is known to run on, whatever an event says.
            LaunchUncertain: cannot tell now.
        """

    def cancel(self, execution: Execution) -> None:
        """Ask the service to stop it; returns when the service has accepted, or when it has ended.

        Raises LaunchUncertain: not accepted yet, to be tried again."""


@runtime_checkable
class Confirming(Protocol):
    """A Target without `has_outcome` that knows better than an event that has proved itself by the claim's nonce."""

    def confirm(self, launch: Launch, verdict: Outcome) -> Execution:
        """Return the execution with the outcome that counts, where its event tells `verdict`.

        Raises:
            NotYet: it is known to run on, whatever the event says.
            LaunchUncertain: cannot tell now.
        """


@runtime_checkable
class Withdrawing(Protocol):
    """A Target that cannot stop an execution, but may take a launch back that waits for its turn."""

    def withdraw(self, launch: Launch) -> bool:
        """Return True if the launch has not begun and never will; False where it has, or nothing is known of it.

        Raises LaunchUncertain: cannot tell now."""


@runtime_checkable
class Named(Protocol):
    """A Target some of whose events carry our launch id, as `id_is_ours` says it of all of them."""

    def is_named(self, launch: Launch) -> bool:
        """Whether the events of this launch's execution will carry its launch id."""


@runtime_checkable
class Heard(Protocol):
    """A Target that knows itself when an execution was last heard of; of others, what they left in the bucket tells."""

    def heard_at(self, launch: Launch) -> datetime | None:
        """Return when the execution of a launch last said that it is at work, aware; None where it never did.

        Raises LaunchUncertain: cannot tell now."""


@runtime_checkable
class Asked(Protocol):
    """A Target with `has_outcome` whose service leaves no event of an end: it is asked by reminders, more and more
    rarely, until the Tick alone asks."""

    first_question_s: float
    """How long after its claim an attempt is first asked about, in seconds; 0 = an event tells, no question is due."""


@runtime_checkable
class Patient(Protocol):
    """A Target without `has_outcome` whose executions may take longer than others' before they are given up."""

    default_timeout_s: float
    """Timeout of an attempt whose author gave none, in seconds."""


class Observer(Protocol):
    """Is told what an instance does, for traces and metrics. What it raises is logged, and changes nothing.

    It is called in the threads that run the engine, so it returns at once.
    """

    def lost(self, run_id: str) -> None:
        """A save of this instance lost its race, and is decided on anew."""

    def launched(self, launch: Launch, result: str, took_s: float, since_claim_s: float | None) -> None:
        """A launch call has returned.

        Args:
            result: launched, found (an earlier try got through), refused or uncertain.
            took_s: how long the call took.
            since_claim_s: the time from the decision that claimed the attempt; None where that is not known.
        """


class Broker(Protocol):
    """Delivers events back to the orchestrator, at least once, in any order."""

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        """Deliver `event` after `delay_s` seconds or later; return its message id."""


class Notifier(Protocol):
    """Tells others of run events."""

    def notify(self, notification: Notify) -> None:
        """Send it; at least once in all is promised, so its receiver drops what it has seen, by the id in it.

        Takes half a minute at the most. Raises:
            NotSent: it was not accepted, or no answer came; `retry` says whether another try can help.
        """


class Clock(Protocol):
    """What time it is."""

    def now(self) -> datetime:
        """Aware, UTC."""


class Hosts(Protocol):
    """Which executor instances are alive, where that can be known (on one machine it can)."""

    def is_alive(self, instance: str) -> bool | None:
        """True or False where it is known, None where only the lease's end can tell."""
