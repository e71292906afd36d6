"""A Notifier that notes what it is to send, and sends nothing."""

from datetime import datetime
from threading import Lock

from orchestrator.model.commands import Notify
from orchestrator.model.errors import NotSent
from orchestrator.ports import Clock


class NotedNotifier:
    """Notes notifications.

    Args:
        clock: says when they came.
        refused: so many tries to send each are not accepted.
    """

    def __init__(self, clock: Clock, refused: int = 0) -> None:
        self._clock, self._refused = clock, refused
        self._tries: dict[str, int] = {}
        self._sent: dict[str, tuple[datetime, Notify]] = {}
        self._lock = Lock()

    def notify(self, notification: Notify) -> None:
        """Note it. Raises NotSent: told to."""
        name = notification.notification_id
        with self._lock:
            tries = self._tries[name] = self._tries.get(name, 0) + 1
            if tries <= self._refused:
                raise NotSent("told not to accept it", retry=True)
            self._sent.setdefault(name, (self._clock.now(), notification))

    @property
    def sent(self) -> tuple[Notify, ...]:
        """What was sent, each once, in order; what was sent at one time by that of its event."""

        def when(sent: tuple[datetime, Notify]) -> tuple[datetime, str, str]:
            at, notification = sent
            return at, str(notification.payload["at"]), notification.notification_id

        with self._lock:
            return tuple(notification for _, notification in sorted(self._sent.values(), key=when))
