"""From arguments to an exit code: every one of them, and no traceback in any case."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import main as main_module
from orchestrator.cli.main import COMMANDS, main
from orchestrator.model.errors import DefinitionError, StoreUnavailable


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("STATUS_BUCKET", "ORCHESTRATOR_LOG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def a_command_that(monkeypatch):
    """Have `schema` raise something."""

    def install(error):
        def fail(console, args):
            raise error

        monkeypatch.setitem(COMMANDS, "schema", fail)

    return install


@pytest.mark.parametrize("argv", [["-h"], ["run", "-h"], ["status", "--help"], ["--version"]])
def test_help_and_version_are_no_errors(argv, capsys):
    assert main(argv) == 0
    said = capsys.readouterr()
    assert "orchestrator" in said.out
    assert said.err == ""


def test_help_names_every_command_and_shows_examples(capsys):
    main(["-h"])
    said = capsys.readouterr().out
    assert [name for name in COMMANDS if f"    {name} " not in said] == []
    assert "orchestrator run my_dag --resume" in said


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        pytest.param([], "the following arguments are required: COMMAND; see orchestrator -h", id="nothing"),
        pytest.param(["rnu"], 'there is no command "rnu"; did you mean "run"?', id="misspelt"),
        pytest.param(["frobnicate"], 'there is no command "frobnicate"; there are validate, graph, ', id="unknown"),
        pytest.param(["validate"], "validate: the following arguments are required: PATH", id="no path"),
        pytest.param(["run"], "run: needs the PATH of a DAG, before --input", id="run without a path"),
        pytest.param(
            ["run", "--input", "a=1", "my_dag"], "run: needs the PATH of a DAG, before --input", id="swallowed"
        ),
        pytest.param(["graph", "x", "--format", "png"], "graph: argument --format: invalid choice: 'png'", id="choice"),
        pytest.param(
            ["runs", "--limit", "0"], 'runs: argument --limit: "0" is not a whole number from 1 on', id="limit"
        ),
        pytest.param(
            ["schedule", "--next", "10001"],
            'schedule: argument --next: "10001" is too many; at most 10,000',
            id="next",
        ),
        pytest.param(["runs", "--status", "Nope"], "(choose from 'Queued', 'Running', 'Paused', ", id="status"),
        pytest.param(["runs", "--limt", "5"], "unrecognized arguments: --limt 5", id="option"),
        pytest.param(["status", "x", "--interval", "soon"], '"soon" is not a duration', id="interval"),
        pytest.param(["status", "x", "--interval", "1ms"], '"1ms" is too short', id="interval too short"),
        *(
            pytest.param(argv, '"36501d" is too long; at most 36500d', id=f"{argv[0]} too long")
            for argv in (
                ["prune", "--older-than", "36501d"],
                ["logs", "x", "--since", "36501d"],
                ["backfill", "x", "--from", "2026-01-01", "--to", "2026-01-02", "--every", "36501d"],
                ["status", "x", "--interval", "36501d"],
            )
        ),
        pytest.param(
            ["schedule", "x", "--next", "10001"], '"10001" is too many; at most 10,000', id="too many next times"
        ),
    ],
)
def test_wrong_arguments_are_2_and_one_line(argv, expected, capsys):
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("orchestrator: ")
    assert expected in said.err
    assert said.err.count("\n") == 1


def test_a_wrong_setting_is_2(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_WORKERS", "many")
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == 'orchestrator: LOCAL_WORKERS: "many" is not a whole number from 1 to 1,000,000\n'


@pytest.mark.parametrize(
    "name", ["LAUNCH_LEASE", "LAUNCH_CALL_LIMIT", "CLOCK_ALLOWANCE", "DEFAULT_TIMEOUT", "EVENT_GRACE", "TICK_INTERVAL"]
)
def test_a_setting_of_more_than_thirty_days_is_2(name, monkeypatch, capsys):
    monkeypatch.setenv(name, "30.1d")
    assert main(["runs"]) == 2
    assert capsys.readouterr().err == f'orchestrator: {name}: "30.1d" is out of range; allowed are 30d and less\n'


@pytest.mark.parametrize("text", ["²", "9" * 5000])
def test_a_number_that_is_none_of_a_setting_is_2(text, monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_WORKERS", text)
    assert main(["runs"]) == 2
    assert capsys.readouterr().err.endswith("from 1 to 1,000,000\n")


def test_a_wrong_log_level_is_2_and_says_which_there_are(monkeypatch, capsys):
    monkeypatch.setenv("ORCHESTRATOR_LOG", "loud")
    assert main(["schema"]) == 2
    assert "allowed: DEBUG, INFO, WARNING, ERROR, CRITICAL" in capsys.readouterr().err


def test_a_bucket_that_no_store_is_for_is_2(capsys):
    assert main(["runs", "--bucket", "ftp://there"]) == 2
    assert capsys.readouterr().err.startswith("orchestrator: bucket ftp://there: there is no store for ftp://")


def test_an_error_of_ours_is_2_with_all_its_lines_and_notes(a_command_that, capsys):
    error = DefinitionError(["a.b: is missing", "c: is \x1b[31mred"])
    error.add_note("do that then")
    a_command_that(error)
    assert main(["schema"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "orchestrator: a.b: is missing",
        r"orchestrator: c: is \x1b[31mred",
        "orchestrator: do that then",
    ]


def test_a_store_that_cannot_be_used_is_2(a_command_that, capsys):
    a_command_that(StoreUnavailable("/x/runs/r.json: cannot be written: No space left on device"))
    assert main(["schema"]) == 2
    assert capsys.readouterr().err == "orchestrator: /x/runs/r.json: cannot be written: No space left on device\n"


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "x" * 300],
        ["graph", "x" * 300],
        ["validate", "x" * 300],
        ["schedule", "x" * 300],
        ["backfill", "x" * 300, "--from", "2026-01-01", "--to", "2026-01-02"],
        ["runs", "--bucket", f"file://{'x' * 300}"],
    ],
    ids=lambda argv: argv[0],
)
def test_a_path_that_cannot_be_looked_at_is_2(argv, capsys):
    assert main(argv) == 2
    assert capsys.readouterr().err.endswith("cannot be looked at: File name too long\n")


def test_a_fault_of_ours_is_70_and_one_line_that_names_the_file_with_the_traceback(a_command_that, capsys):
    a_command_that(KeyError("x"))
    assert main(["schema"]) == 70
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    found = re.fullmatch(r"orchestrator: a fault of ours: KeyError: 'x'; the traceback is in (\S+)\n", said.err)
    content = Path(found[1]).read_text()
    Path(found[1]).unlink()
    assert content.startswith("Traceback (most recent call last):")
    assert content.endswith("KeyError: 'x'\n")


def test_a_fault_whose_traceback_cannot_be_saved_is_told_all_the_same(a_command_that, monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    a_command_that(KeyError("x"))
    assert main(["schema"]) == 70
    assert "its traceback cannot be saved" in capsys.readouterr().err


def test_ctrl_c_in_a_command_that_does_not_run_anything_is_130_and_silent(a_command_that, capsys):
    a_command_that(KeyboardInterrupt())
    assert main(["schema"]) == 130
    assert capsys.readouterr().err == ""


def test_verbose_may_stand_before_or_after_the_command(monkeypatch):
    seen = []
    monkeypatch.setitem(COMMANDS, "schema", lambda console, args: seen.append(args.verbose) or 0)
    main(["schema"])
    main(["--verbose", "schema"])
    main(["schema", "--verbose"])
    assert seen == [False, True, True]


def test_the_module_can_be_run_and_so_can_the_script():
    for command in ([sys.executable, "-m", "orchestrator"], [Path(sys.executable).parent / "orchestrator"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(r"orchestrator \S+\n", done.stdout)


def test_a_reader_that_goes_away_is_quiet():
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert (process.wait(), process.stderr.read()) == (0, b"")
    process.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_standard_output_that_cannot_be_written_is_2():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "orchestrator", "schema"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == b"orchestrator: standard output: cannot be written: No space left on device\n"


def test_no_standard_output_at_all_is_no_fault():
    command = f"'{sys.executable}' -m orchestrator schema >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_the_locale_cannot_show_is_no_fault(here):
    (here / "dag.json").write_text('{"start": "Ä", "steps": {}}')
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "validate", "."],
        capture_output=True,
        text=True,
        env={"PYTHONIOENCODING": "ascii", "PATH": "/bin"},
    )
    assert done.returncode == 2
    assert "steps: is empty" in done.stderr


def test_asking_for_help_imports_no_part_that_runs_anything():
    code = (
        "import sys; from orchestrator.cli.main import main; main(['-h']);"
        "print([name for name in ('rich', 'yaml', 'multiprocessing', 'orchestrator.engine', 'orchestrator.targets')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("start", ["script", "module"])
@pytest.mark.parametrize(
    "loading", ["orchestrator.cli.main", "argparse", "orchestrator.cli.arguments", "msgspec", "orchestrator.cli.schema"]
)
def test_ctrl_c_while_the_command_is_loaded_is_130_without_a_word(loading, start):
    (scripts,) = importlib.metadata.entry_points(group="console_scripts", name="orchestrator")
    how = f"from {scripts.module} import {scripts.attr}; {scripts.attr}()"
    if start == "module":
        how = "import runpy; runpy.run_module('orchestrator', run_name='__main__', alter_sys=True)"
    code = f"""
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {loading!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
sys.argv[1:] = ["schema"]
{how}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_who_ignores_ctrl_c_is_not_interrupted_while_the_command_is_loaded():
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); sys.argv[1:] = ['schema'];"
        "from orchestrator.cli.entry import entry\n"
        "try: entry()\n"
        "finally: print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "True")


def test_every_command_has_its_file():
    folder = Path(main_module.__file__).parent
    assert [name for name in COMMANDS if not (folder / f"{name}.py").is_file()] == []
