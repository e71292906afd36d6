"""Definitions at the limits: as deep as they may be, and wide."""

from orchestrator.model.definition_values import MAX_DEPTH
from orchestrator.model.enums import RunStatus
from tests.support.world import World, chain, dag, parallel


def deep(levels: int) -> dict:
    graph = chain("Inmost")
    for level in range(levels):
        graph = dag(**{f"P{level}": parallel(graph, chain(f"Beside{level}"))})
    return graph


def test_a_definition_as_deep_as_it_may_be_runs_to_its_end():
    world = World(deep(MAX_DEPTH))
    state = world.run_all(world.start())
    assert state.run.status is RunStatus.COMPLETED
    assert len(world.target.nodes) == MAX_DEPTH + 1


def test_a_definition_as_deep_as_it_may_be_fails_from_its_inmost_step_outwards():
    world = World(deep(MAX_DEPTH))
    state = world.run_all(world.start(), frozenset(["Inmost"]))
    assert state.run.status is RunStatus.FAILED
    assert state.run.error.node == "Inmost"


def test_a_thousand_branches_open_their_join_once():
    wide = dag(
        P={**parallel(*(chain(f"B{number}") for number in range(1000))), "next": "Join"}, **chain("Join")["steps"]
    )
    world = World(wide)
    assert world.run_all(world.start()).run.status is RunStatus.COMPLETED
    assert world.target.nodes.count("Join") == 1
