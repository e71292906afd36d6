"""What the modules of a directory's store do with single files."""

import os
import stat

TEMPORARY = ".new-"
"""What the names of files begin with that are not in their place yet."""


def read_all(fd: int, begin: int = 0) -> bytes:
    """Return a file's content, from a place in it on."""
    size = os.fstat(fd).st_size - begin
    data = os.pread(fd, size, begin) if size > 0 else b""
    while len(data) < size and (more := os.pread(fd, size - len(data), begin + len(data))):
        data += more
    return data


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write all of it; near the end of the disk, or of a limit, a write may be short."""
    written = os.pwrite(fd, data, offset)
    while written < len(data):
        written += os.pwrite(fd, memoryview(data)[written:], offset + written)


def modified_ns(path: str) -> int | None:
    """Return a file's modification time, or None if there is no such file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else found.st_mtime_ns


def temporary_in(folder: str) -> str:
    """Return a new name in a folder, for a file that is not in its place yet."""
    return f"{folder}/{TEMPORARY}{os.urandom(8).hex()}"
