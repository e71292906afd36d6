"""Settings: environment variables, all of them in the one table below."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.model.durations import parse_duration
from orchestrator.model.errors import SettingsError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable."""

    name: str
    default: str
    meaning: str


TABLE = (
    Setting("STATUS_BUCKET", "file://.orchestrator", "where runs are kept: file://<directory> or memory://"),
    Setting("DAG_DEFINITIONS", "dag_definitions", "folder of the DAGs, one folder each"),
    Setting("DEFAULT_DAG", "", "the DAG of a start message that names none"),
    Setting("LAUNCH_LEASE", "60s", "how long a claim on a launch lasts at the least"),
    Setting("CLOCK_ALLOWANCE", "5s", "how far the clocks of two instances may be apart"),
    Setting("DEFAULT_TIMEOUT", "23h", "timeout of a Task whose target has no outcome and whose author gave none"),
    Setting("EVENT_GRACE", "60s", "how long an event is put off whose run or record is not there yet"),
    Setting("TICK_INTERVAL", "1s", "locally: how often what was lost or is due is looked for"),
    Setting("LOCAL_WORKERS", "32", "locally: how many Function and CloudFunction tasks run at once"),
)
_BY_NAME = {setting.name: setting for setting in TABLE}


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of the settings; durations in seconds."""

    status_bucket: str
    dag_definitions: str
    default_dag: str | None
    launch_lease_s: float
    clock_allowance_s: float
    default_timeout_s: float
    event_grace_s: float
    tick_interval_s: float
    local_workers: int

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Settings":
        """Read all settings. Raises SettingsError with every one that is wrong."""
        wrong: list[str] = []

        def value(name: str, parse: Callable[[str], T]) -> T | None:
            text = environment.get(name) or _BY_NAME[name].default
            try:
                return parse(text)
            except ValueError as exc:
                wrong.append(f"{name}: {exc}")
                return None

        values = {
            "status_bucket": value("STATUS_BUCKET", str),
            "dag_definitions": value("DAG_DEFINITIONS", str),
            "default_dag": value("DEFAULT_DAG", lambda text: text or None),
            "launch_lease_s": value("LAUNCH_LEASE", parse_duration),
            "clock_allowance_s": value("CLOCK_ALLOWANCE", parse_duration),
            "default_timeout_s": value("DEFAULT_TIMEOUT", parse_duration),
            "event_grace_s": value("EVENT_GRACE", parse_duration),
            "tick_interval_s": value("TICK_INTERVAL", parse_duration),
            "local_workers": value("LOCAL_WORKERS", _positive),
        }
        if wrong:
            raise SettingsError("; ".join(wrong))
        return cls(**values)  # type: ignore[arg-type]  # each came from its own parser, none is wrong


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f'"{text}" is not a whole number from 1 on')
    return int(text)
