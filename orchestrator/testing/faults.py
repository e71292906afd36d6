"""What may go wrong between a publisher and the orchestrator."""

from dataclasses import dataclass
from random import Random

from orchestrator.model.durations import parse_duration


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely it is that an event is lost, delivered twice or late; each drawn for itself, by the simulation's seed.

    Attributes:
        lost: from 0 to 1: it is never delivered. What it told, a Tick finds out.
        twice: from 0 to 1: it is delivered once more.
        late: from 0 to 1: a delivery comes late, by up to `late_by`.
        late_by: a duration as in "10m".
    """

    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    late_by: str = "10m"

    def __post_init__(self) -> None:
        for name, share in (("lost", self.lost), ("twice", self.twice), ("late", self.late)):
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"Faults.{name}: is {share}; allowed: from 0 to 1")
        parse_duration(self.late_by)

    def delays(self, random: Random) -> list[float]:
        """Draw how often an event is delivered, and how many seconds late each time."""
        if self == _NONE:
            return [0.0]
        if random.random() < self.lost:
            return []
        copies = 2 if random.random() < self.twice else 1
        most_s = parse_duration(self.late_by)
        return [random.uniform(0.0, most_s) if random.random() < self.late else 0.0 for _ in range(copies)]


_NONE = Faults()
