"""Secrets from Secret Manager: the latest version, read when a launch needs it and kept for a few minutes.

Source: the REST reference of projects.secrets.versions.access, v1.
"""

import base64
import binascii
from collections.abc import Callable
from threading import Lock

from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.model.json_paths import at
from orchestrator.services.google_api import ApiError, GoogleApis

KEPT_S = 300.0
"""How long a value is used before it is read again: a new version is in use everywhere after this time."""


class SecretManagerSecrets:
    """Secrets by name, of one project.

    Args:
        project: its id.
        seconds: a clock that only goes forward.
    """

    def __init__(self, apis: GoogleApis, project: str, seconds: Callable[[], float]) -> None:
        self._apis, self._project, self._seconds = apis, project, seconds
        self._lock = Lock()
        self._kept: dict[str, tuple[float, str]] = {}

    def get(self, name: str) -> str:
        """Return a secret.

        Raises:
            LaunchRefused: there is none (`Launch.NoSecret`), or it may not be read (`Launch.SecretDenied`).
            LaunchUncertain: it cannot be read now.
        """
        with self._lock:
            known = self._kept.get(name)
        if known is not None and self._seconds() < known[0] + KEPT_S:
            return known[1]
        value = self._read(name)
        with self._lock:
            self._kept[name] = (self._seconds(), value)
        return value

    def _read(self, name: str) -> str:
        path = f"projects/{self._project}/secrets/{name}/versions/latest"
        try:
            versions = self._apis.service("secretmanager", "v1").projects().secrets().versions()
            answer = self._apis.call(versions.access(name=path), f"secret {name}: {path}")
        except ApiError as exc:
            if exc.is_passing:
                raise LaunchUncertain(str(exc)) from exc
            if exc.status == 404:
                hint, kind = "make the secret, with a version", "Launch.NoSecret"
            else:
                hint, kind = "give the orchestrator's service account roles/secretmanager.secretAccessor", None
            raise LaunchRefused(f"{exc}; {hint}", error_type=kind or "Launch.SecretDenied") from exc
        data = at(answer, "payload", "data")
        try:
            return base64.b64decode(data if isinstance(data, str) else "", validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as exc:
            wrong = f"secret {name}: {path} is not UTF-8; a parameter can hold text only"
            raise LaunchRefused(wrong, error_type="Launch.NoSecret") from exc
