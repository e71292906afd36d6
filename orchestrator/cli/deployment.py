"""Where and how definitions are deployed, as far as this machine tells: the folder, Terraform's variables, settings."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PARTS = ("main.py", "requirements.txt", "dag_definitions")
"""What the folder has in it that is deployed."""

_VARIABLE = re.compile(r'^[ \t]*([a-z_]+)[ \t]*=[ \t]*"([^"\\$]*)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is known of a deployment.

    Attributes:
        root: the folder that is deployed; None where the definitions lie in none.
        project, region: those of the steps that name none.
        templates: the folder of the flex templates of steps that name none, if one is set.
        name: what the orchestrator's own function is called.
    """

    root: Path | None
    project: str | None
    region: str | None
    templates: str | None
    name: str = "orchestrator"


def deployment_of(path: Path, environment: Mapping[str, str]) -> Deployment:
    """Return the deployment that the definitions at `path` belong to.

    A setting in the environment counts more than one in terraform/terraform.tfvars (or its .json).
    """
    folder = path.resolve()
    root = next((each for each in (folder, *folder.parents) if all((each / part).exists() for part in _PARTS)), None)
    variables = _variables(root / "terraform") if root else {}
    variables |= {name[7:]: value for name, value in environment.items() if name.startswith("TF_VAR_")}
    return Deployment(
        root,
        environment.get("GOOGLE_CLOUD_PROJECT") or variables.get("project_id") or None,
        environment.get("FUNCTION_REGION") or variables.get("region") or None,
        environment.get("DATAFLOW_TEMPLATES") or None,
        variables.get("name") or "orchestrator",
    )


def _variables(folder: Path) -> dict[str, str]:
    """The variables whose values are plain strings, of the files that Terraform reads by itself, in its order."""
    found: dict[str, str] = {}
    for path in (
        folder / "terraform.tfvars",
        folder / "terraform.tfvars.json",
        *sorted((*folder.glob("*.auto.tfvars"), *folder.glob("*.auto.tfvars.json"))),
    ):
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix == ".json" else dict(_VARIABLE.findall(text))
        except (OSError, ValueError):
            continue  # Terraform itself says what is wrong with it
        if isinstance(values, dict):
            found |= {name: value for name, value in values.items() if isinstance(value, str)}
    return found
