"""One simulation: the real engine in several processes, where everything goes wrong that may, as a seed tells."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.status import number_of, run_of
from orchestrator.model.commands import Json, Launch, Outcome
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.errors import OrchestratorError, StoreUnavailable
from orchestrator.model.messages import (
    cancel_message,
    pause_message,
    redrive_message,
    resume_message,
    start_message,
    tick_message,
)
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.targets.dag import DagTarget
from tests.simulation.simulator.checks import Checks, Violation, is_open
from tests.simulation.simulator.cloud import (
    SERVICES,
    BrokerOf,
    Bucket,
    ChangingStoreOf,
    Message,
    Services,
    SkewedClock,
    StoreOf,
    TargetOf,
    Topic,
    at,
    share_of,
)
from tests.simulation.simulator.crew import Crew, Host, Killed, Strand, aboard
from tests.simulation.simulator.plots import definition_of
from tests.simulation.simulator.tape import Tape

MOST_STEPS = 20_000
LONGEST_S = 12 * 86400.0
CALM_AFTER_S = 2 * 3600.0
TICK_S = 60.0
RARE_TICK_S = 1800.0
"""How often the Tick comes once all is calm, where only a timeout of a day is waited for."""
ACK_DEADLINE_S = 60.0

logging.getLogger("orchestrator").addHandler(logging.NullHandler())


@dataclass
class Told:
    """What came of a simulation."""

    seed: int
    violation: str | None = None
    steps: int = 0
    faults: int = 0
    struck: list[tuple[str, str]] = field(default_factory=list)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)
    states: dict[str, RunState] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)


class Process:
    """An instance of the executor."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        s = simulation
        self.host = Host(f"p{number}")
        skew_s = s.tape.between(-2.0, 2.0)
        kind_of_store = ChangingStoreOf if s.seed % 2 else StoreOf
        store, broker = kind_of_store(s.bucket, s.crew, s.tape, self.host), BrokerOf(s.topic, s.crew, s.tape)
        targets = {service.name: TargetOf(service, s.services, self.host) for service in SERVICES}
        targets["Dag"] = DagTarget(
            store, broker.publish, lambda launch, run_id: self.executor.make_child(launch, run_id)
        )
        self.executor = DAGExecutor(
            s.catalog,
            store=store,
            targets=targets,
            broker=broker,
            clock=SkewedClock(s.crew, skew_s),
            hosts=UnknownHosts(),
            instance=self.host.name,
            policy=s.policy,
            random_bytes=s.tape.bytes,
            sleep=s.crew.sleep,
        )


class Simulation:
    """Runs of one definition, from their starts to their ends."""

    def __init__(
        self,
        seed: int,
        *,
        without: Collection[int] = (),
        only_first: int | None = None,
        size: int | None = None,
        definition: dict[str, Json] | None = None,
        tells: bool = False,
    ) -> None:
        self.seed = seed
        self.tape = Tape(seed, without, only_first)
        self.crew = Crew()
        self.crew.on_error = self._thread_failed
        self.tape.could_not_look = lambda: self.crew.current and self._disturb(self.crew.current.host)
        most = self.tape.whole(1, 12)
        most = most if size is None else size
        self.definitions = {
            "main": definition or definition_of(seed, most, "child"),
            "child": definition_of(-1 - seed, min(3, most)),
        }
        self.catalog = Catalog(self.definitions)
        self.bucket, self.topic = Bucket(), Topic(self.crew, self.tape)
        self.services = Services(self.crew, self.tape, self.topic, self._outcome_of)
        self.services.loses_lines = self.tape.one_of([0.0, 0.1, 0.5, 1.0])
        self.checks = Checks(self.definitions, self.services, lambda: self.crew.now)
        self.bucket.watch = self.checks.written
        self.services.told_of = self.checks.launching
        self.services.called = self.checks.called
        self.services.called_by = self.checks.owners_that_called.add
        self.policy = Policy(
            {s.name: TargetRules(s.has_outcome, s.can_cancel, s.synchronous, s.launch_limit_s) for s in SERVICES},
            questions_at_once=self.tape.one_of([1, 4]),
            pools={"few": self.tape.whole(1, 2)},
            inline_items=self.tape.one_of([100, 1]),
            part_items=2,
            marker_age_s=900.0,
            save_interval_s=self.tape.one_of([0.0, 1.0]),
        )
        self.count = 0
        self.processes: list[Process] = []
        self.next_tick = TICK_S
        self.failed: list[str] = []
        self.told = Told(seed)
        self._tells = tells
        self.starts = 0
        self.steered: set[str] = set()
        self.redriven: set[tuple[str, int]] = set()
        self.ends_together = self.tape.chance(0.4)

    # -- parts ----------------------------------------------------------------------------------------

    def _process(self) -> Process:
        self.count += 1
        return Process(self, self.count)

    def _outcome_of(self, launch: Launch) -> tuple[Outcome, float]:
        """How an attempt ends: always the same, whatever happened before."""
        node, attempt = launch.node_name, launch.attempt
        share = share_of(self.seed, node, attempt)
        took_s = 10.0 ** (4.0 * share_of(self.seed, node, attempt, "time") - 1.0)  # 0.1 s to 1,000 s
        if self.ends_together:
            took_s = 1.0
        if launch.target_key == "CloudFunction.sync":
            took_s = min(took_s, 50.0)
        if share < 0.8:
            return Outcome.completed({"node": node, "n": int(share * 10)}), took_s
        return Outcome.failed("Task.Failed", f"{node} was to fail"), took_s

    def _thread_failed(self, strand: Strand) -> None:
        if isinstance(strand.error, Violation):
            raise strand.error
        where = traceback.extract_tb(strand.error.__traceback__)[-1] if strand.error is not None else None
        raise Violation(f"a thread of {strand.host.name} ended with {strand.error!r}, at {where}") from strand.error

    def tell(self, what: str) -> None:
        """Note what happens, where somebody wants to read it."""
        if self._tells:
            self.told.story.append(f"{self.crew.now:10.2f} {what}")

    # -- what happens ---------------------------------------------------------------------------------

    def run(self) -> Told:
        """Simulate, and tell."""
        try:
            with aboard(self.crew):
                self._begin()
                self._go_on()
                self._be_still()
        except Violation as exc:
            self.told.violation = str(exc)
        finally:
            self._kill_all()
        self.told.faults = self.tape.numbered
        self.told.struck, self.told.met = self.tape.struck, self.tape.met
        self.told.states = self.checks.states
        return self.told

    def _begin(self) -> None:
        self.processes = [self._process() for _ in range(self.tape.whole(1, 3))]
        self.starts = 1 + self.tape.chance(0.3)
        for number in range(self.starts):
            run_id = f"run_{number}" if self.tape.chance(0.6) else None
            self.topic.publish(start_message("main", {"n": number}, run_id))

    def _steer(self) -> None:
        """Have a run that has started cancelled, or paused and resumed, at some time."""
        for run_id in [each for each in self.checks.states if each not in self.steered]:
            self.steered.add(run_id)
            if self.tape.chance(0.1):
                self.topic.publish(cancel_message(run_id, "as the seed says"), delay_s=self.tape.between(0, 1000))
            while self.tape.chance(0.15):
                pause_s = self.tape.between(0, 600)
                self.topic.publish(pause_message(run_id), delay_s=pause_s)
                self.topic.publish(resume_message(run_id), delay_s=pause_s + self.tape.between(0, 600))

        for state in self._own():
            run = state.run
            if (
                run.status in (RunStatus.FAILED, RunStatus.CANCELLED)
                and (run.run_id, run.redrives) not in self.redriven
            ):
                self.redriven.add((run.run_id, run.redrives))
                if run.redrives < 2 and self.tape.chance(0.3):
                    message = redrive_message(run.run_id, None, run.redrives + 1)
                    self.topic.publish(message, delay_s=self.tape.between(0, 100))

    def _go_on(self) -> None:
        """Until all runs have ended."""
        while self._steer() or not self._have_ended():
            self._step()

    def _have_ended(self) -> bool:
        states = self.checks.states
        if any(message.data["resource"] == {"type": "redrive"} for message in self.topic.messages):
            return False
        return len(self._own()) >= self.starts and not any(is_open(state) for state in states.values())

    def _own(self) -> list[RunState]:
        """The runs that a message has started."""
        return [state for state in self.checks.states.values() if state.run.parent is None]

    def _be_still(self) -> None:
        """Deliver what is left, let what stood still go on, look after what is open: nothing may come of it."""
        self.tape.is_calm = True
        self.next_tick = self.crew.now + TICK_S
        until = self.next_tick + 2 * RARE_TICK_S
        while self.crew.now < until:
            self._step()
        if len(self._own()) != self.starts:
            raise Violation(f"{self.starts} starts make {len(self._own())} runs")
        for run_id in self.checks.states:
            self.checks.at_the_end(run_id)
        # A redrive that was killed before its save, and came again after another one, leaves a marker until the next.
        redrives = {state.run.run_id: state.run.redrives for state in self.checks.states.values()}
        markers = [
            marker for marker in self.bucket.held.list("open/") if number_of(marker) <= redrives.get(run_of(marker), 0)
        ]
        if markers:
            raise Violation(f"{markers} are left, though all runs have ended")

    def _step(self) -> None:
        self.told.steps += 1
        if self.told.steps > MOST_STEPS or self.crew.now > LONGEST_S:
            running = {
                run_id: {
                    name: (node.status.value, node.attempt, dict(node.due))
                    for name, node in state.nodes.items()
                    if node.status is TaskStatus.RUNNING
                }
                for run_id, state in self.checks.states.items()
            }
            raise Violation(f"no end after {self.told.steps} steps and {self.crew.now:.0f} s: {running}")
        if self.crew.now > CALM_AFTER_S:
            self.tape.is_calm = True
        crew, tape = self.crew, self.tape
        ready = crew.ready()
        if ready and not tape.chance(0.1):
            self._go_on_with(ready)
            return
        happenings: list[Callable[[], None]] = []
        for message in self.topic.messages:
            if not message.is_out and message.due_at <= crew.now:
                happenings.append(lambda message=message: self._deliver(message))
        happenings += [lambda x=x: self._end(x) for x in self.services.ending()]
        if crew.now >= self.next_tick:
            happenings.append(self._tick)
        if self.services.executions and tape.strikes("forged", "completion", 0.01):
            self._forge()
        elif happenings:
            tape.one_of(happenings)()
        elif ready and not tape.strikes("slow", ready[0].at, 0.05):
            self._go_on_with(ready)
        else:
            for strand in ready:
                self._disturb(strand.host)
            self._pass_time()

    def _forge(self) -> None:
        """Somebody writes a line that says that something has completed, as well as can be without its nonce."""
        known = list(self.services.executions.values())
        victim, other = self.tape.one_of(known), self.tape.one_of(known)
        line = self.services.line_of(victim, nonce="0" * 32, verdict=Outcome.completed({"forged": True}))
        self.topic.publish({**line, "execution_id": other.execution_id}, is_lossy=True)

    def _go_on_with(self, ready: list[Strand]) -> None:
        strand = self.tape.one_of(ready)
        host, step = strand.host, strand.at
        if not host.is_dead:
            if self.tape.strikes("kill", step, 0.004):
                self._kill(host)
            elif self.tape.strikes("stall", step, 0.004):
                host.stands_still_until = self.crew.now + self.tape.between(1.0, 400.0)
                self._disturb(host)
                self.tell(f"{host.name} stands still at {step}")
                return
        self.tell(f"{host.name} {step}")
        self.crew.step(strand)

    def _pass_time(self) -> None:
        """Move on to when something can happen next, or a little."""
        times = [self.next_tick, self.crew.next_time(), self.services.next_end()]
        times += [message.due_at for message in self.topic.messages if not message.is_out]
        coming = [x for x in times if x is not None and x > self.crew.now]
        self.crew.now = min(coming)

    def _end(self, execution: object) -> None:
        self.tell(f"{execution.execution_id} of {execution.launch.launch_id} ends: {execution.outcome.kind}")
        self.checks.ending(execution)
        self.services.end(execution)

    def _kill(self, host: Host) -> None:
        self.tell(f"{host.name} is killed")
        host.is_dead = True
        self._disturb(host)
        self.processes = [process for process in self.processes if process.host is not host] + [self._process()]
        for message in self.topic.messages:
            if message.is_out and message.host is host:
                message.is_out, message.due_at = False, self.crew.now + ACK_DEADLINE_S

    def _disturb(self, host: Host) -> None:
        self.checks.disturbed_at[host.name] = max(self.crew.now, host.stands_still_until)

    def _kill_all(self) -> None:
        for process in self.processes:
            process.host.is_dead = True
        with aboard(self.crew):
            self.crew.on_error = lambda strand: None
            while self.crew.strands:
                strand = self.crew.strands[0]
                strand.host.is_dead = True
                self.crew.step(strand)

    def _tick(self) -> None:
        self.next_tick = self.crew.now + (TICK_S if self.crew.now < CALM_AFTER_S else RARE_TICK_S)
        self._deliver(Message("tick", tick_message(), self.crew.now, self.crew.now))

    def _deliver(self, message: Message) -> None:
        if message.is_lossy and self.tape.strikes("lost", f"message {message.data['resource']['type']}", 0.05):
            self.topic.messages.remove(message)
            return
        process = self.tape.one_of(self.processes)
        message.is_out, message.host = True, process.host
        message.tries += 1
        self.tell(f"{process.host.name} gets {message.message_id} {message.data}")

        def handle() -> None:
            try:
                process.executor.execute(
                    message.data, message_id=message.message_id, publish_time=at(message.published_at)
                )
            except OrchestratorError as exc:
                self._not_handled(message, exc)
            else:
                self._check_reminder(message)
                self._acknowledge(message)

        self.crew.spawn(handle, process.host)

    def _check_reminder(self, message: Message) -> None:
        """A reminder is proof that something is due: once it is handled, that is not due any more."""
        data = message.data
        state = self.checks.states.get(data.get("run_id"))
        if data["resource"] != {"type": "reminder"} or "kind" not in data or state is None:
            return
        node = state.nodes[data["node_name"]]
        due = node.due.get(data["kind"])
        if due is None or node.attempt != data["attempt"] or state.run.status is not RunStatus.RUNNING:
            return
        if due == datetime.fromisoformat(data["at"]) and node.owed_cancel is None:
            raise Violation(f"{node.node_name}: was reminded of {data['kind']} at {data['at']}, which is due still")

    def _not_handled(self, message: Message, exc: OrchestratorError) -> None:
        self.tell(f"{message.message_id} is not handled: {exc}")
        if not exc.retry:
            self._acknowledge(message)
            if not isinstance(exc, StoreUnavailable):
                self.failed.append(f"{message.data}: {exc}")
        elif message in self.topic.messages:
            message.is_out, message.due_at = False, self.crew.now + min(600.0, 10.0 * message.tries)

    def _acknowledge(self, message: Message) -> None:
        if message not in self.topic.messages:
            return
        if self.tape.strikes("twice", f"message {message.data['resource']['type']}", 0.05):
            message.is_out, message.due_at = False, self.crew.now + self.tape.between(0.0, 900.0)
        else:
            self.topic.messages.remove(message)


__all__ = ["Killed", "Simulation", "Told"]
