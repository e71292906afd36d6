"""orchestrator run of steps that Google Cloud runs: it calls the real services, or says what is missing."""

import json
import sys

import pytest

from orchestrator.cli.main import main
from orchestrator.runtime import jobs
from orchestrator.targets.job_services import SERVICES
from tests.support.command_line import Place, clean_environment
from tests.support.job_server import JobServer
from tests.support.job_steps import definition_of_all

SETTINGS = ("GOOGLE_CLOUD_PROJECT", "FUNCTION_REGION", "EVENTS_TOPIC", "GOOGLE_APPLICATION_CREDENTIALS")


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jobs, "ASK_LOCALLY_EVERY_S", 0.0)
    monkeypatch.setenv("TICK_INTERVAL", "0.05s")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


@pytest.fixture
def server(monkeypatch):
    """The services' fakes, in which every job succeeds at once; a job with the parameter `fail` fails."""

    def work(service, job):
        if "fail" in service.parameters(job):
            raise ValueError("no rows")
        return {"rows": 3}

    with JobServer(work=work) as server:
        for name, url in server.environment.items():
            monkeypatch.setenv(name, url)
        yield server


def write(place, **keys):
    definition = definition_of_all(**keys)
    place.dag("jobs", definition["steps"], definition["start"])


def test_with_a_project_and_a_region_all_six_services_run_from_here(place, server, monkeypatch, capsys):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("FUNCTION_REGION", "europe-west1")
    write(place)
    assert main(["run", "jobs", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name]["status"] for name in SERVICES} == dict.fromkeys(SERVICES, "Completed")
    assert document["Workflows"]["result"]["output"] == {"rows": 3}
    assert {name: len(server[name].jobs) for name in SERVICES} == dict.fromkeys(SERVICES, 1)


def test_a_job_that_fails_ends_the_command_with_1_and_its_words(place, server, monkeypatch, capsys):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "my-project")
    monkeypatch.setenv("FUNCTION_REGION", "europe-west1")
    step = {"type": "Task", "target_type": "Workflows", "target_name": "nightly", "parameters": {"fail": True}}
    place.dag("jobs", {"Send": step})
    assert main(["run", "jobs"]) == 1
    said = capsys.readouterr().out
    assert "step Send, attempt 1: Workflows.JobFailed: ValueError: no rows" in said


def test_without_them_nothing_is_started_and_both_are_told(place, server, capsys):
    write(place)
    assert main(["run", "jobs"]) == 2
    names = ", ".join(f'"{name}"' for name in SERVICES)
    assert capsys.readouterr().err.splitlines() == [
        f"orchestrator: steps {names}: GOOGLE_CLOUD_PROJECT: is not set; "
        'set it, or write "project_id" in each of these steps',
        f'orchestrator: steps {names}: FUNCTION_REGION: is not set; set it, or write "region" in each of these steps',
    ]
    assert place.run_ids() == []
    assert all(not service.calls for service in server.services.values())


def test_steps_that_name_their_own_need_no_settings(place, server):
    write(place, project_id="other", region="us-east1")
    assert main(["run", "jobs"]) == 0
    assert all(job.parent.startswith("projects/other/locations/us-east1") for job in server["Batch"].jobs.values())


def test_without_credentials_nothing_is_started_either(place, monkeypatch, capsys):
    from google.auth.exceptions import DefaultCredentialsError

    def none(**_):
        raise DefaultCredentialsError("none here")

    monkeypatch.setattr("google.auth.default", none)
    write(place, project_id="other", region="us-east1")
    assert main(["run", "jobs"]) == 2
    said = capsys.readouterr().err
    assert "no credentials: none here; `gcloud auth application-default login` gives a machine its own" in said
    assert place.run_ids() == []


def test_a_definition_that_asks_for_none_of_them_needs_nothing(place, monkeypatch):
    monkeypatch.setattr("google.auth.default", None)
    place.dag("plain", {"A": place.task("echo")})
    assert main(["run", "plain"]) == 0
