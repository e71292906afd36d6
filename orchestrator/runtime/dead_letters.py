"""Dead letters: events that were acknowledged though nothing could be done with them, for a person to see."""

import logging
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError, VersionConflict
from orchestrator.ports import ObjectStore

log = logging.getLogger("orchestrator")

_SHOWN = 1000


def keep(store: ObjectStore, event: Json | bytes, message_id: str, error: BaseException) -> str | None:
    """Write `dead_letters/<date>-<hash of the message id>.json`; return its key, or None if that can never be.

    The event stands there as it came (bytes as text), with the error and its kind. One that cannot be kept is logged,
    as far as it goes into a line.

    Raises:
        OrchestratorError: it cannot be kept now (`retry`); whoever delivered the event is to deliver it again.
    """
    now = datetime.now(UTC)
    key = f"dead_letters/{now:%Y-%m-%d}-{sha256(message_id.encode()).hexdigest()[:16]}.json"
    letter = {
        "message_id": message_id,
        "at": now,
        "error": str(error),
        "error_type": type(error).__name__,
        "event": event.decode("utf-8", "replace") if isinstance(event, bytes) else event,
    }
    try:
        store.put(key, msgspec.json.format(msgspec.json.encode(letter, enc_hook=repr), indent=2), expect=None)
    except VersionConflict:
        return key  # the same message was given up before
    except (OrchestratorError, msgspec.EncodeError, ValueError, TypeError, RecursionError) as exc:
        if isinstance(exc, OrchestratorError) and exc.retry:
            raise
        begin = _beginning(letter["event"])
        log.error("a dead letter cannot be kept: %s; it begins: %s", exc, begin, extra={"event_id": message_id})
        return None
    return key


def _beginning(event: object) -> str:
    """What an event begins with, in one line, whatever it holds."""
    try:
        text = repr(event)
    except RecursionError:
        return f"a {type(event).__name__} that is nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
