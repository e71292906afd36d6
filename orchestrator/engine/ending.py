"""How nodes, branches and runs end, and what follows. Pure.

A node that completes is followed by its `next`, one that fails by where its `on_error` leads. One that nothing
follows ends its branch; the last branch to end ends its Parallel, which goes on in the same way; the outermost
branch ends the run. An item of a Map ends as a branch does (`items`). Where steps depend on others, several go on at
once in one graph: `joining` says what follows there, and when it ends.
"""

from msgspec.structs import replace

from orchestrator.engine.draft import NO_TIMES, Draft
from orchestrator.engine.scope import scope_of
from orchestrator.model.commands import Failure, Json
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.ids import beside, instance_of
from orchestrator.model.node_state import NodeState
from orchestrator.model.nodes import Graph, Map, Node, Parallel
from orchestrator.model.rules import rule_for
from orchestrator.model.run_state import Ending


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
            slot=None,
            stop=None,
            open_branches=0,
            ended_at=draft.now,
            result=result,
            stored_result=None,
            error=error,
            chosen=chosen,
        )
        draft.put(node)
        if node.node_type is NodeTypes.PART:
            from orchestrator.engine.items import part_ended  # nothing of it is needed where there is no Map

            held_by = part_ended(draft, node)
            if held_by is None:
                return
            node, chosen = held_by, None
            status, error, result = _sum_up(draft, node)
            continue
        if draft.info.part_of is not None and draft.info.part_of.map == node.node_name:
            _end_part(draft, node)
            return
        place = draft.dag.place(node.node_name)
        if place.parent_dag.dependencies is not None:
            draft.joining.setdefault((place.parent_dag, instance_of(node.node_name)), []).append(place.node_name)
            return
        if draft.stopped(node.node_name) is None:
            following, caught = led_to(place, node)
            if following is not None:
                draft.entering.append((beside(node.node_name, following), caught))
                return
        stopped_at = node if _stopped_short(place, node) else None
        held_by = _graph_ended(draft, place.parent_dag, node.node_name, stopped_at, node)
        if held_by is None:
            return
        # The Parallel or Map ends in its turn. A loop: Parallels stand a hundred deep in one another.
        node = held_by
        status, error, result = _sum_up(draft, node)
        chosen = None


def end_graph(draft: Draft, graph: Graph, instance: str, stopped_at: NodeState | None) -> None:
    """Go on from the end of a graph in which steps depend on others.

    Args:
        instance: which instance of it, as its entries' names end.
        stopped_at: the node at which it has not come to its end; None where it has.
    """
    last = None if stopped_at is not None else _only_last(draft, graph, instance)
    held_by = _graph_ended(draft, graph, graph.start_node.node_name + instance, stopped_at, last)
    if held_by is not None:
        status, error, result = _sum_up(draft, held_by)
        end(draft, held_by, status, result=result, error=error)


def led_to(place: Node, node: NodeState) -> tuple[str | None, str | None]:
    """Return the step that a node which has ended leads to by a way, and what is `caught` there; None: to none."""
    if node.status is TaskStatus.COMPLETED:
        return node.chosen or place.next, node.caught
    if not place.routes or node.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        return None, None
    unnamed = "Task.Failed" if node.status is TaskStatus.FAILED else "Task.Cancelled"
    route = rule_for(place.routes, node.error.error_type if node.error is not None else unnamed)
    return (route.next, node.node_name) if route is not None else (None, None)


def _only_last(draft: Draft, graph: Graph, instance: str) -> NodeState | None:
    """The one completed step of a graph that nothing follows; None where there are several, or none."""
    needed = {name for node in graph.nodes for name in node.depends_on}
    found = [
        state
        for node in graph.nodes
        if node.node_name not in needed and not any(not edge.is_error for edge in node.edges)
        if (state := draft.nodes[node.node_name + instance]).status is TaskStatus.COMPLETED
    ]
    return found[0] if len(found) == 1 else None


def _graph_ended(
    draft: Draft, graph: Graph, member: str, stopped_at: NodeState | None, last: NodeState | None
) -> NodeState | None:
    """Write that a graph has ended of which `member` is an entry; return the Parallel or Map that ends by that, if any.

    Args:
        last: the step whose result is the graph's, where there is one such.
    """
    if graph.parent_node is None:
        _outermost_ended(draft, stopped_at, last)
        return None
    if isinstance(graph.parent_node, Map):
        from orchestrator.engine.items import item_ended  # nothing of it is needed where there is no Map

        error = _with_node(stopped_at) if stopped_at is not None else None
        return item_ended(draft, beside(member, graph.parent_node.node_name), stopped_at, last, error)
    state = _branch_ended(draft, graph.parent_node, graph, member, stopped_at)
    return None if state.open_branches else state


def _branch_ended(
    draft: Draft, parent: Parallel, branch: Graph, member: str, stopped_at: NodeState | None
) -> NodeState:
    """Write that a branch has ended, and where it stopped short of its end, if it did; return its Parallel."""
    state = draft.nodes[beside(member, parent.node_name)]
    if stopped_at is not None:
        number = parent.numbers[branch.start_node.node_name]
        branches = list(state.branches)
        branches[number] = replace(branches[number], stopped_at=stopped_at.node_name)
        state = replace(state, branches=tuple(branches))
        if parent.stops_on_failure and state.stop is None and state.open_branches > 1:
            stop = Failure("Parallel.Stopped", f"{state.node_name}: {stopped_at.node_name} has not completed")
            state = replace(state, stop=stop)
            draft.stopping.append((state.node_name, stop))
    state = replace(state, open_branches=state.open_branches - 1)
    draft.put(state)
    return state


def _sum_up(draft: Draft, parallel: NodeState) -> tuple[TaskStatus, Failure | None, Json]:
    """Status, error and result of a Parallel or Map whose graphs have ended; the first error in definition order."""
    if parallel.items is not None:
        from orchestrator.engine.items import sum_up

        return sum_up(draft, parallel)
    stopped = [draft.nodes[branch.stopped_at] for branch in parallel.branches if branch.stopped_at is not None]
    for status in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        for node in stopped:
            if node.status is status:
                return status, _with_node(node), None
    return TaskStatus.CANCELLED if stopped else TaskStatus.COMPLETED, None, None


def _outermost_ended(draft: Draft, stopped_at: NodeState | None, last: NodeState | None) -> None:
    """The steps of the definition have ended, then those of its `finally`, if it has any; then the run has."""
    ending, last_steps = _ending(draft, stopped_at), draft.dag.last_steps
    if ending.status is RunStatus.COMPLETED and draft.info.ending is None:
        ending = _with_result(draft, last, ending)
    if draft.info.ending is not None:  # these were the last steps: their failure is the run's, unless that has one
        before = draft.info.ending
        end_run(draft, ending if before.status is RunStatus.COMPLETED else before)
    elif last_steps is not None:
        draft.change_run(replace(draft.info, ending=ending))
        draft.entering.extend((node.node_name, None) for node in last_steps.start_nodes)
    else:
        end_run(draft, ending)


def _ending(draft: Draft, stopped_at: NodeState | None) -> Ending:
    """How steps have ended that stopped here: failed, or short of their end; None: they completed."""
    stop = draft.info.stop if draft.info.ending is None else None
    if stopped_at is None:
        return Ending(RunStatus.COMPLETED)
    if stop is not None and draft.info.is_out_of_time:
        return Ending(RunStatus.FAILED, stop)
    if (
        stop is not None and stopped_at.status is TaskStatus.FAILED
    ):  # what could not be stopped failed of its own accord
        return Ending(RunStatus.CANCELLED, stop)
    if stopped_at.status is TaskStatus.FAILED:
        return Ending(RunStatus.FAILED, _with_node(stopped_at))
    error = _with_node(stopped_at) or stop or Failure("Run.Cancelled", "")
    return Ending(RunStatus.CANCELLED if stop is not None else RunStatus.FAILED, error)


def _with_result(draft: Draft, last: NodeState | None, ending: Ending) -> Ending:
    """Write the result of a run whose steps have completed, of which this was the last, if one was."""
    template = draft.dag.result
    if template is None:
        if last is not None and (last.result is not None or last.stored_result is not None):
            draft.change_run(replace(draft.info, result_of=last.node_name))
        return ending
    try:
        result = template.resolve(scope_of(draft.info, draft.nodes, None))
    except ExpressionError as exc:
        return Ending(RunStatus.FAILED, Failure("Run.BadResult", f"result: {exc}"))
    draft.change_run(replace(draft.info, result=result))
    return ending


def completed_before(draft: Draft) -> Ending:
    """How the steps ended before the `finally` of a redriven run, which had completed; the run has its result again."""
    return _with_result(draft, _only_last(draft, draft.dag, ""), Ending(RunStatus.COMPLETED))


def _end_part(draft: Draft, node: NodeState) -> None:
    """End the run of a part of a Map, whose slice of the items has ended."""
    from orchestrator.engine.parts import result_of_part

    if node.status is TaskStatus.COMPLETED and node.items is not None:
        draft.put(replace(node, result=None))
        draft.change_run(replace(draft.info, result=result_of_part(node.result, node.items)))
        end_run(draft, Ending(RunStatus.COMPLETED))
    else:
        end_run(draft, _ending(draft, node))


def end_run(draft: Draft, ending: Ending) -> None:
    """Write the run's end."""
    if ending.status is not RunStatus.COMPLETED and (draft.info.result_of or draft.info.result is not None):
        draft.change_run(replace(draft.info, result=None, stored_result=None, result_of=None))
    for node in tuple(draft.nodes.values()):
        if node.status is TaskStatus.NEW:
            draft.put(replace(node, status=TaskStatus.SKIPPED))
    ended = replace(draft.info, status=ending.status, error=ending.error, ending=None, ended_at=draft.now, slot=None)
    draft.change_run(replace(ended, is_resuming=False))  # what it held, if it was stopped, has ended too
    draft.tell_parent()


def _stopped_short(place: Node, last: NodeState) -> bool:
    """Whether a branch whose last node this is has not come to its end: it failed, or something was to follow."""
    return last.status is not TaskStatus.COMPLETED or any(not edge.is_error for edge in place.edges)


def _with_node(node: NodeState) -> Failure | None:
    """A node's error, naming the node that it began with."""
    if node.error is None or node.error.node is not None:
        return node.error
    return replace(node.error, node=node.node_name)
