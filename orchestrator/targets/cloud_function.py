"""CloudFunction: has HTTP functions called by a Cloud Tasks queue.

That way nobody waits for the function, which is what makes waiting free; it is the default. The queue is to try a task
once (`max_attempts = 1`): attempts are the orchestrator's.
"""

from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from orchestrator.model.commands import Execution, Launch, Outcome
from orchestrator.model.durations import parse_duration
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain, NotYet
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS
from orchestrator.services.google_api import ApiError
from orchestrator.targets.function_calls import (
    DISPATCH_LIMITS_S,
    Finder,
    FunctionCalls,
    Witnesses,
    execution_id_of,
    ids_of,
)
from orchestrator.targets.twins import utc_now

Teller = Callable[[str, Outcome], Outcome]
"""A launch's key, and what its event tells -> how it ended."""


class Tasks(Protocol):
    """A Cloud Tasks queue, as `services.cloud_tasks.CloudTasks` is one."""

    def create(
        self,
        name_key: str,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        dispatch_deadline_s: float | None = None,
        oidc: tuple[str, str] | None = None,
    ) -> bool:
        """Have the request made once; False if there is or was a task of this name. Raises ApiError.

        Args:
            oidc: (service account, audience) of the ID token to call with.
        """

    def dispatches(self, name_key: str) -> int | None:
        """How often the request has been made, or is being made; None where it is not in the queue. Raises ApiError."""

    def delete(self, name_key: str) -> bool:
        """Take the request out of the queue; False if it was not there. Raises ApiError."""


class CloudFunction:
    """Has functions called by a Cloud Tasks queue.

    The task bears the launch's key as its name, which the queue takes once in 24 hours. For execution ids see
    `execution_id_of`: events carry the end of one.

    Args:
        tasks: the queue.
        invoker_service_account: as whom the functions are called.
        project, region, url, allowed_hosts: of the functions, see FunctionCalls.
        results, logs: how calls ended, see Witnesses.
        told: (launch key, what its event tells) -> how it ended.
        first_generation: names of functions of the 1st generation, whose log lines do not name their launch.
        launch_limit_s: how long the call of the queue may take.
        now: the time, aware.
    """

    identity: Identity = Identity.WINDOW
    has_outcome: bool = False  # not for sure: `outcome` may know, and where it does not an event is believed
    can_cancel: bool = False
    synchronous: bool = False
    id_is_ours: bool = False  # 2nd gen's events carry the launch id, 1st gen's only the trace

    def __init__(
        self,
        tasks: Tasks,
        *,
        project: str,
        region: str,
        invoker_service_account: str,
        results: Finder,
        told: Teller | None = None,
        logs: Finder | None = None,
        url: str | None = None,
        allowed_hosts: tuple[str, ...] = ALLOWED_HOSTS,
        first_generation: Container[str] = (),
        launch_limit_s: float = 30.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self.launch_limit_s = launch_limit_s
        self._tasks = tasks
        self._invoker = invoker_service_account
        self._calls = FunctionCalls(project, region, url=url, allowed_hosts=allowed_hosts)
        self._witnesses, self._told = Witnesses(results, logs, now), told
        self._first_generation = first_generation

    def is_named(self, launch: Launch) -> bool:
        """Whether the request log shows the URL that was called, with the launch id in it: 2nd gen's does."""
        return launch.target_name not in self._first_generation

    def launch(self, launch: Launch) -> Execution:
        """Put the call into the queue; the same key again within 24 hours puts in nothing.

        Raises:
            LaunchRefused: its host is not allowed, or the queue will never take it.
            LaunchUncertain: the queue may have taken it.
        """
        request = self._calls.request(launch)
        try:
            self._tasks.create(
                launch.key,
                url=request.url,
                headers=request.headers,
                body=request.body,
                dispatch_deadline_s=_dispatch_deadline_s(launch),
                oidc=None if request.audience is None else (self._invoker, request.audience),
            )
        except ApiError as exc:
            if exc.is_passing:
                raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
            raise LaunchRefused(f"{launch.node_name}: {exc}") from exc
        return Execution(execution_id_of(launch), {"task": launch.key})

    def find(self, launch: Launch) -> Execution | None:
        """Return the launch's execution if the function's records, the logs or the queue know it.

        None does no harm, the queue does not take a launch twice; so logs that cannot be searched now are no reason
        to put the launch off.
        """
        found: Execution | None = None
        with suppress(LaunchUncertain):
            found = self._witnesses.find(launch)
        if found is not None:
            return found
        with suppress(ApiError):
            if self._tasks.dispatches(launch.key) is not None:
                return Execution(execution_id_of(launch), {"task": launch.key})
        return None

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how it ended, from the function's own record or the logs; None: not known.

        Raises:
            NotYet: the function has recorded that it is at work, so that its event is not to be believed yet. Once that
                is longer ago than the queue waits for an answer, the logs are asked whether it was killed.
            LaunchUncertain: cannot tell now.
        """
        return self._witnesses.outcome(execution.execution_id)

    def confirm(self, launch: Launch, verdict: Outcome) -> Execution:
        """Return the launch's execution with the outcome that counts, where its own event tells `verdict`.

        The logs are not searched: the event is what they would show.

        Raises:
            NotYet: the function has recorded that it is at work, and the event is not to be believed yet.
        """
        outcome = self._told(launch.key, verdict) if self._told is not None else verdict
        return Execution(execution_id_of(launch), outcome=outcome)

    def withdraw(self, launch: Launch) -> bool:
        """Take the call out of the queue if it has not been made. It is never put in again: its name stays used.

        Raises:
            LaunchUncertain: the queue cannot tell now.
        """
        try:
            is_waiting = self._tasks.dispatches(launch.key) == 0
            return is_waiting and self._taken_out(launch.key, execution_id_of(launch))
        except ApiError as exc:
            raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc

    def _taken_out(self, key: str, execution_id: str) -> bool:
        """Take a call out of the queue that has not been made when that was asked.

        The queue has no conditional delete, and takes a call out too that it is making: the function may have begun
        in between. It is asked, if it uses the helper; any other runs to its end unseen.
        """
        if not self._tasks.delete(key):
            return False
        try:
            return self._witnesses.recorded(execution_id) is None
        except NotYet:
            return False

    def cancel(self, execution: Execution) -> None:
        """Return if the call is over, or was taken out of the queue. One under way cannot be stopped.

        Raises:
            LaunchUncertain: it runs on, or that cannot be told now.
        """
        ids = ids_of(execution.execution_id)
        if execution.outcome is not None or ids is None:
            return
        try:
            if self._witnesses.recorded(execution.execution_id) is not None:
                return
            dispatches = self._tasks.dispatches(ids[0])
            if dispatches is None or (dispatches == 0 and self._taken_out(ids[0], execution.execution_id)):
                return
        except NotYet:
            pass
        except ApiError as exc:
            raise LaunchUncertain(f"{execution.execution_id}: {exc}") from exc
        raise LaunchUncertain(f"{execution.execution_id}: a function cannot be stopped, it runs to its end")


def _dispatch_deadline_s(launch: Launch) -> float:
    timeout = launch.step.get("timeout")
    least, most = DISPATCH_LIMITS_S
    return most if timeout is None else min(max(parse_duration(str(timeout)), least), most)
