"""What a run costs in Google Cloud, estimated from its document alone. Pure.

The document does not count what was done for it, and counting there would cost writes of its own. But each save of a
run decides at one time, and what starts or ends by it bears that time. So the saves are about as many as there are
different times in the document, and one more for each further attempt. What else an attempt costs follows from where
it was launched: the table below. `tests/scenarios/test_cost.py` counts the operations of real runs beside it.

Not in it, for the document does not tell: lost races, notifications, reminders of a step's own `timeout`, records of
functions of the 1st generation, and the one write of a definition that is new. Child runs have documents of their own.
What the tasks themselves cost (functions, jobs, logs, what they write) is not the orchestrator's.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise

from orchestrator.model.commands import target_key
from orchestrator.model.enums import NodeTypes, TargetTypes
from orchestrator.model.node_state import NodeState
from orchestrator.model.prices import LEAST_MESSAGE, Operations, message, task, work
from orchestrator.model.run_state import RunInfo, RunState

VCPUS, MEMORY_GIB = 1.0, 0.5
"""The orchestrator's function, as terraform/ deploys it."""

HANDLING_S = 0.15
"""What a save costs the function in time, where events come one by one: three calls of some 30 ms each and our own
work, and half of what that is rounded up by. Assumed; `make bench-cloud` measures it with such calls."""

EVENT_S = 0.005
"""What each further event costs that shares a save."""

LOOK_S = 0.05
"""What a look of the Tick at an open run takes longer than a Tick that finds none, which is paid for in any case."""

PACE_S = 1.9
"""Saves of one run that share events are no farther apart than this in Cloud Storage: about one a second is made, and
now and then others are let go first."""

TICK_S = 60.0
"""So often the Tick looks after a run."""

ENTRY_BYTES = 2048
"""Of the log entry that tells of an end."""

_ENTRY = message(ENTRY_BYTES)
_MESSAGE = message(LEAST_MESSAGE)
_RECORD = Operations(class_a=1)

_SYNC = target_key(TargetTypes.CLOUD_FUNCTION, "sync")

_EACH: Mapping[str, Operations] = {
    TargetTypes.CLOUD_FUNCTION: task() + _ENTRY + Operations(class_b=1),
    _SYNC: _ENTRY + Operations(class_b=2),
    TargetTypes.FUNCTION: Operations(),
    TargetTypes.CLOUD_RUN_JOB: _ENTRY,
    TargetTypes.DAG: _MESSAGE.times(2) + Operations(class_b=1),
    TargetTypes.CALLBACK: _RECORD + _MESSAGE + Operations(class_b=1),
    TargetTypes.DATAPROC: _RECORD,
    TargetTypes.BATCH: _RECORD,
}
"""Target key -> what a launch and its end cost beside the saves; of others, a record and a log entry."""

_OTHER = _RECORD + _ENTRY
_ASKED = (TargetTypes.DATAPROC, TargetTypes.BATCH)
_WAITED_FOR = (_SYNC, TargetTypes.FUNCTION)
"""The orchestrator's function waits until these have ended."""

_QUESTION = task() + _MESSAGE + Operations(class_a=1)
_REMINDER = task() + _MESSAGE


def operations_of(state: RunState, now: datetime) -> Operations:
    """Return what a run has cost until `now`, or its end."""
    run = state.run
    ended_at = run.ended_at or now
    times = _times(run, state.nodes)
    again = sum(max(0, node.attempt - 1) for node in state.nodes.values() if node.node_type is NodeTypes.TASK)
    looks = max(0, int((ended_at - (run.redriven_at or run.started_at)).total_seconds() // TICK_S))
    total = _of_run(run) + Operations(class_b=looks)
    busy_s = _busy_s(times) + again * HANDLING_S + looks * LOOK_S
    total += Operations(class_a=len(times) + again) + work(busy_s, VCPUS, MEMORY_GIB)
    for node in state.nodes.values():
        total += _of_node(node, ended_at)
    return total


def _of_run(run: RunInfo) -> Operations:
    """Start, markers, slots, and the Tick's look after the end."""
    total = Operations(class_a=1 + run.redrives, class_b=2 + run.redrives)
    total += _MESSAGE.times(run.redrives + (run.parent is None))
    if run.queued_at is not None:
        total += Operations(class_a=2, class_b=2)
    return total + (Operations(class_a=1) if run.stored_result is not None else Operations())


def _of_node(node: NodeState, ended_at: datetime) -> Operations:
    total = Operations(class_a=1, class_b=1) if node.stored_result is not None else Operations()
    took_s = (
        0.0 if node.started_at is None else max(0.0, ((node.ended_at or ended_at) - node.started_at).total_seconds())
    )
    if node.node_type is NodeTypes.WAIT and node.attempt:
        return total + _REMINDER
    if not node.target_key or not node.attempt:
        return total
    total += _EACH.get(node.target_key, _OTHER).times(node.attempt) + _REMINDER.times(node.attempt - 1)
    if node.target_key in _ASKED:
        total += _QUESTION.times(_questions(took_s))
    if node.target_key in _WAITED_FOR:
        total += work(took_s, VCPUS, MEMORY_GIB)
    if node.target_key == TargetTypes.CLOUD_FUNCTION:
        # Each look asks for a result, and whether it has begun; the first one has its execution saved, too.
        total += Operations(class_a=took_s >= TICK_S, class_b=2 * (took_s // TICK_S))
    return total


def _times(run: RunInfo, nodes: Mapping[str, NodeState]) -> Counter[datetime]:
    """The times at which the run was saved, as far as they stand in it, and how many Tasks ended at each."""
    found = Counter[datetime]()
    for at in (run.started_at, run.ended_at, run.redriven_at, run.queued_at):
        if at is not None:
            found[at] += 0
    for node in nodes.values():
        if node.started_at is not None:
            found[node.started_at] += 0
        if node.ended_at is not None:
            found[node.ended_at] += node.node_type is NodeTypes.TASK
    return found


def _busy_s(times: Counter[datetime]) -> float:
    """How long the function was at work for saves at these times.

    Where several Tasks ended at one time, the events of some had waited for that save, and waiting is paid for.
    """
    in_order = sorted(times)
    total_s = HANDLING_S * len(in_order)
    total_s += EVENT_S * sum(ended - 1 for ended in times.values() if ended > 1)
    for before, after in pairwise(in_order):
        gap_s = (after - before).total_seconds()
        if times[after] > 1 and HANDLING_S < gap_s <= PACE_S:
            total_s += gap_s - HANDLING_S
    return total_s


def _questions(took_s: float) -> int:
    """How often a service was asked that leaves no event: after 15 s, 30 s, … 8 minutes; then the Tick asks."""
    return sum(1 for doubled in range(6) if 15.0 * 2**doubled <= took_s)
