"""Which lock a key has: of a few, which all keys share."""

from zlib import crc32

from orchestrator.stores.disk import Disk
from orchestrator.stores.stripes import Stripe

_STRIPES = 64  # two programs that share a directory must agree on it
"""So few that they stay open, and are there after some runs: to make a file may cost as much as to sync one."""
_RELAXED_STRIPES = 32
"""Of keys that are not synced: nobody holds one for long."""


class KeyLocks:
    """The locks of a directory's keys.

    Args:
        relaxed: prefixes of keys that are not synced to disk.
    """

    def __init__(self, disk: Disk, relaxed: tuple[str, ...]) -> None:
        self._disk, self._relaxed = disk, relaxed

    def of(self, key: str) -> Stripe:
        """The lock of a key."""
        return self._disk.lock(self.name_of(key))

    def name_of(self, key: str) -> str:
        """Its name; whoever takes several locks, takes them in the order of their names."""
        number = crc32(key.encode())
        # Apart, so that who writes many small things that are not synced does not wait for who syncs.
        return f"relaxed-{number % _RELAXED_STRIPES:02}" if self.is_relaxed(key) else f"{number % _STRIPES:02}"

    def is_relaxed(self, key: str) -> bool:
        """Whether a key is not synced to disk."""
        return key.startswith(self._relaxed)
