"""What must hold after every step of a simulation: checked from the definition and from what the services saw, by
nothing of the engine but its reading of a run document."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from orchestrator.model.commands import Json, Launch, Notify
from orchestrator.model.enums import Identity, NodeTypes, OutcomeKind, TargetTypes, TaskStatus
from orchestrator.model.ids import instance_of, step_of
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_document import decode, encode
from orchestrator.model.run_state import OwedNotification, RunState
from orchestrator.model.slots import Slots
from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator.crew import Host
from tests.simulation.simulator.plots import ways_of
from tests.simulation.simulator.services import Receivers, Running, Service, Services

LONGEST_LEASE_S = 120.0
MOST_SKEW_S = 5.0
LONGEST_WALK_S = 240.0 + 90.0 + 1.0
"""After so long a Tick hangs: its budget, and the longest lease."""
LONGEST_TICK_S = 3600.0
"""How long a Tick, and the one after it, may be in coming."""


class Violation(BaseException):
    """Something happened that must not. No Exception, so that the engine does not take it for a service's failure."""


@dataclass(frozen=True)
class _Place:
    """Where a step stands: in which body, and what holds that."""

    step: Mapping[str, Json]
    body: Mapping[str, Json]
    holder: str | None
    is_last: bool
    """Whether it is of the `finally`."""


def places_of(definition: Mapping[str, Json]) -> dict[str, _Place]:
    """Name -> place, of all steps at any depth."""
    found: dict[str, _Place] = {}

    def walk(body: Mapping[str, Json], holder: str | None, is_last: bool) -> None:
        for name, step in body["steps"].items():
            found[name] = _Place(step, body, holder, is_last)
            for branch in step.get("branches", ()):
                walk(branch, name, is_last)
            if "iterator" in step:
                walk(step["iterator"], name, is_last)

    walk(definition, None, False)
    if "finally" in definition:
        walk(definition["finally"], None, True)
    return found


class Checks:
    """Watches a bucket and services.

    Attributes:
        states: run id -> its document as it was last written.
        ended_at: run id -> when it ended, in seconds.
    """

    def __init__(
        self,
        definitions: Mapping[str, Mapping[str, Json]],
        services: Services,
        receivers: Receivers,
        now: Callable[[], float],
    ) -> None:
        self._definitions = definitions
        self._places_of = {name: places_of(definition) for name, definition in definitions.items()}
        self._services, self._receivers, self._now = services, receivers, now
        self.written_at: dict[str | None, float] = {}
        """Run id -> when its document was written last, in seconds."""
        self.last_write = -1.0
        self.drawn = Counter[str]()
        """What came about that is rare, and how often."""
        self.disturbed: dict[str, list[tuple[float, float]]] = {}
        """Process -> from when until when it was killed, stood still, was slow or could not look, in seconds."""
        self._called = set[tuple[str, str]]()
        """(owner of a claim, launch id) of calls that were made."""
        self.owners_that_called: set[str] = set()
        """Owners of claims that have called their service, however that went."""
        self._documents: dict[str, tuple[bytes, RunState]] = {}
        self._entries: dict[bytes, NodeState] = {}
        """The line of a node in a document -> what it says, of those that were read."""
        self.keeps_to_s = 0.0
        """How far apart the saves are of a run with two attempts or more side by side; 0: as they come."""
        self._last_writes: dict[str, tuple[float, int, Host]] = {}
        """Object -> when it was written last, how many faults had struck by then, and by whom."""
        self.states: dict[str, RunState] = {}
        self.ended_at: dict[str, float] = {}

    # -- a document is written ------------------------------------------------------------------------

    def written(self, key: str, before: bytes | None, after: bytes, host: Host) -> None:
        """Check what a write of a run document changes."""
        if key.startswith("slots/"):
            slots = msgspec.json.decode(after, type=Slots)
            if len(slots.held) > slots.limit:
                raise Violation(f"{key}: {len(slots.held)} hold its {slots.limit} slots")
        if not key.startswith("runs/"):
            return
        read = self._documents.get(key)
        if read is not None and read[0] == before:
            old: RunState | None = read[1]
        else:
            old = self._read(key, before) if before is not None else None
        new = self._read(key, after)
        self._documents[key] = (after, new)
        self.written_at[new.run.run_id] = self.last_write = self._now()
        self.states[new.run.run_id] = new
        is_redriven = old is not None and new.run.redrives > old.run.redrives
        if is_redriven:
            self.ended_at.pop(new.run.run_id, None)
            kept = [n for n, node in old.nodes.items() if node.status is TaskStatus.COMPLETED]
            self._check_redriven(key, old, new, kept)
        elif old is not None and old.run.status.is_final and _without_notifications(old) != _without_notifications(new):
            raise Violation(f"{key}: changes after the run has ended")
        running = [name for name, node in new.nodes.items() if node.status is TaskStatus.RUNNING]
        if new.run.status.is_final:
            self.ended_at.setdefault(new.run.run_id, self._now())
            if running:
                raise Violation(f"{key}: has ended, with {running} Running")
            left = [name for name, node in new.nodes.items() if node.status is TaskStatus.NEW]
            if left:
                raise Violation(f"{key}: has ended, with {left} New")
        for name, node in () if is_redriven else new.nodes.items():
            was = old.nodes.get(name) if old is not None else None
            if node is not was:
                self._node(key, new, was, node)

    def paced(self, key: str, old: RunState | None, host: Host, faults: int) -> None:
        """Check that a run with several attempts side by side is not written more often than its interval, where
        nothing has gone wrong since it was written last, and its document tells when that was, or who writes it knows.
        """
        now, was = self._now(), self._last_writes.get(key)
        self._last_writes[key] = now, faults, host
        if not self.keeps_to_s or was is None or old is None:
            return
        at, faults_then, by = was
        times = (time for node in old.nodes.values() for time in (node.started_at, node.ended_at) if time is not None)
        is_told = by is host or any(abs((time - T0).total_seconds() - at) < 0.001 for time in times)
        is_well = faults == faults_then and not any(self._was_disturbed(x.name, at - 1.0) for x in (host, by))
        side_by_side = sum(node.status is TaskStatus.RUNNING and node.attempt > 0 for node in old.nodes.values())
        if side_by_side < 2 or not (is_told and is_well):
            return
        self.drawn["save of a crowd"] += 1
        if now - at < self.keeps_to_s - 0.001:
            raise Violation(f"{key}: is written by {host.name} {now - at:.3f} s after {by.name} wrote it")

    def _read(self, key: str, document: bytes) -> RunState:
        """Read a run document, and check that it is the same when it is written again, and to another reader of JSON.

        Each line is an entry for itself, so only those are read that have not been before: an entry that is as it was
        is the same object.
        """
        lines = document.removeprefix(b"{").removesuffix(b"}\n").split(b",\n")
        if len(document) != sum(map(len, lines)) + 2 * len(lines) + 1:
            raise Violation(f"{key}: does not have its entries a line each")
        known = self._entries
        fresh = [line for line in lines[1:] if line not in known]
        new = b"{" + b",\n".join((lines[0], *fresh)) + b"}\n"
        state = decode(new, key)
        if encode(state) != new:
            raise Violation(f"{key}: reading and writing it makes another document")
        if json.loads(new) != msgspec.json.decode(new):
            raise Violation(f"{key}: is read otherwise by another reader of JSON")
        known.update(zip(fresh, state.nodes.values(), strict=True))
        nodes = {known[line].node_name: known[line] for line in lines[1:]}
        if len(nodes) != len(lines) - 1:
            raise Violation(f"{key}: has an entry twice")
        return RunState(state.run, nodes)

    def _check_redriven(self, key: str, old: RunState, new: RunState, kept: list[str]) -> None:
        """A redrive keeps what has completed, but for what followed a failure by a route, or ran in the `finally`."""
        places = self._places_of[new.run.dag]
        for name in kept:
            place, node, before = places[step_of(name)], new.nodes[name], old.nodes[name]
            if node.attempt < before.attempt:
                raise Violation(f"{key}: {name} goes back to attempt {node.attempt} by a redrive")
            is_simple = not place.is_last and before.caught is None and "trigger" not in place.step
            is_simple &= before.node_type is not NodeTypes.PART  # which completes though some of its items have failed
            if is_simple and node.status is TaskStatus.NEW and not self._follows_failure(old, name):
                raise Violation(f"{key}: {name} had completed, and is to run again by a redrive")

    def _follows_failure(self, state: RunState, name: str) -> bool:
        """Whether steps may have begun by a failure: these run again, and what follows them."""
        places = self._places_of[state.run.dag]
        return any("trigger" in each.step or "on_error" in each.step for each in places.values())

    def _node(self, key: str, run: RunState, old: NodeState | None, new: NodeState) -> None:
        was = old.status if old is not None else TaskStatus.NEW
        goes_on = run.run.redrives > 0 and "[" in new.node_name
        if (
            was is TaskStatus.COMPLETED
        ):  # it is to run again where it may have followed a failure, as `_check_redriven` says
            goes_on &= new.status is TaskStatus.NEW and self._follows_failure(run, new.node_name)
        if old is not None and was.is_final and new != old and not goes_on:  # items of a redriven Map go on one by one
            raise Violation(f"{key}: {new.node_name} was {was}, and changes")
        if old is not None and new.attempt < old.attempt:
            raise Violation(f"{key}: {new.node_name} goes from attempt {old.attempt} back to {new.attempt}")
        if old is not None and old.claim is not None and new.claim is not None:
            owner = old.claim.owner
            since = (old.claim.lease_end - T0).total_seconds() - LONGEST_LEASE_S
            is_well = (
                old.target_type != TargetTypes.DAG
                and not self._was_disturbed(owner.partition(".")[0], since)
                and owner not in self.owners_that_called
            )
            if new.claim.takeovers > old.claim.takeovers and is_well:
                raise Violation(
                    f"{key}: {new.node_name} is taken over from {owner}, which is well and did not launch it"
                )
        is_over = old is not None and was is TaskStatus.RUNNING
        if is_over and (new.attempt > old.attempt or new.status in (TaskStatus.FAILED, TaskStatus.CANCELLED)):
            self._may_have_failed(key, run, old, new)
        has_begun = new.status in (TaskStatus.RUNNING, TaskStatus.COMPLETED, TaskStatus.FAILED)
        if was is TaskStatus.NEW and has_begun:
            self._may_begin(key, run, new)
        if was is TaskStatus.RUNNING and (new.status.is_final or (old is not None and new.attempt > old.attempt)):
            self._is_over(key, run, old)
        completes = was is not TaskStatus.COMPLETED and new.status is TaskStatus.COMPLETED and _is_of_service(new)
        if completes and not self._has_ended(run, old, new.node_name, new.attempt, OutcomeKind.COMPLETED):
            launch_id = run.launch_id(new.node_name)
            raise Violation(f"{key}: {new.node_name} is Completed, and no execution of {launch_id} has completed")

    def _has_ended(self, run: RunState, old: NodeState | None, name: str, attempt: int, kind: OutcomeKind) -> bool:
        """Whether an execution of an attempt has ended so: the one that it is bound to, where that can be asked."""
        known = self._services.by_launch.get(f"{run.run.run_id}/{name}/{attempt}", [])
        bound = old.execution_id if old is not None and old.attempt == attempt else None
        of_it = [x for x in known if x.execution_id == bound and x.service.has_outcome]
        return any(x.ended_as is not None and x.ended_as.kind is kind for x in of_it or known)

    def _is_over(self, key: str, run: RunState, old: NodeState | None) -> None:
        """An attempt that is over leaves nothing behind that could have been stopped, unless who launched it stood."""
        assert old is not None
        for execution in self._services.by_launch.get(f"{run.run.run_id}/{old.node_name}/{old.attempt}", ()):
            is_left = execution.ended_at is None and execution.service.can_cancel
            if is_left and not self._launcher_stood(execution):
                raise Violation(f"{key}: {old.node_name}/{old.attempt} is over, and {execution.execution_id} runs on")

    def _launcher_stood(self, execution: Running) -> bool:
        """Whether who launched it stood still in the call, or was killed before it could see to what it had launched.

        Then nobody knows of it: where another process had launched in its place, by a claim that was taken over, there
        are two executions, as there may be of what does not keep keys for ever.
        """
        host, begun_at = execution.host, execution.begun_at
        return host is None or self._was_disturbed(host.name, begun_at - LONGEST_LEASE_S, begun_at + LONGEST_LEASE_S)

    def _may_begin(self, key: str, run: RunState, node: NodeState) -> None:
        places = self._places_of[run.run.dag]
        step_name, instance = step_of(node.node_name), instance_of(node.node_name)
        place = places[step_name]
        nodes, names = run.nodes, place.body["steps"]
        if run.run.part_of is not None and run.run.part_of.map == node.node_name:
            return  # a part of it, whose run begins with it
        if node.node_type in (NodeTypes.ITEM, NodeTypes.PART):
            if nodes[node.node_name[: node.node_name.rindex("[")]].status is TaskStatus.NEW:
                raise Violation(f"{key}: {node.node_name} begins before its Map")
            return
        if "depends_on" in place.step:
            statuses = [nodes[each + instance].status for each in place.step["depends_on"]]
            trigger = place.step.get("trigger", "all_completed")
            if not {
                "all_completed": all(each is TaskStatus.COMPLETED for each in statuses),
                "all_done": all(each.is_final for each in statuses),
                "one_failed": any(each in (TaskStatus.FAILED, TaskStatus.CANCELLED) for each in statuses),
            }[trigger]:
                raise Violation(f"{key}: {node.node_name} begins by {trigger} of {statuses}")
            return
        if step_name in entries_of(place.body):
            if place.holder is not None:
                holder = nodes[
                    place.holder
                    + (instance[: instance.rindex("[")] if "iterator" in places[place.holder].step else instance)
                ]
                if holder.status is TaskStatus.NEW:
                    raise Violation(f"{key}: {node.node_name} begins before {place.holder} that holds it")
            elif place.is_last:
                running = [
                    name
                    for name, each in nodes.items()
                    if each.status is TaskStatus.RUNNING and not places[step_of(name)].is_last
                ]
                if running:
                    raise Violation(f"{key}: the finally begins while {running} are Running")
            return
        for name, step in names.items():
            if step_name not in ways_of(step):
                continue
            status = nodes[name + instance].status
            by_error = any(each["next"] == step_name for each in step.get("on_error", ()))
            by_end = step_name in ways_of({k: v for k, v in step.items() if k != "on_error"})
            if (status is TaskStatus.COMPLETED and by_end) or (
                status in (TaskStatus.FAILED, TaskStatus.CANCELLED) and by_error
            ):
                return
        raise Violation(f"{key}: {node.node_name} begins, and no step that leads to it has ended so")

    def _may_have_failed(self, key: str, run: RunState, old: NodeState, new: NodeState) -> None:
        """An attempt that is over by its own failure has failed; one that was cancelled at its service was."""
        kinds = {"Task.Failed": OutcomeKind.FAILED, "Task.Cancelled": OutcomeKind.CANCELLED}
        kind = kinds.get(new.error.error_type) if new.error is not None else None
        if old.attempt == 0 or kind is None or not _is_of_service(new):
            return
        if not self._has_ended(run, old, old.node_name, old.attempt, kind):
            raise Violation(f"{key}: attempt {old.attempt} at {old.node_name} is over by {kind}, and no execution is")

    # -- something is launched ------------------------------------------------------------------------

    def called(self, launch: Launch) -> None:
        """Check a call that is about to be made: once for a claim, and not after the end of its lease."""
        if (launch.owner, launch.launch_id) in self._called:
            raise Violation(f"{launch.launch_id}: is launched twice under one claim")
        self._called.add((launch.owner, launch.launch_id))
        if launch.lease_end is not None and not launch.recover:
            late_s = self._now() - (launch.lease_end - T0).total_seconds()
            if late_s > MOST_SKEW_S:
                raise Violation(f"{launch.launch_id}: is launched {late_s:.0f} s after the end of its lease")

    def launching(self, launch: Launch, service: Service, host: Host) -> None:
        """Check that a service may begin an execution for this launch."""
        state = self.states.get(launch.run_id)
        if state is None:
            raise Violation(f"{launch.launch_id}: is launched, and its run was never saved")
        node = state.nodes[launch.node_name]
        if node.attempt < launch.attempt:
            raise Violation(f"{launch.launch_id}: is launched before its claim was saved")
        # A call is made once its claim is saved; who makes it may stand still in it, until all is otherwise.
        has_stood = self._was_disturbed(host.name, self._now() - service.launch_limit_s - LONGEST_LEASE_S)
        is_current = node.status is TaskStatus.RUNNING and node.attempt == launch.attempt and node.claim is not None
        if not is_current and not has_stood:
            raise Violation(f"{launch.launch_id}: is launched, and that attempt is dead (the node is {node.status})")
        if state.run.status.is_final and not has_stood:
            raise Violation(f"{launch.launch_id}: is launched, and its run has ended")
        if is_current and node.claim is not None and node.claim.nonce != launch.nonce:
            raise Violation(f"{launch.launch_id}: is launched under another nonce than that of its claim")
        before = self._services.by_launch.get(launch.launch_id, [])
        if before and service.identity is Identity.FOREVER:
            raise Violation(f"{launch.launch_id}: is executed twice at {service.name}, which keeps keys for ever")
        if before and not has_stood and not any(self._launcher_stood(execution) for execution in before):
            raise Violation(f"{launch.launch_id}: is executed twice at {service.name}, and nobody stood or was killed")

    def notifying(self, notification: Notify, host: Host) -> None:
        """Check that a notification may be sent: it is owed, or who sends it stood still since."""
        if notification.payload["event"] == "callback":
            return
        state = self.states[notification.run_id]
        name = notification.notification_id
        is_owed = any(owed.notification_id == name for owed in state.run.owed_notifications)
        if not is_owed and name not in self._receivers.got:
            raise Violation(f"{notification.run_id}: {notification.payload['event']} is sent, and not owed")
        if not is_owed and not self._was_disturbed(host.name, self._now() - LONGEST_LEASE_S):
            raise Violation(f"{notification.run_id}: {notification.payload['event']} is sent again, and not owed")

    def ending(self, execution: Running) -> None:
        """Check an execution that comes to its own end."""
        launch, ended_at = execution.launch, self.ended_at.get(execution.launch.run_id)
        if not execution.service.can_cancel or ended_at is None or self._now() < ended_at + 1.0:
            return
        if not self._launcher_stood(execution):
            raise Violation(f"{launch.launch_id}: ran on after the end of its run")

    def _was_disturbed(self, host: str, since: float, until: float = math.inf) -> bool:
        return any(end >= since and begin <= until for begin, end in self.disturbed.get(host, ()))

    def ticked(self, host: Host, began: float, before: float | None, after: float | None) -> None:
        """Check that a Tick looks which runs are open, unless an earlier one of its process may be at them still.

        Args:
            before, after: when its process had looked last, before it and after it.
        """
        if before == after and (before is None or began - before > LONGEST_WALK_S):
            raise Violation(f"{host.name}: passes a Tick over, and looked at the open runs at {before} last")

    # -- the end --------------------------------------------------------------------------------------

    def at_the_end(self, run_id: str) -> None:
        """Check what is left of a run that has ended, once everything is still."""
        for execution in self._services.executions.values():
            is_left = execution.ended_at is None and execution.service.can_cancel
            if execution.launch.run_id == run_id and is_left and not self._launcher_stood(execution):
                raise Violation(f"{execution.launch.launch_id}: runs on, and its run has ended")
        run = self.states[run_id].run
        if overdue := [owed.event.value for owed in run.owed_notifications if self._is_overdue(owed)]:
            raise Violation(f"{run_id}: owes {overdue} still")
        if "notify" not in self._definitions[run.dag] or run.part_of is not None:
            return
        told = [x.payload["event"] for sent in self._receivers.got.values() for x in sent if x.run_id == run_id]
        told += [each.event.value for each in (*run.lost_notifications, *run.owed_notifications)]
        if run.status.value.lower() not in told:
            raise Violation(f"{run_id}: has {run.status}, and nobody was notified; they were of {told}")
        self.drawn["notified of an end"] += 1

    def _is_overdue(self, owed: OwedNotification) -> bool:
        """Whether the last Ticks should have sent it: the next try is later each time."""
        return (owed.lease_end - T0).total_seconds() + LONGEST_TICK_S < self._now()

    def scheduled(
        self,
        runs: Sequence[RunState],
        times: Sequence[datetime],
        sent: Collection[datetime],
        missed: str,
        first_look_s: float,
    ) -> None:
        """Check that each time of a schedule that is to get its run has one, and no other.

        Args:
            sent: times that the scheduler has started runs of.
            missed: what becomes of the others.
            first_look_s: when a Tick looked at the schedule first.
        """
        made = Counter(state.run.scheduled_for for state in runs if state.run.scheduled_for is not None)
        doubled = [f"{time:%H:%M}" for time, number in made.items() if number > 1]
        if doubled:
            raise Violation(f"{doubled}: have several runs")
        seen = [x for x in times if (x - T0).total_seconds() > first_look_s + MOST_SKEW_S] if missed == "all" else []
        left = [f"{time:%H:%M}" for time in times if time in {*sent, *seen} and not made[time]]
        if left:
            raise Violation(f"{left}: have no run, and missed is {missed}")
        if missed == "skip" and (more := [f"{time:%H:%M}" for time in made if time not in sent]):
            raise Violation(f"{more}: have runs, though nobody started them, and missed is skip")
        self.drawn["time of a schedule that was missed and made up for"] += sum(time not in sent for time in made)

    def triggered(self, runs: Sequence[RunState], objects: int) -> None:
        """Check that each object has started one run."""
        made = [state for state in runs if state.run.scheduled_for is None]
        if len(made) != objects:
            raise Violation(f"{objects} objects make {len(made)} runs")
        self.drawn["run that an object started"] += len(made)

    def steps_of(self, dag: str) -> Iterator[Mapping[str, Json]]:
        """The steps of a DAG, at any depth."""
        return (place.step for place in self._places_of[dag].values())


def _is_of_service(node: NodeState) -> bool:
    return node.node_type is NodeTypes.TASK and node.target_type != TargetTypes.DAG


def _without_notifications(state: RunState) -> RunState:
    """A run without what may change after its end: also, of a resume that came after it, when that was asked for."""
    run = msgspec.structs.replace(state.run, owed_notifications=(), lost_notifications=(), parent=None, steered_at=None)
    return RunState(run, state.nodes)


def entries_of(body: Mapping[str, Json]) -> set[str]:
    """The steps that a body starts with."""
    if "start" in body:
        return {body["start"]}
    followed = {name for step in body["steps"].values() for name in ways_of(step)}
    return {name for name, step in body["steps"].items() if "depends_on" not in step} - followed


def is_open(state: RunState) -> bool:
    """Whether a run has not ended."""
    return not state.run.status.is_final
