"""How nodes start, by their type. Pure."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.attempts import claim
from orchestrator.engine.draft import Draft
from orchestrator.engine.ending import end
from orchestrator.engine.scope import scope_of
from orchestrator.model.commands import Failure
from orchestrator.model.enums import DueKind, TaskStatus, Triggers
from orchestrator.model.errors import ExpressionError
from orchestrator.model.ids import beside
from orchestrator.model.nodes import Condition, End, Node, Parallel, Pass, Task, Wait
from orchestrator.model.run_state import BranchState, NodeState
from orchestrator.model.times import HOW_TIME, LONGEST_WAIT, parse_time


def new_state(node: Node) -> NodeState:
    """The state of a node of a run that begins."""
    task = node if isinstance(node, Task) else None
    return NodeState(
        node_name=node.node_name,
        node_type=node.node_type,
        next=node.next,
        leads_to=tuple(dict.fromkeys(edge.next for edge in node.edges if edge.next != node.next)),
        target_type=task.target_type.value if task else None,
        target_name=task.target_name if task else None,
        invocation="sync" if task and task.target_key.endswith(".sync") else None,
        depends_on=node.depends_on,
        trigger=None if node.trigger is Triggers.ALL_COMPLETED else node.trigger,
        branches=tuple(BranchState.of([first.node_name for first in branch.start_nodes]) for branch in node.branches)
        if isinstance(node, Parallel)
        else (),
        status=TaskStatus.NEW,
    )


def start_waiting(draft: Draft) -> None:
    """Start what is to start, and what that lets start; a node that was started before is never started twice."""
    while draft.entering:
        name, caught = draft.entering.popleft()
        state = draft.nodes[name]
        stop = draft.stopped(name)
        if state.status is TaskStatus.NEW and stop is not None:
            end(draft, state, TaskStatus.CANCELLED, error=stop)
        elif state.status is TaskStatus.NEW and draft.is_paused:
            draft.hold(name, caught)
        elif state.status is TaskStatus.NEW:
            node = draft.dag.place(name)
            _START[type(node)](draft, node, replace(state, started_at=draft.now, caught=caught))


def _start_task(draft: Draft, _: Node, state: NodeState) -> None:
    claim(draft, state, 1)


def _start_parallel(draft: Draft, node: Node, state: NodeState) -> None:
    branches = node.branches if isinstance(node, Parallel) else ()
    draft.put(replace(state, status=TaskStatus.RUNNING, open_branches=len(branches)))
    # Ahead of what waits already, so that the order is that of the definition, at any depth.
    starts = (first for branch in reversed(branches) for first in reversed(branch.start_nodes))
    draft.entering.extendleft((beside(state.node_name, first.node_name), state.caught) for first in starts)


def _start_condition(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, Condition):
        raise TypeError(f"{node.node_name}: is no Condition")
    scope = scope_of(draft.info, draft.nodes, state)
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
            told = node.until.resolve(scope_of(draft.info, draft.nodes, state))
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
        draft.wait_until(replace(state, status=TaskStatus.RUNNING, attempt=1), DueKind.WAIT.value, at)


def _start_pass(draft: Draft, node: Node, state: NodeState) -> None:
    if not isinstance(node, Pass):
        raise TypeError(f"{node.node_name}: is no Pass")
    try:
        result = node.result.resolve(scope_of(draft.info, draft.nodes, state))
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
        told = node.error.resolve(scope_of(draft.info, draft.nodes, state))
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
    Condition: _start_condition,
    Wait: _start_wait,
    Pass: _start_pass,
    End: _start_end,
}
"""Node type -> what starts one."""
