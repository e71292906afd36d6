"""Terraform's provider-less modules, applied offline: what they make of definitions.

module = Module("definitions", tmp_path)
module.outputs(folder="dag_definitions", name="orchestrator", …)
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ROOT / "terraform" / "modules"

needs_terraform = pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not installed")


def concurrency() -> int:
    """How many requests at once an instance of the orchestrator is deployed for, unless somebody says otherwise."""
    variables = (ROOT / "terraform/variables.tf").read_text()
    (block,) = re.findall(r'^variable "orchestrator" \{.*?^\}', variables, re.MULTILINE | re.DOTALL)
    (number,) = re.findall(r"concurrency += optional\(number, (\d+)\)", block)
    return int(number)


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_FRAME = re.compile(r"^[╷│╵] ?", re.MULTILINE)


class Refused(Exception):
    """Terraform says no; the message is its own, without colours and frames."""


class Module:
    """One of terraform/modules/. What Terraform writes goes to `folder`, nothing to the module."""

    def __init__(self, name: str, folder: Path) -> None:
        self._source, self._folder, self._number = MODULES / name, folder, 0  # a whole path stays what it is
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("TF_")},
            "TF_DATA_DIR": str(folder / "data"),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
        }
        self._run("init", "-backend=false")

    def outputs(self, **variables: object) -> dict:
        """Apply the module with these variables and return its outputs. Raises Refused."""
        self._number += 1
        state = self._folder / f"{self._number}.tfstate"
        file = self._folder / f"{self._number}.tfvars.json"
        file.write_text(json.dumps(variables))
        self._run("apply", "-auto-approve", "-backup=-", f"-state={state}", f"-var-file={file}")
        found: Mapping[str, Mapping] = json.loads(self._run("output", "-json", f"-state={state}"))
        return {name: output["value"] for name, output in found.items()}

    def plan(self, **variables: object) -> None:
        """Plan it with these variables, and change nothing. Raises Refused."""
        file = self._folder / "plan.tfvars.json"
        file.write_text(json.dumps(variables))
        self._run("plan", f"-var-file={file}")

    def _run(self, command: str, *options: str) -> str:
        # Output has no -input, and it is what `-json` is asked of.
        no_input = () if command == "output" else ("-input=false",)
        done = subprocess.run(
            ["terraform", f"-chdir={self._source}", command, *no_input, "-no-color", *options],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode != 0:
            raise Refused(" ".join(_FRAME.sub("", _COLOUR.sub("", done.stderr)).split()))
        return done.stdout
