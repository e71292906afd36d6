"""The child run of a part of a Map: what it begins with; and what its Map makes of its end."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from orchestrator.engine.address import Start
from orchestrator.engine.draft import Draft, Token, new_state
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.part_runs import PartRuns
from orchestrator.engine.parts import MAX_TOLD, begin, ended, failures_in, is_over, result_of_part, results_of, sum_up
from orchestrator.engine.scope import ResultNeeded, Spoilt
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus
from orchestrator.model.commands import Failure, Launch
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.errors import LaunchRefused
from orchestrator.model.node_state import Claim, Items, NodeState, Slice, StoredResult
from orchestrator.model.nodes import Map
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import Ending, ParentRun, PartOf, RunInfo, RunState
from orchestrator.stores.memory import MemoryStore
from tests.support.world import T0, dag, task

BEFORE = T0 - timedelta(hours=1)
FIRST = task("M", on_error=[{"next": "M"}])


def asking(**parameters):
    """A definition whose Map's steps ask for this, and for the result of the step before it."""
    body = dag(
        I=task("J", parameters={"s": "${steps.S.result}", **parameters}), J=task(parameters={"i": "${steps.I.result}"})
    )
    return dag(S=FIRST, M={"type": "Map", "items": "${run.input.list}", "iterator": body, "next": "Z"}, Z=task())


def a_run(definition, *, values=("a", "b", "c", "d", "e"), **changes):
    graph = DAG(definition)
    run = RunInfo(
        format=1, run_id="run_1_x", dag="dag", definition=DefinitionStatus.name(definition), status=RunStatus.RUNNING,
        input={"list": [*values], "day": "monday", "n": {"m": 1}}, started_at=T0, priority=4, scheduled_for=BEFORE,
        variables={"v": 1})  # fmt: skip
    nodes = {node.node_name: new_state(node) for node in graph.first_nodes}
    items = Items(5, [*values], started=4, parts=3, begun_parts=2)
    nodes["M"] = replace(nodes["M"], status=TaskStatus.RUNNING, items=items, caught="S")
    nodes["S"] = replace(
        nodes["S"], status=TaskStatus.COMPLETED, attempt=3, execution_id="x", result={"n": 5}, ended_at=T0,
        claim=Claim("me.1", T0, "0" * 32), due={"timeout": T0})  # fmt: skip
    for number in range(2):
        nodes[f"M[{number}]"] = NodeState(
            node_name=f"M[{number}]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag", attempt=1,
            slice=Slice(2 * number, 2, 7, 1), status=TaskStatus.RUNNING, started_at=T0)  # fmt: skip
    return RunState(replace(run, **changes), nodes)


def started(state, definition, *, node="M[1]", attempt=2, depth=3):
    store = MemoryStore()
    definitions = DefinitionStatus(store)
    definitions.save(definition)
    OrchestrationStatus(store, state.run.run_id).save(state, expect=None)
    launch = Launch(node, "Dag", "dag", dag="dag", run_id="run_1_x", attempt=attempt, depth=depth)
    return PartRuns(store, definitions, LargeResults(store)).start(launch, "run_1_y")


def test_what_a_part_begins_with():
    definition = asking()
    start = started(a_run(definition), definition)
    graph = start.dag
    bare = NodeState(
        node_name="S", node_type=NodeTypes.TASK, next="M", target_type="Function", target_name="f",
        status=TaskStatus.COMPLETED, result={"n": 5}, ended_at=T0)  # fmt: skip
    items = Items(2, ["c", "d"], first=2, at_once=7, tolerated=1)
    assert start == Start(
        "run_1_y", "dag", definition, graph, {}, "run_1_x/M[1]/2", BEFORE, {"v": 1},
        parent=ParentRun("run_1_x", "M[1]", 2, 4),
        part_of=PartOf(map="M", run_id="run_1_x", started_at=T0, ending=None),
        nodes=(bare, replace(new_state(graph.place("M")), items=items, caught="S")), priority=4)  # fmt: skip
    assert start.nodes[0].claim is None
    assert start.nodes[0].due == {}


def test_a_part_of_a_part_s_run_tells_of_the_run_that_all_are_of():
    definition = asking()
    ending = Ending(RunStatus.FAILED, Failure("Own.Error", "no"))
    above = PartOf(map="O", run_id="run_1_top", started_at=BEFORE, ending=ending)
    start = started(a_run(definition, part_of=above), definition, node="M[0]")
    assert start.part_of == PartOf(map="M", run_id="run_1_top", started_at=BEFORE, ending=ending)
    own = started(a_run(definition, ending=ending), definition, node="M[0]")
    assert own.part_of == PartOf(map="M", run_id="run_1_x", started_at=T0, ending=ending)
    assert own.nodes[-1].items.values == ["a", "b"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {}),
        ({"d": "${run.input.day}"}, {"day": "monday"}),
        ({"d": "${run.input.n.m}"}, {"n": {"m": 1}}),
        ({"d": "${run.input.day}", "l": "${size(run.input.list)}"}, {"day": "monday", "list": list("abcde")}),
        ({"d": "${run.input}"}, None),
        ({"d": "${run.run_id}"}, {}),
    ],
)
def test_of_the_run_s_input_a_part_has_what_its_steps_ask_for(parameters, expected):
    definition = asking(**parameters)
    state = a_run(definition)
    assert started(state, definition).input == (state.run.input if expected is None else expected)


@pytest.mark.parametrize(
    ("values", "stored", "words", "error_type"),
    [
        (None, None, "M: has no items", "Map.BadItems"),
        ({"no": "list"}, None, "M: has no items", "Map.BadItems"),
        (None, StoredResult("results/none.json", 9), "M: results/none.json: is missing; it is the items of M",
         "Map.BadItems"),
    ],
)  # fmt: skip
def test_a_part_without_a_list_is_refused(values, stored, words, error_type):
    definition = asking()
    state = a_run(definition)
    items = replace(state.nodes["M"].items, values=values, stored=stored)
    state = RunState(state.run, {**state.nodes, "M": replace(state.nodes["M"], items=items)})
    with pytest.raises(LaunchRefused) as told:
        started(state, definition)
    assert (str(told.value), told.value.error_type) == (words, error_type)


def nested():
    """A Map in an item of a Map, whose steps ask for steps outside of both, beside it, and of its own."""
    inner = {"type": "Map", "items": "${run.input.list}", "iterator": dag(
        I=task("K", parameters={"s": "${steps.S.result}", "t": "${steps.T.result}", "k": "${index}"}),
        K=task(parameters={"i": "${steps.I.result}"}))}  # fmt: skip
    return dag(S=task("O"), O={"type": "Map", "items": [1, 2], "iterator": dag(T=task("M"), M=inner)})


def in_items(definition):
    graph = DAG(definition)
    state = a_run(asking())
    nodes = {node.node_name: new_state(node) for node in graph.first_nodes}
    nodes["S"] = replace(nodes["S"], status=TaskStatus.COMPLETED, result="of S")
    nodes["O"] = replace(nodes["O"], status=TaskStatus.RUNNING, items=Items(2, [1, 2], started=2))
    for outer in range(2):
        nodes[f"O[{outer}]"] = NodeState(node_name=f"O[{outer}]", node_type=NodeTypes.ITEM, status=TaskStatus.RUNNING)
        own = new_state(graph.place("T"), f"[{outer}]")
        nodes[own.node_name] = replace(own, status=TaskStatus.COMPLETED, result=f"of T[{outer}]", attempt=1)
        entry = new_state(graph.place("M"), f"[{outer}]")
        items = Items(5, list("abcde"), started=4, parts=3, begun_parts=2)
        nodes[entry.node_name] = replace(entry, status=TaskStatus.RUNNING, items=items)
        for part in range(2):
            nodes[f"M[{outer}][{part}]"] = NodeState(
                node_name=f"M[{outer}][{part}]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag",
                attempt=1, slice=Slice(2 * part, 2, 7, 0), status=TaskStatus.RUNNING, started_at=T0)  # fmt: skip
    return RunState(replace(state.run, definition=DefinitionStatus.name(definition)), nodes)


@pytest.mark.parametrize("outer", [0, 1])
def test_a_part_of_a_map_in_an_item_has_the_steps_of_that_item_and_of_around_it(outer):
    definition = nested()
    start = started(in_items(definition), definition, node=f"M[{outer}][1]")
    assert {node.node_name: node.result for node in start.nodes} == {
        "S": "of S", f"T[{outer}]": f"of T[{outer}]", f"M[{outer}]": None}  # fmt: skip
    own = start.nodes[-1]
    assert (own.items.values, own.items.first, start.part_of.map) == (["c", "d"], 2, f"M[{outer}]")
    assert all(node.attempt == 0 for node in start.nodes)


@pytest.mark.parametrize("outer", ["[0]", "[1]"])
def test_a_part_of_a_map_three_deep_has_the_steps_of_each_of_the_items_around_it(outer):
    inner = {"type": "Map", "items": "${run.input.list}", "iterator": dag(
        I=task(parameters={name: f"${{steps.{name}.result}}" for name in "STU"}))}  # fmt: skip
    middle = {"type": "Map", "items": [1, 2], "iterator": dag(U=task("M"), M=inner)}
    definition = dag(S=task("O"), O={"type": "Map", "items": [1, 2], "iterator": dag(T=task("N"), N=middle)})
    graph, state = DAG(definition), a_run(asking())
    nodes = {node.node_name: new_state(node) for node in graph.first_nodes}
    for name in ("S", f"T{outer}", f"U{outer}[1]", "T[9]", f"U{outer}[0]", "U[9][1]"):
        own = new_state(graph.place(name.partition("[")[0]), name[1:])
        nodes[name] = replace(own, status=TaskStatus.COMPLETED, result=f"of {name}")
    name = f"M{outer}[1]"
    items = Items(5, list("abcde"), started=4, parts=3, begun_parts=2)
    nodes[name] = replace(new_state(graph.place("M"), f"{outer}[1]"), status=TaskStatus.RUNNING, items=items)
    nodes[f"{name}[1]"] = NodeState(
        node_name=f"{name}[1]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag", attempt=1,
        slice=Slice(2, 2, 7, 0), status=TaskStatus.RUNNING, started_at=T0)  # fmt: skip
    state = RunState(replace(state.run, definition=DefinitionStatus.name(definition)), nodes)
    start = started(state, definition, node=f"{name}[1]")
    assert {node.node_name: node.result for node in start.nodes} == {
        "S": "of S", f"T{outer}": f"of T{outer}", f"U{outer}[1]": f"of U{outer}[1]", name: None}  # fmt: skip


# -- what a Map makes of its parts -------------------------------------------------------------------------


def part(number=0, status=TaskStatus.COMPLETED, **changes):
    made = NodeState(
        node_name=f"M[{number}]", node_type=NodeTypes.PART, attempt=1, slice=Slice(2 * number, 2, 7, 0), status=status
    )
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("items", "node", "expected"),
    [
        (Items(5), part(result={"results": [1, 2], "failed": []}), Items(5, ended=2)),
        (Items(5, ended=2, failed=(3,)), part(result={"results": [1], "failed": [1]}),
         Items(5, ended=4, failed=(1, 3))),
        (Items(5), part(1, TaskStatus.FAILED), Items(5, ended=2, broken_parts=(1,))),
        (Items(5, broken_parts=(2,)), part(1, TaskStatus.CANCELLED), Items(5, ended=2, broken_parts=(1, 2))),
        (Items(5), part(12, TaskStatus.FAILED, result={"failed": [24]}),
         Items(5, ended=2, failed=(24,), broken_parts=(12,))),
        (Items(5), part(result={"failed": ["x", 1, None]}), Items(5, ended=2, failed=(1,))),
        (Items(5), part(result={"failed": "x"}), Items(5, ended=2)),
        (Items(5), part(result="odd"), Items(5, ended=2)),
        (Items(5), part(slice=None), Items(5)),
        (Items(9000, failed=tuple(range(MAX_TOLD - 1)), more_failed=4), part(result={"failed": [8000, 8001, 8002]}),
         Items(9000, ended=2, failed=(*range(MAX_TOLD - 1), 8000), more_failed=6)),
    ],
)  # fmt: skip
def test_what_a_map_knows_of_its_items_once_a_part_has_ended(items, node, expected):
    assert ended(items, node) == expected


def test_what_a_part_comes_to_is_found_again_in_what_its_run_comes_to():
    told = result_of_part([1, None], Items(2, failed=(1,)))
    assert told == {"results": [1, None], "failed": [1]}
    assert [results_of(each) for each in (told, {"results": "x"}, {}, None, [1])] == [[1, None], [], [], [], []]
    assert failures_in(Items(9, failed=(1, 2), more_failed=5)) == 7


GRAPH = DAG(dag(M={"type": "Map", "items": "${run.input.list}", "iterator": dag(I=task()), "max_concurrency": 120}))


def drafted(*nodes, **items):
    run = RunInfo(
        format=1, run_id="run_1_x", dag="dag", definition="", status=RunStatus.RUNNING, input={}, started_at=T0
    )
    made = Items(5, [1, 2, 3, 4, 5], **{"parts": 3, "begun_parts": len(nodes), **items})
    entry = replace(new_state(GRAPH.place("M")), status=TaskStatus.RUNNING, items=made)
    state = RunState(run, {"M": entry, **{node.node_name: node for node in nodes}})
    draft = Draft(GRAPH, state, T0, Token("me.1", b"0" * 32), Policy(part_items=2))
    return draft, entry, made


@pytest.mark.parametrize(
    ("nodes", "items", "expected"),
    [
        ([part(0, result={"results": [1, 2]}), part(1, result={"results": [3, 4]}), part(2, result={"results": [5]})],
         {"ended": 5}, (TaskStatus.COMPLETED, None, [1, 2, 3, 4, 5])),
        ([part(0, result=Spoilt("is gone")), part(1), part(2)], {"ended": 5},
         (TaskStatus.FAILED, Failure("Map.BadResult", "is gone"), None)),
        ([part(0), part(1, TaskStatus.CANCELLED, error=Failure("a", "b")),
          part(2, TaskStatus.FAILED, error=Failure("c", "d"))],
         {"ended": 5, "broken_parts": (1, 2)}, (TaskStatus.FAILED, Failure("c", "d", "M[2]"), None)),
        ([part(0), part(1, TaskStatus.CANCELLED, error=Failure("a", "b", "I[3]"))], {"ended": 4, "broken_parts": (1,)},
         (TaskStatus.CANCELLED, Failure("a", "b", "I[3]"), None)),
        ([part(0, TaskStatus.FAILED)], {"ended": 2, "broken_parts": (0,)}, (TaskStatus.FAILED, None, None)),
        ([part(0)], {"ended": 2}, (TaskStatus.CANCELLED, None, None)),
    ],
    ids=["completed", "one spoilt", "one failed", "one cancelled", "no error", "stopped"],
)  # fmt: skip
def test_what_a_map_comes_to_whose_parts_have_ended(nodes, items, expected):
    draft, entry, made = drafted(*nodes, **items)
    assert sum_up(draft, entry, made, has_failed=False) == expected


def test_a_map_with_too_many_failures_says_how_many_and_which_is_the_first():
    draft, entry, made = drafted(part(0), ended=2, failed=(3, 4), more_failed=1200)
    words = "M: 1,202 of 5 items have not completed; the first is 3"
    assert sum_up(draft, entry, made, has_failed=True) == (
        TaskStatus.FAILED, Failure("Map.TooManyFailures", words), None)  # fmt: skip


def test_the_result_of_a_part_that_lies_beside_the_document_is_asked_for():
    stored = part(1, stored_result=StoredResult("results/x.json", 9))
    draft, entry, made = drafted(part(0), stored, part(2), ended=5)
    with pytest.raises(ResultNeeded, match=r"^M\[1\]$"):
        sum_up(draft, entry, made, has_failed=False)


@pytest.mark.parametrize(
    ("nodes", "parts", "entering", "started"),
    [
        ([], 3, ["M[0]", "M[1]", "M[2]"], 5),
        ([], 2, ["M[0]", "M[1]"], 4),
        ([part(0, TaskStatus.RUNNING)], 3, ["M[1]", "M[2]"], 5),
        ([part(0, TaskStatus.RUNNING), part(1, TaskStatus.RUNNING)], 3, ["M[2]"], 5),
        ([part(0, TaskStatus.NEW), part(1), part(2, TaskStatus.NEW)], 3, ["M[0]", "M[2]"], 4),
        ([part(0, TaskStatus.RUNNING), part(1, TaskStatus.RUNNING), part(2, TaskStatus.RUNNING)], 3, [], 4),
    ],
)
def test_as_many_parts_begin_as_may_run_at_once(nodes, parts, entering, started):
    draft, entry, made = drafted(*nodes, parts=parts, started=2 * len(nodes) if len(nodes) < 3 else 4)
    place = GRAPH.place("M")
    assert isinstance(place, Map)
    begin(draft, place, entry, made, 4)
    assert [name for name, _ in draft.entering] == entering
    after = draft.nodes["M"].items
    assert (after.started, after.begun_parts) == (started, max(len(nodes), parts if entering else 0))
    fresh = draft.nodes.get("M[1]")
    if not nodes:
        assert fresh.slice == Slice(2, 2, 120 // min(parts, 3), 4)
        assert (fresh.attempt, fresh.target_type, fresh.target_name) == (0, "Dag", "dag")


def test_no_part_begins_beyond_those_that_may_run_at_once():
    draft, entry, made = drafted(*(part(n, TaskStatus.RUNNING) for n in range(4)), parts=9, started=8)
    begin(draft, GRAPH.place("M"), entry, replace(made, count=20), 0)
    assert list(draft.entering) == []


def test_a_map_of_parts_is_over_when_none_is_under_way():
    for status in TaskStatus:
        draft, entry, _ = drafted(part(0), part(1, status))
        assert is_over(draft, entry) is status.is_final
