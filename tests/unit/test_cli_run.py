"""orchestrator run, inside of this process: what comes out, what goes wrong, and what is said then."""

import itertools
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from orchestrator.cli import trouble as trouble_module
from orchestrator.cli.main import main
from orchestrator.cli.trouble import Trouble
from orchestrator.engine import deciding
from orchestrator.model.errors import LaunchUncertain, StoreUnavailable
from orchestrator.stores.local import LocalStore
from tests.support.command_line import TOKEN, Place, clean_environment


@pytest.fixture
def place(tmp_path, monkeypatch):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return Place(tmp_path)


def test_a_run_that_completes_is_0_and_shows_what_came_out(place, capsys):
    place.dag("greet", {"A": place.task("echo", "B", value="hello"), "B": place.task("echo", value="${run.input.who}")})
    assert main(["run", "greet", "--input", "who=Ada"]) == 0
    said = capsys.readouterr()
    (run_id,) = place.run_ids()
    lines = said.out.splitlines()
    assert f"run {run_id} of greet started" in lines[0]
    assert [line.split()[1:3] for line in lines[1:5]] == [
        ["A", "Running"],
        ["A", "Completed"],
        ["B", "Running"],
        ["B", "Completed"],
    ]
    assert lines[5:7] == ["", "B  Ada"]
    assert lines[-2].startswith("Completed in ")
    assert lines[-1] == f"run document: .orchestrator/runs/{run_id}.json"
    assert said.err == ""


def test_all_kinds_of_input_are_laid_over_one_another(place, capsys):
    place.dag("d", {"A": place.task("echo", value="${run.input}")})
    (place.root / "in.json").write_text('{"a": 1, "b": [2]}')
    assert main(["run", "d", "--json", "--input", "in.json", "c=3", "--input", "a=x"]) == 0
    assert json.loads(capsys.readouterr().out)["$run"]["input"] == {"a": "x", "b": [2], "c": 3}


def test_json_is_the_document_as_it_is_stored_and_nothing_else(place, capsys):
    place.dag("d", {"A": place.task("shout", text="not JSON")})
    assert main(["run", "d", "--json", "--run-id", "mine"]) == 0
    said = capsys.readouterr()
    assert said.out == (place.root / ".orchestrator" / "runs" / "mine.json").read_text()
    assert said.err == "not JSON\n"


def test_json_with_verbose_shows_progress_on_standard_error(place, capsys):
    place.dag("d", {"A": place.task("echo")})
    assert main(["run", "d", "--json", "--verbose"]) == 0
    said = capsys.readouterr()
    json.loads(said.out)
    assert "A Completed" in said.err


def test_a_run_that_fails_is_1_and_says_which_step_why_and_what_next(place, capsys):
    place.dag("d", {"A": place.task("boom", "B"), "B": place.task("echo")})
    assert main(["run", "d", "--input", "a=b c"]) == 1
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("Failed in "))
    assert lines[start + 1 :] == [
        "  step A, attempt 1: Task.Failed: ValueError: boom",
        f"run document: .orchestrator/runs/{place.run_ids()[0]}.json",
        f"next: mend {place.module}:boom, which step A runs, then let the run go on:",
        f"  orchestrator redrive {place.run_ids()[0]} d",
        "or start a new one:",
        "  orchestrator run d --input 'a=b c'",
    ]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(
            {"type": "Wait", "until": "${run.input.at}"}, "mend step A in the definition, or the run's input", id="wait"
        ),
        pytest.param(
            {"type": "End", "status": "Failed"}, "mend step A in the definition, or the run's input", id="end"
        ),
        pytest.param(
            {
                "type": "Map",
                "items": "${run.input.at}",
                "iterator": {"start": "P", "steps": {"P": {"type": "Pass", "result": 1}}},
            },
            "correct the items of step A, or the run's input",
            id="map",
        ),
        pytest.param(
            {
                "type": "Task",
                "target_type": "Function",
                "function": "builtins:dict",
                "parameters": {"x": "${run.input.y}"},
            },
            "correct the parameters of step A, or the run's input",
            id="parameters",
        ),
    ],
)
def test_a_run_that_would_fail_again_by_what_it_keeps_is_not_told_to_go_on(place, capsys, step, expected):
    place.dag("d", {"A": step})
    assert main(["run", "d", "--input", "at=nonsense"]) == 1
    said = capsys.readouterr().out
    assert f"\nnext: {expected}, then start a new run:\n  orchestrator run d --input at=nonsense\n" in said
    assert "redrive" not in said


def test_a_run_whose_result_leads_nowhere_needs_another_definition(place, capsys):
    folder = place.dag("d", {"A": {"type": "Pass", "result": {}}})
    definition = json.loads((folder / "dag.json").read_text())
    (folder / "dag.json").write_text(json.dumps({**definition, "result": "${steps.A.result.rows}"}))
    assert main(["run", "d"]) == 1
    assert '\nnext: correct "result" in the definition, then start a new run:\n' in capsys.readouterr().out


def test_the_items_of_a_map_are_named_in_lines_where_all_steps_have_short_names(place, capsys):
    iterator = {"start": "F", "steps": {"F": place.task("boom")}}
    place.dag("d", {"L": place.task("echo", "M"), "M": {"type": "Map", "items": [1], "iterator": iterator}})
    assert main(["run", "d"]) == 1
    said = capsys.readouterr().out
    assert " F[0] Failed " in said
    assert "…" not in said


def test_a_run_that_fails_says_so_beside_its_document_too(place, capsys):
    place.dag("d", {"A": place.task("boom")})
    assert main(["run", "d", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["A"]["status"] == "Failed"
    assert said.err == f"orchestrator: run {place.run_ids()[0]}: Failed: step A: Task.Failed: ValueError: boom\n"


def test_other_branches_that_failed_are_named_and_the_log_is_found(place, capsys):
    branches = [{"start": f"B{n}", "steps": {f"B{n}": place.task("boom", message=str(n))}} for n in range(2)]
    place.dag("d", {"P": {"type": "Parallel", "branches": branches}})
    assert main(["run", "d"]) == 1
    said = capsys.readouterr().out
    assert (
        "  step B0, attempt 1: Task.Failed: ValueError: 0\n  step B1, attempt 1: Task.Failed: ValueError: 1\n" in said
    )


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(
            {"parameters": {"value": "${run.input.nope}"}}, "correct the parameters of step A", id="parameters"
        ),
        pytest.param({"function": "{module}:nope"}, "make {module}:nope importable from here", id="no such function"),
    ],
)
def test_the_advice_fits_the_error(place, capsys, step, expected):
    step = {key: value.format(module=place.module) if isinstance(value, str) else value for key, value in step.items()}
    place.dag("d", {"A": place.task("echo") | step})
    assert main(["run", "d"]) == 1
    assert f"next: {expected.format(module=place.module)}" in capsys.readouterr().out


def test_an_input_that_lies_beside_the_dag_is_pointed_to(place, capsys):
    place.dag("d", {"A": place.task("echo", value="${run.input.day}")})
    (place.root / "d" / "input.json").write_text('{"day": 1}')
    assert main(["run", "d"]) == 1
    assert capsys.readouterr().out.endswith("then start a new run:\n  orchestrator run d --input d/input.json\n")


# -- 2: what was asked for is wrong ----------------------------------------------------------------------


def test_a_definition_that_breaks_rules_is_2_with_all_its_problems(place, capsys):
    place.dag("d", {"A": place.task("echo", "C"), "B": {"type": "Task"}})
    assert main(["run", "d"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) > 1
    assert [line for line in lines if not line.startswith("orchestrator: d/dag.json: steps.")] == []
    assert not (place.root / ".orchestrator").exists()


def test_sources_that_are_missing_are_2_all_at_once_before_anything_runs(place, capsys):
    place.dag(
        "d",
        {
            "A": {"type": "Task", "target_type": "CloudFunction", "target_name": "greet", "next": "B"},
            "B": {"type": "Task", "target_type": "Dataflow", "target_name": "count", "next": "C"},
            "C": {"type": "Task", "target_type": "Function", "function": "no_such_module.x:f"},
        },
    )
    (place.root / "d" / "functions" / "great").mkdir(parents=True)
    (place.root / "d" / "functions" / "great" / "main.py").touch()
    assert main(["run", "d"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        'orchestrator: step A: d/functions/greet/main.py: there is no such file; did you mean "great"?',
        "orchestrator: step B: d/pipelines/count.py: there is no such file; pipelines that exist: none",
        "orchestrator: step C: no_such_module.x:f: there is no module no_such_module; "
        "it must be importable from where this command is started",
    ]
    assert not (place.root / ".orchestrator").exists()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["d", "--input", "nope"], "--input nope: there is no such file"),
        (["d", "--run-id", "a/b"], 'run: --run-id "a/b" is no run id; write 1 to 128 of'),
        (["d", "--bucket", "ftp://x"], "bucket ftp://x: there is no store for ftp://"),
        (["d", "--bucket", "file://{root}/file"], "/file: cannot be written"),
        (["d", "--resume", "x", "--input", "a=1"], "run: --input and --resume do not go together"),
        (["d", "--resume", "x", "--run-id", "y"], "run: --run-id and --resume do not go together"),
    ],
)
def test_what_is_wrong_is_2_and_one_line(place, capsys, argv, expected):
    place.dag("d", {"A": place.task("echo")})
    (place.root / "file").touch()
    assert main(["run", *(each.format(root=place.root) for each in argv)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_a_run_id_that_is_taken_is_2_and_says_what_can_be_done(place, capsys):
    place.dag("d", {"A": place.task("echo")})
    assert main(["run", "d", "--run-id", "mine"]) == 0
    capsys.readouterr()
    assert main(["run", "d", "--run-id", "mine"]) == 2
    said = capsys.readouterr().err
    assert "choose another run_id, or finish that one with: orchestrator run d --resume mine" in said


# -- resume --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "code", "status"), [("echo", 0, "Completed"), ("boom", 1, "Failed")])
def test_a_run_that_has_ended_is_shown_and_its_status_is_the_exit_code(place, capsys, function, code, status):
    place.dag("d", {"A": place.task(function)})
    main(["run", "d", "--run-id", "mine"])
    before = (place.root / ".orchestrator" / "runs" / "mine.json").read_bytes()
    capsys.readouterr()
    assert main(["run", "d", "--resume", "mine"]) == code
    said = capsys.readouterr()
    assert said.err == "run mine has ended already\n"
    assert f"{status} in " in said.out
    assert main(["run", "d", "--resume", "mine", "--json"]) == code
    assert capsys.readouterr().out.encode() == before


def test_a_run_of_another_dag_is_2(place, capsys):
    place.dag("one", {"A": place.task("echo")})
    place.dag("two", {"A": place.task("echo")})
    main(["run", "one", "--run-id", "mine"])
    capsys.readouterr()
    assert main(["run", "two", "--resume", "mine"]) == 2
    assert capsys.readouterr().err == 'orchestrator: run mine: is one of "one"; two is "two"\n'


def test_a_run_that_does_not_exist_is_2_and_near_ones_are_named(place, capsys):
    place.dag("d", {"A": place.task("echo")})
    main(["run", "d", "--run-id", "nightly-2026-01-31"])
    capsys.readouterr()
    assert main(["run", "d", "--resume", "nightly-2026-01-13"]) == 2
    assert capsys.readouterr().err == (
        "orchestrator: run nightly-2026-01-13: there is no such run in file://.orchestrator; "
        "did you mean nightly-2026-01-31?\n"
    )


def test_a_bucket_in_memory_runs_and_leaves_nothing(place, capsys):
    place.dag("d", {"A": place.task("echo", value="x")})
    assert main(["run", "d", "--bucket", "memory://"]) == 0
    said = capsys.readouterr().out
    assert "A  x" in said
    assert "run document" not in said
    assert not (place.root / ".orchestrator").exists()


# -- a store that fails in the middle ---------------------------------------------------------------------


@pytest.fixture
def disk(monkeypatch):
    """A disk that is full from the n-th save of a run on."""

    class Disk:
        saves_left = 10**9

    def count(store, keys):
        for key in keys:
            if key.startswith("runs/"):
                Disk.saves_left -= 1
                if Disk.saves_left < 0:
                    raise StoreUnavailable(
                        f"{store.root}/{key}: cannot be written: No space left on device; free some space"
                    )

    def limited(write):
        def of_so_many(self, key, data, *, expect):
            count(self, [key])
            return write(self, key, data, expect=expect)

        return of_so_many

    create_all = LocalStore.create_all

    def created(self, objects):
        count(self, objects)
        return create_all(self, objects)

    monkeypatch.setattr(LocalStore, "create_all", created)
    monkeypatch.setattr(LocalStore, "put", limited(LocalStore.put))
    monkeypatch.setattr(LocalStore, "change", limited(LocalStore.change))
    monkeypatch.setattr(trouble_module, "PATIENCE_S", 0.3)
    monkeypatch.setenv("TICK_INTERVAL", "100ms")
    return Disk


def test_a_disk_that_is_full_in_the_middle_ends_the_command_and_the_run_can_be_finished(place, disk, capsys):
    place.dag(
        "d", {"A": place.task("note", "B", name="A"), "B": place.task("note", "C", name="B"), "C": place.task("echo")}
    )
    disk.saves_left = 2
    assert main(["run", "d", "--run-id", "mine"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].endswith("No space left on device; free some space; given up after 0.3 s")
    assert lines[-1] == "orchestrator: finish it with: orchestrator run d --resume mine"
    assert place.statuses("mine")["A"] == ("Completed", 1)

    disk.saves_left = 10**9
    assert main(["run", "d", "--resume", "mine"]) == 0
    assert place.calls().count("A") == 1


def test_a_disk_that_is_full_for_a_moment_only_is_waited_for(place, disk, capsys):
    place.dag("d", {"A": place.task("echo", "B"), "B": place.task("echo")})
    disk.saves_left = 1

    class Freeing(logging.Handler):
        def emit(self, record):
            disk.saves_left = 10**9

    handler = Freeing()
    logging.getLogger("orchestrator").addHandler(handler)
    try:
        assert main(["run", "d"]) == 0
    finally:
        logging.getLogger("orchestrator").removeHandler(handler)
    assert "cannot be written" in capsys.readouterr().err


def test_a_disk_that_is_full_at_the_start_is_2_and_there_is_nothing_to_finish(place, disk, capsys):
    place.dag("d", {"A": place.task("echo")})
    disk.saves_left = 0
    assert main(["run", "d"]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "--resume" not in said


def test_a_document_that_is_spoilt_in_the_middle_is_2_and_named(place, capsys):
    place.dag("d", {"A": place.task("spoil", path="runs/mine.json")})
    path = place.root / f"{place.module}.py"
    path.write_text(
        path.read_text() + "\ndef spoil(path):\n    Path('.orchestrator', path).write_text('{')\n    time.sleep(1.5)\n"
    )
    assert main(["run", "d", "--run-id", "mine"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert any("runs/mine.json: is not a run document" in line for line in lines)
    assert lines[-1] == "orchestrator: finish it with: orchestrator run d --resume mine"


def test_a_fault_in_the_engine_ends_the_command_with_70_and_names_the_traceback(place, monkeypatch, capsys):
    monkeypatch.setattr(trouble_module, "PATIENCE_S", 3.0)
    real, calls = deciding.decide, itertools.count()

    def broken(*args):
        if next(calls):
            raise KeyError("a fault that is planted")
        return real(*args)

    monkeypatch.setattr(deciding, "decide", broken)
    place.dag("d", {"A": place.task("echo")})
    assert main(["run", "d", "--run-id", "mine"]) == 70
    *_, fault, hint = capsys.readouterr().err.splitlines()
    found = re.fullmatch(r"orchestrator: a fault of ours: KeyError: 'a fault that is planted'; .* is in (\S+)", fault)
    assert "in broken\n" in Path(found[1]).read_text()
    Path(found[1]).unlink()
    assert hint == "orchestrator: finish it with: orchestrator run d --resume mine"


def test_a_fault_that_passes_is_no_reason_to_give_up():
    now = [0.0]
    trouble, log = Trouble(lambda: now[0]), logging.getLogger("orchestrator.test")

    def fault(at_s: float) -> None:
        now[0] = at_s
        log.addHandler(trouble)
        try:
            raise KeyError("x")
        except KeyError:
            log.exception("tick failed")
        log.removeHandler(trouble)

    for at_s in (0, 4, 9.5, 100, 101, 102):  # neither in a row, nor for long
        fault(at_s)
        trouble.check()
    fault(104.5)
    trouble.saved()
    fault(105.5)
    trouble.check()
    for at_s in (107, 109, 111):
        fault(at_s)
    with pytest.raises(KeyError):
        trouble.check()


def test_what_counts_as_trouble_of_the_store():
    now = [0.0]
    full = OSError(28, "No space left on device")
    uncertain = LaunchUncertain("attempts/x: No space left on device")
    uncertain.__cause__ = full
    for error, is_trouble in [
        (StoreUnavailable("x"), True),
        (uncertain, True),
        (LaunchUncertain("busy"), False),
        (OSError(2, "No such file"), False),
        (ValueError("x"), False),
    ]:
        trouble, now[0] = Trouble(lambda: now[0]), 0.0
        log = logging.getLogger("orchestrator.test")
        log.addHandler(trouble)
        log.error("tick: %s", error)
        log.removeHandler(trouble)
        now[0] = 4.9
        trouble.check()
        now[0] = 5.0
        if is_trouble:
            with pytest.raises(StoreUnavailable):
                trouble.check()
            trouble.saved()
        trouble.check()


def test_ids_that_are_made_look_as_they_should(place):
    place.dag("d", {"A": place.task("echo")})
    main(["run", "d"])
    (run_id,) = place.run_ids()
    assert TOKEN.fullmatch(run_id)
