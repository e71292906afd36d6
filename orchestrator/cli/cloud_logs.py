"""The logs of a run in the cloud, in two searches: some entries are known only by the trace of their call."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol

from orchestrator.model.commands import Json
from orchestrator.model.log_query import Attempt, Reader, Said, filters, trace_filters
from orchestrator.model.run_state import RunState

_MARGIN = timedelta(minutes=1)
"""Clocks differ, and entries come late: so much is looked at again."""


class Logging(Protocol):
    """Cloud Logging, as `services.cloud_logging.CloudLogging` reads it."""

    def entries(self, wanted: str, what: str, *, page_size: int, max_pages: int) -> Iterator[Mapping[str, Json]]:
        """Yield the entries that a filter finds, newest first."""


class CloudLogs:
    """Searches the logs, each time for what is new.

    Args:
        logging: reads them.
        projects: whose logs they are.
        attempts: which are wanted, of the run as it is now.
        node_name, attempt: what they are narrowed to, if they are.
        since: nothing from before (aware); from the run's start on, where None.
        limit: how many lines at most, the newest.
    """

    pause_s = 6.0  # a project allows 60 searches a minute
    lag_s = 20.0

    def __init__(
        self,
        logging: Logging,
        projects: Sequence[str],
        attempts: Callable[[RunState], list[Attempt]],
        *,
        node_name: str | None,
        attempt: int | None,
        since: datetime | None,
        limit: int,
    ) -> None:
        self._logging, self._projects, self._attempts = logging, projects, attempts
        self._node_name, self._attempt, self._limit = node_name, attempt, limit
        self._since = since
        self._seen: set[str] = set()
        self._newest: datetime | None = None

    def read(self, state: RunState) -> list[Said]:
        """Return the entries that were not returned before, by their times.

        Raises:
            OrchestratorError: the logs cannot be read.
        """
        attempts = self._attempts(state)
        reader = Reader(state, attempts)
        since = self._since or state.run.started_at - _MARGIN
        if self._newest is not None:
            since = max(since, self._newest - _MARGIN)
        named = filters(state.run.run_id, attempts, since, node_name=self._node_name, attempt=self._attempt)
        found = self._found(named, reader)
        found += self._found(trace_filters(reader.traces, self._projects, since), reader)
        fresh = {said.entry_id: said for said in found if said.entry_id not in self._seen}
        self._seen.update(fresh)
        lines = sorted(fresh.values(), key=_when)
        if lines:
            self._newest = max(_when(lines[-1])[0], self._newest or _BEGINNING)
        return lines[-self._limit :]

    def _found(self, wanted: Iterator[str], reader: Reader) -> list[Said]:
        lines: list[Said] = []
        for each in wanted:
            entries = self._logging.entries(each, "entries of the run", page_size=self._limit, max_pages=50)
            lines += [reader.line(entry) for entry in islice(entries, self._limit)]
        return lines


_BEGINNING = datetime.min.replace(tzinfo=UTC)


def _when(said: Said) -> tuple[datetime, str]:
    return said.at or _BEGINNING, said.entry_id
