"""Parameters of a step as BigQuery's query parameters: values beside the query, never text in it. Pure.

A value's type is that of its JSON: STRING, BOOL, INT64, FLOAT64, ARRAY of one of these, STRUCT. A STRING is coerced to
DATE, TIMESTAMP and their like where the query asks for one. Any other type, an empty list's too, is declared in the
step's request, `configuration.query.queryParameters`, by name and `parameterType`; the value comes from here.
Source: https://cloud.google.com/bigquery/docs/parameterized-queries, QueryParameter of the discovery document.
"""

from collections.abc import Iterable, Mapping

from orchestrator.model.commands import Json
from orchestrator.targets.request_parts import text_of


def query_parameters(parameters: Mapping[str, Json], declared: Iterable[Mapping[str, Json]]) -> list[Json]:
    """Return the named parameters of a query.

    Args:
        parameters: name -> JSON value.
        declared: QueryParameters that an author wrote; of one with a name and a type, the type is taken.
    Raises:
        ValueError: a value has no type; says which and why.
    """
    types = {
        each["name"]: each["parameterType"]
        for each in declared
        if isinstance(each.get("name"), str) and each.get("parameterType")
    }
    return [
        {
            "name": name,
            "parameterType": types[name] if name in types else _type_of(value, f"parameters.{name}"),
            "parameterValue": _value_of(value),
        }
        for name, value in parameters.items()
    ]


def _type_of(value: Json, where: str) -> dict[str, Json]:
    match value:
        case bool():
            return {"type": "BOOL"}
        case int():
            return {"type": "INT64"}
        case float():
            return {"type": "FLOAT64"}
        case Mapping():
            fields: list[Json] = [
                {"name": name, "type": _type_of(inner, f"{where}.{name}")} for name, inner in value.items()
            ]
            return {"type": "STRUCT", "structTypes": fields}
        case list():
            return {"type": "ARRAY", "arrayType": _element_type(value, where)}
    return {"type": "STRING"}  # a null too: what it is a null of, nothing tells


def _element_type(values: list[Json], where: str) -> dict[str, Json]:
    if any(isinstance(value, list) or value is None for value in values):
        raise ValueError(f"{where}: is a list with a list or a null in it; an ARRAY of BigQuery holds neither")
    types = [_type_of(value, f"{where}[{place}]") for place, value in enumerate(values)]
    if {"type": "FLOAT64"} in types:  # JSON writes 1.0 as 1 at times
        types = [{"type": "FLOAT64"} if each == {"type": "INT64"} else each for each in types]
    if not types or any(each != types[0] for each in types):
        what = "values of several types" if types else "no value, so that its type cannot be known"
        raise ValueError(f"{where}: is a list with {what}; {_HOW}")
    return types[0]


def _value_of(value: Json) -> dict[str, Json]:
    if isinstance(value, Mapping):
        return {"structValues": {name: _value_of(inner) for name, inner in value.items()}}
    if isinstance(value, list):
        return {"arrayValues": [_value_of(inner) for inner in value]}
    return {"value": None if value is None else text_of(value)}


_HOW = 'declare it in "request", under configuration.query.queryParameters, by its name and parameterType'
