"""ObjectStore in a Cloud Storage bucket: the version of an object is its generation.

A put is one request with `ifGenerationMatch` (0: there must be no object); 412 is the lost race. Reads, listings
and writes are strongly consistent (https://cloud.google.com/storage/docs/consistency). An object takes about one
write a second; more are answered 429, and backed off.

All retries are made here, around whole calls, and none by the client library:

- Its download goes on where a connection broke, at the generation that it began with. If somebody has written the
  object since, that one is gone and the answer is 404, which would read as: there is no such run.
- Here every try is counted, has a time limit of its own, and starts anew.

A try that got no clear answer may have been carried out. The next one then finds the new generation and gets 412,
so **VersionConflict can mean that this very put succeeded before**. It does not look: whoever calls loads the object
again anyway, and knows its own write by the token in it.
"""

import json
import os
from collections.abc import Callable, Iterator
from http.client import HTTPException
from threading import Lock
from typing import TypeVar

from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError, NotFound, PreconditionFailed, RetryError
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud import storage  # type: ignore[import-untyped]
from google.cloud.storage.exceptions import DataCorruption  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidSchema, MissingSchema
from urllib3.exceptions import HTTPError

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.services.connections import MOST, Connections, application_credentials
from orchestrator.stores.keys import check_key, is_key

_FIRST_BACKOFF_S = 0.2
_LAST_BACKOFF_S = 4.0  # with full jitter, doubled from try to try
_LAST_GENERATION = 2**63 - 1

_FAILURES = (GoogleAPIError, GoogleAuthError, DataCorruption, HTTPError, HTTPException, OSError)
"""What a call ends with that did not work out; the exceptions of requests are OSErrors."""

_REMEDIES = {
    401: "its credentials must be valid ones",
    403: "the account that asks needs the role roles/storage.objectUser on the bucket",
    404: "the bucket must exist",
    429: "an object takes one write a second",
}
_WRITING = ("written", "deleted")

T = TypeVar("T")


class GcsStore:
    """A bucket, or the part of one under a prefix, for any number of threads, processes and machines.

    Nothing is asked and no credentials are looked for before the first call. With STORAGE_EMULATOR_HOST set (a URL
    such as http://localhost:9023) the client talks to that emulator, without credentials.

    Args:
        bucket: its name; it must exist.
        prefix: names of objects are this, a slash and the key; empty: the key itself.
        client: instead of one made by `open_client`.
        deadline_s: how long a call is tried again. A try may hang for half of it, so a call that gets no answer
            returns after one and a half times this.
    """

    write_interval_s = 1.0
    """"You can update or overwrite an object up to once per second" (https://cloud.google.com/storage/quotas)."""

    reads: int
    """Requests for a content or for a page of a listing that this instance has sent, so far."""

    writes: int
    """Requests to write or delete that this instance has sent, so far."""

    def __init__(
        self, bucket: str, *, prefix: str = "", client: storage.Client | None = None, deadline_s: float = 20.0
    ) -> None:
        folder = prefix.strip("/")
        if folder:
            check_key(folder)
        self._name, self._prefix = bucket, f"{folder}/" if folder else ""
        self._client = client
        self._deadline_s = deadline_s
        self._timeout = (deadline_s / 4, deadline_s / 2)  # to connect, to wait for an answer
        self._retry = DEFAULT_RETRY.with_delay(_FIRST_BACKOFF_S, _LAST_BACKOFF_S, 2.0).with_timeout(deadline_s)
        self.reads = self.writes = 0
        self._lock, self._counting = Lock(), Lock()

    def bucket_url(self) -> str:
        """Return the URL that keys are relative to: gs://bucket or gs://bucket/prefix."""
        return f"gs://{self._name}/{self._prefix}".rstrip("/")

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return (content, version), or None if there is no such key. One request."""
        blob_name = self._blob_name(key)

        def attempt() -> tuple[bytes, int | None]:
            self._count(reads=1)
            blob = self._bucket().blob(blob_name)
            # In one piece, so that nothing is resumed; the generation is that of the answer's header.
            data = blob.download_as_bytes(single_shot_download=True, timeout=self._timeout, retry=None)
            return data, blob.generation

        try:
            data, generation = self._tried(attempt)
        except NotFound as exc:
            if _lacks_bucket(exc):
                raise self._unavailable(blob_name, "read", exc) from exc
            return None
        except _FAILURES as exc:
            raise self._unavailable(blob_name, "read", exc) from exc
        if generation is None:
            raise StoreUnavailable(f"{self._url(blob_name)}: cannot be read: no x-goog-generation came with it")
        return data, str(generation)

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write iff the stored version is `expect` (None = must not exist); return the new version.

        One request, up to 8 MiB.

        Raises:
            VersionConflict: the stored version is another one; of a try without an answer it may be ours.
            StoreUnavailable: written or not, nobody knows.
        """
        blob_name = self._blob_name(key)
        generation = _generation(expect)
        if generation is None:
            raise VersionConflict(f"{key}: version is another one; expected {expect}")

        def attempt() -> str:
            self._count(writes=1)
            blob = self._bucket().blob(blob_name)
            blob.cache_control = "no-store"  # in a public bucket it would be cached for an hour
            blob.upload_from_string(
                data,
                content_type="application/json" if key.endswith(".json") else "application/octet-stream",
                if_generation_match=generation,
                timeout=self._timeout,
                retry=None,
            )  # with a checksum that the service compares: the library's default
            return str(blob.generation)

        try:
            return self._tried(attempt)
        except PreconditionFailed as exc:
            raise VersionConflict(f"{key}: version is another one; expected {expect}") from exc
        except _FAILURES as exc:
            raise self._unavailable(blob_name, "written", exc) from exc

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and are > `start_after`, sorted. One request for 1,000."""
        return (key for key, _ in self._listed(prefix, start_after, "items(name),nextPageToken"))

    def list_dated(self, prefix: str, *, start_after: str = "") -> Iterator[tuple[str, float]]:
        """Yield what `list` does, each with when it was written last, in seconds since the epoch."""
        for key, blob in self._listed(prefix, start_after, "items(name,updated),nextPageToken"):
            yield key, blob.updated.timestamp() if blob.updated is not None else 0.0

    def _listed(self, prefix: str, start_after: str, fields: str) -> Iterator[tuple[str, storage.Blob]]:
        if prefix and not is_key(prefix) and not is_key(f"{prefix}x"):
            return  # no key starts so
        token: str | None = None
        while True:
            blobs, token = self._page(prefix, start_after, token, fields)
            for blob in blobs:
                key = blob.name[len(self._prefix) :]
                if key > start_after and is_key(key):  # the service's start is inclusive; a/ may be a console's folder
                    yield key, blob
            if token is None:
                return

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none."""
        blob_name = self._blob_name(key)

        def attempt() -> None:
            self._count(writes=1)
            self._bucket().blob(blob_name).delete(timeout=self._timeout, retry=None)

        try:
            self._tried(attempt)
        except NotFound as exc:
            if _lacks_bucket(exc):
                raise self._unavailable(blob_name, "deleted", exc) from exc
        except _FAILURES as exc:
            raise self._unavailable(blob_name, "deleted", exc) from exc

    def _page(
        self, prefix: str, start_after: str, token: str | None, fields: str
    ) -> tuple[tuple[storage.Blob, ...], str | None]:
        """Return one page of a listing, and the token of the next page if there is one."""

        def attempt() -> tuple[tuple[storage.Blob, ...], str | None]:
            self._count(reads=1)
            found = self._bucket().list_blobs(
                prefix=self._prefix + prefix,
                start_offset=self._prefix + start_after if start_after else None,
                page_token=token,
                fields=fields,
                timeout=self._timeout,
                retry=None,
            )
            return tuple(next(found.pages, ())), found.next_page_token

        try:
            return self._tried(attempt)
        except _FAILURES as exc:
            raise self._unavailable(self._prefix + prefix, "listed", exc) from exc

    def _tried(self, attempt: Callable[[], T]) -> T:
        wrapped: Callable[[], T] = self._retry(attempt)
        return wrapped()

    def _bucket(self) -> storage.Bucket:
        with self._lock:
            if self._client is None:
                self._client = open_client()
        return self._client.bucket(self._name)

    def _blob_name(self, key: str) -> str:
        check_key(key)
        if self._prefix:
            check_key(self._prefix + key)  # the longest name is that of the whole
        return self._prefix + key

    def _url(self, blob_name: str) -> str:
        return f"gs://{self._name}/{blob_name}"

    def _count(self, *, reads: int = 0, writes: int = 0) -> None:
        with self._counting:
            self.reads += reads
            self.writes += writes

    def _unavailable(self, blob_name: str, verb: str, exc: BaseException) -> StoreUnavailable:
        """Say in our own words that an object could not be `verb` (a participle), and what would help."""
        given_up = ""
        if isinstance(exc, RetryError):
            given_up = f", given up after {self._deadline_s:g} s"
            exc = exc.cause or exc
        if isinstance(exc, GoogleAPICallError):
            reason, remedy = f"{exc.code} {_told(exc)}", _REMEDIES.get(exc.code or 0)
        else:
            reason, remedy = str(exc) or type(exc).__name__, None
        if isinstance(exc, DefaultCredentialsError):
            remedy = "`gcloud auth application-default login` gives a machine its own; an emulator needs none"
        if isinstance(exc, (InvalidSchema, MissingSchema)):
            remedy = "STORAGE_EMULATOR_HOST must be a URL such as http://localhost:9023"
        if remedy is None:
            remedy = "it may have been, all the same" if verb in _WRITING else "what is stored is unchanged"
        return StoreUnavailable(f"{self._url(blob_name)}: cannot be {verb}: {reason}{given_up}; {remedy}")


def open_client() -> storage.Client:
    """Return a client of the application's own credentials, which others share, that many threads can use at once.

    "It is safe to share instances across threads" (python-storage, docs/index.rst). No project is looked for: objects
    are named by their bucket alone.
    """
    is_emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    client = storage.Client(project=None, credentials=None if is_emulated else application_credentials())
    # Else every client asks for the bucket itself once, in a thread of its own, for the sake of traces; our role need
    # not allow that (https://github.com/googleapis/google-cloud-python/issues/17650).
    client._bucket_metadata_cache = None
    transport = client._http  # the way to the connection pool: the library has no option for its size
    if not getattr(transport, "is_mtls", False):  # then it has an adapter of its own
        transport.mount("https://", Connections(MOST))
        transport.mount("http://", HTTPAdapter(pool_maxsize=MOST))
    return client


def _generation(expect: str | None) -> int | None:
    """Return the generation to match, 0 for no object; None where no object can have this version."""
    if expect is None:
        return 0
    is_number = expect.isascii() and expect.isdigit() and not expect.startswith("0")
    return int(expect) if is_number and len(expect) <= 19 and int(expect) <= _LAST_GENERATION else None


def _lacks_bucket(exc: NotFound) -> bool:
    """Whether a 404 is about the bucket. One about the object says: No such object."""
    return "bucket does not exist" in str(exc)


def _told(exc: GoogleAPICallError) -> str:
    """Return what the service itself says, which the library hides between method, URL and raw JSON."""
    text = getattr(exc.response, "text", "") or exc.message
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip().partition("\n")[0]
