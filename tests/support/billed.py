"""The real engine in the cloud's parts, in virtual time, with every operation that Google asks money for counted.

One instance. Each call of the store takes 30 ms, and what falls due meanwhile is delivered meanwhile, as it is to an
instance that handles many requests at once: so events share saves here as they do there.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from orchestrator.engine.catalog import Catalog
from orchestrator.engine.dag_executor import DAGExecutor
from orchestrator.engine.results import Results
from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.commands import Json, Outcome
from orchestrator.model.ids import execution_id_of
from orchestrator.model.policy import Policy, TargetRules
from orchestrator.model.prices import LEAST_TIME_S, Operations, message, task, work
from orchestrator.model.run_cost import MEMORY_GIB, TICK_S, VCPUS
from orchestrator.model.run_state import RunState
from orchestrator.runtime.unknown_hosts import UnknownHosts
from orchestrator.stores.memory import MemoryStore
from orchestrator.targets.cloud_function import CloudFunction
from orchestrator.targets.cloud_function_log import Call, End, gen2_entry
from orchestrator.testing.virtual_time import Agenda, VirtualClock

CALL_S = 0.03
"""How long a call of Cloud Storage, or of Cloud Tasks, takes."""

CPU_S = 0.005
"""What our own work at an event takes."""

ROUTING_S = 1.0
"""How long a log entry is on its way through the sink and the topic; in the cloud it is rather more."""

ENTRY_BYTES = 2048
"""Of a log entry; those here lack some of what the cloud puts in."""

AT_ONCE = 16
"""So many questions, and twice as many calls of Cloud Tasks, the engine makes side by side."""


class Billed:
    """A project, and its bill.

    Args:
        lasts: key of a launch -> how many seconds a call of it takes.
    """

    def __init__(self, definition: Mapping[str, Json], lasts: Callable[[str], float]) -> None:
        self.clock = VirtualClock()
        self.agenda = Agenda(self.clock)
        self.operations = Operations()
        self.busy: list[tuple[datetime, datetime]] = []
        self._lasts, self._random = lasts, random.Random(1)
        self._storage = MemoryStore()
        self._launching = self._asking = 0  # of those that are made side by side
        results = Results(self)
        target = CloudFunction(
            self,
            project="p",
            region="r",
            invoker_service_account="invoker@p.iam.gserviceaccount.com",
            results=results.ask,
            told=results.told,
            launch_limit_s=0.0,  # so that calls are made one by one, in the one thread that moves the clock
            now=self.clock.now,
        )
        self.executor = DAGExecutor(
            Catalog.of(definition),
            store=self,
            targets={"CloudFunction": target},
            broker=self,
            clock=self.clock,
            hosts=UnknownHosts(),
            instance="one",
            policy=Policy({"CloudFunction": TargetRules()}, save_interval_s=1.0),
            random_bytes=self._random.randbytes,
            sleep=self.sleep,
        )

    def run(self) -> RunState:
        """Start a run, and let things happen until it has ended and a Tick has closed it."""
        self.publish({"resource": {"type": "start"}, "run_id": "run"})
        self.agenda.after(TICK_S, self._tick)
        while (at := self.agenda.next_at) is not None:
            self.clock.forward_to(at)
            self.agenda.run_next()
        self.operations += work(self.billed_s, VCPUS, MEMORY_GIB)
        return self._state()

    def _tick(self) -> None:
        """A look after the run, of which the message, the listing and the least time are paid at rest."""
        was_open = not self._state().run.status.is_final
        begun = self.clock.now() + timedelta(seconds=LEAST_TIME_S)
        self.executor.tick()
        self.operations += Operations(class_a=-1)
        if self.clock.now() > begun:
            self.busy.append((begun, self.clock.now()))
        if was_open:
            self.agenda.after(TICK_S, self._tick)

    def _state(self) -> RunState:
        found = OrchestrationStatus(self._storage, "run").load()
        assert found is not None
        return found[0]

    @property
    def billed_s(self) -> float:
        """How long the instance was at work, each time by itself rounded up."""
        total_s, until = 0.0, None
        begun: datetime | None = None
        for start, end in [*sorted(self.busy), (None, None)]:
            if begun is not None and until is not None and (start is None or start > until):
                parts = -(-round((until - begun).total_seconds(), 6) // LEAST_TIME_S)
                total_s, begun, until = total_s + max(1.0, parts) * LEAST_TIME_S, None, None
            if start is not None and end is not None:
                begun = start if begun is None else begun
                until = end if until is None else max(until, end)
        return total_s

    # ---- the store ----------------------------------------------------------------------------------------

    def get(self, key: str) -> tuple[bytes, str] | None:
        self.operations += Operations(class_b=1)
        self._asking = self._asking + 1 if key.startswith("results/") else 0
        self.sleep(CALL_S if self._asking <= 1 else CALL_S / AT_ONCE)
        return self._storage.get(key)

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        self.operations += Operations(class_a=1)
        self._asking = self._launching = 0
        self.sleep(CALL_S)
        return self._storage.put(key, data, expect=expect)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        found = list(self._storage.list(prefix, start_after=start_after))
        self.operations += Operations(class_a=max(1, -(-len(found) // 1000)))
        self.sleep(CALL_S)
        return iter(found)

    def delete(self, key: str) -> None:
        self.sleep(CALL_S)
        self._storage.delete(key)

    # ---- the topic and the queue --------------------------------------------------------------------------

    def publish(self, event: Mapping[str, Json], *, delay_s: float = 0.0) -> str:
        size = len(json.dumps(event, default=str))
        if delay_s > 0.0:
            self.operations += task(size)
        self._send(event, size, delay_s)
        return "m"

    def _send(self, event: Mapping[str, Json], size: int, delay_s: float) -> None:
        self.operations += message(size)
        self.agenda.after(delay_s, lambda: self._handle(lambda: self._deliver(event)))

    def create(self, name_key: str, *, url: str, headers: Mapping[str, str], body: bytes, **_: object) -> bool:
        """Cloud Tasks: the function is called at once, and leaves its log entry when it has ended."""
        self.operations += task(len(body) + len(url))
        self._launching += 1
        self.sleep(CALL_S if self._launching == 1 else CALL_S / AT_ONCE / 2)
        parts = urlsplit(url)
        _, trace_id, span_id, _ = headers["traceparent"].split("-")
        call = Call("p", "r", parts.path[1:], execution_id_of(name_key), trace_id, span_id, f"/?{parts.query}", body)
        begun, took_s = self.clock.now(), self._lasts(name_key)
        end = begun + timedelta(seconds=took_s)
        entry = gen2_entry(call, End(200, Outcome.completed()), begun, took_s, end)
        self._send(entry, max(ENTRY_BYTES, len(json.dumps(entry))), took_s + ROUTING_S)
        return True

    def dispatches(self, name_key: str) -> int | None:
        return None

    # ---- the function -------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> None:
        """Time goes by; what falls due in it is delivered to the instance, which is at something else."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while (at := self.agenda.next_at) is not None and at <= until:
            self.clock.forward_to(at)
            self.agenda.run_next()
        self.clock.forward_to(until)

    def _handle(self, work: Callable[[], object]) -> None:
        begun = self.clock.now()
        work()
        self.busy.append((begun, self.clock.now()))

    def _deliver(self, event: Mapping[str, Json]) -> None:
        failed: list[BaseException] = []
        at = self.clock.now()

        def done(_: object, error: BaseException | None) -> None:
            self.busy.append((at, self.clock.now()))
            if error is not None:
                failed.append(error)

        self.clock.forward(CPU_S)
        self.executor.deliver(event, done, message_id=f"{self._random.random()}", publish_time=at)
        assert not failed, failed
