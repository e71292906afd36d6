"""The nodes of a large run: what is changed is seen, in what was before it is not, and all else is as of a dict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.engine import draft
from orchestrator.engine.draft import copied
from orchestrator.model import overlay
from orchestrator.model.enums import NodeTypes, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.overlay import Overlay

NAMES = [f"N{n}" for n in range(12)]
CHANGES = st.lists(st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 9)), max_size=6), max_size=12)


def node(name, number):
    return NodeState(node_name=name, node_type=NodeTypes.TASK, status=TaskStatus.NEW, attempt=number)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(draft, "LARGE", 3)
        patched.setattr(overlay, "_FLAT_FROM", 4)
        yield


@given(st.integers(0, 8), CHANGES)
def test_of_each_decision_it_is_what_a_copied_dict_would_be(size, decisions):
    nodes = {name: node(name, 0) for name in NAMES[:size]}
    model, seen = dict(nodes), [(nodes, dict(nodes))]
    for changes in decisions:
        nodes = copied(nodes)
        for name, number in changes:
            nodes[name] = model[name] = node(name, number)
        seen.append((nodes, dict(model)))
        for held, expected in seen:  # those of before as well
            assert list(held) == list(expected)
            assert list(held.values()) == list(expected.values())
            assert len(held) == len(expected)
            assert held == expected
            assert expected == held
            assert {**held} == expected
            for name in NAMES:
                assert (name in held) == (name in expected)
                assert held.get(name) is expected.get(name)
                assert name not in expected or held[name] is expected[name]


def test_what_there_is_not_is_a_key_error():
    large = copied({name: node(name, 0) for name in NAMES})
    assert isinstance(large, Overlay)
    with pytest.raises(KeyError):
        large["nobody"]
