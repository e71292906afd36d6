"""Lines of text with styles, as values: what the commands show, before a terminal or a file gets it. Pure.

A line is a tuple of spans, a span is (text, style); a style is words of `_CODES`, an address that the text links to,
or empty.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from unicodedata import category, combining, east_asian_width

Span = tuple[str, str]
Line = tuple[Span, ...]

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
    "underline": "4",
}


def line(text: str, style: str = "") -> Line:
    """Return a line of one style."""
    return ((text, style),)


def plain(spans: Line) -> str:
    """Return the text alone."""
    return "".join(text for text, _ in spans).rstrip()


def coloured(spans: Line) -> str:
    """Return the line with a terminal's escape codes."""
    return "".join(_escaped(text, style.split()) if style and text else text for text, style in spans)


def printable(text: str) -> str:
    """Return `text` on one line, with nothing in it that would move a terminal's cursor or change its colours."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each in "\r\n\t" else f"\\x{ord(each):02x}"
        for each in text.replace("\r\n", "\n")
    )


def width_of(text: str) -> int:
    """How many columns of a terminal `text` takes; `text` is printable."""
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def cut(text: str, width: int) -> str:
    """Return `text`, its end replaced by `…` where it is wider than `width` columns."""
    if width_of(text) <= width:
        return text
    kept, used = "", 1
    for each in text:
        used += _columns(each)
        if used > width:
            break
        kept += each
    return f"{kept}…" if width > 0 else ""


def pad(text: str, width: int, *, is_number: bool = False) -> str:
    """Return `text` cut or filled up to `width` columns; a number is filled up on its left."""
    text = cut(text, width)
    blanks = " " * (width - width_of(text))
    return blanks + text if is_number else text + blanks


def columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """Return how wide each column of `rows` is."""
    return [max((width_of(cell) for cell in column), default=0) for column in zip(*rows, strict=True)]


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names for a sentence, with how many more there are; `none` if there are none."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more or "none"


def counted(number: int, noun: str) -> str:
    """Return `1 task`, `2 tasks`, `1,000 tasks`; an `s` makes the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def took(seconds: float) -> str:
    """Return a time for people: `12 ms`, `4.2 s`, `1 min 05 s`, `2 h 03 min`."""
    seconds = max(0.0, seconds)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60:02} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24:02} h"


def local_time(at: datetime, form: str) -> str:
    """Return an aware time as clocks here show it; one that they never do, of the years 1 or 9999, with its offset."""
    try:
        return f"{at.astimezone():{form}}"
    except (OverflowError, ValueError):
        return f"{at:{form} %Z}"


def _escaped(text: str, words: list[str]) -> str:
    """A text with its style and, by OSC 8, the address that it links to."""
    codes = ";".join(_CODES[word] for word in words if word in _CODES)
    styled = f"\x1b[{codes}m{text}\x1b[0m" if codes else text
    url = next((word for word in words if word.startswith("https://")), None)
    return f"\x1b]8;;{url}\x1b\\{styled}\x1b]8;;\x1b\\" if url else styled


def _columns(each: str) -> int:
    if combining(each) or category(each) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if east_asian_width(each) in "WF" else 1
