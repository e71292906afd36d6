"""A few seeds of the simulator, each by itself: what `make mutate` can ask of each mutant."""

import logging

import pytest

from tests.simulation.simulator.simulation import Simulation

SEEDS = 60
AT_ONCE = 4


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_a_few_seeds_find_nothing(first, caplog):
    caplog.set_level(logging.CRITICAL)
    told = [Simulation(seed).run().violation for seed in range(first, first + AT_ONCE)]
    assert told == [None] * AT_ONCE
