"""Which part there is for which name. A part's module is imported when it is first asked for.

A new store or target is its own file and one line here.
"""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from orchestrator.model.enums import JOBS
from orchestrator.model.errors import SettingsError
from orchestrator.ports import ObjectStore

STORES = {
    "file": "orchestrator.runtime.local:file_store",
    "memory": "orchestrator.runtime.local:memory_store",
    "gs": "orchestrator.runtime.cloud:gcs_store",
    "redis": "orchestrator.runtime.cloud:redis_store",
    "rediss": "orchestrator.runtime.cloud:redis_tls_store",
}
"""Scheme of a bucket URL -> function of the rest of the URL that returns the store."""

REQUIREMENTS = {"redis": "redis~=8.1"}
"""Module that a store needs and that not everybody has -> its line in requirements.txt."""

_JOB_TARGETS = {target_type.value: f"orchestrator.runtime.jobs:{target_type}" for target_type in JOBS}
"""Services that are the same ones on one machine and in the cloud."""

LOCAL_TARGETS = {
    "Function": "orchestrator.runtime.local:function_target",
    "CloudFunction": "orchestrator.runtime.local:cloud_function_target",
    "Dataflow": "orchestrator.runtime.local:dataflow_target",
    **_JOB_TARGETS,
}
"""target_type -> function of `local.LocalParts` that returns the Target."""


CLOUD_TARGETS = {
    "Function": "orchestrator.runtime.cloud:function_target",
    "CloudFunction": "orchestrator.runtime.cloud:cloud_function_target",
    "CloudFunction.sync": "orchestrator.runtime.cloud:sync_function_target",
    "Dataflow": "orchestrator.runtime.cloud:dataflow_target",
    **_JOB_TARGETS,
}
"""Target key -> function of `cloud.CloudParts` that returns the Target."""


def part(path: str) -> object:
    """Return the object at `module:name`, importing the module now."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def open_store(bucket_url: str) -> ObjectStore:
    """Return the store of a bucket URL (`file://dir`, `memory://`).

    A name without a scheme is a bucket of Cloud Storage.

    Raises:
        SettingsError: nothing is registered for its scheme, or what its store needs is not installed.
        StoreUnavailable: it is there, and cannot be used.
    """
    scheme, separator, rest = bucket_url.partition("://")
    if not separator:
        scheme, rest = "gs", bucket_url
    if scheme not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        raise SettingsError(f"bucket {bucket_url}: there is no store for {scheme}://; there is {known}")
    try:
        return cast(Callable[[str], ObjectStore], part(STORES[scheme]))(rest)
    except ValueError as exc:
        raise SettingsError(f"bucket {bucket_url}: {exc}") from exc
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        line = REQUIREMENTS.get(missing)
        if line is None:
            raise
        raise SettingsError(
            f"bucket {scheme}://: its store needs the package {missing}, which is not installed; "
            f"add the line {line} to requirements.txt, or `pip install 'orchestrator[{missing}]'` here"
        ) from exc
