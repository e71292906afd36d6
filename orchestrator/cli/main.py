"""The command line: what each command is asked for, and the one place where errors become messages and exit codes.

0    done, and the run Completed (or still runs, for status)
1    the run Failed or was Cancelled
2    what was asked for is wrong, or cannot be done here; the message says where
70   a fault of ours; the traceback is in a file that the message names
130  interrupted by ctrl-C (143: by SIGTERM)
"""

import errno
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path

from orchestrator.cli.arguments import make_parser
from orchestrator.cli.console import Console
from orchestrator.cli.lines import printable
from orchestrator.cli.own_log import level_of, shown
from orchestrator.model.errors import DefinitionError, InputError, OrchestratorError
from orchestrator.model.words import did_you_mean

_NO_PATH = frozenset({errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.EPERM})
"""What is wrong with a path that somebody named, and not with us."""


def command_line(argv: Sequence[str]) -> int:
    """Do what the arguments of this process say, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show é is no fault
    code = main(argv)
    if code > 128:  # all is said; the same ctrl-C once more is not to change the exit code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def main(argv: Sequence[str]) -> int:
    """Do what the arguments say, and return the exit code."""
    console = Console()
    try:
        try:
            return _do(console, argv)
        finally:
            console.flush()
    except KeyboardInterrupt:
        return 130
    except OrchestratorError as exc:
        problems = exc.problems if isinstance(exc, DefinitionError) else str(exc).splitlines()
        console.err(*(f"orchestrator: {printable(each)}" for each in (*problems, *_notes(exc))))
        return 2
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno in _NO_PATH and exc.filename is not None:
            console.err(f"orchestrator: {printable(str(exc.filename))}: cannot be looked at: {exc.strerror}")
            return 2
        words = printable(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)
        console.err(f"orchestrator: a fault of ours: {words}; {_saved_traceback(exc)}")
        console.err(*(f"orchestrator: {note}" for note in _notes(exc)))
        return 70


def _do(console: Console, argv: Sequence[str]) -> int:
    parser = make_parser()
    word = next((each for each in argv if not each.startswith("-")), None)
    if word is not None and word not in COMMANDS and argv[0] in (word, "--verbose"):
        hint = did_you_mean(word, COMMANDS) or f" there are {', '.join(COMMANDS)}"
        raise InputError(f'there is no command "{word}";{hint}')
    try:
        args = parser.parse_args(argv)
    except SystemExit as exc:  # -h and --version; errors come as InputError
        return int(exc.code or 0)
    args.words = argv[1:] if argv and argv[0] == word else [each for each in argv if each != word]
    with shown(level_of(os.environ, is_verbose=args.verbose), console.err):
        return COMMANDS[args.command](console, args)


# -- the commands: from arguments to typed values; each part is imported when it is needed ---------------


def _validate(console: Console, args: Namespace) -> int:
    from orchestrator.cli.validate import Wanted, validate

    if args.online and args.place != "gcp":
        raise InputError("validate: --online goes with --for gcp")
    return validate(console, Wanted(args.path, args.place == "gcp", args.online), os.environ)


def _graph(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.graph import Wanted, graph
    from orchestrator.runtime.settings import Settings

    wanted = Wanted(args.what, args.run_id, args.bucket, args.format)
    return graph(console, wanted, lambda: open_to_read(args.bucket, Settings.read(os.environ)))


def _schema(console: Console, _: Namespace) -> int:
    from orchestrator.cli.schema import schema

    return schema(console)


def _run(console: Console, args: Namespace) -> int:
    from orchestrator.cli.run import Wanted, run
    from orchestrator.runtime.settings import Settings

    if args.path is None:
        raise InputError("run: needs the PATH of a DAG, before --input; see orchestrator run -h")
    inputs = tuple(each for group in args.input for each in group)
    variables = tuple(each for group in args.var for each in group)
    wanted = Wanted(
        args.path, inputs, args.bucket, args.resume, args.run_id, args.json, args.verbose, variables, args.priority
    )
    return run(console, wanted, Settings.read(os.environ))


def _start(console: Console, args: Namespace) -> int:
    from uuid import uuid4

    from orchestrator.cli.start import Wanted, start
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    inputs = tuple(each for group in args.input for each in group)
    wanted = Wanted(args.name, inputs, args.run_id, args.topic, args.bucket, args.json, args.priority)
    settings = Settings.read(os.environ)
    return start(console, wanted, settings, os.environ, SystemClock(), random_id=lambda: uuid4().hex)


def _status(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.status import Asked, status
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    asked = Asked(args.run_id, args.watch, args.json, args.verbose, args.interval, args.bucket, args.cost)
    return status(console, open_to_read(args.bucket, settings), asked, settings)


def _cancel(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.cancel import DEFAULT_REASON, Wanted, cancel
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    reason = DEFAULT_REASON if args.reason is None else args.reason
    wanted = Wanted(args.run_id, reason, args.wait, args.json, args.verbose, args.interval, args.topic)
    return cancel(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _logs(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.logs import Wanted, logs
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    wanted = Wanted(args.run_id, args.node, args.attempt, args.follow, args.since, args.limit, args.project, args.json)
    return logs(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _runs(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.runs import Filter, runs
    from orchestrator.model.enums import RunStatus
    from orchestrator.runtime.settings import Settings

    bucket = open_to_read(args.bucket, Settings.read(os.environ))
    wanted = Filter(args.dag, frozenset(map(RunStatus, args.status)), frozenset(args.tag), args.parent, args.children)
    now = datetime.now(UTC)
    since = None if args.since is None else now - timedelta(seconds=args.since)
    return runs(console, bucket, limit=args.limit, wanted=wanted, is_json=args.json, now=now, since=since)


def _pause(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.pause import pause
    from orchestrator.cli.steering import Wanted
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    wanted = Wanted(args.run_id, args.json, args.topic)
    return pause(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _resume(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.resume import resume
    from orchestrator.cli.steering import Wanted
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    wanted = Wanted(args.run_id, args.json, args.topic)
    return resume(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _redrive(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.redrive import Wanted, redrive
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    wanted = Wanted(args.run_id, args.path, args.start_from, args.bucket, args.topic, args.json, args.verbose)
    return redrive(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _approve(console: Console, args: Namespace) -> int:
    from orchestrator.cli.approve import Wanted, approve
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    wanted = Wanted(args.run_id, args.node, args.reject, args.result, args.reason, args.json, args.topic)
    return approve(console, open_to_read(args.bucket, settings), wanted, settings, os.environ, SystemClock())


def _prune(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.prune import Wanted, prune
    from orchestrator.cli.runs import Filter
    from orchestrator.model.enums import RunStatus
    from orchestrator.runtime.settings import Settings

    bucket = open_to_read(args.bucket, Settings.read(os.environ))
    meant = Filter(args.dag, frozenset(map(RunStatus, args.status)), frozenset(args.tag))
    return prune(console, bucket, Wanted(args.older_than, meant, args.dry_run, args.json), datetime.now(UTC))


def _pools(console: Console, args: Namespace) -> int:
    from orchestrator.cli.bucket import open_to_read
    from orchestrator.cli.pools import pools
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    return pools(console, open_to_read(args.bucket, settings), settings.pools, is_json=args.json)


def _trigger(console: Console, args: Namespace) -> int:
    from orchestrator.cli.trigger import Wanted, trigger
    from orchestrator.runtime.settings import Settings

    paths = args.path or [Path(Settings.read(os.environ).dag_definitions)]
    wanted = Wanted(paths, args.event, args.topic, args.json)
    return trigger(console, wanted, Settings.read(os.environ).variables, datetime.now(UTC))


def _schedule(console: Console, args: Namespace) -> int:
    from orchestrator.cli.inputs import read_inputs
    from orchestrator.cli.schedule import Wanted, schedule
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    settings = Settings.read(os.environ)
    if args.json and args.next is None:
        raise InputError("schedule: --json goes with --next")
    paths = args.path or [Path(settings.dag_definitions)]
    variables = read_inputs(tuple(each for group in args.var for each in group), "--var")
    wanted = Wanted(paths, args.bucket, args.next, args.json, variables)
    return schedule(console, wanted, settings, SystemClock())


def _backfill(console: Console, args: Namespace) -> int:
    from orchestrator.cli.backfill import Wanted, backfill
    from orchestrator.runtime.clock import SystemClock
    from orchestrator.runtime.settings import Settings

    wanted = Wanted(
        args.path,
        args.first,
        args.end,
        args.every,
        args.max_active,
        args.reverse,
        args.rerun,
        args.since,
        tuple(each for group in args.input for each in group),
        tuple(each for group in args.var for each in group),
        args.bucket,
        args.topic,
        args.dry_run,
        args.json,
        tuple(args.words),
    )
    return backfill(console, wanted, Settings.read(os.environ), os.environ, SystemClock())


COMMANDS: Mapping[str, Callable[[Console, Namespace], int]] = {
    "validate": _validate,
    "graph": _graph,
    "schema": _schema,
    "run": _run,
    "start": _start,
    "status": _status,
    "runs": _runs,
    "pools": _pools,
    "logs": _logs,
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "redrive": _redrive,
    "approve": _approve,
    "prune": _prune,
    "trigger": _trigger,
    "schedule": _schedule,
    "backfill": _backfill,
}


def _notes(exc: BaseException) -> Sequence[str]:
    return getattr(exc, "__notes__", ())


def _saved_traceback(exc: BaseException) -> str:
    """Save the traceback, and say where."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(exc))
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile(
            "w", prefix="orchestrator-fault-", suffix=".txt", encoding="utf-8", errors="replace", delete=False
        ) as file,
    ):
        file.write(text)
        return f"the traceback is in {file.name}"
    return "its traceback cannot be saved"
