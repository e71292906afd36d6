"""The board, results and lines: values in, lines out."""

import signal
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.cli.board import ASCII, UNICODE, board, ends, signs_for, tree
from orchestrator.cli.console import Console
from orchestrator.cli.follow import Interrupted, News, follow
from orchestrator.cli.lines import coloured, cut, pad, plain, printable, took, width_of
from orchestrator.cli.progress import LinesView, NoView, TableView, clock
from orchestrator.cli.results import outcome_lines, size_words
from orchestrator.model.commands import Failure
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.errors import StoreUnavailable
from orchestrator.model.node_state import BranchState, Items, NodeState
from orchestrator.model.run_state import RunInfo, RunState

T0 = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
RUN = RunInfo(
    format=1,
    run_id="run_1767268800_0123456789ab",
    dag="wordcount",
    definition="sha256:0",
    status=RunStatus.RUNNING,
    input={},
    started_at=T0,
)


def at(seconds):
    return T0 + timedelta(seconds=seconds)


def task(name, status=TaskStatus.NEW, following=None, began=None, ended=None, **more):
    return NodeState(
        node_name=name,
        node_type=NodeTypes.TASK,
        next=following,
        target_type="CloudFunction",
        target_name=f"f-{name.lower()}",
        status=status,
        attempt=0 if began is None else 1,
        started_at=None if began is None else at(began),
        ended_at=None if ended is None else at(ended),
        **more,
    )


def parallel(name, *starts, status=TaskStatus.NEW, following=None, began=None, ended=None):
    return NodeState(
        node_name=name,
        node_type=NodeTypes.PARALLEL,
        next=following,
        branches=tuple(map(BranchState, starts)),
        status=status,
        started_at=None if began is None else at(began),
        ended_at=None if ended is None else at(ended),
    )


def state_of(*nodes, run=RUN):
    return RunState(run, {node.node_name: node for node in nodes})


DONE, RUNNING = TaskStatus.COMPLETED, TaskStatus.RUNNING
STATE = state_of(
    task("Init", DONE, "Analyse", 0, 0.6),
    parallel("Analyse", "Count", "Profile", status=RUNNING, following="Report", began=0.6),
    task("Count", RUNNING, began=0.6),
    task("Profile", DONE, "More", 0.6, 1.8),
    task("More", TaskStatus.FAILED, None, 1.8, 1.9, error=Failure("Task.Failed", "boom")),
    task("Report"),
)


def texts(lines):
    return [plain(each) for each in lines]


def test_the_board():
    assert texts(board(STATE, at(3.7), 80, 30)) == [
        "wordcount  run_1767268800_0123456789ab               Running  3.7 s",
        "",
        "Step        Target                     Status     Attempt      Time",
        "Init        CloudFunction f-init     ✓ Completed        1     0.6 s",
        "Analyse     2 branches               ● Running                3.1 s",
        "├─ Count    CloudFunction f-count    ● Running          1     3.1 s",
        "└─ Profile  CloudFunction f-profile  ✓ Completed        1     1.2 s",
        "   More     CloudFunction f-more     ✗ Failed           1     0.1 s",
        "Report      CloudFunction f-report   · New",
    ]


def test_a_terminal_without_unicode_gets_other_signs():
    assert texts(board(STATE, at(3.7), 80, 30, ASCII))[5].startswith("|- Count    CloudFunction f-count    > Running")
    assert all(each.isascii() for each in texts(board(STATE, at(3.7), 80, 30, ASCII)))
    assert (signs_for("UTF-8"), signs_for("ascii"), signs_for(None)) == (UNICODE, ASCII, ASCII)


def test_the_board_knows_the_colour_of_a_status():
    (spans,) = [each for each in board(STATE, at(3), 80, 30) if plain(each).startswith("Init")]
    assert [style for text, style in spans if "Completed" in text] == ["green"]


def test_a_narrow_terminal_cuts_names_and_keeps_statuses():
    lines = texts(board(STATE, at(3.7), 50, 30))
    assert all(width_of(each) <= 50 for each in lines[2:])
    assert "● Running" in lines[5]
    assert "…" in lines[5]


@pytest.mark.parametrize(("height", "most"), [(24, 24), (60, 43), (10, 10)])
def test_a_run_of_many_nodes_is_summed_up_in_what_fits(height, most):
    nodes = [task(f"N{n}", DONE, None, 0, 1) for n in range(900)]
    nodes += [task(f"R{n}", RUNNING, None, 1) for n in range(98)]
    nodes += [task("Bad", TaskStatus.FAILED, None, 1, 2), task("Worse", TaskStatus.FAILED, None, 1, 2)]
    lines = texts(board(state_of(*nodes), at(3), 100, height))
    assert len(lines) <= most
    assert lines[2] == "1,000 steps: ● 98 Running   ✓ 900 Completed   ✗ 2 Failed"
    assert [each.split()[0] for each in lines[5:7]] == ["Bad", "Worse"]
    assert lines[-1].startswith("… and ")


def test_a_run_of_many_nodes_of_which_none_matters_any_more_is_one_line():
    nodes = [task(f"N{n}", DONE, None, 0, 1) for n in range(900)]
    assert texts(board(state_of(*nodes), at(3), 100, 40))[2:] == ["900 steps: ✓ 900 Completed"]


def test_the_tree_goes_as_deep_as_the_run():
    state = state_of(
        parallel("P", "A", "Q"),
        task("A", following="B"),
        task("B"),
        parallel("Q", "C", "D", following="E"),
        task("C"),
        task("D"),
        task("E"),
        task("Z"),
    )
    assert [prefix + node.node_name for prefix, node in tree(state)] == [
        "P",
        "├─ A",
        "│  B",
        "└─ Q",
        "   ├─ C",
        "   └─ D",
        "   E",
        "Z",
    ]


def test_what_depends_on_others_stands_in_its_own_branch_and_what_nothing_waits_for_is_an_end():
    state = state_of(
        NodeState(
            node_name="P",
            node_type=NodeTypes.PARALLEL,
            branches=(BranchState(starts=("A", "B")), BranchState("X")),
            status=DONE,
        ),
        task("C", DONE, depends_on=("A", "B")),
        task("A", DONE),
        task("B", DONE),
        task("X", DONE),
        task("D", DONE, depends_on=("P",)),
        task("E", DONE, depends_on=("P",)),
    )
    assert [(prefix, node.node_name) for prefix, node in tree(state)] == [
        ("", "P"),
        ("├─ ", "C"),
        ("│  ", "A"),
        ("│  ", "B"),
        ("└─ ", "X"),
        ("", "D"),
        ("", "E"),
    ]
    assert [node.node_name for node in ends(state)] == ["D", "E"]


def test_a_spoilt_document_is_shown_as_well_as_can_be():
    state = state_of(
        parallel("P", "P", "gone", "A", following="Q"), task("A", following="A"), parallel("Q", "P", following="P")
    )
    assert sorted(node.node_name for _, node in tree(state)) == ["A", "P", "Q"]
    assert ends(state) == []


def test_what_a_run_ends_with_are_the_ends_of_the_branches_of_a_parallel_at_its_end():
    state = state_of(
        task("First", following="P"),
        parallel("P", "A", "Q"),
        task("A", following="B"),
        task("B"),
        parallel("Q", "C"),
        task("C"),
    )
    assert [node.node_name for node in ends(state)] == ["B", "C"]


# -- a line a change -----------------------------------------------------------------------------------


def seen(*states, now=10, before=None):
    lines = []
    view = LinesView(lambda *each: lines.extend(each), before)
    for state in states:
        view.show(state, at(now))
    return [each.partition(" ")[2] for each in lines]


def test_changes_that_were_not_seen_one_by_one_are_told_in_their_order():
    assert seen(state_of(), STATE) == [
        "Init    Running    attempt 1",
        "Init    Completed  0.6 s",
        "Analyse Running",
        "Count   Running    attempt 1",
        "Profile Running    attempt 1",
        "Profile Completed  1.2 s",
        "More    Running    attempt 1",
        "More    Failed     0.1 s  Task.Failed: boom",
    ]


def test_of_one_save_the_inner_end_comes_first_and_the_next_start_last():
    before = state_of(
        parallel("P", "A", following="B", status=RUNNING, began=0), task("A", RUNNING, None, 0), task("B")
    )
    after = state_of(
        parallel("P", "A", following="B", status=DONE, began=0, ended=1),
        task("A", DONE, None, 0, 1),
        task("B", RUNNING, None, 1),
    )
    assert seen(after, before=before) == ["A Completed  1.0 s", "P Completed  1.0 s", "B Running    attempt 1"]


def passes(name, following=None, at_s=1, **more):
    entry = {"node_name": name, "node_type": NodeTypes.PASS, "next": following, "status": DONE}
    return NodeState(**entry, started_at=at(at_s), ended_at=at(at_s), **more)


def test_steps_that_end_in_one_instant_are_told_as_they_followed_one_another():
    before = state_of(task("W", RUNNING, "C", 0))
    after = state_of(
        passes("J"),
        passes("Big", "J"),
        NodeState(node_name="Small", node_type=NodeTypes.PASS, next="J", status=TaskStatus.SKIPPED, ended_at=at(1)),
        replace(passes("C", "Big"), node_type=NodeTypes.CONDITION, leads_to=("Small",)),
        task("W", DONE, "C", 0, 1),
    )
    assert seen(after, before=before) == [
        "W     Completed  1.0 s",
        "C     Running",
        "C     Completed  0 ms",
        "Big   Running",
        "Big   Completed  0 ms",
        "J     Running",
        "J     Completed  0 ms",
        "Small Skipped",
    ]


def test_steps_that_depend_on_others_are_told_behind_them():
    steps = passes("c", depends_on=("b", "a")), passes("b"), passes("a")
    assert [each.split()[:2] for each in seen(state_of(*steps))] == [
        [name, status] for name in "bac" for status in ("Running", "Completed")
    ]


def test_an_item_ends_after_what_is_in_it_and_its_map_after_all_items():
    error = Failure("Task.Failed", "boom")
    failed = {"status": TaskStatus.FAILED, "error": error, "started_at": at(1), "ended_at": at(1)}
    items = Items(count=2, started=2, ended=2, failed=(0, 1))
    state = state_of(
        NodeState(node_name="M", node_type=NodeTypes.MAP, items=items, **failed),
        NodeState(node_name="M[0]", node_type=NodeTypes.ITEM, **failed),
        NodeState(node_name="F[0]", node_type=NodeTypes.TASK, attempt=1, **failed),
        NodeState(node_name="M[1]", node_type=NodeTypes.ITEM, **failed),
        NodeState(node_name="F[1]", node_type=NodeTypes.TASK, attempt=1, **failed),
    )
    told = [(words[0], words[1][0]) for words in (each.split() for each in seen(state))]
    first, second = [[(f"M[{n}]", "R"), (f"F[{n}]", "R"), (f"F[{n}]", "F"), (f"M[{n}]", "F")] for n in (0, 1)]
    assert told == [("M", "R"), *first, *second, ("M", "F")]


def test_nothing_is_told_twice_and_another_attempt_is():
    first = state_of(task("A", RUNNING, None, 0))
    again = state_of(replace(task("A", RUNNING, None, 0), attempt=2))
    assert seen(first, first, again, again) == ["A Running    attempt 1", "A Running    attempt 2"]


def test_an_attempt_that_began_and_ended_unseen_is_told_in_that_order():
    waits = replace(task("A", RUNNING, None, 0), attempt=2, due={"retry": at(3)}, error=Failure("Task.Failed", "no"))
    done = replace(task("A", DONE, None, 0, 4), attempt=2)
    again = replace(task("A", DONE, None, 7, 8), attempt=3)  # by a redrive
    entered = replace(task("A"), attempt=2)
    assert [each.split()[1:4] for each in seen(*map(state_of, (waits, done, entered, again)))[-4:]] == [
        ["Running", "attempt", "2"],
        ["Completed", "4.0", "s"],
        ["Running", "attempt", "3"],
        ["Completed", "1.0", "s"],
    ]


def test_what_is_skipped_is_told_when_the_run_has_ended():
    run = replace(RUN, status=RunStatus.FAILED, ended_at=at(2))
    assert seen(state_of(task("A", TaskStatus.SKIPPED), run=run)) == ["A Skipped"]


def test_the_time_of_a_line_is_that_of_the_change():
    lines = []
    LinesView(lambda *each: lines.extend(each)).show(state_of(task("A", RUNNING, None, 5)), at(9))
    assert lines == [f"{clock(at(5))} A Running    attempt 1"]


# -- a run is not held up by being watched -----------------------------------------------------------------


def test_the_slower_a_frame_is_drawn_the_fewer_are_drawn(monkeypatch):
    monkeypatch.setattr(TableView, "_draw", lambda view, state, now: time.sleep(0.02))
    view = TableView(Console())
    view.show(STATE, at(0))
    assert view.pause_s == 0.1
    view.show(STATE, at(0.1))
    assert view.pause_s >= 0.24


def test_news_of_a_run_wake_nobody_until_it_has_ended():
    news = News()
    for _ in range(3):
        news.saved(STATE)
    began = time.monotonic()
    news.wait(0.05)
    assert time.monotonic() - began >= 0.04
    news.saved(state_of(run=replace(RUN, status=RunStatus.COMPLETED)))
    began = time.monotonic()
    news.wait(60.0)
    assert time.monotonic() - began < 30.0


class Seen(NoView):
    """Keeps what it was shown."""

    def __init__(self):
        self.states = []
        self.pause_s = 0.01

    def show(self, state, now):
        self.states.append(state)


def test_what_others_save_is_read_when_nothing_is_saved_here():
    over = state_of(run=replace(RUN, status=RunStatus.COMPLETED))
    stored = [STATE, StoreUnavailable("busy"), over]
    told = []

    def load():
        found = stored.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    view = Seen()
    assert follow(News(), view, load, lambda: T0, lambda: None, told.append, 0.0) is over
    assert (view.states, [str(each) for each in told]) == ([STATE, STATE, over], ["busy"])


def test_an_interrupt_shows_what_was_reached():
    news, view = News(), Seen()
    news.saved(STATE)
    news._on_signal(signal.SIGTERM, None)
    with pytest.raises(Interrupted) as caught:
        follow(news, view, lambda: STATE, lambda: T0, lambda: None, lambda _: None)
    assert caught.value.signum == signal.SIGTERM
    assert view.states == [STATE, STATE]


# -- results -------------------------------------------------------------------------------------------


def shown(*results, width=100, files=()):
    nodes = [replace(task(f"N{n}", DONE, None, 0, 1), result=result) for n, result in enumerate(results)]
    return texts(outcome_lines(nodes, width, dict(files).get))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        pytest.param(None, [], id="nothing"),
        pytest.param(42, ["N0  42"], id="number"),
        pytest.param(False, ["N0  false"], id="false"),
        pytest.param("", ["N0"], id="empty string"),
        pytest.param("words, words", ["N0  words, words"], id="string"),
        pytest.param("a\nb\x1b[2J", ["N0  a b\\x1b[2J"], id="nothing moves the cursor"),
        pytest.param({}, ["N0  {}"], id="empty object"),
        pytest.param([], ["N0  []"], id="empty list"),
        pytest.param({"a": 1, "long": [1, 2]}, ["N0", "  a     1", "  long  [1, 2]"], id="fields"),
        pytest.param({"a": {"b": [1, None]}}, ["N0", '  a  {"b":[1,null]}'], id="an object in an object"),
        pytest.param({"file": "/x/y"}, ["N0", "  file  /x/y  1.5 kB"], id="path of a file"),
    ],
)
def test_a_result(result, expected):
    assert shown(result, files={"/x/y": 1500}) == expected


def test_names_of_several_ends_are_aligned():
    first = replace(task("A", DONE), result=1)
    second = replace(task("Longer", DONE), result={"k": 2})
    third = replace(task("Abc", DONE), result="x")
    assert texts(outcome_lines([first, second, third], 80, {}.get)) == ["A    1", "Longer", "  k  2", "Abc  x"]


def test_a_long_list_is_shortened_to_a_line():
    (line,) = shown(list(range(1000)), width=60)
    assert line.startswith("N0  [0, 1, 2, ")
    assert line.endswith(", … 987 more]")
    assert len(line) <= 60


def test_small_objects_with_equal_keys_are_a_table_names_first():
    assert shown([{"count": 10, "word": "a"}, {"count": 9, "word": "bcd"}]) == [
        "N0",
        "  word  count",
        "  a        10",
        "  bcd       9",
    ]


def test_a_long_table_stands_in_blocks_side_by_side():
    rows = [{"word": f"w{n:02}", "count": n} for n in range(20)]
    lines = shown({"top": rows}, width=100)
    assert lines[1] == "  top  word  count    word  count    word  count    word  count"
    assert lines[2] == "       w00       0    w05       5    w10      10    w15      15"
    assert len(lines) == 1 + 1 + 5


def test_a_very_long_table_says_how_much_is_left_out():
    lines = shown([{"n": n} for n in range(1000)], width=60)
    assert lines[-1] == "  … and 960 more"
    assert len(lines) == 1 + 1 + 10 + 1


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([{"a": 1}, {"b": 1}], id="other keys"),
        pytest.param([{"a": 1}, 2], id="no object"),
        pytest.param([{"a": {"b": 1}}], id="objects inside"),
        pytest.param([{"a": "x" * 41}], id="long text"),
        pytest.param([{str(n): n for n in range(9)}], id="many columns"),
    ],
)
def test_other_lists_are_no_table(rows):
    assert len(shown(rows)) == 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)


@given(st.lists(JSON, max_size=4), st.integers(20, 200))
def test_any_result_is_shown_on_lines_that_move_no_cursor(results, width):
    for each in shown(*results, width=width):
        assert each.isprintable()


def test_many_ends_and_fields_are_counted():
    assert shown(*range(50))[-1] == "… and 10 more steps"
    assert shown({str(n): n for n in range(31)})[-1] == "  … and 1 more field"


# -- words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (-1, "0 ms"),
        (0.0123, "12 ms"),
        (0.0996, "0.1 s"),
        (1.24, "1.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (65.4, "1 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7380, "2 h 03 min"),
        (86400 * 3 + 3600, "3 d 01 h"),
    ],
)
def test_how_long_it_took(seconds, expected):
    assert took(seconds) == expected


@pytest.mark.parametrize(
    ("size", "expected"), [(999, "999 B"), (1400, "1.4 kB"), (999_960, "1.0 MB"), (3 * 10**12, "3.0 TB")]
)
def test_how_large_it_is(size, expected):
    assert size_words(size) == expected


@given(st.text(), st.integers(1, 30))
def test_what_is_cut_fits_and_what_is_padded_fills(text, width):
    text = printable(text)
    assert width_of(cut(text, width)) <= width
    assert width_of(pad(text, width)) == width or "…" in cut(text, width)


def test_wide_letters_take_two_columns():
    assert (width_of("日本"), cut("日本語", 5), pad("日", 4)) == (4, "日本…", "日  ")


def test_colours_are_codes_around_words():
    assert coloured((("a ", ""), ("b", "bold red"))) == "a \x1b[1;31mb\x1b[0m"
