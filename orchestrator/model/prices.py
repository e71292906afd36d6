"""What Google asks for the operations that a run costs: a list of prices, and a sum over counted operations. Pure.

List prices in US dollars, of regions of the lowest tier (us-central1, us-east1, europe-west1, …), before any discount.
What is free each month up to a limit is not counted as free: it belongs to the whole billing account.
"""

from datetime import date

import msgspec

LOOKED_UP = date(2026, 11, 27)
"""When the prices below were last compared with copies of the pages that they name; look there before you budget."""

GIB = 2**30
TIB = 2**40

LEAST_MESSAGE = 1000
"""Bytes that each publish and each push counts as at the least (https://cloud.google.com/pubsub/pricing)."""

TASK_CHUNK = 32 * 1024
"""Bytes that one operation of Cloud Tasks covers; more of them are as many operations."""

LEAST_TIME_S = 0.1
"""What time is rounded up to (https://cloud.google.com/run/pricing)."""


class Price(msgspec.Struct, frozen=True):
    """So many dollars for so many of something."""

    usd: float
    of: float
    of_words: str
    unit: str
    source: str
    free_a_month: float = 0.0
    """How many of it are free each month, which is not counted here."""

    def of_count(self, count: float) -> float:
        """Dollars for so many."""
        return self.usd * count / self.of


_STORAGE = "https://cloud.google.com/storage/pricing"
_RUN = "https://cloud.google.com/run/pricing"

CLASS_A = Price(0.005, 1e3, "1,000", "writes and listings (class A)", _STORAGE, 5e3)
CLASS_B = Price(0.0004, 1e3, "1,000", "reads (class B)", _STORAGE, 50e3)
MESSAGES = Price(40.0, TIB, "TiB", "bytes in and out", "https://cloud.google.com/pubsub/pricing", 10 * GIB)
TASKS = Price(0.40, 1e6, "million", "operations", "https://cloud.google.com/tasks/docs/pricing", 1e6)
REQUESTS = Price(0.40, 1e6, "million", "requests to the orchestrator", _RUN, 2e6)
VCPU = Price(0.000024, 1.0, "one", "vCPU-seconds of the orchestrator", _RUN, 180e3)
MEMORY = Price(0.0000025, 1.0, "one", "GiB-seconds of the orchestrator", _RUN, 360e3)


class Operations(msgspec.Struct, frozen=True):
    """So many operations. Deleting an object is free, so nothing counts that."""

    class_a: float = 0.0
    class_b: float = 0.0
    message_bytes: float = 0.0
    """Billable ones: each message at least LEAST_MESSAGE, once in and once out."""
    task_operations: float = 0.0
    requests: float = 0.0
    vcpu_s: float = 0.0
    gib_s: float = 0.0

    def __add__(self, other: "Operations") -> "Operations":
        return Operations(*(getattr(self, name) + getattr(other, name) for name in self.__struct_fields__))

    def times(self, count: float) -> "Operations":
        """So many times as many."""
        return Operations(*(getattr(self, name) * count for name in self.__struct_fields__))


class Line(msgspec.Struct, frozen=True):
    """One line of a bill: what it is for, so many dollars, and what was counted."""

    name: str
    usd: float
    counted: tuple[tuple[float, Price], ...]


def bill(operations: Operations) -> tuple[Line, ...]:
    """Return what operations cost, a line for each service."""
    lines = (
        ("storage", ((operations.class_a, CLASS_A), (operations.class_b, CLASS_B))),
        ("Pub/Sub", ((operations.message_bytes, MESSAGES),)),
        ("Cloud Tasks", ((operations.task_operations, TASKS),)),
        ("requests", ((operations.requests, REQUESTS),)),
        ("time", ((operations.vcpu_s, VCPU), (operations.gib_s, MEMORY))),
    )
    return tuple(Line(name, sum(price.of_count(count) for count, price in counted), counted) for name, counted in lines)


def usd_of(operations: Operations) -> float:
    """Dollars for all of it."""
    return sum(line.usd for line in bill(operations))


def message(size_bytes: int) -> Operations:
    """A message of so many bytes with its attributes: published once, pushed once, and handled by a request."""
    return Operations(message_bytes=2.0 * max(size_bytes, LEAST_MESSAGE), requests=1.0)


def task(size_bytes: int = 0) -> Operations:
    """A task of Cloud Tasks of so many bytes: put in, carried out."""
    return Operations(task_operations=2.0 * max(1, -(-size_bytes // TASK_CHUNK)))


def work(seconds: float, vcpus: float, gib: float) -> Operations:
    """An instance of the orchestrator's function at work for so long."""
    return Operations(vcpu_s=seconds * vcpus, gib_s=seconds * gib)
