"""The trace of a launch: an HMAC under the deployment's key, which may change while runs are in flight."""

import pytest

from orchestrator.model.errors import SettingsError
from orchestrator.model.ids import trace_of
from orchestrator.model.policy import Secret
from orchestrator.runtime.settings import Settings
from tests.support.world import World, dag

KEY = b"a key of the deployment, 32 long"
STEP = {"type": "Task", "target_type": "CloudFunction", "target_name": "f"}


def line(launch, trace_id: str) -> dict:
    """What a 1st gen function leaves, which has nothing of ours but the trace."""
    return {
        "logName": "projects/p/logs/cloudfunctions.googleapis.com%2Fcloud-functions",
        "resource": {"type": "cloud_function", "labels": {"function_name": "f", "region": "r", "project_id": "p"}},
        "labels": {"execution_id": f"x-{launch.key}"},
        "textPayload": "Function execution took 426 ms, finished with status code: 200",
        "trace": f"projects/p/traces/{trace_id}",
    }


def started(key: bytes) -> tuple[World, str]:
    world = World(dag(A=STEP), trace_key=Secret(key))
    return world, world.start()


def status(world: World, run_id: str) -> str:
    return world.state(run_id).nodes["A"].status.value


@pytest.mark.parametrize("key", [pytest.param(KEY, id="under a key"), pytest.param(b"", id="without a key")])
def test_a_line_with_the_trace_of_the_launch_is_believed(key):
    world, run_id = started(key)
    (launch,) = world.target.calls
    assert launch.trace_id == trace_of(launch.launch_id, launch.nonce, key)
    world.executor.execute(line(launch, launch.trace_id))
    assert status(world, run_id) == "Completed"


@pytest.mark.parametrize(
    "guessed_with",
    [pytest.param(b"", id="the nonce alone"), pytest.param(b"another key of somebody, 32 long", id="another key")],
)
def test_who_knows_the_nonce_and_not_the_key_cannot_make_the_trace(guessed_with):
    world, run_id = started(KEY)
    (launch,) = world.target.calls
    world.executor.execute(line(launch, trace_of(launch.launch_id, launch.nonce, guessed_with)))
    assert status(world, run_id) == "Running"


@pytest.mark.parametrize("new_key", [b"the key that came after it, 32 l", b""])
def test_a_launch_is_known_by_its_trace_after_the_key_was_changed(new_key):
    world, run_id = started(KEY)
    (launch,) = world.target.calls
    later = World(dag(A=STEP), store=world.store, target=world.target, trace_key=Secret(new_key))
    later.executor.execute(line(launch, launch.trace_id))
    assert status(later, run_id) == "Completed"


def test_a_launch_that_is_taken_over_keeps_its_trace():
    world, _ = started(KEY)
    world.target.launched.clear()
    world.clock.forward(200)
    world.instance().tick()
    first, second = world.target.calls
    assert (second.attempt, second.recover, second.trace_id) == (first.attempt, True, first.trace_id)


def test_a_key_is_not_shown_where_settings_are_printed():
    settings = Settings.read({"DEPLOYMENT_KEY": KEY.decode()})
    assert settings.deployment_key.value == KEY
    assert KEY.decode() not in repr(settings)


def test_a_key_that_is_too_short_is_an_error_that_does_not_show_it():
    with pytest.raises(SettingsError) as caught:
        Settings.read({"DEPLOYMENT_KEY": "secret"})
    assert str(caught.value) == (
        "DEPLOYMENT_KEY: has 6 characters; allowed are 32 or more, as `openssl rand -hex 32` makes"
    )
