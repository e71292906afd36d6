"""What the command line shows of a Map that runs as parts, and of the parts."""

import sys

import pytest

from orchestrator.cli.main import main
from tests.support.command_line import Place, clean_environment


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clean_environment()
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def test_parts_are_told_by_their_items_and_their_steps_are_drawn_where_they_are(place, capsys):
    load = {
        "type": "Map",
        "items": list(range(120)),
        "max_concurrency": 100,
        "iterator": {"start": "Keep", "steps": {"Keep": {"type": "Pass", "result": "${item}"}}},
    }
    place.dag("long", {"Load": load})
    assert main(["run", "long", "--run-id", "mine"]) == 0
    part = place.document("mine")["Load[0]"]["execution_id"]
    capsys.readouterr()

    assert main(["status", "mine"]) == 0
    assert f"child run: Load[0]  {part}  Completed, 120 of 120 items\n" in capsys.readouterr().out

    assert main(["graph", "mine"]) == 0
    drawn = capsys.readouterr().out
    assert "Completed, 120 of 120 items in 1 part" in drawn
    assert "class n1" not in drawn  # how Keep is, stands in the part's document
    assert main(["graph", "mine", "--format", "dot"]) == 0
    assert 'n1 [label="Keep", shape=plaintext];' in capsys.readouterr().out
    assert main(["graph", part]) == 0
    assert "Completed 120" in capsys.readouterr().out
