"""A service's discovery document, as google-api-python-client ships it: its methods, and what a body may hold."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import googleapiclient

DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"


@dataclass(frozen=True)
class Method:
    """One method: `id` as in "batch.projects.locations.jobs.create"."""

    id: str
    verb: str
    pattern: re.Pattern[str]
    query: frozenset[str]
    request: str | None


@dataclass(frozen=True)
class Document:
    """The methods of the collections that were asked for, and all schemas."""

    base: str
    methods: tuple[Method, ...]
    schemas: dict

    def find(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """Return the method that a request is of, with the parameters in its path."""
        for method in self.methods:
            found = method.pattern.fullmatch(path)
            if found and method.verb == verb:
                return method, found.groupdict()
        return None

    def problems(self, body: object, schema: str) -> list[str]:
        """Return what a service would say is wrong with a body: names and types that the schema has not."""
        return list(self._problems(body, {"$ref": schema}, "body"))

    def _problems(self, value: object, schema: dict, path: str):
        schema = self.schemas[schema["$ref"]] if "$ref" in schema else schema
        kind = schema.get("type", "any")
        if value is None or kind == "any":
            return
        if kind == "array":
            if not isinstance(value, list):
                yield f"{path}: is no array"
                return
            for place, inner in enumerate(value):
                yield from self._problems(inner, schema["items"], f"{path}[{place}]")
        elif kind == "object":
            if not isinstance(value, dict):
                yield f"{path}: is no object"
                return
            properties, rest = schema.get("properties", {}), schema.get("additionalProperties")
            for name, inner in value.items():
                inner_schema = properties.get(name, rest)
                if inner_schema is None:
                    yield f'{path}: Invalid JSON payload received. Unknown name "{name}": Cannot find field.'
                else:
                    yield from self._problems(inner, inner_schema, f"{path}.{name}")
        elif not isinstance(value, _PYTHON[kind]) or (isinstance(value, bool) and kind != "boolean"):
            yield f"{path}: Invalid value (TYPE_{kind.upper()}), {value!r}"
        elif value not in schema.get("enum", (value,)):
            yield f"{path}: Invalid value, {value!r} is none of {schema['enum']}"


_PYTHON = {"string": str, "integer": int, "number": (int, float), "boolean": bool}


@cache
def document(name: str, *collections: str) -> Document:
    """Return a document such as "batch.v1", with the methods of these collections."""
    found = json.loads((DOCUMENTS / f"{name}.json").read_text())
    methods = []
    for collection in collections:
        at = found
        for part in collection.split("."):
            at = at["resources"][part]
        methods += [_method(each, found["servicePath"]) for each in at["methods"].values()]
    return Document(found["servicePath"], tuple(methods), found["schemas"])


def _method(method: dict, base: str) -> Method:
    # {+name} of `path` spans slashes: its own pattern says which, `^projects/[^/]+/…$`
    parameters = method["parameters"]
    pattern = ""
    for part in re.split(r"(\{\+?\w+\})", method["path"]):
        named = re.fullmatch(r"\{\+?(\w+)\}", part)
        if named:
            inner = parameters[named[1]].get("pattern", "[^/]+").strip("^$")
            pattern += f"(?P<{named[1]}>{inner})"
        else:
            pattern += re.escape(part)
    query = frozenset(name for name, each in parameters.items() if each["location"] == "query")
    request = method.get("request", {}).get("$ref")
    return Method(method["id"], method["httpMethod"], re.compile(f"/{re.escape(base)}{pattern}"), query, request)
