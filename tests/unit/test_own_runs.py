"""The runs of a process: when its timer ticks for one, and when who waits for one reads it."""

from types import SimpleNamespace

import pytest

from orchestrator.model.enums import RunStatus
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.runtime import own_runs
from orchestrator.runtime.own_runs import OwnRuns
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.virtual_time import T0


class Wakes:
    """Wakes the timer so many times, and stops it; `each` happens before each."""

    def __init__(self, times, each=lambda: None):
        self.left, self.each = times, each

    def wait(self, _):
        self.left -= 1
        self.each()
        return self.left < 0

    def is_set(self):
        return False


@pytest.fixture
def clock(monkeypatch):
    found = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(
        own_runs, "time", SimpleNamespace(monotonic=lambda: found.now_s, thread_time=lambda: found.now_s)
    )
    return found


def ticking(clock, wakes, each):
    """At which of these wakes, a second apart, the timer ticked for a run that `each` happens to before each."""
    ticked = []

    def look_after(run_id, marker):
        ticked.append(wakes - mine._stopping.left)
        return ()

    def wake():
        clock.now_s += 1.0
        each(mine)

    mine = OwnRuns(MemoryStore(), 1.0, ticks=True, look_after=look_after, let_go_of_ended=lambda: None)
    mine._mine.add("run_1")
    mine._stopping = Wakes(wakes, wake)
    mine._timer = object()
    mine._tick_on()
    return ticked


def test_a_run_is_ticked_for_each_time(clock):
    assert ticking(clock, 4, lambda _: None) == [1, 2, 3, 4]


def test_a_run_that_is_saved_here_all_the_time_is_ticked_for_each_fifth_time(clock):
    assert ticking(clock, 12, lambda mine: mine.goes_on("run_1", is_redriven=False)) == [5, 10]


def test_a_run_that_was_saved_here_before_the_last_tick_is_ticked_for(clock):
    def once(mine):
        if clock.now_s == 101.0:
            mine.goes_on("run_1", is_redriven=False)

    assert ticking(clock, 3, once) == [2, 3]


def test_a_run_that_has_ended_is_ticked_for_so_that_its_marker_goes(clock):
    def ended(mine):
        mine.goes_on("run_1", is_redriven=False)
        mine._over.add("run_1")

    assert ticking(clock, 2, ended) == [1, 2]


def test_who_waits_reads_nothing_while_the_run_is_saved_here(clock, monkeypatch):
    monkeypatch.setattr(own_runs, "_WAIT_S", 0.001)
    run = RunInfo(
        format=1, run_id="run_1", dag="d", definition="sha256:0", status=RunStatus.COMPLETED, input={}, started_at=T0
    )
    state = RunState(run, {})
    asked = []

    class Watched(OwnRuns):
        def _was_saved(self, run_id, within_s):
            asked.append(run_id)
            if len(asked) == 3:
                self.ended(state)
            return super()._was_saved(run_id, within_s) or len(asked) == 3

        def load(self, run_id):
            raise AssertionError("it is read")

    mine = Watched(MemoryStore(), 1.0, ticks=True, look_after=lambda *_: (), let_go_of_ended=lambda: None)
    mine._mine.add("run_1")
    mine._timer = object()
    mine.goes_on("run_1", is_redriven=False)
    assert mine.wait("run_1", None) is state
    assert asked == ["run_1"] * 3
