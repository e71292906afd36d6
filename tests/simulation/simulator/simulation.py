"""One simulation: the real engine in several processes, where everything goes wrong that may, as a seed tells."""

from __future__ import annotations

import logging
import math
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from random import Random

from orchestrator.engine import large_results
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.schedules import Marks
from orchestrator.engine.status import run_of
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
from orchestrator.model.policy import CROWD, Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.model.schedule import ticks
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.targets.callback import CallbackTarget
from orchestrator.targets.dag import DagTarget
from orchestrator.testing.virtual_time import T0
from tests.simulation.simulator import standing
from tests.simulation.simulator.checks import Checks, Violation, is_open
from tests.simulation.simulator.cloud import (
    BrokerOf,
    Bucket,
    ChangingStoreOf,
    Message,
    SkewedClock,
    StoreOf,
    Topic,
    at,
)
from tests.simulation.simulator.counting import Counting, note_what_was_drawn
from tests.simulation.simulator.crew import Crew, Footprint, Host, Killed, Strand, aboard
from tests.simulation.simulator.endings import endings
from tests.simulation.simulator.meetings import CALL_NOTHING, step_at
from tests.simulation.simulator.plots import INBOX, TIMES, definition_of
from tests.simulation.simulator.services import (
    SERVICES,
    CallbackOf,
    NotifierOf,
    Receivers,
    Running,
    Services,
    TargetOf,
    share_of,
)
from tests.simulation.simulator.tape import Tape
from tests.simulation.simulator.ticks import LAST_TICK_S, RARE_TICK_S, TICK_S, Ticks

MOST_STEPS = 20_000
LONGEST_S = 12 * 86400.0
CALM_AFTER_S = 2 * 3600.0
ACK_DEADLINE_S = 60.0
CROWDS = (*[CROWD] * 2, 1)
"""With how many attempts side by side the saves of a run keep to their interval strictly: also with the least."""

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
    is_steady: bool = False
    """Whether its final documents are the same, whatever order its events came in."""
    endings: dict[str, Json] = field(default_factory=dict)
    """Its final documents without what tells of the way there."""
    drawn: Counter[str] = field(default_factory=Counter)
    """What came about in it that is rare, and how often."""
    trail: list[Footprint] = field(default_factory=list)
    has_skew: bool = True
    stood_to_a_limit: list[tuple[str, str, float, int]] = field(default_factory=list)
    """(step, process, since when, how long the trail was) of those that stood still until just about a time that stands
    in a document."""


_RULES_OF_CALLBACKS = TargetRules(
    CallbackTarget.has_outcome,
    CallbackTarget.can_cancel,
    CallbackTarget.synchronous,
    CallbackTarget.launch_limit_s,
    default_timeout_s=CallbackTarget.default_timeout_s,
)


class _Parted(BaseException):
    """It does not go along any more."""


class Process:
    """An instance of the executor."""

    def __init__(self, simulation: Simulation, number: int) -> None:
        s = simulation
        self.host = Host(f"p{number}")
        skew_s = s.tape.between(-standing.MOST_SKEW_S, standing.MOST_SKEW_S) * s.skews
        kind_of_store = ChangingStoreOf if (s.seed + s.order) % 2 else StoreOf
        store, broker = kind_of_store(s.bucket, s.crew, s.tape, self.host), BrokerOf(s.topic, s.crew, s.tape)
        notifier = NotifierOf(s.receivers, s.crew, s.tape, self.host)
        targets: dict = {service.name: TargetOf(service, s.services, self.host) for service in SERVICES}
        targets["Dag"] = DagTarget(
            store, broker.publish, lambda launch, run_id: self.executor.make_child(launch, run_id)
        )
        targets["Callback"] = CallbackOf(store, notifier, s.services, self.host)
        self.executor = DAGExecutor(
            s.catalog,
            store=store,
            targets=targets,
            broker=broker,
            clock=SkewedClock(s.crew, skew_s, s.right_from_s.get(self.host.name, math.inf)),
            hosts=UnknownHosts(),
            instance=self.host.name,
            policy=s.policy,
            random_bytes=s.tape.bytes,
            sleep=s.crew.sleep,
            notifier=notifier,
            start_missed=broker.publish,
        )


@lru_cache(maxsize=4)
def _catalog_of(seed: int, most: int, is_steady: bool, missed: str | None) -> Catalog:
    """What all simulations of a seed run."""
    definitions = {
        "main": definition_of(seed, most, "child", is_steady=is_steady),
        "child": definition_of(-1 - seed, min(3, most), is_steady=is_steady),
    }
    if missed is not None:
        definitions["timed"] = definition_of(-1_000_000 - seed, 2, is_steady=is_steady, missed=missed)
    return Catalog(definitions)


class Simulation:
    """Runs of one definition, from their starts to their ends.

    Args:
        seed: tells all of it.
        without, only_first: see Tape.
        size: of the definition, where it is not the seed's.
        definition: in place of the seed's.
        tells: whether `Told.story` is wanted.
        order: of several simulations of the same definitions, in which all else comes otherwise, which.
        skews: how much of their skew the clocks have, from 0 to 1.
        right_from_s: process -> from when on its clock has none, in seconds.
        along: the trail of another simulation: this one ends once it does something else.
    """

    def __init__(
        self,
        seed: int,
        *,
        without: Collection[int] = (),
        only_first: int | None = None,
        size: int | None = None,
        definition: dict[str, Json] | None = None,
        tells: bool = False,
        order: int = 0,
        skews: float = 1.0,
        right_from_s: Mapping[str, float] | None = None,
        along: Sequence[Footprint] | None = None,
    ) -> None:
        self.seed, self.order, self.skews, self.right_from_s = seed, order, skews, right_from_s or {}
        self.along, self._along_to = along, 0
        self.tape = Tape(seed, without, only_first, order)
        self.crew = Crew()
        self.crew.on_error = self._thread_failed
        self.tape.could_not_look = lambda: self.crew.current and self._disturb(self.crew.current.host)
        plot = Random(seed)
        self.is_steady = plot.random() < 0.3
        most = plot.randint(1, 12)
        most = most if size is None else size
        self.missed = plot.choice(["skip", "last", "all"])
        self.is_scheduled = plot.random() < 0.12
        self.catalog = _catalog_of(seed, most, self.is_steady, self.missed if self.is_scheduled else None)
        if definition is not None:
            self.catalog = Catalog({**self.catalog.definitions, "main": definition})
        self.definitions = self.catalog.definitions
        self.objects = plot.randint(0, 2)
        self.starts = 1 + (plot.random() < 0.3)
        self.bucket, self.topic = Bucket(), Topic(self.crew, self.tape)
        self.services = Services(self.crew, self.tape, self.topic, self._outcome_of)
        self.services.loses_lines = self.tape.one_of([0.0, 0.1, 0.5, 1.0])
        self.services.loses_verdicts = not self.is_steady
        self.services.beats_of = self._beats_of
        self.receivers = Receivers()
        self.checks = Checks(self.definitions, self.services, self.receivers, lambda: self.crew.now)
        self.bucket.watch = self._written
        self.services.told_of = self.checks.launching
        self.services.called = self.checks.called
        self.services.called_by = self.checks.owners_that_called.add
        self.receivers.sending = self.checks.notifying
        self.counts = Counting(self.tape, self.crew, self.services, self.bucket, self.checks)
        self.services.lost = self.counts.line_lost
        self.standing = standing.Standing(self.tape, self.crew, self.bucket, self.checks)
        self.policy = Policy(
            {s.name: TargetRules(s.has_outcome, s.can_cancel, s.synchronous, s.launch_limit_s) for s in SERVICES}
            | {"Callback": _RULES_OF_CALLBACKS},
            questions_at_once=self.tape.one_of([1, 4]),
            pools={"few": self.tape.whole(1, 2)},
            inline_items=plot.choice([100, 1]),
            part_items=2,
            marker_age_s=900.0,
            max_takeovers=1000 if self.is_steady else 20,  # how often a launch is disturbed is told by its order
            save_interval_s=self.tape.one_of([0.0, 1.0]),
            crowd=plot.choice(CROWDS),
        )
        if self.policy.save_interval_s and self.policy.crowd < CROWD and plot.random() < 0.5:
            self.checks.keeps_to_s = self.policy.save_interval_s
            self.skews = 0.0  # whose clock is ahead takes less time to have passed
        self.largest_inline = self.tape.one_of([large_results.MAX_INLINE_BYTES, 20])
        self.count = 0
        self.processes: list[Process] = []
        self.handled = 0
        self.ticks = Ticks(self.crew, self.bucket.held, self._happened)
        self.next_tick = TICK_S
        self.failed: list[str] = []
        self.told = Told(seed, is_steady=self.is_steady, has_skew=self.skews > 0.0)
        self._tells = tells
        self.has_news = False
        """Whether a run has been written that nobody has looked at since."""
        self.open: set[str] = set()
        """Runs that have not ended."""
        self.steered: set[str] = set()
        self.redriven: set[tuple[str, int]] = set()
        self.redriven_at_once: set[str] = set()
        """Runs that are redriven as soon as they have ended."""
        self.ends_together = self.tape.chance(0.4)
        self.times = list(ticks(TIMES, "UTC", T0, T0 + timedelta(hours=1))) if self.is_scheduled else []
        self.sent_times: set[datetime] = set()
        self.due_times = list(self.times)
        self.told_objects = 0
        self.first_look: float | None = None
        """When a Tick looked at the schedule for the first time: what was due before then is nobody's."""

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
            took_s = min(took_s, 50.0 if self.is_steady else 70.0)
            if "retry" in launch.step and share_of(self.seed, node, "fails first") < 0.5:
                # An answer that comes late, of a call that has failed, finds the next attempt at work.
                share, took_s = (1.0, 1.0) if attempt == 1 else (share, 45.0)
        if self._beats_of(launch)[1] == 0.0:
            took_s = 20_000.0  # it hangs
        if share < 0.8:
            return Outcome.completed({"node": node, "n": int(share * 10)}), took_s
        return Outcome.failed("Task.Failed", f"{node} was to fail"), took_s

    def _beats_of(self, launch: Launch) -> tuple[float, float]:
        """How often an execution says that it is at work, and after how many seconds it does not any more."""
        if "heartbeat" not in launch.step:
            return 0.0, -1.0
        return 100.0, 0.0 if share_of(self.seed, launch.node_name, launch.attempt, "hangs") < 0.4 else 20_000.0

    def _thread_failed(self, strand: Strand) -> None:
        if isinstance(strand.error, Violation):
            raise strand.error
        where = traceback.extract_tb(strand.error.__traceback__)[-1] if strand.error is not None else None
        raise Violation(f"a thread of {strand.host.name} ended with {strand.error!r}, at {where}") from strand.error

    def _leaves(self, what: str) -> None:
        """Leave on the trail what happens outside of any process; a simulation that goes along ends where it parts."""
        trail = self.crew.trail
        trail.append(("", what, "", None))
        if self.along is not None:
            if trail[self._along_to :] != self.along[self._along_to : len(trail)]:
                raise _Parted
            self._along_to = len(trail)

    def tell(self, what: str) -> None:
        """Note what happens, where somebody wants to read it."""
        if self._tells:
            self.told.story.append(f"{self.crew.now:10.2f} {what}")

    # -- what happens ---------------------------------------------------------------------------------

    def run(self) -> Told:
        """Simulate, and tell."""
        try:
            with aboard(self.crew), self._small_documents():
                self._begin()
                self._go_on()
                self._be_still()
        except Violation as exc:
            self.told.violation = str(exc)
        except _Parted:
            pass
        finally:
            self._kill_all()
        told = self.told
        told.faults, told.struck, told.met = self.tape.numbered, self.tape.struck, self.tape.met
        told.states, told.drawn, told.trail = self.checks.states, self.checks.drawn, self.crew.trail
        if not told.violation:
            told.endings = endings(told.states, self.bucket.held)
        note_what_was_drawn(told.drawn, self.checks, self.services, self.bucket.held)
        return told

    @contextmanager
    def _small_documents(self) -> Iterator[None]:
        """Have results and lists of items lie beside the document from a few bytes on, in some simulations."""
        kept = large_results.MAX_INLINE_BYTES, large_results.MAX_PART_BYTES
        large_results.MAX_INLINE_BYTES = self.largest_inline
        large_results.MAX_PART_BYTES = min(self.largest_inline, kept[1])
        try:
            yield
        finally:
            large_results.MAX_INLINE_BYTES, large_results.MAX_PART_BYTES = kept

    def _begin(self) -> None:
        self.processes = [self._process() for _ in range(self.tape.whole(1, 3))]
        for number in range(self.starts):
            run_id = f"run_{number}" if self.tape.chance(0.6) else None
            self.topic.publish(start_message("main", {"n": number}, run_id))
        if self.is_scheduled:
            for _ in range(self.objects):
                self._tell_of_object()

    def _tell_of_object(self) -> None:
        """An object is there, which the bucket tells of once, or twice."""
        self.told_objects += 1
        told = {"resource": {"type": "object"}, "bucket": INBOX, "name": "day", "generation": str(self.told_objects)}
        for number in range(2 if self.tape.chance(0.3) else 1):
            self.topic.publish(told, delay_s=self.tape.between(0, 600), is_copy=number > 0)

    def _steer(self) -> None:
        """Have a run that has started cancelled, or paused and resumed, at some time."""
        if self.is_steady:
            return
        for run_id in [each for each in self.checks.states if each not in self.steered]:
            self.steered.add(run_id)
            if self.tape.chance(0.2):
                self.topic.publish(cancel_message(run_id, "as the seed says"), delay_s=self.tape.between(0, 1000))
            while self.tape.chance(0.15):
                pause_s = self.tape.between(0, 600)
                self.topic.publish(pause_message(run_id), delay_s=pause_s)
                self.topic.publish(resume_message(run_id), delay_s=pause_s + self.tape.between(0, 600))
        for state in self.own():
            run = state.run
            if (
                run.status in (RunStatus.FAILED, RunStatus.CANCELLED)
                and (run.run_id, run.redrives) not in self.redriven
            ):
                self.redriven.add((run.run_id, run.redrives))
                is_at_once = run.run_id in self.redriven_at_once
                if run.redrives < 2 and (is_at_once or self.tape.chance(0.3)):
                    message = redrive_message(run.run_id, None, run.redrives + 1)
                    self.topic.publish(message, delay_s=0.0 if is_at_once else self.tape.between(0, 100))
                    if self.tape.chance(0.4):  # somebody else asks for the same
                        self.topic.publish(message, delay_s=self.tape.between(0, 100), is_copy=True)
        self.has_news = False

    def _go_on(self) -> None:
        """Until all runs have ended."""
        while True:
            if self.has_news:
                self._steer()
            if not (self.open or self.due_times) and self._have_ended():
                return
            self._step()

    def _have_ended(self) -> bool:
        if any(message.kind in ("redrive", "start", "trigger") for message in self.topic.messages):
            return False
        if len(self.own()) < self.starts:
            return False
        return not self.is_scheduled or self.missed == "skip" or self._seen_to()

    def _seen_to(self) -> bool:
        """Whether a Tick has seen to all times of the schedule."""
        mark = Marks(self.bucket.held).load("timed")
        return mark is not None and mark[0].through >= self.times[-1]

    def own(self, dag: str = "main") -> list[RunState]:
        """The runs of a DAG that a message has started."""
        return [x for x in self.checks.states.values() if x.run.parent is None and x.run.dag == dag]

    def _be_still(self) -> None:
        """Deliver what is left, let what stood still go on, look after what is open: nothing may come of it."""
        self.tape.is_calm = True
        self.ticks.begin_last()
        until = self.crew.now + TICK_S + 2 * RARE_TICK_S
        while self.crew.now < until:
            self._step()
            until = max(until, self._all_go_on_at())
        if len(self.own()) != self.starts:
            raise Violation(f"{self.starts} starts make {len(self.own())} runs")
        if self.is_scheduled:
            first_look = self.first_look if self.first_look is not None else self.crew.now
            self.checks.scheduled(self.own("timed"), self.times, self.sent_times, self.missed, first_look)
            self.checks.triggered(self.own("timed"), self.told_objects)
        for run_id in self.checks.states:
            self.checks.at_the_end(run_id)
        owing = {run_id for run_id, state in self.checks.states.items() if state.run.owed_notifications}
        markers = [marker for marker in self.bucket.held.list("open/") if run_of(marker) not in owing]
        if markers:
            raise Violation(f"{markers} are left, though all runs have ended")

    def _all_go_on_at(self) -> float:
        """When all that stands still has gone on, and a Tick or two have come since."""
        stand = [max(x.wakes_at, x.host.stands_still_until) for x in self.crew.strands if not x.host.is_dead]
        return max((at + 2 * LAST_TICK_S for at in stand if at > self.crew.now), default=0.0)

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
        happenings: list[tuple[Callable[..., None], object]] = [
            (self._deliver, message)
            for message in self.topic.messages
            if message.due_at <= crew.now and not message.is_out
        ]
        for execution in self.services.running.values():
            if execution.ends_at <= crew.now:
                happenings.append((self._end, execution))
            if execution.next_beat_at <= crew.now:
                happenings.append((self._beat, execution))
        if self.due_times and at(crew.now) >= self.due_times[0]:
            happenings.append((self._time_of_schedule, None))
        if crew.now >= self.next_tick:
            happenings.append((self._tick, None))
        if self.services.executions and tape.strikes("forged", "completion", 0.01):
            self._forge()
        elif happenings:
            happen, what = tape.one_of(happenings)
            happen(what)
        elif ready and not tape.strikes("slow", ready[0].at, 0.05):
            self._go_on_with(ready)
        else:
            for strand in ready:
                self.counts.stands(strand)
                self._disturb(strand.host)
            self._pass_time()

    def _beat(self, execution: Running) -> None:
        self.services.beat(execution, self.bucket.held)

    def _time_of_schedule(self, _: None) -> None:
        """A time of the schedule has come: the scheduler starts its run, unless it is down."""
        time = self.due_times.pop(0)
        if not self.tape.strikes("lost", "start of a schedule", 0.4):
            self.sent_times.add(time)
            for number in range(2 if self.tape.chance(0.1) else 1):
                self.topic.publish(
                    {"resource": {"type": "start"}, "dag": "timed", "schedule": TIMES}, is_copy=number > 0
                )

    def _forge(self) -> None:
        """Somebody writes a line that says that something has completed, as well as can be without its nonce."""
        known = list(self.services.executions.values())
        victim, other = self.tape.one_of(known), self.tape.one_of(known)
        run_id = victim.launch.run_id
        if victim.beat_s and self.tape.chance(0.5):
            line = {"resource": {"type": "heartbeat"}, "launch_id": victim.launch.launch_id, "nonce": "0" * 32}
        else:
            line = self.services.line_of(victim, nonce="0" * 32, verdict=Outcome.completed({"forged": True}))
            if not victim.service.is_person:
                line = {**line, "execution_id": other.execution_id}
        self.topic.publish(line, is_lossy=True, run_id=run_id, is_forged=True)

    def _go_on_with(self, ready: list[Strand]) -> None:
        strand = self.tape.one_of(ready)
        host, step = strand.host, strand.at
        if not host.is_dead:
            of = step_at(step)
            if self.tape.strikes("kill", step, 0.004 * standing.killed(step)):
                self.counts.killed(strand, self.topic.messages)
                self._kill(host)
            elif self.tape.strikes("stall", step, 0.005 * standing.stands(step)):
                host.stands_still_until, is_to_a_limit = self.standing.until(strand)
                if is_to_a_limit and self.skews:
                    self.told.stood_to_a_limit.append((of, host.name, self.crew.now, len(self.crew.trail)))
                self.counts.stands(strand)
                self._disturb(host)
                self.tell(f"{host.name} stands still at {step}")
                if not is_to_a_limit:
                    self._steer_just_then(strand)
                return
            elif of not in CALL_NOTHING and self.tape.strikes("hang", step, 0.002 * standing.stands(step)):
                strand.wakes_at, _ = self.standing.until(strand)
                self.counts.stands(strand, "hang")
                self._disturb(host, strand.wakes_at)
                self.tell(f"{host.name} hangs at {step}")
                return
        self.tell(f"{host.name} {step}")
        self.counts.goes_on(strand)
        self.crew.step(strand)

    def _steer_just_then(self, strand: Strand) -> None:
        """Have the run steered that a thread which stands still is at: its step is met while it lasts."""
        run_id = strand.about
        state = self.checks.states.get(run_id or "")
        step = step_at(strand.at)
        share = 0.9 if step in standing.RAREST else 0.5 if step == "witness" else 0.2
        if run_id is None or state is None or self.is_steady or not self.tape.chance(share):
            return
        kind = self.tape.one_of(
            ["cancel", "pause", "redrive"]
            if step in standing.RARER_STILL
            else ["cancel", "pause", "redrive", "redrive"]
        )
        if kind == "pause":
            self.topic.publish(pause_message(run_id))
            self.topic.publish(resume_message(run_id), delay_s=self.tape.between(0, 600))
        else:
            self.topic.publish(cancel_message(run_id, "just then"))
        if kind == "redrive":  # once it has ended, which it may while the thread stands still
            strand.host.stands_still_until += 3000.0
            self._disturb(strand.host)
            while state.run.parent is not None and state.run.parent.run_id in self.checks.states:
                state = self.checks.states[state.run.parent.run_id]  # a child run goes on with its parent
            if state.run.run_id != run_id:
                self.topic.publish(cancel_message(state.run.run_id, "just then"))
            self.redriven_at_once.add(state.run.run_id)

    def _pass_time(self) -> None:
        """Move on to when something can happen next, or a little."""
        self.next_tick = self.ticks.next_at()
        if self.next_tick <= self.crew.now:
            return  # something has happened since it was left out
        times = [self.next_tick, self.crew.next_time(), self.services.next_end()]
        times += [message.due_at for message in self.topic.messages if not message.is_out]
        times += [(time - T0).total_seconds() for time in self.due_times[:1]]
        coming = [x for x in times if x is not None and x > self.crew.now]
        self.crew.now = min(coming)

    def _end(self, execution: Running) -> None:
        self._leaves(f"{execution.execution_id} ends")
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

    def _disturb(self, host: Host, until: float = 0.0) -> None:
        times = self.crew.now, max(self.crew.now, host.stands_still_until, until)
        self.checks.disturbed.setdefault(host.name, []).append(times)

    def _happened(self) -> tuple[int, ...]:
        """Another value, whenever something has happened that a Tick could see."""
        ended = self.services.ends.total()
        at_services = len(self.services.executions), ended
        return self.bucket.held.changes, self.topic.count, self.handled, *at_services, self.tape.numbered, self.count

    def _kill_all(self) -> None:
        for process in self.processes:
            process.host.is_dead = True
        with aboard(self.crew):
            self.crew.on_error = lambda strand: None
            while self.crew.strands:
                strand = self.crew.strands[0]
                strand.host.is_dead = True
                self.crew.step(strand)

    def _tick(self, _: None) -> None:
        self.ticks.came(is_calm=self.tape.is_calm)
        self.next_tick = self.ticks.next_at()
        self._deliver(Message("tick", tick_message(), self.crew.now, self.crew.now))

    def _deliver(self, message: Message) -> None:
        is_of_tick = message.kind == "tick"
        if message.is_lossy and self.tape.strikes("lost", f"message {message.kind}", 0.05):
            self.topic.messages.remove(message)
            self.counts.lost(message)
            return
        process = self.tape.one_of(self.processes)
        message.is_out, message.host = True, process.host
        message.tries += 1
        self._leaves(f"{message.message_id} at {self.crew.now:.3f}")
        self.tell(f"{process.host.name} gets {message.message_id} {message.data}")
        if not is_of_tick:
            self.handled += 1
            self.counts.delivery(message)

        def handle() -> None:
            began, looked_at = self.crew.now, self.bucket.looked_at.get(process.host.name)
            try:
                process.executor.execute(
                    message.data, message_id=message.message_id, publish_time=at(message.published_at)
                )
            except OrchestratorError as exc:
                self._not_handled(message, exc)
            else:
                if is_of_tick:
                    self.checks.ticked(process.host, began, looked_at, self.bucket.looked_at.get(process.host.name))
                self._check_reminder(message)
                self.counts.handled_to_the_end(message)
                self._acknowledge(message)

        strand = self.crew.spawn(handle, process.host)
        strand.at, strand.about = ("tick" if is_of_tick else "event in"), message.run_id
        strand.message = message

    def _written(self, key: str, before: bytes | None, after: bytes, host: Host) -> None:
        """Check a write, and count what it makes of others' steps."""
        if key == "schedules/timed.json" and before is None:
            self.first_look = self.crew.now
        old = self.checks.states.get(key[5:-5]) if key.startswith("runs/") else None
        self.checks.written(key, before, after, host)
        self.checks.paced(key, old, host, self.tape.numbered)
        if not key.startswith("runs/"):
            return
        run_id = key[5:-5]
        new = self.checks.states[run_id]
        self.has_news = True
        if is_open(new):
            self.open.add(run_id)
        else:
            self.open.discard(run_id)
        self.counts.claims(old, new)
        self.counts.steering(old, new)

    def _check_reminder(self, message: Message) -> None:
        """A reminder is proof that something is due: once it is handled, that is not due any more."""
        data = message.data
        state = self.checks.states.get(data.get("run_id"))
        if message.kind != "reminder" or "kind" not in data or state is None:
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
        if self.tape.strikes("twice", f"message {message.kind}", 0.05):
            message.is_copy = True
            message.is_out, message.due_at = False, self.crew.now + self.tape.between(0.0, 900.0)
        else:
            self.topic.messages.remove(message)


__all__ = ["Killed", "Simulation", "Told"]
