"""Whether and when a step is tried again. Pure."""

from collections.abc import Sequence
from contextlib import suppress

from orchestrator.model.rules import RetryRule, rule_for


def wait_s(rules: Sequence[RetryRule], error_type: str, failures: int, spread: float) -> float | None:
    """Return how long to wait before the next attempt, in seconds; None: there is none.

    Args:
        rules: the step's; the first that names the error's class counts.
        failures: how many attempts have failed since the step was entered, this one included; from 1.
        spread: from 0 to 1, at random: what jitter takes of the wait.
    """
    rule = rule_for(rules, error_type)
    if rule is None or failures >= rule.max_attempts:
        return None
    full_s = MAX_WAIT_S if rule.max_delay_s is None else rule.max_delay_s
    with suppress(OverflowError):
        full_s = min(full_s, rule.delay_s * float(rule.backoff) ** (failures - 1))
    return full_s * (1.0 - rule.jitter * spread)


MAX_WAIT_S = 30 * 86400.0
"""A wait that would be longer, is this long: thirty days, as a timeout is at the most."""
