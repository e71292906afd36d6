"""Data between steps, through the public surface; what docs/language/data.md says of it is run here."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from orchestrator import DAGExecutor
from orchestrator.cli.main import main
from orchestrator.engine.pruning import Pruner
from orchestrator.model.definition import problems
from orchestrator.model.errors import ExpressionError, LaunchUncertain, SettingsError, StoreUnavailable
from orchestrator.model.templates import resolve
from orchestrator.runtime.settings import Settings
from orchestrator.secrets.environment import EnvironmentSecrets
from orchestrator.stores.memory import MemoryStore
from tests.support.world import task

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "language" / "data.md").read_text()
BLOCKS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)]


def run(definition: dict, input: dict, **settings):
    """Run a definition to its end, in memory; return the run."""
    with DAGExecutor(definition, "memory://", **settings) as executor:
        return executor.wait(executor.start(input=input), timeout_s=30)


def function(**keys) -> dict:
    return {"type": "Task", "target_type": "Function", "function": "builtins:dict", **keys}


def test_the_first_example_gives_what_the_page_says():
    definition, result = BLOCKS[:2]
    (said,) = re.findall(r"With the input `(.*?)` the result of `Report` is", DOC)
    done = run(definition, json.loads(said))
    assert done.run.status == "Completed"
    assert done.nodes["Report"].result == result


@pytest.mark.parametrize(("text", "message"), re.findall(r"^\| `(\$\{.*?\})` \| `(.*)` \|$", DOC, re.MULTILINE))
def test_the_errors_are_those_of_the_page(text, message):
    with pytest.raises(ExpressionError) as caught:
        resolve(text, {"run": {"input": {}}, "steps": {"Count": {"result": {"rows": 3}, "status": "Completed"}}})
    assert str(caught.value) == message


def test_what_cannot_be_read_is_found_by_validation_with_path_and_column():
    definition = {"start": "A", "steps": {"A": task(parameters={"x": ["${run.input.n +}"]})}}
    assert [problem.partition(";")[0] for problem in problems(definition)] == [
        'steps.A.parameters.x[0]: column 16 of "${run.input.n +}": unexpected end'
    ]


def test_a_missing_key_fails_the_step_and_is_named():
    done = run({"start": "A", "steps": {"A": function(parameters={"x": "${run.input.dya + '!'}"})}}, {"day": "x"})
    assert done.run.status == "Failed"
    assert done.nodes["A"].error.error_type == "Task.BadParameters"
    assert done.nodes["A"].error.message == (
        '${run.input.dya + \'!\'}: run.input has no "dya"; did you mean "day"? it has "day"'
    )


def test_what_might_take_too_long_fails_the_step_at_once():
    text = "${run.input.x.map(a, run.input.x + run.input.x)}"
    done = run({"start": "A", "steps": {"A": function(parameters={"x": text})}}, {"x": list(range(9000))})
    assert done.run.status == "Failed"
    assert "might take too long" in done.nodes["A"].error.message


# -- large results -------------------------------------------------------------------------------------

LARGE = {
    "start": "Make",
    "steps": {
        "Make": {**function(parameters={"rows": "${run.input.rows}", "n": 3}), "next": "Unused"},
        "Unused": {**function(parameters={"status": "${steps.Make.status}"}), "next": "Use"},
        "Use": {
            **function(parameters={"n": "${steps.Make.result.n + 1}", "last": "${steps.Make.result.rows[9999]}"}),
            "next": "Copy",
        },
        "Copy": {"type": "Pass", "result": {"again": "${steps.Make.result.rows}"}, "next": "Count"},
        "Count": function(parameters={"rows": "${size(steps.Copy.result.again)}"}),
    },
}
ROWS = [f"row {number}" for number in range(10_000)]


class CountingStore(MemoryStore):
    """Remembers what was read of results."""

    def __init__(self):
        super().__init__()
        self.read = []

    def get(self, key):
        if key.startswith("results/"):
            self.read.append(key)
        return super().get(key)


def test_a_large_result_lies_beside_the_document_and_is_fetched_only_when_it_is_used():
    store = CountingStore()
    with DAGExecutor(LARGE, store=store) as executor:
        done = executor.wait(executor.start(input={"rows": ROWS[:10]}), timeout_s=30)
        assert done.run.status == "Failed"  # there is no row 9999 of ten
        assert done.nodes["Make"].result["n"] == 3
        assert done.nodes["Make"].stored_result is None
        assert store.read == []

        done = executor.wait(executor.start(input={"rows": ROWS}), timeout_s=30)
        assert done.run.status == "Completed"
        assert done.nodes["Use"].result == {"n": 4, "last": "row 9999"}
        assert done.nodes["Count"].result == {"rows": 10_000}
        for name, result in (("Make", {"rows": ROWS, "n": 3}), ("Copy", {"again": ROWS})):
            assert done.nodes[name].result is None
            assert executor.result_of(done, name) == result
            assert done.nodes[name].stored_result.size_bytes == len(msgspec.json.encode(result))
        assert executor.result_of(done, "Use") == {"n": 4, "last": "row 9999"}
    key = f"runs/{done.run.run_id}.json"
    document, _ = store.get(key)
    entries = json.loads(document)
    assert entries["Make"]["stored_result"]["object"] == done.nodes["Make"].stored_result.object
    assert "row 9998" not in json.dumps([entries[name] for name in ("Make", "Use", "Copy", "Count")])


def test_a_step_that_uses_no_large_result_reads_none():
    definition = {
        "start": "Make",
        "steps": {
            "Make": {**function(parameters={"rows": "${run.input.rows}"}), "next": "Look"},
            "Look": {**function(parameters={"x": "${steps.Make.status == 'Completed'}"}), "next": "End"},
            "End": function(parameters={"x": "${steps.Look.result.x}"}),
        },
    }
    store = CountingStore()
    with DAGExecutor(definition, store=store) as executor:
        done = executor.wait(executor.start(input={"rows": ROWS}), timeout_s=30)
    assert done.nodes["End"].result == {"x": True}
    assert store.read == []


def test_a_large_result_that_somebody_deleted_fails_the_step_that_uses_it_and_ends_the_run():
    class Losing(CountingStore):
        def get(self, key):
            super().get(key)
            return None if key.startswith("results/") else super().get(key)

    with DAGExecutor(LARGE, store=Losing()) as executor:
        done = executor.wait(executor.start(input={"rows": ROWS}), timeout_s=30)
    assert done.run.status == "Failed"
    error = done.nodes["Use"].error
    assert error.error_type == "Task.BadParameters"
    assert error.message == f"{done.nodes['Make'].stored_result.object}: is missing; it is the result of Make"


def test_a_store_that_cannot_be_read_for_a_while_costs_time_and_nothing_else():
    class Moody(CountingStore):
        def get(self, key):
            found = super().get(key)
            if key.startswith("results/") and len(self.read) < 3:
                raise StoreUnavailable(f"{key}: not now")
            return found

    with DAGExecutor(LARGE, store=Moody(), settings=Settings.read({"TICK_INTERVAL": "0.05s"})) as executor:
        done = executor.wait(executor.start(input={"rows": ROWS}), timeout_s=30)
    assert done.run.status == "Completed"
    assert done.nodes["Use"].result == {"n": 4, "last": "row 9999"}


def test_pruning_a_run_deletes_its_large_results():
    store = MemoryStore()
    with DAGExecutor(LARGE, store=store) as executor:
        executor.wait(executor.start(input={"rows": ROWS}), timeout_s=30)
    assert len(list(store.list("results/"))) == 2
    pruned = Pruner(store, datetime.now(UTC) + timedelta(days=31), 30 * 86400.0, lambda _: True, is_all=True).prune()
    assert pruned.results == 2
    assert list(store.list("results/")) == []


def test_the_command_line_shows_where_a_large_result_lies(tmp_path, capsys):
    path = tmp_path / "dag.json"
    definition = {"start": "A", "steps": {"A": function(parameters={"rows": "${run.input.rows}"})}}
    path.write_text(json.dumps(definition))
    (tmp_path / "input.json").write_text(json.dumps({"rows": ROWS}))
    bucket = f"file://{tmp_path / 'bucket'}"
    assert main(["run", str(path), "--input", str(tmp_path / "input.json"), "--bucket", bucket]) == 0
    shown = capsys.readouterr().out
    (where,) = re.findall(r"results/orch-a-1-[0-9a-f]+\.json", shown)
    assert "row 9998" not in shown
    assert json.loads((tmp_path / "bucket" / where).read_text())["result"] == {"rows": ROWS}


# -- variables -----------------------------------------------------------------------------------------

LOAD = BLOCKS[2]
VALUES = {"buckets": {"raw": "raw-test"}, "workers": 2, "unused": "x"}


def test_variables_come_from_outside_and_stand_in_the_run_as_far_as_they_are_asked_for():
    done = run(LOAD, {"day": "2026-11-26"}, settings=Settings.read({"VARIABLES": json.dumps(VALUES)}))
    assert done.nodes["Load"].result == {"source": "gs://raw-test/2026-11-26", "is_large": False}
    assert done.run.variables == {"buckets": {"raw": "raw-test"}, "workers": 2}


def test_a_variable_without_a_value_is_an_error_of_the_start_and_nothing_is_launched():
    store = MemoryStore()
    with DAGExecutor(LOAD, store=store, variables={"buckets": {}}) as executor:
        with pytest.raises(SettingsError) as caught:
            executor.start(input={"day": "x"})
        assert not caught.value.retry
    (said,) = re.findall(r"^dag dag: .*$", DOC, re.MULTILINE)
    assert str(caught.value) == said
    assert list(store.list("")) == []


def test_a_run_keeps_the_variables_that_it_started_with():
    definition = {
        "start": "Wait",
        "steps": {
            "Wait": {"type": "Wait", "for": "1s", "next": "Say"},
            "Say": function(parameters={"x": "${var.region}"}),
        },
    }
    store = MemoryStore()
    with DAGExecutor(definition, store=store, variables={"region": "before"}) as executor:
        run_id = executor.start()
    with DAGExecutor(definition, store=store, variables={"region": "after"}) as executor:
        executor.resume(run_id)
        assert executor.wait(run_id, timeout_s=30).nodes["Say"].result == {"x": "before"}


@pytest.mark.parametrize("name", ["variables.json", "variables.yaml"])
def test_variables_may_stand_in_a_file_and_on_the_command_line(name, tmp_path, monkeypatch, capsys):
    dag = tmp_path / "dag.json"
    dag.write_text(json.dumps(LOAD))
    (tmp_path / name).write_text(json.dumps(VALUES))  # JSON is YAML
    monkeypatch.setenv("VARIABLES", str(tmp_path / name))
    command = ["run", str(dag), "--input", "day=d", "--bucket", "memory://", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["Load"]["result"] == {"source": "gs://raw-test/d", "is_large": False}
    assert main([*command, "--var", "workers=20", 'buckets={"raw": "b"}']) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["Load"]["result"] == {"source": "gs://b/d", "is_large": True}
    assert document["$run"]["variables"] == {"buckets": {"raw": "b"}, "workers": 20}


def test_the_command_line_ends_with_2_where_a_variable_is_missing(tmp_path, monkeypatch, capsys):
    dag = tmp_path / "dag.json"
    dag.write_text(json.dumps(LOAD))
    monkeypatch.delenv("VARIABLES", raising=False)
    assert main(["run", str(dag), "--bucket", "memory://"]) == 2
    assert "asks for ${var.buckets}, ${var.workers}, of which there is no value" in capsys.readouterr().err
    assert main(["run", str(dag), "--bucket", "memory://", "--resume", "r", "--var", "a=1"]) == 2
    assert "--var and --resume do not go together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "VARIABLES: is no JSON: "),
        (
            "no/such/file.json",
            'VARIABLES: "no/such/file.json" cannot be read: No such file or directory; write a JSON ',
        ),
    ],
)
def test_variables_that_cannot_be_read_are_told_by_their_setting(text, message):
    with pytest.raises(SettingsError) as caught:
        Settings.read({"VARIABLES": text})
    assert str(caught.value).startswith(message)


def test_which_variables_a_definition_asks_for_must_be_written_out():
    for text in ("${var}", "${size(var)}", "${var[run.input.x]}", "${var[0]}"):
        (problem,) = problems({"start": "A", "steps": {"A": task(parameters={"x": text})}})
        assert problem == f"steps.A.parameters.x: {text}: stops too early; go on to the name of a variable"


# -- secrets -------------------------------------------------------------------------------------------

KEY = "open-sesame-1234"


def note_length(key: str, **_: object) -> dict:
    """What a careful function returns."""
    return {"length": len(key), "ends": key[-2:]}


def shout(key: str) -> None:
    """What a careless function does."""
    raise ValueError(f"the service refused the key {key}")


def everything_in(folder: Path) -> str:
    return "\n".join(path.read_text(errors="replace") for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def here(monkeypatch):
    """This module is importable by its name, as the steps below name it."""
    monkeypatch.setitem(sys.modules, "test_data_functions", sys.modules[__name__])


def secret_step(name: str, **parameters) -> dict:
    step = {"type": "Task", "target_type": "Function", "function": f"test_data_functions:{name}"}
    return {"start": "A", "steps": {"A": {**step, "parameters": parameters}}}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("failing", [False, True])
def test_a_secret_reaches_its_function_and_neither_bucket_log_nor_error(tmp_path, monkeypatch, caplog, capfd, failing):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("SECRET_API_KEY", KEY)
    definition = secret_step("shout" if failing else "note_length", key="${secret.api-key}")
    if not failing:
        definition["steps"]["A"]["parameters"]["url"] = "https://x/?key=${secret.api-key}"
    with DAGExecutor(definition, f"file://{tmp_path}") as executor:
        done = executor.wait(executor.start(), timeout_s=30)
    if failing:
        assert done.nodes["A"].error.message == "ValueError: the service refused the key ***"
    else:
        assert done.nodes["A"].result == {"length": len(KEY), "ends": "34"}
    assert "api-key" in everything_in(tmp_path)  # its definition is there
    assert KEY not in everything_in(tmp_path)
    assert KEY not in caplog.text
    captured = capfd.readouterr()
    assert KEY not in captured.out + captured.err


@pytest.mark.usefixtures("here")
def test_a_secret_that_there_is_not_refuses_the_launch_and_is_named():
    done = run(secret_step("note_length", key="${secret.nowhere}"), {}, secrets=EnvironmentSecrets({}))
    assert done.run.status == "Failed"
    assert done.nodes["A"].error.error_type == "Launch.NoSecret"
    assert done.nodes["A"].error.message == (
        "secret nowhere: there is none; set the environment variable SECRET_NOWHERE, "
        "or name it in the file that SECRETS_FILE names"
    )


@pytest.mark.usefixtures("here")
def test_a_secret_that_cannot_be_read_for_a_while_leaves_the_launch_to_the_tick():
    class Moody:
        asked = 0

        def get(self, name: str) -> str:
            self.asked += 1
            if self.asked == 1:
                raise LaunchUncertain(f"secret {name}: 503")
            return KEY

    moody = Moody()
    settings = Settings.read({"LAUNCH_LEASE": "0.3s", "CLOCK_ALLOWANCE": "0s", "TICK_INTERVAL": "0.1s"})
    done = run(secret_step("note_length", key="${secret.k}"), {}, secrets=moody, settings=settings)
    assert done.run.status == "Completed"
    assert done.nodes["A"].attempt == 1
    assert moody.asked == 2


def test_the_page_shows_where_a_secret_can_stand():
    assert problems(BLOCKS[3]) == []
    assert run(BLOCKS[3], {}, secrets=EnvironmentSecrets({"SECRET_API_KEY": "k"})).nodes["Call"].result == {
        "header": "Bearer k"
    }
