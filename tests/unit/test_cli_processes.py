"""orchestrator as processes: killed, interrupted, followed by another one, and on a real terminal."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import Place, clean_environment, until


@pytest.fixture
def place(tmp_path):
    clean_environment()
    return Place(tmp_path)


@pytest.fixture
def chain(place):
    """Three tasks, of which the second waits for a file."""
    place.dag(
        "chain",
        {
            "A": place.task("note", "B", name="A"),
            "B": place.task("wait_for", "C", name="B", path="go"),
            "C": place.task("note", name="C", value="done"),
        },
    )
    return place


def started(place, *argv):
    """Start the chain and return when its second task runs."""
    process = place.start("run", "chain", "--run-id", "mine", *argv)
    until(lambda: place.calls() == ["A", "B"])
    return process


def finish(place, *argv):
    (place.root / "go").touch()
    process = place.start("run", "chain", "--resume", "mine", *argv)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err


def test_ctrl_c_ends_at_once_and_the_run_is_finished_later_without_doing_anything_twice(chain):
    process = started(chain)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "interrupted; finish it with: orchestrator run chain --resume mine\n"
    assert "A Completed" in out

    code, out, err = finish(chain)
    assert (code, err) == (0, "")
    assert "run mine of chain taken up; 1 of 3 steps had ended" in out
    assert "C  done" in out
    assert chain.calls() == ["A", "B", "B", "C"]
    assert [status for status, _ in chain.statuses("mine").values()] == ["Completed"] * 3


def test_kill_9_loses_nothing_that_was_done(chain):
    process = started(chain)
    process.kill()
    process.communicate()
    assert chain.statuses("mine")["A"] == ("Completed", 1)

    code, out, _ = finish(chain, "--json")
    assert code == 0
    assert json.loads(out)["$run"]["status"] == "Completed"
    assert chain.calls() == ["A", "B", "B", "C"]


def test_sigterm_is_as_ctrl_c(chain):
    process = started(chain)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "interrupted; finish it with" in err


def test_a_run_kept_in_memory_is_gone_and_that_is_said(chain):
    process = chain.start("run", "chain", "--bucket", "memory://")
    until(lambda: chain.calls() == ["A", "B"])
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted; the run was kept in memory:// and is gone\n")


def test_a_run_that_another_process_runs_is_followed_and_nothing_is_launched_twice(chain):
    first = started(chain)
    second = chain.start("run", "chain", "--resume", "mine")
    third = chain.start("status", "mine", "--watch", "--interval", "100ms", "--json")
    until(lambda: "taken up" in second.stdout.readline())
    (chain.root / "go").touch()
    codes = []
    outputs = []
    for process in (first, second, third):
        outputs.append(process.communicate(timeout=30))
        codes.append(process.returncode)
    assert codes == [0, 0, 0]
    assert "C Completed" in outputs[1][0]
    assert json.loads(outputs[2][0])["C"]["result"] == "done"
    assert chain.calls() == ["A", "B", "C"]


def test_a_follower_takes_over_when_the_other_process_is_killed(chain):
    first = started(chain)
    second = chain.start("run", "chain", "--resume", "mine")
    until(lambda: "taken up" in second.stdout.readline())
    first.kill()
    first.communicate()
    until(lambda: chain.calls() == ["A", "B", "B"])
    (chain.root / "go").touch()
    second.communicate(timeout=30)
    assert second.returncode == 0
    assert chain.calls() == ["A", "B", "B", "C"]


def test_json_is_one_document_even_where_functions_and_their_processes_print(place):
    loud = place.task("shout", "B", text="in a thread")
    place.dag("d", {"A": loud, "B": place.task("shout", text="in a process") | {"worker": "process"}})
    process = place.start("run", "d", "--json")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(out)["$run"]["status"] == "Completed"
    assert sorted(err.splitlines()) == ["in a process", "in a thread"]


def test_the_step_module_is_found_where_the_command_is_started_by_the_script_too(place):
    place.dag("d", {"A": place.task("echo", value=1)})
    script = Path(sys.executable).parent / "orchestrator"
    done = subprocess.run([script, "run", "d"], cwd=place.root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_goes_away_does_not_stop_the_run(chain):
    (chain.root / "go").touch()
    process = chain.start("run", "chain", "--run-id", "mine")
    process.stdout.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == ""
    process.stderr.close()
    assert chain.document("mine")["$run"]["status"] == "Completed"


# -- a real terminal -------------------------------------------------------------------------------------


class Terminal:
    """A command at a pseudo terminal of 100 x 30."""

    def __init__(self, place, *argv, **environment):
        self._fd, theirs = pty.openpty()
        self.shown = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *argv],
            cwd=place.root,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"} | environment,
        )
        os.close(theirs)

    @property
    def text(self):
        """What was shown, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)

    def sees(self, text):
        ready = select.poll()  # select takes no descriptor above 1,023
        ready.register(self._fd, select.POLLIN)
        if ready.poll(10):
            try:
                self.shown += os.read(self._fd, 65536).decode("utf-8", "replace")
            except OSError:  # the other side is closed
                return text in self.shown
        return text in self.shown

    def end(self):
        until(lambda: not self.sees("\0") and self.process.poll() is not None)
        for _ in range(20):
            self.sees("\0")
        os.close(self._fd)
        return self.process.returncode


def test_on_a_terminal_a_table_is_drawn_again_and_again_and_stays(chain):
    terminal = Terminal(chain, "run", "chain", "--run-id", "mine")
    until(lambda: terminal.sees("● Running"))
    (chain.root / "go").touch()
    assert terminal.end() == 0
    frames = terminal.text.split("Step  Target")
    assert len(frames) > 2
    last = frames[-1]
    assert [" ".join(line.split()[:5]) for line in last.splitlines()[1:4]] == [
        f"{name} Function {chain.module}:{function} ✓ Completed"
        for name, function in (("A", "note"), ("B", "wait_for"), ("C", "note"))
    ]
    assert "C  done" in last
    assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h")  # the cursor is there again


def test_on_a_terminal_ctrl_c_leaves_the_table_and_a_line(chain):
    terminal = Terminal(chain, "run", "chain", "--run-id", "mine")
    until(lambda: terminal.sees("● Running"))
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.shown.rstrip().endswith("interrupted; finish it with: orchestrator run chain --resume mine")
    assert "Traceback" not in terminal.shown
    assert "\x1b[?25h" in terminal.shown


def test_a_run_that_is_over_at_once_is_drawn_once(place):
    place.dag("d", {"A": place.task("echo", value="x")})
    terminal = Terminal(place, "run", "d")
    assert terminal.end() == 0
    assert terminal.text.count("Step  Target") == 1
    assert "\x1b[32m✓ Completed" in terminal.shown


def test_no_color_and_dumb_terminals_are_heeded(place):
    place.dag("d", {"A": place.task("echo", value="x")})
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        terminal = Terminal(place, "run", "d", **environment)
        assert terminal.end() == 0
        assert "\x1b[32m" not in terminal.shown
        assert "Completed" in terminal.shown
