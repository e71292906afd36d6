"""What docs/language/testing.md shows runs as it says."""

import re
from pathlib import Path

import orchestrator.testing
from orchestrator.testing.behaviours import Behaviour

TEXT = (Path(__file__).resolve().parents[2] / "docs/language/testing.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_its_examples_run(tmp_path, monkeypatch):
    folder = tmp_path / "dag_definitions/nightly"
    folder.mkdir(parents=True)
    (folder / "dag.json").write_text(blocks("json")[0])
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "testing.md", "exec"), names)
    tests = [name for name in names if name.startswith("test_")]
    assert len(tests) == 12
    for name in tests:
        names[name]()


def test_it_names_all_that_the_package_has_and_every_behaviour_there_is():
    for name in orchestrator.testing.__all__:
        assert re.search(rf"\b{name}\b", TEXT) or name in ("Behaviour", "SimulatedRun"), name
    for method in vars(Behaviour):
        if not method.startswith("_") and callable(getattr(Behaviour, method)) and method != "of_launch":
            assert f".{method}(" in TEXT, method
