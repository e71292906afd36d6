"""`orchestrator status RUN_ID`: a run as its document has it, once or again and again until it has ended."""

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep

from orchestrator.cli.about import about_lines
from orchestrator.cli.board import board
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.children import answer_lines, child_lines
from orchestrator.cli.console import Console
from orchestrator.cli.costs import cost_lines
from orchestrator.cli.follow import News, follow
from orchestrator.cli.lines import line
from orchestrator.cli.links import links
from orchestrator.cli.progress import view_for
from orchestrator.cli.queues import waiting_lines
from orchestrator.cli.summary import summary
from orchestrator.cli.trouble import Trouble
from orchestrator.model.enums import RunStatus
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunState
from orchestrator.runtime.settings import Settings

_PATIENCE_S = 10.0
"""How long --watch waits for a run that is not there (yet)."""

_PAUSE_S = 0.25
"""How often it looks meanwhile, in a directory."""

_CLOUD_PAUSE_S = 0.5
"""The first pause of a bucket elsewhere, where a look costs a request; each one is half as long again as the last."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be shown of a run, and how."""

    run_id: str
    is_watching: bool = False
    is_json: bool = False
    is_verbose: bool = False
    interval_s: float = 1.0
    bucket: str | None = None
    """As it was named on the command line."""
    is_cost: bool = False
    """Each line of what it costs."""


def status(console: Console, bucket: Bucket, asked: Asked, settings: Settings) -> int:
    """Write the run; return 1 if it Failed or was Cancelled."""
    state = _awaited(console, bucket, asked.run_id) if asked.is_watching else bucket.load(asked.run_id)
    if asked.is_watching and not state.run.status.is_final:
        state = _watch(console, bucket, asked)
    elif not asked.is_json:
        console.styled(board(state, _now(), *console.size, console.signs))
    if asked.is_json:
        console.document(encode(state))
    else:
        console.out("")
        console.styled(summary(state, bucket, _now(), console.size[0], _again(state, bucket), _redrive(asked)))
        console.styled(waiting_lines(state, bucket))
        console.styled(about_lines(state, bucket))
        console.styled(child_lines(state, bucket))
        console.styled(answer_lines(state, bucket))
        console.styled(cost_lines(state, bucket, _now(), is_full=asked.is_cost))
        console.styled(links(state, bucket, settings, is_linking=console.is_linking))
        if not state.run.status.is_final and bucket.root is not None:  # elsewhere the cloud's Tick looks after it
            bucket_option = f" --bucket {shlex.quote(asked.bucket)}" if asked.bucket else ""
            console.styled(
                [
                    line("if nothing runs it any more, finish it with:", "dim"),
                    line(f"  orchestrator run PATH --resume {asked.run_id}{bucket_option}"),
                ]
            )
    return exit_code(state)


def exit_code(state: RunState) -> int:
    """Return 1 for a run that Failed or was Cancelled, else 0."""
    return 1 if state.run.status in (RunStatus.FAILED, RunStatus.CANCELLED) else 0


def _watch(console: Console, bucket: Bucket, asked: Asked) -> RunState:
    trouble = Trouble()
    view = view_for(console, is_json=asked.is_json, is_verbose=asked.is_verbose)

    def load() -> RunState:
        state = bucket.load(asked.run_id)
        trouble.saved()
        return state

    try:
        return follow(News(), view, load, _now, trouble.check, trouble.told, asked.interval_s)
    finally:
        view.close()


def _awaited(console: Console, bucket: Bucket, run_id: str) -> RunState:
    """Return the run; one that was started a moment ago may be on its way through the topic."""
    until_s, pause_s = monotonic() + _PATIENCE_S, _PAUSE_S if bucket.root is not None else _CLOUD_PAUSE_S
    is_told = False
    while (state := bucket.find(run_id)) is None:
        if monotonic() >= until_s:
            raise bucket.not_found(run_id)
        if not is_told:
            console.err(f"run {run_id} is not there yet; waiting for it")
            is_told = True
        sleep(min(pause_s, max(0.0, until_s - monotonic())))
        if bucket.root is None:
            pause_s *= 1.5
    return state


def _redrive(asked: Asked) -> str:
    bucket = ("--bucket", asked.bucket) if asked.bucket else ()
    return shlex.join(("orchestrator", "redrive", asked.run_id, *bucket))


def _again(state: RunState, bucket: Bucket) -> str:
    if bucket.root is None:
        return f"orchestrator start {state.run.dag}{' --input FILE' if state.run.input else ''}"
    return f"orchestrator run PATH{' --input FILE' if state.run.input else ''}"


def _now() -> datetime:
    return datetime.now(UTC)
