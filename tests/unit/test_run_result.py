"""The result of a run: what its definition says, else that of its last step; of a run that completed only."""

import pytest

from orchestrator import DAGExecutor
from orchestrator.model.definition import problems
from orchestrator.model.run_state import run_result


def passing(result, following=None):
    return {"type": "Pass", "result": result} | ({"next": following} if following else {})


def definition(*, steps=None, **keys):
    return {"start": "A", "steps": steps or {"A": passing(1, "B"), "B": passing([2])}, **keys}


def ended(made, **given):
    with DAGExecutor(made, "memory://") as executor:
        run = executor.wait(executor.start(input=given), 20)
        return run, executor.result_of_run(run)


@pytest.mark.parametrize(
    ("made", "result", "result_of"),
    [
        pytest.param(definition(), [2], "B", id="that of the last step"),
        pytest.param(definition(result={"a": "${steps.A.result}"}), {"a": 1}, None, id="what the definition says"),
        pytest.param(definition(result=None), None, None, id="null is a result too"),
        pytest.param(definition(steps={"A": passing(1, "E"), "E": {"type": "End"}}), None, None, id="an End has none"),
        pytest.param(
            definition(steps={"A": {"type": "Parallel", "branches": [{"start": "B", "steps": {"B": passing(1)}}]}}),
            None,
            None,
            id="a Parallel has none",
        ),
        pytest.param(definition(steps={"A": passing(None)}), None, None, id="a last step without one"),
        pytest.param(
            {"steps": {"A": passing(1), "B": passing(2), "C": {**passing(3), "depends_on": ["A", "B"]}}},
            3,
            "C",
            id="of the only last step of several that depend on others",
        ),
        pytest.param(
            {
                "steps": {
                    "A": passing(1),
                    "B": {**passing(2), "depends_on": ["A"]},
                    "C": {**passing(3), "depends_on": ["A"]},
                }
            },
            None,
            None,
            id="of several last steps none",
        ),
        pytest.param(
            definition(result="${steps.A.result}", **{"finally": {"start": "F", "steps": {"F": passing(9)}}}),
            1,
            None,
            id="made before the finally",
        ),
        pytest.param(
            definition(**{"finally": {"start": "F", "steps": {"F": passing(9)}}}),
            [2],
            "B",
            id="not that of the finally",
        ),
    ],
)
def test_a_run_that_completed_has_the_result(made, result, result_of):
    run, got = ended(made)
    assert (run.run.status, got, run.run.result_of) == ("Completed", result, result_of)


def test_a_result_that_asks_for_what_is_not_there_fails_the_run_and_its_finally_knows():
    made = definition(
        result="${steps.A.result.rows}", **{"finally": {"start": "F", "steps": {"F": passing("${error.type}")}}}
    )
    run, result = ended(made)
    assert (run.run.status, run.run.error.error_type, result) == ("Failed", "Run.BadResult", None)
    assert "steps.A.result.rows" in run.run.error.message
    assert run.nodes["F"].result == "Run.BadResult"


def test_a_step_that_was_not_come_by_has_no_result_to_ask_for():
    choice = {"type": "Condition", "choices": [{"when": "${run.input.ok}", "next": "B"}], "default": "C"}
    made = definition(steps={"A": choice, "B": passing(1), "C": passing(2)}, result="${steps.B.result}")
    assert ended(made, ok=True)[1] == 1
    assert ended(made, ok=False)[0].run.error.error_type == "Run.BadResult"


def test_a_run_whose_finally_fails_has_no_result():
    bad = {"start": "F", "steps": {"F": passing("${run.input.nothing}")}}
    for made in (definition(**{"finally": bad}), definition(result=[1], **{"finally": bad})):
        run, result = ended(made)
        assert (run.run.status, run_result(run), result) == ("Failed", (None, None), None)


def test_a_large_result_lies_beside_the_document_and_is_made_of_large_ones():
    large = ["x" * 1000] * 100
    made = definition(steps={"A": passing(large)}, result={"all": "${steps.A.result}"})
    run, result = ended(made)
    assert run.run.stored_result is not None
    assert run.run.result is None
    assert result == {"all": large}


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ("${steps.Z.result}", "result: ${steps.Z.result}: no step named"),
        ("${steps.F.result}", 'result: ${steps.F.result}: "F" is in "finally"; the run\'s result is made before that'),
        ("${error.message}", 'result: ${error.message}: there is no "error" here'),
        ("${secret.key}", "result: ${secret.key}: is kept nowhere"),
        ({"a": ["${"]}, "result.a[0]: "),
    ],
)
def test_what_a_result_cannot_ask_about(result, problem):
    made = definition(result=result, **{"finally": {"start": "F", "steps": {"F": passing(9)}}})
    (found,) = problems(made)
    assert found.startswith(problem)


def test_the_large_results_that_a_result_asks_for_are_fetched_at_once(monkeypatch):
    from orchestrator.engine.large_results import LargeResults

    fetched = []
    real = LargeResults.brought_back

    def noted(self, state, needed, ahead=()):
        fetched.append({needed, *ahead})
        return real(self, state, needed, ahead)

    monkeypatch.setattr(LargeResults, "brought_back", noted)
    names = [f"S{n}" for n in range(5)]
    large = ["x" * 1000] * 100
    steps = {name: passing(large, after) for name, after in zip(names, [*names[1:], "W"], strict=True)}
    steps["W"] = {"type": "Wait", "for": "1ms"}
    sizes = {name: f"${{size(steps.{name}.result)}}" for name in names}
    _run, result = ended({"start": "S0", "steps": steps, "result": sizes})
    assert result == dict.fromkeys(names, 100)
    assert fetched == [set(names)]
