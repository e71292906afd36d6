"""Answer what was asked: the steps Init, Int and End."""

from flask import Request


def main(request: Request) -> dict[str, object]:
    """Return the step's name and the parameters that arrived."""
    received = request.get_json()
    return {"function": "orch-test-1", "step": received["step"], "received": received}
