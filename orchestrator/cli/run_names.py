"""The ids of a bucket's runs, newest first, without listing all of them.

An id that was not chosen has the second of its start in it, `run_<10 digits>_<12 hex>`, so that a listing from some
second on holds what is newer: it is asked for ever longer times back, until whoever asks has enough. Ids that were
chosen do not sort by time. They are listed, apart from the others, with the times at which they were written last.
Where there are many runs, one that was chosen and begins with `run_` and a digit is found where it sorts.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice, takewhile

from orchestrator.engine.status import MARKERS, run_of
from orchestrator.model.ids import RUN_ID
from orchestrator.ports import Dated, ObjectStore, Timed

PREFIX, SUFFIX = "runs/", ".json"
_OURS = re.compile(r"run_(\d{10})_[0-9a-f]{12}")

_PAGE = 1000
"""What one request lists at the most: with fewer runs than that, one request is enough."""

_FIRST_S, _LONGER = 600, 8
"""How far the first of these listings goes back, and how many times as far each further one."""

_FIRST_OURS, _AFTER_OURS = f"{PREFIX}run_0", f"{PREFIX}run_:"


class RunNames:
    """What there is in a bucket, as it was when it was asked.

    Args:
        now_s, since_s: seconds since the epoch; runs that began before `since_s` need not be found.
    """

    def __init__(self, store: ObjectStore, now_s: float, since_s: float = 0.0) -> None:
        self._store, self._timed = store, store if isinstance(store, Timed) else None
        self._now_s, self._since_s = int(now_s), max(0, int(since_s))
        self._written: dict[str, float] = {}
        listing = self._list()
        first = list(islice(listing, _PAGE))
        self._all = first if len(first) < _PAGE else None
        """Every key, where there are few."""
        self._chosen = self._found_chosen(first, listing)

    def ours(self) -> Iterator[str]:
        """Yield the ids that were not chosen, newest first."""
        if self._all is not None:
            yield from (run_id for run_id in self._newest_first(self._all) if _OURS.fullmatch(run_id))
            return
        lower, span_s, until = self._now_s, _FIRST_S, _AFTER_OURS
        while until > _FIRST_OURS:
            lower = max(self._since_s, lower - span_s)
            after = f"{PREFIX}run_{lower:010}" if lower else _FIRST_OURS
            yield from self._newest_first(self._between(after, until))
            if lower <= self._since_s:
                return
            until, span_s = after, span_s * _LONGER

    def chosen(self) -> list[tuple[float | None, str]]:
        """Return (when it was written last, id) of those that were chosen; newest first, where that is known."""
        return self._newest((self._written_at(f"{PREFIX}{run_id}{SUFFIX}"), run_id) for run_id in self._chosen)

    def written_late(self) -> list[tuple[float | None, str]]:
        """Return (when it was written last, id) of those that were not chosen, newest first; none where there are many.

        So one is found whose id is of a time long before its start, as that of a backfill which has ended.
        """
        ours = ((key, run_id) for key in self._all or () if (run_id := run_id_in(key)) and _OURS.fullmatch(run_id))
        dated = ((self._written_at(key), run_id) for key, run_id in ours)
        return self._newest(each for each in dated if each[0] is not None)

    def open_ones(self) -> list[tuple[float | None, str]]:
        """Return (when its marker was written last, id) of the runs that have one; newest first, likewise.

        A run's id may be of a time long before its start: as that of a backfill.
        """
        found: dict[str, float | None] = {}
        for key, written_s in self._markers():
            run_id = run_of(key)
            before = found.get(run_id)
            found[run_id] = written_s if before is None or written_s is None else max(before, written_s)
        return self._newest((written_s, run_id) for run_id, written_s in found.items())

    def _markers(self) -> Iterator[tuple[str, float | None]]:
        if isinstance(self._store, Dated):
            yield from self._store.list_dated(MARKERS)
            return
        for key in self._store.list(MARKERS):
            yield key, self._written_at(key)

    def _newest(self, dated: Iterable[tuple[float | None, str]]) -> list[tuple[float | None, str]]:
        meant = [each for each in dated if each[0] is None or each[0] >= self._since_s]
        return sorted(meant, key=lambda each: (each[0] is None, each[0] or 0.0, each[1]), reverse=True)

    def _list(self, start_after: str = "") -> Iterator[str]:
        """List keys; note when each was written, where the store says that."""
        if not isinstance(self._store, Dated):
            yield from self._store.list(PREFIX, start_after=start_after)
            return
        for key, written_s in self._store.list_dated(PREFIX, start_after=start_after):
            self._written[key] = written_s
            yield key

    def _between(self, after: str, until: str) -> list[str]:
        """Return the keys from one on to another, sorted."""
        return list(takewhile(lambda key: key < until, self._store.list(f"{PREFIX}run_", start_after=after)))

    def _found_chosen(self, first: list[str], rest: Iterator[str]) -> list[str]:
        """Return the ids that were chosen; of many runs, those that sort before or after all others."""
        if self._all is not None:
            ids = (run_id_in(key) for key in first)
            return [run_id for run_id in ids if run_id is not None and not _OURS.fullmatch(run_id)]
        before = takewhile(lambda key: key < _FIRST_OURS, chain(first, rest))
        found = chain(before, self._list(_AFTER_OURS))
        return [run_id for key in found if (run_id := run_id_in(key)) is not None]

    def _newest_first(self, keys: list[str]) -> Iterator[str]:
        """Yield the ids among sorted keys, the last first, but for those that tell that they are too old."""
        for key in reversed(keys):
            run_id = run_id_in(key)
            match = _OURS.fullmatch(run_id) if run_id is not None else None
            if run_id is not None and (match is None or int(match[1]) >= self._since_s):
                yield run_id

    def _written_at(self, key: str) -> float | None:
        return self._written.get(key) if self._timed is None else self._timed.written_at(key)


def run_id_in(key: str) -> str | None:
    """Return the run whose document is at a key; None where it is no run's."""
    run_id = key.removeprefix(PREFIX).removesuffix(SUFFIX)
    return run_id if key.endswith(SUFFIX) and RUN_ID.fullmatch(run_id) else None
