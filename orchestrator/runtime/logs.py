"""Structured logs: one JSON line a record, as Cloud Logging reads them from standard output.

What the engine says about a run bears `run_id`, `node`, `attempt` and `event_id` as labels, so that one
filter (`labels.run_id="…"`) shows a run, and the trace of the launch, so that one click shows an attempt.
Source: https://cloud.google.com/logging/docs/structured-logging (special fields).
"""

import json
import logging
from typing import IO

LABELS = ("run_id", "node", "attempt", "event_id")
"""Extras of a record that become labels; everywhere in the engine the same words."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object.

    Args:
        project: id of the project, for the full name of a trace; bare trace ids without it.
    """

    def __init__(self, project: str | None = None) -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as JSON; what cannot be encoded is shown by its repr."""
        entry: dict[str, object] = {
            "severity": record.levelname if record.levelname != "WARN" else "WARNING",
            "message": record.getMessage(),
            "logger": record.name,
        }
        labels = {name: str(value) for name in LABELS if (value := getattr(record, name, None)) is not None}
        if labels:
            entry["logging.googleapis.com/labels"] = labels
        trace = getattr(record, "trace", None)
        if trace:
            entry["logging.googleapis.com/trace"] = (
                f"projects/{self._project}/traces/{trace}" if self._project else trace
            )
        if record.exc_info:
            entry["stack_trace"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=repr)


def configure(stream: IO[str], project: str | None, level: int = logging.INFO) -> None:
    """Have the orchestrator's log written to `stream`, once per process."""
    log = logging.getLogger("orchestrator")
    if any(isinstance(handler.formatter, JsonFormatter) for handler in log.handlers):
        return
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(project))
    log.addHandler(handler)
    log.setLevel(level)
    log.propagate = False
