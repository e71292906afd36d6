"""How nodes start, by their type. Pure."""

from collections.abc import Callable, Mapping

from msgspec.structs import replace

from orchestrator.engine.attempts import claim
from orchestrator.engine.draft import Draft
from orchestrator.model.enums import TaskStatus
from orchestrator.model.nodes import Node, Parallel, Task
from orchestrator.model.run_state import BranchState, NodeState


def new_state(node: Node) -> NodeState:
    """The state of a node of a run that begins."""
    task = node if isinstance(node, Task) else None
    return NodeState(
        node_name=node.node_name,
        node_type=node.node_type,
        next=node.next,
        target_type=task.target_type.value if task else None,
        target_name=task.target_name if task else None,
        invocation="sync" if task and task.target_key.endswith(".sync") else None,
        branches=tuple(BranchState(branch.start_node.node_name) for branch in node.branches)
        if isinstance(node, Parallel)
        else (),
        status=TaskStatus.NEW,
    )


def start_waiting(draft: Draft) -> None:
    """Start what is to start, and what that lets start; a node that was started before is never started twice."""
    while draft.entering:
        node = draft.entering.popleft()
        state = draft.nodes[node.node_name]
        if state.status is TaskStatus.NEW:
            _START[type(node)](draft, node, replace(state, started_at=draft.now))


def _start_task(draft: Draft, _: Node, state: NodeState) -> None:
    claim(draft, state)


def _start_parallel(draft: Draft, node: Node, state: NodeState) -> None:
    branches = node.branches if isinstance(node, Parallel) else ()
    draft.put(replace(state, status=TaskStatus.RUNNING, open_branches=len(branches)))
    # Ahead of what waits already, so that the order is that of the definition, at any depth.
    draft.entering.extendleft(branch.start_node for branch in reversed(branches))


_START: Mapping[type[Node], Callable[[Draft, Node, NodeState], None]] = {Task: _start_task, Parallel: _start_parallel}
"""Node type -> what starts one."""
