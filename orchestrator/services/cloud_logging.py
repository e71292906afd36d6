"""Cloud Logging: the entries that a filter finds, page by page.

Source: the REST reference of entries.list, v2, and the client's discovery document. A project allows 60 such calls a
minute, which everybody who reads its logs shares.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from orchestrator.model.commands import Json
from orchestrator.services.google_api import ApiError, GoogleApis

MAX_PAGE: Final = 1000
"""How many entries the service puts on a page at most."""


class CloudLogging:
    """Reads logs.

    Args:
        apis: Google's REST APIs.
        projects: ids of the projects whose logs to read.
    """

    def __init__(self, apis: GoogleApis, projects: Sequence[str]) -> None:
        self._apis = apis
        self._names = [f"projects/{project}" for project in projects]

    def entries(
        self, wanted: str, what: str, *, page_size: int = 50, max_pages: int = 5, is_newest_first: bool = True
    ) -> Iterator[Mapping[str, Json]]:
        """Yield the entries that a filter finds, in the order of their timestamps; each page is read when it is needed.

        Args:
            wanted: the filter.
            what: it in words, for an error.
        Raises:
            ApiError: the service answered with an error, or not at all.
        """
        body: dict[str, Json] = {
            "resourceNames": self._names,
            "filter": wanted,
            "orderBy": "timestamp desc" if is_newest_first else "timestamp asc",
            "pageSize": min(page_size, MAX_PAGE),
        }
        try:
            service = self._apis.service("logging", "v2").entries()
        except ApiError:
            raise
        except Exception as exc:
            raise ApiError(f"logging: cannot be called: {type(exc).__name__}: {exc}", None) from exc
        for _ in range(max_pages):
            answer = self._apis.call(service.list(body=body), f"logging: {what}", is_repeatable=True)
            entries, token = answer.get("entries"), answer.get("nextPageToken")
            yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()
            if not token:  # an empty page with a token only says that the search goes on
                return
            body["pageToken"] = token
