"""What a Pub/Sub-triggered function receives, decoded: the message's JSON, its id and its time.

It reads both forms of the fields' names, for a body may have either or both: `messageId` and
`message_id`, `publishTime` and `publish_time`. Pure.
"""

import binascii
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import EventError
from orchestrator.model.messages import MAX_DEPTH, is_too_deep

MAX_SIZE_BYTES: Final = 10_000_000
"""The largest message that Pub/Sub takes."""

_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Message(msgspec.Struct, frozen=True):
    """One message of a topic.

    Attributes:
        event_data: the JSON object that was published.
        message_id: unique within its topic; None where the body has none and the caller gave none.
        publish_time: aware, UTC; None where the body has none and the caller gave none.
        attributes: what it was published with.
    """

    event_data: dict[str, Json]
    message_id: str | None = None
    publish_time: datetime | None = None
    attributes: Mapping[str, str] = msgspec.field(default_factory=dict)


def decode(
    data: object,
    *,
    event_id: str | None = None,
    event_time: datetime | str | None = None,
    topic: str | None = None,
) -> Message:
    """Decode the data of a Pub/Sub CloudEvent, or the body of a push request, which has the same shape.

    Args:
        data: `{"message": {"data": base64, "attributes", "messageId", "publishTime"}, …}`.
        topic: the one that it comes from, where that is not our own: then it is a message event whatever it holds.
        event_id: the CloudEvent's `id`, for a body that has no message id.
        event_time: the CloudEvent's `time`, for a body that has no publish time.

    Raises:
        EventError: it holds no message, or none that is a JSON object; the text says where.
    """
    message = data.get("message") if isinstance(data, Mapping) else None
    if not isinstance(message, Mapping):
        raise EventError('body: has no message; allowed is {"message": {"data": base64 of a JSON object}}')
    attributes = message.get("attributes")
    if attributes is None:
        attributes = {}
    elif not _is_attributes(attributes):
        raise EventError("message.attributes: is no map of texts; allowed are names with texts")
    return Message(
        event_data=_event_data(message.get("data"), attributes, topic),
        message_id=_message_id(message) or event_id,
        publish_time=_publish_time(message, event_time),
        attributes=dict(attributes),
    )


def _event_data(data: object, attributes: Mapping[str, str], topic: str | None) -> dict[str, Json]:
    is_of_bucket = "bucketId" in attributes and "objectId" in attributes  # only a bucket's own message has these
    if topic is None and not is_of_bucket:
        return _json(_bytes(data, has_attributes=bool(attributes)))
    from orchestrator.model.trigger_events import of_message, of_notification  # only where one comes

    if topic is None:
        return of_notification(attributes, data)
    return of_message(topic, attributes, _bytes(data, has_attributes=True) if data else None)


def _bytes(data: object, *, has_attributes: bool) -> bytes:
    if data is None or data == "":
        what = "has attributes but no data" if has_attributes else "has neither data nor attributes"
        raise EventError(f"message: {what}; the data has to be a JSON object, in base64")
    if not isinstance(data, str):
        raise EventError(f"message.data: is a {type(data).__name__}; allowed is base64 text")
    _check_size(data)
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError as exc:
        raise EventError(f"message.data: is not base64 ({exc}); allowed is RFC 4648, section 4") from exc


def _check_size(data: str) -> None:
    size_bytes = len(data) // 4 * 3 - data[-2:].count("=")  # known before anything is decoded
    if size_bytes > MAX_SIZE_BYTES:
        raise EventError(f"message.data: is {size_bytes} bytes long; allowed are {MAX_SIZE_BYTES} bytes")


def _json(content: bytes) -> dict[str, Json]:
    try:
        value = msgspec.json.decode(content)
        # No level without its bracket: few brackets, and there is nothing to look for.
        is_deep = content.count(b"{") + content.count(b"[") > MAX_DEPTH and is_too_deep(value)
    except RecursionError:
        is_deep = True
    except ValueError as exc:  # msgspec.DecodeError and UnicodeDecodeError are ValueErrors
        raise EventError(f"message.data: is not JSON in UTF-8 ({exc}); allowed is a JSON object") from exc
    if is_deep:
        raise EventError(f"message.data: is nested too deeply; allowed are {MAX_DEPTH} levels")
    if not isinstance(value, dict):
        raise EventError(f"message.data: is a JSON {_KINDS[type(value)]}; allowed is a JSON object")
    return value


_KINDS: Final = {
    list: "array",
    str: "string",
    int: "number",
    float: "number",
    bool: "boolean",
    type(None): "null",
}


def _is_attributes(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(name, str) and isinstance(text, str) for name, text in value.items()
    )


def _message_id(message: Mapping[str, object]) -> str | None:
    for key in ("messageId", "message_id"):
        value = message.get(key)
        if value is not None and not isinstance(value, str):
            raise EventError(f"message.{key}: is a {type(value).__name__}; allowed is text")
        if value:
            return value
    return None


def _publish_time(message: Mapping[str, object], event_time: datetime | str | None) -> datetime | None:
    times = (
        ("message.publishTime", message.get("publishTime")),
        ("message.publish_time", message.get("publish_time")),
        ("event.time", event_time),
    )
    for where, value in times:
        if value is None or value == "":
            continue
        try:
            return msgspec.convert(value, _Aware).astimezone(UTC)
        except (ValueError, OverflowError) as exc:
            shown = repr(value)[:80] if isinstance(value, str | datetime) else f"a {type(value).__name__}"
            raise EventError(f"{where}: is {shown}; allowed is an RFC 3339 time with its zone") from exc
    return None
