"""Redrive: a run that has ended goes on from where it failed, or from a step that somebody chose. Pure.

What is entered again follows from the document alone. In a body (the steps of a definition, a branch, a `finally`):

    a step that did not complete, and from which no route led on      is entered again
    a Parallel that did not complete                                  goes on in those of its branches that did not
    an End that says Failed, where an error led to it                 the step whose error that was is entered again
    what follows a step that completed, and was not come to           is entered
    a chosen step                                                     is entered again; what holds it goes on inside

And all that the ways from there lead on to is New again: it may run, may be Skipped, and is entered when they come to
it. So a route's steps that ran to their end are kept where the run has failed behind them, and run again only if the
step runs again that led there. A `finally` runs again after what went before it has; where only it has failed, it goes
on by the same rules.

A step that is New again keeps the number of its last attempt, and with it its place in the run: the next is another.
"""

from collections.abc import Iterable, Iterator
from datetime import timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import Draft
from orchestrator.engine.starting import new_state
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.facts import RedriveRequested
from orchestrator.model.nodes import End, Graph, Node, Parallel
from orchestrator.model.rules import rule_for
from orchestrator.model.run_state import Ending, NodeState, OwedNotification, RunInfo, RunState
from orchestrator.model.words import did_you_mean, listed

_NOT_COME_TO = (TaskStatus.NEW, TaskStatus.SKIPPED)


def redrive_requested(draft: Draft, fact: RedriveRequested) -> None:
    """Let the run go on, if the request is about the end that it is at, and there is something to be redriven."""
    run = draft.run
    if run is None or not is_about(run, fact) or refusal(draft.dag, RunState(run, draft.nodes), fact.start_from):
        return
    plan = Plan(draft.dag, RunState(run, draft.nodes), fact.start_from)
    for node in plan.again:
        draft.put(replace(new_state(node), attempt=draft.nodes[node.node_name].attempt))
    for parallel, numbers in plan.opened:
        draft.put(_opened(draft.nodes[parallel.node_name], numbers))
    draft.change_run(_going_on(draft, run, fact, plan))
    draft.entering.extend(plan.entering)


def is_about(run: RunInfo, fact: RedriveRequested) -> bool:
    """Whether a request is about the end that a run is at: one that comes again after the next end is not."""
    if not run.status.is_final:
        return False
    if fact.number is not None:
        return fact.number == run.redrives + 1
    return run.ended_at is not None and fact.at > run.ended_at


def entered(dag: DAG, state: RunState, fact: RedriveRequested) -> tuple[Node, ...]:
    """Return the nodes that a request lets start at once."""
    if refusal(dag, state, fact.start_from) is not None:
        return ()
    return tuple(node for node, _ in Plan(dag, state, fact.start_from).entering)


def refusal(dag: DAG, state: RunState, start_from: str | None) -> str | None:
    """Return why a run cannot be redriven, in words; None where it can."""
    run = state.run
    if run.pruned_at is not None:
        return "is being deleted by prune, which cannot be undone"
    if not run.status.is_final:
        return f"is {run.status}; it can be redriven once it has ended"
    if start_from is not None:
        node = state.nodes.get(start_from)
        if node is None:
            return f'has no step "{start_from}";{did_you_mean(start_from, state.nodes) or _there_are(state)}'
        if node.status in _NOT_COME_TO:
            return f"did not come by {start_from}; it can go on from a step that it came by"
    elif run.status is RunStatus.COMPLETED:
        return "has completed, so there is nothing to redrive; --from STEP runs it again from a step"
    return None if Plan(dag, state, start_from).entering else "has no step from which it could go on"


def _there_are(state: RunState) -> str:
    return f" there are {listed(name for name, node in state.nodes.items() if node.status not in _NOT_COME_TO)}"


class Plan:
    """What a redrive does, in definition order.

    Attributes:
        entering: nodes that are entered, and each one's `caught`.
        again: nodes that are New again.
        opened: Parallels that go on, and the numbers of the branches in which they do.
        is_finally: nothing but the `finally` goes on.
    """

    def __init__(self, dag: DAG, state: RunState, start_from: str | None = None) -> None:
        self._nodes = state.nodes
        self._chosen = dag.by_name[start_from] if start_from is not None else None
        self._holders = set(_holders(self._chosen))
        self.entering: list[tuple[Node, str | None]] = []
        self.again: list[Node] = []
        self.opened: list[tuple[Parallel, tuple[int, ...]]] = []
        goes_on = self._goes_on(dag)
        self.is_finally = False
        if dag.last_steps is None:
            return
        if goes_on:
            self.again += dag.last_steps.all_nodes
        else:
            self.is_finally = self._goes_on(dag.last_steps)

    def _goes_on(self, graph: Graph) -> bool:
        """Find where a body goes on; return whether it does."""
        found = self._found(graph)
        # What a way leads to from another one that goes on waits for that.
        beyond = _beyond(graph, found)
        for node in graph.nodes:
            state = self._nodes[node.node_name]
            if node.node_name not in beyond and node in found:
                numbers = self._open_branches(node, state)
                if isinstance(node, Parallel) and numbers:
                    self.opened.append((node, numbers))
                    continue
                self.entering.append((node, found[node]))
            elif node.node_name not in beyond and not (found and state.status is TaskStatus.SKIPPED):
                continue
            self.again += _with_inner(node)
        return bool(found)

    def _found(self, graph: Graph) -> dict[Node, str | None]:
        """Return the nodes of a body with which it goes on, and each one's `caught`."""
        own = {node.node_name: node for node in graph.nodes}
        if all(self._nodes[name].status in _NOT_COME_TO for name in own):
            around = graph.parent_node
            return {graph.start_node: None if around is None else self._nodes[around.node_name].caught}
        found: dict[Node, str | None] = {}
        for node in graph.nodes:
            state = self._nodes[node.node_name]
            if node is self._chosen or node in self._holders:
                found[node] = state.caught
            elif state.status is TaskStatus.COMPLETED:
                following = own[node.next] if node.next is not None else None
                if following is not None and self._nodes[following.node_name].status in _NOT_COME_TO:
                    found[following] = state.caught
            elif state.status not in _NOT_COME_TO and not self._is_handled(node, state):
                cause = own.get(state.caught or "") if isinstance(node, End) else None
                if cause is not None and state.status is TaskStatus.FAILED:
                    found[cause] = self._nodes[cause.node_name].caught
                else:
                    found[node] = state.caught
        return found

    def _is_handled(self, node: Node, state: NodeState) -> bool:
        """Whether a route of a node that did not complete has led on."""
        unnamed = "Task.Failed" if state.status is TaskStatus.FAILED else "Task.Cancelled"
        route = rule_for(node.routes, state.error.error_type if state.error is not None else unnamed)
        return route is not None and self._nodes[route.next].status not in _NOT_COME_TO

    def _open_branches(self, node: Node, state: NodeState) -> tuple[int, ...]:
        """Return the branches in which a Parallel goes on; none where it is to be entered as if for the first time."""
        is_fresh = node is self._chosen or state.status in _NOT_COME_TO
        if is_fresh or not isinstance(node, Parallel):
            return ()
        return tuple([number for number, branch in enumerate(node.branches) if self._goes_on(branch)])


def _holders(node: Node | None) -> Iterator[Node]:
    """Yield the Parallels around a node."""
    while node is not None:
        node = node.parent_dag.parent_node
        if node is not None:
            yield node


def _beyond(graph: Graph, first: Iterable[Node]) -> set[str]:
    """Names of all that the ways from some nodes of a body lead on to; there are no cycles."""
    ways = {node.node_name: tuple(edge.next for edge in node.edges) for node in graph.nodes}
    found: set[str] = set()
    waiting = [node.node_name for node in first]
    while waiting:
        for other in ways[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _with_inner(node: Node) -> Iterator[Node]:
    """Yield a node, and all that it holds."""
    yield node
    if isinstance(node, Parallel):
        for branch in node.branches:
            yield from branch.all_nodes


def _opened(state: NodeState, numbers: tuple[int, ...]) -> NodeState:
    """Return a Parallel that runs on, in these of its branches."""
    branches = [
        replace(branch, stopped_at=None) if number in numbers else branch
        for number, branch in enumerate(state.branches)
    ]
    return replace(
        state,
        status=TaskStatus.RUNNING,
        branches=tuple(branches),
        open_branches=len(numbers),
        stop=None,
        ended_at=None,
        error=None,
    )


def _going_on(draft: Draft, run: RunInfo, fact: RedriveRequested, plan: Plan) -> RunInfo:
    """Return the run's entry as it goes on: as if it had not ended, with all its time before it."""
    timeout_s = draft.dag.timeout_s
    return replace(
        run,
        status=RunStatus.RUNNING,
        redrives=run.redrives + 1,
        redriven_at=fact.at,
        ended_at=None,
        error=None,
        ending=Ending(RunStatus.COMPLETED) if plan.is_finally else None,
        cancel_reason=None,
        is_out_of_time=False,
        timeout_at=None if timeout_s is None else draft.now + timedelta(seconds=timeout_s),
        steered_at=fact.at if run.steered_at is None else max(run.steered_at, fact.at),
        held=(),
        is_resuming=False,
        owed_notifications=tuple(_kept(each, run) for each in run.owed_notifications),
    )


def _kept(owed: OwedNotification, run: RunInfo) -> OwedNotification:
    """Return a notification of the end that is taken back, with what it tells of that."""
    return owed if owed.run_error is not None else replace(owed, run_error=run.error)
