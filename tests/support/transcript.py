"""A transcript: what an executor under test writes, launches, publishes and logs, step by step, as text.

It is compared with `tests/transcripts/<name>.txt`, which `TRANSCRIPTS=write pytest tests/scenarios/test_transcripts.py`
writes anew: what is other than before is then seen in the diff, and is meant or is a mistake.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.model.commands import Json, Launch
from orchestrator.model.errors import OrchestratorError
from orchestrator.ports import ObjectStore
from orchestrator.runtime.logs import LABELS

HELD = Path(__file__).parents[1] / "transcripts"
MAX_SHOWN = 400
"""So many characters of a text are shown as they are."""
_DRAWN = re.compile(r"run_1[0-9]{9}_[0-9a-f]{12}|\b[0-9a-f]{12,64}\b")
IS_WRITING = os.environ.get("TRANSCRIPTS") == "write"


class Transcript:
    """Notes what happens, in the order in which it can be told: threads of one step may change places in it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lines: list[str] = []
        self._logged: list[str] = []
        self._stores: list[tuple[str, ObjectStore, dict[str, bytes]]] = []
        self._lists: list[tuple[str, list, int]] = []

    def watch_store(self, store: ObjectStore, called: str = "") -> None:
        """Note what is written there from now on."""
        self._stores.append((called, store, _content(store)))

    def watch(self, called: str, found: list) -> None:
        """Note what is appended to a list from now on."""
        self._lists.append((called, found, len(found)))

    def say(self, words: str) -> None:
        """Note something."""
        self._lines.append(f"  {words}")

    @contextmanager
    def step(self, words: str) -> Iterator[None]:
        """Note what happens inside, and an error that ends it."""
        self._lines.append(f"\n> {words}")
        log, handler = logging.getLogger("orchestrator"), _Handler(self._logged)
        level, log.level = log.level, logging.DEBUG
        handlers, log.handlers = log.handlers, [handler]
        log.manager._clear_cache()
        try:
            yield
        except OrchestratorError as exc:
            self.say(f"raises {type(exc).__name__}: {exc}; retry: {exc.retry}; {shown(exc.labels)}")
        finally:
            log.level, log.handlers = level, handlers
            log.manager._clear_cache()
        self._lines += [f"  log: {line}" for line in sorted(self._logged)]
        self._logged.clear()
        for place, (called, found, seen) in enumerate(self._lists):
            self._lines += sorted(f"  {called}: {shown(each)}" for each in found[seen:])
            self._lists[place] = (called, found, len(found))
        for place, (called, store, before) in enumerate(self._stores):
            after = _content(store)
            self._lines += [f"  {called}{line}" for line in _changes(before, after)]
            self._stores[place] = (called, store, after)

    def check(self) -> None:
        """Compare all of it with what is held of that name."""
        text = _numbered("\n".join(self._lines).lstrip() + "\n")
        path = HELD / f"{self._name}.txt"
        if IS_WRITING:
            path.write_text(text)
        assert text.splitlines() == path.read_text().splitlines()


def _numbered(text: str) -> str:
    """Ids, nonces and hashes by a number, in the order in which they come up."""
    numbers: dict[str, str] = {}
    return _DRAWN.sub(lambda found: numbers.setdefault(found[0], f"#{len(numbers) + 1}"), text)


class _Handler(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._kept = lines

    def emit(self, record: logging.LogRecord) -> None:
        labels = {name: value for name in LABELS if (value := getattr(record, name, None)) is not None}
        error = f" ({type(record.exc_info[1]).__name__})" if record.exc_info and record.exc_info[1] else ""
        self._kept.append(f"{record.levelname} {record.getMessage()}{error} {shown(labels)}")


def shown(value: object) -> str:
    """A value as JSON, without what is as it is by default."""
    return json.dumps(_plain(value), ensure_ascii=False)


def _plain(value: object) -> object:
    if isinstance(value, Launch):
        held = {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
        return {name: each for name, each in held.items() if each not in (None, "", {}, [], 0, False)}
    if isinstance(value, str) and len(value) > MAX_SHOWN:
        return f"{value[:40]}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return msgspec.to_builtins(value, enc_hook=repr)


def _content(store: ObjectStore) -> dict[str, bytes]:
    return {key: found[0] for key in store.list("") if (found := store.get(key)) is not None}


def _changes(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    """Yield the objects that are new, other or gone; of a run's document the entries that are."""
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if new is None:
            yield f"- {key}"
        elif key.startswith("definitions/"):
            yield f"+ {key}"
        elif not key.startswith("runs/"):
            yield f"+ {key} {_short(new)}"
        else:
            was, run = _entries(old), key.removeprefix("runs/").removesuffix(".json")
            for name, entry in _entries(new).items():
                if was.get(name) != entry:
                    yield f"{run} {name}: {shown(_other(was.get(name, {}), entry))}"


def _entries(document: bytes | None) -> dict[str, dict[str, Json]]:
    try:
        found: dict[str, dict[str, Json]] = msgspec.json.decode(document or b"{}")
    except msgspec.DecodeError:
        return {"?": {}}
    return found


def _other(was: Mapping[str, Json], entry: Mapping[str, Json]) -> dict[str, Json]:
    """The members of an entry that are new or other; null for those that are gone."""
    return {name: entry.get(name) for name in {**was, **entry} if name not in was or was[name] != entry.get(name)}


def _short(content: bytes, most: int = 600) -> str:
    text = content.decode()
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"
