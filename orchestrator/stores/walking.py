"""Lists the keys of a directory in the order in which a bucket has them."""

import os
from collections.abc import Iterator

from orchestrator.stores.disk import Disk, unavailable
from orchestrator.stores.keys import is_key


def walk(disk: Disk, prefix: str, start_after: str) -> Iterator[str]:
    """Yield the keys that start with `prefix` and are > `start_after`, sorted.

    It reads only folders that can hold such keys, each when its turn comes.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    if not folder or is_key(folder[:-1]):
        yield from _walk(disk, folder, prefix, start_after)


def _walk(disk: Disk, folder: str, prefix: str, start_after: str) -> Iterator[str]:
    """Yield the keys below `folder` (empty, or ending in /): `prefix` up to its last /, or deeper."""
    path, found = f"{disk.root}/{folder}", []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                key = folder + entry.name
                if not is_key(entry.name) or not key.startswith(prefix):
                    continue
                if entry.is_dir():
                    key += "/"  # so that it sorts as the keys below it do: a-b < a/b < a0
                    if key > start_after or start_after.startswith(key):
                        found.append(key)
                elif key > start_after and entry.is_file():
                    found.append(key)
    except OSError as exc:
        if disk.is_absence(exc):
            return
        raise unavailable(path, "listed", exc) from exc
    for key in sorted(found):
        if key.endswith("/"):
            yield from _walk(disk, key, prefix, start_after)
        else:
            yield key
