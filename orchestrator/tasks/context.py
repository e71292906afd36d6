"""Context: what a function may know of the launch that called it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.model.ids import key_of, parse_launch_id
from orchestrator.model.messages import LAUNCH_PARAMETER, NONCE_PARAMETER
from orchestrator.tasks.errors import BadRequest

Report = Callable[[float, str], None]
Beat = Callable[[], None]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def to_nowhere(fraction: float, message: str) -> None:
    """Progress of a call that is recorded nowhere."""


def to_nobody() -> None:
    """Heartbeat of a call that nobody listens to."""


@dataclass(frozen=True, slots=True)
class Context:
    """Whose call this is. `Context()` is that of a call by hand, and what a test may pass.

    Attributes:
        launch_id: `run_id/node/attempt`; empty where somebody called the function by hand.
        run_id: the run.
        node_name: the node that this is an attempt at.
        attempt: which attempt, from 1. All three are the launch id's; without one empty, empty and 1.
        trace_id: the W3C trace id that the call came with (32 hex); empty where it came with none.
        nonce: the launch's; an event that bears it is believed, so it belongs in no log.
    """

    launch_id: str = ""
    run_id: str = ""
    node_name: str = ""
    attempt: int = 1
    trace_id: str = ""
    nonce: str = field(default="", repr=False)
    report: Report = field(default=to_nowhere, repr=False, compare=False)
    beat: Beat = field(default=to_nobody, repr=False, compare=False)

    def progress(self, fraction: float, message: str = "") -> None:
        """Say how far the work is (0 to 1). Cheap to call often: once a second is written, the rest dropped.

        It never raises: progress that cannot be written is a warning in the log.
        """
        self.report(fraction, message)

    def heartbeat(self) -> None:
        """Say that the work goes on, for a step with a `heartbeat`; `progress` says that, too. From any thread.

        As cheap as `progress`, and never raises.
        """
        self.beat()

    @property
    def key(self) -> str:
        """The launch's key, the same each time it is delivered; a good name for what this attempt writes.
        Empty where there is no launch."""
        return key_of(self.launch_id) if self.launch_id else ""

    @classmethod
    def of(cls, query: Mapping[str, str], headers: Mapping[str, str]) -> "Context":
        """Read it from a query and headers (names in lower case). Raises BadRequest for a malformed launch id."""
        launch_id, nonce = query.get(LAUNCH_PARAMETER, ""), query.get(NONCE_PARAMETER, "")
        found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        trace_id = found[1] if found else ""
        if not launch_id:
            return cls(trace_id=trace_id)
        ids = parse_launch_id(launch_id)
        if ids is None:
            raise BadRequest(
                f"{LAUNCH_PARAMETER}: {launch_id[:200]!r} is no launch id; allowed is run_id/node/attempt, "
                "or none at all for a call by hand"
            )
        return cls(launch_id, *ids, trace_id, nonce)
