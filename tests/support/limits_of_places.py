"""Beyond the limits of targets, of settings, of Terraform, and of what is shown."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pytest

from orchestrator import DAGExecutor
from tests.support.limits import ELSEWHERE, ROOT, Bench, Row, beyond, ending, rows
from tests.support.limits_of_definitions import calling, nested, passing
from tests.support.terraform import Module, Refused
from tests.support.world import dag, parallel

# ---- docs/targets.md, docs/tasks.md ------------------------------------------------------------------------


@beyond("docs/targets.md", "levels of objects and lists in a result")
def _(bench: Bench, row: Row) -> str:
    reads = calling(target_type="Function", function="json:loads", parameters={"s": "${run.input.x}"})
    assert bench.run(reads, {"x": json.dumps(nested(row.most))}).run.status == "Completed"
    return bench.failed(reads, {"x": json.dumps(nested(row.most + 1))})


@beyond("docs/targets.md", "characters of the message of an error")
def _(bench: Bench, row: Row) -> str:
    (bench.root / "loud.py").write_text("def shout(text):\n    raise ValueError(text)\n")
    shout = calling(target_type="Function", function="loud:shout", parameters={"text": "${run.input.x}"})
    message = bench.run(shout, {"x": "x" * (row.most + 1000)}).run.error.message
    assert message == f"ValueError: {'x' * (row.most - len('ValueError: '))}…"
    return message


@beyond("docs/targets.md", "a parameter of a `Dataflow`")
def _(bench: Bench, row: Row) -> str:
    folder = bench.write(calling(target_type="Dataflow", target_name="p", parameters={"x": "${run.input.x}"}))
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "p.py").write_text("")
    (bench.root / "long.json").write_text(json.dumps({"x": "x" * row.most * 1024}))
    bench.command("run", folder, "--input", "long.json", ends=1)
    (run_id,) = bench.place.run_ids()
    error = bench.place.document(run_id)["$run"]["error"]
    return f"{error['error_type']}: {error['message']}"


ELSEWHERE |= {
    ("docs/targets.md", "the answer of a `CloudFunction`"): (
        "tests/unit/test_cloud_function_target.py::"
        "test_an_answer_that_is_too_large_has_failed_and_is_not_asked_for_again"
    ),
    ("docs/targets.md", "pages of a service's list"): (
        "tests/unit/test_job_services.py::test_where_there_is_no_end_to_look_through_nobody_can_tell"
    ),
    ("docs/targets.md", "characters of the answer"): (
        "tests/unit/test_cloud_function_target.py::test_of_a_long_answer_of_a_failed_call_the_beginning_is_told"
    ),
    ("docs/targets.md", "the parameters of a `CloudFunction`, async"): (
        "tests/unit/test_cloud_function_target.py::test_what_a_launch_makes_of_the_queues_answer"
    ),
}


@beyond("docs/tasks.md", "100 levels", "2,000 characters")
def _(bench: Bench, row: Row) -> str:
    from functions_framework import create_app

    (bench.root / "main.py").write_text(
        "import json\nfrom orchestrator.tasks import task\n\n\n@task\ndef main(text, fails):\n"
        "    if fails:\n        raise ValueError(text)\n    return json.loads(text)\n"
    )
    with patch.dict(os.environ, {"STATUS_BUCKET": f"file://{bench.root}"}):
        client = create_app("main", str(bench.root / "main.py"), "http").test_client()
        if "levels" in row.what:
            assert client.post("/", json={"text": json.dumps(nested(row.most)), "fails": False}).status_code == 200
            answer = client.post("/", json={"text": json.dumps(nested(row.most + 1)), "fails": False}).json
        else:
            answer = client.post("/", json={"text": "x" * 5000, "fails": True}).json
            assert len(answer["message"]) == row.most + 1
    return f"{answer['error_type']}: {answer['message']}"


# ---- docs/deploy.md --------------------------------------------------------------------------------------


def with_setting(bench: Bench, name: str, text: str, ends: int) -> str:
    folder = bench.write(passing(1))
    with patch.dict(os.environ, {name: text}):
        return bench.command("run", folder, "--bucket", "memory://", ends=ends)


@beyond("docs/deploy.md", "each setting that is a duration")
def _(bench: Bench, row: Row) -> str:
    from orchestrator.runtime.settings import TABLE

    durations = [each.name for each in TABLE if re.fullmatch(r"\d+(s|m|h|d)", each.default)] + ["SAVE_INTERVAL"]
    assert len(durations) == 7
    for name in durations:
        said = with_setting(bench, name, f"{row.most + 1}d", 2)
        assert f'{name}: "{row.most + 1}d" is out of range' in said
    with_setting(bench, "DEFAULT_TIMEOUT", f"{row.most}d", 0)
    with_setting(bench, "LAUNCH_LEASE", f"{row.most}d", 0)
    return with_setting(bench, "DEFAULT_TIMEOUT", f"{row.most + 1}d", 2)


@beyond("docs/deploy.md", "`LOCAL_WORKERS`")
def _(bench: Bench, row: Row) -> str:
    for name in ("LOG_SEARCHES_PER_MINUTE", "LOCAL_WORKERS"):
        with_setting(bench, name, "0", 2)
        with_setting(bench, name, str(row.most), 0)
        said = with_setting(bench, name, str(row.most + 1), 2)
        assert f'{name}: "{row.most + 1}" is not' in said
    return said


@beyond("docs/deploy.md", "`DEPLOYMENT_KEY`")
def _(bench: Bench, row: Row) -> str:
    with_setting(bench, "DEPLOYMENT_KEY", "k" * row.most, 0)
    return with_setting(bench, "DEPLOYMENT_KEY", "k" * (row.most - 1), 2)


@beyond("docs/deploy.md", "times of an option")
def _(bench: Bench, row: Row) -> str:
    least, most = row.numbers
    run_id = ending(bench, passing(1), 0)
    for time in (f"{least}ms", f"{most}d"):
        bench.command("status", run_id, "--watch", "--interval", time, ends=0)
    return "".join(
        bench.command("status", run_id, "--interval", time, ends=2) for time in (f"{least - 1}ms", f"{most + 1}d")
    )


@cache
def refused_by_terraform() -> str:
    """What Terraform says of variables that are all beyond their limits; of those at them it says nothing."""
    of = {row.what: row.numbers for row in rows([ROOT / "docs/deploy.md"])}
    (_, project, *_), (_, name, *_) = of["`project_id`"], of["`name`"]
    seconds, days = of["`function_defaults.timeout_seconds`, and of each function"][1], of["`keep_runs_days`"][0]
    concurrency, instances = of["`orchestrator.concurrency`"][1], of["`orchestrator.max_instances`"][0]
    noncurrent = of["`noncurrent_days`"][0]

    def at(more: int) -> Mapping[str, object]:
        return {
            "project_id": "p" * (project + more),
            "region": "europe-west1",
            "name": "n" * (name + more),
            "orchestrator": {"concurrency": concurrency + more, "max_instances": instances - more},
            "function_defaults": {"timeout_seconds": seconds + more},
            "functions": {"f": {"timeout_seconds": seconds + more}},
            "noncurrent_days": noncurrent - more,
            "keep_runs_days": days - more,
        }

    with TemporaryDirectory() as folder:
        shutil.copy(ROOT / "terraform/variables.tf", folder)  # which need no provider
        variables = Module(folder, Path(folder))
        variables.plan(**at(0))
        with pytest.raises(Refused) as refused:
            variables.plan(**at(1))
    return str(refused.value)


@beyond(
    "docs/deploy.md",
    *("`project_id`", "`name`", "`orchestrator.concurrency`", "`orchestrator.max_instances`"),
    *("`function_defaults.timeout_seconds`", "`noncurrent_days`", "`keep_runs_days`"),
)
def _(bench: Bench, row: Row) -> str:
    needs_terraform()
    return refused_by_terraform()


@beyond("docs/deploy.md", "a log sink's filter")
def _(bench: Bench, row: Row) -> str:
    needs_terraform()
    names = [f"w{number:04}{'x' * 59}" for number in range(row.most // 64 + 1)]
    steps = {
        f"S{number}": calling(target_type="Workflows", target_name=name)["steps"]["A"]
        for number, name in enumerate(names)
    }
    bench.write({"start": "S0", "steps": steps})
    (bench.root / "work").mkdir()
    with pytest.raises(Refused) as refused:
        Module("definitions", bench.root / "work").outputs(
            folder=str(bench.root), name="orchestrator", project_id="my-project", region="europe-west1"
        )
    return str(refused.value)


def needs_terraform() -> None:
    if shutil.which("terraform") is None:
        pytest.skip("terraform is not installed")


ELSEWHERE |= {
    ("docs/deploy.md", "Parallels and Maps in one another"): (
        "tests/terraform/test_definitions.py::test_what_is_deeper_than_it_can_see_is_refused"
    ),
    ("docs/deploy.md", "names of functions that are deployed"): (
        "tests/terraform/test_definitions.py::test_what_cannot_be_deployed_is_refused"
    ),
}

# ---- docs/observability.md -------------------------------------------------------------------------------


@beyond("docs/observability.md", "runs of `orchestrator runs`")
def _(bench: Bench, row: Row) -> str:
    with DAGExecutor(passing(1), f"file://{bench.root / '.orchestrator'}") as executor:
        for number in range(row.most):
            executor.wait(executor.start(run_id=f"r{number}"), 30)
        assert "--limit" not in bench.command("runs", ends=0)
        executor.wait(executor.start(run_id="more"), 30)
    assert "--limit" not in bench.command("runs", "--limit", str(row.most + 1), ends=0)[len("runs --limit 21") :]
    return bench.command("runs", ends=0)


@beyond("docs/observability.md", "lines of `orchestrator logs`")
def _(bench: Bench, row: Row) -> str:
    folder = bench.write(calling(target_type="CloudFunction", target_name="f"))
    (folder / "functions" / "f").mkdir(parents=True)
    loud = f"def main(request):\n    print('line\\n' * {row.most + 50}, flush=True)\n    return {{}}\n"
    (folder / "functions" / "f" / "main.py").write_text(loud)
    bench.command("run", folder, ends=0)
    (run_id,) = bench.place.run_ids()
    said = bench.command("logs", run_id, ends=0)
    assert said.count("line") <= row.most + 2
    return said


def shown(bench: Bench, result: object) -> str:
    return bench.command("run", bench.write(passing(result)), ends=0)


@beyond("docs/observability.md", "steps of the results")
def _(bench: Bench, row: Row) -> str:
    steps = {f"S{number}": {"type": "Pass", "result": number} for number in range(row.most + 1)}
    return bench.command("run", bench.write(dag(P=parallel(*(dag(**{n: step}) for n, step in steps.items())))), ends=0)


@beyond("docs/observability.md", "fields of a result")
def _(bench: Bench, row: Row) -> str:
    assert " more" not in shown(bench, {f"f{number}": 1 for number in range(row.most)})
    return shown(bench, {f"f{number}": 1 for number in range(row.most + 1)})


@beyond("docs/observability.md", "rows of a table")
def _(bench: Bench, row: Row) -> str:
    assert " more" not in shown(bench, [{"a": 1, "b": 2}] * row.most)
    return shown(bench, [{"a": 1, "b": 2}] * (row.most + 1))


@beyond("docs/observability.md", "characters of a text")
def _(bench: Bench, row: Row) -> str:
    assert "x" * row.most in shown(bench, "x" * row.most).replace("\n", "")
    said = shown(bench, "x" * (row.most + 1))
    assert "x" * (row.most + 1) not in said.replace("\n", "")
    return said


@beyond("docs/observability.md", "runs that `orchestrator prune` names")
def _(bench: Bench, row: Row) -> str:
    with DAGExecutor(passing(1), f"file://{bench.root / '.orchestrator'}") as executor:
        for number in range(row.most + 1):
            run_id = executor.start(run_id=f"r{number}")
            executor.wait(run_id, 30)
    for file in (bench.root / ".orchestrator" / "runs").glob("*.json"):
        file.write_text(re.sub(r'"ended_at":"[^"]*"', '"ended_at":"2020-01-01T00:00:00Z"', file.read_text()))
    return bench.command("prune", "--older-than", "30d", "--dry-run", ends=0)
