import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.pace import BURST, Pace


def waits(pace: Pace, saves: int, now_s: float = 100.0) -> list[float]:
    """How long each of several saves had to wait that followed each other as fast as they might."""
    found = []
    for _ in range(saves):
        wait_s = pace.wait_s(now_s, 0.5)
        found.append(round(wait_s, 6))
        now_s += wait_s
        pace.saved(now_s)
    return found


@pytest.mark.parametrize(
    ("interval_s", "expected"),
    [
        pytest.param(1.0, [0, 0, 0, 1, 1, 1], id="a few in a row, then one a second"),
        pytest.param(0.5, [0, 0, 0, 0.5, 0.5, 0.5], id="another interval"),
        pytest.param(0.0, [0, 0, 0, 0, 0, 0], id="no limit"),
    ],
)
def test_the_pace_of_saves(interval_s, expected):
    assert waits(Pace(interval_s), 6) == expected


def test_a_pause_earns_a_few_in_a_row_again():
    pace = Pace(1.0)
    waits(pace, 6)
    assert waits(pace, 4, now_s=200.0) == [0, 0, 0, 1]


def test_a_lost_race_counts_as_two_writes_and_spreads_those_who_share_the_run():
    pace = Pace(1.0)
    pace.lost(100.0)
    assert pace.wait_s(100.0, 1.0) == 0.0
    pace.saved(100.0)
    assert pace.is_shared(100.0)
    assert (pace.wait_s(100.0, 0.0), pace.wait_s(100.0, 1.0)) == (1.0, 2.0)
    assert not pace.is_shared(111.0), "the other instance has been quiet for long"


def test_where_others_saves_are_counted_all_instances_together_keep_the_pace():
    pace = Pace(1.0)
    pace.raced(100.0)
    assert pace.is_shared(100.0)
    assert pace.wait_s(100.0, 0.0) == 0.0, "what was refused was no write"
    pace.seen([100.0, 90.0, 100.0], 100.0)
    pace.saved(100.0)
    assert (pace.wait_s(100.0, 0.0), pace.wait_s(100.0, 1.0)) == (2.0, 3.0)
    assert waits(pace, 4, now_s=200.0) == [0, 0, 0, 1], "the others have been quiet for long"


def test_a_clock_that_was_set_back_by_an_hour_changes_the_pace_of_no_save():
    pace = Pace(1.0)
    waits(pace, 6, now_s=3600.0)  # the last at 3603
    assert waits(pace, 3, now_s=3.0) == [1, 1, 1]
    assert waits(pace, 4, now_s=100.0) == [0, 0, 0, 1]


def test_a_clock_that_was_set_back_by_an_hour_does_not_have_a_run_look_shared_for_an_hour():
    pace = Pace(1.0)
    pace.raced(3600.0)
    pace.wait_s(3600.0, 0.0)
    pace.wait_s(0.0, 0.0)
    assert pace.is_shared(5.0)
    assert not pace.is_shared(11.0)


def test_saves_of_others_that_were_made_before_set_no_clock_back():
    pace = Pace(1.0)
    waits(pace, 3, now_s=100.0)
    pace.seen([98.0], 100.0)
    assert pace.wait_s(100.0, 0.0) == 2.0


def test_a_save_of_others_whose_clock_is_an_hour_ahead_counts_as_one_of_now():
    pace = Pace(1.0)
    pace.seen([3700.0], 100.0)
    assert waits(pace, 3, now_s=100.0) == [0, 0, 1]


@given(st.lists(st.floats(0, 5), max_size=60))
def test_never_more_than_the_burst_and_one_an_interval(gaps):
    pace, now_s, saves = Pace(1.0), 0.0, []
    for gap in gaps:
        now_s += gap
        now_s += pace.wait_s(now_s, 0.0)
        pace.saved(now_s)
        saves.append(now_s)
    for first in range(len(saves)):
        for last in range(first, len(saves)):
            assert last - first + 1 <= BURST + (saves[last] - saves[first]) + 1e-6


def test_what_is_spread_and_how_long_a_wait_is_at_most_goes_by_the_interval():
    pace = Pace(0.25)
    pace.lost(100.0)
    pace.saved(100.0)
    assert (pace.wait_s(100.0, 0.0), pace.wait_s(100.0, 1.0)) == (0.25, 0.5)
    assert pace.is_shared(102.5)
    assert not pace.is_shared(102.6)
    pace.seen([102.6] * 20, 102.6)
    assert pace.wait_s(102.6, 0.0) == (BURST + 1) * 0.25


def crowded(pace: Pace, now_s: float = 100.0) -> Pace:
    pace.crowded(now_s)
    return pace


def test_a_crowded_run_is_saved_no_two_times_in_a_row():
    assert waits(crowded(Pace(1.0)), 4) == [0, 1, 1, 1]
    assert waits(crowded(Pace(1.0)), 4, now_s=109.0) == [0, 1, 1, 0], "ten intervals later it is one like others"


def test_a_save_of_others_counts_from_when_it_was_made_though_nothing_was_asked_here_since():
    pace = crowded(Pace(1.0))
    pace.seen([103.0], 103.2)
    assert pace.wait_s(103.2, 0.0) == pytest.approx(0.8)


def test_a_clock_that_was_set_back_by_an_hour_does_not_have_a_run_look_crowded_for_an_hour():
    pace = crowded(Pace(1.0), 3600.0)
    pace.wait_s(0.0, 0.0)
    assert pace.is_crowded(5.0)
    assert not pace.is_crowded(11.0)


def test_who_saves_a_crowded_run_lets_others_go_first_now_and_then_as_it_may_not_know_of_them():
    assert waits(crowded(Pace(1.0)), 6) == [0, 1, 1, 1, 1.6, 1]


def test_of_those_who_share_a_crowded_run_who_has_saved_it_last_comes_after_the_others():
    mine, others = crowded(Pace(1.0)), crowded(Pace(1.0))
    for pace in (mine, others):
        pace.seen([98.0], 100.0)
    mine.saved(100.0)
    others.seen([100.0], 100.0)
    assert mine.wait_s(100.0, 0.0) == pytest.approx(1.6)
    assert others.wait_s(100.0, 0.0) == pytest.approx(1.0)
    assert others.wait_s(100.0, 1.0) == pytest.approx(1.4)


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans(), st.floats(0, 1)), max_size=40))
def test_no_two_saves_of_a_crowded_run_are_closer_than_the_interval(gaps):
    pace, now_s, saves = Pace(1.0), 0.0, []
    for gap, is_ours, spread in gaps:
        now_s += gap
        pace.crowded(now_s)
        if is_ours:
            now_s += pace.wait_s(now_s, spread)
            assert not saves or now_s >= saves[-1] + 1.0 - 1e-6
            pace.saved(now_s)
        else:
            pace.seen([now_s], now_s)
        saves.append(now_s)


def test_only_a_pace_without_an_interval_is_free():
    assert (Pace(0.0).is_free, Pace(1.0).is_free) == (True, False)
