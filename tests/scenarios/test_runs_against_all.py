"""`orchestrator runs` against a naive reading of every document: the same runs in the same order.

As in real buckets, what is open has a marker, and nothing was written before it began. No chosen id begins with `run_`
and a digit, and no run that has ended was one of a backfill: of many runs, such a one is found where its id sorts.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.cli import run_names
from orchestrator.cli.bucket import Bucket
from orchestrator.cli.runs import Filter, newest
from orchestrator.model.enums import RunStatus
from orchestrator.model.run_document import decode_run, encode
from orchestrator.model.run_state import ParentRun, RunInfo, RunState
from orchestrator.stores.local import LocalStore
from orchestrator.stores.memory import MemoryStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATUSES = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.QUEUED)


class DatedStore(MemoryStore):
    """Tells when each was written, as Cloud Storage does."""

    def __init__(self) -> None:
        super().__init__()
        self.written = {}

    def list_dated(self, prefix, *, start_after=""):
        return ((key, self.written[key]) for key in self.list(prefix, start_after=start_after))


@st.composite
def documents(draw, backfills_end):
    """Runs of a bucket: (document, when it was written last)."""
    found, taken = [], set()
    for number in range(draw(st.integers(0, 40))):
        kind = draw(st.sampled_from(("ours", "ours", "ours", "chosen", "backfill", "child")))
        started_at = NOW - timedelta(seconds=draw(st.one_of(st.integers(-50, 5), st.integers(0, 10**6))))
        status = draw(st.sampled_from(STATUSES))
        id_at = started_at
        if kind == "backfill":
            id_at -= timedelta(days=draw(st.integers(0, 2000)))
            if id_at < started_at and not backfills_end:
                status = draw(st.sampled_from(STATUSES[2:]))
        run_id = f"run_{int(id_at.timestamp())}_{draw(st.integers(0, 15)):012x}"
        if kind == "chosen":
            run_id = draw(st.sampled_from(("A", "a", "run-", "run_x", "runs", "zed"))) + str(number)
        if run_id in taken:
            continue
        taken.add(run_id)
        ended_at = started_at + timedelta(seconds=draw(st.integers(0, 900))) if status.is_final else None
        parent = ParentRun("root", "step", 1) if kind == "child" else None
        info = RunInfo(
            format=1, run_id=run_id, dag=draw(st.sampled_from("de")), definition="sha256:0", status=status, input={},
            started_at=started_at + timedelta(microseconds=draw(st.sampled_from((0, 1, 500_000)))),
            ended_at=ended_at, parent=parent,
        )  # fmt: skip
        written_at = (ended_at or info.started_at) + timedelta(seconds=1)
        found.append((info, written_at))
    return found


@st.composite
def questions(draw):
    """(limit, filter, since)."""
    statuses = frozenset(draw(st.sets(st.sampled_from(STATUSES), max_size=2)))
    since = draw(st.one_of(st.none(), st.integers(0, 10**6)))
    wanted = Filter(draw(st.sampled_from((None, None, "d"))), statuses, has_children=draw(st.booleans()))
    return draw(st.sampled_from((1, 2, 5, 20))), wanted, None if since is None else NOW - timedelta(seconds=since)


def naive(store, limit, wanted, since):
    """Read all, leave out, sort, cut."""
    every = [decode_run(store.get(key)[0], key) for key in store.list("runs/")]
    meant = [run for run in every if wanted.meets(run) and (since is None or run.started_at >= since)]
    order = sorted(meant, key=lambda run: (run.started_at, run.run_id), reverse=True)
    shown = [run for run in order if not wanted.leaves_out(run)]
    return [run.run_id for run in shown[:limit]], len(shown) > limit


@pytest.mark.parametrize("kind", ["memory", "dated", "directory"])
@pytest.mark.parametrize("page", [5, 1000])
def test_the_list_is_that_of_who_reads_every_document(monkeypatch, kind, page):
    monkeypatch.setattr(run_names, "_PAGE", page)

    @settings(max_examples=40, deadline=None)
    @given(documents(backfills_end=page == 1000 and kind != "memory"), questions())
    def check(docs, asked):
        limit, wanted, since = asked
        with TemporaryDirectory() as folder:
            store = {"memory": MemoryStore, "dated": DatedStore, "directory": lambda: LocalStore(Path(folder))}[kind]()
            for info, written_at in docs:
                written = {f"runs/{info.run_id}.json": (encode(RunState(info, {})), written_at)}
                if not info.status.is_final:
                    written[f"open/{info.run_id}"] = (b"", info.started_at + timedelta(milliseconds=20))
                for key, (content, at) in written.items():
                    store.put(key, content, expect=None)
                    if kind == "dated":
                        store.written[key] = at.timestamp()
                    if kind == "directory":
                        os.utime(Path(folder) / key, times=(at.timestamp(),) * 2)
            found, _, are_more = newest(Bucket("gs://b", store), limit, wanted, NOW, since)
            assert ([entry.run_id for entry in found], are_more) == naive(store, limit, wanted, since)

    check()
