"""Secrets from environment variables, `SECRET_<NAME>`: of a person's machine, or what Cloud Run puts there."""

import re
from collections.abc import Mapping

from orchestrator.model.errors import LaunchRefused

PREFIX = "SECRET_"


def variable_of(name: str) -> str:
    """Return the environment variable of a secret: `SECRET_API_KEY` for `api-key`."""
    return PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper())


class EnvironmentSecrets:
    """Secrets by name.

    Args:
        environment: where `SECRET_<NAME>` is looked for, first as written, then in capitals with underscores.
        held: others, by name.
    """

    def __init__(self, environment: Mapping[str, str], held: Mapping[str, str] | None = None) -> None:
        self._environment, self._held = environment, held or {}

    def get(self, name: str) -> str:
        """Return a secret. Raises LaunchRefused."""
        for found in (self._environment.get(PREFIX + name), self._environment.get(variable_of(name))):
            if found is not None:
                return found
        if name in self._held:
            return self._held[name]
        raise LaunchRefused(
            f"secret {name}: there is none; set the environment variable {variable_of(name)}, "
            "or name it in the file that SECRETS_FILE names",
            error_type="Launch.NoSecret",
        )
