"""Variables of an environment (project, region, buckets), from the setting VARIABLES: outside of all definitions."""

from pathlib import Path

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.words import kind_of

HOW = 'write a JSON object, {"name": value}, or the path of a JSON or YAML file with one'


def read_variables(text: str) -> dict[str, Json]:
    """Return the variables that a text says: a JSON object, or the path of a file that holds one.

    Raises:
        ValueError: it is neither.
    """
    if not text:
        return {}
    if text.lstrip().startswith("{"):
        return _object(_decoded(text.encode(), ""))
    path = Path(text)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as exc:
        raise ValueError(f'"{text}" cannot be read: {getattr(exc, "strerror", None) or exc}; {HOW}') from exc
    return _object(_decoded(data, path.suffix))


def _decoded(data: bytes, suffix: str) -> Json:
    value: Json
    try:
        if suffix in (".yaml", ".yml"):
            import yaml

            try:
                value = msgspec.json.decode(msgspec.json.encode(yaml.safe_load(data)))  # dates become strings
            except yaml.YAMLError as exc:
                raise ValueError(str(exc)) from exc
        else:
            value = msgspec.json.decode(data)
    except (ValueError, TypeError, RecursionError) as exc:
        raise ValueError(f"is no {'YAML' if suffix in ('.yaml', '.yml') else 'JSON'}: {exc}; {HOW}") from exc
    return value


def _object(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"is {kind_of(value)}; {HOW}")
    return value
