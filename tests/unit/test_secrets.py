"""Secrets: markers until the launch, masks afterwards, and where they come from."""

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from orchestrator.model.definition import problems
from orchestrator.model.errors import ExpressionError, LaunchRefused, LaunchUncertain
from orchestrator.model.secrets import SecretName, SecretText, filled, masked, masked_json
from orchestrator.model.templates import compile_value
from orchestrator.runtime.clock import SystemClock
from orchestrator.runtime.cloud import CloudParts
from orchestrator.runtime.secrets import LazySecrets, of_this_machine
from orchestrator.runtime.settings import Settings
from orchestrator.secrets.environment import EnvironmentSecrets
from orchestrator.secrets.secret_manager import KEPT_S, SecretManagerSecrets
from orchestrator.services.google_api import GoogleApis
from orchestrator.stores.memory import MemoryStore
from orchestrator.testing import fails, simulate
from tests.support.world import task

SCOPE = {"run": {"input": {"user": "ann"}}, "steps": {}}


def test_a_secret_is_a_mark_until_it_is_filled_in():
    value = {"key": "${secret.api-key}", "deep": ["${run.input.user}:${secret.pw}@x", 1], "plain": "x"}
    marked = compile_value(value).resolve(SCOPE)
    assert marked == {
        "key": SecretText((SecretName("api-key"),)),
        "deep": [SecretText(("ann", ":", SecretName("pw"), "@x")), 1],
        "plain": "x",
    }
    values = {"api-key": "abc", "pw": "${run.input.user}"}
    assert filled(marked, values.__getitem__) == {
        "key": "abc",
        "deep": ["ann:${run.input.user}@x", 1],  # a secret is never read as an expression
        "plain": "x",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${secret.api-key}", None),
        ("Bearer ${secret.API_KEY}", None),
        ("$${secret.API_KEY}", None),
        ("${secret}", "${secret}: is no secret; write ${secret.NAME}, of 1 to 255 of A-Z a-z 0-9 _ -"),
        ("${secret.a.b}", "${secret.a.b}: is no secret; write ${secret.NAME}, of 1 to 255 of A-Z a-z 0-9 _ -"),
        ('${secret["a b"]}', '${secret["a b"]}: is no secret; write ${secret.NAME}, of 1 to 255 of A-Z a-z 0-9 _ -'),
        (
            "${secret.a + 'x'}",
            "column 3 of \"${secret.a + 'x'}\": a secret is not computed with; write it as ${secret.NAME}, alone or "
            "inside of other text",
        ),
    ],
)
def test_how_a_secret_is_written(text, problem):
    found = problems({"start": "A", "steps": {"A": task(parameters={"x": text})}})
    assert found == ([f"steps.A.parameters.x: {problem}"] if problem else [])


def test_a_secret_can_stand_only_where_nothing_is_kept():
    definition = {
        "start": "P",
        "steps": {
            "P": {"type": "Pass", "result": {"x": "${secret.a}"}, "next": "W"},
            "W": {"type": "Wait", "until": "${secret.a}", "next": "C"},
            "C": {"type": "Condition", "choices": [{"when": "${secret.a}", "next": "E"}], "default": "E"},
            "E": {"type": "End", "status": "Failed", "error": {"type": "My.Error", "message": "${secret.a}"}},
        },
    }
    why = "${secret.a}: is kept nowhere, so it can stand in the parameters of what is launched only"
    paths = ("P.result.x", "W.until", "C.choices[0].when", "E.error.message")
    assert problems(definition) == [f"steps.{path}: {why}" for path in paths]


def test_values_are_masked_longest_first_and_short_ones_are_left():
    assert masked("key sesame-open, sesame-o, 1234567", ["sesame-o", "sesame-open", "1234567"]) == (
        "key ***, ***, 1234567"
    )
    assert masked_json({"a": ["x sesame-o"], "n": 1}, ["sesame-o"]) == {"a": ["x ***"], "n": 1}


# -- the environment -----------------------------------------------------------------------------------


def test_a_secret_of_the_environment_is_found_as_written_or_in_capitals():
    secrets = EnvironmentSecrets({"SECRET_api-key": "1", "SECRET_DB_PW": "2", "SECRET_EMPTY": ""}, {"db-pw": "no"})
    assert [secrets.get(name) for name in ("api-key", "db-pw", "DB_PW", "EMPTY")] == ["1", "2", "2", ""]
    with pytest.raises(LaunchRefused) as caught:
        secrets.get("other-one")
    assert str(caught.value) == (
        "secret other-one: there is none; set the environment variable SECRET_OTHER_ONE, "
        "or name it in the file that SECRETS_FILE names"
    )
    assert caught.value.error_type == "Launch.NoSecret"


def test_a_file_may_hold_them(tmp_path):
    path = tmp_path / "secrets.yaml"
    path.write_text("api-key: abc\n")
    assert of_this_machine(Settings.read({"SECRETS_FILE": str(path)}), {}).get("api-key") == "abc"
    path.write_text("api-key: 7\n")
    with pytest.raises(LaunchRefused, match="SECRETS_FILE: api-key is no string; quote it"):
        of_this_machine(Settings.read({"SECRETS_FILE": str(path)}), {})
    with pytest.raises(LaunchRefused, match=r"SECRETS_FILE: .* cannot be read"):
        of_this_machine(Settings.read({"SECRETS_FILE": str(tmp_path / "none.json")}), {})


def test_the_first_source_that_has_a_secret_counts_and_none_is_made_before_it_is_needed():
    made = []

    def make():
        made.append(1)
        return EnvironmentSecrets({"SECRET_A": "first"}), EnvironmentSecrets({"SECRET_A": "x", "SECRET_B": "second"})

    secrets = LazySecrets(make)
    assert made == []
    assert [secrets.get("A"), secrets.get("B")] == ["first", "second"]
    assert made == [1]
    with pytest.raises(LaunchRefused, match="secret C"):
        secrets.get("C")


# -- Secret Manager ------------------------------------------------------------------------------------


class SecretManager(ThreadingHTTPServer):
    """What answers projects.secrets.versions.access: path -> (status, data)."""

    def __init__(self, answers: dict[str, tuple[int, bytes]]) -> None:
        self.answers, self.asked = answers, []
        super().__init__(("127.0.0.1", 0), _Handler)
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {"CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": f"http://127.0.0.1:{self.server_port}/"}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(path)
        status, data = self.server.answers.get(path, (404, b""))
        body: dict = {"error": {"code": status, "message": "not so", "status": "X"}}
        if status == 200:
            body = {"name": path, "payload": {"data": base64.b64encode(data).decode()}}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def path_of(name: str) -> str:
    return f"/v1/projects/demo/secrets/{name}/versions/latest:access"


@pytest.fixture
def manager():
    with SecretManager({}) as server:
        yield server
        server.shutdown()


def test_a_secret_of_secret_manager_is_read_once_in_a_few_minutes(manager):
    now = [0.0]
    secrets = SecretManagerSecrets(GoogleApis(manager.environment), "demo", lambda: now[0])
    manager.answers[path_of("api-key")] = (200, "größe".encode())
    assert [secrets.get("api-key"), secrets.get("api-key")] == ["größe", "größe"]
    assert manager.asked == [path_of("api-key")]
    manager.answers[path_of("api-key")] = (200, b"rotated")
    now[0] = KEPT_S - 1
    assert secrets.get("api-key") == "größe"
    now[0] = KEPT_S
    assert secrets.get("api-key") == "rotated"


@pytest.mark.parametrize(
    ("status", "error", "kind", "words"),
    [
        (404, LaunchRefused, "Launch.NoSecret", "make the secret, with a version"),
        (403, LaunchRefused, "Launch.SecretDenied", "roles/secretmanager.secretAccessor"),
        (503, LaunchUncertain, None, "503"),
        (429, LaunchUncertain, None, "429"),
    ],
)
def test_what_secret_manager_says_is_told_with_the_secrets_name(manager, status, error, kind, words):
    manager.answers[path_of("api-key")] = (status, b"")
    secrets = SecretManagerSecrets(GoogleApis(manager.environment), "demo", lambda: 0.0)
    with pytest.raises(error) as caught:
        secrets.get("api-key")
    assert str(caught.value).startswith("secret api-key: projects/demo/secrets/api-key/versions/latest: ")
    assert words in str(caught.value)
    assert getattr(caught.value, "error_type", None) == kind


def test_a_secret_that_is_no_text_is_refused(manager):
    manager.answers[path_of("key")] = (200, b"\xff\xfe")
    with pytest.raises(LaunchRefused, match="is not UTF-8"):
        SecretManagerSecrets(GoogleApis(manager.environment), "demo", lambda: 0.0).get("key")


def test_one_that_does_not_answer_is_uncertain():
    apis = GoogleApis({"CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER": "http://127.0.0.1:9/"})
    with pytest.raises(LaunchUncertain, match=r"secret key: .* no answer"):
        SecretManagerSecrets(apis, "demo", lambda: 0.0).get("key")


def test_an_expression_is_never_given_the_value_of_a_secret():
    with pytest.raises(ExpressionError, match="not computed with"):
        compile_value("${size(secret.key)}")


def test_in_the_cloud_the_environment_comes_first_and_then_secret_manager(manager):
    manager.answers[path_of("api-key")] = (200, b"from the manager")
    environment = {**manager.environment, "SECRET_DB_PW": "mounted"}

    def secrets(**settings: str):
        return CloudParts(Settings.read(settings), MemoryStore(), SystemClock(), environment).secrets

    of_demo = secrets(GOOGLE_CLOUD_PROJECT="demo")
    assert manager.asked == []
    assert [of_demo.get("db-pw"), of_demo.get("api-key")] == ["mounted", "from the manager"]
    assert manager.asked == [path_of("api-key")]
    with pytest.raises(LaunchRefused, match="GOOGLE_CLOUD_PROJECT: is not set"):
        secrets().get("db-pw")


def test_a_simulation_shows_a_target_what_it_is_given_and_the_document_nothing_of_it():
    definition = {"start": "A", "steps": {"A": task(parameters={"x": "Bearer ${secret.key}", "y": "${var.region}"})}}
    told = fails("Own.Error", "no such key: sesame-1234")
    run = simulate(definition, targets={"A": told}, secrets={"key": "sesame-1234"}, variables={"region": "here"})
    assert run.launches("A")[0].parameters == {"x": "Bearer sesame-1234", "y": "here"}
    assert run.error.message == "no such key: ***"
    assert "sesame-1234" not in json.dumps(run.document)
