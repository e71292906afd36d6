"""A PostgreSQL server of its own for a peer, in a folder, on 127.0.0.1: as initdb leaves it, which means fsync on.

Debian's `postgresql` has it. The server runs as the user `postgres` where we are root, since it refuses to be root's.
"""

import getpass
import os
import pwd
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.peers.serving import free_port, service


def binaries() -> Path | None:
    """The folder of the newest server that is installed here, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    known = shutil.which("initdb")
    return Path(known).parent if known else None


def version() -> str:
    """The version of that server, such as `15.18`."""
    found = binaries()
    assert found is not None
    told = subprocess.run([found / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return told.split()[2]


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """`user:password@127.0.0.1:port` of a server that is there meanwhile; its database is `postgres`."""
    found = binaries()
    if found is None:
        raise RuntimeError("PostgreSQL's server is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    owner = pwd.getpwnam(user)
    as_owner: dict[str, Any] = (
        {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    home, password = folder / "postgres", secrets.token_hex(16)
    home.mkdir(mode=0o700)
    (home / "password").write_text(password)
    for path in (home, home / "password"):
        os.chown(path, owner.pw_uid, owner.pw_gid)
    data, port = home / "data", free_port()
    subprocess.run(
        [
            found / "initdb",
            "-D",
            data,
            "-U",
            "peer",
            "-A",
            "scram-sha-256",
            "--pwfile",
            home / "password",
            "-E",
            "UTF8",
        ],
        check=True,
        cwd=home,
        **as_owner,
    )
    command = [str(found / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    with service(command, cwd=home, **as_owner) as process:
        until = time.monotonic() + 60
        ready: list[str | Path] = [found / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        while subprocess.run(ready, check=False).returncode:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"PostgreSQL does not start in {data}")
            time.sleep(0.1)
        yield f"peer:{password}@127.0.0.1:{port}"
