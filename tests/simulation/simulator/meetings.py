"""Which fault met which step of the loop, where it changed what happened; and which of them cannot meet, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cache

STEPS = (
    "event in",
    "resolve",
    "load",
    "witness",
    "decide",
    "definition",
    "results",
    "marker",
    "save",
    "slots",
    "launch",
    "child",
    "bind",
    "cancel",
    "remind",
    "notify",
    "tick",
    "schedule",
    "wait",
)
"""The steps of the loop, in their order; `wait`: for another thread's save or call, or for the pace of saves."""

FAULTS = (
    "kill",
    "stall",
    "hang",
    "412",
    "412 after the write",
    "429",
    "503",
    "503 after the write",
    "lease over",
    "skew",
    "cancel",
    "pause",
    "redrive",
)
"""What befalls a process at a step."""

ON_THE_WAY = ("lost", "twice", "late", "out of order", "forged")
"""What befalls a message."""

MESSAGES = (
    "completion",
    "callback",
    "reminder",
    "heartbeat",
    "slot",
    "begin",
    "cancel",
    "pause",
    "resume",
    "redrive",
    "start",
    "trigger",
)

_OF_OBJECTS: Mapping[str, str] = {
    "definitions": "definition",
    "pruned": "load",
    "open": "marker",
    "executions": "bind",
    "slots": "slots",
    "schedules": "schedule",
}
_OF_MESSAGES: Mapping[str, str] = {
    "begin": "child",
    "cancel": "cancel",
    "slot": "slots",
    "start": "schedule",
}


@cache
def step_at(at: str) -> str:
    """The step of the loop that a thread is at that has given the word away with these words (`Strand.at`)."""
    call, _, of = at.removesuffix(", done").partition(" ")
    if at in STEPS:
        return at
    if call == "get":
        if of in ("runs", "definitions", "pruned"):
            return "load"
        return "resolve" if of == "executions" else "witness" if of == "results heard" else _of_object(of)
    if call in ("put", "delete"):
        return _of_object(of)
    if call == "publish":
        return _OF_MESSAGES.get(of, "remind")
    return {"find": "witness", "outcome": "witness", "list": "tick", "waits": "wait", "sleeps": "wait"}.get(call, call)


def _of_object(kind: str) -> str:
    if kind == "runs":
        return "save"
    return "results" if kind.startswith("results") else _OF_OBJECTS[kind]


CALL_NOTHING = frozenset(("event in", "decide", "wait"))
_CALLS_NOTHING = "calls nothing"
_READS = "only reads: an error after that is one before it"
_WRITES = {"definition", "results", "marker", "save", "slots", "bind", "schedule"}
_BEFORE_THE_CLAIM = {"event in", "resolve", "load", "witness", "decide", "definition", "results", "marker", "save"}


def why_never(fault: str, step: str) -> str | None:
    """Why a fault cannot meet a step, or None where it can."""
    if fault in ("412", "412 after the write", "429"):
        if step not in _WRITES:
            return "writes no object by itself"
        if fault.startswith("412") and step == "marker":
            return None
    if fault in ("503", "hang") and step in CALL_NOTHING:
        return _CALLS_NOTHING
    if fault == "503 after the write":
        if step in CALL_NOTHING:
            return _CALLS_NOTHING
        if step in ("resolve", "load", "witness", "tick"):
            return _READS
    if fault == "lease over" and step in _BEFORE_THE_CLAIM - {"save"}:
        return "comes before the save that claims"
    if fault == "lease over" and step in ("schedule", "tick"):
        return "is before any run is looked at"
    if fault == "lease over" and step in ("cancel", "remind"):
        return "comes after the launches of its save have been called"
    if fault == "skew" and step == "definition":
        return "is followed by the first save of a run, which goes the same way at any time"
    if fault == "skew" and step == "schedule":
        return "is followed by the next step without a look at the clock"
    if fault in ("cancel", "pause", "redrive"):
        if step in ("tick", "schedule"):
            return "is before any run is looked at"
        if step == "definition":
            return "is before the run is there"
        if step == "marker" and fault != "redrive":
            return "is before the run is there, or after its end"
    return None


_NEVER_LOST = "is published by who waits for the topic's answer, and kept by it until it is acknowledged"


def why_never_on_the_way(fault: str, message: str) -> str | None:
    """Why a fault cannot befall a message of a kind, or None where it can."""
    if fault == "forged" and message not in ("completion", "callback", "heartbeat"):
        return "is published with rights that the log's writers do not have"
    if fault == "lost" and message in ("callback", "cancel", "pause", "resume", "redrive", "start", "trigger"):
        return _NEVER_LOST
    return None


PAIRS = tuple((fault, step) for fault in FAULTS for step in STEPS if why_never(fault, step) is None)
"""All pairs of a fault and a step that can meet."""
PAIRS_ON_THE_WAY = tuple(
    (fault, message) for fault in ON_THE_WAY for message in MESSAGES if why_never_on_the_way(fault, message) is None
)
"""Likewise of a fault and a kind of message."""


def tables(met: Counter[tuple[str, str]]) -> str:
    """Both tables, with how often each pair met; `-`: cannot be; and why not."""
    return "\n\n".join(
        (
            _table("step", STEPS, FAULTS, met, why_never),
            _table("message", MESSAGES, ON_THE_WAY, met, why_never_on_the_way),
            "-: cannot be:\n" + "\n".join(f"  {line}" for line in _reasons()),
        )
    )


def _table(what: str, rows: tuple[str, ...], columns: tuple[str, ...], met: Counter, why) -> str:
    heads = [column.replace(" after the write", "+") for column in columns]
    lines = [f"{what:11}" + "".join(f"{head:>8}" if len(head) < 8 else f" {head}" for head in heads)]
    for row in rows:
        cells = ["-" if why(column, row) else str(met[column, row] or ".") for column in columns]
        widths = [max(8, len(head) + 1) for head in heads]
        lines.append(f"{row:11}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)))
    return "\n".join(lines)


def _reasons() -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for columns, rows, why in ((FAULTS, STEPS, why_never), (ON_THE_WAY, MESSAGES, why_never_on_the_way)):
        for column in columns:
            for row in rows:
                reason = why(column, row)
                if reason:
                    found.setdefault((column, reason), []).append(row)
    return [f"{column}: {', '.join(rows)}: {reason}" for (column, reason), rows in found.items()]


def missing(met: Counter[tuple[str, str]]) -> list[str]:
    """The pairs that can meet, and have not."""
    return [f"{fault} x {step}" for fault, step in (*PAIRS, *PAIRS_ON_THE_WAY) if not met[fault, step]]
