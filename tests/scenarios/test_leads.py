"""Who leads a run while other threads wait: what an interrupted thread leaves, and what closing waits for."""

from threading import Event, Lock, Thread

import pytest

from orchestrator.engine.leading import Leader
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.model.commands import AskSlot, Notify, ReleaseSlot
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, World, chain, completion, dag, parallel, task


class Held(MemoryStore):
    """Each write of a run document waits for its turn, by the names of the nodes that it ends; two at once are told."""

    def __init__(self) -> None:
        super().__init__()
        self.gates: dict[str, tuple[Event, Event]] = {}
        self.kills: set[str] = set()
        self.at_once, self.most = 0, 0
        self._count = Lock()
        self.ended: set[str] = set()

    change = None

    def gate(self, name):
        self.gates[name] = (Event(), Event())
        return self.gates[name]

    def put(self, key, data, *, expect):
        if not key.startswith("runs/"):
            return super().put(key, data, expect=expect)
        with self._count:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            for name, (begun, go_on) in self.gates.items():
                if f'"of {name}"'.encode() in data and name not in self.ended:
                    begun.set()
                    assert go_on.wait(60)
                    self.ended.add(name)
                    if name in self.kills:
                        raise KeyboardInterrupt
            return super().put(key, data, expect=expect)
        finally:
            with self._count:
                self.at_once -= 1


def waits_for(is_so):
    for _ in range(10**7):
        if is_so():
            return
    raise AssertionError("it never came to that")


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_thread_that_was_handed_the_lead_and_is_interrupted_gives_it_away_once(is_killed):
    world = World(dag(P=parallel(*(chain(name) for name in "ABCD"))), store=Held())
    store = world.store
    run_id = world.start()
    box = world.executor._boxes.box(run_id)
    launches = {launch.node_name: launch for launch in world.target.calls}
    from orchestrator.model.commands import Outcome

    ended: dict[str, object] = {}

    def end(name):
        try:
            event = completion(launches[name], Outcome.completed(f"of {name}"))
            ended[name] = world.executor.execute(event, message_id=name).verdict
        except BaseException as exc:
            ended[name] = type(exc).__name__

    threads = {name: Thread(target=end, args=(name,)) for name in "ABCD"}
    gates = {name: store.gate(name) for name in "ABCD"}
    store.kills = {"B"} if is_killed else set()
    threads["A"].start()
    assert gates["A"][0].wait(60)
    threads["B"].start()
    waits_for(lambda: len(box._pending) == 1)
    gates["A"][1].set()
    assert gates["B"][0].wait(60), "B was handed the lead"
    threads["C"].start()
    waits_for(lambda: len(box._pending) == 1)
    gates["B"][1].set()
    threads["B"].join()
    assert gates["C"][0].wait(60), "C was handed the lead"
    threads["D"].start()
    waits_for(lambda: box._pending or gates["D"][0].is_set())
    assert not gates["D"][0].is_set(), "C leads still"
    gates["C"][1].set()
    gates["D"][1].set()
    for thread in threads.values():
        thread.join()
    assert ended == {**dict.fromkeys("ACD", "applied"), "B": "KeyboardInterrupt" if is_killed else "applied"}
    assert store.most == 1
    assert box.is_idle
    statuses = {name: node.status.value for name, node in world.state(run_id).nodes.items()}
    assert statuses["B"] == ("Running" if is_killed else "Completed")
    assert [statuses[name] for name in "ACD"] == ["Completed"] * 3


@pytest.mark.parametrize(
    ("commands", "waits"),
    [
        ([ReleaseSlot("q", "h", "t")], True),
        ([AskSlot("q", "t", T0, 0, 1, "dag", "run_1_x", "A", 1)], False),
        ([], False),
        ([Notify("run_1_x", "n", "me.1", T0, "t", None, {}), ReleaseSlot("q", "h", "t")], True),
    ],
)
def test_closing_waits_for_slots_that_are_given_back_and_for_nothing_else(commands, waits):
    begun, go_on, closed = Event(), Event(), Event()

    class Committer:
        def linger(self, box):
            pass

        def commit(self, box, batch):
            return tuple(commands), dict.fromkeys(batch, "applied")

    class Actor:
        blocks = waits = staticmethod(lambda commands: False)

        def act(self, box, commands, tell):
            begun.set()
            assert go_on.wait(60)
            return []

    leader = Leader(Committer(), Actor(), RunBoxes(MemoryStore(), 0.0))
    from orchestrator.engine.address import Known

    told = []
    leading = Thread(target=lambda: told.append(leader.handle(Known("run_1_x", ()))))
    leading.start()
    assert begun.wait(60)
    closing = Thread(target=lambda: (leader.close(), closed.set()))
    closing.start()
    if not waits:
        assert closed.wait(60), "there is nothing to wait for"
    else:
        waits_for(lambda: leader._given_back._waiters)
        assert not closed.is_set()
    go_on.set()
    leading.join()
    closing.join()
    assert (told[0].verdict, told[0].run_id, told[0].absorbed) == ("applied", "run_1_x", 1)
    leader.close()


def test_of_several_events_in_one_save_the_one_whose_thread_leads_tells_of_all():
    world = World(dag(P={**parallel(chain("A"), chain("B")), "next": "Z"}, Z=task()))
    run_id = world.start()
    a, b = (completion(launch) for launch in world.target.calls)
    told = []
    world.executor.deliver(a, lambda handled, error: told.append((handled, error)), message_id="a")
    handled = world.executor.execute(b, message_id="b")
    assert told[0][0].launches == ()
    assert (handled.verdict, handled.run_id, handled.absorbed, handled.launches) == (
        "applied", run_id, 1, (f"{run_id}/Z/1",))  # fmt: skip
    again = world.executor.execute(b, message_id="b")
    assert (again.verdict, again.absorbed, again.launches) == ("unchanged", 1, ())
