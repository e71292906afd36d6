"""What a simulation raises when it cannot go on: SimulationError > WaitsForEver, OutOfTime."""

from orchestrator.model.errors import OrchestratorError


class SimulationError(OrchestratorError):
    """A simulation was set up wrong, or cannot go on."""


class WaitsForEver(SimulationError):
    """A run has not ended, and nothing that could end it will ever come; says what it waits for."""


class OutOfTime(SimulationError):
    """A run has not ended within the virtual time that it was given; says what it waits for."""
