"""A Broker that delivers when an agenda comes to it: at least once, again while that can help, and with faults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from random import Random
from threading import Lock
from typing import Protocol

from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError
from orchestrator.testing.faults import Faults
from orchestrator.testing.virtual_time import Agenda

FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 600.0
RETENTION = timedelta(days=7)
"""A message that nobody has acknowledged for so long is given up, as Pub/Sub does."""


class Subscriber(Protocol):
    """Handles a message; what it raises says by `retry` whether delivering again can help."""

    def __call__(self, event: Mapping[str, Json], *, message_id: str, publish_time: datetime) -> object:
        """Handle one message."""


@dataclass(slots=True)
class _Message:
    event: Mapping[str, Json]
    message_id: str
    publish_time: datetime
    tries: int = 0


class VirtualBroker:
    """Delivers from an agenda, so in the thread that runs it, one message after another.

    Args:
        agenda: where deliveries wait for their time.
        faults: what goes wrong with events.
        random: what the faults are drawn from.
        on_dead: told of each event that was given up, with why.
    """

    def __init__(
        self,
        agenda: Agenda,
        faults: Faults | None = None,
        random: Random | None = None,
        on_dead: Callable[[Mapping[str, Json], BaseException], None] | None = None,
    ) -> None:
        self._agenda, self._faults = agenda, faults or Faults()
        self._random = random or Random(0)  # noqa: S311 - faults, no secrets
        self._on_dead = on_dead
        self._ids, self._lock = count(1), Lock()
        self._kept: list[_Message] = []
        self._subscriber: Subscriber | None = None
        self.published = 0
        """How many events were."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` from now on; what was published before is kept for it."""
        with self._lock:
            self._subscriber = subscriber
            kept, self._kept = self._kept, []
        for message in kept:
            self._later(message, 0.0)

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        """Deliver `event` after `delay_s` seconds or later; return its message id."""
        with self._lock:
            self.published += 1
            message_id = f"virtual-{next(self._ids)}"
            delays = self._faults.delays(self._random)
        for late_s in delays:
            self._later(_Message(event, message_id, self._agenda.clock.now()), max(0.0, delay_s) + late_s)
        return message_id

    def _later(self, message: _Message, delay_s: float) -> None:
        self._agenda.after(delay_s, lambda: self._deliver(message))

    def _deliver(self, message: _Message) -> None:
        with self._lock:
            subscriber = self._subscriber
            if subscriber is None:
                self._kept.append(message)
                return
        message.tries += 1
        try:
            subscriber(message.event, message_id=message.message_id, publish_time=message.publish_time)
        except OrchestratorError as exc:
            if exc.retry and self._agenda.clock.now() - message.publish_time < RETENTION:
                self._later(message, min(FIRST_BACKOFF_S * 2 ** min(message.tries - 1, 20), LAST_BACKOFF_S))
            elif self._on_dead is not None:
                self._on_dead(message.event, exc)
