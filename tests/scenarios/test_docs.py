"""What all pages of the docs have in common: their definitions, commands and links."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from orchestrator.cli.arguments import make_parser
from orchestrator.cli.main import main
from orchestrator.model.definition import problems
from orchestrator.model.enums import NodeTypes
from orchestrator.model.grammar import BRANCH, DEFINITION, SHAPES, TASKS, shape_of
from orchestrator.model.grammar_keys import Shape
from orchestrator.testing import simulate

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("docs/language/*.md"))]


def blocks(kind: str) -> Iterator[tuple[Path, str]]:
    """(page, text) of all blocks of a kind."""
    for page in PAGES:
        yield from ((page, text) for text in re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(), re.DOTALL | re.M))


def definitions() -> Iterator[tuple[str, Mapping[str, dict]]]:
    """(page, definition by its DAG's name) of all examples that are definitions, or several."""
    for page, text in blocks("json"):
        try:
            value = json.loads(text)
        except ValueError:  # a run document that is shortened
            continue
        several = value if isinstance(value, dict) and "steps" not in value else {"dag": value}
        if several and all(isinstance(each, dict) and "steps" in each for each in several.values()):
            yield page.name, several


DEFINITIONS = list(definitions())
INPUT = {"day": "2026-11-26"}


@pytest.fixture(scope="module")
def validator():
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as said:
        assert main(["schema"]) == 0
    return Draft202012Validator(json.loads(said.getvalue()))


def test_there_are_examples():
    assert len(DEFINITIONS) > 25


@pytest.mark.parametrize(("page", "dags"), DEFINITIONS, ids=[page for page, _ in DEFINITIONS])
def test_an_example_is_taken_by_the_schema_and_by_validate(validator, page, dags):
    for definition in dags.values():
        assert [error.message for error in validator.iter_errors(definition)] == []
        assert problems(definition) == []


@pytest.mark.parametrize(("page", "dags"), DEFINITIONS, ids=[page for page, _ in DEFINITIONS])
def test_an_example_runs_to_an_end(page, dags):
    variables = {"buckets": {"raw": "r"}, "workers": 2}
    run = simulate(dags, dag=next(iter(dags)), input=INPUT, variables=variables, secrets={"api-key": "k"})
    assert run.status in ("Completed", "Failed")


def used(shape: Shape, value: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(noun of what has it, key) of all keys that an object of this shape has, those inside of it too."""
    for key, held in value.items():
        row = shape.keys[key]
        yield shape.noun, key
        for _, inner in row.objects("", held) if row.shape is not None else ():
            yield from used(row.shape, inner)
    steps = value.get("steps", {})
    for step in steps.values() if isinstance(steps, dict) else ():
        yield from used(shape_of(step), step)
    for body in (*value.get("branches", ()), value.get("iterator"), value.get("finally")):
        if body is not None:
            yield from used(BRANCH, body)


def there_are(shape: Shape) -> Iterator[tuple[str, str]]:
    for key, row in shape.keys.items():
        yield shape.noun, key
        if row.shape is not None:
            yield from there_are(row.shape)


def test_every_key_of_the_grammar_is_in_an_example():
    """In one of each type of step; what all types have (and what all Tasks have) in one at all."""
    shown = {pair for _, dags in DEFINITIONS for definition in dags.values() for pair in used(DEFINITION, definition)}
    shapes = [DEFINITION, *(shape for kind, shape in SHAPES.items() if kind is not NodeTypes.TASK), *TASKS.values()]
    every = {pair for shape in shapes for pair in there_are(shape)}
    shared = {"end", "next", "on_error", "depends_on", "trigger", "timeout", "retry", "heartbeat", "pool", "region"}
    shared |= {"project_id", "parameters", "target_name", "request"}
    keys = {key for _, key in shown}
    assert {pair for pair in every - shown if pair[1] not in shared or pair[1] not in keys} == set()


def commands() -> Iterator[tuple[str, str]]:
    """(page, command line) of all commands of ours in the pages, with what stands for a text of the reader's own."""
    for page, text in blocks("console"):
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            found = re.search(r"(?:^|\s)orchestrator (\w.*)$", line.partition("#")[0].partition(" | ")[0])
            if found and not line.startswith("#"):
                yield page.name, found[1].partition(" > ")[0].strip()


COMMANDS = sorted(set(commands()))


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page} {line[:50]}" for page, line in COMMANDS])
def test_a_command_of_the_docs_is_one(page, line):
    make_parser().parse_args(shlex.split(line))


def test_the_language_leads_to_all_its_pages():
    text = (ROOT / "docs/language.md").read_text()
    further = text[text.index("Further pages:") :].partition("\n\n")[0]
    linked = re.findall(r"\]\((language/\w+\.md)\)", further)
    assert sorted(linked) == sorted(f"language/{page.name}" for page in ROOT.glob("docs/language/*.md"))


def anchors(page: Path) -> set[str]:
    """What a link can lead to in a page: as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page):
    lost = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        there = (page.parent / file) if file else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            lost.append(target)
    assert lost == []
