"""The public DAGExecutor: the engine with its parts put together."""

import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Condition, Event, Lock, Thread
from typing import TYPE_CHECKING

from orchestrator.engine import dag_executor
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.handled import Handled
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus, marker_of
from orchestrator.model.commands import Json, Launch, Notify
from orchestrator.model.enums import TargetTypes, TaskStatus
from orchestrator.model.errors import BrokerUnavailable, InputError, OrchestratorError, RunNotFound
from orchestrator.model.messages import redrive_message, start_message
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState, child_of
from orchestrator.ports import Asked, Broker, Clock, Notifier, ObjectStore, Paced, Patient, Secrets, Target
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.secrets import LazySecrets, of_this_machine
from orchestrator.runtime.settings import Settings
from orchestrator.runtime.unknown_hosts import UnknownHosts

if TYPE_CHECKING:
    from orchestrator.brokers.memory import MemoryBroker
    from orchestrator.runtime.local import InstanceHosts, LocalParts, LocalTargets
    from orchestrator.runtime.telemetry import Telemetry

log = logging.getLogger("orchestrator")

QUESTIONS_AT_ONCE = 16
"""How many questions to services an instance in the cloud asks side by side: an answer takes some 30 ms."""

NOTIFYING_S = 30.0
"""How long closing waits for notifications that are being sent."""

_READING_SHARE = 50
_LONGEST_PAUSE_S = 10.0
"""A run is read again after so many times what reading it took, where that is long; after so long at the latest."""

_LET_GO_EVERY_S = 600.0
"""How often a process looks for markers of runs that others ended, and were killed before they deleted them."""

MAX_ENDED_RUNS = 1000
"""How many ended runs a process with a bus of its own remembers; `wait` reads others from the store."""


_OWN = (TargetTypes.DAG.value, TargetTypes.CALLBACK.value)


class RulesOf(Mapping[str, TargetRules]):
    """What decide has to know of each target, read from the target when it is first asked for."""

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._read: dict[str, TargetRules] = {}

    def __getitem__(self, target_type: str) -> TargetRules:
        rules = self._read.get(target_type)
        if rules is None:
            target = self._targets[target_type]
            rules = self._read[target_type] = TargetRules(
                target.has_outcome,
                target.can_cancel,
                target.synchronous,
                target.launch_limit_s,
                target.first_question_s if isinstance(target, Asked) else 0.0,
                target.default_timeout_s if isinstance(target, Patient) else None,
            )
        return rules

    def __iter__(self) -> Iterator[str]:
        return iter(self._targets)

    def __len__(self) -> int:
        return len(self._targets)


class WithOwn(Mapping[str, Target]):
    """Targets, with those among them that are the orchestrator's own doing, the same everywhere: Dag and Callback."""

    def __init__(
        self,
        others: Mapping[str, Target],
        store: ObjectStore,
        broker: Broker,
        notifier: Notifier,
        make_child: Callable[[Launch, str], str],
        *,
        delivers_here: bool,
    ) -> None:
        self._others, self._store, self._broker, self._notifier = others, store, broker, notifier
        self._make_child, self._delivers_here = make_child, delivers_here
        self._lock = Lock()
        self._made: dict[str, Target] = {}

    def __getitem__(self, target_key: str) -> Target:
        if target_key not in _OWN or target_key in self._others:
            return self._others[target_key]
        with self._lock:
            if target_key not in self._made:
                self._made[target_key] = self._make(target_key)
            return self._made[target_key]

    def _make(self, target_key: str) -> Target:
        if target_key == TargetTypes.DAG:
            from orchestrator.targets.dag import DagTarget

            begin = self._begin_apart if self._delivers_here else None
            return DagTarget(self._store, self._broker.publish, self._make_child, begin=begin)
        from orchestrator.targets.callback import CallbackTarget

        return CallbackTarget(self._store, self._notifier)

    def _begin_apart(self, event: Mapping[str, Json]) -> None:
        """Deliver what lets a child run begin in a thread of its own.

        A bus of this process delivers in the publisher's: there a child that ends at once would lead its parent on, and
        that its next child, each further down the stack.
        """
        try:
            Thread(target=self._broker.publish, args=(event,), name="orchestrator-begin", daemon=True).start()
        except RuntimeError as exc:  # the machine has no thread left
            raise BrokerUnavailable(f"a child run cannot be begun now: {exc}") from exc

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        yield from (each for each in _OWN if each not in self._others)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class LazyNotifier:
    """The Notifier of topics and webhooks, made with the first notification."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._lock = Lock()
        self._made: Notifier | None = None

    def notify(self, notification: Notify) -> None:
        """See ports.Notifier."""
        with self._lock:
            if self._made is None:
                from orchestrator.runtime import notifier

                self._made = notifier.Notifier(self._settings, os.environ, self._clock)
        self._made.notify(notification)


class DAGExecutor(dag_executor.DAGExecutor):
    """Runs DAGs: `execute` handles one event, `tick` recovers what was left or lost.

    Without a `broker` the events of local targets come back by themselves, inside of this process, and
    a timer ticks while runs are open that were started or resumed here; `wait` waits for one of them.

    Args:
        dag_definition: one definition, or several by name.
        bucket_name: where runs are kept, as STATUS_BUCKET; that setting, where None.
        store, targets, broker, clock: parts of your own instead; targets by target type.
        folders: DAG name -> folder with the functions/ and pipelines/ that local targets run.
        settings: instead of the environment's.
        variables: what `${var.NAME}` stands for, instead of what the setting VARIABLES says.
        secrets: what `${secret.NAME}` stands for, instead of SECRET_<NAME> and SECRETS_FILE.
        policy: times and limits, instead of those that the settings give.
        on_saved: told of every save of a run here.
        telemetry: makes traces and metrics; what the OTEL_* variables ask for, where None.
        notifier: sends notifications, instead of Pub/Sub and HTTPS.
    Raises:
        SettingsError, StoreUnavailable: the bucket cannot be used.
    """

    def __init__(
        self,
        dag_definition: Mapping[str, Json] | Catalog,
        bucket_name: str | None = None,
        *,
        store: ObjectStore | None = None,
        targets: Mapping[str, Target] | None = None,
        broker: Broker | None = None,
        clock: Clock | None = None,
        folders: Mapping[str, Path] | None = None,
        settings: Settings | None = None,
        policy: Policy | None = None,
        variables: Mapping[str, Json] | None = None,
        secrets: Secrets | None = None,
        on_saved: Callable[[Saved], None] | None = None,
        telemetry: "Telemetry | None" = None,
        notifier: Notifier | None = None,
    ) -> None:
        settings = settings or Settings.read(os.environ)
        clock = clock or SystemClock()
        store = store if store is not None else open_store(bucket_name or settings.status_bucket)
        prepare = getattr(store, "ensure_writable", None)
        if prepare is not None:
            prepare()
        self._own_broker = None if broker else _memory_broker(clock, self._keep_dead)
        self._parts: LocalParts | None = None
        self._local: LocalTargets | None = None
        catalog = (
            dag_definition if isinstance(dag_definition, Catalog) else Catalog.of(dag_definition, settings.default_dag)
        )
        used_broker = broker or self._own_broker
        if used_broker is None:
            raise LookupError("no broker")
        hosts: InstanceHosts | UnknownHosts = UnknownHosts()
        instance = random.SystemRandom().randbytes(6).hex()
        if targets is None:
            root = getattr(store, "root", None)
            self._parts = _local_parts(folders or {}, used_broker, root, settings)
            targets = self._local = self._parts.targets()
            hosts = self._parts.hosts
            instance = self._parts.hosts.me
        notifier = notifier or LazyNotifier(settings, clock)
        targets = WithOwn(targets, store, used_broker, notifier, self.make_child, delivers_here=broker is None)
        self._tick_interval_s = settings.tick_interval_s
        self._given_on_saved = on_saved
        self._ended: dict[str, RunState] = {}
        self._waited_for = Counter[str]()
        self._changed = Condition(Lock())
        self._mine: set[str] = set()
        self._taken_up: set[str] = set()  # of these, since the timer came to them last
        self._stopping = Event()
        self._timer: Thread | None = None
        self.telemetry = telemetry or _telemetry(clock)
        policy = policy or _policy(settings, store, targets)
        if self.telemetry is not None:
            self.telemetry.lease = policy.lease
        super().__init__(
            catalog,
            store=store,
            targets=targets,
            broker=used_broker,
            clock=clock,
            hosts=hosts,
            instance=instance,
            policy=policy,
            random_bytes=os.urandom,
            sleep=time.sleep,
            on_saved=self._note_saved,
            variables=settings.variables if variables is None else variables,
            secrets=secrets or LazySecrets(lambda: (of_this_machine(settings, os.environ),)),
            observer=self.telemetry,
            notifier=notifier,
            drives=self._drives_here,
            # A bus that ends with this process promises nothing of what it has not delivered.
            start_missed=used_broker.publish if self._own_broker is None else self.execute,
        )
        self.store = store
        if self._own_broker is not None:
            self._own_broker.subscribe(self.deliver)

    def start(
        self,
        dag: str | None = None,
        input: Mapping[str, Json] | None = None,  # noqa: A002 - the word of the start message
        *,
        run_id: str | None = None,
        priority: int | None = None,
    ) -> str:
        """Start a run and return its id; the same as executing a start message of its own."""
        handled = self.execute(start_message(dag, input or {}, run_id, priority=priority))
        if handled.run_id is None:
            raise RunNotFound("start: made no run")
        return handled.run_id

    def resume(self, run_id: str) -> RunState:
        """Take up a run that another process left, at once; return it as it was found.

        Raises:
            RunNotFound: there is none.
        """
        state = self._load(run_id)
        if state.run.status.is_final:
            self._note_ended(state)
            if state.run.owed_notifications:
                self._mine.add(run_id)  # closing deletes its marker, once nothing is owed
            self.look_after(run_id, marker_of(run_id, state.run.redrives))
        else:
            self._look_after_from_now_on(run_id)
            self.look_after(run_id)
            self._resume_children(state)
        return state

    def redrive(self, run_id: str, start_from: str | None = None) -> RunState:
        """Let a run that has ended go on here; return it as it was found.

        Args:
            start_from: a step, to run it and all behind it again; None: from where the run failed.
        Raises:
            RunNotFound: there is none.
            InputError: it has not ended, or has completed, or did not come by that step.
        """
        from orchestrator.engine.redriving import refusal

        state = self._load(run_id)
        stored = DefinitionStatus(self.store).load(state.run.definition)
        why_not = refusal(stored, state, start_from)
        if why_not is not None:
            raise InputError(f"run {run_id}: {why_not}")
        self.execute(redrive_message(run_id, start_from, state.run.redrives + 1))
        return state

    def _resume_children(self, state: RunState) -> None:
        """Take up the child runs of a run that was left: they were left with it."""
        for node in state.nodes.values():
            child = child_of(state.run.run_id, node) if node.status is TaskStatus.RUNNING else None
            if child is not None and OrchestrationStatus(self.store, child).load() is not None:
                self.resume(child)

    @property
    def open_run_ids(self) -> list[str]:
        """Ids of the runs that this process looks after and that have not ended, child runs too."""
        with self._changed:
            return sorted(self._mine - self._ended.keys())

    def wait(self, run_id: str, timeout_s: float | None = None) -> RunState:
        """Return the run as it ended.

        A run that another instance leads is read from the store twice a second, a very large one less often.

        Raises:
            TimeoutError: it has not ended within `timeout_s` seconds.
            RunNotFound: there is none.
        """
        with self._changed:
            self._waited_for[run_id] += 1
        try:
            return self._wait(run_id, timeout_s)
        finally:
            with self._changed:
                self._waited_for[run_id] -= 1
                if not self._waited_for[run_id]:
                    del self._waited_for[run_id]
                    if self._own_broker is None:
                        self._ended.pop(run_id, None)

    def _wait(self, run_id: str, timeout_s: float | None) -> RunState:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wait_s = 0.5 if run_id in self._mine else 0.0
        while True:
            with self._changed:
                if run_id in self._ended:
                    return self._ended[run_id]
                left_s = wait_s if until is None else min(wait_s, until - time.monotonic())
                if left_s > 0 and self._changed.wait(left_s) and run_id in self._ended:
                    return self._ended[run_id]
            begin_s = time.thread_time()
            state = self._load(run_id)
            wait_s = max(0.5, _pause_after(begin_s))
            if state.run.status.is_final:
                self._note_ended(state)
            elif until is not None and time.monotonic() >= until:
                raise TimeoutError(f"run {run_id}: has not ended within {timeout_s:g} s")

    def flush(self) -> None:
        """Export what traces and metrics wait, for an instance that may be frozen now."""
        if self.telemetry is not None:
            self.telemetry.flush()

    def close(self) -> None:
        """Stop what runs here. Runs that have not ended can be resumed."""
        self._await_notifications()
        self._stopping.set()
        if self._own_broker is not None:
            self._own_broker.close()
        if self._timer is not None:
            self._timer.join(timeout=5.0)
        self._leave_queues()
        super().close()
        for run_id in tuple(self._ended):
            self._clear_marker(run_id)
        for target in self._local.made() if self._local else ():
            close = getattr(target, "close", None)
            if close is not None:
                close()
        self._let_go_of_others()
        fold = getattr(self.store, "fold", None)
        if fold is not None:
            fold()
        if self._parts is not None:
            self._parts.close()

    def _leave_queues(self) -> None:
        """Keep nobody waiting behind runs that nobody runs for now."""
        for run_id in tuple(self._mine - self._ended.keys()) if self._own_broker is not None else ():
            try:
                self.leave_queues(run_id)
            except OrchestratorError as exc:
                log.warning("it keeps its places in queues: %s", exc, extra={"run_id": run_id})

    def _await_notifications(self) -> None:
        """Let those be sent, and noted, that this process has in hand; others can be sent by `resume`."""

        def in_hand() -> bool:
            owed = [each for state in self._ended.values() for each in state.run.owed_notifications]
            return any(each.owner.startswith(f"{self.instance}.") for each in owed)

        with self._changed:
            self._changed.wait_for(lambda: not in_hand(), NOTIFYING_S)

    def __enter__(self) -> "DAGExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what happens in between --------------------------------------------------------------------

    def _note_saved(self, saved: Saved) -> None:
        self._trace(saved)
        try:
            if self._given_on_saved is not None:
                self._given_on_saved(saved)
        finally:
            state = saved.after
            run_id = state.run.run_id
            if state.run.status.is_final:
                for target in self._local.made() if self._local else ():
                    forget = getattr(target, "forget", None)
                    if forget is not None:
                        forget(run_id)
                self._note_ended(state)
            else:
                if saved.is_redriven:
                    with self._changed:
                        self._ended.pop(run_id, None)
                if self._own_broker is not None and (
                    saved.is_redriven or run_id not in self._mine or self._timer is None
                ):
                    self._look_after_from_now_on(run_id)

    def _drives_here(self, run_id: str) -> bool:
        """Whether a run whose turn has come is to go on here: on a bus of its own, a process runs what is its own."""
        return self._own_broker is None or (run_id in self._mine and not self._stopping.is_set())

    def _trace(self, saved: Saved) -> None:
        try:
            if self.telemetry is not None:
                self.telemetry.saved(saved)
        except Exception:
            log.exception("telemetry failed; the run goes on", extra={"run_id": saved.after.run.run_id})

    def _note_ended(self, state: RunState) -> None:
        """Keep an ended run for who waits, or will wait, here: in the cloud hardly anybody ever does."""
        with self._changed:
            if self._own_broker is None and state.run.run_id not in self._waited_for:
                return
            self._ended[state.run.run_id] = state
            if len(self._ended) > MAX_ENDED_RUNS:
                oldest = next(iter(self._ended))
                del self._ended[oldest]
                if self._own_broker is None:  # else the timer forgets it, once its marker is deleted
                    self._mine.discard(oldest)
            self._changed.notify_all()

    def _look_after_from_now_on(self, run_id: str) -> None:
        with self._changed:
            self._mine.add(run_id)
            if self._own_broker is None:
                return
            self._taken_up.add(run_id)
            if self._timer is None and not self._stopping.is_set():
                timer = Thread(target=self._tick_on, name="orchestrator-tick", daemon=True)
                try:
                    timer.start()
                except RuntimeError as exc:  # the machine has no thread left; the next save tries again
                    log.warning("nobody looks after runs now: %s", exc, extra={"run_id": run_id})
                    return
                self._timer = timer

    def _tick_on(self) -> None:
        """Tick for the runs of this process; those that another process left are for `resume`."""
        turns: dict[str, float] = {}
        let_go_s = 0.0
        while not self._stopping.wait(self._tick_interval_s):
            if time.monotonic() >= let_go_s:
                self._let_go_of_others()
                let_go_s = time.monotonic() + _LET_GO_EVERY_S
            mine = tuple(self._mine)
            turns = {run_id: turns[run_id] for run_id in mine if run_id in turns}
            for run_id in mine:
                if time.monotonic() < turns.get(run_id, 0.0):
                    continue
                with self._changed:
                    self._taken_up.discard(run_id)
                is_open, begin_s = True, time.thread_time()
                try:
                    is_open = self.look_after(run_id, marker_of(run_id)) is not None
                except OrchestratorError as exc:
                    log.error("tick: %s", exc, extra={**exc.labels, "run_id": run_id})
                except Exception:
                    log.exception("tick failed", extra={"run_id": run_id})
                turns[run_id] = time.monotonic() + _pause_after(begin_s)
                with self._changed:
                    if not is_open and run_id not in self._taken_up:  # else it was redriven meanwhile
                        self._mine.discard(run_id)

    def _clear_marker(self, run_id: str) -> None:
        if run_id not in self._mine:
            return
        try:
            self.look_after(run_id, marker_of(run_id))
        except OrchestratorError as exc:
            log.warning("the marker of an ended run is left: %s", exc, extra={"run_id": run_id})

    def _let_go_of_others(self) -> None:
        """Delete markers, in a directory, that nobody else would: of runs whose process was killed when they ended."""
        if self._own_broker is None or getattr(self.store, "root", None) is None:
            return
        try:
            self.let_go_of_ended()
        except OrchestratorError as exc:
            log.warning("markers of ended runs are left: %s", exc)

    def _load(self, run_id: str) -> RunState:
        loaded = OrchestrationStatus(self.store, run_id).load()
        if loaded is None:
            raise RunNotFound(f"run {run_id}: there is no runs/{run_id}.json in this bucket")
        return loaded[0]

    def _keep_dead(self, event: Mapping[str, Json], message_id: str, error: BaseException) -> None:
        from orchestrator.runtime.dead_letters import keep

        keep(self.store, event, f"{self.instance}-{message_id}", error)


def _pause_after(begin_s: float) -> float:
    """Seconds to leave a run alone that has been read since `time.thread_time` was `begin_s`: a large one for longer.

    So reading takes a small share of one core, however large the run is: of 10,000 steps it takes some 30 ms.
    """
    return min(_LONGEST_PAUSE_S, _READING_SHARE * (time.thread_time() - begin_s))


def _telemetry(clock: Clock) -> "Telemetry | None":
    """What the OTEL_* variables ask for; nothing of it is imported where there are none."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from orchestrator.runtime.otel import configured

    return configured(os.environ, clock.now)


# What runs things on this machine is loaded where it does: in the cloud its cold start would pay for it.


def _memory_broker(clock: Clock, give_up: Callable[[Mapping[str, Json], str, BaseException], None]) -> "MemoryBroker":
    from orchestrator.brokers.memory import MemoryBroker

    return MemoryBroker(clock, time.monotonic, give_up)


def _local_parts(folders: Mapping[str, Path], broker: Broker, root: Path | None, settings: Settings) -> "LocalParts":
    from orchestrator.runtime.local import LocalParts

    return LocalParts(folders, broker.publish, root, settings.local_workers, settings, os.environ)


def _policy(settings: Settings, store: ObjectStore, targets: Mapping[str, Target]) -> Policy:
    interval_s = settings.save_interval_s
    if interval_s is None:
        interval_s = store.write_interval_s if isinstance(store, Paced) else 0.0
    return Policy(
        RulesOf(targets),
        min_lease_s=settings.launch_lease_s,
        clock_allowance_s=settings.clock_allowance_s,
        default_timeout_s=settings.default_timeout_s,
        grace_s=settings.event_grace_s,
        questions_at_once=1 if settings.events_topic is None else QUESTIONS_AT_ONCE,
        save_interval_s=interval_s,
        trace_key=settings.deployment_key,
        notify=settings.notify,
        pools=settings.pools,
    )


__all__ = ["DAGExecutor", "Handled"]
