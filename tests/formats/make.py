"""Write the buckets of a new stage, with the code as it is: `python -m tests.formats.make tests/formats/v1/complete`.

It made `v1/complete`. For what comes after it, write other scenarios and name another folder: what is there stays.
"""

import sys
from pathlib import Path

from orchestrator.model.commands import Outcome
from orchestrator.model.messages import redrive_message
from orchestrator.targets.dag import DagTarget
from tests.support.world import NotedTarget, World, chain, dag, task

FAILED = Outcome.failed("Task.Failed", "no such table")


def mapping() -> World:
    """A Map of three items, two at once: one ended, one at its second step, one that has not begun."""
    step = {
        "type": "Map",
        "items": ["a", "b", "c"],
        "max_concurrency": 1,
        "iterator": dag(
            First=task("Second", parameters={"of": "${item}"}), Second=task(parameters={"number": "${index}"})
        ),
        "next": "Report",
    }
    world = World(dag(Each=step, Report={"type": "Pass", "result": "${steps.Each.result}"}))
    world.start(run_id="mapping")
    for node_name in ("First[0]", "Second[0]", "First[1]"):
        world.end(node_name)
    return world


def depending() -> World:
    """Steps that depend on others: one waits for two of which one has ended."""
    steps = {
        "A": task(),
        "B": task(),
        "C": task(depends_on=["A", "B"]),
        "D": task(depends_on=["B"], trigger="one_failed"),
    }
    world = World({"steps": steps})
    world.start(run_id="depending")
    world.end("A")
    return world


def queued() -> World:
    """Two runs of a DAG that has one at once: one holds the slot, the other waits for it."""
    world = World({**chain("A"), "max_active_runs": 1})
    world.start("m1", run_id="holding")
    world.start("m2", run_id="queued")
    return world


def redriven() -> World:
    """A run that failed, and was redriven from where it did."""
    world = World(chain("A", "B", "C"))
    world.start(run_id="redriven")
    world.end("A")
    world.end("B", FAILED)
    world.clock.forward(1)
    world.executor.execute(redrive_message("redriven"), message_id="r", publish_time=world.clock.now())
    return world


def parent() -> World:
    """A run with a child run that has begun; neither has ended."""
    child = {"type": "Task", "target_type": "Dag", "target_name": "kid", "parameters": {"x": 7}, "next": "After"}
    world = World(
        {"top": dag(Child=child, After=task(parameters={"got": "${steps.Child.result}"})), "kid": chain("Work")}
    )
    target = NotedTarget()
    targets = {"Function": target}
    executor = world.instance(targets=targets)
    targets["Dag"] = DagTarget(world.store, world.broker.publish, executor.make_child)
    world.instances, world.target = [executor], target
    world.start(dag="top", run_id="parent")
    for message, _ in world.broker.published:
        executor.execute(message, message_id="begin", publish_time=world.clock.now())
    return world


SCENARIOS = (mapping, depending, queued, redriven, parent)


def main(folder: Path) -> None:
    """Write a bucket for each scenario."""
    for make in SCENARIOS:
        store = make().store
        for key in store.list(""):
            path = folder / make.__name__ / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(store.get(key)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
