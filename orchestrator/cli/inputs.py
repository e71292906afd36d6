"""The input of a run, or its variables, from what stands after --input or --var: files, and name=value pairs."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from orchestrator.cli.lines import printable
from orchestrator.model.commands import Json
from orchestrator.model.errors import InputError
from orchestrator.model.words import kind_of

HOW = "write name=value, or the path of a JSON or YAML file with an object"


def read_inputs(given: Sequence[str], option: str = "--input") -> dict[str, Json]:
    """Return the input that `given` makes up; of equal names the last one counts.

    Args:
        option: what it stands after.
    Raises:
        InputError: one of them is neither a pair nor a file with an object; it names every such one.
    """
    found: dict[str, Json] = {}
    wrong: list[str] = []
    for each in given:
        try:
            found |= _read(option, each)
        except InputError as exc:
            wrong.append(str(exc))
    if wrong:
        raise InputError("\n".join(wrong))
    return found


def _read(option: str, given: str) -> dict[str, Json]:
    where = f"{option} {printable(given)[:200]}"
    name, separator, value = given.partition("=")
    if not separator or "/" in name:
        return _file(where, Path(given))
    if not name:
        raise InputError(f"{where}: has no name; {HOW}")
    return {_text(where, name): _value(_text(where, value))}


def _value(text: str) -> Json:
    """Return what `text` is as JSON, else the text itself: `3`, `true`, `[1, 2]`, and `2026-01-31`, `007`."""
    try:
        value: Json = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    return value


def _text(where: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: is not UTF-8") from None
    return text


def _file(where: str, path: Path) -> dict[str, Json]:
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{where}: there is no such file; {HOW}") from None
    except (OSError, ValueError) as exc:
        raise InputError(f"{where}: cannot be read: {getattr(exc, 'strerror', None) or exc}; {HOW}") from exc
    try:
        value = _yaml(data) if path.suffix in (".yaml", ".yml") else msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _NotYaml) as exc:
        kind = "YAML" if path.suffix in (".yaml", ".yml") else "JSON"
        raise InputError(f"{where}: is no {kind}: {printable(str(exc))}") from exc
    if not isinstance(value, dict):
        raise InputError(f"{where}: is {kind_of(value)}; it must be an object, its keys are the names")
    return value


class _NotYaml(Exception):
    """A text is not YAML, or holds what no JSON is like."""


def _yaml(data: bytes) -> Json:
    import yaml

    try:
        value: Json = msgspec.json.decode(msgspec.json.encode(yaml.safe_load(data)))  # dates become strings
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as exc:
        raise _NotYaml(str(exc)) from exc
    return value
