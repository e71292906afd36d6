"""What will fail in Google Cloud though the definition breaks no rule, found here before anything is deployed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from orchestrator.cli.children import Beside, child_problems
from orchestrator.cli.definitions import Written
from orchestrator.cli.deployment import Deployment
from orchestrator.cli.function_source import source_problems
from orchestrator.cli.importable import Zip
from orchestrator.cli.lines import listed
from orchestrator.cli.steps import Step, steps_of
from orchestrator.model.enums import NOWHERE_ELSE, TargetTypes
from orchestrator.model.words import at, did_you_mean

LIMITS_S: Mapping[str, tuple[float, str]] = {
    "CloudFunction": (1800.0, "Cloud Tasks waits for a call at most 30m"),
    "CloudFunction.sync": (300.0, "the orchestrator waits for an answer at most 5m"),
    "Function": (60.0, "it runs inside of the orchestrator's own request, where it has at most 1m"),
}
"""Target key -> how long an attempt may take in the cloud, and why."""

DEPLOYED_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
"""What a function of the 2nd generation may be called."""
CALLED_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")
"""What one of the 1st generation may be called, too."""

REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
LOCATION = re.compile(rf"{REGION.pattern}|EU|US|eu|us|aws-[a-z]+-[a-z]+-[0-9]+|azure-[a-z]+[0-9]+")
"""Where BigQuery may be.

Source: https://docs.cloud.google.com/bigquery/docs/locations
"""

RUNS_AS = (TargetTypes.DATAPROC, TargetTypes.BATCH, TargetTypes.VERTEX_PIPELINE)
"""Whose jobs run as an account that the deployment has to name: `act_as` of terraform/modules/definitions/services.tf,
but for Dataflow, whose workers have one of their own."""

_RUN_HERE = ("", *NOWHERE_ELSE)
"""Which target types have no place of their own; "" is a problem of the grammar."""


def problems(written: Written, deployment: Deployment) -> Iterator[str]:
    """Yield all of them, each beginning with the path of what is wrong: in the definition, or a file's.

    A definition that breaks rules is judged too, as far as its steps tell.
    """
    steps = steps_of(written.definition)
    if deployment.root is not None and not _is_in(written.folder.resolve(), deployment.root / "dag_definitions"):
        yield f"{written.folder}: is not in {deployment.root / 'dag_definitions'}, so that it is not deployed"
    yield from _missing(steps, "project_id", deployment.project, "GOOGLE_CLOUD_PROJECT", "project_id")
    yield from _missing(steps, "region", deployment.region, "FUNCTION_REGION", "region")
    zip_ = Zip(deployment.root)
    for step in steps:
        yield from _of_step(step, written, deployment, zip_)
    yield from _sources(steps, written)
    yield from child_problems(written.name, written.definition, Beside(written.name, written.file, written.definition))


def types_without_accounts(written: Written, deployment: Deployment) -> list[str]:
    """Return the target types whose jobs run as an account, where the deployment names none that they may run as."""
    used = {step.target_type for step in steps_of(written.definition)}
    return [] if deployment.has_job_accounts else [each.value for each in RUNS_AS if each in used]


def _missing(steps: list[Step], key: str, default: str | None, setting: str, variable: str) -> Iterator[str]:
    """One problem for all steps that lack the same."""
    lacking = [step for step in steps if step.target_type not in _RUN_HERE and not step.keys.get(key)]
    if default or not lacking:
        return
    more = f" (and those of {listed(step.name for step in lacking[1:])})" if lacking[1:] else ""
    yield (
        f"{at(lacking[0].path, key)}{more}: is missing; name it there, or for all steps by {setting} or as "
        f"{variable} in terraform/terraform.tfvars"
    )


def _of_step(step: Step, written: Written, deployment: Deployment, zip_: Zip) -> Iterator[str]:
    yield from _timeout(step)
    if step.target_type not in _RUN_HERE:
        yield from _region(step, deployment)
    match step.target_type:
        case TargetTypes.CLOUD_FUNCTION:
            yield from _function_name(step, written)
        case TargetTypes.DATAFLOW:
            yield from _template(step, written, deployment)
        case TargetTypes.FUNCTION:
            for why in zip_.problems(step.text("function")) if ":" in step.text("function") else ():
                yield f"{at(step.path, 'function')}: {why}"


def _timeout(step: Step) -> Iterator[str]:
    limit_s, why = LIMITS_S.get(step.target_key, (float("inf"), ""))
    if step.timeout_s is not None and step.timeout_s > limit_s:
        yield f"{at(step.path, 'timeout')}: {step.text('timeout')} is more than it can have; {why}"


def _region(step: Step, deployment: Deployment) -> Iterator[str]:
    region = step.text("region")
    is_bigquery = step.target_type == TargetTypes.BIGQUERY
    allowed = (
        'write it as in "europe-west1", or EU or US' if is_bigquery else 'write it as in "europe-west1", not a zone'
    )
    if region and not (LOCATION if is_bigquery else REGION).fullmatch(region):
        yield f'{at(step.path, "region")}: "{region}" is no region; {allowed}'
    elif "region" not in step.keys and deployment.region is not None and not REGION.fullmatch(deployment.region):
        yield f'{at(step.path, "region")}: the setting "{deployment.region}" is no region; as in "europe-west1"'


def _function_name(step: Step, written: Written) -> Iterator[str]:
    name, path = step.target_name, at(step.path, "target_name")
    if not name:
        return
    if not _source(written, name).is_dir() and not CALLED_NAME.fullmatch(name):
        yield (
            f'{path}: "{name}" is no name of a function; allowed are 1 to 63 letters, digits, - and _, a letter first '
            "and a letter or digit last"
        )


def _template(step: Step, written: Written, deployment: Deployment) -> Iterator[str]:
    if step.keys.get("container_gcs_path") or step.keys.get("template_path") or not step.target_name:
        return
    source = written.folder / "pipelines" / f"{step.target_name}.py"
    if deployment.templates is None and not source.is_file():
        there = sorted(path.stem for path in (written.folder / "pipelines").glob("*.py"))
        hint = did_you_mean(step.target_name, there)
        yield (
            f"{step.path}: has no template; name it by container_gcs_path or template_path, set DATAFLOW_TEMPLATES, or "
            f"write {source}, which a template can be built from{f';{hint}' if hint else ''}"
        )


def _sources(steps: Iterable[Step], written: Written) -> Iterator[str]:
    """What is wrong with the functions whose source is here, each told once."""
    entry_points: dict[str, str] = {}
    for step in steps:
        name = step.target_name
        if step.target_type == TargetTypes.CLOUD_FUNCTION and name and _source(written, name).is_dir():
            entry_points.setdefault(name, step.text("function") or "main")
    for name, entry_point in entry_points.items():
        yield from source_problems(_source(written, name), entry_point)


def _source(written: Written, name: str) -> Path:
    return written.folder / "functions" / name


def _is_in(folder: Path, parent: Path) -> bool:
    return folder != parent and folder.is_relative_to(parent)
