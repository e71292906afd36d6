"""Overlay: the nodes of a large run, so that a decision about a few of them does not copy them all. Pure."""

from collections.abc import Iterator, Mapping

from orchestrator.model.node_state import NodeState

_FLAT_FROM = 256
"""So many that have changed are copied each time; with more, all are, once."""


class Overlay(Mapping[str, NodeState]):
    """The nodes of a large run, as most of them were and some are now: for less than a copy of all."""

    __slots__ = ("_base", "_changed", "_new")

    def __init__(self, base: Mapping[str, NodeState]) -> None:
        self._base, self._changed, self._new = base, dict[str, NodeState](), dict[str, None]()

    @classmethod
    def of(cls, nodes: Mapping[str, NodeState]) -> "Overlay | dict[str, NodeState]":
        """Return a copy of nodes, to be changed by who makes it and by nobody after that."""
        if isinstance(nodes, cls):
            if len(nodes._changed) > _FLAT_FROM:
                return {**nodes._base, **nodes._changed}
            made = cls(nodes._base)
            made._changed, made._new = dict(nodes._changed), dict(nodes._new)
            return made
        return cls(nodes)

    def __setitem__(self, name: str, node: NodeState) -> None:
        self._changed[name] = node
        if name not in self._base:
            self._new[name] = None

    def __getitem__(self, name: str) -> NodeState:
        found = self._changed.get(name)
        return self._base[name] if found is None else found

    def get(self, name: str, default: NodeState | None = None) -> NodeState | None:  # type: ignore[override]  # theirs are overloads
        """As of any mapping."""
        found = self._changed.get(name)
        return self._base.get(name, default) if found is None else found

    def __contains__(self, name: object) -> bool:
        return name in self._changed or name in self._base

    def __iter__(self) -> Iterator[str]:
        yield from self._base
        yield from self._new

    def __len__(self) -> int:
        return len(self._base) + len(self._new)
