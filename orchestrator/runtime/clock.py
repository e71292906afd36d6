"""The machine's own clock."""

from datetime import UTC, datetime


class SystemClock:
    """Clock of this machine."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)
