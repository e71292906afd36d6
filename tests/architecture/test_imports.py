"""The house is held to its plan: imports point down, what says *Pure* is, and importing costs nothing."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "orchestrator"

ACTING = {
    *("os", "time", "random", "secrets", "threading", "logging", "asyncio", "socket", "subprocess", "multiprocessing"),
    *("pathlib", "shutil", "tempfile", "io", "http", "urllib.request", "concurrent", "signal", "fcntl", "google"),
    *("flask", "requests", "rich", "functions_framework", "apache_beam", "ray"),
}
"""Modules that do something: nothing that is Pure imports them."""

LAYERS = {
    "model": {"model"},
    "ports": {"model"},
    "engine": {"model", "ports", "engine"},
    "services": {"model", "services"},
    "stores": {"model", "ports", "services", "stores"},
    "brokers": {"model", "ports", "services", "brokers"},
    "targets": {"model", "ports", "services", "targets"},
    "secrets": {"model", "ports", "services", "secrets"},
    "runtime": {"model", "ports", "engine", "services", "stores", "brokers", "targets", "secrets", "runtime"},
    "tasks": {"model", "ports", "runtime", "tasks"},
    "testing": {"model", "ports", "engine", "stores", "targets", "runtime", "testing"},
    "cli": {"model", "ports", "engine", "runtime", "cli"},
    "__main__": {"cli"},
    "__init__": {"model", "engine", "runtime"},
}
"""Part of the package -> parts that it may import."""

PURE_ENGINE = (
    *("decide", "notifying", "pausing", "starting", "claims", "attempts", "stopping", "ending", "items", "parts"),
    *("joining", "draft", "pace", "retry", "scope", "queueing", "redrive_plan", "redriving"),
)

ADAPTERS = {
    "secrets": {"environment", "secret_manager"},
    "stores": {"memory", "local", "gcs", "redis"},
    "brokers": {"memory", "pubsub"},
    "targets": {
        *("callback", "dag"),
        *("function", "local_cloud_function", "local_dataflow"),
        *("inline_function", "cloud_function", "cloud_function_sync", "cloud_logging", "dataflow", "jobs"),
    },
}
"""Adapters do not know their siblings. What they share lies in modules beside them."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)
        found[name] = path
    return found


MODULES = modules()


@cache
def imports(name: str) -> frozenset[str]:
    """Full names that a module imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def own(name: str) -> set[str]:
    """Modules of the package that a module imports."""
    found = set()
    for full in imports(name):
        if full.startswith("orchestrator"):
            found.add(full if full in MODULES else full.rpartition(".")[0])
    return found - {name}


def layer(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    allowed = LAYERS[layer(name)]
    assert {other for other in own(name) if layer(other) not in allowed} == set()


def is_pure(name: str) -> bool:
    return "Pure" in (ast.get_docstring(ast.parse(MODULES[name].read_text())) or "")


@pytest.mark.parametrize("name", MODULES)
def test_what_says_pure_imports_nothing_that_acts(name):
    doc = ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""
    must_be = layer(name) == "model" or name in {f"orchestrator.engine.{pure}" for pure in PURE_ENGINE}
    if "Pure" not in doc:
        assert not must_be, f"{name}: is to be pure and does not say so"
        return
    acting = {full for full in imports(name) if full.split(".")[0] in ACTING or full in ACTING}
    assert acting == set()
    assert {
        other for other in own(name) if layer(other) not in ("model", "engine", "cli") and not is_pure(other)
    } == set()


def test_decide_sees_only_the_model():
    for pure in PURE_ENGINE:
        seen = own(f"orchestrator.engine.{pure}")
        assert all(layer(other) == "model" or other.rpartition(".")[2] in PURE_ENGINE for other in seen)


@pytest.mark.parametrize("part", ADAPTERS)
def test_adapters_do_not_know_their_siblings(part):
    for adapter in ADAPTERS[part]:
        siblings = {f"orchestrator.{part}.{other}" for other in ADAPTERS[part] - {adapter}}
        assert own(f"orchestrator.{part}.{adapter}") & siblings == set()


def test_no_module_imports_itself_by_way_of_others():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in own(name):
                visit(other, (*path, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


def loaded_by(code: str) -> set[str]:
    """Top-level modules that are loaded in a fresh interpreter after `code`."""
    shown = f"{code}\nimport sys\nprint(*{{m.partition('.')[0] for m in sys.modules if m[0] != '_'}})"
    out = subprocess.run([sys.executable, "-c", shown], cwd=ROOT, check=True, capture_output=True, text=True)
    return set(out.stdout.split())


HEAVY = {"apache_beam", "ray", "rich", "flask", "google", "googleapiclient", "werkzeug", "functions_framework", "yaml"}
HEAVY |= {"opentelemetry", "cel_expr_python"}


def test_importing_the_package_loads_no_heavy_library():
    before = loaded_by("pass")  # an interpreter whose site-packages load some at its start
    assert (loaded_by("import orchestrator") - before) & HEAVY == set()
    assert (loaded_by("from orchestrator import DAGExecutor, DAGBuilder, EventFactory") - before) & HEAVY == set()


def test_importing_main_loads_nothing_beyond_functions_framework():
    extra = loaded_by("import main") - loaded_by("import functions_framework, cloudevents.http")
    assert extra - sys.stdlib_module_names - {"main"} == set()


PUBLIC = """EventFactory Event StartEvent DataflowEvent CloudFunctionEvent DAGBuilder DAG Node Task Parallel NodeFactory
DAGExecutor ExecutionStatus OrchestrationStatus NodeTypes TargetTypes TaskStatus RunStatus DataflowTemplateType
JobEvent"""


@pytest.mark.parametrize("name", PUBLIC.split())
def test_public_names_are_importable_from_the_package(name):
    import orchestrator

    assert getattr(orchestrator, name).__name__ == name
    assert name in dir(orchestrator)


def test_requirements_name_what_the_deployed_function_imports_and_nothing_else():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if line and not line.startswith("#")}
    of_the_cloud = {"google-api-python-client", "google-cloud-storage"}
    of_the_language = {"cel-expr-python", "jsonschema", "msgspec", "PyYAML", "tzdata"}
    assert pinned == {"functions-framework"} | of_the_language | of_the_cloud
