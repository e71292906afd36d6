"""orchestrator validate --for gcp: each thing that would fail there, all at once, each with its path."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from orchestrator.cli.for_gcp import LIMITS_S
from orchestrator.cli.main import main
from orchestrator.cli.requirements import Requirements
from orchestrator.targets.cloud_function import _DISPATCH_LIMITS_S, CloudFunctionSync
from orchestrator.targets.inline_function import InlineFunction

HANDLER = "def main(request):\n    return {}\n"


class Tree:
    """A folder as it is deployed, with one DAG in it."""

    def __init__(self, root):
        self.root = root
        self.dag = root / "dag_definitions" / "d"
        for name, content in (("main.py", ""), ("requirements.txt", "msgspec==0.22.0\n# a comment\n")):
            self.write(name, content)
        self.write("orchestrator/__init__.py", "")
        self.dag.mkdir(parents=True)

    def write(self, path, content):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content)

    def function(self, name, content=HANDLER, **files):
        self.write(f"dag_definitions/d/functions/{name}/main.py", content)
        for file, text in files.items():
            self.write(f"dag_definitions/d/functions/{name}/{file.replace('__', '.')}", text)

    def steps(self, *steps):
        """Write a DAG of these steps, A, B, …, one after another."""
        names = "ABCDEFGHIJ"[: len(steps)]
        following = [*names[1:], None]
        made = {
            name: {"type": "Task", **step, **({"next": after} if after else {})}
            for name, step, after in zip(names, steps, following, strict=True)
        }
        (self.dag / "dag.json").write_text(json.dumps({"start": "A", "steps": made}))


@pytest.fixture
def tree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("GOOGLE_CLOUD_PROJECT", "FUNCTION_REGION", "DATAFLOW_TEMPLATES", "TF_VAR_project_id", "TF_VAR_region"):
        monkeypatch.delenv(name, raising=False)
    tree = Tree(tmp_path)
    tree.write("terraform/terraform.tfvars", '# mine\nproject_id = "my-project"\nregion     = "europe-west1"\n')
    return tree


def call(name="load", **more):
    return {"target_type": "CloudFunction", "target_name": name, **more}


def job(name="load", **more):
    return {"target_type": "Dataflow", "target_name": name, **more}


def function(reference, **more):
    return {"target_type": "Function", "function": reference, **more}


def judged(capsys, *argv):
    """Exit code, what was said, and the problems without the name of the file."""
    code = main(["validate", "--for", "gcp", *argv, "dag_definitions"])
    said = capsys.readouterr()
    return (
        code,
        said.out.splitlines(),
        [line.removeprefix("dag_definitions/d/dag.json: ") for line in said.err.splitlines()],
    )


def test_a_definition_that_lacks_nothing_is_ok_and_what_was_not_checked_is_said(tree, capsys):
    tree.function("load")
    tree.steps(call(), call("theirs"), job(template_path="gs://bucket/t"), function("dag_definitions.d.tools:shout"))
    tree.write("dag_definitions/d/tools.py", "def shout(text):\n    return text.upper()\n")
    assert judged(capsys) == (
        0,
        [
            "d: ok for gcp, 4 tasks",
            "  taken to be there already: 1 function: theirs",
            "rights were not checked; --online asks Google Cloud, as whoever you are there",
        ],
        [],
    )


LETTERS = "allowed are 1 to 63 small letters, digits and -, a letter first and no - last"
ONE_PROBLEM = [
    # names
    (
        call("Load"),
        {"Load": HANDLER},
        f'steps.A.target_name: "Load" is no name of a function that can be deployed; {LETTERS}',
    ),
    (
        call("lo_ad"),
        {"lo_ad": HANDLER},
        f'steps.A.target_name: "lo_ad" is no name of a function that can be deployed; {LETTERS}',
    ),
    (call("l" * 64), {"l" * 64: HANDLER}, "is no name of a function that can be deployed"),
    (call("orchestrator"), {"orchestrator": HANDLER}, "is what the orchestrator's own function is called"),
    (call("lo.ad"), {}, 'steps.A.target_name: "lo.ad" is no name of a function; allowed are 1 to 63 letters'),
    (call("load-"), {}, 'steps.A.target_name: "load-" is no name of a function; allowed are'),
    # regions
    (call(region="europe-west1-b"), {}, 'steps.A.region: "europe-west1-b" is no region'),
    (job(region="eu", template_path="gs://bucket/t"), {}, 'steps.A.region: "eu" is no region'),
    # timeouts
    (
        call(timeout="31m"),
        {},
        "steps.A.timeout: 31m is more than it can have; Cloud Tasks waits for a call at most 30m",
    ),
    (call(timeout="6m", invocation="sync"), {}, "steps.A.timeout: 6m is more than it can have; the orchestrator waits"),
    (function("builtins:dict", timeout="2m"), {}, "steps.A.timeout: 2m is more than it can have; it runs inside of"),
    # sources of functions
    (
        call(),
        {"load": "def mian(request):\n    pass\n"},
        'main.py: defines no "main", the entry point; did you mean "mian"?',
    ),
    (call(function="go"), {"load": HANDLER}, 'defines no "go", the entry point; define it, or name another'),
    (call(), {"load": "def main(request)\n"}, "functions/load/main.py: line 1: is no Python: expected ':'"),
    (call(), {"load": None}, "functions/load/main.py: there is no such file; a function's source is"),
    (call(), {"load": f"import hypothesis\n{HANDLER}"}, "main.py:1: imports hypothesis, which nothing in"),
    # templates
    (
        job("cuont"),
        {},
        "steps.A: has no template; name it by container_gcs_path or template_path, set DATAFLOW_TEMPLATES",
    ),
    # functions inside of the orchestrator
    (
        function("hypothesis.core:given"),
        {},
        "steps.A.function: hypothesis.core cannot be imported there; what is deployed is",
    ),
    (function("dag_definitions.d.tools:go"), {}, "steps.A.function: there is no module dag_definitions.d.tools"),
    (function("dag_definitions.d.bad:go"), {}, "bad.py: line 1: is no Python"),
    (function("dag_definitions.d.good:shuot"), {}, 'good.py defines no "shuot"; did you mean "shout"?'),
    (
        function("dag_definitions.d.functions.load.main:main"),
        {},
        "dag_definitions/d/functions/ is not deployed with the",
    ),
    (function("orchestrator.nothing:x"), {}, "steps.A.function: there is no module orchestrator.nothing"),
]


@pytest.mark.parametrize(("step", "functions", "problem"), ONE_PROBLEM, ids=[row[2][:60] for row in ONE_PROBLEM])
def test_what_would_fail_there_is_said_with_its_path(tree, capsys, step, functions, problem):
    for name, content in functions.items():
        if content is None:
            tree.write(f"dag_definitions/d/functions/{name}/util.py", "")
        else:
            tree.function(name, content)
    tree.write("dag_definitions/d/pipelines/count.py", "")
    tree.write("dag_definitions/d/bad.py", "def go(\n")
    tree.write("dag_definitions/d/good.py", "def shout():\n    pass\n")
    tree.steps(step)
    code, out, problems = judged(capsys)
    assert code == 2
    assert len(problems) == 1
    assert problem in problems[0]
    assert out == ["rights were not checked; --online asks Google Cloud, as whoever you are there"]


def test_all_problems_of_all_steps_are_told_at_once_those_in_branches_too(tree, capsys):
    inside = {"start": "L", "steps": {"L": {"type": "Task", **call(region="b", timeout="2h"), "next": "M"}}}
    inside["steps"]["M"] = {"type": "Task", **function("nowhere_at_all:x")}
    steps = {"P": {"type": "Parallel", "branches": [inside]}}
    (tree.dag / "dag.json").write_text(json.dumps({"start": "P", "steps": steps}))
    code, _, problems = judged(capsys)
    assert code == 2
    assert [problem.partition(": ")[0] for problem in problems] == [
        "steps.P.branches[0].steps.L.timeout",
        "steps.P.branches[0].steps.L.region",
        "steps.P.branches[0].steps.M.function",
    ]


def test_a_missing_project_or_region_is_told_once_for_all_steps_that_lack_it(tree, capsys):
    (tree.root / "terraform" / "terraform.tfvars").unlink()
    tree.steps(call(project_id="p"), call(region="us-east1"), call(), function("builtins:dict"))
    assert judged(capsys)[2] == [
        "steps.B.project_id (and those of C): is missing; name it there, or for all steps by GOOGLE_CLOUD_PROJECT or "
        "as project_id in terraform/terraform.tfvars",
        "steps.A.region (and those of C): is missing; name it there, or for all steps by FUNCTION_REGION or as region "
        "in terraform/terraform.tfvars",
    ]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("terraform.tfvars.json", '{"project_id": "p", "region": "us-east1"}'),
        ("my.auto.tfvars", '  project_id="p"\nregion = "us-east1" # here\nlabels = { a = "b" }\n'),
    ],
)
def test_terraforms_variables_are_read_from_all_its_files(tree, capsys, file, content):
    (tree.root / "terraform" / "terraform.tfvars").unlink()
    tree.write(f"terraform/{file}", content)
    tree.steps(call())
    assert judged(capsys)[0] == 0


def test_settings_of_the_environment_count_too(tree, capsys, monkeypatch):
    (tree.root / "terraform" / "terraform.tfvars").unlink()
    tree.steps(job())
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    monkeypatch.setenv("TF_VAR_region", "us-east1")
    monkeypatch.setenv("DATAFLOW_TEMPLATES", "gs://templates")
    assert judged(capsys)[0] == 0


def test_a_pipeline_here_is_what_a_template_can_be_built_from(tree, capsys):
    tree.write("dag_definitions/d/pipelines/count.py", "")
    tree.steps(job("count"), job("cuont"))
    problems = judged(capsys)[2]
    assert len(problems) == 1
    assert problems[0].startswith("steps.B: has no template")
    assert problems[0].endswith('did you mean "count"?')


def test_a_function_is_deployed_once_with_one_entry_point(tree, capsys):
    tree.function("load", HANDLER + "def other(request):\n    pass\n")
    tree.steps(call(), call(function="other"))
    assert judged(capsys)[2] == [
        'steps.B.function: is "other", but "main" at steps.A; load is deployed once, with one entry point'
    ]


def test_what_a_function_imports_must_be_brought_by_its_requirements(tree, capsys):
    source = (
        "import os, json\nimport functions_framework\nfrom orchestrator.tasks import task\nimport helper\n"
        "import msgspec\ntry:\n    import pytest\nexcept ImportError:\n    pass\n" + HANDLER
    )
    tree.function("load", source, helper__py="", requirements__txt="msgspec~=0.22 # for speed\nnot-installed-here==1\n")
    tree.steps(call())
    assert judged(capsys)[0] == 0


def test_a_pyproject_has_to_name_the_functions_framework_itself(tree, capsys):
    tree.function("load", pyproject__toml='[project]\nname = "x"\ndependencies = ["flask"]\n')
    tree.steps(call())
    (problem,) = judged(capsys)[2]
    assert "pyproject.toml: names no functions-framework" in problem


def test_a_file_that_is_no_text_cannot_be_packed(tree, capsys):
    tree.function("load")
    tree.write("dag_definitions/d/functions/load/model.bin", b"\xff\xfe\x00")
    tree.write("dag_definitions/d/functions/load/__pycache__/main.pyc", b"\xff")
    tree.steps(call())
    (problem,) = judged(capsys)[2]
    assert "functions/load/model.bin: is no UTF-8 text" in problem


def test_a_definition_outside_of_what_is_deployed_is_a_problem(tree, capsys):
    (tree.root / "elsewhere").mkdir()
    tree.steps(call())
    (tree.dag / "dag.json").rename(tree.root / "elsewhere" / "dag.json")
    assert main(["validate", "--for", "gcp", "elsewhere"]) == 2
    assert "elsewhere: is not in" in capsys.readouterr().err


def test_a_definition_that_breaks_rules_is_not_judged_further(tree, capsys):
    tree.steps({"target_type": "CloudFunction"})
    code, _, problems = judged(capsys)
    assert code == 2
    assert problems[0].startswith("steps.A.target_name: is missing")


@pytest.mark.parametrize(
    ("names", "module", "is_provided"),
    [
        ({"pyyaml"}, "yaml", True),
        ({"msgspec"}, "yaml", False),
        ({"google-cloud-storage"}, "google", True),
        ({"functions-framework"}, "flask", True),
        ({"somebody-elses"}, "yaml", False),
        ({"somebody-elses"}, "somebody_elses", True),
        ({"somebody-elses"}, "their_module", None),
        (set(), "their_module", False),
    ],
)
def test_what_requirements_provide(names, module, is_provided):
    assert Requirements(names).provide(module) is is_provided


def test_the_limits_are_those_of_the_targets():
    sync = CloudFunctionSync(project="p", region="r", results=lambda key: None)
    assert {key: limit_s for key, (limit_s, _) in LIMITS_S.items()} == {
        "CloudFunction": _DISPATCH_LIMITS_S[1],
        "CloudFunction.sync": sync.launch_limit_s,
        "Function": InlineFunction().launch_limit_s,
    }


# -- online ----------------------------------------------------------------------------------------------


@pytest.fixture
def google(monkeypatch):
    """Cloud Resource Manager and Cloud Functions: `held` permissions, and the `functions` that there are."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            held = [each for each in body["permissions"] if each in server.held]
            self._answer(200, {"permissions": held} if held else {})

        def do_GET(self):
            name = self.path.partition("?")[0].removeprefix("/v2/")
            self._answer(server.status or (200 if name in server.functions else 404), {"name": name})

        def _answer(self, status, answer):
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.held, server.functions, server.status = set(), set(), None
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for service in ("CLOUDRESOURCEMANAGER", "CLOUDFUNCTIONS"):
        monkeypatch.setenv(f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{service}", f"http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    server.server_close()


def test_online_functions_that_are_not_there_and_rights_that_are_missing_are_named(tree, capsys, google):
    tree.function("mine")
    tree.steps(
        call("mine"),
        call("there"),
        call("gone"),
        call("gone"),
        call("gone", project_id="other"),
        job(template_path="gs://bucket/t"),
    )
    google.functions = {"projects/my-project/locations/europe-west1/functions/there"}
    google.held = {"dataflow.jobs.create", "dataflow.jobs.get"}
    code, out, problems = judged(capsys, "--online")
    assert (code, out) == (2, [])
    assert problems == [
        "steps.C.target_name: there is no function gone in europe-west1 of my-project, and none in "
        "functions/ to deploy",
        "steps.E.target_name: there is no function gone in europe-west1 of other, and none in functions/ to deploy",
        "steps.F.target_type: these credentials lack dataflow.jobs.list, dataflow.jobs.cancel in my-project, which "
        "Dataflow steps need",
    ]
    google.functions |= {f"projects/{each}/locations/europe-west1/functions/gone" for each in ("my-project", "other")}
    google.held |= {"dataflow.jobs.list", "dataflow.jobs.cancel"}
    assert judged(capsys, "--online") == (0, ["d: ok for gcp, 6 tasks"], [])


def test_online_what_cannot_be_asked_is_a_problem_that_says_why(tree, capsys, google):
    tree.steps(call())
    google.status = 403
    (problem,) = judged(capsys, "--online")[2]
    assert problem.startswith("steps.A.target_name: cannot be asked for: cloudfunctions.functions.get")
    assert "403" in problem


def test_online_without_for_gcp_is_2(tree, capsys):
    assert main(["validate", "--online", "dag_definitions"]) == 2
    assert capsys.readouterr().err == "orchestrator: validate: --online goes with --for gcp\n"
