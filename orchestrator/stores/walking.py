"""Lists the keys of a directory in the order in which a bucket has them."""

import os
from collections.abc import Iterable, Iterator
from itertools import takewhile

from orchestrator.stores.disk import Disk, unavailable
from orchestrator.stores.keys import is_key
from orchestrator.stores.names import FolderNames


def walk(disk: Disk, prefix: str, start_after: str) -> Iterator[str]:
    """Yield the keys that start with `prefix` and are > `start_after`, sorted.

    It reads only folders that can hold such keys, each when its turn comes.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    if not folder or is_key(folder[:-1]):
        yield from _walk(disk, folder, prefix, start_after)


def _walk(disk: Disk, folder: str, prefix: str, start_after: str) -> Iterator[str]:
    """Yield the keys below `folder` (empty, or ending in /): `prefix` up to its last /, or deeper."""
    path = f"{disk.root}/{folder}"
    try:
        names = disk.names.get(folder)
        if names is None:
            found: Iterable[str] = sorted(_names_in(path, prefix[len(folder) :]))
        else:
            found = _names_of(names, folder, prefix[len(folder) :], start_after)
    except OSError as exc:
        if disk.is_absence(exc):
            return
        raise unavailable(path, "listed", exc) from exc
    for name in found:
        key = folder + name
        if key.endswith("/"):
            if key > start_after or start_after.startswith(key):
                yield from _walk(disk, key, prefix, start_after)
        elif key > start_after:
            yield key


def _names_in(path: str, begin: str) -> Iterator[str]:
    """Yield the names in a folder that begin so, in no order."""
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(begin) and is_key(entry.name):
                if entry.is_dir():
                    yield f"{entry.name}/"  # so that it sorts as the keys below it do: a-b < a/b < a0
                elif entry.is_file():
                    yield entry.name


def _names_of(names: FolderNames, folder: str, begin: str, start_after: str) -> Iterator[str]:
    """Return the names in a folder that begin so, sorted, and of those before `start_after` only a few."""
    if start_after.startswith(folder):
        after = start_after[len(folder) :]
        first = max(begin, after[: after.find("/") + 1] or after)
    elif start_after < folder:
        first = begin
    else:
        return iter(())
    found = names.now().since(first.encode("utf-8", "surrogatepass"))
    return takewhile(lambda name: name.startswith(begin), found)
