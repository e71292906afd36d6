"""Asking the orchestrator that is deployed for something, by a message to its topic."""

from collections.abc import Callable, Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.model.commands import Json
from orchestrator.model.errors import BrokerUnavailable, InputError
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.settings import Settings

_DONE: Mapping[str, str] = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "redrive": "redriven",
    "approve": "answered",
}


def publish(
    command: str,
    message: Mapping[str, Json],
    topic: str | None,
    bucket: Bucket,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker],
) -> str:
    """Publish what a command asks for; return the message's id.

    Args:
        topic: instead of the settings'.
    Raises:
        InputError: there is no topic.
        SettingsError, BrokerUnavailable: the topic is no name of one, or cannot be reached.
    """
    topic = topic or settings.events_topic
    if topic is None:
        raise InputError(
            f"{command}: EVENTS_TOPIC is not set, and runs in {bucket.url} are {_DONE[command]} by a message; "
            "set it, or name the topic by --topic projects/P/topics/T"
        )
    broker = broker_of(topic, environment, clock)
    try:
        return broker.publish(message)
    except BrokerUnavailable as exc:
        exc.add_note("it may have got through; asking again does no harm")
        raise
