"""Saved: what one save made of a run, for those who are told of it (logs, traces, whoever waits)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.engine.address import Completion, Item, Start
from orchestrator.engine.notifying import has_ended
from orchestrator.model.node_state import NodeState
from orchestrator.model.run_state import RunState


@dataclass(frozen=True, slots=True)
class Saved:
    """One save of a run by this instance.

    Attributes:
        before: the run as it was; None where this save made it, or where that is not known any more.
        after: the run as it was saved.
        items: the events that were folded into it.
        touched: names of the nodes that may have changed by it; None where all may.
    """

    before: RunState | None
    after: RunState
    items: tuple[Item, ...] = ()
    touched: tuple[str, ...] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether the run came to its end by this save, or to another one after a redrive."""
        return has_ended(self.before, self.after.run)

    @property
    def is_redriven(self) -> bool:
        """Whether the run goes on by this save after it had ended."""
        return self.before is not None and self.before.run.redrives < self.after.run.redrives

    def changed(self) -> Iterator[tuple[NodeState | None, NodeState]]:
        """Yield the nodes that this save changed, as they were and as they are, in the order in which they came to."""
        before: Mapping[str, NodeState] = self.before.nodes if self.before is not None else {}
        for name in self.after.nodes if self.touched is None else self.touched:
            was, node = before.get(name), self.after.nodes[name]
            if was is not node:
                yield was, node

    def event_id(self, node_name: str | None = None) -> str | None:
        """Message id of the event that told of this node; of the only event, where there was one."""
        ids = {_node(item): message_id for item in self.items if (message_id := _message_id(item)) is not None}
        if node_name in ids:
            return ids[node_name]
        return next(iter(ids.values())) if len(ids) == 1 else None


def _node(item: Item) -> str | None:
    return item.node_name if isinstance(item, Completion) else None


def _message_id(item: Item) -> str | None:
    if isinstance(item, Completion):
        return item.event.message_id
    return item.message_id if isinstance(item, Start) else None
