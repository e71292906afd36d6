"""What a thread is at is left alone by others, until it must be taken to hang."""

from datetime import timedelta

import pytest

from orchestrator.engine.one_at_a_time import OneAtATime
from orchestrator.testing.virtual_time import T0


@pytest.mark.parametrize(
    ("what", "after_s", "may"),
    [
        pytest.param("run", 0, False, id="somebody is at it"),
        pytest.param("run", 99, False, id="and may still be"),
        pytest.param("run", 100, True, id="who is at it hangs"),
        pytest.param("run", -50, False, id="a clock was set back a little"),
        pytest.param("run", -100, True, id="a clock was set back by so much that nobody could wait for it"),
        pytest.param("other", 0, True, id="something else"),
    ],
)
def test_who_may_be_at_a_thing(what, after_s, may):
    things = OneAtATime(100.0)
    with things.alone_at("run", T0) as first:
        assert first
        with things.alone_at(what, T0 + timedelta(seconds=after_s)) as second:
            assert second is may
    with things.alone_at("run", T0) as later:
        assert later


def test_who_hung_and_comes_back_lets_nobody_in_to_who_came_after():
    things, later = OneAtATime(100.0), T0 + timedelta(seconds=100)
    hung, second = things.alone_at("run", T0), things.alone_at("run", later)
    assert [hung.__enter__(), second.__enter__()] == [True, True]
    hung.__exit__(None, None, None)
    with things.alone_at("run", later) as third:
        assert not third
    second.__exit__(None, None, None)
    with things.alone_at("run", later) as third:
        assert third


def test_a_thing_that_failed_is_free_again():
    things = OneAtATime(100.0)
    with pytest.raises(ValueError, match="it failed"), things.alone_at("run", T0):
        raise ValueError("it failed")
    with things.alone_at("run", T0) as may:
        assert may
