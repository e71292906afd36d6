"""The final documents of a simulation, without what tells of the way there."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from orchestrator.engine.large_results import LargeResults
from orchestrator.model.commands import Json
from orchestrator.model.run_document import encode
from orchestrator.model.run_state import RunState
from orchestrator.stores.memory import MemoryStore

_OF_THE_WAY = (
    *("run_id", "message_id", "execution_id", "started_at", "ended_at", "queued_at", "steered_at", "timeout_at"),
    *("claim", "due", "slot", "parent", "part_of", "owed_notifications", "lost_notifications", "stored_result"),
)
_RUN_ID = re.compile(r"run_[A-Za-z0-9_]+")


def endings(states: Mapping[str, RunState], store: MemoryStore) -> dict[str, Json]:
    """Return what each run came to, under what it is: the run of a start, or the child run of a step of another."""
    return {name_of(state, states): _ending(state, store) for state in states.values()}


def name_of(state: RunState, states: Mapping[str, RunState]) -> str:
    """What a run is, by which it is found among those of another simulation."""
    parent, run = state.run.parent, state.run
    if parent is None:
        return f"{run.dag} {dict(run.input)} {run.scheduled_for or ''}"
    if parent.run_id not in states:
        return f"{parent.run_id}, which is gone/{parent.node}"
    return f"{name_of(states[parent.run_id], states)}/{parent.node}/{parent.attempt}"


def _ending(state: RunState, store: MemoryStore) -> dict[str, Json]:
    document = msgspec.json.decode(encode(state))
    results = LargeResults(store)
    for name, node in state.nodes.items():
        if node.stored_result is not None:
            document[name]["result"] = results.load(node)
        items = document[name].get("items")
        if isinstance(items, dict) and "stored" in items:
            del items["stored"]
            items["values"] = results.items_of(node)
    if state.run.stored_result is not None:
        document["$run"]["result"] = results.load_run(state)
    for entry in document.values():
        for key in _OF_THE_WAY:
            entry.pop(key, None)
        if "error" in entry:
            entry["error"]["message"] = _RUN_ID.sub("run", entry["error"].get("message", ""))
    return document


def difference(one: Mapping[str, Json], other: Mapping[str, Json]) -> str | None:
    """Return where the final documents of two simulations of the same definitions differ; None where they do not.

    Which missed times of a schedule get runs is told by the time; the runs of those that both have are compared.
    """
    for name in {**one, **other}:
        if name.startswith("timed") and (name not in one or name not in other):
            continue
        mine, theirs = one.get(name), other.get(name)
        if mine is None or theirs is None:
            return f"{name}: is only in one of them"
        for entry in {**mine, **theirs}:
            if mine.get(entry) != theirs.get(entry):
                return f"{name}: {entry}: {mine.get(entry)} or {theirs.get(entry)}"
    return None
