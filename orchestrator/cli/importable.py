"""Whether a Function can be imported in the orchestrator's zip, found without importing anything.

Its own modules are followed, import by import; the standard library and the packages of requirements.txt are looked up
as they are installed here, as far as they are.
"""

import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from orchestrator.cli.function_source import Import, Module, parse
from orchestrator.cli.requirements import Requirements
from orchestrator.model.words import did_you_mean

NOT_PACKED = ("functions", "pipelines", "data")
"""Folders of a DAG that are not in the orchestrator's zip."""

_PACKED = ("dag_definitions", "orchestrator", "main")
"""What is in the zip, by the name of its top-level module."""


class Zip:
    """The orchestrator's zip, as it is made of a folder.

    Args:
        root: the folder that is deployed; None: of what is not in the standard library nothing can be told.
    """

    def __init__(self, root: Path | None) -> None:
        self._root = root
        self._requirements = Requirements.read(root / "requirements.txt") if root is not None else None

    def problems(self, function: str) -> Iterator[str]:
        """Yield why `package.module:callable` could not be called there."""
        module, _, name = function.partition(":")
        first = module.partition(".")[0]
        if first in _PACKED and self._root is not None:
            yield from self._own(module, name, self._root)
        elif first in _PACKED:
            return
        elif first in sys.stdlib_module_names or self._provides(first):
            yield from _installed(module, name)
        elif self._root is not None and self._is_missing(first):
            yield (
                f"{module} cannot be imported there; what is deployed is dag_definitions/, orchestrator/, main.py and "
                "the packages of requirements.txt"
            )

    def _provides(self, first: str) -> bool:
        return self._requirements is not None and bool(self._requirements.provide(first))

    def _is_missing(self, first: str) -> bool:
        """Whether a top-level module that is neither packed nor of the standard library is certainly not there."""
        provided = self._requirements.provide(first) if self._requirements else None
        if provided is None and self._root is not None:
            return (self._root / f"{first}.py").is_file() or (self._root / first).is_dir()
        return provided is False

    def _own(self, module: str, name: str, root: Path) -> Iterator[str]:
        file, why = _own_file(module, root)
        if file is None:
            yield why
            return
        try:
            found = parse(file)
        except ValueError as exc:
            yield f"{file}: {exc}"
            return
        if found.names is not None and name not in found.names:
            hint = did_you_mean(name, found.names)
            yield f'{file} defines no "{name}"{f";{hint}" if hint else ""}'
        yield from self._imports(module, file, found, root)

    def _imports(self, module: str, file: Path, found: Module, root: Path) -> Iterator[str]:
        """What the modules lack that loading this one loads, each told once; orchestrator/ itself lacks nothing."""
        waiting = [(module, file, found)]
        seen = {module}
        while waiting:
            module, file, found = waiting.pop(0)
            for each in found.imports:
                wanted = _absolute(each, module, is_package=file.name == "__init__.py")
                first = wanted.partition(".")[0]
                where = f"{file}:{each.line}"
                if first not in _PACKED:
                    if first not in sys.stdlib_module_names and self._is_missing(first):
                        yield f"{where}: imports {wanted}, which is neither packed nor of a package of requirements.txt"
                    continue
                for name in _modules_of(wanted, each, root):
                    if name in seen or name.startswith("orchestrator"):
                        continue
                    seen.add(name)
                    own, why = _own_file(name, root)
                    if own is None:
                        yield f"{where}: imports {name}: {why}"
                        continue
                    try:
                        waiting.append((name, own, parse(own)))
                    except ValueError as exc:
                        yield f"{own}: {exc}"


def _absolute(each: Import, module: str, *, is_package: bool) -> str:
    """The module that an import in `module` names."""
    if not each.level:
        return each.module
    above = module.split(".")
    above = above[: len(above) - each.level + (1 if is_package else 0)]
    return ".".join([*above, *([each.module] if each.module else [])])


def _modules_of(wanted: str, each: Import, root: Path) -> list[str]:
    """The modules that it loads: the one that it names, or, of a folder without an __init__.py, those taken from it."""
    folder = root.joinpath(*wanted.split("."))
    is_plain_folder = folder.is_dir() and not (folder / "__init__.py").is_file()
    inside = [f"{wanted}.{name}" for name in each.names]
    parts = wanted.split(".")
    packages = [".".join(parts[:length]) for length in range(1, len(parts))]
    around = [name for name in packages if root.joinpath(*name.split("."), "__init__.py").is_file()]
    if is_plain_folder:
        return [*around, *inside]
    return [*around, wanted, *(name for name in inside if _file_of(name, root) is not None)]


def _file_of(module: str, root: Path) -> Path | None:
    bare = root.joinpath(*module.split("."))
    return next((file for file in (bare / "__init__.py", bare.with_suffix(".py")) if file.is_file()), None)


def _own_file(module: str, root: Path) -> tuple[Path | None, str]:
    """Return the file of a module of the zip, or why it is not there."""
    parts = module.split(".")
    if parts[0] == "dag_definitions" and len(parts) > 2 and parts[2] in NOT_PACKED:
        return None, f"{'/'.join(parts[:3])}/ is not deployed with the orchestrator; move {parts[-1]}.py out of it"
    file = _file_of(module, root)
    return file, "" if file else f"there is no module {module}; it would be {root.joinpath(*parts)}.py"


def _installed(module: str, name: str) -> Iterator[str]:
    """What is wrong with a callable of an installed module; nothing, where that cannot be told."""
    if module in sys.builtin_module_names:
        if not hasattr(__import__(module), name):  # it is part of the interpreter: nothing is loaded
            yield f'{module} defines no "{name}"'
        return
    places: list[str] | None = None
    for part in (parts := module.split(".")):
        # The part alone: its whole name would have the finder look for what is loaded of its package.
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            if places is not None:  # of a package that is here
                yield f"there is no module {module}"
            return
        places = None if spec.submodule_search_locations is None else list(spec.submodule_search_locations)
        if places is None and part != parts[-1]:
            yield f"there is no module {module}; {part} is no package"
            return
    origin = spec.origin if spec is not None and spec.has_location else None
    if origin is None or not origin.endswith(".py"):
        return
    try:
        found = parse(Path(origin))
    except ValueError:
        return
    if found.names is not None and name not in found.names:
        hint = did_you_mean(name, found.names)
        yield f'{module} defines no "{name}"{f";{hint}" if hint else ""}'
