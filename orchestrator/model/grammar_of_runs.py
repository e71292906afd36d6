"""The part of the grammar that is about runs: the keys of a definition beside its steps. Pure."""

from msgspec.structs import replace

from orchestrator.model import schedule
from orchestrator.model.enums import Missed, RunEvents
from orchestrator.model.grammar_keys import Key, Kind, Shape
from orchestrator.model.grammar_rules import Choice, Cron, Duration, Pattern, Range, Zone

MAX_SLOTS = 1000
"""How many runs of a DAG, or Tasks of a pool, may be under way at once where that is limited: who holds a slot stands
in one object."""
MAX_PRIORITY = 100
_ABOUT = Key("description", Kind.STRING, "What this DAG is for, in words for people.")
_OWNER = Key(
    "owner",
    Kind.STRING,
    "Who answers for this DAG: a person or a team.",
    rule=Pattern("an owner", r"[^\s$][^$\n]{0,99}", "write up to 100 characters on one line, without $"),
)
_TAGS = Key(
    "tags",
    Kind.TEXTS,
    "Words to find its runs by: `orchestrator runs --tag`.",
    rule=Pattern("a tag", r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,62}", "write 1 to 63 of A-Z a-z 0-9 . _ : / -"),
    most=20,
)
_INPUT_SCHEMA = Key(
    "input_schema",
    Kind.SCHEMA,
    "What the run's input must be, as JSON Schema 2020-12; a start whose input is not so is refused.",
)
_TOPIC_NAME = Pattern(
    "the name of a topic",
    r"projects/[^/\s$]+/topics/[A-Za-z][A-Za-z0-9_.~+%-]{2,254}",
    'write it as in "projects/my-project/topics/alerts"',
)
_PART_OF_A_NAME = Pattern(
    "a part of an object's name", r"[^\x00-\x1f$]{1,1024}", "write up to 1024 characters on one line, without $"
)
TOPIC = Key("topic", Kind.STRING, "The Pub/Sub topic to publish to.", rule=_TOPIC_NAME)
URL = Key(
    "url",
    Kind.STRING,
    "The webhook to post to, at one of NOTIFY_HOSTS.",
    rule=Pattern(
        "the URL of a webhook",
        r"https://[A-Za-z0-9.-]{1,253}(/[!#%&'()*+,./:;=?@A-Za-z0-9_~-]{0,1500})?",
        'write it as in "https://hooks.example.com/runs"',
    ),
    not_with="topic",
)
NOTIFY = Key(
    "notify",
    Kind.OBJECTS,
    "Who is told of the events of its runs, at a topic or at a webhook.",
    shape=Shape.of(
        "a notification",
        Key(
            "on",
            Kind.TEXTS,
            "The events to tell of.",
            is_required=True,
            rule=Choice("an event of a run", tuple(RunEvents)),
            most=len(RunEvents),
        ),
        replace(TOPIC, unless="url"),
        URL,
    ),
)
_SCHEDULE = Key(
    "schedule",
    Kind.STRING,
    "When a run starts by itself where the DAG is deployed: a cron expression of five fields.",
    rule=Cron(),
)
_TIME_ZONE = Key(
    "time_zone",
    Kind.STRING,
    "The time zone of `schedule`: an IANA name.",
    rule=Zone(),
    default=schedule.DEFAULT_ZONE,
    needs="schedule",
)
_MISSED = Key(
    "missed",
    Kind.STRING,
    "What becomes of the times of `schedule` that passed while nobody was there to start their runs: they are left out "
    "(skip), the last one gets its run late (last), or all do (all).",
    rule=Choice("what to do with missed times", tuple(Missed)),
    default=Missed.SKIP.value,
    needs="schedule",
)
_TRIGGERS = Key(
    "triggers",
    Kind.OBJECTS,
    "Events of others that start a run where the DAG is deployed.",
    shape=Shape.of(
        "a trigger",
        Key(
            "object",
            Kind.OBJECT,
            "An object of Cloud Storage that is there: a new one, or a new generation of one.",
            shape=Shape.of(
                "an object that triggers",
                Key(
                    "bucket",
                    Kind.STRING,
                    "The bucket that it is in.",
                    is_required=True,
                    rule=Pattern(
                        "the name of a bucket", r"[a-z0-9][a-z0-9._-]{1,221}", 'write it as in "landing", without gs://'
                    ),
                ),
                Key("prefix", Kind.STRING, "What its name begins with.", rule=_PART_OF_A_NAME),
                Key("suffix", Kind.STRING, "What its name ends with.", rule=_PART_OF_A_NAME),
            ),
            unless="topic",
        ),
        Key(
            "topic",
            Kind.STRING,
            "The Pub/Sub topic that a message comes from.",
            rule=_TOPIC_NAME,
            not_with="object",
        ),
        Key(
            "when", Kind.CONDITION, "An expression over `event` that is true or false: whether the event starts a run."
        ),
        Key(
            "input",
            Kind.VALUES,
            "The run's input; strings may hold ${event…} expressions. By default the event itself.",
        ),
    ),
)
_MAX_ACTIVE_RUNS = Key(
    "max_active_runs",
    Kind.NUMBER,
    "How many of its runs may be under way at once; more than these wait for their turn.",
    range=Range(1, MAX_SLOTS, is_whole=True),
)
_PRIORITY = Key(
    "priority",
    Kind.NUMBER,
    "Which of the runs that wait comes first, the highest; a start may give its run another one. By default 0.",
    range=Range(-MAX_PRIORITY, MAX_PRIORITY, is_whole=True),
)
_RUN_TIMEOUT = Key(
    "timeout", Kind.DURATION, "How long a run may take, its `finally` not counted.", rule=Duration("365d")
)
_DEADLINE = Key(
    "deadline",
    Kind.DURATION,
    "By when a run should have ended, from the time that it is for, else from its start: if it has not, that is told, "
    "and it runs on.",
    rule=Duration("365d"),
)

RUNS = (
    *(_RUN_TIMEOUT, _DEADLINE, _ABOUT, _OWNER, _TAGS, _INPUT_SCHEMA, NOTIFY),
    *(_MAX_ACTIVE_RUNS, _PRIORITY, _SCHEDULE, _TIME_ZONE, _MISSED, _TRIGGERS),
)
"""What a definition may say of its runs."""
