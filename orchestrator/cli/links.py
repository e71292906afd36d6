"""Links to the Google Cloud console under a run's status: the page of each step's execution, and the run's logs."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from orchestrator.cli.board import target_of
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, line, pad
from orchestrator.cli.places import Places
from orchestrator.model.console import execution_filter, execution_page, logs_page
from orchestrator.model.enums import NodeTypes, TaskStatus
from orchestrator.model.log_query import run_filter
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState
from orchestrator.runtime.settings import Settings

_MAX_LINKS = 20
_MATTERS = (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.RUNNING)
"""Of a run with more steps, these are linked."""


def links(state: RunState, bucket: Bucket, settings: Settings, *, is_linking: bool) -> list[Line]:
    """Return the lines, a link each; none for a run in a directory.

    Args:
        is_linking: the terminal can hide an address behind a text.
    """
    if bucket.root is not None:
        return []
    places = Places(bucket, state, settings)
    if places.project is None:
        return [line("links to the console need GOOGLE_CLOUD_PROJECT and FUNCTION_REGION", "dim")]
    found = [("logs", "all of the run", logs_page(run_filter(state.run.run_id), places.project, _since(state)))]
    found = [*_of_steps(state, places), *found]
    width = min(32, max(len(name) for name, _, _ in found))
    lines: list[Line] = [line("in the console:", "dim")]
    for name, text, url in found:
        shown = (text, f"underline {url}") if is_linking else (url, "")
        lines.append(((f"  {pad(name, width)}  ", ""), shown))
    return lines


def _of_steps(state: RunState, places: Places) -> Iterator[tuple[str, str, str]]:
    nodes = [node for node in state.nodes.values() if node.node_type is NodeTypes.TASK and node.attempt]
    if len(nodes) > _MAX_LINKS:
        nodes = [node for status in _MATTERS for node in nodes if node.status is status]
    for node in nodes[:_MAX_LINKS]:
        url = _of(node, state, places)
        if url is not None:
            yield node.node_name, target_of(node), url


def _of(node: NodeState, state: RunState, places: Places) -> str | None:
    """The page of a node's execution; its log while it is not known which one that is."""
    launch_id, place = state.launch_id(node.node_name), places.of(node.node_name)
    page = execution_page(node, launch_id, place)
    if page is not None or place.project is None:
        return page
    wanted = execution_filter(node, launch_id)
    return None if wanted is None else logs_page(wanted, place.project, _since(state))


def _since(state: RunState) -> datetime:
    return state.run.started_at - timedelta(minutes=1)
