"""`@task`: a user function as the HTTP function that functions-framework serves."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from functools import wraps
from secrets import token_hex
from socket import gethostname
from typing import TYPE_CHECKING

from orchestrator.tasks.bucket import status_bucket
from orchestrator.tasks.call import Answer, Request, Surroundings, answer
from orchestrator.tasks.heartbeat import heartbeats_folder
from orchestrator.tasks.parameters import Signature
from orchestrator.tasks.record import pause

if TYPE_CHECKING:
    from flask import Request as FlaskRequest
    from flask import Response


def task(function: Callable[..., object]) -> Callable[["FlaskRequest"], "Response"]:
    """Have `function` called with the step's parameters as keyword arguments, once a launch, and its result kept.

    Args:
        function: takes the parameters by name and, if it has a parameter `context`, the Context; returns any
            JSON value. The function itself is the returned one's `__wrapped__`, for tests.
    Raises:
        TypeError: it is asynchronous, or takes something that cannot be passed by name.
    """
    signature = Signature.of(function)

    @wraps(function)
    def serve(request: "FlaskRequest") -> "Response":
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(request.args.to_dict(), headers, request.get_data())
        return _response(answer(function, signature, asked, _surroundings))

    return serve


def _now() -> datetime:
    return datetime.now(UTC)


def _token() -> str:
    return token_hex(16)


def _instance() -> str:
    """The revision that Cloud Run names, for its hosts are all "localhost"; else the machine."""
    return f"{os.environ.get('K_REVISION') or gethostname()}.{os.getpid()}"


_surroundings = Surroundings(status_bucket.store, _now, _token, _instance, pause, heartbeats_folder)


def _response(answer: Answer) -> "Response":
    from flask import Response  # where this runs it is loaded already; importing this package does not load it

    return Response(answer.body, answer.status, mimetype="application/json")
