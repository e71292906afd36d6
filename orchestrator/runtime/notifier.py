"""Sends notifications: to a topic of Pub/Sub, or to a webhook. Loaded with the first one that there is to send."""

from collections.abc import Mapping
from threading import Lock

import msgspec

from orchestrator.brokers.pubsub import PubSubBroker, endpoint_override
from orchestrator.model.commands import Notify
from orchestrator.model.errors import NotSent, OrchestratorError
from orchestrator.ports import Clock
from orchestrator.runtime.settings import Settings
from orchestrator.services.google_api import GoogleApis
from orchestrator.services.webhooks import TIMEOUT_S, Webhooks


class Notifier:
    """A `ports.Notifier`, for any number of threads.

    Args:
        environment: where endpoint overrides and emulators are read from.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        self._apis = GoogleApis({**endpoint_override(environment), **environment}, timeout_s=TIMEOUT_S)
        self._topics: dict[str, PubSubBroker] = {}
        self._lock = Lock()
        self._webhooks = Webhooks(
            seconds=lambda: clock.now().timestamp(),
            allowed_hosts=settings.notify_hosts,
            key=settings.deployment_key.value,
        )

    def notify(self, notification: Notify) -> None:
        """See ports.Notifier."""
        if notification.url is not None:
            body = msgspec.json.encode(notification.payload)
            self._webhooks.post(notification.url, notification.notification_id, body)
            return
        try:
            self._topic(notification.topic or "").publish(notification.payload)
        except NotSent:
            raise
        except OrchestratorError as exc:
            raise NotSent(str(exc), retry=exc.retry) from exc

    def _topic(self, name: str) -> PubSubBroker:
        with self._lock:
            if name not in self._topics:
                self._topics[name] = PubSubBroker(name, tasks=None, apis=self._apis, clock=self._clock)
            return self._topics[name]
