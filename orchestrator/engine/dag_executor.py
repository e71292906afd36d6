"""DAGExecutor: the one loop. An event comes in, its run changes by one save, what was claimed is launched.

    1 event in   2 parse   3 resolve   4 load   5 witness   6 decide   7 save   8 act   9 bind

The shell around the pure `decide`: it knows the ports and no adapter.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from threading import BoundedSemaphore, Condition, Lock, Thread
from typing import TYPE_CHECKING

from msgspec.structs import replace

from orchestrator.engine.acting import Actor
from orchestrator.engine.address import (
    Known,
    Later,
    Start,
    StartAll,
    TickAll,
)
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.committing import Committer, known
from orchestrator.engine.deciding import Decider, label
from orchestrator.engine.handled import Handled, Swept
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.observing import Observed
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.run_box import Baton, Entry, OnDone, RunBox
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import (
    DefinitionStatus,
    ExecutionStatus,
    OpenRuns,
    OrchestrationStatus,
)
from orchestrator.engine.ticker import Ticker
from orchestrator.engine.witness import Witness
from orchestrator.model.commands import EMPTY, Command, Execution, Json, Launch, ReleaseSlot
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import (
    LaunchRefused,
    LaunchUncertain,
    NotYet,
    OrchestratorError,
)
from orchestrator.model.facts import Fact, PlacesLeft, RunAdopted
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState
from orchestrator.ports import (
    Broker,
    Clock,
    HeldSecrets,
    Hosts,
    Notifier,
    ObjectStore,
    Observer,
    Secrets,
    Target,
)

if TYPE_CHECKING:
    from orchestrator.engine.schedules import Schedules
    from orchestrator.engine.slot_keeper import SlotKeeper

log = logging.getLogger("orchestrator")

GIVING_BACK_S = 5.0
"""How long closing waits for slots to be given back that others wait for."""
MAX_APART = 64
"""For how many runs a thread of its own acts on what a Tick found; with more, the Tick waits for each."""


class DAGExecutor:
    """Handles events, each by one save of its run at the most; safe for any number of threads.

    Args:
        catalog: the definitions that may be started.
        store, targets, broker, clock, hosts: the ports; targets by target type.
        instance: name of this instance, the first part of every claim's owner.
        policy: times and limits.
        random_bytes: n -> that many random bytes.
        sleep: sleeps so many seconds.
        on_saved: told of every save of this instance.
        variables: what `${var.NAME}` stands for in runs that start here.
        secrets: what `${secret.NAME}` stands for in launches that are made here.
        notifier: sends notifications.
        start_missed: starts the runs that schedules have missed; None: nobody here looks after schedules.
        observer: told what else this instance does, for traces and metrics.
        drives: run id -> whether this instance is to go on with that run when its turn has come; where it is not, as
            with the run of another process, whoever runs it finds that out.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        store: ObjectStore,
        targets: Mapping[str, Target],
        broker: Broker,
        clock: Clock,
        hosts: Hosts,
        instance: str,
        policy: Policy,
        random_bytes: Callable[[int], bytes],
        sleep: Callable[[float], None],
        on_saved: Callable[[Saved], None] | None = None,
        variables: Mapping[str, Json] = EMPTY,
        secrets: Secrets | None = None,
        observer: Observer | None = None,
        notifier: Notifier | None = None,
        start_missed: Callable[[Mapping[str, Json]], object] | None = None,
        drives: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.catalog = catalog
        self.instance = instance
        self._store, self._targets, self._clock = store, targets, clock
        self._policy, self._random_bytes, self._sleep = policy, random_bytes, sleep
        self._observed = Observed(observer)
        self._broker = broker
        self._secrets = secrets or HeldSecrets()
        self._executions = ExecutionStatus(store)
        self._definitions = DefinitionStatus(store, catalog, lambda: clock.now().timestamp())
        self._boxes = RunBoxes(store, policy.save_interval_s, policy.crowd)
        self._witness = Witness(targets, clock, policy, self._definitions)
        self._large_results = LargeResults(store, self._witness.side_by_side)
        self._drives = drives
        self._actor = Actor(
            targets,
            broker,
            clock,
            policy,
            self._executions,
            self._is_unwanted,
            self._observed,
            self._secrets,
            notifier,
            lambda commands: self._slots.act(commands),
        )
        self._resolver = Resolver(catalog, self._executions, lambda: random_bytes(8).hex(), policy.grace_s, variables)
        self._ticker = Ticker(
            store,
            self._witness,
            self._actor,
            clock,
            hosts,
            policy,
            instance,
            box_of=self._boxes.box,
            apply=self._apply,
            forget=self._boxes.forget,
            slots=lambda: self._slots,
        )
        decider = Decider(
            store, clock, policy, self._definitions, self._witness, self._resolver, self._large_results, self._secrets
        )
        self._committer = Committer(
            decider,
            self._large_results,
            OpenRuns(store),
            self._observed,
            clock,
            instance=instance,
            random_bytes=random_bytes,
            sleep=sleep,
            on_saved=on_saved,
        )
        self._start_missed = start_missed
        self._schedules: Schedules | None = None
        self._apart = BoundedSemaphore(MAX_APART)
        self._giving_back, self._given_back = set[str](), Condition(Lock())

    # -- the public calls ---------------------------------------------------------------------------

    def execute(
        self, data: Mapping[str, Json], *, message_id: str | None = None, publish_time: datetime | None = None
    ) -> Handled:
        """Handle one event, and return when it is safe to acknowledge it.

        Args:
            data: the event, as EventFactory knows them.
            message_id: id of its message; two messages that start a run are two runs.
            publish_time: aware datetime of its message; now, where None.
        Raises:
            OrchestratorError: it was not handled; `retry` says whether delivering again can help.
        """
        item = self._resolver.resolve(data, message_id, publish_time, self._clock.now())
        if item is None or isinstance(item, (TickAll, Later, StartAll)):
            return self._of_no_run(item, message_id)
        entry = Entry(item)
        box = self._boxes.box(item.run_id)
        self._lead_or_wait(box, entry)
        return _result(entry)

    def deliver(
        self,
        data: Mapping[str, Json],
        on_done: OnDone,
        *,
        message_id: str | None = None,
        publish_time: datetime | None = None,
    ) -> None:
        """Handle one event without waiting for others': if somebody leads its run already, leave it there.

        `on_done(handled, error)` is called once, from any thread, when the event may be acknowledged.
        """
        try:
            item = self._resolver.resolve(data, message_id, publish_time, self._clock.now())
            if item is None or isinstance(item, (TickAll, Later, StartAll)):
                handled = self._of_no_run(item, message_id)
        except Exception as exc:
            on_done(None, exc)
            return
        if item is None or isinstance(item, (TickAll, Later, StartAll)):
            on_done(handled, None)
            return
        entry = Entry(item, on_done=on_done)
        box = self._boxes.box(item.run_id)
        if box.offer(entry):
            self._lead(box, entry)

    def result_of(self, run: RunState, node_name: str) -> Json:
        """Return a node's result, also one that is too large for the run document; null if it has none (yet).

        Raises:
            CorruptState: it lies beside the document, and is missing or spoilt.
            StoreUnavailable: it cannot be read now.
        """
        return self._large_results.load(run.nodes[node_name])

    def result_of_run(self, run: RunState) -> Json:
        """Return a run's own result; null if it has none (yet). Raises as `result_of` does."""
        return self._large_results.load_run(run)

    def tick(self) -> Swept:
        """Look after all open runs: what was left, lost or is due. Each run fails alone.

        Runs that schedules have missed are started first.
        """
        seen = self.schedules.make_up() if self._start_missed is not None else None
        swept = self._ticker.tick()
        if seen is None or not (seen.started or seen.problems):
            return swept
        return dataclasses.replace(swept, started=seen.started, problems=(*seen.problems, *swept.problems))

    @property
    def schedules(self) -> "Schedules":
        """What starts the runs of schedules."""
        if self._schedules is None:
            from orchestrator.engine.schedules import Schedules  # only where a Tick comes

            start = self._start_missed or self.execute
            self._schedules = Schedules(self._store, self.catalog, self._clock, start)
        return self._schedules

    def _start_of(self, launch: Launch, run_id: str) -> Start:
        if "part" not in launch.step:
            return self._resolver.child(launch, run_id)
        from orchestrator.engine.part_runs import PartRuns

        return PartRuns(self._store, self._definitions, self._large_results).start(launch, run_id)

    def make_child(self, launch: Launch, run_id: str) -> str:
        """Make the child run of a Dag Task's launch, or let one go on; return its id.

        It is durable when this returns, and has not begun. Once for a launch, however often it is asked for.

        Raises:
            LaunchRefused: it can never be: there is no such DAG, its input is wrong, …
            LaunchUncertain: not now.
        """
        from orchestrator.engine.children import check_child, refusal_of  # only where there is one

        try:
            check_child(launch)
            if launch.goes_on is not None and self._let_child_go_on(launch, launch.goes_on):
                return launch.goes_on
            entry = Entry(self._start_of(launch, run_id))
            self._lead_or_wait(self._boxes.box(run_id), entry)
            made = _result(entry).verdict
            if made == "unchanged" and OrchestrationStatus(self._store, run_id).load() is None:
                raise LaunchRefused(f"run {run_id}: was pruned", error_type="Dag.Pruned")
        except OrchestratorError as exc:
            raise refusal_of(exc, launch) from exc
        return run_id

    def _let_child_go_on(self, launch: Launch, run_id: str) -> bool:
        """Make a child run that of a later attempt; False where it is gone, or never was."""
        loaded = OrchestrationStatus(self._store, run_id).load()
        if loaded is None or loaded[0].run.parent is None:
            return False
        run, parent = loaded[0].run, loaded[0].run.parent
        if (parent.run_id, parent.node) != (launch.run_id, launch.node_name):
            return False
        if run.pruned_at is not None:
            raise LaunchUncertain(f"run {run_id}: is being deleted by prune")
        if parent.attempt <= launch.attempt:  # also where it goes on already: who let it may have been killed over it
            tolerated: int | None = None
            if "part" in launch.step:
                above = OrchestrationStatus(self._store, launch.run_id).load()
                part = above[0].nodes.get(launch.node_name) if above is not None else None
                tolerated = part.slice.tolerated if part is not None and part.slice is not None else None
            adopted = RunAdopted(replace(parent, attempt=launch.attempt), self._clock.now(), tolerated)
            self._apply(self._boxes.box(run_id), (adopted,))
        return True

    def look_after(self, run_id: str, marker: str | None = None) -> tuple[str, ...] | None:
        """Do a Tick's work for one run; see `Ticker.look_after`."""
        return self._ticker.look_after(run_id, marker)

    def let_go_of_ended(self) -> tuple[str, ...]:
        """Delete markers that were left of runs that have ended; see `Ticker.let_go_of_ended`."""
        return self._ticker.let_go_of_ended()

    def leave_queues(self, run_id: str) -> None:
        """Have a run wait in no queue until somebody looks after it again, so that others are let in before it."""
        box = self._boxes.box(run_id)
        loaded = box.status.load()
        if loaded is None:
            return
        state = loaded[0]
        if state.run.waits_for_slot or any(node.waits_for_slot for node in state.nodes.values()):
            self._apply(box, (PlacesLeft(),))

    def close(self) -> None:
        """Finish what can be finished at once; everything else is for a Tick, here or elsewhere."""
        with self._given_back:
            self._given_back.wait_for(lambda: not self._giving_back, GIVING_BACK_S)
        self._witness.close()

    def _of_no_run(self, item: TickAll | Later | StartAll | None, message_id: str | None) -> Handled:
        if item is None:
            log.debug("not ours", extra={"event_id": message_id})
            return Handled("not ours")
        if isinstance(item, StartAll):
            return self._start_all(item)
        if isinstance(item, Later):
            left_s = (item.at - self._clock.now()).total_seconds()
            try:
                self._broker.publish(item.event, delay_s=max(0.0, left_s))
            except OrchestratorError as exc:
                exc.about(run_id=item.event.get("run_id"), node=item.event.get("node_name"))
                raise
            return Handled("applied")
        self.tick()
        return Handled("ticked")

    def _start_all(self, item: StartAll) -> Handled:
        """Start what an event triggers, each run alone; all that can be are saved when this returns or raises.

        Raises:
            OrchestratorError: some could not be started; delivering again can help if it can with any of them.
        """
        handled: list[Handled] = []
        problems: list[Exception] = list(item.problems)
        for start in item.starts:
            entry = Entry(start)
            try:
                self._lead_or_wait(self._boxes.box(start.run_id), entry)
                handled.append(_result(entry))
            except Exception as exc:
                problems.append(exc)
        if problems:
            for problem in problems[1:]:
                log.error("of several runs that an event was to start, one cannot be: %s", problem)
            raise next((each for each in problems if isinstance(each, OrchestratorError) and each.retry), problems[0])
        run_ids = tuple(each.run_id for each in handled if each.run_id is not None)
        return Handled(
            "applied" if any(each.verdict == "applied" for each in handled) else "unchanged",
            run_ids[0] if run_ids else None,
            sum(each.absorbed for each in handled),
            tuple(launch_id for each in handled for launch_id in each.launches),
            run_ids,
        )

    def _apply(self, box: RunBox, facts: tuple[Fact, ...]) -> Thread | None:
        """Feed what this instance found out into the loop; return when it is saved, and acted on if that is quick.

        Returns:
            The thread that acts on it, if that may take long.
        """
        entry = Entry(Known(box.run_id, facts), acts_apart=True)
        self._lead_or_wait(box, entry)
        _result(entry)
        return entry.acting

    @cached_property
    def _slots(self) -> "SlotKeeper":
        """What asks for slots: made, and loaded, where a run takes some."""
        from orchestrator.engine.slot_keeper import SlotKeeper

        return SlotKeeper(
            self._store,
            self.catalog,
            self._broker,
            self._clock,
            self._policy,
            self._sleep,
            self._committer.spread,
            self._drives,
        )

    # -- leading a run ------------------------------------------------------------------------------

    def _lead_or_wait(self, box: RunBox, entry: Entry) -> None:
        """Return when `entry` is done, whoever did it."""
        try:
            if box.offer(entry):
                self._lead(box, entry)
            while not entry.is_done:
                if entry.signal is not None:
                    entry.signal.wait()
                if entry.leads and not entry.is_done:
                    entry.leads = False
                    if entry.signal is not None:
                        entry.signal.clear()
                    self._lead(box, entry)
        except BaseException:
            if box.withdraw(entry):
                _abandon(box, [])
            raise

    def _lead(self, box: RunBox, own: Entry | None = None) -> None:
        """Commit what waits, hand the run on, act; until nothing is left that nobody else takes care of."""
        while True:
            batch, baton = list[Entry](), Baton.KEPT
            try:
                self._committer.linger(box)
                batch = box.take()
                try:
                    commands, results = self._committer.commit(box, batch)
                except Exception as exc:
                    label(exc, batch)
                    commands, results = (), dict.fromkeys(batch, exc)
                if any(isinstance(command, ReleaseSlot) for command in commands):
                    with self._given_back:
                        self._giving_back.add(box.run_id)
                self._boxes.count(box)
                baton = box.pass_on()
                if baton is Baton.KEPT and self._actor.blocks(commands):
                    # What waits has no thread to lead, and is not to wait for a call of minutes.
                    with suppress(RuntimeError):  # the machine has no thread left: then it does
                        Thread(target=self._lead, args=(box,), name="orchestrator-lead", daemon=True).start()
                        baton = Baton.HANDED_ON
                owner = own if own in results else next(iter(results), None)
                launches = tuple(command.launch_id for command in commands if isinstance(command, Launch))
                for entry, result in results.items():
                    if entry is not owner:
                        _finish(entry, result, box, 0, ())
                facts = [] if self._acts_apart(own, results, box, commands) else self._act(box, commands)
                if owner is not None:
                    _finish(owner, results[owner], box, len(results), launches)
                if facts and box.offer(known(box, tuple(facts))):
                    baton = Baton.KEPT
            except BaseException:  # ctrl-C, or the end of its host: the thread is gone, the run is not
                _abandon(box, batch, is_led=baton is Baton.KEPT)
                raise
            if baton is not Baton.KEPT:
                return

    def _acts_apart(
        self, own: Entry | None, results: Mapping[Entry, object], box: RunBox, commands: Sequence[Command]
    ) -> bool:
        """Have a thread of its own act, where who leads is to be held up by no call of minutes."""
        if own is None or not own.acts_apart or own not in results or not self._actor.waits(commands):
            return False
        if not self._apart.acquire(blocking=False):
            return False

        def act() -> None:
            try:
                facts = self._act(box, commands)
                if facts and box.offer(known(box, tuple(facts))):
                    self._lead(box)
            finally:
                self._apart.release()

        thread = Thread(target=act, name="orchestrator-act", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no thread left
            self._apart.release()
            return False
        own.acting = thread
        return True

    def _feed(self, box: RunBox, facts: Sequence[Fact]) -> None:
        """Feed back what came of some of several calls while the others last."""
        if box.offer(known(box, tuple(facts))):
            self._lead(box)

    def _act(self, box: RunBox, commands: Sequence[Command]) -> list[Fact]:
        try:
            return self._actor.act(box, commands, lambda facts: self._feed(box, facts))
        except Exception:
            log.exception("acting failed; the Tick recovers", extra={"run_id": box.run_id})
            return []
        finally:
            if self._giving_back:
                with self._given_back:
                    self._giving_back.discard(box.run_id)
                    self._given_back.notify_all()

    def _is_unwanted(self, launch: Launch, execution: Execution) -> bool:
        loaded = OrchestrationStatus(self._store, launch.run_id).load()
        node = loaded[0].nodes.get(launch.node_name) if loaded else None
        if node is None or node.status is not TaskStatus.RUNNING or node.attempt != launch.attempt:
            return True
        return node.execution_id not in (None, execution.execution_id)


def _abandon(box: RunBox, left: list[Entry], *, is_led: bool = True) -> None:
    """Leave a run to a thread that waits; give back what was begun, and what no thread waits for."""
    while is_led and box.pass_on() is Baton.KEPT:
        left += box.take()
    for entry in left:
        error = NotYet(f"run {box.run_id}: who handled this was interrupted; deliver it again")
        label(error, [entry])
        entry.finish(None, error)


def _finish(entry: Entry, result: str | BaseException, box: RunBox, absorbed: int, launches: tuple[str, ...]) -> None:
    if isinstance(result, BaseException):
        entry.finish(None, result)
    else:
        entry.finish(Handled(result, box.run_id, absorbed, launches), None)


def _result(entry: Entry) -> Handled:
    if entry.error is not None:
        raise entry.error
    if entry.handled is None:
        raise LookupError("an event was finished without a result")
    return entry.handled
