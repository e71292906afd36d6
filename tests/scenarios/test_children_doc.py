"""The examples of docs/language/children.md run, and its tables are those of the code."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.cli.approve import MAX_REASON
from orchestrator.engine.child_rules import _CLASSES, MAX_RUNS_ABOVE
from orchestrator.model.definition import problems
from orchestrator.model.messages import MAX_DEPTH
from orchestrator.targets.callback import DEFAULT_TIMEOUT_S
from orchestrator.testing import fails, returns, simulate

PAGE = (Path(__file__).resolve().parents[2] / "docs/language/children.md").read_text()
BLOCKS = re.findall(r"^```json\n(.*?)^```\n((?:<!-- .*? -->\n)+)", PAGE, re.DOTALL | re.MULTILINE)
CASES = [(json.loads(text), said) for text, comments in BLOCKS for said in re.findall(r"<!-- (.*?) -->", comments)]


def test_every_example_is_run():
    assert len(BLOCKS) == PAGE.count("```json") == 4
    assert len(CASES) == 5


@pytest.mark.parametrize(("definition", "said"), CASES, ids=[said[:20] for _, said in CASES])
def test_an_example_ends_as_it_says(definition, said):
    several = "steps" not in definition
    for each in definition.values() if several else [definition]:
        assert problems(each) == []
    how, _, ends = said.rpartition("ends: ")
    status, *expected = ends.split("; ")
    targets, dag, given = {}, None, {}
    if found := re.match(r"starts (\w+) with (\{.*\});", how):
        dag, given = found[1], json.loads(found[2])
    elif found := re.match(r"approved with (\{.*\});", how):
        targets = {"Approve": returns(json.loads(found[1]))}
    elif found := re.match(r"rejected with (.*);", how):
        targets = {"Approve": fails("Callback.Rejected", found[1])}
    run = simulate(definition, dag=dag, input=given, targets=targets)
    assert run.status == status
    for each in expected:
        name, _, what = each.partition(": ")
        got = run.state.run.result if name == "the run" else run.result(name)
        assert got == (json.loads(what) if name == "the run" else what)


def test_the_limits_and_classes_are_those_of_the_code():
    assert f"| child runs in one another | {MAX_RUNS_ABOVE} |" in PAGE
    assert f"in an answer's `result` | {MAX_DEPTH} |" in PAGE
    assert f"| {DEFAULT_TIMEOUT_S / 86400:g} days, also without a `timeout` |" in PAGE
    assert f"| {MAX_REASON} | `approve`: `allowed are {MAX_REASON}` |" in PAGE
    for error_class in _CLASSES.values():
        assert f"`{error_class}`" in PAGE
