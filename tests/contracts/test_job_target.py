"""Every sentence of the Target port, held against each service of the table, over a fake of its REST API.

The sentences are those of test_target.py, as far as a service keeps them: some take no key of ours, and then `find` is
what tells of an earlier try.
"""

from itertools import count
from threading import Barrier, Thread

import pytest

from orchestrator.model.commands import Execution, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.ids import KEY_PREFIX
from orchestrator.services.google_api import GoogleApis
from orchestrator.targets.job_services import SERVICES
from orchestrator.targets.jobs import JobTarget
from tests.support.job_server import KINDS, JobServer
from tests.support.job_steps import PLACE, STEPS, launch_of

IDENTITIES = {
    "CloudRunJob": Identity.FOUND,
    "BigQuery": Identity.FOREVER,
    "Dataproc": Identity.WINDOW,
    "Batch": Identity.WINDOW,
    "Workflows": Identity.FOUND,
    "VertexPipeline": Identity.WINDOW,
}
WITHOUT_EVENT = {"Dataproc", "Batch"}
WITHOUT_LABELS = {"CloudRunJob"}
NAMES = count(1)


def test_each_service_of_the_table_has_a_fake_and_a_step_here():
    assert {name.value for name in SERVICES} == set(KINDS) == set(STEPS) == set(IDENTITIES)


@pytest.fixture(scope="module")
def server():
    with JobServer() as server:
        yield server


class Bench:
    """A target, the fake of its service, and the events that this published."""

    def __init__(self, server, target_type):
        self.target_type, self.service, self.events = target_type, server[target_type], []
        self.target = JobTarget(SERVICES[target_type], GoogleApis(server.environment), **PLACE)

    def launch_of(self, **more):
        """A launch that was never launched."""
        return launch_of(self.target_type, f"Step{next(NAMES)}", **more)

    @property
    def takes_a_key(self):
        return IDENTITIES[self.target_type] is not Identity.FOUND

    def job_of(self, execution):
        return self.service.jobs[execution.execution_id.rpartition("/")[2]]


@pytest.fixture(params=SERVICES)
def bench(request, server):
    bench = Bench(server, request.param)
    server.publish = bench.events.append
    yield bench
    bench.service.forget()


def test_it_says_what_it_promises(bench):
    target = bench.target
    assert target.identity is IDENTITIES[bench.target_type]
    assert (target.has_outcome, target.can_cancel, target.synchronous) == (True, True, False)
    assert target.launch_limit_s > 0
    assert target.id_is_ours is (bench.target_type == "CloudRunJob")
    assert (target.first_question_s > 0) is (bench.target_type in WITHOUT_EVENT)


def test_a_launch_only_hands_over_and_there_is_no_outcome_while_it_runs(bench):
    execution = bench.target.launch(bench.launch_of())
    assert execution.outcome is None
    assert bench.target.outcome(execution) is None
    assert bench.job_of(execution).state == "Running"
    assert bench.events == []


def test_the_step_s_parameters_reach_what_runs(bench):
    execution = bench.target.launch(bench.launch_of(parameters={"note": "a b'c", "n": 3}))
    found = bench.service.parameters(bench.job_of(execution))
    assert found["note"] == "a b'c"
    assert found["n"] in (3, "3")  # JSON where the service knows it, else text


def test_the_job_bears_labels_by_which_people_find_it(bench):
    launch = bench.launch_of()
    labels = bench.service.labels(bench.job_of(bench.target.launch(launch)))
    if bench.target_type in WITHOUT_LABELS:
        assert labels == {}
        return
    assert labels["orchestrator_dag"] == "sample"
    assert labels["orchestrator_run"] == launch.run_id
    assert labels["orchestrator_node"] == launch.node_name.lower()
    assert labels["orchestrator_attempt"] == "1"


def test_the_outcome_is_known_once_it_has_ended(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.service.end(bench.job_of(execution).id)
    outcome = bench.target.outcome(execution)
    assert outcome.kind is OutcomeKind.COMPLETED
    assert execution.execution_id.rpartition("/")[2] in outcome.result.values()


def test_a_job_that_fails_has_failed_in_the_service_s_words(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.service.end(bench.job_of(execution).id, "Failed", "ValueError: no rows")
    outcome = bench.target.outcome(execution)
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error.error_type == f"{bench.target_type}.JobFailed"
    assert "ValueError: no rows" in outcome.error.message


def test_a_job_that_somebody_cancels_is_cancelled(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.service.end(bench.job_of(execution).id, "Cancelled")
    assert bench.target.outcome(execution) == Outcome.cancelled()


def test_the_same_key_again_returns_the_execution_that_it_started(bench):
    if not bench.takes_a_key:
        pytest.skip("it takes no key")
    launch = bench.launch_of()
    first = bench.target.launch(launch)
    assert bench.target.launch(launch) == first
    bench.service.end(bench.job_of(first).id)
    assert bench.target.launch(launch) == first
    assert len(bench.service.jobs) == 1


def test_twenty_threads_that_launch_one_key_start_one_execution(bench):
    if not bench.takes_a_key:
        pytest.skip("it takes no key")
    launch, barrier, got = bench.launch_of(), Barrier(20), []

    def race():
        barrier.wait()
        got.append(bench.target.launch(launch))

    threads = [Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [got[0]] * 20
    assert len(bench.service.jobs) == 1


def test_attempts_nodes_and_runs_have_executions_of_their_own(bench):
    one = bench.launch_of()
    others = [launch_of(bench.target_type, one.node_name, **more) for more in ({"attempt": 2}, {"run_id": "another"})]
    names = {bench.target.launch(each).execution_id for each in (one, *others)}
    assert len(names) == 3
    assert {bench.target.find(each).execution_id for each in (one, *others)} == names


def test_what_was_never_launched_is_not_found(bench):
    bench.target.launch(bench.launch_of())
    assert bench.target.find(bench.launch_of()) is None


def test_what_runs_and_what_has_ended_is_found(bench):
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    for _ in range(5):  # on a later page than the first, where it has to be looked for
        bench.target.launch(bench.launch_of())
    assert bench.target.find(launch) == execution
    bench.service.end(bench.job_of(execution).id, "Failed", "no")
    assert bench.target.find(launch) == execution


def test_an_uncertain_launch_that_got_through_is_found_by_another_process(bench, server):
    launch = bench.launch_of()
    bench.service.fail_next("launch", 503, after_applying=True)
    with pytest.raises(LaunchUncertain):
        bench.target.launch(launch)
    found = Bench(server, bench.target_type).target.find(launch)
    assert [bench.job_of(found).id] == list(bench.service.jobs)
    if bench.takes_a_key:
        assert bench.target.launch(launch) == found
        assert len(bench.service.jobs) == 1


def test_an_uncertain_launch_that_did_not_get_through_is_not_found(bench):
    launch = bench.launch_of()
    bench.service.fail_next("launch", 503)
    with pytest.raises(LaunchUncertain):
        bench.target.launch(launch)
    assert bench.target.find(launch) is None
    execution = bench.target.launch(launch)
    assert [bench.job_of(execution).id] == list(bench.service.jobs)


@pytest.mark.parametrize(
    ("status", "reason", "error", "kind"),
    [
        pytest.param(400, "invalid", LaunchRefused, "BadParameters", id="400: what was asked for is wrong"),
        pytest.param(403, "forbidden", LaunchRefused, "NotAllowed", id="403: no permission"),
        pytest.param(404, "notFound", LaunchRefused, "NotFound", id="404: no such job, or no such place"),
        pytest.param(412, "said", LaunchRefused, None, id="another 4xx"),
        pytest.param(409, "said", LaunchUncertain, None, id="409: the key is taken, and by nobody that we see"),
        pytest.param(403, "rateLimitExceeded", LaunchUncertain, None, id="403 in place of a 429"),
        pytest.param(429, "said", LaunchUncertain, None, id="429: not now"),
        pytest.param(500, "said", LaunchUncertain, None, id="500: who knows"),
        pytest.param(503, "said", LaunchUncertain, None, id="503: who knows"),
    ],
)
def test_what_a_launch_makes_of_an_answer(bench, status, reason, error, kind):
    launch = bench.launch_of()
    bench.service.fail_next("launch", status, reason=reason)
    with pytest.raises(error) as raised:
        bench.target.launch(launch)
    assert "as the test asked for" in str(raised.value)  # the service's own words
    if error is LaunchRefused:
        assert raised.value.error_type == (f"{bench.target_type}.{kind}" if kind else "Launch.Refused")
        assert launch.node_name in str(raised.value)


def test_a_question_that_is_not_answered_is_uncertain(bench):
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    for status in (403, 429, 500, 503):
        bench.service.fail_next("get", status)
        with pytest.raises(LaunchUncertain):
            bench.target.outcome(execution)
        bench.service.fail_next("get" if bench.takes_a_key else "list", status)
        with pytest.raises(LaunchUncertain):
            bench.target.find(launch)
        bench.service.fail_next("cancel", status)
        with pytest.raises(LaunchUncertain):
            bench.target.cancel(execution)
    assert bench.target.outcome(execution) is None


def test_a_job_that_cannot_be_seen_is_no_end(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.service.fail_next("get", 404)
    with pytest.raises(LaunchUncertain):
        bench.target.outcome(execution)
    bench.service.end(bench.job_of(execution).id)
    assert bench.target.outcome(execution).kind is OutcomeKind.COMPLETED


def test_a_cancel_stops_a_running_execution(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.target.cancel(execution)
    assert bench.target.outcome(execution) == Outcome.cancelled()
    bench.target.cancel(execution)


def test_a_cancel_of_what_has_ended_or_is_unknown_changes_nothing(bench):
    execution = bench.target.launch(bench.launch_of())
    bench.service.end(bench.job_of(execution).id)
    bench.target.cancel(execution)
    assert bench.target.outcome(execution).kind is OutcomeKind.COMPLETED
    bench.target.cancel(Execution(execution.execution_id + "x"))


def test_an_execution_id_says_where_to_ask(bench, server):
    launch = bench.launch_of(step={**STEPS[bench.target_type], "project_id": "other", "region": "us-east1"})
    execution = bench.target.launch(launch)
    assert execution.execution_id.startswith("projects/other/locations/us-east1/")
    bench.service.end(bench.job_of(execution).id)
    elsewhere = JobTarget(
        SERVICES[bench.target_type], GoogleApis(server.environment), project="another", region="europe-west4"
    )
    assert elsewhere.outcome(Execution(execution.execution_id)).kind is OutcomeKind.COMPLETED
    assert bench.target.find(bench.launch_of()) is None


def test_an_execution_id_of_another_service_is_not_asked_about(bench):
    with pytest.raises(LaunchUncertain, match="is no"):
        bench.target.outcome(Execution("2022-09-08_08_58_37-4369315246414288431"))
    assert bench.service.calls == []


def test_the_event_of_its_end_leads_back_to_the_launch(bench):
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    bench.service.end(bench.job_of(execution).id)
    if bench.target_type in WITHOUT_EVENT:
        assert bench.events == []
        return
    event = EventFactory.create_from_event(bench.events[0])
    assert event.target_type == bench.target_type
    assert event.verdict is None, "it is a reason to ask, and no more"
    if bench.target.id_is_ours:
        assert (event.launch_id, event.run_id) == (launch.launch_id, launch.run_id)
    else:  # by the execution's record, which lies under the end of its name
        assert event.execution_id == execution.execution_id.rpartition("/")[2]
        assert bench.takes_a_key is event.execution_id.startswith(KEY_PREFIX)


def test_a_step_without_a_place_is_refused_and_told_the_settings(bench, server):
    target = JobTarget(SERVICES[bench.target_type], GoogleApis(server.environment), project=None, region=None)
    with pytest.raises(LaunchRefused, match="GOOGLE_CLOUD_PROJECT") as refused:
        target.launch(bench.launch_of())
    assert refused.value.error_type == f"{bench.target_type}.NoPlace"
    step = {**STEPS[bench.target_type], "project_id": "my-project"}
    with pytest.raises(LaunchRefused, match="FUNCTION_REGION"):
        target.launch(bench.launch_of(step=step))
    assert target.launch(bench.launch_of(step={**step, "region": "europe-west1"}))


def test_no_answer_at_all_is_uncertain(bench, server):
    nobody = dict.fromkeys(server.environment, "http://127.0.0.1:1")
    target = JobTarget(SERVICES[bench.target_type], GoogleApis(nobody, timeout_s=1), **PLACE)
    launch = bench.launch_of()
    execution = bench.target.launch(launch)
    for ask in (
        lambda: target.launch(launch),
        lambda: target.find(launch),
        lambda: target.outcome(execution),
        lambda: target.cancel(execution),
    ):
        with pytest.raises(LaunchUncertain):
            ask()
