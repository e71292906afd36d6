"""What a run's definition says about it: what it is for, who answers for it, its tags."""

import msgspec

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, cut, printable
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.run_state import RunState

_MAX_DESCRIPTION = 500


class _Described(msgspec.Struct):
    """As much of a definition as is needed here."""

    description: str = ""


def about_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return the description, the owner and the tags, a line each; none of what its definition does not say."""
    told = (
        ("about: ", " ".join(_description(state, bucket).split())),
        ("owner: ", state.run.owner or ""),
        ("tags: ", ", ".join(state.run.tags)),
    )
    return [((name, "dim"), (cut(printable(words), _MAX_DESCRIPTION), "")) for name, words in told if words]


def _description(state: RunState, bucket: Bucket) -> str:
    """It stands in the definition alone; a run is shown all the same where that is gone."""
    try:
        found = bucket.store.get(DefinitionStatus.key(state.run.definition))
        return msgspec.json.decode(found[0], type=_Described).description if found else ""
    except (OrchestratorError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
