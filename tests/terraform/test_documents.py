"""What docs/deploy.md says of terraform/ is so: its rights, its variables, its outputs."""

import re

import pytest

from orchestrator.cli import for_gcp, importable, together
from orchestrator.model.enums import TargetTypes
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


NO_VARIABLES = {"max_attempts", "project_id", "scheduled_for", "time_zone"}
"""Keys of other things that the page names."""


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z]+(?:_[a-z]+)+)(?: = [^`]*)?`", PAGE)) - NO_VARIABLES))
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


def test_a_channel_that_goes_is_deleted_after_the_policies_that_name_it_were_changed():
    """Monitoring refuses to delete a channel in use; no mocked provider shows that, so the order is held here."""
    (channel,) = re.findall(
        r'^resource "google_monitoring_notification_channel".*?^}', SOURCES, re.MULTILINE | re.DOTALL
    )
    assert "create_before_destroy = true" in channel


def test_the_pipelines_of_the_samples_are_built_with_the_beam_that_they_are_tested_with():
    (pinned,) = re.findall(r"^apache-beam\[gcp\]==(.+)$", _BEAM.read_text(), re.MULTILINE)
    (tested,) = re.findall(r'"apache-beam~=([0-9.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pinned.startswith(f"{tested}.")


_BEAM = ROOT / "dag_definitions/wordcount/pipelines/requirements.txt"


def test_validate_knows_what_is_not_in_the_orchestrators_zip():
    (folders,) = re.findall(r"\^dag_definitions/\[\^/\]\+/\(([a-z|]+)\)/", SOURCES)
    assert set(folders.split("|")) == set(importable.NOT_PACKED)


def test_validate_refuses_what_terraform_refuses():
    """Each precondition of the module has a row in `together`, or a reason why it has none."""
    outputs = (TERRAFORM / "modules/definitions/outputs.tf").read_text()
    conditions = re.findall(r"precondition \{\s+condition += (.*)", outputs)
    named = [re.search(r"(?:local|var)\.([a-z_]+)", condition)[1] for condition in conditions]
    assert set(named) == together.REFUSALS.keys() | together.JUDGED_ELSEWHERE.keys()
    assert together.REFUSALS.keys().isdisjoint(together.JUDGED_ELSEWHERE)


def test_validate_sees_parallels_as_deep_as_terraform_does():
    levels = re.findall(
        r"^  level_([0-9]+) ", (TERRAFORM / "modules/definitions/definitions.tf").read_text(), re.MULTILINE
    )
    assert max(map(int, levels)) == together.MAX_DEPTH


def test_validate_knows_whose_jobs_run_as_an_account_that_has_to_be_named():
    services = (TERRAFORM / "modules/definitions/services.tf").read_text().split("services = {")[1].split("\n  }\n")[0]
    rows = re.findall(r"^    ([A-Z][A-Za-z]+) += \{(.*?act_as += (?:true|false))", services, re.MULTILINE | re.DOTALL)
    assert len(rows) == len(TargetTypes)
    acting = {name for name, row in rows if row.endswith("true")}
    assert acting - {"Dataflow"} == set(for_gcp.RUNS_AS)
