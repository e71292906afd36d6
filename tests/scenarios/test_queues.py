"""What shares a limit: runs of a DAG with max_active_runs, Tasks of a pool; who waits, who is next, who gives way."""

from datetime import timedelta
from threading import Event, Thread

import pytest

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.pruning import Pruner
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.messages import cancel_message, pause_message, resume_message
from orchestrator.model.policy import Policy
from orchestrator.model.slots import Slots, decode, encode
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import Faults, Simulation, fails, in_turn, returns, simulate
from tests.support.world import World, chain, dag, parallel, task

ONE = {**chain("A"), "max_active_runs": 1}
MINUTE = timedelta(minutes=1)


def pooled(count: int, **keys) -> dict:
    """A definition of so many Tasks of one pool, side by side."""
    return dag(P=parallel(*(dag(**{f"T{n}": task(pool="api", **keys)}) for n in range(count))))


def simulated(definition, **parts) -> Simulation:
    return Simulation(definition, default=returns(1).after("1m"), **{"pools": {"api": 1}, **parts})


def began(world: Simulation, run_ids: list[str]) -> list[float]:
    """Minutes after the first moment at which runs began."""
    starts = [world.finish(run_id).state.run.started_at for run_id in run_ids]
    return [(at - min(starts)) / MINUTE for at in starts]


def started_after(world: Simulation, duration: str) -> str:
    world.forward(duration)
    return world.start()


def launched(world: Simulation, run_id: str) -> list[str]:
    return [launch.node_name for launch in world.run(run_id).all_launches]


def slots(store, queue: str):
    return decode(store.get(f"slots/{queue}.json")[0], queue)


# -- runs ------------------------------------------------------------------------------------------------


def test_runs_beyond_the_limit_wait_in_the_order_in_which_they_came():
    world = simulated({**ONE, "max_active_runs": 2})
    runs = [world.start() for _ in range(5)]
    assert [world.run(run_id).status for run_id in runs] == ["Running", "Running", "Queued", "Queued", "Queued"]
    assert began(world, runs) == [0, 0, 1, 1, 2]
    world.forward("2m")
    assert list(world.store.list("open/")) == []
    assert slots(world.store, "dag/dag").held == slots(world.store, "dag/dag").waiting == ()


def test_the_highest_priority_is_next_then_who_came_first():
    world = simulated({**ONE, "priority": 5})
    runs = [world.start(priority=priority) for priority in (None, None, -100, 100, 5)]
    assert began(world, runs) == [0, 2, 4, 1, 3]
    assert [world.run(run_id).state.run.priority for run_id in runs] == [5, 5, -100, 100, 5]


def test_a_start_that_comes_again_does_not_wait_twice():
    world = World(ONE)
    world.start("m1")
    queued = world.start("m2")
    assert world.start("m2") == queued
    assert len(slots(world.store, "dag/dag").waiting) == 1


def test_a_queued_run_that_is_cancelled_ends_at_once_with_nothing_started():
    last = {"start": "Z", "steps": {"Z": {"type": "Pass", "result": 1}}}
    notify = [{"on": ["started", "cancelled"], "topic": "projects/p/topics/told"}]
    world = simulated({**ONE, "finally": last, "notify": notify})
    first, second = world.start(), world.start()
    world.cancel(second, "not needed")
    world.forward("1s")
    run = world.run(second)
    assert (run.status, run.error.message) == ("Cancelled", "not needed")
    assert {node.status for node in run.state.nodes.values()} == {TaskStatus.SKIPPED}
    assert [each.payload["event"] for each in run.notifications] == ["cancelled"]
    assert slots(world.store, "dag/dag").waiting == ()
    assert world.finish(first).status == "Completed"


def test_started_is_told_when_a_run_begins_and_not_when_it_is_queued():
    notify = [{"on": ["started"], "topic": "projects/p/topics/told"}]
    world = simulated({**ONE, "notify": notify})
    first, second = world.start(), world.start()
    assert [each.run_id for each in world.notifications] == [first]
    world.forward("61s")
    assert [each.run_id for each in world.notifications] == [first, second]


def test_a_queued_run_that_is_paused_lets_others_pass_and_comes_back_to_its_place():
    world = simulated(ONE)
    first, second, third, fourth = (started_after(world, "1s") for _ in range(4))
    world.pause(second)
    world.forward("1s")
    assert world.run(second).status == "Paused"
    assert len(slots(world.store, "dag/dag").waiting) == 2
    world.forward("60s")  # the first has ended
    assert [world.run(run_id).status for run_id in (second, third, fourth)] == ["Paused", "Running", "Queued"]
    world.resume(second)
    world.forward("1s")
    assert world.run(second).status == "Queued"
    assert [round(at) for at in began(world, [first, second, third, fourth])] == [0, 2, 1, 3]


def test_the_time_of_a_run_counts_from_when_it_begins():
    world = simulated({**chain("A", "B"), "max_active_runs": 1, "timeout": "150s"})
    first, second = world.start(), world.start()
    assert world.run(second).state.run.timeout_at is None
    assert [world.finish(run_id).status for run_id in (first, second)] == ["Completed", "Completed"]
    run = world.run(second).state.run
    assert (run.started_at - run.queued_at, run.ended_at - run.started_at) == (2 * MINUTE, 2 * MINUTE)


@pytest.mark.parametrize(("most", "expected"), [(3, 3), (None, 5), (1, 1)])
def test_the_limit_that_is_deployed_counts_for_runs_that_wait_already(most, expected):
    world = World({**ONE, "max_active_runs": 2})
    runs = [world.start(f"m{n}") for n in range(5)]
    changed = {**chain("A"), **({"max_active_runs": most} if most else {})}
    world.catalog = Catalog.of(changed)
    redeployed = world.instance()
    world.instances = [redeployed]
    if most == 1:
        world.end("A")
    else:
        redeployed.tick()
        for event, _ in world.broker.published:
            redeployed.execute(event)
    running = [world.state(run_id).run.status for run_id in runs].count(RunStatus.RUNNING)
    assert running == expected


def test_an_instance_that_does_not_know_the_dag_keeps_to_the_limit_that_was_told_last():
    world = World({**ONE, "max_active_runs": 2})
    runs = [world.start(f"m{n}") for n in range(3)]
    world.catalog = Catalog({})
    world.instances = [world.instance()]
    world.executor.tick()
    assert [world.state(run_id).run.status for run_id in runs] == ["Running", "Running", "Queued"]


@pytest.mark.parametrize(
    ("definition", "queue", "expected"), [({**ONE, "max_active_runs": 2}, "dag/dag", 2), (pooled(3), "pool/api", 1)]
)
def test_what_was_killed_before_it_asked_is_let_in_by_an_instance_that_knows_no_limit(definition, queue, expected):
    world = World(definition, pools={"api": 2})
    for number in range(3):
        world.start(f"m{number}")
    world.store.delete(f"slots/{queue}.json")
    for run_id in list(world.store.list("runs/")):  # as if nobody had got to asking
        found = world.store.get(run_id)
        world.store.put(run_id, found[0].replace(b',"held":true', b""), expect=found[1])
    world.catalog, world.policy = Catalog({}), Policy(world.policy.targets)
    world.instance().tick()
    assert (slots(world.store, queue).limit, len(slots(world.store, queue).held)) == (expected, expected)


def test_a_lost_message_costs_a_tick_and_not_the_turn():
    world = simulated(ONE, faults=Faults(lost=1.0), without_outcome=[])
    runs = [world.start() for _ in range(3)]
    assert all(minutes <= 5 * n for n, minutes in enumerate(began(world, runs)))


def test_a_redriven_run_waits_for_its_turn_again():
    definition = {**chain("A", "B"), "max_active_runs": 1}
    world = simulated(definition, targets={"B": in_turn(fails(), returns(1).after("1m"))})
    first = world.start()
    assert world.finish(first).status == "Failed"
    second = world.start()
    world.redrive(first)
    world.forward("1s")
    assert [world.run(run_id).status for run_id in (first, second)] == ["Queued", "Running"]
    assert [each.node for each in world.run(first).state.run.held] == ["B"]
    assert [world.finish(run_id).status for run_id in (second, first)] == ["Failed", "Completed"]
    assert launched(world, first) == ["A", "B", "B"]
    assert world.run(first).state.run.started_at < world.run(second).state.run.started_at
    assert world.run(first).state.run.ended_at - world.run(second).state.run.ended_at == MINUTE
    assert slots(world.store, "dag/dag").held == ()


@pytest.mark.parametrize("is_paused", [False, True])
def test_a_redriven_run_that_waits_for_its_turn_is_cancelled_at_once(is_paused):
    branches = parallel(chain("A"), chain("B"))
    last = {"start": "Z", "steps": {"Z": {"type": "Pass", "result": 1}}}
    definition = {**dag(P=branches), "max_active_runs": 1, "finally": last}
    world = simulated(definition, targets={"B": fails()})
    first = world.start()
    assert world.finish(first).status == "Failed"
    second = world.start()
    world.forward("1s")
    world.redrive(first)
    world.forward("1s")
    if is_paused:
        world.pause(first)
        world.forward("1s")
    world.cancel(first)
    world.forward("1s")
    run = world.run(first)
    assert (run.status, run.node("B").status, run.state.run.held) == ("Cancelled", "Cancelled", ())
    assert launched(world, first) == ["A", "B"]
    assert slots(world.store, "dag/dag").waiting == ()
    assert world.finish(second).status == "Failed"


# -- pools -----------------------------------------------------------------------------------------------


def test_tasks_of_one_pool_wait_for_each_other_across_runs_and_dags():
    world = simulated({"x": pooled(2), "y": pooled(1)}, pools={"api": 2})
    one, other = world.start(dag="x"), world.start(dag="y")
    assert (launched(world, one), launched(world, other)) == (["T0", "T1"], [])
    waits = world.run(other).node("T0")
    assert (waits.status, waits.attempt, waits.claim, waits.due) == (TaskStatus.RUNNING, 1, None, {})
    world.forward("61s")
    assert launched(world, other) == ["T0"]
    assert world.finish(other).status == "Completed"
    assert slots(world.store, "pool/api").held == ()


def test_a_run_of_higher_priority_is_next_in_a_pool():
    world = simulated({**pooled(2), "priority": 1})
    low, high = world.start(priority=0), world.start()
    world.forward("61s")
    assert (launched(world, low), launched(world, high)) == (["T0"], ["T0"])
    assert [world.finish(run_id).status for run_id in (low, high)] == ["Completed", "Completed"]
    assert world.run(high).state.run.ended_at < world.run(low).state.run.ended_at


def test_a_task_that_waits_for_a_slot_is_not_timed_out():
    run = simulate(pooled(4, timeout="90s"), default=returns(1).after("1m"), pools={"api": 1})
    assert {node.status for node in run.state.nodes.values()} == {TaskStatus.COMPLETED}
    assert run.state.run.ended_at - run.state.run.started_at == 4 * MINUTE


def test_a_retry_that_is_waited_for_gives_its_slot_back():
    world = simulated(
        pooled(2, retry={"delay": "10m"}), targets={"T0": in_turn(fails().after("1m"), returns(1).after("1m"))}
    )
    run_id = world.start()
    world.forward("90s")
    assert world.run(run_id).node("T0").slot is None
    assert launched(world, run_id) == ["T0", "T1"]
    world.forward("1m")
    assert slots(world.store, "pool/api").held == ()
    assert world.finish(run_id).status == "Completed"


def test_what_waits_for_a_slot_is_cancelled_at_once():
    world = simulated(pooled(3), cannot_be_cancelled=["Function"])
    run_id = world.start()
    world.cancel(run_id)
    world.forward("1s")
    assert [world.run(run_id).node(f"T{n}").status for n in range(3)] == ["Running", "Cancelled", "Cancelled"]
    assert len(slots(world.store, "pool/api").held) == 1
    assert world.finish(run_id).status == "Cancelled"
    assert launched(world, run_id) == ["T0"]


def test_a_slot_is_held_until_what_is_to_be_cancelled_has_been():
    world = simulated(pooled(1), targets={"T0": returns(1).after("30m").hard_to_cancel(3)}, cannot_be_cancelled=[])
    one, other = world.start(), world.start()
    world.cancel(one)
    world.forward("30s")
    assert world.run(one).node("T0").owed_cancel is not None
    assert launched(world, other) == []
    world.forward("10m")
    assert world.run(one).status == "Cancelled"
    assert launched(world, other) == ["T0"]


def test_a_paused_run_gives_its_place_up_and_comes_back_to_it():
    world = simulated(pooled(2))
    one, other = (started_after(world, "1s") for _ in range(2))
    world.pause(one)
    world.forward("1s")
    assert len(slots(world.store, "pool/api").waiting) == 2
    world.forward("61s")
    assert (launched(world, one), launched(world, other)) == (["T0"], ["T0"])
    world.resume(one)
    world.forward("61s")
    assert (launched(world, one), launched(world, other)) == (["T0", "T1"], ["T0"])
    assert [world.finish(run_id).status for run_id in (one, other)] == ["Completed", "Completed"]


def test_a_pool_without_a_limit_is_refused_with_what_there_is():
    world = World(pooled(1), pools={"bigquery": 5})
    state = world.state(world.start())
    assert state.nodes["T0"].error.error_type == "Launch.NoPool"
    assert state.nodes["T0"].error.message == (
        'T0: the pool "api" has no limit here; those that have one are bigquery; set it in POOLS, as in api=5'
    )
    assert (state.run.status, state.nodes["T0"].slot) == (RunStatus.FAILED, None)


def test_an_event_that_does_not_know_the_ticket_lets_nobody_in():
    world = World(ONE)
    world.start("m1")
    queued = world.start("m2")
    told = {"resource": {"type": "slot"}, "run_id": queued, "queue": "dag/dag", "ticket": "f" * 32}
    assert world.executor.execute(told).verdict == "unchanged"
    assert world.state(queued).run.status is RunStatus.QUEUED
    assert len(slots(world.store, "dag/dag").waiting) == 1


def test_a_slot_that_is_granted_to_who_has_ended_is_given_back_by_who_is_told():
    world = World(ONE, instances=2)
    world.start("m1")
    queued = world.start("m2")
    place = slots(world.store, "dag/dag").waiting[0]
    world.executor.execute(cancel_message(queued))
    found = world.store.get("slots/dag/dag.json")
    world.store.put(
        "slots/dag/dag.json", found[0].replace(b'"waiting": []', b'"waiting": [%s]' % _json(place)), expect=found[1]
    )
    world.instances[1].tick()
    world.end("A", on=1)
    told = world.broker.published[-1][0]
    assert (told["run_id"], told["ticket"]) == (queued, place.ticket)
    world.instances[1].execute(told)
    assert slots(world.store, "dag/dag").held == ()


def test_pruning_takes_from_queues_what_its_runs_hold_there():
    world = World(ONE)
    first = world.start("m1")
    stale = slots(world.store, "dag/dag").held[0]
    second = world.start("m2")
    world.end("A")
    world.executor.tick()
    waiting = slots(world.store, "dag/dag")
    assert [place.run_id for place in waiting.held] == [second]
    spoilt = Slots(1, (stale,), waiting.held)  # as if the slot of the first had not been given back
    world.store.put("slots/dag/dag.json", encode(spoilt), expect=world.store.get("slots/dag/dag.json")[1])
    now = world.clock.now() + timedelta(hours=2)
    dry = Pruner(world.store, now, 3600.0, lambda run: True, is_all=True, is_dry=True).prune()
    assert (dry.runs, slots(world.store, "dag/dag")) == ([first], spoilt)
    pruned = Pruner(world.store, now, 3600.0, lambda run: True, is_all=True).prune()
    assert (pruned.runs, pruned.problems) == ([first], [])
    assert slots(world.store, "dag/dag") == Slots(1, waiting.held, ())


def test_a_child_run_takes_no_slot_of_its_dag_for_it_is_a_part_of_its_parent():
    call = {"type": "Task", "target_type": "Dag", "target_name": "child"}
    world = simulated({"parent": dag(A=call), "child": ONE})
    parents = [world.start(dag="parent") for _ in range(2)]
    assert began(world, parents) == [0, 0]
    assert {run.state.run.ended_at - run.state.run.started_at for run in world.runs} == {MINUTE}
    assert list(world.store.list("slots/")) == []


CALLS = {
    "a child run": {"type": "Task", "target_type": "Dag", "target_name": "child"},
    "parts of a Map": {"type": "Map", "items": [*range(101)], "iterator": dag(Load=task(pool="api"))},
}


@pytest.mark.parametrize("call", [pytest.param(step, id=name) for name, step in CALLS.items()])
def test_what_a_run_launches_as_runs_is_as_urgent_as_itself(call):
    world = simulated({"parent": dag(A=call), "child": {**dag(Load=task(pool="api")), "priority": -50}})
    run_id = world.start(dag="parent", priority=30)
    world.forward("10s")
    assert {run.state.run.priority for run in world.runs} == {30}
    assert len(world.runs) > 1
    world.finish(run_id)


def _json(place) -> bytes:
    import msgspec

    return msgspec.json.encode(place)


def test_runs_that_share_no_limit_leave_no_slots():
    world = simulated(chain("A", "B"))
    assert world.finish(world.start()).status == "Completed"
    assert list(world.store.list("slots/")) == []


def test_pause_from_outside_gives_places_up_at_the_next_tick():
    """As the command line does it in a directory: the document is changed, and whoever runs the run sees that."""
    from orchestrator.engine.pausing import paused
    from orchestrator.engine.status import OrchestrationStatus
    from orchestrator.model.run_state import RunState

    world = World(ONE)
    world.start("m1")
    queued = world.start("m2")
    status = OrchestrationStatus(world.store, queued)
    state, version = status.load()
    status.save(RunState(paused(state.run, world.clock.now()), state.nodes), expect=version)
    world.executor.tick()
    assert slots(world.store, "dag/dag").waiting == ()
    world.executor.execute(pause_message(queued))
    world.clock.forward(1)
    world.executor.execute(resume_message(queued), publish_time=world.clock.now())
    assert world.state(queued).run.status is RunStatus.QUEUED
    assert len(slots(world.store, "dag/dag").waiting) == 1


def test_items_of_a_map_share_a_pool():
    iterator = dag(Load=task(pool="api"))
    world = simulated(dag(Each={"type": "Map", "items": [1, 2, 3, 4], "iterator": iterator}), pools={"api": 2})
    run_id = world.start()
    assert launched(world, run_id) == ["Load[0]", "Load[1]"]
    assert [place.holder for place in slots(world.store, "pool/api").waiting] == [
        f"{run_id}/Load[2]/1",
        f"{run_id}/Load[3]/1",
    ]
    run = world.finish(run_id)
    assert (run.status, run.state.run.ended_at - run.state.run.started_at) == ("Completed", 2 * MINUTE)


def test_parts_of_a_map_share_a_pool_and_take_no_slot_of_their_dag():
    each = {"type": "Map", "items": [*range(120)], "max_concurrency": 1000, "iterator": dag(Load=task(pool="api"))}
    world = simulated({**dag(Each=each), "max_active_runs": 1}, pools={"api": 40})
    run = world.finish(world.start())
    assert run.status == "Completed"
    assert run.state.run.ended_at - run.state.run.started_at == 3 * MINUTE
    assert len([launch for part in world.runs for launch in part.all_launches if launch.node_name != "Each"]) >= 120
    assert slots(world.store, "pool/api").held == slots(world.store, "dag/dag").held == ()


class SlowQueue(MemoryStore):
    """From a time on, its writes of one queue wait until they may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.slow, self.arrived, self.may_go_on = "", Event(), Event()

    def put(self, key, data, *, expect):
        if key == self.slow:
            self.arrived.set()
            assert self.may_go_on.wait(10)
        return super().put(key, data, expect=expect)


def test_closing_waits_for_every_slot_that_is_being_given_back_of_two_of_one_run_for_the_slower_one_too():
    store = SlowQueue()
    two = dag(P=parallel(dag(A=task(pool="slow")), dag(B=task(pool="quick"))))
    world = World(two, store=store, pools={"slow": 1, "quick": 1})
    world.start()
    store.slow = "slots/pool/slow.json"
    ending = Thread(target=world.end, args=("A",))
    ending.start()
    assert store.arrived.wait(10)
    world.end("B")
    given_back = world.executor._leader._given_back
    wait = given_back.wait

    def goes_on_when_waited_for(timeout_s):
        store.may_go_on.set()
        return wait(timeout_s)

    given_back.wait = goes_on_when_waited_for
    world.executor.close()
    held = [slots(store, f"pool/{pool}").held for pool in ("slow", "quick")]
    store.may_go_on.set()
    ending.join(10)
    assert held == [(), ()]
