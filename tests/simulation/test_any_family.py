"""Any definition with any other one as its child: both end, whatever is lost, doubled, late, cancelled or paused."""

import json
import logging
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.model.definition import problems
from orchestrator.model.enums import RunStatus, TargetTypes, TaskStatus
from orchestrator.model.run_state import child_of, run_result
from orchestrator.testing import Faults, Simulation, in_turn
from tests.simulation.test_any_definition import delays, ends
from tests.strategies import SECRETS, VARIABLES, any_definitions, inputs

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
KEPT = ("type", "next", "end", "timeout", "retry", "on_error", "depends_on", "trigger")
"""Keys that a Task of any type has."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


@st.composite
def families(draw):
    """A definition of whose Tasks some, one at the least if it has any, are runs of `kid`; and `kid`."""
    parent, kid = draw(any_definitions(most=3)), draw(any_definitions(max_steps=3, most=2))
    tasks = list(tasks_in(parent))
    chosen = draw(st.sets(st.sampled_from(range(len(tasks))), min_size=1, max_size=3)) if tasks else ()
    for index in chosen:
        step = tasks[index]
        kept = {key: step[key] for key in KEPT if key in step}
        step.clear()
        given = {"parameters": draw(inputs)} if draw(st.booleans()) else {}
        step.update({**kept, "target_type": "Dag", "target_name": "kid", **given})
    assert problems(parent) == problems(kid) == []
    return {"parent": parent, "kid": kid}


def tasks_in(value):
    """The Tasks in a definition, at any depth; no value of a parameter looks like one."""
    if isinstance(value, dict) and value.get("type") == "Task" and "target_type" in value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tasks_in(inner)


@fuzzed
@given(families(), st.data())
def test_every_family_ends_and_nothing_in_it_is_left(caplog, family, data):
    caplog.clear()
    caplog.set_level(logging.ERROR)
    share = st.sampled_from([0.0, 0.0, 0.2, 0.7])
    types = st.sets(st.sampled_from([each.value for each in TargetTypes if each != TargetTypes.DAG]), max_size=3)
    world = Simulation(
        family,
        default=in_turn(*(data.draw(ends).after(data.draw(delays)) for _ in range(2))),
        seed=data.draw(st.integers(0, 2**16), label="seed"),
        faults=Faults(data.draw(share), data.draw(share), data.draw(share), data.draw(delays)),
        instances=data.draw(st.integers(1, 3), label="instances"),
        cannot_be_cancelled=data.draw(types, label="cannot be cancelled"),
        variables=VARIABLES,
        secrets=SECRETS,
    )
    run_id = world.start(data.draw(inputs, label="input"), dag="parent")
    match data.draw(st.integers(0, 5), label="what is asked for"):
        case 0 | 1:
            world.cancel(run_id, after=data.draw(delays, label="when"))
        case 2:
            world.pause(run_id, after="0s")
            world.forward("3h")
            world.resume(run_id)
            world.forward("1s")
            if world.run(run_id).status is RunStatus.PAUSED:  # the resume was lost, or comes late
                world._execute({"resource": {"type": "resume"}, "run_id": run_id}, "again", world.clock.now())

    run = world.finish(run_id, within="5000d")
    world.forward("5000d")  # a child that was cancelled may be at its `finally` when its parent has ended

    runs = {each.run_id: each for each in world.runs}
    made = {each.state.run.message_id for each in runs.values() if each.state.run.parent}
    assert len(made) == len(runs) - 1
    for each in runs.values():
        assert each.status.is_final
        assert {name for name, node in each.state.nodes.items() if not node.status.is_final} == set()
        assert SECRETS["key"] not in json.dumps(each.document)
        parent = each.state.run.parent
        assert each.run_id == run_id or (parent is not None and parent.run_id in runs)
    for name, node in run.state.nodes.items():
        child = child_of(run_id, node)
        if child is not None and node.target_name == "kid" and node.status is TaskStatus.COMPLETED:
            kid = runs[child].state
            assert kid.run.status is RunStatus.COMPLETED
            assert kid.run.parent.node == name
            assert (run.result(name) is None) == (run_result(kid) == (None, None))
    assert world.dead_letters == world.problems == []
    assert list(world.store.list("open/")) == []
    assert [record.getMessage() for record in caplog.records] == []
