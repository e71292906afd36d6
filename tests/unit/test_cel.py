"""Expressions that are more than paths: CEL, in our words and within our limits."""

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model import cel_tree
from orchestrator.model.definition import problems
from orchestrator.model.errors import ExpressionError
from orchestrator.model.expressions import compile_condition, parse, steps_in
from orchestrator.model.templates import resolve
from tests.support.world import task

ROOT = Path(__file__).resolve().parents[2]

SCOPE = {
    "run": {"dag": "sample", "input": {"day": "2021-12-12", "n": 3}, "scheduled_for": None},
    "steps": {
        "Count": {
            "result": {
                "words": 42,
                "half": 0.5,
                "none": None,
                "huge": 2**70,
                "list": [1, 2, 3],
                "rows": [{"id": "a", "ok": True}, {"id": "b", "ok": False}],
                "a b": "c",
            },
            "status": "Completed",
        },
        "my-step": {"result": "x", "status": "Completed"},
    },
    "item": {"id": 7, "\0": 8},
    "index": 4,
    "var": {"region": "here", "n": 3},
}


def refused(text: str, scope: Mapping = SCOPE) -> str:
    with pytest.raises(ExpressionError) as caught:
        resolve(text, scope)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${steps.Count.result.words + 1}", 43, id="an int stays one"),
        pytest.param("${steps.Count.result.words > 40}", True, id="true and false"),
        pytest.param("${steps.Count.result.half * 2.0}", 1.0, id="a double stays one, whole or not"),
        pytest.param("${7u}", 7, id="a uint is a number"),
        pytest.param("${null}", None, id="null"),
        pytest.param("${true}", True, id="a literal that looks like a path"),
        pytest.param("${1.5}", 1.5, id="a number that looks like a path"),
        pytest.param("${index-1}", 3, id="a root with an operator right behind it"),
        pytest.param("${run.input.day + 'T00'}", "2021-12-12T00", id="a string"),
        pytest.param("n=${run.input.n + 1}!", "n=4!", id="inside of a text"),
        pytest.param("${{'b': [1, {'c': run.input.n}], 'a': '}'}}", {"a": "}", "b": [1, {"c": 3}]}, id="braces"),
        pytest.param("${steps.Count.result['a b'] + \"}\"}", "c}", id="a brace in a string"),
        pytest.param("${r'\\}' + '''}'''}", "\\}}", id="raw and long strings"),
        pytest.param("${'\\'}' + \"\\\"}\"}", "'}\"}", id="escaped quotes"),
        pytest.param("${steps['my-step'].result + 'y'}", "xy", id="a step whose name has a minus"),
        pytest.param("${run.input.n > 2 ? 'many' : 'few'}", "many", id="a choice"),
        pytest.param("${has(run.input.hour) ? run.input.hour : 0}", 0, id="has() of a key that there is not"),
        pytest.param("${has(run.input.n) ? run.input.n : 0}", 3, id="has() of a key that there is"),
        pytest.param("${run.input.hour == 1 || run.input.n == 3}", True, id="what is true whatever the other side is"),
        pytest.param("${run.scheduled_for == null}", True, id="null compares"),
        pytest.param("${steps.Count.result.rows.filter(r, r.ok).map(r, r.id)}", ["a"], id="filter and map"),
        pytest.param("${steps.Count.result.rows.exists(r, r.id == 'b')}", True, id="exists"),
        pytest.param("${steps.Count.result.list.all(x, x > 0)}", True, id="all"),
        pytest.param("${steps.Count.result.list[size(steps.Count.result.list) - 1]}", 3, id="a place that is computed"),
        pytest.param("${'n' in run.input}", True, id="in"),
        pytest.param("${run.input.day.matches('^[0-9-]{10}$')}", True, id="a regular expression"),
        pytest.param("${timestamp('2021-12-12T00:00:00Z') + duration('36h')}", "2021-12-13T12:00:00Z", id="a time"),
        pytest.param("${duration('90m')}", "5400s", id="a duration"),
        pytest.param("${duration('1500ms')}", "1.5s", id="a duration of less than seconds"),
        pytest.param("${[timestamp('2021-12-12T00:00:00+01:00')]}", ["2021-12-11T23:00:00Z"], id="a time in a list"),
        pytest.param("${timestamp(run.input.day + 'T00:00:00Z').getDayOfWeek()}", 0, id="a part of a time"),
        pytest.param("${item.id * 2}", 14, id="an item"),
        pytest.param("""${'''a 'var' b''' + r'\\d' + 'var' + "var"}""", "a 'var' b\\dvarvar", id="var in strings"),
        pytest.param("${var.n + {'var': var.n}.var + size(' var ')}", 11, id="variables, though CEL keeps the word"),
        pytest.param("${\n  run.input.n\n  + 1\n}", 4, id="over several lines"),
        pytest.param("$${run.input.n + 1}", "${run.input.n + 1}", id="escaped"),
    ],
)
def test_what_an_expression_becomes(text, value):
    got = resolve(text, SCOPE)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${steps.Count.result.wodrs + 1}",
            '${steps.Count.result.wodrs + 1}: steps.Count.result has no "wodrs"; did you mean "words"? '
            'it has "words", "half", "none", "huge", "list", "rows", "a b"',
        ),
        ("${steps.B.result + 1}", '${steps.B.result + 1}: steps has no "B"; it has "Count", "my-step"'),
        (
            "${steps.Count.result.list[7] + 1}",
            "${steps.Count.result.list[7] + 1}: steps.Count.result.list has no [7]; it is a list of 3, from [0]",
        ),
        ("${run.input.day.x + 1}", '${run.input.day.x + 1}: run.input.day has no "x"; it is a string'),
        ("${run.input[run.dag] + 1}", '${run.input[run.dag] + 1}: key not found in map : "sample"'),
        ("${error.message + 'x'}", '${error.message + \'x\'}: an expression has no "error"; it has "run", "steps", '),
        ("${var.m + 1}", '${var.m + 1}: var has no "m"; it has "region", "n"'),
        ("${run.input.day + 1}", "${run.input.day + 1}: + does not take string and int"),
        ("${steps.Count.result.half + 1}", "${steps.Count.result.half + 1}: + does not take double and int"),
        ("${run.input.n.startsWith('a')}", "${run.input.n.startsWith('a')}: startsWith does not take int and string"),
        ("${size(run.input.n)}", "${size(run.input.n)}: size does not take int"),
        ("${-run.input.day}", "${-run.input.day}: - does not take string"),
        ("${run.input.n ? 1 : 2}", "${run.input.n ? 1 : 2}: is not true or false where that is asked for"),
        ("${run.input.n.map(x, x)}", "${run.input.n.map(x, x)}: a macro goes through a list or an object only"),
        ("${1 / 0}", "${1 / 0}: divide by zero"),
        ("${int(run.input.day)}", "${int(run.input.day)}: cannot convert string to int"),
        ("${9223372036854775807 + run.input.n}", "${9223372036854775807 + run.input.n}: integer overflow"),
        (
            "${steps.Count.result.huge + 1}",
            f"${{steps.Count.result.huge + 1}}: the number {2**70} is too large; allowed: 64 bits",
        ),
        ("${b'abc'}", "${b'abc'}: is bytes, which JSON cannot hold; make a string of it"),
        ("${type(1)}", "${type(1)}: is a type, not a value; JSON holds none"),
        ("${size(item)}", "${size(item)}: takes in an object with a key that has a NUL character"),
        ("${double('nan')}", "${double('nan')}: is nan, which JSON cannot hold"),
        ("${[{1: 2}]}", "${[{1: 2}]}: has the key 1; the keys of JSON are strings"),
    ],
)
def test_what_has_no_value(text, message):
    assert refused(text)[: len(message)] == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${run.input.n +}", 'column 16 of "${run.input.n +}": unexpected end; write as in '),
        ("${run.input.n + + 1}", "column 17 of \"${run.input.n + + 1}\": unexpected '+'; write as in "),
        ("a ${1} ${run.input.n == }", 'column 25 of "a ${1} ${run.input.n == }": unexpected end; '),
        (
            "${\n run.input.n\n + bad}",
            'column 20 of "${\\n run.input.n\\n + bad}": there is no "bad"; there are "run", ',
        ),
        ("${var.n + vra.n}", 'column 11 of "${var.n + vra.n}": there is no "vra"; did you mean "var"?'),
        ("${stesp.A.result > 1}", 'column 3 of "${stesp.A.result > 1}": there is no "stesp"; did you mean "steps"?'),
        ("${1 + 'a'}", "column 5 of \"${1 + 'a'}\": + does not take int and string"),
        ("${true ? 1 : 'a'}", "column 8 of \"${true ? 1 : 'a'}\": the two values of ? : are of different types; "),
        ("${lenght('a')}", 'column 3 of "${lenght(\'a\')}": there is no "lenght"; '),
        ("${size(run) > 0}", '${size(run) > 0}: stops too early; go on to "run_id", "dag", "input", '),
        ("${size(steps) > 0}", "${size(steps) > 0}: stops too early; go on to the name of a step"),
        ("${steps[run.dag].result > 0}", "${steps[run.dag].result > 0}: stops too early; go on to the name of a step"),
        ("${steps.A.reslut > 1}", '${steps.A.reslut > 1}: steps.A has no "reslut"; did you mean "result"? '),
        ("${run.inptu.n > 1}", '${run.inptu.n > 1}: run has no "inptu"; did you mean "input"? '),
        ("${" + "(" * 40 + "1" + ")" * 40 + "}", 'column 3 of "${(((((((((((((((((((((((((((((((((((((((('),
        ("${'" + "a" * 10_000 + "' + 'a'}", "column 3 of \"${'aaaaaaaaaaaaaaaaaaaa"),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert str(caught.value)[: len(message)] == message


def test_the_steps_that_an_expression_asks_about_are_found_in_its_tree():
    inner = "dyn({steps.E.status: [steps.F.result[0]]})"
    text = "${has(steps.A.result) ? steps['b-c'].result.map(steps, steps.D + 1) : " + inner + "}"
    (part,) = parse(text)
    assert steps_in(part) == ("A", "b-c", "E", "F")


def test_validation_holds_what_computes_to_the_same_order_as_paths():
    definition = {
        "start": "A",
        "steps": {
            "A": task(parameters={"x": "${1 + steps.B.result.n}", "y": "${size(steps.C.result)}"}, next="B"),
            "B": task(parameters={"x": "${steps.A.result.n + 1}", "y": "${item.x + index}"}),
        },
    }
    assert problems(definition) == [
        'steps.A.parameters.x: ${1 + steps.B.result.n}: "B" comes later than "A"; '
        'only steps that have ended before "A" starts have a result',
        'steps.A.parameters.y: ${size(steps.C.result)}: no step named "C"; there are "A", "B"',
        'steps.B.parameters.y: ${item.x + index}: there is no "item" here; there is "run", "steps", "var"',
        'steps.B.parameters.y: ${item.x + index}: there is no "index" here; there is "run", "steps", "var"',
    ]


# -- conditions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("${steps.Count.result.words > 40}", True),
        ("${steps.Count.result.words > 50}", False),
        ("${steps.Count.result.rows[0].ok}", True),
        ("${steps.Count.result.rows[1].ok}", False),
        ("${'}' == run.dag}", False),
    ],
)
def test_a_condition_holds_or_not(text, holds):
    assert compile_condition(text)(SCOPE) is holds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${1 + 1}", "${1 + 1}: can never be true or false, as a condition is; compare it"),
        ("x ${true}", '"x ${true}" is no expression; write one, as in ${steps.A.result.is_new}'),
        ("${true}${true}", '"${true}${true}" is no expression; write one, as in ${steps.A.result.is_new}'),
        ("", '"" is no expression; write one, as in ${steps.A.result.is_new}'),
        ("steps.A.result.x > 1", '"steps.A.result.x > 1" is no expression; '),
        ("${}", 'column 3 of "${}": expected an expression; '),
    ],
)
def test_what_is_no_condition(text, message):
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text)
    assert str(caught.value)[: len(message)] == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${run.input.day}", "${run.input.day}: is a string; a condition is true or false"),
        ("${run.scheduled_for}", "${run.scheduled_for}: is null; a condition is true or false"),
        ("${[run.input.n][0]}", "${[run.input.n][0]}: is a number; a condition is true or false"),
    ],
)
def test_a_value_that_is_not_true_or_false_is_no_verdict(text, message):
    with pytest.raises(ExpressionError) as caught:
        compile_condition(text)(SCOPE)
    assert str(caught.value) == message


# -- limits --------------------------------------------------------------------------------------------

MANY = {"run": {"input": {"many": list(range(9000)), "text": "x" * 1000}}, "steps": {}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${run.input.many.map(x, run.input.many + run.input.many).map(l, size(l))}",
            "might take too long with values of this size; allowed: 100,000,000 values touched",
        ),
        ("${run.input.many.map(x, run.input.many)}", "might "),
        ("${" + "[" * 9 + "run.input.text" + "].map(x, x + x)[0]" * 9 + "}", None),
        (
            "${run.input.many.filter(x, run.input.many.all(y, y >= 0)) == []}",
            "might take too long",
        ),
        (
            "${[1, 2].map(x, run.input.many.all(y, y >= 0))}",
            "takes too many rounds of its macros; allowed: 9,999",
        ),
        ("${" + "[1,2,3,4,5,6,7,8].map(a, " * 9 + "1" + ")" * 9 + "}", "might take too long"),
    ],
)
def test_no_expression_can_hang_the_engine(text, message):
    if message is None:
        assert len(resolve(text, MANY)) == 512_000
        return
    assert message in refused(text, MANY)


def test_a_search_through_9_999_rows_is_within_the_limits():
    rows = [{"id": number, "name": f"row {number}", "tags": ["a", "b"]} for number in range(9_999)]
    scope = {"run": {"input": {"rows": rows}}, "steps": {}}
    assert resolve("${run.input.rows.exists(r, r.id == 9998 && 'b' in r.tags)}", scope) is True
    assert resolve("${size(run.input.rows.filter(r, r.name == 'row 7'))}", scope) == 1


def test_a_path_takes_a_value_of_any_size_and_what_computes_says_its_limit():
    scope = {"run": {"input": {"x": [0] * 1_000_001}}, "steps": {}}
    assert resolve("${run.input.x}", scope) is scope["run"]["input"]["x"]
    assert refused("${size(run.input.x)}", scope) == (
        "${size(run.input.x)}: takes too much in; allowed: 1,000,000 values in one another"
    )


def test_only_what_an_expression_refers_to_is_looked_at():
    asked = []

    class Lazy(Mapping):
        def __getitem__(self, name):
            asked.append(name)
            return {"result": {"n": 1, "not JSON": {1, 2}}, "status": "Completed"}

        def __iter__(self):
            return iter("ABC")

        def __len__(self):
            return 3

    assert resolve("${steps.B.result.n + steps.A.result.n}", {"steps": Lazy()}) == 2
    assert set(asked) == {"A", "B"}


def test_the_library_is_loaded_by_the_first_expression_that_is_more_than_a_path():
    code = (
        "import sys\n"
        "from orchestrator.model.expressions import compile_condition, parse\n"
        "parse('a ${run.input.day}'); compile_condition('${steps.A.result.ok}')\n"
        "before = 'cel_expr_python.cel' in sys.modules\n"
        "parse('${1 + 1}')\n"
        "print(before, 'cel_expr_python.cel' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_without_the_library_paths_work_and_the_rest_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    monkeypatch.delitem(sys.modules, "orchestrator.model.cel", raising=False)
    assert compile_condition("${steps.Other.result.ok}")({"steps": {"Other": {"result": {"ok": True}}}}) is True
    with pytest.raises(ExpressionError) as caught:
        parse("${run.input.n + 77}")
    assert str(caught.value) == (
        "${run.input.n + 77}: is more than a path, which takes the library cel-expr-python; it is not installed here"
    )


# -- properties ----------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_any_json_value_goes_through_cel_and_comes_back_the_same(value):
    got = resolve("${[run.input.x][0]}", {"run": {"input": {"x": value}}, "steps": {}})
    assert json.dumps(got, sort_keys=True) == json.dumps(value, sort_keys=True)


names = st.sampled_from(
    ["run.input.n", "run.input.day", "steps.Count.result.list", "steps.Count.result.rows", "x", "1"]
)
expressions = st.recursive(
    names | st.sampled_from(["'a'", "2.5", "true", "null", "[]", "{'k': 1}"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "%", "==", "<", "&&", "||", "in"]), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(["map", "filter", "all", "exists"]), inner).map(
            lambda drawn: f"({drawn[0]}).{drawn[1]}(x, {drawn[2]})"
        ),
        st.tuples(inner, inner, inner).map(lambda drawn: f"({drawn[0]}) ? ({drawn[1]}) : ({drawn[2]})"),
        st.tuples(inner, inner).map(lambda drawn: f"({drawn[0]})[{drawn[1]}]"),
        inner.map(lambda drawn: f"[{drawn}, size({drawn})]"),
        inner.map(lambda drawn: f"{{'k': {drawn}}}.k"),
        inner.map(lambda drawn: f"has(({drawn}).k)"),
    ),
    max_leaves=12,
)


@given(expressions)
def test_any_expression_has_a_value_or_an_error_of_ours(source):
    try:
        value = resolve(f"${{{source}}}", SCOPE)
    except ExpressionError:
        return
    json.dumps(value, allow_nan=False)


@given(st.text())
def test_any_text_in_braces_is_an_expression_or_refused(text):
    with suppress(ExpressionError):
        parse(f"${{{text}}}")


def test_the_trees_fields_are_those_of_the_library():
    (part,) = parse("${[-3, 1.5, 'a', 2u].map(x, {x: has(run.input.k)})[0]}")
    tree = part.program._tree
    assert tree.function == "_[_]"
    fold, place = tree.args
    assert place == cel_tree.Const(0)
    assert fold.over == cel_tree.Made(tuple(cel_tree.Const(value) for value in (-3, 1.5, "a", 2)))
    assert fold.variables == ("x",)
