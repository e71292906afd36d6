"""How often the embedded runtime reads a run again that it waits for and looks after: a large one less often."""

import pytest

from orchestrator.runtime import own_runs


@pytest.mark.parametrize(("took_s", "expected_s"), [(0.0, 0.0), (0.002, 0.1), (0.03, 1.5), (5.0, 10.0)])
def test_reading_takes_a_fiftieth_of_a_core_and_a_run_is_read_every_ten_seconds_still(monkeypatch, took_s, expected_s):
    monkeypatch.setattr(own_runs.time, "thread_time", lambda: 7.0 + took_s)
    assert own_runs._pause_after(7.0) == pytest.approx(expected_s)
