"""What a fake does when a step is launched: how it ends, after what time, and what goes wrong on the way. Values.

returns({"rows": 3})                       completes with this result
fails("Task.Failed", times=1)              fails once, then completes
takes("3d")                                completes after three days
in_turn(refuses(), fails(), returns(3))    the first launch, the second, all others
returns(3).after("10m").twice()            completes after 10 minutes, and its event comes twice
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf

from orchestrator.model.commands import Json, Launch, Outcome
from orchestrator.model.durations import parse_duration
from orchestrator.model.errors import LaunchRefused
from orchestrator.targets.callables import attempt

SOON_S = 1.0
"""How long an execution takes whose behaviour says nothing else."""

Work = Callable[[Launch], Outcome]
"""What runs for a launch, and how that ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a fake does with a launch. The methods return a changed copy, so that they can be chained.

    Attributes:
        work: how the execution ends, worked out when it begins; None: it never ends.
        check: raises LaunchRefused where the launch is refused; called with every launch.
        takes_s: virtual seconds from its begin to its end.
        events: how often the event of its end is published; after 0, a Tick finds out.
        event_delay_s: how long after its end that is.
        uncertain_calls: so many launch calls end without a clear answer (LaunchUncertain)
        is_started: whether an execution was started all the same by these.
        cancels_refused: so many calls to cancel it are not accepted.
        heard_s: for so many virtual seconds it says that it is at work, as a step's `heartbeat` asks for.
        lasts: for so many launches; None: for all.
        following: what the launches after those do; None: they complete.
    """

    work: Work | None
    check: Callable[[Launch], object] | None = None
    takes_s: float = SOON_S
    events: int = 1
    event_delay_s: float = 0.0
    uncertain_calls: int = 0
    is_started: bool = False
    cancels_refused: int = 0
    heard_s: float = inf
    lasts: int | None = None
    following: Behaviour | None = None

    def after(self, duration: str) -> Behaviour:
        """End after this virtual time, as in "90s" or "3d"; by default, after a second."""
        return replace(self, takes_s=parse_duration(duration))

    def times(self, launches: int) -> Behaviour:
        """Do so for that many launches of the step; complete the ones after, or do as `then` says."""
        if launches < 1:
            raise ValueError(f"times: is {launches}; allowed: 1 or more")
        return replace(self, lasts=launches)

    def then(self, other: Behaviour) -> Behaviour:
        """Do something else in the launches after the first, or after as many as `times` says."""
        following = self.following.then(other) if self.following is not None else other
        return replace(self, lasts=self.lasts or 1, following=following)

    def without_event(self) -> Behaviour:
        """Lose the event of the end: a Tick finds out."""
        return replace(self, events=0)

    def twice(self) -> Behaviour:
        """Have the event of the end delivered twice."""
        return replace(self, events=2)

    def with_event_after(self, duration: str) -> Behaviour:
        """Have the event of the end come so much later."""
        return replace(self, event_delay_s=parse_duration(duration))

    def uncertainly(self, calls: int = 1, *, is_started: bool = False) -> Behaviour:
        """Let that many launch calls end without an answer, with or without an execution that they started."""
        return replace(self, uncertain_calls=calls, is_started=is_started)

    def hard_to_cancel(self, refused: int = 1) -> Behaviour:
        """Do not accept that many calls to cancel it."""
        return replace(self, cancels_refused=refused)

    def silent_after(self, duration: str) -> Behaviour:
        """Say no more that it is at work after this virtual time: what a `heartbeat` is for."""
        return replace(self, heard_s=parse_duration(duration))

    def of_launch(self, number: int) -> Behaviour:
        """Return what is done in the step's launch of this number, from 1."""
        found = self
        while found.lasts is not None and number > found.lasts:
            number -= found.lasts
            found = found.following or returns()
        return found


def returns(result: Json = None) -> Behaviour:
    """Complete with this result, any JSON value. Raises ValueError if it is none."""
    outcome, _ = attempt(lambda: result, {})
    if outcome.error is not None:
        raise ValueError(f"returns: {outcome.error.message}")
    return _ending(outcome)


def fails(error_type: str = "Task.Failed", message: str = "told to fail", *, times: int | None = None) -> Behaviour:
    """Fail with this error; with `times`, for that many launches, and complete after."""
    failing = _ending(Outcome.failed(error_type, message))
    return failing if times is None else failing.times(times)


def refuses(error_type: str = "Launch.Refused", message: str = "told to refuse") -> Behaviour:
    """Refuse the launch for good: nothing is started."""

    def check(launch: Launch) -> None:
        raise LaunchRefused(f"{launch.node_name}: {message}", error_type=error_type)

    return replace(returns(), check=check)


def takes(duration: str) -> Behaviour:
    """Complete after this virtual time, as in "90s" or "3d"."""
    return returns().after(duration)


def never_ends() -> Behaviour:
    """Start, and never end, nor be heard of: what timeouts, heartbeats and cancels are for."""
    return Behaviour(work=None, heard_s=0.0)


def is_cancelled() -> Behaviour:
    """End because somebody cancelled it at its service."""
    return _ending(Outcome.cancelled())


def is_lost() -> Behaviour:
    """End because its host is gone, without a result."""
    return _ending(Outcome.lost("told to get lost"))


def computes(function: Callable[[dict[str, Json]], object]) -> Behaviour:
    """Complete with what `function` makes of the parameters, a dict; fail with what it raises.

    An AssertionError is the test's own: it ends the simulation.
    """

    def work(launch: Launch) -> Outcome:
        broken: list[AssertionError] = []

        def call(parameters: dict[str, Json]) -> object:
            try:
                return function(parameters)
            except AssertionError as exc:
                broken.append(exc)
                return None

        outcome, _ = attempt(call, {"parameters": dict(launch.parameters)})
        if broken:
            raise broken[0]
        return outcome

    return Behaviour(work=work)


def calls(function: Callable[..., object]) -> Behaviour:
    """Call `function` as a Function step would be: with the parameters as keyword arguments."""
    return Behaviour(work=lambda launch: attempt(function, launch.parameters)[0])


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Do the first in the step's first launch, and so on; the last in all that follow."""
    if not behaviours:
        raise ValueError("in_turn: is empty; write at least one behaviour")
    found = behaviours[0]
    for each in behaviours[1:]:
        found = found.then(each)
    return found


def _ending(outcome: Outcome) -> Behaviour:
    return Behaviour(work=lambda _: outcome)
