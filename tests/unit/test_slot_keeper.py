"""SlotKeeper: one write for what many threads want meanwhile; what goes wrong with a write."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import ClassVar

import pytest
from msgspec.structs import replace

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.slot_keeper import SlotKeeper
from orchestrator.model.commands import AskSlot
from orchestrator.model.errors import BrokerUnavailable, CorruptState, StoreUnavailable, VersionConflict
from orchestrator.model.policy import Policy
from orchestrator.model.slots import decode
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import T0, VirtualClock
from tests.support.world import KeptBroker

KEY = "slots/pool/api.json"


def ask(number: int, *, limit: int = 3, priority: int = 0) -> AskSlot:
    since = T0 + timedelta(seconds=number)
    return AskSlot("pool/api", f"ticket{number}", since, priority, limit, "dag", f"run{number}", "A", 1)


def keeper_of(store, broker=None, **policy: float) -> SlotKeeper:
    return SlotKeeper(
        store,
        Catalog({}),
        broker or KeptBroker(),
        VirtualClock(),
        Policy(**policy),
        lambda _: None,
        lambda: 0.5,
        lambda _: True,
    )


class Writes(MemoryStore):
    """A store that counts writes, holds the first one up, and answers as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.begun, self.go_on = Event(), Event()
        self.go_on.set()
        self.answers: list[tuple[type[Exception], bool]] = []

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        self.writes += 1
        self.begun.set()
        assert self.go_on.wait(30)
        if not self.answers:
            return super().put(key, data, expect=expect)
        error, is_written = self.answers.pop(0)
        if is_written:
            super().put(key, data, expect=expect)
        raise error("told to")


def test_what_200_threads_ask_while_a_write_is_under_way_goes_into_one_more():
    store = Writes()
    store.go_on.clear()
    keeper = keeper_of(store)
    with ThreadPoolExecutor(201) as pool:
        first = pool.submit(keeper.change, "pool/api", [ask(0)], ())
        assert store.begun.wait(30)
        others = [pool.submit(keeper.change, "pool/api", [ask(n)], ()) for n in range(1, 201)]
        while len(keeper._line("pool/api")._pending) < 200:
            pass
        store.go_on.set()
        held = [future.result(30) for future in (first, *others)]
    assert store.writes == 2
    assert [len(each) for each in held] == [1, 1, 1] + [0] * 198
    slots = decode(store.get(KEY)[0], KEY)
    assert [place.holder for place in slots.waiting] == [f"run{n}/A/1" for n in range(3, 201)]


def test_what_changes_nothing_is_not_written():
    store = Writes()
    keeper = keeper_of(store)
    keeper.change("pool/api", [ask(1)], ())
    assert keeper.change("pool/api", [ask(1)], ["nobody's"]) == {"ticket1"}
    assert store.writes == 1


@pytest.mark.parametrize("is_written", [True, False])
@pytest.mark.parametrize("error", [StoreUnavailable, VersionConflict])
def test_an_uncertain_write_lets_in_once_and_tells_who_waited(error, is_written):
    store, broker = Writes(), KeptBroker()
    keeper = keeper_of(store, broker)
    keeper.change("pool/api", [ask(1, limit=1), ask(2, limit=1)], ())
    store.answers = [(error, is_written)]
    keeper.change("pool/api", (), ["ticket1"])
    assert [place.ticket for place in decode(store.get(KEY)[0], KEY).held] == ["ticket2"]
    assert [event["ticket"] for event, _ in broker.published] == ["ticket2"]


def test_a_store_that_cannot_be_written_fails_those_who_asked_and_the_next_may_ask_again():
    store = Writes()
    store.answers = [(StoreUnavailable, False)] * 5
    keeper = keeper_of(store)
    with pytest.raises(StoreUnavailable):
        keeper.change("pool/api", [ask(1)], ())
    assert keeper.act([ask(1)])[0].ticket == "ticket1"


def test_what_cannot_be_asked_for_now_is_left_to_the_tick():
    store = Writes()
    store.answers = [(StoreUnavailable, False)] * 5
    assert keeper_of(store).act([ask(1)]) == []


def test_a_queue_that_cannot_be_read_is_an_error_with_its_name():
    store = MemoryStore()
    store.put(KEY, b"{", expect=None)
    with pytest.raises(CorruptState, match=KEY):
        keeper_of(store).look_after("pool/api", [ask(1)])


def test_a_tick_finds_out_about_so_many_holders_from_any_place_on():
    store = MemoryStore()
    keeper = keeper_of(store)  # its runs are gone, so every slot is held wrongly; it draws the middle
    keeper.change("pool/api", [ask(number, limit=300) for number in range(300)], ())
    keeper.look_after("pool/api", [ask(300, limit=300)])
    held = [place.holder for place in decode(store.get(KEY)[0], KEY).held]
    assert held == [*(f"run{number}/A/1" for number in range(50, 150)), "run300/A/1"]


def test_a_look_reads_a_run_once_however_many_slots_it_holds():
    class Read(MemoryStore):
        keys: ClassVar[list[str]] = []

        def get(self, key):
            self.keys.append(key)
            return super().get(key)

    keeper = keeper_of(Read())
    asks = [replace(ask(number, limit=20), run_id=f"run{number % 2}", node_name=f"A{number}") for number in range(20)]
    keeper.change("pool/api", asks, ())
    Read.keys.clear()
    keeper.look_after("pool/api", [ask(20, limit=20)])
    assert sorted(key for key in Read.keys if key.startswith("runs/")) == ["runs/run0.json", "runs/run1.json"]


def test_who_is_interrupted_while_waiting_holds_nobody_up():
    store = Writes()
    keeper = keeper_of(store)
    line = keeper._line("pool/api")
    request = type("Gone", (), {"leads": True})()
    line._pending.append(request)
    line._is_led = True
    line.withdraw(request)
    assert keeper.change("pool/api", [ask(1)], ()) == {"ticket1"}


def test_a_broker_that_cannot_tell_changes_nothing():
    class Dead(KeptBroker):
        def publish(self, event, *, delay_s=0.0):
            raise BrokerUnavailable("down")

    keeper = keeper_of(MemoryStore(), Dead())
    keeper.change("pool/api", [ask(1, limit=1), ask(2, limit=1)], ())
    assert keeper.change("pool/api", [ask(2, limit=1)], ["ticket1"]) == {"ticket2"}
