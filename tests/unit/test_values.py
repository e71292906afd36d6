"""What a large run is made of costs the garbage collector nothing."""

import gc
from datetime import UTC, datetime

import pytest

from orchestrator.model import commands, events, execution, facts, node_state, run_state, templates
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunInfo, RunState


def structs_of(module):
    return [each for each in vars(module).values() if hasattr(each, "__struct_config__")]


@pytest.mark.parametrize("module", [commands, events, execution, facts, node_state, run_state])
def test_no_value_that_a_run_has_many_of_is_gone_through_by_the_collector(module):
    found = structs_of(module)
    assert found
    assert [each.__name__ for each in found if each.__struct_config__.gc] == []


def test_neither_is_a_state_with_its_nodes_nor_what_has_no_expression():
    info = RunInfo(
        format=1, run_id="r", dag="d", definition="sha256:0", status="Running", input={}, started_at=datetime.now(UTC)
    )
    node = NodeState(node_name="A", node_type="Task", status="New")
    for value in (info, node, RunState(info, {"A": node}), templates.compile_value({"x": [1, "a"]})):
        assert not gc.is_tracked(value)
    assert templates.compile_value({"x": [1, "a"]}).resolve(None) == {"x": [1, "a"]}
