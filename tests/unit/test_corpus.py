"""One corpus of definitions, two judges: the JSON Schema and `problems` agree on every file.

Where a schema cannot say a rule, the file stands in ONLY_PROBLEMS with the reason.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

from orchestrator.model.definition import problems
from orchestrator.model.schema import schema
from tests.strategies import mutations_of, odd_values

CORPUS = Path(__file__).parent.parent / "definitions"
FILES = {f"{path.parent.name}/{path.stem}": path for path in sorted(CORPUS.glob("*/*.json"))}
VALIDATOR = Draft202012Validator(schema())

REFERENCE = "a schema cannot compare a value with the names of other keys"
UNIQUE = "a schema knows only the names of one object to be unique"
ORDER = "a schema cannot follow `next` from step to step"
EXPRESSION = "a pattern cannot say what is in an expression, nor which steps have ended"
SIZE = "a pattern cannot compare numbers"
DAYS = "a pattern does not know the calendar"
ZONES = "a schema would have to list all zones there are"
INPUT = "a schema judges that it is one, not what it could ever let pass"
TEXT = "to a schema any string is text"

ONLY_PROBLEMS = {
    "start_names_no_step": REFERENCE,
    "start_names_a_step_of_a_branch": REFERENCE,
    "next_names_no_step": REFERENCE,
    "next_names_a_step_of_a_branch": REFERENCE,
    "next_names_a_step_outside_of_its_branch": REFERENCE,
    "name_twice_in_one_branch_and_outside": UNIQUE,
    "name_twice_in_two_branches": UNIQUE,
    "depends_on_no_step": REFERENCE,
    "depends_on_a_step_of_a_branch": REFERENCE,
    "depends_on_itself": REFERENCE,
    "depends_on_one_another": ORDER,
    "depends_on_and_next_in_a_cycle": ORDER,
    "depends_on_and_led_to": ORDER,
    "depends_on_at_the_start": REFERENCE,
    "depends_on_beside_a_start_that_leads_nowhere_else": ORDER,
    "heartbeat_of_a_month": SIZE,
    "expression_of_a_step_that_may_still_run": EXPRESSION,
    "expression_of_a_step_not_waited_for": EXPRESSION,
    "cycle_of_itself": ORDER,
    "cycle_of_three": ORDER,
    "cycle_in_a_branch": ORDER,
    "no_way_leads_to_a_step": ORDER,
    "no_way_leads_to_a_step_of_a_branch": ORDER,
    "finally_that_leads_to_a_step": REFERENCE,
    "finally_with_a_name_of_a_step": UNIQUE,
    "expression_of_a_step_of_the_finally": EXPRESSION,
    "choice_of_no_step": REFERENCE,
    "default_of_no_step": REFERENCE,
    "route_to_no_step": REFERENCE,
    "cycle_by_a_choice": ORDER,
    "route_back": ORDER,
    "no_way_leads_to_a_step_beside_a_condition": ORDER,
    "choice_whose_when_is_no_expression": EXPRESSION,
    "error_of_an_unknown_key": EXPRESSION,
    "error_where_none_leads": EXPRESSION,
    "expression_of_a_step_of_a_map_from_outside": EXPRESSION,
    "expression_of_an_item_where_there_is_none": EXPRESSION,
    "expression_of_a_step_on_another_way": EXPRESSION,
    "pass_of_itself": EXPRESSION,
    "event_in_a_step": EXPRESSION,
    "trigger_that_asks_about_a_run": EXPRESSION,
    "trigger_that_can_never_be_true": EXPRESSION,
    "trigger_with_a_secret": EXPRESSION,
    "wait_until_no_time": TEXT,
    "wait_until_a_time_without_a_zone": TEXT,
    "wait_for_two_years": SIZE,
    "expression_with_a_syntax_error": EXPRESSION,
    "expression_never_closed": EXPRESSION,
    "expression_of_an_unknown_root": EXPRESSION,
    "expression_of_an_unknown_key_of_the_run": EXPRESSION,
    "expression_of_a_whole_step": EXPRESSION,
    "expression_of_no_step": EXPRESSION,
    "expression_of_itself": EXPRESSION,
    "expression_of_a_later_step": EXPRESSION,
    "expression_that_computes_with_a_later_step": EXPRESSION,
    "expression_that_adds_a_text_to_a_number": EXPRESSION,
    "expression_of_a_sibling_branch": EXPRESSION,
    "expression_of_the_parallel_around_it": EXPRESSION,
    "request_with_an_expression": EXPRESSION,
    "timeout_over_30_days": SIZE,
    "callback_for_forty_days": SIZE,
    **dict.fromkeys(("callback_with_a_secret", "dag_with_a_secret_in_its_input"), EXPRESSION),
    **dict.fromkeys(("result_of_a_secret", "result_of_the_error", "result_of_no_step"), EXPRESSION),
    "result_of_a_step_of_the_finally": EXPRESSION,
    "heartbeat_as_long_as_the_timeout": SIZE,
    "heartbeat_of_a_call_that_is_waited_for": "a schema's row cannot speak of the value of another key",
    "schedule_with_minute_60": SIZE,
    "schedule_that_runs_backwards": SIZE,
    "schedule_with_a_step_of_0": SIZE,
    "schedule_that_is_never_due": DAYS,
    "schedule_with_two_kinds_of_days": DAYS,
    "time_zone_unknown": ZONES,
    "wait_until_before_the_first_year": TEXT,
    "parameters_with_half_a_character": TEXT,
    "input_schema_of_a_string": INPUT,
    "input_schema_that_fetches": INPUT,
}


def read(name):
    return json.loads(FILES[name].read_text(encoding="utf-8"))


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def test_the_corpus_is_all_there():
    kinds = [name.split("/")[0] for name in FILES]
    assert set(kinds) == {"valid", "invalid"}
    assert kinds.count("valid") >= 15
    assert kinds.count("invalid") >= 40
    assert {f"invalid/{name}" for name in ONLY_PROBLEMS} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_both_judge_alike(name):
    kind, stem = name.split("/")
    definition = read(name)
    assert (problems(definition) == []) == (kind == "valid")
    # An exception that the schema has learnt to tell is to be taken out of the table.
    assert VALIDATOR.is_valid(definition) == (kind == "valid" or stem in ONLY_PROBLEMS)


@pytest.mark.parametrize(
    "key",
    [
        "type",
        "next",
        "end",
        "depends_on",
        "trigger",
        "target_type",
        "timeout",
        "parameters",
        "branches",
        "worker",
        "request",
        "query",
    ],
)
def test_the_schema_describes_every_key(key):
    objects = [made for made in schema()["$defs"].values() if key in made.get("properties", {})]
    described = [made["properties"][key] for made in objects if made.get("additionalProperties") is False]
    assert described
    assert all(row["description"] for row in described)


VALID = [read(name) for name in FILES if name.startswith("valid/")]


@settings(deadline=None, max_examples=400)
@given(odd_values | mutations_of(VALID))
def test_nothing_makes_problems_raise_and_the_schema_is_never_stricter(definition):
    found = problems(definition)
    assert all(isinstance(problem, str) and ": " in problem for problem in found)
    "\n".join(found).encode()  # fit to be printed
    if not VALIDATOR.is_valid(definition):
        assert found
