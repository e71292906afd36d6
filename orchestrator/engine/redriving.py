"""Redrive: a run that has ended goes on from where it failed, or from a step that somebody chose. Pure.

What is entered again follows from the document alone. In a body (the steps of a definition, a branch, a `finally`):

    a step that did not complete, and from which no route led on      is entered again
    a Parallel that did not complete                                  goes on in those of its branches that did not
    an End that says Failed, where an error led to it                 the step whose error that was is entered again
    a step that was to start, and was not come to                     is entered
    a chosen step                                                     is entered again; what holds it goes on inside

And all that the ways from there lead on to, or that depends on it, is New again: it may run, may be Skipped, and is
entered when its turn comes. So a route's steps that ran to their end are kept where the run has failed behind them, and
run again only if the step runs again that led there. A `finally` runs again after what went before it has; where only
it has failed, it goes on by the same rules.

A step that is New again keeps the number of its last attempt, and with it its place in the run: the next is another.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, new_state
from orchestrator.engine.ending import led_to
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus, TaskStatus, Triggers
from orchestrator.model.facts import RedriveRequested
from orchestrator.model.ids import beside, instance_of
from orchestrator.model.nodes import End, Graph, Node, Parallel
from orchestrator.model.run_state import Ending, NodeState, OwedNotification, RunInfo, RunState
from orchestrator.model.words import did_you_mean, listed

_NOT_COME_TO = (TaskStatus.NEW, TaskStatus.SKIPPED)


def redrive_requested(draft: Draft, fact: RedriveRequested) -> None:
    """Let the run go on, if the request is about the end that it is at, and there is something to be redriven."""
    run = draft.run
    if run is None or not is_about(run, fact) or refusal(draft.dag, RunState(run, draft.nodes), fact.start_from):
        return
    plan = Plan(draft.dag, RunState(run, draft.nodes), fact.start_from)
    for name in plan.again:
        fresh = new_state(draft.dag.place(name))
        draft.put(replace(fresh, node_name=name, attempt=draft.nodes[name].attempt))
    for name, numbers in plan.opened:
        draft.put(_opened(draft.nodes[name], numbers))
    draft.progress.clear()
    draft.change_run(_going_on(draft, run, fact, plan))
    draft.entering.extend(plan.entering)


def is_about(run: RunInfo, fact: RedriveRequested) -> bool:
    """Whether a request is about the end that a run is at: one that comes again after the next end is not."""
    if not run.status.is_final:
        return False
    if fact.number is not None:
        return fact.number == run.redrives + 1
    return run.ended_at is not None and fact.at > run.ended_at


def entered(dag: DAG, state: RunState, fact: RedriveRequested) -> tuple[str, ...]:
    """Return the nodes that a request lets start at once, by their names in the run document."""
    if refusal(dag, state, fact.start_from) is not None:
        return ()
    return tuple(name for name, _ in Plan(dag, state, fact.start_from).entering)


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
    """What a redrive does, in definition order. Nodes are named as their entries in the run document.

    Attributes:
        entering: nodes that are entered, and each one's `caught`.
        again: nodes that are New again.
        opened: Parallels that go on, and the numbers of the branches in which they do.
        is_finally: nothing but the `finally` goes on.
    """

    def __init__(self, dag: DAG, state: RunState, start_from: str | None = None) -> None:
        self._dag, self._nodes, self._chosen = dag, state.nodes, start_from
        self._holders = set(_holders(dag, start_from))
        self.entering: list[tuple[str, str | None]] = []
        self.again: list[str] = []
        self.opened: list[tuple[str, tuple[int, ...]]] = []
        goes_on = self._goes_on(dag, "")
        self.is_finally = False
        if dag.last_steps is None:
            return
        if goes_on:
            self.again += [node.node_name for node in dag.last_steps.all_nodes]
        else:
            self.is_finally = self._goes_on(dag.last_steps, "")

    def _goes_on(self, graph: Graph, instance: str) -> bool:
        """Find where an instance of a graph goes on; return whether it does."""
        found, going = self._found(graph, instance)
        for node in graph.nodes:
            entry = node.node_name + instance
            if node.node_name in found:
                numbers = self._open_branches(node, entry)
                if numbers:
                    self.opened.append((entry, numbers))
                    continue
                self.entering.append((entry, found[node.node_name]))
            if node.node_name in going:
                self.again += _with_inner(node, instance)
        return bool(found)

    def _found(self, graph: Graph, instance: str) -> tuple[dict[str, str | None], set[str]]:
        """Return the steps of a graph with which it goes on, each with its `caught`; and those with all behind them."""
        awaited, causes = _awaited(graph), self._causes(graph, instance)
        found: dict[str, str | None] = {}
        going = set[str]()
        for node in graph.ordered():  # what a step waits for comes before it
            name, state = node.node_name, self._nodes[node.node_name + instance]
            if self._waits(node, awaited.get(name, ()), going, instance):
                going.add(name)
                continue
            if state.node_name == self._chosen or state.node_name in self._holders or name in causes:
                found[name] = state.caught
            elif state.status in _NOT_COME_TO:
                starts, caught = self._starts(node, awaited.get(name, ()), instance)
                if starts:
                    found[name] = caught
            elif state.status is not TaskStatus.COMPLETED and not self._is_handled(node, state):
                found[name] = state.caught
            if name in found:
                going.add(name)
        return found, going

    def _causes(self, graph: Graph, instance: str) -> set[str]:
        """Return the steps whose errors have led to an End that says Failed: it is they that did not complete."""
        own = {node.node_name + instance: node.node_name for node in graph.nodes}
        ends = (self._nodes[node.node_name + instance] for node in graph.nodes if isinstance(node, End))
        return {own[end.caught] for end in ends if end.status is TaskStatus.FAILED and end.caught in own}

    def _waits(self, node: Node, awaited: Iterable[str], going: set[str], instance: str) -> bool:
        """Whether a step waits for one that goes on; what a first failure has let start does not, if that is kept."""
        if going.isdisjoint(awaited):
            return False
        if node.trigger is not Triggers.ONE_FAILED:
            return True
        return not any(name not in going and self._has_failed(name + instance) for name in node.depends_on)

    def _starts(self, node: Node, awaited: Collection[str], instance: str) -> tuple[bool, str | None]:
        """Whether a step was to start that was not come to, and what it has caught; what it waits for is kept."""
        around = node.parent_dag.parent_node
        caught = None if around is None else self._nodes[around.node_name + instance].caught
        if node.depends_on:
            failed = [name + instance for name in node.depends_on if self._has_failed(name + instance)]
            if node.trigger is Triggers.ONE_FAILED:
                return bool(failed), failed[0] if failed else None
            statuses = {self._nodes[name + instance].status for name in node.depends_on}
            return node.trigger is Triggers.ALL_DONE or statuses == {TaskStatus.COMPLETED}, caught
        if not awaited:
            return True, caught
        for name in awaited:
            following, brought = led_to(self._dag.place(name), self._nodes[name + instance])
            if following == node.node_name:
                return True, brought
        return False, None

    def _has_failed(self, entry: str) -> bool:
        return self._nodes[entry].status in (TaskStatus.FAILED, TaskStatus.CANCELLED)

    def _is_handled(self, node: Node, state: NodeState) -> bool:
        """Whether a route of a step that did not complete has led on."""
        following, _ = led_to(node, state)
        return following is not None and self._nodes[beside(state.node_name, following)].status not in _NOT_COME_TO

    def _open_branches(self, node: Node, entry: str) -> tuple[int, ...]:
        """Return the branches in which a Parallel goes on; none where it is to be entered as if for the first time."""
        if not isinstance(node, Parallel) or entry == self._chosen or self._nodes[entry].status in _NOT_COME_TO:
            return ()
        instance = instance_of(entry)
        return tuple([number for number, branch in enumerate(node.branches) if self._goes_on(branch, instance)])


def _holders(dag: DAG, entry: str | None) -> Iterator[str]:
    """Yield the Parallels around a node."""
    while entry is not None:
        around = dag.place(entry).parent_dag.parent_node
        entry = None if around is None else beside(entry, around.node_name)
        if entry is not None:
            yield entry


def _awaited(graph: Graph) -> Mapping[str, Collection[str]]:
    """Step of a graph -> the steps that it waits for, in definition order: by ways, or because it depends on them."""
    if graph.dependencies is not None:
        rank = graph.dependencies.rank
        return {name: sorted(names, key=rank.__getitem__) for name, names in graph.dependencies.awaited.items()}
    found: dict[str, list[str]] = {}
    for node in graph.nodes:
        for edge in node.edges:
            found.setdefault(edge.next, []).append(node.node_name)
    return found


def _with_inner(node: Node, instance: str) -> Iterator[str]:
    """Yield the entries of a node, and of all that it holds."""
    yield node.node_name + instance
    if isinstance(node, Parallel):
        for branch in node.branches:
            yield from (inner.node_name + instance for inner in branch.all_nodes)


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
        held=(),
        is_resuming=False,
        owed_notifications=tuple(_kept(each, run) for each in run.owed_notifications),
    )


def _kept(owed: OwedNotification, run: RunInfo) -> OwedNotification:
    """Return a notification of the end that is taken back, with what it tells of that."""
    return owed if owed.run_error is not None else replace(owed, run_error=run.error)
