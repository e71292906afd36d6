"""How often a queue's object is written again that others write too, how long is waited, and what is read."""

import pytest

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.slot_keeper import MAX_FAULTS, MAX_SAVES, SlotKeeper
from orchestrator.model.commands import ReleaseSlot
from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.model.policy import Policy
from orchestrator.model.slots import decode
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import VirtualClock
from tests.support.world import KeptBroker, chain
from tests.unit.test_slot_keeper import KEY, ask


class Answering(MemoryStore):
    """Answers the next writes with an error each; notes reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Exception] = []
        self.calls = ""

    def get(self, key):
        self.calls += "r"
        return super().get(key)

    def put(self, key, data, *, expect):
        self.calls += "w"
        if self.answers:
            raise self.answers.pop(0)
        return super().put(key, data, expect=expect)

    def taken(self):
        calls, self.calls = self.calls, ""
        return calls


class Bench:
    def __init__(self, interval_s=0.0, catalog=None) -> None:
        self.store, self.clock, self.broker, self.slept = Answering(), VirtualClock(), KeptBroker(), []
        self.keeper = SlotKeeper(
            self.store, Catalog(catalog or {}), self.broker, self.clock, Policy(save_interval_s=interval_s), self.sleep,
            lambda: 0.5, lambda _: True)  # fmt: skip

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.clock.forward(seconds)

    def change(self, *numbers, releases=(), limit=99):
        return self.keeper.change("pool/api", [ask(number, limit=limit) for number in numbers], releases)


@pytest.mark.parametrize(("error", "most"), [(VersionConflict, MAX_SAVES), (StoreUnavailable, MAX_FAULTS)])
def test_a_queue_that_cannot_be_written_is_tried_so_often_ever_later(error, most):
    bench = Bench()
    bench.store.answers = [error("no")] * (most - 1)
    assert bench.change(1) == {"ticket1"}
    assert bench.slept == ([0.002, 0.004, 0.008, 0.016, 0.032] + [0.064] * 99)[: most - 1]
    bench.slept.clear()
    bench.store.answers = [error("no")] * most
    with pytest.raises(error):
        bench.change(2)
    assert (len(bench.slept), bench.store.answers) == (most - 1, [])
    assert bench.change(2) == {"ticket2"}


def test_faults_and_lost_races_count_apart_and_wait_together():
    bench = Bench()
    bench.store.answers = [VersionConflict("412"), StoreUnavailable("503"), VersionConflict("412")]
    bench.change(1)
    assert bench.slept == [0.002, 0.004, 0.004]


def test_a_queue_is_written_a_few_times_in_a_row_and_then_once_in_its_interval():
    bench = Bench(1.0)
    for number in range(5):
        bench.change(number)
    assert bench.slept == [1.0, 1.0]
    assert bench.store.taken() == "rwwwww", "what was written here is not read again"
    bench.store.answers = [VersionConflict("412")]
    bench.change(7)
    assert bench.store.taken() == "wrw"
    bench.change(8)
    assert bench.store.taken() == "rw", "it is shared with others: a read costs less than a write that is refused"


def test_that_there_is_nothing_to_do_counts_only_of_the_queue_as_it_is():
    bench = Bench()
    bench.change(1)
    bench.store.taken()
    assert bench.change(1) == {"ticket1"}
    assert bench.store.taken() == "r"
    other = decode(bench.store.get(KEY)[0], KEY)
    assert [place.ticket for place in other.held] == ["ticket1"]
    bench.store.delete(KEY)
    bench.store.taken()
    assert bench.change(1) == {"ticket1"}
    assert bench.store.taken() == "rw"


def test_what_is_given_back_lets_in_who_waits_in_their_order():
    bench = Bench()
    assert bench.change(2, 1, 3, limit=1) == {"ticket1"}
    assert bench.keeper.act([ReleaseSlot("pool/api", "run1/A/1", "ticket1")]) == []
    told = [(event["resource"]["type"], event["run_id"], event["node_name"], event["attempt"], event["queue"],
             event["ticket"]) for event, _ in bench.broker.published]  # fmt: skip
    assert told == [("slot", "run2", "A", 1, "pool/api", "ticket2")]


@pytest.mark.parametrize(
    ("deployed", "asked", "there"),
    [(5, 1, 5), (None, 1, 10**9), ("unknown", 3, 3), ("unknown", None, 1), ("broken", 2, 2)],
)
def test_how_many_slots_a_dag_has_is_as_deployed_else_as_its_run_says(deployed, asked, there):
    from msgspec.structs import replace

    definition = {**chain("A"), **({"max_active_runs": deployed} if isinstance(deployed, int) else {})}
    catalog = {} if deployed == "unknown" else {"dag": {"steps": 1} if deployed == "broken" else definition}
    bench = Bench(catalog=catalog)
    asks = [replace(ask(n, limit=asked), queue="dag/dag", node_name=None) for n in range(7)]
    held = bench.keeper.change("dag/dag", asks, ())
    assert len(held) == min(there, 7)
    key = "slots/dag/dag.json"
    bench.keeper.change("dag/dag", (), ["ticket0"])
    assert len(decode(bench.store.get(key)[0], key).held) == min(there, 6)
