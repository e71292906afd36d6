"""Every limit that the docs name is gone beyond, and what one gets is what they say.

A row that is new in one of their tables fails here until there is a trial of it.
"""

import ast

import pytest

from tests.support import limits_of_definitions, limits_of_places, limits_of_runs  # noqa: F401 - they register trials
from tests.support.command_line import clean_environment
from tests.support.limits import ELSEWHERE, OTHERS, PAGES, ROOT, TRIALS, Bench, Row, rows

ROWS = rows()


def of(row: Row, table: dict) -> list:
    """What a table has for a row."""
    return [value for (page, begin), value in table.items() if row.page == page and row.what.startswith(begin)]


@pytest.fixture
def bench(tmp_path, monkeypatch, capfd):
    clean_environment()
    for name in ("EVENTS_TOPIC", "GOOGLE_CLOUD_PROJECT", "FUNCTION_REGION", "POOLS", "VARIABLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return Bench(tmp_path, lambda: "".join(capfd.readouterr()))


def test_there_are_tables_of_limits_on_all_pages_of_the_language():
    assert {row.page for row in ROWS} >= {
        str(page.relative_to(ROOT)) for page in PAGES if page.parent.name == "language"
    }
    assert len(ROWS) > 130


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.page.rpartition('/')[2]} {row.what[:60]}" for row in ROWS])
def test_beyond_a_limit_one_gets_what_its_page_says(row, bench):
    found = [*of(row, TRIALS), *of(row, ELSEWHERE), *of(row, OTHERS)]
    assert len(found) == 1, f"{row.page}: no trial of the row, or more than one: {row.what}"
    for trial in of(row, TRIALS):
        said = trial(bench, row)
        assert said
        assert row.lacks(said) == [], said[-2000:]


@pytest.mark.parametrize("told", sorted(set(ELSEWHERE.values())))
def test_what_is_tried_elsewhere_is_a_test(told):
    file, _, name = told.partition("::")
    module = ast.parse((ROOT / file).read_text())
    assert name in {each.name for each in module.body if isinstance(each, ast.FunctionDef)}


def test_no_trial_is_of_a_row_that_is_gone():
    begins = [*TRIALS, *ELSEWHERE, *OTHERS]
    assert [each for each in begins if not any(of(row, {each: None}) for row in ROWS)] == []
