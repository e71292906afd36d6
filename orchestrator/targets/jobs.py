"""JobTarget: launches, finds, asks and cancels the jobs of any service of the table in `job_services`.

An execution id is the execution's full name, so that it says where to ask. Where a service takes an id of ours, that is
the launch's key: a second launch gets a 409, and the execution that there is. Where it takes none, `find` looks through
the executions for the one that carries the launch.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from orchestrator.model.commands import EMPTY, Execution, Json, Launch, Outcome
from orchestrator.model.enums import Identity, OutcomeKind
from orchestrator.model.errors import LaunchRefused, LaunchUncertain
from orchestrator.services.google_api import ApiError, GoogleApis
from orchestrator.targets.job_service import Call, Listing, Resource, Service, Where, text_at
from orchestrator.targets.request_parts import Clash, laid_over
from orchestrator.targets.twins import plain

log = logging.getLogger(__name__)

_REFUSALS = {400: "BadParameters", 403: "NotAllowed", 404: "NotFound"}

_MAX_PAGES = 20
"""How far `find` looks back at the most; longer, and a launch after it would come after its lease's end."""
_SKEW = timedelta(minutes=1)
"""How far the clocks of a service and of ours may be apart."""
_MAX_REMEMBERED = 10_000


class JobTarget:
    """Runs jobs of one service.

    Args:
        service: its row of the table.
        apis: Google's REST APIs.
        project, region: where jobs of steps without `project_id`, `region` run; None: such steps are refused.
        launch_limit_s: how long the launch call may take.
        ask_every_s: an execution that has not ended is asked for again only after this time; for a Tick that is
            quicker than the service likes.
        is_reminded: whether there is a broker that reminds; then a service that leaves no event is asked soon.
        monotonic: seconds that only grow.
    """

    has_outcome: bool = True
    can_cancel: bool = True
    synchronous: bool = False

    def __init__(
        self,
        service: Service,
        apis: GoogleApis,
        *,
        project: str | None,
        region: str | None,
        launch_limit_s: float = 30.0,
        ask_every_s: float = 0.0,
        is_reminded: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.identity: Identity = service.identity
        self.id_is_ours: bool = service.id_is_ours
        self.launch_limit_s = launch_limit_s
        self.first_question_s = service.first_question_s if is_reminded else 0.0
        self._service, self._apis = service, apis
        self._home = Where(project or "", region or "")
        self._ask_every_s, self._monotonic = ask_every_s, monotonic
        self._asked_at: dict[str, float] = {}

    def launch(self, launch: Launch) -> Execution:
        """Launch the step's job.

        Raises:
            LaunchRefused: the service refuses it for good, or the step's request and parameters make none.
            LaunchUncertain: the service may have launched it.
        """
        service, where = self._service, self._where(launch)
        for value, key, setting in (
            (where.project, "project_id", "GOOGLE_CLOUD_PROJECT"),
            (where.region, "region", "FUNCTION_REGION"),
        ):
            if not value:
                message = f'names no "{key}", and the setting {setting} is not set; one of the two is needed'
                raise self._refused(launch, message, "NoPlace")
        what = f"launch {launch.key}"
        body = self._body(launch, where)
        try:
            answer = self._call(service.launch, where, what, body)
        except ApiError as exc:
            if exc.status == 409 and service.new_id is None:  # our key is taken: nobody but a try of ours took it
                found = self.find(launch)
                if found is not None:
                    return found
            if exc.is_passing or exc.status == 409:
                raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
            raise self._refused(launch, str(exc), _REFUSALS.get(exc.status or 0)) from exc
        job_id = service.new_id(answer) if service.new_id else where.key
        if not job_id:
            raise LaunchUncertain(f"{launch.launch_id}: {self._said(what)}: the answer names no execution")
        return self._execution(replace(where, id=job_id))

    def find(self, launch: Launch) -> Execution | None:
        """Return the execution of an earlier try, whether it runs or has ended; of several, the first.

        Raises:
            LaunchUncertain: cannot tell now.
        """
        where = self._where(launch)
        try:
            listing = self._service.listing
            if listing is None:
                where = replace(where, id=where.key)
                self._call(self._service.get, where, f"find {launch.key}")
                return self._execution(where)
            found = [each for each in self._listed(listing, where, launch) if listing.is_of(each, launch)]
        except ApiError as exc:
            if exc.status == 404:
                return None
            raise LaunchUncertain(f"{launch.launch_id}: {exc}") from exc
        if not found:
            return None
        first = min(found, key=lambda each: (_created_at(each) is None, text_at(each, "createTime")))
        return self._execution(replace(where, id=text_at(first, "name").rpartition("/")[2]))

    def outcome(self, execution: Execution) -> Outcome | None:
        """Return how the job ended, or None while it has not.

        A job that cannot be seen may still be there, so that this is no outcome; the step's timeout limits it.

        Raises:
            LaunchUncertain: cannot tell now.
        """
        asked_at = self._asked_at.get(execution.execution_id)
        if asked_at is not None and self._monotonic() < asked_at + self._ask_every_s:
            return None
        where = self._known(execution)
        try:
            outcome = self._outcome(self._resource(where), where)
        except ApiError as exc:
            raise LaunchUncertain(str(exc)) from exc
        if outcome is None and self._ask_every_s:
            if len(self._asked_at) >= _MAX_REMEMBERED:
                self._asked_at.clear()
            self._asked_at[execution.execution_id] = self._monotonic()
        return outcome

    def cancel(self, execution: Execution) -> None:
        """Ask for the job's cancellation; one that has ended, or that the service does not know, needs none.

        Raises:
            LaunchUncertain: the service has not accepted that.
        """
        where, cancel = self._known(execution), self._service.cancel
        try:
            if "{operation}" in cancel.parameters.values():
                where = replace(where, operation=text_at(self._resource(where), "operation"))
                if not where.operation:
                    raise LaunchUncertain(f"{self._said(f'cancel {where.id}')}: it names no operation yet")
            try:
                self._call(cancel, where, f"cancel {where.id}", EMPTY)
            except ApiError as exc:
                if exc.status is None or exc.is_passing or self._outcome(self._resource(where), where) is None:
                    raise
        except ApiError as exc:
            if exc.status != 404:
                raise LaunchUncertain(str(exc)) from exc

    # -- from the step to the request ---------------------------------------------------------------

    def _body(self, launch: Launch, where: Where) -> dict[str, Json]:
        theirs = launch.step.get("request")
        try:
            ours = self._service.body(launch, where)
            return laid_over(theirs if isinstance(theirs, Mapping) else EMPTY, ours, "request")
        except Clash as exc:
            paths = ", ".join(exc.paths)
            raise self._refused(
                launch, f"{paths}: the step's request says otherwise than its other keys; keep one", "BadParameters"
            ) from exc
        except ValueError as exc:
            raise self._refused(launch, str(exc), "BadParameters") from exc

    def _where(self, launch: Launch) -> Where:
        project, region = launch.step.get("project_id"), launch.step.get("region")
        return Where(
            str(project or self._home.project),
            str(region or self._home.region),
            launch.target_name,
            launch.key,
            str(UUID(bytes=sha256(launch.launch_id.encode()).digest()[:16], version=4)),
        )

    def _refused(self, launch: Launch, message: str, kind: str | None) -> LaunchRefused:
        error_type = f"{self._service.target_type}.{kind}" if kind else "Launch.Refused"
        return LaunchRefused(f"{launch.node_name}: {message}", error_type=error_type)

    # -- from the answer to the outcome -------------------------------------------------------------

    def _execution(self, where: Where) -> Execution:
        name = where.fill(self._service.name)
        return Execution(name, {"name": name})

    def _known(self, execution: Execution) -> Where:
        where = self._service.where(execution.execution_id)
        if where is None:
            raise LaunchUncertain(
                f"{execution.execution_id}: is no {self._service.target_type} execution; "
                f"they are called {self._service.name}"
            )
        return where

    def _outcome(self, resource: Resource, where: Where) -> Outcome | None:
        service = self._service
        state = service.state(resource)
        kind = service.ends.get(state)
        if kind is OutcomeKind.COMPLETED:
            return Outcome.completed(service.result(resource, where))
        if kind is OutcomeKind.CANCELLED:
            return Outcome.cancelled()
        if kind is OutcomeKind.FAILED:
            words = service.reason(resource) or f"{where.id}: ended as {state}, and left no error message"
            return Outcome.failed(f"{service.target_type}.JobFailed", plain(words))
        return None

    # -- calls --------------------------------------------------------------------------------------

    def _resource(self, where: Where) -> Resource:
        return self._call(self._service.get, where, f"get {where.id}")

    def _listed(self, listing: Listing, where: Where, launch: Launch) -> Iterator[Resource]:
        """Executions, as far back as this launch can be."""
        token = ""
        since = launch.started_at - _SKEW if launch.started_at else None
        for _ in range(_MAX_PAGES):
            answer = self._call(listing.call, where, f"find {launch.key}", more={"pageToken": token} if token else {})
            items = answer.get(listing.items)
            page = [each for each in items if isinstance(each, Mapping)] if isinstance(items, list) else []
            yield from page
            token = text_at(answer, "nextPageToken")
            if not token or (since is not None and _is_newest_first(page) and _is_before(page[-1], since)):
                return
        raise LaunchUncertain(f"{launch.launch_id}: {self._said('find')}: not among the last {_MAX_PAGES} pages")

    def _call(
        self,
        call: Call,
        where: Where,
        what: str,
        body: Mapping[str, Json] = EMPTY,
        more: Mapping[str, str] = EMPTY,  # type: ignore[assignment]  # an empty one is shared
    ) -> Resource:
        name, version = self._service.api
        endpoint = where.fill(self._service.endpoint) if self._service.endpoint else None
        try:
            methods: Any = self._apis.service(name, version, endpoint)
        except Exception as exc:  # no credentials, as a rule
            raise LaunchUncertain(f"{self._said(what)}: cannot be called: {type(exc).__name__}: {exc}") from exc
        for collection in where.fill(call.collection).split("."):
            methods = getattr(methods, collection)()
        arguments: dict[str, Any] = dict(more)
        for key, text in call.parameters.items():
            arguments[key] = where.fill(text) if isinstance(text, str) else text
        if call.has_body:
            arguments["body"] = dict(body)
        # A second launch without a key of ours would be a second execution.
        is_repeatable = call is not self._service.launch or self._service.identity is not Identity.FOUND
        return self._apis.call(
            getattr(methods, call.method)(**arguments), self._said(what), is_repeatable=is_repeatable
        )

    def _said(self, what: str) -> str:
        return f"{self._service.api[0]}: {what}"


def _created_at(resource: Resource) -> datetime | None:
    try:
        return msgspec.convert(text_at(resource, "createTime"), datetime)
    except msgspec.ValidationError:
        return None


def _is_newest_first(page: list[Resource]) -> bool:
    """Whether a page shows by itself that its list is in that order."""
    times = [time for each in page if (time := _created_at(each)) is not None]
    return len(times) == len(page) >= 2 and times[0] > times[-1] and times == sorted(times, reverse=True)


def _is_before(resource: Resource, since: datetime) -> bool:
    created_at = _created_at(resource)
    return created_at is not None and created_at < since
