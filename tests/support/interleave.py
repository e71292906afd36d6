"""All interleavings of handlers that share a store, one after another: each store call waits for its turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Condition, Thread, current_thread


class Schedule:
    """Which waiting handler goes next, at each point where there is a choice."""

    def __init__(self, choices: tuple[int, ...]) -> None:
        self.choices = choices
        self.taken: list[int] = []
        self.widths: list[int] = []

    def choose(self, width: int) -> int:
        place = len(self.taken)
        choice = self.choices[place] if place < len(self.choices) else 0
        self.taken.append(choice)
        self.widths.append(width)
        return choice


def every_schedule(limit: int) -> Iterator[Schedule]:
    """Yield schedules until all have been tried; each must be run before the next is asked for.

    Depth first: the last choice that has an alternative left takes it, and what follows starts anew.
    """
    choices: tuple[int, ...] = ()
    for _ in range(limit):
        schedule = Schedule(choices)
        yield schedule
        taken, widths = schedule.taken, schedule.widths
        while taken and taken[-1] + 1 >= widths[-1]:
            taken.pop()
            widths.pop()
        if not taken:
            return
        choices = (*taken[:-1], taken[-1] + 1)
    raise AssertionError(f"more than {limit} interleavings")


class GatedStore:
    """A store whose calls on run documents, made by handlers that `run` started, happen in a given order."""

    def __init__(self, store: object) -> None:
        self._store = store
        self._turn = Condition()
        self._waiting: dict[str, bool] = {}
        self._gated = False

    def __getattr__(self, name: str) -> object:
        call = getattr(self._store, name)
        if name not in ("get", "put", "change"):
            return call

        def gated(*args: object, **kwargs: object) -> object:
            if self._gated and str(args[0]).startswith("runs/") and current_thread().name in self._names:
                self._wait_for_turn()
            return call(*args, **kwargs)

        return gated

    def _wait_for_turn(self) -> None:
        me = current_thread().name
        with self._turn:
            self._waiting[me] = True
            self._turn.notify_all()
            self._turn.wait_for(lambda: not self._waiting.get(me, False), timeout=60)

    def run(self, schedule: Schedule, handlers: list[Callable[[], object]]) -> None:
        """Run the handlers to their end, interleaved as `schedule` says."""
        errors: list[BaseException] = []

        def body(handler: Callable[[], object]) -> None:
            try:
                handler()
            except BaseException as exc:
                errors.append(exc)
            with self._turn:
                done.add(current_thread().name)
                self._turn.notify_all()

        done: set[str] = set()
        threads = [Thread(target=body, args=(h,), name=f"handler-{i}") for i, h in enumerate(handlers)]
        self._names = {thread.name for thread in threads}
        self._gated = True
        for thread in threads:
            thread.start()
        while True:
            with self._turn:
                self._turn.wait_for(
                    lambda: all(self._waiting.get(name, False) or name in done for name in self._names), timeout=10
                )
                ready = [name for name in sorted(self._names) if self._waiting.get(name, False)]
                if not ready:
                    break
                self._waiting[ready[schedule.choose(len(ready)) if len(ready) > 1 else 0]] = False
                self._turn.notify_all()
        for thread in threads:
            thread.join()
        self._gated = False
        if errors:
            raise errors[0]
