"""ObjectStore in a Redis server: compare-and-swap by a script, which the server runs alone.

Durability is the server's affair. A put is on disk when it returns only with `appendonly yes` and `appendfsync
always`; with `everysec` a crash loses the last second, with snapshots alone the last minutes, and a failover to a
replica what that one had not received. `maxmemory-policy` must be `noeviction`: any other throws runs away.

What lies there, for the prefix `orchestrator`; one hash tag, so that a cluster keeps it all in one slot:

    {orchestrator}:object:<key>   hash: data, version
    {orchestrator}:keys           sorted set of all keys, all of score 0: sorted by their bytes
    {orchestrator}:version        the last version given

A version is a number above every one before, of all keys, and no lower than the server's clock in µs. The first
keeps a key that comes back from reviving its old versions. The second keeps it so if the server itself comes back
with the last writes lost: whoever has read one of those has a version that no new write gets.

redis-py sends a command again if the connection breaks, so a put that was carried out can end in VersionConflict,
as with Cloud Storage: whoever calls loads the object again, and knows its own write by the token in it.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar, cast

from redis import Redis, RedisCluster
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as NoConnection
from redis.retry import Retry

from orchestrator.model.errors import StoreUnavailable, VersionConflict
from orchestrator.stores.keys import check_key, is_key

_PUT = """
local found = redis.call('HGET', KEYS[1], 'version')
if (found and '=' .. found or '') ~= ARGV[1] then
  return {0, found or ''}
end
local time = redis.call('TIME')
local last = tonumber(redis.call('GET', KEYS[3]) or '0')
local version = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
redis.call('SET', KEYS[3], version)
redis.call('HSET', KEYS[1], 'data', ARGV[3], 'version', version)
redis.call('ZADD', KEYS[2], 0, ARGV[2])
return {1, version}
"""
_DELETE = """
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
_PAGE = 1000  # keys asked for at once: a script or another client waits no longer than for that
_TIMEOUT_S = 5.0
_RETRIES = 3  # after a broken connection or no answer: 20 s in all, and not redis-py's minute
_REMEDIES = (
    (AuthenticationError, "the URL must hold the user and password: redis://user:password@host:6379/0"),
    (NoPermissionError, "its user may need +@read +@write +@scripting on ~{prefix}:*"),
    (OutOfMemoryError, "the server must have more memory, or fewer finished runs"),
    (NoConnection, "the server must run and be reachable from here"),
)

T = TypeVar("T")


class RedisStore:
    """One prefix of a Redis database, for any number of threads, processes and machines.

    Args:
        client_or_url: a client that answers in bytes (`decode_responses` off), or a URL: redis://, rediss:// (TLS),
            unix://. Nothing is sent before the first call.
        prefix: what all names in the database start with; another one is another store.
    Raises:
        ValueError: the URL is none of Redis's, or the client or prefix cannot be used.
    """

    def __init__(self, client_or_url: "Redis | RedisCluster | str", *, prefix: str = "orchestrator:") -> None:
        name = prefix.removesuffix(":")
        if not name or set(name) & set("{}"):
            raise ValueError(f"{prefix!r}: cannot be a prefix; allowed is one or more characters, no braces")
        if isinstance(client_or_url, str):
            client: Redis | RedisCluster = Redis.from_url(
                client_or_url,
                socket_timeout=_TIMEOUT_S,
                socket_connect_timeout=_TIMEOUT_S,
                retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), _RETRIES),
            )
        else:
            client = client_or_url
        if client.get_encoder().decode_responses:
            raise ValueError(
                "the Redis client decodes what it reads; objects are bytes, so decode_responses must be off"
            )
        self._client, self._tag = client, f"{{{name}}}"
        self._index, self._last = f"{self._tag}:keys", f"{self._tag}:version"
        self._put, self._delete = client.register_script(_PUT), client.register_script(_DELETE)

    def get(self, key: str) -> tuple[bytes, str] | None:
        """Return (content, version), or None if there is no such key."""
        name = self._name(key)
        found = self._ask(name, "read", lambda: self._client.hmget(name, ["data", "version"]))
        data, version = cast(list[bytes | None], found)
        if data is None or version is None:
            return None
        return data, version.decode()

    def put(self, key: str, data: bytes, *, expect: str | None) -> str:
        """Write iff the stored version is `expect` (None = must not exist); return the new version.

        Raises:
            VersionConflict: the stored version is another one; after a broken connection it may be ours.
            StoreUnavailable: written or not, nobody knows.
        """
        name = self._name(key)
        keys = [name, self._index, self._last]
        arguments: list[str | bytes] = ["" if expect is None else f"={expect}", key, data]
        answer = self._ask(name, "written", lambda: self._put(keys=keys, args=arguments))
        is_written, version = cast(tuple[int, bytes], answer)
        if not is_written:
            raise VersionConflict(f"{key}: version is {version.decode() or None}; expected {expect}")
        return version.decode()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        """Yield the keys that start with `prefix` and are > `start_after`, sorted. One command for 1,000."""
        if prefix and not is_key(prefix) and not is_key(f"{prefix}x"):
            return  # no key starts so
        above = b"[" + prefix.encode() if prefix > start_after else b"(" + start_after.encode()
        below = b"(" + prefix.encode() + b"\xff"  # keys are ASCII
        while True:
            page = cast(list[bytes], self._ask(self._index, "listed", partial(self._page, above, below)))
            yield from (key.decode() for key in page)
            if len(page) < _PAGE:
                return
            above = b"(" + page[-1]

    def delete(self, key: str) -> None:
        """Remove a key; it is no error if there is none."""
        name = self._name(key)
        self._ask(name, "deleted", lambda: self._delete(keys=[name, self._index], args=[key]))

    def _page(self, above: bytes, below: bytes) -> object:
        return self._client.zrangebylex(self._index, above, below, start=0, num=_PAGE)

    def _name(self, key: str) -> str:
        check_key(key)
        return f"{self._tag}:object:{key}"

    def _ask(self, name: str, verb: str, call: Callable[[], T]) -> T:
        try:
            return call()
        except (RedisError, RedisClusterException) as exc:
            remedy = next(
                (text for kind, text in _REMEDIES if isinstance(exc, kind)), "its settings and log may say why"
            )
            told = str(exc) or type(exc).__name__
            raise StoreUnavailable(
                f"Redis {name}: cannot be {verb}: {told}; {remedy.format(prefix=self._tag)}"
            ) from exc
