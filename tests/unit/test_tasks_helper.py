"""`@task` under the real functions-framework: what a launch gets, that it runs once, what it leaves in the bucket."""

import json
import logging
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from threading import Barrier

import functions_framework
import pytest

from orchestrator import DAGExecutor
from orchestrator.engine.results import Results
from orchestrator.model.commands import Outcome
from orchestrator.model.definition import problems
from orchestrator.model.enums import RunStatus
from orchestrator.model.errors import CorruptState, NotYet, StoreUnavailable, VersionConflict
from orchestrator.model.ids import key_of
from orchestrator.model.messages import launch_query
from orchestrator.model.task_result import reference_to
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore
from orchestrator.tasks import Context, bucket, decorator, heartbeat, task
from orchestrator.tasks.progress import Progress
from orchestrator.tasks.record import Record
from tests.support.local_targets import NONCE, RUN_ID

ROOT = Path(__file__).resolve().parents[2]
LAUNCH_ID = f"{RUN_ID}/Load/2"
KEY = key_of(LAUNCH_ID)
URL = f"/?{launch_query(LAUNCH_ID, NONCE)}"
NOW = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)

SOURCE = """
import time
from orchestrator.tasks import Context, task

calls = []

@task
def load(day: str, tables: list = (), *, size: int = 0):
    calls.append(day)
    return {"day": day, "tables": tables, "text": "x" * size}

@task
def slow(day: str):
    calls.append(day)
    time.sleep(0.2)
    return len(calls)

@task
def whose(context: Context):
    return {name: getattr(context, name) for name in
            ("launch_id", "run_id", "node_name", "attempt", "trace_id", "nonce", "key")}

@task
def fail(words):
    raise ValueError(words)

@task
def leave():
    raise SystemExit(3)

@task
def odd(what):
    cyclic = []
    cyclic.append(cyclic)
    return {"nan": {"rows": [1, float("nan")]}, "object": {"file": object()}, "keys": {"a": {(1, 2): 3}},
            "cyclic": cyclic, "none": None, "text": "done", "null": [None]}[what]

@task
def steps(context: Context):
    for number in range(1000):
        context.progress(number / 1000, f"step {number}")
    context.progress("half", None)
    return "done"

@task
def anything(**parameters):
    return parameters
"""


class World:
    """One bucket, and the functions of SOURCE served over it."""

    def __init__(self, folder: Path, store) -> None:
        self.store, self.results = store, Results(store)
        self._source = folder / "user_functions.py"
        self._source.write_text(SOURCE)

    def client(self, name: str):
        app = functions_framework.create_app(name, str(self._source), "http")
        self.module = sys.modules["user_functions"]
        return app.test_client()

    def call(self, name: str, url: str = URL, **parameters):
        return self.client(name).post(url, json=parameters)

    def read(self, name: str):
        return json.loads(self.store.get(f"results/{KEY}{name}")[0])

    def names(self) -> list[str]:
        return list(self.store.list("results/"))


@pytest.fixture(autouse=True)
def framework(monkeypatch):
    """Undo what the framework and loading a function leave in this process."""
    for name in ("FUNCTION_TARGET", "FUNCTION_SIGNATURE_TYPE"):
        monkeypatch.setenv(name, "")
    monkeypatch.delenv("STATUS_BUCKET", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    pause_by(monkeypatch, lambda tries: None)
    monkeypatch.setattr(bucket.status_bucket, "_opened", {})
    monkeypatch.setattr(bucket.status_bucket, "_has_warned", False)
    yield
    sys.modules.pop("user_functions", None)


def pause_by(monkeypatch, pause) -> None:
    monkeypatch.setattr(decorator, "_surroundings", replace(decorator._surroundings, pause=pause))


def serve(folder: Path, store, monkeypatch) -> World:
    monkeypatch.setenv("STATUS_BUCKET", "memory://")
    monkeypatch.setattr(bucket, "open_store", lambda url: store)
    return World(folder, store)


@pytest.fixture(params=["file", "memory"])
def world(request, tmp_path, monkeypatch):
    if request.param == "memory":
        return serve(tmp_path, MemoryStore(), monkeypatch)
    monkeypatch.setenv("STATUS_BUCKET", f"file://{tmp_path}/bucket")
    return World(tmp_path, LocalStore(tmp_path / "bucket"))


@pytest.fixture
def memory(tmp_path, monkeypatch):
    return serve(tmp_path, MemoryStore(), monkeypatch)


# -- parameters and context ------------------------------------------------------------------------------


def test_parameters_arrive_by_name_and_the_result_is_kept_before_the_answer(world):
    got = world.call("load", day="2026-11-20", tables=["users", None])
    expected = {"day": "2026-11-20", "tables": ["users", None], "text": ""}
    assert (got.status_code, got.mimetype, got.json) == (200, "application/json", expected)
    document = world.read(".json")
    at = datetime.fromisoformat(document.pop("at"))
    assert at.tzinfo is not None
    assert document == {"kind": "Completed", "result": expected}
    assert world.results.outcome(KEY) == Outcome.completed(expected)
    begun = world.read(".begun")
    assert set(begun) == {"at", "instance", "execution", "token"}
    assert datetime.fromisoformat(begun["at"]) <= at
    assert world.names() == [f"results/{KEY}.begun", f"results/{KEY}.json"]


def test_the_context_is_the_launchs(memory):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-01"
    got = memory.client("whose").post(
        URL, json={}, headers={"traceparent": traceparent, "Function-Execution-Id": "5bygt74ir3mi"}
    )
    assert got.json == {
        "launch_id": LAUNCH_ID,
        "run_id": RUN_ID,
        "node_name": "Load",
        "attempt": 2,
        "trace_id": trace_id,
        "nonce": NONCE,
        "key": KEY,
    }
    assert memory.read(".begun")["execution"] == "5bygt74ir3mi"


def test_without_a_trace_header_there_is_no_trace(memory):
    assert memory.call("whose").json["trace_id"] == ""


def test_the_nonce_does_not_show_where_a_context_is_printed():
    assert NONCE not in repr(Context.of({"orchestrator_launch": LAUNCH_ID, "orchestrator_nonce": NONCE}, {}))


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        pytest.param("load", {}, '"day" is missing; load takes day, tables, size', id="missing"),
        pytest.param("load", {"day": "", "table": 1}, '"table" is unexpected, did you mean "tables"?', id="misspelt"),
        pytest.param("load", {"dy": ""}, '"day" is missing; "dy" is unexpected, did you', id="all problems at once"),
        pytest.param("whose", {"context": 1}, '"context" is unexpected, it is what @task', id="our own parameter"),
        pytest.param("whose", {"x": 1}, '"x" is unexpected; whose takes none', id="takes nothing"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(memory, name, parameters, words):
    got = memory.call(name, **parameters)
    assert got.status_code == 400
    assert got.json["error_type"] == "Task.BadParameters"
    assert words in got.json["message"]
    assert memory.module.calls == []
    assert memory.results.outcome(KEY) == Outcome.failed("Task.BadParameters", got.json["message"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"[1]", "Expected `object`, got `array`", id="no object"),
        pytest.param(b"day=1", "cannot be read as JSON", id="a form"),
        pytest.param(b'"\xff"', "body: ", id="no UTF-8"),
        pytest.param(b'{"a":' * 100_000, "body: ", id="nested without end"),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(memory, body, words):
    got = memory.client("anything").post(URL, data=body)
    assert (got.status_code, got.json["error_type"]) == (400, "Task.BadParameters")
    assert words in got.json["message"]


def test_a_function_may_take_anything(memory):
    assert memory.call("anything", context=1, day="x").json == {"context": 1, "day": "x"}


def test_an_empty_body_has_no_parameters(memory):
    assert memory.client("anything").post(URL).json == {}


@pytest.mark.parametrize("launch_id", ["x", f"{RUN_ID}/Load/0", f"{RUN_ID}/../1", "//"])
def test_a_launch_id_that_is_none_is_refused_and_nothing_runs(memory, launch_id):
    got = memory.call("load", f"/?{launch_query(launch_id, NONCE)}", day="x")
    assert (got.status_code, got.json["error_type"]) == (400, "Task.BadRequest")
    assert memory.module.calls == []
    assert memory.names() == []


def test_what_cannot_be_called_by_name_is_refused_when_it_is_loaded():
    async def later():
        pass

    def by_place(day, /):
        pass

    with pytest.raises(TypeError, match="later: is asynchronous"):
        task(later)
    with pytest.raises(TypeError, match="by_place: day cannot be given by name"):
        task(by_place)


# -- once ------------------------------------------------------------------------------------------------


def test_the_same_launch_again_is_refused_and_changes_nothing(world):
    client = world.client("load")
    assert client.post(URL, json={"day": "1"}).status_code == 200
    before = {name: world.store.get(name) for name in world.names()}
    again = client.post(URL, json={"day": "2"})
    assert (again.status_code, again.json["error_type"]) == (409, "Task.AlreadyBegun")
    assert LAUNCH_ID in again.json["message"]
    assert f"results/{KEY}.json" in again.json["message"]
    assert world.module.calls == ["1"]
    assert {name: world.store.get(name) for name in world.names()} == before


def test_the_next_attempt_is_another_launch(memory):
    client = memory.client("load")
    for attempt in (1, 2):
        url = f"/?{launch_query(f'{RUN_ID}/Load/{attempt}', NONCE)}"
        assert client.post(url, json={"day": "x"}).status_code == 200
    assert memory.module.calls == ["x", "x"]


def test_eight_calls_of_a_launch_at_once_run_it_once(world):
    client_of = world.client("slow").application.test_client
    meet = Barrier(8)

    def call(_: int):
        client = client_of()
        meet.wait()
        return client.post(URL, json={"day": "x"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(8)))
    assert sorted(got.status_code for got in answers) == [200] + [409] * 7
    assert [got.json for got in answers if got.status_code == 200] == [1]
    assert world.module.calls == ["x"]


def test_a_launch_that_was_killed_at_work_is_refused_for_ever(memory):
    memory.store.put(f"results/{KEY}.begun", b"written by hand", expect=None)
    got = memory.call("load", day="x")
    assert got.status_code == 409
    assert memory.module.calls == []
    with pytest.raises(NotYet, match="still at work"):
        memory.results.ask(KEY)


class LosingAnswers(MemoryStore):
    """Applies a create and says something else: a client that retried by itself, or a 503 after the write."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error, self.lost = error, []

    def put(self, key, data, *, expect):
        version = super().put(key, data, expect=expect)
        if key not in self.lost:
            self.lost.append(key)
            raise self.error
        return version


@pytest.mark.parametrize("error", [VersionConflict("found: 1"), StoreUnavailable("503")], ids=["conflict", "503"])
def test_a_lost_answer_to_its_own_write_does_not_make_it_refuse_itself(tmp_path, monkeypatch, error):
    world = serve(tmp_path, LosingAnswers(error), monkeypatch)
    assert world.call("load", day="x").status_code == 200
    assert world.store.lost == [f"results/{KEY}.begun", f"results/{KEY}.json"]
    assert world.results.outcome(KEY).result["day"] == "x"
    assert world.call("load", day="x").status_code == 409


class Refusing(MemoryStore):
    """Cannot write names with this ending, for so many times."""

    def __init__(self, ending: str, times: int) -> None:
        super().__init__()
        self._ending, self._left = ending, times

    def put(self, key, data, *, expect):
        if key.endswith(self._ending) and self._left > 0:
            self._left -= 1
            raise StoreUnavailable(f"{key}: 503")
        return super().put(key, data, expect=expect)


@pytest.mark.parametrize("ending", [".begun", ".json"])
def test_a_bucket_that_comes_back_within_some_tries_is_no_error(tmp_path, monkeypatch, ending):
    world = serve(tmp_path, Refusing(ending, 3), monkeypatch)
    pauses = []
    pause_by(monkeypatch, pauses.append)
    assert world.call("load", day="x").status_code == 200
    assert pauses == [0, 1, 2]


def test_without_the_bucket_nothing_is_run(tmp_path, monkeypatch):
    world = serve(tmp_path, Refusing(".begun", 99), monkeypatch)
    got = world.call("load", day="x")
    assert (got.status_code, got.json["error_type"]) == (503, "Task.NotBegun")
    assert world.module.calls == []


def test_a_result_that_cannot_be_written_is_no_success(tmp_path, monkeypatch):
    world = serve(tmp_path, Refusing(".json", 99), monkeypatch)
    got = world.call("load", day="x")
    assert (got.status_code, got.json["error_type"]) == (500, "Task.NotRecorded")
    assert f"results/{KEY}.json: 503" in got.json["message"]


def test_a_result_that_is_there_already_stays(memory):
    theirs = b'{"kind":"Completed","result":1,"at":"2026-11-20T08:00:00Z"}'
    memory.store.put(f"results/{KEY}.json", theirs, expect=None)
    assert memory.call("load", day="x").status_code == 500
    assert memory.store.get(f"results/{KEY}.json")[0] == theirs


# -- results and errors ----------------------------------------------------------------------------------


def test_an_exception_is_recorded_logged_and_answered(world, caplog):
    got = world.call("fail", words="no rows")
    error = {"error_type": "Task.Failed", "message": "ValueError: no rows"}
    assert (got.status_code, got.json) == (500, error)
    document = world.read(".json")
    assert (document["kind"], document["error"]) == ("Failed", error)
    assert world.results.ask(KEY) == Outcome.failed("Task.Failed", "ValueError: no rows")
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert LAUNCH_ID in record.message
    assert (record.run_id, record.node) == (RUN_ID, "Load")
    assert "in fail" in logging.Formatter().formatException(record.exc_info)


def test_sys_exit_is_a_failure_with_an_answer(memory):
    assert memory.call("leave").json == {"error_type": "Task.Failed", "message": "SystemExit: 3"}


def test_a_large_result_is_kept_whole_and_answered_by_its_name(world):
    got = world.call("load", day="x", size=1 << 20)
    assert got.status_code == 200
    assert got.json == reference_to(KEY) == {"result": f"results/{KEY}.json"}
    assert world.results.outcome(KEY).result["text"] == "x" * (1 << 20)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        pytest.param("nan", "result.rows[1]: is nan, which JSON does not have", id="nan, which would become null"),
        pytest.param("object", "result.file: is of type object", id="an object deep inside"),
        pytest.param("keys", "result.a: is of type dict", id="keys that are no strings"),
        pytest.param("cyclic", "contains itself", id="contains itself"),
    ],
)
def test_a_result_that_is_no_json_is_an_error_that_says_where(memory, what, words):
    got = memory.call("odd", what=what)
    assert (got.status_code, got.json["error_type"]) == (500, "Task.BadResult")
    assert words in got.json["message"]
    assert memory.results.outcome(KEY) == Outcome.failed("Task.BadResult", got.json["message"])


@pytest.mark.parametrize(("what", "expected"), [("none", None), ("text", "done"), ("null", [None])])
def test_any_json_is_a_result(memory, what, expected):
    got = memory.call("odd", what=what)
    assert (got.status_code, got.get_json()) == (200, expected)
    assert memory.results.outcome(KEY) == Outcome.completed(expected)


# -- progress --------------------------------------------------------------------------------------------


def test_progress_never_raises_and_the_first_is_written(world):
    assert world.call("steps").json == "done"
    found = world.read(".progress")
    assert 0 <= found["fraction"] < 1
    assert set(found) == {"fraction", "message", "at"}


def progress_over(store, seconds):
    return Progress(store, KEY, LAUNCH_ID, lambda: NOW, iter(seconds).__next__)


def test_progress_is_written_once_a_second():
    store = MemoryStore()
    progress = progress_over(store, [0.0, 0.5, 0.99, 1.0, 1.5, 2.5])
    seen = []
    for number in range(6):
        progress.report(number / 10, str(number))
        seen.append(json.loads(store.get(f"results/{KEY}.progress")[0])["message"])
    assert seen == ["0", "0", "0", "3", "3", "5"]


def test_progress_overwrites_what_is_there_and_stays_between_0_and_1():
    store = MemoryStore()
    store.put(f"results/{KEY}.progress", b"from before", expect=None)
    progress = progress_over(store, count(0.0, 2.0))
    for fraction, expected in ((-1, 0.0), (0.5, 0.5), (7, 1.0)):
        progress.report(fraction, "")
        assert json.loads(store.get(f"results/{KEY}.progress")[0])["fraction"] == expected


def test_progress_that_cannot_be_written_is_one_warning(caplog):
    progress = progress_over(Refusing(".progress", 99), count(0.0, 2.0))
    for _ in range(3):
        progress.report(0.5, "half")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert LAUNCH_ID in caplog.text


# -- by hand, and settings -------------------------------------------------------------------------------


def test_by_hand_it_runs_each_time_and_records_nothing(memory):
    client = memory.client("load")
    for _ in range(2):
        got = client.post("/", json={"day": "x", "size": 1 << 17})
        assert (got.status_code, len(got.json["text"])) == (200, 1 << 17)
    assert memory.names() == []
    whose = memory.call("whose", "/").json
    assert whose.pop("attempt") == 1
    assert set(whose.values()) == {""}
    assert memory.call("steps", "/").json == "done"
    assert memory.call("fail", "/", words="no").status_code == 500


def test_without_the_setting_it_runs_unrecorded_and_warns_once(tmp_path, caplog):
    client = World(tmp_path, MemoryStore()).client("load")
    for _ in range(2):
        got = client.post(URL, json={"day": "x", "size": 1 << 17})
        assert (got.status_code, len(got.json["text"])) == (200, 1 << 17)
    (warning,) = caplog.records
    assert "STATUS_BUCKET: is not set" in warning.message


def test_a_setting_that_names_no_store_is_an_error_that_names_the_setting(tmp_path, monkeypatch):
    monkeypatch.setenv("STATUS_BUCKET", "ftp://bucket")
    world = World(tmp_path, MemoryStore())
    got = world.call("load", day="x")
    assert (got.status_code, got.json["error_type"]) == (500, "Task.NotBegun")
    assert "STATUS_BUCKET: bucket ftp://bucket: there is no store for ftp://" in got.json["message"]
    assert world.module.calls == []


def test_a_store_whose_library_is_missing_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    def missing(url):
        raise ModuleNotFoundError("No module named 'redis'")

    monkeypatch.setenv("STATUS_BUCKET", "redis://host")
    monkeypatch.setattr(bucket, "open_store", missing)
    message = World(tmp_path, MemoryStore()).call("load", day="x").json["message"]
    assert "STATUS_BUCKET: the store of redis://host cannot be loaded, No module named 'redis'; add" in message


def test_importing_the_helper_loads_neither_flask_nor_google():
    code = "import sys, orchestrator.tasks; print(*{name.partition('.')[0] for name in sys.modules})"
    before = subprocess.run([sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True)
    after = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    heavy = {"flask", "werkzeug", "google", "functions_framework", "redis", "requests"}
    assert (set(after.stdout.split()) - set(before.stdout.split())) & heavy == set()


# -- the engine's side -----------------------------------------------------------------------------------


def test_results_of_a_function_that_does_not_use_the_helper():
    results = Results(MemoryStore())
    assert (results.outcome(KEY), results.is_begun(KEY), results.ask(KEY)) == (None, False, None)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"kind":"Completed","at"', id="half"),
        pytest.param(b"\xff", id="no UTF-8"),
        pytest.param(b'{"kind":"Done","at":"2026-11-20T08:00:00Z"}', id="unknown kind"),
        pytest.param(b'{"kind":"Lost","at":"2026-11-20T08:00:00Z"}', id="a kind that no function can tell"),
        pytest.param(b'{"kind":"Failed","at":"2026-11-20T08:00:00Z"}', id="failed without an error"),
        pytest.param(
            b'{"kind":"Completed","at":"2026-11-20T08:00:00Z","error":{"error_type":"A","message":""}}',
            id="completed with an error",
        ),
        pytest.param(b'{"kind":"Completed","at":"2026-11-20T08:00:00Z","result":' + b"[" * 100_000, id="without end"),
    ],
)
def test_a_spoilt_result_is_an_error_that_names_its_object(content):
    store = MemoryStore()
    store.put(f"results/{KEY}.json", content, expect=None)
    for read in (Results(store).outcome, Results(store).ask):
        with pytest.raises(CorruptState, match=rf"^results/{KEY}\.json: "):
            read(KEY)


def test_a_key_is_asked_for_its_result_first():
    store = MemoryStore()
    store.put(f"results/{KEY}.json", b'{"kind":"Completed","at":"2026-11-20T08:00:00Z"}', expect=None)
    store.put(f"results/{KEY}.begun", b"spoilt", expect=None)
    assert Results(store).ask(KEY) == Outcome.completed()


def test_a_record_gives_up_after_its_tries():
    pauses = []
    record = Record(Refusing(".begun", 99), KEY, pauses.append)
    with pytest.raises(StoreUnavailable):
        record._create(record.begun_name, b"{}")
    assert pauses == [0, 1, 2, 3, 4]


# -- heartbeats ------------------------------------------------------------------------------------------


def test_what_runs_in_a_container_is_heard_of_by_the_launch_in_its_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("STATUS_BUCKET", f"file://{tmp_path}/bucket")
    monkeypatch.setenv("ORCHESTRATOR_LAUNCH", "run_1_a/Job/3")
    heartbeat()
    said = json.loads(LocalStore(tmp_path / "bucket").get(f"results/{key_of('run_1_a/Job/3')}.progress")[0])
    assert (said["fraction"], said["message"]) == (0.0, "")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"ORCHESTRATOR_LAUNCH": "no launch"},
        {"ORCHESTRATOR_LAUNCH": "run_1_a/Job/4"},
        {"ORCHESTRATOR_LAUNCH": "run_1_a/Job/5", "STATUS_BUCKET": "ftp://bucket"},
    ],
)
def test_where_nobody_listens_a_heartbeat_does_nothing(monkeypatch, environment):
    monkeypatch.delenv("STATUS_BUCKET", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    heartbeat()
    Context().heartbeat()


def test_a_heartbeat_leaves_what_progress_has_said_and_tells_a_later_time():
    store, seconds = MemoryStore(), [0.0]

    def now():
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds[0])

    progress = Progress(store, "k", "run_1_a/Job/1", now, lambda: seconds[0])
    progress.report(0.5, "half")
    seconds[0] = 0.5
    progress.beat()
    assert json.loads(store.get("results/k.progress")[0])["at"] == "2026-01-01T00:00:00Z", "one a second is written"
    seconds[0] = 2.0
    progress.beat()
    assert json.loads(store.get("results/k.progress")[0]) == {
        "fraction": 0.5,
        "message": "half",
        "at": "2026-01-01T00:00:02Z",
    }


# -- the user's guide ------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs/tasks.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def guide(tmp_path):
    source, in_a_test = blocks("python")
    (definition,) = blocks("json")
    path = tmp_path / source.splitlines()[0].removeprefix("# ")
    path.parent.mkdir(parents=True)
    path.write_text(source)
    return path, json.loads(definition), in_a_test


def test_the_guides_step_completes_with_its_result_on_this_machine(guide, tmp_path, monkeypatch):
    path, definition, _ = guide
    assert problems(definition) == []
    monkeypatch.setenv("STATUS_BUCKET", f"file://{tmp_path}/bucket")
    with DAGExecutor({"loads": definition}, folders={"loads": path.parents[2]}) as executor:
        run_id = executor.start("loads")
        state = executor.wait(run_id, timeout_s=30)
    assert state.run.error is None
    assert state.run.status is RunStatus.COMPLETED
    expected = {"day": "2026-11-20", "rows": {"users": 5, "orders": 6}, "attempt": 1}
    assert state.nodes["Load"].result == expected
    store, key = LocalStore(tmp_path / "bucket"), key_of(f"{run_id}/Load/1")
    assert Results(store).ask(key) == Outcome.completed(expected)
    assert list(store.list("results/")) == [f"results/{key}.{name}" for name in ("begun", "json", "progress")]
    assert json.loads(store.get(f"results/{key}.progress")[0])["message"] == "users of 2026-11-20"


def test_the_guides_own_test_passes(guide, monkeypatch):
    path, _, in_a_test = guide
    monkeypatch.syspath_prepend(path.parent)
    monkeypatch.delitem(sys.modules, "main", raising=False)
    exec(compile(in_a_test, "docs/tasks.md", "exec"), {})
    monkeypatch.delitem(sys.modules, "main")


def test_the_guides_table_has_every_error_type_that_there_is():
    source = "".join(path.read_text() for path in (ROOT / "orchestrator/tasks").glob("*.py"))
    table = "".join(re.findall(r"^\| [45]\d\d.*$", GUIDE, re.MULTILINE))
    assert set(re.findall(r'"(Task\.\w+)"', source)) == set(re.findall(r"`(Task\.\w+)`", table))
