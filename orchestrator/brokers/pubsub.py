"""Broker over Pub/Sub: what is due goes straight to the topic, the rest there by way of Cloud Tasks.

Pub/Sub itself has no delays, and the orchestrator does not sleep. So a delayed event is a Cloud Task whose request is
the topic's own REST `publish`: Google holds it, and publishes it. Three things follow:

- the id that `publish` returns is, for a delayed event, the task's name; the topic gives the message's own id later;
- beyond what Cloud Tasks takes, 30 days ahead, the delay goes in hops: the task publishes a `later` message
  (`model.messages`), and whoever receives that publishes the event in it again, for what is then left;
- without a queue there are no delays: a delayed event is dropped, with one warning. Reminders may be: what they
  remind of stands in the run, with its time, and the Tick sees to it within a minute.

Publishing by REST is the default although google-cloud-pubsub is there, for the cold start: from a fresh interpreter to
the first message acknowledged took 0.16 s and 43 MB by REST, 0.24 s and 64 MB by the client on gRPC; and the function
has loaded the REST client for its other calls anyway, while gRPC would come on top with 0.16 s. A process that need not
be quick, such as a command line, does better with `publisher_client()`: it tries again by itself, for as long as a
person waits.
"""

import logging
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from re import compile as pattern
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import BrokerUnavailable, EventError, OrchestratorError, SettingsError
from orchestrator.model.messages import later_message
from orchestrator.ports import Clock
from orchestrator.services.cloud_tasks import MAX_AHEAD, CloudTasks
from orchestrator.services.google_api import OVERRIDE, ApiError, GoogleApis

if TYPE_CHECKING:
    from concurrent.futures import Future

log = logging.getLogger("orchestrator")

HOP: Final = MAX_AHEAD - timedelta(days=1)
"""How long one task delays at the most: a day below the limit, for the service's clock is not ours."""

EMULATOR: Final = "PUBSUB_EMULATOR_HOST"
"""Environment variable that names the emulator, host:port; Google's own clients know it too."""

ENDPOINT: Final = "https://pubsub.googleapis.com"

TOPIC: Final = pattern(r"projects/[^/\s]+/topics/[A-Za-z][A-Za-z0-9_.~+%-]{2,254}")

_BAD_MESSAGE: Final = frozenset((400, 413))
"""Statuses that say that the message itself is wrong, such as too large."""


class Publisher(Protocol):
    """What is used of google.cloud.pubsub_v1.PublisherClient."""

    def publish(self, topic: str, data: bytes) -> "Future[str]":
        """Send a message; the future is done, with its id, when the topic has it."""


class PubSubBroker:
    """Publishes to one topic, with delays if there is a queue. Whoever subscribes to the topic gets the events.

    Args:
        topic: `projects/P/topics/T`.
        tasks: the queue that holds what is delayed; None: events with a delay are dropped.
        apis: Google's REST APIs; their endpoint for "pubsub" is used by the delayed too.
        clock: what delays count from.
        publisher: publishes what is due now, in place of REST.
        oauth_service_account: in whose name Cloud Tasks publishes; it needs roles/pubsub.publisher on the topic, and
            we need iam.serviceAccounts.actAs on it. Not used where the endpoint is overridden.
    Raises:
        SettingsError: `topic` is no topic's name, or there is a queue and nobody to publish in the name of.
    """

    def __init__(
        self,
        topic: str,
        *,
        tasks: CloudTasks | None,
        apis: GoogleApis,
        clock: Clock,
        publisher: Publisher | None = None,
        oauth_service_account: str | None = None,
    ) -> None:
        if not TOPIC.fullmatch(topic):
            raise SettingsError(f"topic {topic!r}: is no name of a topic; allowed is projects/P/topics/T")
        self._topic, self._tasks, self._apis, self._clock = topic, tasks, apis, clock
        self._publisher = publisher
        override = apis.override("pubsub")
        self._url = f"{(override or ENDPOINT).rstrip('/')}/v1/{quote(topic, safe='/:~+')}:publish"
        self._account = oauth_service_account if override is None else None
        if tasks is not None and override is None and not oauth_service_account:
            raise SettingsError(
                f"topic {topic}: there is a queue, and no service account in whose name it publishes; "
                "name one that may publish to the topic, or no queue"
            )
        self._has_warned = False

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        """Deliver `event` after `delay_s` seconds or later; return its message id, or its task's name if delayed.

        Raises:
            BrokerUnavailable: it may or may not have got through; to be tried again.
            EventError: the service does not take such a message (too large).
        """
        if delay_s <= 0.0:
            data = msgspec.json.encode(dict(event))
            return self._publish(data) if self._publisher is None else self._publish_by(self._publisher, data)
        if self._tasks is None:
            return self._drop(event, delay_s)
        return self._publish_later(self._tasks, event, timedelta(seconds=delay_s))

    def _publish(self, data: bytes) -> str:
        what = f"pubsub.topics.publish {self._topic}"
        try:
            topics = self._apis.service("pubsub", "v1").projects().topics()
            request = topics.publish(topic=self._topic, body=_body(data))
            answer = self._apis.call(request, what, is_repeatable=True)  # events may come twice
        except ApiError as exc:
            raise self._translated(str(exc), exc.status) from exc
        ids = answer.get("messageIds")
        if not isinstance(ids, list) or len(ids) != 1:
            raise BrokerUnavailable(f"{what}: the answer holds no message id")
        return str(ids[0])

    def _publish_by(self, publisher: Publisher, data: bytes) -> str:
        try:
            return publisher.publish(self._topic, data).result(self._apis.timeout_s)
        except Exception as exc:  # google.api_core's, grpc's, TimeoutError: which ones, the client does not say
            status = getattr(exc, "code", None)  # of google.api_core: an HTTP status
            reason = str(exc) or f"no answer in {self._apis.timeout_s:g} s"
            raise self._translated(
                f"pubsub publish {self._topic}: {type(exc).__name__}: {reason}",
                status if isinstance(status, int) else None,
            ) from exc

    def _publish_later(self, tasks: CloudTasks, event: Mapping[str, Json], delay: timedelta) -> str:
        now = self._clock.now()
        at = now + delay
        message = dict(event)
        if delay > HOP:
            message, at = later_message(event, at), now + HOP
        body = msgspec.json.encode(_body(msgspec.json.encode(message)))
        headers = {"Content-Type": "application/json"}
        try:
            return tasks.add(None, url=self._url, headers=headers, body=body, at=at, oauth=self._account)
        except ApiError as exc:
            raise self._translated(str(exc), exc.status) from exc

    def _drop(self, event: Mapping[str, Json], delay_s: float) -> str:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "topic %s: no queue is set, so that events with a delay (this one: %g s) are dropped; "
                "what is due, the Tick sees to",
                self._topic,
                delay_s,
                extra={"run_id": event.get("run_id"), "node": event.get("node_name")},
            )
        return ""

    def _translated(self, message: str, status: int | None) -> OrchestratorError:
        return EventError(message) if status in _BAD_MESSAGE else BrokerUnavailable(message)


def publisher_client() -> Publisher:
    """Return Google's own client, which tries again by itself. It imports gRPC, and knows the emulator's variable.

    A batch holds one message, so that its future is done as soon as the topic has it, not when a batch is full or 10 ms
    have passed.
    """
    from google.cloud import pubsub_v1  # type: ignore[import-untyped]

    client: Publisher = pubsub_v1.PublisherClient(pubsub_v1.types.BatchSettings(max_messages=1))
    return client


def endpoint_override(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the emulator's variable means to GoogleApis: {} or the variable that overrides Pub/Sub's endpoint.

    For `GoogleApis({**endpoint_override(environment), **environment})`: an override that is set itself, wins.
    """
    host = environment.get(EMULATOR)
    return {f"{OVERRIDE}PUBSUB": f"http://{host}/"} if host else {}


def _body(data: bytes) -> dict[str, Json]:
    return {"messages": [{"data": b64encode(data).decode()}]}
