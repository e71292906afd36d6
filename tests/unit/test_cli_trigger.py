"""`orchestrator trigger`: what an event would start is said, and nothing is started."""

import base64
import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main

PAYLOADS = Path(__file__).parents[1] / "payloads"
TOPIC = "projects/my-project/topics/orders"
A = {"start": "A", "steps": {"A": {"type": "Pass", "result": 1}}}


@pytest.fixture
def ask(tmp_path, capsys, monkeypatch):
    """ask(event, *options) -> exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    dags = {
        "csv": [{"object": {"bucket": "landing", "suffix": ".csv"}, "input": {"file": "${event.name}"}}],
        "orders": [{"topic": TOPIC, "when": "${event.data.id > 5}", "input": {"id": "${event.data.id}"}}],
        "strict": [
            {"topic": TOPIC, "when": "${event.attributes.kind == 'x'}", "input": {"a": "${event.data.nothing}"}}
        ],
    }
    for name, triggers in dags.items():
        (tmp_path / "dag_definitions" / name).mkdir(parents=True)
        (tmp_path / "dag_definitions" / name / "dag.json").write_text(json.dumps({**A, "triggers": triggers}))

    def asked(event, *options):
        (tmp_path / "event.json").write_text(event if isinstance(event, str) else json.dumps(event))
        code = main(["trigger", "--event", "event.json", *options])
        said = capsys.readouterr()
        assert not (tmp_path / ".orchestrator").exists()
        return code, said.out, said.err

    return asked


def test_an_object_and_the_input_of_its_run(ask):
    event = {"resource": {"type": "object"}, "bucket": "landing", "name": "a.csv"}
    assert ask(event) == (0, 'it would start a run of csv with the input:\n{\n  "file": "a.csv"\n}\n', "")


@pytest.mark.parametrize(
    "event",
    [
        {"kind": "storage#object", "bucket": "landing", "name": "a.csv", "generation": "17", "size": "3"},
        json.loads((PAYLOADS / "pubsub_storage_notification.json").read_text()),
    ],
)
def test_what_cloud_storage_itself_writes_will_do(ask, event):
    code, out, _ = ask(event, "dag_definitions/csv", "--json")
    assert (code, [each["dag"] for each in json.loads(out)]) == (0, ["csv"])


def test_a_push_from_a_topic(ask):
    push = {"message": {"data": base64.b64encode(b'{"id": 7}').decode(), "messageId": "1"}}
    code, out, _ = ask(push, "--topic", TOPIC, "--json")
    assert (code, json.loads(out)) == (0, [{"dag": "orders", "input": {"id": 7}}])


def test_that_nothing_would_be_started_is_said(ask):
    event = {"resource": {"type": "message"}, "topic": TOPIC, "data": {"id": 1}}
    code, out, err = ask(event)
    assert (code, out) == (0, "it would start nothing; asked were csv, orders, strict\n")
    assert "dag strict: triggers[0].when: ${event.attributes.kind == 'x'}: event.attributes has no \"kind\"" in err


@pytest.mark.parametrize(
    ("event", "options", "problem"),
    [
        ("{", [], "event.json: is no JSON"),
        ([], [], "event.json: is no event; write"),
        ({"bucket": "landing"}, [], "event.json: is no event; write"),
        ({"resource": {"type": "start"}}, [], "event.json: is no event of an object or a message"),
        ({"resource": {"type": "object"}, "name": "a"}, [], "object.bucket: is missing or wrong"),
        ({"message": {}}, ["--topic", "orders"], '--topic "orders" is no name of a topic'),
        (
            {"resource": {"type": "message"}, "topic": TOPIC, "attributes": {"kind": "x"}, "data": {"id": 1}},
            [],
            'dag strict: triggers[0].input: ${event.data.nothing}: event.data has no "nothing"',
        ),
    ],
)
def test_what_is_wrong_is_said(ask, event, options, problem):
    code, out, err = ask(event, *options)
    assert (code, out) == (2, "")
    assert problem in err
