import pytest

from orchestrator.model.durations import DurationError, parse_duration
from orchestrator.model.errors import OrchestratorError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("5m", 300.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        ("0s", 0.0),
        ("007m", 420.0),
        pytest.param("1.1h", 3960.0, id="no error of binary fractions"),
        pytest.param("0.3s", 0.3, id="the float that a person means"),
        pytest.param("999999999999999d", 999999999999999 * 86400.0, id="the longest"),
    ],
)
def test_what_a_duration_says(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "s",
        "-5s",
        "+5s",
        "5 m",
        " 5m",
        "5m\n",
        "1h30m",
        "5M",
        "5min",
        ".5s",
        "5.s",
        "1e3s",
        "nans",
        "infd",
        "1,5h",
        pytest.param("٣s", id="digits of another script"),
        pytest.param("9" * 5000 + "s", id="more digits than int() takes"),
    ],
)
def test_what_is_no_duration(text):
    with pytest.raises(DurationError):
        parse_duration(text)


def test_the_message_says_how_to_write_one():
    with pytest.raises(ValueError, match="parsecs") as caught:
        parse_duration("10 parsecs")
    assert str(caught.value) == ('"10 parsecs" is not a duration; write a number and ms, s, m, h or d, as in "90s"')
    assert isinstance(caught.value, OrchestratorError)
    assert caught.value.retry is False
