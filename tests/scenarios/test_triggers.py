"""Events of others that start runs: objects of Cloud Storage and messages of any topic, each run once."""

import base64
import json
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.catalog import Catalog
from orchestrator.model.errors import DefinitionError, EventError, InputRejected, StoreUnavailable
from orchestrator.model.ids import run_id_of
from orchestrator.model.pubsub import decode
from orchestrator.runtime import gcp
from tests.support.world import T0, World, chain

PAYLOADS = Path(__file__).parents[1] / "payloads"
TOPIC = "projects/my-project/topics/orders"
OWN = "projects/my-project/topics/orchestrator-events"


def on_object(when: str | None = None, run_input: dict | None = None, **source: str) -> dict:
    trigger = {"object": {"bucket": "landing", **source}}
    return triggered(trigger, when, run_input)


def on_message(when: str | None = None, run_input: dict | None = None, topic: str = TOPIC) -> dict:
    return triggered({"topic": topic}, when, run_input)


def triggered(trigger: dict, when: str | None, run_input: dict | None) -> dict:
    more = {"when": when, "input": run_input}
    return {**chain("A"), "triggers": [{**trigger, **{key: each for key, each in more.items() if each is not None}}]}


def an_object(name: str = "in/a.csv", generation: str | None = "1769841000123456", **fields: object) -> dict:
    told = {"bucket": "landing", "name": name, "size": "12", **({"generation": generation} if generation else {})}
    return {"resource": {"type": "object"}, **told, **fields}


def a_message(data: object = None, topic: str = TOPIC, **attributes: str) -> dict:
    return {"resource": {"type": "message"}, "topic": topic, "data": data, "attributes": attributes}


def happen(world: World, event: dict, message_id: str = "m1", on: int = 0):
    return world.instances[on].execute(event, message_id=message_id, publish_time=world.clock.now())


def pushed(content: bytes | None, message_id: str = "m1", **attributes: str) -> dict:
    message = {"messageId": message_id, "publishTime": "2026-01-01T12:00:00Z", "attributes": attributes}
    return {"message": {**message, **({} if content is None else {"data": base64.b64encode(content).decode()})}}


# -- objects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("definition", "name", "is_started"),
    [
        pytest.param(on_object(), "a", True, id="any object of the bucket"),
        pytest.param(on_object(bucket="other"), "a", False, id="another bucket"),
        pytest.param(on_object(prefix="in/"), "in/a.csv", True, id="the prefix"),
        pytest.param(on_object(prefix="in/"), "out/in/a.csv", False, id="not the prefix"),
        pytest.param(on_object(suffix=".csv"), "in/a.csv", True, id="the suffix"),
        pytest.param(on_object(prefix="in/", suffix=".csv"), "in/a.csv.tmp", False, id="not the suffix"),
        pytest.param(on_object("${event.size > 10}"), "a", True, id="when it is true"),
        pytest.param(on_object("${event.size > 12}"), "a", False, id="when it is false"),
        pytest.param(on_message(), "a", False, id="a trigger of another kind"),
        pytest.param(chain("A"), "a", False, id="no trigger"),
    ],
)
def test_an_object_starts_the_runs_of_the_triggers_that_it_matches(definition, name, is_started):
    world = World(definition)
    assert happen(world, an_object(name)).verdict == ("applied" if is_started else "not ours")
    assert len(world.target.calls) == is_started


def test_the_input_of_the_run_is_what_the_trigger_makes_of_the_event():
    run_input = {"file": "${event.uri}", "bytes": "${event.size}", "text": "shop ${event.metadata.shop}", "all": 7}
    world = World(on_object(run_input=run_input))
    run_id = happen(world, an_object(metadata={"shop": "12"})).run_id
    expected = {"file": "gs://landing/in/a.csv", "bytes": 12, "text": "shop 12", "all": 7}
    assert world.state(run_id).run.input == expected


def test_without_one_it_is_the_event_itself():
    world = World(on_object())
    run_id = happen(world, an_object(content_type="text/csv", time_created="2026-01-31T06:30:00.123Z")).run_id
    assert world.state(run_id).run.input == {
        "bucket": "landing",
        "name": "in/a.csv",
        "uri": "gs://landing/in/a.csv",
        "generation": "1769841000123456",
        "size": 12,
        "content_type": "text/csv",
        "time_created": "2026-01-31T06:30:00.123Z",
        "metadata": {},
    }


def test_a_generation_that_is_told_of_twice_by_two_messages_is_one_run():
    world = World(on_object())
    first = happen(world, an_object(), "m1")
    world.clock.forward(600)
    again = happen(world, an_object(size="13"), "m2")
    assert (again.verdict, again.run_id) == ("unchanged", first.run_id)
    assert first.run_id.startswith("run_1769841000_")
    assert len(world.target.calls) == 1


def test_a_new_generation_is_a_new_run():
    world = World(on_object())
    runs = {happen(world, an_object(generation=number), f"m{number}").run_id for number in ("1", "2", "3")}
    assert len(runs) == len(world.target.calls) == 3


def test_without_a_generation_each_message_is_a_run():
    world = World(on_object())
    runs = {happen(world, an_object(generation=None), message_id).run_id for message_id in ("m1", "m2", "m1")}
    assert len(runs) == 2


@pytest.mark.parametrize("kind", ["OBJECT_DELETE", "OBJECT_ARCHIVE", "OBJECT_METADATA_UPDATE", None])
def test_what_else_becomes_of_an_object_starts_nothing(kind):
    assert happen(World(on_object()), an_object(event_type=kind)).verdict == "not ours"


def test_a_buckets_own_message_is_an_event_of_the_object():
    world = World(on_object(prefix="in/", run_input={"day": "${event.name}", "shop": "${event.metadata.shop}"}))
    message = decode(json.loads((PAYLOADS / "pubsub_storage_notification.json").read_text()))
    handled = world.executor.execute(
        message.event_data, message_id=message.message_id, publish_time=message.publish_time
    )
    assert world.state(handled.run_id).run.input == {"day": "in/2026-01-31.csv", "shop": "7"}


def test_a_buckets_message_that_says_all_in_its_attributes_is_one_too():
    world = World(on_object(bucket="uploads"))
    message = decode(json.loads((PAYLOADS / "pubsub_storage_notification_without_data.json").read_text()))
    handled = world.executor.execute(
        message.event_data, message_id=message.message_id, publish_time=message.publish_time
    )
    assert world.state(handled.run_id).run.input["uri"] == "gs://uploads/a.csv"


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({"resource": {"type": "object"}, "name": "a"}, "object.bucket"),
        ({"resource": {"type": "object"}, "bucket": "landing"}, "object.name"),
        (an_object("x" * 1025), "object.name"),
        (an_object(generation="today"), "object.generation"),
        ({"resource": {"type": "message"}, "topic": "orders"}, "message.topic"),
        ({**a_message(), "attributes": {"a": 1}}, "message.attributes"),
    ],
)
def test_an_event_that_is_none_is_said_to_be_none(event, problem):
    with pytest.raises(EventError, match=problem):
        happen(World(on_object()), event)


# -- messages -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "is_started"),
    [
        (None, True),
        ("${event.attributes.kind == 'order'}", True),
        ("${event.attributes.kind == 'refund'}", False),
        ("${event.data.lines.exists(line, line.price > 100)}", True),
        ("${event.data.lines.all(line, line.price > 100)}", False),
        ("${event.topic.endsWith('/orders') && event.data.lines.size() == 2}", True),
        ("${event.data.nobody.knows == 1}", False),
        ("${has(event.data.lines) && !has(event.data.nobody)}", True),
    ],
)
def test_a_message_starts_a_run_when_that_is_so(when, is_started):
    world = World(on_message(when))
    event = a_message({"lines": [{"price": 7}, {"price": 700}]}, kind="order")
    assert happen(world, event).verdict == ("applied" if is_started else "not ours")


def test_a_message_that_a_trigger_cannot_judge_starts_nothing_and_that_is_said_once(caplog):
    world = World(on_message("${event.data.order.id > 5}"))
    for number in range(3):
        assert happen(world, a_message({"refund": number}), f"m{number}").verdict == "not ours"
    (told,) = [each.getMessage() for each in caplog.records]
    assert told.startswith('dag dag: triggers[0].when: ${event.data.order.id > 5}: event.data has no "order"')


def test_a_message_that_is_delivered_twice_is_one_run_and_another_one_is_another():
    world = World(on_message(), instances=2)
    first = happen(world, a_message(1), "m1").run_id
    world.clock.forward(600)
    event = a_message(1)
    again = world.instances[1].execute(event, message_id="m1", publish_time=T0)
    assert (again.verdict, again.run_id) == ("unchanged", first)
    assert happen(world, a_message(1), "m2").run_id != first
    assert len(world.target.calls) == 2


@pytest.mark.parametrize(
    ("content", "data", "more"),
    [
        pytest.param(b'{"a": [1]}', {"a": [1]}, {}, id="an object"),
        pytest.param(b"[1, 2]", [1, 2], {}, id="any JSON"),
        pytest.param(b"null", None, {}, id="null"),
        pytest.param("7 Stück".encode(), "7 Stück", {}, id="text"),
        pytest.param(b"\xff\x00\x01", None, {"data_base64": "/wAB"}, id="bytes"),
        pytest.param(None, None, {}, id="nothing but attributes"),
    ],
)
def test_the_data_of_a_message_is_json_or_text_or_bytes(content, data, more):
    world = World(on_message())
    message = decode(pushed(content, kind="x"), topic=TOPIC)
    handled = world.executor.execute(
        message.event_data, message_id=message.message_id, publish_time=message.publish_time
    )
    assert world.state(handled.run_id).run.input == {
        "topic": TOPIC,
        "data": data,
        "attributes": {"kind": "x"},
        "message_id": "m1",
        "publish_time": "2026-01-01T12:00:00Z",
        **more,
    }


@pytest.mark.parametrize("content", [b"[" * 101 + b"]" * 101, b"[" * 100_000])
def test_data_that_is_nested_too_deeply_is_given_up(content):
    world = World(on_message())
    if content.endswith(b"["):
        with pytest.raises(EventError, match="nested too deeply"):
            decode(pushed(content), topic=TOPIC)
        return
    with pytest.raises(EventError, match="nested too deeply"):
        happen(world, decode(pushed(content), topic=TOPIC).event_data)


# -- several runs of one event --------------------------------------------------------------------------------


def test_an_event_starts_a_run_of_each_dag_that_it_matches():
    world = World({"one": on_object(), "two": on_object(prefix="in/"), "three": on_object(prefix="out/")})
    handled = happen(world, an_object())
    assert [world.state(run_id).run.dag for run_id in handled.run_ids] == ["one", "two"]
    assert handled.run_id == handled.run_ids[0]
    assert len(handled.launches) == 2


def test_of_two_triggers_of_a_dag_that_match_the_first_one_counts():
    definition = on_object("${event.size > 100}", {"by": 0})
    definition["triggers"] += [*on_object(run_input={"by": 1})["triggers"], *on_object(run_input={"by": 2})["triggers"]]
    world = World(definition)
    (run_id,) = happen(world, an_object()).run_ids
    assert world.state(run_id).run.input == {"by": 1}


def test_who_is_killed_between_two_starts_starts_the_other_one_when_the_event_comes_again():
    world = World({"one": on_object(), "two": on_object()})

    def killed(launch):
        raise KeyboardInterrupt

    world.target.before_launch = killed
    with pytest.raises(KeyboardInterrupt):
        happen(world, an_object())
    assert list(world.store.list("runs/")) != []
    world.target.before_launch = lambda launch: None
    handled = world.instance().execute(an_object(), message_id="m1", publish_time=T0)
    assert [world.state(run_id).run.dag for run_id in handled.run_ids] == ["one", "two"]
    world.clock.forward(120)
    world.executor.tick()
    assert sorted(world.target.launched) == sorted({launch.key for launch in world.target.calls})
    assert len(world.target.launched) == 2


def test_a_run_that_can_never_be_started_keeps_no_other_from_it():
    refusing = {**on_object(), "input_schema": {"required": ["day"]}}
    world = World({"one": refusing, "two": on_object()})
    with pytest.raises(InputRejected):
        happen(world, an_object())
    assert [launch.run_id for launch in world.target.calls] == [state.run.run_id for state in world.saved[:1]]
    assert world.saved[0].run.dag == "two"


def test_a_run_that_cannot_be_started_now_is_started_when_the_event_comes_again():
    class Failing(type(World(chain("A")).store)):
        fails = True

        def put(self, key, data, *, expect):
            if key.startswith("runs/") and self.fails and json.loads(data)["$run"]["dag"] == "two":
                raise StoreUnavailable("503")
            return super().put(key, data, expect=expect)

    refusing = {**on_object(), "input_schema": {"required": ["day"]}}
    store = Failing()
    world = World({"one": on_object(), "two": on_object(), "zero": refusing}, store=store)
    with pytest.raises(StoreUnavailable):
        happen(world, an_object())
    store.fails = False
    with pytest.raises(InputRejected):
        happen(world, an_object())
    assert sorted(world.state(key[5:-5]).run.dag for key in store.list("runs/")) == ["one", "two"]
    assert len(world.target.calls) == 2


def test_an_input_that_cannot_be_made_is_told():
    world = World(on_object(run_input={"shop": "${event.metadata.shop}"}))
    with pytest.raises(EventError, match=r'dag dag: triggers\[0\].input: .*event.metadata has no "shop"'):
        happen(world, an_object())


def test_variables_of_the_environment_are_there():
    definition = on_object("${event.size < var.most}", {"to": "${var.table}"})
    world = World(definition)
    executor = world.instance(variables={"most": 100, "table": "t", "other": 1})
    run_id = executor.execute(an_object(), message_id="m1").run_id
    run = world.state(run_id).run
    assert (run.input, run.variables) == ({"to": "t"}, {"most": 100, "table": "t"})


def test_a_definition_that_breaks_rules_gives_up_the_events_that_were_meant_for_it_and_no_others():
    broken = {**on_object(prefix="in/"), "start": "nowhere"}
    world = World({"one": broken, "two": on_object()})
    with pytest.raises(DefinitionError):
        happen(world, an_object("in/a"))
    assert happen(world, an_object("out/a"), "m2").verdict == "applied"
    assert len(world.target.calls) == 2


def test_no_definition_is_read_for_triggers_before_an_event_that_may_match_one():
    read = []

    class Watched(dict):
        def __getitem__(self, name):
            read.append(name)
            return super().__getitem__(name)

    found = Watched({"one": on_object(), "two": on_object(), "three": chain("A")})
    world = World(chain("A"))
    world.catalog = Catalog(found)
    executor = world.instance()
    executor.execute({"resource": {"type": "start"}, "dag": "three"}, message_id="m1", publish_time=T0)
    assert set(read) == {"three"}
    assert len(executor.execute(an_object(), message_id="m2").run_ids) == 2


def test_an_embedded_executor_does_the_same():
    step = {"type": "Pass", "result": "${run.input.file}"}
    definition = {"start": "A", "steps": {"A": step}, **on_object(run_input={"file": "${event.name}"})} | {
        "steps": {"A": step}
    }
    with DAGExecutor(definition, "memory://") as executor:
        handled = executor.execute(an_object())
        assert executor.wait(handled.run_id, 10).nodes["A"].result == "in/a.csv"


# -- what comes from where ------------------------------------------------------------------------------------


@pytest.fixture
def deployed(monkeypatch, tmp_path):
    """An instance that takes events from a topic of its own, with a DAG that looks at another one."""
    folder = tmp_path / "dags" / "orders"
    folder.mkdir(parents=True)
    step = {"type": "Pass", "result": 1}
    (folder / "dag.json").write_text(json.dumps({**on_message(), "start": "A", "steps": {"A": step}}))
    for name, value in {
        "STATUS_BUCKET": f"file://{tmp_path / 'bucket'}",
        "EVENTS_TOPIC": OWN,
        "DAG_DEFINITIONS": str(tmp_path / "dags"),
        "GOOGLE_CLOUD_PROJECT": "my-project",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gcp, "_instance", gcp.Instance())
    monkeypatch.setattr("orchestrator.runtime.gcp.configure", lambda *_: None)
    return gcp


START = json.dumps({"resource": {"type": "start"}, "run_id": "mine"}).encode()


def test_what_another_topic_says_is_a_message_whatever_it_claims_to_be(deployed):
    handled = deployed.handle(pushed(START, "m1"), source=f"//pubsub.googleapis.com/{TOPIC}")
    assert handled.run_id == run_id_of(f"orders triggered by {TOPIC} m1", T0)
    assert handled.run_id != "mine"
    cancel = json.dumps({"resource": {"type": "cancel"}, "run_id": handled.run_id}).encode()
    deployed.handle(pushed(cancel, "m2"), source=f"//pubsub.googleapis.com/{TOPIC}")
    runs = [json.loads(deployed.executor().store.get(key)[0]) for key in deployed.executor().store.list("runs/")]
    assert [run["$run"]["status"] for run in runs] == ["Completed", "Completed"]


@pytest.mark.parametrize("source", [f"//pubsub.googleapis.com/{OWN}", "//pubsub.googleapis.com/", "", None])
def test_what_our_own_topic_says_is_taken_for_what_it_is(deployed, source):
    assert deployed.handle(pushed(START), source=source).run_id == "mine"


def test_a_message_of_a_topic_that_nothing_looks_at_is_acknowledged(deployed):
    other = "//pubsub.googleapis.com/projects/my-project/topics/other"
    assert deployed.handle(pushed(START), source=other).verdict == "not ours"


@pytest.mark.parametrize(
    "topic",
    ["projects/my-project/topics/a b", "projects/my-project", OWN + "/", OWN.upper(), "projects//topics/x", " "],
)
def test_what_is_not_certain_to_be_from_our_own_topic_is_not_obeyed(deployed, topic):
    deployed.handle(pushed(START), source=f"//pubsub.googleapis.com/{topic}")
    assert list(deployed.executor().store.list("runs/")) == []


def test_a_message_that_says_it_is_of_another_topic_is_believed_only_from_our_own(deployed):
    claimed = json.dumps(a_message(1)).encode()
    other = "//pubsub.googleapis.com/projects/my-project/topics/other"
    assert deployed.handle(pushed(claimed), source=other).verdict == "not ours"


def test_a_push_to_the_deployed_function_under_the_path_of_another_topic_is_a_message(deployed):
    import functions_framework

    app = functions_framework.create_app("on_event", str(Path(__file__).parents[2] / "main.py"), "cloudevent")
    client = app.test_client()
    subscription = {"subscription": "projects/my-project/subscriptions/s"}
    escaped = client.post(f"/{TOPIC}%2520x", json={**pushed(START, "m2"), **subscription})
    assert escaped.status_code == 200
    for path, run_id in ((f"/{TOPIC}", run_id_of(f"orders triggered by {TOPIC} m1", T0)), (f"/{OWN}", "mine")):
        answer = client.post(path, json={**pushed(START, "m1"), **subscription})
        assert answer.status_code == 200
        assert deployed.executor().store.get(f"runs/{run_id}.json") is not None
    assert len(list(deployed.executor().store.list("runs/"))) == 2


def test_the_status_of_a_run_says_what_triggered_it(tmp_path, monkeypatch, capsys):
    from orchestrator.cli.main import main

    definition = {**on_object(), "start": "A", "steps": {"A": {"type": "Pass", "result": 1}}}
    with DAGExecutor(definition, f"file://{tmp_path}") as executor:
        run_id = executor.execute(an_object()).run_id
    assert main(["status", run_id, "--bucket", f"file://{tmp_path}"]) == 0
    assert "triggered by: gs://landing/in/a.csv#1769841000123456" in capsys.readouterr().out


def test_functions_framework_says_which_topic_a_push_is_from():
    from flask import Flask, request
    from functions_framework.event_conversion import background_event_to_cloud_event

    with Flask("app").test_request_context(
        f"/{TOPIC}", method="POST", json={**pushed(b"7"), "subscription": "projects/my-project/subscriptions/s"}
    ):
        event = background_event_to_cloud_event(request)
    assert event["source"] == f"//pubsub.googleapis.com/{TOPIC}"
    assert decode(event.data, topic=TOPIC).event_data["data"] == 7


def test_objects_that_come_late_are_no_new_runs_after_their_run_was_pruned():
    world = World(on_object())
    run_id = happen(world, an_object()).run_id
    world.store.delete(f"runs/{run_id}.json")
    world.store.put(f"pruned/{run_id}.json", b"{}", expect=None)
    world.clock.forward(40 * 24 * 3600)
    handled = world.instance().execute(
        an_object(), message_id="m2", publish_time=world.clock.now() + timedelta(seconds=0)
    )
    assert handled.verdict == "unchanged"
