"""Add numbers: the steps Step1 and Branch1."""

from flask import Request


def main(request: Request) -> dict[str, object]:
    """Return the step's name, the parameters that arrived and the sum of `numbers`."""
    received = request.get_json()
    return {
        "function": "orch-test-2",
        "step": received["step"],
        "received": received,
        "sum": sum(received["numbers"]),
    }
