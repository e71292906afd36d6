"""A server process for one Cloud Function's own source, under functions-framework, as the cloud runs it.

`python -m orchestrator.targets.function_server SOURCE ENTRY_POINT LEDGER`, started by LocalCloudFunction. It
tells its port on standard output, and lives until its standard input ends: with its parent, however that dies.
What a function writes goes to the log of the execution that its request names, the rest to standard error.
"""

import contextvars
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from orchestrator.targets.callables import words_of

ERROR_HEADER = "X-Orchestrator-Error"
"""In an answer with status 500: the exception that the function raised, url-quoted."""

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

_log = contextvars.ContextVar[TextIO | None]("log", default=None)


class _Routed(io.TextIOBase):
    """Standard output and error of the process: to the log of the request at hand, if there is one."""

    def __init__(self, otherwise: TextIO) -> None:
        self._otherwise = otherwise

    def write(self, text: str) -> int:
        target = _log.get()
        return (self._otherwise if target is None or target.closed else target).write(text)

    def flush(self) -> None:
        target = _log.get()
        (self._otherwise if target is None or target.closed else target).flush()

    def fileno(self) -> int:
        return self._otherwise.fileno()

    def isatty(self) -> bool:
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a stream's is an attribute
        return "utf-8"


def main(source: str, entry_point: str, ledger: str) -> None:
    """Serve until the parent goes."""
    told = os.dup(1)
    parent = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # the function and what it starts see no input,
    os.dup2(2, 1)  # and their output is no answer to our parent
    threading.Thread(target=_die_with_parent, args=(parent,), daemon=True).start()
    if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
        del sys.path[0]  # put there by -m: in the cloud a function sees its own folder only

    log = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 - to the end
    sys.stdout = sys.stderr = _Routed(log)

    import flask
    import functions_framework
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 - werkzeug's
            """Write nothing: the request's own log entry says it all."""

    app: object = functions_framework.create_app(entry_point, source, "http")  # type: ignore[no-untyped-call]
    if not isinstance(app, flask.Flask):
        raise SystemExit(f"{source}: {entry_point} is asynchronous; only functions of the form f(request) run here")
    tell_errors(app)
    server = make_server("127.0.0.1", 0, with_logs(app, Path(ledger)), threaded=True, request_handler=Quiet)
    os.write(told, b"%d\n" % server.port)
    os.close(told)
    server.serve_forever()


def with_logs(app: Wsgi, ledger: Path) -> Wsgi:
    """Have each request write to `log.txt` of the execution that it names, where there is a record of that."""

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        execution_id = environ.get("HTTP_FUNCTION_EXECUTION_ID", "")
        folder = ledger / ".executions" / execution_id
        if not execution_id.isalnum() or not folder.is_dir():
            return app(environ, start_response)
        with open(folder / "log.txt", "a", encoding="utf-8", errors="backslashreplace", buffering=1) as log:
            environ["wsgi.errors"] = log
            token = _log.set(log)
            try:
                answer: Any = app(environ, start_response)
                try:
                    return list(answer)
                finally:
                    answer.close()
            except (SystemExit, KeyboardInterrupt) as exc:  # else the caller would get no answer at all
                traceback.print_exc()
                start_response("500 Internal Server Error", [("X-Google-Status", "crash"), _error_header(exc)])
                return []
            finally:
                _log.reset(token)

    return application


def tell_errors(app: Any) -> None:
    """Have an answer with status 500 name the exception, which the framework's own does not."""
    import flask

    def keep(_: object, exception: BaseException, **__: object) -> None:
        flask.g.orchestrator_error = exception

    def add(response: flask.Response) -> flask.Response:
        error = flask.g.get("orchestrator_error")
        if error is not None and response.status_code == 500:
            response.headers.extend([_error_header(error)])
        return response

    flask.got_request_exception.connect(keep, app, weak=False)
    app.after_request(add)


def _error_header(error: BaseException) -> tuple[str, str]:
    return ERROR_HEADER, quote(words_of(error), errors="replace")


def _die_with_parent(pipe: int) -> None:
    """Wait for the end of a pipe of which the parent holds the other side; then end, with all we started."""
    while os.read(pipe, 1024):
        pass
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
