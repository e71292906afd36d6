"""The repositories over an ObjectStore: what lies where in the bucket, and nothing about why.

runs/<run_id>.json             the run document                       OrchestrationStatus
executions/<execution_id>.json which launch an execution belongs to   ExecutionStatus
definitions/<sha256>.json      the definition of runs                 DefinitionStatus
open/<run_id>[.<n>]            markers of runs that have not ended    OpenRuns
pruned/…                       what pruning leaves for a while        pruning.py
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache, lru_cache
from hashlib import sha256
from threading import Lock
from typing import TypeGuard

import msgspec

from orchestrator.engine.catalog import Catalog
from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.definition import check
from orchestrator.model.errors import CorruptState, DefinitionError, UnknownDag, VersionConflict
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_document import DocumentEncoder, decode
from orchestrator.model.run_state import RunState
from orchestrator.ports import ChangingStore, CreatingStore, ObjectStore, Version

_MAX_WRITTEN = 4096
"""How many records an instance remembers of those that it wrote."""
VERIFIED_S = 3600.0
"""How long an instance takes it that a definition is there which it saw there: pruning keeps one far longer."""
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


@cache
def _is_of(kind: type[ObjectStore], protocol: type) -> bool:
    """Asked once a class: to look at all members of a protocol takes as long as to read a document."""
    return issubclass(kind, protocol)


def _takes_changes(store: ObjectStore) -> TypeGuard[ChangingStore]:
    return _is_of(type(store), ChangingStore)


def _creates_together(store: ObjectStore) -> TypeGuard[CreatingStore]:
    return _is_of(type(store), CreatingStore)


class OrchestrationStatus:
    """The document of one run. One instance saves it from one thread at a time.

    Attributes:
        size_bytes: of the document as it was loaded or saved here last; 0 once that is forgotten.
    """

    def __init__(self, store: ObjectStore, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self.key = f"runs/{run_id}.json"
        self._encoder = DocumentEncoder()
        self._change = store.change if _takes_changes(store) else None
        self._create = store.create_all if _creates_together(store) else None
        self.size_bytes = 0

    def load(self) -> tuple[RunState, Version] | None:
        """Return the run and its version, or None if there is none. Raises CorruptState."""
        found = self._store.get(self.key)
        if found is None:
            return None
        state = decode(found[0], self.key)
        if state.run.run_id != self.run_id:
            raise CorruptState(f"{self.key}: says that it is run {state.run.run_id}")
        self.size_bytes = len(found[0])
        return state, found[1]

    def save(
        self,
        state: RunState,
        *,
        expect: Version | None,
        before: RunState | None = None,
        touched: Iterable[str] | None = None,
    ) -> Version:
        """Write the run iff its stored version is `expect` (None = create). Raises VersionConflict.

        Where the store can, only what has changed is handed to it, until the run ends.

        Args:
            before: the run as it is stored under `expect`.
            touched: names of the nodes that may have changed since; None: it is written as a whole.
        """
        if self._change is None or expect is None or before is None or touched is None or state.run.status.is_final:
            document = self._encoder.encode(state)
            self.size_bytes = len(document)
            return self._store.put(self.key, document, expect=expect)
        members, grown = self._encoder.encode_changes(before, state, touched)
        self.size_bytes += grown
        return self._change(self.key, members, expect=expect)

    def create(self, state: RunState, marker: str, content: bytes) -> Version | None:
        """Write the run, and before it its marker; None where the store cannot do both at once, or one is there."""
        if self._create is None:
            return None
        document = self._encoder.encode(state)
        try:
            created = self._create({marker: content, self.key: document})
        except VersionConflict:
            return None
        self.size_bytes = len(document)
        return created[self.key]

    def forget(self) -> None:
        """Drop what saving the next state would be quicker by."""
        self._encoder = DocumentEncoder()
        self.size_bytes = 0

    def nodes(self) -> Mapping[str, NodeState]:
        """Node name -> its state; empty where the run does not exist."""
        loaded = self.load()
        return loaded[0].nodes if loaded else {}


class ExecutionStatus:
    """The execution records: an index that can be rebuilt, never the truth about a run."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._written = OrderedDict[str, ExecutionRecord]()
        self._lock = Lock()

    @staticmethod
    def key(execution_id: str) -> str:
        """Object name of an execution's record: of a path, by its last part; what is odd there is hashed."""
        execution_id = execution_id.rpartition("/")[2]
        if not _SAFE_ID.fullmatch(execution_id):
            execution_id = f"sha256-{sha256(execution_id.encode()).hexdigest()}"
        return f"executions/{execution_id}.json"

    def get_execution(self, execution_id: str) -> ExecutionRecord | None:
        """Return the record, or None if there is none (yet). Raises CorruptState."""
        key = self.key(execution_id)
        written = self._written.get(key)
        if written is not None:
            return written  # by this instance; a record is never changed
        found = self._store.get(key)
        if found is None:
            return None
        try:
            return msgspec.json.decode(found[0], type=ExecutionRecord)
        except msgspec.DecodeError as exc:
            raise CorruptState(f"{key}: is no execution record: {exc}") from exc

    def save_execution(self, execution: ExecutionRecord) -> None:
        """Write the record, unless it is there already."""
        key = self.key(execution.execution_id)
        try:
            self._store.put(key, msgspec.json.encode(execution), expect=None)
        except VersionConflict:
            return  # the same key was launched before: the record says the same
        with self._lock:
            self._written[key] = execution
            if len(self._written) > _MAX_WRITTEN:
                self._written.popitem(last=False)


class DefinitionStatus:
    """The definitions of runs, stored once each under their hash, so that a run in flight keeps its own.

    Args:
        catalog: the definitions that are deployed; one that a run still has is not read from the store.
        seconds: a clock.
    """

    def __init__(
        self, store: ObjectStore, catalog: Catalog | None = None, seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._store, self._catalog, self._seconds = store, catalog, seconds
        self._lock = Lock()
        self._stored: dict[str, float] = {}
        self._load = lru_cache(maxsize=256)(self._read)

    @staticmethod
    def name(definition: Mapping[str, Json]) -> str:
        """`sha256:<hex>` over its JSON, in the author's order (which decides whose error is first)."""
        return f"sha256:{sha256(msgspec.json.encode(definition)).hexdigest()}"

    def save(self, definition: Mapping[str, Json]) -> str:
        """Store a definition if it is not there yet, and return its name. It is durable then."""
        name = self.name(definition)
        with self._lock:
            if self._seconds() - self._stored.get(name, -VERIFIED_S) < VERIFIED_S:
                return name
        try:
            content = msgspec.json.format(msgspec.json.encode(definition), indent=2)
            self._store.put(self.key(name), content, expect=None)
        except VersionConflict:
            pass  # an earlier run of the same definition stored it
        with self._lock:
            self._stored[name] = self._seconds()
        return name

    def load(self, name: str, dag: str | None = None) -> DAG:
        """Return the DAG of a stored definition, that of the DAG `dag`.

        Raises CorruptState if it is missing or spoilt.
        """
        return self._load(name, dag)

    def _read(self, name: str, dag: str | None) -> DAG:
        return self._deployed(name, dag) or self._stored_dag(name)

    def _deployed(self, name: str, dag: str | None) -> DAG | None:
        if self._catalog is None or dag is None:
            return None
        try:
            _, definition, built = self._catalog.find(dag)
        except (UnknownDag, DefinitionError):  # gone, or spoilt since
            return None
        return built if self.name(definition) == name else None

    def _stored_dag(self, name: str) -> DAG:
        key = self.key(name)
        found = self._store.get(key) or self._put_back(key)
        if found is None:
            raise CorruptState(f"{key}: is missing; runs of this definition cannot go on without it")
        try:
            definition = msgspec.json.decode(found[0])
            check(definition)
        except (msgspec.DecodeError, DefinitionError) as exc:
            raise CorruptState(f"{key}: is not a definition: {exc}") from exc
        return DAG(definition)

    def _put_back(self, key: str) -> tuple[bytes, Version] | None:
        """Fetch a definition from where pruning put it, as no run seemed to have it."""
        thrown = self._store.get(trash_of(key))
        if thrown is None:
            return None
        content = bytes(msgspec.json.decode(thrown[0], type=dict[str, msgspec.Raw])["definition"])
        try:
            return content, self._store.put(key, content, expect=None)
        except VersionConflict:
            return self._store.get(key)

    @staticmethod
    def key(name: str) -> str:
        """Object name of the definition `sha256:<hex>`."""
        return f"definitions/{name.removeprefix('sha256:')}.json"


def tombstone_of(run_id: str) -> str:
    """Object name of what says that a run was pruned."""
    return f"pruned/{run_id}.json"


def trash_of(key: str) -> str:
    """Where pruning puts the definition that lies at `key`."""
    return f"pruned/{key}"


class Marker(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the marker of an open run says: when it was written and, of a child run, for which launch."""

    at: datetime
    made_for: str | None = None

    def encode(self) -> bytes:
        """Return it as it is stored."""
        return msgspec.json.encode(self)


MARKERS = "open/"
"""What the names of markers begin with."""


class OpenRuns:
    """Markers of the runs that the Tick has to look after; written before the run, deleted after its end."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def mark(self, run_id: str, now: datetime, redrives: int = 0, made_for: str | None = None) -> None:
        """Write the marker of a run that is about to be created, or to go on for the `redrives`th time.

        Args:
            made_for: of a child run, the launch id of the attempt that it is made for.
        """
        try:
            self._store.put(marker_of(run_id, redrives), Marker(now, made_for).encode(), expect=None)
        except VersionConflict:
            return  # a start delivered twice

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield (marker key, run id)."""
        for key in self._store.list(MARKERS):
            yield key, run_of(key)

    def read(self, marker: str) -> Marker | None:
        """Return what a marker says; None if it is gone or says nothing."""
        found = self._store.get(marker)
        try:
            return msgspec.json.decode(found[0], type=Marker) if found else None
        except msgspec.DecodeError:
            return None

    def clear(self, marker: str) -> None:
        """Delete the marker of a run that has ended."""
        self._store.delete(marker)

    def clear_all(self, run_id: str, redrives: int) -> None:
        """Delete the markers of a run that has ended after so many redrives; that of the next one, if any, stays."""
        for number in range(redrives + 1):
            self._store.delete(marker_of(run_id, number))


def marker_of(run_id: str, redrives: int = 0) -> str:
    """Object name of a run's marker. Each redrive has one of its own, for the one before may be being deleted."""
    return f"open/{run_id}.{redrives}" if redrives else f"open/{run_id}"


def run_of(marker: str) -> str:
    """The run that a marker is of."""
    return marker.removeprefix("open/").partition(".")[0]


def number_of(marker: str) -> int:
    """How often the run had gone on that a marker is of."""
    number = marker.removeprefix("open/").partition(".")[2]
    return int(number) if number.isascii() and number.isdigit() else 0
