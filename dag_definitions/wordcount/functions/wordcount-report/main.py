"""Last step of the word count: the most frequent words and the profile, for people and for programs."""

import json
import os
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

from flask import Request

SHARD = re.compile(r"part-(\d{5})-of-(\d{5})")
BAR_WIDTH = 40


def main(request: Request) -> dict[str, Any]:
    """Write `report.json` and `report.txt` to `run_dir` and return what they say.

    Parameters: `text` and its `sha256`, `words_dir` (what the pipeline wrote), `profile` (the file
    that the profile step wrote), `run_dir`, and `top`: how many words to show.
    """
    parameters = request.get_json()
    run_dir, words_dir = Path(parameters["run_dir"]), Path(parameters["words_dir"])
    profile = json.loads(Path(parameters["profile"]).read_text(encoding="utf-8"))
    counts = read_counts(words_dir)
    check(counts, profile, words_dir)
    ranking = sorted(counts, key=lambda entry: (-entry[1], entry[0]))[: parameters["top"]]
    top = [{"word": word, "count": count} for word, count in ranking]
    report = {"text": parameters["text"], "sha256": parameters["sha256"], "top": top, "profile": profile}
    write(run_dir / "report.json", json.dumps(report, indent=2) + "\n")
    write(run_dir / "report.txt", layout(ranking, profile))
    return {
        "report": str(run_dir / "report.json"),
        "report_text": str(run_dir / "report.txt"),
        "top": top,
        **{key: profile[key] for key in ("lines", "words", "distinct_words", "average_word_length")},
    }


def read_counts(words_dir: Path) -> list[tuple[str, int]]:
    """Return (word, count) of all shards. Raises ValueError unless they are one complete set."""
    shards = {path.name: path for path in words_dir.glob("part-*") if SHARD.fullmatch(path.name)}
    totals = {int(name.rpartition("-")[2]) for name in shards}
    wanted = {f"part-{number:05}-of-{total:05}" for total in totals for number in range(total)}
    if len(totals) != 1 or shards.keys() != wanted:
        raise ValueError(
            f"{words_dir}: holds {', '.join(sorted(shards)) or 'no shards'}; allowed is one complete set "
            "part-00000-of-N … of one run of the pipeline: run the Count step again"
        )
    counts = []
    for name in sorted(shards):
        for line in shards[name].read_text(encoding="utf-8").splitlines():
            word, _, count = line.partition("\t")
            counts.append((word, int(count)))
    return counts


def check(counts: list[tuple[str, int]], profile: dict[str, Any], words_dir: Path) -> None:
    """Raise ValueError unless both branches counted the same words: a free check of either."""
    counted = {"words": sum(count for _, count in counts), "distinct_words": len(dict(counts))}
    profiled = {key: profile[key] for key in counted}
    if counted != profiled:
        raise ValueError(f"{words_dir}: holds {counted}, but the profile says {profiled}; both must agree")


def layout(ranking: list[tuple[str, int]], profile: dict[str, Any]) -> str:
    """Return the report as a page of text."""
    width = max((len(word) for word, _ in ranking), default=0)
    lines = [f"The {len(ranking)} most frequent words of {profile['text']}", ""]
    for rank, (word, count) in enumerate(ranking, start=1):
        share = count / profile["words"]
        bar = "█" * max(1, round(BAR_WIDTH * count / ranking[0][1]))
        lines.append(f"{rank:>4}  {word:<{width}}  {count:>9,}  {share:>6.2%}  {bar}")
    longest = profile["longest_line"]
    facts = {
        "lines": f"{profile['lines']:,}",
        "characters": f"{profile['characters']:,}",
        "words": f"{profile['words']:,}",
        "distinct words": f"{profile['distinct_words']:,}",
        "words used once": f"{profile['words_used_once']:,}",
        "average word length": f"{profile['average_word_length']:.2f} characters",
        "longest word": profile["longest_word"],
        "longest line": f"line {longest['number']:,}, {longest['characters']:,} characters",
    }
    lines += ["", "Profile", ""]
    lines += [f"  {name:<19}  {value}" for name, value in facts.items()]
    return "\n".join(lines) + "\n"


def write(path: Path, content: str) -> None:
    """Replace `path` in one step, so that no reader and no crash ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_text(content, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
