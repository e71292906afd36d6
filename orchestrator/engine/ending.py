"""How nodes, branches and runs end, and what follows. Pure.

A node that completes is followed by its `next`, one that fails by where its `on_error` leads. One that nothing
follows ends its branch; the last branch to end ends its Parallel, which goes on in the same way; the outermost
branch ends the run. An item of a Map ends as a branch does (`items`).
"""

from msgspec.structs import replace

from orchestrator.engine.draft import NO_TIMES, Draft
from orchestrator.model.commands import Failure, Json
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.ids import beside
from orchestrator.model.nodes import Graph, Map, Parallel
from orchestrator.model.rules import rule_for
from orchestrator.model.run_state import Ending, NodeState


def end(
    draft: Draft,
    node: NodeState,
    status: TaskStatus,
    *,
    result: Json = None,
    error: Failure | None = None,
    chosen: str | None = None,
) -> None:
    """Write a node's end and go on from it.

    Args:
        chosen: what a Condition has chosen to follow.
    """
    while True:
        draft.withdraw(node)
        node = replace(
            node,
            status=status,
            claim=None,
            due=NO_TIMES,
            owed_cancel=None,
            stop=None,
            open_branches=0,
            ended_at=draft.now,
            result=result,
            stored_result=None,
            error=error,
        )
        draft.put(node)
        place = draft.dag.place(node.node_name)
        if draft.stopped(node.node_name) is None:
            following, caught = chosen or place.next, node.caught
            if status is not TaskStatus.COMPLETED:
                unnamed = "Task.Failed" if status is TaskStatus.FAILED else "Task.Cancelled"
                route = rule_for(place.routes, error.error_type if error is not None else unnamed)
                following, caught = (route.next, node.node_name) if route is not None else (None, None)
            if following is not None:
                draft.entering.append((beside(node.node_name, following), caught))
                return
        parent = place.parent_dag.parent_node
        if parent is None:
            _outermost_ended(draft, node)
            return
        if isinstance(parent, Map):
            from orchestrator.engine import items  # nothing of it is needed where there is no Map

            item, is_short = beside(node.node_name, parent.node_name), _stopped_short(draft, node)
            if not items.item_ended(draft, item, node, _with_node(node) if is_short else None, is_short=is_short):
                return
            node, chosen = draft.nodes[items.map_of(item)], None
            status, error, result = items.sum_up(draft, node)
            continue
        state = _branch_ended(draft, parent, place.parent_dag, node)
        if state.open_branches:
            return
        # The Parallel ends in its turn. A loop: Parallels stand a hundred deep in one another.
        status, error = _sum_up(draft, state)
        node, result, chosen = state, None, None


def _branch_ended(draft: Draft, parent: Parallel, branch: Graph, last: NodeState) -> NodeState:
    """Write that a branch has ended, and where it stopped short of its end, if it did; return its Parallel."""
    state = draft.nodes[beside(last.node_name, parent.node_name)]
    if _stopped_short(draft, last):
        number = parent.numbers[branch.start_node.node_name]
        branches = list(state.branches)
        branches[number] = replace(branches[number], stopped_at=last.node_name)
        state = replace(state, branches=tuple(branches))
        if parent.stops_on_failure and state.stop is None and state.open_branches > 1:
            stop = Failure("Parallel.Stopped", f"{state.node_name}: {last.node_name} has not completed")
            state = replace(state, stop=stop)
            draft.stopping.append((state.node_name, stop))
    state = replace(state, open_branches=state.open_branches - 1)
    draft.put(state)
    return state


def _sum_up(draft: Draft, parallel: NodeState) -> tuple[TaskStatus, Failure | None]:
    """Status and error of a Parallel whose branches have ended; the first in definition order."""
    stopped = [draft.nodes[branch.stopped_at] for branch in parallel.branches if branch.stopped_at is not None]
    for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        for node in stopped:
            if node.status is status:
                return status, _with_node(node)
    return (TaskStatus.CANCELLED, None) if stopped else (TaskStatus.COMPLETED, None)


def _outermost_ended(draft: Draft, last: NodeState) -> None:
    """The steps of the definition have ended, then those of its `finally`, if it has any; then the run has."""
    ending, last_steps = _ending(draft, last), draft.dag.last_steps
    if draft.info.ending is not None:  # these were the last steps: their failure is the run's, unless that has one
        before = draft.info.ending
        _end_run(draft, ending if before.status is RunStatus.COMPLETED else before)
    elif last_steps is not None:
        draft.change_run(replace(draft.info, ending=ending))
        draft.entering.append((last_steps.start_node.node_name, None))
    else:
        _end_run(draft, ending)


def _ending(draft: Draft, last: NodeState) -> Ending:
    """How steps have ended of which this was the last: failed, completed, or stopped short of that."""
    stop = draft.info.stop if draft.info.ending is None else None
    if not _stopped_short(draft, last):
        return Ending(RunStatus.COMPLETED)
    if stop is not None and draft.info.is_out_of_time:
        return Ending(RunStatus.FAILED, stop)
    if last.status is TaskStatus.FAILED:
        return Ending(RunStatus.FAILED, _with_node(last))
    error = _with_node(last) or stop or Failure("Run.Cancelled", "")
    return Ending(RunStatus.CANCELLED if stop is not None else RunStatus.FAILED, error)


def _end_run(draft: Draft, ending: Ending) -> None:
    for node in tuple(draft.nodes.values()):
        if node.status is TaskStatus.NEW:
            draft.put(replace(node, status=TaskStatus.SKIPPED))
    draft.change_run(replace(draft.info, status=ending.status, error=ending.error, ending=None, ended_at=draft.now))


def _stopped_short(draft: Draft, last: NodeState) -> bool:
    """Whether a branch whose last node this is has not come to its end: it failed, or something was to follow."""
    place = draft.dag.place(last.node_name)
    return last.status is not TaskStatus.COMPLETED or any(not edge.is_error for edge in place.edges)


def _with_node(node: NodeState) -> Failure | None:
    """A node's error, naming the node that it began with."""
    if node.error is None or node.error.node is not None:
        return node.error
    return replace(node.error, node=node.node_name)
