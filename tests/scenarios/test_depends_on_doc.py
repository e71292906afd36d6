"""docs/language/depends_on.md: its examples run and end as it says, and what it quotes is what is said."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.definition import problems

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs/language/depends_on.md").read_text()
EXAMPLES = re.findall(r"^```json\n(.*?)^```\n<!-- ends: (.*?) -->", TEXT, re.DOTALL | re.MULTILINE)
LIMITS = re.findall(r"^\| .* \| `validate`: (.*) \|$", TEXT, re.MULTILINE)


@pytest.fixture
def warehouse(monkeypatch):
    """The module that the examples' functions are in."""
    module = ModuleType("warehouse")

    def broken():
        raise ValueError("no such table")

    module.load, module.broken = lambda: 7, broken
    monkeypatch.setitem(sys.modules, "warehouse", module)


@pytest.mark.parametrize(("text", "ends"), EXAMPLES)
def test_an_example_ends_as_it_says(warehouse, text, ends):
    definition = json.loads(text)
    assert problems(definition) == []
    with DAGExecutor(definition, "memory://") as executor:
        run = executor.wait(executor.start(input={}), 30)
    first, *others = ends.split("; ")
    assert run.run.status.value == first
    assert {said: run.nodes[said.partition(": ")[0]].status.value for said in others} == {
        said: said.partition(": ")[2] for said in others
    }


def test_all_examples_are_run():
    assert len(EXAMPLES) == TEXT.count("```json") == 2


def test_the_limits_are_said_as_the_page_quotes_them():
    corpus = (ROOT / "tests/definitions/invalid").glob("*.json")
    said = "\n".join(problem for path in corpus for problem in problems(json.loads(path.read_text())))
    quoted = [words for limit in LIMITS for words in re.findall(r"`(.*?)`", limit)]
    assert len(quoted) == 9
    assert [words for words in quoted if words not in said] == []
