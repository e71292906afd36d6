"""SlotKeeper: asks for slots and gives them back, by compare-and-swap of the queue's object.

Cloud Storage takes one write a second of an object. So what several threads of an instance want of one queue meanwhile
goes into one write, at that pace; instances that race for a queue load it again.

Loaded only where a DAG has `max_active_runs` or a Task a `pool`.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from threading import Event, Lock

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.pace import Pace
from orchestrator.engine.queueing import has_ticket
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import AskSlot, Json, ReleaseSlot
from orchestrator.model.errors import (
    CorruptState,
    DefinitionError,
    OrchestratorError,
    StoreUnavailable,
    UnknownDag,
    VersionConflict,
)
from orchestrator.model.facts import RunAdmitted, SlotGranted
from orchestrator.model.ids import parse_launch_id
from orchestrator.model.messages import slot_message
from orchestrator.model.policy import Policy
from orchestrator.model.slots import NO_LIMIT, Place, Slots, changed, dag_queue, decode, encode, slots_key
from orchestrator.ports import Broker, Clock, ObjectStore, Version

log = logging.getLogger("orchestrator")

MAX_SAVES = 60
"""How often a lost race is run again before the rest is left to the Tick."""
MAX_FAULTS = 5
"""How often a store that cannot be written is tried again before that."""
MAX_LOOKED_AT = 200
"""Of so many who hold a slot of one queue a look finds out whether they do rightly: from a place on that is left to
chance, so that no one is left out for ever behind those who hold theirs rightly."""


class _Request:
    """What one thread wants of a queue."""

    def __init__(self, asks: Sequence[AskSlot], releases: Iterable[str]) -> None:
        self.asks, self.releases = asks, tuple(releases)
        self.signal = Event()
        """Set when it is done, or when its thread is to lead."""
        self.leads = self.is_done = False
        self.held: frozenset[str] = frozenset()
        """Tickets of `asks` that hold a slot."""
        self.error: OrchestratorError | None = None


class _Line:
    """What this instance has to do with one queue."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.saved: tuple[Slots, Version | None] | None = None
        """As it was loaded or saved here last; perhaps stale."""
        self._lock, self._pending, self._is_led = Lock(), list[_Request](), False

    def offer(self, request: _Request) -> bool:
        """Put a request in; True means that its thread leads now."""
        with self._lock:
            self._pending.append(request)
            is_led, self._is_led = self._is_led, True
            return not is_led

    def take(self) -> list[_Request]:
        """Take everything that waits; only who leads may."""
        with self._lock:
            taken, self._pending = self._pending, []
            return taken

    def withdraw(self, request: _Request) -> None:
        """Take a request out whose thread waits no more, and the lead from it."""
        with self._lock:
            had_lead = request in self._pending and request.leads
            if request in self._pending:
                self._pending.remove(request)
        if had_lead:
            self.pass_on()

    def pass_on(self) -> None:
        """Hand the lead to a thread that waits here, or lay it down."""
        with self._lock:
            self._is_led = bool(self._pending)
            if self._pending:
                self._pending[0].leads = True
                self._pending[0].signal.set()


class SlotKeeper:
    """Changes queues, and says who is let in. From many threads.

    Args:
        sleep: sleeps so many seconds.
        spread: a number from 0 to 1, at random.
        drives: run id -> whether a message about that run may go to this instance's topic.
    """

    def __init__(
        self,
        store: ObjectStore,
        catalog: Catalog,
        broker: Broker,
        clock: Clock,
        policy: Policy,
        sleep: Callable[[float], None],
        spread: Callable[[], float],
        drives: Callable[[str], bool],
    ) -> None:
        self._store, self._catalog, self._broker = store, catalog, broker
        self._clock, self._policy = clock, policy
        self._sleep, self._spread, self._drives = sleep, spread, drives
        self._lines: dict[str, _Line] = {}
        self._lock = Lock()

    def act(self, commands: Sequence[AskSlot | ReleaseSlot]) -> list[RunAdmitted | SlotGranted]:
        """Carry commands out; return what was granted of them. What cannot be done now is left to the Tick."""
        facts: list[RunAdmitted | SlotGranted] = []
        for queue, group in groupby(sorted(commands, key=lambda each: each.queue), key=lambda each: each.queue):
            of_queue = list(group)
            asks = [each for each in of_queue if isinstance(each, AskSlot)]
            releases = [each.ticket for each in of_queue if isinstance(each, ReleaseSlot)]
            try:
                facts += granted(asks, self.change(queue, asks, releases))
            except OrchestratorError as exc:
                run_id = asks[0].run_id if asks else None
                log.warning("slots/%s: %s; left to the Tick", queue, exc, extra={"run_id": run_id})
        return facts

    def look_after(self, queue: str, asks: Sequence[AskSlot]) -> list[RunAdmitted | SlotGranted]:
        """Ask again for what waits, lest it was never asked for, and take slots from those who hold them wrongly: their
        run or attempt has ended, and whoever was to give the slot back did not get to it.

        Raises:
            StoreUnavailable, VersionConflict: not now; CorruptState: the queue cannot be read.
        """
        held = self.change(queue, asks, ())
        if len(held) < len(asks):
            stale = self._stale(queue, {ask.ticket for ask in asks})
            if stale:
                log.info("slots/%s: %d slots were not given back, and are now", queue, len(stale))
                held = self.change(queue, asks, stale)
        return granted(asks, held)

    def change(self, queue: str, asks: Sequence[AskSlot], releases: Iterable[str]) -> frozenset[str]:
        """Ask for slots of one queue and give others back, in one write with what other threads want of it.

        Returns:
            The tickets of `asks` that hold a slot now; the others wait.
        Raises:
            StoreUnavailable, VersionConflict: it cannot be written now; CorruptState: it cannot be read.
        """
        line, request = self._line(queue), _Request(asks, releases)
        leads = line.offer(request)
        try:
            while not request.is_done:
                if leads:
                    self._lead(queue, line)
                else:
                    request.signal.wait()
                leads = request.leads
        except BaseException:
            line.withdraw(request)
            raise
        if request.error is not None:
            raise request.error
        return request.held

    # -- one queue ----------------------------------------------------------------------------------

    def _line(self, queue: str) -> _Line:
        with self._lock:
            return self._lines.setdefault(queue, _Line(Pace(self._policy.save_interval_s)))

    def _lead(self, queue: str, line: _Line) -> None:
        """Do at once what waits, then hand the lead on."""
        batch: list[_Request] = []
        error: OrchestratorError | None = None
        try:
            self._linger(line)
            batch = line.take()
            self._commit(queue, line, batch)
        except OrchestratorError as exc:
            line.saved, error = None, exc
        except BaseException:
            line.saved = None
            error = StoreUnavailable(f"{slots_key(queue)}: who changed it was interrupted")
            raise
        finally:
            for request in batch:
                request.error, request.is_done = error, True
                request.signal.set()
            line.pass_on()

    def _commit(self, queue: str, line: _Line, batch: list[_Request]) -> None:
        key = slots_key(queue)
        perhaps: set[str] = set()
        saves = faults = 0
        while True:
            if line.pace.is_shared(self._seconds()):
                line.saved = None  # a read costs less than a write that is refused
            was_cached = line.saved is not None
            before, version = line.saved or self._load(key)
            asks = [ask for request in batch for ask in request.asks]
            releases = {ticket for request in batch for ticket in request.releases}
            places = [Place(ask.holder, ask.ticket, ask.since, ask.priority) for ask in asks]
            after = changed(before, places, releases, self._limit(before, asks))
            fresh = {place.ticket for place in after.held} - {place.ticket for place in before.held}
            if after == before:
                if was_cached:
                    line.saved = None  # that nothing is to be done is true only of the queue as it is now
                    continue
                line.saved = (before, version)
                break
            try:
                line.saved = (after, self._store.put(key, encode(after), expect=version))
            except VersionConflict:
                line.saved, saves = None, saves + 1
                perhaps |= fresh  # it may have been our own write
                if saves >= MAX_SAVES:
                    raise
                line.pace.lost(self._seconds())
                self._linger(line, saves)
                batch += line.take()
                continue
            except StoreUnavailable:
                line.saved, faults = None, faults + 1
                perhaps |= fresh
                if faults >= MAX_FAULTS:
                    raise
                line.pace.lost(self._seconds())  # most likely others write it as often as it may be written
                self._linger(line, saves + faults)
                batch += line.take()
                continue
            line.pace.saved(self._seconds())
            break
        held = {place.ticket for place in after.held}
        for request in batch:
            request.held = frozenset(ask.ticket for ask in request.asks if ask.ticket in held)
        ours = {ask.ticket for ask in asks}
        self._tell(queue, [place for place in after.held if place.ticket in (fresh | perhaps) - ours])

    def _load(self, key: str) -> tuple[Slots, Version | None]:
        found = self._store.get(key)
        return (decode(found[0], key), found[1]) if found is not None else (Slots(), None)

    def _limit(self, slots: Slots, asks: Sequence[AskSlot]) -> int | None:
        """How many slots there are, as is known here: as deployed, else as the queue says, else as a run's own
        definition does, else one. None where nothing new is known."""
        for ask in asks:
            if ask.queue != dag_queue(ask.dag):
                if ask.limit is not None:
                    return ask.limit
                continue
            try:
                most = self._catalog.find(ask.dag)[2].max_active_runs
            except (UnknownDag, DefinitionError):
                continue
            return NO_LIMIT if most is None else most
        if slots.limit or not asks:
            return None
        return next((ask.limit for ask in asks if ask.limit is not None), 1)

    def _tell(self, queue: str, places: Sequence[Place]) -> None:
        """Tell those who are let in, and did not just ask; who is not told, is by the next Tick."""
        for place in places:
            if not self._drives(place.run_id):
                continue
            try:
                self._broker.publish(_message(queue, place))
            except OrchestratorError as exc:
                log.warning("cannot tell of a slot; the Tick does: %s", exc, extra={"run_id": place.run_id})

    def _stale(self, queue: str, ours: set[str]) -> list[str]:
        """Tickets of those who hold a slot that their run has no more, or that is gone."""
        slots = self._load(slots_key(queue))[0]
        held = [place for place in slots.held if place.ticket not in ours]
        if len(held) > MAX_LOOKED_AT:
            first = int(self._spread() * len(held))
            held = (held[first:] + held[:first])[:MAX_LOOKED_AT]
        by_run: dict[str, list[Place]] = {}
        for place in held:
            by_run.setdefault(place.run_id, []).append(place)
        return [ticket for run_id, places in by_run.items() for ticket in self._stale_of(run_id, places)]

    def _stale_of(self, run_id: str, places: Iterable[Place]) -> Iterable[str]:
        try:
            loaded = OrchestrationStatus(self._store, run_id).load()
        except CorruptState as exc:
            log.error("who holds a slot cannot be read, and keeps it: %s", exc, extra={"run_id": run_id})
            return ()
        return [x.ticket for x in places if loaded is None or not has_ticket(loaded[0], x.holder, x.ticket)]

    def _linger(self, line: _Line, lost: int = 0) -> None:
        wait_s = line.pace.wait_s(self._seconds(), self._spread())
        if wait_s:
            self._sleep(wait_s)
        elif lost:
            self._sleep(self._spread() * min(1.0, 0.002 * 2 ** min(lost, 6)))

    def _seconds(self) -> float:
        return self._clock.now().timestamp()


def _message(queue: str, place: Place) -> dict[str, Json]:
    launch = parse_launch_id(place.holder)
    if launch is None:
        return slot_message(queue, place.ticket, place.run_id)
    return slot_message(queue, place.ticket, *launch)


def granted(asks: Iterable[AskSlot], held: frozenset[str]) -> list[RunAdmitted | SlotGranted]:
    """Return the facts of what was asked for and is held."""
    return [
        RunAdmitted(ask.queue, ask.ticket)
        if ask.node_name is None
        else SlotGranted(ask.node_name, ask.attempt, ask.queue, ask.ticket)
        for ask in asks
        if ask.ticket in held
    ]
