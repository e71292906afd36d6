"""Every error raised on purpose, as one tree.

    OrchestratorError
    ├── DefinitionError        a definition breaks rules; all of them at once
    ├── DurationError          a text is no duration (durations.py)
    ├── ExpressionError        a ${…} cannot be parsed or has no value
    ├── EventError             an event of ours is malformed
    ├── UnknownDag             a start names a DAG that the catalog does not have
    ├── InputRejected          the input of a start breaks the DAG's input_schema; all of it at once
    ├── RunExists              the run_id was taken by another start message
    ├── RunNotFound            no such run in the store
    ├── NotYet                 too early to tell whose event this is        (retry)
    ├── VersionConflict        another writer saved this key first          (retry)
    ├── StoreUnavailable       the store cannot be read or written now      (retry)
    ├── BrokerUnavailable      an event cannot be published now             (retry)
    ├── CorruptState           an object in the store is not what it should be
    ├── LaunchRefused          a target will never accept this launch
    ├── LaunchUncertain        a launch call ended without a clear answer
    ├── NotSent                a notification was not accepted              (retry, mostly)
    ├── SettingsError          a setting is missing or wrong
    └── InputError             what the user asked for on the command line is wrong

A message reads `where: what is wrong; what was allowed`. Pure.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType


class OrchestratorError(Exception):
    """Base of the tree; `retry` tells the shell whether delivering the event again can help.

    Attributes:
        labels: whom it is about, as far as that is known, for who logs it: run_id, node, attempt, trace.
    """

    retry = False
    labels: Mapping[str, object] = MappingProxyType({})

    def about(self, **labels: object) -> None:
        """Note whom it is about. What is noted already stands: it was noted nearer to the fault."""
        self.labels = {**{name: value for name, value in labels.items() if value is not None}, **self.labels}


class DefinitionError(OrchestratorError):
    """A definition breaks rules; `problems` holds every one of them, each with its path."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class ExpressionError(OrchestratorError):
    """A `${…}` cannot be parsed, or names something that has no value."""


class EventError(OrchestratorError):
    """An event that is clearly ours is malformed; delivering it again cannot help."""


class UnknownDag(OrchestratorError):
    """A start names a DAG that the catalog does not have, or names none where there are several."""


class InputRejected(OrchestratorError):
    """The input of a start is not as the DAG's `input_schema` wants it; `problems` holds all that is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class RunExists(OrchestratorError):
    """The `run_id` of this start belongs to a run that another message started."""


class RunNotFound(OrchestratorError):
    """There is no document for this run in the store."""


class NotYet(OrchestratorError):
    """It is too early to tell whose event this is, or how something ends; ask again a little later.

    Attributes:
        since: when what is at work has begun, aware, where that is known.
    """

    retry = True

    def __init__(self, message: str, since: datetime | None = None) -> None:
        self.since = since
        super().__init__(message)


class VersionConflict(OrchestratorError):
    """Another writer saved this key first: load it again and decide again."""

    retry = True


class StoreUnavailable(OrchestratorError):
    """The store cannot be read or written at the moment (disk full, no permission, no network)."""

    retry = True


class BrokerUnavailable(OrchestratorError):
    """An event cannot be published at the moment, or it is not known whether it was."""

    retry = True


class CorruptState(OrchestratorError):
    """An object in the store is not what it should be; the message names the object."""


class LaunchRefused(OrchestratorError):
    """A target will never accept this launch; `error_type` is what the run document shows."""

    def __init__(self, message: str, *, error_type: str = "Launch.Refused") -> None:
        self.error_type = error_type
        super().__init__(message)


class LaunchUncertain(OrchestratorError):
    """A launch call ended without a clear answer: it may or may not have got through."""

    retry = True


class NotSent(OrchestratorError):
    """A notification was not accepted, or no answer came."""

    def __init__(self, message: str, *, retry: bool = False) -> None:
        self.retry = retry
        super().__init__(message)


class SettingsError(OrchestratorError):
    """A setting is missing or has a value that is not allowed."""


class InputError(OrchestratorError):
    """What the user asked for on the command line is wrong."""
