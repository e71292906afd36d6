"""pubsub.decode: what a Pub/Sub-triggered function receives, and all that can be wrong with it."""

import json
from base64 import b64encode, urlsafe_b64encode
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model import pubsub
from orchestrator.model.errors import EventError
from orchestrator.model.messages import MAX_DEPTH
from orchestrator.model.pubsub import Message, decode

PAYLOADS = Path(__file__).parents[1] / "payloads"
ID = "3607049217402716"
AT = datetime(2021, 12, 12, 15, 49, 47, 102000, UTC)
STAMP = {"logging.googleapis.com/timestamp": "2021-12-12T15:49:36.384721526Z"}


def payload(name):
    return json.loads((PAYLOADS / f"{name}.json").read_text())


def body(content, **fields):
    """A push body around bytes, or around JSON."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return {"message": {"data": b64encode(raw).decode(), **fields}}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("pubsub_cloud_event", id="the data of a CloudEvent"),
        pytest.param("pubsub_push_both_names", id="a push body has the names in both forms"),
    ],
)
def test_a_log_entry_comes_out_as_it_went_in(name):
    assert decode(payload(name)) == Message(payload("cloud_function_gen1"), ID, AT, STAMP)


@pytest.mark.parametrize(
    ("data", "given_by_caller", "expected"),
    [
        pytest.param(body({}), {}, Message({}, None, None, {}), id="nothing but data"),
        pytest.param(
            body({}, message_id="7", publish_time="2021-12-12T15:49:47.102Z"),
            {},
            Message({}, "7", AT),
            id="the names of the client libraries",
        ),
        pytest.param(
            body({}, messageId="7", message_id="8"), {}, Message({}, "7"), id="of two ids the documented one counts"
        ),
        pytest.param(
            body({}, messageId="", publishTime=""),
            {"event_id": "9", "event_time": "2021-12-12T15:49:47.102Z"},
            Message({}, "9", AT),
            id="the CloudEvent's own id and time stand in for empty ones",
        ),
        pytest.param(body({}), {"event_time": AT}, Message({}, None, AT), id="a time may be a datetime already"),
        pytest.param(
            body({}, messageId="7", publishTime="2021-12-12T15:49:47.102Z"),
            {"event_id": "9", "event_time": "2030-01-01T00:00:00Z"},
            Message({}, "7", AT),
            id="the message's own id and time come first",
        ),
        pytest.param(
            body({}, publishTime="2021-12-12T17:49:47.102000000+02:00"), {}, Message({}, None, AT), id="times are UTC"
        ),
        pytest.param(body({}, attributes=None), {}, Message({}), id="null is no attributes"),
        pytest.param(
            body({"text": "[{" * MAX_DEPTH}),
            {},
            Message({"text": "[{" * MAX_DEPTH}),
            id="brackets in a text are no levels",
        ),
        pytest.param(body({"a": [[]] * MAX_DEPTH}), {}, Message({"a": [[]] * MAX_DEPTH}), id="wide is not deep"),
    ],
)
def test_decode(data, given_by_caller, expected):
    assert decode(data, **given_by_caller) == expected


def test_a_time_is_utc_whatever_zone_it_came_in():
    assert decode(body({}, publishTime="2021-12-12T17:49:47+02:00")).publish_time.tzinfo is UTC


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(None, "body: has no message", id="nothing at all"),
        pytest.param([], "body: has no message", id="a list"),
        pytest.param({}, "body: has no message", id="an empty object"),
        pytest.param(payload("cloud_function_gen1"), "body: has no message", id="a message without its wrapper"),
        pytest.param({"message": "hello"}, "body: has no message", id="a message that is text"),
        pytest.param({"message": {}}, "message: has neither data nor attributes", id="an empty message"),
        pytest.param({"message": {"data": ""}}, "message: has neither data nor attributes", id="empty data"),
        pytest.param(
            payload("pubsub_batch_notification"),
            "message: has attributes but no data; the data has to be a JSON object, in base64",
            id="Batch's own notification: its jobs are asked by reminders",
        ),
        pytest.param({"message": {"data": {"a": 1}}}, "message.data: is a dict; allowed is base64", id="data as JSON"),
        pytest.param({"message": {"data": "{}"}}, "message.data: is not base64", id="data that nobody encoded"),
        pytest.param({"message": {"data": "e30"}}, "message.data: is not base64", id="padding is missing"),
        pytest.param({"message": {"data": "e30=\n"}}, "message.data: is not base64", id="a line break"),
        pytest.param({"message": {"data": "é30="}}, "message.data: is not base64", id="a letter beyond ASCII"),
        pytest.param(
            {"message": {"data": urlsafe_b64encode(b'{"a":"\xc3\xbf\xc3\xbf?>"}').decode()}},
            "message.data: is not base64",
            id="the alphabet of URLs is another",
        ),
        pytest.param(body(b""), "message: has neither data", id="no bytes"),
        pytest.param(body(b"hello"), "message.data: is not JSON in UTF-8", id="plain text"),
        pytest.param(body(b'{"a":'), "message.data: is not JSON in UTF-8", id="half a document"),
        pytest.param(body(b"{} {}"), "message.data: is not JSON in UTF-8", id="two documents"),
        pytest.param(body(b'{"a": NaN}'), "message.data: is not JSON in UTF-8", id="NaN is no JSON"),
        pytest.param(body(b'{"a": "\xff"}'), "message.data: is not JSON in UTF-8", id="no UTF-8"),
        pytest.param(body(b'{"a": "\\ud800"}'), "message.data: is not JSON in UTF-8", id="half a character"),
        pytest.param(body('{"a": 1}'.encode("utf-16")), "message.data: is not JSON in UTF-8", id="UTF-16"),
        pytest.param(body(b"1" + b"0" * 5000), "message.data: is not JSON in UTF-8", id="a number out of range"),
        pytest.param(body([{}]), "message.data: is a JSON array; allowed is a JSON object", id="an array"),
        pytest.param(body("text"), "message.data: is a JSON string;", id="a string"),
        pytest.param(body(7), "message.data: is a JSON number;", id="a number"),
        pytest.param(body(7.5), "message.data: is a JSON number;", id="a fraction"),
        pytest.param(body(True), "message.data: is a JSON boolean;", id="true"),
        pytest.param(body(None), "message.data: is a JSON null;", id="null"),
        pytest.param(body(b"[" * 10**5), "message.data: is nested too deeply", id="deeper than Python can follow"),
        pytest.param(
            body(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}"),
            "message.data: is nested too deeply; allowed are 100 levels",
            id="one level too many",
        ),
        pytest.param(body({}, attributes=["a"]), "message.attributes: is no map of texts", id="attributes as a list"),
        pytest.param(body({}, attributes={"a": 1}), "message.attributes: is no map of texts", id="a number in them"),
        pytest.param(body({}, messageId=7), "message.messageId: is a int; allowed is text", id="an id is text"),
        pytest.param(
            body({}, publishTime="yesterday"),
            "message.publishTime: is 'yesterday'; allowed is an RFC 3339 time with its zone",
            id="a time that is none",
        ),
        pytest.param(body({}, publish_time="2021-12-12T15:49:47"), "message.publish_time: is '2021", id="no zone"),
        pytest.param(body({}, publishTime=1639324187), "message.publishTime: is a int", id="seconds"),
        pytest.param(
            body({}, publishTime="0001-01-01T00:00:00+10:00"), "message.publishTime", id="before all time in UTC"
        ),
    ],
)
def test_what_is_wrong_is_named(data, message):
    with pytest.raises(EventError) as caught:
        decode(data)
    assert message in str(caught.value)
    assert not caught.value.retry


@pytest.mark.parametrize(
    "time", [pytest.param("soon", id="a text that is no time"), pytest.param(AT.replace(tzinfo=None), id="no zone")]
)
def test_the_callers_time_is_checked_too(time):
    with pytest.raises(EventError, match=r"event\.time: is "):
        decode(body({}), event_time=time)


@pytest.mark.parametrize(("more", "is_taken"), [(0, True), (1, False), (2, False), (3, False)])
def test_a_message_is_not_larger_than_pubsub_takes(monkeypatch, more, is_taken):
    monkeypatch.setattr(pubsub, "MAX_SIZE_BYTES", 1000)
    data = body({"a": "x" * (1000 - len('{"a": ""}') + more)})
    if is_taken:
        assert len(decode(data).event_data["a"]) == 991
    else:
        with pytest.raises(EventError, match=r"message\.data: is 100[1-3] bytes long; allowed are 1000 bytes"):
            decode(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
DATA = JSON | st.binary(max_size=40).map(lambda raw: b64encode(raw).decode())
FIELDS = st.dictionaries(
    st.sampled_from(["data", "attributes", "messageId", "message_id", "publishTime", "publish_time"]), DATA, max_size=6
)


@settings(max_examples=300, deadline=None)
@given(JSON | st.fixed_dictionaries({"message": JSON | FIELDS}))
def test_any_body_is_a_message_or_an_event_error(data):
    before = deepcopy(data)
    try:
        message = decode(data)
    except EventError:
        return
    assert isinstance(message, Message)
    assert isinstance(message.event_data, dict)
    assert repr(data) == repr(before)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=20), max_size=5))
def test_any_object_comes_out_as_it_went_in(content):
    assert decode(body(content)).event_data == content
