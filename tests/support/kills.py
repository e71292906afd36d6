"""Doing something in a process that dies at its n-th call that changes a disk; and what a power cut leaves then."""

import os
import pickle
import signal

CALLS = ("open", "write", "pwrite", "utime", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "mkdir")


class Disk:
    """What of a folder a power cut leaves, told from its syncs.

    What is there when this is made is on the disk. From then on, a file's content is on it when it is synced, and a
    name when its folder is.

    Args:
        root: the folder.
        notes: a file beside it, by which the process that dies tells the one that waits.
    """

    def __init__(self, root, notes):
        self.root, self.notes = str(root), notes
        self.names, self.contents, self.done = {}, {}, []
        for folder, _, files in os.walk(self.root):
            self.names[folder] = inodes_in(folder)
            for name in files:
                self._keep(os.stat(f"{folder}/{name}"), f"{folder}/{name}")

    def _keep(self, found, path):
        with open(path, "rb") as file:
            self.contents[found.st_ino] = (file.read(), found.st_mtime_ns)

    def synced(self, fd):
        """A file, or a folder, has been synced."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(path):
            self.names[path] = inodes_in(path)
        else:
            self._keep(os.fstat(fd), f"/proc/self/fd/{fd}")

    def tell(self):
        """Say it all, before the process ends."""
        now = {folder: inodes_in(folder) for folder, _, _ in os.walk(self.root)}
        times = {
            inode: os.stat(f"{folder}/{name}").st_mtime_ns
            for folder, names in now.items()
            for name, (inode, is_folder) in names.items()
            if not is_folder
        }
        self.notes.write_bytes(pickle.dumps((self.names, self.contents, now, times, self.done)))

    def cut(self, to, *, has_names):
        """Make a folder of what is left; return what was done by then.

        Args:
            has_names: names, and times, are there though they were not synced, with files that are empty then.
        """
        names, contents, now, times, done = pickle.loads(self.notes.read_bytes())
        self._make(self.root, to, now if has_names else names, contents, times if has_names else {})
        return done

    def _make(self, folder, to, names, contents, times):
        os.makedirs(to)
        for name, (inode, is_folder) in names.get(folder, {}).items():
            if is_folder:
                self._make(f"{folder}/{name}", f"{to}/{name}", names, contents, times)
                continue
            content, time = contents.get(inode, (b"", 1))
            with open(f"{to}/{name}", "wb") as file:
                file.write(content)
            time = times.get(inode, time)
            os.utime(f"{to}/{name}", ns=(time, time))


def inodes_in(folder):
    """Name -> (inode, whether it is a folder)."""
    with os.scandir(folder) as entries:
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}


def killed_at(number, is_after, deed, disk=None):
    """Do something in a process that dies before, or after, its n-th call that changes a disk; whether it did die.

    Before a write means: in the middle of it.
    """
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    left = number

    def die():
        nonlocal left
        left = -1
        if disk is not None:
            disk.tell()
        os._exit(9)

    def counted(name, call):
        def called(*args, **kwargs):
            nonlocal left
            left -= 1
            if not left and not is_after:
                if name == "write":
                    call(args[0], args[1][: len(args[1]) // 2])
                if name == "pwrite":
                    call(args[0], args[1][: len(args[1]) // 2], args[2])
                die()
            is_last = not left
            try:
                if disk is not None and name in ("fsync", "fdatasync"):
                    return disk.synced(args[0])  # which is all that there is of this disk
                return call(*args, **kwargs)
            finally:
                if is_last:
                    die()

        return called

    status = 1
    try:
        signal.alarm(20)
        real = {name: getattr(os, name) for name in CALLS}
        for name, call in real.items():
            setattr(os, name, counted(name, call))
        deed()
        for name, call in real.items():
            setattr(os, name, call)
        if disk is not None:
            disk.tell()
        status = 0
    finally:
        os._exit(status)
