"""ChildRuns: Dag Tasks in a simulation, each a child run of the definition that there is, or a fake."""

from collections.abc import Callable
from typing import Protocol

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.enums import Identity
from orchestrator.ports import Target


class Faking(Target, Protocol):
    """A fake that can be asked what it was told to do."""

    def runs_execution(self, execution_id: str) -> bool:
        """Whether it has launched this."""


class ChildRuns:
    """A Target that hands a launch to child runs, or to a fake.

    Args:
        real: makes child runs.
        fake: does what it is told.
        is_faked: launch -> whether that is the fake's.
        log: takes the launches that become child runs, each once; the fake's takes its own.
    """

    identity: Identity = Identity.FOREVER
    has_outcome: bool = True
    synchronous: bool = False
    launch_limit_s: float = 0.0
    id_is_ours: bool = False  # as a fake's

    def __init__(self, real: Target, fake: Faking, is_faked: Callable[[Launch], bool], log: list[Launch]) -> None:
        self._real, self._fake, self._is_faked, self._log = real, fake, is_faked, log
        self._seen = set[str]()
        self.can_cancel: bool = fake.can_cancel

    def launch(self, launch: Launch) -> Execution:
        """See ports.Target."""
        if self._is_faked(launch):
            return self._fake.launch(launch)
        if launch.key not in self._seen:
            self._seen.add(launch.key)
            self._log.append(launch)
        return self._real.launch(launch)

    def find(self, launch: Launch) -> Execution | None:
        """See ports.Target."""
        return (self._fake if self._is_faked(launch) else self._real).find(launch)

    def outcome(self, execution: Execution) -> Outcome | None:
        """See ports.Target."""
        return self._of(execution).outcome(execution)

    def cancel(self, execution: Execution) -> None:
        """See ports.Target."""
        self._of(execution).cancel(execution)

    def _of(self, execution: Execution) -> Target:
        return self._fake if self._fake.runs_execution(execution.execution_id) else self._real
