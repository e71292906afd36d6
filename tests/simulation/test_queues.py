"""Many runs that share limits, several instances, kills between any two steps, lost and doubled events.

At no moment is more under way than the limits allow, and in the end everybody has had a turn.
"""

import os
import random
from contextlib import suppress
from datetime import datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import InputError, OrchestratorError
from orchestrator.model.messages import cancel_message, pause_message, redrive_message, resume_message, start_message
from orchestrator.model.slots import decode
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import Simulation, returns
from tests.support.world import NotedTarget, World, chain, completion, dag, parallel, task

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))

LIMITS = {"api": 2, "bigquery": 1}
RETRY = {"max_attempts": 2, "delay": "20s"}
DAGS = {
    "two": {**chain("A", "B"), "max_active_runs": 2},
    "one": {**dag(A=task("B", pool="api"), B=task(pool="bigquery", retry=RETRY)), "max_active_runs": 1},
    "wide": dag(
        P=parallel(*(dag(**{f"T{i}": task(pool="api", retry=RETRY, timeout="5m")}) for i in range(4)), next="E"),
        E=task(pool="bigquery"),
    ),
    "many": dag(
        M={
            "type": "Map",
            "items": [1, 2, 3],
            "max_concurrency": 2,
            "tolerated_failures": 1,
            "iterator": dag(L=task(pool="api", retry=RETRY, timeout="5m")),
        }
    ),
    "instant": {**dag(A={"type": "Pass", "result": 1}), "max_active_runs": 1},
}
POOL_OF = {("one", "A"): "api", ("one", "B"): "bigquery", ("wide", "E"): "bigquery"} | {
    **{("wide", f"T{i}"): "api" for i in range(4)},
    **{("many", f"L[{i}]"): "api" for i in range(3)},
}


class Killed(BaseException):
    """The instance is no more."""


class Mortal:
    """A store, or a broker, as one instance has it: it dies at one of its calls, before or after that is done."""

    def __init__(self, part: object, life: "Life", *names: str) -> None:
        self._part, self._life, self._names = part, life, names

    def __getattr__(self, name: str) -> object:
        call = getattr(self._part, name)
        if name not in self._names:
            return call

        def lived(*args: object, **kwargs: object) -> object:
            self._life.spend()
            found = call(*args, **kwargs)
            self._life.spend()
            return found

        return lived


class Life:
    """How many steps an instance has left."""

    left: int | None = None

    def spend(self) -> None:
        if self.left is None:
            return
        self.left -= 1
        if self.left <= 0:
            self.left = 0
            raise Killed


class Machinery(World):
    """A world of mortal instances, and the events that are under way in it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.lives: dict[DAGExecutor, Life] = {}
        super().__init__(
            DAGS, store=MemoryStore(), target=NotedTarget(has_outcome=True, can_cancel=True), instances=3, pools=LIMITS
        )
        self.pending: list[tuple[dict, str, datetime]] = []
        """(event, message id, publish time) that are delivered until they are acknowledged."""
        self.seen = self.messages = 0

    def instance(self, **parts: object) -> DAGExecutor:
        life = Life()
        store = Mortal(self.store, life, "get", "put", "delete", "list")
        made = super().instance(store=store, broker=Mortal(self.broker, life, "publish"), **parts)
        self.lives[made] = life
        return made

    def send(self, event: dict) -> None:
        self.messages += 1
        self.pending.append((event, f"m{self.messages}", self.clock.now()))

    def collect(self) -> None:
        """Take up what instances have published."""
        for event, _ in self.broker.published[self.seen :]:
            if event["resource"]["type"] == "slot":
                self.send(event)
        self.seen = len(self.broker.published)

    def on_some(self, do) -> None:
        """Have an instance do something; if it dies over it, there is another one in its place."""
        place = self.rng.randrange(len(self.instances))
        try:
            do(self.instances[place])
        except Killed:
            self.instances[place] = self.instance()
        except OrchestratorError as exc:
            if not exc.retry:
                raise
        self.collect()

    def deliver(self, number: int) -> None:
        message = event, message_id, published_at = self.pending[number]

        def handle(instance: DAGExecutor) -> None:
            with suppress(InputError):  # there was nothing to redrive
                instance.execute(event, message_id=message_id, publish_time=published_at)
            if self.rng.random() > 0.1:  # else it comes once more
                self.pending.remove(message)

        self.on_some(handle)

    def running(self) -> list:
        return [x for key, x in self.target.launched.items() if f"x-{key}" not in self.target.outcomes]

    def finish(self, launch, outcome: Outcome, *, told: bool) -> None:
        self.target.outcomes.setdefault(f"x-{launch.key}", outcome)
        if told:
            self.send(completion(launch))  # how it ended, the target is asked

    def runs(self):
        for key in self.store.list("runs/"):
            state = self.state(key.removeprefix("runs/").removesuffix(".json"))
            yield state

    def check(self) -> None:
        """What must hold after every step, for whoever looks."""
        at_targets = dict.fromkeys(LIMITS, 0)
        for launch in self.running():
            pool = POOL_OF.get((launch.dag, launch.node_name))
            if pool is not None:
                at_targets[pool] += 1
        for pool, running in at_targets.items():
            assert running <= LIMITS[pool], f"{running} run at once of {pool}"
        tickets: dict[str, set[str]] = {}
        for state in self.runs():
            most = DAGS[state.run.dag].get("max_active_runs")
            if most is not None and not state.run.status.is_final and not state.run.waits_for_slot:
                tickets.setdefault(f"dag/{state.run.dag}", set()).add(state.run.slot.ticket)
            for node in state.nodes.values():
                is_under_way = node.claim is not None or node.owed_cancel is not None
                if node.slot is not None and node.slot.is_held:
                    tickets.setdefault(node.slot.queue, set()).add(node.slot.ticket)
                assert not is_under_way or (state.run.dag, node.node_name) not in POOL_OF or node.slot.is_held
                if state.run.waits_for_slot:
                    assert node.status is not TaskStatus.RUNNING or not node.attempt
        for key in self.store.list("slots/"):
            slots = decode(self.store.get(key)[0], key)
            queue = key.removeprefix("slots/").removesuffix(".json")
            assert len(slots.held) <= slots.limit, key
            assert tickets.pop(queue, set()) <= {place.ticket for place in slots.held}, f"{key}: runs without a slot"
        assert tickets == {}


def step(world: Machinery) -> None:
    """Let something happen."""
    rng = world.rng
    match rng.choice(
        ["start", "deliver", "deliver", "deliver", "end", "end", "tick", "kill", "lose", "steer", "leave"]
    ):
        case "start" if len(list(world.store.list("runs/"))) < 14:
            world.send(start_message(rng.choice(list(DAGS)), priority=rng.choice([None, None, -5, 20])))
        case "deliver" if world.pending:
            world.deliver(rng.randrange(len(world.pending)))
        case "end" if running := world.running():
            outcome = rng.choice(
                [Outcome.completed(1), Outcome.completed(1), Outcome.failed("X", "x"), Outcome.lost("l")]
            )
            world.finish(rng.choice(running), outcome, told=rng.random() < 0.7)
        case "tick":
            world.clock.forward(rng.choice([1, 20, 66]))
            world.on_some(lambda instance: instance.tick())
        case "kill":
            rng.choice(list(world.lives.values())).left = rng.randint(1, 40)
        case "lose" if ours := [each for each in world.pending if each[0]["resource"]["type"] in ("slot", "function")]:
            world.pending.remove(rng.choice(ours))
        case "steer":
            runs = [state.run.run_id for state in world.runs()]
            message = rng.choice([cancel_message, *(pause_message, resume_message, redrive_message) * 2])
            if runs:
                world.send(message(rng.choice(runs)))
        case "leave":
            runs = [state.run.run_id for state in world.runs()]
            if runs:
                world.on_some(lambda instance: instance.leave_queues(rng.choice(runs)))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120))
def test_never_more_is_under_way_than_the_limits_allow_and_everybody_gets_through(seed, steps):
    world = Machinery(random.Random(seed))
    for _ in range(steps):
        step(world)
        world.check()
    for life in world.lives.values():
        life.left = None
    for name in DAGS:  # whoever comes last must not be kept out by what was left
        world.send(start_message(name))
    for _ in range(200):
        while world.pending:
            world.deliver(0)
            world.check()
        for state in world.runs():
            if state.run.status is RunStatus.PAUSED:
                world.clock.forward(1)
                world.send(resume_message(state.run.run_id))
        for launch in world.running():
            world.finish(launch, Outcome.completed(1), told=False)
        world.clock.forward(66)
        world.on_some(lambda instance: instance.tick())
        world.check()
        if not world.pending and all(state.run.status.is_final for state in world.runs()):
            break
    assert {state.run.run_id: state.run.status for state in world.runs() if not state.run.status.is_final} == {}
    for _ in range(3):
        world.clock.forward(66)
        world.on_some(lambda instance: instance.tick())
    assert list(world.store.list("open/")) == []
    waiting = [key for key in world.store.list("slots/") if decode(world.store.get(key)[0], key).waiting]
    assert waiting == []


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 3)), min_size=1, max_size=9))
def test_those_who_all_wait_begin_by_priority_then_as_they_came(most, runs):
    world = Simulation({**chain("A"), "max_active_runs": most}, default=returns(1).after("1h"))
    first = [world.start() for _ in range(most)]
    waiting = []
    for priority, gap_s in runs:
        world.forward(f"{gap_s}s")
        waiting.append(world.start(priority=priority))
    begun = {run_id: world.finish(run_id).state.run.started_at for run_id in waiting}
    expected = sorted(range(len(runs)), key=lambda number: -runs[number][0])
    order = [begun[waiting[number]] for number in expected]
    assert order == sorted(order)
    assert all(world.run(run_id).status is RunStatus.COMPLETED for run_id in first + waiting)
