"""What a simulation is given: definitions, slots of pools, and what it cannot be made of."""

from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path

from orchestrator.engine.catalog import ONLY, Catalog
from orchestrator.model.commands import Json
from orchestrator.model.enums import TargetTypes
from orchestrator.model.grammar_of_runs import MAX_SLOTS
from orchestrator.runtime.catalog import DagFolders, definition_file, locate, read_definition
from orchestrator.testing.errors import SimulationError


def check_given(
    instances: int,
    starts_at: datetime,
    pools: Mapping[str, int],
    cannot_be_cancelled: Collection[str],
    without_outcome: Collection[str],
) -> None:
    """Raise SimulationError for what a world cannot be made of."""
    if instances < 1:
        raise SimulationError(f"instances: is {instances}; allowed: 1 or more")
    if starts_at.utcoffset() is None:
        raise SimulationError(
            f"starts_at: {starts_at} has no time zone; write it as in datetime(2026, 1, 1, tzinfo=UTC)"
        )
    for pool, slots in pools.items():
        if not 1 <= slots <= MAX_SLOTS:
            raise SimulationError(f"pools.{pool}: is {slots}; allowed: 1 to {MAX_SLOTS}")
    for argument, names in (("cannot_be_cancelled", cannot_be_cancelled), ("without_outcome", without_outcome)):
        for name in names:
            if name not in {target_type.value for target_type in TargetTypes}:
                raise SimulationError(f'{argument}: "{name}" is no target type; allowed: {", ".join(TargetTypes)}')


def catalog_of(definition: Mapping[str, Json] | str | Path) -> tuple[Catalog, Mapping[str, Path]]:
    """Return the definitions, and the folder of each DAG that has one."""
    if isinstance(definition, Mapping):
        return Catalog.of(definition), {}
    path = Path(definition)
    if path.is_dir() and definition_file(path) is None:
        dags = DagFolders(path)
        return Catalog(dags), dags.folders
    name, file = locate(path)
    folder = file.resolve().parent
    if definition_file(folder) is not None and folder.name == name:
        dags = DagFolders(folder.parent)
        return Catalog(dags, name), dags.folders
    return Catalog({name or ONLY: read_definition(file)}), {name: folder}


class AnyPools(dict[str, int]):
    """Slots by pool: of one that is not named, so many that nothing waits."""

    def __contains__(self, pool: object) -> bool:
        return True

    def __missing__(self, _: str) -> int:
        return MAX_SLOTS

    def get(self, pool: str, _: object = None) -> int:
        """Return how many slots a pool has."""
        return self[pool]
