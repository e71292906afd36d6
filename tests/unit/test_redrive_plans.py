"""What a redrive enters again, told from statuses alone: of steps that depend on others, of items, of parts."""

import pytest
from msgspec.structs import replace

from orchestrator.engine.decide import decide
from orchestrator.engine.draft import Draft, Token, new_state
from orchestrator.engine.redrive_plan import Plan
from orchestrator.engine.redriving import _fresh, _open_parts, _opened_map, entered, is_about, refusal
from orchestrator.model.commands import Failure
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.facts import RedriveRequested, RunStarted
from orchestrator.model.node_state import GoesOn, Items, NodeState, Slice, StoredResult
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunInfo, RunState
from tests.support.world import T0, World, chain, dag, parallel, task

LETTERS = {"C": "Completed", "F": "Failed", "X": "Cancelled", "S": "Skipped", "N": "New", "R": "Running"}
TOKEN = Token("me.1", b"0" * 32)


def state_of(definition, statuses="", **changes):
    """A run whose nodes are as letters say, in the order of its nodes; it has ended."""
    graph = DAG(definition)
    nodes = {node.node_name: new_state(node) for node in graph.first_nodes}
    for name, letter in zip(nodes, statuses.replace(" ", ""), strict=bool(statuses)):
        status = TaskStatus(LETTERS[letter])
        attempt = int(status not in (TaskStatus.NEW, TaskStatus.SKIPPED) and nodes[name].target_type is not None)
        nodes[name] = replace(nodes[name], status=status, attempt=attempt)
    run = RunInfo(
        format=1, run_id="run_1_x", dag="dag", definition="d", status=RunStatus.FAILED, input={}, started_at=T0,
        ended_at=T0)  # fmt: skip
    return graph, RunState(replace(run, **changes), nodes)


def plan_of(definition, statuses, start_from=None):
    graph, state = state_of(definition, statuses)
    return Plan.of_run(graph, state, start_from)


def after(trigger=None, *names, **keys):
    return task(depends_on=list(names), **({"trigger": trigger} if trigger else {}), **keys)


def joined(trigger):
    """A (which an error may lead on from), B, and D that depends on both."""
    return {"steps": {"A": task(on_error=[{"next": "H"}]), "B": task(), "H": task(), "D": after(trigger, "A", "B")}}


@pytest.mark.parametrize(
    ("trigger", "statuses", "entering", "again"),
    [
        (None, "C C S N", [("D", None)], ["D"]),
        (None, "F C C N", [], []),  # its error was handled, and it did not complete
        (None, "C F S N", [("B", None)], ["B", "D"]),
        ("all_done", "C C S N", [("D", None)], ["D"]),
        ("all_done", "F C C N", [("D", None)], ["D"]),
        ("all_done", "C F S N", [("B", None)], ["B", "D"]),
        ("all_done", "C F S C", [("B", None)], ["B", "D"]),
        ("one_failed", "C C S N", [], []),
        ("one_failed", "F C C N", [("D", "A")], ["D"]),
        ("one_failed", "X C C N", [("D", "A")], ["D"]),
        ("one_failed", "C F S S", [("B", None)], ["B", "D"]),
        ("one_failed", "F F C C", [("B", None)], ["B"]),  # the first failure, which is kept, has let it start
        ("one_failed", "F F C F", [("B", None), ("D", None)], ["B", "D"]),
    ],
)
def test_what_depends_on_others_is_entered_as_its_trigger_says(trigger, statuses, entering, again):
    plan = plan_of(joined(trigger), statuses)
    assert (plan.entering, plan.again) == (entering, again)
    assert plan.is_empty is not bool(entering)


@pytest.mark.parametrize("trigger", [None, "all_done", "one_failed"])
def test_in_an_item_too(trigger):
    definition = dag(M={"type": "Map", "items": [1, 2], "iterator": joined(trigger)})
    graph, state = state_of(definition)
    nodes = {
        "M": replace(
            state.nodes["M"],
            status=TaskStatus.FAILED,
            items=Items(2, [1, 2], started=2, ended=2, failed=(1,)),
            caught="C",
        ),
        **{
            f"M[{n}]": NodeState(node_name=f"M[{n}]", node_type=NodeTypes.ITEM, status=TaskStatus.FAILED, caught="C")
            for n in (0, 1)
        },
    }
    for name, letter in zip("ABHD", "FCCN", strict=True):
        made = new_state(graph.place(name), "[1]")
        nodes[made.node_name] = replace(made, status=TaskStatus(LETTERS[letter]))
    plan = Plan.of_item(graph, nodes, "M[1]")
    expected = {"all_done": [("D[1]", "C")], "one_failed": [("D[1]", "A[1]")]}
    assert plan.items == ["M[1]"]
    if trigger is None:  # nowhere: all of it again
        assert plan.entering == [("A[1]", "C"), ("B[1]", "C")]
        assert plan.again == ["A[1]", "B[1]", "H[1]", "D[1]"]
    else:
        assert (plan.entering, plan.again) == (expected[trigger], ["D[1]"])


def test_which_step_of_a_route_is_entered():
    routed = dag(A=task("B", on_error=[{"next": "H"}]), B=task(), H=task())
    assert plan_of(routed, "F S N").entering == [("A", None)], "it was not led on from"
    assert plan_of(routed, "C N S").entering == [("B", None)]
    assert plan_of(routed, "C F S").entering == [("B", None)]
    assert plan_of(routed, "F S F").entering == [("H", None)]
    assert plan_of(routed, "N N N").entering == [("A", None)]


def test_what_was_not_come_to_in_a_parallel_has_what_that_has_caught():
    definition = dag(P={**parallel(chain("A", "B"), chain("C")), "next": "Z"}, Z=task())
    graph, state = state_of(definition, "F CNN N".replace(" ", ""))
    nodes = {**state.nodes, "P": replace(state.nodes["P"], caught="Z")}
    plan = Plan.of_run(graph, RunState(state.run, nodes))
    assert plan.entering == [("B", None), ("C", "Z")]
    assert plan.opened == [("P", (0, 1))]
    assert plan.again == ["B", "C", "Z"]


def test_the_error_that_led_to_an_end_that_says_failed_is_of_the_step_that_runs_again():
    failed_end = {"type": "End", "status": "Failed"}
    graph, state = state_of(dag(A=task("Z", on_error=[{"next": "H"}]), H=task("E"), E=failed_end, Z=task()), "F C F S")
    nodes = {**state.nodes, "E": replace(state.nodes["E"], caught="A"), "A": replace(state.nodes["A"], caught="Q")}
    plan = Plan.of_run(graph, RunState(state.run, nodes))
    assert (plan.entering, plan.again) == ([("A", "Q")], ["A", "H", "E", "Z"])


FINAL = {**dag(A=task("B"), B=task()), "finally": chain("F", "G")}


@pytest.mark.parametrize(
    ("statuses", "start_from", "entering", "again", "is_finally"),
    [
        ("C F C C", None, ["B"], ["B", "F", "G"], False),
        ("C C F N", None, ["F"], ["F", "G"], True),
        ("C C C F", None, ["G"], ["G"], True),
        ("C C C C", None, [], [], False),
        ("C C C C", "A", ["A"], ["A", "B", "F", "G"], False),
        ("C C C C", "F", ["F"], ["F", "G"], True),
    ],
)
def test_a_finally_runs_again_after_what_went_before_it(statuses, start_from, entering, again, is_finally):
    plan = plan_of(FINAL, statuses, start_from)
    assert [name for name, _ in plan.entering] == entering
    assert (plan.again, plan.is_finally, plan.chosen) == (again, is_finally, start_from)


# -- Maps ------------------------------------------------------------------------------------------------

LIST = dag(M={"type": "Map", "items": [5, 6, 7, 8], "iterator": chain("I", "J"), "next": "Z"}, Z=task())


def mapped(*, started=4, failed=(), again=(), status=TaskStatus.FAILED, **items):
    """A run of a Map of four items, of which so many have begun."""
    graph, state = state_of(LIST)
    made = Items(4, [5, 6, 7, 8], started=started, ended=started, failed=failed, again=again, **items)
    nodes = {**state.nodes, "M": replace(state.nodes["M"], status=status, items=made)}
    for index in range(started):
        is_failed = index in failed
        status = TaskStatus.FAILED if is_failed else TaskStatus.COMPLETED
        nodes[f"M[{index}]"] = NodeState(
            node_name=f"M[{index}]", node_type=NodeTypes.ITEM, status=status, caught=f"caught{index}"
        )
        for name, letter in zip("IJ", "FN" if is_failed else "CC", strict=True):
            own = new_state(graph.place(name), f"[{index}]")
            nodes[own.node_name] = replace(own, status=TaskStatus(LETTERS[letter]), attempt=1)
    return graph, RunState(state.run, nodes)


@pytest.mark.parametrize(
    ("ran", "start_from", "maps", "items", "entering"),
    [
        ({"failed": (1, 3)}, None, [("M", ())], [], []),
        ({"started": 2}, None, [("M", ())], [], []),
        ({}, None, [], [], [("M", None)]),
        ({"failed": (1,)}, "I[1]", [("M", (1,))], ["M[1]"], [("I[1]", None)]),
        ({"failed": (1,)}, "J[0]", [("M", (0,))], ["M[0]"], [("J[0]", None)]),
        ({"failed": (1,)}, "M[2]", [("M", (2,))], ["M[2]"], [("I[2]", "caught2")]),
        ({"failed": (1,)}, "M", [], [], [("M", None)]),
        ({"failed": (1,)}, "Z", [("M", ())], [], []),
    ],
    ids=["two failed", "two never began", "its result failed", "a failed step", "a step", "an item", "all", "behind"],
)
def test_a_map_goes_on(ran, start_from, maps, items, entering):
    graph, state = mapped(**ran)
    if start_from == "Z":
        state = RunState(state.run, {**state.nodes, "Z": replace(state.nodes["Z"], status=TaskStatus.FAILED)})
    plan = Plan.of_run(graph, state, start_from)
    assert (plan.maps, plan.items, plan.entering) == (maps, items, entering)
    assert not plan.is_empty
    assert plan.again[-1] == "Z"


def test_a_map_that_runs_again_as_a_whole_has_all_new_that_is_of_it_and_nothing_else():
    graph, state = mapped(started=2, failed=(1,))
    other = NodeState(node_name="K[0]", node_type=NodeTypes.TASK, status=TaskStatus.COMPLETED)
    plan = Plan.of_run(graph, RunState(state.run, {**state.nodes, "K[0]": other}), "M")
    assert plan.again == ["M", "M[0]", "I[0]", "J[0]", "M[1]", "I[1]", "J[1]", "Z"]


@pytest.mark.parametrize(
    ("items", "at_once", "expected"),
    [
        (Items(4, started=4, ended=4, failed=(1, 3)), (), Items(4, started=4, ended=2, again=(1, 3))),
        (Items(4, started=4, ended=4, failed=(1, 3)), (3,), Items(4, started=4, ended=2, again=(1,))),
        (Items(4, started=4, ended=4, failed=(1, 3)), (0,), Items(4, started=4, ended=1, again=(1, 3))),
        (Items(4, started=2, ended=2), (), Items(4, started=2, ended=2)),
    ],
)
def test_an_opened_map_counts_what_is_to_go_on_as_begun_and_not_ended(items, at_once, expected):
    node = NodeState(
        node_name="M",
        node_type=NodeTypes.MAP,
        status=TaskStatus.FAILED,
        items=items,
        stop=Failure("Map.Stopped", "x"),
        error=Failure("x", "y"),
        ended_at=T0,
        result=1,
        stored_result=StoredResult("r", 1),
        started_at=T0,
    )
    assert _opened_map(node, at_once) == NodeState(
        node_name="M", node_type=NodeTypes.MAP, status=TaskStatus.RUNNING, items=expected, started_at=T0
    )


# -- parts -----------------------------------------------------------------------------------------------

LONG = dag(
    M={"type": "Map", "items": "${run.input.list}", "iterator": chain("I", "J"), "tolerated_failures": 1, "next": "Z"},
    Z=task(),
)


def in_parts(letters, *, parts=3, failed=(), more_failed=0, broken=(), attempt=1):
    """A run of a Map of five items in three parts, of which as many have begun as there are letters."""
    graph, state = state_of(LONG)
    items = Items(
        5, [1, 2, 3, 4, 5], started=2 * len(letters), ended=2 * len(letters), failed=failed, parts=parts,
        begun_parts=len(letters), broken_parts=broken, more_failed=more_failed)  # fmt: skip
    entry = replace(state.nodes["M"], status=TaskStatus.FAILED, items=items, ended_at=T0, result=1)
    entry = replace(entry, stop=Failure("x", "y"), stored_result=StoredResult("r", 1), error=Failure("x", "y"))
    nodes = {**state.nodes, "M": entry}
    for number, letter in enumerate(letters):
        nodes[f"M[{number}]"] = NodeState(
            node_name=f"M[{number}]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag", attempt=attempt,
            slice=Slice(2 * number, 1 if number == 2 else 2, at_once=9, tolerated=7),
            status=TaskStatus(LETTERS[letter]),
            execution_id=f"run_1_part{number}", error=Failure("x", "y"), started_at=T0)  # fmt: skip
    return graph, RunState(state.run, nodes)


@pytest.mark.parametrize(
    ("ran", "start_from", "parts", "entering"),
    [
        ({"letters": "CFC"}, None, [("M", (1,))], []),
        ({"letters": "CCC", "failed": (0, 4)}, None, [("M", (0, 2))], []),
        ({"letters": "CCC", "failed": (1, 2)}, None, [("M", (0, 1))], []),
        ({"letters": "CXC", "failed": (1,)}, None, [("M", (0, 1))], []),
        ({"letters": "CCC", "more_failed": 1}, None, [("M", (0, 1, 2))], []),
        ({"letters": "C"}, None, [("M", ())], []),
        ({"letters": "CCC"}, None, [], [("M", None)]),
        ({"letters": "CFC"}, "M[2]", [("M", (1, 2))], []),
        ({"letters": "CCC"}, "M[0]", [("M", (0,))], []),
        ({"letters": "CFC"}, "M", [], [("M", None)]),
    ],
)
def test_a_map_of_parts_goes_on(ran, start_from, parts, entering):
    graph, state = in_parts(**ran)
    plan = Plan.of_run(graph, state, start_from)
    assert (plan.parts, plan.entering, plan.is_empty) == (parts, entering, False)


def drafted(graph, state):
    return Draft(graph, state, T0, TOKEN, Policy())


@pytest.mark.parametrize(
    ("numbers", "chosen", "ended", "goes_on"),
    [
        ((1,), None, 3, {1: GoesOn("run_1_part1", 2)}),
        ((0, 2), None, 2, {0: GoesOn("run_1_part0", 2), 2: GoesOn("run_1_part2", 2)}),
        ((1, 2), "M[2]", 2, {1: GoesOn("run_1_part1", 2), 2: None}),
        ((), None, 5, {}),
    ],
)
def test_parts_that_go_on_do_so_in_their_own_runs_and_a_chosen_one_in_a_new_one(numbers, chosen, ended, goes_on):
    graph, state = in_parts("CFX", failed=(2, 3), broken=(1, 2), more_failed=4)
    draft = drafted(graph, state)
    _open_parts(draft, "M", numbers, chosen)
    entry = draft.nodes["M"]
    assert entry.items == Items(5, [1, 2, 3, 4, 5], started=6, ended=ended, parts=3, begun_parts=3)
    assert (entry.status, entry.ended_at, entry.error, entry.stop) == ("Running", None, None, None)
    assert (entry.result, entry.stored_result) == (None, None)
    for number in range(3):
        part, before = draft.nodes[f"M[{number}]"], state.nodes[f"M[{number}]"]
        if number not in goes_on:
            assert part == before
            continue
        assert part == NodeState(
            node_name=f"M[{number}]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag", attempt=1,
            slice=replace(before.slice, tolerated=1), status=TaskStatus.NEW, goes_on=goes_on[number])  # fmt: skip


def test_a_part_that_was_to_go_on_before_and_was_not_come_to_still_is_to():
    graph, state = in_parts("CF")
    waiting = replace(state.nodes["M[1]"], goes_on=GoesOn("run_1_older", 2))
    draft = drafted(graph, RunState(state.run, {**state.nodes, "M[1]": waiting}))
    _open_parts(draft, "M", (1,), None)
    assert draft.nodes["M[1]"].goes_on == GoesOn("run_1_older", 2)


def test_what_is_new_again_is_as_it_was_before_it_was_come_to():
    graph, state = in_parts("C")
    draft = drafted(graph, state)
    assert _fresh(draft, state.nodes["M[0]"]) == NodeState(
        node_name="M[0]", node_type=NodeTypes.PART, target_type="Dag", target_name="dag",
        slice=state.nodes["M[0]"].slice, status=TaskStatus.NEW)  # fmt: skip
    item = NodeState(node_name="Q[3]", node_type=NodeTypes.ITEM, status=TaskStatus.FAILED, caught="X", ended_at=T0)
    assert _fresh(draft, item) == NodeState(node_name="Q[3]", node_type=NodeTypes.ITEM, status=TaskStatus.NEW)
    assert _fresh(draft, state.nodes["M"]) == new_state(graph.place("M"))
    step = replace(new_state(graph.place("I"), "[2]"), status=TaskStatus.FAILED, attempt=3)
    assert _fresh(draft, step) == new_state(graph.place("I"), "[2]")


DEEP = dag(
    O={"type": "Map", "items": [1, 2], "iterator": dag(
        M={"type": "Map", "items": "${run.input.list}", "iterator": dag(
            K={"type": "Map", "items": [1], "iterator": chain("I")})})})  # fmt: skip


def redriven_names():
    here = "M runs as 3 parts, and {0} is in run_1_part{1}, the run of M[{1}]; redrive run_1_part{1} with --from {0}, "
    here += "and after that this run; --from M[{1}] runs all of the part again"
    for name, number in (("I[0]", 0), ("I[1]", 0), ("J[2]", 1), ("I[3]", 1), ("J[4]", 2)):
        yield name, "CCC", here.format(name, number)
    yield "I[5]", "CCC", "M has 5 items, of which I[5] is none; the last one is 4"
    yield "I[4]", "CC", "did not come by I[4]; it can go on from a step that it came by"
    yield "I[0][1]", "CC", here.format("I[0][1]", 0)
    yield "M[2]", "CC", here.format("M[2]", 1)
    yield "M[4]", "CC", "did not come by M[4]; it can go on from a step that it came by"
    yield "Z[0]", "CC", 'has no step "Z[0]"; did you mean "M[0]"?'
    yield "Elsewhere", "CC", 'has no step "Elsewhere"; there are "M", "M[0]", "M[1]"'
    yield "I", "CC", 'has no step "I"; there are "M", "M[0]", "M[1]"'
    yield "Mm", "CC", 'has no step "Mm"; did you mean "M"?'
    yield "Z", "CC", "did not come by Z; it can go on from a step that it came by"
    yield "M[1]", "CC", None
    yield None, "CC", None


@pytest.mark.parametrize(("name", "letters", "words"), [*redriven_names()])
def test_where_a_step_of_an_item_is_that_runs_in_a_part(name, letters, words):
    graph, state = in_parts(letters)
    assert refusal(graph, state, name) == words


@pytest.mark.parametrize("number", [0, 1])
def test_in_an_item_of_another_map_too(number):
    graph, state = state_of(DEEP)
    items = Items(5, [1, 2, 3, 4, 5], started=4, ended=4, parts=3, begun_parts=2)
    entries = {"O": replace(state.nodes["O"], status=TaskStatus.FAILED, items=Items(2, [1, 2], started=2, ended=2))}
    for outer in range(2):
        entry = new_state(graph.place("M"), f"[{outer}]")
        entries[entry.node_name] = replace(entry, status=TaskStatus.FAILED, items=items)
        for part in range(2):
            entries[f"M[{outer}][{part}]"] = NodeState(
                node_name=f"M[{outer}][{part}]", node_type=NodeTypes.PART, slice=Slice(2 * part, 2, 9, 0),
                attempt=1, target_type="Dag", started_at=T0,
                status=TaskStatus.COMPLETED, execution_id=f"run_1_{outer}{part}")  # fmt: skip
    state = RunState(state.run, {**state.nodes, **entries})
    said = refusal(graph, state, f"I[{number}][3][0]")
    assert said.startswith(f"M[{number}] runs as 3 parts, and I[{number}][3][0] is in run_1_{number}1, the run of M[")
    assert f"--from M[{number}][1] runs all" in said
    assert refusal(graph, state, f"I[{number}][7][0]").startswith(f"M[{number}] has 5 items, of which I[{number}][7]")
    assert refusal(graph, state, f"I[{number}][4][0]").startswith(f"did not come by I[{number}][4][0]; ")
    assert refusal(graph, state, "I[5][0][0]").startswith('has no step "I[5][0][0]"; ')


# -- requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "redrives", "number", "later_s", "is_so"),
    [
        (RunStatus.FAILED, 0, 1, -5, True),
        (RunStatus.FAILED, 0, 2, 5, False),
        (RunStatus.FAILED, 3, 4, -5, True),
        (RunStatus.FAILED, 3, 3, 5, False),
        (RunStatus.FAILED, 0, None, 1, True),
        (RunStatus.FAILED, 0, None, 0, False),
        (RunStatus.FAILED, 0, None, -1, False),
        (RunStatus.RUNNING, 0, 1, 5, False),
        (RunStatus.RUNNING, 0, None, 5, False),
    ],
)
def test_which_end_a_request_is_about(status, redrives, number, later_s, is_so):
    from datetime import timedelta

    _, state = state_of(chain("A"), "F", status=status, redrives=redrives)
    fact = RedriveRequested(T0 + timedelta(seconds=later_s), number)
    assert is_about(state.run, fact) is is_so


@pytest.mark.parametrize(
    ("statuses", "status", "start_from", "pruned", "words", "enters"),
    [
        ("F S", RunStatus.FAILED, None, False, None, ("A",)),
        ("C F", RunStatus.FAILED, "A", False, None, ("A",)),
        ("C C", RunStatus.COMPLETED, "B", False, None, ("B",)),
        ("C C", RunStatus.COMPLETED, None, False,
         "has completed, so there is nothing to redrive; --from STEP runs it again from a step", ()),
        ("C C", RunStatus.FAILED, None, False,
         "has no step that did not complete, only its result failed; --from STEP runs it again from a step", ()),
        ("F S", RunStatus.FAILED, None, True, "is being deleted by prune, which cannot be undone", ()),
        ("R N", RunStatus.RUNNING, None, False, "is Running; it can be redriven once it has ended", ()),
        ("R N", RunStatus.PAUSED, "A", False, "is Paused; it can be redriven once it has ended", ()),
    ],
)  # fmt: skip
def test_which_run_can_be_redriven_and_what_starts_then_at_once(statuses, status, start_from, pruned, words, enters):
    graph, state = state_of(chain("A", "B"), statuses, status=status, pruned_at=T0 if pruned else None)
    assert refusal(graph, state, start_from) == words
    assert entered(graph, state, RedriveRequested(T0, 1, start_from)) == enters


def test_a_redriven_run_is_as_if_it_had_not_ended_with_all_its_time_before_it():
    from datetime import timedelta

    definition = {**chain("A", "B"), "timeout": "1h", "deadline": "2h"}
    graph, state = state_of(
        definition, "F S", error=Failure("x", "y"), cancel_reason="why", is_out_of_time=True, is_late=True,
        timeout_at=T0, deadline_at=T0, result=5, result_of="A", is_resuming=True)  # fmt: skip
    now = T0 + timedelta(hours=5)
    decision = decide(graph, state, [RedriveRequested(now, 1)], now, TOKEN, Policy())
    run = decision.state.run
    assert run == replace(
        state.run, status=RunStatus.RUNNING, redrives=1, redriven_at=now, ended_at=None, error=None,
        cancel_reason=None, is_out_of_time=False, is_late=False, timeout_at=now + timedelta(hours=1),
        deadline_at=now + timedelta(hours=2), result=None, result_of=None, is_resuming=False)  # fmt: skip
    scheduled = RunState(replace(state.run, scheduled_for=T0), state.nodes)
    run = decide(graph, scheduled, [RedriveRequested(now, 1)], now, TOKEN, Policy()).state.run
    assert (run.deadline_at, run.is_late) == (T0, True), "what it is for is as late as before"


def test_a_map_of_a_run_in_world_is_refused_in_the_words_of_its_own_parts():
    world = World(
        dag(M={"type": "Map", "items": "${run.input.l}", "iterator": chain("I")}), inline_items=1, part_items=2
    )
    state = world.state(world.start(input={"l": [1, 2, 3]}))
    assert state.nodes["M[0]"].error.error_type == "Launch.NoTarget"
    assert state.nodes["M[0]"].error.message == (
        "M[0]: there is no target Dag here; there is CloudFunction, Dataflow, Function"
    )
    graph = DAG(dag(M={"type": "Map", "items": "${run.input.l}", "iterator": chain("I")}))
    assert refusal(graph, state, "I[1]").startswith("M runs as 2 parts, and I[1] is in ")
    assert (
        decide(graph, None, [RunStarted("run_1_x", "dag", "s", {"l": []}, "m")], T0, TOKEN, Policy())
        .state.nodes["M"]
        .result
        == []
    )
