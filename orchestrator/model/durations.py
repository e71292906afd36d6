"""Durations as authors write them: "500ms", "10s", "1.5h", "1d". Pure."""

import re
from decimal import Decimal
from functools import lru_cache

from orchestrator.model.errors import OrchestratorError

PATTERN = r"[0-9]{1,15}(\.[0-9]{1,9})?(ms|s|m|h|d)"
"""What a duration looks like; the digits are limited so that every duration is a finite number."""

HOW = 'write a number and ms, s, m, h or d, as in "90s"'

_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_duration = re.compile(PATTERN)


class DurationError(OrchestratorError, ValueError):
    """A text is not a duration, or a number of seconds cannot be written as one."""


@lru_cache(maxsize=1024)
def parse_duration(text: str) -> float:
    """Return the seconds that `text` says: 0.5 for "500ms", 5400.0 for "1.5h".

    Raises:
        DurationError: it is not a duration.
    """
    if not _duration.fullmatch(text):
        raise DurationError(f'"{text}" is not a duration; {HOW}')
    number = text.rstrip("mshd")
    # Decimal, so that "1.1h" is the float nearest to 3960 and not one that comes near it.
    return float(Decimal(number) * _UNIT_MS[text[len(number) :]] / 1000)
