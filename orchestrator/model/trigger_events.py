"""Events of others that start runs: an object of Cloud Storage, a message of any topic. Loaded where one comes. Pure.

What `execute` takes, and what the deployed function makes of a delivery:

    object     {"resource": {"type": "object"}, "bucket", "name", "generation"?, "size"?, "content_type"?,
                "time_created"?, "metadata"?, "event_type"?}
    message    {"resource": {"type": "message"}, "topic", "data"?, "data_base64"?, "attributes"?}

Sources: https://cloud.google.com/storage/docs/pubsub-notifications (attributes, payload),
https://cloud.google.com/storage/docs/json_api/v1/objects (the payload's fields).
"""

import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from orchestrator.model import messages
from orchestrator.model.commands import Json
from orchestrator.model.errors import EventError
from orchestrator.model.events import Common, MessageEvent, ObjectEvent
from orchestrator.model.grammar_rules import text_problem
from orchestrator.model.json_paths import is_name
from orchestrator.model.messages import MAX_DEPTH, is_too_deep
from orchestrator.model.times import parse_time

TOPIC = re.compile(r"projects/[^/\s]+/topics/[^/\s]+")
"""The name of a topic in full."""

FINALIZED: Final = "OBJECT_FINALIZE"
"""An object is there: a new one, or a new generation of one. The other kinds of events start nothing."""

_GENERATION = re.compile(r"[0-9]{1,20}")
_LONGEST_NAME: Final = 1024
"""Bytes of an object's name, as Cloud Storage has it."""


# ---- from what `execute` takes to events -----------------------------------------------------------------


def object_event(data: Mapping[str, Json], common: Common) -> ObjectEvent | None:
    """Return the event of an object that is there, None for what else became of one. Raises EventError."""
    if data.get("event_type", FINALIZED) != FINALIZED:
        return None
    bucket, name, generation = data.get("bucket"), data.get("name"), data.get("generation")
    if not is_name(bucket):
        raise _wrong("object.bucket", "it has to be the name of a bucket")
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME or text_problem(name):
        raise _wrong("object.name", f"it has to be text of 1 to {_LONGEST_NAME} bytes")
    if isinstance(generation, int) and not isinstance(generation, bool):
        generation = str(generation)
    if generation is not None and not (isinstance(generation, str) and _GENERATION.fullmatch(generation)):
        raise _wrong("object.generation", "it has to be a number")
    metadata = data.get("metadata")
    created = data.get("time_created")
    fields: dict[str, Json] = {
        "bucket": bucket,
        "name": name,
        "uri": f"gs://{bucket}/{name}",
        "generation": generation,
        "size": _whole(data.get("size")),
        "content_type": _text(data.get("content_type")),
        "time_created": created if isinstance(created, str) and parse_time(created) else None,
        "metadata": dict(metadata) if isinstance(metadata, Mapping) and not is_too_deep(metadata) else {},
    }
    return ObjectEvent(**common, bucket=bucket, name=name, generation=generation, fields=fields)


def message_event(data: Mapping[str, Json], common: Common) -> MessageEvent:
    """Return the event of a message of another topic. Raises EventError."""
    topic, attributes, content = data.get("topic"), data.get("attributes"), data.get("data")
    if not (is_name(topic) and TOPIC.fullmatch(topic)):
        raise _wrong("message.topic", 'write it as in "projects/my-project/topics/orders"')
    if attributes is None:
        attributes = {}
    if not isinstance(attributes, Mapping) or not all(isinstance(each, str) for each in attributes.values()):
        raise _wrong("message.attributes", "they are names with texts")
    if is_too_deep(content):
        raise EventError(f"message.data: is nested too deeply; allowed are {MAX_DEPTH} levels")
    published = common["publish_time"]
    fields: dict[str, Json] = {
        "topic": topic,
        "data": content,
        "attributes": dict(attributes),
        "message_id": common["message_id"],
        "publish_time": None if published is None else messages.rfc3339(published),
    }
    if isinstance(data.get("data_base64"), str):
        fields["data_base64"] = data["data_base64"]
    return MessageEvent(**common, topic=topic, fields=fields)


def second_of(event: ObjectEvent) -> datetime:
    """Return a time that is the same for every notification of one generation of an object.

    The number of a generation is its time in microseconds, as a rule and not by promise.
    """
    if event.generation is not None and 946_684_800_000_000 < (number := int(event.generation)) < 4_102_444_800_000_000:
        return datetime.fromtimestamp(number // 1_000_000, UTC)
    created = event.fields.get("time_created")
    found = parse_time(created) if isinstance(created, str) else None
    return found or datetime(1970, 1, 1, tzinfo=UTC)


# ---- from deliveries to what `execute` takes ---------------------------------------------------------------


def of_notification(attributes: Mapping[str, str], data: object) -> dict[str, Json]:
    """Return the event of a notification of Cloud Storage; its payload, if there is one, only adds to it."""
    found = _payload(data)
    size, generation = found.get("size"), attributes.get("objectGeneration") or found.get("generation")
    return {
        "resource": {"type": messages.OBJECT},
        "event_type": attributes.get("eventType"),
        "bucket": attributes["bucketId"],
        "name": attributes["objectId"],
        "generation": generation,
        "size": size,
        "content_type": found.get("contentType"),
        "time_created": found.get("timeCreated"),
        "metadata": found.get("metadata"),
    }


def of_message(topic: str, attributes: Mapping[str, str], content: bytes | None) -> dict[str, Json]:
    """Return the event of a message of another topic: its data as JSON, else as text, else in base64.

    Raises:
        EventError: it is nested too deeply.
    """
    event: dict[str, Json] = {
        "resource": {"type": messages.MESSAGE},
        "topic": topic,
        "attributes": dict(attributes),
        "data": None,
    }
    if content is None:
        return event
    try:
        event["data"] = msgspec.json.decode(content)
    except RecursionError as exc:
        raise EventError(f"message.data: is nested too deeply; allowed are {MAX_DEPTH} levels") from exc
    except ValueError:  # no JSON, or no UTF-8
        try:
            event["data"] = content.decode("utf-8")
        except UnicodeDecodeError:
            event["data_base64"] = binascii.b2a_base64(content, newline=False).decode("ascii")
    return event


def _payload(data: object) -> Mapping[str, Json]:
    if isinstance(data, Mapping):
        return data
    if not isinstance(data, str) or not data:
        return {}
    try:
        found = msgspec.json.decode(binascii.a2b_base64(data, strict_mode=True))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: Json) -> int | None:
    """A number of bytes; in Google's JSON it is text."""
    if isinstance(value, str) and _GENERATION.fullmatch(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None


def _wrong(where: str, allowed: str) -> EventError:
    return EventError(f"{where}: is missing or wrong; {allowed}")
