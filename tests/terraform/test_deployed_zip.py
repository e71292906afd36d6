"""What Terraform deploys works without the repository around it: the zips, as it packs them, unpacked elsewhere and
served by an environment with nothing but their requirements.txt installed."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.cloud import ROOT, Cloud, Instance
from tests.support.pubsub_emulator import pubsub_emulator_host  # noqa: F401 - the fixture
from tests.support.terraform import Module, needs_terraform

pytestmark = needs_terraform

TASKS_PAGE = (ROOT / "docs/tasks.md").read_text()


def packed(files: Mapping[str, str], folder: Path) -> Path:
    """Zip files as archive_file does, from path in the zip to file, and unpack the zip in a folder of its own."""
    with zipfile.ZipFile(folder / "it.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in sorted(files.items()):
            archive.writestr(name, Path(path).read_text(encoding="utf-8"))  # archive_file holds text only
    with zipfile.ZipFile(folder / "it.zip") as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def python_with(requirements: Path, folder: Path) -> Path:
    """Make an environment with what a requirements.txt names; skips where no index can be reached."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*install, "-r", requirements], capture_output=True, text=True)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:]
        pytest.skip(f"{requirements.name} cannot be installed here: {last}")
    return folder / "bin/python"


def served_by(python: Path, target: str) -> Callable[[int], list[str]]:
    """port -> the command that Google's buildpack starts a function by: it names no signature type."""
    options = ["--source", "main.py", "--target", target, "--host", "127.0.0.1"]
    return lambda port: [str(python.parent / "functions-framework"), *options, "--port", str(port)]


@pytest.fixture(autouse=True)
def nothing_of_ours_is_on_the_path(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)


# ---- the orchestrator's zip ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listed(tmp_path_factory) -> dict:
    """What the package module says of this repository."""
    return Module("package", tmp_path_factory.mktemp("package")).outputs(
        root=str(ROOT), functions={"sample": "sample/functions/orch-test-2"}
    )


@pytest.fixture(scope="module")
def orchestrator(listed, tmp_path_factory) -> tuple[Path, Path]:
    """(folder that the zip is unpacked in, Python with its requirements only)."""
    folder = tmp_path_factory.mktemp("orchestrator")
    unpacked = packed(listed["orchestrator"], folder)
    return unpacked, python_with(unpacked / "requirements.txt", folder / "environment")


def test_the_zip_holds_the_program_and_the_definitions_and_nothing_else(listed):
    names = set(listed["orchestrator"])
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "orchestrator").rglob("*.py")}
    assert {"main.py", "requirements.txt", *package} <= names
    rest = names - {"main.py", "requirements.txt"} - package
    assert {name for name in rest if name.endswith("/dag.json")} == {
        f"dag_definitions/{path.parent.name}/dag.json" for path in (ROOT / "dag_definitions").glob("*/dag.json")
    }
    assert all(name.startswith("dag_definitions/") for name in rest)
    assert not [name for name in names if "__pycache__" in name or "/functions/" in name or "/pipelines/" in name]


def test_its_python_has_nothing_of_this_repository(orchestrator):
    unpacked, python = orchestrator
    where = "import sys, orchestrator; print(orchestrator.__file__); import google.cloud.storage, msgspec, yaml"
    shown = subprocess.run([python, "-c", where], cwd=unpacked, check=True, capture_output=True, text=True).stdout
    assert Path(shown.strip()).is_relative_to(unpacked)
    nowhere = subprocess.run([python, "-c", "import orchestrator"], cwd=unpacked.parent, capture_output=True, text=True)
    assert "ModuleNotFoundError" in nowhere.stderr


def test_the_zip_serves_on_event_and_finishes_the_samples(orchestrator, pubsub_emulator, tmp_path):
    unpacked, python = orchestrator
    text = ROOT / "dag_definitions/wordcount/data/king-james-bible.txt.gz"
    given = {"text": str(text), "output": str(tmp_path / "out")}
    with Cloud(
        pubsub_emulator,
        tmp_path,
        instances=2,
        source=unpacked / "main.py",
        command=served_by(python, "on_event"),
        settings={"DAG_DEFINITIONS": "dag_definitions"},
    ) as cloud:
        cloud.publish({"resource": {"type": "start"}, "dag": "sample", "run_id": "sample"})
        cloud.publish({"resource": {"type": "start"}, "dag": "wordcount", "input": given, "run_id": "wordcount"})
        assert cloud.wait("sample", 90)["$run"]["status"] == "Completed"
        assert cloud.wait("wordcount", 120)["$run"]["status"] == "Completed"
        assert set(cloud.launches().values()) == {1}


def test_the_zip_knows_time_zones_without_the_systems(orchestrator):
    """Images of Google's buildpacks need not have a /usr/share/zoneinfo."""
    unpacked, python = orchestrator
    ask = "from orchestrator.model.schedule import zone_of; print(zone_of('Europe/Berlin'))"
    shown = subprocess.run(
        [python, "-c", ask], cwd=unpacked, env={**os.environ, "PYTHONTZPATH": ""}, capture_output=True, text=True
    )
    assert (shown.stdout.strip(), shown.stderr) == ("Europe/Berlin", "")


# ---- a function's zip ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tasks_function(tmp_path_factory) -> tuple[Path, Path]:
    """The function of docs/tasks.md, which uses orchestrator.tasks: its zip unpacked, and its own Python."""
    folder = tmp_path_factory.mktemp("tasks")
    root = folder / "repository"
    shutil.copytree(ROOT / "orchestrator", root / "orchestrator", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("main.py", "requirements.txt"):
        shutil.copy(ROOT / name, root / name)
    source = root / "dag_definitions/loads/functions/load-day"
    source.mkdir(parents=True)
    (source / "main.py").write_text(TASKS_PAGE.split("```python\n")[1].split("```")[0])
    (source / "requirements.txt").write_text("functions-framework~=3.10\nmsgspec~=0.22.0\n")
    module = Module("package", tmp_path_factory.mktemp("package-tasks"))
    listed = module.outputs(root=str(root), functions={"load": "loads/functions/load-day"})
    assert listed["uses_package"] == {"load": True}
    unpacked = packed(listed["functions"]["load"], folder)
    return unpacked, python_with(unpacked / "requirements.txt", folder / "environment")


def called(unpacked: Path, python: Path, environment: Mapping[str, str], query: str, body: dict, folder: Path) -> dict:
    """Serve a function's unpacked zip and call it once; return its answer."""
    instance = Instance(
        {"PYTHONDONTWRITEBYTECODE": "1", **environment},
        folder / "function.log",
        unpacked / "main.py",
        command=served_by(python, "main"),
        folder=unpacked,
    )
    instance.start()
    try:
        instance.wait_until_it_listens()
        request = urllib.request.Request(
            f"http://127.0.0.1:{instance.port}/{query}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())
    finally:
        instance.stop()


def test_a_function_that_uses_the_package_runs_from_its_zip_and_records_its_result(tasks_function, tmp_path):
    unpacked, python = tasks_function
    bucket = tmp_path / "bucket"
    query = "?orchestrator_launch=run_1_a%2FLoad%2F1&orchestrator_nonce=9f86d081884c7d659a2feaa0c55ad015"
    body = {"day": "2026-11-26", "tables": ["users"]}
    answer = called(unpacked, python, {"STATUS_BUCKET": f"file://{bucket}"}, query, body, tmp_path)
    assert answer == {"day": "2026-11-26", "rows": {"users": 5}, "attempt": 1}
    (record,) = (bucket / "results").glob("*.json")
    assert json.loads(record.read_text())["result"] == answer


def test_a_plain_function_has_its_folder_in_its_zip_and_no_more(listed, tasks_function, tmp_path):
    assert set(listed["functions"]["sample"]) == {"main.py", "requirements.txt"}
    unpacked = packed(listed["functions"]["sample"], tmp_path)
    _, python = tasks_function
    answer = called(unpacked, python, {}, "", {"step": "Step1", "numbers": [20, 22]}, tmp_path)
    assert answer["sum"] == 42
