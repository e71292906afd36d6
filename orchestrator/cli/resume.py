"""`orchestrator resume RUN_ID`: let a paused run go on."""

from collections.abc import Callable, Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.steering import RESUME, Wanted, steer
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings


def resume(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Let the run go on, and say so; see `steer` for what is raised."""
    return steer(console, bucket, RESUME, wanted, settings, environment, clock, broker_of)
