"""Redrive: a run that has ended goes on from where it failed, or from a step that somebody chose. Pure.

What is entered again `redrive_plan` finds; here it is done.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from msgspec.structs import replace

from orchestrator.engine.draft import Draft, new_state
from orchestrator.engine.ending import completed_before
from orchestrator.engine.items import begin
from orchestrator.engine.redrive_plan import NOT_COME_TO, Plan
from orchestrator.model.dag import DAG
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.facts import RedriveRequested, RunAdopted
from orchestrator.model.ids import instance_of
from orchestrator.model.node_state import GoesOn, Items, NodeState
from orchestrator.model.nodes import Map
from orchestrator.model.run_state import Held, OwedNotification, RunInfo, RunState, child_of
from orchestrator.model.words import did_you_mean, listed


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
            elsewhere = _in_a_part(dag, state, start_from)
            if elsewhere is not None:
                return elsewhere
            return f'has no step "{start_from}";{did_you_mean(start_from, state.nodes) or _there_are(state)}'
        if node.status in NOT_COME_TO:
            return f"did not come by {start_from}; it can go on from a step that it came by"
    elif run.status is RunStatus.COMPLETED:
        return "has completed, so there is nothing to redrive; --from STEP runs it again from a step"
    if Plan.of_run(dag, state, start_from).is_empty:
        return "has no step that did not complete, only its result failed; --from STEP runs it again from a step"
    return None


def _in_a_part(dag: DAG, state: RunState, name: str) -> str | None:
    """Return where a step of an item stands, or an item, that is in a part of a Map; None where it is none of those."""
    indices = [int(index) for index in re.findall(r"\[([0-9]{1,9})\]", name)]
    place = dag.find_place(name)
    maps: list[Map] = []
    while place is not None:
        maps[:0] = [place] if isinstance(place, Map) else []
        place = place.parent_dag.parent_node
    for around, index in zip(maps, indices, strict=False):
        entry = around.node_name + "".join(f"[{each}]" for each in indices[: maps.index(around)])
        items = state.nodes[entry].items if entry in state.nodes else None
        if items is None or not items.parts:
            continue
        if index >= items.count:
            return f"{entry} has {items.count:,} items, of which {name} is none; the last one is {items.count - 1}"
        for number in range(items.begun_parts):
            part = state.nodes[f"{entry}[{number}]"]
            if part.slice is None or not 0 <= index - part.slice.first < part.slice.count:
                continue
            child = child_of(state.run.run_id, part)
            return (
                f"{entry} runs as {items.parts} parts, and {name} is in {child}, the run of {part.node_name}; "
                f"redrive {child} with --from {name}, and after that this run; "
                f"--from {part.node_name} runs all of the part again"
            )
        return f"did not come by {name}; it can go on from a step that it came by"
    return None


def _there_are(state: RunState) -> str:
    return f" there are {listed(name for name, node in state.nodes.items() if node.status not in NOT_COME_TO)}"


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
