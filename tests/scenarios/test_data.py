"""Data between steps, through the public surface; what docs/language/data.md says of it is run here."""

import json
import re
from pathlib import Path

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.definition import problems
from orchestrator.model.errors import ExpressionError
from orchestrator.model.expressions import resolve
from tests.support.world import task

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "language" / "data.md").read_text()
BLOCKS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)]


def run(definition: dict, input: dict, **settings):
    """Run a definition to its end, in memory; return the run."""
    with DAGExecutor(definition, "memory://", **settings) as executor:
        return executor.wait(executor.start(input=input), timeout_s=30)


def function(**keys) -> dict:
    return {"type": "Task", "target_type": "Function", "function": "builtins:dict", **keys}


def test_the_first_example_gives_what_the_page_says():
    definition, result = BLOCKS[:2]
    (said,) = re.findall(r"With the input `(.*?)` the result of `Report` is", DOC)
    done = run(definition, json.loads(said))
    assert done.run.status == "Completed"
    assert done.nodes["Report"].result == result


@pytest.mark.parametrize(("text", "message"), re.findall(r"^\| `(\$\{.*?\})` \| `(.*)` \|$", DOC, re.MULTILINE))
def test_the_errors_are_those_of_the_page(text, message):
    with pytest.raises(ExpressionError) as caught:
        resolve(text, {"run": {"input": {}}, "steps": {"Count": {"result": {"rows": 3}, "status": "Completed"}}})
    assert str(caught.value) == message


def test_what_cannot_be_read_is_found_by_validation_with_path_and_column():
    definition = {"start": "A", "steps": {"A": task(parameters={"x": ["${run.input.n +}"]})}}
    assert [problem.partition(";")[0] for problem in problems(definition)] == [
        'steps.A.parameters.x[0]: column 16 of "${run.input.n +}": unexpected end'
    ]


def test_a_missing_key_fails_the_step_and_is_named():
    done = run({"start": "A", "steps": {"A": function(parameters={"x": "${run.input.dya + '!'}"})}}, {"day": "x"})
    assert done.run.status == "Failed"
    assert done.nodes["A"].error.error_type == "Task.BadParameters"
    assert done.nodes["A"].error.message == (
        '${run.input.dya + \'!\'}: run.input has no "dya"; did you mean "day"? it has "day"'
    )


def test_what_might_take_too_long_fails_the_step_at_once():
    text = "${run.input.x.map(a, run.input.x + run.input.x)}"
    done = run({"start": "A", "steps": {"A": function(parameters={"x": text})}}, {"x": list(range(9000))})
    assert done.run.status == "Failed"
    assert "might take too long" in done.nodes["A"].error.message
