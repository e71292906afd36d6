"""simulate: one run of a definition, to its end, for a test that needs no more than that."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.model.commands import EMPTY, Json
from orchestrator.testing.faults import Faults
from orchestrator.testing.simulated_run import SimulatedRun
from orchestrator.testing.simulation import Simulation
from orchestrator.testing.told import Does


def simulate(
    definition: Mapping[str, Json] | str | Path,
    *,
    input: Mapping[str, Json] = EMPTY,  # noqa: A002 - the word of the start message
    dag: str | None = None,
    targets: Mapping[str, Does] = EMPTY,  # type: ignore[assignment]  # EMPTY is shared, and holds nothing
    default: Does | None = None,
    variables: Mapping[str, Json] = EMPTY,
    seed: int = 0,
    faults: Faults | None = None,
    instances: int = 1,
    cancel_after: str | None = None,
    within: str = "400d",
    secrets: Mapping[str, str] | None = None,
    pools: Mapping[str, int] = EMPTY,  # type: ignore[assignment]  # as above
) -> SimulatedRun:
    """Run a definition once, to its end, on fake targets and in virtual time.

    Args:
        definition, targets, default, seed, faults, instances, variables, secrets, pools: as Simulation has them.
        input: the run's.
        dag: which of several definitions to start.
        cancel_after: cancel the run after this virtual time.
        within: how much virtual time it is given.
    Raises:
        WaitsForEver: the run would never end; says what it waits for.
        OutOfTime: it has not ended within that virtual time.
        DefinitionError, UnknownDag, …: what the engine says of the definition and the start.
    """
    world = Simulation(
        definition,
        targets=targets,
        default=default,
        seed=seed,
        faults=faults,
        instances=instances,
        variables=variables,
        secrets=secrets,
        pools=pools,
    )
    try:
        run_id = world.start(input, dag=dag)
        if cancel_after is not None:
            world.cancel(run_id, "told to", after=cancel_after)
        return world.finish(run_id, within=within)
    finally:
        world.close()
