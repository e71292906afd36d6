"""No definition that validates crashes the engine or leaves a run that never ends.

Definitions are drawn from the whole grammar and run in virtual time, with random outcomes, delays, losses, duplicates,
uncertain launches, several instances and cancels. By hand, for longer: `FUZZ_EXAMPLES=5000 pytest tests/simulation`.
"""

import json
import logging
import os
from enum import Enum
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.definition import problems
from orchestrator.model.enums import TargetTypes, TaskStatus
from orchestrator.model.errors import InputRejected
from orchestrator.model.run_document import decode, encode
from orchestrator.model.schema import schema
from orchestrator.testing import (
    Faults,
    Simulation,
    fails,
    in_turn,
    is_cancelled,
    is_lost,
    never_ends,
    refuses,
    returns,
)
from tests.strategies import POOLS, SECRETS, VARIABLES, any_definitions, inputs, json_values, mutations_of

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
"""In CI: a few seconds of them."""

VALIDATOR = Draft202012Validator(schema())

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
    ],
)

delays = st.sampled_from(["0s", "1s", "45s", "7m", "3h", "2d", "40d"])
errors = st.sampled_from(["Task.Failed", "Task.Timeout", "Own.Error", "Launch.Refused"])
ends = st.one_of(
    st.builds(returns, json_values | st.just({"rows": 3})),
    st.builds(returns, st.booleans()),
    st.just(returns({"rows": ["x" * 70_000]})),  # too large for the run document
    st.builds(fails, errors),
    st.builds(refuses, errors),
    st.just(is_cancelled()),
    st.just(is_lost()),
    st.just(is_lost().times(2)),
)


@st.composite
def behaviours(draw, *, can_hang: bool):
    """What a step's launches do; one that hangs has to have a timeout."""

    def one():
        does = draw(st.just(never_ends()) if can_hang and draw(st.integers(0, 4)) == 0 else ends).after(draw(delays))
        does = does.silent_after(draw(st.sampled_from(["0s", "1s", "45s", "7m", "2h"])))
        match draw(st.integers(0, 7)):
            case 0:
                does = does.without_event()
            case 1:
                does = does.twice()
            case 2:
                does = does.with_event_after(draw(delays))
            case 3:
                does = does.uncertainly(draw(st.sampled_from([1, 3, 1000])), is_started=draw(st.booleans()))
            case 4:
                does = does.hard_to_cancel(draw(st.integers(1, 5)))
        return does

    return in_turn(*(one() for _ in range(draw(st.integers(1, 3)))))


@fuzzed
@given(any_definitions())
def test_what_is_drawn_from_the_grammar_is_valid_to_both_judges(definition):
    definition = json.loads(json.dumps(definition))
    assert problems(definition) == []
    assert [error.message for error in VALIDATOR.iter_errors(definition)] == []


@fuzzed
@given(any_definitions(most=3), st.data())
def test_every_run_ends_and_nothing_in_it_is_left(caplog, definition, data):
    caplog.clear()
    caplog.set_level(logging.ERROR)
    tasks = DAGBuilder(definition).build_dag().all_tasks
    types = st.sets(st.sampled_from([target.value for target in TargetTypes]), max_size=3)
    without_outcome = data.draw(types, label="without outcome") - {TargetTypes.DAG.value}  # a run always has one
    targets = {}
    for task in tasks:
        can_hang = task.timeout_s is not None or task.target_type in without_outcome
        targets[task.node_name] = data.draw(behaviours(can_hang=can_hang), label=task.node_name)
    share = st.sampled_from([0.0, 0.0, 0.2, 0.7])
    world = Simulation(
        definition,
        targets=targets,
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        faults=Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays)),
        instances=data.draw(st.integers(1, 3), label="instances"),
        without_outcome=without_outcome,
        notifications_refused=data.draw(st.sampled_from([0, 0, 1, 1000]), label="notifications refused"),
        cannot_be_cancelled=data.draw(types, label="cannot be cancelled"),
        variables=VARIABLES,
        secrets=SECRETS,
        pools=POOLS,
    )
    run_id = world.start(data.draw(inputs, label="input"))
    if data.draw(st.integers(0, 3), label="cancel it") == 3:
        world.cancel(run_id, after=data.draw(delays, label="when"))

    run = world.finish(run_id, within="5000d")

    assert run.status.is_final
    left = {name: node.status for name, node in run.state.nodes.items() if not node.status.is_final}
    assert left == {}
    assert all(node.owed_cancel is None for node in run.state.nodes.values())
    assert decode(encode(run.state), "here") == run.state
    assert msgspec.json.decode(json.dumps(run.document, allow_nan=False)) == run.document
    entered = {name for name, node in run.state.nodes.items() if node.status is not TaskStatus.SKIPPED}
    stopped = {name for name in entered if run.node(name).status is TaskStatus.CANCELLED}  # some before they started
    assert entered - stopped <= set(run.path) <= entered
    world.forward("100d")  # late events, late Ticks: nothing changes any more, and nothing is launched
    after = world.run(run_id)
    assert (after.state.nodes, after.status, after.error) == (run.state.nodes, run.status, run.error)
    assert after.state.run.owed_notifications == ()
    assert len(after.all_launches) == len(run.all_launches)
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []
    assert SECRETS["key"] not in json.dumps(run.document)
    assert [record.getMessage() for record in caplog.records] == []


CORPUS = Path(__file__).parent.parent / "definitions/valid"
VALID = {path.stem: json.loads(path.read_text()) for path in sorted(CORPUS.glob("*.json"))}


@pytest.mark.parametrize("name", VALID)
def test_every_valid_definition_of_the_corpus_runs_to_an_end(name):
    run_to_its_end(VALID[name])


@fuzzed
@given(mutations_of([*VALID.values()]))
def test_a_mutation_that_is_still_valid_runs_to_an_end(definition):
    assume(problems(definition) == [])
    run_to_its_end(definition)


def run_to_its_end(definition):
    variables = dict.fromkeys(DAGBuilder(definition).build_dag().variables, "given")
    default = in_turn(returns({"rows": 3}), returns(True), fails())
    world = Simulation(definition, default=default, variables=variables)
    try:
        run_id = world.start({"day": "2026-01-01", "flag": True})
    except InputRejected:
        return  # a mutated `input_schema` may ask for anything
    run = world.finish(run_id, within="5000d")
    assert all(node.status.is_final for node in run.state.nodes.values())
    assert decode(encode(run.state), "here") == run.state
    assert world.dead_letters == world.problems == []


def test_a_kind_of_key_without_a_strategy_is_an_error_that_names_it():
    from orchestrator.model.grammar_keys import Key
    from tests.strategies import _Drawer

    row = Key("new_key", Enum("Kind", {"NEW": "a new kind"}).NEW, "What is not known yet.")
    with pytest.raises(NotImplementedError, match=r"new_key: .* no strategy for Kind.NEW"):
        _Drawer(None, 0, 0, 0, None).plain(row)
