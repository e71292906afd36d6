"""Where and how definitions are deployed, as far as this machine tells: the folder, Terraform's variables, settings."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PARTS = ("main.py", "requirements.txt", "dag_definitions")
"""What the folder has in it that is deployed."""

_VARIABLE = re.compile(r'^[ \t]*([a-z_]+)[ \t]*=[ \t]*"([^"\\$]*)"', re.MULTILINE)
_MANY = re.compile(r"^([a-z_]+)[ \t]*=[ \t]*[\[{]([^\]}]*)[\]}]", re.MULTILINE)
_STRING = re.compile(r'"([^"\\$]*)"')
_COMMENT = re.compile(r"^[ \t]*(#|//).*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is known of a deployment.

    Attributes:
        root: the folder that is deployed; None where the definitions lie in none.
        project, region: those of the steps that name none.
        templates: the folder of the flex templates of steps that name none, if one is set.
        name: what the orchestrator's own function is called.
        default_dag: the DAG of start messages that name none, if one is set.
        skipped: the DAGs whose functions somebody else deploys.
        has_job_accounts: whether it names an account that jobs may run as.
    """

    root: Path | None
    project: str | None
    region: str | None
    templates: str | None
    name: str = "orchestrator"
    default_dag: str | None = None
    skipped: frozenset[str] = frozenset()
    has_job_accounts: bool = False


def deployment_of(path: Path, environment: Mapping[str, str]) -> Deployment:
    """Return the deployment that the definitions at `path` belong to.

    A setting in the environment counts more than one in terraform/terraform.tfvars (or its .json).
    """
    folder = path.resolve()
    root = next((each for each in (folder, *folder.parents) if all((each / part).exists() for part in _PARTS)), None)
    variables = _variables(root / "terraform") if root else {}
    given = {name[7:]: value for name, value in environment.items() if name.startswith("TF_VAR_")}
    variables |= given | {name: tuple(_STRING.findall(value)) for name, value in given.items() if _is_many(value)}

    def text(name: str) -> str | None:
        value = variables.get(name)
        return value if isinstance(value, str) and value else None

    return Deployment(
        root,
        environment.get("GOOGLE_CLOUD_PROJECT") or text("project_id"),
        environment.get("FUNCTION_REGION") or text("region"),
        environment.get("DATAFLOW_TEMPLATES") or None,
        text("name") or "orchestrator",
        text("default_dag"),
        frozenset(variables.get("skip_functions_of") or ()),
        bool(variables.get("job_service_accounts")),
    )


def _is_many(value: str) -> bool:
    return value.strip()[:1] in ("[", "{")


def _variables(folder: Path) -> dict[str, str | tuple[str, ...]]:
    """The variables of the files that Terraform reads by itself, in its order: a string, or those in a list or map."""
    found: dict[str, str | tuple[str, ...]] = {}
    for path in (
        folder / "terraform.tfvars",
        folder / "terraform.tfvars.json",
        *sorted((*folder.glob("*.auto.tfvars"), *folder.glob("*.auto.tfvars.json"))),
    ):
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else _written(text)
        except (OSError, ValueError):
            continue  # Terraform itself says what is wrong with it
        if isinstance(values, dict):
            found |= {name: value for name, value in values.items() if isinstance(value, str)}
            many = {name: value for name, value in values.items() if isinstance(value, list | dict | tuple)}
            found |= {name: tuple(each for each in value if isinstance(each, str)) for name, value in many.items()}
    return found


def _written(text: str) -> dict[str, str | tuple[str, ...]]:
    """The variables of a file in Terraform's own language."""
    text = _COMMENT.sub("", text)
    return {
        **dict(_VARIABLE.findall(text)),
        **{name: tuple(_STRING.findall(inside)) for name, inside in _MANY.findall(text)},
    }
