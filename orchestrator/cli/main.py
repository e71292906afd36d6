"""The command line: what can be asked for, and the one place where errors become messages and exit codes.

0    done, and the run Completed (or still runs, for status)
1    the run Failed or was Cancelled
2    what was asked for is wrong, or cannot be done here; the message says where
70   a fault of ours; the traceback is in a file that the message names
130  interrupted by ctrl-C (143: by SIGTERM)
"""

import os
import signal
import sys
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from orchestrator.cli.console import Console
from orchestrator.cli.lines import printable
from orchestrator.cli.own_log import LEVELS, VARIABLE, level_of, shown
from orchestrator.model.durations import DurationError, parse_duration
from orchestrator.model.errors import DefinitionError, InputError, OrchestratorError
from orchestrator.model.words import did_you_mean

_EXAMPLES = f"""\
examples:
  orchestrator validate dag_definitions
  orchestrator validate --for gcp dag_definitions
  orchestrator run dag_definitions/wordcount --input dag_definitions/wordcount/input.json
  orchestrator run my_dag --input day=2026-01-31 limit=10
  orchestrator run my_dag --resume run_1791283200_5c1e9f0b2a47
  orchestrator start my_dag --input day=2026-01-31
  orchestrator runs
  orchestrator logs run_1791283200_5c1e9f0b2a47 Load --follow
  orchestrator cancel run_1791283200_5c1e9f0b2a47 --reason "wrong day" --wait
  orchestrator redrive run_1791283200_5c1e9f0b2a47
  orchestrator graph my_dag --format dot | dot -Tsvg > my_dag.svg
  orchestrator schedule dag_definitions --next 3
  orchestrator backfill my_dag --from 2026-01-01 --to 2026-02-01 --dry-run

exit codes:
  0  done and Completed        2  what was asked for is wrong; the message says where
  1  Failed or Cancelled      70  a fault of ours; the traceback is in a file

environment:
  STATUS_BUCKET  where runs are kept (file://.orchestrator)
  EVENTS_TOPIC  the topic that start publishes to, projects/P/topics/T
  {VARIABLE}  level of the log on standard error: {", ".join(LEVELS)}
"""

_BUCKET = (
    "where runs are kept, as gs://BUCKET or file://DIRECTORY (by default STATUS_BUCKET, else file://.orchestrator)"
)


def entry() -> NoReturn:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show é is no fault
    code = main(sys.argv[1:])
    if code > 128:  # all is said; the same ctrl-C once more is not to change the exit code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)


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
        words = printable(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)
        console.err(f"orchestrator: a fault of ours: {words}; {_saved_traceback(exc)}")
        console.err(*(f"orchestrator: {note}" for note in _notes(exc)))
        return 70


def _do(console: Console, argv: Sequence[str]) -> int:
    parser = _parser()
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
    wanted = Filter(args.dag, frozenset(map(RunStatus, args.status)), frozenset(args.tag), args.parent)
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


# -- the arguments -------------------------------------------------------------------------------------


class _Parser(ArgumentParser):
    """ArgumentParser whose errors go the way of all others."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        where = self.prog.partition(" ")[2]
        raise InputError(f"{f'{where}: ' if where else ''}{message}; see {self.prog} -h")


def _parser() -> ArgumentParser:
    parser = _Parser(
        prog="orchestrator",
        description="Run data pipelines that are written as DAGs, here as in the cloud.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"orchestrator {_version()}")
    parser.add_argument("--verbose", action="store_true", help="show the whole log on standard error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, about: str, usage: str | None = None, epilog: str = "") -> ArgumentParser:
        found = commands.add_parser(
            name,
            usage=usage,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=epilog,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        # Only where it stands, so that it may stand before the command too.
        found.add_argument("--verbose", action="store_true", default=SUPPRESS, help="show the whole log")
        return found

    found = command("validate", "say what is wrong with definitions, all of it")
    found.add_argument("path", metavar="PATH", nargs="+", type=Path, help="a DAG's folder or file, or a folder of DAGs")
    found.add_argument(
        "--for", dest="place", choices=("gcp",), help="say what would fail there, too, as far as it shows here"
    )
    found.add_argument(
        "--online", action="store_true", help="with --for gcp: ask Google Cloud for functions and rights"
    )

    usage = "orchestrator graph (PATH | RUN_ID | --run RUN_ID) [--bucket URL] [--format mermaid|dot]"
    found = command("graph", "draw a DAG as a flowchart, or a run of it as it is now", usage)
    found.add_argument(
        "what", metavar="PATH", nargs="?", help="a DAG's folder or file; or, where there is none, the id of a run"
    )
    found.add_argument("--run", dest="run_id", metavar="RUN_ID", help="a run; its steps are coloured by their status")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--format", choices=("mermaid", "dot"), default="mermaid", help="mermaid (default) or dot")

    command("schema", "write the JSON Schema of a definition")

    usage = (
        "orchestrator run PATH [--input INPUT …] [--var VARIABLE …] [--bucket URL] [--json] "
        "[--priority N] [--run-id ID | --resume RUN_ID]"
    )
    found = command("run", "run a DAG on this machine, or finish a run that was left", usage, _RUN_EXAMPLES)
    found.add_argument("path", metavar="PATH", nargs="?", type=Path, help="the DAG's folder or file")
    found.add_argument(
        "--input",
        metavar="INPUT",
        nargs="+",
        action="append",
        default=[],
        help="the run's input: name=value (JSON, else a string), or a JSON or YAML file; later ones win",
    )
    found.add_argument(
        "--var",
        metavar="VARIABLE",
        nargs="+",
        action="append",
        default=[],
        help="variables of the environment, as --input has them; added to those of VARIABLES",
    )
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--json", action="store_true", help="write the run document, and nothing else")
    found.add_argument("--resume", metavar="RUN_ID", help="finish this run, where it was left")
    found.add_argument("--run-id", metavar="ID", help="the id of the run; by default a new one")
    found.add_argument("--priority", metavar="N", type=_priority, help=_PRIORITY_ABOUT)

    usage = (
        "orchestrator start NAME [--input INPUT …] [--run-id ID] [--priority N] [--topic TOPIC] [--bucket URL] [--json]"
    )
    found = command("start", "start a run in the cloud, by a message to its topic", usage)
    found.add_argument("name", metavar="NAME", help="the DAG's name there")
    found.add_argument(
        "--input",
        metavar="INPUT",
        nargs="+",
        action="append",
        default=[],
        help="the run's input: name=value (JSON, else a string), or a JSON or YAML file; later ones win",
    )
    found.add_argument("--run-id", metavar="ID", help="the id of the run; by default a new one")
    found.add_argument("--priority", metavar="N", type=_priority, help=_PRIORITY_ABOUT)
    found.add_argument("--topic", metavar="TOPIC", help="projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--bucket", metavar="URL", help="where the run will be found, for the command that is shown")
    found.add_argument("--json", action="store_true", help="write run_id and message_id, and nothing else")

    found = command("status", "show a run")
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--watch", action="store_true", help="follow it until it has ended")
    found.add_argument("--interval", metavar="TIME", type=_interval, default=1.0, help="how often to look (1s)")
    found.add_argument("--cost", action="store_true", help="what it costs in Google Cloud, each line of the bill")
    found.add_argument("--json", action="store_true", help="write the run document, and nothing else")

    found = command("runs", "list runs, newest first")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    _filters(found)
    found.add_argument("--parent", metavar="RUN_ID", help="only the child runs of this run")
    found.add_argument("--since", metavar="TIME", type=_interval, help="only those that began in the last 12h, 7d, …")
    found.add_argument("--limit", metavar="N", type=_positive, default=20, help="how many at most (20)")
    found.add_argument("--json", action="store_true", help="write one JSON list, and nothing else")

    found = command("pools", "list what shares a limit: pools, DAGs with max_active_runs; who holds, how many wait")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--json", action="store_true", help="write one JSON list, with holders, and nothing else")

    usage = (
        "orchestrator logs RUN_ID [NODE] [--attempt N] [--follow] [--limit N] [--since TIME] [--bucket URL] "
        "[--project ID] [--json]"
    )
    found = command("logs", "show what a run's functions and jobs wrote", usage, _LOGS_ABOUT)
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument("node", metavar="NODE", nargs="?", help="only this Task")
    found.add_argument("--attempt", metavar="N", type=_positive, help="only this attempt at it")
    found.add_argument("--follow", action="store_true", help="go on until the run has ended")
    found.add_argument("--limit", metavar="N", type=_positive, default=1000, help="how many lines at most (1000)")
    found.add_argument("--since", metavar="TIME", type=_interval, help="in the cloud: only of the last 10m, 2h, …")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--project", metavar="ID", help="in the cloud: whose logs (by default GOOGLE_CLOUD_PROJECT)")
    found.add_argument("--json", action="store_true", help="write one JSON list, and nothing else")

    usage = "orchestrator cancel RUN_ID [--reason TEXT] [--wait] [--bucket URL] [--topic TOPIC] [--json]"
    found = command("cancel", "stop a run: what runs is cancelled, nothing more is started", usage, _CANCEL_CODES)
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument("--reason", metavar="TEXT", help="why; it is kept in the run document")
    found.add_argument("--wait", action="store_true", help="follow the run until it has ended")
    found.add_argument("--interval", metavar="TIME", type=_interval, default=1.0, help="how often --wait looks (1s)")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write run_id and status (with --wait: the run document)")

    for name, about in (
        ("pause", "have a run start nothing more for now; what runs, runs on"),
        ("resume", "let a paused run go on"),
    ):
        found = command(name, about)
        found.add_argument("run_id", metavar="RUN_ID")
        found.add_argument("--bucket", metavar="URL", help=_BUCKET)
        found.add_argument("--topic", metavar="TOPIC", help="in the cloud: its topic (by default EVENTS_TOPIC)")
        found.add_argument("--json", action="store_true", help="write run_id and status, and nothing else")

    usage = "orchestrator redrive RUN_ID [PATH] [--from STEP] [--bucket URL] [--topic TOPIC] [--json]"
    found = command("redrive", "let a run that ended go on from where it failed, or from a step", usage, _REDRIVE_ABOUT)
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, help="in a directory: its DAG's folder (by default the one there)"
    )
    found.add_argument("--from", dest="start_from", metavar="STEP", help="run this step again, and all behind it")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write one JSON document, and nothing else")

    usage = "orchestrator schedule [PATH …] [--var VARIABLE …] [--bucket URL] | [PATH …] --next N [--json]"
    found = command("schedule", "start the runs of schedules at their times, on this machine, until ctrl-C", usage)
    found.add_argument(
        "path", metavar="PATH", nargs="*", type=Path, help="DAGs, or folders of them (by default DAG_DEFINITIONS)"
    )
    found.add_argument("--next", metavar="N", type=_positive, help="only say the next N times of each schedule")
    found.add_argument(
        "--var", metavar="VARIABLE", nargs="+", action="append", default=[], help="variables, as run has them"
    )
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--json", action="store_true", help="with --next: write one JSON list, and nothing else")

    usage = (
        "orchestrator backfill PATH --from TIME --to TIME [--every TIME] [--max-active N] [--reverse] "
        "[--rerun failed|all] [--input INPUT …] [--bucket URL] [--topic TOPIC] [--dry-run] [--json]"
    )
    found = command(
        "backfill", "run a DAG for each time of its schedule in a while that has no run yet", usage, _BACKFILL
    )
    found.add_argument("path", metavar="PATH", type=Path, help="the DAG's folder or file")
    found.add_argument(
        "--from", dest="first", metavar="TIME", required=True, help="from then on: 2026-01-01, or a time"
    )
    found.add_argument(
        "--to", dest="end", metavar="TIME", required=True, help="up to then; that itself is none of them"
    )
    found.add_argument(
        "--every", metavar="TIME", type=_interval, help="how often, in place of the DAG's schedule: 1d, 6h"
    )
    found.add_argument("--max-active", metavar="N", type=_positive, help="how many run at once, here (4)")
    found.add_argument("--reverse", action="store_true", help="the latest first")
    found.add_argument("--rerun", choices=("failed", "all"), help="run again what failed, or all that has ended")
    found.add_argument("--since", metavar="TIME", help="with --rerun all: but not what was started since")
    for option, about in (("--input", "the input of each run, as run has it"), ("--var", "variables, as run has them")):
        found.add_argument(option, metavar=option[2:].upper(), nargs="+", action="append", default=[], help=about)
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: its topic (by default EVENTS_TOPIC)")
    found.add_argument("--dry-run", action="store_true", help="only say what would be started")
    found.add_argument("--json", action="store_true", help="write one JSON document, and nothing else")

    usage = "orchestrator trigger [PATH …] --event FILE [--topic TOPIC] [--json]"
    found = command("trigger", "say which runs an event would start, and with what input", usage)
    found.add_argument(
        "path", metavar="PATH", nargs="*", type=Path, help="DAGs, or folders of them (by default DAG_DEFINITIONS)"
    )
    found.add_argument("--event", metavar="FILE", type=Path, required=True, help="the event, as JSON")
    found.add_argument(
        "--topic", metavar="TOPIC", help="where it is from, if it is the body of a push: projects/P/topics/T"
    )
    found.add_argument("--json", action="store_true", help="write one JSON list, and nothing else")

    usage = "orchestrator approve RUN_ID NODE [--reject [--reason TEXT] | --result JSON] [--bucket URL] [--topic TOPIC]"
    found = command("approve", "answer a Callback step that waits: approve it, or reject it", f"{usage} [--json]")
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument("node", metavar="NODE", help="the step that waits")
    found.add_argument("--reject", action="store_true", help="it fails with Callback.Rejected")
    found.add_argument("--reason", metavar="TEXT", help="why it is rejected; it is kept in the run document")
    found.add_argument("--result", metavar="JSON", help="the result that it completes with (null)")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: its topic (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write run_id, node and answer, and nothing else")

    usage = "orchestrator prune --older-than TIME [--dag NAME] [--status STATUS …] [--tag TAG …] [--dry-run] [--json]"
    found = command("prune", "delete old runs that have ended, and what belongs to them", usage)
    found.add_argument(
        "--older-than", metavar="TIME", type=_interval, required=True, help="ended longer ago: 30d, 12h, …; at least 1h"
    )
    _filters(found)
    found.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)
    found.add_argument("--json", action="store_true", help="write one JSON document, and nothing else")
    return parser


_BACKFILL = """\
Each time has one run, whoever starts it: called again, it goes on where it was, and leaves alone what is there.

exit codes:
  0  all that ran Completed; in the cloud: all are asked for
  1  one Failed or was Cancelled
  2  what was asked for is wrong
"""

_LOGS_ABOUT = """\
Of a run in a directory these are the files under attempts/. Of a run in the cloud they are entries of Cloud Logging:
what the orchestrator says of the run, the requests and prints of its functions, the messages of its jobs;
roles/logging.viewer is the role that reads them.
"""

_CANCEL_CODES = """\
What cannot be stopped (a function that has been called) runs to its end, and the run ends after it.

exit codes:
  0  the run is cancelled, or is being cancelled
  1  it ended otherwise before it could be cancelled
  2  there is no such run, or it had ended otherwise already
"""

_REDRIVE_ABOUT = """\
What completed keeps its result; what did not is run again, and then what follows. A run in a directory goes on here;
one in the cloud is asked to go on, by a message to its topic.

exit codes:
  0  it went on and Completed; or, in the cloud, is asked to go on
  1  it Failed again, or was Cancelled
  2  there is no such run, it has not ended, or there is nothing to redrive
"""

_RUN_EXAMPLES = """\
examples:
  orchestrator run my_dag
  orchestrator run my_dag --input input.json day=2026-01-31 'tags=["a", "b"]'
  orchestrator run my_dag --resume run_1791283200_5c1e9f0b2a47
"""


def _filters(found: ArgumentParser) -> None:
    """Add the options that say which runs are meant."""
    from orchestrator.model.enums import RunStatus

    found.add_argument("--dag", metavar="NAME", help="only those of this DAG")
    found.add_argument(
        "--status",
        action="append",
        default=[],
        choices=[status.value for status in RunStatus],
        metavar="STATUS",
        help=f"only those that are so: {', '.join(RunStatus)}; or, given again, so",
    )
    found.add_argument("--tag", metavar="TAG", action="append", default=[], help="only those with this tag; with all")


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:12]) > 0):
        raise ArgumentTypeError(f'"{text}" is not a whole number from 1 on')
    return int(text[:12])


_PRIORITY_ABOUT = "which of the runs that wait comes first, the highest: -100 to 100 (by default its definition's)"


def _priority(text: str) -> int:
    from orchestrator.model.grammar import MAX_PRIORITY

    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and int(digits[:12]) <= MAX_PRIORITY):
        raise ArgumentTypeError(f'"{text}" is not a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}')
    return int(text)


def _interval(text: str) -> float:
    try:
        seconds = parse_duration(text if not text[-1:].isdigit() else f"{text}s")
    except DurationError as exc:
        raise ArgumentTypeError(str(exc)) from exc
    if seconds < 0.05:
        raise ArgumentTypeError(f'"{text}" is too short; at least 50ms')
    return seconds


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orchestrator")
    except PackageNotFoundError:
        return "(not installed)"


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
