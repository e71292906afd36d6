"""benchmarks.docs: tables that were measured go into the page, and nothing else of it changes."""

from benchmarks.docs import BLOCK, PAGE, filled_in

HAVING_TWO = "# A\n\n<!-- bench.txt -->\n```\nold\n\nlines\n```\n\nb\n\n<!-- peers.txt -->\n```\nolder\n```\n"


def test_a_table_that_was_measured_is_put_in_and_others_stay(tmp_path):
    (tmp_path / "bench.txt").write_text("new \\1\nlines\n")
    expected = HAVING_TWO.replace("old\n\nlines", "new \\1\nlines")
    assert filled_in(HAVING_TWO, tmp_path) == expected
    assert filled_in(expected, tmp_path) == expected


def test_the_page_has_a_place_for_each_table():
    assert [name for _, name in BLOCK.findall(PAGE.read_text())] == ["bench.txt", "bench-long.txt", "peers.txt"]
