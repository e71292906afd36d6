"""Where secrets come from: the environment first, in the cloud then Secret Manager. Put together with the first one."""

from collections.abc import Callable, Mapping
from threading import Lock

from orchestrator.model.errors import LaunchRefused
from orchestrator.ports import Secrets
from orchestrator.runtime.settings import Settings


class LazySecrets:
    """Secrets whose sources are made when the first one is asked for."""

    def __init__(self, make: Callable[[], tuple[Secrets, ...]]) -> None:
        self._make = make
        self._lock = Lock()
        self._made: tuple[Secrets, ...] = ()

    def get(self, name: str) -> str:
        """Return a secret from the first source that has it; what the last one says counts."""
        with self._lock:
            self._made = self._made or self._make()
        for source in self._made[:-1]:
            try:
                return source.get(name)
            except LaunchRefused:
                continue
        return self._made[-1].get(name)


def of_this_machine(settings: Settings, environment: Mapping[str, str]) -> Secrets:
    """Return the secrets of environment variables and of the file that SECRETS_FILE names."""
    from orchestrator.runtime.variables import read_variables
    from orchestrator.secrets.environment import EnvironmentSecrets

    try:
        held = read_variables(settings.secrets_file or "")
    except ValueError as exc:
        raise LaunchRefused(f"SECRETS_FILE: {exc}", error_type="Launch.NoSecret") from exc
    wrong = next((name for name, value in held.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise LaunchRefused(f"SECRETS_FILE: {wrong} is no string; quote it", error_type="Launch.NoSecret")
    return EnvironmentSecrets(environment, {name: str(value) for name, value in held.items()})
