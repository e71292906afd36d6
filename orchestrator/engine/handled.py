"""What the executor answers: what it did with an event, and what a Tick did. Values."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of one event.

    Attributes:
        verdict: "applied" (the run changed), "unchanged" (a duplicate, or too late), "not ours",
            or "ticked".
        run_id: the run that it belonged to.
        absorbed: how many events the save took in that this event led; 0 where another one led.
        launches: launch ids of the attempts that this event's handling launched.
        run_ids: all runs that it belonged to, of an event that triggers several; `run_id` is the first of them.
    """

    verdict: str
    run_id: str | None = None
    absorbed: int = 0
    launches: tuple[str, ...] = ()
    run_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Swept:
    """What a Tick did.

    Attributes:
        runs: open runs that it looked at.
        recovered: launch ids of the attempts that it took over or found an end of.
        closed: runs whose markers it deleted, because they have ended.
        problems: what failed, run by run; each failed alone.
        left: open runs that it had no time for; the next Tick begins with them.
        started: (DAG, time) of the runs that a schedule had missed, and that were started.
    """

    runs: int = 0
    recovered: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())
    left: int = 0
    started: tuple[tuple[str, datetime], ...] = ()
