"""What a PATH on the command line names: one DAG, or a folder of them."""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.model.commands import Json
from orchestrator.model.dag import DAG
from orchestrator.model.definition import problems
from orchestrator.model.errors import DefinitionError
from orchestrator.runtime.catalog import DagFolders, definition_file, locate, read_definition


@dataclass(frozen=True, slots=True)
class Written:
    """A definition as it was written, whether it breaks rules or not, and where it comes from."""

    name: str
    file: Path
    definition: dict[str, Json]

    @property
    def folder(self) -> Path:
        """Where its functions/ and pipelines/ are."""
        return self.file.parent

    def problems(self) -> list[str]:
        """Return the rules that it breaks, each with its path."""
        return problems(self.definition)

    def loaded(self) -> "Loaded":
        """Build its DAG. Raises DefinitionError with all its problems."""
        found = self.problems()
        if found:
            raise DefinitionError([f"{self.file}: {problem}" for problem in found])
        return Loaded(self.name, self.file, self.definition, DAG(self.definition))


@dataclass(frozen=True, slots=True)
class Loaded(Written):
    """A definition that breaks no rule."""

    dag: DAG


def find(path: Path) -> tuple[str, Path]:
    """Return (DAG name, definition file) of a PATH. Raises DefinitionError, which names what is there instead."""
    if path.is_dir() and definition_file(path) is None:
        names = list(DagFolders(path))
        if names:
            inside = ", ".join(str(path / name) for name in names)
            raise DefinitionError([f"{path}: holds several DAGs; name one of {inside}"])
    return locate(path)


def find_all(path: Path) -> list[tuple[str, Path]]:
    """Return (DAG name, definition file) of every DAG that a PATH names: itself, or those in it."""
    if path.is_dir() and definition_file(path) is None:
        found = [locate(folder) for folder in DagFolders(path).folders.values()]
        if found:
            return found
    return [locate(path)]


def load(path: Path) -> Loaded:
    """Return the one DAG that a PATH names. Raises DefinitionError with all its problems."""
    return load_file(*find(path))


def load_file(name: str, file: Path) -> Loaded:
    """Read a definition file and build its DAG. Raises DefinitionError with all its problems."""
    return read_file(name, file).loaded()


def read_file(name: str, file: Path) -> Written:
    """Read a definition file. Raises DefinitionError, if it cannot be read; its rules are not checked here."""
    return Written(name, file, dict(read_definition(file)))
