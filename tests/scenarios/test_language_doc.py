"""The examples of docs/language.md run, and end as it says."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.definition import problems
from orchestrator.model.enums import NodeTypes

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "language.md").read_text()
EXAMPLES = re.findall(r"^## (\w+)\n\n```json\n(.*?)^```\n<!-- ends: (.*?) -->", TEXT, re.DOTALL | re.MULTILINE)


@pytest.fixture
def flaky(monkeypatch):
    """The module that the examples' functions are in."""
    module, calls = ModuleType("flaky"), []

    def load():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("try again")
        return {"rows": 7}

    def broken():
        raise ValueError("no such table")

    module.load, module.broken = load, broken
    monkeypatch.setitem(sys.modules, "flaky", module)


def test_there_is_an_example_of_every_type_but_those_of_other_pages():
    used = {step["type"] for _, text, _ in EXAMPLES for step in json.loads(text)["steps"].values()}
    assert used >= set(NodeTypes) - {NodeTypes.ITEM, NodeTypes.PART, NodeTypes.MAP}
    assert len(EXAMPLES) == TEXT.count("```json") == 8


@pytest.mark.parametrize(("name", "text", "ends"), EXAMPLES, ids=[name for name, _, _ in EXAMPLES])
def test_an_example_ends_as_it_says(flaky, name, text, ends):
    definition = json.loads(text)
    assert problems(definition) == []
    with DAGExecutor(definition, "memory://") as executor:
        run = executor.wait(executor.start(input={}), 30)
    first, *others = ends.split("; ")
    assert run.run.status.value == first
    for said in others:
        node, _, what = said.partition(": ")
        state = run.nodes[node]
        assert what in (state.status.value, f"attempt {state.attempt}")
