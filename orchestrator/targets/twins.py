"""What the twins of the cloud's services share: where sources lie, and how ends are put into words."""

import logging
import re
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from orchestrator.model.commands import Json, Launch
from orchestrator.model.errors import LaunchRefused

log = logging.getLogger(__name__)

_LONGEST_MESSAGE = 4000
_TAIL_BYTES = 64 * 1024

_EXCEPTION_LINE = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:: .+)?")
"""What a traceback ends with: `ValueError: boom`, `pkg.errors.TooLate`, `KeyboardInterrupt`."""

_FILE_NAME = re.compile(r"[^/\0]+")


def source_of(folders: Mapping[str, Path], launch: Launch, pattern: str, *, error_type: str) -> Path:
    """Return the source file of the launch's target, `<folder of the DAG>/<pattern with target_name for *>`.

    Raises:
        LaunchRefused: there is none; says where it was looked for, and which there are.
    """
    what = pattern.partition("/")[0]  # functions, pipelines
    folder = folders.get(launch.dag)
    if folder is None:
        raise LaunchRefused(
            f"{launch.node_name}: the DAG {launch.dag} has no folder with {what}; "
            f"those with one: {', '.join(sorted(folders)) or 'none'}",
            error_type=error_type,
        )
    name = launch.target_name
    path = folder / pattern.replace("*", name)
    if _FILE_NAME.fullmatch(name) and name not in (".", "..") and path.is_file():
        return path
    before, _, after = pattern.partition("*")
    there = (str(found.relative_to(folder)) for found in folder.glob(pattern))
    names = sorted(each.removeprefix(before).removesuffix(after) for each in there)
    raise LaunchRefused(
        f"{launch.node_name}: {path}: there is no such file; {what} that exist: {', '.join(names) or 'none'}",
        error_type=error_type,
    )


def tell(publish: Callable[[Mapping[str, Json]], object], launch: Launch, entry: Mapping[str, Json]) -> None:
    """Publish what an execution left behind. The outcome is durable by now, so a failure is only logged."""
    try:
        publish(entry)
    except Exception:
        log.exception(
            "run_id=%s node=%s: the event of its end was not taken; the Tick will find the outcome",
            launch.run_id,
            launch.node_name,
            extra=where(launch),
        )


def where(launch: Launch) -> dict[str, object]:
    """What a line about a launch is found by."""
    return {"run_id": launch.run_id, "node": launch.node_name, "attempt": launch.attempt, "trace": launch.trace_id}


def utc_now() -> datetime:
    """The time by this machine's clock, aware."""
    return datetime.now(UTC)


def timestamp(time: datetime) -> str:
    """RFC 3339 with µs and a Z, as log entries have it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def digest_of(*parts: str) -> str:
    """64 hex digits that depend on the parts alone."""
    return sha256("\n".join(parts).encode()).hexdigest()


def plain(text: str) -> str:
    """The text as a message of a run document can hold it: valid Unicode, not endless."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


def exit_words(code: int | None) -> str:
    """Say how a process ended, from its return code as subprocess and multiprocessing give it."""
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"exited with {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def last_lines(log_file: Path, start: int = 0) -> list[str]:
    """Return the lines at the end of a log, from the offset `start` on, without empty ones and mere carets."""
    try:
        with log_file.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(start, size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line.strip("^~ ")]


def last_words(log_file: Path, start: int = 0) -> str:
    """Return what a program said last about its end: the last line that ends a traceback, else the last line."""
    lines = last_lines(log_file, start)
    errors = [line for line in lines if _EXCEPTION_LINE.fullmatch(line)]
    return plain((errors or lines or ["it left no words"])[-1])
