"""The live view of a run: a table that is drawn again and again, or a line for each change."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from orchestrator.cli.board import board, seconds_of, target_of
from orchestrator.cli.console import Console
from orchestrator.cli.lines import counted, cut, local_time, pad, printable, took
from orchestrator.cli.sequence import Places, places
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState, child_of

if TYPE_CHECKING:
    from rich.live import Live

_FRAME_S = 0.1
_SHARE = 12
"""Drawing takes at most about one part in so many of the time."""


class View(Protocol):
    """Shows a run as it goes on."""

    pause_s: float
    """How long to wait before the next `show`."""

    def say(self, words: str, at: datetime) -> None:
        """Say how it begins, and when."""

    def show(self, state: RunState, now: datetime) -> None:
        """Show the run as it is at `now`."""

    def close(self) -> None:
        """Leave what was shown last on the screen, and let go of the terminal."""


class NoView:
    """Shows nothing."""

    pause_s = _FRAME_S

    def say(self, words: str, at: datetime) -> None:
        """Nothing."""

    def show(self, state: RunState, now: datetime) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class LinesView:
    """Writes a line for each change: `12:00:01 Init       Running    attempt 1`.

    Args:
        write: takes a line.
        before: the run as it was, whose changes up to then are not told.
    """

    pause_s = _FRAME_S

    def __init__(self, write: Callable[..., None], before: RunState | None = None) -> None:
        self._write = write
        self._before = before.nodes if before else {}
        self._is_queued = before is not None and before.run.waits_for_slot
        self._width = 0

    def say(self, words: str, at: datetime) -> None:
        """Write that, with the time."""
        self._write(f"{clock(at)} {words}")

    def show(self, state: RunState, now: datetime) -> None:
        """Write what has changed since the last time, in the order in which it did."""
        changed = [
            (self._before.get(name), node)
            for name, node in state.nodes.items()
            if node is not self._before.get(name) and (name[-1:] != "]" or node.status is TaskStatus.FAILED)
        ]
        placed = places(state) if changed else {}
        changes = [each for before, node in changed for each in _changes(placed, before, node, state, now)]
        self._before = state.nodes
        is_queued, self._is_queued = self._is_queued, state.run.waits_for_slot
        if is_queued and not self._is_queued and state.run.status is not RunStatus.CANCELLED:
            began_at = state.run.started_at if not state.run.redrives else now
            self._write(f"{clock(began_at)} run {state.run.run_id} begins")
        if changes:
            names = (change.node_name for change in changes) if self._width else iter(state.nodes)
            self._width = min(32, max(self._width, *map(len, names), 0))  # entries of items are there later
            self._write(*map(self._line, sorted(changes)))

    def close(self) -> None:
        """Nothing is left to do."""

    def _line(self, change: "_Change") -> str:
        return f"{clock(change.at)} {pad(cut(change.node_name, 32), self._width)} {change.words}"


class TableView:
    """Draws the board on the terminal, over what it drew before; ten times a second, or less often."""

    def __init__(self, console: Console) -> None:
        self.pause_s = _FRAME_S
        self._console = console
        self._live: Live | None = None
        self._last: tuple[RunState, datetime] | None = None

    def say(self, words: str, at: datetime) -> None:
        """Nothing: it stands in the board's header."""

    def show(self, state: RunState, now: datetime) -> None:
        """Draw, from the second time on: a run that is over at once is drawn once, by `close`."""
        is_first, self._last = self._last is None, (state, now)
        if is_first or (self._live is None and state.run.status.is_final):
            return
        started_s = time.perf_counter()
        self._draw(state, now)
        self.pause_s = max(_FRAME_S, _SHARE * (time.perf_counter() - started_s))

    def close(self) -> None:
        """Stop drawing; the last board stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        elif self._last is not None:
            self._console.styled(board(*self._last, *self._console.size, self._console.signs))
        self._last = None

    def _draw(self, state: RunState, now: datetime) -> None:
        from rich.text import Text

        lines = board(state, now, *self._console.size, self._console.signs)
        text = Text(no_wrap=True, overflow="crop")
        for number, spans in enumerate(lines):
            text.append("\n" if number else "")
            for words, style in spans:
                text.append(words, style)
        if self._live is None:
            self._live = _live()
        self._live.update(text, refresh=True)


def view_for(console: Console, *, is_json: bool, is_verbose: bool, before: RunState | None = None) -> View:
    """Return the view that suits standard output."""
    if is_json:
        return LinesView(console.err, before) if is_verbose else NoView()
    if console.is_terminal and _has_rich():
        return TableView(console)
    return LinesView(console.out, before)


def clock(at: datetime) -> str:
    """Return the time of day, here."""
    return local_time(at, "%H:%M:%S")


def _has_rich() -> bool:
    return find_spec("rich") is not None


def _live() -> "Live":
    from rich.console import Console as RichConsole
    from rich.live import Live

    # What functions print goes above the table; standard error only where it is the same terminal.
    live = Live(console=RichConsole(), auto_refresh=False, redirect_stderr=sys.stderr.isatty())
    live.start()
    return live


@dataclass(frozen=True, slots=True, order=True)
class _Change:
    """A line to be written."""

    at: datetime
    is_skipped: bool
    """What the run did not come by is told after what it did."""
    place: int
    """Of what happened in one instant: which comes first."""
    node_name: str
    words: str


def _changes(
    placed: Places, before: NodeState | None, node: NodeState, state: RunState, now: datetime
) -> Iterator[_Change]:
    start, end = placed[node.node_name]
    attempt = before.attempt if before else 0
    was = before.status if before else TaskStatus.NEW
    is_opened = node.node_type is not NodeTypes.TASK and was is TaskStatus.NEW and node.started_at is not None
    if node.retry_at is not None and (before is None or before.retry_at != node.retry_at):
        why = f": {node.error.error_type}: {printable(node.error.message)}" if node.error is not None else ""
        words = f"attempt {node.attempt - 1} failed{why}; the next one in {took((node.retry_at - now).total_seconds())}"
        yield _Change(now, False, start, node.node_name, f"{TaskStatus.RUNNING:<10} {words}")
    elif node.attempt > attempt or is_opened or (before is not None and _waited(before) and _has_begun(node)):
        is_entered = before is None or before.started_at != node.started_at
        started_at = node.started_at if is_entered and node.started_at else min(now, node.ended_at or now)
        words = f"attempt {node.attempt}" if node.attempt and node.node_type is NodeTypes.TASK else ""
        words = counted(node.items.count, "item") if node.items is not None else words
        words += f" waits for a slot of pool {node.pool}" if node.waits_for_slot else ""
        child = child_of(state.run.run_id, node)
        words += f", as run {child}" if child is not None else ""
        yield _Change(started_at, False, start, node.node_name, f"{TaskStatus.RUNNING:<10} {words}".rstrip())
    if node.status.is_final and not was.is_final:
        ended_at = node.ended_at or state.run.ended_at or now
        seconds = seconds_of(node, now)
        words = took(seconds) if seconds is not None else ""
        words += f"  {target_of(node)}" if node.items is not None else ""
        if node.error is not None:
            words += f"  {node.error.error_type}: {printable(node.error.message)}"
        is_skipped = node.status is TaskStatus.SKIPPED
        yield _Change(ended_at, is_skipped, end, node.node_name, f"{node.status:<10} {words}".rstrip())


def _waited(node: NodeState) -> bool:
    """Whether an attempt was not under way yet."""
    return node.retry_at is not None or node.waits_for_slot


def _has_begun(node: NodeState) -> bool:
    """Whether an attempt that was waited for is under way, or was."""
    return not _waited(node) and (node.claim is not None or node.status is TaskStatus.COMPLETED)
