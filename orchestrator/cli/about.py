"""What a run is about: what it is for, who answers for it, its tags; for when it is, and what triggered it;
of what nobody could be told."""

import msgspec

from orchestrator.cli.bucket import Bucket
from orchestrator.cli.lines import Line, cut, printable
from orchestrator.engine.status import DefinitionStatus
from orchestrator.model.errors import OrchestratorError
from orchestrator.model.ids import cause_of
from orchestrator.model.run_state import RunState

_MAX_DESCRIPTION = 500
_MAX_UNTOLD = 6


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
    lines: list[Line] = [
        ((name, "dim"), (cut(printable(words), _MAX_DESCRIPTION), "")) for name, words in told if words
    ]
    return [*lines, *untold_lines(state)]


def untold_lines(state: RunState) -> list[Line]:
    """Return who has not been told of an event of the run though somebody tried, and why, a line each."""
    run = state.run
    told = [("not told yet: ", owed.event, owed.error) for owed in run.owed_notifications if owed.error]
    told += [("never told: ", lost.event, lost.error) for lost in run.lost_notifications]
    lines: list[Line] = [
        ((name, "dim"), (cut(printable(f"{event}: {error}"), _MAX_DESCRIPTION), "")) for name, event, error in told
    ]
    if len(lines) > _MAX_UNTOLD:
        lines[_MAX_UNTOLD:] = [((f"… and {len(lines) - _MAX_UNTOLD} more", "dim"), ("", ""))]
    return lines


def _description(state: RunState, bucket: Bucket) -> str:
    """It stands in the definition alone; a run is shown all the same where that is gone."""
    try:
        found = bucket.store.get(DefinitionStatus.key(state.run.definition))
        return msgspec.json.decode(found[0], type=_Described).description if found else ""
    except (OrchestratorError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
