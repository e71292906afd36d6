import time
from datetime import UTC, date, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.model.definition import check, problems
from orchestrator.model.definition_values import MAX_DEPTH, MAX_VALUES
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import DefinitionError


def task(**keys):
    return {"type": "Task", "target_type": "CloudFunction", "target_name": "count", **keys}


def parallel(*branches, **keys):
    return {"type": "Parallel", "branches": list(branches), **keys}


def body(start, **steps):
    return {"start": start, "steps": steps}


ALL_TARGET_TYPES = ", ".join(TargetTypes)
ALL_OF_A_CLOUD_FUNCTION = (
    "allowed: type, next, end, depends_on, trigger, target_type, timeout, retry, on_error, pool, target_name, "
    "function, parameters, invocation, heartbeat, project_id, region"
)


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param(
            body("Step1", Step1=task(next="Ende"), End=task()),
            ['steps.Step1.next: no step named "Ende"; did you mean "End"?'],
            id="next names no step, one is like it",
        ),
        pytest.param(
            body("A", A=task(next="Zzz"), B=task()),
            ['steps.A.next: no step named "Zzz"; there are "A", "B"'],
            id="next names no step, none is like it",
        ),
        pytest.param(
            body("A", A=task(next="B"), P=parallel(body("B", B=task()))),
            ['steps.A.next: "B" is not one of the same steps, it is steps.P.branches[0].steps.B; allowed: "A", "P"'],
            id="next names a step elsewhere",
        ),
        pytest.param(
            body("Stat", Start=task()),
            ['start: no step named "Stat"; did you mean "Start"?'],
            id="start names no step",
        ),
        pytest.param(
            body("P", P=parallel(body("A", A=task() | {"target_type": "CloudFuntion"}))),
            [
                'steps.P.branches[0].steps.A.target_type: "CloudFuntion" is not a target type; '
                f'did you mean "CloudFunction"? allowed: {ALL_TARGET_TYPES}'
            ],
            id="target type misspelt in a branch",
        ),
        pytest.param(
            body("A", A=task(paramters={})),
            [
                "steps.A.paramters: is not a key of a CloudFunction Task; "
                f'did you mean "parameters"? {ALL_OF_A_CLOUD_FUNCTION}'
            ],
            id="key misspelt",
        ),
        pytest.param(
            {"strat": "A", "steps": {"A": task()}},
            [
                'strat: is not a key of a definition; did you mean "start"? '
                "allowed: start, steps, finally, result, timeout, deadline, description, owner, tags, input_schema, "
                "notify, max_active_runs, priority, schedule, time_zone, missed, triggers, $schema"
            ],
            id="a misspelt key is not said to be missing as well",
        ),
        pytest.param(
            body("A", A=task(nxt="B"), B=task()),
            [f'steps.A.nxt: is not a key of a CloudFunction Task; did you mean "next"? {ALL_OF_A_CLOUD_FUNCTION}'],
            id="nor is what follows a misspelt next said to be lost",
        ),
        pytest.param(
            body("A", A=task(worker="thread")),
            ["steps.A.worker: is not a key of a CloudFunction Task, only of a Function Task"],
            id="key of another target type",
        ),
        pytest.param(
            body("P", P=parallel(body("A", A=task()), parameters={})),
            ["steps.P.parameters: is not a key of a Parallel, only of a Task"],
            id="key of a Task in a Parallel",
        ),
        pytest.param(
            body("A", A=task(timeout="10 parsecs")),
            ['steps.A.timeout: "10 parsecs" is not a duration; write a number and ms, s, m, h or d, as in "90s"'],
            id="no duration",
        ),
        pytest.param(
            body("A", A=task(timeout="31d")),
            ['steps.A.timeout: "31d" is out of range; allowed: more than 0, at most 30d'],
            id="duration too long",
        ),
        pytest.param(
            body("A", A=task(timeout=600)),
            ['steps.A.timeout: must be a duration as in "90s", not a number'],
            id="duration without a unit",
        ),
        pytest.param(
            body("A", A=task(end=True, next="B"), B=task()),
            ['steps.A.end: cannot stand beside "next"; keep one of the two'],
            id="next and end",
        ),
        pytest.param(
            body("A", A={"type": "Task", "target_name": "x"}),
            [f"steps.A.target_type: is missing; allowed: {ALL_TARGET_TYPES}"],
            id="target type missing",
        ),
        pytest.param(
            body("A", A=task() | {"target_type": "Function"}),
            ["steps.A.function: is missing; a Function Task needs it"],
            id="function missing",
        ),
        pytest.param(
            body("A", **{"A": task(next="a b"), "a b": task()}),
            ['steps["a b"]: "a b" is not a step name; write 1 to 64 of A-Z a-z 0-9 _ -'],
            id="name with a space",
        ),
        pytest.param(
            body("A", A=task(next="P"), P=parallel(body("A", A=task()))),
            ['steps.P.branches[0].steps.A: the name "A" is taken by steps.A; names are unique over all branches'],
            id="name taken",
        ),
        pytest.param(
            body("A", A=task(), B=task()),
            ['steps.B: no way leads to it from the start "A"; name it in the "next" of a step before it'],
            id="no way leads to it",
        ),
        pytest.param(
            body("A", A=task(next="B"), B=task(next="A")),
            ["steps.B.next: makes a cycle: A -> B -> A; a run enters a step once"],
            id="cycle of two",
        ),
        pytest.param(
            body("A", C=task(next="B"), B=task(next="C"), A=task(next="B")),
            ["steps.C.next: makes a cycle: B -> C -> B; a run enters a step once"],
            id="cycle behind the start, told from where the way enters it",
        ),
        pytest.param(
            body("A", A=task(), B=task(next="B")),
            [
                "steps.B.next: makes a cycle: B -> B; a run enters a step once",
                'steps.B: no way leads to it from the start "A"; name it in the "next" of a step before it',
            ],
            id="cycle apart",
        ),
        pytest.param(
            body("A", A={**task(), "target_type": "Function", "function": "a:b", "parameters": {"from": 1}}),
            [
                'steps.A.parameters.from: "from" is not the name of a Python argument; '
                "write a letter or _, then letters, digits and _, and no keyword of Python"
            ],
            id="parameter that cannot be an argument",
        ),
        pytest.param([], ["definition: must be an object with start and steps, not a list"], id="no object"),
        pytest.param(
            body("A", A=None), ["steps.A: must be an object with the keys of a step, not null"], id="step is null"
        ),
        pytest.param(
            {"start": "A", "steps": []},
            ["steps: must be an object that holds steps by their names, not a list"],
            id="steps is a list",
        ),
    ],
)
def test_what_is_wrong_and_what_to_write(definition, expected):
    assert problems(definition) == expected


def job(target_type, **keys):
    return body("A", A={"type": "Task", "target_type": target_type, "target_name": "job", **keys})


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        pytest.param(
            job(
                "BigQuery",
                query="SELECT '${run.input.day}'",
                parameters={"the-day": 1},
                request={
                    "jobReference": {"jobId": "mine"},
                    "configuration": {"query": {"useLegacySql": True, "query": "SELECT 1"}, "load": {}},
                    "note": ["${run.input.day}"],
                },
                region="europe west",
            ),
            [
                "steps.A.query: \"SELECT '${run.input.day}'\" is not a query without expressions; "
                'write @name in it, and the value under "parameters"; an expression can stand in "parameters" only',
                'steps.A.region: "europe west" is not a location; write it as in "europe-west1" or "EU"',
                'steps.A.parameters.the-day: "the-day" is not the name of a query parameter; write a letter or _, then '
                "letters, digits and _",
                "steps.A.request.jobReference: is set by the orchestrator; leave it out",
                'steps.A.request.configuration.query.query: is what the key "query" is for; leave it out',
                "steps.A.request.configuration.query.useLegacySql: is set by the orchestrator; leave it out",
                "steps.A.request.configuration.load: is what LOAD DATA in a query is for; leave it out",
                "steps.A.request.note[0]: ${run.input.day} is an expression; "
                'an expression can stand in "parameters" only',
            ],
            id="everything at once",
        ),
        pytest.param(
            job("Dataproc"),
            [
                "steps.A.main_python_file: is missing; a Dataproc Task needs it, or pysparkBatch or sparkBatch or "
                'sparkRBatch or sparkSqlBatch or pysparkNotebookBatch in its "request"'
            ],
            id="a key that the request may stand in for",
        ),
        pytest.param(
            job("VertexPipeline"),
            [
                'steps.A.template_path: is missing; a VertexPipeline Task needs it, or pipelineSpec in its "request"',
                'steps.A.pipeline_root: is missing; a VertexPipeline Task needs it, or runtimeConfig in its "request"',
            ],
            id="two such keys",
        ),
        pytest.param(
            job(
                "Dataproc",
                main_python_file="gs://b1/a.py",
                request={"sparkBatch": {}, "labels": {"orchestrator_run": "x", "team": "a"}},
            ),
            [
                'steps.A.request.sparkBatch: cannot stand beside "main_python_file"; keep one of the two',
                "steps.A.request.labels.orchestrator_run: is set by the orchestrator; leave it out",
            ],
            id="two programs, and a label of ours",
        ),
        pytest.param(
            job("Batch", request=[]),
            [
                "steps.A.request: must be an object, a request as the service's API has it, not a list",
                'steps.A.image: is missing; a Batch Task needs it, or taskGroups in its "request"',
            ],
            id="a request that is none",
        ),
        pytest.param(
            job("Workflows", iamge="x"),
            [
                "steps.A.iamge: is not a key of a Workflows Task; allowed: type, next, end, depends_on, trigger, "
                "target_type, timeout, retry, on_error, pool, target_name, parameters, request, project_id, region"
            ],
            id="a key that it does not have",
        ),
    ],
)
def test_what_is_wrong_with_the_step_of_a_job_service(definition, expected):
    assert problems(definition) == expected


IN = "steps.P.branches[0].steps.In.parameters.x"
ENDED = 'only steps that have ended before "In" starts have a result'


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("${steps.First.result.a}", None),
        ("${steps.Deep.result}", None),
        ("${steps.Q.status}", None),
        ("${steps.Before.result}", None),
        ("${run.input.anything} $${steps.Nowhere}", None),
        ("${steps.Frist.result}", 'no step named "Frist"; did you mean "First"?'),
        ("${steps.In.result}", f'"In" is the step itself; {ENDED}'),
        ("${steps.P.status}", f'"P" holds this step and ends after it; {ENDED}'),
        ("${steps.After.result}", f'"After" comes later than "In"; {ENDED}'),
        ("${steps.Last.result}", f'"Last" comes later than "In"; {ENDED}'),
        ("${steps.LastIn.result}", f'"LastIn" comes later than "In"; {ENDED}'),
        ("${steps.Beside.result}", f'"Beside" is in another branch of "P", at the same time; {ENDED}'),
    ],
)
def test_which_steps_an_expression_can_ask_about(expression, problem):
    definition = body(
        "First",
        Last=parallel(body("LastIn", LastIn=task())),
        P=parallel(
            body(
                "Before",
                After=task(),
                In=task(parameters={"x": expression}, next="After"),
                Before=task(next="In"),
            ),
            body("Beside", Beside=task()),
            next="Last",
        ),
        Q=parallel(body("R", R=parallel(body("Deep", Deep=task()))), next="P"),
        First=task(next="Q"),
    )
    assert problems(definition) == ([f"{IN}: {expression}: {problem}"] if problem else [])


def test_an_expression_is_told_with_its_place_in_the_parameters():
    parameters = {"a": [1, {"b c": "${run.inptu}"}], "d": "${run.} and ${run.}"}
    where, read = problems(body("A", A=task(parameters=parameters)))
    assert where.startswith('steps.A.parameters.a[1]["b c"]: ${run.inptu}: run has no "inptu"; did you mean "input"?')
    assert read.startswith('steps.A.parameters.d: column 7 of "${run.} and ${run.}": expected a name after "."')


def test_five_mistakes_are_five_problems():
    found = problems(
        body(
            "Init",
            Init=task(timeout="soon", next="Step1"),
            Step1=parallel(
                body("Count", Count=task(retires=3)),
                body("Profile", Profile=task() | {"target_type": "CloudFuntion"}),
                next="Ende",
            ),
            End=task(parameters={"words": "${steps.Cuont.result.words}"}),
        )
    )
    assert [problem.split(": ")[0] for problem in found] == [
        "steps.Init.timeout",
        "steps.Step1.next",
        "steps.End.parameters.words",
        "steps.Step1.branches[0].steps.Count.retires",
        "steps.Step1.branches[1].steps.Profile.target_type",
    ]
    with pytest.raises(DefinitionError) as caught:
        check(body("A"))
    assert caught.value.problems == ("steps: is empty; write at least one step",)
    assert check(body("A", A=task())) is None


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        ({1: 2}, "steps.A.parameters: the key 1 is not a string; put it in quotes"),
        ({"a": [{True: 2}]}, "steps.A.parameters.a[0]: the key true is not a string; put it in quotes"),
        ({None: 2}, "steps.A.parameters: the key null is not a string; put it in quotes"),
        ({10**5000: 2}, "steps.A.parameters: the key a number is not a string; put it in quotes"),
        ({date(2021, 12, 12): 2}, "steps.A.parameters: the key 2021-12-12 is not a string; put it in quotes"),
        (
            {"day": date(2021, 12, 12)},
            "steps.A.parameters.day: is a date that JSON cannot hold; write it as a string, in quotes",
        ),
        (
            {"at": datetime(2021, 12, 12, tzinfo=UTC)},
            "steps.A.parameters.at: is a date that JSON cannot hold; write it as a string, in quotes",
        ),
        (
            {"x": b"x"},
            "steps.A.parameters.x: is a value of type bytes that JSON cannot hold; write it as a string, in quotes",
        ),
        (
            {"x": float("nan")},
            "steps.A.parameters.x: is a number that JSON cannot hold; write it as a string, in quotes",
        ),
        (
            {"x": -(10**5000)},
            "steps.A.parameters.x: is a number that JSON cannot hold; write it as a string, in quotes",
        ),
        ({"x": "\ud83d"}, 'steps.A.parameters.x: "\\ud83d" holds half of a surrogate pair; write the whole character'),
        (
            {"\ud83d": 1},
            'steps.A.parameters: the key "\\ud83d" holds half of a surrogate pair; write the whole character',
        ),
        ({"x": 10**300}, None),
        ({"x": "😀"}, None),
    ],
)
def test_what_yaml_and_python_make_and_json_cannot_hold(parameters, problem):
    assert problems(body("A", A=task(parameters=parameters))) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({True: 1, **body("A", A=task())}, "definition: the key true is not a string; put it in quotes"),
        ({"start": "A", "steps": {"A": task(), 1: task()}}, "steps: the key 1 is not a string; put it in quotes"),
        (body("A", A={None: 1, **task()}), "steps.A: the key null is not a string; put it in quotes"),
        (
            body("P", P=parallel({2.5: 1, **body("A", A=task())})),
            "steps.P.branches[0]: the key 2.5 is not a string; put it in quotes",
        ),
        (body("A", A=task(timeout=date(2021, 1, 1))), 'steps.A.timeout: must be a duration as in "90s", not a date'),
        (body(date(2021, 1, 1), A=task()), "start: must be the name of a step, not a date"),
    ],
)
def test_keys_and_dates_of_yaml_are_told_with_their_place(definition, problem):
    assert problems(definition) == [problem]


def nested(levels):
    definition = body("Inner", Inner=task())
    for level in range(levels):
        definition = body(f"P{level}", **{f"P{level}": parallel(definition)})
    return definition


def test_parallels_nest_to_the_documented_depth_and_no_deeper():
    assert problems(nested(MAX_DEPTH)) == []
    for levels in (MAX_DEPTH + 1, 5000):
        (problem,) = problems(nested(levels))
        assert problem.endswith(f"branches[0]: is nested too deeply; allowed: {MAX_DEPTH} levels of Parallels")


def test_parameters_nest_to_the_documented_depth_and_no_deeper():
    def parameters(levels):
        value = 1
        for _ in range(levels):
            value = {"x": [value]}
        return value

    assert problems(body("A", A=task(parameters=parameters(MAX_DEPTH // 2)))) == []
    for levels in (MAX_DEPTH // 2 + 1, 5000):
        (problem,) = problems(body("A", A=task(parameters=parameters(levels))))
        assert problem.endswith(f"x[0]: is nested too deeply; allowed: {MAX_DEPTH} levels")


def test_what_contains_itself_ends_in_a_problem():
    values = []
    values += [values, values]
    definition = body("P", P=parallel())
    definition["steps"]["P"]["branches"] += [definition, definition]
    alias = "has the very steps of another place (a YAML alias); step names are unique"
    assert problems(definition) == [f"steps.P.branches[0]: {alias}", f"steps.P.branches[1]: {alias}"]
    deep, many = problems(body("A", A=task(parameters={"x": values})))
    assert deep.endswith(f"is nested too deeply; allowed: {MAX_DEPTH} levels")
    assert many.endswith(f"is one value too many; allowed: {MAX_VALUES:,} in a definition")


def test_one_step_can_stand_under_two_names():
    shared = task()  # a YAML alias
    assert problems(body("P", P=parallel(body("A", A=shared), body("B", B=shared)))) == []


@pytest.mark.parametrize("is_right", [True, False])
def test_thousands_of_steps_are_judged_at_once(is_right):
    steps = {
        f"S{i}": task(parameters={"x": f"${{steps.S{max(0, i - 2)}.result}}"}, next=f"S{i + 1}" if is_right else "X")
        for i in range(1, 3000)
    }
    definition = body("S0", S0=task(next="S1"), **steps, S3000=task())
    begun_s = time.process_time()
    assert len(problems(definition)) == (0 if is_right else 2999)
    assert time.process_time() - begun_s < 10  # it takes a tenth; what is quadratic takes minutes


@st.composite
def chains(draw, names, depth=0):
    """A body, the Tasks in it, and for each of them the steps that have ended before it starts."""
    steps, before, ended = {}, {}, set()
    own = [f"S{next(names)}" for _ in range(draw(st.integers(1, 3)))]
    for name, following in zip(own, [*own[1:], None], strict=True):
        link = {"next": following} if following else {}
        inside = set()
        if depth < 2 and draw(st.booleans()):
            branches = []
            for _ in range(draw(st.integers(1, 2))):
                branch, before_inside = draw(chains(names, depth + 1))
                branches.append(branch)
                before |= {task: known | ended for task, known in before_inside.items()}
                inside |= set(all_steps(branch))
            steps[name] = parallel(*branches, **link)
        else:
            steps[name] = task(parameters={}, **link)
            before[name] = set(ended)
        ended |= {name} | inside
    shuffled = draw(st.permutations(list(steps)))
    return body(own[0], **{name: steps[name] for name in shuffled}), before


def all_steps(definition):
    found = {}
    for name, step in definition["steps"].items():
        found[name] = step
        for branch in step.get("branches", ()):
            found |= all_steps(branch)
    return found


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_an_expression_can_ask_about_exactly_what_has_ended_on_every_way(data):
    definition, before = data.draw(chains(iter(range(100))))
    assert problems(definition) == []
    steps = all_steps(definition)
    for name, ended in before.items():
        for other in steps:
            steps[name]["parameters"] = {"x": f"${{steps.{other}.result}}"}
            assert (problems(definition) == []) == (other in ended)
        steps[name]["parameters"] = {}
