"""InlineFunction: a Python callable, called inside of the event that launches it.

In the cloud nothing runs between two events, so a Function has to end before its launch returns: it is for
short glue only.
"""

from orchestrator.model.commands import Execution, Launch
from orchestrator.model.enums import Identity
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.targets.callables import NotLoaded, attempt, load


class InlineFunction:
    """Calls `"function": "package.module:callable"` with the parameters as keyword arguments.

    Args:
        limit_s: how long a call may take; the lease of its claim lasts so long.
    """

    identity: Identity = Identity.NONE
    has_outcome: bool = False
    can_cancel: bool = False
    synchronous: bool = True
    id_is_ours: bool = True

    def __init__(self, limit_s: float = 60.0) -> None:
        self.launch_limit_s = limit_s

    def launch(self, launch: Launch) -> Execution:
        """Call the function; return its execution with its outcome. Raises LaunchRefused: no such callable."""
        try:
            function = load(launch.step.get("function"))
        except NotLoaded as exc:
            raise LaunchRefused(f"{launch.node_name}: {exc}", error_type="Function.NotFound") from exc
        outcome, _ = attempt(function, launch.parameters)
        return Execution(launch.key, outcome=outcome)

    def find(self, launch: Launch) -> Execution | None:  # noqa: ARG002 - the port's
        """None: a call that did not return has left nothing."""
        return None

    def outcome(self, execution: Execution) -> None:
        """None: only the call itself knew."""

    def cancel(self, execution: Execution) -> None:
        """A call cannot be stopped. Raises LaunchUncertain."""
        raise LaunchUncertain(f"{execution.execution_id}: a function cannot be stopped, it runs to its end")
