"""What user functions left of themselves in the bucket, by `orchestrator.tasks`; most useful where the
target has no outcome of its own, and where a result is larger than an answer or a log line may be."""

from orchestrator.model.commands import Outcome
from orchestrator.model.errors import NotYet
from orchestrator.model.task_result import CONFLICT, begun_at, begun_object, decode, result_object
from orchestrator.ports import ObjectStore


class Results:
    """The results of launches, by their keys. Only functions that use the helper have any."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def outcome(self, key: str) -> Outcome | None:
        """Return how the launch's call ended, None while nothing is written. Raises CorruptState.

        Final: a result is never written twice.
        """
        name = result_object(key)
        found = self._store.get(name)
        return None if found is None else decode(found[0], name).outcome

    def is_begun(self, key: str) -> bool:
        """Whether the function has begun to run for this launch, or has run."""
        return self._store.get(begun_object(key)) is not None

    def told(self, key: str, verdict: Outcome) -> Outcome:
        """Return how the launch's call ended, of which its own event tells `verdict`: what the function left counts.

        The helper answers 2xx only when its result is written, so without one a function that completed does not
        use it; one that failed was killed at work, or does not use it either. But its 409 says that an earlier
        call of this launch was begun: that call's end is awaited.

        Raises:
            NotYet: an earlier call has begun and left no result.
            CorruptState: its result is spoilt.
        """
        is_refused = verdict.error is not None and verdict.error.error_type == CONFLICT
        found = self.ask(key) if is_refused else self.outcome(key)
        return found or verdict

    def ask(self, key: str) -> Outcome | None:
        """Return how the launch's call ended, None where the function left nothing: it does not use the helper,
        or was never called.

        Raises:
            NotYet: it has begun and left no result: it is at work, or was killed at it.
            CorruptState: its result is spoilt.
        """
        outcome = self.outcome(key)
        if outcome is not None:
            return outcome
        begun = self._store.get(begun_object(key))
        if begun is not None:
            message = f"{begun_object(key)}: is there and {result_object(key)} is not: still at work"
            raise NotYet(message, begun_at(begun[0]))
        return None
