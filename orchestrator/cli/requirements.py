"""What a requirements.txt makes importable, as far as the packages that are installed here tell; none is imported."""

import re
from functools import cache
from importlib import metadata
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Requirements:
    """The packages that a file names, and those that these need.

    Attributes:
        names: normalized names.
    """

    def __init__(self, names: set[str]) -> None:
        self.names = names
        self._is_complete = True
        """Whether all of them are installed here, so that it is known what they bring."""
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            try:
                needs = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                self._is_complete = False
                continue
            # What is needed on some machines only (`; python_version < "3.11"`) counts where it is installed.
            asked = [each for each in needs if "extra ==" not in each and (";" not in each or _is_here(_normal(each)))]
            fresh = {_normal(each) for each in asked} - self.names
            self.names = self.names | fresh
            waiting += fresh

    @classmethod
    def read(cls, path: Path) -> "Requirements":
        """Read a file; one that is not there names nothing."""
        return cls(cls.named(path))

    @staticmethod
    def named(path: Path) -> set[str]:
        """Return the packages that a file names itself, normalized."""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return set()
        return {_normal(line) for line in lines if _NAME.match(line.strip())}

    def provide(self, module: str) -> bool | None:
        """Whether a top-level module comes with them; None where that cannot be told here."""
        known = _installed().get(module)
        if known is not None:
            return not self.names.isdisjoint(known)
        if _normal(module) in self.names:
            return True
        return False if self._is_complete else None


def _is_here(name: str) -> bool:
    return any(name in names for names in _installed().values())


@cache
def _installed() -> dict[str, set[str]]:
    """Top-level module -> the packages that bring it."""
    return {module: {_normal(name) for name in names} for module, names in metadata.packages_distributions().items()}


def _normal(requirement: str) -> str:
    """Return the normalized name of a requirement (PEP 503)."""
    found = _NAME.match(requirement.strip())
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
