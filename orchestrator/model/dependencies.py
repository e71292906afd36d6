"""What waits for what among the steps of one graph in which some depend on others. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.model.fixed import Fixed


class Dependencies(Fixed):
    """The ways and dependencies of one graph, seen from both ends.

    Attributes:
        followers: name -> the steps that wait for this one, in definition order: its ways lead to them, or they depend
            on it.
        awaited: name -> the steps that a step waits for: those that it depends on, else those with a way to it. The
            steps that a graph starts with have no entry.
        rank: name -> which step it is in definition order, from 0.
    """

    def __init__(self, steps: Mapping[str, tuple[Iterable[str], Sequence[str]]]) -> None:
        """Take name -> (the steps that its ways lead to, the steps that it depends on), in definition order."""
        awaited: dict[str, set[str]] = {}
        for name, (ways, depends_on) in steps.items():
            for other in ways:
                awaited.setdefault(other, set()).add(name)
            if depends_on:
                awaited.setdefault(name, set()).update(depends_on)
        self.rank: Mapping[str, int] = {name: rank for rank, name in enumerate(steps)}
        followers: dict[str, list[str]] = {name: [] for name in steps}
        for name in steps:
            for other in awaited.get(name, ()):
                followers[other].append(name)
        self.followers: Mapping[str, tuple[str, ...]] = {name: tuple(names) for name, names in followers.items()}
        self.awaited: Mapping[str, frozenset[str]] = {name: frozenset(names) for name, names in awaited.items()}
