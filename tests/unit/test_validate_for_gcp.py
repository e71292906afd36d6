"""orchestrator validate --for gcp: each thing that would fail there, all at once, each with its path."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from orchestrator.cli.for_gcp import LIMITS_S
from orchestrator.cli.main import main
from orchestrator.cli.requirements import Requirements
from orchestrator.model.enums import NOWHERE_ELSE, TargetTypes
from orchestrator.runtime.rights import PERMISSIONS, QUEUE_PERMISSIONS
from orchestrator.targets.cloud_function_sync import CloudFunctionSync
from orchestrator.targets.function_calls import DISPATCH_LIMITS_S
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
    (call(region="nowhere"), {}, 'steps.A.region: "nowhere" is no region; write it as in "europe-west1", not a zone'),
    *(
        (step, {}, 'steps.A.region: "europe-west1-b" is no region')
        for step in (
            {"target_type": "CloudRunJob", "target_name": "j", "region": "europe-west1-b"},
            {"target_type": "Workflows", "target_name": "w", "region": "europe-west1-b"},
            {"target_type": "Batch", "target_name": "b", "image": "i", "region": "europe-west1-b"},
            {
                "target_type": "Dataproc",
                "target_name": "d",
                "main_python_file": "gs://bucket/d.py",
                "region": "europe-west1-b",
            },
            {
                "target_type": "VertexPipeline",
                "target_name": "v",
                "region": "europe-west1-b",
                "template_path": "https://europe-kfp.pkg.dev/p/q/r",
                "pipeline_root": "gs://bucket/r",
            },
            {"target_type": "BigQuery", "target_name": "q", "query": "SELECT 1", "region": "europe-west1-b"},
        )
    ),
    (
        {"target_type": "BigQuery", "target_name": "q", "query": "SELECT 1", "region": "nowhere"},
        {},
        'steps.A.region: "nowhere" is no region; write it as in "europe-west1", or EU or US',
    ),
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
    (function("json:nope"), {}, 'steps.A.function: json defines no "nope"'),
    (function("json.nope:loads"), {}, "steps.A.function: there is no module json.nope"),
    (
        function("textwrap.deep:dedent"),
        {},
        "steps.A.function: there is no module textwrap.deep; textwrap is no package",
    ),
    (function("builtins:dcit"), {}, 'steps.A.function: builtins defines no "dcit"'),
    (function("msgspec.json:encoed"), {}, 'steps.A.function: msgspec.json defines no "encoed"; did you mean "encode"?'),
    (function("mine:go"), {}, "steps.A.function: mine cannot be imported there"),
    # what is imported by what is imported
    (
        function("dag_definitions.d.far:go"),
        {},
        "far.py:2: imports hypothesis, which is neither packed nor of a package of requirements.txt",
    ),
    (
        function("dag_definitions.d.near:go"),
        {},
        "far.py:2: imports hypothesis, which is neither packed nor of a package of requirements.txt",
    ),
    (
        function("dag_definitions.d.lost:go"),
        {},
        "lost.py:1: imports dag_definitions.d.pipelines.count: dag_definitions/d/pipelines/ is not deployed with the",
    ),
    (
        function("dag_definitions.d.beside:go"),
        {},
        "beside.py:1: imports dag_definitions.d.nobody: there is no module dag_definitions.d.nobody",
    ),
    (function("dag_definitions.d.heavy:go"), {}, "heavy.py:1: imports torch, which is neither packed nor of a"),
    (function("dag_definitions.d.top:go"), {}, "top.py:1: imports mine.deep, which is neither packed nor of a package"),
    # what Terraform refuses
    (
        call("orchestrator"),
        {},
        'steps.A.target_name: "orchestrator" is what the orchestrator\'s own function is called',
    ),
]


@pytest.mark.parametrize(("step", "functions", "problem"), ONE_PROBLEM, ids=[row[2][:60] for row in ONE_PROBLEM])
def test_what_would_fail_there_is_said_with_its_path(tree, capsys, step, functions, problem):
    for name, content in functions.items():
        if content is None:
            tree.write(f"dag_definitions/d/functions/{name}/util.py", "")
        else:
            tree.function(name, content)
    tree.write("dag_definitions/d/pipelines/count.py", "")
    tree.write("dag_definitions/d/pipelines/requirements.txt", "apache-beam[gcp]==2.77.0\n")
    tree.write("dag_definitions/d/bad.py", "def go(\n")
    tree.write("dag_definitions/d/good.py", "def shout():\n    pass\n")
    go = "\n\n\ndef go():\n    pass\n"
    for name, imports in {
        "far": "import os\nimport hypothesis",
        "near": "from dag_definitions.d import far, good",
        "lost": "from dag_definitions.d.pipelines.count import words",
        "beside": "from . import nobody",
        "top": "import mine.deep",
        "heavy": "import torch",
    }.items():
        tree.write(f"dag_definitions/d/{name}.py", imports + go)
    tree.write("mine/deep.py", "")
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
    tree.write("dag_definitions/d/pipelines/requirements.txt", "apache-beam[gcp]==2.77.0\n")
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


def test_a_definition_that_breaks_rules_is_judged_as_far_as_its_steps_tell(tree, capsys):
    tree.steps(
        {"target_type": "CloudFunction"},
        call(region="europe-west1-b", timeout="2h"),
        {"target_type": "Nowhere", "target_name": "x", "region": "b"},
        call(region=7, timeout="soon"),
        function("json:nope"),
        function("json"),
    )
    code, _, problems = judged(capsys)
    assert code == 2
    assert [problem.partition(": ")[0] for problem in problems] == [
        "steps.A.target_name",
        "steps.C.target_type",
        "steps.D.region",
        "steps.D.timeout",
        "steps.F.function",
        "steps.B.timeout",
        "steps.B.region",
        "steps.C.region",
        "steps.E.function",
    ]


@pytest.mark.parametrize(
    "definition", ["a: &a [*a]", "start: A\nsteps: &s {A: {type: Parallel, branches: [{steps: *s}]}}"]
)
def test_a_definition_that_holds_itself_is_a_problem_and_no_fault(tree, capsys, definition):
    (tree.dag / "dag.yaml").write_text(definition + "\n")
    assert judged(capsys)[0] == 2


def test_the_steps_of_finally_are_judged_too(tree, capsys):
    last = {"start": "L", "steps": {"L": {"type": "Task", **call(region="b")}}}
    steps = {"A": {"type": "Pass", "result": 1, "next": "B"}, "B": {"type": "Wait", "for": "1s"}}
    (tree.dag / "dag.json").write_text(json.dumps({"start": "A", "steps": steps, "finally": last}))
    (problem,) = judged(capsys)[2]
    assert problem.startswith('finally.steps.L.region: "b" is no region')


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "posix/Europe/Berlin", "Factory", "europe/berlin"])
def test_a_time_zone_has_a_name_that_google_knows_too(tree, capsys, zone):
    daily = {"start": "A", "steps": {"A": {"type": "Pass", "result": 1}}, "schedule": "0 6 * * *", "time_zone": zone}
    (tree.dag / "dag.json").write_text(json.dumps(daily))
    (problem,) = judged(capsys)[2]
    assert problem.startswith(f'time_zone: "{zone}" is not a time zone')


def test_an_installed_callable_is_looked_up_without_importing_anything(tree, capsys, monkeypatch):
    (tree.root / "requirements.txt").write_text("google-cloud-storage\nthis-one\n")
    tree.write("site/this_one/__init__.py", "raise RuntimeError('imported')\ndef go():\n    pass\n")
    monkeypatch.syspath_prepend(tree.root / "site")
    tree.steps(
        *(function(f"google.cloud.storage:{name}") for name in ("Client", "Cleint")),
        *(function(f"this_one:{name}") for name in ("go", "nope")),
        *(function(reference) for reference in ("json:loads", "os:getpid", "math:sqrt", "time:sleep", "signal:alarm")),
    )
    assert judged(capsys)[2] == [
        'steps.B.function: google.cloud.storage defines no "Cleint"; did you mean "Client"?',
        'steps.D.function: this_one defines no "nope"',
    ]


def test_jobs_that_run_as_an_account_that_is_not_named_are_told_of(tree, capsys):
    spark = {"target_type": "Dataproc", "target_name": "d", "main_python_file": "gs://bucket/d.py"}
    tree.steps(spark, {"target_type": "Batch", "target_name": "b", "image": "i"}, call("load"))
    needs = (
        "its jobs run as a service account, which the orchestrator may launch them as only if it is in "
        "job_service_accounts of terraform/terraform.tfvars"
    )
    code, out, _ = judged(capsys)
    assert (code, out[2:4]) == (0, [f"  Dataproc: {needs}", f"  Batch: {needs}"])
    with (tree.root / "terraform" / "terraform.tfvars").open("a") as file:
        file.write('job_service_accounts = {\n  spark = "spark@my-project.iam.gserviceaccount.com"\n}\n')
    assert needs not in "".join(judged(capsys)[1])


# -- together: what Terraform refuses of all of them --------------------------------------------------------


def beside(tree, name, definition, **files):
    """Write another DAG."""
    tree.write(f"dag_definitions/{name}/dag.json", json.dumps(definition))
    for file, content in files.items():
        tree.write(f"dag_definitions/{name}/{file.replace('__', '/')}.py", content)


def one(step):
    return {"start": "A", "steps": {"A": {"type": "Task", **step}}}


def test_a_function_with_its_source_in_two_dags_is_refused(tree, capsys):
    tree.function("load")
    tree.steps(call())
    beside(tree, "e", one(call()), functions__load__main=HANDLER)
    assert judged(capsys)[2] == [
        "dag_definitions/e/dag.json: steps.A.target_name: load has its source in dag_definitions/e and, for "
        "dag_definitions/d/dag.json: steps.A, in dag_definitions/d; only one can be deployed: rename one, or put a "
        "DAG into skip_functions_of"
    ]
    with (tree.root / "terraform" / "terraform.tfvars").open("a") as file:
        file.write('skip_functions_of = ["e"]\n')
    assert judged(capsys)[0] == 0


def test_a_function_with_another_entry_point_in_another_dag_is_refused(tree, capsys):
    tree.function("load")
    tree.steps(call())
    beside(tree, "e", one(call(function="other")))
    assert judged(capsys)[2] == [
        'dag_definitions/e/dag.json: steps.A.function: is "other", but "main" at dag_definitions/d/dag.json: steps.A; '
        "load is deployed once, with one entry point"
    ]


def test_what_lies_in_another_project_is_not_deployed_and_may_be_called_as_it_likes(tree, capsys):
    tree.function("load")
    tree.steps(call(), call(function="other", project_id="their-project"))
    beside(tree, "e", one(call("orchestrator", project_id="their-project")))
    assert judged(capsys)[0] == 0


def test_a_function_whose_source_is_in_another_dag_is_not_taken_to_be_there_already(tree, capsys, google):
    tree.function("load")
    tree.steps(call())
    beside(tree, "e", one(call()))
    google.held = {"logging.logEntries.list", *QUEUE_PERMISSIONS}
    assert judged(capsys) == (
        0,
        [
            *("d: ok for gcp, 1 task", "e: ok for gcp, 1 task"),
            "rights were not checked; --online asks Google Cloud, as whoever you are there",
        ],
        [],
    )
    assert judged(capsys, "--online")[0] == 0


def test_a_definition_that_is_named_twice_is_judged_once(tree, capsys):
    tree.function("load")
    tree.steps(call())
    assert judged(capsys, "dag_definitions/d")[:2] == (
        0,
        ["d: ok for gcp, 1 task", "rights were not checked; --online asks Google Cloud, as whoever you are there"],
    )


def test_parallels_that_are_deeper_than_terraform_sees_are_refused(tree, capsys):
    body = one(call())
    for level in range(9):
        body = {"start": f"P{level}", "steps": {f"P{level}": {"type": "Parallel", "branches": [body]}}}
    (tree.dag / "dag.json").write_text(json.dumps(body["steps"]["P8"]["branches"][0]))
    assert judged(capsys)[0] == 0
    (tree.dag / "dag.json").write_text(json.dumps(body))
    (problem,) = judged(capsys)[2]
    assert problem.endswith("is in 9 Parallels; Terraform, which has no recursion, sees 8 levels")


def test_what_is_the_orchestrators_own_starts_nothing(tree, capsys):
    sources = [
        {"object": {"bucket": "my-project-orchestrator-state", "prefix": "runs/"}},
        {"object": {"bucket": "landing"}},
        {"topic": "projects/my-project/topics/orchestrator-events"},
        {"topic": "projects/my-project/topics/orchestrator-dead-letters"},
        {"topic": "projects/other/topics/orchestrator-events"},
    ]
    definition = {"start": "A", "steps": {"A": {"type": "Pass", "result": 1}}, "triggers": sources}
    (tree.dag / "dag.json").write_text(json.dumps(definition))
    code, _, problems = judged(capsys)
    assert code == 2
    assert [problem.partition(": ")[0] for problem in problems] == [
        "triggers[0].object.bucket",
        "triggers[2].topic",
        "triggers[3].topic",
    ]


def test_pipelines_and_scheduler_jobs_of_one_name_are_refused(tree, capsys):
    for name in ("a b", "a+b"):
        beside(tree, name, {**one(job("count")), "schedule": "0 6 * * *"}, pipelines__count="")
        tree.write(f"dag_definitions/{name}/pipelines/requirements.txt", "apache-beam[gcp]\n")
    assert [problem.partition("/dag.json: ")[2] for problem in judged(capsys)[2]] == [
        "dag_definitions/a+b/pipelines/count.py: there is another pipeline of this name in "
        "dag_definitions/a b/pipelines; only one can be the template: rename one",
        "schedule: its scheduler job would be called a-b, like that of a b; rename one",
    ]


def test_a_pipeline_without_apache_beam_in_its_requirements_is_refused(tree, capsys):
    tree.write("dag_definitions/d/pipelines/count.py", "")
    tree.steps(job("count"), job("count"))
    file = "dag_definitions/d/pipelines/requirements.txt"
    needs = "the flex template of count has only what it names, as in apache-beam[gcp]==2.77.0"
    assert judged(capsys)[2] == [f"{file}: there is no such file; {needs}"]
    tree.write(file, "apache-beam-extras\n# apache-beam\n")
    assert judged(capsys)[2] == [f"{file}: does not name apache-beam; {needs}"]
    tree.write(file, "Apache_Beam[gcp]~=2.77\n")
    assert judged(capsys)[0] == 0


def test_variables_that_name_no_dag_are_refused(tree, capsys, monkeypatch):
    tree.steps(call())
    monkeypatch.setenv("TF_VAR_default_dag", "weekly")
    monkeypatch.setenv("TF_VAR_skip_functions_of", '["d", "monthly"]')
    assert judged(capsys)[2] == [
        "default_dag of terraform/: there is no DAG weekly; there are d",
        "skip_functions_of of terraform/: there is no DAG monthly; there are d",
    ]


@pytest.mark.parametrize(
    ("names", "module", "is_provided"),
    [
        ({"pyyaml"}, "yaml", True),
        ({"msgspec"}, "yaml", False),
        ({"google-cloud-storage"}, "google", True),
        ({"functions-framework"}, "flask", True),
        # It needs importlib-metadata, but only of a Python that this is not.
        ({"flask"}, "torch", False),
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
        "CloudFunction": DISPATCH_LIMITS_S[1],
        "CloudFunction.sync": sync.launch_limit_s,
        "Function": InlineFunction().launch_limit_s,
    }


def test_rights_of_every_target_that_runs_in_the_cloud_are_asked_for():
    assert set(PERMISSIONS) == {*TargetTypes, "CloudFunction.sync"} - set(NOWHERE_ELSE)


# -- online ----------------------------------------------------------------------------------------------


@pytest.fixture
def google(monkeypatch):
    """Google's APIs: `held` permissions, those that are `unknown`, and the names of what there is."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            held = [each for each in body["permissions"] if each in server.held]
            status = 400 if server.unknown & set(body["permissions"]) else 200
            self._answer(status, {"permissions": held} if held else {})

        def do_GET(self):
            name = self.path.partition("?")[0].removeprefix("/v2/").removeprefix("/v1/")
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
    server.held, server.functions, server.status, server.unknown = set(), set(), None, set()
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    for service in ("CLOUDRESOURCEMANAGER", "CLOUDFUNCTIONS", "RUN", "WORKFLOWS"):
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
    google.held = {"dataflow.jobs.create", "dataflow.jobs.get", "logging.logEntries.list", *QUEUE_PERMISSIONS}
    code, out, problems = judged(capsys, "--online")
    assert (code, out) == (2, [WHO_ASKED])
    assert problems == [
        "steps.C.target_name: there is no function gone in europe-west1 of my-project, and none in "
        "functions/ to deploy",
        "steps.E.target_name: there is no function gone in europe-west1 of other, and none in functions/ to deploy",
        "steps.F.target_type: these credentials lack dataflow.jobs.list, dataflow.jobs.cancel in my-project, which "
        "Dataflow steps need",
    ]
    google.functions |= {f"projects/{each}/locations/europe-west1/functions/gone" for each in ("my-project", "other")}
    google.held |= {"dataflow.jobs.list", "dataflow.jobs.cancel"}
    assert judged(capsys, "--online") == (0, ["d: ok for gcp, 6 tasks", WHO_ASKED], [])


WHO_ASKED = "rights are those of whoever asked; the orchestrator's own account has what Terraform gives it"


def test_online_jobs_and_workflows_that_are_not_there_are_named_and_rights_to_cancel_asked_for(tree, capsys, google):
    tree.steps(
        {"target_type": "CloudRunJob", "target_name": "nightly"},
        {"target_type": "Workflows", "target_name": "mails"},
        {"target_type": "Batch", "target_name": "b", "image": "i"},
        call("load", invocation="sync"),
        call("load", project_id="other"),
    )
    google.functions = {f"projects/{each}/locations/europe-west1/functions/load" for each in ("my-project", "other")}
    google.held = {each for wanted in PERMISSIONS.values() for each in wanted if not each.endswith("cancel")}
    google.unknown = {"batch.jobs.cancel"}
    assert judged(capsys, "--online")[2] == [
        "steps.A.target_name: there is no Cloud Run job nightly in europe-west1 of my-project",
        "steps.B.target_name: there is no workflow mails in europe-west1 of my-project",
        "steps.A.target_type: these credentials lack run.executions.cancel in my-project, which CloudRunJob steps need",
        "steps.B.target_type: these credentials lack workflows.executions.cancel in my-project, which Workflows "
        "steps need",
        "steps.E.target_type: these credentials lack cloudtasks.tasks.create, cloudtasks.tasks.delete in my-project, "
        "which CloudFunction steps need",
    ]
    google.held |= {"run.executions.cancel", "workflows.executions.cancel", *QUEUE_PERMISSIONS}
    google.functions |= {
        f"projects/my-project/locations/europe-west1/{each}" for each in ("jobs/nightly", "workflows/mails")
    }
    assert judged(capsys, "--online")[0] == 0


def test_online_what_cannot_be_asked_is_a_problem_that_says_why(tree, capsys, google):
    tree.steps(call())
    google.status = 403
    google.held = {"logging.logEntries.list", *QUEUE_PERMISSIONS}
    (problem,) = judged(capsys, "--online")[2]
    assert problem.startswith("steps.A.target_name: cannot be asked for: cloudfunctions.functions.get")
    assert "403" in problem


def test_online_without_for_gcp_is_2(tree, capsys):
    assert main(["validate", "--online", "dag_definitions"]) == 2
    assert capsys.readouterr().err == "orchestrator: validate: --online goes with --for gcp\n"
