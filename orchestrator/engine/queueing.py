"""Queueing: runs that wait for their turn, attempts that wait for a slot of their pool. Pure.

What waits says so in the run document: a `slot` with a ticket, not held. The save of that entitles to asking for it;
once the queue's object says that the ticket holds a slot, what waited starts, by a save of its own. So a slot is held
before anything starts, and it is given back only when a save says that what it was for has ended. A slot that nobody
gave back is recognised by its ticket, which the run document has no more.

Only runs whose DAG has `max_active_runs` or Tasks with a `pool` come by here.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import NO_TIMES, Draft
from orchestrator.engine.ending import end
from orchestrator.model.commands import AskSlot, Failure, ReleaseSlot
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.facts import RunAdmitted
from orchestrator.model.ids import launch_id_of, nonce_of
from orchestrator.model.node_state import NodeState, Slot
from orchestrator.model.run_state import Held, RunInfo, RunState
from orchestrator.model.slots import dag_queue, pool_queue

# -- runs ----------------------------------------------------------------------------------------------


def enqueue(draft: Draft, entering: Iterable[tuple[str, str | None]] = ()) -> None:
    """Have a run wait for its turn that begins or, by a redrive, goes on: with what it would enter then held in it."""
    run = draft.info
    slot = Slot(dag_queue(run.dag), _ticket(draft, run.run_id), draft.now)
    held = tuple(Held(name, caught) for name, caught in entering)
    draft.change_run(replace(run, status=RunStatus.QUEUED, queued_at=draft.now, slot=slot, timeout_at=None, held=held))


def admitted(draft: Draft, fact: RunAdmitted) -> None:
    """It is the run's turn."""
    run = draft.run
    if run is None or run.slot is None or run.status is not RunStatus.QUEUED or not _waits_by(run.slot, fact.ticket):
        return
    timeout_s = draft.dag.timeout_s
    draft.change_run(
        replace(
            run,
            status=RunStatus.RUNNING,
            started_at=run.started_at if run.redrives else draft.now,
            timeout_at=None if timeout_s is None else draft.now + timedelta(seconds=timeout_s),
            slot=replace(run.slot, is_held=True),
            held=(),
        )
    )
    if run.held:
        draft.entering.extend((each.node, each.caught) for each in run.held)
    else:
        draft.entering.extend((node.node_name, None) for node in draft.dag.start_nodes)


# -- attempts ------------------------------------------------------------------------------------------


def wait_for_slot(draft: Draft, node: NodeState, attempt: int, pool: str) -> None:
    """Have an attempt wait for a slot of its pool, with nothing claimed, nothing due."""
    node = replace(node, status=TaskStatus.RUNNING, attempt=attempt, execution_id=None, claim=None, due=NO_TIMES)
    if pool not in draft.policy.pools:
        there = (
            f"those that have one are {', '.join(sorted(draft.policy.pools))}" if draft.policy.pools else "none has one"
        )
        words = f'{node.node_name}: the pool "{pool}" has no limit here; {there}; set it in POOLS, as in {pool}=5'
        end(draft, replace(node, slot=None), TaskStatus.FAILED, error=Failure("Launch.NoPool", words))
        return
    launch_id = launch_id_of(draft.info.run_id, node.node_name, attempt)
    draft.put(replace(node, slot=Slot(pool_queue(pool), _ticket(draft, launch_id), draft.now)))


# -- pauses --------------------------------------------------------------------------------------------


def give_up_places(draft: Draft) -> bool:
    """A paused run waits in no queue. It keeps since when it waits, so it comes back to where it was.

    Returns:
        Whether it had a place anywhere.
    """
    given_up = False
    for slot, put in _waiting(draft):
        if slot.ticket:
            put(replace(slot, ticket=""))
            given_up = True
    return given_up


def ask_again(draft: Draft) -> None:
    """A run that is resumed takes its places again."""
    for slot, put in _waiting(draft):
        if not slot.ticket:
            put(replace(slot, ticket=_ticket(draft, put.holder)))


class _Put:
    """Writes the slot of a run, or of a node, into the draft."""

    def __init__(self, draft: Draft, node: NodeState | None) -> None:
        self._draft, self._node = draft, node
        run_id = draft.info.run_id
        self.holder = run_id if node is None else launch_id_of(run_id, node.node_name, node.attempt)

    def __call__(self, slot: Slot) -> None:
        if self._node is None:
            self._draft.change_run(replace(self._draft.info, slot=slot))
        else:
            self._draft.put(replace(self._node, slot=slot))


def _waiting(draft: Draft) -> Iterator[tuple[Slot, _Put]]:
    run = draft.info
    if run.slot is not None and run.waits_for_slot:
        yield run.slot, _Put(draft, None)
    if draft.dag.pools:
        for node in tuple(draft.nodes.values()):
            if node.slot is not None and node.waits_for_slot:
                yield node.slot, _Put(draft, node)


# -- what a decision comes to --------------------------------------------------------------------------


def settle(draft: Draft, before: RunState | None) -> None:
    """Ask for what waits since this decision, and give back what is held or waited for no more."""
    run = draft.info
    for was, slot, node, attempt in _differences(draft, before):
        if was is not None and was.ticket and (slot is None or slot.ticket != was.ticket):
            holder = run.run_id if node is None else launch_id_of(run.run_id, node.node_name, attempt)
            draft.commands.append(ReleaseSlot(was.queue, holder, was.ticket))
        if slot is not None and slot.ticket and not slot.is_held and (was is None or was.ticket != slot.ticket):
            limit = draft.dag.max_active_runs if node is None else draft.policy.pools.get(draft.task(node).pool or "")
            draft.commands.append(_ask(run, slot, limit, node))


def _differences(
    draft: Draft, before: RunState | None
) -> Iterator[tuple[Slot | None, Slot | None, NodeState | None, int]]:
    """Yield (slot before, slot now, its node or None for the run's own, attempt before)."""
    yield before.run.slot if before is not None else None, draft.info.slot, None, 0
    if not draft.dag.pools:
        return
    nodes: Mapping[str, NodeState] = before.nodes if before is not None else {}
    for name in draft.touched:
        node, was = draft.nodes[name], nodes.get(name)
        if was is not node and (node.slot is not None or (was is not None and was.slot is not None)):
            yield (was.slot, node.slot, node, was.attempt) if was is not None else (None, node.slot, node, 0)


def asks_of(dag: DAG, state: RunState, waiting: Iterable[NodeState], limits: Mapping[str, int]) -> list[AskSlot]:
    """What is waited for in a run, in its own order: what the Tick asks for again, lest it was never asked for.

    Args:
        dag: of the run's own definition.
        waiting: its nodes that wait for slots.
        limits: of pools, as they are here.
    """
    run = state.run
    asks = (
        [_ask(run, run.slot, dag.max_active_runs, None)]
        if run.slot is not None and run.waits_for_slot and run.slot.ticket
        else []
    )
    slots = ((node, node.slot) for node in waiting if node.slot is not None and node.slot.ticket)
    return asks + [_ask(run, slot, limits.get(node.pool), node) for node, slot in slots]


def _ask(run: RunInfo, slot: Slot, limit: int | None, node: NodeState | None) -> AskSlot:
    name, attempt = (None, 0) if node is None else (node.node_name, node.attempt)
    return AskSlot(slot.queue, slot.ticket, slot.since, run.priority, limit, run.dag, run.run_id, name, attempt)


def has_ticket(state: RunState, holder: str, ticket: str) -> bool:
    """Whether a run waits for, or holds, what `holder` asked for with this ticket."""
    _, _, rest = holder.partition("/")
    node = state.nodes.get(rest.rpartition("/")[0]) if rest else None
    slot = state.run.slot if not rest else node.slot if node is not None else None
    return slot is not None and slot.ticket == ticket


def _waits_by(slot: Slot, ticket: str) -> bool:
    return not slot.is_held and bool(ticket) and slot.ticket == ticket


def _ticket(draft: Draft, holder: str) -> str:
    return nonce_of(draft.token.seed, f"slot of {holder}")
