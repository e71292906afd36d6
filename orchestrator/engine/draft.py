"""Draft: a run under decision, and the small words that all parts of the decision share. Pure.

    decide -> joining, starting -> attempts -> ending -> draft

`decide` applies facts, `starting` starts nodes by their type, `attempts` launches Tasks and gives them up, `ending`
writes ends and says what follows, `joining` does so where steps depend on others. What is to start next waits in
the draft, so that none of them calls upwards.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from orchestrator.model.commands import EMPTY, Command, Failure, Launch, Remind
from orchestrator.model.dag import DAG
from orchestrator.model.enums import RunStatus, TaskStatus
from orchestrator.model.ids import beside
from orchestrator.model.nodes import Graph, Task
from orchestrator.model.policy import Policy
from orchestrator.model.run_state import Held, NodeState, RunInfo, RunState

NO_TIMES: Mapping[str, datetime] = {}


@dataclass(frozen=True, slots=True)
class Token:
    """What makes the claims of one save its own; minted by the shell for every try at a save.

    owner: `<instance>.<16 hex>`, unique to the save.
    seed: 32 random bytes, from which the nonces of its launches come.
    """

    owner: str
    seed: bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """The run as it is to be saved (the same object if nothing changed) and what to do then."""

    state: RunState | None
    commands: tuple[Command, ...]
    changed: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """The steps of a graph that have not ended, and those that have not completed: Failed or Cancelled, and Skipped."""

    open: set[str]
    failed: set[str]
    skipped: set[str]


class Draft:
    """The only thing that changes in a decision, and it never leaves one.

    Attributes:
        run, nodes: the run as it is by now; `run` is None before it has started.
        commands: what its save entitles to.
        entering: entries that are to start, in their order, and each one's `caught`.
        stopping: Parallels in which everything is to be stopped (None: the whole run), and why.
        joining: graphs in which steps depend on others (and which instance of each) -> their steps that have ended, and
            whose followers have not been looked at.
        progress: of those that were looked at, how their steps stood then.
    """

    def __init__(self, dag: DAG, state: RunState | None, now: datetime, token: Token, policy: Policy) -> None:
        self.dag, self.now, self.token, self.policy = dag, now, token, policy
        self._before = state
        self.run: RunInfo | None = state.run if state else None
        self.nodes: Mapping[str, NodeState] = state.nodes if state else {}
        self._own: dict[str, NodeState] | None = None
        self.commands: list[Command] = []
        self.entering = deque[tuple[str, str | None]]()
        self.stopping = deque[tuple[str | None, Failure]]()
        self.joining: dict[tuple[Graph, str], list[str]] = {}
        self.progress: dict[tuple[Graph, str], Progress] = {}

    def decision(self) -> Decision:
        """What has come of it."""
        if self.run is None or self._own is None:
            return Decision(self._before, (), False)
        return Decision(RunState(self.run, self._own), tuple(self.commands), True)

    @property
    def info(self) -> RunInfo:
        """The run, which has started."""
        if self.run is None:
            raise LookupError("there is no run to decide on")
        return self.run

    def parent_of(self, node_name: str) -> NodeState | None:
        """The entry of the Parallel around an entry; None where there is none."""
        parent = self.dag.place(node_name).parent_dag.parent_node
        return None if parent is None else self.nodes[beside(node_name, parent.node_name)]

    def stopped(self, node_name: str) -> Failure | None:
        """Why nothing is started any more where an entry is; None where things are."""
        stop = self.info.stop if self.info.ending is None else None
        parent = self.parent_of(node_name) if stop is None else None
        while stop is None and parent is not None:
            stop = parent.stop
            parent = self.parent_of(parent.node_name)
        return stop

    @property
    def is_paused(self) -> bool:
        """Whether nothing is started for now."""
        return self.run is not None and self.run.status is RunStatus.PAUSED

    def hold(self, node_name: str, caught: str | None) -> None:
        """Keep an entry that is to start in the run, until that is resumed."""
        self.change_run(replace(self.info, held=(*self.info.held, Held(node_name, caught))))

    def begin(self, run: RunInfo, nodes: Iterable[NodeState]) -> None:
        """Make a run that there is not yet."""
        self.run = run
        self.nodes = self._own = {node.node_name: node for node in nodes}

    def put(self, node: NodeState) -> None:
        """Change a node."""
        self._owned()[node.node_name] = node

    def change_run(self, run: RunInfo) -> None:
        """Change the run itself."""
        self.run = run
        self._owned()

    def _owned(self) -> dict[str, NodeState]:
        if self._own is None:
            self.nodes = self._own = dict(self.nodes)
        return self._own

    def current(self, node_name: str, attempt: int) -> NodeState | None:
        """The node, if this attempt of it is the one that is Running."""
        node = self.nodes.get(node_name)
        if node is None or node.status is not TaskStatus.RUNNING or node.attempt != attempt or not attempt:
            return None
        return node

    def task(self, node: NodeState) -> Task:
        """The Task that a node with a claim is."""
        place = self.dag.place(node.node_name)
        if not isinstance(place, Task):
            raise LookupError(f"{node.node_name}: has a claim but is no Task")
        return place

    def wait_until(self, node: NodeState, kind: str, at: datetime) -> None:
        """Write that something is due at a node, and have it be reminded of."""
        self.put(replace(node, due={**node.due, kind: at}))
        self.remind(node, kind, at)

    def remind(self, node: NodeState, kind: str, at: datetime) -> None:
        """Have the run be told when something is due at a node."""
        self.commands.append(Remind(self.info.run_id, node.node_name, node.attempt, kind, at))

    def tell_parent(self) -> None:
        """Have the parent of a child run ask about it soon; should that be lost, its Tick asks."""
        parent = self.info.parent
        if parent is None:
            return
        asking = Remind(parent.run_id, parent.node, parent.attempt, None, self.now)
        if asking not in self.commands:
            self.commands.append(asking)

    def claims(self, node: NodeState) -> bool:
        """Whether this very save claims the node's attempt, so that nothing of it can run."""
        if node.claim is None or node.claim.owner != self.token.owner or node.claim.takeovers:
            return False
        return any(isinstance(x, Launch) and x.node_name == node.node_name for x in self.commands)

    def withdraw(self, node: NodeState) -> None:
        """Take back the launch of an attempt that this very save claims, and now is dead."""
        if node.claim is not None and node.claim.owner == self.token.owner:
            self.commands = [x for x in self.commands if not (isinstance(x, Launch) and x.node_name == node.node_name)]


def bare_launch(dag: DAG, run: RunInfo, node: NodeState) -> Launch:
    """Return the launch of a node's current attempt as far as `find` and `cancel` need it: no parameters."""
    place = dag.find_place(node.node_name)
    claim = node.claim
    return Launch(
        node.node_name,
        node.target_type or "",
        node.target_name or "",
        step=place.execute()[0].step if isinstance(place, Task) else EMPTY,
        dag=run.dag,
        run_id=run.run_id,
        attempt=node.attempt,
        nonce=claim.nonce if claim else "",
        owner=claim.owner if claim else "",
        lease_end=claim.lease_end if claim else None,
        trace=claim.trace if claim else "",
        started_at=node.started_at,
    )
