"""The ids that are ours: of runs, launches and their keys and traces. Pure."""

import hmac
import re
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b, sha256

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What a run_id may look like: it is part of object names and of URLs."""

STEP_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a step may be called."""

MAX_MAPS = 5
"""How many Maps may stand in one another."""

NODE_NAME = re.compile(rf"[A-Za-z0-9_-]{{1,64}}(\[[0-9]{{1,9}}\]){{0,{MAX_MAPS}}}")
"""What a node may be called: as its step, or `Name[7]`, `Name[7][3]` in an item of a Map."""

_NOT_IN_A_KEY = re.compile(r"[^a-z0-9]+")


def step_of(name: str) -> str:
    """Return the step that an entry of a run document is of.

    Behind the step stands what is the same for all steps of one instance of a graph: nothing outside of Maps, `[7]`
    in item 7 of a Map, `[7][3]` in item 3 of a Map that is itself in item 7 of another one.
    """
    return name.partition("[")[0] if name[-1:] == "]" else name


def instance_of(name: str) -> str:
    """Return what stands behind the step's name in the name of an entry: nothing, `[7]`, `[7][3]`."""
    return name[name.index("[") :] if name[-1:] == "]" else ""


def beside(name: str, step: str) -> str:
    """Return the entry of another step of the same instance of a graph, of a Parallel around it or a branch in it."""
    return step + instance_of(name) if name[-1:] == "]" else step


def run_id_of(message_id: str, published_at: datetime) -> str:
    """Return `run_<unix seconds>_<12 hex>`: a start delivered twice gets the same id both times.

    Args:
        message_id: id of the start message, unique within its topic.
        published_at: its publish time, aware.
    """
    digest = sha256(message_id.encode()).hexdigest()[:12]
    return f"run_{int(published_at.timestamp())}_{digest}"


def child_run_id(launch_id: str, started_at: datetime) -> str:
    """Return the id of the run that a launch of a Dag Task makes: the same for every try of it.

    Args:
        started_at: when its step started, aware.
    """
    return run_id_of(launch_id, started_at)


def scheduled_start_of(dag: str, scheduled_for: datetime) -> str:
    """Return what stands for the message of a start that a schedule sent: the same for every sending of it.

    Args:
        dag: the DAG's name.
        scheduled_for: the time that the run is for, aware.
    """
    return f"{dag} scheduled for {scheduled_for.astimezone(UTC).isoformat().replace('+00:00', 'Z')}"


def triggered_start_of(dag: str, cause: str) -> str:
    """Return what stands for the message of a start that an event of others made: the same however often it comes.

    Args:
        dag: the DAG's name.
        cause: what the event is known by: `gs://bucket/name#generation`, `projects/P/topics/T 123`.
    """
    return f"{dag} triggered by {cause}"


def cause_of(dag: str, message_id: str) -> str | None:
    """Return what triggered a run, None where something else started it."""
    begin = triggered_start_of(dag, "")
    return message_id.removeprefix(begin) if message_id.startswith(begin) else None


def launch_id_of(run_id: str, node_name: str, attempt: int) -> str:
    """Return `run_id/node/attempt`; none of the parts can hold a slash."""
    return f"{run_id}/{node_name}/{attempt}"


def parse_launch_id(launch_id: str) -> tuple[str, str, int] | None:
    """Return (run_id, node_name, attempt), or None if this is no launch id of ours."""
    parts = launch_id.split("/")
    if len(parts) != 3 or not RUN_ID.fullmatch(parts[0]) or not NODE_NAME.fullmatch(parts[1]):
        return None
    if not (parts[2].isascii() and parts[2].isdigit()) or len(parts[2]) > 9 or parts[2][0] == "0":
        return None
    return parts[0], parts[1], int(parts[2])


KEY_PREFIX = "orch-"
"""What every key of ours begins with."""


@lru_cache(maxsize=4096)
def key_of(launch_id: str) -> str:
    """Return a launch's key: a readable prefix and a hash, `[a-z][a-z0-9-]{0,62}`.

    The alphabet and length are those of the strictest service (Batch job ids, Dataflow job names).
    """
    _, node_name, attempt = launch_id.split("/")
    readable = _NOT_IN_A_KEY.sub("-", node_name.lower()).strip("-")[:20] or "task"
    return f"{KEY_PREFIX}{readable}-{attempt}-{sha256(launch_id.encode()).hexdigest()[:24]}"


def span_of(key: str) -> str:
    """Return the W3C span id (16 hex) that a launch carries beside its trace."""
    return sha256(f"span\n{key}".encode()).hexdigest()[:16]


_ID_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def execution_id_of(key: str) -> str:
    """Return 12 lower-case letters and digits, as Cloud Functions' own execution ids are; the same for the same key.

    A call carries it as `Function-Execution-Id`, so that functions-framework labels what the function prints with it.
    """
    number = int(sha256(key.encode()).hexdigest(), 16)
    letters = []
    for _ in range(12):
        number, letter = divmod(number, len(_ID_ALPHABET))
        letters.append(_ID_ALPHABET[letter])
    return "".join(letters)


def nonce_of(seed: bytes, launch_id: str) -> str:
    """Return 128 bits in hex that nobody can guess who does not know `seed` (32 random bytes)."""
    return blake2b(launch_id.encode(), digest_size=16, key=seed).hexdigest()


def spread_of(seed: bytes, launch_id: str) -> float:
    """Return a number from 0 to 1, at random by `seed` (32 random bytes)."""
    return int.from_bytes(blake2b(launch_id.encode(), digest_size=4, key=seed, person=b"spread").digest()) / 2**32


def trace_of(launch_id: str, nonce: str, key: bytes = b"") -> str:
    """Return the W3C trace id (32 hex) that a launch carries: an HMAC under the deployment's key, if it has one.

    Who does not know the nonce cannot guess it; who knows that, from the run document or a URL in the logs, but
    not the key, cannot either.
    """
    return hmac.digest(key, f"{launch_id}#{nonce}".encode(), "sha256").hex()[:32]
