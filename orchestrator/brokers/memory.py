"""Broker inside of one process: at least once, in no promised order, redelivered while that can help."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from heapq import heappop, heappush
from itertools import count
from threading import TIMEOUT_MAX, Condition, Lock, Thread
from typing import Protocol

from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError
from orchestrator.ports import Clock

log = logging.getLogger("orchestrator")

FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 10.0

OnDone = Callable[[object, BaseException | None], None]


class Subscriber(Protocol):
    """Takes a message and says later, from any thread, how it went."""

    def __call__(self, data: Mapping[str, Json], on_done: OnDone, *, message_id: str, publish_time: datetime) -> None:
        """Handle one message; must not raise."""


class MemoryBroker:
    """Delivers what is due at once, in the publisher's own thread, and the rest from a timer's.

    Args:
        clock: for publish times and delays.
        now_s: monotonic seconds, for waiting.
        on_dead: told of each message that was given up, with why; if that raises what says `retry`, it comes again.
    """

    def __init__(
        self,
        clock: Clock,
        now_s: Callable[[], float],
        on_dead: Callable[[Mapping[str, Json], str, BaseException], None] | None = None,
    ) -> None:
        self._clock, self._now_s, self._on_dead = clock, now_s, on_dead
        self._ids, self._order = count(1), count()
        self._subscriber: Subscriber | None = None
        self._later: list[tuple[float, int, _Message]] = []
        self._wake = Condition(Lock())
        self._timer: Thread | None = None
        self._is_closed = False

    def subscribe(self, subscriber: Subscriber) -> None:
        """Deliver to `subscriber` from now on; what was published before is kept for it."""
        self._subscriber = subscriber
        with self._wake:
            self._wake.notify_all()

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        """Deliver `event` after `delay_s` seconds or later; return its message id."""
        message = _Message(event, f"local-{next(self._ids)}", self._clock.now())
        if delay_s <= 0.0 and self._subscriber is not None:
            self._deliver(message)
        else:
            self._schedule(message, delay_s)
        return message.message_id

    def close(self) -> None:
        """Deliver nothing more. What is lost by that, a Tick finds."""
        with self._wake:
            self._is_closed = True
            self._wake.notify_all()

    def _deliver(self, message: "_Message") -> None:
        subscriber = self._subscriber
        if subscriber is None or self._is_closed:
            return
        message.tries += 1

        def on_done(_: object, error: BaseException | None) -> None:
            if error is not None:
                self._failed(message, error)

        subscriber(message.event, on_done, message_id=message.message_id, publish_time=message.publish_time)

    def _failed(self, message: "_Message", error: BaseException) -> None:
        if isinstance(error, OrchestratorError) and error.retry:
            self._schedule(message, _backoff_s(message))
            return
        labels = error.labels if isinstance(error, OrchestratorError) else {}
        log.error("event given up: %s", error, extra={**labels, "event_id": message.message_id})
        if self._on_dead is None:
            return
        try:
            self._on_dead(message.event, message.message_id, error)
        except OrchestratorError as exc:
            if not exc.retry:
                raise
            labels = {**labels, "event_id": message.message_id}
            log.error("event cannot be kept, so it comes again: %s", exc, extra=labels)
            self._schedule(message, _backoff_s(message))

    def _schedule(self, message: "_Message", delay_s: float) -> None:
        with self._wake:
            if self._is_closed:
                return
            heappush(self._later, (self._now_s() + max(0.0, delay_s), next(self._order), message))
            if self._timer is None:
                self._timer = Thread(target=self._run, name="orchestrator-broker", daemon=True)
                self._timer.start()
            self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._is_closed and (
                    self._subscriber is None or not self._later or self._later[0][0] > self._now_s()
                ):
                    is_waiting = self._subscriber is not None and self._later
                    self._wake.wait(min(self._later[0][0] - self._now_s(), TIMEOUT_MAX) if is_waiting else None)
                if self._is_closed:
                    return
                message = heappop(self._later)[2]
            try:
                self._deliver(message)
            except Exception:
                log.exception("delivery failed", extra={"event_id": message.message_id})


class _Message:
    __slots__ = ("event", "message_id", "publish_time", "tries")

    def __init__(self, event: Mapping[str, Json], message_id: str, publish_time: datetime) -> None:
        self.event, self.message_id, self.publish_time = event, message_id, publish_time
        self.tries = 0


def _backoff_s(message: _Message) -> float:
    return min(FIRST_BACKOFF_S * 2.0 ** min(message.tries - 1, 20), LAST_BACKOFF_S)
