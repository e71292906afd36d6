"""Which names an object may have, for every store alike. Pure."""

import re

_SEGMENT = r"[A-Za-z0-9_$\[\]-][A-Za-z0-9._$\[\]-]{0,254}"
_KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_LONGEST = 1024
"""Bytes in a whole key, as Cloud Storage has it. All characters that a key may hold are one byte."""


def is_key(text: str) -> bool:
    """Say whether `text` may name an object."""
    return _KEY.fullmatch(text) is not None and len(text) <= _LONGEST


def check_key(key: str) -> None:
    """Raise ValueError unless `key` may name an object."""
    if not is_key(key):
        raise ValueError(
            f"{key!r}: cannot name an object; allowed are {_LONGEST} characters in segments separated by /, "
            "each 1 to 255 of [A-Za-z0-9._$[]-], the first of them no dot"
        )
