"""The logs of a run in a directory: what each attempt wrote, in the files under `attempts/`. They bear no times."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.cli.bucket import Bucket
from orchestrator.model.log_query import Attempt, Said
from orchestrator.model.run_state import RunState

_SEVERITY = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?=[:\s])")


class LocalLogs:
    """Reads the files, each time from where it was left.

    Args:
        attempts: which are wanted, of the run as it is now.
    """

    pause_s = 0.25
    lag_s = 0.0

    def __init__(self, bucket: Bucket, attempts: Callable[[RunState], list[Attempt]]) -> None:
        self._bucket, self._attempts = bucket, attempts
        self._read: dict[str, int] = {}

    def read(self, state: RunState) -> list[Said]:
        """Return what has been written since the last time: attempt by attempt, in definition order."""
        return [said for attempt in self._attempts(state) for said in self._new_of(attempt, state)]

    def _new_of(self, attempt: Attempt, state: RunState) -> Iterator[Said]:
        path = self._bucket.log_of(attempt.launch_id)
        if path is None:
            return
        is_over = state.run.status.is_final or not attempt.is_current or attempt.node.status.is_final
        for line in self._new_lines(path, attempt.launch_id, is_over=is_over):
            found = _SEVERITY.match(line)
            severity = found[1] if found else "DEFAULT"
            yield Said(None, severity, attempt.node.node_name, attempt.number, line)

    def _new_lines(self, path: Path, launch_id: str, *, is_over: bool) -> list[str]:
        """The lines that are whole; the last one, too, where nothing comes after it."""
        with path.open("rb") as file:
            file.seek(self._read.get(launch_id, 0))
            content = file.read()
        end = len(content) if is_over else content.rfind(b"\n") + 1
        self._read[launch_id] = self._read.get(launch_id, 0) + end
        return content[:end].decode("utf-8", "replace").splitlines()
