"""Simulation: the engine as it is, on fake targets, in a store in memory, at a time that is moved on by what happens.

What is deterministic: everything. One thread runs all of it, and what is drawn (nonces, faults, which instance
handles an event) is drawn by one seed.
"""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.handled import Handled
from orchestrator.engine.redriving import refusal
from orchestrator.engine.saved import Saved
from orchestrator.engine.status import DefinitionStatus, OpenRuns, OrchestrationStatus
from orchestrator.model.commands import EMPTY, Json, Launch, Notify
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import NodeTypes, TargetTypes, TaskStatus
from orchestrator.model.errors import InputError, RunNotFound
from orchestrator.model.messages import (
    cancel_message,
    pause_message,
    redrive_message,
    resume_message,
    start_message,
)
from orchestrator.model.node_state import NodeState
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import RunState, child_of
from orchestrator.ports import HeldSecrets, Target
from orchestrator.runtime.policy import RulesOf
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.targets.dag import DagTarget
from orchestrator.testing.child_runs import ChildRuns
from orchestrator.testing.errors import OutOfTime, SimulationError, WaitsForEver
from orchestrator.testing.fake_target import FakeTarget
from orchestrator.testing.faults import Faults
from orchestrator.testing.given import AnyPools, catalog_of, check_given
from orchestrator.testing.noted_notifier import NotedNotifier
from orchestrator.testing.order import ranks
from orchestrator.testing.real_steps import RealSteps
from orchestrator.testing.simulated_run import SimulatedRun
from orchestrator.testing.ticks import Ticks, WatchedStore
from orchestrator.testing.told import Does, Told
from orchestrator.testing.virtual_broker import VirtualBroker
from orchestrator.testing.virtual_time import T0, Agenda, VirtualClock

MAX_STEPS = 200_000
"""So many events and Ticks until a run's end are taken for a run that goes on without one."""
CANNOT_BE_CANCELLED = frozenset({TargetTypes.FUNCTION.value, TargetTypes.CLOUD_FUNCTION.value})


class Simulation:
    """A world of one or several DAGs. Start runs in it, move time on, send events; look at the runs.

    Args:
        definition: a definition, several by name, or a path: of a DAG's folder (with the DAGs beside it), of its
            file, or of a folder of DAGs.
        targets: what steps do, by the name of the step, of one item of a Map (`Load[7]`), or of a target. A Dag Task
            that is not named starts a child run, where its DAG is among the definitions.
        default: what all others do.
        seed: what is drawn is drawn by it; the same seed, the same run.
        faults: what goes wrong with events.
        instances: how many instances of the orchestrator handle events; which one, is drawn for each.
        starts_at: when virtual time begins, aware.
        cannot_be_cancelled: target types whose executions run to their end; by default CloudFunction and Function.
        without_outcome: target types that cannot be asked how an execution ended; as CloudFunction in the cloud, where
            a step without a timeout has a default one.
        variables, secrets: what `${var.NAME}` and `${secret.NAME}` stand for.
        notifications_refused: so many tries to send each notification are not accepted.
        pools: how many slots each pool has; one that is not named here has 1,000.
    Raises:
        SimulationError: `targets` names neither a step nor a target.
        DefinitionError: there is no definition, or it breaks rules.
    """

    def __init__(
        self,
        definition: Mapping[str, Json] | str | Path,
        *,
        targets: Mapping[str, Does] = EMPTY,  # type: ignore[assignment]  # EMPTY is shared, and holds nothing
        default: Does | None = None,
        seed: int = 0,
        faults: Faults | None = None,
        instances: int = 1,
        starts_at: datetime = T0,
        cannot_be_cancelled: Collection[str] = CANNOT_BE_CANCELLED,
        without_outcome: Collection[str] = (),
        variables: Mapping[str, Json] = EMPTY,
        secrets: Mapping[str, str] | None = None,
        notifications_refused: int = 0,
        pools: Mapping[str, int] = EMPTY,  # type: ignore[assignment]  # as above
    ) -> None:
        check_given(instances, starts_at, pools, cannot_be_cancelled, without_outcome)
        self.catalog, folders = catalog_of(definition)
        self.clock = VirtualClock(starts_at)
        self.store = WatchedStore()
        self.random = Random(seed)  # noqa: S311 - for the same run again, not for secrets
        self.agenda = Agenda(self.clock)
        self.dead_letters: list[tuple[Mapping[str, Json], BaseException]] = []
        """Events that were given up, with why."""
        self.problems: list[str] = []
        """What Ticks could not look after."""
        self.broker = VirtualBroker(
            self.agenda,
            faults,
            Random(seed),  # noqa: S311 - as above
            lambda event, error: self.dead_letters.append((event, error)),
        )
        self.broker.subscribe(self._handle)
        self.notifier = NotedNotifier(self.clock, notifications_refused)
        self._told = Told(targets, default, self.catalog, RealSteps(folders))
        self._launches: list[Launch] = []
        self.targets = {
            target_type.value: FakeTarget(
                self.agenda,
                self.broker.publish,
                self._told.behaviour_of,
                has_outcome=target_type.value not in without_outcome,
                can_cancel=target_type.value not in cannot_be_cancelled,
                log=self._launches,
            )
            for target_type in TargetTypes
        }
        fake = self.targets[TargetTypes.DAG.value]
        dags = DagTarget(self.store, self.broker.publish, self._make_child, launch_limit_s=0.0)
        by_key: dict[str, Target] = {
            **self.targets,
            "CloudFunction.sync": self.targets["CloudFunction"],
            TargetTypes.DAG.value: ChildRuns(dags, fake, self._told.is_faked, self._launches),
        }
        self._paths: dict[str, dict[str, None]] = {}
        self._ended: set[str] = set()
        self._ranks: dict[str, Mapping[str, int]] = {}
        self._starts = 0
        self._ticks = Ticks(self.clock, self.store, self._changes)
        self._executors = [
            DAGExecutor(
                self.catalog,
                store=self.store,
                targets=by_key,
                broker=self.broker,
                clock=self.clock,
                hosts=UnknownHosts(),
                instance=f"instance{number}",
                policy=Policy(RulesOf(by_key), pools=AnyPools(pools)),
                random_bytes=self.random.randbytes,
                sleep=lambda _: None,
                on_saved=self._note,
                variables=variables,
                secrets=HeldSecrets(secrets),
                notifier=self.notifier,
            )
            for number in range(1, instances + 1)
        ]

    # -- what a test does ---------------------------------------------------------------------------

    def start(
        self,
        input: Mapping[str, Json] = EMPTY,  # noqa: A002 - the word of the start message
        *,
        dag: str | None = None,
        run_id: str | None = None,
        priority: int | None = None,
        scheduled_for: datetime | None = None,
    ) -> str:
        """Start a run and return its id. Raises what the engine raises: UnknownDag, DefinitionError, RunExists, …

        Args:
            scheduled_for: the time of its schedule that the run is for, aware, of whole seconds.
        """
        self._starts += 1
        message = start_message(dag, input, run_id, scheduled_for, priority)
        handled = self._execute(message, f"start-{self._starts}", self.clock.now())
        if handled.run_id is None:
            raise SimulationError("start: made no run")
        return handled.run_id

    def trigger(self, event: Mapping[str, Json]) -> tuple[str, ...]:
        """Deliver an event of others, an object or a message, and return the ids of the runs that it started.

        Raises what the engine raises: EventError, InputRejected, …
        """
        self._starts += 1
        return self._execute(event, f"event-{self._starts}", self.clock.now()).run_ids

    def send(self, event: Mapping[str, Json], *, after: str = "0s") -> None:
        """Publish an event, to be delivered after this virtual time."""
        self.broker.publish(event, delay_s=parse_duration(after))

    def cancel(self, run_id: str, reason: str = "", *, after: str = "0s") -> None:
        """Ask for a run to be cancelled, after this virtual time."""
        self.send(cancel_message(run_id, reason), after=after)

    def pause(self, run_id: str, *, after: str = "0s") -> None:
        """Have a run paused, `after` that."""
        self.send(pause_message(run_id), after=after)

    def resume(self, run_id: str, *, after: str = "0s") -> None:
        """Let a paused run go on, `after` that."""
        self.send(resume_message(run_id), after=after)

    def redrive(self, run_id: str, start_from: str | None = None) -> None:
        """Let a run that has ended go on, from where it failed or, again, from a step; at once.

        Raises:
            RunNotFound: there is no such run.
            InputError: it has not ended, or has completed, or did not come by that step.
        """
        state = self._state(run_id)
        why_not = refusal(DefinitionStatus(self.store).load(state.run.definition), state, start_from)
        if why_not is not None:
            raise InputError(f"run {run_id}: {why_not}")
        message = redrive_message(run_id, start_from, state.run.redrives + 1)
        self._execute(message, f"redrive-{run_id}-{state.run.redrives + 1}", self.clock.now())

    def forward(self, duration: str) -> None:
        """Move time on by a duration as in "3d", and let happen what happens until then."""
        limit = self.clock.now() + timedelta(seconds=parse_duration(duration))
        while self._step(limit):
            pass
        self.clock.forward_to(limit)

    def finish(self, run_id: str, *, within: str = "400d") -> SimulatedRun:
        """Move time on until a run has ended, and return it.

        Raises:
            RunNotFound: there is no such run.
            WaitsForEver: nothing that could end it will ever come.
            OutOfTime: it has not ended within that virtual time, or within 200,000 events.
        """
        limit = self.clock.now() + timedelta(seconds=parse_duration(within))
        self._state(run_id)
        steps = 0
        while run_id not in self._ended:
            if self.agenda.next_at is None and self._ticks.are_over(limit):
                raise WaitsForEver(f"{self._waits(run_id)}; no event is under way, and nothing is due by {_utc(limit)}")
            if not self._step(limit):
                raise OutOfTime(f"{self._waits(run_id)}; it was given {within}")
            steps += 1
            if steps > MAX_STEPS:
                raise OutOfTime(f"{self._waits(run_id)}; that took {MAX_STEPS:,} events and Ticks")
        return self.run(run_id)

    def run(self, run_id: str) -> SimulatedRun:
        """Return a run as it stands. Raises RunNotFound."""
        launches: dict[str, list[Launch]] = {}
        for launch in self._launches:
            launches.setdefault(launch.run_id, []).append(launch)
        return self._seen(run_id, launches)

    def _seen(self, run_id: str, launches_of: Mapping[str, list[Launch]]) -> SimulatedRun:
        launches = tuple(launches_of.get(run_id, ()))
        cancelled = {launch.launch_id for fake in self.targets.values() for launch in fake.cancelled}
        state = self._state(run_id)
        parts = (child_of(run_id, node) for node in state.nodes.values() if node.node_type is NodeTypes.PART)
        return SimulatedRun(
            state,
            [*self._paths.get(run_id, ())],
            launches,
            tuple(launch for launch in launches if launch.launch_id in cancelled),
            {name: self._executors[0].result_of(state, name) for name in state.nodes},
            tuple(each for each in self.notifier.sent if each.run_id == run_id),
            tuple(
                self._seen(part, launches_of)
                for part in parts
                if part is not None and OrchestrationStatus(self.store, part).load() is not None
            ),
        )

    @property
    def runs(self) -> list[SimulatedRun]:
        """All runs that there are, child runs too, by run id."""
        keys = self.store.list("runs/")
        return [self.run(key.removeprefix("runs/").removesuffix(".json")) for key in keys if key.endswith(".json")]

    @property
    def notifications(self) -> tuple[Notify, ...]:
        """What was sent to topics and webhooks, for all runs, each once, in order."""
        return self.notifier.sent

    def close(self) -> None:
        """Let go of the engine's threads."""
        for executor in self._executors:
            executor.close()

    # -- how it goes on -----------------------------------------------------------------------------

    def _step(self, limit: datetime) -> bool:
        """Let the next thing happen, if it does by `limit`; return whether it did."""
        tick_at, event_at = self._ticks.next_at, self.agenda.next_at
        at = tick_at if event_at is None else min(tick_at, event_at)
        if at > limit:
            return False
        self.clock.forward_to(at)
        if event_at is not None and event_at <= at:
            self.agenda.run_next()
        else:
            self._tick()
        return True

    def _tick(self) -> None:
        self._ticks.begin()
        swept = self._any_executor().tick()
        self._ticks.end()
        self.problems += (problem for problem in swept.problems if problem not in self.problems)

    def _changes(self) -> int:
        return self.store.changes + self.broker.published + sum(fake.changes for fake in self.targets.values())

    def _handle(self, event: Mapping[str, Json], *, message_id: str, publish_time: datetime) -> Handled:
        return self._execute(event, message_id, publish_time)

    def _execute(self, event: Mapping[str, Json], message_id: str, publish_time: datetime) -> Handled:
        return self._any_executor().execute(event, message_id=message_id, publish_time=publish_time)

    def _any_executor(self) -> DAGExecutor:
        return self._executors[0] if len(self._executors) == 1 else self.random.choice(self._executors)

    # -- what it knows ------------------------------------------------------------------------------

    def _note(self, saved: Saved) -> None:
        """Keep whether a run has ended, and which nodes were started, in the order in which the definition has them."""
        run = saved.after.run
        (self._ended.add if run.status.is_final else self._ended.discard)(run.run_id)
        path = self._paths.setdefault(run.run_id, {})
        nodes = saved.after.nodes
        perhaps = nodes if saved.touched is None else saved.touched
        started = [name for name in perhaps if name not in path and nodes[name].started_at]
        if len(started) > 1:
            place = self._rank(run.dag)
            started.sort(key=lambda name: place.get(name.partition("[")[0], len(place)))
        path.update(dict.fromkeys(started))

    def _rank(self, dag: str) -> Mapping[str, int]:
        if dag not in self._ranks:
            self._ranks[dag] = ranks(self.catalog.definitions[dag]) if dag in self.catalog.definitions else {}
        return self._ranks[dag]

    def _state(self, run_id: str) -> RunState:
        loaded = OrchestrationStatus(self.store, run_id).load()
        if loaded is None:
            raise RunNotFound(f"run {run_id}: there is none in this simulation")
        return loaded[0]

    def _waits(self, run_id: str) -> str:
        """Say what a run waits for, and what went wrong on the way."""
        state = self._state(run_id)
        running = [node for node in state.nodes.values() if _runs_by_itself(node)]
        waits = [self._waits_for(state, node) for node in running[:10]]
        waits += [f"and {len(running) - 10} more"] if len(running) > 10 else []
        others = [other for _, other in OpenRuns(self.store) if other != run_id]
        waits += [f"{len(others)} other open runs: {', '.join(others[:5])}"] if others else []
        waits += [f"given up: {error}" for _, error in self.dead_letters[:5]] + self.problems[:5]
        words = "; ".join(waits) or "no node of it is Running"
        return f"run {run_id}: has not ended, at {_utc(self.clock.now())} it is {state.run.status}: {words}"

    def _waits_for(self, state: RunState, node: NodeState) -> str:
        words = f"{node.node_name} is Running"
        if node.target_type is not None:
            words += f", attempt {node.attempt} at {node.target_type}"
            fake = self.targets.get(node.target_type or "")
            does = fake.runs(state.launch_id(node.node_name)) if fake else None
            if does is not None and does.work is None:
                words += ", which never ends" + ("" if node.due else ", and it has no timeout")
        if node.waits_for_slot and node.slot is not None:
            words += f", waits for a slot of {node.slot.queue}"
        if node.due:
            words += f", due {', '.join(f'{kind} at {_utc(at)}' for kind, at in node.due.items())}"
        return words

    def _make_child(self, launch: Launch, run_id: str) -> str:
        return self._any_executor().make_child(launch, run_id)


def _utc(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _runs_by_itself(node: NodeState) -> bool:
    """Whether a node runs, and not only because what it holds does."""
    return node.status is TaskStatus.RUNNING and not node.open_branches
