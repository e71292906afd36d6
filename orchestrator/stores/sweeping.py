"""Takes away what killed writers have left in a directory, once a day."""

import os
from collections.abc import Sequence
from contextlib import suppress

from orchestrator.stores.disk import LOCK, NAMES, Disk
from orchestrator.stores.files import TEMPORARY, modified_ns
from orchestrator.stores.journal_files import object_path
from orchestrator.stores.key_locks import KeyLocks
from orchestrator.stores.objects import Objects

_SWEEPING = "sweep"
"""A lock of no key, for who holds it takes the locks of keys."""
_LEFTOVER_S = 3600.0  # a temporary file as old as this has lost its writer
_SWEEP_EVERY_S = 86400.0


def sweep(disk: Disk, locks: KeyLocks, objects: Objects, now_ns: int) -> None:
    """Remove old temporary files, and journals of objects that are gone, unless that was done within a day.

    Names that are kept of a folder are to be read anew then, too.

    Raises OSError.
    """
    with disk.lock(_SWEEPING):
        left = _remove_temporaries(disk, now_ns / 1e9)
    for path in left:  # under no other lock: two keys may share one
        with suppress(OSError), locks.of(path[len(disk.root) + 1 :]):
            if modified_ns(path) is None:
                objects.remove_journal(path)


def _remove_temporaries(disk: Disk, now_s: float) -> Sequence[str]:
    """Return the paths whose objects are gone and their journals are not."""
    marker = f"{disk.root}/.locks/swept"
    left: list[str] = []
    with suppress(FileNotFoundError):
        if now_s - os.stat(marker).st_mtime < _SWEEP_EVERY_S:
            return left
    os.close(os.open(marker, LOCK, 0o666))
    os.utime(marker)
    for names in disk.names.values():
        names.distrust()
    for folder, folders, files in os.walk(disk.root):
        folders[:] = [name for name in folders if not name.startswith(".") or name == NAMES]
        for name in files:
            path = f"{folder}/{name}"
            with suppress(OSError):
                if name.startswith(TEMPORARY) and now_s - os.stat(path).st_mtime > _LEFTOVER_S:
                    disk.unlink(path)
                elif (owner := object_path(path)) is not None and modified_ns(owner) is None:
                    left.append(owner)
    return left
