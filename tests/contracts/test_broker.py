"""Every sentence of the Broker port, held against every adapter.

Pub/Sub is Google's own emulator, and the delays are those of a Cloud Tasks in this process. The subscriber is what the
deployed function is: it acknowledges what was handled or cannot be, and has delivered again what failed in passing.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Condition, Event, Thread

import pytest

from orchestrator.brokers.memory import MemoryBroker
from orchestrator.brokers.pubsub import PubSubBroker, endpoint_override, publisher_client
from orchestrator.model.errors import EventError, NotYet, OrchestratorError
from orchestrator.runtime.clock import SystemClock
from orchestrator.services.cloud_tasks import CloudTasks
from orchestrator.services.google_api import GoogleApis
from orchestrator.testing.virtual_broker import VirtualBroker
from tests.support.cloud_tasks_server import CloudTasksServer
from tests.support.local_targets import RealTime
from tests.support.pubsub_emulator import Subscription, pubsub_emulator_host  # noqa: F401  # a fixture

QUEUE = "projects/emulated/locations/europe-west1/queues/orchestrator"
SETTLED_S = 0.3
"""How long nothing more is waited for; a second delivery that is to come, comes sooner."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery to the subscriber."""

    event: Mapping[str, object]
    message_id: str
    publish_time: datetime
    at: datetime


class Inbox:
    """A subscriber that notes what it gets; `answer` is called with each delivery, and may raise what is wrong."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.answer: Callable[[Delivery], object] = lambda delivery: None
        self._changed = Condition()

    def take(self, event: Mapping[str, object], message_id: str, publish_time: datetime) -> None:
        delivery = Delivery(event, message_id, publish_time, datetime.now(UTC))
        with self._changed:
            self.deliveries.append(delivery)
            self._changed.notify_all()
        self.answer(delivery)

    def wait_for(self, number: int, timeout_s: float = 60.0) -> list[Delivery]:
        """Return all deliveries as soon as there are so many."""
        with self._changed:
            self._changed.wait_for(lambda: len(self.deliveries) >= number, timeout_s)
            return list(self.deliveries)

    def numbers(self) -> Counter:
        return Counter(delivery.event["n"] for delivery in self.deliveries)


class Bench:
    """One broker, and how its subscriber is connected."""

    def __init__(self, broker: object, connect: Callable[[Inbox], None]) -> None:
        self.broker, self._connect = broker, connect

    def connected(self) -> Inbox:
        inbox = Inbox()
        self._connect(inbox)
        return inbox

    def connect(self, inbox: Inbox) -> None:
        self._connect(inbox)


@contextmanager
def memory(host: None) -> Iterator[Bench]:
    broker = MemoryBroker(SystemClock(), time.monotonic)

    def connect(inbox):
        def subscriber(data, on_done, *, message_id, publish_time):
            try:
                inbox.take(data, message_id, publish_time)
            except OrchestratorError as exc:
                on_done(None, exc)
            else:
                on_done(None, None)

        broker.subscribe(subscriber)

    try:
        yield Bench(broker, connect)
    finally:
        broker.close()


@contextmanager
def virtual(host: None) -> Iterator[Bench]:
    time_goes_by = RealTime()
    broker = VirtualBroker(time_goes_by.agenda)

    def connect(inbox):
        def subscriber(event, *, message_id, publish_time):
            inbox.take(event, message_id, publish_time)

        broker.subscribe(subscriber)

    try:
        yield Bench(broker, connect)
    finally:
        time_goes_by.close()


@contextmanager
def pubsub(host: str, publisher=None) -> Iterator[Bench]:
    subscription, is_over, threads = Subscription(host), Event(), []
    with CloudTasksServer() as queue:
        apis = GoogleApis({**queue.environment, **endpoint_override({"PUBSUB_EMULATOR_HOST": host})})
        broker = PubSubBroker(
            subscription.topic,
            tasks=CloudTasks(apis, QUEUE),
            apis=apis,
            clock=SystemClock(),
            publisher=publisher,
        )

        def pull(inbox):
            while not is_over.is_set():
                pulled = subscription.pull()
                for one in pulled:
                    try:
                        inbox.take(one.event, one.message_id, one.publish_time)
                    except OrchestratorError as exc:
                        subscription.nack(one) if exc.retry else subscription.ack(one)
                    else:
                        subscription.ack(one)
                if not pulled:
                    is_over.wait(0.02)

        def connect(inbox):
            threads.append(Thread(target=pull, args=(inbox,), daemon=True))
            threads[-1].start()

        try:
            yield Bench(broker, connect)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
            subscription.delete()


@contextmanager
def pubsub_by_grpc(host: str) -> Iterator[Bench]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PUBSUB_EMULATOR_HOST", host)
        publisher = publisher_client()
    with pubsub(host, publisher) as bench:
        yield bench


ADAPTERS = {  # name -> how to make one, with what it needs to be there
    "memory": (memory, None),
    "virtual": (virtual, None),
    "pubsub": (pubsub, "pubsub_emulator"),
    "pubsub, google's publisher": (pubsub_by_grpc, "pubsub_emulator"),
}


@pytest.fixture(params=ADAPTERS.values(), ids=ADAPTERS.keys())
def bench(request):
    make, needed = request.param
    with make(request.getfixturevalue(needed) if needed else None) as bench:
        yield bench


def in_threads(count, work):
    threads = [Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


EVENT = {
    "resource": {"type": "start"},
    "dag": "größe",
    "input": {"n": 2**53, "part": 0.1, "none": None, "yes": True, "list": [[], {}, ""], "text": 'a"\n\u2028😀'},
}


@pytest.mark.parametrize("delay_s", [pytest.param(0.0, id="at once"), pytest.param(0.05, id="delayed")])
def test_an_event_is_delivered_as_it_was_published(bench, delay_s):
    inbox = bench.connected()
    bench.broker.publish(EVENT, delay_s=delay_s)
    assert [delivery.event for delivery in inbox.wait_for(1)] == [EVENT]


def test_a_delivery_carries_the_id_that_publishing_returned_and_the_time(bench):
    inbox, before = bench.connected(), datetime.now(UTC)
    message_id = bench.broker.publish({"n": 1})
    (delivery,) = inbox.wait_for(1)
    assert delivery.message_id == message_id
    assert delivery.publish_time.tzinfo is not None
    # To the millisecond, as the service has it, and as clocks of one machine agree.
    assert before - timedelta(milliseconds=5) <= delivery.publish_time <= delivery.at + timedelta(milliseconds=5)


def test_no_two_messages_share_an_id(bench):
    inbox, returned = bench.connected(), []
    for n in range(5):
        returned.append(bench.broker.publish({"n": n}))
        returned.append(bench.broker.publish({"n": n}, delay_s=0.01))
    deliveries = inbox.wait_for(10)
    assert len({*returned}) == len({delivery.message_id for delivery in deliveries}) == len(deliveries) == 10


def test_an_event_comes_after_its_delay_or_later(bench):
    inbox, published = bench.connected(), datetime.now(UTC)
    bench.broker.publish({"n": 1}, delay_s=0.4)
    bench.broker.publish({"n": 2}, delay_s=0.2)
    deliveries = {delivery.event["n"]: delivery.at - published for delivery in inbox.wait_for(2)}
    assert deliveries[1] >= timedelta(seconds=0.4)
    assert deliveries[2] >= timedelta(seconds=0.2)


def test_an_event_without_delay_does_not_wait_for_a_delayed_one(bench):
    inbox = bench.connected()
    bench.broker.publish({"n": 1}, delay_s=60.0)
    bench.broker.publish({"n": 2})
    assert [delivery.event for delivery in inbox.wait_for(1)] == [{"n": 2}]


def test_a_delay_below_zero_is_none(bench):
    inbox = bench.connected()
    bench.broker.publish({"n": 1}, delay_s=-5.0)
    assert [delivery.event for delivery in inbox.wait_for(1)] == [{"n": 1}]


def test_what_is_published_from_many_threads_is_delivered_at_least_once(bench):
    inbox = bench.connected()

    def publish(thread):
        for n in range(5):
            bench.broker.publish({"n": thread * 10 + n})
            bench.broker.publish({"n": 100 + thread * 10 + n}, delay_s=0.01 * n)

    in_threads(4, publish)
    inbox.wait_for(40)
    assert inbox.numbers().keys() == {kind + 10 * t + n for kind in (0, 100) for t in range(4) for n in range(5)}


@pytest.mark.parametrize("delay_s", [pytest.param(0.0, id="at once"), pytest.param(0.02, id="delayed")])
def test_what_is_published_before_anybody_listens_is_kept(bench, delay_s):
    bench.broker.publish({"n": 1}, delay_s=delay_s)
    time.sleep(0.1)
    inbox = Inbox()
    bench.connect(inbox)
    inbox.wait_for(1)
    assert inbox.numbers() == {1: 1}


@pytest.mark.parametrize("delay_s", [pytest.param(0.0, id="at once"), pytest.param(0.02, id="delayed")])
def test_an_event_is_delivered_again_under_its_id_while_the_subscriber_says_retry(bench, delay_s):
    inbox = bench.connected()

    def twice_not_yet(delivery):
        if len(inbox.deliveries) < 3:
            raise NotYet("too early")

    inbox.answer = twice_not_yet
    bench.broker.publish({"n": 1}, delay_s=delay_s)
    deliveries = inbox.wait_for(3)
    assert [delivery.event for delivery in deliveries] == [{"n": 1}] * 3
    assert len({delivery.message_id for delivery in deliveries}) == 1
    assert len({delivery.publish_time for delivery in deliveries}) == 1


def test_an_event_that_is_put_off_holds_up_no_other(bench):
    inbox = bench.connected()

    def never_the_first(delivery):
        if delivery.event["n"] == 1 and len(inbox.numbers()) < 4:
            raise NotYet("after the others")

    inbox.answer = never_the_first
    for n in (1, 2, 3, 4):
        bench.broker.publish({"n": n})
    deadline = time.monotonic() + 60
    while len(inbox.numbers()) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert inbox.numbers().keys() == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="handled"),
        pytest.param(EventError("delivering again cannot help"), id="given up"),
    ],
)
def test_an_event_that_is_done_with_is_not_delivered_again(bench, answer):
    inbox = bench.connected()

    def answered(delivery):
        if answer is not None:
            raise answer

    inbox.answer = answered
    bench.broker.publish({"n": 1})
    bench.broker.publish({"n": 2}, delay_s=0.02)
    inbox.wait_for(2)
    time.sleep(SETTLED_S)
    assert inbox.numbers() == {1: 1, 2: 1}


def test_a_subscriber_may_publish(bench):
    inbox = bench.connected()

    def pass_on(delivery):
        if delivery.event["n"] < 3:
            bench.broker.publish({"n": delivery.event["n"] + 1}, delay_s=0.01 * (delivery.event["n"] % 2))

    inbox.answer = pass_on
    bench.broker.publish({"n": 0})
    inbox.wait_for(4)
    assert inbox.numbers() == {0: 1, 1: 1, 2: 1, 3: 1}
