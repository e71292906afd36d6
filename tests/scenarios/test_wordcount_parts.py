"""The word count's parts without the engine: real functions, a real Beam process, an independent count."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from string import ascii_letters
from typing import Any

import functions_framework
import pytest
from flask.testing import FlaskClient

DEFINITIONS = Path(__file__).parents[2] / "dag_definitions"
WORDCOUNT = DEFINITIONS / "wordcount"
TEXT = WORDCOUNT / "data" / "king-james-bible.txt.gz"

Serve = Callable[[Path], FlaskClient]

EDITS = [
    "Zyzzyva zyzzyva ZYZZYVA! " * 3000,
    "Don't stop--rock'n'roll: 'tis the sons' right, O'Brien's too; x2y, naïve, a''b, 'quoted' it's' end'",
    "",
    "The last line has a no-break\u00a0space and an ’apostrophe’ of another kind; isn’t it?",
]
"""Lines that the shipped text does not have: a new most frequent word, and every corner of the rule."""


def words_in(text: str) -> Iterator[str]:
    """The rule of wordcount/README.md once more, on purpose by other means: one character at a time."""
    word = ""
    for here, ahead in zip(text, text[1:] + "\n", strict=True):
        opens_second_part = here == "'" and word and "'" not in word and ahead in ascii_letters
        if here in ascii_letters or opens_second_part:
            word += here
        elif word:
            yield word.lower()
            word = ""
    if word:
        yield word.lower()


@dataclass(frozen=True)
class Run:
    """One pass over all parts, as the engine would make it: every result, and the text behind it."""

    text: str
    start: dict[str, Any]
    init: dict[str, Any]
    profile: dict[str, Any]
    report: dict[str, Any]

    def files(self) -> dict[str, bytes]:
        """Path -> content of all that the run has written, what was left behind included."""
        run_dir = Path(self.init["run_dir"])
        files = (path for path in run_dir.rglob("*") if path.is_file())
        return {str(path.relative_to(run_dir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    """Serves a function's folder by functions-framework; gives back what that does to this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))  # create_app appends the folder and keeps its
        patch.setitem(sys.modules, "main", None)  # module as `main`, as the repository's own is called
        clients: dict[Path, FlaskClient] = {}

        def client_of(folder: Path) -> FlaskClient:
            if folder not in clients:
                app = functions_framework.create_app("main", str(folder / "main.py"), "http")
                clients[folder] = app.test_client()
            return clients[folder]

        yield client_of


def call(client: FlaskClient, parameters: dict[str, Any]) -> dict[str, Any]:
    """POST the parameters; the JSON that a good answer holds."""
    response = client.post("/", json=parameters)
    assert (response.status_code, response.mimetype) == (200, "application/json"), response.text
    return response.get_json()


def count(text: str, words_dir: str) -> None:
    """Run the pipeline as a process of its own, as a local Dataflow launch does."""
    pipeline = WORDCOUNT / "pipelines" / "wordcount.py"
    options = ["--runner=DirectRunner", "--job_name=test", f"--input={text}", f"--output={words_dir}"]
    done = subprocess.run([sys.executable, str(pipeline), *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def go(serve: Serve, text: str, start: dict[str, Any]) -> Run:
    """All steps in the DAG's order, with the parameters that dag.json hands them."""
    functions = WORDCOUNT / "functions"
    init = call(serve(functions / "wordcount-init"), start)
    count(init["text"], init["words_dir"])
    profile = call(serve(functions / "wordcount-profile"), {"text": init["text"], "profile": init["profile"]})
    report = call(serve(functions / "wordcount-report"), report_parameters(init))
    return Run(text, start, init, profile, report)


def report_parameters(init: dict[str, Any]) -> dict[str, Any]:
    return {key: init[key] for key in ("text", "sha256", "words_dir", "profile", "run_dir")} | {"top": 20}


@pytest.fixture(scope="module", params=["edited.txt.gz", "edited.txt"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, serve: Serve) -> Run:
    folder = tmp_path_factory.mktemp("wordcount")
    lines = gzip.decompress(TEXT.read_bytes()).decode().splitlines()[:2000]
    text = "\n".join(lines[:1000] + EDITS[:3] + lines[1000:] + EDITS[3:])
    path = folder / request.param
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return go(serve, text, {"text": str(path), "output": str(folder / "out"), "run_id": "run_1_abc"})


def test_the_twenty_most_frequent_words_are_those_of_an_independent_count(run):
    counts = Counter(words_in(run.text))
    ranking = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:20]
    top = [{"word": word, "count": count} for word, count in ranking]
    assert top[0] == {"word": "zyzzyva", "count": 9000}
    assert run.report["top"] == top
    assert json.loads(Path(run.report["report"]).read_text())["top"] == top
    table = Path(run.report["report_text"]).read_text().split("Profile")[0].splitlines()[2:-1]
    assert [line.split()[:3] for line in table] == [
        [str(rank), word, f"{count:,}"] for rank, (word, count) in enumerate(ranking, start=1)
    ]


def test_the_pipeline_counts_every_word_as_an_independent_count_does(run):
    (shard,) = Path(run.init["words_dir"]).iterdir()
    assert shard.name == "part-00000-of-00001"
    rows = [line.split("\t") for line in shard.read_text().splitlines()]
    assert sorted((word, int(count)) for word, count in rows) == sorted(Counter(words_in(run.text)).items())


def test_the_profile_describes_the_text(run):
    lines, counts = run.text.split("\n"), Counter(words_in(run.text))
    assert run.profile == {
        "profile": run.init["profile"],
        "text": run.start["text"],
        "lines": 2004,
        "characters": len(run.text) - 2003,
        "words": counts.total(),
        "distinct_words": len(counts),
        "words_used_once": len([word for word in counts if counts[word] == 1]),
        "average_word_length": round(len("".join(counts.elements())) / counts.total(), 3),
        "longest_word": sorted(counts, key=lambda word: (-len(word), word))[0],
        "longest_line": {"number": 1001, "characters": max(len(line) for line in lines)},
    }
    shared = ("lines", "words", "distinct_words", "average_word_length")
    assert [run.report[key] for key in shared] == [run.profile[key] for key in shared]


def test_init_tells_what_the_text_is_and_where_the_files_go(run):
    text, run_dir = Path(run.start["text"]), Path(run.start["output"]) / "run_1_abc"
    assert run.init == {
        "text": str(text),
        "size_bytes": len(text.read_bytes()),
        "sha256": sha256(text.read_bytes()).hexdigest(),
        "run_dir": str(run_dir),
        "words_dir": str(run_dir / "words"),
        "profile": str(run_dir / "profile.json"),
    }


def test_every_part_run_twice_leaves_the_same_files_and_no_other(run, serve):
    before = run.files()
    assert sorted(before) == ["profile.json", "report.json", "report.txt", "words/part-00000-of-00001"]
    assert go(serve, run.text, run.start) == run
    assert run.files() == before


def test_a_text_that_is_not_there_is_an_error_that_says_what_to_do(serve, tmp_path):
    client = serve(WORDCOUNT / "functions" / "wordcount-init")
    start = {"text": str(tmp_path / "gone.txt"), "output": str(tmp_path / "out"), "run_id": "run_1_abc"}
    assert client.post("/", json=start).status_code == 500
    client.application.testing = True  # from here on an error comes out as it was raised
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.txt .*set `text` in the run's input"):
        client.post("/", json=start)
    client.application.testing = False
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        pytest.param({"part-00000-of-00001": "b\t1\na\t2\n"}, 200, id="one shard is all of them"),
        pytest.param({"part-00000-of-00002": "a\t2\n", "part-00001-of-00002": "b\t1\n"}, 200, id="two of two"),
        pytest.param({"part-00001-of-00002": "a\t2\nb\t1\n"}, 500, id="the first of two is missing"),
        pytest.param({}, 500, id="nothing was written"),
        pytest.param(
            {"part-00000-of-00001": "a\t2\nb\t1\n", "part-00000-of-00002": "a\t2\n"},
            500,
            id="shards of two runs are mixed",
        ),
        pytest.param({"part-00000-of-00001": "a\t2\nb\t2\n"}, 500, id="the profile counted other words"),
        pytest.param({"part-00000-of-00001": "a\t2\na\t1\n"}, 500, id="a word stands there twice"),
    ],
)
def test_report_reads_only_a_complete_and_consistent_count(serve, tmp_path, shards, expected):
    functions = WORDCOUNT / "functions"
    text = tmp_path / "text.txt"
    text.write_text("A b\na\n")
    init = call(serve(functions / "wordcount-init"), {"text": str(text), "output": str(tmp_path), "run_id": "run_1_a"})
    call(serve(functions / "wordcount-profile"), {"text": init["text"], "profile": init["profile"]})
    Path(init["words_dir"]).mkdir()
    for name, content in shards.items():
        Path(init["words_dir"], name).write_text(content)
    Path(init["words_dir"], "beam-temp-part-1").mkdir()  # what a killed pipeline leaves behind
    response = serve(functions / "wordcount-report").post("/", json=report_parameters(init))
    assert response.status_code == expected
    assert Path(init["run_dir"], "report.json").exists() == (expected == 200)
    if expected == 200:
        assert response.get_json()["top"] == [{"word": "a", "count": 2}, {"word": "b", "count": 1}]


def test_an_empty_text_has_an_empty_report(serve, tmp_path):
    text = tmp_path / "empty.txt"
    text.touch()
    run = go(serve, "", {"text": str(text), "output": str(tmp_path), "run_id": "run_1_a"})
    assert (run.report["top"], run.report["words"], run.profile["longest_word"]) == ([], 0, "")


def test_the_shipped_text_is_the_one_that_its_readme_names():
    readme = (TEXT.parent / "README.md").read_text()
    text = gzip.decompress(TEXT.read_bytes())
    assert sha256(TEXT.read_bytes()).hexdigest() in readme
    assert sha256(text).hexdigest() in readme
    assert (f"{len(text):,} bytes" in readme, f"{len(text.splitlines()):,} lines" in readme) == (True, True)


def tasks_of(definition: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, step) of every Task of a definition, branches included."""
    for name, step in definition["steps"].items():
        if step["type"] == "Task":
            yield name, step
        for branch in step.get("branches", []):
            yield from tasks_of(branch)


@pytest.mark.parametrize("dag", ["wordcount", "sample"])
def test_every_task_of_a_dag_has_its_code_in_the_folder(dag):
    tasks = list(tasks_of(json.loads((DEFINITIONS / dag / "dag.json").read_text())))
    assert len(tasks) == {"wordcount": 4, "sample": 7}[dag]
    folder = {"CloudFunction": "functions/{}/main.py", "Dataflow": "pipelines/{}.py"}
    wanted = {folder[task["target_type"]].format(task["target_name"]) for _, task in tasks}
    there = {
        str(path.relative_to(DEFINITIONS / dag))
        for pattern in ("functions/*/main.py", "pipelines/*.py")
        for path in (DEFINITIONS / dag).glob(pattern)
    }
    assert there == wanted


def test_one_function_of_the_sample_answers_for_each_of_its_steps(serve):
    tasks = dict(tasks_of(json.loads((DEFINITIONS / "sample" / "dag.json").read_text())))
    answers = {
        name: call(serve(DEFINITIONS / "sample" / "functions" / task["target_name"]), task["parameters"])
        for name, task in tasks.items()
    }
    assert {name: (answer["step"], answer["function"]) for name, answer in answers.items()} == {
        name: (name, task["target_name"]) for name, task in tasks.items()
    }
    assert all(answers[name]["received"] == task["parameters"] for name, task in tasks.items())
    assert (answers["Step1"]["sum"], answers["Branch1"]["sum"]) == (6, 42)
    assert (answers["Step2"]["sentence"], answers["Branch2"]["sentence"]) == (
        "One function serves two steps.",
        "Side by side.",
    )
