"""Notifications of run events: owed from the save that made the event until they are sent or given up. Pure.

A notification has an owner and a lease, as a claim has: the instance whose save owed it sends it, and a Tick that finds
the lease over takes it over by a save of its own. So it is never lost, and sent twice only where an instance dies, or
loses its last save, between sending it and writing that it was sent; its id is the same both times.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import sha256

from msgspec.structs import replace

from orchestrator.engine.draft import Draft
from orchestrator.model.commands import Json, Notify
from orchestrator.model.enums import RunEvents, RunStatus, TaskStatus
from orchestrator.model.facts import NotificationExpired, NotificationFailed, NotificationSent
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import LostNotification, OwedNotification, RunInfo, RunState

_EVENT_OF: Mapping[RunStatus, RunEvents] = {
    RunStatus.COMPLETED: RunEvents.COMPLETED,
    RunStatus.FAILED: RunEvents.FAILED,
    RunStatus.CANCELLED: RunEvents.CANCELLED,
}


def owe(draft: Draft, before: RunState | None) -> None:
    """Owe the notifications of what has become of the run, and have them sent."""
    run = draft.run
    if run is None:
        return
    if run.deadline_at is not None and _is_late(draft, run, run.deadline_at, before):
        run = replace(run, is_late=True)
        draft.change_run(run)
    has_begun = before is not None and _has_begun(before.run, before.nodes)
    if run.part_of is not None:  # nobody's run: a part of one
        return
    events = [RunEvents.STARTED] if not has_begun and _has_begun(run, draft.nodes) else []
    if has_ended(before, run):
        events.append(_EVENT_OF[run.status])
    if run.is_late and not (before is not None and before.run.is_late):
        events.append(RunEvents.LATE)
    owed = [_owed(draft, run, event, *to) for event in events for to in _receivers(draft, event)]
    if owed:
        draft.change_run(replace(run, owed_notifications=(*run.owed_notifications, *owed)))
        draft.commands.extend(_command(run, each) for each in owed)


def has_ended(before: RunState | None, run: RunInfo) -> bool:
    """Whether a run has come to its end by a save, or to another end after a redrive."""
    if not run.status.is_final:
        return False
    return before is None or not before.run.status.is_final or before.run.redrives < run.redrives


def _is_late(draft: Draft, run: RunInfo, deadline_at: datetime, before: RunState | None) -> bool:
    """Whether a deadline has just passed of a run that is open, or was up to now."""
    is_open = not run.status.is_final or has_ended(before, run)
    return is_open and not run.is_late and draft.now >= deadline_at


def _has_begun(run: RunInfo, nodes: Mapping[str, NodeState]) -> bool:
    """Whether a run has started: a child run is made first, and begins later; one that is queued waits for its turn."""
    if run.redrives or (run.queued_at is None and (run.parent is None or not run.held)):
        return True
    return any(node.status not in (TaskStatus.NEW, TaskStatus.SKIPPED) for node in nodes.values())


def expired(draft: Draft, fact: NotificationExpired) -> None:
    """Its owner did not get to telling that it was sent, or it is to be tried again: take it over."""
    owed = _found(draft, fact.notification_id, fact.owner)
    if owed is None:
        return
    again = replace(
        owed, owner=draft.token.owner, lease_end=_after(draft.now, draft.policy.min_lease_s), tries=owed.tries + 1
    )
    if owed.tries + 1 >= draft.policy.max_notification_tries:
        _give_up(draft, owed, owed.error or "no instance lived to say that it was sent")
        return
    _put(draft, again)
    draft.commands.append(_command(draft.info, again))


def sent(draft: Draft, fact: NotificationSent) -> None:
    """It was sent; whoever owns it by now, it need not be sent again."""
    if any(each.notification_id == fact.notification_id for each in draft.info.owed_notifications):
        _drop(draft, fact.notification_id)


def failed(draft: Draft, fact: NotificationFailed) -> None:
    """It was not accepted: later again, twice as late each time, unless that is of no use."""
    owed = _found(draft, fact.notification_id, fact.owner)
    if owed is None:
        return
    if fact.is_final or owed.tries + 1 >= draft.policy.max_notification_tries:
        _give_up(draft, owed, fact.error)
        return
    later = _after(draft.now, draft.policy.min_lease_s * 2**owed.tries)
    _put(draft, replace(owed, owner="", lease_end=later, error=fact.error))


def payload_of(run: RunInfo, owed: OwedNotification) -> dict[str, Json]:
    """Return what is sent, JSON: the same for every try, as far as the run's own entry is."""
    is_of_end = owed.event not in (RunEvents.STARTED, RunEvents.LATE)
    told: dict[str, Json] = {
        "run_id": run.run_id,
        "dag": run.dag,
        "status": next((s.value for s, e in _EVENT_OF.items() if e is owed.event), RunStatus.RUNNING.value),
        "owner": run.owner,
        "tags": list(run.tags),
        "scheduled_for": _rfc3339(run.scheduled_for),
        "started_at": _rfc3339(run.started_at),
        "ended_at": _rfc3339(owed.at) if is_of_end else None,
        "error": None,
    }
    error = owed.run_error or run.error
    if is_of_end and error is not None:
        told["error"] = {
            "error_type": error.error_type,
            "message": error.message[:MAX_MESSAGE],
            "node": error.node,
        }
    if owed.event is RunEvents.LATE:
        told["deadline_at"] = _rfc3339(run.deadline_at)
    return {"id": owed.notification_id, "event": owed.event.value, "at": _rfc3339(owed.at), "run": told}


MAX_MESSAGE = 2000
"""How many characters of a run's error are sent."""


def _receivers(draft: Draft, event: RunEvents) -> Iterator[tuple[str | None, str | None]]:
    """Yield (topic, url) of those who want to know, each once: the definition's, then everybody's."""
    own = draft.dag.definition.get("notify")
    seen: set[tuple[str | None, str | None]] = set()
    for each in _objects([*(own if isinstance(own, list) else ()), *draft.policy.notify]):
        on, topic, url = each.get("on"), each.get("topic"), each.get("url")
        to = (str(topic), None) if topic is not None else (None, str(url))
        if isinstance(on, list) and event.value in on and to not in seen:
            seen.add(to)
            yield to


def _objects(values: Iterable[Json]) -> Iterator[Mapping[str, Json]]:
    yield from (each for each in values if isinstance(each, dict))


def _owed(draft: Draft, run: RunInfo, event: RunEvents, topic: str | None, url: str | None) -> OwedNotification:
    end = f" {run.redrives}" if run.redrives else ""
    what = f"{run.run_id} {event.value} {draft.now.isoformat()} {topic or url}{end}"
    return OwedNotification(
        notification_id=sha256(what.encode()).hexdigest()[:32],
        event=event,
        at=draft.now,
        topic=topic,
        url=url,
        owner=draft.token.owner,
        lease_end=_after(draft.now, draft.policy.min_lease_s),
    )


def _command(run: RunInfo, owed: OwedNotification) -> Notify:
    return Notify(
        run.run_id, owed.notification_id, owed.owner, owed.lease_end, owed.topic, owed.url, payload_of(run, owed)
    )


def _found(draft: Draft, notification_id: str, owner: str) -> OwedNotification | None:
    for each in draft.info.owed_notifications:
        if each.notification_id == notification_id and each.owner == owner:
            return each
    return None


def _put(draft: Draft, owed: OwedNotification) -> None:
    run = draft.info
    changed = (owed if each.notification_id == owed.notification_id else each for each in run.owed_notifications)
    draft.change_run(replace(run, owed_notifications=tuple(changed)))


def _drop(draft: Draft, notification_id: str) -> None:
    run = draft.info
    left = tuple(each for each in run.owed_notifications if each.notification_id != notification_id)
    draft.change_run(replace(run, owed_notifications=left))


def _give_up(draft: Draft, owed: OwedNotification, error: str) -> None:
    _drop(draft, owed.notification_id)
    lost = LostNotification(owed.notification_id, owed.event, owed.at, owed.topic, owed.url, error)
    draft.change_run(replace(draft.info, lost_notifications=(*draft.info.lost_notifications, lost)))


def _after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)


def _rfc3339(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat().replace("+00:00", "Z")
