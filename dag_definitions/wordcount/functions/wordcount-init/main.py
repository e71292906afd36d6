"""First step of the word count: check that the text is there and say where the run's files go."""

from hashlib import file_digest
from pathlib import Path

from flask import Request


def main(request: Request) -> dict[str, object]:
    """Make the run's directory and return the paths that the later steps use.

    Parameters: `text` (a file, plain or `.gz`), `output` (a directory for the results of all runs)
    and `run_id`. Relative paths start at the directory in which the run was started.
    """
    parameters = request.get_json()
    text, run_dir = Path(parameters["text"]), Path(parameters["output"], parameters["run_id"])
    if not text.is_file():
        raise FileNotFoundError(
            f"text: there is no file {text} (seen from {Path.cwd()}); set `text` in the run's input to "
            "the path of a text, plain or .gz, relative to the directory in which the run is started"
        )
    with text.open("rb") as file:
        sha256 = file_digest(file, "sha256").hexdigest()
    run_dir.mkdir(parents=True, exist_ok=True)
    return {
        "text": str(text),
        "size_bytes": text.stat().st_size,
        "sha256": sha256,
        "run_dir": str(run_dir),
        "words_dir": str(run_dir / "words"),
        "profile": str(run_dir / "profile.json"),
    }
