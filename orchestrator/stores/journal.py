"""What changed in an object since it was last written as a whole, a record a line. Pure.

An object that can be changed by parts is a JSON object, whose members (name -> JSON) stand a line each in it. A record
holds those that a change has replaced or added:

    <CRC-32, 8 hex digits> <version before> <version> <bytes of what follows> <a JSON object of the members>

Each record's version before is the version of the record in front of it, so what a crash has cut off, and what is left
of an older journal, is told from what counts. A journal goes for the object whose version is the `before` of one of its
records, from there on; what stands in front of that is in the object already.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple
from zlib import crc32

import msgspec

Members = Mapping[str, bytes]
"""Name -> JSON."""

_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode_name = msgspec.json.Encoder().encode


class Record(NamedTuple):
    """One change. `start` and `end` are where it stands in its journal."""

    before: int
    version: int
    members: bytes
    start: int
    end: int


def record(before: int, version: int, members: Members) -> bytes:
    """Return the line of one change."""
    told = encode(members, between=b",")
    line = b"%d %d %d %b" % (before, version, len(told), told)
    return b"%08x %b\n" % (crc32(line), line)


def records(journal: bytes) -> Iterator[Record]:
    """Yield the records of a journal, up to where it was cut off."""
    start, last = 0, None
    while True:
        # 8 of the sum, and at most 20 a version and 10 a size, with a blank behind each
        head = journal[start : start + 62].split(b" ", 4)
        if len(head) < 5:
            return
        try:
            before, version, size = int(head[1]), int(head[2]), int(head[3])
        except ValueError:
            return
        begin = start + sum(map(len, head[:4])) + 4
        end = begin + size + 1
        if size < 0 or journal[end - 1 : end] != b"\n" or last not in (None, before):
            return
        if b"%08x" % crc32(journal[start + len(head[0]) + 1 : end - 1]) != head[0]:
            return
        yield Record(before, version, journal[begin : end - 1], start, end)
        start, last = end, version


def since(version: int, journal: Iterable[Record]) -> list[Record]:
    """Return the records that an object of this version lacks; none, where they are of another object."""
    found: list[Record] = []
    for each in journal:
        if found or each.before == version:
            found.append(each)
    return found


def check_document(where: str, document: bytes) -> None:
    """Raise ValueError unless the content of `where` is a JSON object."""
    _members(where, document)


def encode(members: Members, *, between: bytes = b",\n") -> bytes:
    """Return the JSON object of some members, each on a line of its own."""
    return b"{%b}" % between.join(lines(members).values())


def lines(members: Members) -> dict[str, bytes]:
    """Return the line of each member, as it stands in an object: `"name": JSON`."""
    return {name: b"%b: %b" % (_encode_name(name), value) for name, value in members.items()}


def lines_of(where: str, document: bytes) -> dict[str, bytes]:
    """Return the line of each member of a JSON object. Raises ValueError: the document is none."""
    return lines(_members(where, document))


def of_lines(each: Mapping[str, bytes]) -> bytes:
    """Return the JSON object that is made of such lines."""
    return b"{%b}\n" % b",\n".join(each.values())


def merge(where: str, document: bytes, changes: Iterable[bytes]) -> bytes:
    """Return a JSON object with the members that were replaced or added, a line each.

    What is replaced stays in its place, what is new comes behind. Raises ValueError: the document is no JSON object.
    """
    members = _members(where, document)
    for each in changes:
        members.update(_decoder.decode(each))
    return encode(members) + b"\n"


def _members(where: str, document: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _decoder.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise ValueError(f"{where}: is no JSON object, so that no member of it can be changed: {exc}") from exc
