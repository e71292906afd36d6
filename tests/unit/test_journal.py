"""The journal of one object, as bytes: what is cut off or spoilt never counts, and what counts is merged in order."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.commands import Failure
from orchestrator.model.enums import NodeTypes, RunStatus, TaskStatus
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_document import DocumentEncoder, decode, encode
from orchestrator.model.run_state import RunInfo, RunState
from orchestrator.stores import journal
from orchestrator.stores.journal import merge, record, records, since
from tests.strategies import json_values, texts

NAMES = st.sampled_from(["$run", "A", "B", "Map[7]", "é", '"', "a\n", ""])
VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=4), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)
MEMBERS = st.dictionaries(NAMES, VALUES, max_size=4)


@st.composite
def run_states(draw):
    def node(name):
        return NodeState(
            node_name=name,
            node_type=NodeTypes.TASK,
            status=draw(st.sampled_from(TaskStatus)),
            result=draw(json_values),
            error=draw(st.none() | st.builds(Failure, texts, texts)),
        )

    run = RunInfo(
        format=1,
        run_id="run_1",
        dag="d",
        definition="sha256:0",
        status=draw(st.sampled_from(RunStatus)),
        input=draw(st.dictionaries(texts, json_values, max_size=2)),
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return RunState(run, {name: node(name) for name in draw(st.sets(st.sampled_from("ABCDE"), min_size=1))})


def as_bytes(members):
    return {name: json.dumps(value).encode() for name, value in members.items()}


def written(changes, first=7):
    """The journal of some changes of an object of version `first`, a version each."""
    return b"".join(record(first + n, first + n + 1, as_bytes(members)) for n, members in enumerate(changes))


@given(MEMBERS, st.lists(MEMBERS, max_size=5))
def test_the_changes_of_a_journal_make_of_an_object_what_they_made_of_it(document, changes):
    found = since(7, records(written(changes)))
    assert [(each.before, each.version) for each in found] == [(7 + n, 8 + n) for n in range(len(changes))]
    merged = merge("k", json.dumps(document).encode(), [each.members for each in found])
    model = {**document}
    for members in changes:
        model.update(members)
    assert json.loads(merged) == model
    assert list(json.loads(merged)) == list(model)
    assert merged == merge("k", merged, [])


@given(st.lists(MEMBERS, min_size=1, max_size=4), st.data())
def test_of_a_journal_that_is_cut_off_or_spoilt_counts_what_stands_before_that(changes, data):
    whole = written(changes)
    ends = [each.end for each in records(whole)]
    assert ends[-1] == len(whole)
    place = data.draw(st.integers(0, len(whole) - 1))
    before = sum(end <= place for end in ends)
    assert [each.end for each in records(whole[:place])] == ends[:before]
    flipped = bytearray(whole)
    flipped[place] ^= 1 << data.draw(st.integers(0, 7))
    assert [each.end for each in records(bytes(flipped))] == ends[:before]
    assert [each.end for each in records(whole[:place] + b"\0" * 100)] == ends[:before]
    assert [each.end for each in records(whole + whole)] == ends, "an older record does not follow a younger one"


@given(st.lists(MEMBERS, min_size=1, max_size=5), st.integers(0, 20))
def test_a_journal_goes_for_an_object_from_the_record_that_was_made_of_it(changes, version):
    found = since(version, records(written(changes)))
    assert [each.before for each in found] == [n for n in range(7, 7 + len(changes)) if 7 <= version <= n]


@pytest.mark.parametrize("content", [b"", b"[]", b"7", b'{"a": 1', b'{"a": 1} x', b"\xff", b"[" * 5000])
def test_only_of_a_json_object_members_are_changed(content):
    with pytest.raises(ValueError, match=r"^runs/k: is no JSON object, so that no member of it can be changed: "):
        merge("runs/k", content, [])
    with pytest.raises(ValueError, match=r"^runs/k: is no JSON object"):
        journal.check_document("runs/k", content)


@given(run_states(), run_states(), st.data())
def test_what_has_changed_in_a_run_merged_into_its_document_is_its_new_document(before, other, data):
    changed = data.draw(st.lists(st.sampled_from(sorted(before.nodes)), unique=True))
    nodes = {**before.nodes, **{name: msgspec.structs.replace(before.nodes[name], losses=77) for name in changed}}
    nodes |= {f"{name}[9]": msgspec.structs.replace(node, node_name=f"{name}[9]") for name, node in other.nodes.items()}
    after = RunState(data.draw(st.sampled_from([before.run, other.run])), nodes)
    encoder, told = DocumentEncoder(), [*data.draw(st.permutations(sorted(before.nodes))), *after.nodes]
    document = data.draw(st.sampled_from([encode(before), json.dumps(json.loads(encode(before)), indent=1).encode()]))
    members, grown = encoder.encode_changes(before, after, told)
    assert set(members) == {name for name in after.nodes if before.nodes.get(name) is not after.nodes[name]} | (
        {"$run"} if after.run is not before.run else set()
    )
    merged = merge("k", document, [journal.encode(members)])
    assert decode(merged, "k") == after
    if document == encode(before):
        assert merged == encode(after)
        assert len(merged) - len(document) == grown
