"""A row of the table of job services: all that tells one from another. The rows are in `job_services`. Pure."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.model.commands import Json, Launch
from orchestrator.model.enums import Identity, OutcomeKind, TargetTypes
from orchestrator.model.json_paths import at

Resource = Mapping[str, Json]
"""A job, batch or execution as the service's API tells it."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where an execution is: what the {…} of a row's texts stand for."""

    project: str
    region: str
    target: str = ""
    key: str = ""
    """The launch's key, and the id of the execution where a service takes one."""
    request: str = ""
    """A UUID that is the launch's own, by which a service knows a request that it had before."""
    id: str = ""
    """The last part of the execution's name."""
    operation: str = ""
    """The long-running operation behind it, where a row's `cancel` needs that."""

    def fill(self, text: str) -> str:
        """Return a text of a row with everything in its place."""
        parts = self.operation.split("/")  # projects/P/regions/R/operations/O, or locations in place of regions
        return text.format(
            project=self.project,
            region=self.region,
            target=self.target,
            key=self.key,
            request=self.request,
            id=self.id,
            operation=self.operation,
            operations=parts[2] if len(parts) == 6 else "",
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A method of the service's API: `collection` as the discovery document nests it, and its parameters.

    The texts have {…} in them, which `Where.fill` fills.
    """

    collection: str
    method: str
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    has_body: bool = False
    """Whether it takes a body: that of the launch, else an empty one."""


@dataclass(frozen=True, slots=True)
class Listing:
    """How a service that takes no id of ours is looked through for the execution of a launch.

    Attributes:
        call: lists executions, newest first or in no order.
        items: what holds them in its answer.
        is_of: whether one of them is that of a launch.
    """

    call: Call
    items: str
    is_of: Callable[[Resource, Launch], bool]


@dataclass(frozen=True, slots=True)
class Service:
    """One service of the shape launch / get / list / cancel.

    Attributes:
        target_type: `target_type` of the steps that it runs.
        api: name and version of its discovery document.
        identity: what it does with a key of ours (see `ports.Target`).
        name: what an execution is called, in full; its execution id with us. Its last part is `{id}`.
        body: (launch, where) -> what the request has to hold; the step's own `request` is laid under it.
        launch, get, cancel: the calls.
        new_id: answer to the launch -> id of the execution; None where the id is the launch's key.
        listing: how `find` looks for an execution; None: `get` finds it by the launch's key.
        state: resource -> its state in one word, one of `ends` if it has ended.
        ends: state -> how the execution ended.
        reason: resource that has failed -> why, in the service's words; "" if it does not say.
        result: (resource that has completed, where) -> what the step's result is: small, JSON.
        first_question_s: when an attempt is first asked about, after its claim; 0 where an event tells of the end.
        id_is_ours: whether its events carry the launch id.
        endpoint: of a region, where the service has one in each.
    """

    target_type: TargetTypes
    api: tuple[str, str]
    identity: Identity
    name: str
    body: Callable[[Launch, Where], dict[str, Json]]
    launch: Call
    get: Call
    cancel: Call
    state: Callable[[Resource], str]
    ends: Mapping[str, OutcomeKind]
    reason: Callable[[Resource], str]
    result: Callable[[Resource, Where], dict[str, Json]]
    new_id: Callable[[Resource], str] | None = None
    listing: Listing | None = None
    first_question_s: float = 0.0
    id_is_ours: bool = False
    endpoint: str | None = None

    def where(self, execution_id: str) -> Where | None:
        """Return what an execution id says, None if it is not one of this service's."""
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.name))
        found = re.fullmatch(pattern, execution_id)
        if found is None:
            return None
        said = found.groupdict()
        return Where(said["project"], said["region"], said.get("target", ""), id=said["id"])


def text_at(resource: Json, *path: str | int) -> str:
    """The text that stands at `path`, "" if there is none."""
    found = at(resource, *path)
    return found if isinstance(found, str) else ""


def number_at(resource: Json, *path: str | int) -> int | None:
    """The whole number that stands at `path`; the APIs write 64 bits of one as text."""
    found = at(resource, *path)
    if isinstance(found, str) and re.fullmatch(r"-?[0-9]{1,19}", found):
        return int(found)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def last_part(name: str) -> str:
    """The id at the end of a resource's name."""
    return name.rpartition("/")[2]


def told(**facts: Json) -> dict[str, Json]:
    """A result, of what the service did tell."""
    return {name: value for name, value in facts.items() if value not in (None, "")}
