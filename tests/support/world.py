"""A world in which the engine runs under a test's control: a clock, a target, a bus, several instances."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from threading import Lock

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.model.messages import function_message
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.run_state import RunState
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import T0 as T0
from orchestrator.testing.virtual_time import VirtualClock

START = {"resource": {"type": "start"}}


class NotedTarget:
    """A target that notes its launches and runs nothing; the test says how each execution ends.

    A second launch with a key returns the first execution, as identity `forever` promises.
    """

    identity = Identity.FOREVER
    launch_limit_s = 0.0
    synchronous = False
    id_is_ours = False

    def __init__(self, *, has_outcome: bool = False, can_cancel: bool = False) -> None:
        self.has_outcome, self.can_cancel = has_outcome, can_cancel
        self.calls: list[Launch] = []
        self.launched: dict[str, Launch] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.cancelled: list[str] = []
        self.before_launch = lambda launch: None
        self.after_launch = lambda launch: None
        self._lock = Lock()

    def launch(self, launch: Launch) -> Execution:
        with self._lock:
            self.calls.append(launch)
        self.before_launch(launch)
        with self._lock:
            self.launched.setdefault(launch.key, launch)
        self.after_launch(launch)
        return Execution(f"x-{launch.key}")

    def find(self, launch: Launch) -> Execution | None:
        return Execution(f"x-{launch.key}") if launch.key in self.launched else None

    def outcome(self, execution: Execution) -> Outcome | None:
        return self.outcomes.get(execution.execution_id)

    def cancel(self, execution: Execution) -> None:
        self.cancelled.append(execution.execution_id)
        self.outcomes.setdefault(execution.execution_id, Outcome.cancelled())

    def of(self, node_name: str) -> list[Launch]:
        """The launch calls for a node."""
        return [launch for launch in self.calls if launch.node_name == node_name]

    @property
    def nodes(self) -> list[str]:
        """Names of the nodes in the order of their launch calls."""
        return [launch.node_name for launch in self.calls]


class KeptBroker:
    """A broker that keeps what is published, for the test to deliver."""

    def __init__(self) -> None:
        self.published: list[tuple[Mapping[str, Json], float]] = []

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        self.published.append((event, delay_s))
        return f"kept-{len(self.published)}"


class World:
    """Instances of the executor over one store, one target for all types, and one clock."""

    def __init__(
        self,
        definition: Mapping[str, Json],
        *,
        instances: int = 1,
        store: object | None = None,
        target: object | None = None,
        targets: Mapping[str, object] | None = None,
        seed: int = 0,
        **policy: float,
    ) -> None:
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        self.target = target or NotedTarget()
        self.targets = targets or dict.fromkeys(("Function", "CloudFunction", "Dataflow"), self.target)
        self.broker = KeptBroker()
        self.saved: list[RunState] = []
        self.random = random.Random(seed)
        self.catalog = Catalog.of(definition)
        self.policy = Policy(
            {
                name: TargetRules(
                    t.has_outcome, t.can_cancel, t.synchronous, t.launch_limit_s, getattr(t, "first_question_s", 0.0)
                )
                for name, t in self.targets.items()
            },
            **policy,
        )
        self.ids = itertools.count(1)
        self.instances = [self.instance() for _ in range(instances)]

    def instance(self, **parts: object) -> DAGExecutor:
        """A new instance of the executor."""
        given = {
            "store": self.store,
            "targets": self.targets,
            "broker": self.broker,
            "clock": self.clock,
            "hosts": UnknownHosts(),
            "instance": f"instance{next(self.ids)}",
            "policy": self.policy,
            "random_bytes": self.random.randbytes,
            "sleep": lambda seconds: None,
            "on_saved": lambda saved: self.saved.append(saved.after),
        }
        return DAGExecutor(self.catalog, **{**given, **parts})

    @property
    def executor(self) -> DAGExecutor:
        return self.instances[0]

    def start(self, message_id: str = "m1", **start: Json) -> str:
        handled = self.executor.execute({**START, **start}, message_id=message_id, publish_time=self.clock.now())
        assert handled.run_id is not None
        return handled.run_id

    def state(self, run_id: str) -> RunState:
        loaded = OrchestrationStatus(self.store, run_id).load()
        assert loaded is not None
        return loaded[0]

    def end(self, node_name: str, outcome: Outcome | None = None, *, times: int = 1, on: int = 0) -> None:
        """Deliver the completion of a node's last launch."""
        event = completion(self.target.of(node_name)[-1], outcome)
        for _ in range(times):
            self.instances[on].execute(event, message_id=f"end-{node_name}", publish_time=self.clock.now())

    def run_all(self, run_id: str, failing: frozenset[str] = frozenset()) -> RunState:
        """Deliver completions in launch order until the run ends."""
        done: set[str] = set()
        while not self.state(run_id).run.status.is_final:
            ready = [launch for launch in self.target.calls if launch.launch_id not in done]
            assert ready, "the run is open and nothing was launched"
            for launch in ready:
                done.add(launch.launch_id)
                self.executor.execute(completion(launch, outcome_of(launch, failing)), message_id=launch.key)
        return self.state(run_id)


def outcome_of(launch: Launch, failing: frozenset[str]) -> Outcome:
    if launch.node_name in failing:
        return Outcome.failed("Task.Failed", f"{launch.node_name} was told to fail")
    return Outcome.completed({"from": launch.node_name})


def completion(launch: Launch, outcome: Outcome | None = None, *, nonce: str | None = None) -> dict[str, Json]:
    """The event that a launch's execution leaves."""
    return function_message(
        launch.launch_id,
        nonce if nonce is not None else launch.nonce,
        outcome or Outcome.completed(),
        execution_id=f"x-{launch.key}",
        task_name=launch.target_name,
    )


def plain(state: RunState) -> dict[str, Json]:
    """A run without what depends on when and by whom: times and claims."""
    import msgspec

    from orchestrator.model.run_document import encode

    document = msgspec.json.decode(encode(state))
    for entry in document.values():
        for key in ("started_at", "ended_at", "claim", "due", "message_id", "run_id", "execution_id"):
            entry.pop(key, None)
    return document


def task(next: str | None = None, target: str = "f", **keys: Json) -> dict[str, Json]:
    """A Function step."""
    step: dict[str, Json] = {"type": "Task", "target_type": "Function", "target_name": target, "function": "m:f"}
    return {**step, **({"next": next} if next else {}), **keys}


def parallel(*branches: dict[str, Json], next: str | None = None) -> dict[str, Json]:
    return {"type": "Parallel", "branches": list(branches), **({"next": next} if next else {})}


def dag(**steps: dict[str, Json]) -> dict[str, Json]:
    """A definition that starts with its first step."""
    return {"start": next(iter(steps)), "steps": steps}


def chain(*names: str) -> dict[str, Json]:
    """A definition (or branch) of tasks one after another."""
    following = [*names[1:], None]
    return dag(**{name: task(after) for name, after in zip(names, following, strict=True)})
