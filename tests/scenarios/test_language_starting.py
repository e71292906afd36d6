"""The examples of docs/language/starting.md."""

import json
import re
from pathlib import Path

from orchestrator.model.definition import problems
from tests.support.world import World

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "language" / "starting.md").read_text()
EXAMPLES = {
    name: json.loads(text)
    for name, text in re.findall(r"^<!-- example: (\w+) -->\n```json\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
}


def test_every_example_is_a_definition():
    assert [(name, problem) for name, each in EXAMPLES.items() for problem in problems(each)] == []
    assert len(EXAMPLES) == TEXT.count("```json")


def test_a_run_of_a_schedule_knows_for_when_it_is_and_a_missed_time_gets_its_run():
    world = World(EXAMPLES["schedule"])
    world.instances = [world.instance(start_missed=world.executor.execute)]
    world.executor.tick()  # Thursday, 1 January 2026, 12:00 UTC
    world.clock.forward(4 * 24 * 3600)
    ((_, time),) = world.executor.tick().started
    assert f"{time:%A %H:%M}" == "Monday 05:30"
    (run,) = [state.run for state in world.saved if state.run.status.is_final]
    assert (run.scheduled_for, world.state(run.run_id).nodes["Load"].result) == (time, "for 2026-01-05T05:30:00Z")


def test_an_object_or_a_message_starts_a_run_and_it_is_one_however_often_it_is_told_of():
    world = World(EXAMPLES["triggers"])
    an_object = {"resource": {"type": "object"}, "bucket": "landing", "name": "in/a.csv", "size": 12, "generation": "7"}
    late = {"resource": {"type": "message"}, "topic": "projects/my-project/topics/orders", "data": {"file": "b.csv"}}
    late["attributes"] = {"kind": "late"}
    for event in (an_object, late, late, an_object, {**an_object, "size": 0}, {**late, "attributes": {}}):
        world.executor.execute(event, message_id="m1", publish_time=world.clock.now())
    ended = [state for state in world.saved if state.run.status.is_final]
    assert [state.nodes["Load"].result for state in ended] == ["loaded gs://landing/in/a.csv", "loaded b.csv"]
