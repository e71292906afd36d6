"""Parents and children, their instance killed before or after any one write or message: the same end, nothing twice."""

from collections import Counter, deque

import pytest

from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.messages import cancel_message
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.dag import DagTarget
from tests.support.world import NotedTarget, World, completion, dag, task

FAMILY = {
    "parent": {
        **dag(
            A=task("B"),
            B={"type": "Task", "target_type": "Dag", "target_name": "middle", "next": "C"},
            C=task(),
        )
    },
    "middle": {**dag(D={"type": "Task", "target_type": "Dag", "target_name": "kid", "parameters": {"x": 1}})},
    "kid": {**dag(E=task("F"), F=task()), "result": "${run.input.x}"},
}


class Killed(BaseException):
    """The instance is gone, in the middle of what it did."""


class Fuse:
    """Counts what an instance does to the world, and kills it once: before its n-th deed, or after it."""

    def __init__(self, number: int, *, is_after: bool) -> None:
        self.number, self.is_after = number, is_after
        self.deeds = 0

    def of(self, deed):
        self.deeds += 1
        if self.deeds == self.number and not self.is_after:
            raise Killed
        done = deed()
        if self.deeds == self.number and self.is_after:
            raise Killed
        return done


class FusedStore:
    """A store that kills who writes to it; records are written by a thread of their own, and can be rebuilt."""

    def __init__(self, fuse: Fuse) -> None:
        self._store, self._fuse = MemoryStore(), fuse

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, data, *, expect):
        if key.startswith("executions/"):
            return self._store.put(key, data, expect=expect)
        return self._fuse.of(lambda: self._store.put(key, data, expect=expect))

    def change(self, key, members, *, expect):
        return self._fuse.of(lambda: self._store.change(key, members, expect=expect))

    def delete(self, key):
        return self._fuse.of(lambda: self._store.delete(key))


class QuickTarget(NotedTarget):
    """Executions end at once, and say so; unless they are told to go on."""

    def __init__(self, publish, running=()):
        super().__init__(has_outcome=True, can_cancel=True)
        self._say, self._running = publish, running

    def launch(self, launch):
        is_new = launch.key not in self.launched
        execution = super().launch(launch)
        if is_new and launch.node_name not in self._running:
            self.outcomes[execution.execution_id] = Outcome.completed({"from": launch.node_name})
            self._say(completion(launch))
        return execution


class FusedWorld(World):
    """One instance at a time: who is killed is followed by another."""

    def __init__(self, fuse: Fuse, running=()):
        self.fuse, self.messages = fuse, deque()
        self.quick = QuickTarget(self.messages.append, running)
        store = FusedStore(fuse)
        targets = {"Function": self.quick}
        targets["Dag"] = DagTarget(
            store, self.publish, lambda *args: self.executor.make_child(*args), launch_limit_s=0.0
        )
        super().__init__(FAMILY, store=store, target=self.quick, targets=targets)
        self.broker.publish = self.publish
        self.kills = 0

    def publish(self, event, *, delay_s=0.0):
        return self.fuse.of(lambda: self.messages.append(event))

    def alive(self, deed) -> bool:
        """Do something; False where that was the end of the instance."""
        try:
            deed()
        except Killed:
            self.kills += 1
            self.instances = [self.instance()]
            return False
        return True

    def deliver(self, event) -> None:
        """Deliver a message until it is acknowledged or nothing comes of it."""
        number = next(self.ids)
        while not self.alive(lambda: self.hand_over(event, number)):
            pass

    def hand_over(self, event, number) -> None:
        try:
            self.executor.execute(event, message_id=f"m{number}", publish_time=self.clock.now())
        except OrchestratorError:
            assert event["resource"]["type"] == "function"  # of an attempt that is told of in time by the Tick

    def go_on(self) -> None:
        """Deliver all messages; where there is none, let time pass."""
        if self.messages:
            self.deliver(self.messages.popleft())
            return
        self.clock.forward(90.0)
        self.alive(lambda: self.executor.tick())

    def states(self):
        ids = [key[5:-5] for key in self.store.list("runs/")]
        return {state.run.run_id: state for state in (OrchestrationStatus(self.store, each).load()[0] for each in ids)}

    def finish(self):
        for _ in range(60):
            self.go_on()
            states = self.states()
            if states and not self.messages and all(state.run.status.is_final for state in states.values()):
                return states
        raise AssertionError({each.run.dag: each.run.status for each in self.states().values()})


START = {"resource": {"type": "start"}, "dag": "parent", "run_id": "mine"}


def whole_run(fuse):
    world = FusedWorld(fuse)
    world.deliver(START)
    return world, world.finish()


def deeds_of_a_whole_run() -> int:
    fuse = Fuse(0, is_after=False)
    whole_run(fuse)
    return fuse.deeds


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, deeds_of_a_whole_run() + 1))
def test_a_family_ends_the_same_whenever_its_instance_is_killed(number, is_after):
    world, states = whole_run(Fuse(number, is_after=is_after))
    assert world.kills == 1
    assert sorted(state.run.dag for state in states.values()) == ["kid", "middle", "parent"]
    assert {state.run.status for state in states.values()} == {RunStatus.COMPLETED}
    assert Counter(launch.node_name for launch in world.quick.launched.values()) == dict.fromkeys("ACEF", 1)
    assert states["mine"].nodes["B"].result == 1
    assert {(name, node.attempt) for state in states.values() for name, node in state.nodes.items()} == {
        (name, 1) for name in "ABCDEF"
    }


def cancelled_run(fuse):
    world = FusedWorld(fuse, running="E")
    world.deliver(START)
    while "E" not in world.quick.nodes:
        world.go_on()
    world.messages.append(cancel_message("mine", "wrong day"))
    return world, world.finish()


def deeds_of_a_cancelled_run() -> int:
    fuse = Fuse(0, is_after=False)
    cancelled_run(fuse)
    return fuse.deeds


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, deeds_of_a_cancelled_run() + 1))
def test_a_cancelled_family_is_cancelled_as_a_whole_whenever_its_instance_is_killed(number, is_after):
    world, states = cancelled_run(Fuse(number, is_after=is_after))
    assert sorted(state.run.dag for state in states.values()) == ["kid", "middle", "parent"]
    assert {state.run.status for state in states.values()} == {RunStatus.CANCELLED}
    assert len(set(world.quick.cancelled)) == 1
    assert Counter(launch.node_name for launch in world.quick.launched.values()) == {"A": 1, "E": 1}
