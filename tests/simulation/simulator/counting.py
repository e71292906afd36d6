"""What is counted of a simulation: which fault met which step and changed what happened, and what is rare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from orchestrator.engine.status import marker_of
from orchestrator.model.commands import Json, Launch
from orchestrator.model.enums import DueKind, RunStatus, TaskStatus
from orchestrator.model.ids import parse_launch_id
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState
from orchestrator.stores.memory import MemoryStore
from tests.simulation.simulator.checks import Checks
from tests.simulation.simulator.cloud import Bucket, Message, at
from tests.simulation.simulator.crew import Crew, Strand
from tests.simulation.simulator.meetings import step_at
from tests.simulation.simulator.services import Running, Services
from tests.simulation.simulator.tape import Tape

_DO_SOMETHING = frozenset(("put", "delete", "publish", "launch", "cancel", "notify"))
"""Calls that do not only ask."""


@dataclass
class _Standing:
    """A thread that does not go on, though it could.

    Attributes:
        fault: stall, or hang.
        written, ended: how often others had written its run by then, and how many executions of that had ended.
    """

    fault: str
    step: str
    written: int
    ended: int


class Counting:
    """Counts which fault met which step of the loop, or which message; docs/simulation.md says when."""

    def __init__(self, tape: Tape, crew: Crew, services: Services, bucket: Bucket, checks: Checks) -> None:
        self.tape, self.crew, self.services, self.bucket, self.checks = tape, crew, services, bucket, checks
        self.standing: dict[Strand, _Standing] = {}
        self.claimed_by: dict[str, Strand] = {}
        self.steered: dict[Strand, list[tuple[str, str]]] = {}
        """Threads whose run was steered while they were at a step -> (how, the step)."""
        self.delivered: dict[str, float] = {}
        """Run id -> of the messages about it that were delivered, when the last was to come, in seconds."""
        self.handled: dict[int, object] = {}
        """What was told by messages that were handled."""

    # -- threads that do not go on --------------------------------------------------------------------

    def stands(self, strand: Strand, fault: str = "stall") -> None:
        """Note what a thread that does not go on might have seen."""
        if strand not in self.standing:
            self.standing[strand] = _Standing(fault, strand.at, self._writes(strand, fault), self._ends(strand))

    def _writes(self, strand: Strand, fault: str) -> int:
        """How often the run has been written that a thread is at, by others than its process if all of that stands."""
        return self.bucket.writes_to(strand.about, strand.host if fault == "stall" else None)

    def _ends(self, strand: Strand) -> int:
        ends = self.services.ends
        return ends.total() if strand.about is None else ends[strand.about]

    def goes_on(self, strand: Strand) -> None:
        """Count that a thread goes on that stood still, where its run is not as it was, or whose run was steered."""
        if strand.host.is_dead:
            return
        for fault, step in self.steered.pop(strand, ()):
            self.tape.meets(fault, step)
        stood = self.standing.pop(strand, None)
        if stood is None:
            return
        if self._writes(strand, stood.fault) > stood.written or self._ends(strand) > stood.ended:
            self.tape.meets(stood.fault, step_at(stood.step))

    def killed(self, strand: Strand, messages: Collection[Message]) -> None:
        """Count that a thread is cut off: before a call that does something, in what is begun again, or in a Tick
        that had something to do."""
        message, call = strand.message, strand.at.partition(" ")[0]
        is_cut_off = call in _DO_SOMETHING and not strand.at.endswith(", done")
        comes_again = any(each is message for each in messages)
        is_of_tick = isinstance(message, Message) and message.kind == "tick"
        if is_cut_off or comes_again or (is_of_tick and (strand.at == "decide" or self._has_chores())):
            self.tape.meets("kill", step_at(strand.at))

    def _has_chores(self) -> bool:
        """Whether a Tick has something to do: what is due, late, waiting for a slot or over."""
        now = at(self.crew.now)
        for state in self.checks.states.values():
            run = state.run
            if run.status.is_final and self.bucket.held.get(marker_of(run.run_id, run.redrives)) is not None:
                return True
            if run.is_resuming or run.waits_for_slot or any(each.lease_end <= now for each in run.owed_notifications):
                return True
            for node in state.nodes.values() if not run.status.is_final else ():
                is_late = node.claim is not None and node.execution_id is None and node.claim.lease_end <= now
                if is_late or node.waits_for_slot or any(due <= now for due in node.due.values()):
                    return True
        return False

    # -- messages -------------------------------------------------------------------------------------

    def lost(self, message: Message) -> None:
        """A message is lost; that counts where somebody waited for what it says."""
        if self._is_wanted(message):
            self.tape.meets("lost", message.kind)

    def line_lost(self, execution: Running) -> None:
        """So is the line of an end."""
        if self._awaited(execution.launch):
            self.tape.meets("lost", "completion")

    def delivery(self, message: Message) -> None:
        """Count what befell a message on its way that is delivered now, for the first time."""
        if message.tries > 1:
            return
        run_id, kind = message.run_id, message.kind
        if message.is_forged and self._is_wanted(message):
            self.tape.meets("forged", kind)
        whose, to_come_at = run_id or "", message.published_at
        last = self.delivered.get(whose, -1.0)
        written_at = self.checks.written_at.get(run_id, -1.0)
        if message.late_s and (written_at > message.due_at - message.late_s or last > to_come_at):
            self.tape.meets("late", kind)
        if last > to_come_at and (run_id is None or written_at > to_come_at):
            self.tape.meets("out of order", kind)
        self.delivered[whose] = max(last, to_come_at)

    def handled_to_the_end(self, message: Message) -> None:
        """Count that what a message tells of is handled that has been before."""
        if id(message.data) in self.handled:
            self.tape.meets("twice", message.kind)
        self.handled[id(message.data)] = message.data

    def _awaited(self, launch: Launch) -> bool:
        """Whether a run waits for the end of a launch's attempt."""
        state = self.checks.states.get(launch.run_id)
        node = state.nodes.get(launch.node_name) if state is not None else None
        return node is not None and node.status is TaskStatus.RUNNING and node.attempt == launch.attempt

    def _is_wanted(self, message: Message) -> bool:
        """Whether what a message tells of is still to come, as far as its run's document says."""
        data, kind = message.data, message.kind
        state = self.checks.states.get(message.run_id or "")
        if state is None:
            return False
        if kind == "begin":
            return state.run.is_resuming or bool(state.run.held)
        if kind == "slot":
            node = state.nodes.get(data["node_name"]) if "node_name" in data else None
            return state.run.waits_for_slot if node is None else node.waits_for_slot
        if kind == "reminder":
            node = state.nodes.get(data["node_name"])
            is_current = node is not None and node.attempt == data["attempt"] and node.status is TaskStatus.RUNNING
            return is_current and (data.get("kind") is None or data["kind"] in node.due)
        if kind == "heartbeat":
            ids = parse_launch_id(data["launch_id"])
            node = state.nodes.get(ids[1]) if ids is not None else None
            return node is not None and ids is not None and node.attempt == ids[2] and DueKind.HEARTBEAT in node.due
        known = self.services.executions.get(_execution_in(data))
        launch_id = data.get("launch_id") or (known.launch.launch_id if known is not None else None)
        if launch_id is None and "node_name" in data:
            launch_id = f"{data['run_id']}/{data['node_name']}/{data['attempt']}"
        found = self.services.by_launch.get(launch_id or "")
        return found is not None and self._awaited(found[0].launch)

    # -- what is written ------------------------------------------------------------------------------

    def claims(self, old: RunState | None, new: RunState) -> None:
        """Count claims and notifications that are taken from who had them."""
        strand = self.crew.current
        for name, node in new.nodes.items():
            was = old.nodes.get(name) if old is not None else None
            if node is was or node.claim is None or (was is not None and was.claim == node.claim):
                continue
            if was is not None and was.claim is not None and node.claim.takeovers > was.claim.takeovers:
                self._lease_over(was.claim.owner, "launch")
            if strand is not None:
                self.claimed_by.setdefault(node.claim.owner, strand)
        owners = {x.notification_id: x.owner for x in old.run.owed_notifications} if old is not None else {}
        for owed in new.run.owed_notifications:
            if strand is not None and owed.owner:
                self.claimed_by.setdefault(owed.owner, strand)
            before = owners.get(owed.notification_id)
            if before and owed.owner and owed.owner != before:
                self._lease_over(before, "notify")

    def _lease_over(self, owner: str, of: str) -> None:
        """Count that somebody else acts in place of an owner; `of`: launch, or notify."""
        strand = self.claimed_by.get(owner)
        if strand is None:
            return
        step = step_at(strand.at)
        has_returned = strand.is_done and not strand.host.is_dead
        if of == "launch" and (has_returned or step in ("cancel", "remind", "notify")):
            step = "launch"  # it has been called by then, and that was answered by an error
        self.tape.meets("lease over", of if has_returned else step)

    def steering(self, old: RunState | None, new: RunState) -> None:
        """Count the threads that are at a run which is steered in this moment."""
        if old is None:
            return
        faults = []
        if new.run.stop is not None and old.run.stop is None:
            faults.append("cancel")
        if (new.run.status is RunStatus.PAUSED) != (old.run.status is RunStatus.PAUSED):
            faults.append("pause")
        if new.run.redrives > old.run.redrives:
            faults.append("redrive")
        for strand in self.crew.strands if faults else ():
            if strand is not self.crew.current and not strand.host.is_dead and strand.about == new.run.run_id:
                self.steered.setdefault(strand, []).extend((fault, step_at(strand.at)) for fault in faults)


def _execution_in(data: dict[str, Json]) -> str:
    """The id of the execution that a line names."""
    return data["payload"]["id"] if "payload" in data else data.get("execution_id", "")


def note_what_was_drawn(drawn: Counter[str], checks: Checks, services: Services, store: MemoryStore) -> None:
    """Count what is rare, so that a test can tell that it is drawn at all."""
    states = checks.states
    if services.loses_lines == 1.0:
        drawn["every line of an end is lost"] += 1
    for state in states.values():
        above = states.get(state.run.parent.run_id) if state.run.parent is not None else None
        if above is not None and above.run.status is RunStatus.CANCELLED:
            drawn["child run of a parent that was cancelled"] += 1
        if above is not None and above.run.redrives and state.run.redrives:
            drawn["child run that goes on with its parent"] += 1
        if state.run.part_of is not None:
            drawn["part of a Map"] += 1
        for node in state.nodes.values():
            _note_node(drawn, node)
    queues = Counter[str]()
    for state in states.values():
        if any("pool" in step for step in checks.steps_of(state.run.dag)):
            queues[state.run.dag] += 1
    drawn["pool of several DAGs"] += len(queues) > 1
    for key in store.list("results/"):
        drawn["large result or list of items"] += not key.endswith(".progress")


def _note_node(drawn: Counter[str], node: NodeState) -> None:
    target = node.target_type
    if target is not None and node.status is TaskStatus.COMPLETED:
        service = f"{target}.sync" if node.target_key == "CloudFunction.sync" else str(target)
        drawn[f"{service} completed"] += 1
    if node.error is not None:
        drawn[node.error.error_type] += 1
    if node.items is not None and node.items.stored is not None:
        drawn["list of items beside the document"] += 1
