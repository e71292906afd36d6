"""What stands after --input."""

import pytest

from orchestrator.cli.inputs import read_inputs
from orchestrator.model.errors import InputError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param([], {}, id="nothing"),
        pytest.param(["a=1"], {"a": 1}, id="a number"),
        pytest.param(["a=true", "b=null", "c=1.5"], {"a": True, "b": None, "c": 1.5}, id="other JSON"),
        pytest.param(['a=[1, {"b": "c"}]'], {"a": [1, {"b": "c"}]}, id="a list"),
        pytest.param(["a=b"], {"a": "b"}, id="a word"),
        pytest.param(['a="1"'], {"a": "1"}, id="a number as a string"),
        pytest.param(
            ["day=2026-01-31", "id=007"], {"day": "2026-01-31", "id": "007"}, id="what only looks like numbers"
        ),
        pytest.param(["a="], {"a": ""}, id="an empty string"),
        pytest.param(["q=x=y&z=1"], {"q": "x=y&z=1"}, id="the first = counts"),
        pytest.param(["url=https://x/y"], {"url": "https://x/y"}, id="a URL"),
        pytest.param(["a=1", "a=2"], {"a": 2}, id="the last one counts"),
        pytest.param(["a.b=1"], {"a.b": 1}, id="dots are part of a name"),
        pytest.param(["a=NaN", "b=1e999"], {"a": "NaN", "b": "1e999"}, id="what JSON does not have"),
        pytest.param(["ä=ö"], {"ä": "ö"}, id="any letters"),
    ],
)
def test_pairs(given, expected):
    assert read_inputs(given) == expected


def test_files_and_pairs_are_laid_over_one_another(here):
    (here / "one.json").write_text('{"a": 1, "b": {"c": 2}}')
    (here / "two.yaml").write_text("a: 3\nday: 2026-01-31\nlist: [x]\n")
    given = ["one.json", "z=1", str(here / "two.yaml"), "z=2"]
    assert read_inputs(given) == {"a": 3, "b": {"c": 2}, "z": 2, "day": "2026-01-31", "list": ["x"]}


def test_a_path_with_an_equals_sign_is_a_path(here):
    (here / "a=b.json").write_text('{"a": 1}')
    assert read_inputs(["./a=b.json"]) == {"a": 1}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("x.json", "[1]", "is a list; it must be an object", id="a list"),
        pytest.param("x.json", "", "is no JSON: Input data was truncated", id="empty"),
        pytest.param("x.json", "{", "is no JSON", id="half"),
        pytest.param("x.json", "{'a': 1}", "is no JSON", id="Python"),
        pytest.param("x.json", b'{"a": "\xff"}', "is no JSON", id="not UTF-8"),
        pytest.param("x.yaml", "a: [", "is no YAML", id="half YAML"),
        pytest.param("x.yaml", "", "is null; it must be an object", id="empty YAML"),
        pytest.param("x.yaml", "a: !!python/object:os.system {}", "is no YAML", id="YAML that would run something"),
    ],
)
def test_a_file_that_holds_no_object(here, name, content, expected):
    (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as caught:
        read_inputs([name])
    assert str(caught.value).startswith(f"--input {name}: {expected}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param("nowhere.json", "there is no such file; write name=value, or the path of", id="no file"),
        pytest.param("word", "there is no such file; write name=value", id="no pair"),
        pytest.param("=1", "has no name; write name=value", id="no name"),
        pytest.param(".", "cannot be read: Is a directory", id="a folder"),
        pytest.param("a\0b", "cannot be read: ", id="no name of a file at all"),
        pytest.param("a=\udcff", "is not UTF-8", id="bytes that are no text"),
    ],
)
def test_what_is_neither(given, expected):
    with pytest.raises(InputError, match=r"^--input ") as caught:
        read_inputs([given])
    assert expected in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        read_inputs(["one", "a=1", "two"])
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["--input one", "--input two"]
