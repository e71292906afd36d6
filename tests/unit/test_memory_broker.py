"""The broker inside of one process: what is far away, and what cannot be kept."""

import threading
import time

from orchestrator.brokers import memory
from orchestrator.brokers.memory import MemoryBroker
from orchestrator.model.errors import EventError, StoreUnavailable
from orchestrator.runtime.clock import SystemClock

EVENT = {"resource": {"type": "tick"}}
FAR_S = 8000 * 365 * 86400.0
"""To the year 9999, which is as late as a date can be."""


def test_an_event_of_the_year_9999_holds_up_no_other():
    came = threading.Event()
    broker = MemoryBroker(SystemClock(), time.monotonic)
    broker.subscribe(lambda data, on_done, **_: came.set())
    broker.publish(EVENT, delay_s=FAR_S)
    broker.publish(EVENT, delay_s=0.2)
    assert came.wait(60)
    broker.close()


def test_an_event_that_can_be_neither_handled_nor_kept_comes_again(monkeypatch):
    monkeypatch.setattr(memory, "FIRST_BACKOFF_S", 0.001)
    kept, done, faults = [], threading.Event(), [StoreUnavailable("disk full")]

    def keep(event, message_id, error):
        if faults:
            raise faults.pop()
        kept.append(message_id)
        done.set()

    broker = MemoryBroker(SystemClock(), time.monotonic, keep)
    broker.subscribe(lambda data, on_done, **_: on_done(None, EventError("no good")))
    message_id = broker.publish(EVENT)
    assert done.wait(60)
    broker.close()
    assert kept == [message_id]
