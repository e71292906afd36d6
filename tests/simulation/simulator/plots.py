"""Definitions to simulate runs of: small, and of every kind of step."""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from random import Random

from orchestrator.model.commands import Json
from orchestrator.model.definition import problems

Step = dict[str, Json]

TOPIC = "projects/p/topics/told"
INBOX = "inbox"
"""The bucket whose objects start runs."""
TIMES = "*/10 12 1 1 *"
"""Of the scheduled DAG: each ten minutes of the hour in which a simulation begins, and then in a year."""

_ANSWER: Step = {"target_type": "Callback", "target_name": "somebody"}
_TARGETS: tuple[Step, ...] = (
    {"target_type": "BigQuery", "target_name": "t", "query": "select 1"},
    {"target_type": "Dataflow", "target_name": "t", "template_path": "gs://bucket/template"},
    {"target_type": "CloudRunJob", "target_name": "t"},
    {"target_type": "CloudFunction", "target_name": "t"},
    {"target_type": "CloudFunction", "target_name": "t", "invocation": "sync"},
)


@lru_cache(maxsize=16)
def definition_of(
    seed: int, most: int, child: str | None = None, *, is_steady: bool = False, missed: str | None = None
) -> Step:
    """The definition of a seed, of about so many steps: the first valid one of those that are made up for it.

    Args:
        child: the DAG that its Dag Tasks start, if it may have some.
        is_steady: it is to end in the same way however its events come: nothing in it goes by the time.
        missed: what becomes of missed times, where it is to have a schedule; objects start runs of it then, too.
    """
    for number in count():
        made = Plot(f"{seed}.{number}", most, child, is_steady).definition()
        if missed is not None:
            made |= {"schedule": TIMES, "missed": missed, "triggers": [{"object": {"bucket": INBOX}}]}
        if not problems(made):
            return made
    raise AssertionError


class Plot:
    """Makes up a definition of at most so many steps."""

    def __init__(self, seed: str, most: int, child: str | None = None, is_steady: bool = False) -> None:
        self._child, self._is_steady = child, is_steady
        self._random = Random(seed)
        self._left = most
        self._numbers = count()

    def definition(self) -> Step:
        """A valid definition."""
        made = self._body(0)
        if self._chance(0.15):
            made["finally"] = self._body(1)
        if self._chance(0.1):
            made["max_active_runs"] = 1
        if self._chance(0.05) and not self._is_steady:
            made["timeout"] = self._one_of(["10m", "2h"])
        if self._chance(0.5) and not self._is_steady:  # who looks at the clock decides whether it has passed
            made["deadline"] = self._one_of(["1s", "4s", "10m", "1h", "1h"])
        if self._chance(0.25):
            made["notify"] = [{"on": ["started", "completed", "failed", "cancelled", "late"], "topic": TOPIC}]
        return made

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _one_of(self, things: list) -> Json:
        return things[self._random.randrange(len(things))]

    def _body(self, depth: int) -> Step:
        names = [f"S{next(self._numbers)}" for _ in range(self._random.randint(1, 3 if depth else 4))]
        steps: dict[str, Json] = {}
        for place, name in enumerate(names):
            steps[name] = self._step(names[:place], names[place + 1 :], depth)
        if len(names) > 1 and self._chance(0.25):
            return self._depending(names, steps)
        return {"start": names[0], "steps": _reached(names[0], steps)}

    def _depending(self, names: list[str], steps: dict[str, Json]) -> Step:
        """The same steps, of which most depend on others and some follow one."""
        followed: set[str] = set()
        for place, name in enumerate(names):
            step = steps[name]
            if "choices" in step:
                step = steps[name] = {"type": "Pass", "result": 1}
            for key in ("next", "on_error"):
                step.pop(key, None)
            if place and self._chance(0.7):
                step["depends_on"] = [each for each in names[:place] if self._chance(0.5)] or [names[place - 1]]
                if self._chance(0.4):
                    step["trigger"] = self._one_of(["all_done", "one_failed"])
            elif place and names[place - 1] not in followed and steps[names[place - 1]]["type"] != "End":
                steps[names[place - 1]]["next"] = name
                followed.add(names[place - 1])
        return {"steps": steps}

    def _step(self, earlier: list[str], later: list[str], depth: int) -> Step:
        self._left -= 1
        following: Step = {"next": later[0]} if later else {}
        kind = self._random.random()
        if depth < 2 and self._left > 3 and kind < 0.3:
            branches = [self._body(depth + 1) for _ in range(self._random.randint(2, 3))]
            found: Step = {"type": "Parallel", "branches": branches, **following}
            if self._chance(0.3) and not self._is_steady:
                found["on_failure"] = "stop"
            return found
        if depth < 2 and self._left > 2 and kind < 0.38:
            items: Step = {
                "type": "Map",
                "items": [f"item {number}" for number in range(self._random.randint(0, 4))],
                **following,
            }
            items["iterator"] = self._body(depth + 1)
            items["max_concurrency"] = self._random.randint(1, 3)
            if self._is_steady:  # which items begin before too many have failed is told by the time
                items["tolerated_failures"] = "100%"
            elif self._chance(0.5):
                items["tolerated_failures"] = self._one_of([1, "50%"])
            if self._chance(0.3) and not self._is_steady:
                items["on_failure"] = "stop"
            return items
        if later and earlier and kind < 0.4:
            when = f"${{steps.{self._one_of(earlier)}.status == 'Completed'}}"
            return {
                "type": "Condition",
                "choices": [{"when": when, "next": self._one_of(later)}],
                "default": self._one_of(later),
            }
        if kind < 0.46:
            return {"type": "Wait", "for": self._one_of(["1s", "90s", "10m"]), **following}
        if kind < 0.5:
            return {"type": "Pass", "result": {"made": "here"}, **following}
        targets = (
            [*_TARGETS, *_TARGETS, {"target_type": "Dag", "target_name": self._child}] if self._child else _TARGETS
        )
        task: Step = {"type": "Task", **self._one_of(list(targets)), **following}
        if self._chance(0.08):
            task = {"type": "Task", **_ANSWER, **following}
            if self._chance(0.5):
                task["topic"] = TOPIC
        if task["target_type"] not in ("Dag", "Callback") and self._chance(0.15):
            task["pool"] = "few"
        if earlier and self._chance(0.5):
            task["parameters"] = {"before": f"${{steps.{self._one_of(earlier)}.result}}"}
        can_be_silent = task["target_type"] in ("CloudFunction", "CloudRunJob") and "invocation" not in task
        if can_be_silent and not self._is_steady and self._chance(0.2):
            task["heartbeat"] = "5m"
            return {**task, "retry": {"max_attempts": 2}} if self._chance(0.5) else task
        if self._chance(0.7 if "invocation" in task else 0.3):
            task["retry"] = {"max_attempts": self._random.randint(2, 3), "delay": self._one_of(["1s", "30s", "5m"])}
        if later and self._chance(0.2):
            task["on_error"] = [{"errors": ["*"], "next": self._one_of(later)}]
        if self._chance(0.1) and not self._is_steady:
            task["timeout"] = self._one_of(["2m", "20m"])
        return task


def _reached(start: str, steps: dict[str, Json]) -> dict[str, Json]:
    """The steps that a way from the start leads to; the others cannot stand there."""
    found: dict[str, None] = {start: None}
    for name in found.copy() or ():
        waiting = [name]
        while waiting:
            for other in ways_of(steps[waiting.pop()]):
                if other not in found:
                    found[other] = None
                    waiting.append(other)
    return {name: step for name, step in steps.items() if name in found}


def ways_of(step: Step) -> list[str]:
    """The steps that may follow one, whatever happens."""
    found = [step["next"]] if "next" in step else []
    found += [each["next"] for key in ("choices", "on_error") for each in step.get(key, ())]
    return [*found, step["default"]] if "default" in step else found
