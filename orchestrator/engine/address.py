"""Whose event is this? From an Event to the run that it belongs to and what it says there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.events import CompletionEvent
from orchestrator.model.facts import Fact
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import ParentRun, PartOf


@dataclass(frozen=True, slots=True)
class Start:
    """A start message for a run of this definition."""

    run_id: str
    dag_name: str
    definition: Mapping[str, Json]
    dag: DAG
    input: Mapping[str, Json]
    message_id: str
    scheduled_for: datetime | None = None
    variables: Mapping[str, Json] = field(default_factory=dict)
    published_at: datetime | None = None
    """Of the message or, of a scheduled start, the time that it is for; None of a child run's."""
    part_of: PartOf | None = None
    """Of the run of a part of a Map."""
    nodes: tuple[NodeState, ...] = ()
    """Of such a run: what it begins with."""
    parent: ParentRun | None = None
    """Of a child run, which is made by this and begins by a message of its own."""
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class BeginRun:
    """A child run was made, and is to begin."""

    run_id: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Completion:
    """An event says that this attempt ended, or may have."""

    run_id: str
    node_name: str
    attempt: int
    event: CompletionEvent


@dataclass(frozen=True, slots=True)
class Reminder:
    """A due entry's time has come (`at` given), or an early question is to be asked (`kind` None)."""

    run_id: str
    node_name: str
    attempt: int
    kind: str | None
    at: datetime | None
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An attempt's execution says that it is at work."""

    run_id: str
    node_name: str
    attempt: int
    nonce: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Somebody wants the run to be cancelled."""

    run_id: str
    reason: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class PauseRun:
    """Somebody wants the run to be paused."""

    run_id: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class ResumeRun:
    """Somebody wants the run to go on."""

    run_id: str
    published_at: datetime


@dataclass(frozen=True, slots=True)
class SlotTold:
    """The run, or an attempt in it, holds the slot that it asked for with this ticket."""

    run_id: str
    queue: str
    ticket: str
    node_name: str | None
    attempt: int


@dataclass(frozen=True, slots=True)
class RedriveRun:
    """Somebody wants a run that has ended to go on."""

    run_id: str
    start_from: str | None
    number: int | None
    published_at: datetime


@dataclass(frozen=True, slots=True)
class Known:
    """What this instance itself found out: facts already."""

    run_id: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class TickAll:
    """Look after all open runs; of no run in particular."""


@dataclass(frozen=True, slots=True)
class Later:
    """An event that could not be delayed so far at once: publish it again with what is left."""

    event: Mapping[str, Json]
    at: datetime


@dataclass(frozen=True, slots=True)
class StartAll:
    """An event of others starts these runs; what else it should have started, and why that cannot be."""

    starts: tuple[Start, ...]
    problems: tuple[OrchestratorError, ...] = ()


Item = (
    Start
    | BeginRun
    | Completion
    | Reminder
    | Heartbeat
    | CancelRun
    | PauseRun
    | ResumeRun
    | RedriveRun
    | SlotTold
    | Known
)


def labels_of(item: Item) -> dict[str, object]:
    """What a line about an event is found by: run_id, and node, attempt and trace where it is about one attempt."""
    labels: dict[str, object] = {"run_id": item.run_id}
    if isinstance(item, Completion | Reminder | Heartbeat):
        labels |= {"node": item.node_name, "attempt": item.attempt}
    if isinstance(item, Completion) and item.event.trace_id is not None:
        labels["trace"] = item.event.trace_id
    return labels
