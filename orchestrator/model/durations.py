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


def format_duration(seconds: float) -> str:
    """Return the shortest way to write `seconds` with one unit: "90s", "10m", "1d", "1500ms".

    `parse_duration` reads it back as the same number, to the nearest nanosecond.

    Raises:
        DurationError: it is negative, not a number, or more than three thousand years.
    """
    if not 0 <= seconds < 1e11:
        raise DurationError(f"{seconds} seconds is not a duration; allowed: from 0 to below 100000000000")
    milliseconds = round(Decimal(seconds) * 1000, 6)
    if not milliseconds:
        return "0s"
    # The largest unit of which there is a whole number; of milliseconds there may be a part.
    unit = next((unit for unit in ("d", "h", "m", "s") if milliseconds % _UNIT_MS[unit] == 0), "ms")
    return f"{(milliseconds / _UNIT_MS[unit]).normalize():f}{unit}"
