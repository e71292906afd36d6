"""Definitions on disk: one folder a DAG, with its dag.json or dag.yaml and what its tasks run."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.errors import DefinitionError

FILE_NAMES = ("dag.json", "dag.yaml", "dag.yml")

_MAX_NAME_BYTES = 255
"""No file system has a folder of a longer name; to ask it for one is an error."""


class DagFolders(Mapping[str, Mapping[str, Json]]):
    """DAG name -> definition, of the folders in one folder; each is read when it is first asked for.

    A subfolder without a dag.json or dag.yaml is no DAG.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[str, Mapping[str, Json]] = {}

    def __getitem__(self, name: str) -> Mapping[str, Json]:
        if name not in self._read:
            is_inside = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
            is_inside = is_inside and len(name.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES
            path = definition_file(self.root / name) if is_inside else None
            if path is None:
                raise KeyError(name)
            self._read[name] = read_definition(path)
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if definition_file(folder) is not None:
                    yield folder.name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @property
    def folders(self) -> Mapping[str, Path]:
        """DAG name -> its folder."""
        return {name: self.root / name for name in self}


def definition_file(folder: Path) -> Path | None:
    """Return the dag.json or dag.yaml of a folder, or None if it has none."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def locate(path: Path) -> tuple[str, Path]:
    """Return (DAG name, definition file) of what a user named: a DAG's folder, or its file.

    Raises:
        DefinitionError: there is no such file, or no definition in the folder.
    """
    if path.is_dir():
        found = definition_file(path)
        if found is None:
            raise DefinitionError([f"{path}: has no {' or '.join(FILE_NAMES[:2])}"])
        return path.resolve().name, found
    if not path.exists():
        raise DefinitionError([f"{path}: there is no such file or folder"])
    return (path.resolve().parent.name if path.name in FILE_NAMES else path.stem), path


def read_definition(path: Path) -> Mapping[str, Json]:
    """Read a definition file: JSON, or YAML where its name says so.

    Raises:
        DefinitionError: it cannot be read or parsed, or is no object. Its rules are not checked here.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise DefinitionError([f"{path}: cannot be read: {exc}"]) from exc
    definition = _yaml(path, text) if path.suffix in (".yaml", ".yml") else _json(path, text)
    if not isinstance(definition, dict):
        raise DefinitionError([f"{path}: is {_kind(definition)}; a definition is an object with start and steps"])
    return definition


def _json(path: Path, text: str) -> Json:
    import json

    doubled: list[str] = []

    def pairs(items: list[tuple[str, Json]]) -> dict[str, Json]:
        seen: dict[str, Json] = {}
        for key, value in items:
            if key in seen:
                doubled.append(f'{path}: the key "{key}" stands twice in one object')
            seen[key] = value
        return seen

    try:
        value: Json = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as exc:
        raise DefinitionError([f"{path}:{exc.lineno}:{exc.colno}: is no JSON: {exc.msg}"]) from exc
    except RecursionError as exc:
        raise DefinitionError([f"{path}: is nested too deeply"]) from exc
    except ValueError as exc:  # Python reads no whole number of more than 4,300 digits
        raise DefinitionError([f"{path}: holds a number that is too long: {exc}"]) from exc
    if doubled:
        raise DefinitionError(doubled)
    return value


def _yaml(path: Path, text: str) -> Json:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that reports a key that stands twice, which YAML forbids and PyYAML swallows."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Json, Json]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                mark = key.start_mark
                raise DefinitionError(
                    [f'{path}:{mark.line + 1}:{mark.column + 1}: the key "{key.value}" stands twice in one object']
                )
            seen.add(key.value)
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    try:
        return yaml.load(text, Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else f"{path}"
        raise DefinitionError([f"{where}: is no YAML: {getattr(exc, 'problem', None) or exc}"]) from exc
    except (RecursionError, ValueError, TypeError) as exc:
        raise DefinitionError([f"{path}: is no YAML that makes a definition: {exc}"]) from exc


def _kind(value: Json) -> str:
    return {type(None): "empty", list: "a list", str: "a string"}.get(type(value), f"a {type(value).__name__}")


def as_json(value: Json) -> bytes:
    """Return a value as indented JSON for a person to read."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2)
