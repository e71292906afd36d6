"""A Redis server of the tests' own: a child process on 127.0.0.1 that keeps nothing."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import redis


class RedisServer:
    """The server; it runs while it is entered."""

    def __init__(self, *settings: str) -> None:
        self._settings = settings
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("redis-server") is not None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="orchestrator-redis-")
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        own = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", self._folder.name, "--save", ""]
        with Path(self._folder.name, "log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *own, *self._settings], stdout=log, stderr=log)
        with redis.Redis(port=self.port, retry=None) as client:
            for _ in range(500):
                try:
                    client.ping()
                    return
                except redis.AuthenticationError:
                    return  # it runs, and wants a password
                except redis.ConnectionError:
                    time.sleep(0.01)
        self.stop()
        raise RuntimeError(Path(self._folder.name, "log").read_text())

    def stop(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()
        self._process.wait()
