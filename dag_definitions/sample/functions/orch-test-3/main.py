"""Join words: the steps Step2 and Branch2."""

from flask import Request


def main(request: Request) -> dict[str, object]:
    """Return the step's name, the parameters that arrived and `words` as one sentence."""
    received = request.get_json()
    return {
        "function": "orch-test-3",
        "step": received["step"],
        "received": received,
        "sentence": " ".join(received["words"]).capitalize() + ".",
    }
