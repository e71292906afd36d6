"""What the README says is so: its Python runs, its definition is valid, its table of settings is the code's."""

import json
import re
from pathlib import Path

from orchestrator.model.definition import problems
from orchestrator.runtime.settings import TABLE

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_the_python_block_runs_and_prints_what_it_says(tmp_path, monkeypatch, capsys):
    (block,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    (expected,) = re.findall(r"print\(.*# (.*)$", block, re.MULTILINE)
    assert capsys.readouterr().out.strip() == expected


def test_the_definition_on_its_first_screen_is_valid_and_has_twelve_lines():
    first = blocks("json")[0]
    assert problems(json.loads(first)) == []
    assert len(first.splitlines()) <= 12


def test_its_table_of_settings_is_the_codes():
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)? ?\| (.*?) \|$", README, re.MULTILINE)
    assert [(name, default, meaning.replace("`", "")) for name, default, meaning in rows] == [
        (setting.name, setting.default, setting.meaning) for setting in TABLE
    ]


def test_the_files_that_it_points_to_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
