"""DAGExecutor: the one loop. An event comes in, its run changes by one save, what was claimed is launched.

    1 event in   2 parse   3 resolve   4 load   5 witness   6 decide   7 save   8 act   9 bind

The shell around the pure `decide`: it knows the ports and no adapter.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING

from orchestrator.engine.acting import Actor
from orchestrator.engine.address import Later, StartAll, TickAll
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.committing import Committer
from orchestrator.engine.deciding import Decider
from orchestrator.engine.handled import Handled, Swept
from orchestrator.engine.large_results import LargeResults
from orchestrator.engine.leading import Leader
from orchestrator.engine.observing import Observed
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.run_box import OnDone
from orchestrator.engine.run_boxes import RunBoxes
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import DefinitionStatus, ExecutionStatus, OpenRuns, OrchestrationStatus
from orchestrator.engine.witness import Witness
from orchestrator.model.commands import EMPTY, Execution, Json, Launch
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.facts import PlacesLeft
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
    from orchestrator.engine.child_runs import ChildRuns
    from orchestrator.engine.schedules import Schedules
    from orchestrator.engine.slot_keeper import SlotKeeper
    from orchestrator.engine.ticker import Ticker

log = logging.getLogger("orchestrator")


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
        self._leader = Leader(self._committer, self._actor, self._boxes)
        self._start_missed = start_missed
        self._hosts = hosts
        self._making = Lock()
        self._made_ticker: Ticker | None = None
        self._made_slots: SlotKeeper | None = None
        self._made_schedules: Schedules | None = None

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
        return self._leader.handle(item)

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
        self._leader.leave(item, on_done)

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
        with self._making:
            if self._made_schedules is None:
                from orchestrator.engine.schedules import Schedules  # only where a Tick comes

                start = self._start_missed or self.execute
                self._made_schedules = Schedules(self._store, self.catalog, self._clock, start)
            return self._made_schedules

    def make_child(self, launch: Launch, run_id: str) -> str:
        """Make the child run of a Dag Task's launch, or let one go on; return its id. See `ChildRuns.make`."""
        return self._child_runs.make(launch, run_id)

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
            self._leader.apply(box, (PlacesLeft(),))

    def close(self) -> None:
        """Finish what can be finished at once; everything else is for a Tick, here or elsewhere."""
        self._leader.close()
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
            try:
                handled.append(self._leader.handle(start))
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

    @cached_property
    def _child_runs(self) -> "ChildRuns":
        """What makes child runs: loaded where a run has one."""
        from orchestrator.engine.child_runs import ChildRuns

        return ChildRuns(
            self._store,
            self._clock,
            self._definitions,
            self._large_results,
            self._resolver,
            self._boxes,
            self._leader,
        )

    @property
    def _slots(self) -> "SlotKeeper":
        """What asks for slots: made, and loaded, where a run takes some."""
        with self._making:
            if self._made_slots is None:
                from orchestrator.engine.slot_keeper import SlotKeeper

                self._made_slots = SlotKeeper(
                    self._store,
                    self.catalog,
                    self._broker,
                    self._clock,
                    self._policy,
                    self._sleep,
                    self._committer.spread,
                    self._drives,
                )
            return self._made_slots

    @property
    def _ticker(self) -> "Ticker":
        """What looks after open runs: made, and loaded, where a Tick comes."""
        with self._making:
            if self._made_ticker is None:
                from orchestrator.engine.ticker import Ticker

                self._made_ticker = Ticker(
                    self._store,
                    self._witness,
                    self._actor,
                    self._clock,
                    self._hosts,
                    self._policy,
                    self.instance,
                    box_of=self._boxes.box,
                    apply=self._leader.apply,
                    forget=self._boxes.forget,
                    slots=lambda: self._slots,
                )
            return self._made_ticker

    def _is_unwanted(self, launch: Launch, execution: Execution) -> bool:
        loaded = OrchestrationStatus(self._store, launch.run_id).load()
        node = loaded[0].nodes.get(launch.node_name) if loaded else None
        if node is None or node.status is not TaskStatus.RUNNING or node.attempt != launch.attempt:
            return True
        return node.execution_id not in (None, execution.execution_id)
