"""How nodes start, by their type. Pure."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.claims import claim
from orchestrator.engine.draft import Draft
from orchestrator.engine.ending import end
from orchestrator.model.commands import Failure
from orchestrator.model.enums import DueKind, NodeTypes, TaskStatus
from orchestrator.model.errors import ExpressionError
from orchestrator.model.ids import beside
from orchestrator.model.node_state import Items, NodeState
from orchestrator.model.nodes import Condition, End, Map, Node, Parallel, Pass, Task, Wait
from orchestrator.model.times import HOW_TIME, LONGEST_WAIT, parse_time
from orchestrator.model.words import kind_of


def start_waiting(draft: Draft) -> None:
    """Start what is to start, and what that lets start; a node that was started before is never started twice."""
    while draft.entering:
        name, caught = draft.entering.popleft()
        state = draft.nodes[name]
        stop = draft.stopped(name)
        if state.status is TaskStatus.NEW and stop is not None:
            end(draft, replace(state, caught=caught), TaskStatus.CANCELLED, error=stop)
        elif state.status is TaskStatus.NEW and draft.is_paused:
            draft.hold(name, caught)
        elif state.status is TaskStatus.NEW and state.node_type is NodeTypes.PART:
            claim(draft, replace(state, started_at=draft.now), state.attempt + 1)
        elif state.status is TaskStatus.NEW:
            node = draft.dag.place(name)
            _START[type(node)](draft, node, replace(state, started_at=draft.now, caught=caught))


def _start_task(draft: Draft, _: Node, state: NodeState) -> None:
    claim(draft, state, state.attempt + 1)


def _start_parallel(draft: Draft, node: Node, state: NodeState) -> None:
    branches = node.branches if isinstance(node, Parallel) else ()
    draft.put(replace(state, status=TaskStatus.RUNNING, open_branches=len(branches)))
    # Ahead of what waits already, so that the order is that of the definition, at any depth.
    starts = (first for branch in reversed(branches) for first in reversed(branch.start_nodes))
    draft.entering.extendleft((beside(state.node_name, first.node_name), state.caught) for first in starts)


def _start_map(draft: Draft, node: Node, state: NodeState) -> None:
    from orchestrator.engine import items  # nothing of it is needed where there is no Map

    if not isinstance(node, Map):
        raise TypeError(f"{node.node_name}: is no Map")
    if state.items is not None:  # a part's
        draft.put(replace(state, status=TaskStatus.RUNNING))
        items.begin(draft, state.node_name)
        return
    try:
        values = node.items.resolve(draft.scope(state))
    except ExpressionError as exc:
        _fail(draft, state, "Map.BadItems", str(exc))
        return
    if not isinstance(values, list):
        _fail(draft, state, "Map.BadItems", f"{state.node_name}.items: {node.words:.120} is {kind_of(values)}, no list")
    elif len(values) > draft.policy.max_items:
        most = f"allowed: {draft.policy.max_items:,}"
        _fail(draft, state, "Map.TooManyItems", f"{state.node_name}.items: has {len(values):,} items; {most}")
    elif not values:
        end(draft, replace(state, items=Items(0)), TaskStatus.COMPLETED, result=[])
    else:
        size = draft.policy.part_items
        parts = 0 if len(values) <= draft.policy.inline_items else -(-len(values) // size)
        draft.put(replace(state, status=TaskStatus.RUNNING, items=Items(len(values), values, parts=parts)))
        items.begin(draft, state.node_name)


def _start_condition(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, Condition):
        raise TypeError(f"{node.node_name}: is no Condition")
    scope = draft.scope(state)
    try:
        chosen = next((choice.next for choice in node.choices if choice.holds(scope)), node.default)
    except ExpressionError as exc:
        _fail(draft, state, "Condition.BadExpression", str(exc))
        return
    if chosen is None:
        _fail(draft, state, "Condition.NoChoice", f"{node.node_name}: none of its choices holds, and it has no default")
    else:
        end(draft, state, TaskStatus.COMPLETED, chosen=chosen)


def _start_wait(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, Wait):
        raise TypeError(f"{node.node_name}: is no Wait")
    at: datetime | None
    if node.for_s is not None:
        at = draft.now + timedelta(seconds=node.for_s)
    else:
        try:
            told = node.until.resolve(draft.scope(state))
        except ExpressionError as exc:
            _fail(draft, state, "Wait.BadTime", str(exc))
            return
        at = parse_time(told) if isinstance(told, str) else None
        if at is None:
            _fail(draft, state, "Wait.BadTime", f"{node.node_name}.until: {told!r:.80} is no time; {HOW_TIME}")
            return
        if at - draft.now > LONGEST_WAIT:
            words = f"is more than {LONGEST_WAIT.days} days off, which is the longest wait"
            _fail(draft, state, "Wait.BadTime", f"{node.node_name}.until: {told!r:.80} {words}")
            return
    if at <= draft.now:
        end(draft, state, TaskStatus.COMPLETED)
    else:
        draft.wait_until(replace(state, status=TaskStatus.RUNNING, attempt=state.attempt + 1), DueKind.WAIT.value, at)


def _start_pass(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, Pass):
        raise TypeError(f"{node.node_name}: is no Pass")
    try:
        result = node.result.resolve(draft.scope(state))
    except ExpressionError as exc:
        _fail(draft, state, "Pass.BadExpression", str(exc))
    else:
        end(draft, state, TaskStatus.COMPLETED, result=result)


def _start_end(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, End):
        raise TypeError(f"{node.node_name}: is no End")
    if node.ends_as is TaskStatus.COMPLETED:
        end(draft, state, TaskStatus.COMPLETED)
        return
    try:
        told = node.error.resolve(draft.scope(state))
    except ExpressionError as exc:
        _fail(draft, state, "End.BadExpression", str(exc))
        return
    error = told if isinstance(told, dict) else {}
    message = error.get("message", f"{node.node_name}: ends the way as Failed")
    _fail(draft, state, str(error.get("type", "Run.Failed")), str(message))


def _fail(draft: Draft, state: NodeState, error_type: str, message: str) -> None:
    end(draft, state, TaskStatus.FAILED, error=Failure(error_type, message))


_START: Mapping[type[Node], Callable[[Draft, Node, NodeState], None]] = {
    Task: _start_task,
    Parallel: _start_parallel,
    Map: _start_map,
    Condition: _start_condition,
    Wait: _start_wait,
    Pass: _start_pass,
    End: _start_end,
}
"""Node type -> what starts one."""
