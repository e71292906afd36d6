"""The runtime of the Cloud Function: decode a Pub/Sub message, hand it over, say whether to redeliver it."""

import logging
import os
import sys
from pathlib import Path
from threading import Lock

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.handled import Handled
from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.pubsub import decode
from orchestrator.runtime.catalog import DagFolders
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.logs import configure
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.settings import Settings
from orchestrator.runtime.story import log_saved

log = logging.getLogger("orchestrator")

_PUBSUB = "//pubsub.googleapis.com/"


class Instance:
    """What one instance of the function keeps between events. Its first events may come at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._executor: DAGExecutor | None = None
        self._settings: Settings | None = None

    def executor(self) -> DAGExecutor:
        """The one executor, assembled at the first event: a second one would not share its saves."""
        with self._lock:
            if self._executor is None:
                self._settings = self._settings or Settings.read(os.environ)
                self._executor = _assemble(self._settings)
            return self._executor

    def topic_of_others(self, source: str | None) -> str | None:
        """Return the topic that a CloudEvent's `source` names, if that is not the topic of our own events.

        Whatever it names: what is not certain to be our own is not to be obeyed.
        """
        own = self._settings.events_topic if self._settings else None
        if own is None or source is None or not source.startswith(_PUBSUB):
            return None
        topic = source.removeprefix(_PUBSUB)
        return None if topic in ("", own) else topic


_instance = Instance()


def executor() -> DAGExecutor:
    """The instance's executor, assembled from its settings at the first event.

    With EVENTS_TOPIC it is the cloud's, else that of one machine. Raises SettingsError.
    """
    return _instance.executor()


def _assemble(settings: Settings) -> DAGExecutor:
    found = DagFolders(Path(settings.dag_definitions))
    catalog = Catalog(found, settings.default_dag)
    if settings.events_topic is None:
        return DAGExecutor(catalog, folders=found.folders, settings=settings)
    from orchestrator.runtime.cloud import CloudParts

    configure(sys.stdout, settings.project)
    store = open_store(settings.status_bucket)
    parts = CloudParts(settings, store, SystemClock(), os.environ)
    return DAGExecutor(
        catalog,
        store=store,
        targets=parts.targets,
        broker=parts.broker,
        settings=settings,
        secrets=parts.secrets,
        on_saved=log_saved,
    )


def handle(
    data: Json, *, event_id: str | None = None, event_time: str | None = None, source: str | None = None
) -> Handled | None:
    """Handle what a Pub/Sub trigger delivers.

    What comes from another topic than ours is a message that may trigger runs, whatever it says that it is.

    Args:
        data: `data` of the CloudEvent: `{"message": {"data": <base64>, "messageId": …}, …}`.
        event_id, event_time: of the CloudEvent, for messages that hold none.
        source: of the CloudEvent, `//pubsub.googleapis.com/projects/P/topics/T`.
    Returns:
        What was done, or None for a message that nothing can be done with: it is acknowledged,
        logged as an error and kept under `dead_letters/`.
    Raises:
        OrchestratorError: a passing fault, or the message cannot be kept now; whoever delivered it is to do so again.
    """
    runs = executor()
    message_id = event_id or "unknown"
    event: Json = data
    try:
        topic = _instance.topic_of_others(source)
        message = decode(data, event_id=event_id, event_time=event_time, topic=topic)
        message_id, event = message.message_id or message_id, message.event_data
        return runs.execute(message.event_data, message_id=message.message_id, publish_time=message.publish_time)
    except OrchestratorError as exc:
        labels = {**exc.labels, "event_id": message_id}
        if exc.retry:
            log.warning("put off: %s", exc, extra=labels)
            raise
        from orchestrator.runtime.dead_letters import keep

        try:
            key = keep(runs.store, event, message_id, exc)
        except OrchestratorError as unkept:  # the subscription keeps what it delivers in vain
            log.error("put off, as it cannot be kept: %s: %s", exc, unkept, extra=labels)
            raise
        log.error("acknowledged, but not handled: %s (kept as %s)", exc, key, extra=labels)
        return None
    finally:
        runs.flush()
