"""What a run is about: what it is for, who answers for it, its tags; for when it is, and what triggered it."""

import msgspec

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, cut, printable
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.ids import cause_of
from orchestrator.model.run_state import RunState

_MAX_DESCRIPTION = 500


class _Described(msgspec.Struct):
    """As much of a definition as is needed here."""

    description: str = ""


def about_lines(state: RunState, bucket: Bucket) -> list[Line]:
    """Return the description, the owner, the tags and so on, a line each; none of what there is not."""
    run = state.run
    scheduled_for = "" if run.scheduled_for is None else f"{run.scheduled_for:%Y-%m-%d %H:%M:%S} UTC"
    told = (
        ("about: ", " ".join(_description(state, bucket).split())),
        ("owner: ", run.owner or ""),
        ("tags: ", ", ".join(run.tags)),
        ("scheduled for: ", scheduled_for),
        ("late: ", f"had not ended by {run.deadline_at:%Y-%m-%d %H:%M:%S} UTC" if run.is_late else ""),
        ("triggered by: ", cause_of(run.dag, run.message_id or "") or ""),
    )
    return [((name, "dim"), (cut(printable(words), _MAX_DESCRIPTION), "")) for name, words in told if words]


def _description(state: RunState, bucket: Bucket) -> str:
    """It stands in the definition alone; a run is shown all the same where that is gone."""
    try:
        found = bucket.store.get(DefinitionStatus.key(state.run.definition))
        return msgspec.json.decode(found[0], type=_Described).description if found else ""
    except (OrchestratorError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
