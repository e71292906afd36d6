"""What Terraform makes of definitions is what Python makes of them: tasks, names, environment, messages, filters."""

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.brokers.pubsub import TOPIC
from orchestrator.model.dag_builder import DAGBuilder
from orchestrator.model.enums import TargetTypes
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.events import CompletionEvent, StartEvent
from orchestrator.model.ids import key_of
from orchestrator.model.messages import tick_message
from orchestrator.model.schedule import last_tick
from orchestrator.model.templates import names_in
from orchestrator.runtime.catalog import DagFolders
from orchestrator.runtime.logs import JsonFormatter
from orchestrator.runtime.settings import TABLE, Settings
from orchestrator.services.cloud_tasks import QUEUE
from tests.support.logging_query import matches
from tests.support.terraform import ROOT, Module, Refused, needs_terraform

pytestmark = needs_terraform

PAYLOADS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/payloads").glob("*.json"))}
CORPUS = ROOT / "tests/definitions/valid"
VALID = sorted(CORPUS.glob("*.json"))
PROJECT, REGION, NAME = "my-project", "europe-west1", "orchestrator"
AT = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC)


def call(name: str, **keys: object) -> dict:
    return {"type": "Task", "target_type": "CloudFunction", "target_name": name, **keys}


def job(target_type: str, name: str = "x", **keys: object) -> dict:
    return {"type": "Task", "target_type": target_type, "target_name": name, **keys}


def dag(**steps: dict) -> dict:
    """A definition whose steps follow one another."""
    names = [*steps, None]
    following = {name: {"next": names[index + 1]} if names[index + 1] else {} for index, name in enumerate(steps)}
    return {"start": names[0], "steps": {name: {**step, **following[name]} for name, step in steps.items()}}


@pytest.fixture(scope="module")
def module(tmp_path_factory) -> Module:
    return Module("definitions", tmp_path_factory.mktemp("definitions"))


@pytest.fixture
def made(module, tmp_path):
    """made({"dag": definition}, files=[…]) -> the module's outputs."""

    def make(definitions: dict, files: dict | None = None, **variables: object) -> dict:
        for name, definition in definitions.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "dag.json").write_text(json.dumps(definition))
        for name, content in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        return outputs(module, tmp_path, **variables)

    return make


def outputs(module: Module, folder: Path, **variables: object) -> dict:
    return module.outputs(**{"folder": str(folder), "name": NAME, "project_id": PROJECT, "region": REGION, **variables})


@pytest.fixture(scope="module")
def samples(module) -> dict:
    return outputs(module, ROOT / "dag_definitions")


@pytest.fixture(scope="module")
def corpus(module, tmp_path_factory) -> tuple[dict, Path]:
    """Every valid definition of the corpus, each as a DAG."""
    folder = tmp_path_factory.mktemp("corpus")
    for path in VALID:
        (folder / path.stem).mkdir()
        (folder / path.stem / "dag.json").write_text(path.read_text())
    pools = {pool for path in VALID for pool in DAGBuilder(json.loads(path.read_text())).build_dag().pools}
    assert pools
    return outputs(module, folder, pools=",".join(f"{pool}=5" for pool in sorted(pools))), folder


# ---- the same definitions ------------------------------------------------------------------------------


def functions_of(folder: Path) -> set[str]:
    """project/region/name of what the CloudFunction steps call, as the engine sees them."""
    found = set()
    for definition in DagFolders(folder).values():
        for task in DAGBuilder(definition).build_dag().all_tasks:
            if task.target_type is TargetTypes.CLOUD_FUNCTION:
                (launch,) = task.execute()
                project, region = launch.step.get("project_id", PROJECT), launch.step.get("region", REGION)
                found.add(f"{project}/{region}/{launch.target_name}")
    return found


def test_a_pool_whose_limit_is_not_set_is_named(module, tmp_path):
    (tmp_path / "queues").mkdir()
    (tmp_path / "queues" / "dag.json").write_text((CORPUS / "queues_of_both_kinds.json").read_text())
    with pytest.raises(Refused, match=r"settings\.POOLS: gives the pool api_2, bigquery no limit"):
        outputs(module, tmp_path)
    with pytest.raises(Refused, match='gives the pool bigquery no limit; write it as in "bigquery=5"'):
        outputs(module, tmp_path, pools="api_2=3 spare=1")


def test_it_sees_the_functions_of_the_samples(samples):
    assert set(samples["functions"]) == functions_of(ROOT / "dag_definitions")
    assert all(function["is_deployed"] for function in samples["functions"].values())


def test_it_sees_the_tasks_of_every_valid_definition(corpus):
    made, folder = corpus
    found = DagFolders(folder)
    types = {str(task.target_type) for one in found.values() for task in DAGBuilder(one).build_dag().all_tasks}
    assert set(made["definitions"]) == set(found)
    assert set(made["functions"]) == functions_of(folder)
    assert set(made["target_types"]) == types
    assert {name for name, one in found.items() if "schedule" in one} == {
        json.loads(scheduled["message"])["dag"]
        for scheduled in made["jobs"].values()
        if "dag" in json.loads(scheduled["message"])
    }


def test_it_knows_every_target_type_there_is(made):
    steps = {f"S{number}": job(target) for number, target in enumerate(TargetTypes)}
    assert set(made({"all": dag(**steps)})["target_types"]) == set(TargetTypes)


@pytest.mark.parametrize("target_type", TargetTypes)
def test_compute_engine_is_enabled_for_the_services_whose_workers_are_machines(made, target_type):
    apis = made({"one": dag(A=job(target_type))})["apis"]
    on_machines = (TargetTypes.DATAFLOW, TargetTypes.DATAPROC, TargetTypes.BATCH)
    assert ("compute.googleapis.com" in apis) == (target_type in on_machines)


def test_json_yaml_and_yml_are_read_as_the_engine_reads_them(made, tmp_path):
    yaml = "start: A\nsteps:\n  A: {type: Task, target_type: CloudFunction, target_name: NAME}\n"
    files = {f"{name}/dag.{ending}": yaml.replace("NAME", f"{name}-{ending}") for name, ending in ENDINGS}
    found = made({"both": dag(A=call("both-json"))}, files)
    assert set(found["functions"]) == functions_of(tmp_path)
    assert {function["name"] for function in found["functions"].values()} == {"both-json", "one-yaml", "two-yml"}


ENDINGS = [("both", "yaml"), ("one", "yaml"), ("two", "yml")]


def nested(levels: int) -> dict:
    """A definition with a function at the bottom of so many Parallels."""
    inner = dag(Bottom=call("deep"))
    for level in range(levels):
        inner = {
            "start": f"P{level}",
            "steps": {f"P{level}": {"type": "Parallel", "branches": [inner, inner_of(level)]}},
        }
    return inner


def inner_of(level: int) -> dict:
    return dag(**{f"Side{level}": call(f"side-{level}")})


def test_tasks_are_found_in_finally_and_beside_steps_that_launch_nothing(made, tmp_path):
    last = {"start": "P", "steps": {"P": {"type": "Parallel", "branches": [dag(Mail=call("mail"))]}}}
    steps = {
        "Look": {"type": "Condition", "choices": [{"when": "${run.input.x}", "next": "Load"}], "default": "Hold"},
        "Load": {**call("load"), "next": "Make"},
        "Hold": {"type": "Wait", "for": "1m", "next": "Make"},
        "Make": {"type": "Pass", "result": {"branches": [1]}, "next": "Stop"},
        "Stop": {"type": "End"},
    }
    found = made({"one": {"start": "Look", "steps": steps, "finally": last}})
    assert set(found["functions"]) == {f"{PROJECT}/{REGION}/load", f"{PROJECT}/{REGION}/mail"}
    assert set(found["functions"]) == functions_of(tmp_path)


def test_tasks_are_found_eight_parallels_deep_and_deeper_is_said(made):
    found = made({"deep": nested(8)})
    assert f"{PROJECT}/{REGION}/deep" in found["functions"]
    assert len(found["functions"]) == 9


def test_what_is_deeper_than_it_can_see_is_refused(made):
    with pytest.raises(Refused, match="deep: has Parallels more than 8 levels deep"):
        made({"deep": nested(9)})


# ---- names, environment, messages ----------------------------------------------------------------------


def test_the_environment_has_the_names_and_the_forms_of_the_settings(samples):
    environment = samples["environment"]
    secret = set(re.findall(r'key += "([A-Z_]+)"', (ROOT / "terraform/function_orchestrator.tf").read_text()))
    assert secret == {"DEPLOYMENT_KEY"}
    assert set(environment) <= {setting.name for setting in TABLE} - secret
    settings = Settings.read(environment)
    assert TOPIC.fullmatch(settings.events_topic)
    assert QUEUE.fullmatch(settings.tasks_queue)
    assert settings.status_bucket == f"gs://{samples['names']['state_bucket']}"
    assert (settings.project, settings.region) == (PROJECT, REGION)
    assert settings.invoker_service_account == samples["emails"]["invoker"]
    assert settings.dataflow_templates.startswith(f"gs://{samples['names']['dataflow_bucket']}/")


def test_the_tick_is_the_engines_own_message(samples):
    tick = samples["jobs"]["orchestrator-tick"]
    assert json.loads(tick["message"]) == tick_message()
    assert tick["schedule"] == "* * * * *"


def test_the_message_of_a_schedule_starts_its_dag_for_the_schedules_last_tick(made):
    daily = {**dag(A=call("a")), "schedule": "30 6 * * 1-5", "time_zone": "Europe/Berlin"}
    found = made({"daily": daily, "in utc": {**daily, "time_zone": "Etc/UTC"}, "by-hand": dag(A=call("a"))})["jobs"]
    assert set(found) == {"orchestrator-tick", "orchestrator-start-daily", "orchestrator-start-in-utc"}
    scheduled = found["orchestrator-start-daily"]
    assert (scheduled["schedule"], scheduled["time_zone"]) == ("30 6 * * 1-5", "Europe/Berlin")
    event = EventFactory.create_from_event(json.loads(scheduled["message"]), message_id="1", publish_time=AT)
    assert isinstance(event, StartEvent)
    assert event.dag == "daily"
    assert event.scheduled_for == last_tick("30 6 * * 1-5", "Europe/Berlin", AT)


# ---- triggers ------------------------------------------------------------------------------------------


def triggered(*triggers: dict) -> dict:
    return {**dag(A=call("a")), "triggers": list(triggers)}


def in_bucket(bucket: str, **more: str) -> dict:
    return {"object": {"bucket": bucket, **more}}


def test_a_bucket_tells_of_the_one_prefix_that_all_triggers_look_at_or_of_all_objects(made):
    found = made(
        {
            "one": triggered(in_bucket("a", prefix="in/"), in_bucket("b", prefix="x/"), in_bucket("c")),
            "two": triggered(in_bucket("a", prefix="in/", suffix=".csv"), in_bucket("b", prefix="x/y/")),
            "three": dag(A=call("a")),
        }
    )
    assert found["trigger_buckets"] == {"a": "in/", "b": "", "c": ""}
    assert found["trigger_topics"] == {}


def test_each_topic_has_a_subscription_of_its_own_name(made):
    topics = [f"projects/{PROJECT}/topics/orders", "projects/other/topics/orders", f"projects/p/topics/{'o.' * 127}"]
    found = made({"one": triggered({"topic": topics[0]}, {"topic": topics[1]}), "two": triggered({"topic": topics[2]})})
    assert set(found["trigger_topics"]) == set(topics)
    names = [each["subscription"] for each in found["trigger_topics"].values()]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"[a-z][A-Za-z0-9_.~+%-]{2,254}", name) for name in names)
    assert found["trigger_topics"][topics[1]]["project"] == "other"


@pytest.mark.parametrize(
    ("trigger", "why"),
    [
        (in_bucket(f"{PROJECT}-{NAME}-state"), "where each run that it starts writes"),
        ({"topic": f"projects/{PROJECT}/topics/{NAME}-events"}, "is a topic of the orchestrator itself"),
        ({"topic": f"projects/{PROJECT}/topics/{NAME}-dead-letters"}, "is a topic of the orchestrator itself"),
    ],
)
def test_what_is_the_orchestrators_own_starts_nothing(made, trigger, why):
    with pytest.raises(Refused, match=why):
        made({"one": triggered(trigger)})


# ---- sinks: what wakes the orchestrator ----------------------------------------------------------------

WIDER = {
    "cloud_function_gen1_without_ids": "a filter that asks for either id would cost more than such a line",
    "audit_cloud_run_job": "whether it was launched by us stands in a list in a list of the entry",
}
"""Payloads that are nobody's, and that the sinks deliver all the same."""

ENTRIES = {name: entry for name, entry in PAYLOADS.items() if "logName" in entry}
"""What comes by way of a log sink; other events come by other ways."""


def wakes(sinks: dict, entry: dict) -> set[str]:
    """Names of the sinks that deliver an entry."""
    return {name for name, sink in sinks.items() if matches(sink["filter"], entry)}


@pytest.fixture(scope="module")
def all_named(module, tmp_path_factory) -> dict:
    """Sinks of a definition that names every function and job of the payloads."""
    folder = tmp_path_factory.mktemp("named")
    definitions = {
        "functions": dag(Init=call("orch-test-1"), Reports=call("reports")),
        "dataflow": dag(Step1=job("Dataflow", "wordcount")),
        "jobs": dag(Nightly=job("CloudRunJob", "nightly"), Mails=job("Workflows", "send-mails")),
        "bigquery": dag(Step1=job("BigQuery", "query")),
        "vertex": dag(Step1=job("VertexPipeline", "train")),
    }
    for name, definition in definitions.items():
        (folder / name).mkdir()
        (folder / name / "dag.json").write_text(json.dumps(definition))
    return outputs(module, folder)["sinks"]


@pytest.mark.parametrize("name", ENTRIES)
def test_the_sinks_deliver_what_the_engine_takes_for_an_end_and_nothing_else(all_named, name):
    event = EventFactory.create_from_event(ENTRIES[name], message_id="1", publish_time=AT)
    assert isinstance(event, CompletionEvent | None)
    assert len(wakes(all_named, ENTRIES[name])) == (1 if event is not None or name in WIDER else 0)


def test_there_are_entries_of_both_kinds(all_named):
    delivered = [name for name in ENTRIES if wakes(all_named, ENTRIES[name])]
    assert len(delivered) >= 12
    assert len(ENTRIES) - len(delivered) >= 6


OF_THE_SAMPLES = {
    *("cloud_function_gen1", "cloud_function_gen1_ok", "cloud_function_gen1_500", "cloud_function_gen1_bare_trace"),
    *("cloud_function_gen1_crash", "cloud_function_gen1_timeout", "cloud_function_gen1_without_ids"),
    *("cloud_run_request_gen2", "cloud_run_403", "cloud_run_500", "cloud_run_504"),
}


def test_the_sinks_of_the_samples_deliver_their_functions_ends_only(samples):
    """The payloads' Dataflow job and the service `reports` are of other definitions."""
    assert {name for name, entry in PAYLOADS.items() if wakes(samples["sinks"], entry)} == OF_THE_SAMPLES


def dataflow_line(job_name: str, text: str = "Worker pool stopped.") -> dict:
    entry = json.loads(json.dumps(PAYLOADS["dataflow_worker_pool_stopped"]))
    entry["resource"]["labels"]["job_name"] = entry["labels"]["dataflow.googleapis.com/job_name"] = job_name
    return {**entry, "textPayload": text}


@pytest.mark.parametrize(
    ("job_name", "expected"),
    [
        pytest.param(key_of("run_1_a/Count/1"), {"orchestrator-dataflow"}, id="the sample's job"),
        pytest.param(key_of("run_1_a/Count/12"), {"orchestrator-dataflow"}, id="its twelfth attempt"),
        pytest.param(key_of("run_1_a/Counter/1"), set(), id="a step that begins alike"),
        pytest.param("orch-count", set(), id="a job that only looks alike"),
        pytest.param("count-words-nightly", set(), id="somebody else's job"),
        pytest.param(f"x{key_of('run_1_a/Count/1')}", set(), id="ours inside of another name"),
    ],
)
def test_only_the_jobs_that_the_samples_launch_wake_it(samples, job_name, expected):
    assert wakes(samples["sinks"], dataflow_line(job_name)) == expected


def own_log(message: str, level: str = "INFO", **extra: object) -> dict:
    """The entry that Cloud Run makes of a line of the orchestrator's log."""
    import logging

    record = logging.makeLogRecord({"name": "orchestrator", "levelname": level, "msg": message, **extra})
    line = json.loads(JsonFormatter(PROJECT).format(record))
    special = {key: line.pop(key) for key in tuple(line) if key.startswith("logging.googleapis.com/")}
    return {
        "logName": f"projects/{PROJECT}/logs/run.googleapis.com%2Fstdout",
        "resource": {"type": "cloud_run_revision", "labels": {"service_name": NAME, "location": REGION}},
        "severity": line.pop("severity"),
        "labels": special.get("logging.googleapis.com/labels", {}),
        "trace": special.get("logging.googleapis.com/trace", ""),
        "jsonPayload": line,
    }


def own_entries() -> Iterator[tuple[str, dict]]:
    """What the orchestrator itself leaves in the log, the words of others' ends in it."""
    request = PAYLOADS["orchestrator_own_request"]
    yield "its request", request
    theirs = PAYLOADS["cloud_run_request_gen2"]["httpRequest"]["requestUrl"]
    yield (
        "its request with a launch in it",
        {**request, "httpRequest": {**request["httpRequest"], "requestUrl": theirs}},
    )
    for text in ("Function execution took 4 ms, finished with status code: 200", "Worker pool stopped.", theirs):
        yield f"its log: {text[:40]}", own_log(text)
        yield f"its print: {text[:40]}", {**own_log(""), "textPayload": text}
        yield f"its print with a request: {text[:40]}", {**own_log(text), "httpRequest": request["httpRequest"]}


@pytest.mark.parametrize("what", [name for name, _ in own_entries()])
def test_nothing_that_it_writes_itself_wakes_it(samples, all_named, what):
    entry = dict(own_entries())[what]
    assert wakes(samples["sinks"], entry) == set()
    assert wakes(all_named, entry) == set()


def test_a_function_with_the_orchestrators_name_is_refused(made):
    """Its ends would be taken for the orchestrator's own, and never come."""
    with pytest.raises(Refused, match="has the orchestrator's own name"):
        made({"one": dag(A=call("orchestrator"))})


def test_keys_of_steps_are_recognised_whatever_their_names(made):
    draw = random.Random(4)
    letters = "abcXYZ019_-"
    names = {"_", "-", "A" * 64, "a" * 19 + "-b", "x--y__z", "0", *(f"{'a' * 20}{number}" for number in range(3))}
    names |= {"".join(draw.choices(letters, k=draw.randint(1, 64))) for _ in range(60)}
    sinks = made({"many": dag(**{name: job("Dataflow") for name in sorted(names)})})["sinks"]
    for name in names:
        assert wakes(sinks, dataflow_line(key_of(f"run_1_a/{name}/7"))), name
    assert not wakes(sinks, dataflow_line(key_of("run_1_a/another/7")))


def test_many_functions_are_spread_over_filters_that_google_takes(made):
    names = [f"{'f' * 55}-{number:03d}" for number in range(250)]
    sinks = made({"many": dag(**{f"S{number}": call(name) for number, name in enumerate(names)})})["sinks"]
    assert len(sinks) == 4
    entry = json.loads(json.dumps(PAYLOADS["cloud_run_request_gen2"]))
    for name in (names[0], names[79], names[80], names[-1]):
        entry["resource"]["labels"]["service_name"] = name
        assert len(wakes(sinks, entry)) == 1, name


def test_other_regions_and_projects_have_sinks_of_their_own(made):
    there = call("orch-test-1", region="us-east1")
    elsewhere = call("orch-test-1", project_id="other-project")
    sinks = made({"wide": dag(A=call("orch-test-1"), B=there, C=elsewhere)})["sinks"]
    assert {name: sink["project"] for name, sink in sinks.items()} == {
        "orchestrator-functions-europe-west1": PROJECT,
        "orchestrator-functions-us-east1": PROJECT,
        "orchestrator-functions-europe-west1-other-project": "other-project",
    }
    entry = json.loads(json.dumps(PAYLOADS["cloud_run_request_gen2"]))
    entry["resource"]["labels"]["location"] = "us-east1"
    assert wakes(sinks, entry) == {"orchestrator-functions-us-east1"}


KEY = key_of("run_1_a/Load/1")


def bigquery(after: str = "DONE", name: str = KEY) -> dict:
    entry = json.loads(json.dumps(PAYLOADS["audit_bigquery_job"]))
    change = entry["protoPayload"]["metadata"]["jobChange"]
    change["after"], change["job"]["jobName"] = after, f"projects/{PROJECT}/jobs/{name}"
    return entry


def audit_of_a_run_job(name: str) -> dict:
    entry = json.loads(json.dumps(PAYLOADS["audit_cloud_run_job"]))
    entry["resource"]["labels"]["job_name"] = name
    return entry


def line_of(log_id: str, resource_type: str, label: str, name: str, state: str) -> dict:
    """An entry of a service's own log, as GCP documents them."""
    return {
        "logName": f"projects/{PROJECT}/logs/{log_id.replace('/', '%2F')}",
        "resource": {"type": resource_type, "labels": {label: name, "location": REGION}},
        "jsonPayload": {"state": state},
    }


def workflow(name: str, state: str) -> dict:
    return line_of(
        "workflows.googleapis.com/executions_system", "workflows.googleapis.com/Workflow", "workflow_id", name, state
    )


def pipeline(name: str, state: str) -> dict:
    log_id, resource = "aiplatform.googleapis.com/pipeline_job_events", "aiplatform.googleapis.com/PipelineJob"
    return line_of(log_id, resource, "pipeline_job_id", name, f"PIPELINE_STATE_{state}")


@pytest.mark.parametrize(
    ("target_type", "theirs", "others"),
    [
        pytest.param(
            "CloudRunJob", [audit_of_a_run_job("x")], [audit_of_a_run_job("nightly")], id="a Cloud Run job by its name"
        ),
        pytest.param(
            "BigQuery",
            [bigquery()],
            [bigquery("RUNNING"), bigquery(name="bquxjob_1"), bigquery(name=key_of("run_1_a/Other/1"))],
            id="a BigQuery job by our id, done",
        ),
        pytest.param(
            "Workflows",
            [workflow("x", "SUCCEEDED"), workflow("x", "FAILED"), workflow("x", "CANCELLED")],
            [workflow("x", "ACTIVE"), workflow("y", "SUCCEEDED")],
            id="a workflow by its name, ended",
        ),
        pytest.param(
            "VertexPipeline",
            [pipeline(KEY, "SUCCEEDED"), pipeline(KEY, "FAILED")],
            [pipeline(KEY, "RUNNING"), pipeline("nightly", "SUCCEEDED")],
            id="a pipeline by our id, ended",
        ),
        pytest.param("Dataproc", [], [bigquery(), workflow("x", "SUCCEEDED")], id="Dataproc leaves no clean line"),
        pytest.param("Batch", [], [bigquery(), workflow("x", "SUCCEEDED")], id="Batch leaves none either"),
    ],
)
def test_the_ends_of_other_services_jobs(made, target_type, theirs, others):
    sinks = made({"one": dag(Load=job(target_type, "x"))})["sinks"]
    assert len(sinks) == (1 if theirs else 0)
    for entry in theirs:
        assert len(wakes(sinks, entry)) == 1
    for entry in [*others, *PAYLOADS.values()]:
        assert wakes(sinks, entry) == set()


# ---- alerts --------------------------------------------------------------------------------------------

SINK_ERROR = {
    "logName": f"projects/{PROJECT}/logs/logging.googleapis.com%2Fsink_error",
    "resource": {"type": "logging_sink", "labels": {"name": "orchestrator-dataflow", "project_id": PROJECT}},
    "labels": {"error_code": "topic_permission_denied"},
}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(
            own_log("run ended: Failed: run_1_a of x: Task.Failed: no", "ERROR"), {"failed-runs"}, id="failed"
        ),
        pytest.param(own_log("run ended: Completed: run_1_a of x"), set(), id="completed"),
        pytest.param(
            own_log("run late: run_1_a of x: had not ended by 2026-01-31 06:00:00 UTC", "WARNING"),
            {"late-runs"},
            id="late",
        ),
        pytest.param(own_log("run ended: Cancelled: run_1_a of x"), set(), id="cancelled by a person"),
        pytest.param(
            own_log("acknowledged, but not handled: x (kept as dead_letters/y.json)", "ERROR"),
            {"dead-letters"},
            id="a dead letter",
        ),
        pytest.param(own_log("put off: run ended: Failed", "WARNING"), set(), id="the words inside of others"),
        pytest.param(SINK_ERROR, {"sink-errors"}, id="a sink of ours"),
        pytest.param(
            {**SINK_ERROR, "resource": {"type": "logging_sink", "labels": {"name": "audit-archive"}}},
            set(),
            id="somebody else's sink",
        ),
        pytest.param(PAYLOADS["cloud_run_500"], set(), id="a failed function is the run's business"),
    ],
)
def test_what_a_person_is_told_of(samples, entry, expected):
    assert {key for key, alert in samples["alerts"].items() if matches(alert["filter"], entry)} == expected


# ---- topics that are told, secrets that are given ------------------------------------------------------


def told(*topics: str) -> dict:
    """A definition whose failed runs are told to these topics, and to a webhook."""
    receivers = [*({"topic": topic} for topic in topics), {"url": "https://x-ew.a.run.app/"}]
    return {**dag(A=call("a")), "notify": [{"on": ["failed"], **receiver} for receiver in receivers]}


def topic_names(found: dict) -> set[str]:
    """The names of the topics, put together from what is granted on."""
    return {f"projects/{topic['project']}/topics/{topic['name']}" for topic in found["notified_topics"].values()}


def test_the_topics_that_are_told_are_those_of_all_definitions_and_of_the_setting(made):
    ours, theirs, of_all = (
        f"projects/{where}" for where in (f"{PROJECT}/topics/a", "other/topics/b", "x.org:p/topics/c")
    )
    setting = json.dumps([{"on": ["failed"], "topic": of_all}, {"on": ["failed"], "topic": ours}])
    found = made({"one": told(ours, theirs), "two": told(ours), "three": dag(A=call("a"))}, notify=setting)
    assert set(found["notified_topics"]) == topic_names(found) == {ours, theirs, of_all}


def test_the_topics_that_callbacks_tell_their_tokens_are_among_them_at_any_depth(made):
    topics = [f"projects/other/topics/{name}" for name in ("asked", "asked-inside", "asked-at-last")]
    asking = [{"type": "Task", "target_type": "Callback", "topic": topic} for topic in topics]
    inside = {"type": "Parallel", "branches": [dag(B=asking[1]), dag(C={**asking[0], "topic": topics[0]})]}
    found = made({"one": {**dag(A=asking[0], P=inside), "finally": dag(F=asking[2])}})
    assert topic_names(found) == set(topics)


@pytest.mark.parametrize(
    ("definition", "setting"),
    [
        pytest.param(dag(A=call("a")), "", id="no notify at all"),
        pytest.param(told(), "", id="a webhook only"),
        pytest.param(told(), '[{"on": ["failed"], "url": "https://x-ew.a.run.app/"}]', id="a webhook in the setting"),
        pytest.param(told(), "no JSON", id="a setting that the orchestrator itself refuses"),
        pytest.param(
            told(f"projects/{PROJECT}/topics/{NAME}-events"), "", id="the topic of events has its right already"
        ),
    ],
)
def test_no_right_is_given_where_no_topic_of_others_is_told(made, definition, setting):
    assert made({"one": definition}, notify=setting)["notified_topics"] == {}


ASKING = [
    *("${secret.api-key}", "Bearer ${secret.in_text}!", "${secret.first}${secret.second}", "${secret.UPPER-1_x}"),
    *("${ secret.spaced }", "${\tsecret.tabbed}", "${\nsecret.on_a_new_line}"),
    *('${secret["double"]}', "${secret['single']}", '${ secret["both-1"] }'),
    *("$${x ${secret.after_a_literal}", "${run.run_id}${secret.after_a_path}", "<&> ${secret.after_signs}"),
    *("$${secret.a_literal}", "$$${secret.more_dollars}", "$ {secret.apart}", "secret.bare", "${var.secret.no_root}"),
    *("${run.input.secret.deeper}", "${steps.A.result.secret}", "${secrets.plural}", "${var.a + 'secret.text'}"),
]
"""Texts of parameters that ask for a secret, or look as if they did."""


def test_the_secrets_that_steps_are_given_are_those_that_the_engine_reads(made):
    found = made(
        {"one": dag(**{f"S{number}": call("a", parameters={"x": text}) for number, text in enumerate(ASKING)})}
    )
    expected = names_in(ASKING, "secret")
    assert len(expected) == 14
    assert found["secrets"] == {name: {"project": PROJECT, "name": name} for name in expected}


def test_secrets_are_found_at_any_depth_in_any_target_and_in_yaml(made):
    branches = [
        dag(A=job("CloudRunJob", parameters={"args": [{"deep": ["--key=${secret.in-a-branch}"]}]})),
        dag(B=call("b", parameters={"x": "${secret.shared}"})),
    ]
    steps = {"P": {"type": "Parallel", "branches": branches}}
    last = dag(Mail=call("mail", parameters={"password": "${secret.in-finally}"}))
    yaml = (
        "start: A\nsteps:\n  A: {type: Task, target_type: Function, function: 'm:f', "
        "parameters: {x: '${secret[\"in-yaml\"]} ${secret.shared}'}}\n"
    )
    found = made({"one": {"start": "P", "steps": steps, "finally": last}}, {"two/dag.yaml": yaml})
    assert set(found["secrets"]) == {"in-a-branch", "shared", "in-finally", "in-yaml"}


def test_a_secret_is_none_where_the_engine_reads_none(made):
    about = {"description": "Calls with ${secret.in-words}.", "owner": "a"}
    steps = {"A": {**call("a", parameters={"x": "y"}), "description": "${secret.in-a-steps-words}"}}
    assert made({"one": {**about, "start": "A", "steps": steps}})["secrets"] == {}


def test_the_deployments_own_key_is_given_once(made):
    """Two grants of one right: whoever takes back the one takes back the other."""
    found = made({"one": dag(A=call("a", parameters={"x": f"${{secret.{NAME}-deployment-key}} ${{secret.other}}"}))})
    assert set(found["secrets"]) == {"other"}


# ---- functions -----------------------------------------------------------------------------------------

MAIN = "def main(request):\n    return {}\n"


def test_functions_with_their_source_here_are_deployed_others_are_taken_as_existing(made):
    steps = dag(A=call("here"), B=call("elsewhere"), C=call("here", project_id="other-project"))
    found = made({"one": steps}, {"one/functions/here/main.py": MAIN, "one/functions/unused/main.py": MAIN})
    assert {key: function["folder"] for key, function in found["functions"].items()} == {
        f"{PROJECT}/{REGION}/here": "one/functions/here",
        f"{PROJECT}/{REGION}/elsewhere": "",
        f"other-project/{REGION}/here": "",
    }


def test_a_dag_can_opt_out(made):
    found = made({"one": dag(A=call("here"))}, {"one/functions/here/main.py": MAIN}, skip_functions_of=["one"])
    assert not found["functions"][f"{PROJECT}/{REGION}/here"]["is_deployed"]


def test_who_calls_a_function_depends_on_how(made):
    steps = dag(
        A=call("both"), B=call("both", invocation="sync"), C=call("queued"), D=call("direct", invocation="sync")
    )
    found = made({"one": steps})["functions"]
    assert {function["name"]: function["callers"] for function in found.values()} == {
        "both": ["invoker", "orchestrator"],
        "queued": ["invoker"],
        "direct": ["orchestrator"],
    }


@pytest.mark.parametrize(
    ("definitions", "files", "variables", "message"),
    [
        pytest.param({}, [], {}, "has no DAG; write a folder with a dag.json", id="no DAG"),
        pytest.param(
            {"one": dag(A=call("f")), "two": dag(A=call("f"))},
            ["one/functions/f/main.py", "two/functions/f/main.py"],
            {},
            "Functions with two sources, of which only one can be deployed under the name: "
            "my-project/europe-west1/f: one/functions/f and two/functions/f",
            id="one name, two sources",
        ),
        pytest.param(
            {"one": dag(A=call("f"), B=call("f", function="other"))},
            ["one/functions/f/main.py"],
            {},
            "my-project/europe-west1/f: main and other",
            id="one function, two entry points",
        ),
        pytest.param(
            {"one": dag(A=call("F_1"))}, ["one/functions/F_1/main.py"], {}, "F_1: cannot be deployed", id="a bad name"
        ),
        pytest.param({"one": dag(A=job("Lambda"))}, [], {}, "target_type Lambda: is not known here", id="a bad type"),
        pytest.param({"one": dag(A=call("f"))}, [], {"default_dag": "two"}, "there is no DAG two", id="a bad default"),
        pytest.param(
            {"one": dag(A=call("f"))},
            [],
            {"skip_functions_of": ["two"]},
            "skip_functions_of: there is no DAG two",
            id="a bad opt-out",
        ),
        pytest.param(
            {name: {**dag(A=call("f")), "schedule": "* * * * *"} for name in ("a b", "a-b")},
            [],
            {},
            "one name: a b and a-b. Rename one",
            id="two jobs of one name",
        ),
    ],
)
def test_what_cannot_be_deployed_is_refused(made, definitions, files, variables, message):
    with pytest.raises(Refused) as caught:
        made(definitions, dict.fromkeys(files, MAIN), **variables)
    assert message in str(caught.value)


# ---- pipelines, and what a start is given ----------------------------------------------------------------


@pytest.mark.parametrize("requirements", [None, "pandas==3.0.0\n", "# apache-beam\n", "apache-beamer\n"])
def test_a_pipeline_that_would_have_no_apache_beam_in_its_template_is_refused(made, requirements):
    files = {"one/pipelines/count.py": "", **({"one/pipelines/requirements.txt": requirements} if requirements else {})}
    with pytest.raises(Refused, match=r"one/pipelines/requirements.txt: does not name apache-beam, or is not there"):
        made({"one": dag(A=job("Dataflow", "count"))}, files)


def test_a_pipeline_is_named_with_where_its_source_lies(made):
    files = {"one/pipelines/count.py": "", "one/pipelines/requirements.txt": "# why\nApache_Beam[gcp]==2.77.0\n"}
    found = made({"one": dag(A=job("Dataflow", "count"))}, files)["pipelines"]
    assert found == {"count": {"dag": "one", "folder": "one/pipelines", "file": "count.py"}}


def test_a_start_is_given_the_dags_own_input_and_a_place_for_what_else_its_steps_ask_for(made):
    asking = dag(A=call("a", parameters={"day": "${run.input.day}", "to": "x ${run.input.to} ${run.input.to}"}))
    found = made({"one": asking, "two": dag(A=call("b"))}, {"one/input.json": '{"day": "2026-11-26", "n": 1}'})
    assert found["inputs"] == {"one": {"day": "2026-11-26", "n": 1, "to": "…"}, "two": {}}
