"""The parts of one machine: a directory as the bucket, and twins of the cloud's services as targets."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Protocol, cast

from orchestrator.model.commands import Json
from orchestrator.ports import Hosts, ObjectStore, Target
from orchestrator.runtime.registry import LOCAL_TARGETS, part
from orchestrator.runtime.settings import Settings
from orchestrator.services.google_api import GoogleApis

Publish = Callable[[Mapping[str, Json]], object]


def file_store(path: str) -> ObjectStore:
    """Store of `file://<path>`; the path may be relative and may hold `~`."""
    from orchestrator.stores.local import LocalStore

    return LocalStore(Path(path or ".orchestrator").expanduser())


def memory_store(_: str) -> ObjectStore:
    """Store of `memory://`: gone with the process."""
    from orchestrator.stores.memory import MemoryStore

    return MemoryStore()


class Closing(Protocol):
    """A part that holds threads, processes or files."""

    def close(self) -> None:
        """Let go of them."""


class InstanceHosts(Hosts, Closing, Protocol):
    """Hosts that know which instance this is."""

    me: str


@dataclass
class LocalParts:
    """What the local targets are made of.

    Attributes:
        folders: DAG name -> folder with its functions/ and pipelines/.
        publish: where the targets leave their completion events.
        root: the bucket's directory; None where runs are kept in memory.
        workers: how many tasks of a kind run at once.
        settings, environment: of the services that are called from here as they are.
    """

    folders: Mapping[str, Path]
    publish: Publish
    root: Path | None
    workers: int
    settings: Settings
    environment: Mapping[str, str]
    _temporary: "tempfile.TemporaryDirectory[str] | None" = None

    @cached_property
    def hosts(self) -> InstanceHosts:
        """Who is alive on this machine."""
        from orchestrator.runtime.hosts import LocalHosts

        return LocalHosts(self.work_dir)

    @cached_property
    def work_dir(self) -> Path:
        """Where the twins keep logs and outcomes, an attempt a folder."""
        if self.root is not None:
            return self.root
        self._temporary = tempfile.TemporaryDirectory(prefix="orchestrator-")
        return Path(self._temporary.name)

    @cached_property
    def apis(self) -> GoogleApis:
        """Google's REST APIs."""
        return GoogleApis(self.environment, timeout_s=self.settings.launch_call_limit_s * 2 / 3)

    @property
    def attempts_dir(self) -> Path:
        """One folder a launch: logs, what ran, how it ended."""
        return self.work_dir / "attempts"

    def targets(self) -> "LocalTargets":
        """The targets of these parts."""
        return LocalTargets(self)

    def close(self) -> None:
        """Leave the machine: whoever asks sees that this instance is gone."""
        self.hosts.close()
        if self._temporary is not None:
            self._temporary.cleanup()


def function_target(parts: LocalParts) -> Target:
    """Target of Function steps: a thread or process of this program."""
    from orchestrator.targets.function import FunctionTarget

    return FunctionTarget(parts.publish, parts.hosts, parts.hosts.me, workers=parts.workers)


def cloud_function_target(parts: LocalParts) -> Target:
    """Target of CloudFunction steps: the function's own source under functions-framework."""
    from orchestrator.targets.local_cloud_function import LocalCloudFunction

    return LocalCloudFunction(parts.folders, parts.publish, parts.attempts_dir)


def dataflow_target(parts: LocalParts) -> Target:
    """Target of Dataflow steps: the Beam pipeline in a process of its own."""
    from orchestrator.targets.local_dataflow import LocalDataflow

    return LocalDataflow(parts.folders, parts.publish, parts.attempts_dir)


class LocalTargets(Mapping[str, Target]):
    """Target key -> Target, each made when it is first used; `CloudFunction.sync` is no other twin here."""

    def __init__(self, parts: LocalParts) -> None:
        self._parts = parts
        self._made: dict[str, Target] = {}
        self._lock = Lock()

    def __getitem__(self, target_key: str) -> Target:
        target_type = target_key.partition(".")[0]
        found = self._made.get(target_type)
        if found is not None:
            return found
        with self._lock:
            if target_type not in self._made:
                make = cast(Callable[[LocalParts], Target], part(LOCAL_TARGETS[target_type]))
                self._made[target_type] = make(self._parts)
            return self._made[target_type]

    def __iter__(self) -> Iterator[str]:
        return iter(LOCAL_TARGETS)

    def __len__(self) -> int:
        return len(LOCAL_TARGETS)

    def made(self) -> list[Target]:
        """Those that were used."""
        return list(self._made.values())
