"""Whether a run's bucket has become unusable while it runs.

The executor tries a save that fails again and again, which is right for a service in the cloud. A person
in front of a full disk wants to be told: what the log says about the store is taken as evidence here.
"""

import errno
import logging
import time
from collections.abc import Callable

from orchestrator.model.errors import StoreUnavailable

PATIENCE_S = 5.0
"""How long a store may be unavailable, without a save in between."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class StoreTrouble(logging.Handler):
    """Listens to the log. `told` and `saved` may be called from any thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._now_s = now_s
        self._first: tuple[float, BaseException] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Look for an error of the store in what is logged."""
        found = record.exc_info[1] if record.exc_info else None
        arguments = record.args if isinstance(record.args, tuple) else ()
        for each in (found, *arguments):
            if isinstance(each, BaseException):
                self.told(each)

    def told(self, error: BaseException) -> None:
        """Take an error into account, if it comes from the store."""
        if self._first is None and _is_of_store(error):
            self._first = (self._now_s(), error)

    def saved(self) -> None:
        """A save has succeeded: all is well again."""
        self._first = None

    def check(self) -> None:
        """Raise StoreUnavailable once patience is at its end."""
        first = self._first
        if first is not None and self._now_s() - first[0] >= PATIENCE_S:
            raise StoreUnavailable(f"{first[1]}; given up after {PATIENCE_S:g} s") from first[1]


def _is_of_store(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, StoreUnavailable) or (isinstance(error, OSError) and error.errno in _DISK):
            return True
        error = error.__cause__
    return False
