"""Every constant that limits something stands in a table of limits of the docs, or nobody ever gets beyond it.

A new one, by its name, fails here until it is in one of the two tables.
"""

import importlib
import re
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.limits import rows

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"^(_?(?:MAX|MOST|MIN|LONGEST|LEAST)(?:_[A-Z_]+)?|_?[A-Z_]+_LIMITS?(?:_S)?)\b(?=.* = )", re.MULTILINE)

LANGUAGE, TARGETS, DEPLOY, SHOWN = "docs/language.md", "docs/targets.md", "docs/deploy.md", "docs/observability.md"
CHILDREN, DATA, MAP, QUEUES, RUNS, STARTING = (
    f"docs/language/{name}.md" for name in ("children", "data", "map", "queues", "runs", "starting")
)

DOCUMENTED = {
    "cli.approve MAX_REASON": (CHILDREN, "characters of a `--reason`"),
    "cli.backfill MOST_TIMES": (STARTING, "10,000 times"),
    "cli.cancel MAX_REASON": (CHILDREN, "characters of a `--reason`"),
    "cli.arguments LONGEST_INTERVAL_D": (DEPLOY, "times of an option"),
    "cli.arguments MOST_NEXT_TIMES": (STARTING, "`--next`"),
    "cli.prune MAX_SHOWN": (SHOWN, "runs that `orchestrator prune` names"),
    "cli.results MAX_FIELDS": (SHOWN, "fields of a result"),
    "cli.results MAX_ROWS": (SHOWN, "steps of the results"),
    "cli.results MAX_TEXT": (SHOWN, "characters of a text"),
    "cli.together MAX_DEPTH": (DEPLOY, "Parallels and Maps in one another"),
    "engine.child_rules MAX_RUNS_ABOVE": (CHILDREN, "child runs in one another"),
    "engine.notifying MAX_MESSAGE": (RUNS, "a run's error of 2,000"),
    "engine.retry MAX_WAIT_S": (LANGUAGE, "a wait before the next attempt"),
    "engine.schedules MOST_AT_ONCE": (STARTING, "100 late starts"),
    "engine.slot_keeper MAX_LOOKED_AT": (QUEUES, "200 holders"),
    "model.allowance MAX_DECISION_WORK": (DATA, "500,000,000 values"),
    "model.cel MAX_LENGTH": (DATA, "10,000 characters"),
    "model.cel MAX_VALUES": (DATA, "1,000,000 values that it takes in"),
    "model.cel_tree MAX_ITERATIONS": (DATA, "9,999 rounds"),
    "model.cel_tree MAX_WORK": (DATA, "100,000,000 values"),
    "model.definition_values MAX_DEPTH": (LANGUAGE, "Parallels and Maps in one another"),
    "model.definition_values MAX_VALUES": (LANGUAGE, "values in all parameters"),
    "model.grammar_of_runs MAX_PRIORITY": (QUEUES, "`priority` of a definition"),
    "model.grammar_of_runs MAX_SLOTS": (QUEUES, "`max_active_runs`"),
    "model.ids MAX_MAPS": (MAP, "Maps in one another"),
    "model.input_schema MAX_LEVELS": (RUNS, "a schema of 30 levels"),
    "model.input_schema MAX_PROBLEMS": (RUNS, "100 problems"),
    "model.messages MAX_DEPTH": (STARTING, "`input`"),
    "model.missed MOST_MISSED": (STARTING, "1,000 missed times"),
    "model.pubsub MAX_SIZE_BYTES": (STARTING, "a message of 10,000,000 bytes"),
    "model.schedule MAX_LENGTH": (STARTING, "`schedule`: 500 characters"),
    "model.slots MAX_WAITING": (QUEUES, "5,000 that wait"),
    "model.times LONGEST_WAIT": (LANGUAGE, "`until`"),
    "model.trigger_events _LONGEST_NAME": (STARTING, "the name of an object"),
    "runtime.settings LONGEST_DURATION": (DEPLOY, "each setting that is a duration"),
    "runtime.settings MAX_NUMBER": (DEPLOY, "`LOCAL_WORKERS`"),
    "runtime.settings MIN_KEY_LENGTH": (DEPLOY, "`DEPLOYMENT_KEY`"),
    "targets.cloud_function_sync _MAX_ANSWER": (TARGETS, "the answer of a `CloudFunction`, sync"),
    "targets.jobs _MAX_PAGES": (TARGETS, "pages of a service's list"),
    "targets.twins _LONGEST_MESSAGE": (TARGETS, "characters of the message of an error"),
    "tasks.json_value _LONGEST_MESSAGE": ("docs/tasks.md", "2,000 characters"),
    "testing.simulation MAX_STEPS": ("docs/language/testing.md", "200,000 events"),
}
"""module and constant -> the row that names its number."""

SAID_THERE = "it is cut where it is shown, and that is said there: … and 3 more"
INSIDE = "how the engine goes about its work: what is beyond it is done later, or in another way, and nobody sees it"
SERVICE = "a service's or a file system's own; we keep to it so that nobody meets it"
WORDS = "docs say it in words"
FEWER = "of a target's names and ids, which the grammar keeps shorter than it could ever be"

WITHOUT_A_ROW = {
    f"{module} {name}": why
    for why, text in (
        (
            SAID_THERE,
            """
            cli.about _MAX_DESCRIPTION _MAX_UNTOLD
            cli.board MAX_ROWS _MAX_FAILED
            cli.children _MAX_SHOWN
            cli.links _MAX_LINKS
            cli.logs _MAX_CHILDREN
            cli.queues _MOST
            cli.results _LONGEST_JSON _MAX_BLOCKS _MAX_CELL _MAX_COLUMNS _MIN_BLOCK_ROWS
            cli.summary _MAX_ALSO _MAX_MESSAGE
            model.input_schema _MAX_SHOWN
            services.webhooks _MAX_ANSWER
            """,
        ),
        (
            INSIDE,
            """
            cli.bucket _MAX_COMPARED
            engine.acting MAX_CONCURRENT_CALLS
            engine.committing MAX_FAULTS MAX_SAVES MAX_TURNS
            engine.large_results MAX_AHEAD_BYTES MAX_PART_BYTES
            engine.leading MAX_APART
            engine.pace MOST_LINGERING_S
            engine.schedules _MAX_RACES
            engine.run_boxes MAX_IDLE_BYTES MAX_IDLE_RUNS
            engine.slot_keeper MAX_FAULTS MAX_SAVES
            engine.status _MAX_WRITTEN
            model.cel_tree _MAX_VISITS
            model.event_values MAX_ATTEMPT
            model.slots NO_LIMIT
            runtime.own_runs MAX_ENDED_RUNS _LONGEST_PAUSE_S
            runtime.telemetry EXPORT_LIMIT_S
            services.connections MOST
            stores.creations MOST_BYTES
            stores.journal_files _LONGEST_NAME
            stores.names LONGEST_LOG
            stores.objects _MOST_SYNCED
            stores.sorted_names _LONGEST
            stores.stripes _MOST_OPEN
            targets.callback _CALL_LIMIT_S
            targets.cloud_logging _MAX_PAGES
            targets.dag _CALL_LIMIT_S
            targets.dataflow _MAX_PAGES _MAX_UPDATES
            targets.function_process _EXIT_LIMIT_S
            targets.jobs _MAX_REMEMBERED
            targets.local_cloud_function _EXIT_LIMIT_S _START_LIMIT_S
            """,
        ),
        (
            SERVICE,
            """
            model.prices LEAST_MESSAGE LEAST_TIME_S
            runtime.catalog _MAX_NAME_BYTES
            services.cloud_logging MAX_PAGE
            services.cloud_tasks MAX_AHEAD MAX_DEADLINE_S MIN_DEADLINE_S
            targets.function_calls DISPATCH_LIMITS_S
            """,
        ),
        (
            WORDS,
            """
            cli.backfill MAX_ACTIVE
            engine.large_results MAX_INLINE_BYTES
            engine.parts MAX_TOLD
            engine.pruning LEAST_AGE_S
            model.definition_values _MOST
            model.nodes MAX_CONCURRENCY
            model.secrets MIN_MASKED
            """,
        ),
        (
            FEWER,
            """
            stores.keys _LONGEST
            targets.function_calls _MAX_URL
            """,
        ),
        (
            "a row of the grammar, no number",
            """
            model.grammar _MAX_CONCURRENCY
            model.grammar_of_runs _MAX_ACTIVE_RUNS
            """,
        ),
    )
    for module, *names in map(str.split, text.strip().splitlines())
    for name in names
}
"""Likewise -> why there is none."""


def constants() -> list[str]:
    found = []
    for file in sorted((ROOT / "orchestrator").rglob("*.py")):
        module = ".".join(file.relative_to(ROOT / "orchestrator").with_suffix("").parts)
        found += [f"{module} {name}" for name in NAME.findall(file.read_text())]
    return found


def test_every_constant_that_limits_something_is_known():
    assert sorted(constants()) == sorted({**DOCUMENTED, **WITHOUT_A_ROW})


@pytest.mark.parametrize("constant", DOCUMENTED)
def test_a_row_has_the_number_of_its_constant(constant):
    module, name = constant.split()
    value = getattr(importlib.import_module(f"orchestrator.{module}"), name)
    page, begin = DOCUMENTED[constant]
    (row,) = (row for row in rows([ROOT / page]) if row.what.startswith(begin))
    days = value.days if isinstance(value, timedelta) else int(value[:-1]) if isinstance(value, str) else value
    assert (days // 86400 if name.endswith("_S") else days) in row.numbers
