"""What a string or a number of a definition may be: each rule is a check and a piece of the JSON Schema. Pure."""

import json
import re
from collections.abc import Callable
from datetime import date

import msgspec

from orchestrator.model import durations, schedule
from orchestrator.model.commands import Json
from orchestrator.model.words import did_you_mean, kind_of, quoted


class Choice(msgspec.Struct, frozen=True):
    """One of a few words; `noun` is what such a word is."""

    noun: str
    allowed: tuple[str, ...]

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        if text in self.allowed:
            return None
        hint = did_you_mean(text, self.allowed)
        return f"{quoted(text)} is not {self.noun};{hint} allowed: {', '.join(self.allowed)}"

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"enum": list(self.allowed)}


class Pattern(msgspec.Struct, frozen=True):
    """A regular expression that the whole string matches, in what Python and ECMAScript share.

    It has no `|` outside of brackets, so that `^` and `$` can be put around it.
    """

    noun: str
    pattern: str
    how: str
    reserved: tuple[str, ...] = ()
    """Words of the pattern that are not allowed all the same."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        if re.fullmatch(self.pattern, text) and text not in self.reserved:
            return None
        hint = '; an expression can stand in "parameters" only' if "${" in text else ""
        return f"{quoted(text)} is not {self.noun}; {self.how}{hint}"

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        found: dict[str, Json] = {"pattern": f"^{self.pattern}$"}
        return found | {"not": {"enum": list(self.reserved)}} if self.reserved else found


class Duration(msgspec.Struct, frozen=True):
    """A duration above zero, of at most `most`; how long it is at most a schema cannot say."""

    most: str

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        try:
            seconds = durations.parse_duration(text)
        except durations.DurationError:
            return f"{quoted(text)} is not a duration; {durations.HOW}"
        if not 0 < seconds <= durations.parse_duration(self.most):
            return f"{quoted(text)} is out of range; allowed: more than 0, at most {self.most}"
        return None

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"pattern": f"^(?=[0-9.]*[1-9]){durations.PATTERN}$", "examples": ["90s", "10m", "1.5h"]}


class Cron(msgspec.Struct, frozen=True):
    """A cron expression; whether its numbers are in range, and whether it is ever due, a schema cannot say."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        return _schedule_problem(schedule.parse_cron, text)

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        limits: dict[str, Json] = {"pattern": f"^{schedule.PATTERN}$", "maxLength": schedule.MAX_LENGTH}
        return limits | {"examples": ["30 6 * * *", "*/15 8-18 * * MON-FRI"]}


class Zone(msgspec.Struct, frozen=True):
    """The name of a time zone; which there are a schema cannot say."""

    def problem(self, text: str) -> str | None:
        """Return what is wrong with `text`, if anything."""
        return _schedule_problem(schedule.zone_of, text)

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        return {"pattern": f"^{schedule.ZONE}$", "examples": ["Europe/Berlin", schedule.DEFAULT_ZONE]}


def _schedule_problem(read: Callable[[str], object], text: str) -> str | None:
    try:
        read(text)
    except schedule.ScheduleError as exc:
        return str(exc)
    return None


class Range(msgspec.Struct, frozen=True):
    """A number from `least` to `most`; `is_whole`: without a fraction."""

    least: float
    most: float
    is_whole: bool = False

    def problem(self, value: float) -> str | None:
        """Return what is wrong with `value`, if anything."""
        if self.least <= value <= self.most and (not self.is_whole or isinstance(value, int)):
            return None
        return f"is {value!r:.40}; allowed: {self._words} from {self.least:g} to {self.most:g}"

    @property
    def _words(self) -> str:
        return "a whole number" if self.is_whole else "a number"

    def schema(self) -> dict[str, Json]:
        """Return the same as JSON Schema."""
        limits: dict[str, Json] = {"minimum": self.least, "maximum": self.most}
        return {"type": "integer", **limits} if self.is_whole else limits


def text_problem(text: str) -> str | None:
    """Return what is wrong with any string, if anything: JSON can spell what UTF-8 cannot hold."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return None
    return f"{quoted(text)} holds half of a surrogate pair; write the whole character"


def key_problem(path: str, key: object) -> str:
    """Return the problem of a key that is no string, as YAML allows it, in the object at `path`."""
    is_short = key is None or isinstance(key, bool | date) or (isinstance(key, int | float) and -1e15 < key < 1e15)
    shown = str(key) if isinstance(key, date) else json.dumps(key) if is_short else kind_of(key)
    return f"{path or 'definition'}: the key {shown} is not a string; put it in quotes"
