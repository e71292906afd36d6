"""What follows, and when a graph ends, where steps depend on others (`depends_on`). Pure.

In such a graph several steps are under way at once, and what each waits for is told from the statuses alone; nothing
is counted. A step *waits for* those that it depends on, or else for those with a way to it (`next`, a choice,
`on_error`).

- It is decided on when all that it waits for have ended; by `one_failed` it starts before that, at the first failure.
- A trigger that does not hold then makes it Skipped, and so do ways that none of them has taken.
- A Skipped step has ended: what waits for it is looked at in its turn.

So all that a step waits for has ended when it has, unless it started by `one_failed`; what starts does not depend on
the order in which events come in; and as nothing waits in a circle, some step of a graph that has not ended is Running
or held. A failed step stops nothing but what waits for its completion. The graph ends when all its steps have; where it
is stopped, when none is Running: what is New then stays so, until the run's end.

A step that failed, and that no `on_error` has led on from, makes the graph fail, whoever has depended on it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, Progress
from orchestrator.engine.ending import end_graph, led_to
from orchestrator.engine.stopping import entries_in
from orchestrator.model.dependencies import Dependencies
from orchestrator.model.enums import TaskStatus, Triggers
from orchestrator.model.node_state import NodeState
from orchestrator.model.nodes import Graph, Node, Parallel

FAILED = (TaskStatus.FAILED, TaskStatus.CANCELLED)
OPEN = (TaskStatus.NEW, TaskStatus.RUNNING)


def look(draft: Draft) -> None:
    """Look, in one graph, at what waits for steps that have ended: have it started, skip it, end the graph.

    What is to start then has to be started before the next look.
    """
    (graph, instance), ended = draft.joining.popitem()
    if graph.dependencies is not None:
        _Look(draft, graph, graph.dependencies, instance).at_followers_of(ended)


def _progress(nodes: Mapping[str, NodeState], names: Iterable[str], instance: str) -> Progress:
    """How the steps of an instance of a graph stand. One pass over them, where less than that is not enough."""
    by_status: dict[TaskStatus, set[str]] = {status: set() for status in TaskStatus}
    for name in names:
        status = nodes[name + instance].status
        if status is not TaskStatus.COMPLETED:
            by_status[status].add(name)
    return Progress(
        by_status[TaskStatus.NEW] | by_status[TaskStatus.RUNNING],
        by_status[TaskStatus.FAILED] | by_status[TaskStatus.CANCELLED],
        by_status[TaskStatus.SKIPPED],
    )


class _Look:
    """One look at one instance of a graph."""

    def __init__(self, draft: Draft, graph: Graph, dependencies: Dependencies, instance: str) -> None:
        self._draft, self._graph, self._instance = draft, graph, instance
        self._dependencies = dependencies
        self._known = draft.progress.get((graph, instance))
        self._held = {held.node for held in draft.info.held}
        self._is_stopped = draft.stopped(self._entry(graph.start_node.node_name)) is not None
        self._entered: set[str] = set()

    def at_followers_of(self, ended: Sequence[str]) -> None:
        """Decide on all that can be decided on now that these have ended."""
        if self._known is None and self._is_much(ended):
            names = self._dependencies.rank
            self._known = _progress(self._draft.nodes, names, self._instance)
            self._draft.progress[self._graph, self._instance] = self._known
        if self._known is not None:
            self._known.open.difference_update(ended)
            self._known.failed.update(name for name in ended if self._status(name) in FAILED)
        waiting, seen = deque(ended), ""
        while waiting:
            name = waiting.popleft()
            for follower in self._dependencies.followers[name]:
                if not self._is_open(follower):
                    continue
                if follower not in self._entered and self._decide_on(follower, name):
                    waiting.append(follower)
                else:
                    seen = follower
        if not self._entered and self._is_over(seen):
            end_graph(self._draft, self._graph, self._instance, self._stopped_at())

    def _is_over(self, seen: str) -> bool:
        """Whether the graph has ended, or is stopped and nothing in it goes on; `seen`: one that was open, if any."""
        if self._is_stopped:
            return not any(map(self._goes_on, self._open()))
        return not (seen and self._is_open(seen)) and next(iter(self._open()), None) is None

    def _decide_on(self, name: str, ended: str) -> bool:
        """Start a step, or skip it, if it can be told which, now that `ended` has; return whether it was skipped."""
        awaited = self._dependencies.awaited[name]
        waits = self._has_open(awaited)
        if waits and self._status(ended) not in FAILED:
            return False  # what failed before has been looked at
        node, entry = self._draft.dag.place(name), self._entry(name)
        if node.trigger is not Triggers.ONE_FAILED and waits:
            return False
        if self._draft.nodes[entry].status is not TaskStatus.NEW or entry in self._held:
            return False
        starts, caught = self._by_trigger(node, awaited) if node.depends_on else self._by_ways(name, awaited)
        if not starts:
            self._skip(name)
        elif not self._is_stopped:
            self._entered.add(name)
            self._draft.entering.append((entry, caught))
        return not starts

    def _by_trigger(self, node: Node, awaited: frozenset[str]) -> tuple[bool, str | None]:
        """Whether a step starts by those that it depends on, and what it has caught."""
        if node.trigger is Triggers.ONE_FAILED:
            first = next((name for name in node.depends_on if self._status(name) in FAILED), None)
            return first is not None, first and self._entry(first)
        have_completed = self._have_completed(awaited)
        if node.trigger is Triggers.ALL_COMPLETED and not have_completed:
            return False, None
        around = self._draft.parent_of(self._entry(node.node_name))
        return True, around.caught if around is not None else None

    def _by_ways(self, name: str, awaited: Iterable[str]) -> tuple[bool, str | None]:
        """Whether a way led to a step, and what is caught there: of several, what the first one brings."""
        found = False
        caught: str | None = None
        for each in self._places(awaited):
            following, brought = led_to(each, self._draft.nodes[self._entry(each.node_name)])
            found = found or following == name
            caught = caught or (brought if following == name else None)
        return found, caught

    def _is_much(self, ended: Sequence[str]) -> bool:
        """Whether one pass over all steps costs less than to look at what each follower of these waits for."""
        of = self._dependencies
        left = len(of.rank)
        for name in ended:
            for follower in of.followers[name]:
                left -= len(of.awaited[follower])
                if left < 0:
                    return True
        return False

    def _is_open(self, name: str) -> bool:
        return self._status(name) in OPEN

    def _has_open(self, names: frozenset[str]) -> bool:
        if self._known is not None:
            return not names.isdisjoint(self._known.open)
        return any(map(self._is_open, names))

    def _have_completed(self, names: frozenset[str]) -> bool:
        if self._known is not None:
            return names.isdisjoint(self._known.failed) and names.isdisjoint(self._known.skipped)
        return all(self._status(name) is TaskStatus.COMPLETED for name in names)

    def _open(self) -> Iterator[str] | set[str]:
        """The steps that have not ended; without a pass the last first, for those are open the longest."""
        if self._known is not None:
            return self._known.open
        return (name for name in reversed(tuple(self._dependencies.rank)) if self._is_open(name))

    def _places(self, names: Iterable[str]) -> list[Node]:
        """Steps of this graph, in definition order."""
        rank = self._dependencies.rank
        return [self._draft.dag.place(name) for name in sorted(names, key=rank.__getitem__)]

    def _skip(self, name: str) -> None:
        if self._known is not None:
            self._known.open.discard(name)
            self._known.skipped.add(name)
        entry = self._entry(name)
        inside = entries_in(self._draft, entry) if isinstance(self._draft.dag.place(name), Parallel) else ()
        for each in (entry, *inside):
            self._draft.put(replace(self._draft.nodes[each], status=TaskStatus.SKIPPED))

    def _stopped_at(self) -> NodeState | None:
        """The first step, in definition order, that failed; else was cancelled; else was never decided on."""
        found: dict[TaskStatus, NodeState] = {}
        for node in self._graph.nodes:
            state = self._draft.nodes[self._entry(node.node_name)]
            if state.status is TaskStatus.NEW or (state.status in FAILED and not self._is_routed(node, state)):
                found.setdefault(state.status, state)
        return next((found[status] for status in (*FAILED, TaskStatus.NEW) if status in found), None)

    def _is_routed(self, node: Node, state: NodeState) -> bool:
        """Whether an `on_error` has led on from a step that failed."""
        following, _ = led_to(node, state)
        return following is not None and self._status(following) not in (TaskStatus.NEW, TaskStatus.SKIPPED)

    def _goes_on(self, name: str) -> bool:
        return self._status(name) is TaskStatus.RUNNING or self._entry(name) in self._held

    def _entry(self, name: str) -> str:
        return name + self._instance

    def _status(self, name: str) -> TaskStatus:
        return self._draft.nodes[name + self._instance].status
