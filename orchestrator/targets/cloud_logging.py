"""LogSearch: what Cloud Logging knows of a call's end, for calls whose event never came.

A log sink loses entries now and then, and a call of a function has no API that tells how it ended. The entry is
found again by the call's trace, and read by the same EventFactory as if it had been delivered.
"""

from collections import deque
from collections.abc import Callable, Mapping
from threading import Lock
from time import monotonic

from orchestrator.model.commands import Json, Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import EventError, LaunchUncertain
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.events import CompletionEvent
from orchestrator.model.task_result import CONFLICT
from orchestrator.services.cloud_logging import CloudLogging
from orchestrator.services.google_api import ApiError, GoogleApis

_MAX_PAGES = 5

_FILTER = """trace=("projects/{project}/traces/{trace_id}" OR "{trace_id}")
(logName="projects/{project}/logs/run.googleapis.com%2Frequests" OR
(logName="projects/{project}/logs/cloudfunctions.googleapis.com%2Fcloud-functions"
textPayload:"Function execution took"))"""
"""A 1st gen function's own prints lie in the same log as the line of its end, under the same trace."""


class LogSearch:
    """Looks for the log entries that a call leaves at its end.

    Cloud Logging allows a project 60 such reads a minute, which people who read logs share. So there is a limit
    here as well; what is beyond it cannot be told now.

    Args:
        apis: Google's REST APIs.
        project: whose logs to search; the calls of functions in other projects leave theirs there.
        per_minute: how many searches a minute this instance makes at most.
        seconds: a clock that only goes forward.
    """

    def __init__(
        self, apis: GoogleApis, project: str, *, per_minute: int = 20, seconds: Callable[[], float] = monotonic
    ) -> None:
        self._logging = CloudLogging(apis, [project])
        self._project = project
        self._seconds = seconds
        self._lock = Lock()
        self._last = deque[float]([float("-inf")] * per_minute)  # when the last searches were made

    def outcome_by_trace(self, trace_id: str) -> Outcome | None:
        """Return how the call with this trace (32 hex digits) ended, None if no entry tells.

        Where the call was made more than once, one that went well counts, else the last one that was not refused
        because an earlier one had begun.

        Raises:
            LaunchUncertain: cannot tell now.
        """
        self._take_turn(trace_id)
        try:
            wanted = _FILTER.format(project=self._project, trace_id=trace_id)
            entries = self._logging.entries(wanted, f"entries of trace {trace_id}", max_pages=_MAX_PAGES)
            ends = [end for entry in entries if (end := _end_of(entry, trace_id)) is not None]
        except ApiError as exc:
            raise LaunchUncertain(str(exc)) from exc
        completed = (end for end in ends if end.kind is OutcomeKind.COMPLETED)
        others = (end for end in ends if end.error is None or end.error.error_type != CONFLICT)
        return next(completed, None) or next(others, None) or next(iter(ends), None)

    def _take_turn(self, trace_id: str) -> None:
        with self._lock:
            now = self._seconds()
            if not self._last or now - self._last[0] < 60.0:
                raise LaunchUncertain(
                    f"logging: trace {trace_id}: not searched for, this minute's searches are used up"
                )
            self._last.popleft()
            self._last.append(now)


def _end_of(entry: Mapping[str, Json], trace_id: str) -> Outcome | None:
    try:
        event = EventFactory.create_from_event(entry)
    except EventError:
        return None
    if not isinstance(event, CompletionEvent) or event.trace_id != trace_id:
        return None
    return event.verdict
