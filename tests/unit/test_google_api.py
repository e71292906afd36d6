"""GoogleApis: one client of each API for all threads, and what is said where there are no credentials."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError

from orchestrator.services.cloud_tasks import CloudTasks
from orchestrator.services.google_api import ApiError, GoogleApis
from tests.support.cloud_tasks_server import CloudTasksServer

QUEUE = "projects/demo/locations/europe-west1/queues/launches"
TIMES = 16


def test_all_threads_get_one_client_though_all_ask_at_first():
    apis, begin = GoogleApis({}, credentials=AnonymousCredentials), Barrier(TIMES)

    def ask(_: int) -> object:
        begin.wait()
        return apis.service("cloudtasks", "v2")

    with ThreadPoolExecutor(TIMES) as pool:
        assert len(set(map(id, pool.map(ask, range(TIMES))))) == 1


def test_one_client_makes_the_calls_of_many_threads_at_once():
    with CloudTasksServer(paused=True) as server:
        tasks, begin = CloudTasks(GoogleApis(server.environment), QUEUE), Barrier(TIMES)

        def create(number: int) -> list[bool]:
            begin.wait()
            keys = [f"key-{number}-{each}" for each in range(10)]
            call = {"url": "https://load-x-ew.a.run.app/", "headers": {}, "body": str(number).encode()}
            return [tasks.create(key, **call) and tasks.exists(key) for key in keys]

        with ThreadPoolExecutor(TIMES) as pool:
            assert list(pool.map(create, range(TIMES))) == [[True] * 10] * TIMES
        assert len(server.tasks) == TIMES * 10


def test_missing_credentials_are_said_and_looked_for_again():
    answers = [DefaultCredentialsError("none yet")]

    def credentials() -> AnonymousCredentials:
        if answers:
            raise answers.pop()
        return AnonymousCredentials()

    apis = GoogleApis({}, credentials=credentials)
    with pytest.raises(ApiError, match=r"dataflow: no credentials: none yet") as caught:
        apis.service("dataflow", "v1b3")
    assert caught.value.is_passing
    assert apis.service("dataflow", "v1b3") is not None


def test_an_overridden_service_asks_for_no_credentials():
    def credentials() -> None:
        raise AssertionError("was asked for credentials")

    apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": "http://127.0.0.1:9"}, credentials=credentials)
    assert apis.service("pubsub", "v1") is not None
