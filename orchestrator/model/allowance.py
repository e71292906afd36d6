"""How much work the expressions of one decision may be, all together. Pure.

Each expression is bounded alone (`model/cel.py`), but a decision evaluates those of all that it starts, and has to be
done well before the leases end that it hands out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_DECISION_WORK = 500_000_000
"""Values that the expressions of one decision may have to touch: ten to twenty-five seconds, of a lease of sixty."""


class Allowance:
    """What is left of the work that the expressions of one decision may be.

    Attributes:
        work: how much it was at first.
        is_exceeded: an expression was not evaluated, as it would have been too much.
    """

    def __init__(self, work: int) -> None:
        self.work = self._left = work
        self.is_exceeded = False

    def spend(self, work: int) -> None:
        """Count work that is done already, even if it is more than was left."""
        self._left -= work

    def grants(self, work: int) -> bool:
        """Whether so much more may be done; counted if so."""
        if work > self._left:
            self.is_exceeded = True
            return False
        self._left -= work
        return True


_current: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def current() -> Allowance | None:
    """Return the allowance of the decision under way; None where nothing limits it."""
    return _current.get()


@contextmanager
def allowed(work: int) -> Iterator[Allowance]:
    """Limit the expressions that are evaluated inside."""
    allowance = Allowance(work)
    token = _current.set(allowance)
    try:
        yield allowance
    finally:
        _current.reset(token)
