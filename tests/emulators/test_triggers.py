"""Events of others, and missed times, through the whole cloud, emulated: each starts its run once."""

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from orchestrator.engine.schedules import Mark, Marks
from orchestrator.model.ids import run_id_of, scheduled_start_of, triggered_start_of
from orchestrator.model.schedule import last_tick
from orchestrator.stores.gcs import GcsStore
from tests.support.cloud import BUCKET, PROJECT, Cloud
from tests.support.command_line import until
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture

ORDERS = f"projects/{PROJECT}/topics/orders-{uuid4().hex[:8]}"


def write(folder, name, **keys):
    (folder / name).mkdir(parents=True)
    step = {"type": "Pass", "result": "${run.input}"}
    (folder / name / "dag.json").write_text(json.dumps({"start": "A", "steps": {"A": step}, **keys}))


@pytest.fixture
def cloud(pubsub_emulator, tmp_path):
    dags = tmp_path / "dags"
    hour = (datetime.now(UTC).hour + 12) % 24  # no time of it comes in the middle of the test
    write(dags, "daily", schedule=f"30 {hour} * * *", missed="all")
    write(
        dags, "csv", triggers=[{"object": {"bucket": "landing", "suffix": ".csv"}, "input": {"file": "${event.uri}"}}]
    )
    by_kind = {"topic": ORDERS, "when": "${event.attributes.kind == 'order'}", "input": {"what": "${event.data}"}}
    write(dags, "orders", triggers=[by_kind])
    write(dags, "audit", triggers=[{"topic": ORDERS, "input": {"id": "${event.message_id}"}}])
    with Cloud(pubsub_emulator, tmp_path, dags=dags, instances=2) as cloud:
        cloud.front.twice = 1.0
        yield cloud


def runs(cloud):
    """DAG -> how many runs there are."""
    found = [cloud.document(name[5:-5])["$run"]["dag"] for name in cloud.names("runs/")]
    return {dag: found.count(dag) for dag in set(found)}


def test_a_message_of_another_topic_starts_a_run_of_each_dag_and_is_obeyed_in_nothing_else(cloud):
    cloud.subscribe(ORDERS)
    first = cloud.publish({"id": 7}, ORDERS, {"kind": "order"})
    run_id = None

    def started():
        nonlocal run_id
        run_id = next(
            (name[5:-5] for name in cloud.names("runs/") if cloud.document(name[5:-5])["$run"]["dag"] == "orders"), None
        )
        return run_id is not None

    until(started, 30)
    document = cloud.wait(run_id)
    assert document["A"]["result"] == {"what": {"id": 7}}
    assert document["$run"]["message_id"] == triggered_start_of("orders", f"{ORDERS} {first}")
    cloud.publish({"resource": {"type": "start"}, "dag": "csv", "run_id": "smuggled"}, ORDERS)
    cloud.publish(b"\xff no JSON", ORDERS)
    until(lambda: runs(cloud).get("audit") == 3, 30)
    assert runs(cloud) == {"orders": 1, "audit": 3}
    assert cloud.names("dead_letters/") == []


def test_an_object_that_is_told_of_twice_is_one_run(cloud):
    attributes = {
        "eventType": "OBJECT_FINALIZE",
        "payloadFormat": "JSON_API_V1",
        "bucketId": "landing",
        "objectId": "in/a.csv",
        "objectGeneration": "1769841000123456",
    }
    resource = {"kind": "storage#object", "bucket": "landing", "name": "in/a.csv", "size": "12"}
    cause = triggered_start_of("csv", "gs://landing/in/a.csv#1769841000123456")
    for _ in range(2):
        cloud.publish(resource, attributes=attributes)
    run = cloud.wait(run_id_of(cause, datetime.fromtimestamp(1769841000, UTC)))
    assert run["A"]["result"] == {"file": "gs://landing/in/a.csv"}
    cloud.publish(resource, attributes={**attributes, "objectGeneration": "1769841000123457"})
    until(lambda: runs(cloud) == {"csv": 2}, 30)


def test_ticks_start_the_runs_that_were_missed_while_nothing_ran(cloud, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.storage.url)
    schedule = json.loads((cloud.dags / "daily" / "dag.json").read_text())["schedule"]
    now = datetime.now(UTC)
    Marks(GcsStore(BUCKET)).save(Mark(1, "daily", schedule, "Etc/UTC", now - timedelta(days=2)), None)
    last = last_tick(schedule, "Etc/UTC", now)
    for at in (last - timedelta(days=1), last):
        cloud.tick()
        run = cloud.wait(run_id_of(scheduled_start_of("daily", at), at), tick_every_s=2.0)["$run"]
        assert datetime.fromisoformat(run["scheduled_for"]) == at
    assert runs(cloud) == {"daily": 2}
    until(lambda: Marks(GcsStore(BUCKET)).load("daily")[0].through > last, 30)
