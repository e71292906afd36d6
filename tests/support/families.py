"""Definitions of runs that have child runs, and a story of them."""

from __future__ import annotations

from orchestrator.engine.catalog import Catalog
from tests.support.story import Story, job
from tests.support.world import dag, task


def kid(name="kid", **keys):
    return {"type": "Task", "target_type": "Dag", "target_name": name, **keys}


FAMILY = {
    "parent": {
        **dag(A=kid(parameters={"day": "${run.input.day}"}, retry={"max_attempts": 2, "delay": "10s"}, next="B"),
              B={"type": "Pass", "result": "${steps.A.result}"}), "priority": 4,
    },
    "kid": {**dag(X=job(next="Y", parameters={"d": "${run.input.day}"}), Y=task()),
            "result": {"y": "${steps.Y.result}"},
            "input_schema": {"type": "object", "required": ["day"], "properties": {"n": {"default": 3}}}},
    "lost": dag(A=kid("nobody", next="B"), B=task()),
    "wrong": dag(A=kid(parameters={"week": 1})),
    "self": dag(A=kid("self")),
    "map": dag(M={"type": "Map", "items": ["a", "b"], "iterator": dag(K=kid(parameters={"day": "${item}"}))}),
}  # fmt: skip


def family(name: str, **options) -> Story:
    """A story of several DAGs; `start` names one."""
    story = Story(name, dag(A=task()), **options)
    catalog = Catalog(FAMILY)
    story.world.catalog = catalog
    story.world.instances = [story.world.instance(notifier=story.notifier) for _ in range(2)]
    return story


LONG = {
    "type": "Map", "items": "${run.input.list}", "max_concurrency": 100,
    "iterator": dag(I=task(parameters={"i": "${item}", "k": "${steps.K.result.from}", "r": "${run.input.r}"}, next="J"),
                    J={"type": "Pass", "result": {"j": "${steps.I.result.from}", "long": "${run.input.long}"}}),
}  # fmt: skip
