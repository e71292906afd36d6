"""A run that ends says so in the log, once, and as an error if it failed."""

import io
import json
import logging

import pytest

from orchestrator.model.commands import Outcome
from orchestrator.runtime.logs import JsonFormatter
from orchestrator.runtime.run_ends import log_end
from tests.support.world import World, chain


@pytest.fixture
def lines():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("my-project"))
    log = logging.getLogger("orchestrator")
    log.addHandler(handler)
    before, log.level = log.level, logging.INFO
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    log.removeHandler(handler)
    log.level = before


@pytest.mark.parametrize(
    ("outcome", "severity", "message"),
    [
        pytest.param(
            Outcome.failed("Task.Failed", "no rows"),
            "ERROR",
            "run ended: Failed: RUN of dag: Task.Failed: no rows",
            id="a failed run is an error",
        ),
        pytest.param(Outcome.completed(), "INFO", "run ended: Completed: RUN of dag", id="one that went well is none"),
    ],
)
def test_a_runs_end_is_logged(lines, outcome, severity, message):
    world = World(chain("A"))
    world.instances = [world.instance(on_saved=log_end)]
    run_id = world.start()
    assert lines() == []
    world.end("A", outcome, times=2)
    (line,) = lines()
    assert (line["severity"], line["message"].replace(run_id, "RUN")) == (severity, message)
    assert line["logging.googleapis.com/labels"] == {"run_id": run_id}
