"""Notifications of run events: to topics and webhooks, never lost, rarely doubled, whoever dies when."""

import base64
import hashlib
import hmac
import json
import sys
from collections import Counter
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Barrier, Event, Thread

import pytest

from orchestrator.cli.main import main
from orchestrator.engine.pruning import Pruner
from orchestrator.engine.sweep import late_notifications
from orchestrator.engine.ticker import NOTIFYING_AT_ONCE, NOTIFYING_S
from orchestrator.model.commands import Outcome
from orchestrator.model.definition import problems
from orchestrator.model.enums import RunEvents, RunStatus
from orchestrator.model.errors import LaunchRefused, NotSent, SettingsError, StoreUnavailable
from orchestrator.model.messages import cancel_message
from orchestrator.model.policy import Policy
from orchestrator.runtime.settings import Settings
from orchestrator.services.webhooks import Webhooks, key_of_host
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing.simulation import Simulation
from tests.support.command_line import Place, clean_environment
from tests.support.world import START, NotedTarget, World, chain, dag, parallel

ALL = [event.value for event in RunEvents]
TOPIC = "projects/p/topics/alerts"
URL = "https://hooks.example.com/runs"


def telling(*notify, names=("A",)):
    return {**chain(*names), "notify": list(notify)}


EVERYTHING = {"on": ALL, "topic": TOPIC}


class Killed(BaseException):
    """The process is gone."""


class Noted:
    """A notifier that notes what it sends, and fails or dies where it is told to."""

    def __init__(self, *failures: BaseException) -> None:
        self.sent, self.failures = [], list(failures)

    def notify(self, notification):
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        self.sent.append(notification)

    @property
    def events(self):
        return [each.payload["event"] for each in self.sent]


class NotifyingWorld(World):
    """A World whose instances share one notifier."""

    def __init__(self, definition, notifier=None, **options):
        self.notifier = notifier or Noted()
        super().__init__(definition, **options)

    def instance(self, **parts):
        return super().instance(**{"notifier": self.notifier, **parts})

    def markers(self):
        return list(self.store.list("open/"))


def test_a_run_tells_that_it_started_and_how_it_ended():
    world = NotifyingWorld({**telling(EVERYTHING), "owner": "me", "tags": ["daily"]})
    run_id = world.start()
    world.clock.forward(60)
    world.end("A")
    started, ended = [each.payload for each in world.notifier.sent]
    assert started == {
        "id": world.notifier.sent[0].notification_id,
        "event": "started",
        "at": "2026-01-01T12:00:00Z",
        "run": {
            "run_id": run_id,
            "dag": "dag",
            "status": "Running",
            "owner": "me",
            "tags": ["daily"],
            "scheduled_for": None,
            "started_at": "2026-01-01T12:00:00Z",
            "ended_at": None,
            "error": None,
        },
    }
    assert ended["event"] == "completed"
    assert (ended["run"]["status"], ended["run"]["ended_at"]) == ("Completed", "2026-01-01T12:01:00Z")
    assert world.state(run_id).run.owed_notifications == ()


def test_a_failed_run_tells_why():
    world = NotifyingWorld(telling({"on": ["failed"], "url": URL}))
    world.start()
    world.end("A", Outcome.failed("Task.Failed", "x" * 3000))
    (told,) = world.notifier.sent
    assert told.url == URL
    error = told.payload["run"]["error"]
    assert (error["error_type"], error["node"], len(error["message"])) == ("Task.Failed", "A", 2000)


def test_a_cancelled_run_tells_so():
    world = NotifyingWorld(telling(EVERYTHING, names=("A", "B")))
    run_id = world.start()
    world.executor.execute(cancel_message(run_id, "enough"))
    world.end("A")
    assert world.notifier.events == ["started", "cancelled"]


def test_only_what_is_asked_for_is_told_and_each_receiver_once():
    also = {"on": ["completed", "failed"], "url": URL}
    world = NotifyingWorld(telling({"on": ["failed"], "topic": TOPIC}, also, also), notify=({"on": ALL, "url": URL},))
    world.start()
    world.end("A")
    assert [(each.payload["event"], each.topic, each.url) for each in world.notifier.sent] == [
        ("started", None, URL),
        ("completed", None, URL),
    ]


def test_an_event_delivered_again_tells_nothing_again():
    world = NotifyingWorld(telling(EVERYTHING), instances=2)
    run_id = world.start()
    world.end("A", times=3)
    world.end("A", on=1)
    for executor in world.instances:
        executor.tick()
    assert world.notifier.events == ["started", "completed"]
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert world.markers() == []


# -- who dies when ---------------------------------------------------------------------------------------


def test_killed_between_the_save_and_the_sending_the_tick_sends_it_once_the_lease_is_over():
    world = NotifyingWorld(telling({"on": ["completed"], "topic": TOPIC}), Noted(Killed()))
    run_id = world.start()
    with pytest.raises(Killed):
        world.end("A")
    assert (world.state(run_id).run.status, world.notifier.sent) == (RunStatus.COMPLETED, [])
    other, third = world.instance(), world.instance()
    other.tick()
    assert (world.notifier.sent, len(world.markers())) == ([], 1)
    world.clock.forward(66)
    other.tick()
    third.tick()
    assert world.notifier.events == ["completed"]
    assert world.state(run_id).run.owed_notifications == ()
    assert world.markers() == []


def test_killed_between_sending_and_noting_it_is_sent_again_under_the_same_id():
    class Dies(Noted):
        def notify(self, notification):
            super().notify(notification)
            if len(self.sent) == 1:
                raise Killed

    world = NotifyingWorld(telling({"on": ["completed"], "topic": TOPIC}), Dies())
    world.start()
    with pytest.raises(Killed):
        world.end("A")
    world.clock.forward(66)
    world.instance().tick()
    first, second = world.notifier.sent
    assert first.payload == second.payload
    assert first.notification_id == second.notification_id


class KilledAt:
    """A store that ends its process at the n-th write, before or after it."""

    def __init__(self, store, number, *, is_after):
        self.store, self.left, self.is_after = store, number, is_after
        self.get, self.list, self.delete = store.get, store.list, store.delete

    def put(self, key, data, *, expect):
        self.left -= 1
        if self.left == 0 and not self.is_after:
            raise Killed
        version = self.store.put(key, data, expect=expect)
        if self.left == 0:
            raise Killed
        return version


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
def test_killed_at_any_write_every_event_is_told_and_no_other(is_after):
    number, survived = 0, False
    while not survived:
        number += 1
        world = NotifyingWorld(telling(EVERYTHING, {"on": ["completed"], "url": URL}), store=MemoryStore())
        dying = world.instance(store=KilledAt(world.store, number, is_after=is_after))
        try:
            world.instances[0] = dying
            world.start()
            world.end("A")
            dying.close()
            survived = True
        except Killed:
            world.instances[0] = world.instance()
            run_id = world.start()  # delivered again
            for _ in range(3):
                world.clock.forward(66)
                world.executor.tick()
            world.end("A")
            for _ in range(3):
                world.clock.forward(66)
                world.executor.tick()
            assert world.state(run_id).run.status is RunStatus.COMPLETED
            assert world.state(run_id).run.owed_notifications == ()
            assert world.markers() == []
        times = Counter((each.payload["event"], each.topic) for each in world.notifier.sent)
        assert set(times) == {("started", TOPIC), ("completed", TOPIC), ("completed", None)}, number
        assert all(count <= 2 for count in times.values()), number
        assert len({each.notification_id for each in world.notifier.sent}) == 3
    assert number > 6


def test_of_two_ticks_at_once_one_sends():
    world = NotifyingWorld(telling({"on": ["started"], "topic": TOPIC}), Noted(Killed()))
    with pytest.raises(Killed):
        world.start()
    (run_id,) = (key.removeprefix("open/") for key in world.markers())
    world.clock.forward(66)
    stale = world.state(run_id)
    late = late_notifications(stale, world.clock.now(), "i9", lambda _: None, Policy())
    assert len(late) == 1
    world.instance().tick()
    from orchestrator.model.facts import NotificationExpired

    other = world.instance()  # looked at the run before the first one saved
    facts = (NotificationExpired(late[0].notification_id, late[0].owner),)
    other._leader.apply(other._boxes.box(run_id), facts)
    assert world.notifier.events == ["started"]


class AnsweredByAnError:
    """A store whose n-th write of a run is answered by an error, though it was written."""

    def __init__(self, store, number):
        self.store, self.left = store, number
        self.get, self.list, self.delete = store.get, store.list, store.delete

    def put(self, key, data, *, expect):
        version = self.store.put(key, data, expect=expect)
        if key.startswith("runs/"):
            self.left -= 1
            if self.left == 0:
                raise StoreUnavailable(f"{key}: HTTP 503")
        return version


@pytest.mark.parametrize("number", [1, 3], ids=["the start", "the end"])
def test_what_a_save_owes_that_was_answered_by_an_error_and_written_is_sent_at_once(number):
    world = NotifyingWorld(telling(EVERYTHING))
    world.instances[0] = world.instance(store=AnsweredByAnError(world.store, number))
    run_id = world.start()
    world.end("A")
    assert world.notifier.events == ["started", "completed"]
    assert world.state(run_id).run.owed_notifications == ()


# -- what is not accepted --------------------------------------------------------------------------------


def test_what_is_not_accepted_is_tried_again_twice_as_late_each_time_and_given_up_at_last():
    failures = [NotSent("HTTP 503", retry=True)] * 50
    world = NotifyingWorld(telling({"on": ["completed"], "url": URL}), Noted(*failures))
    run_id = world.start()
    world.end("A")
    waits = []
    while world.state(run_id).run.owed_notifications:
        (owed,) = world.state(run_id).run.owed_notifications
        assert (owed.owner, owed.error) == ("", "HTTP 503")
        waits.append((owed.lease_end - world.clock.now()).total_seconds())
        world.clock.time = owed.lease_end
        world.clock.forward(5)
        world.executor.tick()
    assert waits == [60.0 * 2**number for number in range(9)]
    (lost,) = world.state(run_id).run.lost_notifications
    assert (lost.event, lost.url, lost.error) == (RunEvents.COMPLETED, URL, "HTTP 503")
    world.executor.tick()
    assert world.markers() == []
    assert len(world.notifier.failures) == 40


def test_what_will_never_be_accepted_is_given_up_at_once():
    world = NotifyingWorld(telling({"on": ["started"], "url": URL}), Noted(NotSent("not allowed")))
    run_id = world.start()
    assert world.state(run_id).run.lost_notifications[0].error == "not allowed"
    world.end("A")
    assert world.state(run_id).run.status is RunStatus.COMPLETED


def test_one_that_fails_does_not_hold_up_the_run_or_the_others():
    both = telling({"on": ALL, "url": URL}, {"on": ALL, "topic": TOPIC}, names=("A", "B"))
    world = NotifyingWorld(both, Noted(NotSent("down", retry=True)))
    run_id = world.start()
    world.end("A")
    world.end("B")
    assert world.state(run_id).run.status is RunStatus.COMPLETED
    assert Counter(world.notifier.events) == {"started": 1, "completed": 2}
    world.clock.forward(66)
    world.executor.tick()
    assert Counter(world.notifier.events) == {"started": 2, "completed": 2}


# -- what is slow ----------------------------------------------------------------------------------------


class Slow(Noted):
    """A notifier whose first `count` calls last until the test lets go."""

    def __init__(self, count):
        super().__init__()
        self.count, self.begun, self.let_go = count, 0, Event()

    def notify(self, notification):
        self.begun += 1
        if self.begun <= self.count:
            assert self.let_go.wait(20)
        super().notify(notification)


def with_late(world, count):
    """Start runs whose first notification was lost with its instance, until the Tick may send it; return their ids."""
    run_ids = []
    for number in range(count):
        world.notifier.failures = [Killed()]
        with pytest.raises(Killed):
            world.start(f"m{number}", run_id=f"r{number:03}")
        run_ids.append(f"r{number:03}")
    world.clock.forward(66)
    return run_ids


def test_a_tick_does_the_chores_of_all_runs_before_it_sends_what_is_late():
    waiting = {"start": "W", "steps": {"W": {"type": "Wait", "for": "30s", "next": "A"}, **chain("A")["steps"]}}
    world = NotifyingWorld({**waiting, "notify": [{"on": ["started"], "url": URL}]})
    run_ids = with_late(world, 5)
    launched = []

    class Looks(Noted):
        def notify(self, notification):
            launched.append(len(world.target.calls))
            super().notify(notification)

    notifier = Looks()
    world.instance(notifier=notifier).tick()
    assert launched == [5] * 5
    assert sorted(each.run_id for each in notifier.sent) == run_ids


def test_what_is_late_in_several_runs_is_sent_side_by_side():
    world = NotifyingWorld(telling({"on": ["started"], "url": URL}))
    with_late(world, 5)
    all_here = Barrier(5, timeout=20)

    class Meets(Noted):
        def notify(self, notification):
            all_here.wait()
            super().notify(notification)

    notifier = Meets()
    world.instance(notifier=notifier).tick()
    assert notifier.events == ["started"] * 5


def test_a_tick_takes_up_late_notifications_for_a_while_only_and_the_next_ones_go_on():
    world = NotifyingWorld(telling({"on": ["started"], "url": URL}))
    run_ids = with_late(world, 60)

    class TakesTen(Noted):
        """Every sending takes ten seconds, of which nobody else knows."""

        def notify(self, notification):
            world.clock.forward(10)
            super().notify(notification)
            raise NotSent("timed out", retry=True)

    notifier = TakesTen()
    executor = world.instance(notifier=notifier)
    begun = world.clock.now()
    executor.tick()
    first = len(notifier.sent)
    assert 1 <= first < 40
    # What was begun in time may end later: one sending of each thread.
    assert (world.clock.now() - begun).total_seconds() <= NOTIFYING_S + 10 * NOTIFYING_AT_ONCE
    for _ in range(400):  # on a busy machine a Tick comes to one of them only
        executor.tick()
        if {each.run_id for each in notifier.sent} == set(run_ids):
            break
    assert {each.run_id for each in notifier.sent} == set(run_ids)


def test_a_launch_that_is_refused_does_not_wait_for_who_is_told_of_the_start():
    class Refuses(NotedTarget):
        def launch(self, launch):
            raise LaunchRefused("no such function")

    slow, has_failed = Slow(1), Event()

    def note(saved):
        if saved.after.run.status is RunStatus.FAILED:
            has_failed.set()

    world = NotifyingWorld(telling({"on": ["started", "failed"], "url": URL}), slow, target=Refuses())
    world.instances[0] = world.instance(on_saved=note)
    starting = Thread(target=world.start, args=("m1",), kwargs={"run_id": "mine"})
    starting.start()
    try:
        assert has_failed.wait(20), "the failure waits for the start to be told"
    finally:
        slow.let_go.set()
        starting.join()
    assert sorted(slow.events) == ["failed", "started"]
    assert world.state("mine").run.owed_notifications == ()


def test_what_comes_of_launches_beside_a_notification_is_one_save():
    class Refuses(NotedTarget):
        def launch(self, launch):
            raise LaunchRefused("no such function")

    steps = dag(P=parallel(*[chain(name) for name in "ABCD"]))
    world = NotifyingWorld({**steps, "notify": [{"on": ["started"], "url": URL}]}, target=Refuses())
    run_id = world.start()
    assert world.state(run_id).run.status is RunStatus.FAILED
    assert [saved.run.status.value for saved in world.saved if saved.run.ended_at is None] == ["Running"]


def test_a_run_that_owes_a_notification_is_not_pruned():
    world = NotifyingWorld(telling({"on": ["completed"], "url": URL}), Noted(NotSent("down", retry=True)))
    world.start()
    world.end("A")
    world.clock.forward(90 * 86400)

    def prune():
        return Pruner(world.store, world.clock.now(), 86400, lambda run: True, is_all=True).prune().runs

    assert prune() == []
    world.executor.tick()
    assert len(prune()) == 1


# -- webhooks and topics over HTTP -----------------------------------------------------------------------


class Receiver:
    """An HTTP server that keeps what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.requests, self.answers = [], []
        self.on_request = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                receiver.on_request()
                status, headers = receiver.answers.pop(0) if receiver.answers else (200, {})
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                answer = json.dumps({"messageIds": ["1"]}).encode()
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.port = self.server.server_port

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()


KEY = b"0123456789abcdef0123456789abcdef"


@pytest.fixture
def webhooks(receiver):
    """Webhooks whose allowed host is the receiver."""
    return Webhooks(
        seconds=lambda: 1767268800.5,
        allowed_hosts=("hooks.example.com",),
        key=KEY,
        connect=lambda host, port, timeout_s: HTTPConnection("127.0.0.1", receiver.port, timeout=timeout_s),
    )


def test_a_webhook_is_posted_to_and_signed_under_a_key_of_its_host(webhooks, receiver):
    webhooks.post(f"{URL}?team=a", "n1", b'{"a":1}')
    ((path, headers, body),) = receiver.requests
    assert (path, body, headers["X-Orchestrator-Id"]) == ("/runs?team=a", b'{"a":1}', "n1")
    assert headers["X-Orchestrator-Timestamp"] == "1767268800"
    key = hmac.new(KEY, b"orchestrator webhook hooks.example.com", hashlib.sha256).hexdigest()
    assert key == key_of_host(KEY, "hooks.example.com")
    signature = hmac.new(key.encode(), b'1767268800.{"a":1}', hashlib.sha256).hexdigest()
    assert headers["X-Orchestrator-Signature"] == f"v1={signature}"


@pytest.mark.parametrize(
    ("answer", "retry"),
    [
        pytest.param((500, {}), True, id="a fault of the receiver"),
        pytest.param((404, {}), True, id="not there yet"),
        pytest.param((410, {}), False, id="gone for good"),
        pytest.param((302, {"Location": "https://hooks.example.com/other"}), True, id="a redirect is not followed"),
    ],
)
def test_what_a_receiver_answers(webhooks, receiver, answer, retry):
    receiver.answers.append(answer)
    with pytest.raises(NotSent, match=f"https://hooks.example.com/…: HTTP {answer[0]}") as refused:
        webhooks.post(URL, "n1", b"{}")
    assert refused.value.retry is retry
    assert len(receiver.requests) == 1


def test_no_answer_is_tried_again_and_shows_no_secret_of_the_url(receiver):
    receiver.close()
    webhooks = Webhooks(
        seconds=lambda: 0.0,
        allowed_hosts=("hooks.example.com",),
        connect=lambda host, port, timeout_s: HTTPConnection("127.0.0.1", receiver.port, timeout=1.0),
    )
    with pytest.raises(NotSent, match="no answer: ConnectionRefusedError") as refused:
        webhooks.post("https://hooks.example.com/secret-token", "n1", b"{}")
    assert refused.value.retry
    assert "secret-token" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://169.254.169.254/computeMetadata",
        "https://2130706433/",
        "https://hooks.example.com:8443/",
        "https://user@hooks.example.com/",
        "https://hooks.example.com.evil.net/",
        "https://[::1]/",
        "https://[bad/",
    ],
)
def test_no_other_host_is_ever_called(webhooks, receiver, url):
    with pytest.raises(NotSent, match="allowed are https and the hosts hooks") as refused:
        webhooks.post(url, "n1", b"{}")
    assert refused.value.retry is False
    assert receiver.requests == []


def test_without_a_key_nothing_is_signed(receiver):
    webhooks = Webhooks(
        seconds=lambda: 0.0,
        allowed_hosts=("hooks.example.com",),
        connect=lambda host, port, timeout_s: HTTPConnection("127.0.0.1", receiver.port, timeout=timeout_s),
    )
    webhooks.post(URL, "n1", b"{}")
    assert "X-Orchestrator-Signature" not in receiver.requests[0][1]


@pytest.fixture
def place(tmp_path, monkeypatch, receiver):
    clean_environment()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB", f"http://127.0.0.1:{receiver.port}/")
    return Place(tmp_path)


def published(receiver):
    """What came to the topic, decoded."""
    bodies = [json.loads(body)["messages"] for path, _, body in receiver.requests if path.startswith(f"/v1/{TOPIC}")]
    return [json.loads(base64.b64decode(message["data"])) for (message,) in bodies]


def test_a_run_on_this_machine_publishes_to_the_topic_and_leaves_nothing_owed(place, receiver, monkeypatch, capsys):
    monkeypatch.setenv("NOTIFY", json.dumps([{"on": ["started", "completed"], "topic": TOPIC}]))
    place.dag("one", {"A": place.task("echo", value=1)})
    assert main(["run", "one", "--run-id", "r1"]) == 0
    told = [(each["event"], each["run"]["run_id"]) for each in published(receiver)]
    assert sorted(told) == [("completed", "r1"), ("started", "r1")]
    assert "owed_notifications" not in place.document("r1")["$run"]
    assert list((place.root / ".orchestrator" / "open").iterdir()) == []


def test_what_could_not_be_published_is_sent_when_the_run_is_taken_up(place, receiver, monkeypatch, capsys):
    monkeypatch.setenv("NOTIFY", json.dumps([{"on": ["completed"], "topic": TOPIC}]))
    place.dag("one", {"A": place.task("echo", value=1)})
    receiver.answers = [(503, {})]
    assert main(["run", "one", "--run-id", "r1"]) == 0
    (owed,) = place.document("r1")["$run"]["owed_notifications"]
    assert "503" in owed["error"]
    said = capsys.readouterr().out
    assert f"\nnot told yet: completed: {owed['error']}\n" in said
    assert said.endswith("with:\n  orchestrator run one --resume r1\n")
    assert main(["status", "r1"]) == 0
    assert f"\nnot told yet: completed: {owed['error']}\n" in capsys.readouterr().out
    path = place.root / ".orchestrator" / "runs" / "r1.json"
    path.write_text(path.read_text().replace(owed["lease_end"], "2026-01-01T00:00:00Z"))
    assert main(["run", "one", "--resume", "r1"]) == 0
    assert "not told" not in capsys.readouterr().out
    assert [each["id"] for each in published(receiver)] == [owed["notification_id"]] * 2
    assert "owed_notifications" not in place.document("r1")["$run"]
    assert list((place.root / ".orchestrator" / "open").iterdir()) == []


def test_a_process_that_is_killed_while_it_sends_is_replaced_by_the_one_that_takes_the_run_up(
    place, receiver, monkeypatch, capsys
):
    monkeypatch.setenv("NOTIFY", json.dumps([{"on": ["completed"], "topic": TOPIC}]))
    place.dag("one", {"A": place.task("note", name="A")})
    process = place.start("run", "one", "--run-id", "r1")
    receiver.on_request = process.kill  # it has been sent, and will never be noted
    assert process.wait(timeout=60) == -9
    process.communicate()
    receiver.on_request = lambda: None
    (owed,) = place.document("r1")["$run"]["owed_notifications"]
    assert (place.document("r1")["$run"]["status"], len(published(receiver))) == ("Completed", 1)
    assert main(["run", "one", "--resume", "r1"]) == 0  # at once: its lock tells that the owner is dead
    assert [each["id"] for each in published(receiver)] == [owed["notification_id"]] * 2
    assert "owed_notifications" not in place.document("r1")["$run"]
    assert place.calls() == ["A"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "NOTIFY: is no JSON"),
        ("{}", "NOTIFY: must be a list of objects, not an object"),
        ('[{"on": ["never"], "topic": "t"}]', 'NOTIFY[0].on[0]: "never" is not an event of a run'),
        ('[{"on": ["failed"]}]', 'NOTIFY[0].topic: is missing; a notification needs it, or "url"'),
    ],
)
def test_a_wrong_setting_is_told(text, said):
    with pytest.raises(SettingsError) as wrong:
        Settings.read({"NOTIFY": text})
    assert said in str(wrong.value)


def test_a_wrong_key_of_a_definition_is_told():
    assert problems(telling({"on": ["failed"], "topic": TOPIC, "url": URL})) == [
        'notify[0].url: cannot stand beside "topic"; keep one of the two'
    ]
    (problem,) = problems(telling({"on": ["failed"], "url": "http://a.b/c"}))
    assert problem.startswith('notify[0].url: "http://a.b/c" is not the URL of a webhook')
    assert START["resource"]["type"] == "start"


def test_a_simulation_keeps_what_would_be_sent():
    simulation = Simulation(telling({"on": ["completed"], "topic": TOPIC}))
    run_id = simulation.start()
    simulation.finish(run_id)
    assert [(each.topic, each.payload["run"]["run_id"]) for each in simulation.notifications] == [(TOPIC, run_id)]
