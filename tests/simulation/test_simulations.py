"""The simulator: what it finds in the engine (nothing), and what it finds once something is wrong there."""

import logging
import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest

from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.enums import Identity
from orchestrator.model.run_document import encode
from tests.simulation.simulator.endings import difference
from tests.simulation.simulator.many import Summary, of_seed, simulated
from tests.simulation.simulator.meetings import missing
from tests.simulation.simulator.planted import PLANTED
from tests.simulation.simulator.services import SERVICES
from tests.simulation.simulator.shrinking import shrunk
from tests.simulation.simulator.simulation import Simulation

SEEDS = int(os.environ.get("SIMULATIONS", "2000"))
JOBS = int(os.environ.get("SIMULATIONS_AT_ONCE", "2"))

DRAWN = (
    "every line of an end is lost",
    *("BigQuery completed", "Dataflow completed", "CloudRunJob completed"),
    *("CloudFunction completed", "CloudFunction.sync completed", "Callback completed", "Dag completed"),
    *("Task.Failed", "Task.Timeout", "Task.Heartbeat", "Run.Cancelled", "Parallel.Stopped"),
    *("part of a Map", "large result or list of items", "list of items beside the document", "save of a crowd"),
    *("time of a schedule that was missed and made up for", "run that an object started", "notified of an end"),
    *("pool of several DAGs", "child run of a parent that was cancelled", "child run that goes on with its parent"),
)
"""What is rare, and has to come about in the seeds that are simulated here."""


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def summary() -> Summary:
    """What came of the seeds."""
    found = Summary()
    for some in simulated(0, SEEDS, JOBS):
        found.add(some)
    return found


def test_no_simulation_finds_anything(summary):
    assert summary.failed == [], "make simulate SEED=… runs one again"
    assert summary.seeds == SEEDS


def test_where_nothing_goes_by_the_time_another_order_of_events_ends_in_the_same_documents(summary):
    assert summary.steady > SEEDS // 5


@pytest.mark.skipif(SEEDS < 2000, reason="fewer seeds than it takes")
def test_every_fault_meets_every_step_that_it_can_meet_and_changes_what_happens(summary):
    assert missing(summary.met) == []


@pytest.mark.skipif(SEEDS < 2000, reason="fewer seeds than it takes")
def test_what_is_rare_comes_about(summary):
    assert [what for what in DRAWN if not summary.drawn[what]] == []


def test_services_of_all_identities_run_what_is_launched():
    assert {service.identity for service in SERVICES} == set(Identity)


def test_what_is_stored_after_a_save_of_what_changed_is_the_whole_run(monkeypatch):
    save, saved, differ = OrchestrationStatus.save, Counter(), []

    def compared(self, state, *, expect, before=None, touched=None):
        version = save(self, state, expect=expect, before=before, touched=touched)
        stored = self._store._bucket.held.get(self.key)
        if stored[1] == version:
            saved["by parts" if touched is not None and not state.run.status.is_final else "as a whole"] += 1
            if stored[0] != encode(state):
                differ.append((self.key, stored[0], encode(state)))
        return version

    monkeypatch.setattr(OrchestrationStatus, "save", compared)
    for seed in range(1, max(SEEDS // 4, 8), 2):
        Simulation(seed).run()
    assert differ == []
    assert saved["by parts"] > saved["as a whole"] > 0


@pytest.mark.parametrize("wrong", PLANTED)
def test_a_fault_that_is_planted_in_the_engine_is_found(wrong):
    plant, known = PLANTED[wrong]
    with plant():
        found = next(told for seed in (known, *range(20_000)) if (told := Simulation(seed).run()).violation)
    assert "Error(" not in found.violation, "it is what it does that is to be found, not that it does not fit any more"


def test_another_order_of_events_that_ends_otherwise_is_found(monkeypatch):
    monkeypatch.setattr("tests.simulation.simulator.many.difference", lambda one, other: "somewhere")
    found = next(told for seed in range(100) if (told := of_seed(seed)).failed)
    assert found.failed == [(found.failed[0][0], 1, "another order of events ends otherwise: somewhere")]


def test_a_seed_replays_to_the_letter_in_another_process():
    told = Simulation(7, tells=True).run()
    script = (
        "import logging; logging.disable(logging.CRITICAL)\n"
        "from hashlib import sha256\n"
        "from tests.simulation.simulator.simulation import Simulation\n"
        "print(sha256('\\n'.join(Simulation(7, tells=True).run().story).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    again = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == sha256("\n".join(told.story).encode()).hexdigest()


def test_a_failing_simulation_is_made_smaller():
    with PLANTED["siblings' ends not awaited"][0]():
        told = next(told for seed in range(100) if (told := Simulation(seed).run()).violation)
        small, words = shrunk(told)
    assert small.violation
    assert len(small.struck) <= len(told.struck)
    assert words.startswith(f"SEED={told.seed}")


def test_final_documents_differ_where_either_has_an_entry_more():
    one, more = {"run": {"A": {"result": 1}}}, {"run": {"A": {"result": 1}, "B": {"result": 2}}}
    assert difference(one, dict(one)) is None
    for mine, theirs in ((one, more), (more, one)):
        assert str(difference(mine, theirs)).startswith("run: B: ")
