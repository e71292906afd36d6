"""The examples of docs/language/redrive.md, run as they stand there."""

import json
import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs/language/redrive.md").read_text()
BLOCKS = re.findall(r"^```(json|python)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_examples_hold():
    names: dict[str, object] = {}
    for language, text in BLOCKS:
        if language == "json":
            names["definition"] = json.loads(text)
        else:
            exec(text, names)
    assert [language for language, _ in BLOCKS].count("python") >= 1
