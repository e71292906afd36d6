"""What the steps of a simulation were told to do, by the names of steps, of items, or of targets."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches

from orchestrator.engine.catalog import Catalog
from orchestrator.model.commands import Json, Launch
from orchestrator.model.errors import OrchestratorError
from orchestrator.testing.behaviours import Behaviour, computes, returns
from orchestrator.testing.errors import SimulationError
from orchestrator.testing.real_steps import RealSteps

Does = Behaviour | Callable[[dict[str, Json]], object]
"""What a step does: a behaviour, or what is computed from its parameters."""


class Told:
    """Behaviours by name.

    Args:
        targets: name -> what it does.
        default: what others do; None: they return nothing.
        catalog: the definitions that have such names.
        real: what runs the sources of those that are real.
    Raises:
        SimulationError: a name that no definition has, or what no step can do.
    """

    def __init__(self, targets: Mapping[str, Does], default: Does | None, catalog: Catalog, real: RealSteps) -> None:
        self._catalog = catalog
        self._default = real.bound(_behaviour("default", default if default is not None else returns()))
        self._behaviours = {name: real.bound(_behaviour(name, does)) for name, does in targets.items()}
        self._check_names()

    def behaviour_of(self, launch: Launch) -> Behaviour:
        """Return what a launch does."""
        return next((self._behaviours[name] for name in _names_of(launch) if name in self._behaviours), self._default)

    def is_faked(self, launch: Launch) -> bool:
        """Whether a Dag Task is faked: told to be, or there is no definition of its DAG here."""
        if "part" in launch.step:  # of a Map: what is told of its steps is done in it
            return False
        is_told = any(name in self._behaviours for name in _names_of(launch))
        return is_told or launch.target_name not in self._catalog.definitions

    def _check_names(self) -> None:
        """Raise SimulationError where `targets` names what no DAG has."""
        left = dict.fromkeys(name.partition("[")[0] for name in self._behaviours)
        known: dict[str, None] = {}
        launching = set[str]()
        for dag in self._catalog.definitions if left else ():
            try:
                built = self._catalog.find(dag)[2]
            except OrchestratorError:
                continue  # whoever starts it is told
            known.update(dict.fromkeys(node.node_name for node in built.all_nodes))
            known.update(dict.fromkeys(task.target_name for task in built.all_tasks))
            launching.update(name for task in built.all_tasks for name in (task.node_name, task.target_name))
        for name in left:
            if known and name not in known:
                near = get_close_matches(name, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known)}"
                raise SimulationError(f'targets: no step and no target is called "{name}"; {hint}')
            if known and name not in launching:
                raise SimulationError(f'targets: "{name}" is a step that launches nothing; name a Task, or a target')


def _names_of(launch: Launch) -> tuple[str, str, str]:
    """Return the names that a launch may be told of by, the narrowest first."""
    return launch.node_name, launch.node_name.partition("[")[0], launch.target_name


def _behaviour(name: str, does: object) -> Behaviour:
    if isinstance(does, Behaviour):
        return does
    if callable(does):
        return computes(does)
    raise SimulationError(
        f"targets.{name}: is of type {type(does).__name__}; allowed: a behaviour, as in returns({{}}), or a callable"
    )
