"""Workers: who does the work that a worker hands over."""

from queue import SimpleQueue
from threading import Event, current_thread

import pytest

from orchestrator.targets import workers as workers_module
from orchestrator.targets.workers import Workers


@pytest.fixture
def crew():
    """Four threads that keep what they hand over."""
    crew = Workers("crew", 4, keeps=True)
    yield crew
    crew.close()


def test_a_thread_that_is_soon_done_does_itself_what_it_hands_over(crew, monkeypatch):
    monkeypatch.setattr(workers_module, "_PATIENCE_S", 60.0)
    names = SimpleQueue()

    def step(left):
        names.put(current_thread().name)
        if left:
            crew.submit(lambda: step(left - 1))

    crew.submit(lambda: step(100))
    assert {names.get(timeout=60) for _ in range(101)} == {"crew-1"}


def test_what_a_thread_keeps_and_does_not_come_to_another_one_does(crew):
    names, gate = SimpleQueue(), Event()

    def first():
        crew.submit(lambda: names.put(current_thread().name))
        gate.wait(10)

    crew.submit(first)
    assert names.get(timeout=60) == "crew-2"
    gate.set()


def test_of_several_only_the_last_is_kept(crew, monkeypatch):
    monkeypatch.setattr(workers_module, "_PATIENCE_S", 60.0)
    names, gate = SimpleQueue(), Event()

    def first():
        for number in range(3):
            crew.submit(lambda number=number: names.put((number, current_thread().name)))
        gate.wait(10)

    crew.submit(first)
    others = [names.get(timeout=60) for _ in range(2)]
    assert {number for number, _ in others} == {0, 1}
    assert "crew-1" not in {name for _, name in others}
    gate.set()
    assert names.get(timeout=60) == (2, "crew-1")


def test_nothing_is_kept_while_others_wait_for_their_turn(monkeypatch):
    monkeypatch.setattr(workers_module, "_PATIENCE_S", 60.0)
    crew, done, gate = Workers("crew", 1, keeps=True), SimpleQueue(), Event()

    def first():
        gate.wait(10)
        crew.submit(lambda: done.put("followed"))

    crew.submit(first)
    crew.submit(lambda: done.put("waited"))
    gate.set()
    assert [done.get(timeout=60) for _ in range(2)] == ["waited", "followed"]
    crew.close()


def test_what_is_kept_when_it_is_closed_is_not_begun(crew):
    done, gate = SimpleQueue(), Event()

    def first():
        crew.submit(lambda: done.put("begun"))
        crew.close()
        done.put("closed")
        gate.wait(10)

    crew.submit(first)
    assert done.get(timeout=60) == "closed"
    gate.set()
    assert not crew.submit(lambda: done.put("begun"))
    assert done.empty()


def test_the_thread_that_watches_ends_when_nothing_is_kept_and_comes_again(crew, monkeypatch):
    monkeypatch.setattr(workers_module, "_PATIENCE_S", 0.001)
    monkeypatch.setattr(workers_module, "_IDLE_LOOKS", 2)
    for _ in range(2):
        done, gate = SimpleQueue(), Event()

        def first(done=done, gate=gate):
            crew.submit(lambda: done.put("done"))
            gate.wait(10)

        crew.submit(first)
        assert done.get(timeout=60) == "done"
        watcher = crew._watcher
        gate.set()
        if watcher is not None:
            watcher.join(timeout=60)
            assert not watcher.is_alive()
        assert crew._watcher is None


def test_a_machine_without_a_thread_for_the_watch_still_has_each_work_done_once(crew, monkeypatch):
    start = workers_module.Thread.start

    def refused(thread):
        if thread.name.endswith("-watch"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(workers_module.Thread, "start", refused)
    done = SimpleQueue()

    def first():
        try:
            done.put(crew.submit(lambda: done.put("kept")))
        except RuntimeError:
            done.put("refused")

    crew.submit(first)
    assert [done.get(timeout=60) for _ in range(2)] == [True, "kept"]
    assert crew._watcher is None  # the next one that keeps some tries again


class Machine:
    """Starts threads until it is told to start no more, then as a machine does that has none left."""

    def __init__(self, monkeypatch, allowed, error):
        self.allowed, self._error, self._start = allowed, error, workers_module.Thread.start
        monkeypatch.setattr(workers_module.Thread, "start", lambda thread: self.start(thread))

    def start(self, thread):
        if self.allowed == 0:
            raise self._error
        self.allowed -= 1
        self._start(thread)


@pytest.fixture(params=[RuntimeError("can't start new thread"), MemoryError()], ids=["no thread", "no memory"])
def machine(request, monkeypatch):
    return Machine(monkeypatch, 0, request.param)


def test_work_that_no_thread_can_be_had_for_is_not_accepted_and_never_done(machine):
    crew, done = Workers("crew", 4), SimpleQueue()
    assert not crew.submit(lambda: done.put("refused"))
    machine.allowed = 1
    assert crew.submit(lambda: done.put("accepted"))
    assert crew.submit(lambda: done.put("the next"))
    assert [done.get(timeout=5) for _ in range(2)] == ["accepted", "the next"]
    crew.close()


def test_where_no_further_thread_can_be_had_work_waits_for_those_that_are_there(machine):
    crew, done, gate = Workers("crew", 4), SimpleQueue(), Event()
    machine.allowed = 1
    crew.submit(lambda: gate.wait(10))
    for number in range(3):
        assert crew.submit(lambda number=number: done.put(number))
    assert done.empty()
    gate.set()
    assert [done.get(timeout=5) for _ in range(3)] == [0, 1, 2]
    crew.close()


def test_a_crew_that_could_not_grow_grows_to_its_limit_later(machine):
    crew, begun, gate = Workers("crew", 3), SimpleQueue(), Event()

    def wait():
        begun.put(current_thread().name)
        gate.wait(10)

    machine.allowed = 1
    for _ in range(3):
        crew.submit(wait)
    assert begun.get(timeout=5)
    machine.allowed = 10
    for _ in range(2):
        crew.submit(wait)
    assert len({begun.get(timeout=5) for _ in range(2)}) == 2
    assert machine.allowed == 8
    gate.set()
    assert [begun.get(timeout=5) for _ in range(2)]  # those that waited: each was done once
    crew.close()
