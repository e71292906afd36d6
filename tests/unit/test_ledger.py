"""The ledger: one taker for a launch, one outcome, and what is known when a process is gone."""

import os
import subprocess
import sys
from pathlib import Path
from threading import Barrier, Thread

import pytest

from orchestrator.model.commands import Outcome
from orchestrator.model.enums import OutcomeKind
from orchestrator.model.errors import CorruptState, LaunchUncertain
from orchestrator.targets.ledger import Ledger
from tests.support.local_targets import until

KEY = "orch-step1-1-23773d4eca633be3dccad05e"


@pytest.fixture
def root(tmp_path):
    return tmp_path / "attempts"


def test_a_launch_is_taken_once_and_has_one_outcome(root):
    ledger = Ledger(root)
    assert ledger.read(KEY) is None
    assert ledger.find(KEY) is None
    assert ledger.begin(KEY, "e1")
    assert not ledger.begin(KEY, "e1")
    assert ledger.read(KEY) == ("e1", None)
    assert ledger.find(KEY) == "e1"
    assert ledger.outcome("e1") is None
    assert ledger.finish(KEY, Outcome.completed({"rows": 3}))
    assert not ledger.finish(KEY, Outcome.failed("Task.Failed", "too late"))
    assert not ledger.begin(KEY, "e1")
    assert ledger.read(KEY) == ("e1", Outcome.completed({"rows": 3}))
    assert ledger.outcome("e1") == Outcome.completed({"rows": 3})


@pytest.mark.parametrize(
    "outcome",
    [Outcome.completed(), Outcome.completed([None]), Outcome.failed("A.B", "é\n"), Outcome.cancelled()],
    ids=lambda outcome: outcome.kind.value,
)
def test_every_outcome_comes_back_as_it_was_in_another_ledger_too(root, outcome):
    ledger = Ledger(root)
    ledger.begin(KEY, "e1")
    ledger.finish(KEY, outcome)
    ledger.close()
    assert Ledger(root).outcome("e1") == outcome
    assert Ledger(root).find(KEY) == "e1"


def test_what_another_ledger_has_begun_is_left_to_it_as_long_as_it_lives(root):
    one, other = Ledger(root), Ledger(root)
    assert one.begin(KEY, "e1")
    assert not other.begin(KEY, "e1")
    assert other.find(KEY) == "e1"
    assert other.outcome("e1") is None
    assert not other.finish(KEY, Outcome.completed())
    one.close()
    assert other.find(KEY) is None
    assert other.outcome("e1").kind is OutcomeKind.LOST
    assert other.begin(KEY, "e1")
    assert other.outcome("e1") is None
    assert not one.finish(KEY, Outcome.completed())
    assert other.finish(KEY, Outcome.cancelled())


def test_of_many_threads_and_ledgers_one_takes_the_launch(root):
    ledgers, barrier, got = [Ledger(root) for _ in range(4)], Barrier(16), []

    def race(ledger):
        barrier.wait()
        got.append(ledger.begin(KEY, "e1"))
        ledger.outcome("e1")  # asking must not look like holding

    threads = [Thread(target=race, args=(ledgers[number % 4],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 15 + [True]


HOLD = f"""
import sys, time
from pathlib import Path
from orchestrator.targets.ledger import Ledger

print(Ledger(Path(sys.argv[1])).begin("{KEY}", "e1"), flush=True)
time.sleep(600)
"""


def test_a_kill_of_the_process_lets_go_of_what_it_held(root):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"True\n"
        ledger = Ledger(root)
        assert not ledger.begin(KEY, "e1")
        assert ledger.outcome("e1") is None
        assert ledger.find(KEY) == "e1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert until(lambda: ledger.outcome("e1") is not None)
    assert ledger.outcome("e1").kind is OutcomeKind.LOST
    assert ledger.find(KEY) is None
    assert ledger.begin(KEY, "e1")


def test_a_forked_child_does_not_keep_alive_what_its_parent_held(root):
    ledger = Ledger(root)
    ledger.begin(KEY, "e1")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:  # lives until the test closes the pipe
        os.close(theirs)
        os.read(ours, 1)
        os._exit(0)
    os.close(ours)
    try:
        ledger._mine.hand_over()  # as the end of the process would
        assert until(lambda: Ledger(root).find(KEY) is None)
    finally:
        os.close(theirs)
        os.waitpid(child, 0)


def test_a_holder_can_be_handed_over_to_another_process(root):
    ledger = Ledger(root)
    holder = ledger.hold()
    assert ledger.begin(KEY, "e1", holder)
    heir = subprocess.Popen(["sleep", "600"], pass_fds=(holder.fd,))
    try:
        holder.hand_over()
        assert ledger.outcome("e1") is None
        assert not ledger.finish(KEY, Outcome.completed())
    finally:
        heir.kill()
        heir.wait()
    assert ledger.outcome("e1").kind is OutcomeKind.LOST
    assert ledger.finish(KEY, Outcome.completed(), holder.name)


def test_a_wish_to_stop_is_for_the_execution_at_hand_only(root):
    ledger = Ledger(root)
    ledger.ask_to_stop("e1")
    first, second = ledger.hold(), ledger.hold()
    ledger.begin(KEY, "e1", first)
    assert not ledger.is_asked_to_stop(KEY, first.name)
    ledger.ask_to_stop("e1")
    assert ledger.is_asked_to_stop(KEY, first.name)
    first.release()
    ledger.begin(KEY, "e1", second)
    assert not ledger.is_asked_to_stop(KEY, second.name)
    second.release()


@pytest.mark.parametrize("execution_id", ["e2", "", "..", "../attempts", "a/b", f"../{KEY}", "\0"])
def test_an_id_that_nobody_has_written_down_is_lost_and_leads_nowhere(root, execution_id):
    ledger = Ledger(root)
    ledger.begin(KEY, "e1")
    assert ledger.key_of(execution_id) is None
    assert ledger.outcome(execution_id).kind is OutcomeKind.LOST


def test_a_person_finds_everything_about_an_attempt_in_its_folder(root):
    ledger = Ledger(root)
    ledger.begin(KEY, "e1")
    ledger.finish(KEY, Outcome.completed({"rows": 3}))
    assert (root / KEY / "outcome.json").read_text() == (
        '{\n  "kind": "Completed",\n  "result": {\n    "rows": 3\n  }\n}\n'
    )
    assert (root / ".executions" / "e1").resolve() == (root / KEY).resolve()
    assert sorted(path.name for path in (root / KEY).iterdir()) == ["execution.json", "lock", "outcome.json"]


@pytest.mark.parametrize("name", ["execution.json", "outcome.json"])
@pytest.mark.parametrize("content", [b"", b'{"kind": "Comp', b"[]", b'{"kind": "Fine"}'])
def test_a_damaged_record_is_an_error_with_its_name(root, name, content):
    ledger = Ledger(root)
    ledger.begin(KEY, "e1")
    (root / KEY / name).write_bytes(content)
    with pytest.raises(CorruptState, match=f"{KEY}/{name}: "):
        ledger.read(KEY)


def test_a_directory_that_cannot_be_used_makes_a_launch_uncertain(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LaunchUncertain, match="Not a directory"):
        Ledger(tmp_path / "file" / "attempts").begin(KEY, "e1")


def test_the_directory_stays_the_same_when_the_working_directory_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(Path("attempts"))
    monkeypatch.chdir("/")
    ledger.begin(KEY, "e1")
    assert (tmp_path / "attempts" / KEY / "execution.json").is_file()
