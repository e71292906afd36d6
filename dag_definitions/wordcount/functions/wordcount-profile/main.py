"""One branch of the word count: what kind of text it is, in a few numbers."""

import gzip
import json
import os
import re
from collections import Counter
from pathlib import Path
from uuid import uuid4

from flask import Request

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
"""A word of a lower-cased line: the rule of this DAG, see its README.md."""


def main(request: Request) -> dict[str, object]:
    """Write the profile of `text` as JSON to the path `profile`; return it, that path included."""
    parameters = request.get_json()
    text, path = Path(parameters["text"]), Path(parameters["profile"])
    profile = {"text": str(text), **profile_of(text)}
    write(path, json.dumps(profile, indent=2) + "\n")
    return {"profile": str(path), **profile}


def profile_of(text: Path) -> dict[str, object]:
    """Return the numbers that describe a text; lengths are in characters, without line ends."""
    lines = characters = 0
    longest_line = {"number": 0, "characters": 0}
    words: Counter[str] = Counter()
    open_text = gzip.open if text.suffix == ".gz" else open
    with open_text(text, "rt", encoding="utf-8") as file:
        for raw in file:
            line = raw.rstrip("\n")
            lines += 1
            characters += len(line)
            if len(line) > longest_line["characters"]:
                longest_line = {"number": lines, "characters": len(line)}
            words.update(WORD.findall(line.lower()))
    total = words.total()
    letters = sum(len(word) * count for word, count in words.items())
    return {
        "lines": lines,
        "characters": characters,
        "words": total,
        "distinct_words": len(words),
        "words_used_once": sum(count == 1 for count in words.values()),
        "average_word_length": round(letters / total, 3) if total else 0.0,
        "longest_word": min(words, key=lambda word: (-len(word), word), default=""),
        "longest_line": longest_line,
    }


def write(path: Path, content: str) -> None:
    """Replace `path` in one step, so that no reader and no crash ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
