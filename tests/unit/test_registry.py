"""Which store a bucket's URL opens, and what is said where it cannot be."""

import sys
import tomllib
from pathlib import Path

import pytest

from orchestrator.model.errors import SettingsError
from orchestrator.runtime import registry

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_store_whose_package_is_missing_says_which_line_to_add(monkeypatch, scheme):
    monkeypatch.delitem(sys.modules, "orchestrator.stores.redis", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)  # as if it were not installed
    with pytest.raises(SettingsError) as raised:
        registry.open_store(f"{scheme}://user:secret@host:6379/0")
    assert str(raised.value) == (
        f"bucket {scheme}://: its store needs the package redis, which is not installed; "
        "add the line redis~=8.1 to requirements.txt, or `pip install 'orchestrator[redis]'` here"
    )


def test_the_lines_to_add_are_those_of_the_package_and_of_the_page():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs/deploy.md").read_text().splitlines()
    for name, line in registry.REQUIREMENTS.items():
        assert extras[name] == [line]
        assert line in page
