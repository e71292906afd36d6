"""One step of each job service through the emulated cloud: by events and questions, and where all of them are lost."""

import json

import pytest

from orchestrator.targets.job_services import SERVICES
from tests.support.cloud import Cloud
from tests.support.job_steps import definition_of_all
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture


@pytest.fixture
def dags(tmp_path):
    folder = tmp_path / "dags" / "services"
    folder.mkdir(parents=True)
    (folder / "dag.json").write_text(json.dumps(definition_of_all()))
    return folder.parent


def work(service, job):
    job.stop.wait(1.0)
    return {"of": service.name}


def check(cloud, document):
    assert document["$run"]["status"] == "Completed"
    assert {document[name]["status"] for name in SERVICES} == {"Completed"}
    assert document["Workflows"]["result"]["output"] == {"of": "Workflows"}
    assert {name.value: len(cloud.jobs[name].jobs) for name in SERVICES} == dict.fromkeys(SERVICES, 1)


def test_two_instances_run_all_six_by_events_and_questions_without_a_tick(pubsub_emulator, tmp_path, dags):
    with Cloud(pubsub_emulator, tmp_path, dags=dags, instances=2, work=work) as cloud:
        cloud.publish({"resource": {"type": "start"}, "dag": "services", "run_id": "six"})
        check(cloud, cloud.wait("six", 90))


def test_where_every_event_is_lost_the_tick_finds_out(pubsub_emulator, tmp_path, dags):
    with Cloud(pubsub_emulator, tmp_path, dags=dags, loses=1.0, work=work) as cloud:
        cloud.publish({"resource": {"type": "start"}, "dag": "services", "run_id": "six"})
        check(cloud, cloud.wait("six", 90, tick_every_s=2.0))
        assert cloud.lost == 4
