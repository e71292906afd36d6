"""What runs cost: by operations counted around the real engine, and as it is estimated from the run document."""

import random

import pytest

from orchestrator.model.prices import Operations, bill, message, task, usd_of, work
from orchestrator.model.run_cost import operations_of
from tests.support.billed import Billed
from tests.support.world import dag

AIM_USD = 0.015
"""For 1,000 tasks, with nothing of what is free each month."""

ESTIMATE = 0.25
"""So much of the counted cost the estimate from the document may be off, as docs/deploy.md says."""


def function(name, next_step=None, **keys):
    step = {"type": "Task", "target_type": "CloudFunction", "target_name": name, **keys}
    return step | ({"next": next_step} if next_step else {})


def chain_of(length):
    names = [f"S{number}" for number in range(length)]
    following = [*names[1:], None]
    return dag(**{name: function(name.lower(), after) for name, after in zip(names, following, strict=True)})


def fan_out_of(width):
    branches = [{"start": f"S{number}", "steps": {f"S{number}": function(f"s{number}")}} for number in range(width)]
    return dag(All={"type": "Parallel", "branches": branches})


def map_of(items, at_once):
    iterator = {"start": "Do", "steps": {"Do": function("do")}}
    every = {"type": "Map", "items": list(range(items)), "iterator": iterator, "max_concurrency": at_once}
    return dag(All=every)


def diamond(length):
    names = [f"S{number}" for number in range(length)]
    branches = [{"start": name, "steps": {name: function(name.lower())}} for name in names]
    return dag(
        First=function("first", "All"),
        All={"type": "Parallel", "branches": branches, "next": "Last"},
        Last=function("l"),
    )


def two_seconds(_):
    return 2.0


def one_to_ten_seconds(name):
    return random.Random(name).uniform(1.0, 10.0)


def five_minutes(_):
    return 300.0


SHAPES = {
    "a chain of 100": (chain_of(100), 100, two_seconds, AIM_USD),
    "a chain of 100 that take no time": (chain_of(100), 100, lambda _: 0.0, AIM_USD),
    "a chain of 10": (chain_of(10), 10, two_seconds, AIM_USD),
    "a fan-out of 100": (fan_out_of(100), 100, one_to_ten_seconds, AIM_USD),
    "a fan-out of 100 that end at once": (fan_out_of(100), 100, two_seconds, AIM_USD),
    "a Map of 100 items": (map_of(100, 100), 100, one_to_ten_seconds, AIM_USD),
    "one, twenty, one": (diamond(20), 22, one_to_ten_seconds, AIM_USD),
    "a Map of 100 items, ten at once": (map_of(100, 10), 100, one_to_ten_seconds, AIM_USD),
    # The Tick looks after them each minute: docs/deploy.md says what that costs.
    "a chain of 10 of five minutes each": (chain_of(10), 10, five_minutes, 0.03),
}
"""Definition, Tasks, how long a function takes, and what 1,000 such Tasks may cost."""


@pytest.fixture(scope="module", params=SHAPES)
def shape(request):
    definition, tasks, lasts, limit_usd = SHAPES[request.param]
    billed = Billed(definition, lasts)
    state = billed.run()
    assert state.run.status == "Completed"
    return billed, state, tasks, limit_usd


def test_what_a_thousand_tasks_cost(shape):
    billed, _, tasks, limit_usd = shape
    lines = {line.name: round(line.usd * 1000 / tasks, 5) for line in bill(billed.operations)}
    assert usd_of(billed.operations) * 1000 / tasks <= limit_usd, lines


def test_the_estimate_from_the_document_is_near_what_was_counted(shape):
    billed, state, _, _ = shape
    counted, estimated = billed.operations, operations_of(state, billed.clock.now())
    assert usd_of(estimated) == pytest.approx(usd_of(counted), rel=ESTIMATE), (counted, estimated)
    # What stands in the document is no guess.
    assert (estimated.message_bytes, estimated.requests) == (counted.message_bytes, counted.requests)
    assert estimated.task_operations == counted.task_operations
    assert estimated.class_a == pytest.approx(counted.class_a, rel=0.1, abs=1)


def test_a_bill_has_a_line_for_each_service_and_adds_up():
    counted = Operations(1000, 1000, 2.0**40, 1e6, 1e6, 1.0, 1.0)
    assert [(line.name, round(line.usd, 7)) for line in bill(counted)] == [
        ("storage", 0.0054),
        ("Pub/Sub", 40.0),
        ("Cloud Tasks", 0.4),
        ("requests", 0.4),
        ("time", 0.0000265),
    ]
    assert usd_of(counted) == pytest.approx(sum(line.usd for line in bill(counted)))


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        pytest.param(message(10), Operations(message_bytes=2000, requests=1), id="a message counts as 1,000 bytes"),
        pytest.param(message(5000), Operations(message_bytes=10_000, requests=1), id="a large one"),
        pytest.param(task(10), Operations(task_operations=2), id="a task is put in and carried out"),
        pytest.param(task(32 * 1024 + 1), Operations(task_operations=4), id="by pieces of 32 KB"),
        pytest.param(work(2.0, 1.0, 0.5), Operations(vcpu_s=2.0, gib_s=1.0), id="time, of CPU and memory"),
        pytest.param(Operations(1, 2) + Operations(3, 4).times(2), Operations(7, 10), id="sums"),
    ],
)
def test_operations(counted, expected):
    assert counted == expected
