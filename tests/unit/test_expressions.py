from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.errors import ExpressionError
from orchestrator.model.expressions import Expression, parse
from orchestrator.model.templates import compile_value, resolve

SCOPE = {
    "run": {
        "run_id": "run_1",
        "dag": "sample",
        "started_at": "2021-12-12T15:53:04Z",
        "input": {
            "day": "2021-12-12",
            "hour": 7,
            "none": None,
            "yes": True,
            "half": 0.5,
            "items": [{"name": "first"}, {"a b": {"}": 'brace", '}}],
            "größe": "groß",
            "it's": 1,
            'say "x"\\': 2,
            "0": "zero",
        },
    },
    "steps": {
        "Count": {"result": {"words": 42}, "status": "Completed"},
        "my-step_1": {"result": [], "status": "Completed"},
    },
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param("${run.run_id}", "run_1", id="a string"),
        pytest.param("${run.input.hour}", 7, id="a whole expression keeps a number"),
        pytest.param("${run.input.none}", None, id="a whole expression keeps null"),
        pytest.param("${run.input.yes}", True, id="a whole expression keeps true"),
        pytest.param("${run.input.items[0]}", {"name": "first"}, id="a whole expression keeps an object"),
        pytest.param("${steps.Count.result.words}", 42, id="of a step's result"),
        pytest.param("${steps.Count.status}", "Completed", id="of a step's status"),
        pytest.param("${steps.my-step_1.result}", [], id="step names may hold - and _"),
        pytest.param('${steps["my-step_1"]["result"]}', [], id="names may be quoted"),
        pytest.param("${run.input.items[0].name}", "first", id="an item of a list"),
        pytest.param('${run.input.items[1]["a b"]["}"]}', 'brace", ', id="quoted keys, a brace in one"),
        pytest.param("${run.input.items[1]['a b']['}']}", 'brace", ', id="single quotes"),
        pytest.param("${run.input['it\\'s']}", 1, id="an escaped quote"),
        pytest.param('${run.input["say \\"x\\"\\\\"]}', 2, id="escaped quotes and backslash"),
        pytest.param("${run.input.größe}", "groß", id="letters of any script"),
        pytest.param("${run.input.0}", "zero", id="a key of digits"),
        pytest.param("${ run.input.day }", "2021-12-12", id="spaces inside of the braces"),
        pytest.param(" ${run.input.hour}", " 7", id="a space outside makes it text"),
        pytest.param("${run.input.hour}${run.input.hour}", "77", id="two make text"),
        pytest.param("h=${run.input.hour}!", "h=7!", id="a number as text"),
        pytest.param("${run.input.day}/${run.input.half}", "2021-12-12/0.5", id="a string as it is"),
        pytest.param("${run.input.yes} ${run.input.none}", "true null", id="true and null as JSON"),
        pytest.param("x${run.input.items[0]}", 'x{"name":"first"}', id="an object as compact JSON"),
        pytest.param("x${run.input.items[1]}", 'x{"a b":{"}":"brace\\", "}}', id="JSON escapes"),
        pytest.param("$${run.run_id}", "${run.run_id}", id="escaped"),
        pytest.param("$$${run.run_id}", "$${run.run_id}", id="the escape is the last dollar's"),
        pytest.param("$${a} ${run.run_id} $${", "${a} run_1 ${", id="escapes beside an expression"),
        pytest.param("$ $$ {} } $x 5$", "$ $$ {} } $x 5$", id="nothing else is special"),
        pytest.param("", "", id="an empty string"),
    ],
)
def test_what_a_string_becomes(text, value):
    got = resolve(text, SCOPE)
    assert got == value
    assert type(got) is type(value)
    assert compile_value(text).resolve(SCOPE) == value


HOW = 'write as in ${run.input.day} or ${steps.A.result["a b"][0]}; for the characters ${ write $${'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${run.}", f'column 7 of "${{run.}}": expected a name after "."; {HOW}'),
        ("${", f'column 3 of "${{": expected an expression; {HOW}'),
        ("a ${}", f'column 5 of "a ${{}}": expected an expression; {HOW}'),
        ("${run.input", f'column 12 of "${{run.input": expected ".", "[" or "}}"; {HOW}'),
        ("${run.input 1}", f"column 13 of \"${{run.input 1}}\": unexpected '1'; {HOW}"),
        (
            "${run.input['a]}",
            f'column 13 of "${{run.input[\'a]}}": expected a number or a quoted key, and then "]"; {HOW}',
        ),
        (
            "${rnu.input}",
            '${rnu.input}: an expression has no "rnu"; did you mean "run"? '
            'it has "run", "steps", "var", "secret", "item", "index", "error", "event"',
        ),
        (
            "${run.inptu.day}",
            '${run.inptu.day}: run has no "inptu"; did you mean "input"? '
            'it has "run_id", "dag", "input", "started_at", "scheduled_for", "status"',
        ),
        (
            "${run}",
            '${run}: stops too early; go on to "run_id", "dag", "input", "started_at", "scheduled_for", "status"',
        ),
        ("${steps}", "${steps}: stops too early; go on to the name of a step"),
        ("${steps.A}", '${steps.A}: stops too early; go on to "result", "status"'),
        ("${steps[0].result}", "${steps[0].result}: steps has no numbers; name a step, as in steps.A"),
        (
            "${steps.A.reslut}",
            '${steps.A.reslut}: steps.A has no "reslut"; did you mean "result"? it has "result", "status"',
        ),
    ],
)
def test_what_cannot_be_read(text, message):
    for use in (parse, compile_value, lambda value: resolve({"a": [value]}, SCOPE)):
        with pytest.raises(ExpressionError) as caught:
            use(text)
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "${run.input.dya}",
            '${run.input.dya}: run.input has no "dya"; did you mean "day"? it has "day", "hour"',
        ),
        ("${run.input.Zzz}", '${run.input.Zzz}: run.input has no "Zzz"; it has "day", "hour"'),
        ("x ${run.input.day.x}", '${run.input.day.x}: run.input.day has no "x"; it is a string'),
        ("${run.input.day[0]}", "${run.input.day[0]}: run.input.day has no [0]; it is a string"),
        (
            "${steps.A.result[2]}",
            "${steps.A.result[2]}: steps.A.result has no [2]; it is a list of 2, from [0]",
        ),
        ("${steps.A.result.x}", '${steps.A.result.x}: steps.A.result has no "x"; it is a list of 2, from [0]'),
        ("${run.input[0]}", '${run.input[0]}: run.input has no [0]; it has "day", "hour"'),
        ("${run.input.hour.x}", '${run.input.hour.x}: run.input.hour has no "x"; it has nothing'),
        ("${steps.B.result}", '${steps.B.result}: steps has no "B"; it has "A"'),
    ],
)
def test_what_has_no_value(text, message):
    scope = {"run": {"input": {"day": "x", "hour": {}}}, "steps": {"A": {"result": [1, 2]}}}
    with pytest.raises(ExpressionError) as caught:
        resolve([text], scope)
    assert str(caught.value) == message


def test_a_message_shows_names_and_never_values():
    with pytest.raises(ExpressionError) as caught:
        resolve("${run.input.day.secret}", {"run": {"input": {"day": "hunter2"}}, "steps": {}})
    assert "hunter2" not in str(caught.value)


def test_what_is_not_json_cannot_be_put_into_a_text():
    with pytest.raises(ExpressionError) as caught:
        resolve("x ${run.input}", {"run": {"input": {1, 2}}})
    assert str(caught.value) == ("${run.input}: cannot be written as text: it is a value of type set, not JSON")


def test_parse_gives_the_parts_in_order():
    assert parse('a $${b} ${run.input["x y"][3]}c') == (
        "a ${b} ",
        Expression('${run.input["x y"][3]}', ("run", "input", "x y", 3)),
        "c",
    )
    assert parse("") == ()
    assert parse("x") is parse("x")


def test_values_are_resolved_at_any_depth_and_names_never():
    value = {"${run.dag}": ["${run.input.hour}", {"deep": ["x${run.dag}"]}], "n": 1}
    assert resolve(value, SCOPE) == {"${run.dag}": [7, {"deep": ["xsample"]}], "n": 1}
    assert list(resolve({"b": "${run.dag}", "a": 1}, SCOPE)) == ["b", "a"]
    assert value == {"${run.dag}": ["${run.input.hour}", {"deep": ["x${run.dag}"]}], "n": 1}


def test_a_value_without_expressions_is_returned_as_it_is():
    value = {"a": [1, {"b": None}], "c": "$5", "${run.dag}": ()}
    assert resolve(value, SCOPE) is value
    assert compile_value(value).is_constant
    assert compile_value(value).resolve({}) is value


def test_a_template_that_only_unescapes_is_no_constant():
    template = compile_value({"a": "$${b}"})  # so that nobody takes the value as it was written
    assert not template.is_constant
    assert template.resolve({}) == {"a": "${b}"}


def test_a_result_is_never_read_as_an_expression_again():
    assert resolve("${run.input}", {"run": {"input": "${run.dag}"}}) == "${run.dag}"
    assert resolve("x${run.input}", {"run": {"input": "${run.dag}"}}) == "x${run.dag}"


def test_the_scope_is_asked_only_for_what_is_needed():
    asked = []

    class Lazy(Mapping):
        def __getitem__(self, name):
            asked.append(name)
            return {"result": name.lower(), "status": "Completed"}

        def __iter__(self):
            return iter("ABC")

        def __len__(self):
            return 3

    assert resolve(["${steps.B.result}", "is ${steps.A.result}"], {"steps": Lazy()}) == ["b", "is a"]
    assert asked == ["B", "A"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
texts = st.text() | st.lists(st.sampled_from(["$", "{", "}", "${", "$${", "run", ".input", "[0]", "['", '"', " "])).map(
    "".join
)


@given(json_values)
def test_any_value_survives_a_whole_expression(value):
    assert resolve("${run.input.x}", {"run": {"input": {"x": value}}}) is value


@given(st.text(min_size=1), st.sampled_from("\"'"))
def test_any_key_can_be_quoted(key, quote):
    written = key.replace("\\", "\\\\").replace(quote, "\\" + quote)
    assert resolve(f"${{run.input[{quote}{written}{quote}]}}", {"run": {"input": {key: 1}}}) == 1


@given(texts)
def test_any_text_can_be_escaped(text):
    assert resolve(text.replace("${", "$${"), {}) == text


@given(texts)
def test_a_text_is_read_or_refused_and_nothing_else(text):
    try:
        parts = parse(text)
    except ExpressionError:
        return
    assert "".join(p.replace("${", "$${") if isinstance(p, str) else p.text for p in parts) == text
