"""FakeTarget: a Target whose executions do what a test says, and end when an agenda comes to it."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from threading import Lock

from orchestrator.model.commands import Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchUncertain
from orchestrator.model.ids import execution_id_of
from orchestrator.model.messages import function_message
from orchestrator.targets.twins import timestamp
from orchestrator.testing.behaviours import Behaviour
from orchestrator.testing.virtual_time import Agenda

Publish = Callable[[Mapping[str, Json]], object]

_FOR_EVER_S = 1e9


class _Job:
    """What runs for one launch."""

    def __init__(self, launch: Launch, behaviour: Behaviour, at: datetime) -> None:
        self.launch, self.behaviour = launch, behaviour
        self.silent_at = at + timedelta(seconds=min(behaviour.heard_s, _FOR_EVER_S))
        self.execution = Execution(execution_id_of(launch.key))
        self.outcome: Outcome | None = None
        self.cancels = 0
        self.is_cancelled = False


class FakeTarget:
    """Launches nothing but what a behaviour says, and leaves the event of each end.

    Args:
        agenda: where executions wait for their begin and end; its thread runs what they do.
        publish: takes the events.
        behaviour_of: launch -> what the fake does with all launches of its step.
        has_outcome: whether it can be asked how an execution ended; if not, its events alone tell.
        can_cancel: whether an execution can be cancelled.
        log: takes what it was asked to launch, each launch once, in order; several fakes may share it.
    """

    identity: Identity = Identity.FOREVER
    launch_limit_s: float = 0.0
    synchronous: bool = False
    id_is_ours: bool = False  # its records are written in the thread that launches: a simulation has no other

    def __init__(
        self,
        agenda: Agenda,
        publish: Publish,
        behaviour_of: Callable[[Launch], Behaviour],
        *,
        has_outcome: bool = True,
        can_cancel: bool = True,
        log: list[Launch] | None = None,
    ) -> None:
        self.has_outcome, self.can_cancel = has_outcome, can_cancel
        self._agenda, self._publish, self._behaviour_of = agenda, publish, behaviour_of
        self._jobs: dict[str, _Job] = {}
        self._by_execution: dict[str, _Job] = {}
        self._tries: dict[str, int] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._number_of: dict[str, int] = {}
        self._lock = Lock()
        self.launches: list[Launch] = [] if log is None else log
        self._untold: list[_Job] = []
        self.changes = 0
        """How often something has changed here: a call that counted, or an end."""

    def launch(self, launch: Launch) -> Execution:
        """Start the execution, once for each key. Raises LaunchRefused, LaunchUncertain: told to."""
        with self._lock:
            self.changes += 1
            number = self._number(launch)
            tries = self._tries[launch.key] = self._tries.get(launch.key, 0) + 1
            found = self._jobs.get(launch.key)
        behaviour = self._behaviour_of(launch).of_launch(number)
        if found is None and behaviour.check is not None:
            behaviour.check(launch)
        is_uncertain = tries <= behaviour.uncertain_calls
        if found is None and (not is_uncertain or behaviour.is_started):
            found = self._start(launch, behaviour)
        if is_uncertain or found is None:
            raise LaunchUncertain(f"{launch.launch_id}: told to give no answer")
        return found.execution

    def find(self, launch: Launch) -> Execution | None:
        """Return the execution that was started for this launch, finished or not."""
        with self._lock:
            job = self._jobs.get(launch.key)
        return job.execution if job else None

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, None while it runs; Lost where there never was one."""
        if not self.has_outcome:
            return None
        with self._lock:
            job = self._by_execution.get(execution.execution_id)
        return job.outcome if job else Outcome.lost(f"{execution.execution_id}: there is no such execution")

    def heard_at(self, launch: Launch) -> datetime | None:
        """Return when an execution was last heard of: now, unless it has fallen silent."""
        with self._lock:
            job = self._jobs.get(launch.key)
        return min(self._agenda.clock.now(), job.silent_at) if job is not None else None

    def cancel(self, execution: Execution) -> None:
        """End it, if it runs. Raises LaunchUncertain: it cannot be, or not yet."""
        with self._lock:
            job = self._by_execution.get(execution.execution_id)
            if job is None or job.outcome is not None:
                return
            if not self.can_cancel:
                raise LaunchUncertain(f"{execution.execution_id}: cannot be cancelled, it runs to its end")
            self.changes += 1
            job.cancels += 1
            if job.cancels <= job.behaviour.cancels_refused:
                raise LaunchUncertain(f"{execution.execution_id}: told not to accept a cancel yet")
            job.outcome = Outcome.cancelled()
            job.is_cancelled = True
            self._untold.append(job)
        self._agenda.after(0.0, self._tell_of_cancels)

    @property
    def cancelled(self) -> tuple[Launch, ...]:
        """The launches whose executions were cancelled here, in the order of their launch."""
        with self._lock:
            return tuple(job.launch for job in self._jobs.values() if job.is_cancelled)

    def close(self) -> None:
        """There is nothing to let go of."""

    def runs(self, launch_id: str) -> Behaviour | None:
        """Return what an execution does that has not ended; None where there is none."""
        with self._lock:
            job = next((job for job in self._jobs.values() if job.launch.launch_id == launch_id), None)
        return job.behaviour if job is not None and job.outcome is None else None

    def runs_execution(self, execution_id: str) -> bool:
        """Whether an execution was started here."""
        with self._lock:
            return execution_id in self._by_execution

    def _number(self, launch: Launch) -> int:
        """How many launches of its step there were in its run, with this one."""
        if launch.key not in self._number_of:
            step = (launch.run_id, launch.node_name)
            self._numbers[step] = self._number_of[launch.key] = self._numbers.get(step, 0) + 1
            self.launches.append(launch)
        return self._number_of[launch.key]

    def _start(self, launch: Launch, behaviour: Behaviour) -> _Job:
        with self._lock:
            found = self._jobs.get(launch.key)
            if found is not None:
                return found
            job = self._jobs[launch.key] = _Job(launch, behaviour, self._agenda.clock.now())
            self._by_execution[job.execution.execution_id] = job
        self._agenda.after(0.0, lambda: self._begin(job))
        return job

    def _begin(self, job: _Job) -> None:
        if job.behaviour.work is not None and job.outcome is None:
            outcome = job.behaviour.work(job.launch)
            self._agenda.after(job.behaviour.takes_s, lambda: self._end(job, outcome))

    def _end(self, job: _Job, outcome: Outcome) -> None:
        with self._lock:
            if job.outcome is not None:
                return
            job.outcome = outcome
            self.changes += 1
        self._tell_of(job, outcome)

    def _tell_of_cancels(self) -> None:
        """Cancels come from several threads at once; their events leave in an order that is always the same."""
        with self._lock:
            untold, self._untold = self._untold, []
        for job in sorted(untold, key=lambda job: job.launch.launch_id):
            self._tell_of(job, Outcome.cancelled())

    def _tell_of(self, job: _Job, outcome: Outcome) -> None:
        event = self._event(job, outcome)
        for _ in range(job.behaviour.events):
            if job.behaviour.event_delay_s:
                self._agenda.after(job.behaviour.event_delay_s, partial(self._tell, event))
            else:
                self._publish(event)

    def _tell(self, event: Mapping[str, Json]) -> None:
        self._publish(event)

    def _event(self, job: _Job, outcome: Outcome) -> Mapping[str, Json]:
        if outcome.kind not in (OutcomeKind.COMPLETED, OutcomeKind.FAILED):
            # An event cannot say that; where the target has an outcome, it is asked.
            error = outcome.error
            outcome = Outcome.failed(error.error_type if error else "Task.Failed", error.message if error else "")
        launch = job.launch
        message = function_message(
            launch.launch_id,
            launch.nonce,
            outcome,
            execution_id=job.execution.execution_id,
            task_name=launch.target_name,
        )
        return {**message, "timestamp": timestamp(self._agenda.clock.now())}
