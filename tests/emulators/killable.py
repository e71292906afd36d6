"""main.py whose process kills itself (-9) at random steps of the loop; each kill is written down first.

A test serves this file instead of main.py. KILL_RATE is the chance of a kill at one step (eight times that at a
step that nobody died at yet), KILL_LOG the file that takes `<step>` a line. Nothing else is changed: the steps
are calls of the real parts.
"""

import functools
import os
import random
import signal
from collections.abc import Callable

import functions_framework

RATE = float(os.environ.get("KILL_RATE", "0"))
LOG = os.environ.get("KILL_LOG", "")
_draw = random.Random(int.from_bytes(os.urandom(8), "big"))


def step(name: str) -> None:
    """Perhaps die here."""
    with open(LOG) as log:
        is_first = f"{name}\n" not in log.readlines()
    if _draw.random() < (8 * RATE if is_first else RATE) and not os.path.exists(f"{LOG}.stop"):
        with open(LOG, "a") as log:
            log.write(f"{name}\n")
            log.flush()
            os.fsync(log.fileno())
        os.kill(os.getpid(), signal.SIGKILL)


def around(owner: type, method: str, before: str | None, after: str | None) -> None:
    """Make the calls of a method steps of the loop, before and after."""
    call: Callable = getattr(owner, method)

    @functools.wraps(call)
    def wrapped(*args: object, **kwargs: object) -> object:
        if before:
            step(before)
        result = call(*args, **kwargs)
        if after:
            step(after)
        return result

    setattr(owner, method, wrapped)


def arm() -> None:
    """Make the steps of the loop places to die at."""
    from orchestrator.engine.acting import Actor
    from orchestrator.engine.resolve import Resolver
    from orchestrator.engine.status import OrchestrationStatus
    from orchestrator.engine.witness import Witness
    from orchestrator.targets.cloud_function import CloudFunction

    around(Resolver, "resolve", "1 event in", "3 resolved")
    around(OrchestrationStatus, "load", None, "4 loaded")
    around(Witness, "facts", None, "5 witnessed")
    around(OrchestrationStatus, "save", "6 decided", "7 saved")
    around(CloudFunction, "launch", "8 launching", "8 launched")
    around(Actor, "_cancel_if_unwanted", None, "9 bound")  # what it is known by is noted, and recorded if need be


_is_armed = False


@functions_framework.cloud_event
def on_event(event: object) -> None:
    """Handle a Pub/Sub message as main.py does."""
    global _is_armed
    from orchestrator.runtime.gcp import handle

    if not _is_armed:
        _is_armed = True
        arm()
    handle(event.data, event_id=event["id"], event_time=event["time"], source=event["source"])
    step("10 acknowledging")
