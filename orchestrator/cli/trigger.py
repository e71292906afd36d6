"""`orchestrator trigger PATH… --event FILE`: which runs an event would start, with what input. Nothing is started."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from orchestrator.cli.console import Console
from orchestrator.cli.definitions import find_all, load_file
from orchestrator.cli.lines import listed
from orchestrator.engine.address import StartAll
from orchestrator.engine.catalog import Catalog
from orchestrator.engine.resolve import Resolver
from orchestrator.engine.status import ExecutionStatus
from orchestrator.model.commands import Json
from orchestrator.model.errors import InputError
from orchestrator.model.event_factory import EventFactory
from orchestrator.model.events import MessageEvent, ObjectEvent
from orchestrator.model.pubsub import decode
from orchestrator.model.trigger_events import FINALIZED, TOPIC, of_notification
from orchestrator.runtime.catalog import as_json
from orchestrator.runtime.registry import open_store

_HOW = (
    'write {"resource": {"type": "object"}, "bucket": …, "name": …}, {"resource": {"type": "message"}, "topic": …, '
    '"data": …}, the metadata of an object as Cloud Storage has it, or the body of a Pub/Sub push'
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which definitions are asked, about which event.

    Attributes:
        topic: where a push is from; our own, where None.
    """

    paths: Sequence[Path]
    event: Path
    topic: str | None = None
    is_json: bool = False


def trigger(console: Console, wanted: Wanted, variables: Mapping[str, Json], now: datetime) -> int:
    """Say what the event would start.

    Raises:
        InputError, EventError: it is no event that can start a run, or a run's input cannot be made of it.
        DefinitionError: a definition breaks rules.
    """
    found = {name: load_file(name, file).definition for path in wanted.paths for name, file in find_all(path)}
    event = _read(wanted)
    message_id = f"message of {wanted.event.name}"
    seen = EventFactory.create_from_event(event, message_id=message_id, publish_time=now)
    if seen is not None and not isinstance(seen, ObjectEvent | MessageEvent):
        raise InputError(f"{wanted.event}: is no event of an object or a message; {_HOW}")
    resolver = Resolver(
        Catalog(found), ExecutionStatus(open_store("memory://")), lambda: message_id, grace_s=0.0, variables=variables
    )
    item = resolver.resolve(event, message_id, now, now)
    runs = item.starts if isinstance(item, StartAll) else ()
    if isinstance(item, StartAll) and item.problems:
        raise item.problems[0]
    if wanted.is_json:
        console.document(as_json([{"dag": each.dag_name, "input": dict(each.input)} for each in runs]))
        return 0
    if not runs:
        console.out(f"it would start nothing; asked were {listed(found)}")
    for each in runs:
        console.out(f"it would start a run of {each.dag_name} with the input:", as_json(dict(each.input)).decode())
    return 0


def _read(wanted: Wanted) -> Mapping[str, Json]:
    """Return the event of the file, as `execute` takes it."""
    if wanted.topic is not None and not TOPIC.fullmatch(wanted.topic):
        raise InputError(f'trigger: --topic "{wanted.topic}" is no name of a topic; write projects/P/topics/T')
    try:
        found = msgspec.json.decode(wanted.event.read_bytes())
    except OSError as exc:
        raise InputError(f"{wanted.event}: cannot be read: {exc.strerror}") from exc
    except ValueError as exc:
        raise InputError(f"{wanted.event}: is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise InputError(f"{wanted.event}: is no event; {_HOW}")
    if "message" in found and "resource" not in found:
        return decode(found, topic=wanted.topic).event_data
    if found.get("kind") == "storage#object":
        attributes = {"eventType": FINALIZED, "bucketId": str(found.get("bucket")), "objectId": str(found.get("name"))}
        return of_notification(attributes, found)
    if not isinstance(found.get("resource"), dict):
        raise InputError(f"{wanted.event}: is no event; {_HOW}")
    return found
