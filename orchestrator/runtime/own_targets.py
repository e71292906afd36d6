"""Targets with those among them that are the orchestrator's own doing, the same everywhere: Dag and Callback."""

from collections.abc import Callable, Iterator, Mapping
from threading import Lock, Thread

from orchestrator.model.commands import Json, Launch
from orchestrator.model.enums import TargetTypes
from orchestrator.model.errors import BrokerUnavailable
from orchestrator.ports import Broker, Notifier, ObjectStore, Target

_OWN = (TargetTypes.DAG.value, TargetTypes.CALLBACK.value)


class WithOwn(Mapping[str, Target]):
    """Given targets, and the own ones that are not among them, each made and loaded when it is first asked for.

    Args:
        make_child: makes the child run of a launch; see `targets.dag.Make`.
        delivers_here: what is published is delivered in this process, in the publisher's thread.
    """

    def __init__(
        self,
        others: Mapping[str, Target],
        store: ObjectStore,
        broker: Broker,
        notifier: Notifier,
        make_child: Callable[[Launch, str], str],
        *,
        delivers_here: bool,
    ) -> None:
        self._others, self._store, self._broker, self._notifier = others, store, broker, notifier
        self._make_child, self._delivers_here = make_child, delivers_here
        self._lock = Lock()
        self._made: dict[str, Target] = {}

    def __getitem__(self, target_key: str) -> Target:
        if target_key not in _OWN or target_key in self._others:
            return self._others[target_key]
        with self._lock:
            if target_key not in self._made:
                self._made[target_key] = self._make(target_key)
            return self._made[target_key]

    def _make(self, target_key: str) -> Target:
        if target_key == TargetTypes.DAG:
            from orchestrator.targets.dag import DagTarget

            begin = self._begin_apart if self._delivers_here else None
            return DagTarget(self._store, self._broker.publish, self._make_child, begin=begin)
        from orchestrator.targets.callback import CallbackTarget

        return CallbackTarget(self._store, self._notifier)

    def _begin_apart(self, event: Mapping[str, Json]) -> None:
        """Deliver what lets a child run begin in a thread of its own.

        A bus of this process delivers in the publisher's: there a child that ends at once would lead its parent on, and
        that its next child, each further down the stack.
        """
        try:
            Thread(target=self._broker.publish, args=(event,), name="orchestrator-begin", daemon=True).start()
        except RuntimeError as exc:  # the machine has no thread left
            raise BrokerUnavailable(f"a child run cannot be begun now: {exc}") from exc

    def __iter__(self) -> Iterator[str]:
        yield from self._others
        yield from (each for each in _OWN if each not in self._others)

    def __len__(self) -> int:
        return sum(1 for _ in self)
