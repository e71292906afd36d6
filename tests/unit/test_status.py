"""The repositories over an ObjectStore: what each writes, reads, remembers and refuses."""

from datetime import timedelta

import msgspec
import pytest
from msgspec.structs import replace

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.status import (
    VERIFIED_S,
    DefinitionStatus,
    ExecutionStatus,
    Marker,
    OpenRuns,
    OrchestrationStatus,
    marker_of,
    tombstone_of,
    trash_of,
)
from orchestrator.model.commands import Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import CorruptState, StoreUnavailable, VersionConflict
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.messages import redrive_message
from orchestrator.model.run_document import encode
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, World, chain, completion, dag, parallel


class Noted(MemoryStore):
    """Notes its calls, as `<call> <first part of the name>`; it can fail the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.failing: list[Exception] = []

    def _note(self, call, key):
        self.calls.append(f"{call} {key.partition('/')[0]}")
        if self.failing:
            raise self.failing.pop(0)

    def get(self, key):
        self._note("get", key)
        return super().get(key)

    def put(self, key, data, *, expect):
        self._note("put", key)
        return super().put(key, data, expect=expect)

    def change(self, key, members, *, expect):
        self._note(f"change {' '.join(sorted(members))} of", key)
        calls, self.calls = self.calls, []
        version = super().change(key, members, expect=expect)
        self.calls = calls
        return version

    def taken(self):
        calls, self.calls = self.calls, []
        return calls


class Creating(Noted):
    """A store that creates several objects at once."""

    def create_all(self, objects):
        self.calls.append(f"create {' '.join(sorted(key.partition('/')[0] for key in objects))}")
        if any(MemoryStore.get(self, key) for key in objects):
            raise VersionConflict("one of them exists")
        return {key: MemoryStore.put(self, key, data, expect=None) for key, data in objects.items()}


class Plain:
    """A store that can only get, put, list and delete."""

    def __init__(self) -> None:
        self._store = Noted()
        self.get, self.put, self.list, self.delete = (
            self._store.get, self._store.put, self._store.list, self._store.delete)  # fmt: skip
        self.taken = self._store.taken


# -- the run document ------------------------------------------------------------------------------------


def states():
    """A run after its start, after one of its steps has ended, and at its end."""
    world = World(dag(P=parallel(chain("A"), chain("B"))))
    run_id = world.start()
    found = [world.state(run_id)]
    for name in "AB":
        world.end(name)
        found.append(world.state(run_id))
    return run_id, found


def test_only_what_has_changed_is_handed_to_a_store_that_takes_that_until_the_run_ends():
    store = Noted()
    run_id, (first, second, last) = states()
    status = OrchestrationStatus(store, run_id)
    version = status.save(first, expect=None, before=None, touched=None)
    assert (store.taken(), status.size_bytes) == (["put runs"], len(encode(first)))
    version = status.save(second, expect=version, before=first, touched=["A", "P"])
    assert store.taken() == ["change $run A P of runs"]
    content = store.get(f"runs/{run_id}.json")[0]
    assert (OrchestrationStatus(store, run_id).load()[0], status.size_bytes) == (second, len(content))
    store.taken()
    version = status.save(last, expect=version, before=second, touched=["B", "P"])
    assert (store.taken(), status.size_bytes) == (["put runs"], len(encode(last)))
    assert OrchestrationStatus(store, run_id).load() == (last, version)


@pytest.mark.parametrize(
    ("lacks", "expected"),
    [("nothing", "change $run A P of runs"), ("what it was before", "put runs"), ("what was touched", "put runs")],
)
def test_what_is_not_known_to_be_a_change_is_written_as_a_whole(lacks, expected):
    store = Noted()
    run_id, (first, second, _) = states()
    status = OrchestrationStatus(store, run_id)
    version = status.save(first, expect=None)
    store.taken()
    status.save(
        second,
        expect=version,
        before=None if lacks == "what it was before" else first,
        touched=None if lacks == "what was touched" else ["A", "P"],
    )
    assert store.taken() == [expected]
    assert OrchestrationStatus(store, run_id).load()[0] == second


def test_a_document_that_is_there_is_not_made_anew():
    store = Noted()
    run_id, (first, second, _) = states()
    OrchestrationStatus(store, run_id).save(first, expect=None)
    store.taken()
    with pytest.raises(VersionConflict):
        OrchestrationStatus(store, run_id).save(second, expect=None, before=first, touched=["A"])
    assert store.taken() == ["put runs"]
    assert OrchestrationStatus(store, run_id).load()[0] == first


@pytest.mark.parametrize("make", [Noted, Plain, Creating], ids=["which changes", "plain", "which creates together"])
def test_a_run_is_run_over_any_kind_of_store(make):
    world = World(dag(P=parallel(chain("A", "A2"), chain("B"))), store=make())
    run_id = world.start()
    started = [call for call in world.store.taken() if call.startswith(("put", "create", "change"))]
    assert started[:2] == {
        Creating: ["put definitions", "create open runs"],
    }.get(make, ["put definitions", "put open"])  # fmt: skip
    assert MemoryStore.get(getattr(world.store, "_store", world.store), f"open/{run_id}") is not None
    world.end("A")
    kept = [call for call in world.store.taken() if call.endswith("runs") and not call.startswith("get")]
    assert kept == (["put runs"] if make is Plain else ["change A A2 of runs"])
    assert world.run_all(run_id).run.status is RunStatus.COMPLETED


def test_a_run_and_its_marker_are_created_together_unless_one_is_there():
    store = Creating()
    run_id, (first, second, _) = states()
    status = OrchestrationStatus(store, run_id)
    marker = Marker(T0, "run_1_p/K/1").encode()
    assert marker == b'{"at":"2026-01-01T12:00:00Z","made_for":"run_1_p/K/1"}'
    assert Marker(T0).encode() == b'{"at":"2026-01-01T12:00:00Z"}'
    version = status.create(first, marker_of(run_id), marker)
    assert version == store.get(f"runs/{run_id}.json")[1]
    assert (store.get(f"open/{run_id}")[0], status.size_bytes) == (marker, len(encode(first)))
    assert status.create(second, marker_of(run_id), marker) is None
    assert status.load()[0] == first
    assert OrchestrationStatus(MemoryStore(), run_id).create(first, marker_of(run_id), marker) is None


def test_a_child_run_is_created_with_the_launch_that_it_is_made_for():
    catalog = Catalog({"dag": dag(K={"type": "Task", "target_type": "Dag", "target_name": "kid"}), "kid": chain("X")})
    for make in (Creating, MemoryStore):
        world = World(dag(A={"type": "Pass"}), store=make())
        world.catalog = catalog
        executor = world.instance()
        from tests.unit.test_small_parts_of_the_engine import LAUNCH

        executor.make_child(LAUNCH, "run_1_kid")
        assert OpenRuns(world.store).read("open/run_1_kid").made_for == "run_1_x/A/1"
        assert OpenRuns(world.store).read("open/run_1_kid").at == T0


def test_what_is_known_of_a_document_is_forgotten_when_told():
    run_id, (first, second, _) = states()
    store = Noted()
    status = OrchestrationStatus(store, run_id)
    version = status.save(first, expect=None)
    status.forget()
    assert status.size_bytes == 0
    assert status.load() == (first, version)
    assert status.size_bytes == len(encode(first))
    status.save(second, expect=version)
    assert OrchestrationStatus(store, run_id).load()[0] == second


# -- execution records ---------------------------------------------------------------------------------


def record(number=1, **changes):
    made = ExecutionRecord(
        execution_id=f"x{number}", task_name="f", node_name="A", succeeded=True, response=None, run_id="run_1_x",
        attempt=1, launch_id="run_1_x/A/1", target_type="Function", launched_at=T0)  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_a_record_is_read_by_who_wrote_it_no_second_time_and_by_others_once_each_time():
    store = Noted()
    status = ExecutionStatus(store)
    assert status.get_execution("x1") is None
    status.save_execution(record())
    store.taken()
    assert (status.get_execution("x1"), store.taken()) == (record(), [])
    other = ExecutionStatus(store)
    assert [other.get_execution("x1") for _ in range(2)] == [record()] * 2
    assert store.taken() == ["get executions"] * 2


def test_a_record_that_is_there_is_kept_and_read_as_it_is():
    store = Noted()
    first, second = ExecutionStatus(store), ExecutionStatus(store)
    first.save_execution(record(task_name="before"))
    second.save_execution(record(task_name="after"))
    assert second.get_execution("x1").task_name == "before"


def test_an_instance_remembers_so_many_records_that_it_wrote_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr("orchestrator.engine.status._MAX_WRITTEN", 3)
    store = Noted()
    status = ExecutionStatus(store)
    for number in range(5):
        status.save_execution(record(number))
    store.taken()
    assert [status.get_execution(f"x{number}").execution_id for number in range(5)] == [f"x{n}" for n in range(5)]
    assert store.taken() == ["get executions"] * 2


def test_a_record_that_is_none_is_an_error_with_its_name():
    store = MemoryStore()
    store.put("executions/x1.json", b"{}", expect=None)
    with pytest.raises(CorruptState, match=r"^executions/x1.json: is no execution record: .*missing required field"):
        ExecutionStatus(store).get_execution("x1")


# -- definitions ---------------------------------------------------------------------------------------


def test_a_definition_is_written_once_and_looked_after_again_after_an_hour():
    store, now = Noted(), [0.0]
    definitions = DefinitionStatus(store, None, lambda: now[0])
    for at, calls in (
        (0.0, ["put definitions"]), (1.0, []), (VERIFIED_S - 0.5, []), (VERIFIED_S, ["put definitions"]),
        (VERIFIED_S + 1, []), (3 * VERIFIED_S, ["put definitions"]),
    ):  # fmt: skip
        now[0] = at
        name = definitions.save(chain("A"))
        assert (at, store.taken()) == (at, calls)
    assert name == DefinitionStatus.name(chain("A"))
    assert DefinitionStatus.key(name) == f"definitions/{name.removeprefix('sha256:')}.json"
    assert msgspec.json.decode(store.get(DefinitionStatus.key(name))[0]) == chain("A")
    assert b'\n  "start": "A"' in store.get(DefinitionStatus.key(name))[0], "people read it"


def test_a_definition_that_could_not_be_written_is_not_taken_to_be_there():
    store = Noted()
    definitions = DefinitionStatus(store)
    store.failing = [StoreUnavailable("503")]
    with pytest.raises(StoreUnavailable):
        definitions.save(chain("A"))
    definitions.save(chain("A"))
    assert store.taken() == ["put definitions"] * 2


def test_a_definition_that_is_deployed_is_not_read_from_the_store():
    store = Noted()
    name = DefinitionStatus.name(chain("A"))
    catalog = Catalog.of(chain("A"))
    (called,) = catalog.definitions
    built = DefinitionStatus(store, catalog).load(name, called)
    assert (built.definition, store.taken()) == (chain("A"), [])
    for deployed in (None, Catalog.of(chain("B")), Catalog({"another": chain("A")}), Catalog.of({"start": "A"})):
        with pytest.raises(CorruptState, match=r"^definitions/[0-9a-f]{64}.json: is missing; runs of this definition"):
            DefinitionStatus(store, deployed).load(name, called)
    with pytest.raises(CorruptState, match="cannot go on without it"):
        DefinitionStatus(store, catalog).load(name)


@pytest.mark.parametrize("content", [b"{", b'{"start": "A", "steps": {}}', b"[]"])
def test_a_stored_definition_that_is_spoilt_is_an_error_with_its_name(content):
    store = MemoryStore()
    name = DefinitionStatus.name(chain("A"))
    store.put(DefinitionStatus.key(name), content, expect=None)
    with pytest.raises(CorruptState, match=r"^definitions/[0-9a-f]{64}.json: is not a definition: "):
        DefinitionStatus(store).load(name)


def test_a_definition_that_was_thrown_away_is_put_back_and_read_once():
    store = Noted()
    definitions = DefinitionStatus(store)
    name = DefinitionStatus.name(chain("A"))
    key = DefinitionStatus.key(name)
    thrown = msgspec.json.encode({"at": T0, "definition": chain("A")})
    store.put(trash_of(key), thrown, expect=None)
    assert trash_of(key) == f"pruned/{key}"
    store.taken()
    assert definitions.load(name).definition == chain("A")
    assert store.taken() == ["get definitions", "get pruned", "put definitions"]
    assert msgspec.json.decode(store.get(key)[0]) == chain("A")
    store.taken()
    definitions.load(name)
    assert store.taken() == []


def test_a_definition_that_another_has_put_back_just_now_is_taken_from_there():
    class Quicker(Noted):
        def put(self, key, data, *, expect):
            if key.startswith("definitions/"):
                super().put(key, data, expect=expect)
            return super().put(key, data, expect=expect)

    store = Quicker()
    name = DefinitionStatus.name(chain("A"))
    key = DefinitionStatus.key(name)
    store.put(trash_of(key), msgspec.json.encode({"at": T0, "definition": chain("A")}), expect=None)
    assert DefinitionStatus(store).load(name).definition == chain("A")


# -- markers -------------------------------------------------------------------------------------------


def test_where_markers_and_tombstones_lie():
    assert [marker_of("run_1_x"), marker_of("run_1_x", 2)] == ["open/run_1_x", "open/run_1_x.2"]
    assert tombstone_of("run_1_x") == "pruned/run_1_x.json"
    store = MemoryStore()
    OpenRuns(store).mark("run_1_x", T0)
    OpenRuns(store).mark("run_1_x", T0 + timedelta(seconds=9), 0, "another")
    assert OpenRuns(store).read("open/run_1_x") == Marker(T0)
    OpenRuns(store).clear("open/run_1_x")
    assert list(store.list("")) == []


def test_the_nodes_of_a_run_are_read_anew_each_time():
    world = World(chain("A"))
    run_id = world.start()
    status = OrchestrationStatus(world.store, run_id)
    assert status.nodes()["A"].status is TaskStatus.RUNNING
    world.executor.execute(completion(world.target.calls[0]))
    assert status.nodes()["A"].status is TaskStatus.COMPLETED
    assert replace(status.nodes()["A"], status=TaskStatus.NEW).status is TaskStatus.NEW


def test_a_redrive_hands_over_what_it_changes():
    world = World(chain("A", "B"), store=Noted())
    run_id = world.start()
    world.end("A", Outcome.failed("Own.Error", "no"))
    world.clock.forward(1)
    world.store.taken()
    world.executor.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
    written = [call for call in world.store.taken() if not call.startswith("get")]
    assert written == ["put open", "change $run A B of runs", "put open", "put executions"]
