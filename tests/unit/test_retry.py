import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine.retry import MAX_WAIT_S, wait_s
from orchestrator.model.rules import RetryRule, Route, retry_rules, routes, rule_for

THREE = RetryRule(max_attempts=3, delay_s=10.0, backoff=2.0)


@pytest.mark.parametrize(
    ("rules", "error", "failures", "expected"),
    [
        pytest.param((), "Task.Failed", 1, None, id="without rules nothing is tried again"),
        pytest.param((THREE,), "Task.Failed", 1, 10.0, id="the first wait"),
        pytest.param((THREE,), "Task.Failed", 2, 20.0, id="the next one is longer"),
        pytest.param((THREE,), "Task.Failed", 3, None, id="three attempts are enough"),
        pytest.param((RetryRule(max_attempts=1),), "Task.Failed", 1, None, id="one attempt is no retry"),
        pytest.param((RetryRule(delay_s=10, backoff=9, max_delay_s=30, max_attempts=9),), "x", 5, 30.0, id="a limit"),
        pytest.param((RetryRule(errors=("Task.Timeout",)),), "Task.Failed", 1, None, id="another class of errors"),
        pytest.param((RetryRule(errors=("Task.*",)),), "Task.Failed", 1, 1.0, id="a family of errors"),
        pytest.param((RetryRule(errors=("Task.*",)),), "Tasks.Failed", 1, None, id="another family"),
        pytest.param(
            (RetryRule(errors=("Task.Timeout",), max_attempts=1), THREE),
            "Task.Timeout",
            1,
            None,
            id="the first rule wins",
        ),
        pytest.param(
            (RetryRule(max_attempts=1000, delay_s=1, backoff=100),), "x", 999, MAX_WAIT_S, id="an absurd wait"
        ),
    ],
)
def test_the_wait_before_the_next_attempt(rules, error, failures, expected):
    assert wait_s(rules, error, failures, 0.5) == expected


@given(st.floats(0, 1), st.floats(0, 1))
def test_jitter_takes_its_share_of_a_wait_at_the_most(jitter, spread):
    found = wait_s((RetryRule(delay_s=100, jitter=jitter),), "x", 1, spread)
    assert found is not None
    assert 100 * (1 - jitter) - 1e-9 <= found <= 100


def test_what_a_step_says_is_read():
    assert retry_rules({"max_attempts": 5, "delay": "2m", "backoff": 1, "max_delay": "1h", "jitter": 0.5}) == (
        RetryRule(max_attempts=5, delay_s=120.0, backoff=1.0, max_delay_s=3600.0, jitter=0.5),
    )
    assert retry_rules([{"errors": ["A.B"]}, {}]) == (RetryRule(errors=("A.B",)), RetryRule())
    assert routes([{"errors": ["A.*"], "next": "X"}, {"next": "Y"}]) == (Route(("A.*",), "X"), Route(("*",), "Y"))
    assert rule_for(routes([{"errors": ["A.*"], "next": "X"}]), "B.C") is None
