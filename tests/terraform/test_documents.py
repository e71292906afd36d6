"""What docs/deploy.md says of terraform/ is so: its rights, its variables, its outputs."""

import re

import pytest

from orchestrator.cli import for_gcp
from tests.support.terraform import ROOT

TERRAFORM = ROOT / "terraform"
SOURCES = "\n".join(path.read_text() for path in [*TERRAFORM.glob("*.tf"), *TERRAFORM.glob("modules/*/*.tf")])
PAGE = (ROOT / "docs/deploy.md").read_text()
RIGHTS = PAGE.split("| account | may | on |")[1].split("\n\n")[0]


def declared(kind: str) -> set[str]:
    return set(re.findall(rf'^{kind} "([a-z_]+)"', SOURCES, re.MULTILINE))


def test_its_table_of_rights_is_what_is_granted():
    granted = set(re.findall(r'"roles/([A-Za-z0-9.]+)"', SOURCES))
    told = set(re.findall(r"`([a-z]+\.[A-Za-z]+)`", RIGHTS)) - {"orchestrator.tasks"}
    # What Google's own agents get is not the table's business; `.viewer` stands for workflows.viewer there.
    assert told == granted - {"pubsub.subscriber", "iam.serviceAccountTokenCreator", "workflows.viewer"}


@pytest.mark.parametrize(
    "name", sorted(set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", PAGE)) - {"max_attempts", "project_id"})
)
def test_the_variables_and_outputs_that_it_names_are_there(name):
    assert name in declared("variable") | declared("output")


def test_the_example_sets_variables_that_are_there():
    example = (TERRAFORM / "terraform.tfvars.example").read_text()
    names = set(re.findall(r"^(?:# )?([a-z_]+) += ", example, re.MULTILINE))
    assert {"project_id", "region"} <= names
    assert names <= declared("variable")


def test_every_variable_and_output_is_described_and_each_number_is_checked():
    for block in re.findall(r'^(?:variable|output) "[a-z_]+" \{.*?^\}', SOURCES, re.MULTILINE | re.DOTALL):
        assert re.search(r"^  description += \"[A-Z\"\\]", block, re.MULTILINE), block.splitlines()[0]
        if re.search(r"^  type += number", block, re.MULTILINE):
            assert "validation {" in block, block.splitlines()[0]


def test_validate_knows_what_is_not_in_the_orchestrators_zip():
    (folders,) = re.findall(r"\^dag_definitions/\[\^/\]\+/\(([a-z|]+)\)/", SOURCES)
    assert set(folders.split("|")) == set(for_gcp._NOT_PACKED)
