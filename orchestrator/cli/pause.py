"""`orchestrator pause RUN_ID`: have a run start nothing more for now."""

from collections.abc import Callable, Mapping

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.console import Console
from orchestrator.cli.steering import PAUSE, Wanted, steer
from orchestrator.ports import Broker, Clock
from orchestrator.runtime.cloud import patient_broker
from orchestrator.runtime.settings import Settings


def pause(
    console: Console,
    bucket: Bucket,
    wanted: Wanted,
    settings: Settings,
    environment: Mapping[str, str],
    clock: Clock,
    *,
    broker_of: Callable[[str, Mapping[str, str], Clock], Broker] = patient_broker,
) -> int:
    """Have the run paused, and say so; see `steer` for what is raised."""
    return steer(console, bucket, PAUSE, wanted, settings, environment, clock, broker_of)
