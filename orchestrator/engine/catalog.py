"""Catalog: the definitions that may be started, by name."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache

from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.errors import DefinitionError, UnknownDag

ONLY = "dag"
"""Name of a definition that was handed over without one."""


class Catalog:
    """Definitions by name; each is checked and built when it is first started.

    Args:
        definitions: DAG name -> definition.
        default: the DAG of a start that names none; not needed where there is only one.
    """

    def __init__(self, definitions: Mapping[str, Mapping[str, Json]], default: str | None = None) -> None:
        self.definitions = definitions
        self.default = default
        self._build = lru_cache(maxsize=None)(self._built)

    @classmethod
    def of(cls, dag_definition: Mapping[str, Json], default: str | None = None) -> "Catalog":
        """Return the catalog of one definition (which has `steps`), or of several by name."""
        several = all(isinstance(value, Mapping) and "steps" in value for value in dag_definition.values())
        if dag_definition and several:
            return cls({name: value for name, value in dag_definition.items() if isinstance(value, Mapping)}, default)
        return cls({ONLY: dag_definition}, default)

    def find(self, name: str | None) -> tuple[str, Mapping[str, Json], DAG]:
        """Return (name, definition, DAG) of the DAG that a start names.

        Raises:
            UnknownDag: there is none of that name, or none is named and there are several.
            DefinitionError: there is, but it breaks rules.
        """
        names = ", ".join(sorted(self.definitions)) or "none"
        if name is None:
            name = self.default or (next(iter(self.definitions)) if len(self.definitions) == 1 else None)
        if name is None:
            raise UnknownDag(f"start: names no dag and DEFAULT_DAG is not set; there are {names}")
        if name not in self.definitions:
            near = get_close_matches(name, self.definitions, 1)
            hint = f'; did you mean "{near[0]}"?' if near else f"; there are {names}"
            raise UnknownDag(f'start: there is no dag "{name}"{hint}')
        try:
            return name, self.definitions[name], self._build(name)
        except DefinitionError as exc:
            raise DefinitionError([f"{name}: {problem}" for problem in exc.problems]) from exc

    def _built(self, name: str) -> DAG:
        return DAGBuilder(self.definitions[name]).build_dag()
