"""docs/language/queues.md, run: its examples, and its limits."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.engine.slot_keeper import MAX_LOOKED_AT
from orchestrator.model.definition import problems
from orchestrator.model.errors import EventError
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.grammar_of_runs import MAX_PRIORITY, MAX_SLOTS
from orchestrator.model.messages import start_message
from orchestrator.model.slots import MAX_WAITING, Place, Slots, changed
from orchestrator.runtime.executor import DAGExecutor
from orchestrator.runtime.settings import Settings
from orchestrator.testing.virtual_time import T0

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "language" / "queues.md").read_text()
EXAMPLES = {
    name: json.loads(text)
    for name, text in re.findall(r"<!-- example: (\w+) -->\n```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_valid_and_runs(name):
    assert problems(EXAMPLES[name]) == []
    assert len(EXAMPLES) == PAGE.count("```json")
    settings = Settings.read({"POOLS": "bigquery=5,api=2", "STATUS_BUCKET": "memory://"})
    with DAGExecutor(EXAMPLES, "memory://", settings=settings) as executor:
        runs = [executor.start(name) for _ in range(3)]
        ended = [executor.wait(run_id, 30).run for run_id in runs]
    assert [run.status for run in ended] == ["Completed"] * 3
    if name == "nightly":
        assert ended[0].ended_at <= ended[1].started_at <= ended[1].ended_at <= ended[2].started_at


def test_the_limits_are_those_that_the_page_says():
    text = PAGE.replace(",", "")
    for number in (MAX_SLOTS, MAX_PRIORITY, MAX_WAITING, MAX_LOOKED_AT):
        assert str(number) in text
    assert problems({**EXAMPLES["nightly"], "max_active_runs": MAX_SLOTS + 1}) == [
        "max_active_runs: is 1001; allowed: a whole number from 1 to 1000"
    ]
    with pytest.raises(EventError, match=r"start\.priority: is 101; allowed are -100 to 100"):
        EventFactory.create_from_event(start_message(priority=MAX_PRIORITY + 1))


def test_those_who_wait_behind_the_last_place_are_let_in_as_those_before_them_are():
    places = [Place(f"run{n}", f"ticket{n}", T0) for n in range(MAX_WAITING + 3)]
    slots = changed(Slots(), places, (), 1)
    assert (len(slots.held), len(slots.waiting)) == (1, MAX_WAITING)
    slots = changed(slots, places, [place.ticket for place in places[:-2]])  # as the Tick asks again for all
    assert [place.holder for place in slots.held + slots.waiting] == [f"run{MAX_WAITING + 1}", f"run{MAX_WAITING + 2}"]
