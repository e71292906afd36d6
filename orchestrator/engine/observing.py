"""Telling an observer what an instance does, so that whatever it does with that never harms a run."""

import logging
from collections.abc import Callable

from orchestrator.model.commands import Launch
from orchestrator.ports import Observer

log = logging.getLogger("orchestrator")


class Observed:
    """Hands on to an observer, if there is one; what that raises is logged."""

    def __init__(self, observer: Observer | None) -> None:
        self._observer = observer

    @property
    def is_anybody(self) -> bool:
        """Whether there is one, so that what it is told has to be found out."""
        return self._observer is not None

    def lost(self, run_id: str) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.lost(run_id), run_id)

    def launched(self, launch: Launch, result: str, took_s: float, since_claim_s: float | None) -> None:
        """See Observer."""
        self._tell(lambda observer: observer.launched(launch, result, took_s, since_claim_s), launch.run_id)

    def _tell(self, tell: Callable[[Observer], None], run_id: str) -> None:
        if self._observer is None:
            return
        try:
            tell(self._observer)
        except Exception:
            log.exception("an observer failed; the run goes on", extra={"run_id": run_id})
