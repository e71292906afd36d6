"""Times as authors and services write them: RFC 3339. Pure."""

from datetime import UTC, datetime, timedelta

HOW_TIME = 'write it as in "2026-12-24T18:00:00Z" or "2026-12-24T19:00:00+01:00"'


LONGEST_WAIT = timedelta(days=365)
"""What a Wait waits at the most."""


FIRST_YEAR, LAST_YEAR = 1901, 8999
"""What a run can be for: there is room for a wait or a deadline before and after it."""

HOW_YEARS = f"allowed are the years {FIRST_YEAR} to {LAST_YEAR}"


def is_of_our_years(time: datetime) -> bool:
    """Whether a run can be for this time, in UTC."""
    return FIRST_YEAR <= time.year <= LAST_YEAR


def parse_time(text: str) -> datetime | None:
    """Return the time, in UTC, that `text` says; None where it says none, lacks its offset, or UTC has no such year."""
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if "T" in text and found.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None
