"""A step of each job service, as small as it can be: what tests launch."""

from orchestrator.model.commands import Launch
from orchestrator.targets.job_services import SERVICES

STEPS = {
    "CloudRunJob": {},
    "BigQuery": {"query": "SELECT @note"},
    "Dataproc": {"main_python_file": "gs://bucket/main.py"},
    "Batch": {"image": "image:1"},
    "Workflows": {},
    "VertexPipeline": {
        "template_path": "https://europe-west1-kfp.pkg.dev/my-project/pipelines/train/v1",
        "pipeline_root": "gs://bucket/pipelines",
    },
}
"""target type -> the keys of its own that a step needs."""

PLACE = {"project": "my-project", "region": "europe-west1"}


def launch_of(target_type: str, node: str = "Step1", *, step=None, parameters=None, **more) -> Launch:
    """A launch of a step of this type; of a job or workflow called `nightly`."""
    own = STEPS[target_type] if step is None else step
    ids = {"dag": "sample", "run_id": "run_1639322384_5c1e9f0b2a47", "nonce": "9f86d081884c7d659a2feaa0c55ad015"}
    return Launch(node, target_type, "nightly", parameters or {}, own, **{**ids, **more})


def definition_of_all(**keys) -> dict:
    """A definition with one step of each service side by side, and one after them all."""
    branches = [
        {
            "start": name,
            "steps": {name: {"type": "Task", "target_type": name, "target_name": "nightly", **STEPS[name], **keys}},
        }
        for name in SERVICES
    ]
    return {
        "start": "All",
        "steps": {"All": {"type": "Parallel", "branches": branches, "next": "End"}, "End": _END},
    }


_END = {"type": "Task", "target_type": "Function", "function": "builtins:dict"}
