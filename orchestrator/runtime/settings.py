"""Settings: environment variables, all of them in the one table below."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from orchestrator.model.commands import Json
from orchestrator.model.durations import parse_duration
from orchestrator.model.errors import SettingsError
from orchestrator.model.grammar import POOL
from orchestrator.model.grammar_of_runs import MAX_SLOTS
from orchestrator.model.policy import Secret
from orchestrator.services.allowed_hosts import ALLOWED_HOSTS

T = TypeVar("T")

MIN_KEY_LENGTH = 32
LONGEST_DURATION = "30d"
"""What a duration may be, each: as a `timeout` of a step. Times are added to it, and the calendar ends."""
MAX_NUMBER = 1_000_000


class Setting(msgspec.Struct, frozen=True):
    """One environment variable."""

    name: str
    default: str
    meaning: str


TABLE = (
    Setting("STATUS_BUCKET", "file://.orchestrator", "where runs are kept: gs://, redis://, file:// or memory://"),
    Setting("DAG_DEFINITIONS", "dag_definitions", "folder of the DAGs, one folder each"),
    Setting("VARIABLES", "", "what ${var.NAME} stands for: a JSON object, or the path of a JSON or YAML file"),
    Setting("SECRETS_FILE", "", "locally: a JSON or YAML file of what ${secret.NAME} stands for, beside SECRET_<NAME>"),
    Setting("DEFAULT_DAG", "", "the DAG of a start message that names none"),
    Setting("EVENTS_TOPIC", "", "in the cloud: the topic that events come from, projects/P/topics/T"),
    Setting(
        "TASKS_QUEUE", "", "in the cloud: the Cloud Tasks queue that calls functions, projects/P/locations/R/queues/Q"
    ),
    Setting("INVOKER_SERVICE_ACCOUNT", "", "in the cloud: as whom functions are called"),
    Setting("DEPLOYMENT_KEY", "", "in the cloud: a secret of 32 characters or more, for the traces of launches"),
    Setting("GOOGLE_CLOUD_PROJECT", "", "project of the steps that name none, of those that Google Cloud runs"),
    Setting("FUNCTION_REGION", "", "region of the steps that name none, of those that Google Cloud runs"),
    Setting("CLOUD_FUNCTIONS_URL", "", "another URL of functions, with {project} {region} {target_name} in it"),
    Setting("FIRST_GENERATION_FUNCTIONS", "", "in the cloud: names of the 1st generation's, with commas between"),
    Setting("DATAFLOW_TEMPLATES", "", "in the cloud: gs:// folder of the flex templates of steps that name none"),
    Setting("DATAFLOW_TEMP_LOCATION", "", "in the cloud: gs:// folder for the temporary files of Dataflow jobs"),
    Setting("DATAFLOW_SERVICE_ACCOUNT", "", "in the cloud: as whom Dataflow workers run"),
    Setting("LAUNCH_LEASE", "60s", "how long a claim on a launch lasts at the least"),
    Setting("LAUNCH_CALL_LIMIT", "30s", "in the cloud: how long one call that launches something may take"),
    Setting("LOG_SEARCHES_PER_MINUTE", "20", "in the cloud: how often an instance looks for a lost log line at most"),
    Setting(
        "SAVE_INTERVAL", "", "least time between saves of one run; by default what its bucket asks for: 1s in gs://"
    ),
    Setting("CLOCK_ALLOWANCE", "5s", "how far the clocks of two instances may be apart"),
    Setting("DEFAULT_TIMEOUT", "23h", "timeout of a Task whose target has no outcome and whose author gave none"),
    Setting("EVENT_GRACE", "60s", "how long an event is put off whose run or record is not there yet"),
    Setting(
        "TICK_INTERVAL",
        "1s",
        "locally: how often what was lost or is due is looked for; of a run that goes on meanwhile, each fifth time",
    ),
    Setting("NOTIFY", "", "who is told of the events of all runs: a JSON list, as notify of a definition"),
    Setting("NOTIFY_HOSTS", ",".join(ALLOWED_HOSTS), "hosts that webhooks may be at, with commas between"),
    Setting("POOLS", "", "how many Tasks of a pool run at once, with commas between: bigquery=5,api=2"),
    Setting("LOCAL_WORKERS", "32", "locally: how many Function and CloudFunction tasks run at once"),
)
_BY_NAME = {setting.name: setting for setting in TABLE}


class Settings(msgspec.Struct, frozen=True):
    """Values of the settings; durations in seconds."""

    status_bucket: str
    dag_definitions: str
    variables: Mapping[str, Json]
    secrets_file: str | None
    default_dag: str | None
    events_topic: str | None
    tasks_queue: str | None
    invoker_service_account: str | None
    deployment_key: Secret
    project: str | None
    region: str | None
    functions_url: str | None
    first_generation_functions: tuple[str, ...]
    dataflow_templates: str | None
    dataflow_temp_location: str | None
    dataflow_service_account: str | None
    launch_lease_s: float
    launch_call_limit_s: float
    log_searches_per_minute: int
    save_interval_s: float | None
    clock_allowance_s: float
    default_timeout_s: float
    event_grace_s: float
    tick_interval_s: float
    notify: tuple[Mapping[str, object], ...]
    notify_hosts: tuple[str, ...]
    pools: Mapping[str, int]
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
            "variables": value("VARIABLES", _variables),
            "secrets_file": value("SECRETS_FILE", _or_none),
            "default_dag": value("DEFAULT_DAG", _or_none),
            "events_topic": value("EVENTS_TOPIC", _or_none),
            "tasks_queue": value("TASKS_QUEUE", _or_none),
            "invoker_service_account": value("INVOKER_SERVICE_ACCOUNT", _or_none),
            "deployment_key": value("DEPLOYMENT_KEY", _key),
            "project": value("GOOGLE_CLOUD_PROJECT", _or_none),
            "region": value("FUNCTION_REGION", _or_none),
            "functions_url": value("CLOUD_FUNCTIONS_URL", _or_none),
            "first_generation_functions": value("FIRST_GENERATION_FUNCTIONS", _names),
            "dataflow_templates": value("DATAFLOW_TEMPLATES", _or_none),
            "dataflow_temp_location": value("DATAFLOW_TEMP_LOCATION", _or_none),
            "dataflow_service_account": value("DATAFLOW_SERVICE_ACCOUNT", _or_none),
            "launch_lease_s": value("LAUNCH_LEASE", _duration),
            "launch_call_limit_s": value("LAUNCH_CALL_LIMIT", _duration),
            "log_searches_per_minute": value("LOG_SEARCHES_PER_MINUTE", _positive),
            "save_interval_s": value("SAVE_INTERVAL", _duration_or_none),
            "clock_allowance_s": value("CLOCK_ALLOWANCE", _duration),
            "default_timeout_s": value("DEFAULT_TIMEOUT", _duration),
            "event_grace_s": value("EVENT_GRACE", _duration),
            "tick_interval_s": value("TICK_INTERVAL", _duration),
            "notify": value("NOTIFY", _receivers),
            "notify_hosts": value("NOTIFY_HOSTS", _names),
            "pools": value("POOLS", _pools),
            "local_workers": value("LOCAL_WORKERS", _positive),
        }
        if wrong:
            raise SettingsError("; ".join(wrong))
        return cls(**values)  # type: ignore[arg-type]  # each came from its own parser, none is wrong


def _or_none(text: str) -> str | None:
    return text or None


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _variables(text: str) -> Mapping[str, Json]:
    if not text:
        return {}
    from orchestrator.runtime.variables import read_variables

    return read_variables(text)


def _duration(text: str) -> float:
    seconds = parse_duration(text)
    if seconds > parse_duration(LONGEST_DURATION):
        raise ValueError(f'"{text}" is out of range; allowed are {LONGEST_DURATION} and less')
    return seconds


def _duration_or_none(text: str) -> float | None:
    return _duration(text) if text else None


def _key(text: str) -> Secret:
    if text and len(text) < MIN_KEY_LENGTH:
        raise ValueError(
            f"has {len(text)} characters; allowed are {MIN_KEY_LENGTH} or more, as `openssl rand -hex 32` makes"
        )
    return Secret(text.encode())


def _receivers(text: str) -> tuple[Mapping[str, object], ...]:
    if not text:
        return ()
    from orchestrator.model.definition import notify_problems

    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        raise ValueError(f"is no JSON: {exc}") from exc
    problems = list(notify_problems("NOTIFY", found))
    if problems:
        raise ValueError("; ".join(problem.removeprefix("NOTIFY: ") for problem in problems))
    return tuple(found)


def _pools(text: str) -> Mapping[str, int]:
    pools: dict[str, int] = {}
    for each in text.replace(",", " ").split():
        name, _, slots = each.partition("=")
        problem = POOL.rule.problem(name) if POOL.rule is not None else None
        if problem:
            raise ValueError(problem)
        if not (slots.isascii() and slots.isdigit() and 1 <= int(slots[:9]) <= MAX_SLOTS):
            raise ValueError(f'"{each}" gives no number of slots; write it as in {name}=5, from 1 to {MAX_SLOTS}')
        if name in pools:
            raise ValueError(f'"{name}" stands there twice')
        pools[name] = int(slots)
    return pools


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= MAX_NUMBER):
        raise ValueError(f'"{text[:60]}" is not a whole number from 1 to {MAX_NUMBER:,}')
    return int(text[:12])
