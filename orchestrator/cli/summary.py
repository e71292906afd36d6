"""What is to be said of a run that has ended: what came out, or why it failed and what to do next."""

from datetime import datetime
from pathlib import Path

from msgspec.structs import replace

from orchestrator.cli.board import STYLES, ends, run_seconds
from orchestrator.cli.bucket import Bucket, short
from orchestrator.cli.lines import Line, counted, cut, line, printable, took
from orchestrator.cli.results import outcome_lines
from orchestrator.model.commands import Failure
from orchestrator.model.enums import NodeTypes, RunStatus, TargetTypes, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState

_MAX_ALSO = 5
_MAX_MESSAGE = 1000
_ITS_OWN = frozenset({"Task.BadParameters", "Dag.BadInput", "Map.BadItems", "Map.TooManyItems", "Run.BadResult"})
"""Errors of what a run keeps however often it goes on."""


def summary(
    state: RunState, bucket: Bucket, now: datetime, width: int, again: str, redrive: str | None = None
) -> list[Line]:
    """Return the lines under the board.

    Args:
        state: the run.
        bucket: where it is.
        now: the time, aware.
        width: columns of the terminal.
        again: the command that starts such a run anew.
        redrive: the one that lets it go on from where it failed, if there is one.
    """
    run = state.run
    lines: list[Line] = []
    if run.status is RunStatus.COMPLETED:
        lines += outcome_lines(_results(state), width, size_of)
        lines += [line("")] if lines else []
    paused_at = run.steered_at if run.status is RunStatus.PAUSED else None
    seconds = took((now - paused_at).total_seconds() if paused_at else run_seconds(state, now))
    redriven = f", redriven {counted(run.redrives, 'time')}" if run.redrives else ""
    words = f" {'in' if run.status.is_final else 'for'} {seconds}{redriven}"
    lines.append(((run.status, STYLES[run.status]), (words, "")))
    if run.status in (RunStatus.FAILED, RunStatus.CANCELLED):
        lines += reason_lines(state, bucket)
    elif run.cancel_reason is not None and not run.status.is_final:
        lines.append(line(f"  being cancelled: {printable(run.cancel_reason)}", "yellow"))
    document = bucket.document(run.run_id)
    if document is not None:
        lines.append((("run document: ", "dim"), (document, "")))
    if run.status is RunStatus.FAILED:
        words = advice(state)
        if redrive is not None and not needs_new_run(state):
            lines += [(("next: ", "dim"), (f"{words}, then let the run go on:", "")), line(f"  {redrive}")]
            lines += [line("or start a new one:"), line(f"  {again}")]
        else:
            lines += [(("next: ", "dim"), (f"{words}, then start a new run:", "")), line(f"  {again}")]
    return lines


def _results(state: RunState) -> list[NodeState]:
    """What came out of a run: what its definition says, else what its last steps have come to."""
    run = state.run
    if run.result is None and run.stored_result is None:
        return ends(state)
    whole = NodeState(node_name="result", node_type=NodeTypes.PASS, status=TaskStatus.COMPLETED)
    return [replace(whole, result=run.result, stored_result=run.stored_result)]


def reason_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return why a run did not complete: its step, the error, the log."""
    run = state.run
    error = run.error
    if error is None:
        return [line(f"  {printable(run.cancel_reason or '')}")] if run.cancel_reason else []
    if error.node is None or error.node not in state.nodes:
        return [line(f"  {words_of(error)}")]
    node = state.nodes[error.node]
    lines = _why(state, node, error, bucket)
    others = [
        each
        for each in state.nodes.values()
        if each.status is TaskStatus.FAILED and each.node_type is NodeTypes.TASK and each is not node and each.error
    ]
    for each in others[:_MAX_ALSO]:
        lines += _why(state, each, each.error or error, bucket)
    if len(others) > _MAX_ALSO:
        lines.append(line(f"  … and {len(others) - _MAX_ALSO:,} more failed steps", "dim"))
    return lines


def one_line(state: RunState) -> str:
    """Return how a run ended, and why, for standard error."""
    error = state.run.error
    if error is None:
        return f"run {state.run.run_id}: {state.run.status} {printable(state.run.cancel_reason or '')}".rstrip()
    where = f"step {error.node}: " if error.node else ""
    return f"run {state.run.run_id}: {state.run.status}: {where}{words_of(error)}"


def words_of(error: Failure) -> str:
    """Return an error's kind and message on one line."""
    return f"{error.error_type}: {cut(printable(error.message), _MAX_MESSAGE)}"


def needs_new_run(state: RunState) -> bool:
    """Whether a failed run fails again if it goes on: by its definition or its input, which it keeps."""
    error = state.run.error
    node = state.nodes.get(error.node) if error and error.node else None
    if error is None or error.error_type in _ITS_OWN:
        return error is not None
    return node is not None and node.node_type in (NodeTypes.CONDITION, NodeTypes.WAIT, NodeTypes.PASS, NodeTypes.END)


def advice(state: RunState) -> str:
    """Return what to do about a failed run."""
    error = state.run.error
    node = state.nodes.get(error.node) if error and error.node else None
    if error is not None and error.error_type == "Run.BadResult":
        return 'correct "result" in the definition'
    if error is None or node is None:
        return "see what is wrong"
    step, target = f"step {node.node_name}", printable(node.target_name or "")
    match error.error_type:
        case "Task.BadParameters" | "Dag.BadInput":
            return f"correct the parameters of {step}, or the run's input"
        case "Map.BadItems" | "Map.TooManyItems":
            return f"correct the items of {step}, or the run's input"
        case "Task.Timeout" if node.target_type == TargetTypes.CALLBACK:
            return f"have {step} answered in time"
        case "Task.Timeout":
            return f"make {target or 'it'} faster (a longer timeout of {step} is for new runs)"
        case "Callback.Rejected":
            return f"see to why {step} was rejected"
        case "Function.NotFound":
            return f"make {target} importable from here"
        case "CloudFunction.NotFound" | "Dataflow.NotFound":
            return f"write the source of {target} where it was looked for"
        case _:
            if needs_new_run(state):
                return f"mend {step} in the definition, or the run's input"
            return f"mend {target}, which {step} runs" if target else f"mend {step}"


def size_of(text: str) -> int | None:
    """Return the size of the file at a path, None if `text` is not the path of a file."""
    try:
        path = Path(text)
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def _why(state: RunState, node: NodeState, error: Failure, bucket: Bucket) -> list[Line]:
    attempt = f", attempt {node.attempt}" if node.attempt else ""
    log = bucket.log_of(state.launch_id(node.node_name)) if node.attempt else None
    if log is not None:
        error = Failure(error.error_type, error.message.replace(f"; log: {log}", ""))
    lines: list[Line] = [((f"  step {node.node_name}{attempt}: ", ""), (words_of(error), STYLES[node.status]))]
    if log is not None:
        lines.append((("  log: ", "dim"), (short(log), "")))
    return lines
