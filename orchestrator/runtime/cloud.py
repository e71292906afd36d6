"""The parts of the cloud: Cloud Storage, Pub/Sub with Cloud Tasks, and the targets that Google runs."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, cast

from orchestrator.brokers.pubsub import Publisher, PubSubBroker, endpoint_override, publisher_client
from orchestrator.engine.results import Results
from orchestrator.model.errors import BrokerUnavailable, LaunchRefused, SettingsError
from orchestrator.ports import Broker, Clock, ObjectStore, Secrets, Target
from orchestrator.runtime.registry import CLOUD_TARGETS, part
from orchestrator.runtime.secrets import LazySecrets, of_this_machine
from orchestrator.runtime.settings import Settings
from orchestrator.services.cloud_logging import CloudLogging
from orchestrator.services.cloud_tasks import CloudTasks
from orchestrator.services.google_api import GoogleApis

if TYPE_CHECKING:
    from orchestrator.runtime.rights import Rights


def gcs_store(path: str) -> ObjectStore:
    """Store of `gs://<bucket>[/<prefix>]`."""
    from orchestrator.stores.gcs import GcsStore

    bucket, _, prefix = path.partition("/")
    if not bucket:
        raise SettingsError("bucket gs://: names no bucket; write gs://bucket or gs://bucket/prefix")
    return GcsStore(bucket, prefix=prefix)


def redis_store(rest: str, scheme: str = "redis") -> ObjectStore:
    """Store of `redis://<host>:<port>/<database>`."""
    from orchestrator.stores.redis import RedisStore

    return RedisStore(f"{scheme}://{rest}")


def redis_tls_store(rest: str) -> ObjectStore:
    """Store of `rediss://…`: Redis over TLS."""
    return redis_store(rest, "rediss")


_PATIENCE_S = 10.0
"""How long a person waits for a topic that does not answer."""
_LOG_PATIENCE_S = 60.0
"""How long a person waits for a search of the logs."""


class CloudParts:
    """What the cloud's broker and targets are made of, each when it is first used.

    Args:
        environment: where endpoint overrides and emulators are read from.
    """

    def __init__(self, settings: Settings, store: ObjectStore, clock: Clock, environment: Mapping[str, str]) -> None:
        self.settings, self.store, self.clock = settings, store, clock
        self._environment = environment
        limit_s = settings.launch_call_limit_s  # of a call, and of what is done around it
        self.apis = GoogleApis({**endpoint_override(environment), **environment}, timeout_s=limit_s * 2 / 3)

    @cached_property
    def tasks(self) -> CloudTasks | None:
        """The queue, if there is one."""
        return CloudTasks(self.apis, self.settings.tasks_queue) if self.settings.tasks_queue else None

    @cached_property
    def broker(self) -> PubSubBroker:
        """The topic that events come from, to publish to. Raises SettingsError without EVENTS_TOPIC."""
        return PubSubBroker(
            needed("EVENTS_TOPIC", self.settings.events_topic),
            tasks=self.tasks,
            apis=self.apis,
            clock=self.clock,
            oauth_service_account=self.settings.invoker_service_account,
        )

    @cached_property
    def secrets(self) -> Secrets:
        """The environment's, else Secret Manager's."""
        return LazySecrets(self._secret_sources)

    def _secret_sources(self) -> tuple[Secrets, ...]:
        from orchestrator.secrets.secret_manager import SecretManagerSecrets

        if self.settings.project is None:
            missing = "GOOGLE_CLOUD_PROJECT: is not set; Secret Manager's secrets are those of a project"
            raise LaunchRefused(missing, error_type="Launch.NoSecret")
        manager = SecretManagerSecrets(self.apis, self.settings.project, time.monotonic)
        return of_this_machine(self.settings, self._environment), manager

    @cached_property
    def targets(self) -> "CloudTargets":
        """Target key -> Target."""
        return CloudTargets(self)


def patient_broker(topic: str, environment: Mapping[str, str], clock: Clock) -> Broker:
    """Return the broker of a process that a person waits for: it tries again by itself, and has no delays.

    Raises:
        SettingsError: `topic` is no name of one.
        BrokerUnavailable: there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError

    apis = GoogleApis({**endpoint_override(environment), **environment}, timeout_s=_PATIENCE_S)

    def broker(publisher: Publisher | None) -> PubSubBroker:
        return PubSubBroker(topic, tasks=None, apis=apis, clock=clock, publisher=publisher)

    broker(None)  # a wrong name first, then whether there are credentials
    try:
        return broker(publisher_client())
    except GoogleAuthError as exc:
        raise BrokerUnavailable(
            f"topic {topic}: no credentials: {exc}; `gcloud auth application-default login` gives a machine its own, "
            "an emulator (PUBSUB_EMULATOR_HOST) needs none"
        ) from exc


def log_reader(projects: Sequence[str], environment: Mapping[str, str]) -> CloudLogging:
    """Return what reads the logs of projects, for a person who waits."""
    return CloudLogging(GoogleApis(environment, timeout_s=_LOG_PATIENCE_S), projects)


def rights(environment: Mapping[str, str]) -> "Rights":
    """Return what asks for rights, for a person who waits."""
    from orchestrator.runtime.rights import Rights

    return Rights(GoogleApis(environment, timeout_s=_PATIENCE_S))


class CloudTargets(Mapping[str, Target]):
    """Target key -> Target, each made when it is first used."""

    def __init__(self, parts: CloudParts) -> None:
        self._parts = parts
        self._made: dict[str, Target] = {}
        self._lock = Lock()

    def __getitem__(self, target_key: str) -> Target:
        with self._lock:
            if target_key not in self._made:
                make = cast(Callable[[CloudParts], Target], part(CLOUD_TARGETS[target_key]))
                self._made[target_key] = make(self._parts)
            return self._made[target_key]

    def __iter__(self) -> Iterator[str]:
        return iter(CLOUD_TARGETS)

    def __len__(self) -> int:
        return len(CLOUD_TARGETS)


def function_target(_: CloudParts) -> Target:
    """Target of Function steps: inside of the event that launches them."""
    from orchestrator.targets.inline_function import InlineFunction

    return InlineFunction()


def cloud_function_target(parts: CloudParts) -> Target:
    """Target of CloudFunction steps: by way of the queue."""
    from orchestrator.targets.cloud_function import CloudFunction
    from orchestrator.targets.cloud_logging import LogSearch

    settings = parts.settings
    tasks = parts.tasks
    if tasks is None:
        raise SettingsError("TASKS_QUEUE: is not set; functions are called by way of a Cloud Tasks queue")
    project = needed("GOOGLE_CLOUD_PROJECT", settings.project)
    results = Results(parts.store)
    return CloudFunction(
        tasks,
        project=project,
        region=needed("FUNCTION_REGION", settings.region),
        invoker_service_account=needed("INVOKER_SERVICE_ACCOUNT", settings.invoker_service_account),
        results=results.ask,
        told=results.told,
        logs=LogSearch(parts.apis, project, per_minute=settings.log_searches_per_minute).outcome_by_trace,
        url=settings.functions_url,
        first_generation=settings.first_generation_functions,
        launch_limit_s=settings.launch_call_limit_s,
    )


def sync_function_target(parts: CloudParts) -> Target:
    """Target of CloudFunction steps that are called directly."""
    from orchestrator.targets.cloud_function_sync import CloudFunctionSync

    settings = parts.settings
    return CloudFunctionSync(
        project=needed("GOOGLE_CLOUD_PROJECT", settings.project),
        region=needed("FUNCTION_REGION", settings.region),
        results=Results(parts.store).ask,
        url=settings.functions_url,
    )


def dataflow_target(parts: CloudParts) -> Target:
    """Target of Dataflow steps."""
    from orchestrator.targets.dataflow import Dataflow

    settings = parts.settings
    return Dataflow(
        parts.apis,
        project=needed("GOOGLE_CLOUD_PROJECT", settings.project),
        region=needed("FUNCTION_REGION", settings.region),
        service_account=settings.dataflow_service_account,
        templates=settings.dataflow_templates,
        temp_location=settings.dataflow_temp_location,
        launch_limit_s=settings.launch_call_limit_s,
    )


def needed(name: str, value: str | None) -> str:
    """Return the value of a setting. Raises SettingsError where it is missing."""
    if value is None:
        raise SettingsError(f"{name}: is not set; the cloud's targets need it")
    return value
