"""The log line that a run leaves at its end: what an alert on failed runs looks for."""

import logging

from orchestrator.model.enums import RunStatus
from orchestrator.model.run_state import RunState

log = logging.getLogger("orchestrator")


def log_end(state: RunState) -> None:
    """Log a run that has ended, as an error where it failed; for `on_saved`, which is told of every state."""
    run = state.run
    if not run.status.is_final:
        return
    why = f": {run.error.error_type}: {run.error.message}" if run.error is not None else ""
    level = logging.ERROR if run.status is RunStatus.FAILED else logging.INFO
    log.log(
        level, "run ended: %s: %s of %s%s", run.status.value, run.run_id, run.dag, why, extra={"run_id": run.run_id}
    )
