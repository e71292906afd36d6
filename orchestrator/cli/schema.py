"""`orchestrator schema`: the JSON Schema of a definition."""

from orchestrator.cli.console import Console
from orchestrator.model import schema as definition_schema
from orchestrator.runtime.catalog import as_json


def schema(console: Console) -> int:
    """Write the schema."""
    console.document(as_json(definition_schema.schema()))
    return 0
