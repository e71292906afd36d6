"""The public DAGExecutor: the engine with its parts put together."""

import logging
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from orchestrator.engine import dag_executor
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.handled import Handled
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import DefinitionStatus, OrchestrationStatus, marker_of
from orchestrator.model.commands import Json, Notify
from orchestrator.model.enums import TaskStatus
from orchestrator.model.errors import InputError, OrchestratorError, RunNotFound
from orchestrator.model.messages import redrive_message, start_message
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState, child_of
from orchestrator.ports import Broker, Clock, Notifier, ObjectStore, Secrets, Target
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.own_runs import OwnRuns
from orchestrator.runtime.own_targets import WithOwn
from orchestrator.runtime.policy import policy_of
from orchestrator.runtime.registry import open_store
from orchestrator.runtime.secrets import LazySecrets, of_this_machine
from orchestrator.runtime.settings import Settings
from orchestrator.runtime.unknown_hosts import UnknownHosts

if TYPE_CHECKING:
    from orchestrator.brokers.memory import MemoryBroker
    from orchestrator.runtime.local import InstanceHosts, LocalParts, LocalTargets
    from orchestrator.runtime.telemetry import Telemetry

log = logging.getLogger("orchestrator")


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
        self._given_on_saved = on_saved
        self._runs = OwnRuns(
            store,
            settings.tick_interval_s,
            ticks=self._own_broker is not None,
            look_after=self.look_after,
            let_go_of_ended=self.let_go_of_ended,
        )
        self.telemetry = telemetry or _telemetry(clock)
        policy = policy or policy_of(settings, store, targets)
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
            drives=self._runs.drives,
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
        state = self._runs.load(run_id)
        if state.run.status.is_final:
            self._runs.ended(state)
            if state.run.owed_notifications:
                self._runs.close_marker_of(run_id)  # once nothing is owed
            self.look_after(run_id, marker_of(run_id, state.run.redrives))
        else:
            self._runs.look_after_from_now_on(run_id)
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

        state = self._runs.load(run_id)
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
        return self._runs.open_ids

    def wait(self, run_id: str, timeout_s: float | None = None) -> RunState:
        """Return the run as it ended.

        A run that another instance leads is read from the store twice a second, a very large one less often.

        Raises:
            TimeoutError: it has not ended within `timeout_s` seconds.
            RunNotFound: there is none.
        """
        return self._runs.wait(run_id, timeout_s)

    def flush(self) -> None:
        """Export what traces and metrics wait, for an instance that may be frozen now."""
        if self.telemetry is not None:
            self.telemetry.flush()

    def close(self) -> None:
        """Stop what runs here. Runs that have not ended can be resumed."""
        self._runs.await_notifications(self.instance)
        self._runs.begin_to_stop()
        if self._own_broker is not None:
            self._own_broker.close()
        self._runs.stop()
        self._leave_queues()
        super().close()
        self._runs.clear_markers()
        for target in self._local.made() if self._local else ():
            close = getattr(target, "close", None)
            if close is not None:
                close()
        self._runs.let_go_of_others()
        fold = getattr(self.store, "fold", None)
        if fold is not None:
            fold()
        if self._parts is not None:
            self._parts.close()

    def _leave_queues(self) -> None:
        """Keep nobody waiting behind runs that nobody runs for now."""
        for run_id in self._runs.open_ids if self._own_broker is not None else ():
            try:
                self.leave_queues(run_id)
            except OrchestratorError as exc:
                log.warning("it keeps its places in queues: %s", exc, extra={"run_id": run_id})

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
                self._runs.ended(state, is_own=True)
            else:
                self._runs.goes_on(run_id, is_redriven=saved.is_redriven)

    def _trace(self, saved: Saved) -> None:
        try:
            if self.telemetry is not None:
                self.telemetry.saved(saved)
        except Exception:
            log.exception("telemetry failed; the run goes on", extra={"run_id": saved.after.run.run_id})

    def _keep_dead(self, event: Mapping[str, Json], message_id: str, error: BaseException) -> None:
        from orchestrator.runtime.dead_letters import keep

        keep(self.store, event, f"{self.instance}-{message_id}", error)


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


__all__ = ["DAGExecutor", "Handled"]
