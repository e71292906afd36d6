"""Google's REST APIs by google-api-python-client: built lazily, cached, and with one kind of error.

Source of the endpoints: the discovery documents that the client ships (`static_discovery`), so that
building a service needs no network. An endpoint override, as gcloud has them
(`CLOUDSDK_API_ENDPOINT_OVERRIDES_DATAFLOW`, …), sends a service's calls elsewhere, without credentials.

The client's own transport, httplib2, is not safe for threads and would need a client, a connection and a set of trusted
authorities a thread. So it is given one over `requests`, as Cloud Storage's client has: one for all threads.
"""

import json
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any

from orchestrator.model.commands import Json
from orchestrator.model.errors import OrchestratorError

OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
"""Prefix of the environment variables that name another endpoint; the service's name in capitals follows."""

PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
"""Statuses after which the same call may succeed."""

_TOO_FAST = frozenset(("rateLimitExceeded", "userRateLimitExceeded", "jobRateLimitExceeded"))
"""Reasons of a 403 that are a 429 in fact: BigQuery's, https://cloud.google.com/bigquery/docs/error-messages."""


class ApiError(OrchestratorError):
    """A call to a Google API failed. `status` is the HTTP status, None where no answer came; `reason` is the service's
    word for the error, where it has one."""

    def __init__(self, message: str, status: int | None, reason: str | None = None) -> None:
        self.status, self.reason = status, reason
        super().__init__(message)

    @property
    def is_passing(self) -> bool:
        """Whether the same call may succeed later; the call may have been carried out all the same."""
        return self.status is None or self.status in PASSING or (self.status == 403 and self.reason in _TOO_FAST)


class GoogleApis:
    """Services by name and version, for any number of threads.

    Args:
        environment: where endpoint overrides are read from.
        timeout_s: of one call: to connect, and between two parts of the answer.
        credentials: returns google.auth credentials; the application's default ones, where None.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        timeout_s: float = 20.0,
        credentials: Callable[[], Any] | None = None,
    ) -> None:
        self._overrides = {
            name.removeprefix(OVERRIDE).lower(): url for name, url in environment.items() if name.startswith(OVERRIDE)
        }
        self.timeout_s = timeout_s
        self._credentials = credentials
        self._lock = Lock()
        self._built: dict[tuple[str, str, str | None], Any] = {}

    def override(self, name: str) -> str | None:
        """The endpoint that stands in for a service, if one is set."""
        return self._overrides.get(name)

    def service(self, name: str, version: str, endpoint: str | None = None) -> Any:
        """Return the client of a service, such as ("dataflow", "v1b3").

        Args:
            endpoint: of a region, where the service has one in each; an override stands in for it too.
        Raises:
            ApiError: there are no credentials.
        """
        endpoint = self.override(name) or endpoint
        with self._lock:
            if (name, version, endpoint) not in self._built:
                self._built[name, version, endpoint] = self._build(name, version, endpoint)
            return self._built[name, version, endpoint]

    def _build(self, name: str, version: str, endpoint: str | None) -> Any:
        from google.auth.exceptions import GoogleAuthError
        from googleapiclient.discovery import build

        from orchestrator.services.connections import Http, application_credentials

        http = Http(self.timeout_s)
        if self.override(name) is None:
            try:
                credentials = (self._credentials or application_credentials)()
            except GoogleAuthError as exc:
                # Passing: the metadata server may not have answered; and nothing that the service itself has refused.
                raise ApiError(f"{name}: no credentials: {exc}", None) from exc
            http = Http(self.timeout_s, credentials)
        options = None if endpoint is None else {"api_endpoint": endpoint.rstrip("/") + "/"}
        return build(name, version, http=http, client_options=options, static_discovery=True, cache_discovery=False)

    def call(self, request: Any, what: str, *, is_repeatable: bool = False) -> Mapping[str, Json]:
        """Execute a request, and return its answer.

        Args:
            request: what a method of a service returned.
            what: the call in words for an error, such as "dataflow.jobs.get my-job".
            is_repeatable: to carry it out twice does no harm, as with a key of ours in it, or where it only asks. Then
                it is made again where its connection was cut before the answer. Of what is no POST that goes without
                saying.
        Raises:
            ApiError: the service answered with an error, or not at all.
        """
        from googleapiclient.errors import HttpError

        try:
            answer = request.execute(http=request.http.repeating if is_repeatable else None, num_retries=0)
        except HttpError as exc:
            status = int(exc.resp.status)
            raise ApiError(f"{what}: {status}: {exc.reason}", status, _reason(exc.content)) from exc
        except Exception as exc:  # transport errors come as OSError and google-auth's own
            raise ApiError(f"{what}: no answer: {type(exc).__name__}: {exc}", None) from exc
        return answer if isinstance(answer, dict) else {}


def _reason(content: bytes) -> str | None:
    """The word for an error of the older APIs' form: `{"error": {"errors": [{"reason": …}]}}`."""
    try:
        reason = json.loads(content)["error"]["errors"][0]["reason"]
    except (ValueError, LookupError, TypeError):
        return None
    return reason if isinstance(reason, str) else None
