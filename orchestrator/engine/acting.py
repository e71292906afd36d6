"""Acting on commands: launch, cancel, remind. Only what *this* save claimed ever gets here.

A launch that is refused, that ends at once or that binds an attempt taken over yields a fact, which
the executor feeds back into `decide`. A launch whose fate is uncertain yields nothing: the Tick, which
takes its claim over once the lease is over, finds out.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TypeVar

from msgspec.structs import replace

from orchestrator.engine.observing import Observed
from orchestrator.engine.run_box import RunBox
from orchestrator.engine.status import ExecutionStatus
from orchestrator.model.commands import (
    EMPTY,
    AskSlot,
    Cancel,
    Command,
    Execution,
    Failure,
    Launch,
    Notify,
    Outcome,
    ReleaseSlot,
    Remind,
    Withdraw,
)
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotSent, OrchestratorError
from orchestrator.model.execution import ExecutionRecord
from orchestrator.model.facts import (
    AttemptEnded,
    CancelSettled,
    Fact,
    LaunchBound,
    LaunchFailed,
    NotificationFailed,
    NotificationSent,
)
from orchestrator.model.messages import reminder_message
from orchestrator.model.policy import Policy
from orchestrator.model.secrets import filled, masked, masked_json
from orchestrator.ports import Broker, Clock, Named, Notifier, Secrets, Target, Withdrawing

log = logging.getLogger("orchestrator")

MAX_CONCURRENT_CALLS = 32

Tell = Callable[[Sequence[Fact]], None]
"""Takes what came of some of several calls, while others last."""

_Item = TypeVar("_Item")
_Fact = TypeVar("_Fact")


class Actor:
    """Carries out commands and says what came of them.

    `is_unwanted(launch, execution)` reloads the run and says whether the attempt has ended meanwhile, or is bound to
    another execution; `take_slots` asks for slots and gives them back, and returns what was granted.
    """

    def __init__(
        self,
        targets: Mapping[str, Target],
        broker: Broker,
        clock: Clock,
        policy: Policy,
        executions: ExecutionStatus,
        is_unwanted: Callable[[Launch, Execution], bool],
        observed: Observed,
        secrets: Secrets,
        notifier: Notifier | None,
        take_slots: Callable[[Sequence[AskSlot | ReleaseSlot]], Sequence[Fact]],
    ) -> None:
        self._take_slots = take_slots
        self._secrets = secrets
        self._targets, self._broker, self._clock, self._policy = targets, broker, clock, policy
        self._is_unwanted = is_unwanted
        self._observed = observed
        self._notifier = notifier
        self._executions = executions

    def blocks(self, commands: Sequence[Command]) -> bool:
        """Whether carrying these out may take long."""
        return any(
            isinstance(command, Notify | AskSlot | ReleaseSlot)
            or (isinstance(command, Launch) and self._limit_s(command) > 0.0)
            for command in commands
        )

    def waits(self, commands: Sequence[Command]) -> bool:
        """Whether carrying these out waits for what is launched to end, or for somebody who is told of it."""
        return any(
            isinstance(command, Notify)
            or (isinstance(command, Launch) and self._policy.rules(command.target_key).synchronous)
            for command in commands
        )

    def act(self, box: RunBox, commands: Sequence[Command], tell: Tell) -> list[Fact]:
        """Carry out what a save entitles to, calls that block side by side; return what came of it.

        What comes of one of several calls goes to `tell` when it is back, so that it waits for no other; and for
        nobody who is notified.
        """
        slots = [command for command in commands if isinstance(command, AskSlot | ReleaseSlot)]
        if slots:
            rest = [command for command in commands if not isinstance(command, AskSlot | ReleaseSlot)]
            return self._slots_first(box, slots, rest, tell)
        notifies = [command for command in commands if isinstance(command, Notify)]
        if notifies and len(notifies) < len(commands):
            others = [command for command in commands if not isinstance(command, Notify)]
            return self._notify_aside(box, notifies, others, tell)
        facts = self._launch_side_by_side(box, [command for command in commands if isinstance(command, Launch)], tell)
        cancels = [command for command in commands if isinstance(command, Cancel)]
        facts += _each(lambda x: self.cancel(box, x.launch, x.execution_id, is_over=False), cancels)
        facts += self.withdraw([command.launch for command in commands if isinstance(command, Withdraw)])
        for command in commands:
            if isinstance(command, Remind):
                self._remind(command)
        return [*facts, *self._notify_all(notifies)]

    def _slots_first(
        self, box: RunBox, slots: Sequence[AskSlot | ReleaseSlot], rest: Sequence[Command], tell: Tell
    ) -> list[Fact]:
        """Ask for slots and give them back, for others wait for those: it is a write, and never takes long."""
        found = list(self._take_slots(slots))
        if found and self.blocks(rest):
            with ThreadPoolExecutor(1, "orchestrator-slots") as aside:  # what follows may be a call of minutes, too
                granting = aside.submit(tell, found)
                facts = self.act(box, rest, tell)
                granting.result()
                return facts
        return [*found, *self.act(box, rest, tell)] if rest else found

    def _notify_aside(self, box: RunBox, notifies: Sequence[Notify], rest: Sequence[Command], tell: Tell) -> list[Fact]:
        """Notify beside all else, where something comes of that, so that neither waits for the other."""
        blocking = any(isinstance(command, Launch) and self._limit_s(command) > 0.0 for command in rest)
        done = [] if blocking else self.act(box, rest, tell)
        if not blocking and not done:
            return self._notify_all(notifies)
        with ThreadPoolExecutor(1, "orchestrator-notify") as aside:
            telling = aside.submit(self._notify_all, notifies)
            if facts := self.act(box, rest, tell) if blocking else done:
                tell(facts)  # all at once: it is one save
            return telling.result()

    def _launch_side_by_side(self, box: RunBox, launches: Sequence[Launch], tell: Tell) -> list[Fact]:
        """Launch; of several calls that may take long, each in a thread of its own, and what comes of it is told."""
        blocking = [launch for launch in launches if self._limit_s(launch) > 0.0]
        if len(blocking) < 2:
            return self._launch_all(box, sorted(launches, key=self._limit_s) if blocking else launches)

        def call(launch: Launch) -> None:
            fact = self._launch(box, launch)
            if fact is not None:
                tell([fact])

        with ThreadPoolExecutor(min(len(blocking), MAX_CONCURRENT_CALLS)) as pool:
            calls = pool.map(call, blocking)
            facts = self._launch_all(box, (x for x in launches if self._limit_s(x) <= 0.0))
            for _ in calls:
                pass  # raises what ended a call's thread
        return facts

    def _notify_all(self, commands: Sequence[Notify]) -> list[Fact]:
        return _each(self._notify, commands)

    def _notify(self, command: Notify) -> Fact | None:
        """Send a notification; None where it is left to the Tick."""
        where = {"run_id": command.run_id}
        if self._clock.now() + timedelta(seconds=self._policy.min_lease_s / 2) > command.lease_end:
            log.warning("too late to notify under this lease; left to the Tick", extra=where)
            return None
        try:
            if self._notifier is None:
                raise NotSent("nothing here can send notifications")
            self._notifier.notify(command)
        except NotSent as exc:
            log.warning("a notification was not accepted: %s", exc, extra=where)
            return NotificationFailed(command.notification_id, command.owner, str(exc), is_final=not exc.retry)
        except Exception:
            log.exception("notifying failed; the Tick tries again", extra=where)
            return None
        return NotificationSent(command.notification_id)

    def cancel(self, box: RunBox, launch: Launch, execution_id: str | None, *, is_over: bool) -> CancelSettled | None:
        """Cancel what runs for an attempt; None where the Tick has to come back to it.

        Args:
            is_over: the claim's lease is over, so that nothing can be launched for it any more.
        """
        target = self._targets.get(launch.target_key)
        if target is None:
            return CancelSettled(launch.node_name, launch.attempt)
        try:
            execution = Execution(execution_id) if execution_id else box.executions.get(launch.launch_id)
            execution = execution or target.find(launch)
            if execution is not None:
                target.cancel(execution)
            elif not is_over:
                return None
        except LaunchUncertain as exc:
            log.warning("cancel not accepted yet: %s", exc, extra=_where(launch))
            return None
        except Exception:
            log.exception("cancel failed; the Tick tries again", extra=_where(launch))
            return None
        return CancelSettled(launch.node_name, launch.attempt)

    def withdraw(self, launches: Sequence[Launch]) -> list[AttemptEnded]:
        """Take launches back that have not begun; nothing comes of those that have, or of which that cannot be told."""
        return _each(self._withdraw, launches)

    def _withdraw(self, launch: Launch) -> AttemptEnded | None:
        try:
            target = self._targets.get(launch.target_key)
            is_withdrawn = isinstance(target, Withdrawing) and target.withdraw(launch)
        except LaunchUncertain as exc:
            log.warning("cannot be taken back now: %s", exc, extra=_where(launch))
            return None
        except Exception:
            log.exception("taking a launch back failed; the Tick tries again", extra=_where(launch))
            return None
        if not is_withdrawn:
            return None
        return AttemptEnded(launch.node_name, launch.attempt, Outcome.cancelled("taken back before it began"))

    def _limit_s(self, launch: Launch) -> float:
        return self._policy.rules(launch.target_key).launch_limit_s

    def _launch_all(self, box: RunBox, launches: Iterable[Launch]) -> list[Fact]:
        return [fact for launch in launches if (fact := self._launch(box, launch)) is not None]

    def _launch(self, box: RunBox, launch: Launch) -> Fact | None:
        target = self._targets.get(launch.target_key)
        if target is None:
            known = ", ".join(sorted(self._targets)) or "none"
            return self._failed(
                launch,
                Failure(
                    "Launch.NoTarget",
                    f"{launch.node_name}: there is no target {launch.target_key} here; there is {known}",
                ),
            )
        latest = self._latest_start(launch)
        if latest is not None and self._clock.now() > latest:
            log.warning("too late to launch under this lease; left to the Tick", extra=_where(launch))
            return None
        begun = self._clock.now()
        values: dict[str, str] = {}
        try:
            execution = target.find(launch) if launch.recover else None
            result = "found" if execution is not None else "launched"
            if execution is None:
                values = {name: self._secrets.get(name) for name in launch.secrets}
                if values and latest is not None and self._clock.now() > latest:
                    raise LaunchUncertain("its secrets were not read in time")
                execution = target.launch(_with_secrets(launch, values) if values else launch)
        except LaunchRefused as exc:
            self._tell(launch, "refused", begun)
            return self._failed(launch, Failure(exc.error_type, masked(str(exc), values.values())))
        except LaunchUncertain as exc:
            said = masked(str(exc), values.values())
            log.warning("launch uncertain, left to the Tick: %s", said, extra=_where(launch))
            self._tell(launch, "uncertain", begun)
            return None
        except Exception as exc:
            where = _where(launch)
            if values:  # its traceback might show them
                said = masked(f"{type(exc).__name__}: {exc}", values.values())
                log.error("launch raised, so its fate is uncertain; left to the Tick: %s", said, extra=where)
            else:
                log.exception("launch raised, so its fate is uncertain; left to the Tick", extra=where)
            self._tell(launch, "uncertain", begun)
            return None
        if values:
            execution = replace(execution, response=masked_json(execution.response, values.values()))
        self._tell(launch, result, begun)
        box.executions[launch.launch_id] = execution
        self._cancel_if_unwanted(target, launch, execution)
        if not (target.id_is_ours or (isinstance(target, Named) and target.is_named(launch))):
            self._bind(launch, execution)
        if execution.outcome is not None:
            return AttemptEnded(launch.node_name, launch.attempt, execution.outcome, execution.execution_id)
        if launch.recover:
            return LaunchBound(launch.node_name, launch.attempt, launch.owner, execution.execution_id)
        return None

    def _tell(self, launch: Launch, result: str, begun: datetime) -> None:
        if not self._observed.is_anybody:
            return
        now = self._clock.now()
        since_claim_s: float | None = None
        if launch.lease_end is not None:
            claimed_at = launch.lease_end - self._policy.lease(launch.target_key)
            since_claim_s = max(0.0, (now - claimed_at).total_seconds())
        self._observed.launched(launch, result, max(0.0, (now - begun).total_seconds()), since_claim_s)

    def _latest_start(self, launch: Launch) -> datetime | None:
        if launch.lease_end is None:
            return None
        rules = self._policy.rules(launch.target_key)
        return launch.lease_end - timedelta(seconds=rules.launch_limit_s + self._policy.clock_allowance_s)

    def _cancel_if_unwanted(self, target: Target, launch: Launch, execution: Execution) -> None:
        """A call that returned after its lease's end may have started what nobody wants any more."""
        if launch.lease_end is None or self._clock.now() <= launch.lease_end or not target.can_cancel:
            return
        try:
            if self._is_unwanted(launch, execution):
                target.cancel(execution)
        except OrchestratorError as exc:
            log.warning("cannot cancel a late launch: %s", exc, extra=_where(launch))

    def _bind(self, launch: Launch, execution: Execution) -> None:
        """Record whose the execution is. The record can be rebuilt, so that a failure is no more than logged."""
        record = ExecutionRecord(
            execution_id=execution.execution_id,
            task_name=launch.target_name,
            node_name=launch.node_name,
            succeeded=True,
            response=execution.response,
            run_id=launch.run_id,
            attempt=launch.attempt,
            launch_id=launch.launch_id,
            target_type=launch.target_type,
            launched_at=self._clock.now(),
        )
        try:
            self._executions.save_execution(record)
        except Exception as exc:
            log.warning("cannot record an execution: %s", exc, extra=_where(launch))

    def _failed(self, launch: Launch, failure: Failure) -> LaunchFailed:
        return LaunchFailed(launch.node_name, launch.attempt, launch.owner, failure)

    def _remind(self, remind: Remind) -> None:
        """Publish a reminder; if that fails, the Tick sees what is due."""
        delay_s = max(0.0, (remind.at - self._clock.now()).total_seconds())
        at = remind.at if remind.kind is not None else None
        message = reminder_message(remind.run_id, remind.node_name, remind.attempt, kind=remind.kind, at=at)
        try:
            self._broker.publish(message, delay_s=delay_s)
        except OrchestratorError as exc:
            labels = {"run_id": remind.run_id, "node": remind.node_name, "attempt": remind.attempt}
            log.warning("cannot publish a reminder: %s", exc, extra=labels)


def _each(call: Callable[[_Item], _Fact | None], items: Sequence[_Item]) -> list[_Fact]:
    """Return what came of a call for each item; several are made side by side."""
    if len(items) < 2:
        return [fact for item in items if (fact := call(item)) is not None]
    with ThreadPoolExecutor(min(len(items), MAX_CONCURRENT_CALLS)) as pool:
        return [fact for fact in pool.map(call, items) if fact is not None]


def _with_secrets(launch: Launch, values: Mapping[str, str]) -> Launch:
    """Return a launch as its target is to see it: the one place where secrets are filled in."""
    parameters = filled(launch.parameters, values.__getitem__)
    return replace(launch, parameters=parameters if isinstance(parameters, dict) else EMPTY)


def _where(launch: Launch) -> dict[str, object]:
    ids = {"run_id": launch.run_id, "node": launch.node_name, "attempt": launch.attempt}
    return {**ids, "trace": launch.trace_id}
