"""Pruning: delete ended runs and what belongs to them, safely beside instances that run others.

A run that is to go is marked first, by compare-and-swap: `$run.pruned_at`. From then on nobody else can change it,
for whoever loaded it before loses the race; and a pruning that was killed is finished by the next one. Its document
goes last, after all that is found only by way of it.

    pruned/<run_id>.json               the run was here: its start, delivered again, is not to start it anew
    pruned/definitions/<sha256>.json   a definition that no run has, kept for a day before it goes

A definition is moved there, not deleted: a start that found it in its place a moment before finds it there, and puts
it back. The stores delete without comparing, so there is no other way to close that gap.

Two may prune at once, and a run_id may be taken again as soon as the first is done. So whoever deletes looks right
before whether the run is still the one that was marked; between that look and the delete, a moment is left.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import groupby
from threading import Lock

import msgspec
from msgspec.structs import replace

from orchestrator.engine.large_results import RUN_ENTRY
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus, tombstone_of, trash_of
from orchestrator.model.errors import CorruptState, OrchestratorError, VersionConflict
from orchestrator.model.ids import RUN_ID, key_of, launch_id_of
from orchestrator.model.run_document import decode_run
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.model.slots import Slots, changed
from orchestrator.model.slots import decode as slots_of
from orchestrator.model.slots import encode as encode_slots
from orchestrator.ports import ObjectStore

LEAST_AGE_S = 3600.0
"""A run is kept that long at the least: nothing of it is under way any more then."""

REDELIVERY_S = 32 * 86400.0
"""A start message can come again for so long: Pub/Sub keeps one for 31 days at the most."""

TRASH_S = 86400.0
"""How long a definition that no run has is kept. Longer than any start takes, and than `status.VERIFIED_S`."""

_AT_ONCE = 16
_DATED = len("dead_letters/2026-01-31")


@dataclass(slots=True)
class Pruned:
    """What was deleted, or, in a dry run, what would be. Counts are of objects.

    Attributes:
        runs: ids of the runs.
        kept: how many runs were left: too young, not ended, or not meant.
        problems: what could not be read or deleted, each with its name.
    """

    runs: list[str] = field(default_factory=list)
    kept: int = 0
    results: int = 0
    attempts: int = 0
    executions: int = 0
    definitions: int = 0
    dead_letters: int = 0
    problems: list[str] = field(default_factory=list)


class Pruner:
    """Deletes what is older than `older_than_s` in one bucket.

    Args:
        now: aware UTC.
        older_than_s: of a run, since its end; of a dead letter, since the end of its day. At least LEAST_AGE_S.
        is_meant: of the ended runs that are old enough, which are to go.
        is_all: all runs are meant, so dead letters are too.
        is_dry: nothing is changed.
        remove_attempt: key of a launch -> how many directories were removed that the local targets keep of it
            (with `is_dry` as the second argument).
    """

    def __init__(
        self,
        store: ObjectStore,
        now: datetime,
        older_than_s: float,
        is_meant: Callable[[RunInfo], bool],
        *,
        is_all: bool,
        is_dry: bool = False,
        remove_attempt: Callable[[str, bool], int] = lambda *_: 0,
    ) -> None:
        if older_than_s < LEAST_AGE_S:
            raise ValueError(f"{older_than_s:g} s: runs are kept for {LEAST_AGE_S:g} s at the least")
        self._store, self._now, self._is_dry = store, now, is_dry
        self._before = now - timedelta(seconds=older_than_s)
        self._is_meant, self._is_all, self._remove_attempt = is_meant, is_all, remove_attempt
        self._told = Pruned()
        self._lock = Lock()
        self._needed: set[str] | None = set()
        """Names of the definitions of the runs that stay; None where a run cannot be read."""

    def prune(self) -> Pruned:
        """Do it, and say what was done. May be called again, here or elsewhere, after it was interrupted."""
        with ThreadPoolExecutor(_AT_ONCE, "orchestrator-prune") as pool:
            keys = [key for key in self._store.list("runs/") if key.endswith(".json")]
            going = [state for state in pool.map(self._judge, keys) if state is not None]
            going = [state for level in _by_depth(going) for state in pool.map(self._mark, level) if state is not None]
            going = [state for state in pool.map(self._leftovers, going) if state is not None]
            runs = {state.run.run_id: state for state in going}
            self._slots(runs)
            list(pool.map(lambda key: self._execution(key, runs), list(self._store.list("executions/"))))
            self._told.runs = sorted(state.run.run_id for state in pool.map(self._document, going) if state is not None)
        self._definitions()
        self._tombstones()
        if self._is_all:
            self._dead_letters()
        return self._told

    # -- runs ---------------------------------------------------------------------------------------

    def _judge(self, key: str) -> RunState | None:
        """Return a run that is to go."""
        run_id = key.removeprefix("runs/").removesuffix(".json")
        if not RUN_ID.fullmatch(run_id):
            return None
        try:
            loaded = OrchestrationStatus(self._store, run_id).load()
        except OrchestratorError as exc:
            self._told.problems.append(str(exc))
            self._needed = None  # who knows which one it needs
            return None
        if loaded is None:
            return None
        if self._is_going(loaded[0].run):
            return loaded[0]
        self._stays(loaded[0].run)
        return None

    def _is_going(self, run: RunInfo, *, are_above_marked: bool = False) -> bool:
        if run.pruned_at is not None:
            return True
        is_old = run.status.is_final and run.ended_at is not None and run.ended_at < self._before
        is_meant = is_old and not run.owed_notifications and self._is_meant(run)
        return is_meant and not self._is_needed(run, are_above_marked)

    def _is_needed(self, run: RunInfo, are_above_marked: bool) -> bool:
        """Whether this is a child of a run that stays: it may ask about it still, or be redriven and let it go on.

        Args:
            are_above_marked: all runs above it that go have been marked, so one that has not been stays.
        """
        if run.parent is None:
            return False
        key = f"runs/{run.parent.run_id}.json"
        try:
            found = self._store.get(key)
            parent = decode_run(found[0], key) if found is not None else None
        except CorruptState:  # a person is to look at it first
            return True
        if parent is None or parent.pruned_at is not None:
            return False
        return are_above_marked or not self._is_going(parent)

    def _stays(self, run: RunInfo) -> None:
        self._count("kept", 1)
        if self._needed is not None:
            self._needed.add(run.definition)

    def _mark(self, state: RunState) -> RunState | None:
        """Take a run out of everybody's hands; None where somebody has taken it up again."""
        run = state.run
        if self._is_dry:
            return state
        if run.started_at > self._now - timedelta(seconds=REDELIVERY_S):
            until = run.started_at + timedelta(seconds=REDELIVERY_S)
            self._remember(tombstone_of(run.run_id), until)
        status = OrchestrationStatus(self._store, run.run_id)
        while True:
            try:
                loaded = status.load()
                if loaded is None:
                    return None
                run = loaded[0].run
                if run.pruned_at is not None:
                    return loaded[0]
                if not self._is_going(run, are_above_marked=True):
                    self._stays(run)
                    return None
                marked = RunState(replace(run, pruned_at=self._now), loaded[0].nodes)
                status.save(marked, expect=loaded[1])
            except VersionConflict:
                continue
            except OrchestratorError as exc:
                self._told.problems.append(f"runs/{state.run.run_id}.json: {exc}")
                self._needed = None
                return None
            return marked

    def _is_as_marked(self, state: RunState) -> bool:
        """Whether a run is still the one that was marked: another pruning may have been quicker, and its id be taken.

        What is deleted is found by the run's id, so this is asked right before.
        """
        if self._is_dry:
            return True
        try:
            loaded = OrchestrationStatus(self._store, state.run.run_id).load()
        except CorruptState as exc:  # the marked one could be read
            self._told.problems.append(str(exc))
            self._needed = None
            return False
        if loaded is None:
            return False
        run = loaded[0].run
        if (run.pruned_at, run.message_id) == (state.run.pruned_at, state.run.message_id):
            return True
        if run.pruned_at is None:
            self._stays(run)
        return False

    def _leftovers(self, state: RunState) -> RunState | None:
        """Delete what functions and local targets left of each attempt, and large results of no attempt.

        Returns None where the run is not the marked one any more, and nothing was deleted.
        """
        if not self._is_as_marked(state):
            return None
        for node in state.nodes.values():
            for attempt in range(1, node.attempt + 1):
                key = key_of(launch_id_of(state.run.run_id, node.node_name, attempt))
                self._count("results", self._delete_all(f"results/{key}"))
                self._count("attempts", self._remove_attempt(key, self._is_dry))
            # By prefix, for those that a lost race or a dead process left are named by no document.
            key = key_of(launch_id_of(state.run.run_id, node.node_name, 0))
            self._count("results", self._delete_all(f"results/{key}-"))
        key = key_of(launch_id_of(state.run.run_id, RUN_ENTRY, 0))
        self._count("results", self._delete_all(f"results/{key}-"))
        return state

    def _execution(self, key: str, going: Mapping[str, RunState]) -> None:
        """Delete the record of an execution whose run goes; only the record says whose it is."""
        found = self._store.get(key)
        if found is None:
            return
        try:
            record = msgspec.json.decode(found[0], type=_Record)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            self._told.problems.append(f"{key}: is no execution record: {exc}")
            return
        state = going.get(record.run_id)
        if state is None:
            return
        # A younger one is of a run that has taken the id since; while the marked one is there, none can.
        marked_at = state.run.pruned_at
        if marked_at is None or record.launched_at < marked_at or self._is_as_marked(state):
            self._count("executions", self._delete(key))

    def _slots(self, going: Mapping[str, RunState]) -> None:
        """Take from queues what runs that go hold there still, because nobody got to giving it back."""
        for key in list(self._store.list("slots/")):
            while True:
                found = self._store.get(key)
                try:
                    slots = slots_of(found[0], key) if found is not None else Slots()
                except CorruptState as exc:
                    self._told.problems.append(str(exc))
                    break
                theirs = [place for place in slots.held + slots.waiting if place.run_id in going]
                tickets = [place.ticket for place in theirs if self._is_as_marked(going[place.run_id])]
                if found is None or not tickets or self._is_dry:
                    break
                with suppress(VersionConflict):
                    self._store.put(key, encode_slots(changed(slots, (), tickets)), expect=found[1])
                    break

    def _document(self, state: RunState) -> RunState | None:
        """Delete the run itself, and the markers that a killed instance left; None where it is not the marked one."""
        run_id = state.run.run_id
        markers = [f"open/{run_id}", *self._store.list(f"open/{run_id}.")]
        if not self._is_as_marked(state):
            return None
        for marker in markers:
            self._delete(marker)
        if not self._is_as_marked(state):
            return None
        self._delete(f"runs/{run_id}.json")
        return state

    # -- what no run has ----------------------------------------------------------------------------

    def _definitions(self) -> None:
        if self._needed is None:
            self._told.problems.append("definitions/: left alone, for not every run can be read")
            return
        needed = {DefinitionStatus.key(name) for name in self._needed}
        for key in list(self._store.list("definitions/")):
            if key not in needed:
                self._told.definitions += 1
                self._throw_away(key)
        for key in list(self._store.list("pruned/definitions/")):
            self._empty_trash(key, f"definitions/{key.rpartition('/')[2]}", needed)

    def _throw_away(self, key: str) -> None:
        found = self._store.get(key)
        if found is None or self._is_dry:
            return
        trash, thrown = trash_of(key), msgspec.json.encode({"at": self._now, "definition": msgspec.Raw(found[0])})
        while True:
            before = self._store.get(trash)  # thrown away before, and stored anew since: its day begins again
            with suppress(VersionConflict):
                self._store.put(trash, thrown, expect=before[1] if before else None)
                break
        self._store.delete(key)

    def _empty_trash(self, key: str, place: str, needed: set[str]) -> None:
        """Put a definition back that a run has after all; delete one that none has had for a day."""
        found = self._store.get(key)
        if found is None or self._is_dry:
            return
        thrown = msgspec.json.decode(found[0], type=_Thrown)
        if place in needed:
            with suppress(VersionConflict):  # it is there
                self._store.put(place, bytes(thrown.definition), expect=None)
        if place in needed or thrown.at < self._now - timedelta(seconds=TRASH_S):
            self._store.delete(key)

    def _remember(self, tombstone: str, until: datetime) -> None:
        """Leave word that a run was here, until then at the least."""
        while True:
            found = self._store.get(tombstone)
            if found is not None and msgspec.json.decode(found[0], type=_Tombstone).until >= until:
                return
            with suppress(VersionConflict):
                self._store.put(tombstone, msgspec.json.encode({"until": until}), expect=found[1] if found else None)
                return

    def _tombstones(self) -> None:
        for key in list(self._store.list("pruned/")):
            if key.startswith("pruned/definitions/") or self._is_dry:
                continue
            found = self._store.get(key)
            if found is not None and msgspec.json.decode(found[0], type=_Tombstone).until < self._now:
                self._store.delete(key)

    def _dead_letters(self) -> None:
        for key in list(self._store.list("dead_letters/")):
            try:
                day = date.fromisoformat(key[len("dead_letters/") : _DATED])
            except ValueError:
                continue
            if day < self._before.date():
                self._told.dead_letters += self._delete(key)

    # -- small things -------------------------------------------------------------------------------

    def _count(self, name: str, count: int) -> None:
        with self._lock:
            setattr(self._told, name, getattr(self._told, name) + count)

    def _delete_all(self, prefix: str) -> int:
        return sum(self._delete(key) for key in list(self._store.list(prefix)))

    def _delete(self, key: str) -> int:
        if not self._is_dry:
            self._store.delete(key)
        return 1


def _by_depth(states: Iterable[RunState]) -> Iterator[list[RunState]]:
    """Yield runs by how many stand above them."""

    def depth(state: RunState) -> int:
        return state.run.parent.depth if state.run.parent is not None else 0

    for _, level in groupby(sorted(states, key=depth), key=depth):
        yield list(level)


class _Record(msgspec.Struct):
    run_id: str
    launched_at: datetime


class _Thrown(msgspec.Struct):
    at: datetime
    definition: msgspec.Raw


class _Tombstone(msgspec.Struct):
    until: datetime
