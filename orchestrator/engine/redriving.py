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

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, new_state
from orchestrator.engine.ending import completed_before, led_to
from orchestrator.engine.items import begin
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus, Triggers
from orchestrator.model.facts import RedriveRequested, RunAdopted
from orchestrator.model.ids import beside, instance_of, step_of
from orchestrator.model.nodes import End, Graph, Map, Node, Parallel
from orchestrator.model.run_state import (
    GoesOn,
    Held,
    Items,
    NodeState,
    OwedNotification,
    RunInfo,
    RunState,
    child_of,
)
from orchestrator.model.words import did_you_mean, listed

_NOT_COME_TO = (TaskStatus.NEW, TaskStatus.SKIPPED)


def redrive_requested(draft: Draft, fact: RedriveRequested) -> None:
    """Let the run go on, if the request is about the end that it is at, and there is something to be redriven."""
    run = draft.run
    if run is None or not is_about(run, fact) or refusal(draft.dag, RunState(run, draft.nodes), fact.start_from):
        return
    _redrive(draft, run, fact.at, fact.start_from)
    if draft.dag.max_active_runs is not None and run.parent is None:
        from orchestrator.engine.queueing import enqueue

        enqueue(draft, _held(draft))
    else:
        draft.entering.extend(_held(draft))


def adopted(draft: Draft, fact: RunAdopted) -> None:
    """Let a child run go on for a later attempt of its parent's step.

    What is entered again is held, as in a child run that was made: it begins by a message, or by the Tick. A run that
    goes on anyway does so for that attempt; one that is being stopped goes on once it has ended.
    """
    run = draft.run
    if run is None or run.parent is None or run.pruned_at is not None:
        return
    was, now = run.parent, fact.parent
    if (was.run_id, was.node) != (now.run_id, now.node) or was.attempt >= now.attempt:
        return
    run = replace(run, parent=now)
    draft.change_run(run)
    if run.part_of is not None and fact.tolerated is not None:
        entry = draft.nodes[run.part_of.map]
        draft.put(replace(entry, items=replace(entry.items or Items(0), tolerated=fact.tolerated)))
    if not run.status.is_final:
        draft.change_run(replace(run, goes_on_at_end=fact.at if run.stop is not None else None))
    elif _can_go_on(draft, run):
        _redrive(draft, run, fact.at, None)
        draft.change_run(replace(draft.info, is_resuming=True))
    else:  # it has completed, or can do no more: that is the attempt's end
        draft.tell_parent()


def _can_go_on(draft: Draft, run: RunInfo) -> bool:
    """Whether there is something to go on with; in a part of a Map that has completed, items that were tolerated."""
    if run.status is RunStatus.COMPLETED and run.part_of is None:
        return False
    return not Plan.of_run(draft.dag, RunState(run, draft.nodes)).is_empty


def ended(draft: Draft) -> None:
    """Let a run go on that has ended, and was to go on then."""
    run, at = draft.info, draft.info.goes_on_at_end
    draft.change_run(replace(run, goes_on_at_end=None))
    if at is not None and refusal(draft.dag, RunState(run, draft.nodes), None) is None:
        _redrive(draft, draft.info, at, None)
        draft.entering.extend(_held(draft))


def items_go_on(draft: Draft) -> None:
    """Let items of Maps go on that had not completed, now that there is room for them."""
    while draft.going_on:
        plan = Plan.of_item(draft.dag, draft.nodes, draft.going_on.popleft())
        _apply(draft, plan)
        draft.entering.extend(plan.entering)


def _redrive(draft: Draft, run: RunInfo, at: datetime, start_from: str | None) -> None:
    """Write that a run goes on; what it goes on with is held."""
    plan = Plan.of_run(draft.dag, RunState(run, draft.nodes), start_from)
    draft.change_run(_going_on(draft, run, at))
    if plan.is_finally:
        ending = completed_before(draft)
        draft.change_run(replace(draft.info, ending=ending))
    _apply(draft, plan)
    items_go_on(draft)
    entering = [*plan.entering, *draft.entering]
    draft.entering.clear()
    draft.change_run(replace(draft.info, held=tuple(Held(*each) for each in entering)))


def _apply(draft: Draft, plan: Plan) -> None:
    """Write what a plan makes of the nodes; what it enters is left to the caller."""
    run, entered = draft.info, {name for name, _ in plan.entering}
    for name in plan.again:
        node = draft.nodes[name]
        fresh = _fresh(draft, node)
        goes_on = _goes_on(run, node) if name in entered and name != plan.chosen else None
        draft.put(replace(fresh, attempt=node.attempt, goes_on=goes_on))
    for name, numbers in plan.opened:
        draft.put(_opened(draft.nodes[name], numbers))
    for name in plan.items:
        draft.put(replace(draft.nodes[name], status=TaskStatus.RUNNING, last=None, ended_at=None, error=None))
    draft.progress.clear()
    for name, at_once in plan.maps:
        draft.put(_opened_map(draft.nodes[name], at_once))
    for name, numbers in plan.parts:
        _open_parts(draft, name, numbers, plan.chosen)
    for name, _ in reversed((*plan.maps, *plan.parts)):
        begin(draft, name)


def _fresh(draft: Draft, node: NodeState) -> NodeState:
    """Return an entry as it is before its node is come to."""
    name, part_of = node.node_name, draft.info.part_of
    if node.node_type is NodeTypes.ITEM:
        return NodeState(node_name=name, node_type=NodeTypes.ITEM, status=TaskStatus.NEW)
    if node.node_type is NodeTypes.PART:
        return NodeState(
            node_name=name,
            node_type=NodeTypes.PART,
            target_type=node.target_type,
            target_name=node.target_name,
            slice=node.slice,
            status=TaskStatus.NEW,
        )
    fresh = new_state(draft.dag.place(name), instance_of(name))
    if part_of is not None and part_of.map == name and node.items is not None:
        return replace(fresh, items=replace(node.items, started=0, ended=0, again=(), failed=()))
    return fresh


def _open_parts(draft: Draft, name: str, numbers: tuple[int, ...], chosen: str | None) -> None:
    """Let a Map of very many items run on: some of its parts go on, in their own runs, when there is room."""
    entry = draft.nodes[name]
    items, ended = entry.items or Items(0), 0
    place = draft.dag.place(name)
    tolerated = place.tolerates(items.count) if isinstance(place, Map) else 0
    for number in range(items.begun_parts):
        part = draft.nodes[f"{name}[{number}]"]
        if number not in numbers:
            ended += part.slice.count if part.slice is not None else 0
            continue
        fresh = replace(_fresh(draft, part), attempt=part.attempt)
        if part.slice is not None:
            fresh = replace(fresh, slice=replace(part.slice, tolerated=tolerated))
        if part.node_name != chosen:
            fresh = replace(fresh, goes_on=_child(draft.info, part))
        draft.put(fresh)
    items = replace(items, ended=ended, failed=(), more_failed=0, broken_parts=())
    draft.put(
        replace(
            entry,
            status=TaskStatus.RUNNING,
            items=items,
            stop=None,
            ended_at=None,
            result=None,
            stored_result=None,
            error=None,
        )
    )


def _child(run: RunInfo, node: NodeState) -> GoesOn | None:
    """Return the child run that is to go on in a step's next attempt."""
    if node.goes_on is not None and node.goes_on.attempt > node.attempt:  # it was to go on before, and was not come to
        return node.goes_on
    child = child_of(run.run_id, node)
    return GoesOn(child, node.attempt + 1) if child is not None else None


def _held(draft: Draft) -> list[tuple[str, str | None]]:
    """Take what is held out of the run."""
    held = draft.info.held
    draft.change_run(replace(draft.info, held=()))
    return [(each.node, each.caught) for each in held]


def _goes_on(run: RunInfo, node: NodeState) -> GoesOn | None:
    """Return the child run of a step that did not complete, which is to go on in its next attempt."""
    return None if node.status is TaskStatus.COMPLETED else _child(run, node)


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
    return tuple(name for name, _ in Plan.of_run(dag, state, fact.start_from).entering)


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
    if Plan.of_run(dag, state, start_from).is_empty:
        return "has no step that did not complete, only its result failed; --from STEP runs it again from a step"
    return None


def _there_are(state: RunState) -> str:
    return f" there are {listed(name for name, node in state.nodes.items() if node.status not in _NOT_COME_TO)}"


class Plan:
    """What a redrive does, in definition order. Nodes are named as their entries in the run document.

    Attributes:
        entering: nodes that are entered, and each one's `caught`.
        again: nodes that are New again.
        opened: Parallels that go on, and the numbers of the branches in which they do.
        maps: Maps that go on, and which of their items do at once; others that did not complete do when there is room.
        items: items of Maps that go on at once.
        parts: Maps of very many items that go on, and which of their parts do, when there is room.
        is_finally: nothing but the `finally` goes on.
    """

    def __init__(self, dag: DAG, nodes: Mapping[str, NodeState], start_from: str | None = None) -> None:
        self._dag, self._nodes, self.chosen = dag, nodes, start_from
        self._holders = set(_holders(dag, nodes, start_from))
        self.entering: list[tuple[str, str | None]] = []
        self.again: list[str] = []
        self.opened: list[tuple[str, tuple[int, ...]]] = []
        self.maps: list[tuple[str, tuple[int, ...]]] = []
        self.items: list[str] = []
        self.parts: list[tuple[str, tuple[int, ...]]] = []
        self.is_finally = False

    @classmethod
    def of_run(cls, dag: DAG, state: RunState, start_from: str | None = None) -> Plan:
        """Return that of a run, from where it failed and from a chosen step."""
        plan = cls(dag, state.nodes, start_from)
        if state.run.part_of is not None:
            plan._part_goes_on(state.run.part_of.map)
            return plan
        goes_on = plan._goes_on(dag, "")
        if dag.last_steps is not None and goes_on:
            plan.again += [entry for node in dag.last_steps.nodes for entry in plan._with_inner(node, "")]
        elif dag.last_steps is not None:
            plan.is_finally = plan._goes_on(dag.last_steps, "")
        return plan

    @classmethod
    def of_item(cls, dag: DAG, nodes: Mapping[str, NodeState], name: str) -> Plan:
        """Return that of one item of a Map that had not completed."""
        plan = cls(dag, nodes)
        plan._item_goes_on(name)
        return plan

    @property
    def is_empty(self) -> bool:
        """Whether nothing goes on."""
        return not (self.entering or self.maps or self.parts)

    def _part_goes_on(self, name: str) -> None:
        """Find where the run of a part goes on, which holds nothing but its Map."""
        place, state = self._dag.place(name), self._nodes[name]
        if not self._opens(place, name) and state.status is not TaskStatus.COMPLETED:
            self.again += self._with_inner(place, instance_of(name))
            self.entering.append((name, state.caught))

    def _item_goes_on(self, name: str) -> None:
        """Find where an item goes on; where that is nowhere, it runs again as a whole."""
        place, instance = self._dag.place(name), instance_of(name)
        self.items.append(name)
        if not isinstance(place, Map) or (name != self.chosen and self._goes_on(place.iterator, instance)):
            return
        caught = self._nodes[name].caught
        self.again += [entry for node in place.iterator.nodes for entry in self._with_inner(node, instance)]
        self.entering += [(first.node_name + instance, caught) for first in place.iterator.start_nodes]

    def _goes_on(self, graph: Graph, instance: str) -> bool:
        """Find where an instance of a graph goes on; return whether it does."""
        found, going = self._found(graph, instance)
        for node in graph.nodes:
            entry = node.node_name + instance
            if node.node_name in found:
                if self._opens(node, entry):
                    continue
                self.entering.append((entry, found[node.node_name]))
            if node.node_name in going:
                self.again += self._with_inner(node, instance)
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
            if state.node_name == self.chosen or state.node_name in self._holders or name in causes:
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

    def _opens(self, node: Node, entry: str) -> bool:
        """Whether a Parallel or Map goes on inside; if not, it is to be entered as if for the first time."""
        state = self._nodes[entry]
        if entry == self.chosen or state.status in _NOT_COME_TO:
            return False
        if isinstance(node, Parallel):
            instance = instance_of(entry)
            numbers = [number for number, branch in enumerate(node.branches) if self._goes_on(branch, instance)]
            if numbers:
                self.opened.append((entry, tuple(numbers)))
            return bool(numbers)
        items = state.items
        if not isinstance(node, Map) or items is None:
            return False
        inside = (self.chosen, *self._holders)
        at_once = tuple([index for index in items.begun if f"{entry}[{index}]" in inside])
        if items.parts:
            again = {*self._parts_to_go_on(entry, items), *at_once}
            if again or items.begun_parts < items.parts:
                self.parts.append((entry, tuple(sorted(again))))
            return bool(again) or items.begun_parts < items.parts
        if not at_once and not items.failed and items.started == items.count:
            return False
        self.maps.append((entry, at_once))
        for index in at_once:
            self._item_goes_on(f"{entry}[{index}]")
        return True

    def _parts_to_go_on(self, entry: str, items: Items) -> Iterator[int]:
        """Yield the parts that did not complete, and those with items that did not; all, where that is not known."""
        failed = iter(items.failed)
        index = next(failed, None)
        for number in range(items.begun_parts):
            part = self._nodes[f"{entry}[{number}]"]
            end = part.slice.first + part.slice.count if part.slice is not None else 0
            is_meant = part.status is not TaskStatus.COMPLETED or items.more_failed > 0
            while index is not None and index < end:
                is_meant, index = True, next(failed, None)
            if is_meant:
                yield number

    def _with_inner(self, node: Node, instance: str) -> Iterator[str]:
        """Yield the entries of a node, and of all that it holds; of a Map, of the items that had begun."""
        yield node.node_name + instance
        if isinstance(node, Parallel):
            for branch in node.branches:
                for inner in branch.nodes:
                    yield from self._with_inner(inner, instance)
        elif isinstance(node, Map):
            steps = {inner.node_name for inner in node.iterator.all_nodes} | {node.node_name}
            inside = f"{instance}["
            yield from (
                name
                for name in self._nodes
                if name[-1:] == "]" and instance_of(name).startswith(inside) and step_of(name) in steps
            )


def _holders(dag: DAG, nodes: Mapping[str, NodeState], entry: str | None) -> Iterator[str]:
    """Yield the Parallels, items and Maps around a node."""
    if entry is not None and nodes[entry].node_type in (NodeTypes.ITEM, NodeTypes.PART):
        entry = entry[: entry.rindex("[")]
        yield entry
    while entry is not None:
        around = dag.place(entry).parent_dag.parent_node
        entry = None if around is None else beside(entry, around.node_name)
        if entry is not None:
            yield entry
        if entry is not None and isinstance(around, Map):
            entry = entry[: entry.rindex("[")]
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


def _opened_map(state: NodeState, at_once: tuple[int, ...]) -> NodeState:
    """Return a Map that runs on: in these of its items at once, in others that did not complete when there is room."""
    items = state.items or Items(0)
    again = tuple([index for index in items.failed if index not in at_once])
    ended = items.started - len(again) - len(at_once)
    return replace(
        state,
        status=TaskStatus.RUNNING,
        items=replace(items, ended=ended, again=again, failed=()),
        stop=None,
        ended_at=None,
        result=None,
        stored_result=None,
        error=None,
    )


def _going_on(draft: Draft, run: RunInfo, at: datetime) -> RunInfo:
    """Return the run's entry as it goes on: as if it had not ended, with all its time before it."""
    is_part = run.part_of is not None
    timeout_s, deadline_s = (None, None) if is_part else (draft.dag.timeout_s, draft.dag.deadline_s)
    if deadline_s is not None and run.scheduled_for is None:  # else what it is for is as late as before
        run = replace(run, deadline_at=draft.now + timedelta(seconds=deadline_s), is_late=False)
    return replace(
        run,
        status=RunStatus.RUNNING,
        redrives=run.redrives + 1,
        redriven_at=at,
        ended_at=None,
        error=None,
        ending=None,
        cancel_reason=None,
        is_out_of_time=False,
        timeout_at=None if timeout_s is None else draft.now + timedelta(seconds=timeout_s),
        held=(),
        is_resuming=False,
        goes_on_at_end=None,
        result=None,
        stored_result=None,
        result_of=None,
        owed_notifications=tuple(_kept(each, run) for each in run.owed_notifications),
    )


def _kept(owed: OwedNotification, run: RunInfo) -> OwedNotification:
    """Return a notification of the end that is taken back, with what it tells of that."""
    return owed if owed.run_error is not None else replace(owed, run_error=run.error)
