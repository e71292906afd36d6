"""Whether it is of use to wait for a run any longer: its bucket has become unusable, or we have a fault.

The executor tries a save that fails again and again, which is right for a service in the cloud. A person
in front of a full disk wants to be told: what the log says about the store is taken as evidence here. So is what
it says of a run that cannot be looked after for an error that is nobody's but ours.
"""

import errno
import logging
import time
from collections.abc import Callable

from orchestrator.model.errors import OrchestratorError, StoreUnavailable

PATIENCE_S = 5.0
"""How long a store may be unavailable, or the same fault come up again and again, without a save in between."""

_OF_THE_LOOP = frozenset({"an event cannot be decided on", "tick failed"})
"""What is logged, with the exception, where a run does not get on."""

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class Trouble(logging.Handler):
    """Listens to the log. `told` and `saved` may be called from any thread."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._now_s = now_s
        self._first: tuple[float, BaseException] | None = None
        self._fault: tuple[float, float, Exception] | None = None
        """When the first and the last of faults in a row came up, and the last one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Look for an error of the store in what is logged."""
        found = record.exc_info[1] if record.exc_info else None
        arguments = record.args if isinstance(record.args, tuple) else ()
        for each in (found, *arguments):
            if isinstance(each, BaseException):
                self.told(each)
        if record.msg in _OF_THE_LOOP and isinstance(found, Exception) and not isinstance(found, OrchestratorError):
            now_s = self._now_s()
            before = self._fault
            is_next = before is not None and now_s - before[1] < PATIENCE_S
            self._fault = (before[0] if before is not None and is_next else now_s, now_s, found)

    def told(self, error: BaseException) -> None:
        """Take an error into account, if it comes from the store."""
        if self._first is None and _is_of_store(error):
            self._first = (self._now_s(), error)

    def saved(self) -> None:
        """A save has succeeded: all is well again."""
        self._first = self._fault = None

    def check(self) -> None:
        """Raise StoreUnavailable, or the fault, once patience is at its end."""
        fault = self._fault
        if fault is not None and self._first is None and fault[1] - fault[0] >= PATIENCE_S:
            raise fault[2]
        first = self._first
        if first is not None and self._now_s() - first[0] >= PATIENCE_S:
            raise StoreUnavailable(f"{first[1]}; given up after {PATIENCE_S:g} s") from first[1]


def _is_of_store(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, StoreUnavailable) or (isinstance(error, OSError) and error.errno in _DISK):
            return True
        error = error.__cause__
    return False
