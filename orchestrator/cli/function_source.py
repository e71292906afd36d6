"""The source of a function as it will be deployed: what is wrong with it, found without running it."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.requirements import Requirements
from orchestrator.model.words import did_you_mean

_ALWAYS = {"functions_framework", "flask", "werkzeug", "cloudevents", "orchestrator"}
"""What every function can import: its server, and the package that is packed with a function that uses it."""


@dataclass(frozen=True, slots=True)
class Import:
    """An import that a source file cannot be loaded without.

    Attributes:
        module: dotted; "" of `from . import x`.
        names: what is taken out of it, each of which may be a module too.
        level: how many dots it begins with.
    """

    module: str
    names: tuple[str, ...]
    level: int
    line: int

    @property
    def first(self) -> str:
        """The top-level module; "" of a relative import."""
        return "" if self.level else self.module.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed source file.

    Attributes:
        names: what it defines at its top level; None where that cannot be told (a star import, a `__getattr__`).
        imports: what it cannot be loaded without: not what stands in a try, an if or a function.
    """

    names: frozenset[str] | None
    imports: tuple[Import, ...]


def parse(path: Path) -> Module:
    """Parse a source file. Raises ValueError, which says what is wrong with it."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except SyntaxError as exc:
        raise ValueError(f"line {exc.lineno}: is no Python: {exc.msg}") from exc
    except (OSError, ValueError) as exc:
        raise ValueError(f"cannot be read: {exc}") from exc
    names: set[str] = set()
    imports: list[Import] = []
    is_open = any(_makes_names(node) for node in ast.walk(tree))
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases):
                names |= {(alias.asname or alias.name).partition(".")[0] for alias in aliases}
                imports += [Import(alias.name, (), 0, statement.lineno) for alias in aliases]
            case ast.ImportFrom(names=aliases, module=module, level=level):
                names |= {alias.asname or alias.name for alias in aliases}
                taken = tuple(alias.name for alias in aliases if alias.name != "*")
                imports.append(Import(module or "", taken, level, statement.lineno))
            case _:  # an assignment, or a try or if that may hold one
                for node in ast.walk(statement):
                    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                        names.add(node.id)
                    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                        names.add(node.name)
                    elif isinstance(node, ast.Import | ast.ImportFrom):
                        names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return Module(None if is_open else frozenset(names), tuple(imports))


def _makes_names(node: ast.AST) -> bool:
    """Whether it may define names that do not stand there."""
    match node:
        case ast.ImportFrom(names=aliases):
            return any(alias.name == "*" for alias in aliases)
        case ast.FunctionDef(name=name):
            return name == "__getattr__"
        case ast.Call(func=ast.Name(id=name)):
            return name in ("globals", "exec")
        case ast.Call(func=ast.Attribute(attr=name)):
            return name == "_convert_"  # an enum's members, as the standard library has them
    return False


def source_problems(folder: Path, entry_point: str) -> Iterator[str]:
    """Yield what will fail when the function in `folder` is deployed or loaded; each begins with a path."""
    main = folder / "main.py"
    if not main.is_file():
        yield f"{main}: there is no such file; a function's source is its folder's main.py"
        return
    try:
        module = parse(main)
    except ValueError as exc:
        yield f"{main}: {exc}"
        return
    if module.names is not None and entry_point not in module.names:
        hint = did_you_mean(entry_point, module.names)
        yield f'{main}: defines no "{entry_point}", the entry point;{hint or " define it, or name another"}'
    yield from _missing_packages(folder, main, module)
    yield from _unpackable(folder)


def _missing_packages(folder: Path, main: Path, module: Module) -> Iterator[str]:
    file = folder / "requirements.txt"
    project = folder / "pyproject.toml"
    if project.is_file() and not file.is_file():
        # Source: https://docs.cloud.google.com/run/docs/runtimes/python-dependencies
        if "functions-framework" not in project.read_text(encoding="utf-8", errors="replace"):
            yield f"{project}: names no functions-framework; without a requirements.txt nobody else installs it"
        return
    requirements = Requirements.read(file)
    for each in module.imports:
        name = each.first
        is_here = (folder / f"{name}.py").is_file() or (folder / name).is_dir()
        if not name or name in sys.stdlib_module_names or name in _ALWAYS or is_here:
            continue
        if requirements.provide(name) is False:
            yield f"{main}:{each.line}: imports {name}, which nothing in {file} brings; name its package there"


def _unpackable(folder: Path) -> Iterator[str]:
    """Files that Terraform cannot pack: it knows text only."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
        if hidden or path.suffix == ".pyc" or not path.is_file():
            continue
        try:
            path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield f"{path}: is no UTF-8 text, which is all that is packed; keep it in a bucket"
        except OSError as exc:
            yield f"{path}: cannot be read: {exc.strerror or exc}"
