"""The simulator: what it finds in the engine (nothing), and what it finds once something is wrong there."""

import logging
import os
import subprocess
import sys
from collections import Counter
from hashlib import sha256

import pytest

from orchestrator.engine.status import OrchestrationStatus
from orchestrator.model.run_state import encode
from tests.simulation.simulator.planted import PLANTED
from tests.simulation.simulator.shrinking import shrunk
from tests.simulation.simulator.simulation import Simulation

SEEDS = int(os.environ.get("SIMULATIONS", "1000"))


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_no_simulation_finds_anything():
    for seed in range(SEEDS):
        told = Simulation(seed).run()
        assert told.violation is None, f"make simulate SEED={seed}: {told.violation}"


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
