"""Execution records, written at once or a little later, off the critical path."""

import logging
from queue import SimpleQueue
from threading import Event, Lock, Thread

from orchestrator.engine.status import ExecutionStatus
from orchestrator.model.execution import ExecutionRecord

log = logging.getLogger("orchestrator")

_REST_S = 0.05
"""How long the writer rests: woken by each record, it would fight for the interpreter with those who make them."""


class Records:
    """Writes execution records. They can be rebuilt, so that a failure is no more than logged."""

    def __init__(self, executions: ExecutionStatus) -> None:
        self._executions = executions
        self._queue = SimpleQueue[ExecutionRecord | None]()
        self._lock = Lock()
        self._writer: Thread | None = None
        self._is_closed, self._closing = False, Event()

    def write(self, record: ExecutionRecord) -> None:
        """Write a record now."""
        try:
            self._executions.save_execution(record)
        except Exception as exc:
            labels = {"run_id": record.run_id, "node": record.node_name, "attempt": record.attempt}
            log.warning("cannot record an execution: %s", exc, extra=labels)

    def write_later(self, record: ExecutionRecord) -> None:
        """Have a record written soon, by a thread of its own."""
        self._queue.put(record)
        if self._writer is None:
            with self._lock:
                if self._writer is None and not self._is_closed:
                    self._writer = Thread(target=self._run, name="orchestrator-records", daemon=True)
                    self._writer.start()

    def close(self) -> None:
        """Write what waits, and stop."""
        with self._lock:
            self._is_closed = True
            writer = self._writer
        if writer is not None:
            self._queue.put(None)
            self._closing.set()
            writer.join(timeout=30.0)

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            self.write(record)
            if self._queue.empty():
                self._closing.wait(_REST_S)
