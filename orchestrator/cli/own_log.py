"""What the logger "orchestrator" says, on the command line: one line a record on standard error."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from orchestrator.cli.lines import printable
from orchestrator.model.errors import SettingsError

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
VARIABLE = "ORCHESTRATOR_LOG"

_AGAIN_S = 10.0
"""How long the same words are not repeated."""


def level_of(environment: Mapping[str, str], *, is_verbose: bool) -> int:
    """Return the level that is asked for. Raises SettingsError."""
    if is_verbose:
        return logging.DEBUG
    name = environment.get(VARIABLE) or "WARNING"
    if name.upper() not in LEVELS:
        raise SettingsError(f'{VARIABLE}: "{name}" is no level; allowed: {", ".join(LEVELS)}')
    return int(logging.getLevelNamesMapping()[name.upper()])


@contextmanager
def shown(level: int, write: Callable[[str], None]) -> Iterator[None]:
    """Show the log by `write`, line by line, as long as this lasts."""
    logger = logging.getLogger("orchestrator")
    handler, before = LineHandler(write), logger.level
    handler.setLevel(level)
    logger.addHandler(handler)
    logger.setLevel(min(level, logging.WARNING))  # warnings are listened to by others too
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class LineHandler(logging.Handler):
    """A record a line; tracebacks only where debugging is on, the same line not again and again."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__()
        self._write = write
        self._said: dict[str, float] = {}
        self._saying = Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            text = text_of(record)
            now_s = time.monotonic()
            with self._saying:
                if now_s - self._said.get(text, -_AGAIN_S) < _AGAIN_S:
                    return
                if len(self._said) > 1000:
                    self._said.clear()
                self._said[text] = now_s
            self._write(text)
            if record.exc_info and logging.getLogger("orchestrator").isEnabledFor(logging.DEBUG):
                for each in "".join(traceback.format_exception(*record.exc_info)).splitlines():
                    self._write(f"  {each}")
        except Exception:
            self.handleError(record)


def text_of(record: logging.LogRecord) -> str:
    """Return a record as `orchestrator: warning: what (step X)`, on one line."""
    node = getattr(record, "node", None)
    error = record.exc_info[1] if record.exc_info else None
    text = record.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
    first, _, rest = text.partition("\n")
    is_detail = record.levelno <= logging.DEBUG and rest  # a debug record may be a whole traceback
    text = text if is_detail else printable(first)
    return f"orchestrator: {record.levelname.lower()}: {text}" + (f" (step {node})" if node else "")
