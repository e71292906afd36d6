"""Run a definition in a unit test: fake targets, virtual time, injected failures.

    from orchestrator.testing import fails, returns, simulate, takes

    def test_a_failed_load_is_told():
        run = simulate("dag_definitions/load", input={"day": "2026-01-01"},
                       targets={"Extract": returns({"rows": 3}), "Load": fails("Task.Failed"), "Slow": takes("3d")})
        assert run.status == "Failed"
        assert run.path == ["Extract", "Load"]
        assert run.launches("Load")[0].parameters == {"rows": 3}

The engine is the real one; only what its targets run is fake, and its time. docs/language/testing.md has it all.
"""

from orchestrator.testing.behaviours import (
    Behaviour,
    calls,
    computes,
    fails,
    in_turn,
    is_cancelled,
    is_lost,
    never_ends,
    refuses,
    returns,
    takes,
)
from orchestrator.testing.errors import OutOfTime, SimulationError, WaitsForEver
from orchestrator.testing.faults import Faults
from orchestrator.testing.one_run import simulate
from orchestrator.testing.real_steps import really
from orchestrator.testing.simulated_run import SimulatedRun
from orchestrator.testing.simulation import Simulation

__all__ = [
    "Behaviour",
    "Faults",
    "OutOfTime",
    "SimulatedRun",
    "Simulation",
    "SimulationError",
    "WaitsForEver",
    "calls",
    "computes",
    "fails",
    "in_turn",
    "is_cancelled",
    "is_lost",
    "never_ends",
    "really",
    "refuses",
    "returns",
    "simulate",
    "takes",
]
