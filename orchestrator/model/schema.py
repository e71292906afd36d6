"""The JSON Schema of a definition, for editors and other tools, made from the grammar's table. Pure.

What no schema can say (names that must exist and be unique, cycles, steps that no way leads to, the
contents of expressions, how deep and how long things may be) only `definition.problems` checks.
"""

from orchestrator.model.commands import Json
from orchestrator.model.enums import NodeTypes
from orchestrator.model.grammar import BRANCH, DEFINITION, SHAPES, STEP_NAME_RULE, TASKS
from orchestrator.model.grammar_keys import DIALECT, Key, Kind, Shape, with_schema


def schema() -> dict[str, Json]:
    """Return the schema, JSON Schema 2020-12: a new dict each time."""
    return {
        "$schema": DIALECT,
        "title": "DAG definition",
        "description": "The steps of a data pipeline and the order in which they run.",
        **_object(DEFINITION),
        "$defs": {
            "steps": {
                "type": "object",
                "minProperties": 1,
                "propertyNames": STEP_NAME_RULE.schema(),
                "additionalProperties": {"$ref": "#/$defs/step"},
            },
            "branch": {
                "description": "A branch of a Parallel, the iterator of a Map, the `finally`.",
                **_object(BRANCH),
            },
            "step": {
                "description": "One step.",
                "type": "object",
                **_one_of("type", {node_type: node_type.lower() for node_type in SHAPES}),
            },
            "task": {
                "description": "A step that runs something at a target.",
                **_one_of("target_type", {target: f"task_{target}" for target in TASKS}),
            },
            **{
                node_type.lower(): {"description": shape.noun, **_object(shape)}
                for node_type, shape in SHAPES.items()
                if node_type is not NodeTypes.TASK
            },
            **{f"task_{target}": {"description": shape.noun, **_object(shape)} for target, shape in TASKS.items()},
        },
    }


def _object(shape: Shape) -> dict[str, Json]:
    """Return the schema of an object with the keys of a shape and no others."""
    found: dict[str, Json] = {
        "type": "object",
        "properties": {name: _row(row) for name, row in shape.keys.items()},
        "required": [name for name, row in shape.keys.items() if row.is_required],
        "additionalProperties": False,
    }
    needs: dict[str, Json] = {name: [row.needs] for name, row in shape.keys.items() if row.needs is not None}
    if needs:
        found["dependentRequired"] = needs
    rules: list[Json] = []
    for name, row in shape.keys.items():
        if row.not_with is not None:
            both: dict[str, Json] = {"required": [name, row.not_with]}
            if row.kind is Kind.FLAG:
                both["properties"] = {name: {"const": True}}
            rules.append({"not": both})
        if row.unless is not None:
            rules.append({"anyOf": [{"required": [name]}, {"required": [row.unless]}]})
        if row.unless_in is not None:
            holder, key = row.unless_in
            none_has_it: Json = {"additionalProperties": {"not": {"required": [key]}}}
            one_has_it: Json = {"required": [holder], "properties": {holder: {"not": none_has_it}}}
            rules.append({"anyOf": [{"required": [name]}, one_has_it]})
        if row.unless_requested:
            parts: list[Json] = [{"required": [part]} for part in row.unless_requested]
            requested: Json = {"required": ["request"], "properties": {"request": {"anyOf": parts}}}
            rules.append({"anyOf": [{"required": [name]}, requested]})
        for beside in row.not_requested:
            with_it: Json = {"required": [name, "request"], "properties": {"request": with_schema(beside)}}
            rules.append({"not": with_it})
    return found | {"allOf": rules} if rules else found


def _row(row: Key) -> dict[str, Json]:
    """Return the schema of what a key holds."""
    found = row.schema()
    if row.shape is None:
        return found
    one = _object(row.shape)
    several: dict[str, Json] = {"type": "array", "minItems": 1, "items": one}
    match row.kind:
        case Kind.OBJECT:
            return found | one
        case Kind.OBJECTS:
            return found | several
        case _:
            return found | {"anyOf": [one, several]}


def _one_of(key: str, definitions: dict[str, str]) -> dict[str, Json]:
    """Return the schema of an object whose `key` tells which of `$defs` describes it."""
    choices: list[Json] = [
        {
            "if": {"required": [key], "properties": {key: {"const": word}}},
            "then": {"$ref": f"#/$defs/{name}"},
        }
        for word, name in definitions.items()
    ]
    return {"required": [key], "properties": {key: {"enum": list(definitions)}}, "allOf": choices}
