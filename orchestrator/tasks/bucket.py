"""The bucket of the runs, as a user function's process sees it: the setting STATUS_BUCKET."""

import logging
import os
from collections.abc import Mapping
from threading import Lock

from orchestrator.model.errors import SettingsError
from orchestrator.ports import ObjectStore
from orchestrator.runtime.registry import open_store

log = logging.getLogger(__name__)

SETTING = "STATUS_BUCKET"


class StatusBucket:
    """Opens the store of STATUS_BUCKET when it is first needed, and keeps it: clients are dear to make.

    Args:
        environment: read anew each time, for a function's source may set it when it is loaded.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = Lock()
        self._opened: dict[str, ObjectStore] = {}
        self._has_warned = False

    def store(self) -> ObjectStore | None:
        """Return the store, or None where the setting is empty: then calls are run and not recorded.

        Raises:
            SettingsError: the setting names no bucket that can be opened here.
            StoreUnavailable: it can be opened, and not now.
        """
        url = self._environment.get(SETTING, "")
        with self._lock:
            if not url:
                self._warn()
                return None
            if url not in self._opened:
                self._opened[url] = _open(url)
            return self._opened[url]

    def _warn(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s: is not set, so launches run unrecorded here: one delivered twice runs twice, and a large "
                "result goes no further than the answer; set it to the orchestrator's own bucket",
                SETTING,
            )


def _open(url: str) -> ObjectStore:
    try:
        return open_store(url)
    except SettingsError as exc:
        raise SettingsError(f"{SETTING}: {exc}") from exc
    except ImportError as exc:
        raise SettingsError(
            f"{SETTING}: the store of {url} cannot be loaded, {exc}; "
            "add what is missing to the function's requirements.txt"
        ) from exc


status_bucket = StatusBucket(os.environ)
"""That of this process."""
