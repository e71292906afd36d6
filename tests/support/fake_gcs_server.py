"""A real emulator of Cloud Storage that others wrote, where one is found: fake-gcs-server on the PATH."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import Self

PROGRAM = "fake-gcs-server"


class FakeGcsServer:
    """Runs from `with` until its end, in memory, on a port of its own."""

    def __enter__(self) -> Self:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-external-url", self.url]
        self._process = subprocess.Popen(
            [PROGRAM, *where, "-backend", "memory"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return self
            time.sleep(0.02)
        self.__exit__()
        raise TimeoutError(f"{PROGRAM} does not listen after 10 s")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(5.0)

    @staticmethod
    def is_installed() -> bool:
        return shutil.which(PROGRAM) is not None
