"""What the command line takes: its commands with their arguments, and what each may be."""

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path
from typing import NoReturn

from orchestrator.cli.own_log import LEVELS, VARIABLE
from orchestrator.model.durations import DurationError, parse_duration
from orchestrator.model.errors import InputError

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

LONGEST_INTERVAL_D = 36_500
"""How long a time of an option may be: a hundred years."""

MOST_NEXT_TIMES = 10_000

_INPUT = "the run's input: name=value (JSON, else a string), or a JSON or YAML file; later ones win"
_BUCKET = (
    "where runs are kept, as gs://BUCKET or file://DIRECTORY (by default STATUS_BUCKET, else file://.orchestrator)"
)


class _Parser(ArgumentParser):
    """ArgumentParser whose errors go the way of all others."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        where = self.prog.partition(" ")[2]
        raise InputError(f"{f'{where}: ' if where else ''}{message}; see {self.prog} -h")


def make_parser() -> ArgumentParser:
    """Return the parser of the command line; what is wrong it says by InputError."""
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
    _bucket(found)
    found.add_argument("--format", choices=("mermaid", "dot"), default="mermaid", help="mermaid (default) or dot")

    command("schema", "write the JSON Schema of a definition")

    usage = (
        "orchestrator run PATH [--input INPUT …] [--var VARIABLE …] [--bucket URL] [--json] "
        "[--priority N] [--run-id ID | --resume RUN_ID]"
    )
    found = command("run", "run a DAG on this machine, or finish a run that was left", usage, _RUN_EXAMPLES)
    found.add_argument("path", metavar="PATH", nargs="?", type=Path, help="the DAG's folder or file")
    _pairs(found, "--input", _INPUT)
    _pairs(found, "--var", "variables of the environment, as --input has them; added to those of VARIABLES")
    _bucket(found)
    found.add_argument("--json", action="store_true", help="write the run document, and nothing else")
    found.add_argument("--resume", metavar="RUN_ID", help="finish this run, where it was left")
    found.add_argument("--run-id", metavar="ID", help="the id of the run; by default a new one")
    found.add_argument("--priority", metavar="N", type=_priority, help=_PRIORITY_ABOUT)

    usage = (
        "orchestrator start NAME [--input INPUT …] [--run-id ID] [--priority N] [--topic TOPIC] [--bucket URL] [--json]"
    )
    found = command("start", "start a run in the cloud, by a message to its topic", usage)
    found.add_argument("name", metavar="NAME", help="the DAG's name there")
    _pairs(found, "--input", _INPUT)
    found.add_argument("--run-id", metavar="ID", help="the id of the run; by default a new one")
    found.add_argument("--priority", metavar="N", type=_priority, help=_PRIORITY_ABOUT)
    found.add_argument("--topic", metavar="TOPIC", help="projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--bucket", metavar="URL", help="where the run will be found, for the command that is shown")
    found.add_argument("--json", action="store_true", help="write run_id and message_id, and nothing else")

    found = command("status", "show a run")
    found.add_argument("run_id", metavar="RUN_ID")
    _bucket(found)
    found.add_argument("--watch", action="store_true", help="follow it until it has ended")
    found.add_argument("--interval", metavar="TIME", type=_interval, default=1.0, help="how often to look (1s)")
    found.add_argument("--cost", action="store_true", help="what it costs in Google Cloud, each line of the bill")
    found.add_argument("--json", action="store_true", help="write the run document, and nothing else")

    found = command("runs", "list runs, newest first")
    _bucket(found)
    _filters(found)
    found.add_argument("--parent", metavar="RUN_ID", help="only the child runs of this run")
    found.add_argument("--children", action="store_true", help="list child runs, and parts of Maps, too")
    found.add_argument("--since", metavar="TIME", type=_interval, help="only those that began in the last 12h, 7d, …")
    found.add_argument("--limit", metavar="N", type=_positive, default=20, help="how many at most (20)")
    found.add_argument("--json", action="store_true", help="write one JSON list, and nothing else")

    found = command("pools", "list what shares a limit: pools, DAGs with max_active_runs; who holds, how many wait")
    _bucket(found)
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
    _bucket(found)
    found.add_argument("--project", metavar="ID", help="in the cloud: whose logs (by default GOOGLE_CLOUD_PROJECT)")
    found.add_argument("--json", action="store_true", help="write one JSON list, and nothing else")

    usage = "orchestrator cancel RUN_ID [--reason TEXT] [--wait] [--bucket URL] [--topic TOPIC] [--json]"
    found = command("cancel", "stop a run: what runs is cancelled, nothing more is started", usage, _CANCEL_CODES)
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument("--reason", metavar="TEXT", help="why; it is kept in the run document")
    found.add_argument("--wait", action="store_true", help="follow the run until it has ended")
    found.add_argument("--interval", metavar="TIME", type=_interval, default=1.0, help="how often --wait looks (1s)")
    _bucket(found)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write run_id and status (with --wait: the run document)")

    for name, about in (
        ("pause", "have a run start nothing more for now; what runs, runs on"),
        ("resume", "let a paused run go on"),
    ):
        found = command(name, about)
        found.add_argument("run_id", metavar="RUN_ID")
        _bucket(found)
        found.add_argument("--topic", metavar="TOPIC", help="in the cloud: its topic (by default EVENTS_TOPIC)")
        found.add_argument("--json", action="store_true", help="write run_id and status, and nothing else")

    usage = "orchestrator redrive RUN_ID [PATH] [--from STEP] [--bucket URL] [--topic TOPIC] [--json]"
    found = command("redrive", "let a run that ended go on from where it failed, or from a step", usage, _REDRIVE_ABOUT)
    found.add_argument("run_id", metavar="RUN_ID")
    found.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, help="in a directory: its DAG's folder (by default the one there)"
    )
    found.add_argument("--from", dest="start_from", metavar="STEP", help="run this step again, and all behind it")
    _bucket(found)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: projects/P/topics/T (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write one JSON document, and nothing else")

    usage = "orchestrator schedule [PATH …] [--var VARIABLE …] [--bucket URL] | [PATH …] --next N [--json]"
    found = command("schedule", "start the runs of schedules at their times, on this machine, until ctrl-C", usage)
    found.add_argument(
        "path", metavar="PATH", nargs="*", type=Path, help="DAGs, or folders of them (by default DAG_DEFINITIONS)"
    )
    found.add_argument("--next", metavar="N", type=_times, help="only say the next N times of each schedule")
    _pairs(found, "--var", "variables, as run has them")
    _bucket(found)
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
    _pairs(found, "--input", "the input of each run, as run has it")
    _pairs(found, "--var", "variables, as run has them")
    _bucket(found)
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
    _bucket(found)
    found.add_argument("--topic", metavar="TOPIC", help="in the cloud: its topic (by default EVENTS_TOPIC)")
    found.add_argument("--json", action="store_true", help="write run_id, node and answer, and nothing else")

    usage = "orchestrator prune --older-than TIME [--dag NAME] [--status STATUS …] [--tag TAG …] [--dry-run] [--json]"
    found = command("prune", "delete old runs that have ended, and what belongs to them", usage)
    found.add_argument(
        "--older-than", metavar="TIME", type=_interval, required=True, help="ended longer ago: 30d, 12h, …; at least 1h"
    )
    _filters(found)
    found.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    _bucket(found)
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


def _bucket(found: ArgumentParser) -> None:
    found.add_argument("--bucket", metavar="URL", help=_BUCKET)


def _pairs(found: ArgumentParser, option: str, about: str) -> None:
    """Add an option that takes name=value and files, and may be given again."""
    metavar = "VARIABLE" if option == "--var" else "INPUT"
    found.add_argument(option, metavar=metavar, nargs="+", action="append", default=[], help=about)


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


def _times(text: str) -> int:
    found = _positive(text)
    if found > MOST_NEXT_TIMES:
        raise ArgumentTypeError(f'"{text[:60]}" is too many; at most {MOST_NEXT_TIMES:,}')
    return found


_PRIORITY_ABOUT = "which of the runs that wait comes first, the highest: -100 to 100 (by default its definition's)"


def _priority(text: str) -> int:
    from orchestrator.model.grammar_of_runs import MAX_PRIORITY

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
    if seconds > LONGEST_INTERVAL_D * 86400.0:  # it is taken off a time, and the calendar has a first year
        raise ArgumentTypeError(f'"{text}" is too long; at most {LONGEST_INTERVAL_D}d')
    return seconds


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orchestrator")
    except PackageNotFoundError:
        return "(not installed)"
