"""Times as authors and services write them: RFC 3339. Pure."""

from datetime import datetime

HOW_TIME = 'write it as in "2026-12-24T18:00:00Z" or "2026-12-24T19:00:00+01:00"'


def parse_time(text: str) -> datetime | None:
    """Return the aware time that `text` says; None where it says none, or lacks its offset from UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if "T" in text and found.tzinfo is not None else None
