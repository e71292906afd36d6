"""The rules for child runs: which launch of a Dag Task may make one, and what one that made none ends with. Pure."""

from orchestrator.model.commands import Launch
from orchestrator.model.errors import (
    DefinitionError,
    InputRejected,
    LaunchRefused,
    LaunchUncertain,
    OrchestratorError,
    RunExists,
    SettingsError,
    UnknownDag,
)
from orchestrator.model.messages import MAX_DEPTH as MAX_INPUT_DEPTH
from orchestrator.model.messages import is_too_deep

MAX_RUNS_ABOVE = 8
"""How many runs may stand above one another: a DAG that starts itself ends there."""

_CLASSES: dict[type[OrchestratorError], str] = {
    UnknownDag: "Dag.NotFound",
    DefinitionError: "Dag.BadDefinition",
    InputRejected: "Dag.BadInput",
    SettingsError: "Dag.NoVariable",
    RunExists: "Dag.RunExists",
}
"""Why a child run cannot be made -> the class of the error that its step fails with."""


def check_child(launch: Launch) -> None:
    """Raise LaunchRefused for a child run that is not to be made at all."""
    if launch.depth >= MAX_RUNS_ABOVE:
        raise LaunchRefused(
            f"{launch.node_name}: {launch.depth} runs stand above this one already; allowed are {MAX_RUNS_ABOVE} "
            "child runs in one another; does a DAG start itself?",
            error_type="Dag.TooDeep",
        )
    if is_too_deep(launch.parameters):
        raise LaunchRefused(
            f"{launch.node_name}: its parameters are nested too deeply; allowed are {MAX_INPUT_DEPTH} levels",
            error_type="Dag.BadInput",
        )


def refusal_of(error: OrchestratorError, launch: Launch) -> LaunchRefused | LaunchUncertain:
    """Return what a launch that made no child run ends with."""
    if isinstance(error, LaunchRefused | LaunchUncertain):
        return error
    if error.retry:
        return LaunchUncertain(f"{launch.launch_id}: its child run cannot be made now: {error}")
    return LaunchRefused(f"{launch.node_name}: {error}", error_type=_CLASSES.get(type(error), "Launch.Refused"))
