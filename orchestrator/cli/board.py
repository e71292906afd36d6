"""The board: a run as a table for people, a row a node, those inside of a Parallel as a tree under it. Pure.

    wordcount  run_1791283200_5c1e9f0b2a47                         Running  4.2 s

    Step        Target                            Status       Attempt     Time
    Init        CloudFunction wordcount-init      ✓ Completed        1    0.6 s
    Analyse     2 branches                        ● Running               3.1 s
    ├─ Count    Dataflow wordcount                ● Running          1    3.1 s
    └─ Profile  CloudFunction wordcount-profile   ✓ Completed        1    1.2 s
    Report      CloudFunction wordcount-report    · New

A run of more nodes than fit is summed up: how many there are of each status, and the rows that matter.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from orchestrator.cli.lines import Line, columns, counted, cut, line, local_time, pad, plain, printable, took, width_of
from orchestrator.model.enums import DueKind, NodeTypes, RunStatus, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState, child_of

MAX_ROWS = 40
"""A board of more rows nobody reads."""

STYLES: Mapping[str, str] = {
    TaskStatus.NEW: "dim",
    TaskStatus.RUNNING: "cyan",
    TaskStatus.COMPLETED: "green",
    TaskStatus.FAILED: "red",
    TaskStatus.SKIPPED: "dim",
    TaskStatus.CANCELLED: "yellow",
    RunStatus.QUEUED: "dim",
    RunStatus.PAUSED: "yellow",
}
"""Status of a node or a run -> its style."""

_MAX_FAILED = 5
_MATTERS = (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Signs:
    """What is drawn beside the words: `marks` by status, and the parts of a tree."""

    marks: Mapping[str, str]
    branch: str
    last_branch: str
    trunk: str
    dots: str


UNICODE = Signs(
    dict(zip(TaskStatus, "·●✓✗–■", strict=True)) | {RunStatus.QUEUED: "·", RunStatus.PAUSED: "■"},
    "├─ ",
    "└─ ",
    "│  ",
    "…",
)
ASCII = Signs(
    dict(zip(TaskStatus, ".>+x-#", strict=True)) | {RunStatus.QUEUED: ".", RunStatus.PAUSED: "#"},
    "|- ",
    "`- ",
    "|  ",
    "...",
)


def signs_for(encoding: str | None) -> Signs:
    """Return the signs that a stream of this encoding can show."""
    return UNICODE if (encoding or "").lower().replace("-", "") in ("utf8", "utf16", "utf8sig") else ASCII


def board(state: RunState, now: datetime, width: int, height: int, signs: Signs = UNICODE) -> list[Line]:
    """Return the board's lines, at most `height` (10 or more) of at most `width` columns."""
    most, state = min(MAX_ROWS, height - 3), without_items(state)
    if len(state.nodes) <= most:
        rows = table(list(tree(state, signs)), now, width, signs, state.run.run_id)
        return [_header(state, now, max(width_of(plain(each)) for each in rows)), line(""), *rows]
    lines = [_header(state, now, min(width, 80)), line(""), _counts(state, signs)]
    tasks = [node for node in state.nodes.values() if node.node_type in (NodeTypes.TASK, NodeTypes.MAP)]
    matter = [node for status in _MATTERS for node in tasks if node.status is status]
    if not matter:
        return lines
    most -= 4
    lines += [line(""), *table([("", node) for node in matter[:most]], now, width, signs, state.run.run_id)]
    if len(matter) > most:
        lines.append(line(f"{signs.dots} and {len(matter) - most:,} more", "dim"))
    return lines


def without_items(state: RunState) -> RunState:
    """Return a run without what stands in it for single items of Maps: a Map is one row."""
    if not any(node.items is not None for node in state.nodes.values()):
        return state
    return RunState(state.run, {name: node for name, node in state.nodes.items() if name[-1:] != "]"})


def tree(state: RunState, signs: Signs = UNICODE) -> Iterator[tuple[str, NodeState]]:
    """Yield (what is drawn before its name, node) in definition order, a Parallel before what is inside."""
    dependants = dependants_of(state)
    branches_of = {name: members_of(state, node, dependants) for name, node in state.nodes.items() if node.branches}
    inside = {name for branches in branches_of.values() for members in branches for name in members}
    rank = {name: number for number, name in enumerate(state.nodes)}
    shown: set[str] = set()

    def below(names: Sequence[str], before: str, first: str, trunk: str) -> Iterator[tuple[str, NodeState]]:
        prefix = before + first
        for name in sorted(names, key=rank.__getitem__):
            if name in shown:
                continue
            shown.add(name)
            node = state.nodes[name]
            yield prefix, node
            prefix = before + trunk
            branches = branches_of.get(name, ())
            for number, members in enumerate(branches, start=1):
                is_last = number == len(branches)
                sign, down = (signs.last_branch, "   ") if is_last else (signs.branch, signs.trunk)
                yield from below(members, before + trunk, sign, down)

    yield from below([name for name in state.nodes if name not in inside], "", "", "")
    yield from below(list(state.nodes), "", "", "")  # what a spoilt document leaves over


def table(
    rows: Sequence[tuple[str, NodeState]], now: datetime, width: int, signs: Signs = UNICODE, run_id: str = ""
) -> list[Line]:
    """Return the heading and a line for each (prefix, node) of a run."""
    cells = [("Step", "Target", "  Status", "Attempt", "Time")]
    for prefix, node in rows:
        cells.append(
            (
                prefix + node.node_name,
                target_of(node, run_id),
                f"{signs.marks[node.status]} {node.status}",
                str(node.attempt) if node.attempt and node.node_type is NodeTypes.TASK else "",
                took(seconds) if (seconds := seconds_of(node, now)) is not None else "",
            )
        )
    widths = columns(cells)
    widths[2], widths[4] = max(widths[2], 11), max(widths[4], 8)
    room = width - widths[2] - widths[3] - widths[4] - 8
    widths[0] = min(widths[0], max(room // 2, room - widths[1]))
    widths[1] = max(0, min(widths[1], room - widths[0]))
    lines: list[Line] = []
    for number, (step, target, status, attempt, time) in enumerate(cells):
        style = STYLES[rows[number - 1][1].status] if number else "dim"
        quiet = "dim" if not number or rows[number - 1][1].status in (TaskStatus.NEW, TaskStatus.SKIPPED) else ""
        prefix = rows[number - 1][0] if number else ""
        step = pad(step, widths[0])
        lines.append(
            (
                (step[: len(prefix)], "dim"),
                (f"{step[len(prefix) :]}  ", quiet),
                (f"{pad(target, widths[1])}  ", "dim"),
                (f"{pad(status, widths[2])}  ", style),
                (f"{pad(attempt, widths[3], is_number=True)}  ", quiet),
                (pad(time, widths[4], is_number=True), quiet),
            )
        )
    return lines


def target_of(node: NodeState, run_id: str = "") -> str:
    """Return where and what a node of a run runs; of a Dag Task, its child run too."""
    if node.node_type is NodeTypes.PARALLEL:
        count = len(node.branches)
        return f"{count} branch{'' if count == 1 else 'es'}"
    if node.node_type is NodeTypes.MAP:
        return _items_of(node)
    if node.node_type is not NodeTypes.TASK:
        until = node.due.get(DueKind.WAIT.value)
        return f"{node.node_type} until {local_time(until, '%Y-%m-%d %H:%M:%S')}" if until else node.node_type.value
    waits = f", waits for pool {node.pool}" if node.waits_for_slot else ""
    child = child_of(run_id, node) if run_id else None
    return printable(f"{node.target_type or ''} {node.target_name or ''} {child or ''}".strip() + waits)


def _items_of(node: NodeState) -> str:
    """Return how far a Map has come, and which items failed."""
    items = node.items
    if items is None:
        return "Map"
    failed = ", ".join(map(str, items.failed[:_MAX_FAILED])) + (", …" if items.failures > _MAX_FAILED else "")
    words = f"{items.ended:,} of {counted(items.count, 'item')}"
    return f"{words}, {items.failures:,} failed: {failed}" if failed else words


def seconds_of(node: NodeState, now: datetime) -> float | None:
    """Return how long a node took, or has taken up to now; None where it has not started."""
    if node.started_at is None:
        return None
    return ((node.ended_at or now) - node.started_at).total_seconds()


def run_seconds(state: RunState, now: datetime) -> float:
    """Return how long a run took, or has taken up to now; since it went on, where it was redriven."""
    return ((state.run.ended_at or now) - (state.run.redriven_at or state.run.started_at)).total_seconds()


def ends(state: RunState) -> list[NodeState]:
    """Return the nodes that a run ends with: those that nothing follows, and for a Parallel those of its branches."""

    seen: set[str] = set()
    state = without_items(state)
    dependants = dependants_of(state)

    def within(names: Sequence[str]) -> Iterator[NodeState]:
        for name in names:
            node = state.nodes[name]
            if name in seen:
                continue
            seen.add(name)
            is_followed = node.next is not None or node.node_name in dependants
            if node.status is TaskStatus.SKIPPED or (is_followed and node.status is TaskStatus.COMPLETED):
                continue
            if node.next is None and node.node_type is NodeTypes.PARALLEL:
                for members in members_of(state, node, dependants):
                    yield from within(members)
            elif node.next is None and node.node_type is not NodeTypes.CONDITION:
                yield node

    inside = {
        name for node in state.nodes.values() for members in members_of(state, node, dependants) for name in members
    }
    return list(within([name for name in state.nodes if name not in inside]))


def dependants_of(state: RunState) -> Mapping[str, list[str]]:
    """Return name -> the nodes that depend on it."""
    found: dict[str, list[str]] = {}
    for name, node in state.nodes.items():
        for other in node.depends_on:
            found.setdefault(other, []).append(name)
    return found


def members_of(state: RunState, node: NodeState, dependants: Mapping[str, list[str]]) -> list[list[str]]:
    """Return the names of the nodes of each branch of a Parallel, without those in Parallels in it."""
    found = []
    for branch in node.branches:
        members: dict[str, None] = {}
        waiting = list(reversed(branch.entries))
        while waiting:
            name = waiting.pop()
            if name in state.nodes and name not in members:
                members[name] = None
                node = state.nodes[name]
                following = [*([node.next] if node.next is not None else []), *node.leads_to]
                waiting.extend(reversed([*following, *dependants.get(name, ())]))
        found.append(list(members))
    return found


def _header(state: RunState, now: datetime, width: int) -> Line:
    run = state.run
    name, run_id = cut(printable(run.dag), max(8, width - len(run.run_id) - 30)), run.run_id
    end = f"{run.status}  {took(run_seconds(state, now))}"
    gap = max(2, width - width_of(name) - len(run_id) - len(end) - 2)
    status, _, time = end.partition("  ")
    return ((name, "bold"), (f"  {run_id}", "dim"), (" " * gap, ""), (status, STYLES[run.status]), (f"  {time}", ""))


def _counts(state: RunState, signs: Signs) -> Line:
    counts = Counter(node.status for node in state.nodes.values())
    spans = [(f"{counted(len(state.nodes), 'step')}: ", "")]
    for status in TaskStatus:
        if counts[status]:
            spans.append((f"{signs.marks[status]} {counts[status]:,} {status}   ", STYLES[status]))
    return tuple(spans)
