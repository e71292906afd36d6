"""PubSubBroker: the requests it makes, now and later, and what it makes of the answers."""

import json
import logging
from base64 import b64decode
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from orchestrator.brokers.pubsub import HOP, PubSubBroker, endpoint_override
from orchestrator.model.errors import BrokerUnavailable, EventError, SettingsError
from orchestrator.model.messages import later_message, reminder_message
from orchestrator.services.cloud_tasks import CloudTasks
from orchestrator.services.google_api import GoogleApis
from orchestrator.testing.virtual_time import T0, VirtualClock
from tests.support.cloud_tasks_server import CloudTasksServer

TOPIC = "projects/demo/topics/events"
QUEUE = "projects/demo/locations/europe-west1/queues/reminders"
ACCOUNT = "publisher@demo.iam.gserviceaccount.com"
REMINDER = reminder_message("run_1", "Load", 1, "timeout", T0 + timedelta(hours=1))
DAY_S = 86400.0


class Topics:
    """The publish endpoint of Pub/Sub."""

    def __init__(self):
        self.requests, self.status, self.answer = [], 200, {"messageIds": ["17"]}
        topics = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                topics.requests.append((self.path.partition("?")[0], self.headers["Content-Type"], body))
                data = json.dumps(topics.answer).encode()
                self.send_response(topics.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads, self.http.block_on_close = True, False
        self.host = f"127.0.0.1:{self.http.server_port}"
        self.environment = endpoint_override({"PUBSUB_EMULATOR_HOST": self.host})
        Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def topics():
    topics = Topics()
    yield topics
    topics.http.shutdown()
    topics.http.server_close()


@pytest.fixture
def queue():
    """A queue in which tasks wait, at T0."""
    with CloudTasksServer(clock=lambda: T0, paused=True) as server:
        yield server


def broker_of(environment, *, has_queue=True, **more):
    apis = GoogleApis(environment)
    tasks = CloudTasks(apis, QUEUE) if has_queue else None
    more = {"oauth_service_account": ACCOUNT, "clock": VirtualClock(), **more}
    return PubSubBroker(TOPIC, tasks=tasks, apis=apis, **more)


def published(request):
    """The events in the body of a publish request."""
    return [json.loads(b64decode(message["data"])) for message in request["messages"]]


def task_of(queue):
    (task,) = queue.tasks.values()
    return task


def event_of(task):
    """The event that a task publishes."""
    (event,) = published(json.loads(b64decode(task["httpRequest"]["body"])))
    return event


def test_what_is_due_is_published_by_rest(topics):
    assert broker_of(topics.environment, has_queue=False).publish({"n": 1}) == "17"
    assert topics.requests == [
        (f"/v1/{TOPIC}:publish", "application/json", {"messages": [{"data": "eyJuIjoxfQ=="}]}),
    ]


def test_what_is_delayed_is_a_task_that_publishes(queue):
    message_id = broker_of(queue.environment).publish(REMINDER, delay_s=90.5)
    assert list(queue.tasks) == [message_id]  # the task's name
    task = task_of(queue)
    assert event_of(task) == REMINDER
    body = task["httpRequest"].pop("body")
    assert json.loads(b64decode(body)).keys() == {"messages"}
    assert task == {
        "scheduleTime": "2026-01-01T12:01:30.500000Z",
        "httpRequest": {
            "url": f"https://pubsub.googleapis.com/v1/{TOPIC}:publish",
            "httpMethod": "POST",
            "headers": {"Content-Type": "application/json"},
            "oauthToken": {"serviceAccountEmail": ACCOUNT},
        },
    }


def test_a_task_publishes_the_very_body_that_publishing_now_would(topics, queue):
    broker = broker_of({**queue.environment, **topics.environment})
    broker.publish(REMINDER)
    broker.publish(REMINDER, delay_s=1.0)
    dispatch = queue.run(*queue.tasks)
    assert (dispatch.status, json.loads(dispatch.answer)) == (200, {"messageIds": ["17"]})
    now, later = topics.requests
    assert now == later


def test_an_overridden_endpoint_is_the_tasks_too_and_is_told_no_token(topics, queue):
    broker_of({**queue.environment, **topics.environment}).publish({"n": 1}, delay_s=1.0)
    request = task_of(queue)["httpRequest"]
    assert request["url"] == f"http://{topics.host}/v1/{TOPIC}:publish"
    assert "oauthToken" not in request
    assert "Authorization" not in queue.run(*queue.tasks).headers


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, {}, id="no emulator"),
        pytest.param({"PUBSUB_EMULATOR_HOST": ""}, {}, id="an empty one"),
        pytest.param(
            {"PUBSUB_EMULATOR_HOST": "localhost:8085"},
            {"CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": "http://localhost:8085/"},
            id="one that runs",
        ),
    ],
)
def test_the_emulators_variable_overrides_the_endpoint(environment, expected):
    assert endpoint_override(environment) == expected


@pytest.mark.parametrize(
    ("topic", "path"),
    [
        pytest.param("projects/example.com:demo/topics/events", "projects/example.com:demo/topics/events", id="domain"),
        pytest.param("projects/demo/topics/a%b+c~d", "projects/demo/topics/a%25b+c~d", id="odd characters"),
    ],
)
def test_a_topics_name_is_part_of_the_url(queue, topic, path):
    apis = GoogleApis(queue.environment)
    tasks = CloudTasks(apis, QUEUE)
    broker = PubSubBroker(topic, tasks=tasks, apis=apis, clock=VirtualClock(), oauth_service_account=ACCOUNT)
    broker.publish({"n": 1}, delay_s=1.0)
    assert task_of(queue)["httpRequest"]["url"] == f"https://pubsub.googleapis.com/v1/{path}:publish"


@pytest.mark.parametrize(
    "topic", ["events", "projects/demo/topics/", "projects/demo/topics/1x", f"{TOPIC}:publish", ""]
)
def test_a_topic_is_a_full_name(topic):
    with pytest.raises(SettingsError, match="allowed is projects/P/topics/T"):
        PubSubBroker(topic, tasks=None, apis=GoogleApis({}), clock=VirtualClock())


def test_a_queue_publishes_in_somebodys_name(topics, queue):
    with pytest.raises(SettingsError, match="no service account"):
        broker_of(queue.environment, oauth_service_account=None)
    broker_of({**queue.environment, **topics.environment}, oauth_service_account=None)  # nobody asks


# ---- further off than Cloud Tasks delays


@pytest.mark.parametrize(
    ("delay_s", "is_chained"),
    [
        pytest.param(29 * DAY_S, False, id="29 days in one"),
        pytest.param(29 * DAY_S + 1, True, id="a second more in two"),
        pytest.param(30 * DAY_S, True, id="the service's limit keeps a distance: its clock is not ours"),
        pytest.param(400 * DAY_S, True, id="more than a year"),
    ],
)
def test_a_delay_of_more_than_29_days_goes_in_hops(queue, delay_s, is_chained):
    broker_of(queue.environment).publish(REMINDER, delay_s=delay_s)
    task, at = task_of(queue), T0 + timedelta(seconds=delay_s)
    scheduled = datetime.fromisoformat(task["scheduleTime"])
    if is_chained:
        assert (event_of(task), scheduled) == (later_message(REMINDER, at), T0 + HOP)
    else:
        assert (event_of(task), scheduled) == (REMINDER, at)


def test_hops_lead_to_the_very_time(queue):
    clock, delays = VirtualClock(), []
    broker = broker_of(queue.environment, clock=clock)
    queue._clock = clock.now
    due = T0 + timedelta(days=70)
    event, delay_s = REMINDER, 70 * DAY_S
    while delay_s > 0.0:  # what a receiver of `later` does
        delays.append(delay_s / DAY_S)
        broker.publish(event, delay_s=delay_s)
        (name,) = queue.tasks
        event = event_of(queue.tasks[name])
        clock.time = datetime.fromisoformat(queue.tasks[name]["scheduleTime"])
        queue.run(name)
        if event["resource"]["type"] != "later":
            break
        at = datetime.fromisoformat(event["at"])
        event, delay_s = event["event"], (at - clock.now()).total_seconds()
    assert (event, clock.now(), delays) == (REMINDER, due, [70, 41, 12])


def test_a_later_message_says_when_and_what():
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert later_message({"resource": {"type": "tick"}}, at) == {
        "resource": {"type": "later"},
        "at": "2026-03-01T00:00:00Z",
        "event": {"resource": {"type": "tick"}},
    }
    with pytest.raises(ValueError, match="no time zone"):
        later_message({}, datetime(2026, 3, 1))


# ---- no queue


def test_without_a_queue_delayed_events_are_dropped_with_one_warning(topics, caplog):
    broker = broker_of(topics.environment, has_queue=False)
    with caplog.at_level(logging.DEBUG, "orchestrator"):
        assert [broker.publish(REMINDER, delay_s=1.5), broker.publish(REMINDER, delay_s=60.0)] == ["", ""]
    (record,) = caplog.records
    assert (record.levelname, record.run_id, record.node) == ("WARNING", "run_1", "Load")
    assert f"topic {TOPIC}: no queue is set" in record.message
    assert topics.requests == []


# ---- errors


REFUSALS = [
    pytest.param(503, BrokerUnavailable, id="passing"),
    pytest.param(429, BrokerUnavailable, id="too many"),
    pytest.param(403, BrokerUnavailable, id="a permission can be given"),
    pytest.param(404, BrokerUnavailable, id="a topic or queue can be made"),
    pytest.param(400, EventError, id="the message itself"),
    pytest.param(413, EventError, id="too large"),
]


@pytest.mark.parametrize(("status", "error"), REFUSALS)
def test_an_error_of_the_topic_says_whether_to_try_again(topics, status, error):
    topics.status, topics.answer = status, {"error": {"code": status, "message": "says the test"}}
    with pytest.raises(error, match=f"^pubsub.topics.publish {TOPIC}: {status}: says the test") as caught:
        broker_of(topics.environment, has_queue=False).publish({"n": 1})
    assert caught.value.retry == (error is BrokerUnavailable)


@pytest.mark.parametrize(("status", "error"), REFUSALS)
def test_an_error_of_the_queue_says_whether_to_try_again(queue, status, error):
    queue.fail("POST", status, applied=False)
    with pytest.raises(error, match=f"^cloudtasks.tasks.create {QUEUE}: {status}: "):
        broker_of(queue.environment).publish({"n": 1}, delay_s=1.0)
    assert queue.tasks == {}


def test_an_event_too_large_for_a_task_is_refused(queue):
    with pytest.raises(EventError, match="too large"):
        broker_of(queue.environment).publish({"n": "x" * 700_000}, delay_s=1.0)


def test_no_answer_is_to_be_tried_again():
    nobody = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name}": "http://127.0.0.1:9/" for name in ("PUBSUB", "CLOUDTASKS")}
    for delay_s in (0.0, 1.0):
        with pytest.raises(BrokerUnavailable, match="no answer"):
            broker_of(nobody).publish({"n": 1}, delay_s=delay_s)


def test_an_answer_without_an_id_is_to_be_tried_again(topics):
    topics.answer = {}
    with pytest.raises(BrokerUnavailable, match="no message id"):
        broker_of(topics.environment, has_queue=False).publish({"n": 1})


# ---- Google's own publisher in place of REST


class Publisher:
    """As google.cloud.pubsub_v1.PublisherClient is used."""

    def __init__(self, result):
        self.sent, self._result = [], result

    def publish(self, topic, data):
        self.sent.append((topic, data))
        future = Future()
        if isinstance(self._result, Exception):
            future.set_exception(self._result)
        elif self._result is not None:
            future.set_result(self._result)
        return future


def test_a_publisher_publishes_what_is_due_and_the_queue_the_rest(topics, queue):
    publisher = Publisher("17")
    broker = broker_of({**queue.environment, **topics.environment}, publisher=publisher)
    assert broker.publish({"n": 1}) == "17"
    broker.publish({"n": 2}, delay_s=1.0)
    assert publisher.sent == [(TOPIC, b'{"n":1}')]
    assert topics.requests == []
    assert event_of(task_of(queue)) == {"n": 2}


class CallError(Exception):
    """As google.api_core.exceptions.GoogleAPICallError: with the HTTP status."""

    def __init__(self, code):
        self.code = code
        super().__init__(f"{code} says the test")


@pytest.mark.parametrize(("status", "error"), REFUSALS)
def test_an_error_of_the_publisher_says_whether_to_try_again(topics, status, error):
    broker = broker_of(topics.environment, publisher=Publisher(CallError(status)))
    with pytest.raises(error, match=f"^pubsub publish {TOPIC}: CallError: {status} says the test$"):
        broker.publish({"n": 1})


def test_a_publisher_that_takes_too_long_is_to_be_tried_again(topics):
    apis = GoogleApis(topics.environment, timeout_s=0.05)
    broker = PubSubBroker(TOPIC, tasks=None, apis=apis, clock=VirtualClock(), publisher=Publisher(None))
    with pytest.raises(BrokerUnavailable, match=r"TimeoutError: no answer in 0\.05 s$"):
        broker.publish({"n": 1})
