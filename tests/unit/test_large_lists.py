"""What is read of large results and lists, how often, and under which names they lie."""

from datetime import timedelta
from hashlib import sha256

import msgspec
import pytest
from msgspec.structs import replace

from orchestrator.engine.draft import Draft, Token
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.notifying import _has_begun
from orchestrator.engine.scope import scope_of, scope_of_item
from orchestrator.model.commands import Failure, Outcome
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.ids import key_of
from orchestrator.model.messages import redrive_message
from orchestrator.model.node_state import Items, NodeState, StoredResult
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import Held, ParentRun, RunInfo, RunState
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, World, chain, dag, task


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key):
        if key.startswith("results/"):
            self.read.append(key.removeprefix("results/"))
        return super().get(key)

    def taken(self):
        read, self.read = self.read, []
        return read


def stored(store, name, value, size=None):
    data = msgspec.json.encode({"kind": "Completed", "result": value, "at": T0})
    store.put(f"results/{name}", data, expect=None)
    return StoredResult(f"results/{name}", len(data) if size is None else size)


def a_map(where, name="M"):
    return NodeState(
        node_name=name, node_type=NodeTypes.MAP, status=TaskStatus.RUNNING, items=Items(2, None, stored=where)
    )


def a_step(name, where):
    return NodeState(node_name=name, node_type=NodeTypes.TASK, status=TaskStatus.COMPLETED, stored_result=where)


def run_of(*nodes):
    run = RunInfo(
        format=1, run_id="run_1_x", dag="dag", definition="", status=RunStatus.RUNNING, input={}, started_at=T0
    )
    return RunState(run, {node.node_name: node for node in nodes})


def test_a_list_is_read_once_as_long_as_no_other_is_asked_for(monkeypatch):
    store = Counting()
    large = LargeResults(store)
    first, second = a_map(stored(store, "m", [1, 2])), a_map(stored(store, "n", [3]), "N")
    assert [large.items_of(first) for _ in range(3)] == [[1, 2]] * 3
    assert store.taken() == ["m"]
    assert [large.items_of(each) for each in (second, second, first)] == [[3], [3], [1, 2]]
    assert store.taken() == ["n", "m"]
    monkeypatch.setattr("orchestrator.engine.large_results.MAX_AHEAD_BYTES", 100)
    for size, reads in ((100, 1), (101, 3)):
        large = LargeResults(store)
        each = a_map(stored(store, f"s{size}", [9], size))
        store.taken()
        assert [large.items_of(each) for _ in range(3)] == [[9]] * 3
        assert len(store.taken()) == reads


@pytest.mark.parametrize(
    ("sizes", "read"),
    [((40, 60), "abc"), ((40, 61), "ab"), ((100, 1), "ab"), ((101, 1), "a"), ((50, 50), "abc"), ((60, 60, 1), "ab")],
)
def test_results_that_may_be_asked_for_are_brought_back_together_up_to_a_size(sizes, read, monkeypatch):
    monkeypatch.setattr("orchestrator.engine.large_results.MAX_AHEAD_BYTES", 100)
    store = Counting()
    nodes = [a_step("a", stored(store, "a", "of a"))]
    nodes += [a_step(name, stored(store, name, f"of {name}", size)) for name, size in zip("bcd", sizes, strict=False)]
    here = NodeState(node_name="h", node_type=NodeTypes.TASK, status=TaskStatus.COMPLETED, result="here")
    state = run_of(*nodes, here)
    after = LargeResults(store).brought_back(state, "a", ["a", "none", "h", *"bcd"])
    assert "".join(store.taken()) == read
    expected = {name: f"of {name}" if name in read else None for name in state.nodes.keys() - {"h"}}
    assert {name: node.result for name, node in after.nodes.items()} == {"h": "here", **expected}
    assert after.run is state.run


def test_the_list_of_a_map_that_runs_is_brought_back_and_a_spoilt_one_says_so_when_asked_for():
    store = Counting()
    good, spoilt = a_map(stored(store, "m", [1, 2])), a_map(StoredResult("results/gone", 9), "N")
    after = LargeResults(store).brought_back(run_of(good, spoilt), "M", ["N"])
    assert after.nodes["M"].items.values == [1, 2]
    assert after.nodes["N"].items.values.message == "results/gone: is missing; it is the items of N"
    step = NodeState(node_name="I[1]", node_type=NodeTypes.TASK, status=TaskStatus.RUNNING)
    scope = scope_of_item(after.run, {**after.nodes, "I[1]": step}, step, after.nodes["N"])
    assert "item" in scope
    with pytest.raises(ExpressionError, match="results/gone: is missing"):
        scope["item"]
    with pytest.raises(KeyError):
        scope["nothing"]
    known = scope_of_item(after.run, {**after.nodes, "I[1]": step}, step, after.nodes["M"])
    assert (known["item"], known["index"]) == (2, 1)
    ended = replace(good, status=TaskStatus.COMPLETED, stored_result=stored(store, "r", "all"))
    after = LargeResults(store).brought_back(run_of(ended), "M")
    assert (after.nodes["M"].items.values, after.nodes["M"].result) == ([1, 2], "all")


def test_a_step_whose_result_is_spoilt_has_its_status_all_the_same():
    state = run_of(a_step("A", StoredResult("results/gone", 9)))
    after = LargeResults(MemoryStore()).brought_back(state, "A")
    told = scope_of(after.run, after.nodes, None)["steps"]["A"]
    assert (told["status"], len(told), list(told)) == ("Completed", 2, ["result", "status"])
    with pytest.raises(ExpressionError, match=r"^results/gone: is missing; it is the result of A$"):
        told["result"]
    assert list(scope_of(after.run, after.nodes, None)["steps"]) == ["A"]
    assert len(scope_of(after.run, after.nodes, None)["steps"]) == 1


def test_the_names_that_large_results_lie_under():
    world = World(
        {**dag(P={"type": "Pass", "result": "x" * 70_000, "next": "A"}, A=task()), "result": "${steps.A.result}y"}
    )
    run_id = world.start()
    world.end("A", Outcome.completed("z" * 70_000))

    def hashed(value):
        return sha256(msgspec.json.encode(value)).hexdigest()[:24]

    assert sorted(world.store.list("results/")) == sorted([
        f"results/{key_of(f'{run_id}/P/0')}-{hashed('x' * 70_000)}.json",
        f"results/{key_of(f'{run_id}/A/1')}.json",
        f"results/{key_of(f'{run_id}/$run/0')}-{hashed('z' * 70_000 + 'y')}.json",
    ])  # fmt: skip
    for key in world.store.list("results/"):
        assert msgspec.json.decode(world.store.get(key)[0])["at"] == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("changes", "status", "has_begun"),
    [
        ({}, "New", True),
        ({"parent": ParentRun("run_1_p", "K", 1, 1), "held": (Held("A"),)}, "New", False),
        ({"parent": ParentRun("run_1_p", "K", 1, 1), "held": (Held("A"),)}, "Running", True),
        ({"parent": ParentRun("run_1_p", "K", 1, 1)}, "New", True),
        ({"held": (Held("A"),)}, "New", True),
        ({"queued_at": T0}, "New", False),
        ({"queued_at": T0}, "Skipped", False),
        ({"queued_at": T0}, "Failed", True),
        ({"queued_at": T0, "redrives": 1}, "New", True),
        ({"queued_at": T0, "held": (Held("A"),)}, "New", False),
    ],
)
def test_when_a_run_has_begun(changes, status, has_begun):
    node = NodeState(node_name="A", node_type=NodeTypes.TASK, status=TaskStatus(status))
    state = run_of(node)
    assert _has_begun(replace(state.run, **changes), state.nodes) is has_begun


def test_parts_that_wait_to_go_on_are_skipped_where_their_map_is_stopped():
    from orchestrator.engine.items import part_ended
    from orchestrator.model.node_state import Slice

    graph = DAG(dag(M={"type": "Map", "items": "${run.input.l}", "iterator": chain("I"), "tolerated_failures": 99}))
    for stop, expected in ((None, "New"), (Failure("Map.Stopped", "x"), "Skipped")):
        parts = [
            NodeState(node_name=f"M[{n}]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag", attempt=1,
                      slice=Slice(2 * n, 2, 50, 0), status=TaskStatus(status), result={"results": [1, 2], "failed": []})
            for n, status in enumerate(("Completed", "Running", "New"))
        ]  # fmt: skip
        items = Items(6, [1, 2, 3, 4, 5, 6], started=6, ended=0, parts=3, begun_parts=3)
        entry = replace(a_map(None), items=items, stop=stop)
        draft = Draft(graph, run_of(entry, *parts), T0, Token("me.1", b"0" * 32), Policy(part_items=2))
        assert part_ended(draft, parts[0]) is None
        assert draft.nodes["M[2]"].status == expected


def test_a_redrive_of_a_run_with_large_things_reads_them_where_they_lie():
    world = World(dag(A=task("B"), B=task(parameters={"n": "${size(steps.A.result)}"})), store=Counting())
    run_id = world.start()
    world.end("A", Outcome.completed("x" * 70_000))
    world.end("B", Outcome.failed("Own.Error", "no"))
    world.clock.forward(timedelta(seconds=5).total_seconds())
    world.store.taken()
    world.executor.execute(redrive_message(run_id), message_id="r", publish_time=world.clock.now())
    assert world.target.of("B")[-1].parameters == {"n": 70_000}
    assert len(world.store.taken()) == 1
