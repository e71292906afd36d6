"""Dead letters: events that were acknowledged though nothing could be done with them, for a person to see."""

import logging
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError, VersionConflict
from orchestrator.ports import ObjectStore

log = logging.getLogger("orchestrator")


def keep(store: ObjectStore, event: Json | bytes, message_id: str, error: BaseException) -> str | None:
    """Write `dead_letters/<date>-<hash of the message id>.json`; return its key, or None if that failed.

    The event stands there as it came (bytes as text), with the error and its kind.
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
    except (OrchestratorError, msgspec.EncodeError, TypeError, RecursionError) as exc:
        log.error("a dead letter cannot be kept: %s", exc, extra={"event_id": message_id})
        return None
    return key
