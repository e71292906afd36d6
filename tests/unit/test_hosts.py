"""Who is alive: real processes that live, are killed and fork."""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from orchestrator.model.errors import StoreUnavailable
from orchestrator.runtime.hosts import LocalHosts
from orchestrator.runtime.unknown_hosts import UnknownHosts

JOIN = """
import os, subprocess, sys
from pathlib import Path
from orchestrator.runtime.hosts import LocalHosts
hosts = LocalHosts(Path(sys.argv[1]))
"""


@pytest.fixture
def member(tmp_path):
    """Start a process that joins and then runs `code`; return it and what it printed first."""
    started = []

    def start(code="", ends="sys.stdin.read()"):
        command = [sys.executable, "-c", f"{JOIN}\n{code}\nprint(hosts.me, flush=True)\n{ends}", tmp_path]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().split()

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def hosts(tmp_path):
    with closing(LocalHosts(tmp_path)) as hosts:
        yield hosts


def kill(process):
    process.kill()
    process.wait()


def test_an_instance_lives_until_its_process_is_killed(hosts, member):
    process, (instance,) = member()
    assert [hosts.is_alive(instance) for _ in range(3)] == [True] * 3
    kill(process)
    assert [hosts.is_alive(instance) for _ in range(3)] == [False] * 3


def test_both_sides_see_each_other(hosts, member):
    _, (sees_us, _) = member(f"print(hosts.is_alive('{hosts.me}'), end=' ')")
    assert sees_us == "True"


def test_an_instance_that_ended_is_dead_and_leaves_nothing(hosts, member, tmp_path):
    process, (instance,) = member(ends="")
    assert process.wait() == 0
    assert hosts.is_alive(instance) is False
    assert os.listdir(tmp_path / ".hosts") == [hosts.me]


def test_close_is_the_end_of_an_instance(hosts, tmp_path):
    other = LocalHosts(tmp_path)
    assert (hosts.is_alive(other.me), other.is_alive(other.me)) == (True, True)
    other.close()
    other.close()
    assert (hosts.is_alive(other.me), other.is_alive(other.me)) == (False, False)
    assert hosts.is_alive(hosts.me) is True


def test_two_in_one_process_are_two(hosts, tmp_path):
    with closing(LocalHosts(tmp_path)) as other:
        assert other.me != hosts.me
        assert hosts.is_alive(other.me) is True


FORK = """
ready, tell = os.pipe()
child = os.fork()
if child == 0:
    os.write(tell, b".")
    import time
    time.sleep(60)
    os._exit(0)
os.read(ready, 1)
"""


@pytest.mark.parametrize(
    "makes_child",
    [
        pytest.param(FORK, id="a fork"),
        pytest.param("child = subprocess.Popen(['sleep', '60']).pid", id="another program"),
    ],
)
def test_a_child_that_outlives_its_parent_does_not_keep_it_alive(hosts, member, makes_child):
    process, (child, instance) = member(f"{makes_child}\nprint(child, end=' ')")
    try:
        assert hosts.is_alive(instance) is True
        kill(process)
        os.kill(int(child), 0)  # it is still there
        assert hosts.is_alive(instance) is False
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_child_that_ends_takes_nothing_from_its_parent(hosts, member):
    ask = "print(hosts.is_alive(hosts.me), flush=True)"
    code = f"if os.fork() == 0: {ask}; hosts.close(); sys.exit()\nos.wait()"
    process, (child_sees,) = member(code, ends=f"{ask}; sys.stdin.read()")
    instance = process.stdout.readline().strip()
    assert (child_sees, process.stdout.readline().strip()) == ("True", "True")
    assert hosts.is_alive(instance) is True


def test_those_who_ask_at_the_same_time_do_not_see_each_other(hosts, member, tmp_path):
    process, (instance,) = member()
    kill(process)
    with open(tmp_path / ".hosts" / instance) as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # as another process does in the middle of its is_alive
        assert hosts.is_alive(instance) is False


def test_what_the_dead_left_is_removed_by_the_next_to_join(hosts, member, tmp_path):
    process, (instance,) = member()
    kill(process)
    assert sorted(os.listdir(tmp_path / ".hosts")) == sorted([hosts.me, instance])
    with closing(LocalHosts(tmp_path)) as other:
        assert sorted(os.listdir(tmp_path / ".hosts")) == sorted([hosts.me, other.me])
        assert (other.is_alive(instance), other.is_alive(hosts.me)) == (False, True)


def test_joining_all_at_once_removes_nobody(tmp_path):
    joined = []
    threads = [Thread(target=lambda: [joined.append(LocalHosts(tmp_path)) for _ in range(25)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(os.listdir(tmp_path / ".hosts")) == sorted(hosts.me for hosts in joined)
    assert {joined[0].is_alive(hosts.me) for hosts in joined} == {True}
    for hosts in joined:
        hosts.close()


@pytest.mark.parametrize("instance", ["", ".", "..", "../x", "a/b", "a b", "a\n", "a\0", "é", "a" * 65])
def test_an_id_that_cannot_be_ours_is_not_known(hosts, instance):
    assert hosts.is_alive(instance) is None


def test_an_id_that_nobody_has_is_dead(hosts):
    assert hosts.is_alive("0123456789ab") is False


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable, match=f"^{tmp_path}/file/x/.hosts: cannot be written: Not a directory; "):
        LocalHosts(Path(tmp_path / "file" / "x"))


def test_in_the_cloud_nobody_knows():
    assert UnknownHosts().is_alive("0123456789ab") is None
